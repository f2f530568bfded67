"""How a ticket spreads over a model: layer by layer."""

import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ks_lottery.ticket.ticket import Ticket

_LAYER = re.compile(r"(.*?(?:^|\.)\d+)(?:\.|$)")


@dataclass(frozen=True)
class LayerShare:
    """What a ticket selects of one layer.

    Attributes:
        layer: "layers.3", "model.layers.3" where groups are called as their parameters are; the group's name where
            it belongs to no layer ("input", "tied").
        units: selected units.
        of_units: units in the layer's groups.
        weights: single weights that the selected units own.
        of_weights: single weights of all units in the layer's groups.
    """

    layer: str
    units: int
    of_units: int
    weights: int
    of_weights: int

    @property
    def share(self) -> float:
        """Selected over all weights of the layer's groups, from 0 to 1."""
        return self.weights / self.of_weights

    def to_dict(self) -> dict[str, Any]:
        """JSON values by field, with the share."""
        return {**asdict(self), "share": self.share}


def layer_shares(ticket: "Ticket") -> list[LayerShare]:
    """What a ticket selects of each layer, in the order of the model.

    Args:
        ticket: of any granularity. Groups of one layer (heads and neurons, matrices, experts) count together.
    """
    counts: dict[str, list[int]] = {}
    for name, selection in ticket.selections.items():
        group = selection.group
        each = group.weights_per_unit(ticket.base.shapes)
        of_group = (len(selection), group.num_units, len(selection) * each, group.num_units * each)
        kept = counts.setdefault(layer_of(name), [0, 0, 0, 0])
        for position, count in enumerate(of_group):
            kept[position] += count
    return [LayerShare(layer, *numbers) for layer, numbers in counts.items()]


def layer_of(group: str) -> str:
    """The layer that a group's name says: all up to its first number, or the whole name if it has none."""
    match = _LAYER.match(group)
    return group if match is None else match[1]
