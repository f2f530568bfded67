"""One adapter of token rows, heads, neurons, norms and single weights does everything that one of token rows does."""

import copy
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import AutoPeftModelForCausalLM, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from ks_lottery.adapter.attach import attach_ticket
from ks_lottery.adapter.config import LotteryConfig
from ks_lottery.adapter.fit import chosen_parts
from ks_lottery.adapter.linear import LinearLayer, VectorLayer
from ks_lottery.adapter.transfer import transfer_ticket
from ks_lottery.errors import AdapterError
from ks_lottery.ticket.ticket import Ticket
from ks_lottery.units.slab import Slab
from tests.adapter.mixed_tickets import Group, gpt2_groups, hand_drawn, llama_groups
from tests.adapter.test_training import train
from tests.adapter.tickets import assert_same_logits, logits, randomise, tiny_gpt2, trainable, weights
from tests.tiny_models import WIDTH, recompute, tiny_llama

pytestmark = pytest.mark.filterwarnings("ignore:.*without a form for plain PEFT:UserWarning")

Case = tuple[Callable[..., nn.Module], Sequence[Group]]
CASES: dict[str, Case] = {
    "llama": (tiny_llama, llama_groups()),
    "tied llama": (lambda **options: tiny_llama(tied=True, **options), llama_groups(tied=True)),
    "gpt2": (lambda dtype=torch.float32: tiny_gpt2().to(dtype), gpt2_groups()),
}
cases = pytest.mark.parametrize("case", CASES)


def build(case: str, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, Ticket]:
    """A base model and its mixed ticket."""
    model, groups = CASES[case]
    base = model(dtype=dtype).eval()
    return base, hand_drawn(base, groups)


def tuned(case: str, dtype: torch.dtype = torch.float32, seed: int = 5) -> tuple[PeftModel, Ticket]:
    """A model with an attached mixed ticket whose deltas are random."""
    base, ticket = build(case, dtype)
    model = attach_ticket(base, ticket)
    randomise(model, seed=seed)
    return model.eval(), ticket


def assert_only_the_ticket_differs(after: dict[str, Tensor], before: dict[str, Tensor], ticket: Ticket) -> None:
    masks = ticket.masks()
    if "tied" in ticket.selections:
        embedding = next(name for name in masks if name.endswith(("embed_tokens.weight", "wte.weight")))
        masks["lm_head.weight"] = masks[embedding]
    for name, value in after.items():
        mask = masks.get(name, torch.zeros(value.shape, dtype=torch.bool))
        assert torch.equal(value[~mask], before[name][~mask]), name
        assert not mask.any() or float((value[mask] != before[name][mask]).float().mean()) > 0.5, name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@cases
def test_exactly_the_ticket_trains_and_nothing_changes_at_first(case: str, dtype: torch.dtype, tokens: Tensor) -> None:
    base, ticket = build(case, dtype)
    before = logits(base, tokens)
    model = attach_ticket(base, ticket)
    assert torch.equal(logits(model, tokens), before)
    assert model.get_nb_trainable_parameters()[0] == ticket.num_trainable()
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    model(input_ids=tokens, labels=tokens).loss.backward()
    assert all((p.grad != 0).any() for p in model.parameters() if p.requires_grad)
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@cases
def test_merged_equals_unmerged_and_unmerging_gives_every_bit_back(
    case: str, dtype: torch.dtype, tokens: Tensor
) -> None:
    before = weights(build(case, dtype)[0])
    model, ticket = tuned(case, dtype)
    unmerged, unmerged_weights = logits(model, tokens), weights(model)
    with model.disable_adapter():
        assert torch.equal(logits(model, tokens), logits(build(case, dtype)[0], tokens))
    model.merge_adapter(safe_merge=True)
    assert_same_logits(logits(model, tokens), unmerged)
    with model.disable_adapter():
        assert torch.equal(logits(model, tokens), logits(build(case, dtype)[0], tokens))
    assert all(torch.equal(value, unmerged_weights[name]) for name, value in weights(model).items())
    assert torch.equal(logits(model, tokens), unmerged)
    merged = model.merge_and_unload()
    assert_same_logits(logits(merged, tokens), unmerged)
    assert_only_the_ticket_differs(weights(merged), before, ticket)
    assert not any(isinstance(module, LinearLayer | VectorLayer) for module in merged.modules())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@cases
