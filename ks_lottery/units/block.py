"""The transformer blocks of a model, found by the names of its parameters."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ks_lottery.errors import UnitError
from ks_lottery.units.architecture import architecture, architectures
from ks_lottery.units.layout import ModelLayout
from ks_lottery.units.stack import Stack


@dataclass(frozen=True, slots=True)
class Block:
    """One transformer block.

    Attributes:
        layout: the model.
        stack: what its blocks consist of.
        label: start of the names of its unit groups: "layers.3", or "decoder.layers.3" in an encoder-decoder model.
        prefix: start of the names of its parameters: "model.layers.3.".
        parameters: full names of all its parameters, in the layout's order.
    """

    layout: ModelLayout
    stack: Stack
    label: str
    prefix: str
    parameters: tuple[str, ...]

    @property
    def output_axis(self) -> int:
        """Dimension of a matrix that counts its outputs."""
        return 1 if self.stack.transposed else 0

    def has(self, projection: str) -> bool:
        """Whether the block has a projection of this name."""
        return self.weight(projection) in self.layout.shapes

    def weight(self, projection: str) -> str:
        """Full name of a projection's matrix; some are modules with a weight, some parameters themselves."""
        name = f"{self.prefix}{projection}"
        return name if name in self.layout.shapes else f"{name}.weight"

    def bias(self, projection: str) -> str | None:
        """Full name of a projection's bias, or None if it has none."""
        name = f"{self.prefix}{projection}.bias"
        return name if name in self.layout.shapes else None

    def live_parameters(self) -> tuple[str, ...]:
        """All parameters of the block, if they are those of the live model; errors as `require_live`."""
        require_live(self.layout, self.parameters)
        return self.parameters

    def sizes(self, projection: str, experts: bool = False) -> tuple[int, int]:
        """Outputs and inputs of a projection's matrix (of each expert's, if there are experts).

        Raises:
            UnitError: if there is no such matrix, or it has another number of dimensions.
        """
        name = self.weight(projection)
        shape = self.layout.shape(name)
        if len(shape) != 2 + experts:
            raise UnitError(
                f"{name!r} should be a {'[experts, outputs, inputs]' if experts else '[outputs, inputs]'} matrix, but "
                f"has shape {shape}. Load the model in its full precision, or register its architecture with "
                "ks_lottery.units.architecture.register_architecture."
            )
        outputs, inputs = shape[-2:]
        return (inputs, outputs) if self.stack.transposed else (outputs, inputs)


def require_live(layout: ModelLayout, names: Iterable[str]) -> None:
    """Check that parameters are those of the live model.

    Raises:
        UnitError: if files keep parts of them apart, so that a unit there would be none of the live model.
    """
    apart = architecture(layout.model_type).stored_apart if layout.model_type in architectures() else ""
    found = next((name for name in names if apart and re.search(apart, name)), None)
    if found is not None:
        raise UnitError(
            f"The files keep parts of a parameter apart ({found!r}) that a live {layout.model_type!r} model fuses, so "
            "their units are not the model's. Open the live model instead of the folder: "
            "AutoModelForCausalLM.from_pretrained(folder)."
        )


def blocks_of(layout: ModelLayout) -> Sequence[Block]:
    """All blocks of a model, in order; the encoder's before the decoder's.

    Raises:
        UnknownNameError: if the architecture is not in the table.
        UnitError: if it is there without its blocks, or the model has none of them, or one in the middle is missing.
    """
    names = architecture(layout.model_type)
    if not names.stacks:
        raise UnitError(
            f"The architecture {layout.model_type!r} is registered without its blocks, so only its token rows are "
            "known. Give register_architecture an Architecture(..., stacks=(Stack(...),)) from ks_lottery.units.stack."
        )
    blocks = [block for stack in names.stacks for block in _blocks_of_stack(layout, stack)]
    if not blocks:
        places = " or ".join(repr(stack.blocks) for stack in names.stacks)
        raise UnitError(
            f"The {layout.model_type!r} model has no parameter below {places}; it has "
            f"{', '.join(list(layout.shapes)[:5])}. Register where this architecture keeps its blocks: "
            "ks_lottery.units.architecture.register_architecture."
        )
    return blocks


def _blocks_of_stack(layout: ModelLayout, stack: Stack) -> list[Block]:
    place = f"{layout.under(stack.blocks)}."
    parameters: dict[int, list[str]] = {}
    for name in layout.shapes:
        number = name.removeprefix(place).partition(".")[0]
        if name.startswith(place) and number.isdigit():
            parameters.setdefault(int(number), []).append(name)
    missing = sorted(set(range(len(parameters))) - set(parameters))
    if missing:
        raise UnitError(
            f"The {layout.model_type!r} model has {len(parameters)} blocks below {place!r}, but none with number "
            f"{missing[0]}: the checkpoint is incomplete. Save or download the model again."
        )
    label = f"{stack.name}.layers" if stack.name else "layers"
    return [
        Block(layout, stack, f"{label}.{number}", f"{place}{number}.", tuple(parameters[number]))
        for number in sorted(parameters)
    ]
