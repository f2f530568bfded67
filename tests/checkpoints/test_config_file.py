"""What a folder's config.json says is what transformers makes of it, whether transformers is asked or not."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import (
    AutoConfig,
    BartConfig,
    BloomConfig,
    Gemma3Config,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    OPTConfig,
    PretrainedConfig,
    Qwen2Config,
    T5Config,
)

from ks_lottery.checkpoints.config_file import IF_UNSAID, TIED_WHATEVER_IS_SAID, ConfigFile, is_tied
from ks_lottery.errors import CheckpointError


def says(folder: Path, config: dict[str, Any] | bytes) -> ConfigFile:
    (folder / "config.json").write_bytes(config if isinstance(config, bytes) else json.dumps(config).encode())
    return ConfigFile(folder)


def asked(config: ConfigFile) -> bool:
    """Whether transformers was needed."""
    return "full" in vars(config)


def agrees(folder: Path, config: ConfigFile) -> bool:
    full = AutoConfig.from_pretrained(folder)
    return (config.tied, config.model_type) == (is_tied(full), full.model_type)


@pytest.mark.parametrize("tied", [True, False, None])
@pytest.mark.parametrize(
    "kind",
    [LlamaConfig, GemmaConfig, Qwen2Config, GPT2Config, GPTNeoXConfig, OPTConfig, BloomConfig, T5Config, BartConfig],
    ids=lambda kind: kind.model_type,
)
def test_saved_configurations_are_read_as_transformers_does(
    tmp_path: Path, kind: type[PretrainedConfig], tied: bool | None
) -> None:
    kind(**({} if tied is None else {"tie_word_embeddings": tied})).save_pretrained(tmp_path)
    config = ConfigFile(tmp_path)
    assert agrees(tmp_path, config)
    assert not asked(config)


@pytest.mark.parametrize("model_type", sorted({*IF_UNSAID, *TIED_WHATEVER_IS_SAID}))
def test_the_tables_are_transformers_own(tmp_path: Path, model_type: str) -> None:
    for given in ({}, {"tie_word_embeddings": True}, {"tie_word_embeddings": False}):
        config = says(tmp_path, {"model_type": model_type, **given})
        assert agrees(tmp_path, config)
        assert not asked(config)


@pytest.mark.parametrize("outer", [{}, {"tie_word_embeddings": True}, {"tie_word_embeddings": False}])
@pytest.mark.parametrize("inner", [{}, {"tie_word_embeddings": True}, {"tie_word_embeddings": False}])
@pytest.mark.parametrize(("model_type", "text_type"), [("gemma3", "gemma3_text"), ("llava", "llama"), ("blip-2", "t5")])
def test_a_nested_text_configuration_decides(
    tmp_path: Path, model_type: str, text_type: str, inner: dict[str, bool], outer: dict[str, bool]
) -> None:
    config = says(tmp_path, {"model_type": model_type, **outer, "text_config": {"model_type": text_type, **inner}})
    assert agrees(tmp_path, config)
    assert asked(config) == (not inner)


@pytest.mark.parametrize(
    "odd",
    [
        {"model_type": "mistral", "layer_types": ["full_attention"] * 32, "tie_word_embeddings": True},
        {"model_type": "mlcd", "tie_word_embeddings": True},
        {"model_type": "longt5", "tie_word_embeddings": False},
        {"model_type": "llama", "text_config": {"model_type": "gemma", "tie_word_embeddings": True}},
        {"model_type": "llama", "configuration_files": ["config.1.0.0.json"]},
        {"model_type": "qwen2_vl", "tie_word_embeddings": True, "text_config": {"model_type": "qwen2_vl_text"}},
    ],
    ids=lambda config: config["model_type"],
)
def test_transformers_is_asked_where_json_alone_is_not_certain(tmp_path: Path, odd: dict[str, Any]) -> None:
    says(tmp_path, {"model_type": "gemma"})
    (tmp_path / "config.json").rename(tmp_path / "config.1.0.0.json")
    config = says(tmp_path, odd)
    assert agrees(tmp_path, config)
    assert asked(config)


def test_a_saved_multimodal_configuration_needs_no_transformers(tmp_path: Path) -> None:
    Gemma3Config().save_pretrained(tmp_path)
    config = ConfigFile(tmp_path)
    assert agrees(tmp_path, config)
    assert not asked(config)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting property name"),
        (b"[]", "no object with a model_type"),
        (b"null", "no object with a model_type"),
        ({}, "no object with a model_type"),
        ({"model_type": None}, "no object with a model_type"),
        ({"model_type": 3}, "no object with a model_type"),
        (b'{"model_type": "llama", "model_type": "gemma"}', "it names 'model_type' twice"),
        (b'{"model_type": "\xff"}', "can't decode byte 0xff"),
        (b'{"a":' * 100_000, "nested too deeply"),
    ],
)
def test_a_damaged_configuration_is_refused(tmp_path: Path, config: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        says(tmp_path, config)
    assert str(tmp_path / "config.json") in str(caught.value)
    assert "Save the model again with save_pretrained" in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "nobody_knows_this"},
        {"model_type": "nobody_knows_this", "auto_map": {"AutoConfig": "code.py--Config"}},
        {"model_type": "longt5", "d_model": "wide"},
    ],
    ids=["unknown", "with code", "of wrong types"],
)
def test_what_transformers_refuses_is_one_error(tmp_path: Path, config: dict[str, Any]) -> None:
    with pytest.raises(
        CheckpointError, match=r"(?s)transformers cannot read .*config.json.*Use a model that transformers"
    ):
        _ = says(tmp_path, config).tied


def test_infinity_is_allowed(tmp_path: Path) -> None:
    assert says(tmp_path, b'{"model_type": "llama", "time_step_limit": [0.0, Infinity]}').tied is False
