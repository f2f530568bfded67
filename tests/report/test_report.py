"""The report: whole or untouched, rebuilt from its own files, and honest on its face."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from ks_lottery.errors import DataError
from ks_lottery.report.report import Report, read_report, rebuild_report, write_report
from ks_lottery.report.results import Result, with_gains
from tests.report.example import example_report, example_results, example_ticket

FILES = [
    "adapter_bytes.png", "report.html", "report.md", "results.json", "scores.png", "token_rows.safetensors",
    "token_shift.png",
]  # fmt: skip


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_files(tmp_path: Path) -> None:
    page = write_report(tmp_path / "new" / "report", example_report())
    assert page.name == "report.md"
    assert sorted(contents(page.parent)) == FILES


def test_rebuilding_gives_the_same_files(tmp_path: Path) -> None:
    page = write_report(tmp_path, example_report())
    before = contents(tmp_path)
    page.unlink()
    (tmp_path / "report.html").unlink()
    (tmp_path / "scores.png").unlink()
    (tmp_path / "token_shift.png").unlink()
    assert rebuild_report(tmp_path) == page
    assert contents(tmp_path) == before


def test_reading_gives_the_report_back(tmp_path: Path) -> None:
    report = example_report()
    write_report(tmp_path, report)
    again = read_report(tmp_path)
    assert again.results == with_gains(report.results)
    for field in ("ticket", "differences", "title", "command", "meta", "tolerance"):
        assert getattr(again, field) == getattr(report, field)
    assert again.token_shift.to_bytes() == report.token_shift.to_bytes()


def test_pictures_on_the_page_exist(tmp_path: Path) -> None:
    page = write_report(tmp_path, example_report()).read_text(encoding="utf-8")
    pictures = re.findall(r"!\[.*\]\((.*)\)", page)
    assert pictures == ["scores.png", "adapter_bytes.png", "token_shift.png"]
    assert all((tmp_path / picture).is_file() for picture in pictures)


def test_what_the_page_says(tmp_path: Path) -> None:
    page = write_report(tmp_path, example_report()).read_text(encoding="utf-8")
    for text in (
        "# English to German with 18 rows\n\nPartial tuning of the ticket of 3,456 weights scores BLEU 46.0",
        "```\npython recipes/translate.py --k 18\n```",
        "| test sentences | 300 |",
        "18 units of `token_rows` out of 2,352 that changed, found by `ks`, cut by `TopK(k=18, scope='global')`",
        "| partial tuning | 88.12 % |",
        "is the certificate, and it is all that is certified: agreement of predictions, not translation quality",
        "**p is no error rate.**",
        "**A row has 192 numbers**, so p falls below 0.05 only from D of about 0.139",
        "**Learning rates were chosen on the development set**; the cost table says among how many.",
        "the frequency control is the harder and fairer rival",
        "neither training seeds nor data order",
        "**spBLEU is missing**",
    ):
        assert text in page


def test_a_bare_report(tmp_path: Path) -> None:
    write_report(tmp_path, example_report())
    results = [Result(name="base", bleu_whole=2.5, spbleu_whole=3.0)]
    page = write_report(tmp_path, Report(results, title="Bare")).read_text(encoding="utf-8")
    assert sorted(contents(tmp_path)) == ["report.html", "report.md", "results.json", "scores.png"]
    assert "there is no verdict" in page
    for absent in ("## The ticket", "## Certificate", "token_shift.png", "Made by", "spBLEU is missing", "numbers**"):
        assert absent not in page
    assert rebuild_report(tmp_path).read_text(encoding="utf-8") == page


def test_uneven_search_for_learning_rates_is_said(tmp_path: Path) -> None:
    results = [*example_results(), Result(name="other", tried_learning_rates=9)]
    page = write_report(tmp_path, Report(results)).read_text(encoding="utf-8")
    assert "They differ here, and more tries are an advantage." in page


def test_tickets_of_other_units_and_finders(tmp_path: Path) -> None:
    ticket = {**example_ticket(), "granularity": "heads", "provenance": {"method": "random_like", "details": {}}}
    report = dataclasses.replace(example_report(), ticket=ticket)
    page = write_report(tmp_path, report).read_text(encoding="utf-8")
    assert "18 units of `heads`, found by `random_like`: 3,456 weights" in page
    assert "A row has" not in page


def test_other_files_stay_and_a_failed_report_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"weights")
    write_report(tmp_path, example_report())
    before = {name: (tmp_path / name).read_bytes() for name in FILES}
    with pytest.raises(DataError, match="The report cannot be written as JSON: .* Give plain numbers and texts"):
        write_report(tmp_path, dataclasses.replace(example_report(), meta={"model": object()}))
    with pytest.raises(DataError, match="cannot be written as JSON"):
        write_report(tmp_path, dataclasses.replace(example_report(), meta={"loss": float("nan")}))
    with pytest.raises(DataError, match="Two results are called 'base'"):
        write_report(tmp_path, Report([Result(name="base"), Result(name="base")]))
    assert {name: (tmp_path / name).read_bytes() for name in FILES} == before
    assert (tmp_path / "adapter" / "adapter_model.safetensors").read_bytes() == b"weights"
    assert len(list(tmp_path.iterdir())) == len(FILES) + 1


def test_no_report_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"There is no report in .*: it has no results.json"):
        read_report(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is damaged"),
        ("[]", "is damaged"),
        ('{"format": 1}', r"is damaged \(KeyError\('rows'\)\). Run what made it again"),
        ('{"format": 9}', "has format 9; this version of ks_lottery reads 1. Upgrade ks_lottery"),
    ],
)
def test_damaged_data(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "results.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_report(tmp_path)


def test_the_data_are_plain_json(tmp_path: Path) -> None:
    write_report(tmp_path, example_report())
    data = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert {"meta", "rows", "ticket"} <= set(data)
    assert data["rows"][3]["name"] == "partial tuning"
    assert data["rows"][3]["chrf_whole"] is None


def test_no_file_holds_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret-of-mine")
    token = "hf_" + "Zy9" * 12
    command = f"recipes/translate.py --model_name_or_path https://me:secret-of-mine@host/x --token {token}"
    write_report(tmp_path, dataclasses.replace(example_report(), command=command, meta={"model": f"Bearer {token}"}))
    for name, content in contents(tmp_path).items():
        assert token.encode() not in content, name
        assert b"secret-of-mine" not in content, name
    assert "[hidden]" in (tmp_path / "report.md").read_text(encoding="utf-8").replace("\\", "")
    assert (
        read_report(tmp_path).command
        == "recipes/translate.py --model_name_or_path https://[hidden]@host/x --token [hidden]"
    )
