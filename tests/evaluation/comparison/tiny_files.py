"""A comparison whose data stands in files, of a tiny translation model: eight cells, some seconds."""

from pathlib import Path
from typing import Any

import yaml

from tests.tiny_models import tiny_llama
from tests.training.tiny_task import PAIRS, tiny_tokenizer

CELLS = 8


def save_comparison(folder: Path, **changes: Any) -> Path:
    """Write model, pairs and configuration; returns the configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(folder / "model")
    tiny_llama(vocabulary=len(tokenizer)).save_pretrained(folder / "model")
    lines = "".join(f"{source}\t{target}\n" for source, target in PAIRS)
    (folder / "pairs.tsv").write_text("English\tGerman\n" + lines, encoding="utf-8")
    pairs = str(folder / "pairs.tsv")
    task = {
        "kind": "translation", "model": str(folder / "model"), "train": pairs, "test": pairs, "source": "English",
        "target": "German", "max_new_tokens": 6,
    }  # fmt: skip
    plan = {
        "tasks": {"de": task},
        "replicates": [0],
        "budget": {"steps": 2, "batch_size": 2},
        "tables": [{"units": "token_rows", "densities": [0.1], "finders": ["magnitude"]}],
        **changes,
    }
    (folder / "plan.yaml").write_text(yaml.safe_dump(plan), encoding="utf-8")
    return folder / "plan.yaml"
