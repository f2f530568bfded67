"""What transformers calls the cache of keys and values: `cache` from 5.24 on, `past_key_values` before."""

import inspect
from collections.abc import Callable
from typing import Any

_NAMES = ("cache", "past_key_values")


def cache_argument(forward: Callable[..., Any]) -> str | None:
    """The argument under which a forward pass takes a cache, or None if it takes none.

    Args:
        forward: the forward method of a model of transformers; of a PEFT model, that of its base model.
    """
    known = inspect.signature(forward).parameters
    return next((name for name in _NAMES if name in known), None)


def cache_field(output: Any) -> str:
    """The field in which an output of a model hands over its cache."""
    return next(name for name in _NAMES if name in type(output).__dataclass_fields__)
