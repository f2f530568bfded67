"""Largest move: units by the size of after - before, the criterion of LT-SFT."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from ks_lottery.errors import OptionError
from ks_lottery.finders.base import FINDERS, Evidence, Shift, UnitScores
from ks_lottery.finders.shift.rows import compared_rows, single_row_slab
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
            rows = compared_rows(group, slab, evidence, statistic=False)
            columns = {"shift": rows.shift, "relative_shift": rows.relative_shift}
            score = columns["relative_shift" if self.relative_to == "before" else "shift"]
            yield UnitScores(group, score=score, changed=rows.changed, columns=columns)
