"""Results: what goes in comes out, nothing is invented, and shares of the gain are right."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ks_lottery.errors import DataError
from ks_lottery.evaluation.generation import Continuation
from ks_lottery.evaluation.translation import score_translations
from ks_lottery.report.results import PairedDifference, Result, by_name, gain, with_gains
from tests.report.example import CERTIFICATE, example_results


def test_json_round_trip() -> None:
    for result in example_results():
        data = json.loads(json.dumps(result.to_dict(), allow_nan=False))
        assert Result.from_dict(data) == result


def test_what_is_not_given_is_none() -> None:
    data = Result(name="a").to_dict()
    assert data.pop("name") == "a"
    assert set(data.values()) == {None}


def test_numpy_numbers_become_json() -> None:
    result = Result(name="a", trainable=np.int64(3), bleu_whole=np.float32(2.5), certificate=CERTIFICATE)
    data = json.loads(json.dumps(result.to_dict()))
    assert (data["trainable"], data["bleu_whole"], data["certificate"]["tokens"]) == (3, 2.5, 9301)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"bleu_whole": float("nan")}, r"bleu_whole of 'a' is nan. Leave out what was not measured \(None\)"),
        ({"seconds": np.float32("inf")}, "seconds of 'a' is inf"),
        ({"bleu_whole_interval": (1.0, float("nan"))}, "bleu_whole_interval of 'a' is"),
        ({"stop_rate": 99.7}, "stop_rate of 'a' is 99.7, but is a share: give 0 to 1, not percent"),
        ({"bleu_first_line_interval": (2.0, 1.0)}, r"is \(2.0, 1.0\). Give its lower end first"),
    ],
)
def test_impossible_values(values: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Result(name="a", **values)


@pytest.mark.parametrize(
    "values", [{"bleurt": 1.0}, {"bleu_whole_interval": [1.0]}, {"certificate": {"tokens": 3}}, {"stop_rate": 3.0}]
)
def test_unreadable_data(values: dict[str, object]) -> None:
    with pytest.raises(DataError, match="The result 'a' cannot be read: "):
        Result.from_dict({"name": "a", **values})


def test_gains() -> None:
    named = by_name(with_gains(example_results()))
    assert named["base"].gain_recovered_whole is None
    assert named["embed tuning"].gain_recovered_whole == 1.0
    assert named["partial tuning"].gain_recovered_whole == (46.0 - 2.5) / (47.2 - 2.5)
    assert named["partial tuning"].gain_recovered_first_line == (48.5 - 19.0) / (47.2 - 19.0)
    assert named["LoRA r=8"].gain_recovered_first_line is None


def test_given_gains_stay() -> None:
    results = [*example_results()[:3], Result(name="partial tuning", bleu_whole=46.0, gain_recovered_whole=0.5)]
    assert with_gains(results)[-1].gain_recovered_whole == 0.5


@pytest.mark.parametrize("embed", [None, 2.5, 1.0])
def test_no_share_of_a_gain_that_is_not_there(embed: float | None) -> None:
    results = [Result(name="base", bleu_whole=2.5), Result(name="x", bleu_whole=9.0)]
    if embed is not None:
        results.append(Result(name="embed tuning", bleu_whole=embed))
    assert with_gains(results)[1].gain_recovered_whole is None


@given(st.floats(0, 50), st.floats(0.1, 50), st.floats(0, 1))
def test_a_share_gives_the_score_back(base: float, embed_gain: float, share: float) -> None:
    score = base + share * embed_gain
    results = [
        Result(name="base", bleu_whole=base),
        Result(name="embed tuning", bleu_whole=base + embed_gain),
        Result(name="x", bleu_whole=score),
    ]
    assert with_gains(results)[2].gain_recovered_whole == pytest.approx(share, abs=1e-9)
    assert gain(results[2], results[0], "bleu_whole") == pytest.approx(score - base)


def test_names_must_differ() -> None:
    with pytest.raises(DataError, match=r"Two results are called 'a'. Name each run differently"):
        with_gains([Result(name="a"), Result(name="b"), Result(name="a")])
    with pytest.raises(DataError, match="There are no results to report"):
        with_gains([])


def test_rows_and_differences_of_evaluated_runs() -> None:
    references = [["the cat sat on the mat"], ["a dog ran over the hill"], ["we go home now please"]]

    def scores(*texts: str):
        return score_translations([Continuation(text, stopped=True, num_tokens=5) for text in texts], references)

    good = scores(*(reference[0] for reference in references))
    poor = scores("the cat sat on a mat\nand more", "a dog walked over the hill", "we go now please")
    row = Result.of("partial tuning", good, trainable=18, certificate=CERTIFICATE)
    assert row.bleu_whole == pytest.approx(100.0)
    assert row.bleu_whole_interval == pytest.approx((100.0, 100.0))
    assert (row.trainable, row.stop_rate, row.certificate) == (18, 1.0, CERTIFICATE)
    low, high = Result.of("random control", poor).bleu_first_line_interval
    assert low <= poor.bleu_first_line <= high
    for metric in ("bleu_whole", "bleu_first_line"):
        difference = PairedDifference.between("partial tuning", good, "random control", poor, metric)
        assert difference.value == pytest.approx(getattr(good, metric) - getattr(poor, metric))
        assert (difference.of, difference.against) == ("partial tuning", "random control")
        assert difference.low <= difference.value <= difference.high
    assert PairedDifference(**json.loads(json.dumps(difference.to_dict()))) == difference
