"""Layers: merging writes what the forward pass computes, and unmerging gives back every bit."""

import copy

import pytest
import torch
from torch import Tensor, nn

from ks_lottery.adapter.attach import attach_ticket
from ks_lottery.adapter.layer import RowLayer, TiedRowLayer
from ks_lottery.errors import AdapterError
from tests.adapter.tickets import INPUT_ROWS, KINDS, assert_same_logits, logits, make_ticket, tiny_gpt2, tuned, weights
from tests.tiny_models import tiny_llama


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("tied", "ends"), KINDS)
def test_merged_and_unmerged_agree_and_unmerging_is_exact(
    tied: bool, ends: str | None, dtype: torch.dtype, tokens: Tensor
) -> None:
    model = tuned(tiny_llama(tied=tied, dtype=dtype).eval(), ends)
    unmerged, before = logits(model, tokens), weights(model)
    model.merge_adapter(safe_merge=True)
    assert model.get_model_status().merged_adapters == ["default"]
    merged = logits(model, tokens)
    assert_same_logits(merged, unmerged)
    if ends == "input":
        assert torch.equal(merged, unmerged)
    model.unmerge_adapter()
    after = weights(model)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(logits(model, tokens), unmerged)


def test_gpt2_merges_both_ends(tokens: Tensor) -> None:
    model = tuned(tiny_gpt2())
    unmerged = logits(model, tokens)
    merged = model.merge_and_unload()
    assert merged.lm_head.weight is merged.transformer.wte.weight
    assert_same_logits(logits(merged, tokens), unmerged)


@pytest.mark.parametrize("tied", [False, True])
def test_merged_model_differs_from_its_base_in_the_ticket_only(tied: bool) -> None:
    base = weights(tiny_llama(tied=tied))
    merged = tuned(tiny_llama(tied=tied)).merge_and_unload()
    assert type(merged.model.embed_tokens) is nn.Embedding
    assert type(merged.lm_head) is nn.Linear
    rest = torch.ones(64, dtype=torch.bool)
    rest[INPUT_ROWS] = False
    for name, value in merged.state_dict().items():
        changed = "embed_tokens" in name or (tied and "lm_head" in name)
        assert torch.equal(value[rest], base[name][rest]) if changed else torch.equal(value, base[name])
        assert not changed or not torch.equal(value[~rest], base[name][~rest])


def test_unload_gives_back_the_base_model(tokens: Tensor) -> None:
    base = tiny_llama(tied=True).eval()
    before = logits(base, tokens)
    unloaded = tuned(base).unload()
    assert torch.equal(logits(unloaded, tokens), before)
    assert not hasattr(unloaded, "peft_config")


def test_disabling_while_merged_gives_the_base_model(tokens: Tensor) -> None:
    base = tiny_llama(tied=True).eval()
    before = logits(base, tokens)
    model = tuned(base)
    unmerged = logits(model, tokens)
    model.merge_adapter()
    with model.disable_adapter():
        assert torch.equal(logits(model, tokens), before)
    assert torch.equal(logits(model, tokens), unmerged)


def test_safe_merge_refuses_values_that_are_not_finite() -> None:
    model = tuned(tiny_llama())
    layer = model.get_base_model().model.embed_tokens
    layer.ks_ticket_delta["default"].data[1, 2] = torch.nan
    before = weights(model)
    with pytest.raises(AdapterError, match="The adapters default hold NaN or infinite values in Embedding; noth"):
        model.merge_adapter(safe_merge=True)
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items() if "base_layer" in n)
    assert not layer.merged


def test_merging_and_unmerging_twice_warn_as_in_peft() -> None:
    model = tuned(tiny_llama(tied=True))
    with pytest.warns(UserWarning, match="Already unmerged"):
        model.unmerge_adapter()
    model.merge_adapter()
    once = weights(model)
    with pytest.warns(UserWarning, match="All adapters are already merged"):
        model.merge_adapter()
    assert all(torch.equal(value, once[name]) for name, value in model.state_dict().items())


