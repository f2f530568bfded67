"""Stability: is the straight path between two trained replicates flat, and do they agree on the signs of weights?"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch

from ks_lottery.checkpoints.checkpoint import Checkpoint
from ks_lottery.checkpoints.writer import write_json
from ks_lottery.errors import CheckpointError, DataError, OptionError
from ks_lottery.evaluation.inference import inference_mode

Weights = Mapping[str, torch.Tensor] | Checkpoint
Evaluate = Callable[[torch.nn.Module], Mapping[str, float]]
Pair = tuple[Weights, Weights]

LOSS, ERROR = "loss", "error"


@dataclass(frozen=True)
class Connectivity:
    """What lies on the straight path between two sets of weights.

    Attributes:
        positions: [points], from 0, the first weights, to 1, the second, evenly spaced.
        curves: what was evaluated by name to [points] values; "loss" and "error" (a share, 0 to 1) among them.
    """

    positions: tuple[float, ...]
    curves: Mapping[str, tuple[float, ...]]

    def barrier(self, name: str) -> float:
        """Largest value of a curve, its ends included, minus the mean of its ends.

        Raises:
            OptionError: if nothing of this name was evaluated.
        """
        if name not in self.curves:
            raise OptionError(f"There is no curve of {name!r} on this path; evaluated were {', '.join(self.curves)}.")
        curve = self.curves[name]
        return max(curve) - (curve[0] + curve[-1]) / 2

    @property
    def loss_barrier(self) -> float:
        """Barrier of the loss."""
        return self.barrier(LOSS)

    @property
    def error_barrier(self) -> float:
        """Barrier of the error, a share: 0.02 is two percent of the examples."""
        return self.barrier(ERROR)

    def to_dict(self) -> dict[str, Any]:
        """Positions, curves and barriers as JSON values."""
        return {
            "positions": list(self.positions),
            "curves": {name: list(curve) for name, curve in self.curves.items()},
            "barriers": {name: self.barrier(name) for name in self.curves},
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `to_dict` as JSON, atomically."""
        write_json(path, self.to_dict())


