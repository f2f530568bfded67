"""How wide a random network has to be, so that a strong ticket of it is a given target.

These are existence calculators. They speak of a *random* source that is this wide, and twice as deep as its target.
None of them is a guarantee for a pretrained model, whose heads and layers are neither random nor wider than that.

Sums of subsets: the theorem says that n >= C log(1 / min(eps, delta)) items do, and does not name C. `PRODUCTS` and
`UNIFORMS` are empirical: with 20,000 draws they cover eps and delta of 0.01 and less, for targets in [-1, 1].
"""

import math
from typing import NamedTuple

from ks_lottery.errors import OptionError
from ks_lottery.finders.draws.width import candidate_copies
from ks_lottery.theory.checks import check_counts, check_positive, check_shares

PRODUCTS = 4.2
UNIFORMS = 3.1


class BlockWidths(NamedTuple):
    """Source widths of one transformer block.

    Attributes:
        attention: width of the source's query, key and value projections of each head, a multiple of d1.
        feed_forward: width of the layer that is put before each layer of the feed-forward net, a multiple of d1.
    """

    attention: int
    feed_forward: int


def subset_sum_items(eps: float, delta: float, constant: float = PRODUCTS) -> int:
    """Random items of which some subset comes within eps of a target in [-1, 1], but for probability delta.

    Args:
        eps: error that is allowed, in (0, 1).
        delta: probability of failure that is allowed, in (0, 1).
        constant: C; `PRODUCTS` for products of two U(-1, 1), `UNIFORMS` for single U(-1, 1).

    Returns:
        ceil(C * log(1 / min(eps, delta))).

    Raises:
        OptionError: if a number is out of range.

    Source:
        Lueker 1998, Corollary 3.3: the form; the constants are empirical.
    """
    check_shares(eps=eps, delta=delta)
    check_positive(constant=constant)
    return math.ceil(-constant * math.log(min(eps, delta)))


def attention_qk_width(d1: int, heads: int, alpha: float, eps: float, constant: float = PRODUCTS) -> int:
    """Width of the source's query and key projections in each head.

    Args:
        d1: width of the target's tokens.
        heads: of the target.
        alpha: bound on the norm of a token, at least sqrt(d1).
        eps: error of the attention's output that is allowed, and probability of failure, above 0.
        constant: C of the theorem, which is universal and not given there; the default is empirical.

    Returns:
        d1 * n, n = ceil(C * log(8 * heads * alpha ** 3 * d1 ** 1.5 / eps)).

    Raises:
        OptionError: if a number is out of range.

    Source:
        Otsuka et al. 2025, arXiv 2511.04217, Theorem 3.
    """
    _check_attention(alpha, eps, constant, heads=heads, d1=d1)
    return d1 * _items(constant, 8 * heads * alpha**3 * d1**1.5, eps)


def attention_vo_width(d1: int, d2: int, heads: int, alpha: float, eps: float, constant: float = PRODUCTS) -> int:
    """Width of the source's value and output projections in each head.

    Args:
        d1: width of the target's tokens.
        d2: width of the target's output.
        heads: of the target.
        alpha: bound on the norm of a token, at least sqrt(max(d1, d2)).
        eps: error of the attention's output that is allowed, and probability of failure, above 0.
        constant: C of the theorem, which is universal and not given there; the default is empirical.

    Returns:
        d1 * n, n = ceil(C * log(2 * heads * alpha * d1 * sqrt(d2) / eps)).

    Raises:
        OptionError: if a number is out of range.

    Source:
        Otsuka et al. 2025, arXiv 2511.04217, Theorem 3.
    """
    _check_attention(alpha, eps, constant, heads=heads, d1=d1, d2=d2)
    return d1 * _items(constant, 2 * heads * alpha * d1 * math.sqrt(d2), eps)


