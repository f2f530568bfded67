"""Shrinking: the smaller model computes what the base model with zeros does, loaded by transformers alone."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from ks_lottery.adapter import weight_base
from ks_lottery.adapter.shrink import ShrunkModel, shrink_checkpoint
from ks_lottery.adapter.zeros import zero_checkpoint
from ks_lottery.checkpoints import model_folder
from ks_lottery.checkpoints.reader import ModelCheckpoint, open_checkpoint
from ks_lottery.errors import CheckpointError, OptionError, TicketError, UnitError
from ks_lottery.ticket.ticket import Selection, Ticket
from ks_lottery.units.layers import Layers
from ks_lottery.units.slab import UnitGroup
from tests.adapter.weight_tickets import Choose, drawn, loaded, outputs, weight_ticket, zeros
from tests.fake_hub import FakeHub
from tests.tiny_models import tiny_llama
from tests.units.models import CASES, POST_NORM, tiny

COUPLED_HEADS = {"gpt2", "gpt_neox", "opt", "bloom", "mbart", "olmo2", *POST_NORM}
REFUSED = {
    "heads": COUPLED_HEADS,
    "neurons": {"bloom"},
    "layers": POST_NORM,
}


def chosen(case: str, units: str) -> Choose:
    """Half of the heads, two thirds of the neurons, the first layer. T5's layers share a table of heads."""
    if units == "heads" and CASES[case][0] in ("t5", "mt5"):
        return lambda group: [0, 1, 2][: group.num_units // 2]
    if units == "neurons":
        return lambda group: drawn(group, 2 / 3 if group.num_units == 12 else 1 / 2)
    return drawn


def assert_equal_outputs(model: Any, ticket: Ticket, result: ShrunkModel, kind: str = "AutoModelForCausalLM") -> None:
    """The model of the folder computes what `model` with zeros does; and is smaller."""
    small = loaded(result.folder, kind)
    before = outputs(model)
    with zeros(model, ticket):
        expected = outputs(model)
    torch.testing.assert_close(outputs(small), expected, rtol=0, atol=1e-5)
    assert (expected - before).abs().max() > 1e-3
    removed = sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in small.parameters())
    assert result.num_parameters_before - result.num_parameters == removed > 0
    stored = sum(t.numel() for file in result.folder.glob("*.safetensors") for t in load_file(file).values())
    assert result.num_parameters == stored


@pytest.mark.parametrize("case", CASES)
def test_a_smaller_model_computes_what_the_zeros_do(case: str, tmp_path: Path) -> None:
    model, (model_type, kind, _) = tiny(case), CASES[case]
    for units, refused in REFUSED.items():
        ticket = weight_ticket(model, units, chosen(case, units))
        if model_type in refused:
            with pytest.raises(UnitError, match=f"cannot have fewer {units}: its configuration"):
                shrink_checkpoint(model, ticket, tmp_path / "small")
        else:
            result = shrink_checkpoint(model, ticket, tmp_path / "small")
            assert_equal_outputs(model, ticket, result, kind)
            config = json.loads((tmp_path / "small" / "config.json").read_text())
            assert (config["architectures"], config["dtype"]) == ([type(model).__name__], "float32")


@pytest.mark.parametrize(
    ("case", "units"),
    [("gemma3", "layers"), ("mixtral", "layers"), ("bart", "neurons"), ("gpt_neox", "layers"), ("bare llama", "heads")],
)
def test_files_spell_names_as_the_base_models_do(case: str, units: str, tmp_path: Path) -> None:
    tiny(case).save_pretrained(tmp_path / "base")
    model = loaded(tmp_path / "base", CASES[case][1])
    ticket = weight_ticket(tmp_path / "base", units, chosen(case, units))
    result = shrink_checkpoint(tmp_path / "base", ticket, tmp_path / "small")
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("base", "small"))
    assert after.keys() <= before.keys()
    assert_equal_outputs(model, weight_ticket(model, units, chosen(case, units)), result, CASES[case][1])


def four_layers(case: str, **options: Any) -> nn.Module:
    model_type, _, config = CASES[case]
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **{**config, "num_hidden_layers": 4, **options})
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()


