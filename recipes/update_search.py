"""Does a search over an update find a better fine-tuning ticket than the size of its moves?

    python recipes/update_search.py --out runs/update-search
    python recipes/update_search.py --out runs/update-search --render docs/results/update-search

The embedded model is tuned densely on the embedded corpus, once for each kind of unit and seed: exactly the weights of
the units train. Each finder then chooses a part of that update, and f(theta0 + m * delta) is scored against
f(theta0 + delta) on held-out sentences, with no further training. A killed run goes on where it stopped: every cell is
a line of `cells.jsonl`. `--render` makes the page of the cells that are there.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from comparison_tasks import EmbeddedCorpus
from update_search_page import render
from update_search_scores import HeldOut, PredictedTokens, add_line, lines_of

from ks_lottery.checkpoints.reader import Checkpoint, open_checkpoint
from ks_lottery.checkpoints.writer import write_json
from ks_lottery.errors import LotteryError, OptionError
from ks_lottery.evaluation.tasks.translation import TranslationTask
from ks_lottery.finders.base import FINDERS, Evidence, Finder, Shift, UnitScores
from ks_lottery.finders.masks.frozen import Frozen
from ks_lottery.finders.masks.masked import masked
from ks_lottery.finders.rounds.runs import Run
from ks_lottery.finders.saliency.batches import Batches, batches_of
from ks_lottery.finders.select import Density
from ks_lottery.training.arguments import probe_arguments
from ks_lottery.training.runs import TrainerRuns, trainer_runs
from ks_lottery.units.granularity import granularity
from ks_lottery.units.slab import UnitGroup, parameters_of
from ks_lottery.units.weights import Weights

REFERENCES = ("base", "dense")


@dataclass(frozen=True)
class UnitTable:
    """What is searched over one kind of unit.

    Attributes:
        learning_rate: of the dense tuning.
        densities: shares of the units.
        finders: by name.
    """

    learning_rate: float
    densities: tuple[float, ...]
    finders: tuple[str, ...]


@dataclass(frozen=True)
class Setting:
    """All that decides the numbers.

    Attributes:
        tables: by granularity; "weights" are those of the matrices in the blocks and of both embeddings.
        seeds: of the order of the training data, of the batches and of the searches.
        language: translated into, from English.
        model: folder; the embedded model if empty.
        train_pairs: to tune on.
        test_sentences: held out.
        batch_size: pairs of a step, of the tuning and of a search.
        dense_steps: of the tuning.
        batches: that finders see, drawn from the training pairs.
        search_steps: of a search, one batch each.
        translated: densities at which the test sentences are translated as well.
    """

    tables: dict[str, UnitTable] = field(
        default_factory=lambda: {
            "weights": UnitTable(
                0.001, (0.01, 0.02, 0.05, 0.1, 0.2), ("concrete", "magnitude", "fisher", "random")
            ),
            "neurons": UnitTable(0.001, (0.05, 0.2), ("concrete", "magnitude", "ks", "fisher", "random")),
            "token_rows": UnitTable(0.003, (0.01, 0.05), ("concrete", "magnitude", "ks", "fisher", "random")),
        }
    )  # fmt: skip
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    language: str = "de"
    model: str = ""
    train_pairs: int = 800
    test_sentences: int = 100
    batch_size: int = 8
    dense_steps: int = 100
    batches: int = 64
    search_steps: int = 240
    translated: tuple[float, ...] = (0.05,)

    def task(self) -> TranslationTask:
        """The model and its sentence pairs."""
        corpus = EmbeddedCorpus(
            self.language, train_pairs=self.train_pairs, test_sentences=self.test_sentences, model=self.model
        )
        return corpus.task(f"en-{self.language}")


class Update:
    """The dense update of one kind of unit and seed, and what finders choose of it."""

    def __init__(self, setting: Setting, task: TranslationTask, units: str, seed: int, folder: Path) -> None:
        self.setting, self.task, self.units, self.seed, self.folder = setting, task, units, seed, folder
        self.table = setting.tables[units]
        self._known: dict[str, tuple[list[UnitScores], dict[str, float]]] = {}

    @cached_property
    def model(self) -> Any:
        """The pretrained model, frozen."""
        return self.task.load_model().requires_grad_(False)

    @cached_property
    def groups(self) -> tuple[UnitGroup, ...]:
        """The units."""
        layout = open_checkpoint(self.model).layout()
        if self.units != "weights":
            return tuple(granularity(self.units).groups(layout))
        return Weights(tuple(name for name, shape in layout.shapes.items() if len(shape) == 2)).groups(layout)

    @cached_property
    def after(self) -> Checkpoint:
        """The model after its dense tuning."""
        run = Run(trains=tuple(parameters_of(self.groups)))
        return self._runs().train(run)

    def _runs(self) -> TrainerRuns:
        return trainer_runs(
            self.folder / "runs", self.task.load_model, self.task.examples,
            lambda place: probe_arguments(
                place, learning_rate=self.table.learning_rate, max_steps=self.setting.dense_steps,
                per_device_train_batch_size=self.setting.batch_size, seed=self.seed, save_strategy="no",
                logging_strategy="no", disable_tqdm=True, dataloader_drop_last=True,
            ),
            self.task.collator, marks={"task": self.task.digest},
        )  # fmt: skip

    @cached_property
    def batches(self) -> Sequence[Any]:
        """What finders look at."""
        return batches_of(
            self.task.examples, self.task.collator, self.setting.batch_size, self.setting.batches, self.seed
        )

    @cached_property
    def dense(self) -> PredictedTokens:
        """Predictions of the whole update on the held-out sentences."""
        everything = [np.arange(group.num_units) for group in self.groups]
        return self._under(everything, lambda held: held.predict(self.model))

    @cached_property
    def held_out(self) -> HeldOut:
        """The held-out sentences."""
        return HeldOut(self.task)

    def reference(self, name: str) -> dict[str, Any]:
        """Scores of nothing of the update, or of all of it."""
        chosen = [np.arange(group.num_units if name == "dense" else 0) for group in self.groups]
        return {"kept": sum(map(len, chosen)), **self._measured(chosen, translate=True)}

    def cell(self, name: str, density: float) -> dict[str, Any]:
        """Find the ticket of a density, and score it.

        Returns:
            scores, and what finding cost: examples forward and backward, and seconds of the processor; `magnitude` and
            `ks` cost no passes, since every finder is given the dense update. Of a search also `held`, the mean
            probability that its logits give a unit, over the density: 1.1 is what it aims at.
        """
        scores, cost = self._found(name, density)
        chosen = Density(density).select(scores, self._moved)
        return {
            "kept": sum(map(len, chosen)),
            **self._measured(chosen, density in self.setting.translated),
            **cost,
        }

    def _found(self, name: str, density: float) -> tuple[list[UnitScores], dict[str, float]]:
        """Scores of all units, and their cost; of all finders but a search the same for each density."""
        if name in self._known:
            return self._known[name]
        entry = FINDERS.get(name)
        options: dict[str, Any] = {}
        if name == "concrete":
            options = {"kind": "update", "density": density, "steps": self.setting.search_steps, "seed": self.seed}
        elif name == "random":
            options = {"seed": self.seed}
        finder: Finder = entry(**options)
        evidence, moved = self._evidence(entry), self._moved  # the dense update is not the finder's cost
        assert len(moved) == len(self.groups)
        begin = time.process_time()
        scores = list(finder.score(self.groups, evidence))
        cost: dict[str, float] = {"forward": 0, "backward": 0, "seconds": time.process_time() - begin}
        if isinstance(evidence, Batches):
            cost |= {"forward": evidence.passes.forward, "backward": evidence.passes.backward}
        if name == "concrete":
            alpha = np.concatenate([entry.columns["score"] for entry in scores])
            cost["held"] = float((1 / (1 + np.exp(-alpha))).mean() / density)
        else:
            self._known[name] = scores, cost
        return scores, cost

    @cached_property
    def _moved(self) -> list[np.ndarray]:
        """[units] bool for each group: units that moved, which alone can be chosen, whoever chooses."""
        shift = Shift(open_checkpoint(self.model), self.after)
        return [entry.changed for entry in FINDERS.get("magnitude")().score(self.groups, shift)]

    def _evidence(self, finder: type[Finder]) -> Evidence:
        if finder.needs is Shift:
            return Shift(open_checkpoint(self.model), self.after)
        if finder.needs is Frozen:
            return Frozen(self.model, self.batches, after=self.after)
        return Batches(self.model, self.batches) if finder.needs is Batches else Evidence()

    def _measured(self, chosen: Sequence[np.ndarray], translate: bool) -> dict[str, float]:
        dense = self.dense

        def measure(held: HeldOut) -> dict[str, float]:
            found = held.predict(self.model).against(dense)
            return {**found, **(self.task.score(self.model) if translate else {})}

        return self._under(chosen, measure)

    def _under(self, chosen: Sequence[np.ndarray], measure: Any) -> Any:
        """What is measured of theta0 + m * delta."""
        with masked(Frozen(self.model, self.batches, after=self.after), self.groups, "update") as model:
            mask = torch.zeros(model.num_units)
            for part, indices in zip(model.split(mask), chosen, strict=True):
                part[torch.from_numpy(indices)] = 1
            model.write(mask)
            return measure(self.held_out)


def run(setting: Setting, folder: Path, minutes: float = float("inf")) -> Path:
    """Make all cells that are missing.

    Args:
        setting: of the study; a folder belongs to one.
        folder: of the study.
        minutes: after which no further cell is begun.

    Returns:
        the file of the cells.

    Raises:
        OptionError: if the folder holds a study of another setting.
    """
    mark, content = folder / "setting.json", json.loads(json.dumps(asdict(setting)))
    if mark.is_file() and json.loads(mark.read_text(encoding="utf-8")) != content:
        raise OptionError(f"{str(folder)!r} holds a study of another setting. Give another folder, or delete it.")
    if not mark.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(mark, content)
    cells, task = folder / "cells.jsonl", setting.task()
    done = {_key(line) for line in lines_of(cells)}
    begin = time.monotonic()
    for seed in setting.seeds:
        for units in setting.tables:
            update = Update(setting, task, units, seed, folder)
            for finder, density in _cells(setting.tables[units]):
                key = {"units": units, "seed": seed, "finder": finder, "density": density}
                if _key(key) in done:
                    continue
                if time.monotonic() - begin > 60 * minutes:
                    return cells
                scores = update.reference(finder) if density is None else update.cell(finder, density)
                add_line(cells, {**key, **scores})
                print(f"{units}, seed {seed}, {finder}, density {density}: KL {scores['kl']:.4f}", flush=True)
    return cells


def _cells(table: UnitTable) -> Iterator[tuple[str, float | None]]:
    yield from ((name, None) for name in REFERENCES)
    yield from ((name, density) for density in table.densities for name in table.finders)


def _key(cell: dict[str, Any]) -> tuple[Any, ...]:
    return cell["units"], cell["seed"], cell["finder"], cell["density"]


def main() -> None:
    """Run, or render."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/update-search"), help="folder of the study")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no cell after so many minutes")
    parser.add_argument("--render", type=Path, help="write the page of the cells that are there into this folder")
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if options.render is None:
        run(Setting(), options.out, options.minutes)
    else:
        print(render(options.out, options.render))


if __name__ == "__main__":
    try:
        main()
    except LotteryError as error:
        sys.exit(f"{type(error).__name__}: {error}")
