"""Several ranks find what one process finds, each from its own share of the files.

Ranks are threads here, each with checkpoints of its own; tests/training/test_many_devices.py has processes.
"""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ks_lottery.checkpoints.reader import FolderCheckpoint, open_checkpoint
from ks_lottery.errors import CheckpointError, LotteryError, OptionError, TicketError, UnitError
from ks_lottery.finders import ranks as ranks_module
from ks_lottery.finders import search
from ks_lottery.finders.base import FINDERS, Shift, UnitScores
from ks_lottery.finders.ranks import Ranks, ranks_for
from ks_lottery.finders.search import find_ticket, score_units
from ks_lottery.finders.select import Alpha, TopK
from ks_lottery.finders.shares import UnitSize, share_out, with_witnesses
from ks_lottery.finders.shift.magnitude import Magnitude
from ks_lottery.units.granularity import GRANULARITIES
from ks_lottery.units.heads import Heads
from ks_lottery.units.slab import Slab, UnitGroup
from tests.tiny_models import tiny_llama

PAIRS = [
    (name, units)
    for name, entry in FINDERS.items()
    for units in GRANULARITIES.names()
    if entry.needs is Shift and (name, units) != ("ks", "weights")
]
WORKER = Path(__file__).with_name("two_ranks.py")


def together(size: int, call: Callable[[Ranks], Any]) -> list[Any]:
    """What `call` returns, or the exception that it raises, on each of several ranks."""
    barrier, sent, results = threading.Barrier(size, timeout=60), [b""] * size, [None] * size

    def run(rank: int) -> None:
        def exchange(mine: bytes) -> list[bytes]:
            sent[rank] = mine
            barrier.wait()
            received = list(sent)
            barrier.wait()
            return received

        try:
            results[rank] = call(Ranks(rank, size, exchange))
        except Exception as error:
            results[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Folders of a model before and after it moved, more in later layers and later rows; each in many files."""
    folder = tmp_path_factory.mktemp("pair")
    before, after = tiny_llama(), tiny_llama()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for number, parameter in enumerate(after.parameters()):
            size = 0.004 * (1 + number) * torch.linspace(0, 1, len(parameter))
            noise = torch.randn(parameter.shape, generator=generator)
            parameter += noise * size.reshape(-1, *[1] * (parameter.dim() - 1))
    before.save_pretrained(folder / "before", max_shard_size="12KB")
    after.save_pretrained(folder / "after", max_shard_size="12KB")
    return str(folder / "before"), str(folder / "after")


@pytest.fixture
def as_ranks(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """Run a function of the package root on several ranks at once."""
    here = threading.local()
    monkeypatch.setattr(search, "ranks_for", lambda distributed: here.ranks if distributed else Ranks())

    def run(size: int, call: Callable[[], Any]) -> list[Any]:
        def on_rank(ranks: Ranks) -> Any:
            here.ranks = ranks
            return call()

        return together(size, on_rank)

    return run


def assert_same_scores(got: list[UnitScores], expected: list[UnitScores]) -> None:
    """Equal to the last bit, groups and columns included."""
    assert [entry.group for entry in got] == [entry.group for entry in expected]
    for one, other in zip(got, expected, strict=True):
        assert list(one.columns) == list(other.columns)
        arrays = [(one.score, other.score), (one.changed, other.changed), (one.log_p, other.log_p)]
        for x, y in [*arrays, *((one.columns[name], other.columns[name]) for name in one.columns)]:
            assert (x is None) == (y is None)
            if x is not None:
                assert x.dtype == y.dtype
                assert x.tobytes() == y.tobytes()


@pytest.mark.parametrize(("name", "units"), PAIRS)
def test_the_scores_are_those_of_one_process(pair, as_ranks, name: str, units: str) -> None:
    expected = score_units(*pair, units, name)
    for got in as_ranks(3, lambda: score_units(*pair, units, name, distributed=True)):
        assert_same_scores(got, expected)


@pytest.mark.parametrize("selector", [Alpha(0.05), TopK(5), TopK(1, scope="group")])
def test_the_ticket_is_that_of_one_process(pair, as_ranks, selector: Any) -> None:
    expected = find_ticket(*pair, "neurons", "ks", selector)
    for got in as_ranks(3, lambda: find_ticket(*pair, "neurons", "ks", selector, distributed=True)):
        assert got == expected
        assert got.provenance == expected.provenance
        assert got.base == expected.base
        for name, selection in expected.selections.items():
            assert {key: column.tobytes() for key, column in got.selections[name].columns.items()} == {
                key: column.tobytes() for key, column in selection.columns.items()
            }


def test_nothing_selected_is_said_on_every_rank(pair, as_ranks) -> None:
    with pytest.raises(TicketError, match="the smallest of 63 p-values is") as expected:
        find_ticket(*pair, selector=Alpha(1e-300))
    found = as_ranks(2, lambda: find_ticket(*pair, selector=Alpha(1e-300), distributed=True))
    assert [(type(error), str(error)) for error in found] == [(TicketError, str(expected.value))] * 2


def test_more_ranks_than_units(pair, as_ranks) -> None:
    expected = score_units(*pair, Heads(only=("layers.0.*",)))
    for got in as_ranks(5, lambda: score_units(*pair, Heads(only=("layers.0.*",)), distributed=True)):
        assert_same_scores(got, expected)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 50)), min_size=1, max_size=8), st.integers(1, 9))
def test_shares_are_equal_and_complete(shapes: list[tuple[int, int]], ranks: int) -> None:
    groups = [UnitGroup(str(i), (Slab(str(i), 0),), count) for i, (count, _) in enumerate(shapes)]
    sizes = [UnitSize((values,), values) for _, values in shapes]
    shares = share_out(groups, sizes, ranks)
    everything = [(part.group, unit) for share in shares for part in share for unit in range(part.start, part.stop)]
    assert everything == [(place, unit) for place, group in enumerate(groups) for unit in range(group.num_units)]
    total = sum(count * values for count, values in shapes)
    for share in shares:
        mine = sum((part.stop - part.start) * sizes[part.group].num_bytes for part in share)
        assert abs(mine - total / ranks) < max(values for _, values in shapes)
        kinds = {sizes[part.group].values for part, _ in with_witnesses(share, sizes)}
        assert kinds == {size.values for size in sizes}
        assert [part for part, wanted in with_witnesses(share, sizes) if wanted] == share


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 3), st.integers(1, 3), st.integers(1, 4), st.sampled_from([None, 0, 1]))
def test_a_part_of_a_group_takes_the_same_weights(start: int, count: int, width: int, dim: int | None) -> None:
    values = np.arange(2 * 40 * 40).reshape(2, 40, 40)
    slab = Slab("w", None if dim is None else dim + 1, width, 2, lead=(1,))
    group = UnitGroup("g", (slab,), 6)
    part = ranks_module.Part(0, start, start + count).of([group])
    assert part.num_units == count
    got = part.slabs[0].take(values, np.arange(count))
    assert np.array_equal(got, slab.take(values, np.arange(start, start + count)))
    assert ranks_module.Part(0, 0, 6).of([group]) is group


def opened(checkpoint: FolderCheckpoint) -> set[str]:
    return set(checkpoint._files)


def test_a_rank_opens_the_files_of_its_share(pair, as_ranks) -> None:
    """Ranks after the first touch only their own files; the first reads the headers of `before` as well."""
    sides = threading.local()
    seen: list[tuple[set[str], set[str]]] = []

    def find() -> None:
        sides.both = open_checkpoint(pair[0]), open_checkpoint(pair[1])
        score_units(*sides.both, "heads", distributed=True)
        seen.append((opened(sides.both[0]), opened(sides.both[1])))

    assert as_ranks(2, find) == [None, None]
    layers = [{f for name, (f, _) in open_checkpoint(side)._places.items() if f"layers.{layer}.self_attn" in name}
              for layer in (0, 1) for side in pair]  # fmt: skip
    first, second = sorted(seen, key=lambda both: -len(both[0]))
    assert (second[0], second[1]) == (layers[2], layers[3])
    assert first[1] == layers[1]
    assert first[0] == {file for file, _ in open_checkpoint(pair[0])._places.values()}


def broken(pair: tuple[str, str], folder: Path, parameter: str, row: int) -> str:
    """A copy of `after` with a NaN."""
    model = tiny_llama().from_pretrained(pair[1])
    with torch.no_grad():
        model.get_parameter(parameter)[row, 1] = float("nan")
    model.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("row", [3, 50])
def test_an_error_on_one_rank_is_an_error_on_all(pair, as_ranks, tmp_path: Path, row: int) -> None:
    after = broken(pair, tmp_path, "model.embed_tokens.weight", row)
    with pytest.raises(UnitError, match=f"Row {row} of") as expected:
        find_ticket(pair[0], after)
    found = as_ranks(2, lambda: find_ticket(pair[0], after, distributed=True))
    failed = row // 32
    assert str(found[failed]) == str(expected.value)
    assert str(found[1 - failed]) == f"On rank {failed}: {expected.value}"
    assert [type(error) for error in found] == [UnitError, UnitError]


def test_a_folder_that_one_rank_lacks_is_an_error_on_all(pair, as_ranks) -> None:
    names = iter([pair[1], "./nowhere", pair[1]])
    found = as_ranks(3, lambda: find_ticket(pair[0], next(names), distributed=True))
    assert {type(error) for error in found} == {CheckpointError}
    (lacking,) = [str(error) for error in found if not str(error).startswith("On rank ")]
    assert "'./nowhere' is not a folder" in lacking


def test_foreign_errors_are_named(pair) -> None:
    def fail() -> bytes:
        raise OSError("the disk is gone")

    found = together(2, lambda ranks: ranks.step("read", fail if ranks.rank else bytes))
    assert type(found[0]) is LotteryError
    assert str(found[0]) == "On rank 1: OSError: the disk is gone"
    assert type(found[1]) is OSError


def test_the_first_of_two_errors_counts_everywhere() -> None:
    def fail(rank: int) -> bytes:
        raise TicketError(f"of {rank}")

    found = together(3, lambda ranks: ranks.step("fail", lambda: fail(ranks.rank) if ranks.rank else b""))
    assert list(map(str, found)) == ["On rank 1: of 1", "of 1", "On rank 1: of 1"]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ([{"finder": "ks"}, {"finder": "magnitude"}], "to measure the units to score by (ks|magnitude)"),
        ([{"finder": Magnitude()}, {"finder": Magnitude("before")}], "'relative_to': '(nothing|before)'"),
        ([{"units": Heads()}, {"units": "neurons"}], "to list the units of (heads|neurons)"),
        ([{"candidates": [1, 2, 3]}, {"candidates": [1, 2, 4]}], "3 selected units with the digest [0-9a-f]{16}"),
    ],
)
def test_ranks_that_ask_for_different_things_are_refused(pair, as_ranks, options: list[dict], named: str) -> None:
    each = iter(options)
    found = as_ranks(2, lambda: find_ticket(*pair, **{"selector": TopK(3), **next(each)}, distributed=True))
    for error in found:
        with pytest.raises(OptionError, match=rf"Rank [01] is about (?s:.*){named}(?s:.*) the same arguments"):
            raise error


def test_live_models_are_refused_on_several_ranks(pair, as_ranks) -> None:
    live = tiny_llama()
    for error in as_ranks(2, lambda: find_ticket(pair[0], live, selector=TopK(1), distributed=True)):
        with pytest.raises(OptionError, match="distributed=True, but after = 'LlamaForCausalLM' is a live model"):
            raise error
    one, same = find_ticket(live, pair[1], selector=TopK(1)), find_ticket(pair[0], pair[1], selector=TopK(1))
    assert as_ranks(1, lambda: find_ticket(live, pair[1], selector=TopK(1), distributed=True)) == [one] == [same]


def test_pools_that_are_streamed_are_refused_on_several_ranks(pair, as_ranks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_HELD_UNITS", 10)
    for error in as_ranks(2, lambda: find_ticket(*pair, selector=TopK(3), distributed=True)):
        with pytest.raises(OptionError, match="with 2 processes, but there are more than 10 units, .* in one process"):
            raise error
    assert len(as_ranks(1, lambda: find_ticket(*pair, selector=TopK(3), distributed=True))[0]) == 3


def test_a_process_alone_needs_no_process_group(pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert ranks_for(True) == ranks_for(False) == Ranks()
    assert find_ticket(*pair, selector=TopK(3), distributed=True) == find_ticket(*pair, selector=TopK(3))
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert ranks_for(False) == Ranks()
    with pytest.raises(OptionError, match=r"one of WORLD_SIZE=2 processes, .* Make accelerate.PartialState\(\) first"):
        find_ticket(*pair, distributed=True)
