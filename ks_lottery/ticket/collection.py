"""Which tickets of a base model the Hugging Face Hub has."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ks_lottery.checkpoints.hub_errors import hub_errors
from ks_lottery.ticket.card import LIBRARY_TAG


@dataclass(frozen=True)
class ListedTicket:
    """A repository that says of itself that it holds a ticket of a base model.

    Attributes:
        repo_id: "user/name".
        library: "peft" where a tuned adapter lies beside the ticket, "ks_lottery" where the ticket is alone.
        updated: day of the last commit ("2026-05-31"), or None if the Hub does not say.
        downloads: of the last 30 days, or None.
        likes: or None.
        private: whether only some can see it.
        tags: as the Hub lists them.
    """

    repo_id: str
    library: str | None
    updated: str | None
    downloads: int | None
    likes: int | None
    private: bool
    tags: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON values by field."""
        return {**asdict(self), "tags": list(self.tags)}


def list_tickets(base_model: str, limit: int | None = None) -> Sequence[ListedTicket]:
    """List the tickets of a base model, those with the most downloads first.

    The Hub filters by the metadata of model cards: `base_model`, and the tag that every card of this library has. What
    you may not see is not listed.

    Args:
        base_model: Hub id, as the cards name it.
        limit: at most so many; all if None.

    Raises:
        HubError: if the Hub refuses or cannot be reached.
    """
    from huggingface_hub import HfApi

    with hub_errors(f"list the tickets of {base_model!r}"):
        found = list(
            HfApi().list_models(
                filter=[f"base_model:{base_model}", LIBRARY_TAG], sort="downloads", limit=limit, full=True
            )
        )
    return [
        ListedTicket(
            repo_id=model.id,
            library=model.library_name,
            updated=None if model.last_modified is None else model.last_modified.date().isoformat(),
            downloads=model.downloads,
            likes=model.likes,
            private=bool(model.private),
            tags=tuple(model.tags or ()),
        )
        for model in found
    ]
