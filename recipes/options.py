"""Options of a recipe: dataclasses, a YAML file of defaults, flags on top."""

import argparse
import difflib
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from transformers import HfArgumentParser

from ks_lottery.errors import OptionError

CONFIGS = Path(__file__).parent / "configs"


def parse_options(
    kinds: Sequence[type], arguments: Sequence[str], default: str, quick: str | None = None
) -> tuple[Any, ...]:
    """Parse `[CONFIG.yaml] [--quick] [--flags]` into dataclasses; a flag wins over the files.

    Args:
        kinds: dataclasses, one instance of each is returned.
        arguments: the command line without the program's name.
        default: file in `recipes/configs/` that is read where neither a file nor `--model_name_or_path` is given.
        quick: file that `--quick` reads on top; None: the recipe has no such flag.

    Raises:
        OptionError: if a file does not exist, is no mapping, or has an unknown key or a value of another type; or if a
            flag is unknown. With the nearest name.
    """
    rest = list(arguments)
    files = [Path(rest.pop(0))] if rest and rest[0].endswith((".yaml", ".yml")) else []
    flags = {argument.partition("=")[0].replace("-", "_") for argument in rest}
    if not files and "__model_name_or_path" not in flags:
        files = [CONFIGS / default]
    if quick is not None and "--quick" in rest:
        rest.remove("--quick")
        files.append(CONFIGS / quick)
    program = Path(sys.argv[0]).name
    usage = f"{program} [CONFIG.yaml] {'' if quick is None else '[--quick] '}[--flags]"
    parser = HfArgumentParser(list(kinds), prog=program, usage=usage, allow_abbrev=False)
    actions = {action.dest: action for action in parser._actions if action.dest != "help"}
    for file in files:
        parser.set_defaults(**_read(file, actions))
    *values, unknown = parser.parse_args_into_dataclasses(args=rest, return_remaining_strings=True)
    if unknown:
        hint = _nearest(unknown[0], [f"--{name}" for name in actions])
        raise OptionError(
            f"Unknown argument {unknown[0]!r}.{hint} A configuration file comes first; see --help for all options."
        )
    return tuple(values)


def _read(file: Path, actions: Mapping[str, argparse.Action]) -> dict[str, Any]:
    if not file.is_file():
        raise OptionError(f"There is no configuration file {str(file)!r}.")
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise OptionError(f"{str(file)!r} is no YAML: {error}") from error
    if not isinstance(values, dict):
        raise OptionError(f"{str(file)!r} must hold options, one `name: value` a line.")
    for name in values:
        if name not in actions:
            hint = _nearest(str(name), actions)
            raise OptionError(f"{str(file)!r} has the unknown option {name!r}.{hint} See --help for all of them.")
    return {name: _converted(file, actions[name], value) for name, value in values.items()}


def _converted(file: Path, action: argparse.Action, value: Any) -> Any:
    """A value of the file as the same text on the command line would be read: YAML takes `1e-3` for a text."""
    if value is None and action.default is None:
        return None
    many = action.nargs == "+"
    try:
        if value is None or isinstance(value, dict) or isinstance(value, list) != many:
            raise ValueError("a list is expected" if many else "a single value is expected")
        convert: Any = action.type
        converted = [convert(str(entry)) for entry in (value if many else [value])]
    except (TypeError, ValueError, argparse.ArgumentTypeError) as error:
        raise OptionError(f"{str(file)!r} has {action.dest}: {value!r}, which cannot be read: {error}.") from error
    return converted if many else converted[0]


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
