"""Weights of one size and two signs: what random networks for strong tickets begin with."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ks_lottery.errors import OptionError
from ks_lottery.units.slab import UnitGroup, parameters_of

if TYPE_CHECKING:
    import torch


def signed_constants(
    model: "torch.nn.Module", groups: Sequence[UnitGroup], density: float = 1.0, gain: float = math.sqrt(2)
) -> None:
    """Set every matrix of the units to sign(w) * gain / sqrt(density * inputs), in place.

    Args:
        model: with random weights; their signs stay.
        groups: whose matrices; vectors stay as they are.
        density: share of the weights that a mask will keep: with fewer of them, each is larger.
        gain: sqrt(2) for ReLU.

    Raises:
        OptionError: if the density is not above 0 and at most 1.

    Source:
        Ramanujan et al. 2020, arXiv 1911.13299, section 3.4 (signed Kaiming constant). The official code scales the
        inputs by 1 - density, which is right at .5 alone.
    """
    import torch

    if not 0.0 < density <= 1.0:
        raise OptionError(f"signed_constants(density={density}): must be above 0 and at most 1.")
    with torch.no_grad():
        for name in parameters_of(groups):
            weight = model.get_parameter(name)
            if weight.dim() > 1:
                inputs = weight[0].numel()
                weight.copy_(torch.where(weight < 0, -1.0, 1.0) * (gain / math.sqrt(density * inputs)))
