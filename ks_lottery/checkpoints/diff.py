"""How two checkpoints differ, parameter by parameter and unit by unit, in one pass over both."""

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Union

import numpy as np
from numpy.typing import NDArray

from ks_lottery.checkpoints.checkpoint import Checkpoint
from ks_lottery.checkpoints.inventory import Inventory, TensorPair, pair_tensors
from ks_lottery.checkpoints.reader import open_checkpoint
from ks_lottery.checkpoints.stream import PIECE_BYTES, Bytes, PairReader, Piece, in_order, pieces_of
from ks_lottery.errors import CheckpointError, OptionError, UnitError
from ks_lottery.stats.comparison import RowComparison, compare_rows, joined
from ks_lottery.stats.floats import FORMATS, FloatBits
from ks_lottery.stats.jit import worker_count
from ks_lottery.stats.kolmogorov import MIN_VALUES_PER_UNIT
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


@dataclass(frozen=True, slots=True)
class _Task:
    """A piece of a tensor, and what all threads add the tensor's changed values to; None where it holds no floats."""

    piece: Piece
    matrix: MatrixShift | None
    statistic: bool

    def bits(self, content: Bytes) -> FloatBits:
        """[rows, n]; a part of a row is one row."""
        piece = self.piece
        values = np.require(content.view(FORMATS[piece.pair.dtype].integer), requirements="A")
        rows = len(content) // piece.pair.row_bytes if piece.whole_rows else 1
        return FloatBits(values.reshape(rows, -1), piece.pair.dtype)


def _look(task: _Task, reader: PairReader) -> tuple[_Task, int | RowComparison]:
    """Compare one piece, in a thread: the number of bytes that changed, or what became of the rows of floats."""
    before, after = reader.read(task.piece)
    if task.matrix is None:
        return task, 0 if np.array_equal(before, after) else int(np.count_nonzero(before != after))
    old, new = task.bits(before), task.bits(after)
    first = task.piece.first_row
    rows = compare_rows(old, new, name=task.piece.name, first_row=first, statistic=task.statistic, threads=1)
    changed = np.flatnonzero(rows.changed)
    if len(changed) == len(old):
        task.matrix.add(old, new)
    elif len(changed):
        task.matrix.add(old[changed], new[changed])
    return task, rows


@dataclass
class _Tally:
    """Sums over the pieces of one tensor, in their order."""

    pair: TensorPair
    changed_values: int = 0
    changed_rows: int = 0
    squared_shift: float = 0.0
    squared_norm: float = 0.0
    changed: list[_Task] = field(default_factory=list)
    rows: list[RowComparison] = field(default_factory=list)
    _last_changed_row: int = -1

    def add(self, task: _Task, found: int | RowComparison) -> None:
        if isinstance(found, int):
            self._count(task, found, np.zeros(min(found, 1), dtype=np.int64))
            return
        self._count(task, int(found.changed_values.sum()), task.piece.first_row + np.flatnonzero(found.changed))
        self.squared_shift += float(found.squared_shift.sum())
        self.squared_norm += float(found.squared_norm.sum())
        if task.statistic:
            self.rows.append(found)

    def _count(self, task: _Task, changed_values: int, changed_rows: NDArray[np.int64]) -> None:
        """Count values, and rows of which no earlier piece held a changed part."""
        if changed_values:
            self.changed.append(task)
            self.changed_values += changed_values
            self.changed_rows += len(changed_rows) - int(changed_rows[0] == self._last_changed_row)
            self._last_changed_row = int(changed_rows[-1])

    def result(self, reader: PairReader, groups: Sequence[tuple[str, UnitGroup]], jobs: int) -> TensorDifference:
        if not self.pair.is_float:
            return TensorDifference(self.pair, self.changed_values, self.changed_rows, None, None, None)
        size = self.pair.values // max(1, self.pair.rows)
        units = tuple(UnitDifferences(name, group, size, joined(self.rows)) for name, group in groups)
        shift, norm = math.sqrt(self.squared_shift), math.sqrt(self.squared_norm)
        h = self._height(reader, jobs)
        return TensorDifference(self.pair, self.changed_values, self.changed_rows, h, shift, norm, units)

    def _height(self, reader: PairReader, jobs: int) -> int:
        """The statistic of the whole; the pairs left out are bit-identical, and so are those that make up the least."""
        if not self.changed:
            return 0
        matrix = self.changed[0].matrix
        assert matrix is not None
        same = FloatBits(np.zeros(MIN_VALUES_PER_UNIT, dtype=FORMATS[self.pair.dtype].integer), self.pair.dtype)
        matrix.add(same, same)
        return matrix.statistic(partial(self._reread, reader), threads=jobs)

    def _reread(self, reader: PairReader) -> Iterator[tuple[FloatBits, FloatBits]]:
        for task in self.changed:
            before, after = reader.read(task.piece)
            yield task.bits(before), task.bits(after)


def _compare(
    sides: tuple[Checkpoint, Checkpoint],
    pairs: Sequence[TensorPair],
    groups: Mapping[str, list[tuple[str, UnitGroup]]],
    jobs: int,
    progress: Callable[[int], object],
    piece_bytes: int,
) -> Iterator[TensorDifference]:
    def pieces(pair: TensorPair) -> list[Piece]:
        return pieces_of(pair, cut_rows=pair.name not in groups, piece_bytes=piece_bytes)

    def tasks() -> Iterator[_Task]:
        for pair in pairs:
            matrix = MatrixShift(pair.dtype, pair.name) if pair.is_float else None
            for piece in pieces(pair):
                reader.announce(piece)
                yield _Task(piece, matrix, statistic=pair.name in groups)

    with PairReader(*sides) as reader, closing(in_order(partial(_look, reader=reader), tasks(), jobs)) as results:
        for pair in pairs:
            tally = _Tally(pair)
            for piece in pieces(pair):
                tally.add(*next(results))
                progress(2 * (piece.end - piece.begin))
            yield tally.result(reader, groups.get(pair.name, ()), jobs)
