"""Exports: every carrier loads where this library cannot be imported, and computes what was trained."""

import copy
import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, BertConfig, BertForMaskedLM, MarianConfig, MarianMTModel, PreTrainedModel

from ks_lottery.adapter.attach import attach_ticket
from ks_lottery.adapter.config import LotteryConfig
from ks_lottery.adapter.export.exporter import export_ticket
from ks_lottery.errors import AdapterError, UnknownNameError
from tests.adapter.test_attach import bart, t5
from tests.adapter.tickets import (
    INPUT_ROWS,
    OUTPUT_ROWS,
    assert_same_logits,
    logits,
    make_ticket,
    randomise,
    saved_llama,
    tiny_gpt2,
    trainable,
    tuned,
    weights,
)
from tests.tiny_models import VOCABULARY, WIDTH, tiny_llama

OF_TIES = ("tie_word_embeddings", "lm_head.trainable_tokens")
"""Words of what PEFT says while it loads TRAINABLE_TOKENS onto tied matrices."""

EQUAL = (INPUT_ROWS, INPUT_ROWS)


def bases(folder: Path) -> dict[str, Path]:
    found = {
        f"{'tied' if tied else 'untied'}-{dtype}": saved_llama(folder, tied, getattr(torch, dtype))
        for tied in (False, True)
        for dtype in ("float32", "bfloat16")
    }
    tiny_gpt2().save_pretrained(folder / "gpt2")
    return {**found, "gpt2": folder / "gpt2"}


def model_on(base: Path, ends: str | None, rows: Any = (INPUT_ROWS, OUTPUT_ROWS)) -> PeftModel:
    loaded = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    model = attach_ticket(loaded, make_ticket(loaded, ends, rows=rows)).eval()
    randomise(model)
    return model


@pytest.mark.parametrize("name", ["untied-float32", "untied-bfloat16", "tied-float32", "tied-bfloat16", "gpt2"])
def test_rows_load_in_plain_peft_in_float32_and_bfloat16(name: str, tmp_path: Path, tokens: Tensor) -> None:
    base = bases(tmp_path)[name]
    untied = name.startswith("untied")
    variants: list[tuple[str, str | None, Any]] = [("lora", None, EQUAL), ("trainable_tokens", None, EQUAL)]
    if untied:
        variants = [("trainable_tokens", ends, EQUAL) for ends in ("input", "output", "both")]
        variants += [(carrier, "both", (INPUT_ROWS, OUTPUT_ROWS)) for carrier in ("lora", "lora_embedding")]
    for carrier, ends, rows in variants:
        model = model_on(base, ends, rows)
        expected = logits(model, tokens)
        export_ticket(model, tmp_path / "out", to=carrier)
        for merge in (False, True):
            with silent(but_for=() if untied or carrier == "lora" else OF_TIES):
                got = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(tmp_path / "out"))
                got = got.merge_and_unload() if merge else got
            assert_same_logits(logits(got, tokens), expected)
            assert carrier != "trainable_tokens" or ends != "input" or torch.equal(logits(got, tokens), expected)


@contextmanager
def silent(but_for: Sequence[str] = ()) -> Iterator[None]:
    """Inside the block nothing warns, but for messages that hold one of these words."""
    with warnings.catch_warnings():
        for words in but_for:
            warnings.filterwarnings("ignore", f".*{words}")
        yield


def header(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "adapter_config.json").read_text())


@pytest.mark.parametrize(
    ("tied", "ends", "rows", "kind"),
    [
        (False, "input", (INPUT_ROWS, OUTPUT_ROWS), "TRAINABLE_TOKENS"),
        (False, "output", (INPUT_ROWS, OUTPUT_ROWS), "TRAINABLE_TOKENS"),
        (False, "both", (INPUT_ROWS, INPUT_ROWS), "TRAINABLE_TOKENS"),
        (False, "both", (INPUT_ROWS, OUTPUT_ROWS), "LORA"),
        (True, None, (INPUT_ROWS,), "LORA"),
    ],
)
def test_auto_takes_the_carrier_that_loads_silently(
    tied: bool, ends: str | None, rows: Any, kind: str, tmp_path: Path
) -> None:
    model = model_on(saved_llama(tmp_path, tied), ends, rows)
    assert export_ticket(model, tmp_path / "out") == tmp_path / "out"
    assert header(tmp_path / "out")["peft_type"] == kind


