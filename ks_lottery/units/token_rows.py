"""Token rows: unit i is row i of the input embedding, of the output head, or of the one matrix that is both."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from ks_lottery.errors import OptionError, UnitError
from ks_lottery.units.architecture import architecture
from ks_lottery.units.granularity import GRANULARITIES
from ks_lottery.units.layout import ModelLayout
from ks_lottery.units.slab import Slab, UnitGroup

_ENDS = ("input", "output", "both")


@GRANULARITIES.register("token_rows")
@dataclass(frozen=True)
class TokenRows:
    """One unit per vocabulary row.

    Groups: `input` and/or `output` where the matrices are separate; one group `tied` where the model ties them, since
    a row is then read and predicted with the same numbers and cannot move at one end only. A model with a task head
    predicts no tokens and has only `input`, whatever its configuration says of ties.

    Raises:
        OptionError: if `ends` is none of its values.

    Source:
        Yuan et al. 2025 (KS-Lottery): the input embedding of an untied model.
    """

    name: ClassVar[str] = "token_rows"

    ends: Literal["input", "output", "both"] | None = field(
        default=None,
        metadata={
            "help": "Which matrix: input, output, or both (rows are selected in each on its own). Default: input, or "
            "both where the model ties them."
        },
    )

    def __post_init__(self) -> None:
        if self.ends is not None and self.ends not in _ENDS:
            raise OptionError(f"TokenRows(ends={self.ends!r}): must be one of {', '.join(_ENDS)}, or None.")

    def groups(self, layout: ModelLayout) -> tuple[UnitGroup, ...]:
        """Unit groups of a model.

        Raises:
            UnitError: if one end of tied embeddings is asked for alone, or the model lacks the matrix.
            UnknownNameError: if the architecture is not in the table.
        """
        embedding = input_embedding(layout)
        if layout.task_head is not None and self.ends in ("output", "both"):
            raise UnitError(
                f"TokenRows(ends={self.ends!r}): this {layout.model_type!r} model ends in {layout.task_head!r} and has "
                "no output head for tokens. Use TokenRows(), which takes the input embedding."
            )
        if layout.tied and layout.task_head is None:
            if self.ends in ("input", "output"):
                raise UnitError(
                    f"TokenRows(ends={self.ends!r}): this {layout.model_type!r} model ties its embeddings, so "
                    f"{embedding!r} is also the output head and a row cannot change at one end alone. "
                    "Use TokenRows(ends='both'), or untie the model first (model.config.tie_word_embeddings = False "
                    "with a copied head)."
                )
            return (self._group("tied", embedding, layout),)
        ends = {"input": embedding, "output": architecture(layout.model_type).output_head}
        wanted = ("input", "output") if self.ends == "both" else (self.ends or "input",)
        return tuple(self._group(end, ends[end], layout) for end in wanted)

    @staticmethod
    def _group(name: str, parameter: str, layout: ModelLayout) -> UnitGroup:
        shape = layout.shape(parameter)
        if len(shape) != 2:
            raise UnitError(
                f"{parameter!r} should be a [vocabulary, width] matrix, but has shape {shape}. "
                "Register the right name with ks_lottery.units.architecture.register_architecture."
            )
        return UnitGroup(name, (Slab(parameter, dim=0),), num_units=shape[0])


def input_embedding(layout: ModelLayout) -> str:
    """Name of the [V, d] parameter that turns tokens into vectors, as this model spells it.

    Raises:
        UnitError: if the architecture reads no tokens, or the model lacks the matrix.
        UnknownNameError: if the architecture is not in the table.
    """
    name = architecture(layout.model_type).input_embedding
    if not name:
        raise UnitError(
            f"A {layout.model_type!r} model reads no tokens, so it has no token rows. Use units='heads', 'neurons', "
            "'layers', 'matrix_rows' or 'weights'."
        )
    name = layout.under(name)
    layout.shape(name)
    return name
