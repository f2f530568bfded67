"""What a `TicketCallback` shows while a model trains reaches the Trainer's own loggers."""

import copy
from pathlib import Path

import pytest
from transformers import Trainer

from ks_lottery.finders.select import TopK
from ks_lottery.training.arguments import probe_arguments
from ks_lottery.training.callback import TicketCallback
from ks_lottery.training.examples import ResponseCollator
from tests.tiny_models import tiny_llama
from tests.training.tiny_task import tiny_examples, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
SHOWN = ("ticket/selected", "ticket/jaccard", "ticket/largest_D", "ticket/largest_score")


def train(folder: Path, report_to: str) -> Trainer:
    model = tiny_llama(vocabulary=len(TOKENIZER))
    arguments = probe_arguments(
        folder, max_steps=6, learning_rate=1e-2, use_cpu=True, disable_tqdm=True, save_strategy="no", logging_steps=2,
        report_to=report_to,
    )  # fmt: skip
    run = Trainer(
        model=model, args=arguments, train_dataset=tiny_examples(TOKENIZER), data_collator=ResponseCollator(0)
    )
    TicketCallback(copy.deepcopy(model), selector=TopK(4), every=2).attach(run)
    run.train()
    return run


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "logs"))
    run = train(tmp_path / "run", "tensorboard")
    events = accumulator.EventAccumulator(str(tmp_path / "logs"))
    events.Reload()
    looks = [entry for entry in run.state.log_history if "ticket/selected" in entry]
    assert [entry["step"] for entry in looks] == [2, 4, 6]
    for name in SHOWN:
        shown = events.Scalars(f"train/{name}")
        logged = [(entry["step"], entry[name]) for entry in looks if name in entry]
        assert [one.step for one in shown] == [step for step, _ in logged]
        assert [one.value for one in shown] == pytest.approx([value for _, value in logged], rel=1e-6)
    assert "train/loss" in events.Tags()["scalars"]


def test_the_loss_of_the_same_step_is_logged_too(tmp_path: Path) -> None:
    history = train(tmp_path, "none").state.log_history
    assert [entry["step"] for entry in history if "ticket/selected" in entry] == [2, 4, 6]
    assert [entry["step"] for entry in history if "loss" in entry] == [2, 4, 6]
