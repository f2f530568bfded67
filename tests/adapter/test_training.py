"""Training with a stock Trainer: exactly the ticket moves, and interrupted training continues bit for bit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments, set_seed

from ks_lottery.adapter.attach import attach_ticket
from tests.adapter.tickets import INPUT_ROWS, KINDS, OUTPUT_ROWS, logits, make_ticket, tiny_gpt2, tuned, weights
from tests.tiny_models import VOCABULARY, recompute, tiny_llama


class Sentences(Dataset[dict[str, Tensor]]):
    """Random token sequences that hold every row of both tickets."""

    def __init__(self, count: int = 16, length: int = 10) -> None:
        generator = torch.Generator().manual_seed(0)
        rows = torch.tensor(sorted({*INPUT_ROWS, *OUTPUT_ROWS}))
        self.tokens = torch.randint(VOCABULARY, (count, length), generator=generator)
        self.tokens[:, : len(rows)] = rows

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        return {"input_ids": self.tokens[number], "labels": self.tokens[number]}


def train(model: torch.nn.Module, folder: Path, steps: int, resume: bool = False, **options: Any) -> None:
    set_seed(0)
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        lr_scheduler_type="constant",
        use_cpu=True,
        report_to=[],
        logging_strategy="no",
        disable_tqdm=True,
        **{"save_strategy": "no", **options},
    )
    Trainer(model=model, args=arguments, train_dataset=Sentences()).train(resume_from_checkpoint=resume)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("tied", "ends"), KINDS)
def test_weight_decay_moves_the_ticket_and_nothing_else(
    tied: bool, ends: str | None, dtype: torch.dtype, tmp_path: Path
) -> None:
    base = tiny_llama(tied=tied, dtype=dtype)
    before = weights(base)
    model = attach_ticket(base, make_ticket(base, ends))
    train(model, tmp_path, steps=20, weight_decay=0.1)
    for name, value in model.get_base_model().state_dict().items():
        if "ks_ticket" not in name:
            assert torch.equal(value, before[name.replace(".base_layer", "")]), name
    merged = model.merge_and_unload().state_dict()
    for name, value in merged.items():
        moved = (value != before[name]).any(dim=-1).nonzero().flatten().tolist() if value.dim() == 2 else []
        chosen = []
        if "embed_tokens" in name or (tied and "lm_head" in name):
            chosen = INPUT_ROWS if ends != "output" else []
        elif "lm_head" in name:
            chosen = OUTPUT_ROWS if ends in ("output", "both") else []
        assert moved == chosen, name


def test_gpt2_trains_exactly_its_ticket(tmp_path: Path) -> None:
    base = tiny_gpt2()
    before = weights(base)
    model = attach_ticket(base, make_ticket(base))
    train(model, tmp_path, steps=3, weight_decay=0.1)
    merged = model.merge_and_unload().state_dict()
    moved = {name: (value != before[name]) for name, value in merged.items() if not torch.equal(value, before[name])}
    assert set(moved) == {"transformer.wte.weight", "lm_head.weight"}
    assert all(m.any(dim=1).nonzero().flatten().tolist() == INPUT_ROWS for m in moved.values())


def test_weight_decay_pulls_towards_the_pretrained_rows() -> None:
    model = tuned(tiny_llama())
    delta = model.get_base_model().model.embed_tokens.ks_ticket_delta["default"]
    before = delta.detach().clone()
    delta.grad = torch.zeros_like(delta)
    torch.optim.AdamW([delta], lr=0.1, weight_decay=0.5).step()
    torch.testing.assert_close(delta.detach(), before * (1 - 0.1 * 0.5))


@pytest.mark.parametrize("tied", [False, True])
def test_training_continues_bit_for_bit(tied: bool, tmp_path: Path) -> None:
    def fresh() -> torch.nn.Module:
        base = tiny_llama(tied=tied)
        return attach_ticket(base, make_ticket(base, None if tied else "both"))

    options = {"save_strategy": "steps", "save_steps": 3, "weight_decay": 0.1}
    whole, first, second = fresh(), fresh(), fresh()
    train(whole, tmp_path / "whole", steps=6, **options)
    train(first, tmp_path / "halves", steps=3, **options)
    train(second, tmp_path / "halves", steps=6, resume=True, **options)
    assert not torch.equal(*(next(p for p in m.parameters() if p.requires_grad) for m in (first, second)))
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in whole.state_dict().items())
    checkpoint = tmp_path / "halves" / "checkpoint-6"
    assert (checkpoint / "plain" / "adapter" / "adapter_model.safetensors").is_file()


def test_a_training_checkpoint_holds_the_ticket_and_not_the_model(tmp_path: Path) -> None:
    shape = {"vocab_size": VOCABULARY, "hidden_size": 1024, "intermediate_size": 256, "num_hidden_layers": 1}
    base = LlamaForCausalLM(LlamaConfig(**shape, num_attention_heads=4, tie_word_embeddings=False))
    rows = list(range(18))
    train(
        attach_ticket(base, make_ticket(base, "input", [rows])), tmp_path, steps=1, save_strategy="steps", save_steps=1
    )
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "checkpoint-1").rglob("*") if path.is_file()}
    values = 18 * 1024 * 4
    assert values < sizes["adapter_model.safetensors"] < values + 4_000
    assert 2 * values < sizes["optimizer.pt"] < 2 * values + 8_000
    assert sum(sizes.values()) < 1e6 < base.num_parameters()


def test_the_best_checkpoint_is_loaded_at_the_end(tmp_path: Path, tokens: Tensor) -> None:
    base = tiny_llama(tied=True)
    model = attach_ticket(base, make_ticket(base))
    set_seed(0)
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=4,
        learning_rate=2.0,
        lr_scheduler_type="constant",
        save_steps=2,
        eval_strategy="steps",
        eval_steps=2,
        load_best_model_at_end=True,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=Sentences(), eval_dataset=Sentences())
    trainer.train()
    assert trainer.state.best_model_checkpoint == str(tmp_path / "checkpoint-2")
    best = attach_ticket(tiny_llama(tied=True), make_ticket(tiny_llama(tied=True)))
    best.load_adapter(trainer.state.best_model_checkpoint, "default")
    assert torch.equal(logits(model.eval(), tokens), logits(best.eval(), tokens))


def gradients(model: torch.nn.Module, tokens: Tensor) -> list[Tensor]:
    model.zero_grad()
    model(input_ids=tokens, labels=tokens).loss.backward()
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.requires_grad]


@pytest.mark.parametrize("use_reentrant", [True, False])
@pytest.mark.parametrize(("tied", "ends"), KINDS)
def test_gradient_checkpointing_gives_equal_gradients(
    tied: bool, ends: str | None, use_reentrant: bool, tokens: Tensor
) -> None:
    model = tuned(tiny_llama(tied=tied), ends).train()
    expected = gradients(model, tokens)
    recompute(model.get_base_model(), use_reentrant=use_reentrant)
    got = gradients(model, tokens)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


@pytest.mark.parametrize(("tied", "ends"), [(False, "both"), (True, None)])
def test_the_whole_model_compiles_without_graph_breaks(tied: bool, ends: str | None, tokens: Tensor) -> None:
    model = tuned(tiny_llama(tied=tied), ends).train()
    del model.get_base_model().model.layers[1:]
    expected = gradients(model, tokens)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    got = gradients(compiled, tokens)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(("tied", "ends"), [(False, "both"), (True, None)])
def test_autocast_keeps_deltas_and_gradients_in_float32(tied: bool, ends: str | None, tokens: Tensor) -> None:
    model = tuned(tiny_llama(tied=tied), ends).train()
    expected = gradients(model, tokens)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = gradients(model, tokens)
        mixed = logits(model, tokens)
    assert mixed.dtype == torch.bfloat16
    assert {gradient.dtype for gradient in got} == {torch.float32}
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0.1, atol=0.02 * float(b.abs().max()))


def test_gradients_equal_those_of_training_the_whole_tied_matrix(tokens: Tensor) -> None:
    base = tiny_llama(tied=True)
    base(input_ids=tokens, labels=tokens).loss.backward()
    dense = base.model.embed_tokens.weight.grad[INPUT_ROWS]
    model = attach_ticket(tiny_llama(tied=True), make_ticket(tiny_llama(tied=True)))
    torch.testing.assert_close(gradients(model, tokens)[0], dense, rtol=1e-4, atol=1e-7)