@pytest.mark.parametrize(
    ("case", "options", "key", "after"),
    [
        ("gemma2", {"sliding_window": 2}, "layer_types", ["full_attention", "full_attention"]),
        ("gemma3_text", {"sliding_window": 2, "sliding_window_pattern": 2}, "layer_types", ["full_attention"] * 2),
        ("smollm3", {}, "no_rope_layers", [1, 0]),
        (
            "qwen2", {"use_sliding_window": True, "sliding_window": 2, "max_window_layers": 3}, "layer_types",
            ["full_attention", "sliding_attention"],
        ),
    ],
)  # fmt: skip
def test_layers_keep_their_kind(case: str, options: dict[str, Any], key: str, after: list[Any], tmp_path: Path) -> None:
    model = four_layers(case, **options)
    ticket = weight_ticket(model, "layers", lambda group: [0] * (group.name in ("layers.1", "layers.3")))
    result = shrink_checkpoint(model, ticket, tmp_path / "small")
    assert result.config[key][1] == after
    assert_equal_outputs(model, ticket, result)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_removed_is_the_same_model(dtype: torch.dtype, tmp_path: Path) -> None:
    tiny_llama(tied=True, dtype=dtype).save_pretrained(tmp_path / "base")
    ticket = weight_ticket(tmp_path / "base", "heads", lambda group: range(group.num_units))
    result = shrink_checkpoint(tmp_path / "base", ticket, tmp_path / "same")
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("base", "same"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) and after[name].dtype == dtype for name in before)
    configs = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("base", "same")]
    assert configs[0] == configs[1]
    assert (result.num_parameters, result.config) == (result.num_parameters_before, {})


def test_what_stays_keeps_its_bits_and_shards_come_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_base, "_PIECE_BYTES", 300)
    tiny_llama(dtype=torch.bfloat16).save_pretrained(tmp_path / "base", max_shard_size="20KB")
    ticket = weight_ticket(tmp_path / "base", "neurons", lambda group: [40, 3, 17])
    monkeypatch.setattr(model_folder, "SHARD_BYTES", 15_000)
    shrink_checkpoint(tmp_path / "base", ticket, tmp_path / "small")
    before, after = (
        {name: t for file in (tmp_path / name).glob("*.safetensors") for name, t in load_file(file).items()}
        for name in ("base", "small")
    )
    assert len(list((tmp_path / "small").glob("model-*.safetensors"))) > 1
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        if "down_proj" in name:
            tensor = tensor[:, [3, 17, 40]]
        elif "mlp" in name:
            tensor = tensor[[3, 17, 40]]
        assert torch.equal(after[name], tensor)
    assert loaded(tmp_path / "small", "AutoModelForCausalLM").dtype == torch.bfloat16


def test_heads_then_neurons_then_layers(tmp_path: Path) -> None:
    base = tiny_llama(seed=3).eval()
    base.save_pretrained(tmp_path / "base")
    heads = weight_ticket(tmp_path / "base", "heads", lambda group: [1])
    neurons = weight_ticket(tmp_path / "base", "neurons", drawn)
    shrink_checkpoint(tmp_path / "base", heads, tmp_path / "one")
    shrink_checkpoint(tmp_path / "one", neurons, tmp_path / "two")
    layers = weight_ticket(tmp_path / "two", "layers", lambda group: [0] * (group.name == "layers.1"))
    shrink_checkpoint(tmp_path / "two", layers, tmp_path / "three")
    whole = weight_ticket(base, "layers", lambda group: [0] * (group.name == "layers.1"))
    with zeros(base, heads), zeros(base, neurons), zeros(base, whole):
        expected = outputs(base)
    small = loaded(tmp_path / "three", "AutoModelForCausalLM")
    torch.testing.assert_close(outputs(small), expected, rtol=0, atol=1e-5)
    assert small.config.num_hidden_layers == len(small.model.layers) == 1


