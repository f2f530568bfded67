"""The option `only`, which all granularities of blocks share: which of their unit groups to take."""

from collections.abc import Sequence
from dataclasses import field
from fnmatch import fnmatchcase
from typing import Any

from ks_lottery.errors import OptionError, UnitError
from ks_lottery.units.slab import UnitGroup


def only_option(default: str = "all") -> Any:
    """A dataclass field for `only`, whose help says what an empty one means."""
    return field(
        default=(),
        metadata={
            "help": "Patterns of group names, in which * stands for anything: layers.3.*, decoder.*, *.cross_heads, "
            f"*.q_proj.weight. A group is taken if any of them matches. Default: {default}."
        },
    )


def require_patterns(only: object, granularity: str) -> None:
    """Check the form of the option.

    Raises:
        OptionError: if it is no tuple or list of strings.
    """
    if not isinstance(only, tuple | list) or not all(isinstance(pattern, str) and pattern for pattern in only):
        raise OptionError(
            f"units={granularity!r}, only={only!r}: must be a tuple of patterns of group names, such as "
            "('layers.3.*', 'layers.4.*')."
        )


def matching(groups: Sequence[UnitGroup], only: Sequence[str], granularity: str) -> tuple[UnitGroup, ...]:
    """The groups whose names match any pattern; all if there are no patterns.

    Raises:
        UnitError: if a pattern matches no group; the message shows names.
    """
    for pattern in only:
        if not any(fnmatchcase(group.name, pattern) for group in groups):
            names = [group.name for group in groups]
            raise UnitError(
                f"units={granularity!r}, only={tuple(only)!r}: {pattern!r} matches none of the {len(names)} groups of "
                f"this model: {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}."
            )
    return tuple(group for group in groups if not only or any(fnmatchcase(group.name, pattern) for pattern in only))
