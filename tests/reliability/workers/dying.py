"""What each of two processes does for tests/reliability/test_ranks.py: the second one dies in the midst of it."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import Trainer, default_data_collator

from ks_lottery.finders import ranks
from ks_lottery.finders.search import find_ticket
from ks_lottery.finders.select import TopK
from ks_lottery.training.probe import probe
from tests.tiny_models import tiny_llama
from tests.training.workers.tickets import Sentences, train


def die() -> None:
    """As `kill -9` does it: nothing is said, nothing is cleaned up."""
    Path(sys.argv[3]).touch()
    os.kill(os.getpid(), signal.SIGKILL)


def die_in_step(number: int) -> None:
    """Die in a step of a training."""
    step, done = Trainer.training_step, []

    def step_or_die(self: Trainer, *given: Any, **options: Any) -> Any:
        done.append(None)
        if len(done) == number:
            die()
        return step(self, *given, **options)

    Trainer.training_step = step_or_die


def main(what: str, folder: Path) -> None:
    """Find, probe or tune; the second process dies."""
    state = PartialState(cpu=True)
    dies = state.process_index == 1
    if what == "find":
        if dies:
            ranks._scored_share = lambda *given: die()
        find_ticket(folder / "before", folder / "after", "heads", selector=TopK(3), distributed=True)
        return
    if dies:
        die_in_step(2)
    if what == "tune":
        train("mixed", folder / "tuned", state.num_processes)
        return
    options = {"max_steps": 4, "per_device_train_batch_size": 2, "use_cpu": True, "disable_tqdm": True}
    probe(tiny_llama(), Sentences(), folder / "probe", arguments=options, data_collator=default_data_collator)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
