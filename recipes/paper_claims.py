"""What papers about lottery tickets claim, checked on tasks of seconds: prints the table that PAPERS.md shows.

    python recipes/paper_claims.py                 # five seeds, minutes on one core
    python recipes/paper_claims.py --seeds 1

Every training is one of a stock Trainer, and every ticket comes from a registered finder.
"""

import argparse
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from toy_tasks import Neuron, Perceptron, accuracy, examples, matrices, neuron, perceptron, products, taught
from transformers import TrainingArguments

from ks_lottery.checkpoints.reader import Checkpoint, open_checkpoint
from ks_lottery.evaluation.stability import Instability, instability
from ks_lottery.finders.base import FINDERS, Evidence, Shift
from ks_lottery.finders.rounds.imp import IterativeMagnitude
from ks_lottery.finders.rounds.levels import everything, keep_largest
from ks_lottery.finders.rounds.lrr import LearningRateRewinding
from ks_lottery.finders.rounds.runs import Kept, Run
from ks_lottery.finders.saliency.batches import Batches
from ks_lottery.report.curves import instability_picture, path_picture
from ks_lottery.training.arguments import probe_arguments
from ks_lottery.training.runs import TrainerRuns, trainer_runs
from ks_lottery.units.slab import Slab, UnitGroup

Row = tuple[str, str, str]
TEST = products(2000, 1)
NARROW = (20, 400, 6, 400, 10)
PARTED = (0, 100, 400, 1000)


def settings(folder: Path, **options: Any) -> TrainingArguments:
    """Arguments of a small training: constant rate, nothing saved or printed."""
    defaults = {
        "max_steps": 300, "learning_rate": 1e-2, "per_device_train_batch_size": 128, "adam_beta2": 0.999,
        "lr_scheduler_type": "constant", "warmup_steps": 0, "save_strategy": "no", "logging_strategy": "no",
        "disable_tqdm": True, "remove_unused_columns": False,
    }  # fmt: skip
    return probe_arguments(folder, **{**defaults, **options})


def product_runs(folder: Path, seed: int) -> TrainerRuns:
    """Trainings on the product rule."""
    data = examples(*products(3000, 10 + seed))
    return trainer_runs(folder, lambda: perceptron(seed), data, lambda place: settings(place, seed=seed))


def score(model: Perceptron, trained: Checkpoint) -> float:
    """Test accuracy on the product rule, in percent."""
    return 100 * accuracy(loaded(model, trained), *TEST)


