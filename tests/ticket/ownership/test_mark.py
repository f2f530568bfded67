"""V2: a mark is written without changing the density, read back, and found with no other key."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaForCausalLM

from ks_lottery.checkpoints.reader import open_checkpoint
from ks_lottery.errors import CheckpointError, OptionError, TicketError, UnitError
from ks_lottery.ticket.ownership.attacks import drop_smallest
from ks_lottery.ticket.ownership.cells import all_places, best_places, mask_of, matching, occupied
from ks_lottery.ticket.ownership.chance import log10_tail
from ks_lottery.ticket.ownership.credential import encode, written_cells
from ks_lottery.ticket.ownership.lift import lift_new_weights, lifted_values
from ks_lottery.ticket.ownership.mark import embed_mark, magnitudes
from ks_lottery.ticket.ownership.mark_key import keyed_pattern, unmasked
from ks_lottery.ticket.ownership.reading import cells_at, open_suspect, verify_mark
from ks_lottery.ticket.ticket import Ticket
from tests.ticket.ownership.masks import OWNER, QUERY, SECRET, gaussian_model, magnitude_ticket

MODEL = gaussian_model()
TICKET = magnitude_ticket(MODEL, 0.2)
MARKED, KEY = embed_mark(TICKET, MODEL, OWNER, secret=SECRET)


def zeroed(model: LlamaForCausalLM, ticket: Ticket) -> LlamaForCausalLM:
    """The model with zeros in what the ticket does not select."""
    with torch.no_grad():
        for name, mask in ticket.masks().items():
            model.get_parameter(name).mul_(mask)
    return model


def test_a_mark_is_written_and_read() -> None:
    reading = verify_mark(MARKED, KEY)
    assert (reading.cells, reading.matches, reading.match, reading.text) == (623, 623, 1.0, OWNER)
    assert reading.places == all_places([(128, 128)])
    assert reading.log10_p == pytest.approx(log10_tail(623, 623, 0.5) + np.log10(reading.places))
    assert reading.verified
    before = verify_mark(TICKET, KEY)
    assert not before.verified
    assert before.text is None
    assert 0.45 < before.match < 0.6


@given(
    st.integers(0, 10**6),
    st.floats(0.1, 0.6),
    st.sampled_from([(1, 21), (1, 45), (2, 29), (3, 29), (3, 37), (5, 21)]),
    st.text("abcdefg ÄÖ", min_size=1, max_size=3),
)
@settings(deadline=None, max_examples=40)
def test_density_is_kept_exactly_and_the_cells_are_right(
    seed: int, density: float, cells: tuple[int, int], text: str
) -> None:
    """Masks without structure, any density, block and size: either there is no room, or every promise holds."""
    generator = np.random.default_rng(seed)
    units = TICKET.selections[QUERY].group.num_units
    ticket = TICKET.with_units({QUERY: generator.permutation(units)[: round(density * units)]}, TICKET.provenance)
    block, size = cells
    try:
        marked, key = embed_mark(ticket, MODEL, text, block=block, size=size, secret=generator.bytes(32))
    except TicketError as error:
        if "fits into no matrix with its number of selected weights unchanged" not in str(error):
            raise
        return
    assert len(marked) == len(ticket)
    assert marked.density() == ticket.density()
    assert (cells_at(marked, key) == key.pattern())[written_cells(size)].all()
    assert verify_mark(marked, key).text == text
    side = block * size
    changed = mask_of(marked, QUERY) ^ mask_of(ticket, QUERY)
    region = changed[key.row * block :, key.column * block :][:side, :side].reshape(size, block, size, block)
    assert not region.any(axis=(1, 3))[~written_cells(size)].any()  # function patterns keep the mask's own cells


def test_the_place_is_the_most_alike() -> None:
    found = matching(occupied(mask_of(TICKET, QUERY), 3), KEY.pattern(), written_cells(29))
    assert KEY.parameter == QUERY
    assert found[KEY.row, KEY.column] == found.max()


def test_the_new_weight_of_a_cell_is_its_largest() -> None:
    sizes = magnitudes(open_checkpoint(MODEL), QUERY)
    before, after = (
        mask_of(one, QUERY)[KEY.row * 3 :, KEY.column * 3 :][:87, :87].reshape(29, 3, 29, 3).swapaxes(1, 2)
        for one in (TICKET, MARKED)
    )
    blocks = sizes[KEY.row * 3 :, KEY.column * 3 :][:87, :87].reshape(29, 3, 29, 3).swapaxes(1, 2)
    filled = ~before.any(axis=(2, 3)) & after.any(axis=(2, 3))
    assert filled.sum() > 20
    largest = blocks[filled].reshape(-1, 9).argmax(axis=1)
    assert after[filled].reshape(-1, 9)[np.arange(len(largest)), largest].all()


def test_the_largest_of_several_matrices_is_marked_and_others_stay() -> None:
    model = gaussian_model(width=96)
    ticket = magnitude_ticket(model, 0.3, "*.self_attn.*")
    marked, key = embed_mark(ticket, model, OWNER, secret=SECRET)
    assert len(ticket.indices) == 4
    for name, units in ticket.indices.items():
        assert len(marked.indices[name]) == len(units)
        assert np.array_equal(marked.indices[name], units) == (name != key.parameter)


def test_a_matrix_without_room_for_the_count_is_passed_over() -> None:
    """The most alike matrix is all selected, so that nothing dropped there can be made up for; the other has room.

    The other one selects only what lies in no whole cell, 508 weights that can move.
    """
    ticket = magnitude_ticket(MODEL, 0.3, "*.[qk]_proj.weight")
    key_projection = "model.layers.0.self_attn.k_proj.weight"
    border = np.ones((128, 128), dtype=bool)
    border[:126, :126] = False
    chosen = {QUERY: np.arange(128 * 128), key_projection: np.flatnonzero(border)}
    ticket = ticket.with_units(chosen, ticket.provenance)
    secrets = (bytes([number]) * 32 for number in range(100))
    secret = next(one for one in secrets if keyed_pattern(OWNER, one).sum() > 320)  # more ones than zeros of 623
    assert max(best_places(ticket, keyed_pattern(OWNER, secret), written_cells(29), 3))[1] == QUERY
    marked, key = embed_mark(ticket, MODEL, OWNER, secret=secret)
    assert key.parameter == key_projection
    assert {name: len(units) for name, units in marked.indices.items()} == {QUERY: 128 * 128, key_projection: 508}
    assert verify_mark(marked, key).match == 1.0


def test_the_provenance_says_marked_and_nothing_of_the_secret() -> None:
    content = MARKED.to_dict()["provenance"]
    assert content == {"method": "marked", "details": {"method": "magnitude", "of": TICKET.fingerprint}}
    assert SECRET.hex() not in repr(KEY)
    assert QUERY not in repr(KEY)
    assert OWNER not in str(MARKED.to_dict())


def test_secrets_are_drawn_anew() -> None:
    first, second = (embed_mark(TICKET, MODEL, OWNER)[1] for _ in range(2))
    assert len(first.secret) == 32
    assert first.secret != second.secret


def test_no_wrong_key_of_ten_thousand_verifies() -> None:
    """At the true place, and a hundred of them at every place."""
    cells, written = cells_at(MARKED, KEY), written_cells(KEY.size)
    plain = encode(OWNER, KEY.size)
    generator = np.random.default_rng(1)
    wrong = np.stack([unmasked(plain, generator.bytes(32)) for _ in range(10_000)])
    matches = (wrong == cells)[:, written].sum(axis=1)
    best = replace(verify_mark(MARKED, KEY), matches=int(matches.max()))
    assert log10_tail(best.matches, best.cells, 0.5) + np.log10(best.places) > np.log10(best.level)
    assert matches.mean() == pytest.approx(623 / 2, abs=0.6)  # 10,000 binomial draws: standard error .12
    assert matches.std() == pytest.approx(np.sqrt(623) / 2, rel=0.05)
    everywhere = occupied(mask_of(MARKED, QUERY), 3)
    highest = max(int(matching(everywhere, pattern, written).max()) for pattern in wrong[:100])
    assert log10_tail(highest, 623, 0.5) + np.log10(best.places) > np.log10(best.level)
    reading = verify_mark(MARKED, replace(KEY, secret=bytes(32)))
    assert (reading.verified, reading.text) == (False, None)


def test_no_forged_credential_verifies() -> None:
    """Other texts under the owner's own secret at the true place, the most that a leaked key file could give."""
    written = written_cells(KEY.size)
    cells = cells_at(MARKED, KEY)[written]
    matches = [int((keyed_pattern(f"Ada Lovelace, Londo{n}", SECRET, 29)[written] == cells).sum()) for n in range(500)]
    assert log10_tail(max(matches), 623, 0.5) + np.log10(verify_mark(MARKED, KEY).places) > -9


