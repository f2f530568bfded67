"""What a person writes, and what they are told when it is wrong."""

from pathlib import Path
from typing import Any

import pytest

from ks_lottery.errors import OptionError, UnknownNameError
from ks_lottery.evaluation.comparison.cells import cells_of
from ks_lottery.evaluation.comparison.plan import Budget, Plan, Transfer, read_plan
from ks_lottery.evaluation.comparison.table import FinderEntry, Table

TASKS = {"one": {"kind": "translation"}, "two": {"kind": "translation"}}
TABLE = {"units": "token_rows", "densities": [0.1, 0.01], "finders": ["ks", {"finder": "imp", "rounds": 2}]}


def given(**changes: Any) -> dict[str, Any]:
    return {"tasks": TASKS, "tables": [TABLE], **changes}


def in_table(**changes: Any) -> dict[str, Any]:
    return given(tables=[{**TABLE, **changes}])


def test_a_plan_is_read_from_yaml(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(
        "tasks: {one: {kind: translation}, two: {kind: translation}}\n"
        "replicates: [3, 5]\n"
        "budget: {steps: 7, dense_rates: 1e-3, ticket_rates: [1e-2, 0.1]}\n"
        "tables:\n"
        "  - {units: token_rows, densities: [0.1, 0.01], finders: [ks, {finder: imp, rounds: 2, label: two rounds}]}\n"
        "  - {kind: weight, units: weights, densities: 0.5, finders: [imp], unit_options: {only: ['*query*']}}\n"
        "transfer: {finders: [ks], density: 0.1}\n",
        encoding="utf-8",
    )
    plan = read_plan(tmp_path / "plan.yaml")
    assert plan.replicates == (3, 5)
    assert plan.budget == Budget(steps=7, dense_rates=(1e-3,), ticket_rates=(1e-2, 0.1))
    assert [[entry.label for entry in table.finders] for table in plan.tables] == [
        ["ks", "two rounds", "random"], ["imp", "random"]
    ]  # fmt: skip
    assert plan.tables[1].granularity().only == ("*query*",)
    assert plan.transfer == Transfer(("ks",), 0.1)
    assert read_plan(tmp_path / "plan.yaml").fingerprint == plan.fingerprint != read_plan(given()).fingerprint


def test_every_table_has_its_controls_however_it_is_made() -> None:
    table = Table("update", "token_rows", (0.1,), (FinderEntry("ks", {"finder": "ks"}),))
    plan = Plan(TASKS, (table,), replicates=(0,))
    rows = {(cell.method, cell.role, cell.of, cell.control) for cell in cells_of(plan) if cell.density is not None}
    assert rows == {
        ("ks", "finder", "", ""), ("ks, shuffled", "control", "ks", "shuffled"),
        ("ks, inverted", "control", "ks", "inverted"), ("random", "control", "", "random"),
        ("frequency", "control", "", "frequency"),
    }  # fmt: skip
    heads = Plan(TASKS, (Table("update", "heads", (0.1,), table.finders),))
    assert "frequency" not in {cell.method for cell in cells_of(heads)}


def test_cells_of_a_plan_differ_and_cover_it() -> None:
    plan = read_plan(given(replicates=[0, 1, 2], transfer={"finders": ["ks", "random"], "density": 0.1}))
    cells = list(cells_of(plan))
    marks = {cell.fingerprint(plan, {"one": "a", "two": "b"}) for cell in cells}
    assert len(marks) == len(cells)
    home = 2 * (1 + 2 * 3 + 2 * 8 * 3)
    assert len(cells) == home + 2 * 2 * 3
    assert {(cell.found_on, cell.task) for cell in cells[home:]} == {("one", "two"), ("two", "one")}
    assert [cell.replicate for cell in cells[1:4]] == [0, 1, 2]
    other = {cell.fingerprint(plan, {"one": "a", "two": "changed"}) for cell in cells}
    assert len(marks & other) == home / 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tasks": TASKS}, "The comparison lacks 'tables'."),
        (given(tabels=[]), "The comparison has the unknown option 'tabels'. Did you mean 'tables'?"),
        (given(tasks=["one"]), "tasks: ['one']: must be options by name of the task."),
        (given(tasks={"one": "de"}), "tasks, one: 'de': must hold `kind` and the options of that kind."),
        (given(tables={"units": "heads"}), "must be a list of tables."),
        (given(tables=["ks"]), "Table 1 is 'ks': it must hold units, densities and finders."),
        (given(replicates=[0, 1, 0]), "Two replicates with the seed 0 would be one and the same"),
        (given(replicates=[]), "replicates: []: give each seed once"),
        (given(replicates=3), "replicates: 3: must be a list of seeds, such as [0, 1, 2]."),
        (given(replicates=[0.5]), "replicates: [0.5]: must be a list of seeds"),
        (given(replicates=[-1, 0]), "replicates: [-1, 0]: seeds must be 0 or more."),
        (given(budget={"step": 3}), "budget has the unknown option 'step'. Did you mean 'steps'?"),
        (given(budget={"steps": 0}), "budget, steps: 0: must be above 0."),
        (given(budget={"steps": 1.5}), "budget, steps: 1.5 is no whole number."),
        (given(budget={"steps": "many"}), "budget, steps: 'many' is no number."),
        (given(budget={"ticket_rates": []}), "budget, ticket_rates: []: must be rates above 0."),
        (given(budget={"dense_rates": [0.1, -1]}), "budget, dense_rates: [0.1, -1.0]: must be rates above 0."),
        (given(budget={"adam_beta2": 1}), "budget, adam_beta2: 1.0: must lie between 0 and 1."),
        (given(budget=[3]), "budget: [3]: must hold options by name."),
        (given(tables=[TABLE, TABLE]), "The table of update tickets of token_rows stands twice."),
        (in_table(densities=[]), "Table 1 lacks 'densities'."),
        (in_table(densities=[0.1, 1.0]), "densities: [0.1, 1.0]: give at least one, each between 0 and 1"),
        (in_table(densities=[0.1, 0.1]), "give at least one, each between 0 and 1, and each once"),
        (in_table(densities=["ten"]), "Table 1, densities: ['ten']: each must be a number between 0 and 1."),
        (in_table(kind="both"), "kind: 'both': must be update or weight."),
        (in_table(unit_option={}), "Table 1 has the unknown option 'unit_option'. Did you mean 'unit_options'?"),
        (in_table(unit_options={"end": "input"}), "unit_options: has the unknown option 'end'. Did you mean 'ends'?"),
        (in_table(unit_options="input"), "Table 1, unit_options: 'input': must hold options by name."),
        (in_table(finders="ks"), "Table 1, finders: 'ks': must be a list, one finder a line after a dash."),
        (in_table(finders=["ks", "ks"]), "The table of update tickets of token_rows has two rows called 'ks'."),
        (in_table(finders=[{"finder": "ks", "label": "frequency"}]), "has two rows called 'frequency'."),
        (in_table(finders=["ks", {"finder": "fisher", "label": "ks, shuffled"}]), "two rows called 'ks, shuffled'."),
        (in_table(finders=[{"label": "mine"}]), "The finder {'label': 'mine'} has no name: write `finder: ks`"),
        (in_table(finders=[3]), "The finder 3 must be a name, or `finder: name` with options beside it."),
        (in_table(finders=[{"finder": "imp", "round": 2}]), "Finder 'imp' has the unknown option 'round'. Did you"),
        (in_table(finders=[{"finder": "imp", "rounds": "two"}]), "Finder 'imp' cannot be made with"),
        (in_table(finders=[{"finder": "imp", "kind": "update"}]), "the comparison takes it from `kind` of the table."),
        (in_table(finders=[{"finder": "random", "seed": 3}]), "Finder 'random', seed: 3: the comparison takes it from"),
        (in_table(finders=["snip"]), "Finder 'snip' finds weight tickets, but stands in a table of update tickets."),
        (
            given(budget={"steps": 8}, tables=[{**TABLE, "finders": [{"finder": "imp", "rewind": 8}]}]),
            "Finder 'imp', rewind: 8: every training has 8 steps (budget, steps), so rewind to a step from 0 (the "
            "pretrained weights) to 7.",
        ),
        (given(transfer={"finders": ["fisher"], "density": 0.1}), "transfer, finders: 'fisher' stands in no table."),
        (given(transfer={"finders": ["ks"], "density": 0.2}), "transfer, density: 0.2 is the density of no table."),
        (given(transfer={"finders": ["ks"]}), "must hold `finders`, a list of labels, and `density`."),
        (given(transfer={"finders": "ks", "density": 0.1}), "must hold `finders`, a list of labels, and `density`."),
        (
            given(tasks={"one": TASKS["one"]}, transfer={"finders": ["ks"], "density": 0.1}),
            "transfer needs at least two tasks",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(values: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        read_plan(values)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (in_table(finders=["kss"]), "Unknown finder 'kss'. Did you mean 'ks'?"),
        (in_table(units="token_row"), "Unknown granularity 'token_row'. Did you mean 'token_rows'?"),
    ],
)
def test_unknown_names_come_with_the_nearest(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        read_plan(values)
    assert str(caught.value).startswith(message)


def test_files_that_are_no_plan(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"There is no configuration file '.*none.yaml'"):
        read_plan(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- 3\n")
    with pytest.raises(OptionError, match=r"list.yaml' must hold keys with values"):
        read_plan(tmp_path / "list.yaml")
    (tmp_path / "torn.yaml").write_text("tasks: {one: \n")
    with pytest.raises(OptionError, match=r"torn.yaml' is no YAML"):
        read_plan(tmp_path / "torn.yaml")
