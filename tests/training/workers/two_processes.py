"""What each of two DDP processes does for tests/training/test_many_devices.py; what it finds goes into a folder."""

import json
import sys
from pathlib import Path
from typing import Any

from accelerate import PartialState
from safetensors.torch import save_file
from transformers import TrainerCallback, default_data_collator

from ks_lottery.errors import LotteryError
from ks_lottery.finders.ranks import exchange_tensors
from ks_lottery.finders.search import find_ticket, score_units
from ks_lottery.finders.select import TopK
from ks_lottery.training.callback import TicketCallback
from ks_lottery.training.probe import probe
from tests.tiny_models import tiny_llama
from tests.training.workers.tickets import KINDS, Sentences, train, trained_values, trainer_of


def main(folder: Path) -> None:
    """Find, probe and tune: every part is a test of its own, in one launch."""
    state = PartialState(cpu=True)
    mine = folder / f"rank-{state.process_index}"
    mine.mkdir()
    report: dict[str, Any] = {"processes": state.num_processes, "backend": state.backend}
    report["exchanged"] = [got.decode() for got in exchange_tensors(b"x" * (1 + 5 * state.process_index))]
    report["scores"], report["refused"] = find(folder, mine)
    report["looks"] = watch_a_probe(folder, mine)
    for kind in KINDS:
        model = train(kind, mine / kind, state.num_processes)
        save_file(dict(trained_values(model)), mine / f"{kind}.safetensors")
    trainer = trainer_of(model, mine / "checkpoints", state.num_processes, save_strategy="steps", save_steps=2)
    trainer.train()
    trainer.save_model(mine / "adapter")
    report["saved"] = sorted(str(path.relative_to(mine)) for path in mine.rglob("adapter_model.safetensors"))
    (mine / "report.json").write_text(json.dumps(report), encoding="utf-8")


def find(folder: Path, mine: Path) -> tuple[str, str]:
    """Find together; returns the bytes of all scores, and the error that a NaN in one rank's share is."""
    before, after = folder / "before", folder / "after"
    find_ticket(before, after, "heads", selector=TopK(3), distributed=True).save(mine / "ticket")
    scores = score_units(before, after, "neurons", "ks", distributed=True)
    try:
        find_ticket(before, folder / "broken", distributed=True)
    except LotteryError as error:
        return b"".join(entry.score.tobytes() for entry in scores).hex(), f"{type(error).__name__}: {error}"
    raise AssertionError("the NaN went unseen")


class Looks(TrainerCallback):
    """Keeps the looks of a `TicketCallback`."""

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take them out of the history."""
        self.found = [
            [entry[key] for key in ("step", "ticket/selected", "ticket/largest_score")]
            for entry in state.log_history
            if "ticket/selected" in entry
        ]


def watch_a_probe(folder: Path, mine: Path) -> list[list[float]]:
    """A probe over both processes; the `TicketCallback` also checks that what is frozen stays bit-identical."""
    watching, looks = TicketCallback(folder / "before", finder="magnitude", selector=TopK(5), every=2), Looks()
    options = {"max_steps": 4, "per_device_train_batch_size": 2, "use_cpu": True, "disable_tqdm": True}
    after = probe(
        tiny_llama(),
        Sentences(),
        folder / "probe",
        arguments=options,
        data_collator=default_data_collator,
        callbacks=[watching, looks],
    )
    find_ticket(folder / "probe" / "before", after, selector=TopK(5), distributed=True).save(mine / "probed")
    return looks.found


if __name__ == "__main__":
    main(Path(sys.argv[1]))
