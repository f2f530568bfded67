"""What two checkpoints have in common, tensor by tensor, and everything that they do not."""

import fnmatch
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from ks_lottery.checkpoints.checkpoint import Checkpoint
from ks_lottery.checkpoints.dtypes import ITEM_BYTES
from ks_lottery.checkpoints.place import place_of
from ks_lottery.errors import OptionError
from ks_lottery.stats.floats import FORMATS
from ks_lottery.units.architecture import architecture, architectures

RemarkKind = Literal["only_before", "only_after", "tied", "reshaped", "other_dtype", "not_float", "renamed"]

_NAMES_SHOWN = 5


@dataclass(frozen=True, slots=True)
class TensorPair:
    """A tensor that both checkpoints have, in one shape and one dtype.

    Attributes:
        name: parameter name of the live model.
        shape: its shape.
        dtype: as torch spells it.
        num_bytes: of one side.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    num_bytes: int

    @property
    def is_float(self) -> bool:
        """Whether statistics are computed of it; a tensor of another dtype is one row of bytes."""
        return self.dtype in FORMATS

    @property
    def rows(self) -> int:
        """Size of the first dimension; 1 for a vector or a scalar, whose values are one row."""
        return self.shape[0] if self.is_float and len(self.shape) > 1 else 1

    @property
    def itemsize(self) -> int:
        """Bytes of what is counted as one value."""
        return ITEM_BYTES[self.dtype] if self.is_float else 1

    @property
    def values(self) -> int:
        """Number of values; of bytes where the dtype is no float."""
        return self.num_bytes // self.itemsize

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.num_bytes // max(1, self.rows)


@dataclass(frozen=True, slots=True)
class Remark:
    """Something that a reader of the comparison has to know of a tensor.

    Attributes:
        kind: `only_before`, `only_after`, `tied`, `reshaped`, `other_dtype`: the tensor is not compared. `not_float`:
            it is compared byte for byte. `renamed`: it is compared, though the files spell its name differently.
        name: parameter name of the live model.
        text: the values on both sides, in words.
    """

    kind: RemarkKind
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Inventory:
    """Every tensor of two checkpoints: compared, remarked upon, or both.

    Attributes:
        pairs: what is compared, in the order in which it lies in the files of `before`.
        remarks: by kind, then by name.
    """

    pairs: tuple[TensorPair, ...]
    remarks: tuple[Remark, ...]

    def within(self, scope: Sequence[str] | None) -> "Inventory":
        """The part whose names match one of the patterns.

        Args:
            scope: patterns as in a shell, such as "*.mlp.*"; everything if None or empty.

        Raises:
            OptionError: if a pattern matches no tensor.
        """
        if not scope:
            return self
        names = list(dict.fromkeys([pair.name for pair in self.pairs] + [remark.name for remark in self.remarks]))
        chosen: set[str] = set()
        for pattern in scope:
            matching = fnmatch.filter(names, pattern)
            if not matching:
                raise OptionError(
                    f"scope {pattern!r} matches none of {len(names)} tensors. Their names look like "
                    f"{', '.join(map(repr, names[:_NAMES_SHOWN]))}; '*' stands for any part of one: '*embed*'."
                )
            chosen.update(matching)
        return Inventory(
            tuple(pair for pair in self.pairs if pair.name in chosen),
            tuple(remark for remark in self.remarks if remark.name in chosen),
        )

    def pair(self, name: str) -> TensorPair | None:
        """The pair of this name, or None."""
        return next((pair for pair in self.pairs if pair.name == name), None)

    def remark(self, name: str) -> Remark | None:
        """The first remark about this name, or None."""
        return next((remark for remark in self.remarks if remark.name == name), None)


def pair_tensors(before: Checkpoint, after: Checkpoint) -> Inventory:
    """List the tensors of two checkpoints; none is left out.

    Args:
        before: one checkpoint.
        after: the other one. Names are those of the live model on both sides, whatever the files spell.

    Raises:
        CheckpointError: if a file cannot be read.

    Cost:
        Reads the headers of all files, and no tensor.
    """
    common = set(before.names()) & set(after.names())
    pairs: list[TensorPair] = []
    remarks = list(_one_sided(before, after, common))
    for name in _in_file_order(before, common):
        mismatch = _mismatch(before, after, name)
        if mismatch is not None:
            remarks.append(mismatch)
            continue
        pair = TensorPair(name, before.shape(name), before.dtype(name), _num_bytes(before, name))
        pairs.append(pair)
        remarks.extend(_about(pair, before, after))
    return Inventory(tuple(pairs), tuple(sorted(remarks, key=lambda remark: (remark.kind, remark.name))))


def _one_sided(before: Checkpoint, after: Checkpoint, common: set[str]) -> Iterator[Remark]:
    sides: tuple[tuple[RemarkKind, str, Checkpoint, str, Checkpoint], ...] = (
        ("only_before", "before", before, "after", after),
        ("only_after", "after", after, "before", before),
    )
    for kind, here, mine, there, theirs in sides:
        for name in mine.names():
            if name in common:
                continue
            described = f"{mine.shape(name)} {mine.dtype(name)}, only in {here} = {mine.name!r}"
            if theirs.tied and name == _output_head(theirs):
                described += f": {there} = {theirs.name!r} ties its output head to the input embedding and has no other"
                kind = "tied"
            yield Remark(kind, name, described)


def _mismatch(before: Checkpoint, after: Checkpoint, name: str) -> Remark | None:
    old, new = before.shape(name), after.shape(name)
    if old != new:
        common = min(old[0], new[0]) if len(old) == len(new) > 0 and old[1:] == new[1:] else 0
        rows = f"; rows 0 to {common - 1} are in both" if common else ""
        return Remark("reshaped", name, f"{old} before, {new} after{rows}")
    if before.dtype(name) != after.dtype(name):
        return Remark(
            "other_dtype",
            name,
            f"{before.dtype(name)} before, {after.dtype(name)} after: rounding alone would look like a shift, so save "
            "both in one dtype",
        )
    return None


def _about(pair: TensorPair, before: Checkpoint, after: Checkpoint) -> Iterator[Remark]:
    if not pair.is_float:
        yield Remark("not_float", pair.name, f"{pair.shape} {pair.dtype}, compared byte for byte")
    places = place_of(before, pair.name), place_of(after, pair.name)
    spelt = [pair.name if place is None else place.stored for place in places]
    if spelt[0] != spelt[1]:
        yield Remark("renamed", pair.name, f"{spelt[0]!r} in the files before, {spelt[1]!r} after")


def _num_bytes(checkpoint: Checkpoint, name: str) -> int:
    place = place_of(checkpoint, name)
    if place is not None:
        return place.end - place.begin
    return math.prod(checkpoint.shape(name)) * checkpoint.rows(name, 0, 0).element_size()


def _output_head(checkpoint: Checkpoint) -> str:
    known = checkpoint.model_type in architectures()
    return architecture(checkpoint.model_type).output_head if known else "lm_head.weight"


def _in_file_order(checkpoint: Checkpoint, wanted: set[str]) -> list[str]:
    """Names sorted by where they lie in the files; those of a live model as they come."""
    names = [name for name in checkpoint.names() if name in wanted]
    places = {name: place_of(checkpoint, name) for name in names}
    return sorted(names, key=lambda name: (str(place.path), place.begin) if (place := places[name]) else ("", 0))
