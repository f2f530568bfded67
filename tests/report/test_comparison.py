"""The page of a comparison: every number is that of the records, and failures and doubts are told."""

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import t

from ks_lottery.errors import DataError
from ks_lottery.evaluation.record import CellCost, Record
from ks_lottery.report.canvas import to_png
from ks_lottery.report.comparison import sanity_verdicts, write_comparison
from ks_lottery.report.comparison_cells import tables_of
from ks_lottery.report.comparison_plots import cost_drawing, density_drawing, front, overlap_matrix, overlap_picture
from ks_lottery.report.comparison_tables import score_table, transfer_table
from tests.report.comparison_example import WORTH, example_overlaps, example_records, record

PICTURES = ("update-heads-density.png", "update-heads-cost.png", "update-heads-overlap.png")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("comparison")
    meta, command = {"model": "tester/pocket"}, "python recipes/compare.py --quick"
    assert write_comparison(folder, example_records(), example_overlaps(), meta, command) == folder / "comparison.md"
    return folder


def test_files_of_a_comparison(written: Path) -> None:
    assert sorted(file.name for file in written.iterdir()) == sorted(
        ("comparison.html", "comparison.md", "comparison.json", *PICTURES)
    )
    page = (written / "comparison.md").read_text(encoding="utf-8")
    assert re.findall(r"!\[.*?\]\((.*?)\)", page) == list(PICTURES)
    for name in PICTURES:
        with Image.open(written / name) as image:
            assert image.format == "PNG"
            assert min(image.size) > 500
    assert "python recipes/compare.py --quick" in page
    assert "| model | tester/pocket |" in page
    for section in ("## Update tickets of heads", "### Overlap", "### Transfer at density 5 %", "## Cells that failed"):
        assert section in page
    assert "| grasp | heads | banking | 5 % | 1 | `RuntimeError: derivative for \\| is not implemented` |" in page
    data = json.loads((written / "comparison.json").read_text(encoding="utf-8"))
    assert [Record.from_dict(entry) for entry in data["records"]] == example_records()
    assert data["overlaps"] == example_overlaps()


def test_the_page_says_who_beats_its_shuffles(written: Path) -> None:
    page = (written / "comparison.md").read_text(encoding="utf-8")
    assert "244 finished cells, 1 failed. **5 of 7 finders beat their own shuffles**" in page
    assert "Of 1 it is not known." in page
    verdicts = {(one.method, one.control): one.verdict for one in sanity_verdicts(example_records())}
    assert verdicts["fake", "shuffled"] == "fails: does not beat its own shuffles"
    assert verdicts["fake", "inverted"] == "fails: does not beat its own inversion"
    assert verdicts["grasp", "shuffled"] == "unknown: fewer than 4 pairs"
    assert {verdicts[name, "shuffled"] for name in WORTH if name != "fake"} == {"passes"}
    assert len(verdicts) == 3 * 7
    frequent = record("frequency", 0.5, role="control", control="frequency")
    assert any(one.control == "frequency" for one in sanity_verdicts([*example_records(), frequent]))


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split(" | ")]


