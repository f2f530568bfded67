"""The plan of a study: which cells its parts have, in the order in which they are made."""

from collections.abc import Iterable
from dataclasses import asdict, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

from replication.bench import Bench
from replication.catalogue import methods_of, tickets_of
from replication.cells import Cell, Cells
from replication.laboratory import Laboratory
from replication.measure import measure_test
from replication.methods import Method, Trained, Transfer, tune_cell
from replication.setting import Setting
from replication.tickets import find_cell


class Plan:
    """The cells of a study.

    Args:
        setting: of the study.
        folder: of the study.
    """

    def __init__(self, setting: Setting, folder: Path) -> None:
        self.setting = setting
        self.lab = Laboratory(setting)
        self.methods, self.tickets = methods_of(setting), tickets_of(setting)
        self.lab.borrowed = {
            name: method.rate_of
            for name, method in self.methods.items()
            if isinstance(method, Trained) and method.rate_of
        }
        self._folder = folder
        self._cells: dict[str, Cell] = {}

    def ready(self) -> Cells:
        """The cells that were planned, as the laboratory sees them from now on."""
        self.lab.cells = Cells(self._folder, list(self._cells.values()))
        return self.lab.cells

    def tested(self, direction: str, seed: int, name: str, prompt: str = "") -> str:
        """Plan the test of a method, with all that comes before; the name of its cell."""
        method = self.methods[name]
        cell = f"tested/{direction}/{seed}/{name}" + (f"@{prompt}" if prompt else "")
        if cell not in self._cells:
            needs = list(self._before(direction, seed, name))
            config = {"seed": seed, "direction": direction, "method": _content(method), "prompt": prompt,
                      **self.setting.decoding()}  # fmt: skip
            make = partial(self._test, direction, seed, name, prompt)
            self._cells[cell] = Cell(cell, config, tuple(needs), make)
        return cell

    def trained(self, direction: str, seed: int, name: str) -> tuple[str, ...]:
        """Plan the training of a method; the names of its cells."""
        method = self.methods[name]
        assert isinstance(method, Trained)
        lab, names = self.lab, self.lab.trainings(direction, seed, name)
        before = [self.found(direction, seed, method.ticket)] if method.ticket else []
        if tried := self._tried_as(direction, seed, name):
            before += self.trained(lab.tuned_on(direction), self.setting.seeds[0], tried)
        for number, cell in enumerate(names):
            attempt = None if tried else number
            config = {"seed": seed, "direction": direction, "method": _content(method), "attempt": attempt,
                      "source": self.setting.directions[direction], **self.setting.training()}  # fmt: skip
            if method.rates == "rows":
                config["rates"] = {name: self.setting.rates[name] for name in ("one_row", "few_rows", "many_rows")}
            else:
                config["rates"] = self.setting.rates[method.rates]
            make = partial(tune_cell, lab, name, method, direction, seed, attempt)
            self._cells.setdefault(cell, Cell(cell, config, tuple(before), make))
        return names

    def found(self, direction: str, seed: int, ticket: str) -> str:
        """Plan the search of a ticket; the name of its cell."""
        plan, cell = self.tickets[ticket], self.lab.ticket_cell(direction, seed, ticket)
        if cell not in self._cells:
            for probe in plan.probes:
                self.trained(direction, seed, probe)
            for other in plan.tickets:
                self.found(direction, seed, other)
            for place in plan.others(self.lab, direction, seed):
                self.found(*place)
            config = {"seed": seed, "direction": direction, "ticket": ticket, "rows": self.setting.rows,
                      **self.setting.training()}  # fmt: skip
            needs = plan.needs(self.lab, direction, seed)
            self._cells[cell] = Cell(cell, config, needs, partial(find_cell, self.lab, plan, direction, seed))
        return cell

    def add(self, cell: Cell) -> str:
        """Plan a cell of a kind of its own; its name."""
        self._cells.setdefault(cell.name, cell)
        return cell.name

    def _tried_as(self, direction: str, seed: int, name: str) -> str:
        """The method whose tries decide the learning rate of this training; "" where this training is a try."""
        if name in self.lab.borrowed:
            return self.lab.borrowed[name]
        return "" if self.lab.tried(direction, seed) else name

    def _before(self, direction: str, seed: int, name: str) -> Iterable[str]:
        """The cells whose results the test of a method uses."""
        method = self.methods[name]
        if isinstance(method, Trained):
            yield from self.trained(direction, seed, name)
        if method.ticket:
            yield self.found(direction, seed, method.ticket)
        if isinstance(method, Transfer):
            yield from self.trained(direction, seed, method.probe)

    def _test(self, direction: str, seed: int, name: str, prompt: str, folder: Path) -> dict[str, Any]:
        lab, method = self.lab, self.methods[name]
        if method.ticket and lab.ticket(direction, seed, method.ticket) is None:
            return {"empty": lab.cells.result(lab.ticket_cell(direction, seed, method.ticket))["empty"]}
        place = lab.folder(direction, seed, name) if isinstance(method, Trained) else folder
        bench: Bench = lab.bench(direction)
        model = method.load(lab, direction, seed, place)
        size = method.size(lab, direction, seed) if isinstance(method, Transfer) else {}
        predict = not prompt and name in (*self.setting.methods, *self.setting.brief_methods)
        return {**size, **measure_test(bench, model, folder, prompt, predict)}


def _content(method: Method) -> dict[str, Any]:
    """What decides a method, as JSON values; a rate that is taken over stands in only where there is one."""
    assert is_dataclass(method)
    content = {"kind": type(method).__name__, **asdict(method)}
    if not content.get("rate_of", "-"):
        del content["rate_of"]
    return content
