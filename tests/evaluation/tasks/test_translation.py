"""The translation task: several references, the prompt, and files."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ks_lottery.errors import DataError
from ks_lottery.evaluation.tasks.base import make_task
from ks_lottery.evaluation.tasks.translation import TranslationTask
from tests.tiny_models import tiny_llama
from tests.training.tiny_task import PAIRS, tiny_tokenizer


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(folder)
    tiny_llama(vocabulary=len(tokenizer)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def task(model: Path) -> TranslationTask:
    parts = {"train": PAIRS[:6], "dev": PAIRS[6:7], "test": PAIRS[7:]}
    return TranslationTask("de", str(model), **parts, source_language="English", target_language="German")


def test_files_are_read_and_split(model: Path, tmp_path: Path) -> None:
    lines = "".join(f"{source}\t{target}\n" for source, target in PAIRS)
    (tmp_path / "pairs.tsv").write_text("English\tGerman\n" + lines, encoding="utf-8")
    files = {"model": str(model), "train": str(tmp_path / "pairs.tsv"), "test": str(tmp_path / "pairs.tsv")}
    options = {"kind": "translation", **files, "source": "English", "target": "German", "test_pairs": 3}
    made = make_task("de", options)
    assert (made.train, made.dev, made.test) == (PAIRS[:7], PAIRS[7:], PAIRS[:3])
    assert "English" in made.template("x")
    with pytest.raises(DataError, match="The task 'de' has no pairs in its train split"):
        make_task("de", {**options, "train_pairs": 1})
    with pytest.raises(DataError, match=r"pairs.tsv has columns English, German, but no 'french'"):
        make_task("de", {**options, "target": "french"})


def test_a_fresh_model_each_time_and_its_scores(task: TranslationTask) -> None:
    first = task.load_model()
    with torch.no_grad():
        first.lm_head.weight.zero_()
    scores = task.score(task.load_model())
    assert scores[task.metric] == task.score(task.load_model())[task.metric]
    assert set(scores) == {"bleu_whole", "bleu_first_line", "chrf_whole", "stop_rate"}
    assert task.load_model().lm_head.weight.any()


def test_targets_of_one_source_are_its_references(task: TranslationTask, monkeypatch: pytest.MonkeyPatch) -> None:
    from ks_lottery.evaluation.tasks import translation

    asked = []
    monkeypatch.setattr(
        translation, "evaluate_translation",
        lambda *args, **options: asked.append(args[2:4]) or translation_scores(),
    )  # fmt: skip
    replace(task, test=[("a", "x"), ("b", "y"), ("a", "z"), ("a", "x")]).score(None)
    assert asked == [([task.template("a"), task.template("b")], [["x", "z"], ["y"]])]


def translation_scores() -> object:
    return type("Scores", (), {"bleu_whole": 1.0, "bleu_first_line": 1.0, "chrf_whole": 1.0, "stop_rate": 0.5})


def test_counts_and_digest(task: TranslationTask) -> None:
    counts = task.token_counts()
    assert int(counts.sum()) == sum(len(example["input_ids"]) for example in task.examples)
    assert counts[-1] == 0
    assert replace(task, name="other").digest == task.digest
    changed = [replace(task, prompt="{source} ="), replace(task, max_new_tokens=3), replace(task, dev=PAIRS[:1])]
    assert len({task.digest, *(other.digest for other in changed)}) == 4
