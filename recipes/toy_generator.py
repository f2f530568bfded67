"""Strong tickets of a random generator: masks under which its points have the moments of a ring's features.

    python recipes/toy_generator.py                            # three seeds, a minute and a half on one core
    python recipes/toy_generator.py --seeds 1 --steps 100 --out FOLDER

Writes generator.json and generator.png. No weight is trained: the generator is a perceptron of random signs that turns
noise into points of the plane. Means and variances of 258 random features say little of a shape: masks bring them
within a hundredth of where chance leaves them, and the points are where the ring is, but they are no ring.
Source: Yeo et al. 2023, arXiv 2212.08311, on a task of seconds.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from toy_tasks import Perceptron, matrices, perceptron

from ks_lottery.checkpoints.writer import write_json
from ks_lottery.finders.masks.moment_features import Moments, MomentTargets, data_moments, moments_of
from ks_lottery.finders.masks.moments import MomentMatching, moment_gap
from ks_lottery.finders.masks.signed_constants import signed_constants
from ks_lottery.report.samples import samples_picture

WIDTHS = (16, 128, 128, 2)
BATCH = 256
OUT = Path(__file__).resolve().parents[1] / "docs" / "results" / "theory"


def ring(count: int, seed: int) -> Tensor:
    """[count, 2] points of the unit circle with noise of .05."""
    draw = torch.Generator().manual_seed(seed)
    angle = 2 * torch.pi * torch.rand(count, generator=draw)
    return torch.stack([angle.cos(), angle.sin()], 1) + 0.05 * torch.randn(count, 2, generator=draw)


def noise(count: int, seed: int) -> Tensor:
    """[count, 16] of what the generator turns into points."""
    return torch.randn(count, WIDTHS[0], generator=torch.Generator().manual_seed(seed))


class Eye:
    """A frozen random network that looks at points: its features are the points and its two hidden layers.

    Args:
        seed: of its weights.
    """

    def __init__(self, seed: int = 7) -> None:
        draw = torch.Generator().manual_seed(seed)
        self._layers = [nn.Linear(2, 128), nn.Linear(128, 128)]
        for layer in self._layers:
            layer.requires_grad_(False)
            bound = layer.in_features**-0.5
            for value in layer.parameters():
                value.copy_((2 * torch.rand(value.shape, generator=draw) - 1) * bound)

    def __call__(self, points: Tensor) -> list[Tensor]:
        """Features [n, 2], [n, 128] and [n, 128]."""
        first = torch.relu(self._layers[0](points))
        return [points, first, torch.relu(self._layers[1](first))]


class Experiment:
    """A random generator, and a frozen network with whose eyes it is compared to the ring.

    Args:
        seed: of the generator and of the masks.
        density: share of each layer's weights that a mask keeps; the weights are scaled for it.
    """

    def __init__(self, seed: int, density: float) -> None:
        self.seed, self.density = seed, density
        self.model: Perceptron = perceptron(seed, WIDTHS, bias=False)
        self.groups = matrices(self.model)
        signed_constants(self.model, self.groups, density)
        self.model.requires_grad_(False)
        self._eye = Eye()
        exact = data_moments(self._eye(ring(BATCH, number)) for number in range(40))
        self.targets = [Moments(one.mean.float(), one.variance.float()) for one in exact]

    def evidence(self, batches: int) -> MomentTargets:
        """So many batches of fresh noise, the generator, and the moments of the ring."""
        return MomentTargets(
            self.model,
            [{"x": noise(BATCH, 1000 + number)} for number in range(batches)],
            features=lambda model, batch: self._eye(model(x=batch["x"]).logits),
            targets=self.targets,
        )

    def find(self, steps: int, **options: Any) -> list[Tensor]:
        """The ticket: a boolean mask for each matrix."""
        method = MomentMatching(density=self.density, steps=steps, seed=self.seed, **options)
        scores = method.score(self.groups, self.evidence(steps))
        return [
            torch.from_numpy(entry.columns["kept"] > 0).view_as(weight)
            for entry, weight in zip(scores, self.model.parameters(), strict=True)
        ]

    def shuffled(self, masks: Sequence[Tensor]) -> list[Tensor]:
        """As many weights of each layer, at random."""
        draw = torch.Generator().manual_seed(self.seed)
        return [mask.flatten()[torch.randperm(mask.numel(), generator=draw)].view_as(mask) for mask in masks]

    @torch.no_grad()
    def points(self, masks: Sequence[Tensor] | None, count: int = 4096) -> Tensor:
        """What the masked generator draws from noise that no search saw; None: the generator of all weights."""
        kept = [weight.clone() for weight in self.model.parameters()]
        try:
            for weight, mask in zip(self.model.parameters(), masks or [], strict=masks is not None):
                weight.mul_(mask)
            drawn: Tensor = self.model(x=noise(count, 0)).logits
            return drawn
        finally:
            for weight, value in zip(self.model.parameters(), kept, strict=True):
                weight.copy_(value)

    def measure(self, points: Tensor) -> dict[str, float]:
        """How far points are from the ring: the gap of moments, and what radius they have."""
        radius = points.norm(dim=1)
        return {
            "moment_gap": moment_gap(self.targets, moments_of(self._eye(points))),
            "radius_mean": float(radius.mean()),
            "radius_deviation": float(radius.std()),
        }


def run(seeds: int, steps: int, densities: Sequence[float]) -> tuple[dict[str, Any], Mapping[str, np.ndarray]]:
    """Measure tickets and their shuffles.

    Returns:
        what was measured, and clouds of points of the first seed.
    """
    rows: list[dict[str, Any]] = []
    clouds = {"data": ring(4096, 0).numpy()}
    for density in densities:
        for seed in range(seeds):
            experiment = Experiment(seed, density)
            masks = experiment.find(steps)
            drawn = {
                "all weights": experiment.points(None),
                "random mask": experiment.points(experiment.shuffled(masks)),
                "ticket": experiment.points(masks),
            }
            kept = [int(mask.sum()) for mask in masks]
            for name, points in drawn.items():
                rows.append({"density": density, "seed": seed, "generator": name, **experiment.measure(points)})
                if seed == 0 and name != "all weights":
                    clouds[f"{name}, density {density:g}"] = points.numpy()
                elif seed == 0 and density == densities[0]:
                    clouds[f"{name}, scaled for {density:g}"] = points.numpy()
            rows[-1]["kept_per_layer"] = kept
    data = Experiment(0, densities[0]).measure(ring(4096, 12345))
    return {"widths": WIDTHS, "steps": steps, "batch": BATCH, "fresh data": data, "rows": rows}, clouds


def main() -> None:
    """Run the experiment, print its table, write its file and its picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="how many random generators, from seed 0")
    parser.add_argument("--steps", type=int, default=600, help="optimizer steps of each mask")
    parser.add_argument("--densities", type=float, nargs="+", default=[0.5, 0.1], help="shares of weights kept")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of generator.json and generator.png")
    options = parser.parse_args()
    found, clouds = run(options.seeds, options.steps, options.densities)
    print("| density | seed | generator | moment gap | radius |\n| --: | --: | :-- | --: | --: |")
    for row in found["rows"]:
        print(
            f"| {row['density']:g} | {row['seed']} | {row['generator']} | {row['moment_gap']:.3g} | "
            f"{row['radius_mean']:.2f} +- {row['radius_deviation']:.2f} |"
        )
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / "generator.json", found)
    (options.out / "generator.png").write_bytes(samples_picture(clouds))


if __name__ == "__main__":
    main()
