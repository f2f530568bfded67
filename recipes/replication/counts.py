"""How often each token occurs in the training text of a replicate, kept so that pages need no data set."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from replication.laboratory import Laboratory

FILE = "counts.safetensors"


@dataclass(frozen=True, eq=False)
class Counts:
    """Token counts.

    Attributes:
        training: [vocabulary] int64, in all training examples.
        prompt: [vocabulary] int64, in the prompt around one sentence.
    """

    training: np.ndarray
    prompt: np.ndarray

    @classmethod
    def load(cls, folder: Path) -> "Counts":
        """Read what a cell left."""
        return cls(**load_file(folder / FILE))


def counts_cell(direction: str, seed: int) -> str:
    """Name of the cell that counts."""
    return f"counts/{direction}/{seed}"


def count(lab: Laboratory, direction: str, seed: int, folder: Path) -> dict[str, Any]:
    """Count the tokens of a replicate."""
    found = lab.bench(direction).counts(seed)
    save_file({"training": found.training, "prompt": found.prompt}, folder / FILE)
    return {"tokens": int(found.training.sum()), "used": int((found.training > 0).sum())}
