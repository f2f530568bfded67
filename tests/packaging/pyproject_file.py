"""What `pyproject.toml` says of versions."""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def required(lines: list[str]) -> dict[str, str]:
    """Canonical name to sorted bounds, "" where there are none."""
    requirements = [Requirement(line) for line in lines]
    return {canonicalize_name(one.name): ",".join(sorted(map(str, one.specifier))) for one in requirements}


def dependencies() -> dict[str, str]:
    """What the package needs, in the form of `required`."""
    return required(PROJECT["dependencies"])


def lowest(name: str) -> str:
    """The lowest version of a dependency that the project promises to work with."""
    bounds = dependencies()[name].split(",")
    return next(bound.removeprefix(">=") for bound in bounds if bound.startswith(">="))
