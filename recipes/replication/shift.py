"""The shift of every token row between the two ends of a probe, kept beside the training that made it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from ks_lottery.checkpoints.reader import open_checkpoint
from ks_lottery.finders.search import score_units

FILE = "shift.safetensors"


@dataclass(frozen=True, eq=False)
class RowShift:
    """Columns over all token rows of one probe.

    Attributes:
        d: [rows] float64, the KS statistic.
        p: [rows] float64, its p-value: a code of the size of the shift, no error rate.
        shift: [rows] float64, Euclidean norm of the move.
        relative: [rows] float64, that over the norm of the row before.
        changed: [rows] bool, whether any bit differs.
    """

    d: np.ndarray
    p: np.ndarray
    shift: np.ndarray
    relative: np.ndarray
    changed: np.ndarray

    def save(self, folder: Path) -> None:
        """Write one safetensors file."""
        save_file(vars(self), folder / FILE)

    @classmethod
    def load(cls, folder: Path) -> "RowShift":
        """Read what `save` wrote."""
        return cls(**load_file(folder / FILE))

    @property
    def norm(self) -> np.ndarray:
        """[rows] norm of the row before; NaN where it did not move."""
        return np.divide(self.shift, self.relative, out=np.full_like(self.shift, np.nan), where=self.relative > 0)

    def passing(self, alpha: float) -> np.ndarray:
        """Changed rows with p below alpha."""
        rows: np.ndarray = np.flatnonzero(self.changed & (self.p < alpha))
        return rows

    def largest(self, column: str, count: int) -> np.ndarray:
        """The changed rows with the largest values of a column, the largest first."""
        values = np.where(self.changed, getattr(self, column), -np.inf)
        order: np.ndarray = np.argsort(-values, kind="stable")[: min(count, int(self.changed.sum()))]
        return order


def row_shift(before: Path, after: Path) -> RowShift:
    """Measure the shift between two checkpoints."""
    (ks,) = score_units(open_checkpoint(before), open_checkpoint(after), "token_rows", "ks")
    columns = ks.columns
    return RowShift(
        d=np.asarray(columns["statistic"], dtype=np.float64),
        p=np.exp(np.asarray(columns["log_p"], dtype=np.float64)),
        shift=np.asarray(columns["shift"], dtype=np.float64),
        relative=np.asarray(columns["relative_shift"], dtype=np.float64),
        changed=np.asarray(ks.changed),
    )