@dataclass(frozen=True)
class Instability:
    """Barriers against the step from which two replicates went their own ways.

    Attributes:
        steps: rewind steps, ascending.
        paths: one for each step.
        threshold: error barrier below which a step counts as stable; a share.
    """

    steps: tuple[int, ...]
    paths: tuple[Connectivity, ...]
    threshold: float = 0.02

    @property
    def onset(self) -> int | None:
        """The first step whose error barrier lies below the threshold; None if there is none."""
        stable = (
            step for step, path in zip(self.steps, self.paths, strict=True) if path.error_barrier < self.threshold
        )
        return next(stable, None)

    def barriers(self, name: str) -> tuple[float, ...]:
        """Barrier at each step; errors as `Connectivity.barrier`."""
        return tuple(path.barrier(name) for path in self.paths)

    def to_dict(self) -> dict[str, Any]:
        """Steps, paths, threshold and onset as JSON values."""
        return {
            "steps": list(self.steps),
            "paths": [path.to_dict() for path in self.paths],
            "threshold": self.threshold,
            "onset": self.onset,
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `to_dict` as JSON, atomically."""
        write_json(path, self.to_dict())


@dataclass(frozen=True)
class SignAgreement:
    """How many weights have the same sign in two replicates.

    Attributes:
        total: share of all weights whose sign, one of -1, 0 and 1, is the same.
        by_parameter: the same of each parameter.
        nonzero: the same of the weights whose sign is not 0 in both, or None if there are none; in sparse weights
            `total` counts mostly zeros.
    """

    total: float
    by_parameter: Mapping[str, float]
    nonzero: float | None

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {"total": self.total, "by_parameter": dict(self.by_parameter), "nonzero": self.nonzero}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `to_dict` as JSON, atomically."""
        write_json(path, self.to_dict())


def connectivity(
    model: torch.nn.Module, first: Weights, second: Weights, evaluate: Evaluate, points: int = 30
) -> Connectivity:
    """Evaluate a model along the straight path between two sets of its weights.

    At position a the weights are (1 - a) first + a second; the ends are bitwise those given. A weight that is bitwise
    the same in both is so everywhere, so what a ticket leaves alone stays alone: zeros stay zeros, and a path between
    two trainings of an update ticket stays in the space of its weights. Floating-point buffers move as parameters do;
    integers must agree. What the given weights leave out stays as it is in the model.

    Args:
        model: to load the weights into; bitwise as before at the end.
        first: state dict or checkpoint; names, shapes and dtypes are those of `model.state_dict()`.
        second: the same of the other replicate. A freshly drawn head must have been the same in both from the start,
            or the barrier is that of the heads.
        evaluate: model to numbers by name, "loss" and "error" (a share) among them; called without gradient, in
            evaluation mode; deterministic.
        points: evaluations, ends included.

    Raises:
        CheckpointError: if names, shapes or dtypes differ, integers differ, or a value is NaN or infinite.
        DataError: if `evaluate` leaves out loss or error, or gives NaN.
        OptionError: if there are fewer than 3 points.

    Cost:
        `points` evaluations; four times the memory of the weights given, the model's own included.

    Source:
        Frankle et al. 2019, arXiv 1912.05671: 30 points, stable below an error barrier of 2 percent.
    """
    if points < 3:
        raise OptionError(f"points={points}: a path needs at least 3, its two ends and one between; the paper's is 30.")
    target = model.state_dict()
    own = {tensor.untyped_storage().data_ptr() for tensor in target.values()}
    one, other = (
        {name: t.clone() if t.untyped_storage().data_ptr() in own else t for name, t in _tensors(weights).items()}
        for weights in (first, second)
    )
    ends = one, other
    _require_comparable(*ends)
    _require_fits(ends[0], target)
    saved = [(tensor, tensor.detach().clone()) for tensor in chain(model.parameters(), model.buffers())]
    positions = tuple(np.linspace(0.0, 1.0, points).tolist())
    try:
        with inference_mode(model):
            values = [_evaluated(target, ends, position, evaluate, model) for position in positions]
    finally:
        with torch.no_grad():
            for tensor, before in saved:
                tensor.copy_(before)
    names = [name for name in values[0] if all(name in value for value in values)]
    return Connectivity(positions, {name: tuple(float(value[name]) for value in values) for name in names})


def instability(
    model: torch.nn.Module,
    replicates: Mapping[int, Pair] | Callable[[int], Pair],
    evaluate: Evaluate,
    steps: Sequence[int] | None = None,
    points: int = 30,
    threshold: float = 0.02,
) -> Instability:
    """Barriers between two replicates that share their first k steps, for several k.

    Args:
        model: as for `connectivity`.
        replicates: rewind step to the two trained weights, or a function that trains them.
        evaluate: as for `connectivity`.
        steps: rewind steps; all of the mapping if None.
        points: as for `connectivity`.
        threshold: error barrier below which a step counts as stable; a share.

    Raises:
        OptionError: if there is no step, or a function comes without them; and as `connectivity`.
        CheckpointError, DataError: as `connectivity`.

    Source:
        Frankle et al. 2019, arXiv 1912.05671.
    """
    if steps is None and not isinstance(replicates, Mapping):
        raise OptionError("instability(...) with a function needs the rewind steps to call it with: steps=[0, 100].")
    chosen = sorted(set(replicates if steps is None else steps))  # type: ignore[arg-type]
    if not chosen:
        raise OptionError("instability(...) was given no rewind step. Give at least one, 0 for the start of training.")
    paths = []
    for step in chosen:
        if isinstance(replicates, Mapping) and step not in replicates:
            raise OptionError(f"There are no replicates from step {step}; there are from {sorted(replicates)}.")
        pair = replicates[step] if isinstance(replicates, Mapping) else replicates(step)
        paths.append(connectivity(model, *pair, evaluate, points))
    return Instability(tuple(chosen), tuple(paths), threshold)


def sign_agreement(first: Weights, second: Weights, base: Weights | None = None) -> SignAgreement:
    """Count the weights that have the same sign in two replicates.

    Args:
        first: state dict or checkpoint; only its floating-point tensors count.
        second: the same of the other replicate.
        base: if given, signs are those of the moves away from it.

    Raises:
        CheckpointError: if names, shapes or dtypes differ, a value is NaN or infinite, or there is no weight at all.
    """
    ends = [_tensors(weights) for weights in (first, second)]
    _require_comparable(*ends)
    start = None if base is None else _tensors(base)
    if start is not None:
        _require_comparable(ends[0], start)
    same: dict[str, tuple[int, int, int]] = {}
    for name, one in ends[0].items():
        if one.is_floating_point() and one.numel():
            zero = torch.zeros((), dtype=one.dtype) if start is None else start[name]
            signs = [(end[name] > zero).to(torch.int8) - (end[name] < zero).to(torch.int8) for end in ends]
            equal, moved = signs[0] == signs[1], (signs[0] != 0) | (signs[1] != 0)
            same[name] = int(equal.sum()), int((equal & moved).sum()), int(moved.sum())
    weights = {name: ends[0][name].numel() for name in same}
    if not weights:
        raise CheckpointError(f"There is no floating-point weight among {list(ends[0])}, so there are no signs.")
    moved_weights = sum(moved for _, _, moved in same.values())
    return SignAgreement(
        total=sum(equal for equal, _, _ in same.values()) / sum(weights.values()),
        by_parameter={name: same[name][0] / count for name, count in weights.items()},
        nonzero=sum(equal for _, equal, _ in same.values()) / moved_weights if moved_weights else None,
    )


def _evaluated(
    target: Mapping[str, torch.Tensor],
    ends: tuple[Mapping[str, torch.Tensor], Mapping[str, torch.Tensor]],
    position: float,
    evaluate: Evaluate,
    model: torch.nn.Module,
) -> Mapping[str, float]:
    for name, tensor in _between(*ends, position):
        target[name].copy_(tensor)
    if position == 0.0:
        twice = next((name for name, tensor in ends[0].items() if not torch.equal(target[name].cpu(), tensor)), None)
        if twice is not None:
            raise CheckpointError(
                f"{twice!r} shares its values with another weight of the model, but not in the weights given. Give the "
                "weights of a model whose weights are tied as this one's are."
            )
    values = evaluate(model)
    for name in (LOSS, ERROR):
        if name not in values:
            raise DataError(f"evaluate gave {sorted(values)}, but connectivity needs {name!r} too. Return it as well.")
    wrong = next((name for name, value in values.items() if np.isnan(value)), None)
    if wrong is not None:
        raise DataError(
            f"evaluate gave NaN for {wrong!r} at position {position:.3f} of the path. A path of NaN has no barrier: "
            "evaluate in float32, or on examples that every model can read."
        )
    return values


def _between(
    first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor], position: float
) -> Iterator[tuple[str, torch.Tensor]]:
    """The weights at a position; half precision is computed in single and rounded once."""
    for name, one in first.items():
        other = second[name]
        if position == 0.0 or not one.is_floating_point():
            yield name, one
        elif position == 1.0:
            yield name, other
        else:
            wide = torch.promote_types(one.dtype, torch.float32)
            mixed = torch.lerp(one.to(wide), other.to(wide), position).to(one.dtype)
            yield name, torch.where(one == other, one, mixed)


