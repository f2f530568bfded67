"""Options of the translation recipe: the model, the tuning of every method, the scoring."""

from dataclasses import dataclass, field

from pocket import MODEL_FOLDER

from ks_lottery.errors import OptionError


@dataclass
class ModelArguments:
    """The base model and how it is prompted."""

    model_name_or_path: str = field(
        default=str(MODEL_FOLDER), metadata={"help": "Causal language model: folder or Hub id; the embedded one."}
    )
    dtype: str = field(
        default="auto", metadata={"help": "float32 or bfloat16 for the frozen weights; auto: bfloat16 on a GPU."}
    )
    prompt: str = field(default="alpaca", metadata={"help": "alpaca, instruction, or a text with {source}."})

    def __post_init__(self) -> None:
        if self.dtype not in ("auto", "float32", "bfloat16"):
            raise OptionError(f"--dtype {self.dtype}: must be auto, float32 or bfloat16.")


@dataclass
class TuningArguments:
    """How every method is trained; each has as many learning rates to try as the others."""

    embed_rates: list[float] = field(default_factory=lambda: [2e-5], metadata={"help": "Embed tuning (the probe)."})
    full_rates: list[float] = field(default_factory=lambda: [2e-5], metadata={"help": "Full tuning."})
    row_rates: list[float] = field(default_factory=lambda: [1e-2], metadata={"help": "Ticket and control rows."})
    lora_rates: list[float] = field(default_factory=lambda: [1e-4], metadata={"help": "LoRA r=8."})
    epochs: float = field(default=3, metadata={"help": "Passes over the training pairs: dense tuning and LoRA."})
    row_epochs: float = field(default=5, metadata={"help": "Passes over the training pairs: rows."})
    batch_size: int = field(default=32, metadata={"help": "Examples per optimizer step, over all processes."})
    micro_batch_size: int | None = field(default=None, metadata={"help": "Examples per forward pass; default: all."})
    adam_beta2: float = field(
        default=0.95, metadata={"help": "Of AdamW; with 0.999 the probe keeps moving rows that were seen once."}
    )
    max_length: int = field(default=512, metadata={"help": "Longest training example, in tokens."})
    checkpoint_steps: int = field(default=500, metadata={"help": "Steps between resumable checkpoints."})
    seed: int = field(default=0, metadata={"help": "Of data order and initialisation."})
    report_to: str = field(
        default="none",
        metadata={
            "help": "Logger of the Trainers, such as tensorboard (into OUTPUT_DIR/logs) or wandb; embed tuning also "
            "shows its ticket as it forms."
        },
    )
    watch_steps: int = field(default=50, metadata={"help": "With --report_to: steps between two looks at the ticket."})

    def __post_init__(self) -> None:
        for name in ("embed_rates", "full_rates", "row_rates", "lora_rates"):
            rates = getattr(self, name)
            if not rates or min(rates) <= 0:
                raise OptionError(f"--{name} {rates}: must be one or more learning rates above 0.")
        _require_positive(self, "epochs", "row_epochs", "batch_size", "max_length", "checkpoint_steps", "watch_steps")
        if self.micro_batch_size is not None:
            _require_positive(self, "micro_batch_size")


@dataclass
class EvaluationArguments:
    """How the methods are scored."""

    max_new_tokens: int = field(default=256, metadata={"help": "Limit of a translation."})
    num_beams: int = field(default=1, metadata={"help": "1: greedy."})
    generation_batch_size: int = field(default=16, metadata={"help": "Prompts per generation batch."})

    def __post_init__(self) -> None:
        _require_positive(self, "max_new_tokens", "num_beams", "generation_batch_size")


def _require_positive(arguments: object, *names: str) -> None:
    for name in names:
        if getattr(arguments, name) <= 0:
            raise OptionError(f"--{name} {getattr(arguments, name)}: must be above 0.")
