"""Largest move: units by the size of after - before, the criterion of LT-SFT."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np

from ks_lottery.errors import OptionError, UnitError
from ks_lottery.finders.base import FINDERS, Evidence, Shift, UnitScores
from ks_lottery.finders.shift.slabs import compared_slabs, paired_units, total_shift
from ks_lottery.stats.floats import FloatBits, bits_of
from ks_lottery.ticket.ticket import Kind
from ks_lottery.units.slab import UnitGroup

_RELATIVE_TO = ("nothing", "before")


@FINDERS.register("magnitude")
@dataclass(frozen=True)
class Magnitude:
    """Score = Euclidean norm of after - before, or that over the norm of before.

    A unit of several slabs moves as one vector. Columns: `shift`, `relative_shift`; of single weights `shift` alone,
    which then holds the score in float32.

    Raises:
        OptionError: if `relative_to` is none of its values.

    Source:
        Ansell et al. 2022 (LT-SFT), arXiv 2110.07560, section 3: |after - before|, here of a whole unit.
    """

    name: ClassVar[str] = "magnitude"
    citation: ClassVar[str] = "Ansell et al. Composable Sparse Fine-Tuning for Cross-Lingual Transfer. ACL 2022."
    kind: ClassVar[Kind] = "update"
    needs: ClassVar[type[Evidence]] = Shift

    relative_to: Literal["nothing", "before"] = field(
        default="nothing",
        metadata={"help": "nothing: rank by the norm of the move; before: by that over the norm of the row before."},
    )

    def __post_init__(self) -> None:
        if self.relative_to not in _RELATIVE_TO:
            raise OptionError(f"Magnitude(relative_to={self.relative_to!r}): must be one of {', '.join(_RELATIVE_TO)}.")

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
            if self._single_weights(group):
                yield self._score_weights(group, evidence)
                continue
            shift, relative, changed = total_shift(compared_slabs(group, evidence, statistic=False))
            columns = {"shift": shift, "relative_shift": relative}
            score = relative if self.relative_to == "before" else shift
            yield UnitScores(group, score=score, changed=changed, columns=columns)

    @staticmethod
    def _single_weights(group: UnitGroup) -> bool:
        return len(group.slabs) == 1 and group.slabs[0].dim is None and group.slabs[0].width == 1

    def _score_weights(self, group: UnitGroup, evidence: Shift) -> UnitScores:
        """Scores in float32 and nothing beside them: a group is a whole matrix."""
        score = np.empty(group.num_units, dtype=np.float32)
        changed = np.empty(group.num_units, dtype=bool)
        parameter = group.slabs[0].parameter
        for first, old, new in paired_units(group.slabs[0], group.num_units, evidence):
            x, y = bits_of(old, parameter), bits_of(new, parameter)
            here = slice(first, first + len(x))
            changed[here] = (x.array != y.array)[:, 0]
            before = x.values()[:, 0].astype(np.float64)
            move = np.abs(y.values()[:, 0] - before)
            if self.relative_to == "before":
                move = np.divide(move, np.abs(before), out=np.zeros_like(move), where=before != 0)
            score[here] = move
            if not np.isfinite(move).all():
                _refuse(parameter, first, x, y)
        return UnitScores(group, score=score, changed=changed, columns={"shift": score})


def _refuse(parameter: str, first: int, before: FloatBits, after: FloatBits) -> None:
    for side, bits in (("before", before), ("after", after)):
        finite = bits.finite()
        if not finite.all():
            raise UnitError(
                f"Weight {first + int(finite.argmin())} of {parameter!r} {side} is NaN or infinite. The run diverged: "
                "lower the learning rate, or take an earlier checkpoint."
            )