def test_the_file_holds_absolute_rows_and_no_whole_matrix(tmp_path: Path) -> None:
    model = model_on(saved_llama(tmp_path), "both")
    export_ticket(model, tmp_path / "out", base_model="user/base")
    tensors = load_file(tmp_path / "out" / "adapter_model.safetensors")
    suffix = "token_adapter.trainable_tokens_delta"
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {
        f"base_model.model.model.embed_tokens.{suffix}": (len(INPUT_ROWS), WIDTH),
        f"base_model.model.lm_head.{suffix}": (len(OUTPUT_ROWS), WIDTH),
    }
    assert header(tmp_path / "out")["base_model_name_or_path"] == "user/base"
    merged = model.merge_and_unload()
    rows = tensors[f"base_model.model.model.embed_tokens.{suffix}"]
    assert torch.equal(rows, merged.model.embed_tokens.weight[INPUT_ROWS])


@pytest.mark.parametrize(("tied", "ends"), [(False, "both"), (True, None)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_merged_checkpoint_changes_the_ticket_and_nothing_else(
    tied: bool, ends: str | None, dtype: torch.dtype, tmp_path: Path, tokens: Tensor
) -> None:
    base = saved_llama(tmp_path, tied, dtype)
    model = model_on(base, ends)
    before, expected = weights(model), logits(model, tokens)
    export_ticket(model, tmp_path / "out", to="merged")
    assert all(torch.equal(value, before[name]) for name, value in weights(model).items())
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert again.dtype == dtype
    assert_same_logits(logits(again, tokens), expected)
    old, new = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "out"))
    assert old.keys() == new.keys()
    for name, value in old.items():
        rows = (value != new[name]).any(dim=-1).nonzero().flatten().tolist() if value.dim() == 2 else []
        chosen = {"model.embed_tokens.weight": INPUT_ROWS, "lm_head.weight": OUTPUT_ROWS}.get(name, [])
        assert rows == chosen, name


def test_a_merged_model_can_be_exported_and_stays_merged(tmp_path: Path, tokens: Tensor) -> None:
    base = saved_llama(tmp_path, tied=True)
    model = model_on(base, None)
    model.merge_adapter()
    expected = logits(model, tokens)
    export_ticket(model, tmp_path / "whole", to="merged")
    export_ticket(model, tmp_path / "adapter")
    assert model.get_model_status().merged_adapters == ["default"]
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "whole"), tokens), expected)
    fresh = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(tmp_path / "adapter"))
    assert_same_logits(logits(fresh, tokens), expected)


@pytest.mark.parametrize("to", ["auto", "merged"])
def test_a_saved_adapter_is_exported_from_its_folder(to: str, tmp_path: Path, tokens: Tensor) -> None:
    base = saved_llama(tmp_path, tied=True)
    model = model_on(base, None)
    model.save_pretrained(tmp_path / "adapter")
    export_ticket(tmp_path / "adapter", tmp_path / "out", to=to, base_model=str(base))
    assert_same_logits(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out"), tokens), logits(model, tokens))


def test_whole_modules_travel_with_the_rows(tmp_path: Path, tokens: Tensor) -> None:
    base = saved_llama(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(base)
    config = LotteryConfig(
        positions={"model.embed_tokens": INPUT_ROWS}, modules_to_save=["model.norm"], task_type="CAUSAL_LM"
    )
    model = get_peft_model(loaded, config).eval()
    assert set(trainable(model)) == {
        "base_model.model.model.embed_tokens.ks_ticket_delta.default",
        "base_model.model.model.norm.modules_to_save.default.weight",
    }
    randomise(model, scale=1.0)
    expected = logits(model, tokens)
    model.save_pretrained(tmp_path / "saved")
    export_ticket(model, tmp_path / "out")
    export_ticket(model, tmp_path / "merged", to="merged")
    for folder in (tmp_path / "saved", tmp_path / "out", tmp_path / "saved" / "plain" / "adapter"):
        again = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(folder))
        assert torch.equal(logits(again, tokens), expected)
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "merged"), tokens), expected)
    assert torch.equal(logits(model.merge_and_unload(), tokens), expected)