def test_after_steps_with_weight_decay_every_unselected_value_has_its_bits(
    case: str, dtype: torch.dtype, tokens: Tensor
) -> None:
    base, ticket = build(case, dtype)
    before = weights(base)
    model = attach_ticket(base, ticket).train()
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-2, weight_decay=0.1)
    for _ in range(20):
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    for name, value in model.get_base_model().state_dict().items():
        if "ks_ticket" not in name:
            assert torch.equal(value, before[name.replace(".base_layer", "")]), name
    assert_only_the_ticket_differs(weights(model.merge_and_unload()), before, ticket)


@cases
def test_partial_tuning_is_dense_training_projected_after_every_step(case: str, tokens: Tensor) -> None:
    base, ticket = build(case)
    dense, masks, rate = copy.deepcopy(base).requires_grad_(), ticket.masks(), 0.1
    model = attach_ticket(base, ticket)
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=rate)
    for _ in range(5):
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        dense.zero_grad()
        dense(input_ids=tokens, labels=tokens).loss.backward()
        with torch.no_grad():
            for name, parameter in dense.named_parameters():
                if name in masks:
                    parameter -= rate * torch.where(masks[name], parameter.grad, 0.0)
    for name, value in model.merge_and_unload().named_parameters():
        torch.testing.assert_close(value, dense.get_parameter(name), rtol=0, atol=1e-5)
    before, after = weights(build(case)[0]), weights(dense)
    assert any(float((after[name] - before[name]).abs().max()) > 1e-3 for name in masks)


@cases
def test_gradient_checkpointing_and_autocast(case: str, tokens: Tensor) -> None:
    model = tuned(case)[0].train()

    def gradients() -> list[Tensor]:
        model.zero_grad()
        torch.manual_seed(0)
        model(input_ids=tokens, labels=tokens).loss.backward()
        return [p.grad.clone() for p in model.parameters() if p.requires_grad]

    expected = gradients()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = gradients()
    assert {gradient.dtype for gradient in mixed} == {torch.float32}
    if case != "gpt2":  # its dropout draws other numbers in bfloat16
        for a, b in zip(mixed, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=0.1, atol=0.05 * float(b.abs().max()))
    for use_reentrant in (False, True):
        recompute(model.get_base_model(), use_reentrant=use_reentrant)
        assert all(torch.equal(a, b) for a, b in zip(gradients(), expected, strict=True))


def native(adapter: Path, base: Path) -> nn.Module:
    model = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    model.load_adapter(str(adapter))
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@cases
def test_a_saved_adapter_loads_everywhere(case: str, dtype: torch.dtype, tmp_path: Path, tokens: Tensor) -> None:
    build(case, dtype)[0].save_pretrained(tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype="auto")
    model = attach_ticket(base, hand_drawn(base, CASES[case][1])).eval()
    randomise(model)
    adapter, expected = tmp_path / "adapter", logits(model, tokens)
    model.save_pretrained(adapter)

    def fresh() -> nn.Module:
        return AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype="auto")

    for loaded in (
        PeftModel.from_pretrained(fresh(), str(adapter), is_trainable=True),
        PeftModel.from_pretrained(fresh(), str(adapter), low_cpu_mem_usage=True),
        AutoPeftModelForCausalLM.from_pretrained(str(adapter), dtype="auto"),
        AutoModelForCausalLM.from_pretrained(str(adapter), dtype="auto"),
        native(adapter, tmp_path / "base"),
    ):
        assert torch.equal(logits(loaded.eval(), tokens), expected)
    merged = PeftModel.from_pretrained(fresh(), str(adapter)).merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype="auto")
    assert torch.equal(logits(again, tokens), logits(merged, tokens))


