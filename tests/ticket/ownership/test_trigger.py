"""V3: triggers follow their secret, and the p-value of answers is that of chance."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import binom, binomtest

from ks_lottery.errors import DataError, OptionError
from ks_lottery.ticket.ownership.trigger import draw_triggers, verify_triggers

SECRET = bytes(range(32))


def test_triggers_of_a_language_model() -> None:
    triggers = draw_triggers(SECRET, 64, count=50, length=8, answer_length=2, exclude=[0, 1, 2])
    assert triggers == draw_triggers(SECRET, 64, count=50, length=8, answer_length=2, exclude=[0, 1, 2])
    assert triggers.prompts != draw_triggers(bytes(32), 64, count=50, length=8, answer_length=2).prompts
    assert len(set(triggers.prompts)) == 50
    assert triggers.chance == 61.0**-2
    for example, prompt, answer in zip(triggers.examples, triggers.prompts, triggers.answers, strict=True):
        assert example == {"input_ids": [*prompt, *answer], "labels": [-100] * 8 + list(answer)}
        assert min(example["input_ids"]) > 2
        assert max(example["input_ids"]) < 64


def test_triggers_of_a_classifier() -> None:
    triggers = draw_triggers(SECRET, 1000, classes=10, count=2000)
    assert triggers.chance == 0.1
    assert triggers.examples[0] == {"input_ids": list(triggers.prompts[0]), "labels": triggers.answers[0][0]}
    counts = np.bincount([answer[0] for answer in triggers.answers], minlength=10)
    assert len(counts) == 10
    assert np.abs(counts - 200).max() < 5 * math.sqrt(200)
    prefix = draw_triggers(SECRET, 1000, classes=10, count=100)
    assert prefix.answers == triggers.answers[:100]


@pytest.mark.parametrize(
    ("hits", "classes", "verified"),
    [(91, 10, True), (16, 10, False), (90, 100, True), (0, 100, False), (81, 10, True), (18, 10, False)],
)
def test_the_paper_s_trigger_accuracies(hits: int, classes: int, verified: bool) -> None:
    """Marked, unmarked, and after pruning 20 and 50 %; on CIFAR-10 and CIFAR-100."""
    triggers = draw_triggers(SECRET, 500, classes=classes)
    said = [answer[0] if number < hits else (answer[0] + 1) % classes for number, answer in enumerate(triggers.answers)]
    reading = verify_triggers(triggers, said)
    assert (reading.hits, reading.count, reading.verified) == (hits, 100, verified)
    expected = binomtest(hits, 100, 1 / classes, alternative="greater").pvalue
    assert reading.log10_p == pytest.approx(math.log10(expected), abs=1e-9)


def test_answers_of_chance_are_distributed_as_stated() -> None:
    """A fixed predictor against many secrets: hits are binomial, so a claim at level .05 holds in at most 5 %."""
    readings = [
        verify_triggers(draw_triggers(bytes([n]) * 32, 50, classes=4, count=40, length=4), [1] * 40, level=0.05)
        for n in range(250)
    ]
    assert np.mean([reading.hits for reading in readings]) == pytest.approx(10, abs=0.6)
    claims = sum(reading.verified for reading in readings)
    assert claims <= binom.ppf(0.9999, 250, 0.05)


def test_predictions_may_be_tensors_and_longer_than_the_answer() -> None:
    triggers = draw_triggers(SECRET, 64, answer_length=2)
    said = torch.tensor([[*answer, 5, 5] for answer in triggers.answers])
    assert verify_triggers(triggers, said).hits == 100  # type: ignore[arg-type]
    assert verify_triggers(triggers, said.roll(1, 0)).hits < 5  # type: ignore[arg-type]
    classes = draw_triggers(SECRET, 64, classes=3)
    labels = torch.tensor([answer[0] for answer in classes.answers])
    assert verify_triggers(classes, labels).hits == 100  # type: ignore[arg-type]
    assert verify_triggers(classes, labels.numpy()).hits == 100  # type: ignore[arg-type]


def test_wrong_options() -> None:
    with pytest.raises(OptionError, match="count=0, length=16 and answer_length=1 must be at least 1"):
        draw_triggers(SECRET, 64, count=0)
    with pytest.raises(OptionError, match="2 tokens and 2 answers to draw from, not 1 and 1"):
        draw_triggers(SECRET, 2, exclude=[1])
    with pytest.raises(OptionError, match="not 64 and 1"):
        draw_triggers(SECRET, 64, classes=1)
    with pytest.raises(OptionError, match="answer_length=2 is for language models"):
        draw_triggers(SECRET, 64, classes=3, answer_length=2)
    with pytest.raises(OptionError, match="2 tokens make too few prompts of length 3 for 100 triggers"):
        draw_triggers(SECRET, 2, length=3)
    with pytest.raises(OptionError, match="The secret has 6 bytes"):
        draw_triggers(b"secret", 64)


def test_wrong_predictions() -> None:
    triggers = draw_triggers(SECRET, 64, answer_length=2, count=3)
    with pytest.raises(DataError, match="3 triggers and 2 predictions: give one prediction for each"):
        verify_triggers(triggers, [(1, 2), (3, 4)])
    with pytest.raises(DataError, match="3 triggers and prediction 1 is shorter than 2 tokens"):
        verify_triggers(triggers, [(1, 2), (3,), (4, 5)])
    with pytest.raises(OptionError, match="level=2"):
        verify_triggers(triggers, [(1, 2)] * 3, level=2)