def test_a_table_pools_the_deviation_over_the_rows_of_a_role() -> None:
    cost = CellCost(forward=7, backward=5, seconds=2.5)
    records = [
        record("full", 0.9, role="reference", density=None, units=""),
        record("ks", 0.80, replicate=0, realised=0.051, trainable=1200, ticket_bytes=4800, finding=cost),
        record("ks", 0.84, replicate=1, realised=0.053, trainable=1400, ticket_bytes=4800, finding=cost),
        record("s", 0.70, replicate=0, role="control", control="shuffled", of="ks"),
        record("s", 0.70, replicate=1, role="control", control="shuffled", of="ks"),
        record("ks", 0.5, found_on="reviews"),
    ]
    (compared,) = tables_of(records)
    assert compared.pooled == {"finder": (pytest.approx(np.sqrt(0.0008)), 1), "control": (0.0, 1)}
    half = t.ppf(0.975, 1) * np.sqrt(0.0008) / np.sqrt(2)
    header, _, reference, found, shuffle = score_table(compared).splitlines()
    assert cells(header)[:6] == ["method", "density asked", "density realised", "runs", "score", "minus its shuffle"]
    assert cells(reference)[:3] == ["full", "—", "—"]
    assert cells(reference)[4] == "0.900"
    gain = t.ppf(0.975, 1) * np.sqrt(0.0008) / np.sqrt(2)
    assert cells(found) == [
        "ks", "5 %", "5.2 %", "2", f"0.820 [{0.82 - half:.3f}, {0.82 + half:.3f}]",
        f"+0.120 [{0.12 - gain:+.3f}, {0.12 + gain:+.3f}]", "1,300", "4.8 kB", "7", "5", "2.5", "0.0",
    ]  # fmt: skip
    assert cells(shuffle)[:2] == ["s", "5 %"]


def test_further_scores_stand_beside_the_main_one() -> None:
    whole = {"bleu_whole": 41.2, "bleu_first_line": 43.0, "stop_rate": 90.0}
    other = {"bleu_whole": 39.2, "bleu_first_line": 42.0, "stop_rate": 100.0}
    records = [
        replace(record("ks", 41.2), scores=whole),
        replace(record("ks", 39.2, replicate=1), scores=other),
        record("s", 20.0, role="control", control="shuffled", of="ks"),
    ]
    (compared,) = tables_of(records)
    header, _, found, shuffle = score_table(compared).splitlines()
    assert cells(header)[4:7] == ["score", "bleu\\_first\\_line", "stop\\_rate"]
    assert cells(found)[5:7] == ["42.5", "95.0"]
    assert cells(shuffle)[5:7] == ["—", "—"]


def test_single_runs_have_no_intervals(tmp_path: Path) -> None:
    records = [record("ks", 41.26), record("s", 40.0, role="control", control="shuffled", of="ks")]
    (compared,) = tables_of(records)
    assert cells(score_table(compared).splitlines()[2])[4:6] == ["41.3", "+1.3"]
    page = write_comparison(tmp_path, records).read_text(encoding="utf-8")
    assert "No row has two runs, so there are no intervals." in page
    assert "Overlap" not in page
    assert "Transfer" not in page


def test_each_kind_and_granularity_has_its_table_with_its_references() -> None:
    everywhere = record("majority class", 0.2, role="reference", units="", density=None)
    records = [everywhere, *example_records(), *example_records("neurons", "weight")]
    update, weight = tables_of(records)
    assert (update.kind, update.units, weight.kind, weight.units) == ("update", "heads", "weight", "neurons")
    for compared in (update, weight):
        references = [row for row in compared.rows if row.role == "reference"]
        assert [row.method for row in references] == [
            "full tuning", "majority class", "no tuning", "full tuning", "no tuning"
        ]  # fmt: skip
        for row in references:
            assert {one.units for one in row.records} <= {compared.units, ""}
            assert len(row.records) == (1 if row.method == "majority class" else 2)
        roles = [row.role for row in compared.rows if row.task == "banking"]
        assert roles == sorted(roles, key=["reference", "finder", "control"].index)


def test_transfer_is_told_beside_the_own_ticket_and_random_units() -> None:
    records = [
        record("ks", 0.8), record("ks", 0.6, found_on="reviews"), record("ks", 0.9, task="reviews"),
        record("random", 0.4, role="control", control="random", found_on=""), record("snip", 0.7),
    ]  # fmt: skip
    lines = [cells(line) for line in transfer_table(records).splitlines()]
    assert lines[0] == ["finder", "found on", "banking", "reviews"]
    assert lines[2:] == [
        ["ks", "banking", "**0.800**", "—"],
        ["ks", "reviews", "0.600 (75 %)", "**0.900**"],
        ["ks", "random units", "0.400 (50 %)", "—"],
    ]
    assert transfer_table(records[:1]) == ""