def loaded(model: Any, trained: Checkpoint) -> Any:
    """A model with the weights of a checkpoint."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(trained.rows(name))
    return model


def shuffled(kept: Kept, seed: int) -> Kept:
    """As many units in each layer, others."""
    draw = np.random.default_rng(seed)
    indices = (
        np.sort(draw.choice(group.num_units, len(units), replace=False))
        for group, units in zip(kept.groups, kept.indices, strict=True)
    )
    return replace(kept, indices=tuple(indices))


def iterative_pruning(folder: Path, seeds: Sequence[int]) -> Iterator[Row]:
    """The ticket of six rounds at 4.66 % density against its shuffle, and rewound at random."""
    found: dict[str, list[float]] = {"dense": [], "ticket": [], "shuffle": [], "reinitialised": []}
    for seed in seeds:
        runs = product_runs(folder / f"imp-{seed}", seed)
        method = IterativeMagnitude(schedule="geometric", density=0.6**6, keep=0.6)
        *_, last = method.levels(matrices(perceptron()), runs)
        other = product_runs(folder / f"other-{seed}", 100 + seed)
        for name, where, run in (
            ("dense", runs, Run()), ("ticket", runs, Run(kept=last.kept)),
            ("shuffle", runs, Run(kept=shuffled(last.kept, seed))), ("reinitialised", other, Run(kept=last.kept)),
        ):  # fmt: skip
            found[name].append(score(perceptron(), where.train(run)))
    yield (
        "IMP ticket beats its layerwise shuffle by at least 30 points of accuracy below 5 % density (Frankle & Carbin "
        "2019; here 4.66 %)",
        f"ticket {span(found['ticket'])}, dense {span(found['dense'])}",
        f"shuffle {span(found['shuffle'])}: {mean(found['ticket']) - mean(found['shuffle']):.0f} points; the same mask "
        f"with other initial weights {span(found['reinitialised'])}: the mask matters here, its weights less",
    )


def connected(folder: Path, seeds: Sequence[int]) -> Iterator[Row]:
    """Linear mode connectivity against the step at which two copies part; seed 0 is drawn in `folder`/pictures."""
    found = [_instability(folder, seed) for seed in seeds]
    pictures = folder / "pictures"
    pictures.mkdir(exist_ok=True)
    (pictures / "instability.png").write_bytes(instability_picture(found[0]))
    paths = dict(zip((f"copies part at step {step}" for step in PARTED), found[0].paths, strict=True))
    (pictures / "paths.png").write_bytes(path_picture(paths))
    found[0].save(pictures / "instability.json")
    barriers = {step: [one.barriers("loss")[place] for one in found] for place, step in enumerate(PARTED)}
    errors = {step: [100 * one.barriers("error")[place] for one in found] for place, step in enumerate(PARTED)}
    shown = "; ".join(f"k = {step}: {mean(values):.3f}" for step, values in barriers.items())
    yield (
        "The barrier between two copies that part late is under a quarter of that at step 0 (Frankle et al. 2020)",
        f"loss barrier {shown}",
        f"error barrier {span(errors[0])} points at step 0, {span(errors[PARTED[-1]])} at step {PARTED[-1]}",
    )


def _instability(folder: Path, seed: int) -> Instability:
    data = taught(1500, seed)
    early = _mode_runs(folder / f"part-{seed}", seed, data, 0)
    copies = [_mode_runs(folder / f"mode-{seed}-{copy}", seed, data, copy) for copy in (1, 2)]

    def trained(step: int) -> tuple[Checkpoint, Checkpoint]:
        start = early.train(Run(last_step=step)) if step else None
        return copies[0].train(Run(start=start)), copies[1].train(Run(start=start))

    return instability(_wide(seed), trained, partial(_losses, data=data), PARTED, points=9)


def _wide(seed: int) -> Perceptron:
    return perceptron(seed, (20, 64, 64, 64, 64, 64, 10))


def _mode_runs(folder: Path, seed: int, data: tuple[torch.Tensor, torch.Tensor], order: int) -> TrainerRuns:
    """Trainings of SGD with momentum, whose data order is `order`."""

    def arguments(place: Path) -> TrainingArguments:
        return settings(
            place, max_steps=1400, learning_rate=0.05, optim="sgd", optim_args="momentum=0.9", seed=order,
            per_device_train_batch_size=32, lr_scheduler_type="linear", max_grad_norm=0.0,
        )  # fmt: skip

    return trainer_runs(folder, lambda: _wide(seed), examples(*data), arguments)


def _losses(model: Any, data: tuple[torch.Tensor, torch.Tensor]) -> Mapping[str, float]:
    x, labels = data
    with torch.no_grad():
        return {"loss": float(model(x, labels).loss), "error": 1 - accuracy(model, x, labels)}


def signs(folder: Path, seeds: Sequence[int]) -> Iterator[Row]:
    """One neuron whose first weight has the wrong sign."""
    found: dict[str, list[float]] = {"dense": [], "imp": [], "lrr": []}
    for seed in seeds:
        runs = _neuron_runs(folder / f"sign-{seed}", seed)
        groups = (UnitGroup("w", (Slab("w", None),), 5),)
        found["dense"].append(_neuron_loss(runs, runs.train(Run())))
        methods: dict[str, IterativeMagnitude | LearningRateRewinding] = {
            "imp": IterativeMagnitude(density=0.2, rounds=1), "lrr": LearningRateRewinding(density=0.2, rounds=1),
        }  # fmt: skip
        for name, method in methods.items():
            (level,) = method.levels(groups, runs)
            start, first_step = method.start(groups, runs)
            found[name].append(_neuron_loss(runs, runs.train(Run(start, level.kept, None, first_step))))
    yield (
        "LRR solves the one-neuron sign problem that IMP cannot (Gadhikar & Burkholz 2024)",
        f"loss of LRR {span(found['lrr'], 4)}, dense {span(found['dense'], 4)}",
        f"loss of IMP {span(found['imp'], 3)}",
    )


def _neuron_runs(folder: Path, seed: int) -> TrainerRuns:
    points = torch.randn(2000, 5, generator=torch.Generator().manual_seed(100 + seed))

    def arguments(place: Path) -> TrainingArguments:
        return settings(
            place, max_steps=1500, learning_rate=0.05, optim="sgd", per_device_train_batch_size=1, max_grad_norm=0.0
        )

    return trainer_runs(folder, lambda: neuron(5, seed), [{"x": points}], arguments)


def _neuron_loss(runs: TrainerRuns, trained: Checkpoint) -> float:
    model: Neuron = loaded(neuron(5, 0), trained)
    with torch.no_grad():
        return float(model(runs.datasets[0][0]["x"][None]).loss)


def collapse(folder: Path, seeds: Sequence[int]) -> Iterator[Row]:
    """Layers left without a weight at 0.5 % density of a network with a bottleneck."""
    empty: dict[str, list[int]] = {"synflow": [], "snip": [], "criterion": []}
    for seed in seeds:
        model = perceptron(seed, NARROW, bias=False)
        groups = matrices(model)
        x = torch.randn(256, NARROW[0], generator=torch.Generator().manual_seed(seed))
        batch = {"x": x, "labels": torch.randint(0, 10, (256,), generator=torch.Generator().manual_seed(seed))}
        for name in empty:
            empty[name].append(sum(not len(units) for units in _selected(name, model, groups, batch, 0.005)))
    yield (
        "SynFlow empties no layer at densities where SNIP and magnitude do (Tanaka et al. 2020; here 0.5 % of a "
        "network of widths 20-400-6-400-10)",
        f"empty layers of 4: SynFlow {counts(empty['synflow'])}",
        f"SNIP {counts(empty['snip'])}, magnitude {counts(empty['criterion'])}",
    )


def _selected(
    name: str, model: Perceptron, groups: Sequence[UnitGroup], batch: Mapping[str, torch.Tensor], density: float
) -> tuple[np.ndarray, ...]:
    """Units that a finder chooses at initialisation."""
    options: dict[str, dict[str, Any]] = {"synflow": {"density": density}, "criterion": {"rule": "large_init"}}
    method = FINDERS.get(name)(**options.get(name, {}))
    # SynFlow looks at plain modules as a whole: a transformers model would be taken for one with blocks.
    evidence: Evidence = Batches(_Plain(model) if name == "synflow" else model, [batch])
    if name == "criterion":
        evidence = Shift(open_checkpoint(model), open_checkpoint(model))
    prefixed = name == "synflow"
    asked = [
        UnitGroup(group.name, (Slab(f"inner.{group.name}", None),), group.num_units) if prefixed else group
        for group in groups
    ]
    scores = list(method.score(asked, evidence))
    count = round(density * sum(group.num_units for group in groups))
    return keep_largest(scores, everything(asked, "weight"), count, "global").indices


class _Plain(torch.nn.Module):
    """A perceptron without its configuration."""

    def __init__(self, inner: Perceptron) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        logits: torch.Tensor = self.inner(x).logits
        return logits


def chance(folder: Path, seeds: Sequence[int]) -> Iterator[Row]:
    """SNIP at initialisation against its own shuffle: what its layerwise densities alone are worth."""
    found: dict[str, list[float]] = {"snip": [], "shuffle": [], "dense": []}
    for seed in seeds:
        runs = product_runs(folder / f"imp-{seed}", seed)
        groups = matrices(perceptron())
        x, labels = products(512, 10 + seed)
        indices = _selected("snip", perceptron(seed), groups, {"x": x, "labels": labels}, 0.5)
        kept = Kept(groups, indices, "weight")
        for name, run in (("dense", Run()), ("snip", Run(kept=kept)), ("shuffle", Run(kept=shuffled(kept, seed)))):
            found[name].append(score(perceptron(), runs.train(run)))
    yield (
        "A random ticket of the same layerwise densities is within noise of one found at initialisation (Su et al. "
        "2020, Frankle et al. 2021; SNIP at 50 %)",
        f"SNIP {span(found['snip'])}, dense {span(found['dense'])}",
        f"its shuffle {span(found['shuffle'])}: {mean(found['snip']) - mean(found['shuffle']):+.1f} points",
    )


def span(values: Sequence[float], digits: int = 1) -> str:
    """Mean, and smallest and largest value."""
    return f"{mean(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def counts(values: Sequence[int]) -> str:
    """Smallest and largest of some counts."""
    return str(min(values)) if min(values) == max(values) else f"{min(values)} to {max(values)}"


CLAIMS: tuple[Callable[[Path, Sequence[int]], Iterator[Row]], ...] = (
    iterative_pruning, connected, signs, collapse, chance,
)  # fmt: skip


def main() -> None:
    """Check every claim and print a line of the table for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="how many seeds, from 0")
    parser.add_argument("--pictures", type=Path, help="folder for the curves of linear mode connectivity")
    parser.add_argument("--only", choices=[claim.__name__ for claim in CLAIMS], help="one claim")
    options = parser.parse_args()
    print("| claim | here | against |\n| --- | --- | --- |", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for claim in CLAIMS:
            if options.only in (None, claim.__name__):
                for row in claim(Path(folder), range(options.seeds)):
                    print(f"| {' | '.join(row)} |", flush=True)
        drawn = Path(folder) / "pictures"
        if options.pictures and drawn.is_dir():
            shutil.copytree(drawn, options.pictures, dirs_exist_ok=True)


if __name__ == "__main__":
    main()
