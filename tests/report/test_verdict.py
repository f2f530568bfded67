"""The verdict says what the numbers say, and what is missing."""

import dataclasses

import pytest

from ks_lottery.report.results import PairedDifference, Result, by_name
from ks_lottery.report.verdict import verdict
from tests.report.example import example_report, example_results


def changed(name: str, **values: object) -> list[Result]:
    """The example with one result changed."""
    return [dataclasses.replace(row, **values) if row.name == name else row for row in example_results()]


def without(*names: str) -> list[Result]:
    return [row for row in example_results() if row.name not in names]


def against(name: str, value: float, low: float, high: float) -> PairedDifference:
    return PairedDifference(of="partial tuning", against=name, metric="bleu_whole", value=value, low=low, high=high)


def test_the_whole_paragraph() -> None:
    report = example_report()
    assert verdict(report.results, report.differences) == (
        "Partial tuning of the ticket of 3,456 weights scores BLEU 46.0 (embed tuning 47.2, the base model 2.5). It "
        "recovers **97 % of embed tuning's gain** on the whole continuation and 105 % on the first line. It **beats** "
        "the random control by 41.8 BLEU (the intervals [43.9, 48.2] and [2.1, 6.4] do not overlap). It does **not "
        "clearly differ** from the frequency control (+0.5 BLEU; paired interval [-1.4, 2.3]). Of its gain of 43.5 "
        "BLEU, 29.5 remain when only the first line counts: about 32 % of the gain is stopping in the right place; the "
        "rest is what the first line says. At 4.6 below full tuning (50.6), it is **not** a winning ticket within a "
        "tolerance of 1.0 BLEU."
    )


def test_paired_intervals_decide() -> None:
    def of(value: float, low: float, high: float) -> str:
        return verdict(example_results(), [against("frequency control", value, low, high)])

    assert "It **beats** the frequency control by 0.5 BLEU (paired interval [0.1, 0.9])." in of(0.5, 0.1, 0.9)
    assert "It **loses** to the frequency control by 0.5 BLEU (paired interval [-0.9, -0.1])." in of(-0.5, -0.9, -0.1)
    assert "**not clearly differ** from the frequency control (-0.5 BLEU;" in of(-0.5, -0.9, 0.1)
    assert "**not clearly differ**" in of(0.5, 0.0, 0.9)


def test_own_intervals_decide_where_nothing_is_paired() -> None:
    text = verdict(example_results())
    assert "from the frequency control (+0.5 BLEU; the intervals [43.9, 48.2] and [43.4, 47.7] overlap)." in text
    first_line = dataclasses.replace(against("frequency control", 9.0, 8.0, 10.0), metric="bleu_first_line")
    assert verdict(example_results(), [first_line]) == text
    no_interval = changed("frequency control", bleu_whole_interval=None)
    assert "Its distance to the frequency control is +0.5 BLEU; without an interval that may be chance." in verdict(
        no_interval
    )


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("random control", "There is no random control: whether any rows of this number would do as well is unknown."),
        ("frequency control", "There is no frequency control: whether simply taking the most frequent tokens would"),
        ("full tuning", "There is no full tuning to match, so it cannot be called a winning ticket."),
        ("embed tuning", "its share of a gain is unknown"),
        ("base", "its share of a gain is unknown"),
        ("partial tuning", "The ticket was not trained and scored (no partial tuning result), so there is no verdict."),
    ],
)
def test_what_is_missing_is_said(name: str, told: str) -> None:
    assert told in verdict(without(name))


def test_nothing_but_the_ticket() -> None:
    text = verdict([Result(name="partial tuning", bleu_whole=46.0)])
    assert text.startswith("Partial tuning of the ticket scores BLEU 46.0. Without scores of the base model")
    assert "stopping" not in text


def test_embed_tuning_that_gains_nothing() -> None:
    assert "so there is no gain to recover" in verdict(changed("embed tuning", bleu_whole=2.5))


def test_no_first_line_scores() -> None:
    text = verdict(changed("base", bleu_first_line=None))
    assert "recovers **97 % of embed tuning's gain** on the whole continuation." in text
    assert "stopping" not in text


@pytest.mark.parametrize(("first_line", "share"), [(19.0, "100 %"), (10.0, "100 %"), (62.5, "0 %"), (70.0, "0 %")])
def test_share_of_stopping_stays_a_share(first_line: float, share: str) -> None:
    assert f"about {share} of the gain is stopping" in verdict(changed("partial tuning", bleu_first_line=first_line))


def test_tolerance_decides_what_wins() -> None:
    assert "it is a winning ticket within a tolerance of 5.0 BLEU" in verdict(example_results(), tolerance=5.0)
    better = changed("partial tuning", bleu_whole=51.0)
    assert "At 0.4 above full tuning (50.6), it is a winning ticket" in verdict(better)
    assert by_name(better)["partial tuning"].bleu_whole == 51.0


def test_a_ticket_that_gains_nothing_wins_nothing() -> None:
    results = [dataclasses.replace(row, bleu_whole=1.0) if row.name != "base" else row for row in example_results()]
    assert "It gains nothing over the base model, so it is **not** a winning ticket." in verdict(results)