def test_a_model_with_zeros_is_read_as_its_ticket() -> None:
    model = zeroed(gaussian_model(), MARKED)
    suspect = open_checkpoint(model)
    assert verify_mark(suspect, KEY).matches == 623
    assert not verify_mark(open_checkpoint(MODEL), KEY).verified
    hidden = gaussian_model()
    with torch.no_grad():  # a thief adds small weights everywhere
        weight = hidden.get_parameter(QUERY)
        weight.copy_(torch.where(MARKED.masks()[QUERY], weight, 1e-6))
    assert not verify_mark(open_checkpoint(hidden), KEY).verified
    assert verify_mark(open_checkpoint(hidden), KEY, threshold=1e-5).matches == 623


def test_suspects_are_opened(tmp_path: Path) -> None:
    MARKED.save(tmp_path / "ticket")
    MODEL.save_pretrained(tmp_path / "model")
    assert open_suspect(tmp_path / "ticket") == MARKED
    assert not isinstance(open_suspect(tmp_path / "model"), Ticket)
    MARKED.save(tmp_path / "model")
    assert open_suspect(tmp_path / "model") == MARKED
    (tmp_path / "empty").mkdir()
    with pytest.raises(TicketError, match="There is no ticket at"):
        open_suspect(tmp_path / "empty")


