"""What a granularity has to know of a model: its type, its parameter shapes, whether its embeddings are tied."""

from collections.abc import Mapping
from dataclasses import dataclass

from ks_lottery.errors import UnitError


@dataclass(frozen=True, slots=True)
class ModelLayout:
    """The skeleton of a model, without any weight.

    Attributes:
        model_type: `config.model_type` of transformers ("llama").
        shapes: parameter name to shape; tied parameters appear once, under the input embedding's name.
        tied: whether the output head is the input embedding.
    """

    model_type: str
    shapes: Mapping[str, tuple[int, ...]]
    tied: bool

    def shape(self, parameter: str) -> tuple[int, ...]:
        """Shape of a parameter.

        Raises:
            UnitError: if the model has no such parameter; the message offers the nearest names.
        """
        if parameter not in self.shapes:
            last = parameter.rsplit(".", 2)[-2] if "." in parameter else parameter
            near = [name for name in self.shapes if last in name][:5] or list(self.shapes)[:5]
            raise UnitError(
                f"The {self.model_type!r} model has no parameter {parameter!r}. Parameters with a similar name: "
                f"{', '.join(near)}. Register where this architecture keeps it: "
                "ks_lottery.units.architecture.register_architecture."
            )
        return self.shapes[parameter]