def test_a_merged_layer_still_knows_its_pretrained_rows() -> None:
    model = tuned(tiny_llama())
    layer = model.get_base_model().model.embed_tokens
    index = torch.tensor([3, *INPUT_ROWS[1:]])
    before = layer.pretrained_rows(index)
    model.merge_adapter()
    assert not torch.equal(layer.weight[index], before)
    assert torch.equal(layer.pretrained_rows(index), before)


def test_a_copy_of_a_model_ties_its_own_ends(tokens: Tensor) -> None:
    model = tuned(tiny_llama(tied=True))
    twin = copy.deepcopy(model)
    assert twin.get_base_model().lm_head.source is twin.get_base_model().model.embed_tokens
    before = logits(model, tokens)
    twin.get_base_model().model.embed_tokens.ks_ticket_delta["default"].data.zero_()
    assert torch.equal(logits(model, tokens), before)
    assert not torch.equal(logits(twin, tokens), before)


def test_low_memory_loading_keeps_float32_deltas() -> None:
    layer = RowLayer(nn.Embedding(8, 4, dtype=torch.bfloat16))
    layer.update_layer("default", 2, [1, 3])
    layer._move_adapter_to_device_of_base_layer("default")
    assert layer.ks_ticket_delta["default"].dtype == torch.float32
    assert layer.ks_ticket_index["default"].dtype == torch.int64


def test_hooks_on_the_base_layer_still_run(tokens: Tensor) -> None:
    model = tuned(tiny_llama(tied=True))
    seen: list[str] = []
    for layer in (model.get_base_model().model.embed_tokens, model.get_base_model().lm_head):
        layer.base_layer.register_forward_hook(lambda module, *_: seen.append(type(module).__name__))
    logits(model, tokens)
    assert seen == ["Embedding", "Linear"]


def test_other_modules_are_refused() -> None:
    with pytest.raises(AdapterError, match=r"Rows of torch.nn.*LayerNorm cannot be trained; supported are"):
        RowLayer(nn.LayerNorm(4))


def test_embeddings_with_a_forward_pass_of_their_own_are_refused() -> None:
    class Doubled(nn.Embedding):
        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

    with pytest.raises(AdapterError, match="computes its output in a way of its own"):
        RowLayer(Doubled(8, 4))


def test_quantised_weights_are_refused() -> None:
    head = nn.Linear(4, 8)
    head.weight = nn.Parameter(torch.zeros(8, 4, dtype=torch.int8), requires_grad=False)
    with pytest.raises(AdapterError, match=r"The weight of Linear is quantised \(torch.int8\)"):
        RowLayer(head)


def test_a_partitioned_head_is_refused() -> None:
    model = tuned(tiny_llama(), "output")
    head = model.get_base_model().lm_head
    whole = head.base_layer.weight.data
    head.base_layer.register_forward_hook(lambda module, *_: setattr(module.weight, "data", torch.empty(0)))
    with pytest.raises(AdapterError, match="The weight of the output head Linear is partitioned"):
        head(torch.zeros(1, whole.shape[1]))


def test_a_tied_layer_has_no_tensors_of_its_own() -> None:
    source = RowLayer(nn.Embedding(8, 4))
    source.update_layer("default", 2, [1, 3])
    head = nn.Linear(4, 8, bias=False)
    head.weight = source.base_layer.weight
    follower = TiedRowLayer(head, source)
    assert list(follower.state_dict()) == ["base_layer.weight"]
    assert follower.ks_ticket_delta is source.ks_ticket_delta


def test_a_second_ticket_finds_its_base_under_the_first() -> None:
    base = tiny_llama(tied=True)
    ticket = make_ticket(base, rows=[[2, 7]])
    model = tuned(base)
    assert attach_ticket(model, ticket, "second") is model
    assert list(model.peft_config) == ["default", "second"]
