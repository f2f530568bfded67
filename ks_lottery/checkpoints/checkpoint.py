"""What a checkpoint is: weights that can be read one piece of one tensor at a time."""

import abc
import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Union

import numpy as np

from ks_lottery.checkpoints.dtypes import float_format
from ks_lottery.stats.floats import FloatBits
from ks_lottery.units.layout import ModelLayout

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

_CHUNK_BYTES = 16 * 2**20

Rows = Union[FloatBits, "torch.Tensor"]


class Checkpoint(abc.ABC):
    """Weights that can be read one piece of one tensor at a time.

    Attributes:
        name: what people call it: a folder, a Hub id, a model's `name_or_path`.
        revision: commit of a Hub repository, else None.
    """

    name: str
    revision: str | None = None

    @property
    @abc.abstractmethod
    def config(self) -> "PretrainedConfig":
        """The transformers configuration; reading it imports transformers."""

    @property
    @abc.abstractmethod
    def model_type(self) -> str:
        """Transformers' name of the architecture ("llama")."""

    @property
    @abc.abstractmethod
    def tied(self) -> bool:
        """Whether the output head is the input embedding."""

    @abc.abstractmethod
    def names(self) -> tuple[str, ...]:
        """Parameter names; tied parameters once, under the input embedding's name."""

    @abc.abstractmethod
    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a parameter."""

    @abc.abstractmethod
    def dtype(self, name: str) -> str:
        """Dtype that a parameter is stored in, as torch spells it ("bfloat16")."""

    @abc.abstractmethod
    def bits(self, name: str, start: int = 0, stop: int | None = None) -> FloatBits:
        """Rows `start` to `stop` of a parameter's first dimension, as in a slice, as bits on the CPU.

        Returns:
            [rows, ...], where possible a view of the stored or live weights, to be read only; a scalar as it is.

        Raises:
            CheckpointError: if there is no such parameter, or its dtype is not in `stats.floats.FORMATS`.
        """

    @abc.abstractmethod
    def rows(self, name: str, start: int = 0, stop: int | None = None) -> "torch.Tensor":
        """The same rows as a tensor, in any dtype, without copying more than those; imports torch."""

    def piece(self, name: str, start: int = 0, stop: int | None = None) -> Rows:
        """The same rows where they lie: a tensor if they are on a GPU, bits otherwise; errors as `bits`."""
        return self.bits(name, start, stop)

    def chunks(self, name: str, chunk_bytes: int = _CHUNK_BYTES) -> Iterator[tuple[int, Rows]]:
        """Walk over a parameter's rows.

        Args:
            name: parameter of a dtype in `stats.floats.FORMATS`; a scalar counts as one row.
            chunk_bytes: upper bound of one piece, in bytes of the stored dtype; at least one row is yielded.

        Yields:
            (number of the first row, [rows, ...] as `piece` gives them); valid until the next step, to be read only.

        Raises:
            CheckpointError: as `bits`.
        """
        shape = self.shape(name)
        item = np.dtype(float_format(self.dtype(name), name, self.name).integer).itemsize
        if not shape:
            yield 0, self.piece(name).reshape(1)
        elif 0 not in shape:
            step = max(1, chunk_bytes // (math.prod(shape[1:]) * item))
            for start in range(0, shape[0], step):
                yield start, self.piece(name, start, min(start + step, shape[0]))
                self.release(name)

    def release(self, name: str) -> None:
        """Give back what reading a parameter keeps in memory, where that is possible."""
        return

    def layout(self) -> ModelLayout:
        """The model's skeleton, for granularities; parameters in the order of their names, layer 2 before layer 10."""
        ordered = sorted(self.names(), key=lambda name: re.sub(r"\d+", lambda number: number[0].zfill(9), name))
        return ModelLayout(
            model_type=self.model_type,
            shapes={name: self.shape(name) for name in ordered},
            tied=self.tied,
            config=lambda: self.config.get_text_config().to_dict(),
        )

    def num_parameters(self) -> int:
        """Number of single weights in the model, tied ones counted once."""
        return sum(math.prod(self.shape(name)) for name in self.names())
