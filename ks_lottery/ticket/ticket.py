"""The ticket: which units of which base model were chosen, and how. Positions and provenance, never weights."""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ks_lottery.errors import LotteryError, OptionError, TicketError
from ks_lottery.ticket.algebra import combine, jaccard
from ks_lottery.ticket.card import ticket_card
from ks_lottery.ticket.hub import pull_ticket_file, push_folder
from ks_lottery.ticket.identity import BaseIdentity
from ks_lottery.ticket.store import read_ticket_file, ticket_file, write_ticket_file
from ks_lottery.ticket.summary import ticket_summary
from ks_lottery.units.slab import UnitGroup

if TYPE_CHECKING:
    import torch

Kind = Literal["update", "weight"]


@dataclass(frozen=True, eq=False)
class Selection:
    """The chosen units of one group.

    Attributes:
        group: the units that competed.
        indices: [k] int64, sorted, unique, read-only; the chosen units.
        columns: what was measured of each chosen unit, name to [k] float64 in the order of `indices`
            ("statistic", "log_p", "shift", ...). Shown to people; no part of the fingerprint.

    Raises:
        TicketError: if an index is outside the group or stands twice.
    """

    group: UnitGroup
    indices: np.ndarray
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        given = np.asarray(self.indices, dtype=np.int64).reshape(-1)
        order = np.argsort(given, kind="stable")
        indices = given[order]
        if len(indices) and (indices[0] < 0 or indices[-1] >= self.group.num_units):
            wrong = indices[0] if indices[0] < 0 else indices[-1]
            raise TicketError(
                f"Unit {wrong} is not in group {self.group.name!r}, which has units 0 to {self.group.num_units - 1}."
            )
        repeated = indices[1:][indices[1:] == indices[:-1]]
        if len(repeated):
            raise TicketError(f"Unit {repeated[0]} of group {self.group.name!r} is selected twice; give each once.")
        indices.flags.writeable = False
        object.__setattr__(self, "indices", indices)
        columns = {name: np.asarray(values, dtype=np.float64)[order] for name, values in self.columns.items()}
        object.__setattr__(self, "columns", columns)

    def __len__(self) -> int:
        return len(self.indices)


