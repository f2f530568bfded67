"""The classification task: one new head for all cells, whoever loads it, and files that make sense."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ks_lottery.errors import DataError, OptionError
from ks_lottery.evaluation.tasks.base import make_task
from ks_lottery.evaluation.tasks.classification import ClassificationTask
from tests.evaluation.tasks.tiny_texts import TEXTS, save_encoder, save_texts, tiny_tokenizer
from tests.tiny_models import tiny_llama


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_encoder(tmp_path_factory.mktemp("encoder")))


@pytest.fixture(scope="module")
def task(encoder: str) -> ClassificationTask:
    return ClassificationTask("colours", encoder, TEXTS[20:], TEXTS[10:20], TEXTS[:10], max_length=16)


def test_files_are_read_and_split(encoder: str, tmp_path: Path) -> None:
    train, test = save_texts(tmp_path)
    files: dict[str, Any] = {"kind": "classification", "model": encoder, "train": str(train), "test": str(test)}
    made = make_task("colours", {**files, "train_texts": 50, "test_texts": 7})
    assert [len(part) for part in (made.train, made.dev, made.test)] == [45, 5, 7]
    assert not set(made.dev) & set(made.train)
    own = make_task("colours", {**files, "dev": str(test)})
    assert [len(part) for part in (own.train, own.dev, own.test)] == [90, 30, 30]


def test_every_load_is_the_same_model_whatever_was_drawn_before(task: ClassificationTask) -> None:
    first = task.load_model().state_dict()
    torch.manual_seed(77)
    state = torch.get_rng_state()
    second = task.load_model().state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    other = replace(task, head_seed=1).load_model().state_dict()
    assert {name for name, value in first.items() if not torch.equal(value, other[name])} == {"classifier.weight"}
    assert first["classifier.weight"].shape == (3, 16)


def test_examples_scores_and_counts(task: ClassificationTask) -> None:
    assert len(task.examples) == len(TEXTS) - 20
    one = task.examples[0]
    assert set(one) >= {"input_ids", "labels"}
    assert one["labels"] == ["cold", "none", "warm"].index(TEXTS[20][1])
    counts = task.token_counts()
    assert counts.shape == (len(tiny_tokenizer()),)
    assert counts[[2, 3]].tolist() == [len(TEXTS) - 20] * 2
    assert counts[-1] == 0
    right = torch.tensor(
        [example["labels"] for example in replace(task, train=[*task.test, *task.train]).examples[:10]]
    )

    class Knows(torch.nn.Module):
        config = task.load_model().config
        weight = torch.nn.Parameter(torch.zeros(1))
        device = torch.device("cpu")

        def forward(self, **batch: torch.Tensor) -> Any:
            return type("Out", (), {"logits": torch.nn.functional.one_hot(right, 3).float()})

    assert task.score(Knows())["accuracy"] == 100.0
    assert set(task.score(task.load_model(), "dev")) == {"accuracy", "macro_f1"}


def test_the_digest_is_of_model_texts_and_options(task: ClassificationTask, tmp_path: Path) -> None:
    same = replace(task, name="other")
    assert same.digest == task.digest
    changed = [replace(task, test=TEXTS[1:11]), replace(task, max_length=8), replace(task, head_seed=1)]
    model = task.load_model().bert
    with torch.no_grad():
        model.encoder.layer[0].output.dense.weight += 0.1
    model.save_pretrained(tmp_path)
    task.tokenizer.save_pretrained(tmp_path)
    changed.append(replace(task, model=str(tmp_path)))
    assert len({task.digest, *(other.digest for other in changed)}) == 5


def test_tasks_that_cannot_be(encoder: str, tmp_path: Path) -> None:
    parts = {"train": TEXTS[20:], "dev": TEXTS[10:20], "test": TEXTS[:10]}
    with pytest.raises(DataError, match="The task 'x' has no texts in its dev split"):
        ClassificationTask("x", encoder, **{**parts, "dev": []})
    with pytest.raises(DataError, match="The test split of the task 'x' has the label 'hot', which no training text"):
        ClassificationTask("x", encoder, **{**parts, "test": [("a", "hot")]})
    warm = [("a", "warm")]
    with pytest.raises(DataError, match="All training texts of the task 'x' have the label 'warm'"):
        ClassificationTask("x", encoder, warm, warm, warm)
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(OptionError, match=r"has no padding token. Set one and save it"):
        ClassificationTask("x", str(tmp_path), **parts)


def test_a_decoder_classifies_too(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    tiny_llama(vocabulary=len(tokenizer)).save_pretrained(tmp_path)
    task = ClassificationTask("colours", str(tmp_path), TEXTS[20:], TEXTS[10:20], TEXTS[:10])
    assert 0.0 <= task.score(task.load_model())["accuracy"] <= 100.0
    assert "score.weight" in task.load_model().state_dict()
