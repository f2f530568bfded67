"""Finding a ticket from the command line."""

from typing import TYPE_CHECKING, Any

from ks_lottery.checkpoints.checkpoint import Checkpoint

if TYPE_CHECKING:
    from ks_lottery.finders.base import Evidence, Finder
    from ks_lottery.finders.select import Selector
    from ks_lottery.units.granularity import Granularity


def found_ticket(
    sides: tuple[Checkpoint, Checkpoint | None],
    units: "Granularity",
    finder: "Finder",
    selector: "Selector",
    out: str | None,
    evidence: "Evidence | None" = None,
) -> dict[str, Any]:
    """Find a ticket, save it, and describe it.

    Args:
        sides: before and after; None where the finder looks at something else.
        units: what is selected.
        finder: how it is scored.
        selector: how it is cut.
        out: folder to save it in; it is not saved if None.
        evidence: what the finder looks at, where that is not two checkpoints.

    Returns:
        what `ticket_summary` gives, with readable tokens where units are token rows and a tokenizer lies beside one of
        the models.

    Raises:
        LotteryError: as `find_ticket`.
    """
    from ks_lottery.cli.readable import token_table
    from ks_lottery.finders.search import find_ticket
    from ks_lottery.ticket.summary import ticket_summary

    ticket = find_ticket(*sides, units, finder, selector, evidence=evidence)
    if out is not None:
        ticket.save(out)
    named = [side for side in sides if side is not None]
    return ticket_summary(ticket, token_table(named) if units.name == "token_rows" else None)
