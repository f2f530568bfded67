"""Three ways to make a weight of products of two random ones: a single product, a greedy sum, the best sum."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ks_lottery.theory import widths
from ks_lottery.theory.subset_sum import MOST_ITEMS, solve


@dataclass(frozen=True)
class Malach:
    """One product per target weight: the closest one, or none if the target is closer to zero.

    Source:
        Malach et al. 2020, arXiv 2002.00585.
    """

    name: ClassVar[widths.Construction] = "malach"
    most: ClassVar[int | None] = None

    def draw(self, generator: np.random.Generator, shape: tuple[int, int], layer: int) -> np.ndarray:
        """[shape] weights of a source's layer, U(-1, 1)."""
        return generator.uniform(-1.0, 1.0, shape)

    def choose(self, items: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """[..., n] bool: which of the [..., n] items stand for the [...] targets."""
        distance = np.abs(items - targets[..., None])
        best = distance.argmin(axis=-1)[..., None]
        better = np.take_along_axis(distance, best, axis=-1) < np.abs(targets)[..., None]
        mask = np.zeros(items.shape, bool)
        np.put_along_axis(mask, best, better, axis=-1)
        return mask


@dataclass(frozen=True)
class Orseau:
    """Products of log-uniform weights, the largest that fits first: a number in base 3/2, digit by digit.

    Weights of the first layer lie in (2/3, 1], weights of the second between (2/3) ** (K + 1) and 3/2 of `largest`,
    with random signs; K steps of a factor 2/3 lead from `largest` to eps. Taking the largest that fits works here, and
    not with uniform weights, because there are as many products near every size.

    Args:
        eps: smallest error that is sought, in (0, 1).
        largest: bound on the size of the target's weights, in (0, 1].

    Source:
        Orseau et al. 2020, arXiv 2006.12156, for the hyperbolic law, the base 3/2, and the logarithmic number; which
        product is taken, and the narrow law of the first layer, are ours, and so is the proof in `widths.orseau_items`.
    """

    eps: float = 0.01
    largest: float = 1.0
    name: ClassVar[widths.Construction] = "orseau"
    most: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        widths.orseau_levels(self.eps, self.largest)

    def draw(self, generator: np.random.Generator, shape: tuple[int, int], layer: int) -> np.ndarray:
        """[shape] weights of a source's layer: `layer` 0 is the first of a pair, 1 the second."""
        levels = widths.orseau_levels(self.eps, self.largest)
        steps = generator.uniform(-1.0, levels + 1.0, shape) if layer else generator.uniform(0.0, 1.0, shape)
        signs = generator.integers(0, 2, shape) * 2.0 - 1.0
        return signs * 1.5**-steps * (self.largest if layer else 1.0)

    def choose(self, items: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """[..., n] bool: which of the [..., n] items stand for the [...] targets."""
        sizes = items * np.sign(targets)[..., None]
        rest = np.abs(targets)
        mask = np.zeros(items.shape, bool)
        while True:
            fitting = np.where((sizes > 0) & (sizes <= rest[..., None]) & ~mask, sizes, 0.0)
            best = fitting.argmax(axis=-1)[..., None]
            size = np.take_along_axis(fitting, best, axis=-1)
            if not size.any():
                return mask
            rest = rest - size[..., 0]
            np.put_along_axis(mask, best, np.take_along_axis(mask, best, axis=-1) | (size > 0), axis=-1)


@dataclass(frozen=True)
class Pensia:
    """The best sum of any subset of up to 30 products of two U(-1, 1).

    Source:
        Pensia et al. 2020, arXiv 2006.07990; the form with positive and negative halves is Lemma 7 of Otsuka et al.
        2025, arXiv 2511.04217.
    """

    name: ClassVar[widths.Construction] = "pensia"
    most: ClassVar[int | None] = MOST_ITEMS

    def draw(self, generator: np.random.Generator, shape: tuple[int, int], layer: int) -> np.ndarray:
        """[shape] weights of a source's layer, U(-1, 1)."""
        return generator.uniform(-1.0, 1.0, shape)

    def choose(self, items: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """[..., n] bool: which of the [..., n] items stand for the [...] targets."""
        return solve(items, targets).mask
