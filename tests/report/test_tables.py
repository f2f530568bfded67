"""Tables show what is known, dash what is not, and survive odd texts."""

from ks_lottery.report.results import Result, with_gains
from ks_lottery.report.tables import cost_table, meta_table, plain, row_table, score_table
from tests.report.example import example_results, example_ticket


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split(" | ")]


def test_scores() -> None:
    lines = score_table(with_gains(example_results())).splitlines()
    assert cells(lines[5]) == [
        "partial tuning", "46.0 [43.9, 48.2]", "48.5 [46.2, 50.9]", "—", "—", "—", "100 %", "97 %", "105 %",
    ]  # fmt: skip
    assert cells(lines[-1]) == ["LoRA r=8", "50.6", "—", "—", "—", "—", "—", "108 %", "—"]


def test_costs() -> None:
    lines = cost_table(example_results()).splitlines()
    assert cells(lines[4]) == ["embed tuning", "589,824", "2.4 MB", "0.002", "3", "750", "27.4 s", "612.0 MB"]
    assert cells(lines[2]) == ["base", *["—"] * 7]


def test_rows() -> None:
    rows = example_ticket()["rows"]
    lines = row_table(rows).splitlines()
    assert cells(lines[5]) == [r"`'\n'`", "3", "0.151", "-3.00", "0.310", "3,535", "2"]
    assert len(lines) == 20
    unknown = dict.fromkeys(rows[0]) | {"group": "input", "id": 7}
    assert cells(row_table([unknown]).splitlines()[2]) == ["—", "7", "—", "—", "—", "—", "—"]


def test_groups_are_named_where_there_are_several() -> None:
    rows = example_ticket()["rows"]
    lines = row_table([rows[0], {**rows[1], "group": "output"}]).splitlines()
    assert [cells(line)[0] for line in lines] == ["group", ":--", "`input`", "`output`"]


def test_long_tickets_are_cut_short() -> None:
    text = row_table(example_ticket()["rows"] * 6)
    assert text.endswith("\n\n8 more are in `results.json`.")


def test_odd_texts_stay_in_their_cell() -> None:
    assert plain("a|b\n*c* <d>") == r"a\|b \*c\* \<d>"
    assert r"| LoRA \| r=8 |" in score_table([Result(name="LoRA | r=8")])
    assert meta_table({"pairs": 2000, "path_to": "x_y"}).splitlines()[2:] == [
        "| pairs | 2000 |",
        r"| path\_to | x\_y |",
    ]