def test_an_output_head_that_the_configuration_ties_but_the_files_do_not(tmp_path: Path) -> None:
    """As of Flan-T5: transformers leaves the two untied where the files differ."""
    folder = tmp_path / "flan"
    tiny("gated t5").save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["shared.weight"].flip(0).contiguous()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": False}
    config.pop("scale_decoder_outputs", None)
    (folder / "config.json").write_text(json.dumps(config))
    model = loaded(folder, "AutoModelForSeq2SeqLM")
    ticket = weight_ticket(folder, "neurons", drawn)
    result = shrink_checkpoint(folder, ticket, tmp_path / "small")
    assert_equal_outputs(model, ticket, result, "AutoModelForSeq2SeqLM")
    rows = weight_ticket(folder, "token_rows", lambda group: [1, 2])
    with pytest.raises(TicketError, match=r"stores another 'lm_head.weight'. Save the model again with tie_word_emb"):
        zero_checkpoint(folder, rows, tmp_path / "zeros")


def test_a_tied_head_that_is_stored_twice_is_written_once(tmp_path: Path) -> None:
    tiny_llama(tied=True).save_pretrained(tmp_path / "base")
    tensors = load_file(tmp_path / "base" / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, tmp_path / "base" / "model.safetensors", metadata={"format": "pt"})
    shrink_checkpoint(tmp_path / "base", weight_ticket(tmp_path / "base", "heads", lambda _: [0]), tmp_path / "small")
    assert "lm_head.weight" not in load_file(tmp_path / "small" / "model.safetensors")
    small = loaded(tmp_path / "small", "AutoModelForCausalLM")
    assert small.lm_head.weight is small.model.embed_tokens.weight


def test_files_beside_the_weights_come_along(tmp_path: Path) -> None:
    model = tiny_llama()
    model.generation_config = GenerationConfig(max_new_tokens=7, eos_token_id=2)
    model.save_pretrained(tmp_path / "base")
    (tmp_path / "base" / "tokenizer.json").write_text('{"version": "1.0"}')
    ticket = weight_ticket(tmp_path / "base", "heads", lambda _: [0])
    shrink_checkpoint(tmp_path / "base", ticket, tmp_path / "small")
    for file in ("tokenizer.json", "generation_config.json"):
        assert (tmp_path / "small" / file).read_bytes() == (tmp_path / "base" / file).read_bytes()
    shrink_checkpoint(model, ticket, tmp_path / "live")
    assert sorted(path.name for path in (tmp_path / "live").iterdir()) == [
        "config.json", "generation_config.json", "model.safetensors"
    ]  # fmt: skip
    assert GenerationConfig.from_pretrained(tmp_path / "live").max_new_tokens == 7


def test_from_the_hub(tmp_path: Path, fake_hub: FakeHub) -> None:
    model = tiny_llama(seed=2, tied=True).eval()
    model.save_pretrained(tmp_path / "base", max_shard_size="10KB")
    fake_hub.add("tester/base", tmp_path / "base")
    ticket = weight_ticket(tmp_path / "base", "neurons", drawn)
    result = shrink_checkpoint("tester/base", ticket, tmp_path / "small")
    assert_equal_outputs(model, ticket, result)


def test_other_spellings_of_keys_do_not_stay(tmp_path: Path) -> None:
    model = tiny("gpt2")
    model.save_pretrained(tmp_path / "base")
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    config["num_hidden_layers"] = config.pop("n_layer")
    (tmp_path / "base" / "config.json").write_text(json.dumps(config))
    ticket = weight_ticket(tmp_path / "base", "layers", drawn)
    result = shrink_checkpoint(tmp_path / "base", ticket, tmp_path / "small")
    written = json.loads((tmp_path / "small" / "config.json").read_text())
    assert (written["n_layer"], "num_hidden_layers" in written) == (1, False)
    assert_equal_outputs(model, ticket, result)


def on(model: nn.Module, units: str = "heads", choose: Choose = lambda _: [0], kind: Any = "weight") -> Any:
    """A source, and a ticket of a tiny Llama."""
    return lambda _: (model, weight_ticket(tiny_llama(), units, choose, kind))


def heads_that_do_not_divide(_: Path) -> tuple[Any, Ticket]:
    options = {**CASES["llama"][2], "num_attention_heads": 8, "num_key_value_heads": 8}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **options))
    return model, weight_ticket(model, "heads", lambda _: [0, 1, 2])


def inside_the_result(tmp_path: Path) -> tuple[Any, Ticket]:
    tiny_llama().save_pretrained(tmp_path / "out" / "base")
    return tmp_path / "out" / "base", weight_ticket(tiny_llama(), "heads", lambda _: [0])


