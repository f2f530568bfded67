"""Early-bird tickets: train with a gate on every unit, and stop as soon as the largest gates stay the same."""

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from ks_lottery.errors import OptionError
from ks_lottery.finders.base import FINDERS, Evidence, UnitScores
from ks_lottery.finders.rounds.levels import trained_parameters
from ks_lottery.finders.rounds.runs import GateSearch, Runs
from ks_lottery.finders.select import Scope
from ks_lottery.ticket.ticket import Kind
from ks_lottery.units.slab import UnitGroup

_LOG = logging.getLogger(__name__)


class MaskWindow:
    """The last masks of a training, and whether they agree.

    Args:
        length: masks that it holds, at least 2.
        epsilon: largest distance of the newest mask to each other one at which they agree.

    Source:
        You et al. 2019, arXiv 1909.11957, section 3: five masks, and .1.
    """

    def __init__(self, length: int, epsilon: float) -> None:
        self._masks: deque[np.ndarray] = deque(maxlen=length)
        self._epsilon = epsilon

    @property
    def distance(self) -> float:
        """Largest share of entries in which the newest mask differs from another one; 0 for fewer than two masks."""
        newest = self._masks[-1] if self._masks else None
        return max((float(np.mean(newest != mask)) for mask in list(self._masks)[:-1]), default=0.0)

    def look(self, mask: np.ndarray) -> bool:
        """Add the newest mask and let go of the oldest.

        Args:
            mask: [units] bool; as long as the others.

        Returns:
            whether the window is full and its masks agree.
        """
        self._masks.append(mask.copy())
        return len(self._masks) == self._masks.maxlen and self.distance <= self._epsilon


@FINDERS.register("early_bird")
@dataclass(frozen=True)
class EarlyBird:
    """Score = |gate| of a head or neuron, when the units with the largest gates have stopped changing.

    One training, in which a gate of 1 multiplies the output of each unit and is trained with the weights, under an L1
    penalty: units that the task does not need lose their gates. Every few steps the mask of the largest gates is
    compared with those before it; when all agree, the training ends there. The ticket is then trained from the
    pretrained weights, as in EarlyBERT. A selector other than `Density(density)` cuts elsewhere than the masks did.

    A mask keeps a fixed number of units, so the smallest change is a swap of two: among n units a distance of 2 / n.
    With 12 heads that is .17, and an epsilon of .1 lets none change.

    With `worm`, units outside the newest mask move by this share of their step, weights, gate and L1 alike, from the
    first look on. It is the step that is shortened and not the gradient, since Adam does not notice a constant factor
    of gradients. 1 is training as without it; 0 freezes them, so that little can change after the first look.

    Columns: `gate`, and `fired`, the optimizer step at which the masks agreed. It is 0 where they never did, which is
    logged too; the scores are then those of the end.

    Granularities: heads, neurons.

    Raises:
        OptionError: if an option is out of range.

    Source:
        You et al. 2019, arXiv 1909.11957 (the rule); Chen et al. 2021 (EarlyBERT), arXiv 2101.00063 (gates on heads and
        neurons); WORM, 2024, arXiv 2406.11872 (shorter steps). Looks in steps instead of epochs, and the factor of
        the gates' steps: ours.
    """

    name: ClassVar[str] = "early_bird"
    citation: ClassVar[str] = (
        "You et al. Drawing Early-Bird Tickets: Towards More Efficient Training of Deep Networks. ICLR 2020."
    )
    needs: ClassVar[type[Evidence]] = Runs

    kind: Kind = field(
        default="weight", metadata={"help": "weight: the rest is zero; update: the rest stays as it was."}
    )
    density: float = field(default=0.5, metadata={"help": "Share of the units that the compared masks keep."})
    scope: Scope = field(
        default="global", metadata={"help": "global: all units compete; group: each layer keeps alike."}
    )
    every: int = field(default=10, metadata={"help": "Optimizer steps between two looks at the mask."})
    window: int = field(default=5, metadata={"help": "Number of masks in a row that must agree."})
    epsilon: float = field(
        default=0.1, metadata={"help": "Share of units in which agreeing masks differ at most; a swap is 2 / units."}
    )
    l1: float = field(default=1e-4, metadata={"help": "Weight of the L1 penalty of the gates."})
    gate_rate: float = field(default=10.0, metadata={"help": "How many times as far as weights gates step."})
    worm: float | None = field(
        default=None, metadata={"help": "Share of its step that a unit outside the mask takes. Default: all of it."}
    )

    def __post_init__(self) -> None:
        for option, fine, wanted in (
            ("density", 0.0 < self.density < 1.0, "lie between 0 and 1"),
            ("scope", self.scope in ("global", "group"), "be global or group"),
            ("every", self.every >= 1, "be at least 1 optimizer step"),
            ("window", self.window >= 2, "be at least 2 masks"),
            ("epsilon", 0.0 <= self.epsilon < 1.0, "be at least 0 and below 1"),
            ("l1", self.l1 >= 0.0, "be at least 0"),
            ("gate_rate", self.gate_rate > 0.0, "be above 0"),
            ("worm", self.worm is None or 0.0 <= self.worm <= 1.0, "lie from 0 to 1, or be None"),
        ):
            if not fine:
                raise OptionError(f"Finder 'early_bird', {option}={getattr(self, option)!r}: must {wanted}.")

    def score(self, groups: Sequence[UnitGroup], evidence: Evidence) -> Iterator[UnitScores]:
        """Score every unit.

        Raises:
            OptionError: if a training is too short for the window.
            UnitError: if the units are no heads or neurons.
            DataError: if a gate becomes NaN or infinite.

        Cost:
            One training, or the part of one until the masks agree.
        """
        assert isinstance(evidence, Runs)
        if evidence.steps < self.every * self.window:
            raise OptionError(
                f"Finder 'early_bird' compares {self.window} masks, one every {self.every} steps, but a training has "
                f"{evidence.steps} steps. Lower every or window, or train longer."
            )
        search = GateSearch(
            tuple(groups), trained_parameters(groups, self.kind), self.density, self.scope, self.every, self.window,
            self.epsilon, self.l1, self.gate_rate, self.worm,
        )  # fmt: skip
        record = evidence.train_gates(search)
        if record.fired is None:
            _LOG.warning(
                "early_bird: the masks did not agree within %d steps (epsilon=%g); the scores are those of the end.",
                record.steps, self.epsilon,
            )  # fmt: skip
        for group, gate in zip(groups, record.gates, strict=True):
            columns = {"gate": gate, "fired": np.full(group.num_units, float(record.fired or 0))}
            yield UnitScores(group, np.abs(gate), np.ones(group.num_units, dtype=bool), columns)
