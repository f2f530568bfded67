"""Every way in which people load an adapter gives the model that was saved, bit for bit."""

import json
from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import torch
from packaging.version import Version
from peft import AutoPeftModel, AutoPeftModelForCausalLM, PeftConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForSequenceClassification, LlamaModel
from transformers.integrations.peft import MIN_PEFT_VERSION

from ks_lottery.adapter.attach import attach_ticket
from ks_lottery.adapter.config import LotteryConfig
from ks_lottery.errors import AdapterError
from tests.adapter.tickets import (
    INPUT_ROWS,
    KINDS,
    OUTPUT_ROWS,
    assert_same_logits,
    logits,
    make_ticket,
    randomise,
    saved_llama,
    trainable,
    tuned,
    weights,
)
from tests.tiny_models import VOCABULARY, WIDTH, tiny_llama

Loader = Callable[[Path, Path], nn.Module]
needs_native_adapters = pytest.mark.skipif(
    Version(peft.__version__) < Version(MIN_PEFT_VERSION),
    reason=f"transformers adds and saves adapters by itself only with PEFT {MIN_PEFT_VERSION} or newer.",
)


def base_of(folder: Path) -> nn.Module:
    return AutoModelForCausalLM.from_pretrained(folder, dtype="auto")


def natively(adapter: Path, base: Path) -> nn.Module:
    model = base_of(base)
    model.load_adapter(str(adapter))
    return model


LOADERS: dict[str, Loader] = {
    "PeftModel": lambda adapter, base: PeftModel.from_pretrained(base_of(base), str(adapter)),
    "low_cpu_mem_usage": lambda a, b: PeftModel.from_pretrained(base_of(b), str(a), low_cpu_mem_usage=True),
    "trainable": lambda adapter, base: PeftModel.from_pretrained(base_of(base), str(adapter), is_trainable=True),
    "AutoPeftModelForCausalLM": lambda adapter, _: AutoPeftModelForCausalLM.from_pretrained(str(adapter), dtype="auto"),
    "AutoModelForCausalLM": lambda adapter, _: AutoModelForCausalLM.from_pretrained(str(adapter), dtype="auto"),
    "load_adapter": natively,
}


def save(tmp_path: Path, tied: bool, ends: str | None, dtype: torch.dtype, tokens: Tensor) -> tuple[Path, Path, Tensor]:
    """An adapter with random values beside its base, and the logits of the two."""
    base = saved_llama(tmp_path, tied, dtype)
    model = tuned(base_of(base), ends)
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter", base, logits(model, tokens)


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("tied", "ends"), [(False, "both"), (True, None)])
def test_a_saved_adapter_loads_everywhere(
    loader: str, tied: bool, ends: str | None, dtype: torch.dtype, tmp_path: Path, tokens: Tensor
) -> None:
    adapter, base, expected = save(tmp_path, tied, ends, dtype, tokens)
    model = LOADERS[loader](adapter, base).eval()
    assert torch.equal(logits(model, tokens), expected)
    assert {p.dtype for n, p in model.named_parameters() if "ks_ticket" in n} == {torch.float32}
    assert bool(trainable(model)) == (loader == "trainable")


@pytest.mark.parametrize("tied", [False, True])
def test_a_loaded_adapter_merges_and_the_merged_model_saves(tied: bool, tmp_path: Path, tokens: Tensor) -> None:
    adapter, base, expected = save(tmp_path, tied, None if tied else "both", torch.bfloat16, tokens)
    merged = PeftModel.from_pretrained(base_of(base), str(adapter)).merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    again = base_of(tmp_path / "merged")
    assert again.config.tie_word_embeddings is tied
    assert torch.equal(logits(again, tokens), logits(merged, tokens))
    assert_same_logits(logits(again, tokens), expected)