def test_new_weights_are_lifted_to_the_median() -> None:
    model = gaussian_model()
    before = model.get_parameter(QUERY).detach().clone()
    sizes = before.abs().numpy().ravel()
    median = np.median(sizes[TICKET.indices[QUERY]])
    ((name, places, values),) = lifted_values(model, TICKET, MARKED)
    assert name == QUERY
    assert set(places) == set(MARKED.indices[QUERY]) - set(TICKET.indices[QUERY])
    assert np.abs(values).tolist() == pytest.approx([median] * len(places))
    assert lift_new_weights(model, TICKET, MARKED) == len(places)
    after = model.get_parameter(QUERY).detach()
    assert (after.sign() == before.sign()).all()
    changed = np.flatnonzero((after != before).numpy())
    assert np.array_equal(changed, places)
    assert lift_new_weights(model, TICKET, MARKED) == 0
    assert lift_new_weights(model, TICKET, TICKET) == 0
    assert verify_mark(drop_smallest(MARKED, model, 0.2), KEY).match > 0.99
    with pytest.raises(TicketError, match="but other weights"):
        lift_new_weights(model, TICKET, magnitude_ticket(gaussian_model(1), 0.2))


def test_what_cannot_be_marked() -> None:
    with pytest.raises(TicketError, match="this is one of kind 'update' over 'weights'"):
        embed_mark(magnitude_ticket(MODEL, 0.2, kind="update"), MODEL, OWNER)
    with pytest.raises(OptionError, match="has 143 bytes, and the largest pattern"):
        embed_mark(TICKET, MODEL, "x" * 143)
    with pytest.raises(
        TicketError, match="too long for the mask: 57 x 57 cells of 3 x 3 weights need a matrix of 171 x 171 weights"
    ):
        embed_mark(TICKET, MODEL, "x" * 142)
    with pytest.raises(TicketError, match="and it has none. Shorten it"):
        embed_mark(magnitude_ticket(MODEL, 0.2, "*norm.weight"), MODEL, OWNER)
    with pytest.raises(TicketError, match="fits into no matrix with its number of selected weights unchanged"):
        embed_mark(magnitude_ticket(MODEL, 0.01), MODEL, OWNER)
    with pytest.raises(TicketError, match="belongs to the base model"):
        embed_mark(TICKET, gaussian_model(1), OWNER)
    with pytest.raises(OptionError, match="block=0: a cell has from 1 to 8"):
        embed_mark(TICKET, MODEL, OWNER, block=0)
    with pytest.raises(OptionError, match="The secret has 3 bytes"):
        embed_mark(TICKET, MODEL, OWNER, secret=b"abc")
    broken = gaussian_model()
    broken.get_parameter(QUERY).data[1, 2] = torch.nan
    with pytest.raises(UnitError, match=r"q_proj.weight' of .* holds nan at \(1, 2\)"):
        magnitudes(open_checkpoint(broken), QUERY)
    with pytest.raises(CheckpointError, match="has no "):
        magnitudes(open_checkpoint(broken), "absent")


def test_what_cannot_be_verified() -> None:
    with pytest.raises(TicketError, match="lacks: it has no such matrix. The key belongs to another model"):
        verify_mark(MARKED, replace(KEY, parameter="absent"))
    with pytest.raises(TicketError, match=r"lacks: it has it in shape \(128, 128\)"):
        verify_mark(MARKED, replace(KEY, row=14))
    with pytest.raises(TicketError, match="the model '.*' lacks"):
        verify_mark(open_checkpoint(MODEL), replace(KEY, parameter="absent"))
    with pytest.raises(OptionError, match="level=0.0"):
        verify_mark(MARKED, KEY, level=0.0)
    for suspect, threshold in ((MARKED, 0.1), (open_checkpoint(MODEL), -1.0), (open_checkpoint(MODEL), np.nan)):
        with pytest.raises(OptionError, match="a magnitude, from 0, for a model; a ticket has no magnitudes"):
            verify_mark(suspect, KEY, threshold=threshold)