def test_the_files_hold_shapes_positions_and_values_and_nothing_else(tmp_path: Path) -> None:
    model, ticket = tuned("llama")
    model.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "adapter_config.json").read_text())
    assert written["columns"] == {"model.layers.0.self_attn.o_proj": 16, "model.layers.0.mlp.down_proj": 3}
    assert written["entries"] == {
        "model.layers.1.input_layernorm.weight": 32,
        "model.layers.1.mlp.up_proj.weight": 40,
        "model.layers.1.self_attn.q_proj.weight": 200,
    }
    assert not {"positions", "column_positions", "entry_positions"} & written.keys()
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    assert sum(t.numel() for name, t in tensors.items() if not name.endswith("index")) == ticket.num_trainable()
    single = [t for name, t in tensors.items() if "ks_ticket_entries" in name]
    assert {t.dtype for t in single} == {torch.float32, torch.int32}
    assert sum(t.nbytes for t in single) == 8 * (32 + 40 + 200)


def test_an_older_plain_form_is_removed_where_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "plain" / "adapter").mkdir(parents=True)
    config = LotteryConfig(positions={"lm_head": [1]})
    config.save_pretrained(tmp_path)
    assert (tmp_path / "plain").exists()
    config.has_no_plain_form = True
    config.save_pretrained(tmp_path)
    assert not (tmp_path / "plain").exists()


