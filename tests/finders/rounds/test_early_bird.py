"""Early-bird tickets: when masks agree, planted dead heads, and what holds for every finder of repeated training."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ks_lottery.errors import OptionError, UnitError
from ks_lottery.finders.rounds.early_bird import EarlyBird, MaskWindow
from ks_lottery.finders.rounds.runs import Runs
from ks_lottery.finders.search import find_ticket
from ks_lottery.finders.select import Density, TopK
from tests.training.gated_models import DEAD, bert, bert_runs, groups_of, llama_runs

MASKS = st.integers(1, 30).flatmap(lambda units: st.lists(arrays(bool, units), min_size=1, max_size=12))
HEADS = groups_of(bert(), "heads")


def dead(values: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Values of the two dead heads, and of the ten others."""
    table = np.stack(values)
    is_dead = np.zeros_like(table, dtype=bool)
    is_dead[tuple(zip(*DEAD, strict=True))] = True
    return table[is_dead], table[~is_dead]


class TestMaskWindow:
    @given(MASKS, st.integers(2, 6), st.floats(0, 1))
    def test_it_fires_where_all_masks_are_near_the_newest_and_never_before_it_is_full(
        self, masks: list[np.ndarray], length: int, epsilon: float
    ) -> None:
        window = MaskWindow(length, epsilon)
        for number, mask in enumerate(masks, 1):
            fired = window.look(mask)
            others = masks[max(0, number - length) : number - 1]
            distance = max((float((mask != other).sum()) / len(mask) for other in others), default=0.0)
            assert window.distance == pytest.approx(distance)
            assert fired == (number >= length and window.distance <= epsilon)

    @given(arrays(bool, st.integers(1, 30)), st.integers(2, 6))
    def test_identical_masks_are_at_distance_0_and_complementary_ones_at_1(self, mask: np.ndarray, length: int) -> None:
        window = MaskWindow(length, 0.0)
        assert [window.look(mask) for _ in range(length + 1)] == [False] * (length - 1) + [True] * 2
        assert window.distance == 0.0
        assert not window.look(~mask)
        assert window.distance == 1.0

    def test_what_happens_to_a_mask_afterwards_does_not_matter(self) -> None:
        window, mask = MaskWindow(2, 0.0), np.array([True, False])
        window.look(mask)
        mask[:] = False
        assert not window.look(mask)
        assert window.distance == 0.5

    def test_among_few_heads_one_swap_is_a_large_distance(self) -> None:
        first, second = np.arange(12) < 6, np.arange(12) < 6
        second[[5, 6]] = second[[6, 5]]
        window = MaskWindow(2, 0.1)
        window.look(first)
        assert not window.look(second)
        assert window.distance == pytest.approx(2 / 12)


