"""From words on the command line to a granularity, a finder and a selector; what is wrong with them ends in code 2."""

import dataclasses
import types
import typing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand
from typing_extensions import override

from ks_lottery.cli.completion import correction_names, finder_names
from ks_lottery.cli.screen import print_error
from ks_lottery.errors import OptionError, UnknownNameError

if TYPE_CHECKING:
    from ks_lottery.finders.base import Finder
    from ks_lottery.finders.select import Selector
    from ks_lottery.units.granularity import Granularity

Before = Annotated[str, typer.Argument(help="Folder or Hub id (user/model, user/model@revision) of the model before.")]
After = Annotated[str, typer.Argument(help="The same model after training.")]
FinderName = Annotated[
    str | None, typer.Option("--finder", help="How units are scored. Default: ks.", autocompletion=finder_names)
]
MethodOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        metavar="NAME=VALUE",
        help="Option of the finder or of the units, as listed below; repeatable. finder.NAME or units.NAME tells which "
        "is meant where both have it.",
    ),
]
AlphaLevel = Annotated[
    float | None,
    typer.Option("--alpha", help="Select units with p below this; codes a size of shift. Default: 0.05, the paper's."),
]
Correction = Annotated[
    str | None,
    typer.Option(
        "--correction",
        help="none (default, the paper), bonferroni, holm or bh; with --alpha.",
        autocompletion=correction_names,
    ),
]
TopCount = Annotated[int | None, typer.Option("--top-k", help="Select so many units with the largest scores.")]
Share = Annotated[float | None, typer.Option("--density", help="Select this share of the units, between 0 and 1.")]
OutFolder = Annotated[str | None, typer.Option("--out", metavar="DIR", help="Save the ticket in this folder.")]


class MethodCommand(TyperCommand):
    """A command whose help ends with the options of every finder of two checkpoints, and of every granularity."""

    any_evidence = False

    @override
    def format_help(self, ctx: Any, formatter: Any) -> None:
        self.epilog = "\n\n".join((*_described_options(self.any_evidence), self.epilog or ""))
        super().format_help(ctx, formatter)


class FinderCommand(MethodCommand):
    """A command whose help ends with the options of every finder and granularity."""

    any_evidence = True


@contextmanager
def usage_errors() -> Iterator[None]:
    """Inside the block, an option or a name that is wrong ends the program with one line and exit code 2."""
    try:
        yield
    except (OptionError, UnknownNameError) as error:
        print_error(str(error))
        raise typer.Exit(2) from error


def resolve_units(name: str, options: Sequence[str]) -> "Granularity":
    """The granularity of this name with its options.

    Raises:
        UnknownNameError: if there is none of the name; the message offers close ones.
        OptionError: if an option has no such name or value.
    """
    from ks_lottery.units.granularity import GRANULARITIES

    chosen = GRANULARITIES.get(name)
    return chosen(**_keywords(chosen, f"units {name!r}", options))


def resolve_finder(name: str, options: Sequence[str]) -> "Finder":
    """The finder of this name with its options; errors as `resolve_units`."""
    from ks_lottery.finders.base import FINDERS

    chosen = FINDERS.get(name)
    return chosen(**_keywords(chosen, f"finder {name!r}", options))


def resolve_method(
    units: str, finder: str | None, options: Sequence[str] | None, any_evidence: bool = False
) -> "tuple[Granularity, Finder]":
    """Both, with each option given to whichever has it.

    Args:
        units: name of the granularity.
        finder: name of the finder; None: ks.
        options: NAME=VALUE each.
        any_evidence: whether the command serves finders that look at something else than two checkpoints, too.

    Raises:
        UnknownNameError: as `resolve_units`.
        OptionError: if neither or both have an option of the name, or the finder looks at something else than two
            checkpoints.
    """
    from ks_lottery.finders.base import FINDERS, Shift
    from ks_lottery.units.granularity import GRANULARITIES

    given: dict[str, list[str]] = {"units": [], "finder": []}
    owners = {"units": GRANULARITIES.get(units), "finder": FINDERS.get(finder or "ks")}
    needs = FINDERS.get(finder or "ks").needs
    if needs is not Shift and not any_evidence:
        raise OptionError(
            f"Finder {finder!r} looks at {needs.described}, and this command at two checkpoints. Use ks-lottery find, "
            "or ks-lottery compare."
        )
    for option in options or ():
        owner, dot, name = option.partition("=")[0].partition(".")
        if dot and owner in given:
            given[owner].append(option.partition(".")[2])
            continue
        name = option.partition("=")[0]
        having = [kind for kind, entry in owners.items() if name in _option_fields(entry)]
        if len(having) == 2:
            raise OptionError(
                f"--option {option}: units and finder have a {name!r}. Write units.{name} or finder.{name}."
            )
        given[having[0] if having else "finder"].append(option)
    return resolve_units(units, given["units"]), resolve_finder(finder or "ks", given["finder"])