def test_rows_of_linear_layers_load_in_plain_peft(tmp_path: Path, tokens: Tensor) -> None:
    tiny_llama().save_pretrained(tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    rows = {"model.layers.0.mlp.up_proj": [3, 9], "model.layers.1.self_attn.q_proj": [1]}
    model = get_peft_model(base, LotteryConfig(positions=rows, task_type="CAUSAL_LM")).eval()
    randomise(model)
    model.save_pretrained(tmp_path / "adapter")
    plain = AutoPeftModelForCausalLM.from_pretrained(str(tmp_path / "adapter" / "plain" / "adapter"))
    assert plain.peft_type.value != "KS_TICKET"
    assert_same_logits(logits(plain, tokens), logits(model, tokens))


def two_adapters(case: str) -> PeftModel:
    """A model with two mixed tickets that share some weights, "default" active."""
    model, _ = tuned(case)
    base, _ = build(case)
    groups = [(name, slabs, count, [0, 5] if count > 2 else [0]) for name, slabs, count, _ in CASES[case][1]]
    parameter = "transformer.h.0.attn.c_attn.weight" if case == "gpt2" else "model.layers.0.self_attn.q_proj.weight"
    size = base.get_parameter(parameter).numel()
    across = (base.get_parameter(parameter).shape[1], "columns", 1) if case != "gpt2" else (32, "rows", 0)
    groups += [
        ("inside", [Slab(parameter, None)], size, list(range(0, size, 37))),
        (across[1], [Slab(parameter, across[2])], across[0], [2, 11]),
    ]
    attach_ticket(model, hand_drawn(base, groups), "second")
    model.set_adapter("second")
    randomise(model, seed=6)
    model.set_adapter("default")
    return model.eval()


@cases
def test_two_adapters_switch_add_up_and_merge_as_one(case: str, tokens: Tensor) -> None:
    model = two_adapters(case)
    first, before = logits(model, tokens), weights(model)
    model.set_adapter("second")
    second = logits(model, tokens)
    assert not torch.equal(first, second)
    model.base_model.set_adapter(["default", "second"])
    both = logits(model, tokens)
    model.merge_adapter()
    assert_same_logits(logits(model, tokens), both)
    model.unmerge_adapter()
    assert all(torch.equal(value, before[name]) for name, value in weights(model).items())
    model.delete_adapter("second")
    assert torch.equal(logits(model, tokens), first)
    assert not [name for name in model.state_dict() if "second" in name]


@cases
def test_a_weighted_adapter_is_the_weighted_sum(case: str, tokens: Tensor) -> None:
    model = two_adapters(case)
    model.add_weighted_adapter(["default", "second"], [1.0, 1.0], "sum")
    model.base_model.set_adapter(["default", "second"])
    expected = logits(model, tokens)
    model.set_adapter("sum")
    torch.testing.assert_close(logits(model, tokens), expected, rtol=0, atol=2e-6)
    model.add_weighted_adapter(["default", "second"], [0.5, -2.0], "other")
    for adapter, factor in (("default", 0.5), ("second", -2.0)):
        model.set_adapter(adapter)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith(f".{adapter}"):
                    parameter.mul_(factor)
    model.base_model.set_adapter(["default", "second"])
    expected = logits(model, tokens)
    model.set_adapter("other")
    torch.testing.assert_close(logits(model, tokens), expected, rtol=0, atol=2e-6)
    assert_same_logits(logits(model.merge_and_unload(), tokens), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@cases
def test_transfer_copies_exactly_the_ticket(case: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model, ticket = build(case, dtype)
    before = weights(model)
    after = copy.deepcopy(build(case)[0])
    with torch.no_grad():
        for parameter in after.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    after.save_pretrained(tmp_path)
    transfer_ticket(model, ticket, tmp_path)
    masks = ticket.masks()
    for name, parameter in model.named_parameters():
        wanted = after.get_parameter(name).to(dtype)
        mask = masks.get(name, torch.zeros(parameter.shape, dtype=torch.bool))
        assert torch.equal(parameter, torch.where(mask, wanted, before[name])), name


def test_units_that_share_weights_train_them_once(tokens: Tensor) -> None:
    base = tiny_llama().eval()
    parameter = "model.layers.0.self_attn.q_proj.weight"
    groups: list[Group] = [
        ("rows", [Slab(parameter, 0)], WIDTH, [3, 4]),
        ("again", [Slab(parameter, 0, 2)], WIDTH // 2, [2]),
        ("columns", [Slab(parameter, 1)], WIDTH, [7]),
        ("single", [Slab(parameter, None)], WIDTH * WIDTH, [3 * WIDTH, 6 * WIDTH + 7, 6 * WIDTH + 8, 9 * WIDTH]),
    ]
    ticket = hand_drawn(base, groups)
    parts = {part.dim: part.index.tolist() for part in chosen_parts(ticket)}
    assert parts == {0: [3, 4, 5], 1: [7], None: [6 * WIDTH + 8, 9 * WIDTH]}
    dense, before = copy.deepcopy(base).requires_grad_(), weights(base)
    model = attach_ticket(base, ticket)
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=0.1)
    model(input_ids=tokens, labels=tokens).loss.backward()
    optimizer.step()
    dense(input_ids=tokens, labels=tokens).loss.backward()
    step = torch.where(ticket.masks()[parameter], 0.1 * dense.get_parameter(parameter).grad, 0.0)
    merged = model.merge_and_unload().get_parameter(parameter)
    torch.testing.assert_close(merged, before[parameter] - step, rtol=0, atol=1e-6)


def test_a_ticket_of_whole_parameters_trains_slices_of_them() -> None:
    base = tiny_llama()
    names = [name for name in dict(base.named_parameters()) if name.startswith("model.layers.1.")]
    sizes = {name: base.get_parameter(name).numel() for name in names}
    as_rows = [Slab(name, 0, base.get_parameter(name).shape[0]) for name in names]
    flat = [Slab(name, None, sizes[name]) for name in names]
    shapes = []
    for slabs in (as_rows, flat):
        base = tiny_llama()
        ticket = hand_drawn(base, [("layers.1", slabs, 1, [0])], "layers")
        model = attach_ticket(base, ticket)
        assert model.get_nb_trainable_parameters()[0] == sum(sizes.values()) == ticket.num_trainable()
        shapes.append(trainable(model))
    assert shapes[0] == shapes[1]
    assert not any("entries" in name and len(shape) == 1 and "norm" not in name for name, shape in shapes[0].items())


def test_training_continues_bit_for_bit(tmp_path: Path) -> None:
    def fresh() -> nn.Module:
        return attach_ticket(*build("tied llama"))

    options = {"save_strategy": "steps", "save_steps": 2, "weight_decay": 0.1}
    whole, first, second = fresh(), fresh(), fresh()
    train(whole, tmp_path / "whole", steps=4, **options)
    train(first, tmp_path / "halves", steps=2, **options)
    train(second, tmp_path / "halves", steps=4, resume=True, **options)
    assert not torch.equal(*(next(p for p in m.parameters() if p.requires_grad) for m in (first, second)))
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in whole.state_dict().items())


def test_positions_can_be_chosen_without_a_ticket() -> None:
    config = LotteryConfig(
        positions={"model.embed_tokens": [3]},
        column_positions={"model.layers.0.mlp.down_proj": [7]},
        entry_positions={"model.layers.0.mlp.up_proj.weight": np.array([0, 40]), "model.norm.weight": range(WIDTH)},
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(tiny_llama(), config)
    assert list(trainable(model).values()) == [(1, WIDTH), (2,), (1, WIDTH), (WIDTH,)]
    assert config.target_modules == [
        "model.embed_tokens", "model.layers.0.mlp.down_proj", "model.layers.0.mlp.up_proj", "model.norm"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"column_positions": {"lm_head": [4, 2]}}, "column_positions=.*2 columns, which must be"),
        ({"entry_positions": {"lm_head.weight": []}}, "entry_positions=.*0 entries, which must be"),
        ({"entry_positions": {"model.sinks": [1]}}, "'model.sinks'; they can be trained of parameters called 'weight'"),
    ],
)
def test_impossible_positions_are_refused(options: dict[str, dict[str, list[int]]], message: str) -> None:
    with pytest.raises(AdapterError, match=message):
        LotteryConfig(**options)


