"""Certificates are read from the report beside a ticket, without what a report needs besides."""

import json
from pathlib import Path

import pytest

from ks_lottery.errors import TicketError
from ks_lottery.report.report import write_report
from ks_lottery.ticket.certificate import certificates, in_words, results_beside
from tests.report.example import CERTIFICATE, example_report


@pytest.mark.parametrize("place", [".", "report"])
def test_the_certificate_of_the_ticket_s_own_runs(tmp_path: Path, place: str) -> None:
    write_report(tmp_path / place, example_report())
    results, meta = results_beside(tmp_path)
    assert meta["test sentences"] == 300
    ((run, found),) = certificates(results)
    assert run == "partial tuning"
    assert found == CERTIFICATE.to_dict()
    assert in_words(run, found).startswith("Certificate: on 9,301 held-out tokens, partial tuning predicts the same")
    without = in_words(run, {**found, "sentence_lower_bound": None})
    assert "bootstrap" not in without
    assert without.endswith("That is agreement of predictions, not quality.")


def test_no_report_and_no_certificate(tmp_path: Path) -> None:
    assert results_beside(tmp_path) == ((), {})
    rows = [{"name": "partial tuning", "certificate": None}, {"name": "base", "certificate": CERTIFICATE.to_dict()}]
    assert certificates(rows) == []
    assert certificates([{"name": "partial tuning", "certificate": {"rate": 1.0}}]) == []


@pytest.mark.parametrize("content", ["{", "[]", json.dumps({"rows": [{}]}), json.dumps({"rows": 3})])
def test_a_damaged_report(tmp_path: Path, content: str) -> None:
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(TicketError, match=r"The report .*results.json' is damaged or of another kind"):
        results_beside(tmp_path)
