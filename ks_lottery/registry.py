"""Names to implementations: one file registers itself, nothing else has to know about it."""

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from ks_lottery.errors import OptionError, UnknownNameError

T = TypeVar("T")


class Registry(Generic[T]):
    """Implementations of one kind, found by name.

    All modules below `package` are imported at the first look-up, so a new file there is all that a new method needs.

    Args:
        kind: what is registered, as error messages call it ("finder").
        package: dotted name of the package whose modules register themselves.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package
        self._entries: dict[str, T] = {}
        self._loaded = False

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that files its object under `name`.

        Raises:
            ValueError: if another object has the name already (an invariant of ours, not a user's error).
        """

        def decorate(entry: T) -> T:
            if self._entries.get(name, entry) is not entry:
                raise ValueError(f"Two {self.kind}s are called {name!r}: {self._entries[name]!r} and {entry!r}.")
            self._entries[name] = entry
            return entry

        return decorate

    def names(self) -> tuple[str, ...]:
        """All registered names in alphabetical order."""
        self._load()
        return tuple(sorted(self._entries))

    def get(self, name: str) -> T:
        """Return what is registered under `name`.

        Raises:
            UnknownNameError: if nothing is; the message offers close names and lists all.
        """
        self._load()
        if name in self._entries:
            return self._entries[name]
        close = difflib.get_close_matches(name, self._entries, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise UnknownNameError(f"Unknown {self.kind} {name!r}.{hint} Available: {', '.join(self.names())}.")

    def instance(self, given: object, protocol: type, option: str) -> Any:
        """An object of this kind: made with default options from its name, or passed through as it is.

        Args:
            given: a name, or an instance of `protocol`.
            protocol: runtime-checkable protocol of the kind.
            option: name of the argument, for the message.

        Raises:
            UnknownNameError: if no such name is registered.
            OptionError: if it is neither a name nor an instance.
        """
        if isinstance(given, str):
            return self.get(given)()  # type: ignore[operator]
        if isinstance(given, protocol) and not isinstance(given, type):
            return given
        raise OptionError(
            f"{option}={given!r} is neither the name nor an instance of a {self.kind}. "
            f"Names: {', '.join(self.names())}."
        )

    def items(self) -> Iterator[tuple[str, T]]:
        """Iterate over (name, entry) in alphabetical order."""
        return ((name, self._entries[name]) for name in self.names())

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        package = importlib.import_module(self.package)
        for module in pkgutil.walk_packages(package.__path__, prefix=f"{self.package}."):
            importlib.import_module(module.name)