def test_tickets_that_are_active_together_are_exported_as_one(tmp_path: Path, tokens: Tensor) -> None:
    base = saved_llama(tmp_path, tied=True)
    model = model_on(base, None)
    attach_ticket(model, make_ticket(tiny_llama(tied=True), rows=[[7, 8]]), "second")
    model.set_adapter("second")
    randomise(model, seed=9)
    model.base_model.set_adapter(["default", "second"])
    expected = logits(model, tokens)
    export_ticket(model, tmp_path / "out")
    again = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(tmp_path / "out"))
    assert_same_logits(logits(again, tokens), expected)


def test_an_export_replaces_an_older_one_as_a_whole(tmp_path: Path) -> None:
    model = model_on(saved_llama(tmp_path), "input")
    export_ticket(model, tmp_path / "out", to="merged")
    export_ticket(model, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]


def test_unknown_carriers_are_refused_with_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Unknown export carrier 'merge'. Did you mean 'merged'"):
        export_ticket("adapter", tmp_path / "out", to="merge")


def test_different_rows_at_the_ends_do_not_fit_one_list(tmp_path: Path) -> None:
    model = model_on(saved_llama(tmp_path), "both")
    with pytest.raises(AdapterError, match="'trainable_tokens' cannot hold .* one list of rows .* 5 rows .* has 3"):
        export_ticket(model, tmp_path / "out", to="trainable_tokens")
    assert not (tmp_path / "out").exists()


def test_whole_modules_do_not_fit_trainable_tokens(tmp_path: Path) -> None:
    config = LotteryConfig(positions={"lm_head": [3]}, modules_to_save=["model.norm"], task_type="CAUSAL_LM")
    with pytest.raises(AdapterError, match="it cannot hold the whole modules model.norm"):
        export_ticket(get_peft_model(tiny_llama(), config), tmp_path / "out", to="trainable_tokens")


def test_whole_modules_of_two_active_tickets_are_refused(tmp_path: Path) -> None:
    model = tuned(tiny_llama())
    config = LotteryConfig(positions={"lm_head": [3]}, modules_to_save=["model.norm"], task_type="CAUSAL_LM")
    model.add_adapter("second", config)
    model.base_model.set_adapter(["default", "second"])
    with pytest.raises(AdapterError, match="default, second are active together, and second also train whole modules"):
        export_ticket(model, tmp_path / "out")


