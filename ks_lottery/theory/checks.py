"""Checks of the numbers that bounds and constructions are given."""

import math

from ks_lottery.errors import OptionError


def check_largest(largest: float) -> None:
    """Refuse a bound on target weights that is not in (0, 1]."""
    if not 0.0 < largest <= 1.0:
        raise OptionError(f"largest={largest!r} must lie above 0 and not above 1. Scale the target.")


def check_counts(**counts: int) -> None:
    """Refuse counts below 1."""
    for name, count in counts.items():
        if count < 1:
            raise OptionError(f"{name}={count!r} must be at least 1.")


def check_positive(**numbers: float) -> None:
    """Refuse numbers that are not finite and above 0."""
    for name, number in numbers.items():
        if not 0.0 < number < math.inf:
            raise OptionError(f"{name}={number!r} must be a finite number above 0.")


def check_shares(**shares: float) -> None:
    """Refuse shares and probabilities that are not between 0 and 1."""
    for name, share in shares.items():
        if not 0.0 < share < 1.0:
            raise OptionError(f"{name}={share!r} must lie between 0 and 1.")