@dataclass(frozen=True)
class Provenance:
    """Where a ticket comes from.

    Attributes:
        method: the finder's, control's or operation's name.
        details: JSON values that tell how: options, selector, alpha, names of before and after, seeds.
    """

    method: str
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Ticket:
    """A set of selected units of one base model.

    Two tickets are equal if their fingerprints are: same kind, granularity, base model and units. Provenance and
    measured columns do not count.

    Attributes:
        kind: "update": what is not selected keeps its pretrained value; "weight": what is not selected is zero.
        granularity: registered name of the units ("token_rows").
        selections: group name to selection.
        base: which model the positions belong to.
        provenance: how they were chosen.

    Raises:
        TicketError: if no unit at all is selected.
    """

    kind: Kind
    granularity: str
    selections: Mapping[str, Selection]
    base: BaseIdentity
    provenance: Provenance

    def __post_init__(self) -> None:
        if self.kind not in ("update", "weight"):
            raise OptionError(f"Ticket kind {self.kind!r}: must be 'update' or 'weight'.")
        if not any(len(selection) for selection in self.selections.values()):
            raise TicketError(
                f"The ticket selects none of {sum(s.group.num_units for s in self.selections.values())} units "
                f"({self.provenance.method}). Loosen the selector (a larger alpha, k or density)."
            )

    @cached_property
    def fingerprint(self) -> str:
        """Hex SHA-256 of the selection and of the base model it belongs to; the same on every machine."""
        groups = [
            {**selection.group.to_dict(), "indices": selection.indices.tolist()}
            for _, selection in sorted(self.selections.items())
        ]
        content = {
            "kind": self.kind, "granularity": self.granularity, "groups": groups, "base": self.base.digest
        }  # fmt: skip
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ticket) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __len__(self) -> int:
        """Number of selected units over all groups."""
        return sum(len(selection) for selection in self.selections.values())

    def __repr__(self) -> str:
        counts = ", ".join(f"{name}: {len(s)} of {s.group.num_units}" for name, s in self.selections.items())
        return (
            f"Ticket({self.kind}, {self.granularity}, {counts}, by {self.provenance.method}, {self.fingerprint[:12]})"
        )

    @property
    def indices(self) -> Mapping[str, np.ndarray]:
        """Group name to [k] int64 sorted selected units."""
        return {name: selection.indices for name, selection in self.selections.items()}

    def num_trainable(self) -> int:
        """Number of single weights that the ticket owns."""
        return sum(
            len(selection) * selection.group.weights_per_unit(self.base.shapes)
            for selection in self.selections.values()
        )

    def density(self, scope: Literal["units", "model"] = "units") -> float:
        """Share of weights that the ticket owns.

        Args:
            scope: of all weights in the ticket's unit groups, or of the whole base model.
        """
        if scope == "model":
            return self.num_trainable() / self.base.num_parameters
        if scope != "units":
            raise OptionError(f"density(scope={scope!r}): must be 'units' or 'model'.")
        total = sum(s.group.num_units * s.group.weights_per_unit(self.base.shapes) for s in self.selections.values())
        return self.num_trainable() / total

    def masks(self) -> "dict[str, torch.Tensor]":
        """Boolean masks of the touched parameters, True where a weight belongs to the ticket.

        Returns:
            parameter name to bool tensor of the parameter's shape, on the CPU.

        Cost:
            One byte per weight of the touched parameters: for looking and testing, never needed to train.
        """
        import torch

        masks: dict[str, torch.Tensor] = {}
        for selection in self.selections.values():
            for slab in selection.group.slabs:
                mask = masks.setdefault(slab.parameter, torch.zeros(self.base.shapes[slab.parameter], dtype=torch.bool))
                slab.fill(mask, selection.indices, True)
        return masks

    def same_units(self, other: "Ticket") -> None:
        """Check that the other ticket chooses among the same units of the same base model.

        Raises:
            TicketError: if kind, granularity, groups or base differ; the message says which.
        """
        for what in ("kind", "granularity"):
            if getattr(self, what) != getattr(other, what):
                raise TicketError(
                    f"Tickets of different {what} cannot be combined: {getattr(self, what)!r} and "
                    f"{getattr(other, what)!r}."
                )
        mine = {name: s.group for name, s in self.selections.items()}
        theirs = {name: s.group for name, s in other.selections.items()}
        if mine != theirs:
            raise TicketError(
                f"Tickets over different unit groups cannot be combined: {sorted(mine)} and {sorted(theirs)}. "
                "Find both with the same units option on the same base model."
            )
        self.base.require_same(other.base)

    def with_units(self, indices: Mapping[str, Sequence[int] | np.ndarray], provenance: Provenance) -> "Ticket":
        """The same groups of the same base model with other units selected; groups left out become empty."""
        selections = {
            name: Selection(s.group, np.asarray(indices.get(name, ()), dtype=np.int64))
            for name, s in self.selections.items()
        }
        return Ticket(self.kind, self.granularity, selections, self.base, provenance)

    def __and__(self, other: "Ticket") -> "Ticket":
        """Units in both tickets."""
        return self._combined("&", other)

    def __or__(self, other: "Ticket") -> "Ticket":
        """Units in either ticket."""
        return self._combined("|", other)

    def __sub__(self, other: "Ticket") -> "Ticket":
        """Units of this ticket that are not in the other."""
        return self._combined("-", other)

    def jaccard(self, other: "Ticket") -> float:
        """Shared units over all units of the two tickets, from 0 to 1.

        Raises:
            TicketError: if the tickets are not over the same units of the same base model.
        """
        self.same_units(other)
        return jaccard(self.indices, other.indices)

    def _combined(self, operation: str, other: "Ticket") -> "Ticket":
        self.same_units(other)
        details = {"of": [self.fingerprint, other.fingerprint]}
        return self.with_units(combine(operation, self.indices, other.indices), Provenance(operation, details))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the ticket: `ticket.safetensors` in the folder `path`, or to `path` if it ends in `.safetensors`."""
        tensors = {}
        for name, selection in self.selections.items():
            tensors[f"{name}.indices"] = selection.indices
            tensors |= {f"{name}.columns.{column}": values for column, values in selection.columns.items()}
        write_ticket_file(ticket_file(path), self.to_dict(), tensors)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Ticket":
        """Read a ticket that `save` wrote.

        Raises:
            TicketError: if there is none, it is damaged or no ticket, or was changed after it was written.
        """
        file = ticket_file(path)
        header, tensors = read_ticket_file(file)
        try:
            ticket = cls._from_file(header, tensors)
        except (KeyError, TypeError, AttributeError, LotteryError) as error:
            raise TicketError(f"The ticket {str(file)!r} is malformed: {error}.") from error
        if ticket.fingerprint != header.get("fingerprint"):
            raise TicketError(
                f"The ticket {str(file)!r} was changed after it was written: its units have fingerprint "
                f"{ticket.fingerprint[:12]}, its header says {str(header.get('fingerprint'))[:12]}."
            )
        return ticket

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        revision: str | None = None,
        commit_message: str = "Upload lottery ticket",
        token: str | None = None,
        tokenizer: Any = None,
        **card: Any,
    ) -> str:
        """Push the ticket alone, with a model card; to push a tuned adapter with it, see `ticket.hub`.

        Args:
            repo_id: "user/name", created if there is none.
            private: whether a new repository is private.
            revision: branch to commit to.
            commit_message: headline of the commit.
            token: access token; the one of `hf auth login` if None.
            tokenizer: names the rows in the card.
            card: further options of `ticket_card`: results, base_model, language, license, dataset, citation.

        Returns:
            URL of the commit.

        Raises:
            HubError: if the Hub cannot be reached or refuses.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save(folder)
            ticket_card(ticket_summary(self, tokenizer), repo_id, adapter=False, **card).save(
                Path(folder) / "README.md"
            )
            return push_folder(
                folder, repo_id, private=private, revision=revision, commit_message=commit_message, token=token
            )

    @classmethod
    def from_pretrained(cls, source: str | os.PathLike[str], revision: str | None = None) -> "Ticket":
        """Read a ticket from a folder, a file or a Hub repository.

        Args:
            source: path, or Hub id "user/name".
            revision: branch, tag or commit of the repository.

        Raises:
            TicketError: if what is found is no ticket or damaged.
            HubError: if there is no such path or repository, or the Hub cannot be reached.
        """
        if Path(source).exists():
            return cls.load(source)
        return cls.load(pull_ticket_file(os.fspath(source), revision))

    def to_dict(self) -> dict[str, Any]:
        """Everything but the units and their columns, as JSON values."""
        return {
            "kind": self.kind,
            "granularity": self.granularity,
            "groups": [selection.group.to_dict() for selection in self.selections.values()],
            "base": self.base.to_dict(),
            "provenance": {"method": self.provenance.method, "details": dict(self.provenance.details)},
            "fingerprint": self.fingerprint,
        }

    @classmethod
    def _from_file(cls, header: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> "Ticket":
        selections = {}
        for group in map(UnitGroup.from_dict, header["groups"]):
            prefix = f"{group.name}.columns."
            columns = {name.removeprefix(prefix): values for name, values in tensors.items() if name.startswith(prefix)}
            selections[group.name] = Selection(group, tensors[f"{group.name}.indices"], columns)
        provenance = Provenance(header["provenance"]["method"], header["provenance"]["details"])
        return cls(
            header["kind"], header["granularity"], selections, BaseIdentity.from_dict(header["base"]), provenance
        )