def test_the_file_holds_rows_and_positions_and_nothing_else(tmp_path: Path, tokens: Tensor) -> None:
    adapter, _, _ = save(tmp_path, False, "both", torch.bfloat16, tokens)
    tensors = load_file(adapter / "adapter_model.safetensors")
    prefix = "base_model.model."
    assert {name: (tuple(t.shape), t.dtype) for name, t in tensors.items()} == {
        f"{prefix}model.embed_tokens.ks_ticket_delta": ((len(INPUT_ROWS), WIDTH), torch.float32),
        f"{prefix}model.embed_tokens.ks_ticket_index": ((len(INPUT_ROWS),), torch.int64),
        f"{prefix}lm_head.ks_ticket_delta": ((len(OUTPUT_ROWS), WIDTH), torch.float32),
        f"{prefix}lm_head.ks_ticket_index": ((len(OUTPUT_ROWS),), torch.int64),
    }
    assert tensors[f"{prefix}lm_head.ks_ticket_index"].tolist() == OUTPUT_ROWS


def test_the_configuration_holds_shapes_and_no_positions(tmp_path: Path, tokens: Tensor) -> None:
    adapter, _, _ = save(tmp_path, True, None, torch.float32, tokens)
    written = json.loads((adapter / "adapter_config.json").read_text())
    assert written["peft_type"] == "KS_TICKET"
    assert written["rows"] == {"model.embed_tokens": len(INPUT_ROWS)}
    assert written["tied_modules"] == {"model.embed_tokens": ["lm_head"]}
    assert written["ticket"] == make_ticket(tiny_llama(tied=True)).fingerprint
    assert "positions" not in written
    config = PeftConfig.from_pretrained(str(adapter))
    assert isinstance(config, LotteryConfig)
    assert config.positions is None


@needs_native_adapters
@pytest.mark.parametrize(("tied", "ends"), KINDS)
def test_what_transformers_saves_loads_again(tied: bool, ends: str | None, tmp_path: Path, tokens: Tensor) -> None:
    adapter, base, expected = save(tmp_path, tied, ends, torch.float32, tokens)
    natively(adapter, base).save_pretrained(tmp_path / "again")
    files = [load_file(folder / "adapter_model.safetensors") for folder in (adapter, tmp_path / "again")]
    assert files[0].keys() == files[1].keys()
    assert all(torch.equal(files[0][name], files[1][name]) for name in files[0])
    plain = AutoPeftModelForCausalLM.from_pretrained(str(tmp_path / "again" / "plain" / "adapter"))
    assert_same_logits(logits(plain, tokens), expected)


@needs_native_adapters
def test_transformers_adds_switches_and_deletes_adapters(tmp_path: Path, tokens: Tensor) -> None:
    adapter, base, expected = save(tmp_path, True, None, torch.float32, tokens)
    model = natively(adapter, base).eval()
    untouched = logits(base_of(base), tokens)
    model.disable_adapters()
    assert torch.equal(logits(model, tokens), untouched)
    model.enable_adapters()
    assert torch.equal(logits(model, tokens), expected)
    model.delete_adapter("default")
    assert torch.equal(logits(model, tokens), untouched)
    fresh = base_of(base)
    fresh.add_adapter(LotteryConfig(positions={"model.embed_tokens": [3, 4]}))
    assert list(trainable(fresh)) == ["model.embed_tokens.ks_ticket_delta.default"]
    fresh.lm_head(torch.ones(1, WIDTH)).sum().backward()
    assert fresh.model.embed_tokens.ks_ticket_delta["default"].grad is not None


def test_chosen_rows_train_without_a_ticket(tokens: Tensor) -> None:
    config = LotteryConfig(positions={"model.embed_tokens": [3, 4], "lm_head": [5]}, task_type="CAUSAL_LM")
    model = get_peft_model(tiny_llama(), config)
    assert list(trainable(model).values()) == [(2, WIDTH), (1, WIDTH)]
    assert config.rows == {"model.embed_tokens": 2, "lm_head": 1}


