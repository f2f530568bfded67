"""A ticket from anywhere is refused by name of what is wrong, or it is a ticket in every respect."""

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save

from ks_lottery.errors import TicketError
from ks_lottery.ticket.ticket import Ticket
from tests.fuzz.seed_corpus import a_ticket
from tests.safety.files import entry, safetensors_bytes, with_header

DEEP = '{"format": 1, "kind": ' + "[" * 100_000 + "]" * 100_000 + "}"
Header = dict[str, Any]


def written(folder: Path) -> bytes:
    a_ticket().save(folder)
    return (folder / "ticket.safetensors").read_bytes()


def refusal(folder: Path, content: bytes) -> str:
    """The message with which a file is refused, and that nothing near a thousand times its size was taken for it."""
    (folder / "ticket.safetensors").write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(TicketError) as caught:
            Ticket.load(folder)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    message = str(caught.value)
    assert peak < 2**20 + 100 * len(content)
    assert str(folder) in message
    assert len(message) < 2000
    return message


HEADERS: dict[str, tuple[Callable[[Header], Any], str]] = {
    "no object": (lambda h: [h], "its metadata has no 'ks_lottery_ticket'"),
    "another format": (lambda h: h.update(format="1" * 5000), "has format '1111"),
    "no kind": (lambda h: h.pop("kind"), "'kind' is None, which must be a str"),
    "kind of another type": (lambda h: h.update(kind=["update"]), "'kind' is ['update'], which must be a str"),
    "unknown kind": (lambda h: h.update(kind="x"), "Ticket kind 'x'"),
    "granularity of another type": (lambda h: h.update(granularity=3), "'granularity' is 3, which must be a str"),
    "no provenance": (lambda h: h.update(provenance=None), "'provenance' is None, which must be a dict"),
    "method of another type": (lambda h: h["provenance"].update(method=1), "'method' is 1, which must be a str"),
    "details of another type": (lambda h: h["provenance"].update(details=[]), "'details' is [], which must be a dict"),
    "no base": (lambda h: h.update(base=[]), "'base' is [], which must be a dict"),
    "digest of another type": (lambda h: h["base"].update(digest=None), "'digest' is None, which must be a str"),
    "revision of another type": (lambda h: h["base"].update(revision=7), "'revision' is 7, which must be a str"),
    "negative count": (lambda h: h["base"].update(num_parameters=-1), "'num_parameters' is -1"),
    "a field too many": (lambda h: h["base"].update(secret=1), "unexpected keyword argument 'secret'"),
    "shape of text": (lambda h: h["base"]["shapes"].update({"norm.weight": "32"}), "'norm.weight' is '32'"),
    "negative size": (lambda h: h["base"]["shapes"].update({"norm.weight": [-32]}), "'norm.weight' is [-32]"),
    "size with a point": (lambda h: h["base"]["shapes"].update({"norm.weight": [32.0]}), "'norm.weight' is [32.0]"),
    "endless shape": (lambda h: h["base"]["shapes"].update({"norm.weight": [2**40] * 40}), "a possible shape"),
    "no groups": (lambda h: h.update(groups=[]), "'groups' is [], which must be at least one group"),
    "a group that is text": (lambda h: h.update(groups=["input"]), "which must be a list of objects"),
    "a group twice": (lambda h: h["groups"].append(h["groups"][0]), "each of another name"),
    "name of another type": (lambda h: h["groups"][0].update(name=1), "'name' is 1, which must be a str"),
    "units with a point": (lambda h: h["groups"][0].update(num_units=64.0), "'num_units' is 64.0"),
    "units that are text": (lambda h: h["groups"][0].update(num_units="64"), "'num_units' is '64'"),
    "no units": (lambda h: h["groups"][0].update(num_units=0), "has 0 units in 1 slabs"),
    "more units than rows": (lambda h: h["groups"][0].update(num_units=65), "is 65, which must be at most 64"),
    "endless units": (lambda h: h["groups"][0].update(num_units=10**30), "which must be at most 64"),
    "no slabs": (lambda h: h["groups"][0].update(slabs=[]), "in 0 slabs"),
    "a slab that is text": (lambda h: h["groups"][0].update(slabs=["x"]), "'slabs' is 'x'"),
    "a slab of nothing": (lambda h: h["groups"][0]["slabs"][0].update(width=0), "'slabs' is"),
    "a slab that starts before": (lambda h: h["groups"][0]["slabs"][0].update(start=-1), "'slabs' is"),
    "a slab that starts late": (
        lambda h: h["groups"][0]["slabs"][0].update(start=1),
        "is 65, which must be at most 64",
    ),
    "an endless slab": (lambda h: h["groups"][0]["slabs"][0].update(width=2**40), "which must be at most 64"),
    "a slab of another parameter": (
        lambda h: h["groups"][0]["slabs"][0].update(parameter="x"),
        "'parameter' is 'x', which must be one of those with a shape",
    ),
    "a slab along nothing": (lambda h: h["groups"][0]["slabs"][0].update(dim=2), "lies along dimension 2"),
    "a slab of no expert": (lambda h: h["groups"][3]["slabs"][0].update(lead=[4]), "lies at leading indices (4,)"),
    "an expert that is text": (lambda h: h["groups"][3]["slabs"][0].update(lead="1"), "'slabs' is"),
    "another fingerprint": (lambda h: h.update(fingerprint="0" * 64), "was changed after it was written"),
    "a fingerprint of another type": (lambda h: h.update(fingerprint={}), "was changed after it was written"),
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_header_that_no_ticket_has_is_refused(case: str, tmp_path: Path) -> None:
    change, expected = HEADERS[case]
    whole = written(tmp_path)
    assert expected in refusal(tmp_path, with_header(whole, change))


ARRAYS: dict[str, tuple[dict[str, np.ndarray | None], str]] = {
    "no units of a group": ({"input.indices": None}, "group 'input' has no array of its units"),
    "units of floats": ({"input.indices": np.array([3.0, 5.0, 63.0])}, "'input.indices' is float64 of shape (3,)"),
    "units of int32": ({"input.indices": np.array([3, 5, 63], np.int32)}, "'input.indices' is int32 of shape (3,)"),
    "units of booleans": ({"input.indices": np.ones(3, bool)}, "'input.indices' is bool of shape (3,)"),
    "units in a matrix": ({"input.indices": np.array([[3, 5, 63]])}, "'input.indices' is int64 of shape (1, 3)"),
    "a negative unit": ({"input.indices": np.array([-1, 5, 63])}, "Unit -1 is not in group 'input'"),
    "a unit too far": ({"input.indices": np.array([3, 5, 64])}, "Unit 64 is not in group 'input'"),
    "a unit beyond all": ({"input.indices": np.array([3, 5, 2**63 - 1])}, "Unit 9223372036854775807 is not in group"),
    "a unit twice": ({"input.indices": np.array([3, 3, 63])}, "Unit 3 of group 'input' is selected twice"),
    "a column too short": ({"input.columns.log_p": np.zeros(2)}, "'input.columns.log_p' is float64 of shape (2,)"),
    "a column of one value": ({"input.columns.log_p": np.zeros(())}, "'input.columns.log_p' is float64 of shape ()"),
    "a column of integers": ({"input.columns.log_p": np.zeros(3, np.int64)}, "'input.columns.log_p' is int64"),
    "an array of no group": ({"payload": np.zeros(3)}, "array 'payload' is of none of its groups"),
    "a column of no group": ({"x.columns.y": np.zeros(3)}, "array 'x.columns.y' is of none of its groups"),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_arrays_that_no_ticket_has_are_refused(case: str, tmp_path: Path) -> None:
    whole = written(tmp_path)
    changes, expected = ARRAYS[case]
    arrays = {**load_file(tmp_path / "ticket.safetensors"), **changes}
    metadata = json.loads(whole[8 : 8 + int.from_bytes(whole[:8], "little")])["__metadata__"]
    content = save({name: values for name, values in arrays.items() if values is not None}, metadata)
    assert expected in refusal(tmp_path, content)


METADATA: dict[str, tuple[str, str]] = {
    "no JSON": ("{", "cannot be read"),
    "nested too deeply": (DEEP, "nested too deeply"),
    "a key twice": ('{"format": 1, "format": 1}', "it names 'format' twice"),
    "text that is no Unicode": ('{"format": 1, "kind": "\\ud800x", "\\ud800": 1}', "cannot be read"),
    "a number of ten thousand digits": ('{"format": ' + "9" * 10_000 + "}", "cannot be read"),
    "millions of lists": ("[" + "[]," * 2**21 + "[]]", "lists, objects and commas"),
}


@pytest.mark.parametrize("case", METADATA)
def test_metadata_that_is_no_header_is_refused(case: str, tmp_path: Path) -> None:
    text, expected = METADATA[case]
    content = safetensors_bytes({"__metadata__": {"ks_lottery_ticket": text}})
    assert expected in refusal(tmp_path, content)


def test_a_header_that_claims_more_than_there_is_takes_no_memory(tmp_path: Path) -> None:
    for claimed in (2**20, 2**40, 2**63, 2**64 - 1):
        message = refusal(tmp_path, safetensors_bytes({"x": entry("I64", [1], 0, 8)}, b"\0" * 8, length=claimed))
        assert f"its header claims {claimed}" in message


def test_a_ticket_of_any_units_is_read_as_it_was_written(tmp_path: Path) -> None:
    written(tmp_path)
    read = Ticket.load(tmp_path)
    assert read == a_ticket()
    assert read.provenance == a_ticket().provenance
    assert read.selections["input"].columns["log_p"].tolist() == [-np.inf, -1.0, 0.0]
