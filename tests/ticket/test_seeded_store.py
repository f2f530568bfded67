"""Tickets stored as a seed and one bit for each searched unit."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from ks_lottery.errors import OptionError, TicketError
from ks_lottery.ticket.freeze_pattern import FREE, LOCKED, FreezePattern, FrozenCounts
from ks_lottery.ticket.identity import BaseIdentity
from ks_lottery.ticket.seeded_store import bits_per_weight, read_seeded, write_seeded
from ks_lottery.ticket.ticket import Kind, Provenance, Selection, Ticket
from ks_lottery.units.slab import Slab, UnitGroup

HEADER = "ks_lottery_seeded_ticket"


def example(
    sizes: tuple[int, ...] = (300, 100),
    pruned: float = 0.49,
    locked: float = 0.21,
    kind: Kind = "weight",
    seed: int = 3,
) -> tuple[Ticket, FreezePattern]:
    """A ticket with about half of the free weights of each matrix, and its pattern."""
    shapes = {f"layers.{number}.weight": (size // 10, 10) for number, size in enumerate(sizes)}
    counts = {
        name: FrozenCounts(size, round(pruned * size), round(locked * size))
        for name, size in zip(shapes, sizes, strict=True)
    }
    pattern = FreezePattern(seed, counts)
    selections = {}
    for name, size in zip(shapes, sizes, strict=True):
        drawn = pattern.of_group(name)
        free = np.random.default_rng(seed).random(size) < 0.5
        units = np.flatnonzero((drawn == LOCKED) | ((drawn == FREE) & free))
        selections[name] = Selection(UnitGroup(name, (Slab(name, None),), size), units, {"score": units / 7})
    base = BaseIdentity("toy", None, "perceptron", shapes, sum(sizes), "ab" * 32)
    return Ticket(kind, "weights", selections, base, Provenance("partially_frozen", {"seed": seed})), pattern


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "ticket.seeded.safetensors"


def header_of(file: Path) -> dict[str, Any]:
    with safe_open(file, "numpy") as content:
        header: dict[str, Any] = json.loads(content.metadata()[HEADER])
        return header


def rewrite(file: Path, bits: np.ndarray | None = None, **changes: Any) -> None:
    """The file with other bits, or other values in its header."""
    with safe_open(file, "numpy") as content:
        header, old = json.loads(content.metadata()[HEADER]), content.get_tensor("bits")
    save_file({"bits": old if bits is None else bits}, file, {HEADER: json.dumps({**header, **changes})})


@pytest.mark.parametrize("kind", ["weight", "update"])
@pytest.mark.parametrize(("pruned", "locked"), [(0.49, 0.21), (0.0, 0.0), (0.5, 0.0), (0.0, 0.9)])
def test_the_same_ticket_comes_back(file: Path, kind: Kind, pruned: float, locked: float) -> None:
    ticket, pattern = example(pruned=pruned, locked=locked, kind=kind)
    write_seeded(ticket, pattern, file)
    read = read_seeded(file, ticket.base)
    assert read.fingerprint == ticket.fingerprint
    assert all((read.indices[name] == units).all() for name, units in ticket.indices.items())
    assert (read.kind, read.granularity, read.base, read.provenance) == (
        kind, ticket.granularity, ticket.base, ticket.provenance
    )  # fmt: skip
    assert not any(selection.columns for selection in read.selections.values())


def test_a_file_is_as_large_as_its_free_units(tmp_path: Path) -> None:
    """The paper's account, 1 / (1 - .7) = 3.3, on files: one bit for each free weight, and a header."""
    sizes = (400_000, 1_200_000, 400_000)
    total, bytes_of = sum(sizes), {}
    for pruned, locked in ((0.0, 0.0), (0.49, 0.21)):
        ticket, pattern = example(sizes, pruned, locked)
        path = tmp_path / f"{pruned}.safetensors"
        write_seeded(ticket, pattern, path)
        with safe_open(path, "numpy") as content:
            payload = content.get_tensor("bits").nbytes
        assert payload == round(total * (1 - pruned - locked) / 8)
        bytes_of[pruned] = path.stat().st_size
        assert bytes_of[pruned] - payload < 2000
    assert bytes_of[0.49] / bytes_of[0.0] == pytest.approx(0.30, abs=0.006)
    assert bytes_of[0.0] / bytes_of[0.49] == pytest.approx(3.3, abs=0.05)
    ticket.save(tmp_path)
    assert (tmp_path / "ticket.safetensors").stat().st_size > 50 * bytes_of[0.49]


