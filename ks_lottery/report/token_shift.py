"""How far every token row moved and how often its token occurs: the data of a picture, as a file."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ks_lottery.errors import DataError


@dataclass(frozen=True, eq=False)
class TokenShift:
    """Every token row of one unit group, selected or not.

    Attributes:
        statistic: [vocabulary] float64; what the finder measured, D for KS-Lottery.
        count: [vocabulary] int64; occurrences of each token in the training text.
        group: name of the unit group.
        tokens: [vocabulary] each token in one line (`readable_tokens`), or None where nobody named them.

    Raises:
        DataError: if they differ in length, or a statistic is NaN or infinite.
    """

    statistic: np.ndarray
    count: np.ndarray
    group: str = "input"
    tokens: Sequence[str] | None = None

    def __post_init__(self) -> None:
        statistic = np.asarray(self.statistic, dtype=np.float64)
        count = np.asarray(self.count, dtype=np.int64)
        if statistic.ndim != 1 or statistic.shape != count.shape or not len(count):
            raise DataError(
                f"A picture of token rows needs one statistic and one count per row, got shapes {statistic.shape} and "
                f"{count.shape}. Count every token of the vocabulary, also those that never occur."
            )
        if not np.isfinite(statistic).all():
            raise DataError(f"The statistic of row {int(np.argmin(np.isfinite(statistic)))} is NaN or infinite.")
        if self.tokens is not None and len(self.tokens) != len(count):
            raise DataError(f"{len(self.tokens):,} tokens are named, but there are {len(count):,} rows. Name each row.")
        object.__setattr__(self, "statistic", statistic)
        object.__setattr__(self, "count", count)

    def to_bytes(self) -> bytes:
        """A safetensors file that `from_bytes` reads back."""
        tensors = {"statistic": np.ascontiguousarray(self.statistic), "count": np.ascontiguousarray(self.count)}
        if self.tokens is not None:
            lines = "\n".join(" ".join(token.splitlines()) for token in self.tokens)
            tensors["tokens"] = np.frombuffer(lines.encode("utf-8", "replace"), dtype=np.uint8)
        return save(tensors, metadata={"format": "pt"})

    @classmethod
    def from_bytes(cls, content: bytes, group: str = "input") -> "TokenShift":
        """Read what `to_bytes` wrote.

        Raises:
            DataError: if it is damaged.
        """
        try:
            tensors = load(content)
            named = tensors.get("tokens")
            tokens = None if named is None else tuple(named.tobytes().decode("utf-8").split("\n"))
            return cls(tensors["statistic"], tensors["count"], group, tokens)
        except (SafetensorError, KeyError, UnicodeDecodeError) as error:
            raise DataError(f"The token rows cannot be read ({error}). Write the report again.") from error