def test_references_alone(tmp_path: Path) -> None:
    page = write_comparison(tmp_path, [record("full", 0.9, role="reference", density=None)]).read_text(encoding="utf-8")
    assert "1 finished cells; no finder among them." in page
    assert "![" not in page


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "There is no cell to compare"),
        ([record("ks", None)], "of 'ks' has neither a score nor an error"),
        ([record("ks", float("nan"))], "has the score nan. A run that diverged is a failed cell"),
        ([record("ks", 0.5), record("ks", 0.6)], "Two cells are 'ks' on 'banking' with heads at density 0.05"),
    ],
)
def test_records_that_cannot_be_compared(tmp_path: Path, records: list[Record], message: str) -> None:
    with pytest.raises(DataError, match=message):
        write_comparison(tmp_path / "none", records)
    assert not (tmp_path / "none").exists()


def test_overlaps_need_all_their_fields(tmp_path: Path) -> None:
    overlap = {name: value for name, value in example_overlaps()[0].items() if name != "chance"}
    with pytest.raises(DataError, match="An overlap lacks chance; it has"):
        write_comparison(tmp_path, example_records(), [overlap])


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12))
def test_the_front_is_what_no_other_beats(points: list[tuple[int, int]]) -> None:
    def beaten(one: tuple[int, int]) -> bool:
        return any(x <= one[0] and y >= one[1] and (x, y) != one for x, y in points)

    chosen = front(points)
    assert {points[number] for number in chosen} == {one for one in points if not beaten(one)}
    assert len({points[number] for number in chosen}) == len(chosen)
    assert chosen == sorted(chosen, key=lambda number: points[number])


def test_overlap_is_averaged_and_symmetric_and_the_diagonal_is_other_replicates() -> None:
    entry = {"units": "heads", "kind": "update", "task": "a", "density": 0.1, "chance": 0.05}

    def overlap(first: str, second: str, one: int, other: int, jaccard: float) -> dict[str, object]:
        names = {"first": first, "second": second, "first_replicate": one, "second_replicate": other}
        return {**entry, **names, "jaccard": jaccard}

    overlaps = [
        overlap("a", "b", 0, 0, 0.2), overlap("b", "a", 1, 1, 0.4), overlap("a", "a", 0, 0, 1.0),
        overlap("a", "a", 0, 1, 0.7),
    ]  # fmt: skip
    values = overlap_matrix(overlaps, ["a", "b", "c"])
    expected = [[0.7, 0.3, np.nan], [0.3, np.nan, np.nan], [np.nan, np.nan, np.nan]]
    np.testing.assert_allclose(values, expected)
    assert overlap_picture(overlaps).startswith(b"\x89PNG")


def test_pictures_of_many_finders_and_few_cells() -> None:
    generator = np.random.default_rng(0)
    names = [f"finder ${number}$ with a | long name" for number in range(14)]
    records = [
        record(name, float(generator.random()), density=density, training=CellCost(forward=10, backward=5 + number))
        for number, name in enumerate(names)
        for density in (0.5, 0.01, 0.0001)
    ]
    (compared,) = tables_of(records)
    for drawing in (density_drawing, cost_drawing):
        content = to_png(drawing(compared).figure)
        assert content == to_png(drawing(compared).figure)
        with Image.open(io.BytesIO(content)) as image:
            assert image.size[0] > image.size[1]
    (single,) = tables_of(records[:1])
    assert to_png(density_drawing(single).figure).startswith(b"\x89PNG")
    (free,) = tables_of([record("no cost", 0.5)])
    assert to_png(cost_drawing(free).figure).startswith(b"\x89PNG")


def test_no_file_of_a_comparison_holds_a_token(tmp_path: Path) -> None:
    token = "hf_" + "Zy9" * 12
    write_comparison(tmp_path, example_records(), command=f"ks-lottery compare x.yaml --token {token}")
    assert not any(token.encode() in file.read_bytes() for file in tmp_path.iterdir())