def attention_block_widths(
    d1: int, heads: int, alpha: float, layers: int, eps: float, constant: float = PRODUCTS
) -> BlockWidths:
    """Source widths for one transformer block without normalisation, all of whose widths are d1.

    Args:
        d1: width of tokens, of the output, and of the layers of the feed-forward net.
        heads: of the target.
        alpha: bound on the norm of a token, at least sqrt(d1).
        layers: of the feed-forward net.
        eps: error of the block's output that is allowed, and probability of failure, above 0. For a first block that
            others follow: of `transformer_first_eps`.
        constant: C of the theorem, which is universal and not given there; the default is empirical.

    Returns:
        d1 * ceil(C * log(32 * alpha ** 3 * heads * d1 ** 1.5 / eps)) for attention,
        d1 * ceil(C * log(24 * alpha * layers * heads * d1 ** 2.5 / eps)) for the feed-forward net.

    Raises:
        OptionError: if a number is out of range.

    Source:
        Otsuka et al. 2025, arXiv 2511.04217, Theorem 11.
    """
    _check_attention(alpha, eps, constant, heads=heads, d1=d1, layers=layers)
    return BlockWidths(
        d1 * _items(constant, 32 * alpha**3 * heads * d1**1.5, eps),
        d1 * _items(constant, 24 * alpha * layers * heads * d1**2.5, eps),
    )


def transformer_first_eps(blocks: int, d1: int, heads: int, alpha: float, eps: float) -> float:
    """Error that the first block may make, so that a transformer without normalisation errs by eps.

    Args:
        blocks: B, at least 1.
        d1: width of the tokens.
        heads: of each block.
        alpha: bound on the norm of a token at the input, at least sqrt(d1).
        eps: error of the output that is allowed, above 0.

    Returns:
        eps / (2 ** (B - 1) * product over j = 2..B of 16 * heads * sqrt(d1) * beta_j ** 2), with
        beta_j = alpha * (4 * heads * sqrt(d1)) ** (j - 1). Its logarithm grows as B ** 2, so the widths that follow
        have no use beyond three blocks.

    Raises:
        OptionError: if a number is out of range, or the result is too small for a float.

    Source:
        Otsuka et al. 2025, arXiv 2511.04217, Theorem 14.
    """
    _check_attention(alpha, eps, 1.0, heads=heads, d1=d1, blocks=blocks)
    growth = math.log(4 * heads * math.sqrt(d1))
    logarithm = math.log(eps) - (blocks - 1) * math.log(2)
    for block in range(2, blocks + 1):
        logarithm -= math.log(16 * heads * math.sqrt(d1)) + 2 * (math.log(alpha) + (block - 1) * growth)
    first = math.exp(logarithm)
    if not first:
        raise OptionError(
            f"{blocks} blocks of width {d1} ask for an error of exp({logarithm:.0f}) in the first one, which no float "
            "holds. Ask for fewer blocks."
        )
    return first


def copied_items(items: int, weights: int, density: float, delta: float) -> int:
    """Items that a strong ticket needs in a random sparse source: candidate copies times the size of a subset sum.

    Args:
        items: that a weight needs in a dense source, for example of `subset_sum_items`.
        weights: of the target.
        density: chance that an item is there, in (0, 1): the source's density, squared if an item is a product of two
            of its weights.
        delta: probability that is allowed for any of the weights * items items to lack all of its copies, in (0, 1).

    Returns:
        items * k, k copies of each item, of which at least one is there.

    Raises:
        OptionError: if a number is out of range.

    Source:
        Gadhikar et al. 2023, arXiv 2210.02412: copies of each edge; for strong tickets each member of a sum is an edge.
    """
    check_counts(items=items, weights=weights)
    return items * candidate_copies(items * weights, density, delta)


def _items(constant: float, size: float, eps: float) -> int:
    return max(1, math.ceil(constant * math.log(size / eps)))


def _check_attention(alpha: float, eps: float, constant: float, **counts: int) -> None:
    check_counts(**counts)
    check_positive(eps=eps, constant=constant, alpha=alpha)
    widest = max(counts["d1"], counts.get("d2", 1))
    if alpha < math.sqrt(widest) * (1 - 1e-9):
        raise OptionError(
            f"alpha={alpha!r}: the theorem holds for tokens bounded by alpha >= sqrt({widest}) = "
            f"{math.sqrt(widest):.4g}. Give a larger bound; it need not be reached."
        )
