"""The table of mask criteria: units by their weights at the start and at the end of training."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ks_lottery.errors import OptionError, UnitError
from ks_lottery.finders.base import FINDERS, Evidence, Shift, UnitScores
from ks_lottery.finders.shift.slabs import paired_units
from ks_lottery.stats.floats import FloatBits, bits_of
from ks_lottery.ticket.ticket import Kind
from ks_lottery.units.slab import Slab, UnitGroup

Rule = Literal[
    "large_final",
    "large_final_same_sign",
    "large_final_diff_sign",
    "small_final",
    "large_init",
    "small_init",
    "large_init_large_final",
    "small_init_small_final",
    "magnitude_increase",
    "magnitude_increase_same_sign",
    "magnitude_increase_diff_sign",
    "movement",
    "movement_same_sign",
    "movement_diff_sign",
]
RULES: tuple[str, ...] = get_args(Rule)
_SAME, _DIFFERENT = "_same_sign", "_diff_sign"
_OF_MOVES = ("magnitude_increase", "movement")


@FINDERS.register("criterion")
@dataclass(frozen=True)
class Criterion:
    """Score = a function of |before|, |after| and |after - before|, as the rule says.

    large_final: |after|. small_final: -|after|. large_init: |before|. small_init: -|before|. large_init_large_final:
    the smaller of both, so that a threshold holds for both. small_init_small_final: minus the larger of both.
    magnitude_increase: |after| - |before|. movement: |after - before|. With _same_sign (_diff_sign) a weight counts
    only if its sign is the same as before (is another one); else its magnitudes are 0, and so is its score.

    Of units of several weights, the magnitudes are Euclidean norms over all weights of the unit, over those that count
    where the rule has a sign.

    A unit whose bits did not change can be chosen for a weight ticket by a rule on the size of weights alone. It cannot
    be chosen by rules on their move (magnitude_increase, movement), nor for an update ticket, where it carries nothing.

    Columns, of units of several weights: `init`, `final`, `shift`, the three norms.

    Raises:
        OptionError: if the rule or the kind is unknown.

    Source:
        Zhou et al. 2019, arXiv 1905.01067, section 3. There one matrix at a time: select with the scope "group". Ties
        go to the smaller unit number instead of to chance; rules on the sign alone are left out, for they are all ties.
    """

    name: ClassVar[str] = "criterion"
    citation: ClassVar[str] = (
        "Zhou et al. Deconstructing Lottery Tickets: Zeros, Signs, and the Supermask. NeurIPS 2019."
    )
    needs: ClassVar[type[Evidence]] = Shift

    rule: Rule = field(
        default="magnitude_increase",
        metadata={"help": f"What is ranked by: {', '.join(RULES)}."},
    )
    kind: Kind = field(
        default="weight",
        metadata={"help": "weight: what is not selected is zero; update: it keeps its pretrained value."},
    )

    def __post_init__(self) -> None:
        for option, given, known in (("rule", self.rule, RULES), ("kind", self.kind, get_args(Kind))):
            if given not in known:
                raise OptionError(f"Criterion({option}={given!r}): must be one of {', '.join(known)}.")

    def score(self, groups: Sequence[UnitGroup], evidence: Evidence) -> Iterator[UnitScores]:
        """Score every unit.

        Raises:
            UnitError: if a value is NaN or infinite (tensor and row are named).
            CheckpointError: if before and after cannot be compared.

        Cost:
            Streams both tensors once.
        """
        assert isinstance(evidence, Shift)
        for group in groups:
            if len(group.slabs) == 1 and group.slabs[0].dim is None and group.slabs[0].width == 1:
                yield self._score_weights(group, evidence)
                continue
            squares, changed = np.zeros((3, group.num_units)), np.zeros(group.num_units, dtype=bool)
            for slab in group.slabs:
                for here, before, after, moved in _pieces(slab, group.num_units, evidence):
                    changed[here] |= moved
                    counts = self._counts(before, after)
                    for row, values in zip(squares, (before, after, after - before), strict=True):
                        row[here] += np.square(values, where=counts, out=np.zeros_like(values)).sum(axis=1)
            init, final, shift = np.sqrt(squares)
            columns = {"init": init, "final": final, "shift": shift}
            yield UnitScores(group, self._combined(init, final, shift), self._choosable(changed), columns)

    def _score_weights(self, group: UnitGroup, evidence: Shift) -> UnitScores:
        """Scores in float32 and nothing beside them: a group is a whole matrix."""
        score, changed = np.empty(group.num_units, dtype=np.float32), np.empty(group.num_units, dtype=bool)
        for here, before, after, moved in _pieces(group.slabs[0], group.num_units, evidence):
            changed[here] = moved
            counts = self._counts(before, after)
            sizes = (np.where(counts, np.abs(values), 0.0)[:, 0] for values in (before, after, after - before))
            score[here] = self._combined(*sizes)
        return UnitScores(group, score, self._choosable(changed))

    def _counts(self, before: NDArray[np.float64], after: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which weights have the sign that the rule asks for; the shape of the weights."""
        if self.rule.endswith(_SAME):
            return np.sign(before) == np.sign(after)
        if self.rule.endswith(_DIFFERENT):
            return np.sign(before) != np.sign(after)
        return np.ones(before.shape, dtype=bool)

    def _combined(
        self, init: NDArray[np.float64], final: NDArray[np.float64], shift: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        match self.rule.removesuffix(_SAME).removesuffix(_DIFFERENT):
            case "large_final":
                return final
            case "small_final":
                return -final
            case "large_init":
                return init
            case "small_init":
                return -init
            case "large_init_large_final":
                return np.minimum(init, final)
            case "small_init_small_final":
                return -np.maximum(init, final)
            case "magnitude_increase":
                return final - init
            case _:
                return shift

    def _choosable(self, changed: NDArray[np.bool_]) -> NDArray[np.bool_]:
        if self.kind == "update" or self.rule.startswith(_OF_MOVES):
            return changed
        return np.ones(len(changed), dtype=bool)


def _pieces(
    slab: Slab, num_units: int, evidence: Shift
) -> Iterator[tuple[slice, NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]]:
    """(which units, [units, values] before, the same after, [units] whether any bit differs)."""
    for first, old, new in paired_units(slab, num_units, evidence):
        sides = {"before": bits_of(old, slab.parameter), "after": bits_of(new, slab.parameter)}
        for side, bits in sides.items():
            _require_finite(bits, slab.parameter, side, first)
        before, after = (bits.values().astype(np.float64) for bits in sides.values())
        changed = (sides["before"].array != sides["after"].array).any(axis=1)
        yield slice(first, first + len(changed)), before, after, changed


def _require_finite(bits: FloatBits, parameter: str, side: str, first: int) -> None:
    finite = bits.finite().all(axis=1)
    if not finite.all():
        unit = "Weight" if bits.shape[1] == 1 else "Row"
        raise UnitError(
            f"{unit} {first + int(finite.argmin())} of {parameter!r} {side} is NaN or infinite. The run diverged: "
            "lower the learning rate, or take an earlier checkpoint."
        )
