"""How two checkpoints differ, parameter by parameter and unit by unit, in one pass over both."""

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Union

import numpy as np
from numpy.typing import NDArray

from ks_lottery.checkpoints.checkpoint import Checkpoint
from ks_lottery.checkpoints.inventory import Inventory, TensorPair, pair_tensors
from ks_lottery.checkpoints.reader import open_checkpoint
from ks_lottery.checkpoints.stream import PIECE_BYTES, PairReader, Piece, in_order, pieces_of
from ks_lottery.errors import CheckpointError, OptionError, UnitError
from ks_lottery.stats.comparison import RowComparison, compare_rows, joined
from ks_lottery.stats.floats import FORMATS, MIN_VALUES_PER_UNIT, FloatBits
from ks_lottery.stats.jit import worker_count
from ks_lottery.stats.matrix import MatrixShift
from ks_lottery.units.granularity import Granularity, granularity
from ks_lottery.units.slab import Slab, UnitGroup

if TYPE_CHECKING:
    import torch

Source = Union[str, os.PathLike[str], "torch.nn.Module", Checkpoint]


@dataclass(frozen=True, eq=False)
class UnitDifferences:
    """What became of each unit of a group.

    Attributes:
        granularity: registered name of the units.
        group: the units; each is one row of one parameter.
        values: single weights of one unit.
        rows: the comparison, with the statistic.
    """

    granularity: str
    group: UnitGroup
    values: int
    rows: RowComparison

    @property
    def statistic(self) -> NDArray[np.float64]:
        """[units] D; before and after are paired, so it is an effect size."""
        return self.heights / self.values

    @property
    def log_p(self) -> NDArray[np.float64]:
        """[units] natural log of the p-value that codes D; no error rate."""
        from ks_lottery.stats.pvalues import log_p_values

        return log_p_values(self.heights, self.values)

    @property
    def heights(self) -> NDArray[np.int64]:
        """[units] h with D = h / values, exact."""
        assert self.rows.statistic is not None
        return self.rows.statistic


@dataclass(frozen=True)
class TensorDifference:
    """What became of one parameter.

    Attributes:
        pair: name, shape, dtype.
        changed_values: values whose bits differ; bytes where the dtype is no float.
        changed_rows: rows of the first dimension with such a value.
        h: exact two-sample statistic of all values, D = h / values; None where the dtype is no float.
        shift: Euclidean norm of after - before, or None.
        norm: Euclidean norm of before, or None.
        units: one entry for each unit group that lies in this parameter, if units are asked for.
    """

    pair: TensorPair
    changed_values: int
    changed_rows: int
    h: int | None
    shift: float | None
    norm: float | None
    units: tuple[UnitDifferences, ...] = ()

    @property
    def changed_share(self) -> float:
        """Share of values that changed, from 0 to 1."""
        return self.changed_values / max(1, self.pair.values)

    @property
    def statistic(self) -> float | None:
        """D of all values, each side one sample; before and after are paired, so it is an effect size."""
        return None if self.h is None else self.h / max(1, self.pair.values)

    @property
    def relative_shift(self) -> float | None:
        """Shift over norm; None where the dtype is no float, or before is zero and after is not."""
        if self.shift is None or self.norm is None or (self.norm == 0.0 < self.shift):
            return None
        return self.shift / self.norm if self.norm else 0.0