def marian() -> PreTrainedModel:
    """Its input embedding is the encoder's, one of four modules with one matrix."""
    torch.manual_seed(0)
    size = {"d_model": WIDTH, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    tokens = {"pad_token_id": 0, "eos_token_id": 1, "forced_eos_token_id": 1, "decoder_start_token_id": 0}
    return MarianMTModel(MarianConfig(vocab_size=VOCABULARY, max_position_embeddings=32, **size, **heads, **tokens))


def test_ties_that_plain_peft_does_not_follow_are_refused(tmp_path: Path, tokens: Tensor) -> None:
    model = tuned(marian())
    inputs = {"input_ids": tokens, "decoder_input_ids": tokens}
    with pytest.raises(AdapterError, match="'model.shared' shares its matrix with .*follow it in no other"):
        export_ticket(model, tmp_path / "out")
    export_ticket(model, tmp_path / "merged", to="merged")
    with torch.no_grad():
        again = MarianMTModel.from_pretrained(tmp_path / "merged").eval()
        torch.testing.assert_close(again(**inputs).logits, model(**inputs).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("build", [t5, bart])
def test_encoder_decoders_export(build: Any, tmp_path: Path, tokens: Tensor) -> None:
    build().save_pretrained(tmp_path / "base")
    kind = type(build())
    base = kind.from_pretrained(tmp_path / "base")
    model = tuned(base)
    inputs = {"input_ids": tokens, "decoder_input_ids": tokens}
    with torch.no_grad():
        expected = model(**inputs).logits
        export_ticket(model, tmp_path / "out")
        again = PeftModel.from_pretrained(kind.from_pretrained(tmp_path / "base"), str(tmp_path / "out")).eval()
        torch.testing.assert_close(again(**inputs).logits, expected, rtol=1e-5, atol=1e-5)


def test_rows_of_a_head_with_a_bias_are_factors(tmp_path: Path, tokens: Tensor) -> None:
    base = tiny_llama().eval()
    base.lm_head = torch.nn.Linear(WIDTH, VOCABULARY)
    fresh = copy.deepcopy(base)
    model = tuned(base, "output")
    with pytest.raises(AdapterError, match="'lm_head' has a bias, which PEFT's token layer drops.*can: lora, "):
        export_ticket(model, tmp_path / "out", to="trainable_tokens")
    export_ticket(model, tmp_path / "out")
    assert header(tmp_path / "out")["rank_pattern"] == {"lm_head": len(OUTPUT_ROWS)}
    assert_same_logits(logits(PeftModel.from_pretrained(fresh, str(tmp_path / "out")), tokens), logits(model, tokens))


def tied_bert() -> PreTrainedModel:
    """Its output head follows the input embedding and has a bias."""
    torch.manual_seed(0)
    size = {"hidden_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    model = BertForMaskedLM(BertConfig(vocab_size=VOCABULARY, **size)).eval()
    torch.nn.init.normal_(model.cls.predictions.bias)
    return model


def test_a_tied_head_with_a_bias_fits_no_adapter_of_plain_peft(tmp_path: Path, tokens: Tensor) -> None:
    model = tuned(tied_bert())
    with pytest.raises(AdapterError, match="lora: 'cls.predictions.decoder' has a bias, which PEFT's.*to='merged'"):
        export_ticket(model, tmp_path / "out")
    with pytest.warns(UserWarning, match="was saved without a form for plain PEFT"):
        model.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved" / "plain").exists()
    export_ticket(model, tmp_path / "merged", to="merged")
    assert_same_logits(logits(BertForMaskedLM.from_pretrained(tmp_path / "merged"), tokens), logits(model, tokens))


def test_an_older_plain_form_does_not_outlive_its_adapter(tmp_path: Path) -> None:
    tuned(tiny_llama(), "output").save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / "plain" / "adapter").is_dir()
    with pytest.warns(UserWarning, match="was saved without a form for plain PEFT"):
        tuned(tied_bert()).save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved" / "plain").exists()


def test_sharded_base_weights_have_no_plain_form(tmp_path: Path) -> None:
    model = tuned(tiny_llama())
    layer = model.get_base_model().model.embed_tokens
    layer.base_layer.weight.data = torch.empty(0)
    with pytest.warns(UserWarning, match="without a form for plain PEFT, because the base weights are sharded"):
        model.save_pretrained(tmp_path / "saved")
    assert load_file(tmp_path / "saved" / "adapter_model.safetensors")
    with pytest.raises(AdapterError, match="The base weights are sharded over processes"):
        export_ticket(model, tmp_path / "out")


def test_other_adapters_are_refused(tmp_path: Path) -> None:
    model = get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
    with pytest.raises(AdapterError, match="exports ticket adapters, but this model has one of type LORA"):
        export_ticket(model, tmp_path / "out")
    model.save_pretrained(tmp_path / "lora")
    with pytest.raises(AdapterError, match="holds an adapter of type LORA; export_ticket exports KS_TICKET"):
        export_ticket(tmp_path / "lora", tmp_path / "out")


def test_a_saved_adapter_of_an_unnamed_base_needs_one(tmp_path: Path) -> None:
    tuned(tiny_llama()).save_pretrained(tmp_path / "adapter")
    with pytest.raises(AdapterError, match="does not say what its base model is. Give base_model"):
        export_ticket(tmp_path / "adapter", tmp_path / "out")


def test_a_configuration_that_is_saved_alone_writes_no_plain_form(tmp_path: Path) -> None:
    model = tuned(tiny_llama())
    model.save_pretrained(tmp_path / "adapter")
    model.peft_config["default"].save_pretrained(tmp_path / "alone")
    assert [path.name for path in (tmp_path / "alone").iterdir()] == ["adapter_config.json"]
