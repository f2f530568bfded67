"""Accuracy and macro F1 against their definitions, with intervals; predictions that do not depend on the batches."""

import json
import re
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from ks_lottery.errors import DataError, OptionError
from ks_lottery.evaluation.classification import (
    ClassificationScores,
    evaluate_classification,
    score_classification,
    score_from_counts,
)

CLASSES = 4
pairs = st.lists(st.tuples(st.integers(0, CLASSES - 1), st.integers(0, CLASSES - 1)), min_size=1, max_size=30)


def macro_f1(predictions: list[int], labels: list[int]) -> Fraction:
    """By its definition, one class after the other."""
    scores = []
    for number in sorted({*predictions, *labels}):
        both = sum(p == y == number for p, y in zip(predictions, labels, strict=True))
        scores.append(Fraction(2 * both, predictions.count(number) + labels.count(number)))
    return sum(scores, Fraction(0)) / len(scores)


@given(pairs)
def test_the_scores_are_those_of_their_definitions(drawn) -> None:
    predictions, labels = map(list, zip(*drawn, strict=True))
    scores = score_classification(predictions, labels, CLASSES)
    assert scores.accuracy == sum(p == y for p, y in drawn) / len(drawn)
    assert scores.macro_f1 == pytest.approx(float(macro_f1(predictions, labels)), abs=1e-15)
    assert (scores.predictions, scores.labels) == (tuple(predictions), tuple(labels))


def test_a_known_table() -> None:
    """Class 0: 2 of 3 found, 2 of 2 right; class 1: 1 of 1, of 2; class 2 never occurs; class 3: predicted only."""
    scores = score_classification([0, 0, 1, 1, 3], [0, 0, 0, 1, 1], CLASSES)
    assert scores.accuracy == 3 / 5
    assert scores.macro_f1 == pytest.approx((4 / 5 + 1 / 2 + 0) / 3)


@given(pairs.filter(lambda drawn: len(drawn) > 1), st.integers(0, 5))
def test_intervals_are_of_resampled_texts(drawn, seed: int) -> None:
    predictions, labels = (np.array(values) for values in zip(*drawn, strict=True))
    scores = score_classification(predictions.tolist(), labels.tolist(), CLASSES)
    generator = np.random.default_rng(seed)
    drawn_texts = generator.integers(len(labels), size=(20, len(labels)))
    again = [
        score_classification(predictions[texts].tolist(), labels[texts].tolist(), CLASSES) for texts in drawn_texts
    ]
    for metric in ("accuracy", "macro_f1"):
        interval = scores.interval(metric, resamples=20, seed=seed)
        assert interval.value == pytest.approx(getattr(scores, metric))
        ends = np.quantile([getattr(one, metric) for one in again], [0.025, 0.975])
        assert (interval.low, interval.high) == pytest.approx(tuple(ends))


def test_differences_are_paired() -> None:
    labels = [0, 1, 2, 3] * 10
    right = score_classification(labels, labels, CLASSES)
    shifted = score_classification([(label + (text < 8)) % CLASSES for text, label in enumerate(labels)], labels, 4)
    for metric in ("accuracy", "macro_f1"):
        assert right.difference(right, metric)[:3] == (0.0, 0.0, 0.0)
        difference = right.difference(shifted, metric)
        assert difference.value == pytest.approx(0.2)
        assert 0 < difference.low < 0.2 < difference.high
        assert shifted.difference(right, metric).value == pytest.approx(-0.2)


def test_other_labels_cannot_be_compared() -> None:
    one, other = (score_classification([0, 1], labels, CLASSES) for labels in ([0, 1], [1, 1]))
    with pytest.raises(DataError, match="needs one test set: 2 texts of 4 classes and 2 of 4, with other labels"):
        one.difference(other)


def test_json_and_back() -> None:
    scores = score_classification([0, 1, 1], [0, 1, 2], CLASSES, seconds=0.5)
    assert ClassificationScores.from_dict(json.loads(json.dumps(scores.to_dict()))) == scores


@pytest.mark.parametrize(
    ("predictions", "labels", "message"),
    [
        ([0, 1], [0], "There are 2 predictions, but labels of 1 texts."),
        ([], [], "The test set is empty."),
        ([0, 4], [0, 1], "The prediction of text 1 is class 4, but the classes are 0 to 3."),
        ([0, 1], [-1, 1], "The label of text 0 is class -1, but the classes are 0 to 3."),
    ],
)
def test_what_cannot_be_scored(predictions, labels, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        score_classification(predictions, labels, CLASSES)


def test_an_unknown_metric_is_named() -> None:
    scores = score_classification([0, 1], [0, 1], CLASSES)
    for ask in (scores.interval, scores.counts, lambda metric: score_from_counts(metric, [1, 1])):
        with pytest.raises(OptionError, match="metric='f2': must be one of accuracy, macro_f1"):
            ask("f2")


@pytest.fixture(scope="module")
def task() -> SimpleNamespace:
    """A random classifier, and texts of different lengths."""
    words = [f"w{number}" for number in range(20)]
    names = {name: number for number, name in enumerate(["[PAD]", "[UNK]", *words])}
    backend = Tokenizer(models.WordLevel(names, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(names), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=16, num_labels=CLASSES, initializer_range=0.3,
    )  # fmt: skip
    generator = np.random.default_rng(0)
    texts = [" ".join(generator.choice(words, size=1 + number % 12)) for number in range(24)]
    model = BertForSequenceClassification(config)
    with torch.no_grad():
        alone = [int(model.eval()(**tokenizer(text, return_tensors="pt")).logits.argmax().item()) for text in texts]
        cut = [
            int(model(**tokenizer(text, return_tensors="pt", truncation=True, max_length=3)).logits.argmax().item())
            for text in texts
        ]
    return SimpleNamespace(model=model, tokenizer=tokenizer, texts=texts, alone=alone, cut=cut)


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_predictions_are_those_of_each_text_alone(task, batch_size: int) -> None:
    assert len(set(task.alone)) > 1
    task.model.train()
    scores = evaluate_classification(task.model, task.tokenizer, task.texts, task.alone, batch_size=batch_size)
    assert scores.predictions == tuple(task.alone)
    assert (scores.accuracy, scores.num_classes) == (1.0, CLASSES)
    assert scores.seconds > 0
    assert task.model.training, "its mode is as before"


def test_long_texts_are_cut_as_in_training(task) -> None:
    assert task.cut != task.alone
    scores = evaluate_classification(task.model, task.tokenizer, task.texts, task.alone, max_length=3)
    assert scores.predictions == tuple(task.cut)


def test_a_test_set_that_cannot_be_used(task) -> None:
    with pytest.raises(DataError, match="There are 24 texts, but labels of 23 texts"):
        evaluate_classification(task.model, task.tokenizer, task.texts, task.alone[1:])
    with pytest.raises(DataError, match="The test set is empty"):
        evaluate_classification(task.model, task.tokenizer, [], [])
    with pytest.raises(OptionError, match="batch_size=0: must be at least 1"):
        evaluate_classification(task.model, task.tokenizer, task.texts, task.alone, batch_size=0)
