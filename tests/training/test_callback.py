import copy

import pytest
import torch
from transformers import Trainer, TrainerCallback

from ks_lottery.errors import CheckpointError, FrozenWeightMovedError, OptionError
from ks_lottery.finders.search import find_ticket
from ks_lottery.finders.select import Alpha, TopK
from ks_lottery.training.arguments import probe_arguments
from ks_lottery.training.callback import TicketCallback
from ks_lottery.training.examples import ResponseCollator
from ks_lottery.training.probe import newest_checkpoint
from tests.tiny_models import tiny_llama
from tests.training.tiny_task import tiny_examples, tiny_tokenizer

EMBEDDING = "model.embed_tokens.weight"
TOKENIZER = tiny_tokenizer()
EXAMPLES = tiny_examples(TOKENIZER)


class Plant(TrainerCallback):
    """Writes to one frozen value at a step."""

    def on_step_end(self, args, state, control, model=None, **kwargs) -> None:
        if state.global_step == 3:
            with torch.no_grad():
                model.lm_head.weight[3, 0] += 1e-6


def embedding_only():
    model = tiny_llama(vocabulary=len(TOKENIZER)).requires_grad_(False)
    model.get_parameter(EMBEDDING).requires_grad_(True)
    return model


def trainer(folder, model, callbacks=(), **options) -> Trainer:
    defaults = {"max_steps": 10, "learning_rate": 1e-2, "per_device_train_batch_size": 4, "use_cpu": True,
                "disable_tqdm": True, "save_strategy": "no"}  # fmt: skip
    arguments = probe_arguments(folder, **{**defaults, **options})
    return Trainer(
        model=model, args=arguments, train_dataset=EXAMPLES, data_collator=ResponseCollator(0),
        callbacks=list(callbacks),
    )  # fmt: skip


def looks(run: Trainer) -> list[dict]:
    return [entry for entry in run.state.log_history if "ticket/selected" in entry]


def test_looks_are_logged_and_agree_with_find_ticket(tmp_path) -> None:
    model = embedding_only()
    before = copy.deepcopy(model)
    run = trainer(tmp_path, model)
    TicketCallback(before, selector=TopK(4), every=4).attach(run)
    run.train()
    entries = looks(run)
    assert [entry["step"] for entry in entries] == [4, 8, 10]
    assert [entry["ticket/selected"] for entry in entries] == [4.0] * 3
    assert "ticket/jaccard" not in entries[0]
    assert all(0 <= entry["ticket/jaccard"] <= 1 for entry in entries[1:])
    ticket = find_ticket(before=before, after=model, selector=TopK(4))
    assert entries[-1]["ticket/largest_D"] == ticket.selections["input"].columns["statistic"].max()
    assert entries[-1]["ticket/largest_score"] == entries[-1]["ticket/largest_D"]


def test_without_attach_the_looks_are_in_the_history(tmp_path) -> None:
    model = embedding_only()
    callback = TicketCallback(copy.deepcopy(model), selector=TopK(2), finder="magnitude", every=5)
    run = trainer(tmp_path, model, [callback])
    run.train()
    assert [(entry["step"], entry["ticket/selected"]) for entry in looks(run)] == [(5, 2.0), (10, 2.0)]


def test_an_empty_selection_counts_zero_and_never_stops(tmp_path) -> None:
    model = embedding_only()
    callback = TicketCallback(copy.deepcopy(model), selector=Alpha(1e-300), every=2, patience=1)
    run = trainer(tmp_path, model, [callback])
    run.train()
    assert run.state.global_step == 10
    assert {entry["ticket/selected"] for entry in looks(run)} == {0.0}
    assert all(entry["ticket/largest_D"] > 0 for entry in looks(run))


def test_training_stops_when_the_ticket_is_stable(tmp_path) -> None:
    model = embedding_only()
    callback = TicketCallback(copy.deepcopy(model), selector=TopK(20), every=1, patience=2, stable=1e-9)
    run = trainer(tmp_path, model, [callback], max_steps=50, warmup_steps=0)
    run.train()
    assert run.state.global_step == 3, "look 1 has nothing to compare with; looks 2 and 3 are stable"


def test_the_streak_survives_a_resumed_run(tmp_path) -> None:
    def run_to(folder, steps: int, resume: str | None):
        model = embedding_only()
        options = {"max_steps": steps, "save_strategy": "steps", "save_steps": 2, "lr_scheduler_type": "constant"}
        callback = TicketCallback(copy.deepcopy(model), selector=TopK(20), every=1, patience=3, stable=1e-9)
        run = trainer(folder, model, [callback], **options)
        run.train(resume_from_checkpoint=resume)
        return run

    whole = run_to(tmp_path / "whole", 50, None)
    run_to(tmp_path / "parts", 2, None)
    resumed = run_to(tmp_path / "parts", 50, newest_checkpoint(tmp_path / "parts"))
    assert resumed.state.global_step == whole.state.global_step == 4
    same = ("step", "ticket/selected", "ticket/largest_D")
    assert [[e[k] for k in same] for e in looks(resumed)] == [[e[k] for k in same] for e in looks(whole)]


def test_a_planted_change_of_a_frozen_weight_is_found(tmp_path) -> None:
    model = embedding_only()
    callback = TicketCallback(copy.deepcopy(model), selector=TopK(3), every=2)
    run = trainer(tmp_path, model, [Plant(), callback])
    with pytest.raises(
        FrozenWeightMovedError, match=r"'lm_head.weight' was frozen .* by step 4 .* 1 of \d+ rows .*row 3"
    ):
        run.train()


def test_weight_decay_of_frozen_weights_is_found(tmp_path) -> None:
    model = embedding_only()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    for name, parameter in model.named_parameters():
        if name != EMBEDDING:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.zero_grad = lambda set_to_none=True: None
    run = trainer(tmp_path, model, [TicketCallback(copy.deepcopy(model), selector=TopK(3), every=1)])
    run.optimizer = optimizer
    run.model.zero_grad = lambda set_to_none=True: None
    with pytest.raises(FrozenWeightMovedError, match=r"the optimizer holds it, with weight_decay=0.1"):
        run.train()


def test_what_cannot_be_compared_is_refused_at_the_start(tmp_path) -> None:
    model = embedding_only()
    run = trainer(tmp_path, model, [TicketCallback(model)])
    with pytest.raises(OptionError, match="the very model that is being trained"):
        run.train()
    model.peft_config = {}
    run = trainer(tmp_path, model, [TicketCallback("base")])
    with pytest.raises(OptionError, match="this model trains a PEFT adapter"):
        run.train()
    del model.peft_config
    narrow = tiny_llama(vocabulary=len(TOKENIZER), dtype=torch.bfloat16)
    run = trainer(tmp_path, model, [TicketCallback(narrow)])
    with pytest.raises(CheckpointError, match="Save both in one dtype"):
        run.train()


def test_options_have_ranges() -> None:
    with pytest.raises(OptionError, match="every=0"):
        TicketCallback("base", every=0)
    with pytest.raises(OptionError, match="patience=0"):
        TicketCallback("base", patience=0)
    with pytest.raises(OptionError, match=r"stable=1.5"):
        TicketCallback("base", stable=1.5)
