"""What the package root promises."""

import subprocess
import sys

import pytest

import ks_lottery


def test_every_public_name_resolves() -> None:
    for name in ks_lottery.__all__:
        assert getattr(ks_lottery, name) is not None
    assert set(dir(ks_lottery)) == set(ks_lottery.__all__)


def test_every_public_object_has_a_docstring() -> None:
    for name in set(ks_lottery.__all__) - {"__version__"}:
        assert getattr(ks_lottery, name).__doc__, name


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'find_tickets'"):
        ks_lottery.find_tickets  # noqa: B018


@pytest.mark.parametrize("first", ["import peft, ks_lottery", "import ks_lottery.adapter, peft"])
def test_peft_learns_the_type(first: str) -> None:
    code = f"{first}; print('KS_TICKET' in peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING)"
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "True"
