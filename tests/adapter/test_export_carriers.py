"""What single carriers promise: which one is taken, sizes, bits in bfloat16, and what further training moves."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from ks_lottery.adapter.attach import attach_ticket
from ks_lottery.adapter.export.carrier import Export
from ks_lottery.adapter.export.exporter import export_ticket
from ks_lottery.adapter.export.low_rank import low_rank, rank_of
from ks_lottery.adapter.export.plain import write_plain_form
from ks_lottery.adapter.export.supertuning import SupertuningCarrier, _count, _sparsity
from ks_lottery.adapter.parts import BIAS, COLUMNS, ENTRIES, ROWS, PartKind
from ks_lottery.adapter.rows import RowChange
from ks_lottery.adapter.tuned import Tuned, TunedModule, TunedPart, tuned_values
from ks_lottery.errors import AdapterError
from ks_lottery.units.heads import Heads
from ks_lottery.units.slab import Slab
from tests.adapter.mixed_tickets import gpt2_groups, hand_drawn
from tests.adapter.test_export_conformance import KINDS, drawn
from tests.adapter.tickets import logits, randomise, tiny_gpt2
from tests.tiny_models import VOCABULARY, WIDTH, tiny_llama


def trained(model: nn.Module, name: str, kind: str) -> PeftModel:
    """A model with an attached ticket of this kind, and random deltas."""
    tuned = attach_ticket(model, drawn(model, name, kind)).eval()
    randomise(tuned)
    return tuned


def header(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "adapter_config.json").read_text())


AUTO = {"token rows": "TRAINABLE_TOKENS", "weights": "SUPERTUNING"}


@pytest.mark.parametrize("kind", KINDS)
def test_auto_and_the_plain_form_take_what_suits_the_ticket(kind: str, tmp_path: Path) -> None:
    model = trained(tiny_llama(), "llama", kind)
    export_ticket(model, tmp_path / "out")
    assert header(tmp_path / "out")["peft_type"] == AUTO.get(kind, "LORA")
    tuned = tuned_values(model, ["default"], model.state_dict())
    assert tuned is not None
    write_plain_form(tuned, model.peft_config["default"], tmp_path, None)
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "plain" / "adapter" / file).read_bytes() == (tmp_path / "out" / file).read_bytes()


@pytest.mark.parametrize(
    ("carrier", "kind"),
    [(c, k) for c in ("lora", "supertuning", "shira") for k in ("heads", "weights")] + [("lora", "mixed")],
)
@pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly disabled")
def test_in_bfloat16_plain_peft_merges_to_the_same_bits(carrier: str, kind: str, tmp_path: Path) -> None:
    tiny_llama(dtype=torch.bfloat16).save_pretrained(tmp_path / "base")
    model = trained(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), "llama", kind)
    export_ticket(model, tmp_path / "out", to=carrier)
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    plain = PeftModel.from_pretrained(base, str(tmp_path / "out")).merge_and_unload()
    ours = dict(model.merge_and_unload().named_parameters())
    for name, parameter in plain.named_parameters():
        assert parameter.dtype == torch.bfloat16
        if carrier == "supertuning":  # PEFT adds rounded deltas, whose sum can miss by one unit in the last place
            torch.testing.assert_close(parameter, ours[name], rtol=2**-7, atol=2**-20)
        else:
            assert torch.equal(parameter, ours[name]), name


@pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly disabled")
@pytest.mark.parametrize("carrier", ["supertuning", "shira"])
def test_further_training_with_plain_peft_stays_inside_the_ticket(carrier: str, tmp_path: Path, tokens: Tensor) -> None:
    base = tiny_llama()
    ticket = drawn(base, "llama", "weights")
    model = attach_ticket(base, ticket)
    randomise(model)
    export_ticket(model, tmp_path / "out", to=carrier)
    plain = PeftModel.from_pretrained(tiny_llama(), str(tmp_path / "out"), is_trainable=True)
    steps = torch.optim.AdamW([p for p in plain.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    for _ in range(2):
        plain(input_ids=tokens, labels=tokens).loss.backward()
        steps.step()
    masks, before = ticket.masks(), dict(tiny_llama().named_parameters())
    for name, parameter in plain.merge_and_unload().named_parameters():
        moved = parameter != before[name]
        assert not (moved & ~masks[name]).any() if name in masks else not moved.any(), name
        assert name not in masks or moved[masks[name]].float().mean() > 0.9


def test_biases_travel_as_such_where_every_factored_layer_has_one(tmp_path: Path) -> None:
    export_ticket(trained(tiny_gpt2(), "gpt2", "neurons"), tmp_path / "out", to="lora")
    assert header(tmp_path / "out")["lora_bias"] is True
    assert "modules_to_save" not in header(tmp_path / "out")
    names = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert "base_model.model.transformer.h.0.mlp.c_fc.lora_B.bias" in names


def qwen2() -> PreTrainedModel:
    """Its query, key and value layers have biases, and the others have none."""
    torch.manual_seed(0)
    size = {"hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 8}
    return Qwen2ForCausalLM(Qwen2Config(vocab_size=VOCABULARY, num_key_value_heads=4, pad_token_id=0, **size)).eval()


def test_layers_with_biases_are_whole_beside_layers_without(tmp_path: Path, tokens: Tensor) -> None:
    qwen2().save_pretrained(tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    groups = [(g.name, g.slabs, g.num_units, [1]) for g in Heads().groups(_layout(base))]
    model = attach_ticket(base, hand_drawn(base, groups)).eval()
    randomise(model)
    export_ticket(model, tmp_path / "out")
    attention = "model.layers.0.self_attn."
    assert header(tmp_path / "out")["target_modules"] == [f"{attention}o_proj"]
    assert header(tmp_path / "out")["modules_to_save"] == [f"{attention}{name}_proj" for name in "qkv"]
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), str(tmp_path / "out"))
    torch.testing.assert_close(logits(plain, tokens), logits(model, tokens), rtol=0, atol=1e-6)
    torch.testing.assert_close(logits(plain.merge_and_unload(), tokens), logits(model, tokens), rtol=0, atol=1e-6)


def _layout(model: nn.Module) -> Any:
    from ks_lottery.checkpoints.reader import ModelCheckpoint

    return ModelCheckpoint(model).layout()


def test_factors_are_never_larger_than_the_matrix(tmp_path: Path) -> None:
    export_ticket(trained(tiny_llama(), "llama", "a block"), tmp_path / "out")
    found = header(tmp_path / "out")
    assert found["target_modules"] == "dummy-target-modules"
    assert len(found["modules_to_save"]) == 9


def test_merged_and_several_adapters_export_their_sum(tmp_path: Path, tokens: Tensor) -> None:
    model = trained(tiny_gpt2(), "gpt2", "mixed")
    attach_ticket(model, hand_drawn(tiny_gpt2(), gpt2_groups()[1:3]), "second")
    model.set_adapter("second")
    randomise(model, seed=9)
    model.base_model.set_adapter(["default", "second"])
    expected = logits(model, tokens)
    for merged in (False, True):
        if merged:
            model.merge_adapter()
        export_ticket(model, tmp_path / "out")
        plain = PeftModel.from_pretrained(tiny_gpt2(), str(tmp_path / "out"))
        torch.testing.assert_close(logits(plain, tokens), expected, rtol=0, atol=1e-5)


def test_names_that_peft_would_take_for_others_are_refused(tmp_path: Path) -> None:
    base = tiny_llama().model.eval()
    model = attach_ticket(base, hand_drawn(base, [("norm", [Slab("norm.weight", None)], WIDTH, [3])]))
    with pytest.raises(AdapterError, match="lora: PEFT finds modules by the end of their name, and would take"):
        export_ticket(model, tmp_path / "out")
    export_ticket(model, tmp_path / "out", to="merged")


def module(shape: tuple[int, int], parts: list[TunedPart], form: Any = "linear") -> TunedModule:
    return TunedModule("x", form, shape, tuple(parts), False, (), (), (), (), dict)


def part(kind: PartKind, shape: tuple[int, int], index: list[int]) -> TunedPart:
    positions = torch.tensor(sorted(index), dtype=torch.int64)
    tail = () if kind.dim is None else (shape[1 - kind.dim],)
    deltas = torch.randn(len(positions), *tail, generator=torch.Generator().manual_seed(len(index)))
    return TunedPart(kind, positions, torch.zeros_like(deltas), (RowChange(positions, deltas),))


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(), shape=st.tuples(st.integers(1, 7), st.integers(1, 7)), form=st.sampled_from(["linear", "conv1d"])
)
def test_factors_multiply_to_the_change_exactly(data: st.DataObject, shape: tuple[int, int], form: str) -> None:
    def some(size: int) -> list[int]:
        return data.draw(st.lists(st.integers(0, size - 1), unique=True, max_size=size))

    rows, columns, entries = some(shape[0]), some(shape[1]), some(shape[0] * shape[1])
    outputs = shape[1 if form == "conv1d" else 0]
    bias = some(outputs)
    chosen = ((ROWS, rows), (COLUMNS, columns), (ENTRIES, entries), (BIAS, bias))
    parts = [part(kind, shape, index) for kind, index in chosen if index]
    dense, vector = torch.zeros(shape), torch.zeros(outputs)
    for each in parts:
        if each.kind == BIAS:
            vector[each.index] = each.deltas()
        elif each.kind == ENTRIES:
            dense.view(-1)[each.index] += each.deltas()
        else:
            dense.index_add_(each.kind.dim, each.index, each.deltas().movedim(0, each.kind.dim))
    factors = low_rank(module(shape, parts, form))
    product = factors.up @ factors.down
    assert factors.down.shape[0] == rank_of(module(shape, parts, form))
    torch.testing.assert_close(product.T if form == "conv1d" else product, dense, rtol=1e-6, atol=1e-6)
    assert torch.equal(factors.bias, vector)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 5000), st.integers(1, 5000), st.floats(0, 1)), min_size=1, max_size=4))
def test_one_sparsity_has_room_for_every_layer(layers: list[tuple[int, int, float]]) -> None:
    weights: Any = [
        SimpleNamespace(module=SimpleNamespace(shape=(rows, columns)), index=range(max(1, int(share * rows * columns))))
        for rows, columns, share in layers
    ]
    sparsity = _sparsity(weights)
    assert 0.0 <= sparsity < 1.0
    spare = [_count(weight, sparsity) - len(weight.index) for weight in weights]
    assert min(spare) in (0, 1)
    assert all(_count(weight, sparsity) <= math.prod(weight.module.shape) for weight in weights)


def test_positions_that_do_not_fit_32_bits_are_refused() -> None:
    huge = TunedModule("x", "linear", (2**16, 2**16), (), False, (), (), (), (), dict)
    reason = SupertuningCarrier().refusal(Export(Tuned((huge,)), {}))
    assert reason == "its positions are 32 bits wide, and 'x' has 4294967296 weights"
