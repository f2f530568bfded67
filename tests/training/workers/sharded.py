"""What each of two FSDP2 processes does for tests/training/test_many_devices.py; what it finds goes into a folder."""

import json
import sys
from pathlib import Path
from typing import Any

from accelerate import PartialState
from torch import Tensor, nn
from transformers import Trainer

from ks_lottery.adapter.attach import attach_ticket
from tests.adapter.tickets import weights
from tests.training.workers.tickets import KINDS, base_model, ticket, trainer_of


def main(folder: Path) -> None:
    """Train every kind of ticket in a sharded model, and one of them in two halves."""
    state = PartialState(cpu=True)
    report: dict[str, Any] = {"processes": state.num_processes}
    for kind in KINDS:
        before = weights(base_model(kind))
        trainer = run(kind, folder / kind)
        report[kind] = {
            "sharded": bool(trainer.is_fsdp_enabled),
            "classes": sorted({type(value).__name__ for value in trainer.model.parameters()}),
            "moved": moved(trainer.model, before),
        }
        trainer.save_model(str(folder / kind / "adapter"))
    run("mixed", folder / "mixed", resume=str(folder / "mixed" / "checkpoint-2")).save_model(folder / "mixed/resumed")
    if state.is_main_process:
        (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")


def run(kind: str, folder: Path, resume: str | None = None) -> Trainer:
    """Attach and train, or go on training."""
    model = attach_ticket(base_model(kind), ticket(kind))
    trainer = trainer_of(model, folder, PartialState().num_processes, save_strategy="steps", save_steps=2)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def moved(model: nn.Module, before: dict[str, Tensor]) -> list[str]:
    """Names of the base weights that are not what they were, to the bit."""
    found = []
    for name, value in model.named_parameters():
        plain = name.removeprefix("base_model.model.").replace(".base_layer", "")
        if not value.requires_grad and not value.full_tensor().equal(before[plain]):
            found.append(name)
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]))
