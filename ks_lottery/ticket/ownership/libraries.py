"""The libraries that only proofs of ownership need."""

import importlib
from typing import Any

from ks_lottery.errors import OptionError


def library(name: str) -> Any:
    """Import a module of a library that is no requirement of the package.

    Raises:
        OptionError: if it is not installed; the message says what to install.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise OptionError(
            f"Proofs of ownership need the library {name.partition('.')[0]!r}, which is not installed. "
            "Install it: pip install 'ks_lottery[ownership]'."
        ) from error
