"""Lines that are only ever appended, by several workers, through kills."""

import json
from pathlib import Path

import pytest

from ks_lottery.errors import DataError, OptionError
from ks_lottery.evaluation.comparison.store import Store
from ks_lottery.evaluation.record import Record
from tests.evaluation.comparison.planted import planted_plan

PLAN = planted_plan(["ks"])


def cell(mark: str, **changes: object) -> Record:
    fields = {
        "cell": mark, "method": "ks", "role": "finder", "kind": "update", "units": "token_rows", "task": "planted",
        "found_on": "planted", "density": 0.125, "replicate": 0, "score": 0.5, **changes,
    }  # fmt: skip
    return Record(**fields)


def failed(mark: str, error: str) -> Record:
    return cell(mark, score=None, error=error)


def test_cells_of_all_workers_are_read(tmp_path: Path) -> None:
    one, other = Store(tmp_path, PLAN, "0-of-2"), Store(tmp_path, PLAN, "1-of-2")
    records = [cell("a"), cell("b", scores={"\u2028 é": 1.0}), cell("c", error="wrong\u2028x\n\ny", score=None)]
    one.append(records[0])
    other.append(records[1])
    one.append(records[2])
    assert one.records() == other.records() == [records[0], records[2], records[1]]
    assert one.finished() == {"a", "b"}


def test_a_success_replaces_a_failure_and_stays(tmp_path: Path) -> None:
    store = Store(tmp_path, PLAN)
    for record in (failed("a", "first"), failed("a", "second")):
        store.append(record)
    assert [record.error for record in store.records()] == ["second"]
    for record in (cell("a", score=1.0), failed("a", "third"), cell("a", score=2.0)):
        store.append(record)
    assert [record.score for record in store.records()] == [1.0]


@pytest.mark.parametrize("kept", [1, 100, -2])
def test_a_line_that_a_kill_cut_off_is_no_cell(tmp_path: Path, kept: int) -> None:
    store = Store(tmp_path, PLAN)
    store.append(cell("a"))
    store.append(cell("b"))
    file = tmp_path / "results" / "0-of-1.jsonl"
    first, second = file.read_text().splitlines(keepends=True)
    file.write_text(first + second[:kept])
    assert store.finished() == {"a"}
    again = Store(tmp_path, PLAN)
    again.append(cell("c"))
    assert again.finished() == {"a", "c"}
    assert len(file.read_text().splitlines()) == 3


def test_a_line_of_something_else_is_an_error(tmp_path: Path) -> None:
    store = Store(tmp_path, PLAN)
    (tmp_path / "results" / "other.jsonl").write_text('{"cell": "a"}\n')
    with pytest.raises(DataError, match="A line of the store is no cell of a comparison"):
        store.records()


def test_another_configuration_is_refused_by_what_differs(tmp_path: Path) -> None:
    Store(tmp_path, PLAN)
    assert Store(tmp_path, planted_plan(["ks"]), "1-of-2").records() == []
    other = planted_plan(["ks", "fisher"], replicates=[0, 2], budget={"steps": 3}, table={"densities": [0.5]})
    with pytest.raises(OptionError) as caught:
        Store(tmp_path, other)
    said = str(caught.value)
    assert f"{str(tmp_path)!r} holds another comparison: budget.steps was 10 and is 3; replicates[1] was 1 and" in said
    assert "is 2; tables[0].densities[0] was 0.125 and is 0.5, and 1 more. Give another folder, or the" in said
    longer = planted_plan(["ks"], replicates=[0, 1, 2])
    with pytest.raises(OptionError, match=r"replicates was \[0, 1\] and is \[0, 1, 2\]\. Give"):
        Store(tmp_path, longer)
    assert json.loads((tmp_path / "comparison.json").read_text())["fingerprint"] == PLAN.fingerprint


def test_the_store_as_a_table(tmp_path: Path) -> None:
    from pyarrow import parquet

    store = Store(tmp_path, PLAN)
    store.append(failed("a", "an accident"))
    store.append(cell("b", scores={"accuracy": 0.5}))
    rows = parquet.read_table(store.export()).to_pylist()
    assert [row["error"] for row in rows] == ["an accident", ""]
    assert [row["score"] for row in rows] == [None, 0.5]
    assert json.loads(rows[1]["scores"]) == {"accuracy": 0.5}
    assert rows[1]["training_backward"] == 0