def _tensors(weights: Weights) -> dict[str, torch.Tensor]:
    """Detached tensors by name, on the CPU; views where possible, except of a checkpoint."""
    if isinstance(weights, Checkpoint):
        return {name: weights.rows(name).detach().cpu().clone() for name in weights.names()}
    return {name: tensor.detach().cpu() for name, tensor in weights.items()}


def _require_comparable(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> None:
    apart = sorted(first.keys() ^ second.keys())
    if apart:
        raise CheckpointError(
            f"{len(apart)} names are in one of the two sets of weights only, {apart[0]!r} for example. Compare two "
            "replicates of one model, saved the same way."
        )
    for name, one in first.items():
        _require_same_form(name, one, second[name], "one set of weights", "the other")
        if not one.is_floating_point():
            if not torch.equal(one, second[name]):
                raise CheckpointError(
                    f"{name!r} holds {one.dtype} values that differ between the two, and integers have no values in "
                    "between. Train both for the same number of steps, or leave the name out of both."
                )
        elif not (torch.isfinite(one).all() and torch.isfinite(second[name]).all()):
            raise CheckpointError(
                f"{name!r} has a value that is NaN or infinite: a replicate diverged. Train it again, more slowly."
            )


def _require_fits(given: Mapping[str, torch.Tensor], target: Mapping[str, torch.Tensor]) -> None:
    for name, tensor in given.items():
        if name not in target:
            raise CheckpointError(
                f"The model has no weight {name!r}; it has {', '.join(list(target)[:5])}. Give the weights of this "
                "model."
            )
        _require_same_form(name, tensor, target[name], "the weights given", "the model")


def _require_same_form(name: str, one: torch.Tensor, other: torch.Tensor, here: str, there: str) -> None:
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        raise CheckpointError(
            f"{name!r} is {one.dtype} of shape {tuple(one.shape)} in {here} and {other.dtype} of shape "
            f"{tuple(other.shape)} in {there}. Give weights of one model, in one precision."
        )