def test_a_model_without_a_task_head_loads_as_auto_peft_model(tmp_path: Path, tokens: Tensor) -> None:
    folder = tmp_path / "base"
    LlamaModel(tiny_llama().config).save_pretrained(folder)
    base = LlamaModel.from_pretrained(folder).eval()
    model = get_peft_model(base, LotteryConfig(positions={"embed_tokens": INPUT_ROWS}))
    randomise(model)
    model.save_pretrained(tmp_path / "adapter")
    expected = model(input_ids=tokens).last_hidden_state
    for saved in (tmp_path / "adapter", tmp_path / "adapter" / "plain" / "adapter"):
        loaded = AutoPeftModel.from_pretrained(str(saved))
        assert torch.equal(loaded(input_ids=tokens).last_hidden_state, expected)


def test_a_classifier_and_its_head_load_again_with_and_without_our_type(tmp_path: Path, tokens: Tensor) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        pad_token_id=0,
    )
    LlamaForSequenceClassification(config).save_pretrained(tmp_path / "base")
    base = LlamaForSequenceClassification.from_pretrained(tmp_path / "base")
    model = attach_ticket(base, make_ticket(base)).eval()
    randomise(model)
    model.save_pretrained(tmp_path / "adapter")
    for saved in (tmp_path / "adapter", tmp_path / "adapter" / "plain" / "adapter"):
        fresh = LlamaForSequenceClassification.from_pretrained(tmp_path / "base")
        loaded = PeftModel.from_pretrained(fresh, str(saved)).eval()
        assert torch.equal(logits(loaded, tokens), logits(model, tokens))


def test_loading_leaves_the_base_weights_alone(tmp_path: Path, tokens: Tensor) -> None:
    adapter, base, _ = save(tmp_path, True, None, torch.float32, tokens)
    before = weights(base_of(base))
    model = PeftModel.from_pretrained(base_of(base), str(adapter))
    assert all(torch.equal(before[name], value) for name, value in weights(model.unload()).items())


def test_an_adapter_of_a_tied_model_is_refused_on_an_untied_one(tmp_path: Path, tokens: Tensor) -> None:
    adapter, _, _ = save(tmp_path, True, None, torch.float32, tokens)
    with pytest.raises(AdapterError, match=r"shares its matrix with 'lm_head', but in this model .* no other module"):
        PeftModel.from_pretrained(tiny_llama(), str(adapter))


def test_an_adapter_of_another_architecture_is_refused(tmp_path: Path, tokens: Tensor) -> None:
    adapter, _, _ = save(tmp_path, False, "input", torch.float32, tokens)
    with pytest.raises(AdapterError, match=r"rows of the module 'model.embed_tokens', which this LlamaModel does not"):
        PeftModel.from_pretrained(LlamaModel(tiny_llama().config), str(adapter))


def test_rows_of_both_ends_of_one_matrix_are_refused() -> None:
    both = LotteryConfig(positions={"model.embed_tokens": [3], "lm_head": [5]})
    with pytest.raises(AdapterError, match="'model.embed_tokens' and 'lm_head' share one matrix in this model"):
        get_peft_model(tiny_llama(tied=True), both)
    model = tuned(tiny_llama(tied=True))
    with pytest.raises(AdapterError, match="Give the rows of one of them, 'model.embed_tokens' if it has an adapter"):
        model.add_adapter("second", LotteryConfig(positions={"lm_head": [5]}, task_type="CAUSAL_LM"))
    assert list(model.peft_config) == ["default"]


@pytest.mark.parametrize("rows", [[], [-1, 2], [3, 3], [4, 2]])
def test_positions_must_be_sorted_and_unique(rows: list[int]) -> None:
    with pytest.raises(AdapterError, match=rf"{len(rows)} rows, which must be at least one, none negative, sorted"):
        LotteryConfig(positions={"lm_head": rows})


def test_a_configuration_without_rows_is_refused() -> None:
    with pytest.raises(AdapterError, match="selects no row of any module"):
        LotteryConfig()