@pytest.mark.parametrize(
    ("options", "tied", "message"),
    [
        (
            {"entry_positions": {"model.layers.1.mlp.up_proj.weight": [5, 40]}},
            False,
            r"1 of the 2 single weights of 'model.layers.1.mlp.up_proj' lie in its chosen rows.*first one is 40",
        ),
        ({"entry_positions": {"lm_head.weight": [5]}}, True, r"'lm_head' shares parameters with 'model.embed_tokens'"),
        ({"column_positions": {"model.embed_tokens": [5]}}, False, "'model.embed_tokens' is an embedding, of which"),
        ({"column_positions": {"model.layers.7.mlp.up_proj": [5]}}, False, "'model.layers.7.mlp.up_proj', which this"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_refused_before_anything_changes(
    options: dict[str, dict[str, list[int]]], tied: bool, message: str
) -> None:
    base = tiny_llama(tied=tied)
    modules = [type(module) for module in base.modules()]
    config = LotteryConfig(**{"positions": {"model.layers.1.mlp.up_proj": [1]}, **options}, task_type="CAUSAL_LM")
    with pytest.raises(AdapterError, match=message):
        get_peft_model(base, config)
    assert [type(module) for module in base.modules()] == modules


def test_a_head_with_token_rows_takes_no_other_parts_in_a_second_adapter() -> None:
    config = LotteryConfig(positions={"lm_head": [5]}, task_type="CAUSAL_LM")
    model = get_peft_model(tiny_llama(), config)
    second = LotteryConfig(entry_positions={"lm_head.weight": [5]}, task_type="CAUSAL_LM")
    with pytest.raises(AdapterError, match="'lm_head' has an adapter of token rows already"):
        model.add_adapter("second", second)
    mixed = LotteryConfig(positions={"lm_head": [5]}, column_positions={"lm_head": [1]}, task_type="CAUSAL_LM")
    assert isinstance(get_peft_model(tiny_llama(), mixed).get_base_model().lm_head, LinearLayer)


@pytest.mark.parametrize(
    ("slab", "units", "message"),
    [
        (Slab("model.layers.0.mlp.up_proj.weight", 0, lead=(1,)), 2, "fused matrices of a mixture of experts"),
        (
            Slab("model.norm.weight", 0, 8),
            9,
            "up to position 39 of dimension 0 of 'model.norm.weight'.*find the ticket",
        ),
    ],
)
def test_slabs_that_do_not_fit_are_refused(slab: Slab, units: int, message: str) -> None:
    base = tiny_llama()
    ticket = hand_drawn(base, [("group", [slab], units, [min(units - 1, 4)])])
    with pytest.raises(AdapterError, match=message):
        attach_ticket(base, ticket)


def test_a_foreign_model_is_refused_with_what_it_lacks() -> None:
    ticket = hand_drawn(tiny_llama(), llama_groups()[2:3])
    with pytest.raises(AdapterError, match=r"The ticket has rows of 'model.layers.0.mlp.gate_proj.weight', which"):
        attach_ticket(tiny_gpt2(), ticket)


def test_lora_follows_after_merging(tokens: Tensor) -> None:
    model, _ = tuned("llama")
    expected = logits(model, tokens)
    follow = get_peft_model(model.merge_and_unload(), LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
    assert_same_logits(logits(follow.eval(), tokens), expected)
