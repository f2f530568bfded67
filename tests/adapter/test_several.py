"""Several tickets in one model: switching, stacking, deleting, weighing."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM

from ks_lottery.adapter.attach import attach_ticket
from ks_lottery.adapter.config import LotteryConfig
from ks_lottery.errors import AdapterError
from tests.adapter.tickets import (
    INPUT_ROWS,
    assert_same_logits,
    logits,
    make_ticket,
    randomise,
    saved_llama,
    trainable,
    tuned,
    weights,
)
from tests.tiny_models import WIDTH, tiny_llama

SECOND_ROWS = [7, 8, 31, 40]


def two_tickets(tied: bool = True, dtype: torch.dtype = torch.float32) -> PeftModel:
    """A model with overlapping tickets "default" and "second", random values in both, "default" active."""
    base = tiny_llama(tied=tied, dtype=dtype)
    second = make_ticket(base, None if tied else "both", rows=[SECOND_ROWS, [1, 5]])
    model = tuned(base, None if tied else "both")
    attach_ticket(model, second, "second")
    model.set_adapter("second")
    randomise(model, seed=6)
    model.set_adapter("default")
    return model.eval()


def deltas(model: PeftModel, name: str, module: str = "model.embed_tokens") -> dict[int, Tensor]:
    layer = model.get_base_model().get_submodule(module)
    index, values = layer.ks_ticket_index[name], layer.ks_ticket_delta[name]
    return dict(zip(index.tolist(), values.detach(), strict=True))


def test_a_second_ticket_is_added_inactive_and_frozen(tokens: Tensor) -> None:
    model = tuned(tiny_llama(tied=True))
    before, training = logits(model, tokens), trainable(model)
    attach_ticket(model, make_ticket(tiny_llama(tied=True), rows=[SECOND_ROWS]), "second")
    assert trainable(model) == training
    assert torch.equal(logits(model, tokens), before)
    model.set_adapter("second")
    assert trainable(model) == {"base_model.model.model.embed_tokens.ks_ticket_delta.second": (4, WIDTH)}
    assert model.get_model_status().active_adapters == ["second"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tied", [False, True])
def test_two_active_tickets_add_up_and_merge_as_one(tied: bool, dtype: torch.dtype, tokens: Tensor) -> None:
    model = two_tickets(tied, dtype)
    model.base_model.set_adapter(["default", "second"])
    both, before = logits(model, tokens), weights(model)
    model.merge_adapter()
    assert_same_logits(logits(model, tokens), both)
    once = weights(model)
    model.unmerge_adapter()
    assert all(torch.equal(value, before[name]) for name, value in weights(model).items())
    model.merge_adapter(adapter_names=["default"])
    with pytest.warns(UserWarning, match="You are now additionally merging second"):
        model.merge_adapter(adapter_names=["second"])
    assert all(torch.equal(value, once[name]) for name, value in weights(model).items())
    model.unmerge_adapter()
    assert all(torch.equal(value, before[name]) for name, value in weights(model).items())


def test_both_active_tickets_train() -> None:
    model = two_tickets()
    model.base_model.set_adapter(["default", "second"])
    tokens = torch.tensor([[7, 8, 9, 31]])
    model(input_ids=tokens, labels=tokens).loss.backward()
    layer = model.get_base_model().model.embed_tokens
    first, second = (layer.ks_ticket_delta[name].grad for name in ("default", "second"))
    shared = [(INPUT_ROWS.index(row), SECOND_ROWS.index(row)) for row in (7, 31)]
    assert all(torch.equal(first[i], second[j]) for i, j in shared)
    assert first.abs().sum() > 0


def test_switching_and_deleting(tokens: Tensor) -> None:
    model = two_tickets()
    first = logits(model, tokens)
    model.set_adapter("second")
    second = logits(model, tokens)
    assert not torch.equal(first, second)
    with pytest.warns(UserWarning, match="Adapter second was active which is now deleted"):
        model.delete_adapter("second")
    assert torch.equal(logits(model, tokens), first)
    assert model.get_model_status().active_adapters == ["default"]
    assert not [name for name in model.state_dict() if "second" in name]


@pytest.mark.parametrize("tied", [False, True])
def test_a_weighted_adapter_is_the_weighted_sum_over_the_union(tied: bool, tmp_path: Path, tokens: Tensor) -> None:
    model = two_tickets(tied)
    model.add_weighted_adapter(["default", "second"], [0.3, -2.0], "sum")
    first, second, total = (deltas(model, name) for name in ("default", "second", "sum"))
    assert list(total) == sorted({*INPUT_ROWS, *SECOND_ROWS})
    for row, value in total.items():
        zero = torch.zeros(WIDTH)
        exact = 0.3 * first.get(row, zero).double() + -2.0 * second.get(row, zero).double()
        assert torch.equal(value, exact.float())
    assert model.get_model_status().requires_grad["sum"] is False
    model.set_adapter("sum")
    expected = logits(model, tokens)
    assert_same_logits(logits(model.merge_and_unload(), tokens), expected)


def test_a_weighted_adapter_of_different_ends(tokens: Tensor) -> None:
    base = tiny_llama()
    head = make_ticket(base, "output")
    model = tuned(base, "input")
    attach_ticket(model, head, "head")
    model.set_adapter("head")
    randomise(model)
    model.add_weighted_adapter(["default", "head"], [1.0, 1.0], "both")
    model.base_model.set_adapter(["default", "head"])
    expected = logits(model, tokens)
    model.set_adapter("both")
    assert torch.equal(logits(model, tokens), expected)


def test_every_adapter_is_saved_and_loads_again(tmp_path: Path, tokens: Tensor) -> None:
    base = saved_llama(tmp_path, tied=True)
    model = two_tickets()
    model.get_base_model().name_or_path = str(base)
    first = logits(model, tokens)
    model.set_adapter("second")
    second = logits(model, tokens)
    model.save_pretrained(tmp_path / "adapters")
    again = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(tmp_path / "adapters"))
    again.load_adapter(str(tmp_path / "adapters" / "second"), "second")
    assert torch.equal(logits(again, tokens), first)
    again.set_adapter("second")
    assert torch.equal(logits(again, tokens), second)
    plain = tmp_path / "adapters" / "second" / "plain" / "adapter"
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(plain))
    assert_same_logits(logits(loaded, tokens), second)


def test_weighing_what_is_not_there_is_refused() -> None:
    model = two_tickets()
    with pytest.raises(AdapterError, match="there is no adapter 'third'; the model has 'default', 'second'"):
        model.add_weighted_adapter(["default", "third"], [1, 1], "sum")
    with pytest.raises(AdapterError, match="2 adapters, but 1 weights"):
        model.add_weighted_adapter(["default", "second"], [1], "sum")
    with pytest.raises(AdapterError, match="has an adapter 'second' already"):
        model.add_weighted_adapter(["default"], [1], "second")


def test_weighing_whole_modules_is_refused() -> None:
    model = tuned(tiny_llama())
    config = LotteryConfig(positions={"lm_head": [3]}, modules_to_save=["norm"], task_type="CAUSAL_LM")
    model.add_adapter("whole", config)
    with pytest.raises(AdapterError, match="'whole' also train whole modules"):
        model.add_weighted_adapter(["default", "whole"], [1, 1], "sum")
