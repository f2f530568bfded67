"""The plan of a study: which cells its parts have, in the order in which they are made."""

from collections.abc import Callable, Iterable
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

Seeds = Iterable[int]


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
        self._cells: dict[str, Cell] = {}
        for part in setting.parts:
            PARTS[part](self)
        self.lab.cells = Cells(folder, list(self._cells.values()))

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
        if not lab.tried(direction, seed):
            before += self.trained(lab.tuned_on(direction), self.setting.seeds[0], name)
        for number, cell in enumerate(names):
            attempt = number if lab.tried(direction, seed) else None
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
        return {**size, **measure_test(bench, model, folder, prompt, predict=not prompt)}


def _content(method: Method) -> dict[str, Any]:
    assert is_dataclass(method)
    return {"kind": type(method).__name__, **asdict(method)}


def main_table(plan: Plan) -> None:
    """Every method of the main table; the direction and seed of the tries first, then seed by seed."""
    setting = plan.setting
    order = [(direction, seed) for seed in setting.seeds for direction in setting.full_directions]
    order.sort(key=lambda place: (not plan.lab.tried(*place), setting.seeds.index(place[1])))
    for direction, seed in order:
        for name in setting.methods:
            if name != "base" or seed == setting.seeds[0]:
                plan.tested(direction, seed, name)


def brief_table(plan: Plan) -> None:
    """The directions that are only reported beside."""
    for direction in plan.setting.brief:
        for seed in plan.setting.seeds:
            for name in plan.setting.brief_methods:
                if name != "base" or seed == plan.setting.seeds[0]:
                    plan.tested(direction, seed, name)


PARTS: dict[str, Callable[[Plan], None]] = {"main": main_table, "brief": brief_table}
