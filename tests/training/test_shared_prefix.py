"""A prefix that is computed once gives the loss and the gradients of the plain forward pass."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, PrefixTuningConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, Trainer

from ks_lottery.errors import OptionError
from ks_lottery.training.arguments import probe_arguments
from ks_lottery.training.examples import Example, ResponseCollator
from ks_lottery.training.shared_prefix import shared_prefix


def build(layers: int = 2) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=60,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=64,
    )
    return LlamaForCausalLM(config)


def examples(shared: int, count: int = 6, seed: int = 0) -> list[Example]:
    """Rows of different lengths that begin with the same `shared` tokens."""
    draw = torch.Generator().manual_seed(seed)
    prefix = torch.randint(3, 60, (shared,), generator=draw).tolist()
    rows = []
    for row in range(count):
        prompt = [*prefix, 3 + row, *torch.randint(3, 60, (1 + row % 3,), generator=draw).tolist()]
        response = [*torch.randint(3, 60, (1 + row % 4,), generator=draw).tolist(), 2]
        rows.append(Example(input_ids=prompt + response, labels=[-100] * len(prompt) + response))
    return rows


def gradients(model: Any, batch: dict[str, torch.Tensor], **more: Any) -> tuple[float, list[torch.Tensor]]:
    model.zero_grad()
    loss = model(**batch, **more).loss
    loss.backward()
    return loss.item(), [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("shared", [0, 1, 7])
@pytest.mark.parametrize("kind", ["full", "lora"])
def test_loss_and_gradients_are_the_plain_ones(shared: int, kind: str) -> None:
    model: Any = build()
    if kind == "lora":
        model = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    batch = ResponseCollator(0)(examples(shared))
    plain, expected = gradients(model, batch)
    with shared_prefix(model):
        loss, found = gradients(model, batch)
    assert loss == pytest.approx(plain, rel=1e-6)
    assert len(found) == len(expected) > 0
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_the_prefix_is_computed_in_one_row() -> None:
    model = build()
    seen: list[tuple[int, ...]] = []
    model.get_input_embeddings().register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    batch = ResponseCollator(0)(examples(7))
    with shared_prefix(model):
        model(**batch)
    width = batch["input_ids"].shape[1]
    assert seen == [(1, 7), (6, width - 7)]


def test_a_prompt_that_all_rows_share_keeps_its_last_token() -> None:
    rows = [Example(input_ids=[5, 6, 7, word, 2], labels=[-100] * 3 + [word, 2]) for word in (8, 9)]
    model, batch = build(), ResponseCollator(0)(rows)
    plain, expected = gradients(model, batch)
    with shared_prefix(model):
        loss, found = gradients(model, batch)
    assert loss == pytest.approx(plain, rel=1e-6)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_the_number_of_items_of_a_trainer_divides_the_loss() -> None:
    model, batch = build(), ResponseCollator(0)(examples(7))
    items = torch.tensor(50)
    plain, _ = gradients(model, batch, num_items_in_batch=items)
    with shared_prefix(model):
        loss, _ = gradients(model, batch, num_items_in_batch=items)
    assert loss == pytest.approx(plain, rel=1e-6)


def test_a_stock_trainer_trains_the_same_weights(tmp_path: Any) -> None:
    weights = []
    for shares in (False, True):
        model = build()
        arguments = probe_arguments(tmp_path, max_steps=3, per_device_train_batch_size=4, save_strategy="no",
                                    learning_rate=1e-3, disable_tqdm=True, logging_strategy="no")  # fmt: skip
        trainer = Trainer(model=model, args=arguments, train_dataset=examples(7, 12), data_collator=ResponseCollator(0))
        if shares:
            with shared_prefix(model):
                trainer.train()
        else:
            trainer.train()
        weights.append([parameter.detach().clone() for parameter in model.parameters()])
    for mine, theirs in zip(*weights, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-5)


def test_calls_without_labels_and_the_model_afterwards_are_plain() -> None:
    model, batch = build(), ResponseCollator(0)(examples(7))
    ids = batch["input_ids"]
    with shared_prefix(model):
        assert model(input_ids=ids).logits.shape == (*ids.shape, 60)
    assert "forward" not in vars(model)
    assert model(**batch).logits.shape == (*ids.shape, 60)


def test_one_row_and_rows_without_response_stay_plain() -> None:
    model, batch = build(), ResponseCollator(0)(examples(7))
    one = {name: value[:1] for name, value in batch.items()}
    nothing = {**batch, "labels": torch.full_like(batch["labels"], -100)}
    with shared_prefix(model):
        for inputs in (one, nothing):
            assert model(**inputs).logits.shape[:2] == inputs["input_ids"].shape


def test_models_that_cannot_share_are_refused() -> None:
    prompted = get_peft_model(build(), PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))
    with pytest.raises(OptionError, match="virtual tokens before the prompt"), shared_prefix(prompted):
        pass

    class WithoutCache(LlamaForCausalLM):
        def forward(self, input_ids: Any = None) -> Any:
            return super().forward(input_ids=input_ids)

    with pytest.raises(OptionError, match="takes no cache"), shared_prefix(WithoutCache(build().config)):
        pass
    with pytest.raises(OptionError, match="needs a transformers model"), shared_prefix(torch.nn.Linear(2, 2)):
        pass