def resolve_density(
    finder: "Finder", density: float | None, options: Sequence[str] | None
) -> "tuple[Finder, float | None]":
    """A finder that learns a mask at the density that is cut at, and that density; others as they are.

    Args:
        finder: with its options.
        density: --density.
        options: NAME=VALUE as given.

    Raises:
        OptionError: if --density and the finder's own density differ.
    """
    if not getattr(finder, "learns_density", False):
        return finder, density
    own: float = finder.density  # type: ignore[attr-defined]
    given = any(option.partition("=")[0].removeprefix("finder.") == "density" for option in options or ())
    if density is None or (given and density == own):
        return finder, own
    if given:
        raise OptionError(
            f"--density {density} and --option density={own}: the mask is learnt at one density. Give one of them."
        )
    return dataclasses.replace(finder, density=density), density  # type: ignore[type-var]


def resolve_selector(
    alpha: float | None, correction: str | None, top_k: int | None, density: float | None
) -> "Selector":
    """How to cut: by one of alpha, top-k and density; alpha 0.05 if none is given.

    Raises:
        OptionError: if several are given, a value is out of range, or a correction is not for alpha.
    """
    from ks_lottery.finders.select import Alpha, Density, TopK

    cuts = {"--alpha": alpha, "--top-k": top_k, "--density": density}
    given = [f"{name} {value}" for name, value in cuts.items() if value is not None]
    if len(given) > 1:
        raise OptionError(f"{' and '.join(given)}: give one of {', '.join(cuts)}.")
    if correction is not None and (top_k is not None or density is not None):
        raise OptionError(
            f"--correction {correction} corrects p-values, which {given[0]} does not look at. Leave it out."
        )
    if top_k is not None:
        return TopK(top_k)
    if density is not None:
        return Density(density)
    return Alpha(0.05 if alpha is None else alpha, correction or "none")


def _keywords(entry: type, what: str, options: Sequence[str]) -> dict[str, Any]:
    """Constructor arguments from NAME=VALUE."""
    fields = _option_fields(entry)
    keywords: dict[str, Any] = {}
    for option in options:
        name, equals, text = option.partition("=")
        if not equals or name not in fields:
            known = "; ".join(f"{field.name}: {field.metadata.get('help', '')}" for field in fields.values())
            raise OptionError(
                f"--option {option}: {what} takes NAME=VALUE with "
                f"{f'one of these names. {known}' if known else 'no name: it has no options.'}"
            )
        keywords[name] = _value(typing.get_type_hints(entry)[name], text, f"--option {option}")
    return keywords


def _option_fields(entry: type) -> dict[str, dataclasses.Field[Any]]:
    return {field.name: field for field in dataclasses.fields(entry) if field.init}


def _value(hint: Any, text: str, option: str) -> Any:
    """A text as a value of an annotated type: one of a Literal, a number, a truth value, None, or a list of texts."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if type(None) in arguments and text.lower() == "none":
            return None
        return _value(next(one for one in arguments if one is not type(None)), text, option)
    if origin is typing.Literal:
        return next((choice for choice in arguments if str(choice) == text), text)
    if origin is tuple:
        return tuple(_value(arguments[0], part, option) for part in text.split(",") if part)
    if hint is bool and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if hint in (int, float):
        try:
            return hint(text)
        except ValueError as error:
            raise OptionError(f"{option}: {text!r} is no {'whole number' if hint is int else 'number'}.") from error
    if hint is str:
        return text
    raise OptionError(f"{option}: {text!r} is no {getattr(hint, '__name__', hint)}.")


def _described_options(any_evidence: bool) -> Iterator[str]:
    """One paragraph per finder (of two checkpoints, or of any evidence) and per granularity, for --help."""
    from ks_lottery.finders.base import FINDERS, Shift
    from ks_lottery.units.granularity import GRANULARITIES

    finders = [(name, entry) for name, entry in FINDERS.items() if any_evidence or entry.needs is Shift]
    for kind, entries in (("--finder", finders), ("--units", GRANULARITIES.items())):
        for name, entry in entries:
            summary = (entry.__doc__ or "").strip().partition("\n")[0]
            options = [
                f"--option {field.name}=...: {field.metadata.get('help', '')}"
                for field in _option_fields(entry).values()
            ]
            yield " ".join([f"{kind} {name}: {summary}", *options]).replace("[", "\\[")