@pytest.mark.parametrize(
    ("density", "entropy", "index"), [(0.1, 0.469, 3.2), (0.01, 0.081, 0.32), (0.001, 0.0114, 0.032)]
)
def test_at_low_densities_other_codes_are_shorter(density: float, entropy: float, index: float) -> None:
    bits = bits_per_weight(density)
    assert bits["bitmap"] == 1.0
    assert bits["entropy"] == pytest.approx(entropy, abs=5e-4)
    assert bits["index"] == pytest.approx(index)


@pytest.mark.parametrize("density", [0.0, 1.0, float("nan")])
def test_densities_out_of_range_are_refused(density: float) -> None:
    with pytest.raises(OptionError, match=r"bits_per_weight\(.*must lie between 0 and 1"):
        bits_per_weight(density)


class TestWriting:
    def test_a_ticket_of_another_pattern_is_refused(self, file: Path) -> None:
        ticket, pattern = example()
        other = FreezePattern(4, pattern.counts)
        with pytest.raises(TicketError, match=r"has the pruned unit \d+ of group 'layers.0.weight', and \d+ more"):
            write_seeded(ticket, other, file)
        fewer = ticket.with_units({"layers.0.weight": [int(ticket.indices["layers.0.weight"][0])]}, ticket.provenance)
        with pytest.raises(TicketError, match=r"lacks the locked unit \d+ of group 'layers.0.weight'"):
            write_seeded(fewer, pattern, file)
        assert not file.exists()

    def test_a_pattern_over_other_groups_is_refused(self, file: Path) -> None:
        ticket, _ = example()
        _, other = example((300, 200))
        with pytest.raises(TicketError, match="Group 'layers.1.weight' has 100 units in the ticket and 200 in the"):
            write_seeded(ticket, other, file)
        _, fewer = example((300,))
        with pytest.raises(TicketError, match="has 100 units in the ticket and no in the freeze pattern"):
            write_seeded(ticket, fewer, file)

    def test_what_could_not_be_read_is_not_written(self, file: Path) -> None:
        ticket, pattern = example((2_000_000,), pruned=0.9999, locked=0.0)
        with pytest.raises(TicketError, match="200 of 2000000 units are free; at least one in 1000 must be"):
            write_seeded(ticket, pattern, file)

    def test_another_ending_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(OptionError, match=r"the name must end in '.safetensors'"):
            write_seeded(*example(), tmp_path / "ticket.bin")


