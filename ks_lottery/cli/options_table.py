"""The options of a finder or a granularity, as a table and JSON show them."""

import dataclasses
import typing
from typing import Any

from rich.text import Text

from ks_lottery.ticket.markdown import MISSING


def options_of(entry: type) -> list[dict[str, Any]]:
    """Every option of a registered class.

    Args:
        entry: a dataclass whose fields are its options.

    Returns:
        `name`, `default` and `choices` (None where any value of the type goes) as JSON values, and `help`.
    """
    hints = typing.get_type_hints(entry)
    return [
        {
            "name": field.name,
            "default": _plain(_default(field)),
            "choices": _choices(hints[field.name]),
            "help": field.metadata.get("help", ""),
        }
        for field in dataclasses.fields(entry)
        if field.init
    ]


def options_cell(options: list[dict[str, Any]]) -> Text:
    """Options with their defaults, one below the other; a dash is no option."""
    lines = [f"{one['name']}={one['default']}" for one in options]
    return Text("\n".join(lines) or MISSING)


def summary_of(entry: type) -> str:
    """The first line of a class's documentation."""
    return (entry.__doc__ or "").strip().partition("\n")[0]


def _default(field: "dataclasses.Field[Any]") -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default


def _plain(value: Any) -> Any:
    """A default as a JSON value."""
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)


def _choices(hint: Any) -> list[Any] | None:
    """The values that a Literal allows, also inside `... | None`."""
    if typing.get_origin(hint) is typing.Literal:
        return list(typing.get_args(hint))
    for part in typing.get_args(hint):
        if typing.get_origin(part) is typing.Literal:
            return [*typing.get_args(part), None]
    return None
