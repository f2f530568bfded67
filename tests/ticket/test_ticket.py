"""The ticket as a value: equality, algebra, files, identity of the base model."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from ks_lottery.checkpoints.reader import open_checkpoint
from ks_lottery.errors import OptionError, TicketError
from ks_lottery.ticket.controls import count_like, frequency_like, random_like, structural_row, these_rows
from ks_lottery.ticket.identity import identify
from ks_lottery.ticket.ticket import Provenance, Selection, Ticket
from ks_lottery.units.token_rows import TokenRows
from tests.tiny_models import VOCABULARY, WIDTH, tiny_llama

EMBEDDING = "model.embed_tokens.weight"


def ticket(
    rows: list[int], model: torch.nn.Module | None = None, ends: str | None = None, kind: str = "update"
) -> Ticket:
    checkpoint = open_checkpoint(model or tiny_llama())
    groups = TokenRows(ends=ends).groups(checkpoint.layout())  # type: ignore[arg-type]
    base = identify(checkpoint, [slab.parameter for group in groups for slab in group.slabs])
    columns = {"statistic": np.array(rows) / 100}
    selections = {group.name: Selection(group, np.array(rows), columns) for group in groups}
    return Ticket(kind, "token_rows", selections, base, Provenance("hand"))  # type: ignore[arg-type]


def test_a_ticket_is_its_units_and_its_base() -> None:
    first, again = ticket([5, 3, 9]), ticket([9, 5, 3])
    assert first == again
    assert hash(first) == hash(again)
    assert first.indices["input"].tolist() == [3, 5, 9]
    assert first.selections["input"].columns["statistic"].tolist() == [0.03, 0.05, 0.09]
    assert first != ticket([3, 5])
    assert first != ticket([3, 5, 9], model=tiny_llama(seed=1))
    assert first != ticket([3, 5, 9], kind="weight")
    assert first != "a ticket"
    assert len(first) == 3
    assert repr(first).startswith("Ticket(update, token_rows, input: 3 of 64, by hand,")


def test_sizes() -> None:
    one = ticket([3, 5, 9])
    total = sum(parameter.numel() for parameter in tiny_llama().parameters())
    assert one.num_trainable() == 3 * WIDTH
    assert one.density() == 3 / VOCABULARY
    assert one.density("model") == 3 * WIDTH / total
    mask = one.masks()[EMBEDDING]
    assert mask.sum() == 3 * WIDTH
    assert mask[[3, 5, 9]].all()
    with pytest.raises(OptionError, match="density\\(scope='layer'\\): must be 'units' or 'model'"):
        one.density("layer")  # type: ignore[arg-type]


@given(st.sets(st.integers(0, 63), min_size=1), st.sets(st.integers(0, 63), min_size=1))
def test_algebra_is_that_of_sets(left: set[int], right: set[int]) -> None:
    one, other = _CACHE(left), _CACHE(right)
    assert one.jaccard(other) == len(left & right) / len(left | right)
    assert set((one | other).indices["input"].tolist()) == left | right
    for operation, expected in (("__and__", left & right), ("__sub__", left - right)):
        if expected:
            assert set(getattr(one, operation)(other).indices["input"].tolist()) == expected
        else:
            with pytest.raises(TicketError, match="selects none of 64 units"):
                getattr(one, operation)(other)


_BASE = ticket([0])


def _CACHE(units: set[int]) -> Ticket:
    return _BASE.with_units({"input": sorted(units)}, Provenance("drawn"))


def test_tickets_of_different_kinds_do_not_mix() -> None:
    one = ticket([1, 2])
    with pytest.raises(TicketError, match="Tickets of different kind cannot be combined: 'update' and 'weight'"):
        one & ticket([1], kind="weight")
    with pytest.raises(
        TicketError, match=r"over different unit groups cannot be combined: \['input'\] and \['input', 'o"
    ):
        one | ticket([1], ends="both")
    with pytest.raises(TicketError, match="the same architecture and shapes, but other weights"):
        one.jaccard(ticket([1], model=tiny_llama(seed=1)))


@pytest.mark.parametrize("name", ["folder", "file.safetensors"])
@pytest.mark.parametrize("ends", ["input", "both"])
def test_a_saved_ticket_comes_back_equal(tmp_path: Path, name: str, ends: str) -> None:
    one = ticket([3, 5, 9], ends=ends)
    one.save(tmp_path / name)
    back = Ticket.load(tmp_path / name)
    assert back == one
    assert back.base == one.base
    assert back.provenance == one.provenance
    assert back.selections["input"].columns["statistic"].tolist() == [0.03, 0.05, 0.09]
    one.save(tmp_path / "again.safetensors")
    file = tmp_path / name if name.endswith("safetensors") else tmp_path / name / "ticket.safetensors"
    assert file.read_bytes() == (tmp_path / "again.safetensors").read_bytes()


def test_damaged_tickets_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "ticket.safetensors"
    with pytest.raises(TicketError, match="There is no ticket at"):
        Ticket.load(tmp_path)
    save_file({"x": torch.ones(2)}, file)
    with pytest.raises(TicketError, match="is a safetensors file, but not a ticket"):
        Ticket.load(tmp_path)
    ticket([3, 5]).save(tmp_path)
    whole = file.read_bytes()
    file.write_bytes(whole[:-9])
    with pytest.raises(TicketError, match="cannot be read"):
        Ticket.load(tmp_path)
    file.write_bytes(whole.replace(b'\\"format\\": 1', b'\\"format\\": 9'))
    with pytest.raises(TicketError, match="has format 9; this version of ks_lottery reads 1"):
        Ticket.load(tmp_path)
    file.write_bytes(whole.replace(b'\\"base\\"', b'\\"bass\\"'))
    with pytest.raises(TicketError, match="is malformed: 'base'"):
        Ticket.load(tmp_path)


def test_a_ticket_changed_on_disk_is_refused(tmp_path: Path) -> None:
    ticket([3, 5]).save(tmp_path)
    file = tmp_path / "ticket.safetensors"
    metadata = _metadata(file)
    tensors = load_file(file)
    tensors["input.indices"][0] = 4
    save_file(tensors, file, metadata=metadata)
    with pytest.raises(TicketError, match="was changed after it was written"):
        Ticket.load(tmp_path)
    tensors["input.indices"][0] = 400
    save_file(tensors, file, metadata=metadata)
    with pytest.raises(TicketError, match="is malformed: Unit 400 is not in group 'input'"):
        Ticket.load(tmp_path)


def _metadata(file: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(file, "pt") as opened:
        return dict(opened.metadata())


def test_wrong_units_are_refused() -> None:
    group = ticket([1]).selections["input"].group
    with pytest.raises(TicketError, match="Unit 64 is not in group 'input', which has units 0 to 63"):
        Selection(group, np.array([1, 64]))
    with pytest.raises(TicketError, match="Unit -1 is not in group"):
        Selection(group, np.array([-1]))
    with pytest.raises(TicketError, match="Unit 7 of group 'input' is selected twice"):
        Selection(group, np.array([7, 1, 7]))
    with pytest.raises(TicketError, match=r"selects none of 64 units \(hand\). Loosen the selector"):
        ticket([])
    with pytest.raises(OptionError, match="Ticket kind 'subnet': must be 'update' or 'weight'"):
        ticket([1], kind="subnet")


def test_the_base_is_known_again_in_another_dtype(tmp_path: Path) -> None:
    model = tiny_llama()
    model.save_pretrained(tmp_path)
    stored = identify(open_checkpoint(tmp_path), [EMBEDDING])
    for same in (model, tiny_llama(dtype=torch.bfloat16)):
        live = identify(open_checkpoint(same), [EMBEDDING])
        stored.require_same(live)
        assert live.digest == stored.digest


def test_another_base_is_refused_with_what_differs() -> None:
    base = identify(open_checkpoint(tiny_llama()), [EMBEDDING])
    with pytest.raises(TicketError, match="but other weights"):
        base.require_same(identify(open_checkpoint(tiny_llama(seed=1)), [EMBEDDING]))
    with pytest.raises(TicketError, match=r"of shape \(64, 32\) and \(70, 32\)"):
        base.require_same(identify(open_checkpoint(tiny_llama(vocabulary=70)), [EMBEDDING]))
    other = tiny_llama()
    other.config.model_type = "mistral"
    with pytest.raises(TicketError, match="architecture 'llama' and 'mistral'"):
        base.require_same(identify(open_checkpoint(other), [EMBEDDING]))


def test_random_control() -> None:
    one = ticket([3, 5, 9])
    control = random_like(one, seed=0, exclude=[0, 1, 2, 3, 5, 9])
    assert len(control) == 3
    assert not set(control.indices["input"]) & {0, 1, 2, 3, 5, 9}
    assert control == random_like(one, seed=0, exclude=[0, 1, 2, 3, 5, 9])
    assert control != random_like(one, seed=1, exclude=[0, 1, 2, 3, 5, 9])
    assert set(random_like(one, seed=0, among=[7, 8, 9, 10], exclude=[9]).indices["input"]) == {7, 8, 10}
    with pytest.raises(TicketError, match="needs 3 units of group 'input', but only 2 are left"):
        random_like(one, seed=0, among=[1, 2])


def test_random_control_is_uniform() -> None:
    counts = np.zeros(VOCABULARY)
    for seed in range(2000):
        counts[random_like(_BASE, seed).indices["input"]] += 1
    assert abs(counts / 2000 - 1 / VOCABULARY).max() < 5 * np.sqrt(1 / VOCABULARY / 2000)


def test_frequency_control_takes_the_most_frequent_and_the_smaller_id_on_ties() -> None:
    counts = np.zeros(VOCABULARY, dtype=int)
    counts[[10, 20, 30, 40]] = [5, 9, 5, 5]
    assert frequency_like(ticket([1, 2, 3]), counts).indices["input"].tolist() == [10, 20, 30]
    assert frequency_like(ticket([1, 2]), counts, exclude=[20]).indices["input"].tolist() == [10, 30]
    with pytest.raises(OptionError, match=r"counts has shape \(3,\), but group 'input' has 64 units"):
        frequency_like(ticket([1]), [1, 2, 3])


def test_count_control_takes_the_nearest_counts_and_none_of_the_ticket() -> None:
    counts = np.zeros(VOCABULARY, dtype=int)
    counts[[1, 2, 10, 11, 12, 13]] = [100, 10, 99, 50, 11, 9]
    assert count_like(ticket([1, 2]), counts, seed=0, nearest=1).indices["input"].tolist() == [10, 12]
    assert count_like(ticket([1, 2]), counts, 0, exclude=[10, 12], nearest=1).indices["input"].tolist() == [11, 13]
    drawn = {tuple(count_like(ticket([1, 2]), counts, seed, nearest=2).indices["input"]) for seed in range(40)}
    assert {row for rows in drawn for row in rows} == {10, 11, 12, 13}
    assert count_like(ticket([1, 2]), counts, seed=3) == count_like(ticket([1, 2]), counts, seed=3)
    with pytest.raises(TicketError, match="equal counts needs 2 units of group 'input', but only 1"):
        count_like(ticket([1, 2]), counts, 0, exclude=[10, 11, 12])
    with pytest.raises(OptionError, match=r"counts has shape \(3,\)"):
        count_like(ticket([1]), [1, 2, 3], 0)


def test_single_rows() -> None:
    assert structural_row(ticket([1, 2]), 13).indices["input"].tolist() == [13]
    rows = these_rows(ticket([1], ends="both"), [4, 4, 2], "prompt_rows")
    assert {name: units.tolist() for name, units in rows.indices.items()} == {"input": [2, 4], "output": [2, 4]}
    assert rows.provenance.method == "prompt_rows"
