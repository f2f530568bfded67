"""How far each row moved, and the one-slab form that row finders read."""

import numpy as np
import torch

from ks_lottery.errors import UnitError
from ks_lottery.units.slab import Slab, UnitGroup


def single_row_slab(group: UnitGroup, finder: str) -> Slab:
    """The slab of units that are whole rows of one parameter.

    Raises:
        UnitError: if the group's units are anything else.
    """
    slab = group.slabs[0]
    if len(group.slabs) != 1 or slab.dim != 0 or slab.width != 1 or slab.start != 0:
        raise UnitError(
            f"Finder {finder!r} scores whole rows of one parameter, but units of group {group.name!r} consist of "
            f"{[(s.parameter, s.dim, s.width, s.start) for s in group.slabs]}. Use units='token_rows'."
        )
    return slab


def row_shift(before: torch.Tensor, after: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Norms of the moves.

    Args:
        before: [rows, ...] float.
        after: same shape and dtype.

    Returns:
        [rows] float64 norm of after - before, [rows] float64 norm of before, [rows] bool whether any value differs.
    """
    old, new = before.reshape(len(before), -1), after.reshape(len(after), -1)
    changed = (old != new).any(dim=1)
    shift = torch.zeros(len(old), dtype=torch.float64, device=old.device)
    moved = new[changed].double().sub_(old[changed])
    shift[changed] = torch.linalg.vector_norm(moved, dim=1)
    norm = torch.linalg.vector_norm(old, dim=1, dtype=torch.float64)
    return shift.cpu().numpy(), norm.cpu().numpy(), changed.cpu().numpy()
