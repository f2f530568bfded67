"""Largest move: units by the size of after - before, the criterion of LT-SFT."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import torch

from ks_lottery.checkpoints.pair import paired_chunks
from ks_lottery.errors import OptionError, UnitError
from ks_lottery.finders.base import FINDERS, Evidence, Shift, UnitScores
from ks_lottery.finders.shift.rows import row_shift, single_row_slab
from ks_lottery.ticket.ticket import Kind
from ks_lottery.units.slab import UnitGroup

_RELATIVE_TO = ("nothing", "before")


@FINDERS.register("magnitude")
@dataclass(frozen=True)
class Magnitude:
    """Score = Euclidean norm of after - before, or that over the norm of before.

    Columns: `shift`, `relative_shift`.

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
            slab = single_row_slab(group, self.name)
            shift, norm = np.zeros(group.num_units), np.zeros(group.num_units)
            changed = np.zeros(group.num_units, dtype=bool)
            for start, old, new in paired_chunks(evidence.before, evidence.after, slab.parameter):
                here = slice(start, start + len(old))
                shift[here], norm[here], changed[here] = row_shift(old, new)
                _require_finite(slab.parameter, start, old, new)
            relative = np.divide(shift, norm, out=np.zeros_like(shift), where=norm > 0)
            score = relative if self.relative_to == "before" else shift
            yield UnitScores(group, score=score, changed=changed, columns={"shift": shift, "relative_shift": relative})


def _require_finite(parameter: str, start: int, *both: torch.Tensor) -> None:
    for which, values in zip(("before", "after"), both, strict=True):
        bad = ~torch.isfinite(values).reshape(len(values), -1).all(dim=1)
        if bad.any():
            row = start + int(bad.nonzero()[0])
            raise UnitError(
                f"Row {row} of {parameter!r} holds NaN or infinity in {which}. The run diverged: lower the learning "
                "rate, or take an earlier checkpoint."
            )
