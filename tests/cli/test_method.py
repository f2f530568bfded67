"""Options of finders and granularities reach their fields, or end in a message that says what there is."""

import re
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import pytest

from ks_lottery.cli.method import resolve_finder, resolve_method, resolve_selector, resolve_units
from ks_lottery.errors import OptionError, UnknownNameError
from ks_lottery.finders.base import FINDERS, Shift
from ks_lottery.finders.select import Alpha, Density, TopK
from ks_lottery.finders.shift.ks import KolmogorovSmirnov
from ks_lottery.finders.shift.magnitude import Magnitude
from ks_lottery.units.granularity import GRANULARITIES
from ks_lottery.units.token_rows import TokenRows


@dataclass(frozen=True)
class Everything:
    """A method with a field of every type."""

    name: ClassVar[str] = "everything"
    needs: ClassVar[type] = Shift

    ends: Literal["left", "right"] = field(default="left", metadata={"help": "Which end."})
    count: int = 1
    share: float | None = 0.5
    loud: bool = False
    only: tuple[str, ...] = ()
    text: str = ""
    odd: complex = 0j


@pytest.fixture
def everything(monkeypatch: pytest.MonkeyPatch) -> None:
    FINDERS.names()
    monkeypatch.setitem(FINDERS._entries, "everything", Everything)


def test_options_go_to_whichever_has_them() -> None:
    assert resolve_method("token_rows", None, None) == (TokenRows(), KolmogorovSmirnov())
    options = ["relative_to=before", "ends=output"]
    assert resolve_method("token_rows", "magnitude", options) == (TokenRows("output"), Magnitude("before"))
    assert resolve_method("token_rows", "magnitude", ["units.ends=both", "finder.relative_to=before"]) == (
        TokenRows("both"),
        Magnitude("before"),
    )


@pytest.mark.usefixtures("everything")
def test_an_option_that_both_have_needs_its_owner() -> None:
    message = "--option ends=left: units and finder have a 'ends'. Write units.ends or finder.ends."
    with pytest.raises(OptionError, match=re.escape(message)):
        resolve_method("token_rows", "everything", ["ends=left"])
    resolved = resolve_method("token_rows", "everything", ["finder.ends=right", "units.ends=input"])
    assert resolved == (TokenRows("input"), Everything("right"))


@pytest.mark.usefixtures("everything")
def test_texts_become_values_of_the_fields_types() -> None:
    options = ["ends=right", "count=-3", "share=1e-3", "loud=True", "only=a.*,b", "text=x=y,z"]
    assert resolve_finder("everything", options) == Everything("right", -3, 1e-3, True, ("a.*", "b"), "x=y,z")
    assert resolve_finder("everything", ["share=none"]) == Everything(share=None)


@pytest.mark.usefixtures("everything")
@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("count=1.5", "--option count=1.5: '1.5' is no whole number."),
        ("share=much", "--option share=much: 'much' is no number."),
        ("loud=yes", "--option loud=yes: 'yes' is no bool."),
        ("odd=1j", "--option odd=1j: '1j' is no complex."),
        ("size=3", "--option size=3: finder 'everything' takes NAME=VALUE with one of these names. ends: Which end.; "),
        ("ends", "--option ends: finder 'everything' takes NAME=VALUE with one of these names."),
    ],
)
def test_wrong_options_are_explained(option: str, message: str) -> None:
    with pytest.raises(OptionError, match=re.escape(message)):
        resolve_finder("everything", [option])


def test_a_method_without_options_says_so() -> None:
    with pytest.raises(OptionError, match="finder 'ks' takes NAME=VALUE with no name: it has no options."):
        resolve_finder("ks", ["alpha=0.1"])


def test_unknown_names_are_corrected() -> None:
    with pytest.raises(UnknownNameError, match="Unknown finder 'magnitud'. Did you mean 'magnitude'?"):
        resolve_finder("magnitud", [])
    with pytest.raises(UnknownNameError, match="Unknown granularity 'tokenrows'. Did you mean 'token_rows'?"):
        resolve_units("tokenrows", [])
    with pytest.raises(UnknownNameError, match="Unknown finder 'kss'"):
        resolve_method("token_rows", "kss", None)


def test_selectors() -> None:
    assert resolve_selector(None, None, None, None) == Alpha(0.05)
    assert resolve_selector(0.2, "holm", None, None) == Alpha(0.2, "holm")
    assert resolve_selector(None, "bh", None, None) == Alpha(0.05, "bh")
    assert resolve_selector(None, None, 7, None) == TopK(7)
    assert resolve_selector(None, None, None, 0.25) == Density(0.25)
    with pytest.raises(OptionError, match=r"--alpha 0.1 and --density 0.2: give one of --alpha, --top-k, --density."):
        resolve_selector(0.1, None, None, 0.2)
    with pytest.raises(OptionError, match=r"--correction bh corrects p-values, which --top-k 3 does not look at."):
        resolve_selector(None, "bh", 3, None)


def test_a_finder_of_other_evidence_is_refused_at_once() -> None:
    with pytest.raises(OptionError, match="Finder 'snip' looks at a model and batches .*, and this command at two"):
        resolve_method("heads", "snip", [])


def test_every_registered_method_resolves_by_name() -> None:
    assert all(resolve_finder(name, []) == entry() for name, entry in FINDERS.items())
    assert all(resolve_units(name, []) == entry() for name, entry in GRANULARITIES.items())
