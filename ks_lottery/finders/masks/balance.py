"""How strongly a search for a mask is held to its density: a weight of that term that is not chosen but measured."""

from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from torch import Tensor

_TINY = 1e-15


class Balance(Protocol):
    """The weight lambda of the density term.

    Attributes:
        slack: the density that is aimed at is this times the density of the mask.
    """

    slack: ClassVar[float]

    def weight(self, excess: float, task: "Tensor", slope: "Tensor") -> float:
        """Lambda of this step.

        Args:
            excess: how far the density is above the one that is aimed at, in percent of that.
            task: [units] gradient of the objective.
            slope: [units] gradient of the excess.
        """
        ...


class GradBalance:
    """Running mean of lambda* = |task| / |slope| while the density is too large, and 0 else.

    Source:
        Arora & Teuscher 2025, arXiv 2512.07142: decay .99, the first step takes lambda* itself, slack 1.1.
    """

    slack: ClassVar[float] = 1.1

    def __init__(self) -> None:
        self._weight: float | None = None

    def weight(self, excess: float, task: "Tensor", slope: "Tensor") -> float:
        """Lambda of this step; see `Balance`."""
        wanted = _norm(task) / (_norm(slope) + 1e-12) if excess > 0 else 0.0
        self._weight = wanted if self._weight is None else 0.99 * self._weight + 0.01 * wanted
        return self._weight


class Lagrangian:
    """Lambda climbs by the excess, as a Lagrange multiplier does; the paper's ablation.

    Args:
        learning_rate: of the scores; that of lambda is a hundredth of it.
    """

    slack: ClassVar[float] = 1.0

    def __init__(self, learning_rate: float) -> None:
        self._rate, self._weight = 1e-2 * learning_rate, 0.0

    def weight(self, excess: float, task: "Tensor", slope: "Tensor") -> float:
        """Lambda of this step; see `Balance`."""
        used = self._weight
        self._weight += self._rate * excess
        return used


def _norm(values: "Tensor") -> float:
    """Euclidean norm; summed in float64 where squares vanish or overflow in float32."""
    import torch

    norm = float(torch.linalg.vector_norm(values))
    if _TINY < norm < 1 / _TINY:
        return norm
    return float(torch.linalg.vector_norm(values, dtype=torch.float64))
