"""Multi-head attention without biases as a value in float64: four matrices, what they merge to, the forward pass."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np

from ks_lottery.errors import DataError, OptionError

_SCORES_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class HeadMasks:
    """Which weights of a source attention are kept; a True keeps one.

    Args:
        query: [heads, d_in, n_key] bool.
        key: as `query`.
        value: [heads, d_in, n_value] bool.
        output: [heads, n_value, d_out] bool.
    """

    query: np.ndarray
    key: np.ndarray
    value: np.ndarray
    output: np.ndarray

    @property
    def density(self) -> float:
        """Share of all weights of the four matrices that is kept."""
        masks = [getattr(self, entry.name) for entry in fields(self)]
        return float(sum(int(mask.sum()) for mask in masks) / sum(mask.size for mask in masks))


@dataclass(frozen=True)
class AttentionHeads:
    """Attention of several heads: sum over heads of softmax(X W_Q W_K^T X^T / sqrt(n_key)) X W_V W_O.

    Args:
        query: [heads, d_in, n_key] float; W_Q of each head.
        key: as `query`; W_K.
        value: [heads, d_in, n_value] float; W_V.
        output: [heads, n_value, d_out] float; W_O.

    Raises:
        OptionError: if the shapes do not fit each other.
        DataError: if a weight is NaN or infinite (matrix, head and place are named).
    """

    query: np.ndarray
    key: np.ndarray
    value: np.ndarray
    output: np.ndarray

    def __post_init__(self) -> None:
        for name, matrix in self.matrices():
            if matrix.ndim != 3:
                raise OptionError(
                    f"{name} has the shape {matrix.shape}, but is to be [heads, rows, columns]. Matrices whose heads "
                    "stand side by side are taken apart by AttentionHeads.split(..., heads)."
                )
            require_finite(matrix, name, ("head", "row", "column"))
        heads, width, _ = self.query.shape
        fits = (
            self.key.shape == self.query.shape
            and self.value.shape[:2] == (heads, width)
            and self.output.shape[:2] == (heads, self.value.shape[2])
        )
        if not fits:
            shapes = ", ".join(f"{name} {matrix.shape}" for name, matrix in self.matrices())
            raise OptionError(
                f"The matrices of an attention do not fit each other: {shapes}. They are to be query and key [heads, "
                "d_in, n_key], value [heads, d_in, n_value], output [heads, n_value, d_out]."
            )

    @classmethod
    def split(
        cls, query: np.ndarray, key: np.ndarray, value: np.ndarray, output: np.ndarray, heads: int
    ) -> "AttentionHeads":
        """Attention from matrices whose heads stand side by side, as torch and most checkpoints have them.

        Args:
            query: [d_in, heads * n_key] float; for X @ query, so torch's weights are to be transposed.
            key: as `query`.
            value: [d_in, heads * n_value] float.
            output: [heads * n_value, d_out] float.
            heads: how many.

        Raises:
            OptionError: if the heads do not divide a width.
        """
        for name, width in (("query", query.shape[1]), ("key", key.shape[1]), ("value", value.shape[1])):
            if heads < 1 or width % heads:
                raise OptionError(
                    f"{heads} heads do not divide the {width} columns of {name}. Give the number of heads of this "
                    f"attention: one of {', '.join(str(one) for one in range(1, width + 1) if width % one == 0)}."
                )

        def parts(matrix: np.ndarray) -> np.ndarray:
            return matrix.reshape(len(matrix), heads, -1).transpose(1, 0, 2)

        if output.shape[0] != value.shape[1]:
            raise OptionError(f"output has {output.shape[0]} rows, but value has {value.shape[1]} columns: must agree.")
        return cls(parts(query), parts(key), parts(value), output.reshape(heads, -1, output.shape[1]))

    @property
    def heads(self) -> int:
        """Number of heads."""
        return len(self.query)

    @property
    def d_in(self) -> int:
        """Values of a token that goes in."""
        return self.query.shape[1]

    @property
    def d_out(self) -> int:
        """Values of a token that comes out."""
        return self.output.shape[2]

    @property
    def n_key(self) -> int:
        """Width of W_Q and W_K of a head."""
        return self.query.shape[2]

    @property
    def n_value(self) -> int:
        """Width of W_V of a head."""
        return self.value.shape[2]

    def matrices(self) -> Iterator[tuple[str, np.ndarray]]:
        """The four names and arrays."""
        for entry in fields(self):
            yield entry.name, getattr(self, entry.name)

    def query_key(self) -> np.ndarray:
        """[heads, d_in, d_in]: W_Q W_K^T / sqrt(n_key), of which the logits are x^T (.) y."""
        return self.query @ self.key.transpose(0, 2, 1) / math.sqrt(self.n_key)

    def value_output(self) -> np.ndarray:
        """[heads, d_in, d_out]: W_V W_O."""
        return self.value @ self.output

    def masked(self, masks: HeadMasks) -> "AttentionHeads":
        """The same attention with zeros for every weight that is not kept; this one stays as it is.

        Raises:
            OptionError: if a mask is not boolean or has another shape than its matrix.
        """
        kept = {}
        for name, matrix in self.matrices():
            mask = getattr(masks, name)
            if mask.dtype != bool or mask.shape != matrix.shape:
                raise OptionError(
                    f"The mask of {name} is {mask.dtype} of shape {mask.shape}, but is to be bool of shape "
                    f"{matrix.shape}. Use masks that were made for this source."
                )
            kept[name] = np.where(mask, matrix, 0.0)
        return AttentionHeads(**kept)

    def forward(self, tokens: np.ndarray, allowed: np.ndarray | None = None) -> np.ndarray:
        """Attend.

        Args:
            tokens: [..., T, d_in] float.
            allowed: [T, T] bool; row i holds the tokens that token i may look at. Default: all.

        Returns:
            [..., T, d_out] float64.

        Raises:
            OptionError: if tokens or the attention mask have another shape.
            DataError: if a token is NaN or infinite, or may look at no token.

        Cost:
            O(heads * T^2 * (n_key + d_in)) time; rows of logits are made in pieces of at most 32 MiB, or one row.
        """
        tokens = np.asarray(tokens, dtype=np.float64)
        if tokens.ndim < 2 or tokens.shape[-1] != self.d_in:
            raise OptionError(f"Tokens have the shape {tokens.shape}, but are to be [..., T, {self.d_in}].")
        require_finite(tokens.reshape(-1, self.d_in), "tokens", ("token", "value"))
        length = tokens.shape[-2]
        _require_allowed(allowed, length)
        flat = tokens.reshape(-1, length, self.d_in)
        result = np.zeros((len(flat), length, self.d_out))
        step = max(1, _SCORES_AT_ONCE // max(1, length * len(flat)))
        for head in range(self.heads):
            keys = (flat @ self.key[head]).transpose(0, 2, 1)
            values = flat @ self.value[head] @ self.output[head]
            queries = flat @ self.query[head] / math.sqrt(self.n_key)
            for start in range(0, length, step):
                rows = slice(start, start + step)
                logits = queries[:, rows] @ keys
                if allowed is not None:
                    logits[:, ~allowed[rows]] = -np.inf
                result[:, rows] += _softmax(logits) @ values
        return result.reshape(*tokens.shape[:-1], self.d_out)


def causal(length: int) -> np.ndarray:
    """[length, length] bool: every token may look at itself and at those before it."""
    return np.tri(length, dtype=bool)


def largest_error(found: np.ndarray, wanted: np.ndarray) -> float:
    """Largest Euclidean distance between two tokens at one place.

    Args:
        found: [..., T, d] float.
        wanted: as `found`.
    """
    return float(np.linalg.norm(found - wanted, axis=-1).max())


def require_finite(array: np.ndarray, name: str, places: tuple[str, ...]) -> None:
    """Raise a DataError that names the first value that is NaN or infinite."""
    wrong = np.argwhere(~np.isfinite(array))
    if len(wrong):
        where = ", ".join(f"{place} {number}" for place, number in zip(places, wrong[0], strict=True))
        raise DataError(
            f"{name} has {len(wrong)} values that are NaN or infinite, the first ({array[tuple(wrong[0])]}) at {where}."
            " Give finite numbers."
        )


def _require_allowed(allowed: np.ndarray | None, length: int) -> None:
    if allowed is None:
        return
    if allowed.dtype != bool or allowed.shape != (length, length):
        raise OptionError(
            f"The attention mask is {allowed.dtype} of shape {allowed.shape}, but is to be bool of shape "
            f"{(length, length)}: row i holds the tokens that token i may look at."
        )
    blind = np.flatnonzero(~allowed.any(axis=1))
    if len(blind):
        raise DataError(
            f"Token {blind[0]} may look at no token, so its softmax is 0 / 0 ({len(blind)} such rows of {length}). "
            "Allow each token at least itself."
        )


def _softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis, in place."""
    logits -= logits.max(axis=-1, keepdims=True)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=-1, keepdims=True)
    return logits