def compare_checkpoints(
    before: Source,
    after: Source,
    *,
    scope: Sequence[str] | None = None,
    units: str | Granularity | None = None,
    jobs: int | None = None,
    progress: Callable[[int], object] | None = None,
    piece_bytes: int = PIECE_BYTES,
) -> Iterator[TensorDifference]:
    """Compare every parameter that two checkpoints share; `pair_tensors` lists the others.

    Args:
        before: live model, folder, Hub id or checkpoint.
        after: the same.
        scope: patterns over parameter names, such as "*.mlp.*"; everything if None.
        units: granularity whose units are compared one by one as well: every unit one row of one parameter.
        jobs: number of threads; one per processor, at most 8, if None. It does not change any result.
        progress: called with the number of bytes compared since the last call, both sides together.
        piece_bytes: how much of one side a thread reads at once.

    Returns:
        an iterator over the parameters in the order of the files of `before`.

    Raises:
        CheckpointError: if a checkpoint cannot be read, or units lie in a parameter that cannot be compared.
        OptionError: if the scope matches nothing or leaves units out.
        UnitError: if a value is NaN or infinite (parameter and row are named), or units are no rows.
        UnknownNameError: if there is no such granularity, or it needs an architecture that is not in the table.

    Cost:
        Reads both sides once, and changed parameters of float32 and float64 a second time where the statistic of the
        whole needs it. Memory: a few times `jobs * piece_bytes`, or one unit where that is more.
    """
    sides = open_checkpoint(before), open_checkpoint(after)
    inventory = pair_tensors(*sides)
    chosen = inventory.within(scope)
    groups = {} if units is None else _groups(granularity(units), sides[0], inventory, chosen)
    return _compare(sides, chosen.pairs, groups, worker_count(jobs), progress or (lambda count: None), piece_bytes)


def _groups(
    units: Granularity, before: Checkpoint, inventory: Inventory, chosen: Inventory
) -> dict[str, list[tuple[str, UnitGroup]]]:
    """Parameter name to (granularity name, group) of the units that lie in it."""
    groups: dict[str, list[tuple[str, UnitGroup]]] = {}
    for group in units.groups(before.layout()):
        parameter = group.slabs[0].parameter
        shape = before.shape(parameter)
        if group.slabs != (Slab(parameter, dim=0),) or len(shape) < 2 or group.num_units != shape[0]:
            raise UnitError(
                f"Units of {units.name!r} are not compared one by one: that works where each unit is one row of one "
                f"parameter, but those of group {group.name!r} consist of {list(group.slabs)[:2]}. Use units "
                "'token_rows'."
            )
        pair, remark = inventory.pair(parameter), inventory.remark(parameter)
        if pair is None or not pair.is_float:
            raise CheckpointError(
                f"Units of {units.name!r} lie in {parameter!r}, which cannot be compared as floats: "
                f"{'it is missing' if remark is None else remark.text}."
            )
        if chosen.pair(parameter) is None:
            raise OptionError(
                f"Units of {units.name!r} lie in {parameter!r}, which the scope leaves out. Add it to the scope."
            )
        groups.setdefault(parameter, []).append((units.name, group))
    return groups


class _Whole:
    """The statistic of a whole tensor: threads add its pieces, and the last of them computes it.

    Args:
        pair: the tensor, of a float dtype.
        pieces: how many there are.
        reader: reads pieces again where the statistic needs it.
    """

    def __init__(self, pair: TensorPair, pieces: int, reader: PairReader) -> None:
        self.h = 0
        self._pair, self._reader, self._awaited = pair, reader, pieces
        self._matrix: MatrixShift | None = None
        self._changed: list[Piece] = []
        self._lock = Lock()

    def add(self, piece: Piece, before: FloatBits, after: FloatBits, changed: NDArray[np.int64]) -> None:
        """Take the changed rows of a piece; the pairs of values that are left out are bit-identical and cancel."""
        if len(changed):
            with self._lock:
                self._changed.append(piece)
                self._matrix = self._matrix or MatrixShift(self._pair.dtype, self._pair.name)
            rows = slice(None) if len(changed) == len(before) else changed
            self._matrix.add(before[rows], after[rows])
        with self._lock:
            self._awaited -= 1
            last = self._awaited == 0
        if last and self._matrix is not None:
            least = np.zeros(MIN_VALUES_PER_UNIT, dtype=before.array.dtype)
            self._matrix.add(FloatBits(least, before.dtype), FloatBits(least, before.dtype))  # cancels too
            self.h = self._matrix.statistic(self._reread, threads=1)
            self._matrix = None

    def _reread(self) -> Iterator[tuple[FloatBits, FloatBits]]:
        for piece in self._changed:
            yield _bits(self._reader, piece)


@dataclass(frozen=True, slots=True)
class _Task:
    """A piece of a tensor, and the statistic of the whole; None where it holds no floats."""

    piece: Piece
    whole: _Whole | None
    statistic: bool


