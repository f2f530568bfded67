"""The toy tasks of the recipes, with a Trainer's arguments that fit them."""

from pathlib import Path

from toy_tasks import Perceptron, accuracy, examples, matrices, perceptron, products
from transformers import TrainingArguments

from ks_lottery.training.arguments import probe_arguments

__all__ = ["Perceptron", "accuracy", "arguments", "examples", "matrices", "perceptron", "products"]


def arguments(folder: Path, **options) -> TrainingArguments:
    defaults = {
        "max_steps": 300, "learning_rate": 1e-2, "per_device_train_batch_size": 128, "use_cpu": True,
        "lr_scheduler_type": "constant", "warmup_steps": 0, "adam_beta2": 0.999, "save_strategy": "no",
        "logging_strategy": "no", "disable_tqdm": True, "remove_unused_columns": False,
    }  # fmt: skip
    return probe_arguments(folder, **{**defaults, **options})
