"""Names to implementations."""

import pytest

from ks_lottery.errors import LotteryError, UnknownNameError
from ks_lottery.finders.base import FINDERS, finder
from ks_lottery.registry import Registry


def test_modules_register_themselves() -> None:
    assert {"ks", "magnitude"} <= set(FINDERS.names())
    assert dict(FINDERS.items())["ks"] is FINDERS.get("ks")


def test_unknown_name_offers_the_nearest_and_lists_all() -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown finder 'kss'. Did you mean 'ks'\? Available: .*ks, "):
        finder("kss")


def test_nothing_near_gives_no_hint() -> None:
    with pytest.raises(UnknownNameError, match="Unknown finder 'zzzzzz'. Available:"):
        finder("zzzzzz")


def test_errors_are_the_built_ins_they_specialise() -> None:
    assert issubclass(UnknownNameError, LookupError)
    assert issubclass(UnknownNameError, LotteryError)


def test_two_objects_cannot_share_a_name() -> None:
    registry: Registry[int] = Registry("number", "ks_lottery.stats")
    registry.register("one")(1)
    assert registry.register("one")(1) == 1
    with pytest.raises(ValueError, match="Two numbers are called 'one': 1 and 2"):
        registry.register("one")(2)
