"""SynFlow: the weights through which most would flow if every weight were positive; no data is looked at."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from ks_lottery.errors import OptionError, UnitError
from ks_lottery.finders.base import FINDERS, Evidence, UnitScores
from ks_lottery.finders.saliency.batches import Batches
from ks_lottery.finders.saliency.flow import Flow, feed_forward_flow, network_flow
from ks_lottery.finders.saliency.reduction import reduce_units
from ks_lottery.finders.select import largest
from ks_lottery.ticket.ticket import Kind
from ks_lottery.units.architecture import architectures
from ks_lottery.units.slab import UnitGroup, parameters_of


@FINDERS.register("synflow")
@dataclass(frozen=True)
class SynFlow:
    """Score = how long a unit survives when units are dropped by s = |w| * dR/d|w|, a few in each of many rounds.

    R is the sum of the outputs for an input of ones, with every weight replaced by its size. After round k of n the
    share density^(k/n) of all units is left. Later dropped is a larger score, and within a round a larger s: the score
    is the place in that order, from 1 / units (dropped first) to 1. So `Density(density)` selects exactly what
    survives, and a larger density what survived until then. Column: `round` in which a unit was dropped, n + 1 for the
    survivors.

    A transformers model: the flow through the feed-forward sublayer of each block on its own, since attention and norms
    pass no flow on. Activations are the identity and biases are left out; with a gate, R is the sum of the down
    projection of gate times up. R of every block is scaled to 1 in every round, so that each block has as much to lose,
    as each layer of a chain has. Granularities: neurons, and weights or matrix_rows of the feed-forward matrices.

    Any other module, and a model whose architecture is not in the table: the flow through the whole network, called
    with one example of ones that is shaped like the first floating-point tensor of the first batch. The batches' values
    and losses are not looked at.

    Raises:
        OptionError: if an option is out of range.

    Source:
        Tanaka et al. 2020 (SynFlow), arXiv 2006.05467, algorithm 1; blocks of a transformer: ours.
    """

    name: ClassVar[str] = "synflow"
    citation: ClassVar[str] = (
        "Tanaka et al. Pruning Neural Networks without Any Data by Iteratively Conserving Synaptic Flow. NeurIPS 2020."
    )
    kind: ClassVar[Kind] = "weight"
    needs: ClassVar[type[Evidence]] = Batches

    density: float = field(default=0.05, metadata={"help": "Share of the units that survives the last round."})
    iterations: int = field(default=100, metadata={"help": "Number of rounds; with 1, layers may be dropped whole."})

    def __post_init__(self) -> None:
        if not 0.0 < self.density < 1.0:
            raise OptionError(f"SynFlow(density={self.density!r}): must lie between 0 and 1.")
        if self.iterations < 1:
            raise OptionError(f"SynFlow(iterations={self.iterations!r}): must be at least 1; the paper's is 100.")

    def score(self, groups: Sequence[UnitGroup], evidence: Evidence) -> Iterator[UnitScores]:
        """Score every unit.

        Raises:
            UnitError: if the units lie outside the feed-forward sublayers, or the flow is NaN or infinite.
            DataError: if there is no floating-point input to shape the ones by.

        Cost:
            One forward and one backward pass of a single example of ones in each round, and two float64 for each
            weight. The choice of each round reads all scores some times.
        """
        assert isinstance(evidence, Batches)
        names = list(parameters_of(groups))
        known = getattr(getattr(evidence.model, "config", None), "model_type", None) in architectures()
        flow = feed_forward_flow(evidence.model, groups) if known else network_flow(evidence, names)
        inside = [_inside(group, flow) for group in groups]
        score, rounds = self._survival(inside, flow, evidence)
        bounds = np.cumsum([0, *(group.num_units for group in groups)])
        for group, start, stop in zip(groups, bounds, bounds[1:], strict=False):
            changed = np.ones(group.num_units, dtype=bool)
            yield UnitScores(group, score[start:stop], changed=changed, columns={"round": rounds[start:stop]})

    def _survival(self, groups: Sequence[UnitGroup], flow: Flow, evidence: Batches) -> tuple[np.ndarray, np.ndarray]:
        """For all units of all groups, [units] float64: place in the order in which they go, and round."""
        total = sum(group.num_units for group in groups)
        place, rounds = np.empty(total), np.empty(total)
        alive, gone = np.arange(total), 0
        for turn in range(1, self.iterations + 2):
            if turn <= self.iterations:
                values = flow.scores()
                evidence.passes.count(forward=1, backward=1)
                now = np.concatenate([reduce_units(group, values) for group in groups])[alive]
                left = max(1, round(self.density ** (turn / self.iterations) * total))
                kept = np.zeros(len(alive), dtype=bool)
                kept[largest([now], [np.ones_like(kept)], left)[0]] = True
            else:
                kept = np.zeros(len(alive), dtype=bool)
            dropped, alive = alive[~kept], alive[kept]
            # Smallest first; of equal ones that with the larger number, as selectors drop it.
            order = np.argsort(now[~kept][::-1], kind="stable")
            now = now[kept]
            place[dropped[::-1][order]] = np.arange(gone + 1, gone + len(dropped) + 1) / total
            rounds[dropped] = turn
            gone += len(dropped)
            _drop(groups, flow, dropped)
        return place, rounds


def _drop(groups: Sequence[UnitGroup], flow: Flow, dropped: np.ndarray) -> None:
    """Set the weights of units to zero; `dropped` counts over all groups, sorted."""
    bounds = np.cumsum([0, *(group.num_units for group in groups)])
    parts = np.split(dropped, np.searchsorted(dropped, bounds[1:-1]))
    for group, start, units in zip(groups, bounds, parts, strict=False):
        for slab in group.slabs if len(units) else ():
            slab.fill(flow.weights[slab.parameter], units - start, 0.0)


def _inside(group: UnitGroup, flow: Flow) -> UnitGroup:
    """The group without the biases that no flow passes."""
    slabs = tuple(slab for slab in group.slabs if slab.parameter in flow.weights)
    if not slabs:
        raise UnitError(f"No flow passes {group.name!r}. Use units='neurons'.")
    return UnitGroup(group.name, slabs, group.num_units)
