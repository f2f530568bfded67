"""What a granularity has to know of a model: its type, its parameter shapes, its configuration; no weight."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ks_lottery.errors import UnitError

_TASK_HEADS = ("classifier", "pre_classifier", "classification_head", "score", "qa_outputs")


@dataclass(frozen=True, slots=True)
class ModelLayout:
    """The skeleton of a model, without any weight.

    Attributes:
        model_type: `config.model_type` of transformers ("llama").
        shapes: parameter name to shape; tied parameters appear once, under the input embedding's name.
        tied: whether the configuration makes the output head the input embedding.
        config: returns the configuration's values, as `config.get_text_config().to_dict()` does; called only where
            numbers of heads are needed.
    """

    model_type: str
    shapes: Mapping[str, tuple[int, ...]]
    tied: bool
    config: Callable[[], Mapping[str, Any]] = field(default=dict, compare=False)

    @property
    def task_head(self) -> str | None:
        """Module that turns hidden states into labels instead of tokens ("classifier", "score"), or None."""
        return task_head(self.shapes)

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

    def under(self, name: str) -> str:
        """A parameter or module as this model spells it: `name`, or without its first part in a bare model.

        The table spells names as a model with a head does ("bert.encoder.layer"); in a bare `BertModel` the same module
        is "encoder.layer". A name that is there in neither form is returned as it is.
        """
        bare = name.partition(".")[2]
        for form in filter(None, (name, bare)):
            if form in self.shapes or any(parameter.startswith(f"{form}.") for parameter in self.shapes):
                return form
        return name


def task_head(names: Iterable[str]) -> str | None:
    """`ModelLayout.task_head` of a model with parameters of these names."""
    modules = {name.partition(".")[0] for name in names}
    return next((head for head in _TASK_HEADS if head in modules), None)
