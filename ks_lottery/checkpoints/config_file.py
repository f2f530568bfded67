"""The `config.json` of a folder: read as plain JSON as far as that is certain, by transformers where it is not."""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ks_lottery.checkpoints.strict_json import strict_json_file
from ks_lottery.errors import CheckpointError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_CONFIG = "config.json"
_SHOWN = 500  # characters of a message of transformers, which may list all that it knows
# Model types whose configuration keeps a given key as it is, by what transformers takes where the key is absent.
_UNTIED_UNLESS_SAID = (
    "llama", "llama4_text", "mistral", "mistral4", "ministral", "ministral3", "mixtral", "qwen2", "qwen2_moe",
    "qwen3", "qwen3_moe", "qwen3_next", "qwen3_5_text", "qwen3_5_moe_text", "phi", "phi3", "phimoe", "olmo", "olmo2",
    "olmo3", "olmoe", "gpt_neox", "gptj", "gpt_oss", "deepseek_v2", "deepseek_v3", "glm", "glm4", "glm4_moe",
    "granite", "granitemoe", "stablelm", "nemotron", "exaone4", "apertus", "arcee", "seed_oss", "vit",
)  # fmt: skip
_TIED_UNLESS_SAID = (
    "gemma", "gemma2", "gemma3_text", "gemma3n_text", "smollm3", "gpt2", "gpt_neo", "gpt_bigcode", "openai-gpt",
    "bloom", "opt", "mpt", "falcon", "starcoder2", "cohere", "cohere2", "ernie4_5", "lfm2", "xglm", "bert", "roberta",
    "xlm-roberta", "distilbert", "deberta-v2", "bart", "mbart", "marian", "pegasus", "m2m_100",
)  # fmt: skip
IF_UNSAID = dict.fromkeys(_UNTIED_UNLESS_SAID, False) | dict.fromkeys(_TIED_UNLESS_SAID, True)
TIED_WHATEVER_IS_SAID = ("t5", "mt5", "umt5")
_NESTED = ("text_config", "text_encoder", "decoder", "generator")


class ConfigFile:
    """What a folder's `config.json` says.

    Args:
        folder: a model's folder.

    Raises:
        CheckpointError: if there is no `config.json`, or it is not one JSON object with a `model_type`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        path = folder / _CONFIG
        if not path.is_file():
            hint = " It holds a PEFT adapter." if (folder / "adapter_config.json").is_file() else ""
            raise CheckpointError(
                f"{str(folder)!r} has no {_CONFIG}, so it is not a whole model.{hint} Give the folder that "
                "model.save_pretrained wrote."
            )
        try:
            self._json = strict_json_file(path)
            if not isinstance(self._json, dict) or not isinstance(self._json.get("model_type"), str):
                raise ValueError("it is no object with a model_type")
        except ValueError as error:
            raise CheckpointError(
                f"{str(path)!r} cannot be read ({error}). Save the model again with save_pretrained, or copy the "
                f"{_CONFIG} of the model that it comes from."
            ) from error

    @cached_property
    def full(self) -> "PretrainedConfig":
        """The transformers configuration.

        Raises:
            CheckpointError: if transformers refuses it, or would have to run code that comes with the model.
        """
        from transformers import AutoConfig

        try:
            return AutoConfig.from_pretrained(self._folder, trust_remote_code=False)
        except Exception as error:
            raise CheckpointError(
                f"transformers cannot read {str(self._folder / _CONFIG)!r}: {str(error)[:_SHOWN]} Use a model "
                "that transformers has built in, and a version that knows it."
            ) from error

    @cached_property
    def model_type(self) -> str:
        """Transformers' name of the architecture; what `full.model_type` is."""
        return self.full.model_type if self._tied is None else self._json["model_type"]

    @cached_property
    def tied(self) -> bool:
        """Whether the output head is the input embedding; what `is_tied(full)` is."""
        return is_tied(self.full) if self._tied is None else self._tied

    @cached_property
    def _tied(self) -> bool | None:
        """What the JSON alone says for certain; None where the code of transformers decides."""
        model_type = self._json["model_type"]
        renamed = model_type == "mistral" and "layer_types" in self._json
        if renamed or "configuration_files" in self._json:
            return None
        nested = [key for key in _NESTED if key in self._json]
        if not nested:
            return _said(self._json)
        text = self._json["text_config"] if nested == ["text_config"] and model_type not in IF_UNSAID else None
        return _said(text) if isinstance(text, dict) and "tie_word_embeddings" in text else None


def _said(config: dict[str, Any]) -> bool | None:
    model_type = config.get("model_type")
    if model_type in TIED_WHATEVER_IS_SAID:
        return True
    if not isinstance(model_type, str) or model_type not in IF_UNSAID:
        return None
    said = config.get("tie_word_embeddings", IF_UNSAID[model_type])
    return said if isinstance(said, bool) else None


def is_tied(config: Any) -> bool:
    """Whether a configuration makes the output head the input embedding."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    return bool(getattr(text, "tie_word_embeddings", getattr(config, "tie_word_embeddings", False)))