def _bits(reader: PairReader, piece: Piece) -> tuple[FloatBits, FloatBits]:
    """[rows, n] before and after; a part of a row is one row."""
    rows = (piece.end - piece.begin) // piece.pair.row_bytes if piece.whole_rows else 1
    integer, dtype = FORMATS[piece.pair.dtype].integer, piece.pair.dtype
    before, after = (
        FloatBits(np.require(content.view(integer), requirements="A").reshape(rows, -1), dtype)
        for content in reader.read(piece)
    )
    return before, after


def _look(task: _Task, reader: PairReader) -> int | RowComparison:
    """Compare one piece, in a thread: the number of bytes that changed, or what became of the rows of floats."""
    if task.whole is None:
        before, after = reader.read(task.piece)
        return 0 if np.array_equal(before, after) else int(np.count_nonzero(before != after))
    old, new = _bits(reader, task.piece)
    first = task.piece.first_row
    rows = compare_rows(old, new, name=task.piece.name, first_row=first, statistic=task.statistic, threads=1)
    task.whole.add(task.piece, old, new, np.flatnonzero(rows.changed))
    return rows


@dataclass
class _Tally:
    """Sums over the pieces of one tensor, in their order."""

    pair: TensorPair
    keep_rows: bool
    changed_values: int = 0
    changed_rows: int = 0
    squared_shift: float = 0.0
    squared_norm: float = 0.0
    rows: list[RowComparison] = field(default_factory=list)
    _last_changed_row: int = -1

    def add(self, piece: Piece, found: int | RowComparison) -> None:
        if isinstance(found, int):
            self._count(found, np.zeros(min(found, 1), dtype=np.int64))
            return
        self._count(int(found.changed_values.sum()), piece.first_row + np.flatnonzero(found.changed))
        self.squared_shift += float(found.squared_shift.sum())
        self.squared_norm += float(found.squared_norm.sum())
        if self.keep_rows:
            self.rows.append(found)

    def _count(self, changed_values: int, changed_rows: NDArray[np.int64]) -> None:
        """Count values, and rows of which no earlier piece held a changed part."""
        if changed_values:
            self.changed_values += changed_values
            self.changed_rows += len(changed_rows) - int(changed_rows[0] == self._last_changed_row)
            self._last_changed_row = int(changed_rows[-1])

    def result(self, whole: _Whole | None, groups: Sequence[tuple[str, UnitGroup]]) -> TensorDifference:
        if whole is None:
            return TensorDifference(self.pair, self.changed_values, self.changed_rows, None, None, None)
        size = self.pair.values // max(1, self.pair.rows)
        units = tuple(UnitDifferences(name, group, size, joined(self.rows)) for name, group in groups)
        shift, norm = math.sqrt(self.squared_shift), math.sqrt(self.squared_norm)
        return TensorDifference(self.pair, self.changed_values, self.changed_rows, whole.h, shift, norm, units)


def _compare(
    sides: tuple[Checkpoint, Checkpoint],
    pairs: Sequence[TensorPair],
    groups: Mapping[str, list[tuple[str, UnitGroup]]],
    jobs: int,
    progress: Callable[[int], object],
    piece_bytes: int,
) -> Iterator[TensorDifference]:
    with PairReader(*sides) as reader:
        plan = []
        for pair in pairs:
            pieces = pieces_of(pair, cut_rows=pair.name not in groups, piece_bytes=piece_bytes)
            plan.append((pair, pieces, _Whole(pair, len(pieces), reader) if pair.is_float else None))

        wholes = {pair.name: whole for pair, _, whole in plan}
        tasks = (
            _Task(piece, wholes[piece.pair.name], statistic=piece.pair.name in groups)
            for piece in reader.announced(piece for _, pieces, _ in plan for piece in pieces)
        )
        with closing(in_order(partial(_look, reader=reader), tasks, jobs)) as results:
            for pair, pieces, whole in plan:
                tally = _Tally(pair, keep_rows=pair.name in groups)
                for piece in pieces:
                    tally.add(piece, next(results))
                    progress(2 * (piece.end - piece.begin))
                yield tally.result(whole, groups.get(pair.name, ()))
