"""Strong tickets of multi-head attention: masks of random, wider heads that come near to given heads.

The target's matrices count only as W_Q W_K^T / sqrt(n) and W_V W_O, so each pair is approximated as one. Of the
source's first factor (W_Q, W_V), token dimension a keeps only the columns of block a. Entry (a, b) of the product is
then a sum over that block alone, and the mask of the second factor (W_K, W_O) chooses its terms: one subset sum for
each entry, independent of all others.

The source is random and d_in * items wide. Nothing follows for the heads of a pretrained model, which are narrower than
that: 64 columns, where 768 token dimensions with 16 items each take 12,288.
"""

import math
from dataclasses import dataclass

import numpy as np

from ks_lottery.errors import DataError, OptionError
from ks_lottery.theory.attention_heads import AttentionHeads, HeadMasks
from ks_lottery.theory.bounds import attention_qk_width, attention_vo_width
from ks_lottery.theory.subset_sum import MOST_ITEMS, solve

NORM_SLACK = 1e-9
_EXAMPLE_EPS = 0.01


@dataclass(frozen=True)
class AttentionTicket:
    """Masks of a source, and how near they bring its products to the target's.

    Attributes:
        target: what was to be approximated.
        source: the random heads, untouched.
        masks: which of the source's weights are kept.
    """

    target: AttentionHeads
    source: AttentionHeads
    masks: HeadMasks

    def attention(self) -> AttentionHeads:
        """The source with zeros for all that the masks do not keep."""
        return self.source.masked(self.masks)

    def product_errors(self) -> tuple[np.ndarray, np.ndarray]:
        """Signed errors of the merged products.

        Returns:
            [heads, d_in, d_in] of W_Q W_K^T / sqrt(n), and [heads, d_in, d_out] of W_V W_O: ticket less target.
        """
        kept = self.attention()
        return kept.query_key() - self.target.query_key(), kept.value_output() - self.target.value_output()

    def bound(self, alpha: float) -> float:
        """Upper bound on the error of the output of any token, from the errors of the products.

        Args:
            alpha: bound on the Euclidean norm of a token.

        Returns:
            the sum over heads of softmax_bound(alpha^2 |dQK|) * |W_V W_O| + alpha * |dVO|, in spectral norms. It knows
            neither the number of tokens nor the attention mask. Infinite where exp overflows.

        Source:
            Otsuka et al. 2025, arXiv 2511.04217, Lemma 8 with the measured errors in the place of the wanted ones.
        """
        moved_qk, moved_vo = (_spectral(errors) for errors in self.product_errors())
        through = _spectral(self.target.value_output())
        return float(
            sum(
                softmax_bound(alpha**2 * qk, alpha, self.target.d_in) * output + alpha * vo
                for qk, vo, output in zip(moved_qk, moved_vo, through, strict=True)
            )
        )


def softmax_bound(logit_error: float, alpha: float, d1: int) -> float:
    """How far the softmax average of tokens moves at most, if no logit moves farther than `logit_error`.

    Args:
        logit_error: largest |move| of a logit.
        alpha: bound on the Euclidean norm of a token.
        d1: values of a token.

    Returns:
        sqrt(d1) * alpha * (exp(2 * logit_error) - 1), whatever the number of tokens; at most 4 * sqrt(d1) * alpha *
        logit_error for errors up to 1/2.

    Source:
        Otsuka et al. 2025, arXiv 2511.04217, Lemmas 5 and 8.
    """
    if logit_error > 300:
        return math.inf
    return math.sqrt(d1) * alpha * math.expm1(2 * logit_error)


def draw_source(
    draw: np.random.Generator, heads: int, d_in: int, d_out: int, n_key: int, n_value: int, *, scaled: bool = True
) -> AttentionHeads:
    """Random heads: W_Q, W_K from U[-n_key^(1/4), n_key^(1/4)], W_V and W_O from U[-1, 1].

    Args:
        draw: where the numbers come from.
        heads: number of heads.
        d_in: values of a token that goes in.
        d_out: values of a token that comes out.
        n_key: width of W_Q and W_K of a head.
        n_value: width of W_V of a head.
        scaled: False draws W_Q and W_K from U[-1, 1] too. One state of `draw` gives the same numbers but for the
            factor.

    Source:
        Otsuka et al. 2025, arXiv 2511.04217, Theorem 3.
    """
    limit = n_key**0.25 if scaled else 1.0
    return AttentionHeads(
        limit * draw.uniform(-1, 1, (heads, d_in, n_key)),
        limit * draw.uniform(-1, 1, (heads, d_in, n_key)),
        draw.uniform(-1, 1, (heads, d_in, n_value)),
        draw.uniform(-1, 1, (heads, n_value, d_out)),
    )


def draw_target(
    draw: np.random.Generator, heads: int, d_in: int, d_out: int, n_key: int, n_value: int
) -> AttentionHeads:
    """Normal random heads, each matrix divided by its spectral norm, so that each norm is 1.

    Args:
        draw: where the numbers come from.
        heads: number of heads.
        d_in: values of a token that goes in.
        d_out: values of a token that comes out.
        n_key: width of W_Q and W_K of a head.
        n_value: width of W_V of a head.
    """
    shapes = ((d_in, n_key), (d_in, n_key), (d_in, n_value), (n_value, d_out))
    return AttentionHeads(*(unit_norm(draw.standard_normal((heads, *shape))) for shape in shapes))


