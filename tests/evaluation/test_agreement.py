import math

import numpy as np
import pytest
import torch
from scipy.stats import beta

from ks_lottery.errors import DataError, OptionError
from ks_lottery.evaluation.agreement import Agreement, ResponseArgmax, agreement, ks_threshold, response_argmax
from tests.tiny_models import tiny_llama


def predictions(same: list[list[int]]) -> tuple[ResponseArgmax, ResponseArgmax]:
    """Two predictions that agree where `same` is 1; one inner list per sentence."""
    flat = np.array([value for sentence in same for value in sentence])
    lengths = np.array([len(sentence) for sentence in same])
    labels = np.zeros(len(flat), dtype=np.int64)
    return ResponseArgmax(1 - flat, labels, lengths), ResponseArgmax(np.zeros(len(flat), np.int64), labels, lengths)


def test_predictions_are_those_of_each_sentence_alone(tokenizer, examples) -> None:
    model = tiny_llama(seed=2, vocabulary=len(tokenizer)).train()
    found = response_argmax(model, examples, batch_size=3)
    assert model.training
    expected, labels = [], []
    for example in examples:
        logits = model(torch.tensor([example["input_ids"]])).logits[0]
        for place, label in enumerate(example["labels"]):
            if label != -100:
                expected.append(int(logits[place - 1].argmax()))
                labels.append(label)
    assert found.predicted.tolist() == expected
    assert found.labels.tolist() == labels
    assert found.lengths.tolist() == [5] * len(examples)


def test_a_model_agrees_with_itself(translator, examples) -> None:
    result = agreement(translator, translator, examples)
    assert (result.matches, result.tokens, result.sentences, result.rate) == (40, 40, 8, 1.0)
    assert result.lower_bound == pytest.approx(0.05 ** (1 / 40), rel=1e-12)
    assert result.sentence_lower_bound == 1.0
    assert (result.row_length, result.tau) == (32, math.sqrt(math.log(40) / 32))


def test_counts_and_bounds(translator, tokenizer, examples) -> None:
    other = tiny_llama(seed=9, vocabulary=len(tokenizer))
    result = agreement(other, response_argmax(translator, examples), examples, alpha=0.1)
    same = response_argmax(other, examples).predicted == response_argmax(translator, examples).predicted
    assert result.matches == same.sum() < result.tokens
    k, n = result.matches, result.tokens
    assert result.lower_bound == pytest.approx(beta.ppf(0.1, k, n - k + 1) if k else 0.0)
    assert result.alpha == 0.1


def test_dependent_tokens_lower_the_sentence_bound() -> None:
    result = agreement(*predictions([[1] * 20] * 15 + [[0] * 20] * 5))
    assert result.rate == 0.75
    assert result.sentence_lower_bound < result.lower_bound < result.rate
    assert result.tau is None


def test_one_sentence_has_no_sentence_bound() -> None:
    result = agreement(*predictions([[1, 1, 0]]), row_length=4096)
    assert result.sentence_lower_bound is None
    assert result.tau == pytest.approx(0.0300, abs=5e-5)
    assert "bootstrap" not in str(result)


def test_threshold_matches_the_published_ones() -> None:
    for n, expected in {1024: 0.0600, 2048: 0.0424, 3584: 0.0321, 4096: 0.0300}.items():
        assert ks_threshold(0.05, n) == pytest.approx(expected, abs=5e-5)


def test_the_text_says_what_is_bounded() -> None:
    text = str(agreement(*predictions([[1, 1], [1, 0]]), row_length=4096))
    assert "75.00% (3 of 4, 2 sentences); with confidence 0.95 at least" in text
    assert "not translation quality" in text
    assert "tau(0.05) = 0.0300 for rows of 4096 values: a threshold on D in the selection" in text
    assert text.endswith("not a guarantee.")


def test_saved_predictions_and_results_come_back(tmp_path) -> None:
    mine, theirs = predictions([[1, 0], [1]])
    mine.save(tmp_path / "mine.safetensors")
    loaded = ResponseArgmax.load(tmp_path / "mine.safetensors")
    assert np.array_equal(loaded.predicted, mine.predicted)
    assert np.array_equal(loaded.labels, mine.labels)
    assert np.array_equal(loaded.lengths, mine.lengths)
    result = agreement(loaded, theirs)
    assert Agreement(**result.to_dict()) == result
    with pytest.raises(DataError, match="no saved predictions at .*yours.safetensors"):
        ResponseArgmax.load(tmp_path / "yours.safetensors")


def test_errors(translator, examples) -> None:
    mine, theirs = predictions([[1, 1], [1, 0]])
    longer, _ = predictions([[1, 1], [1, 0, 1]])
    with pytest.raises(DataError, match="2 sentences with 4 response tokens and 2 with 5"):
        agreement(mine, longer)
    with pytest.raises(OptionError, match=r"alpha=0.5: must lie between 0 and 0.5"):
        agreement(mine, theirs, alpha=0.5)
    with pytest.raises(OptionError, match="needs dataset="):
        agreement(translator, mine)
    with pytest.raises(DataError, match="data set is empty"):
        response_argmax(translator, [])
    with pytest.raises(DataError, match="Row 1 has no response token"):
        response_argmax(translator, [examples[0], {"input_ids": [1, 2], "labels": [-100, -100]}])
