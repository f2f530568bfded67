"""Finding a ticket from the command line."""

from typing import TYPE_CHECKING, Any

from ks_lottery.checkpoints.checkpoint import Checkpoint

if TYPE_CHECKING:
    from ks_lottery.finders.base import Finder
    from ks_lottery.finders.select import Selector
    from ks_lottery.units.granularity import Granularity


def found_ticket(
    sides: tuple[Checkpoint, Checkpoint],
    units: "Granularity",
    finder: "Finder",
    selector: "Selector",
    out: str | None,
) -> dict[str, Any]:
    """Find a ticket, save it, and describe it.

    Args:
        sides: before and after.
        units: what is selected.
        finder: how it is scored.
        selector: how it is cut.
        out: folder to save it in; it is not saved if None.

    Returns:
        what `ticket_summary` gives, with readable tokens where units are token rows and a tokenizer lies beside one of
        the models.

    Raises:
        LotteryError: as `find_ticket`.
    """
    from ks_lottery.cli.readable import token_table
    from ks_lottery.finders.search import find_ticket
    from ks_lottery.ticket.summary import ticket_summary

    ticket = find_ticket(*sides, units, finder, selector)
    if out is not None:
        ticket.save(out)
    return ticket_summary(ticket, token_table(sides) if units.name == "token_rows" else None)
