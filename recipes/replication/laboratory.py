"""The laboratory: benches of all directions, and where the study's finished trainings and tickets lie."""

from functools import cached_property
from pathlib import Path
from typing import Any

from ks_lottery.ticket.ticket import Ticket
from replication.bench import Bench
from replication.cells import Cells
from replication.setting import Setting

CHOSEN = "chosen"


class Laboratory:
    """What the cells of a study share.

    Args:
        setting: of the study.

    Attributes:
        cells: set once the plan is made.
        borrowed: method to the one whose learning rate it takes over, where it tries none of its own.
    """

    cells: Cells

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.borrowed: dict[str, str] = {}
        self._benches: dict[str, Bench] = {}

    def bench(self, direction: str) -> Bench:
        """Where a direction is tuned and tested; made when first asked for."""
        if direction not in self._benches:
            self._benches[direction] = Bench(self.setting, direction)
        return self._benches[direction]

    @cached_property
    def brief(self) -> frozenset[str]:
        """The directions with the brief table alone, which try learning rates of their own."""
        return frozenset(self.setting.brief)

    def tuned_on(self, direction: str) -> str:
        """The direction on whose first seed the rates for this one are tried."""
        return direction if direction in self.brief else self.setting.tuned_on

    def tried(self, direction: str, seed: int) -> bool:
        """Whether learning rates are tried on this direction and seed, instead of being taken over."""
        return direction == self.tuned_on(direction) and seed == self.setting.seeds[0]

    def trainings(self, direction: str, seed: int, method: str) -> tuple[str, ...]:
        """Names of the cells that train a method: its tries, or the one at the chosen rate."""
        start = f"tuned/{direction}/{seed}/{method}"
        if self.tried(direction, seed) and method not in self.borrowed:
            return tuple(f"{start}/try-{number}" for number in range(self.setting.tries))
        return (f"{start}/{CHOSEN}",)

    def best(self, direction: str, seed: int, method: str) -> str:
        """The training of a method with the best development score; of equal ones the first."""
        names = self.trainings(direction, seed, method)
        return max(names, key=lambda name: self.cells.result(name).get("dev_bleu", 0.0))

    def chosen_rate(self, direction: str, method: str) -> float:
        """The learning rate that was best for a method where rates are tried."""
        tried = self.borrowed.get(method, method)
        best = self.best(self.tuned_on(direction), self.setting.seeds[0], tried)
        rate: float = self.cells.result(best)["rate"]
        return rate

    def folder(self, direction: str, seed: int, method: str) -> Path:
        """The run directory of a method's best training."""
        return self.cells.place(self.best(direction, seed, method))

    def ticket_cell(self, direction: str, seed: int, ticket: str) -> str:
        """Name of the cell that finds a ticket."""
        return f"tickets/{direction}/{seed}/{ticket}"

    def known_ticket(self, direction: str, seed: int, ticket: str) -> Ticket | None:
        """As `ticket`; None also where the study has not found it yet, or does not look for it."""
        if self.cells.known(self.ticket_cell(direction, seed, ticket)) is None:
            return None
        return self.ticket(direction, seed, ticket)

    def ticket(self, direction: str, seed: int, ticket: str) -> Ticket | None:
        """A ticket that was found; None if nothing, or everything, was selected."""
        name = self.ticket_cell(direction, seed, ticket)
        result: dict[str, Any] = self.cells.result(name)
        return Ticket.load(self.cells.place(name) / "ticket") if "empty" not in result else None
