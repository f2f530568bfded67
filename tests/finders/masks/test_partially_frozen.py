"""Partially frozen networks: what is frozen stays so, counts are exact, and tickets fit into their file."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_tasks import matrices

from ks_lottery.errors import OptionError, TicketError
from ks_lottery.finders.base import UnitScores
from ks_lottery.finders.masks.edge_popup import EdgePopup
from ks_lottery.finders.masks.masked import MaskedModel
from ks_lottery.finders.masks.partially_frozen import FreeUnits, PartiallyFrozen, freeze_pattern, pattern_of
from ks_lottery.finders.search import find_ticket
from ks_lottery.finders.select import Density
from ks_lottery.ticket.freeze_pattern import FREE, LOCKED, PRUNED
from ks_lottery.ticket.seeded_store import read_seeded, write_seeded
from ks_lottery.ticket.ticket import Kind, Ticket
from ks_lottery.units.slab import Slab, UnitGroup
from tests.finders.masks.corners import CHANCE, accuracy_under, evidence, masks_of, random_network, shuffled
from tests.finders.masks.models import frozen_of, kept_units

SHAPES = {"a": (64, 8), "b": (64, 64), "c": (10, 64), "d": (2, 64)}


def groups_of(shapes: dict[str, tuple[int, int]]) -> tuple[UnitGroup, ...]:
    return tuple(UnitGroup(name, (Slab(name, None),), rows * columns) for name, (rows, columns) in shapes.items())


def frozen(entries: list[UnitScores]) -> np.ndarray:
    return np.concatenate([entry.columns["frozen"] for entry in entries])


class TestPattern:
    @given(
        rows=st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=1, max_size=5),
        density=st.floats(0.02, 0.98),
        shares=st.tuples(st.floats(0, 1), st.floats(0, 1)),
        layers=st.sampled_from(["uniform", "erk", "balanced"]),
    )
    @settings(max_examples=150, deadline=None)
    def test_totals_are_exact_and_leave_room_for_the_ticket(
        self, rows: list[tuple[int, int]], density: float, shares: tuple[float, float], layers: Any
    ) -> None:
        shapes = {f"layer{number}": shape for number, shape in enumerate(rows)}
        groups = groups_of(shapes)
        total = sum(group.num_units for group in groups)
        pruned, locked = 0.9 * shares[0] * (1 - density), shares[1] * density
        pattern = freeze_pattern(groups, shapes, density, pruned, locked, layers)
        out = sum(one.pruned for one in pattern.counts.values())
        assert [one.units for one in pattern.counts.values()] == [group.num_units for group in groups]
        assert 0 <= pruned * total - out < 1 + 1e-6
        assert 0 <= locked * total - pattern.locked < 1 + 1e-6
        assert pattern.locked <= round(density * total) <= total - out
        assert pattern.free > 0

    def test_layers_follow_the_scheme(self) -> None:
        groups = groups_of(SHAPES)

        def counts(layers: Any) -> dict[str, tuple[int, int, int]]:
            pattern = freeze_pattern(groups, SHAPES, 0.3, 0.49, 0.21, layers)
            return {name: (one.pruned, one.locked, one.free) for name, one in pattern.counts.items()}

        uniform, balanced, erk = counts("uniform"), counts("balanced"), counts("erk")
        for name, (rows, columns) in SHAPES.items():
            assert np.array(uniform[name]) / (rows * columns) == pytest.approx([0.49, 0.21, 0.3], abs=0.01)
        # 1614 of 5376 units are free, the same number in each layer that has as many: the smallest is free as a whole.
        assert balanced["d"] == (0, 0, 128)
        assert sorted(balanced[name][2] for name in "abc") == [495, 495, 496]
        shares = {name: erk[name][2] / (rows * columns) for name, (rows, columns) in SHAPES.items()}
        assert shares["b"] < shares["c"] < shares["d"]
        assert sum(free for _, _, free in erk.values()) == sum(free for _, _, free in uniform.values())

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"density": 0.3, "pruned": 0.71}, "pruned=0.71 and locked=0.21 leave no ticket of density=0.3: pruned"),
            ({"density": 0.3, "locked": 0.31}, r"at most 1 - density = 0.7, and locked at most 0.3"),
            ({"density": 0.3, "pruned": 0.7, "locked": 0.3}, "freeze all units, so there is nothing to search"),
            ({"pruned": -0.1}, "pruned=-0.1, locked=0.21: shares of the units must be 0 or more"),
            ({"locked": float("nan")}, "locked=nan: shares"),
            ({"layers": "pyramidal"}, "layers='pyramidal': must be uniform, erk or balanced"),
            ({"pattern_seed": -1}, "pattern_seed=-1: must be 0 or more"),
            ({"density": 1.0}, "density=1.0: must lie between 0 and 1"),
            ({"kind": "both"}, "kind='both'"),
            ({"steps": 0}, "steps=0"),
        ],
    )
    def test_what_cannot_be_is_refused(self, options: dict[str, object], message: str) -> None:
        with pytest.raises(OptionError, match=message):
            PartiallyFrozen(**options)  # type: ignore[arg-type]

    def test_the_bounds_themselves_are_possible(self) -> None:
        for pruned, locked in ((0.7, 0.0), (0.0, 0.3), (0.7, 0.29)):
            pattern = PartiallyFrozen(density=0.3, pruned=pruned, locked=locked).pattern(groups_of(SHAPES), SHAPES)
            assert pattern.locked <= round(0.3 * pattern.units)


def test_only_free_units_are_scored_and_chosen() -> None:
    how = FreeUnits(np.array([LOCKED, FREE, PRUNED, FREE, FREE], dtype=np.int8), count=2)
    scores = torch.tensor([0.1, -3.0, 2.0])
    assert how.mask(scores).tolist() == [1.0, 0.0, 0.0, 1.0, 0.0]
    assert how.backward(scores, torch.tensor([9.0, 1.0, 9.0, 2.0, 3.0])).tolist() == [1.0, -2.0, 3.0]
    assert how.everywhere(scores).tolist() == [6.0, pytest.approx(0.1), -3.0, 3.0, 2.0]


@pytest.mark.parametrize("kind", ["weight", "update"])
@pytest.mark.parametrize("units", ["weights", "neurons"])
def test_forced_units_never_change_during_the_search(kind: Kind, units: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[np.ndarray] = []
    write = MaskedModel.write

    def recorded(self: MaskedModel, mask: torch.Tensor) -> None:
        written.append(mask.detach().cpu().numpy().copy())
        write(self, mask)

    monkeypatch.setattr(MaskedModel, "write", recorded)
    looked_at = frozen_of("llama", kind)
    method = PartiallyFrozen(kind, density=0.4, steps=8, learning_rate=0.1)
    find_ticket(looked_at.model, units=units, finder=method, selector=Density(0.4), evidence=looked_at)
    masks = np.stack(written[1:])  # the first is the whole model
    ticket = find_ticket(looked_at.model, units=units, finder=method, selector=Density(0.4), evidence=looked_at)
    pattern = pattern_of(ticket)
    drawn = np.concatenate([pattern.of_group(name) for name in ticket.selections])
    assert masks.shape == (8, len(drawn))
    assert (masks[:, drawn == LOCKED] == 1).all()
    assert (masks[:, drawn == PRUNED] == 0).all()
    assert (masks.sum(axis=1) == round(0.4 * len(drawn))).all()
    assert np.ptp(masks[:, drawn == FREE], axis=0).sum() > 0


@pytest.fixture(scope="module")
def found() -> list[UnitScores]:
    model = random_network()
    return list(PartiallyFrozen(density=0.5, pruned=0.2, locked=0.2).score(matrices(model), evidence(model)))


def test_it_beats_chance_and_its_own_mask_shuffled(found: list[UnitScores]) -> None:
    model, masks = random_network(), masks_of(found)
    assert accuracy_under(model, masks) > 0.5
    assert accuracy_under(model, shuffled(masks)) == pytest.approx(CHANCE, abs=0.08)


def test_the_ticket_has_exactly_its_density_over_all_groups(found: list[UnitScores]) -> None:
    kept, pattern = kept_units(found).astype(bool), frozen(found)
    assert kept.sum() == round(0.5 * len(kept))
    assert kept[pattern == LOCKED].all()
    assert not kept[pattern == PRUNED].any()
    scores = np.concatenate([entry.columns["score"] for entry in found])
    free = pattern == FREE
    assert scores[kept & free].min() >= scores[~kept & free].max()
    assert scores[pattern == LOCKED].min() > scores[free].max()
    assert scores[pattern == PRUNED].max() < scores[free].min()


def test_without_frozen_units_it_is_global_edge_popup() -> None:
    model = random_network()
    plain = list(EdgePopup(density=0.3, scope="global", steps=10).score(matrices(model), evidence(model)))
    method = PartiallyFrozen(density=0.3, pruned=0.0, locked=0.0, steps=10)
    free = list(method.score(matrices(model), evidence(model)))
    for one, other in zip(plain, free, strict=True):
        assert np.array_equal(one.columns["kept"], other.columns["kept"])
        assert np.array_equal(one.columns["score"], other.columns["score"])


@pytest.mark.parametrize("kind", ["weight", "update"])
@pytest.mark.parametrize("units", ["weights", "neurons", "heads"])
def test_its_tickets_are_stored_as_seed_and_bits(tmp_path: Path, kind: Kind, units: str) -> None:
    looked_at = frozen_of("llama", kind)
    method = PartiallyFrozen(kind, density=0.5, layers="erk", pattern_seed=11, steps=2)
    ticket = find_ticket(looked_at.model, units=units, finder=method, selector=Density(0.5), evidence=looked_at)
    ticket.save(tmp_path / "positions")
    # The pattern comes from the provenance alone, so a ticket that was loaded has it too.
    pattern = pattern_of(Ticket.load(tmp_path / "positions"))
    assert pattern == pattern_of(ticket)
    assert pattern.seed == 11
    write_seeded(ticket, pattern, tmp_path / "seeded.safetensors")
    read = read_seeded(tmp_path / "seeded.safetensors", ticket.base)
    assert read.fingerprint == ticket.fingerprint
    assert pattern_of(read) == pattern


def test_a_cut_at_another_density_does_not_fit_into_the_file(tmp_path: Path) -> None:
    looked_at = frozen_of("llama", "weight")
    method = PartiallyFrozen(density=0.5, steps=2)
    ticket = find_ticket(looked_at.model, units="weights", finder=method, selector=Density(0.1), evidence=looked_at)
    with pytest.raises(TicketError, match="lacks the locked unit .* cut it at the density of the search"):
        write_seeded(ticket, pattern_of(ticket), tmp_path / "seeded.safetensors")


def test_other_finders_tickets_have_no_pattern() -> None:
    looked_at = frozen_of("llama", "weight")
    ticket = find_ticket(
        looked_at.model, units="heads", finder=EdgePopup(steps=1), selector=Density(0.5), evidence=looked_at
    )
    with pytest.raises(TicketError, match="was found by 'edge_popup', which draws no freeze pattern"):
        pattern_of(ticket)


def test_the_search_holds_state_for_free_units_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []
    add = torch.optim.Optimizer.add_param_group

    def counted(self: Any, group: dict[str, Any]) -> None:
        add(self, group)
        held.extend(parameter.numel() for parameter in group["params"])

    monkeypatch.setattr(torch.optim.Optimizer, "add_param_group", counted)
    model = random_network()
    entries = list(PartiallyFrozen(density=0.3, steps=1).score(matrices(model), evidence(model)))
    assert held == [int((frozen(entries) == FREE).sum())]
    assert held[0] == pytest.approx(0.3 * len(frozen(entries)), abs=2)
