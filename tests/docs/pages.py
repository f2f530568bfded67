"""The code of a page, and what has to be there for it to run."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from ks_lottery import attach_ticket, find_ticket
from ks_lottery.adapter.export import export_ticket
from ks_lottery.finders.select import TopK
from ks_lottery.report.report import write_report
from ks_lottery.training.arguments import probe_arguments
from ks_lottery.training.examples import ResponseCollator
from ks_lottery.units.weights import Weights
from tests.report.example import example_report
from tests.tiny_models import shifted, tiny_llama

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
POCKET = ROOT / "recipes" / "pocket" / "model"


def blocks(page: Path, *languages: str) -> list[tuple[str, str]]:
    """Language and text of every block of code, in order."""
    found = re.findall(r"^```(\w+)\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [(language, text) for language, text in found if language in languages]


def lay_out(folder: Path) -> None:
    """What pages take for granted: a base model, a tuned one, a ticket, an adapter, a report, and the recipes."""
    base, tuned = tiny_llama(), shifted(tiny_llama(), list(range(3, 40)), size=100.0)
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if "layers" in name:
                noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
                weight.add_(noise, alpha=1.0 if "layers.0" in name else 1e-4)
    for model, name in ((base, "base-model"), (tuned, "tuned-model")):
        model.save_pretrained(folder / name)
    ticket = find_ticket(folder / "base-model", folder / "tuned-model", selector=TopK(18))
    ticket.save(folder / "ticket")
    adapted = attach_ticket(tiny_llama(), ticket)
    adapted.save_pretrained(folder / "adapter")
    export_ticket(adapted, folder / "plain", base_model=str(folder / "base-model"))
    write_report(folder / "report", example_report())
    (folder / "recipes").symlink_to(ROOT / "recipes")


def common_names() -> dict[str, Any]:
    """What the reader of any page has at hand."""
    ids = torch.randint(3, 60, (128, 12)).tolist()
    arguments: Callable[..., Any] = lambda folder, max_steps=2: probe_arguments(  # noqa: E731
        folder, max_steps=2, use_cpu=True, save_strategy="no", disable_tqdm=True
    )
    return {
        "__name__": "page",
        "model": tiny_llama(),
        "load_model": tiny_llama,
        "dataset": [{"input_ids": row, "labels": row} for row in ids],
        "collator": ResponseCollator(pad_token_id=0),
        "arguments": arguments,
        "units": Weights(),
        "tokenizer": AutoTokenizer.from_pretrained(POCKET),
    }
