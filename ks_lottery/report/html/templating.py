"""Templates of this package, with everything escaped that is not markup already."""

from functools import cache
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def template(file: str, /, **values: object) -> Markup:
    """A template, filled in; values are escaped unless they are `Markup`, and one that is missing is an error."""
    return Markup(_environment().get_template(file).render(**values))


@cache
def resource(name: str) -> str:
    """Text of a file beside the templates."""
    return (resources.files(__package__) / "templates" / name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader(str(__package__), "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