def unit_norm(matrices: np.ndarray) -> np.ndarray:
    """Matrices divided by their spectral norms, where those are above 0.

    Args:
        matrices: [..., rows, columns] float.
    """
    norms = _spectral(matrices)[..., None, None]
    return matrices / np.where(norms > 0, norms, 1.0)


def attention_ticket(target: AttentionHeads, source: AttentionHeads) -> AttentionTicket:
    """Masks of a source whose attention comes near to the target's.

    Each token dimension takes n_key // d_in columns of W_Q and n_value // d_in columns of W_V of a source head, the
    items of its subset sums; columns that are left over are not kept.

    Args:
        target: heads with spectral norms of at most 1.
        source: as many heads, for tokens of the same widths; of `draw_source`.

    Raises:
        OptionError: if the source has other heads or token widths, is narrower than d_in, a matrix of the target has a
            spectral norm above 1, or there are more items than the exact solver takes.

    Cost:
        heads * d_in * (d_in + d_out) exact subset sums.

    Source:
        Otsuka et al. 2025, arXiv 2511.04217, Lemmas 4 and 7, Theorem 3.
    """
    _require_room(target, source)
    for name, matrix in target.matrices():
        for head, one in enumerate(matrix):
            require_unit_norm(one, f"{name} of head {head}")
    root = math.sqrt(source.n_key)
    query, key = pair_masks(source.query / root, source.key.transpose(0, 2, 1), target.query_key())
    value, output = pair_masks(source.value, source.output, target.value_output())
    return AttentionTicket(target, source, HeadMasks(query, key.transpose(0, 2, 1), value, output))


def pair_masks(first: np.ndarray, second: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Masks of two random factors whose masked product comes near to a given matrix: two for one.

    Args:
        first: [heads, d_in, n] float. Row a keeps the columns of block a, n // d_in of them.
        second: [heads, n, d_out] float. Column c keeps, of each block a, the subset whose sum is nearest.
        wanted: [heads, d_in, d_out] float.

    Returns:
        masks, bool, in the shapes of `first` and `second`.

    Source:
        Otsuka et al. 2025, arXiv 2511.04217, Lemma 4; Pensia et al. 2020, arXiv 2006.07990.
    """
    heads, d_in, width = first.shape
    d_out = second.shape[2]
    count = width // d_in
    blocks = np.arange(d_in * count).reshape(d_in, count)
    first_mask = np.zeros(first.shape, dtype=bool)
    second_mask = np.zeros(second.shape, dtype=bool)
    own = np.stack([first[:, row, block] for row, block in enumerate(blocks)], axis=1)
    against = second[:, : d_in * count].reshape(heads, d_in, count, d_out)
    items = (own[..., None] * against).transpose(0, 1, 3, 2)
    chosen = solve(items.reshape(-1, count), wanted.reshape(-1)).mask
    for row, block in enumerate(blocks):
        first_mask[:, row, block] = True
    kept = chosen.reshape(heads, d_in, d_out, count).transpose(0, 1, 3, 2)
    second_mask[:, : d_in * count] = kept.reshape(heads, d_in * count, d_out)
    return first_mask, second_mask


def require_unit_norm(matrix: np.ndarray, name: str) -> None:
    """Raise an OptionError if a matrix of a target has a spectral norm above 1.

    Args:
        matrix: [rows, columns] float.
        name: how the message calls it.
    """
    norm = float(_spectral(matrix))
    if norm > 1 + NORM_SLACK:
        raise OptionError(
            f"The target's {name} has a spectral norm of {norm:.4g}, and the theorem asks for at most 1. Divide it by "
            f"{norm:.4g}, and multiply its partner (query and key, value and output) by that where the partner stays "
            "within 1: only their product counts. Otherwise take unit_norm(...) of it, which is another target."
        )


def _require_room(target: AttentionHeads, source: AttentionHeads) -> None:
    asked = (target.heads, target.d_in, target.d_out)
    given = (source.heads, source.d_in, source.d_out)
    if asked != given:
        raise OptionError(
            f"The target has {asked[0]} heads and tokens of {asked[1]} values in and {asked[2]} out; the source has "
            f"{given[0]}, {given[1]} and {given[2]}. Draw a source with those of the target."
        )
    alpha, most = math.sqrt(max(target.d_in, target.d_out)), MOST_ITEMS * target.d_in
    for name, have, rule in (
        ("n_key", source.n_key, attention_qk_width(target.d_in, target.heads, alpha, _EXAMPLE_EPS)),
        ("n_value", source.n_value, attention_vo_width(target.d_in, target.d_out, target.heads, alpha, _EXAMPLE_EPS)),
    ):
        if have < target.d_in:
            raise OptionError(
                f"The target is wider than the source: its tokens have {target.d_in} values, and each of them needs "
                f"columns of its own, but {name} = {have}. Draw a source with {name} = {min(rule, most)}: the "
                f"theorem's rule gives {rule} for an error of {_EXAMPLE_EPS}, and the exact solver takes up to {most}."
            )


def _spectral(matrices: np.ndarray) -> np.ndarray:
    """[...] spectral norms of [..., rows, columns]."""
    if not np.isfinite(matrices).all():
        raise DataError("A spectral norm was asked of a matrix with NaN or infinite values. Give finite numbers.")
    return np.linalg.norm(matrices, ord=2, axis=(-2, -1))