class TestPlantedDeadHeads:
    @pytest.mark.parametrize("seed", [0, 1])
    def test_their_gates_close_and_they_are_outside_the_ticket(
        self, seed: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        runs = bert_runs(tmp_path, seed, max_steps=120)
        method = EarlyBird(every=30, window=4, epsilon=0.0, l1=1e-3)
        with caplog.at_level(logging.WARNING):
            scores = list(method.score(HEADS, runs))
        closed, others = dead([entry.columns["gate"] for entry in scores])
        assert np.abs(closed).max() < 0.05
        assert others.min() > 0.5
        fired = {float(value) for entry in scores for value in entry.columns["fired"]}
        assert fired <= {0.0, 120.0}
        assert len(fired) == 1
        assert (fired == {0.0}) == ("masks did not agree within 120 steps (epsilon=0)" in caplog.text)
        for density in (10 / 12, 0.5):
            ticket = find_ticket(runs.base, units="heads", finder=method, selector=Density(density), evidence=runs)
            for layer, head in DEAD:
                assert head not in ticket.selections[f"layers.{layer}.heads"].indices

    def test_a_mask_without_them_is_found_early(self, tmp_path: Path) -> None:
        runs = bert_runs(tmp_path, max_steps=120)
        scores = list(EarlyBird(density=10 / 12, every=10, l1=1e-3).score(HEADS, runs))
        fired = scores[0].columns["fired"]
        assert 50 <= fired[0] < 120
        assert fired[0] % 10 == 0
        assert runs.passes.forward == runs.passes.backward == fired[0] * 64
        closed, others = dead([entry.score for entry in scores])
        assert closed.max() < others.min()

    def test_masks_that_never_agree_are_told(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """A window as long as the training, and gates that jump to and fro."""
        runs = bert_runs(tmp_path, max_steps=8)
        with caplog.at_level(logging.WARNING):
            scores = list(EarlyBird(every=1, window=8, epsilon=0.0, gate_rate=300.0, l1=0.0).score(HEADS, runs))
        assert {float(value) for entry in scores for value in entry.columns["fired"]} == {0.0}
        assert "the masks did not agree within 8 steps (epsilon=0); the scores are those of the end" in caplog.text


class TestConformance:
    """What `test_rounds` asks of every finder of repeated training, on models that have heads and neurons."""

    @pytest.mark.parametrize(
        ("make", "units", "options"),
        [
            (bert_runs, "heads", {}), (bert_runs, "neurons", {"kind": "update"}),
            (llama_runs, "heads", {"scope": "group", "worm": 0.1}), (llama_runs, "neurons", {"worm": 0.0}),
        ],
    )  # fmt: skip
    def test_it_scores_every_unit_and_a_second_search_trains_nothing(
        self, make, units: str, options: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        runs: Runs = make(tmp_path, max_steps=4)
        groups = groups_of(runs.load_model(), units)
        base = {key: runs.base.rows(key).clone() for key in runs.base.names()}
        method = EarlyBird(every=1, window=2, **options)
        assert method.name == "early_bird"
        assert method.kind == options.get("kind", "weight")
        assert len(method.citation) > 20
        assert "Source:" in (type(method).__doc__ or "")
        first = list(method.score(groups, runs))
        for entry, group in zip(first, groups, strict=True):
            assert entry.group == group
            assert {len(entry.score), len(entry.changed)} == {group.num_units}
            assert np.array_equal(entry.score, np.abs(entry.columns["gate"]))
            assert (entry.score != 1).any()
            assert np.isfinite(entry.score).all()
        assert all(torch.equal(base[key], runs.base.rows(key)) for key in base)
        spent = runs.passes.forward
        monkeypatch.setattr(type(runs), "_make_gates", lambda *_: pytest.fail("trained again"))
        for one, other in zip(first, method.score(groups, runs), strict=True):
            assert np.array_equal(one.score, other.score)
            assert np.array_equal(one.columns["fired"], other.columns["fired"])
        assert runs.passes.forward == runs.passes.backward == 2 * spent > 0


def test_what_has_no_gates_is_refused(tmp_path: Path) -> None:
    runs = bert_runs(tmp_path, max_steps=4)
    method = EarlyBird(every=1, window=2)
    with pytest.raises(UnitError, match="is no group of attention heads or feed-forward neurons"):
        find_ticket(runs.base, units="weights", finder=method, selector=TopK(3), evidence=runs)


def test_a_training_that_is_too_short_for_the_window_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="compares 5 masks, one every 10 steps, but a training has 49 steps. Lower"):
        list(EarlyBird().score(HEADS, bert_runs(tmp_path, max_steps=49)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"density": 1.0}, "density=1.0: must lie between 0 and 1"),
        ({"scope": "layer"}, "scope='layer': must be global or group"),
        ({"every": 0}, "every=0: must be at least 1 optimizer step"),
        ({"window": 1}, "window=1: must be at least 2 masks"),
        ({"epsilon": 1.0}, "epsilon=1.0: must be at least 0 and below 1"),
        ({"l1": -1.0}, "l1=-1.0: must be at least 0"),
        ({"gate_rate": 0.0}, "gate_rate=0.0: must be above 0"),
        ({"worm": 1.5}, "worm=1.5: must lie from 0 to 1, or be None"),
        ({"worm": float("nan")}, "worm=nan: must lie from 0 to 1"),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(OptionError, match=f"Finder 'early_bird', {message}"):
        EarlyBird(**options)