class TestReading:
    def test_another_base_is_refused(self, file: Path) -> None:
        ticket, pattern = example()
        write_seeded(ticket, pattern, file)
        other = BaseIdentity("other", None, "perceptron", ticket.base.shapes, 400, "cd" * 32)
        with pytest.raises(TicketError, match="belongs to the base model 'toy', not to 'other'.*other weights"):
            read_seeded(file, other)

    def test_no_file_and_other_files_are_refused(self, file: Path, tmp_path: Path) -> None:
        with pytest.raises(TicketError, match=r"There is no ticket at .*write_seeded"):
            read_seeded(file)
        ticket, pattern = example()
        ticket.save(tmp_path)
        with pytest.raises(
            TicketError, match=r"not a seeded ticket: .* has no 'ks_lottery_seeded_ticket'.*Ticket.load"
        ):
            read_seeded(tmp_path / "ticket.safetensors")
        write_seeded(ticket, pattern, file)
        with pytest.raises(TicketError, match="not a ticket"):
            Ticket.load(file)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"format": 2}, "has format 2; this version of ks_lottery reads 1"),
            ({"kind": "update"}, "was changed after it was written"),
            ({"fingerprint": "00"}, "its header says 00"),
            ({"pattern": {"seed": 4}}, "malformed: 'counts'"),
            ({"pattern": []}, "malformed"),
            ({"groups": {}}, "malformed"),
            ({"base": {}}, "malformed"),
        ],
    )
    def test_another_header_is_refused(self, file: Path, changes: dict[str, Any], message: str) -> None:
        write_seeded(*example(), file)
        rewrite(file, **changes)
        with pytest.raises(TicketError, match=message):
            read_seeded(file)

    def test_another_seed_is_another_ticket(self, file: Path) -> None:
        write_seeded(*example(), file)
        rewrite(file, pattern={**header_of(file)["pattern"], "seed": 4})
        with pytest.raises(TicketError, match="was changed after it was written, or its pattern was drawn by other"):
            read_seeded(file)

    def test_bits_too_few_too_many_and_of_other_kinds_are_refused(self, file: Path) -> None:
        write_seeded(*example(sizes=(300, 90)), file)
        free = 300 - 147 - 63 + 90 - 44 - 19
        bits = np.zeros(-(-free // 8), dtype=np.uint8)
        for wrong in (bits[:-1], np.append(bits, np.uint8(0))):
            rewrite(file, wrong)
            with pytest.raises(TicketError, match=f"{free} free units take 15 bytes, but it holds {len(wrong)}"):
                read_seeded(file)
        bits[-1] = 1
        rewrite(file, bits)
        with pytest.raises(TicketError, match="the bits behind the last unit are not 0"):
            read_seeded(file)
        for tensor in (bits.astype(np.int16), bits.reshape(1, -1)):
            rewrite(file, tensor)
            with pytest.raises(TicketError, match=r"holds \['bits'\], where a seeded ticket holds 'bits' alone"):
                read_seeded(file)

    def test_a_small_file_draws_no_large_pattern(self, file: Path) -> None:
        write_seeded(*example(sizes=(100,)), file)
        header = header_of(file)
        group = {**header["groups"][0], "num_units": 2**40}
        counts = {group["name"]: [2**40, 2**40 - 30, 0]}
        rewrite(file, groups=[group], pattern={"seed": 3, "counts": counts})
        with pytest.raises(TicketError, match=r"30 of 1099511627776 units are free; at least one in 1000 must be"):
            read_seeded(file)

    def test_a_group_that_stands_twice_is_refused(self, file: Path) -> None:
        write_seeded(*example(sizes=(100,)), file)
        rewrite(file, groups=header_of(file)["groups"] * 2)
        with pytest.raises(TicketError, match="2 groups have 1 names"):
            read_seeded(file)

    def test_a_truncated_file_is_refused_wherever_it_ends(self, file: Path) -> None:
        write_seeded(*example(), file)
        content = file.read_bytes()
        for length in {*range(0, len(content), 37), len(content) - 1}:
            file.write_bytes(content[:length])
            with pytest.raises(TicketError, match="cannot be read"):
                read_seeded(file)

    @given(data=st.data())
    @settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_a_damaged_file_is_refused_or_still_the_same_ticket(self, file: Path, data: st.DataObject) -> None:
        ticket, pattern = example(sizes=(50, 30))
        write_seeded(ticket, pattern, file)
        content = bytearray(file.read_bytes())
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] ^= data.draw(st.integers(1, 255))
        file.write_bytes(content)
        with suppress(TicketError):
            assert read_seeded(file) == ticket

    def test_every_flipped_bit_of_the_units_is_noticed(self, file: Path) -> None:
        write_seeded(*example(sizes=(50, 30)), file)
        content = file.read_bytes()
        for byte in (1, 2, 3):
            for bit in range(8):
                damaged = bytearray(content)
                damaged[-byte] ^= 1 << bit
                file.write_bytes(damaged)
                with pytest.raises(TicketError, match="changed after it was written|bits behind the last unit"):
                    read_seeded(file)