def quantised(_: Path) -> tuple[Any, Ticket]:
    model = tiny_llama()
    model.config.quantization_config = {"quant_method": "gptq", "bits": 4}
    return model, weight_ticket(model, "heads", lambda _: [0])


def with_groups(change: Callable[[UnitGroup], UnitGroup]) -> Callable[[Path], tuple[Any, Ticket]]:
    ticket = weight_ticket(tiny_llama(), "heads", lambda _: [0])
    selections = [Selection(change(s.group), s.indices) for s in ticket.selections.values()]
    named = {selection.group.name: selection for selection in selections}
    return lambda _: (tiny_llama(), Ticket("weight", "heads", named, ticket.base, ticket.provenance))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            heads_that_do_not_divide, UnitError,
            r"'llama' model does not take num_attention_heads=3, .* The hidden size \(16\) is not a multiple of the "
            r"number of attention heads \(3\)\. Select another number of units; or keep the shapes and write zeros",
        ),
        (
            on(tiny_llama(), "neurons", lambda group: range(4 + ("1" in group.name))), UnitError,
            "layers.0.neurons 4 of 48, layers.1.neurons 5 of 48. Select equally many in each",
        ),
        (on(tiny_llama(), "token_rows"), UnitError, "units='token_rows': only heads, neurons and layers can be"),
        (on(tiny_llama(), kind="update"), TicketError, r"of kind 'update' \(found by 'hand'\): what it does not"),
        (on(tiny_llama(seed=1)), TicketError, "The ticket belongs to the base model .* but other weights"),
        (on(ModelCheckpoint(tiny_llama())), OptionError, "source=ModelCheckpoint: .* Give the model itself"),
        (on(nn.Linear(2, 2)), CheckpointError, "A Linear holds no weights that can be read here"),
        (inside_the_result, OptionError, "The result would replace .*out', and with it .*base', .* Choose another"),
        (quantised, CheckpointError, "is quantised, and packed weights have no rows and columns to leave out"),
        (
            with_groups(lambda group: replace(group, name=f"{group.name}.x")), TicketError,
            "'layers.0.heads.x' is none of the heads of this 'llama' model, or lies elsewhere in it. Find the ticket",
        ),
        (
            with_groups(lambda group: replace(group, slabs=(replace(group.slabs[0], width=1),))), TicketError,
            "'layers.0.heads' is none of the heads of this 'llama' model, or lies elsewhere in it",
        ),
    ],
)  # fmt: skip
def test_refusals_leave_nothing_behind(
    make: Callable[[Path], tuple[Any, Ticket]], error: type[Exception], message: str, tmp_path: Path
) -> None:
    source, ticket = make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(error, match=message):
        shrink_checkpoint(source, ticket, tmp_path / "out")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_configuration_that_reads_another_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_llama()
    ticket = weight_ticket(model, "neurons", drawn)
    original = type(model.config).from_dict
    monkeypatch.setattr(
        type(model.config), "from_dict", classmethod(lambda cls, said: original({**said, "intermediate_size": 48}))
    )
    with pytest.raises(UnitError, match=r"does not take intermediate_size=24: It makes intermediate_size=48 of 24\."):
        shrink_checkpoint(model, ticket, tmp_path / "out")


def test_groups_that_a_ticket_does_not_list_stay(tmp_path: Path) -> None:
    model = four_layers("llama")
    ticket = weight_ticket(model, Layers(only=("layers.2", "layers.3")), lambda group: [0] * (group.name == "layers.3"))
    result = shrink_checkpoint(model, ticket, tmp_path / "small")
    assert result.config == {"num_hidden_layers": (4, 3)}
    assert_equal_outputs(model, ticket, result)


def test_a_folder_can_be_given_opened(tmp_path: Path) -> None:
    tiny_llama().save_pretrained(tmp_path / "base")
    ticket = weight_ticket(tmp_path / "base", "heads", lambda _: np.array([1]))
    result = shrink_checkpoint(open_checkpoint(tmp_path / "base"), ticket, tmp_path / "small")
    assert result.folder == tmp_path / "small"
    assert result.config == {"num_attention_heads": (4, 2), "num_key_value_heads": (2, 1)}
