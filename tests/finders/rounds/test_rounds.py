"""Iterative methods: exact counts, nesting, rewinding, and what the papers' toy tasks say of them."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from ks_lottery.errors import OptionError, TicketError
from ks_lottery.finders.base import FINDERS
from ks_lottery.finders.passes import Passes
from ks_lottery.finders.rounds.bert import BertRounds
from ks_lottery.finders.rounds.colt import CyclicOverlap
from ks_lottery.finders.rounds.imp import IterativeMagnitude
from ks_lottery.finders.rounds.levels import Level
from ks_lottery.finders.rounds.lrr import LearningRateRewinding
from ks_lottery.finders.rounds.lt_sft import LotteryTicketSparseFineTuning
from ks_lottery.finders.rounds.runs import Kept, Run, Runs
from ks_lottery.finders.select import largest
from tests.finders.rounds.conftest import product_runs, scored
from tests.training.perceptron import matrices, perceptron

GROUPS = matrices(perceptron())
TOTAL = sum(group.num_units for group in GROUPS)
ITERATIVE = [IterativeMagnitude, LearningRateRewinding]


def cut(scores, count: int) -> list[np.ndarray]:
    return largest([entry.score for entry in scores], [entry.changed for entry in scores], count)


def masks(kept: Kept) -> dict[str, torch.Tensor]:
    return kept.masks({name: tuple(value.shape) for name, value in perceptron().named_parameters()})


def shuffled(kept: Kept) -> Kept:
    draw = np.random.default_rng(0)
    indices = tuple(
        np.sort(draw.choice(group.num_units, len(units), replace=False))
        for group, units in zip(kept.groups, kept.indices, strict=True)
    )
    return replace(kept, indices=indices)


def assert_rewound(level: Level, following: Level, runs: Runs) -> None:
    """What a level dropped is where it belongs in all that the next level trained."""
    base = dict(perceptron().named_parameters())
    for name, mask in masks(level.kept).items():
        held = following.trained.rows(name)[~mask]
        expected = torch.zeros_like(held) if level.kept.rest == "weight" else base[name][~mask]
        assert torch.equal(held, expected)


class TestBookkeeping:
    @pytest.mark.parametrize("entry", ITERATIVE)
    @pytest.mark.parametrize("kind", ["weight", "update"])
    @pytest.mark.parametrize("scope", ["global", "group"])
    def test_levels_are_exact_nested_and_held(self, entry, kind: str, scope: str, fast: Runs) -> None:
        method = entry(kind=kind, density=0.1, rounds=3, scope=scope)
        levels = list(method.levels(GROUPS, fast))
        for number, level in enumerate(levels, 1):
            if scope == "global":
                assert level.kept.count == round(TOTAL * 0.1 ** (number / 3))
            for units, group in zip(level.kept.indices, GROUPS, strict=True):
                if scope == "group":
                    assert abs(len(units) - group.num_units * 0.1 ** (number / 3)) <= 1
        for level, following in pairwise(levels):
            for before, after in zip(level.kept.indices, following.kept.indices, strict=True):
                assert set(after) <= set(before)
            assert_rewound(level, following, fast)

    @pytest.mark.parametrize("entry", ITERATIVE)
    @pytest.mark.parametrize("kind", ["weight", "update"])
    def test_the_density_of_a_level_cuts_that_level(self, entry, kind: str, fast: Runs) -> None:
        method = entry(kind=kind, density=0.1, rounds=3)
        scores = list(method.score(GROUPS, fast))
        for level in method.levels(GROUPS, fast):
            for units, chosen in zip(level.kept.indices, cut(scores, level.kept.count), strict=True):
                assert np.array_equal(units, chosen)

    def test_geometric_rounds_keep_a_share_of_what_is_left(self, fast: Runs) -> None:
        method = IterativeMagnitude(schedule="geometric", density=0.4096, keep=0.8)
        counts = [level.kept.count for level in method.levels(GROUPS, fast)]
        assert [abs(count - TOTAL * 0.8**number) <= number + 1 for number, count in enumerate(counts, 1)] == [True] * 4

    def test_survivors_begin_where_the_method_says(self, fast: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[Run] = []
        train = type(fast).train
        monkeypatch.setattr(type(fast), "train", lambda self, run: asked.append(run) or train(self, run))
        list(IterativeMagnitude(rounds=2).score(GROUPS, fast))
        assert [(run.start, run.first_step) for run in asked] == [(None, 0)] * 2
        asked.clear()
        list(IterativeMagnitude(rounds=2, rewind=3).score(GROUPS, fast))
        whole = [run for run in asked if run.last_step is None]
        assert [run.first_step for run in whole] == [0, 3]
        early = fast.train(Run(last_step=3))
        assert whole[1].start.name == early.name  # of the dense run, not of the masked one
        asked.clear()
        levels = list(LearningRateRewinding(rounds=2).levels(GROUPS, fast))
        assert asked[1].start is levels[0].trained
        assert asked[1].first_step == 0

    def test_what_a_ticket_begins_with(self, fast: Runs) -> None:
        assert IterativeMagnitude().start(GROUPS, fast) == (None, 0)
        early, step = IterativeMagnitude(rewind=3).start(GROUPS, fast)
        assert step == 3
        assert torch.equal(early.rows("layers.0.weight"), fast.train(Run(last_step=3)).rows("layers.0.weight"))
        method = LearningRateRewinding(density=0.1, rounds=2)
        levels = list(method.levels(GROUPS, fast))
        for density, level in ((0.5, levels[0]), (0.1**0.5, levels[0]), (0.2, levels[1]), (0.1, levels[1])):
            assert method.start(GROUPS, fast, density)[0].name == level.trained.name
        assert method.start(GROUPS, fast) == (levels[1].trained, 0) or (
            method.start(GROUPS, fast)[0].name == levels[1].trained.name
        )

    def test_a_round_costs_one_training(self, fast: Runs) -> None:
        for method, trainings in (
            (IterativeMagnitude(rounds=3), 3), (LearningRateRewinding(rounds=3), 3), (BertRounds(rounds=4), 4),
            (LotteryTicketSparseFineTuning(rounds=2), 3),
        ):  # fmt: skip
            runs = replace(fast, passes=Passes())
            list(method.score(GROUPS, runs))
            assert runs.passes.forward == runs.passes.backward == trainings * 4 * 128

    @pytest.mark.parametrize("kind", ["weight", "update"])
    def test_the_first_round_keeps_the_largest_weights_or_moves(self, kind: str, fast: Runs) -> None:
        (level,) = IterativeMagnitude(kind=kind, rounds=1).levels(GROUPS, fast)
        base = dict(perceptron().named_parameters())
        sizes = []
        for group in GROUPS:
            after = level.trained.rows(group.name)
            moved = after if kind == "weight" else after - base[group.name].detach()
            sizes.append(moved.abs().numpy().ravel())
        expected = largest(sizes, [np.ones(len(one), dtype=bool) for one in sizes], level.kept.count)
        for units, chosen in zip(level.kept.indices, expected, strict=True):
            assert np.array_equal(units, chosen)

    def test_another_statistic_ranks_the_rounds(self, fast: Runs) -> None:
        by_size = list(IterativeMagnitude(kind="update", rounds=1).score(GROUPS, fast))
        relative = list(IterativeMagnitude(kind="update", rounds=1, statistic="criterion").score(GROUPS, fast))
        assert any(not np.array_equal(a, b) for a, b in zip(cut(by_size, 99), cut(relative, 99), strict=True))
        with pytest.raises(OptionError, match="statistic='imp': rounds rank units by a finder of two checkpoints"):
            list(IterativeMagnitude(statistic="imp").score(GROUPS, fast))

    def test_a_rewind_step_beyond_the_training_is_refused(self, fast: Runs) -> None:
        with pytest.raises(OptionError, match=r"Finder 'imp', rewind=4: a training has 4 steps, so rewind to a step"):
            list(IterativeMagnitude(rewind=4).score(GROUPS, fast))


class TestBert:
    def test_each_round_drops_a_tenth_of_the_original(self, fast: Runs) -> None:
        counts = [level.kept.count for level in BertRounds(rounds=7).levels(GROUPS, fast)]
        assert counts == [round(TOTAL * (1 - 0.1 * number)) for number in range(1, 8)]

    def test_too_many_rounds_are_refused(self) -> None:
        with pytest.raises(OptionError, match="the rounds would drop 100% of the units"):
            BertRounds(rounds=10)


class TestSparseFineTuning:
    def test_one_round_is_the_largest_moves_of_a_dense_run(self, fast: Runs) -> None:
        (dense,) = [fast.train(Run(trains=tuple(group.slabs[0].parameter for group in GROUPS)))]
        base = dict(perceptron().named_parameters())
        moves = [np.abs((dense.rows(group.name) - base[group.name].detach()).numpy().ravel()) for group in GROUPS]
        expected = largest(moves, [np.ones(len(one), dtype=bool) for one in moves], round(0.01 * TOTAL))
        scores = list(LotteryTicketSparseFineTuning().score(GROUPS, fast))
        for units, chosen in zip(expected, cut(scores, round(0.01 * TOTAL)), strict=True):
            assert np.array_equal(units, chosen)

    def test_rounds_add_to_the_ticket(self, fast: Runs) -> None:
        once = list(LotteryTicketSparseFineTuning(density=0.01, rounds=1).score(GROUPS, fast))
        twice = list(LotteryTicketSparseFineTuning(density=0.01, rounds=2).score(GROUPS, fast))
        half = round(0.01 * TOTAL / 2)
        for first, second in zip(cut(once, half), cut(twice, half), strict=True):
            assert np.array_equal(first, second)
        assert any(not np.array_equal(a, b) for a, b in zip(cut(once, 2 * half), cut(twice, 2 * half), strict=True))

    def test_bad_options(self, fast: Runs) -> None:
        with pytest.raises(OptionError, match=r"density=1.5: must lie between 0 and 1"):
            LotteryTicketSparseFineTuning(density=1.5)
        with pytest.raises(OptionError, match="rounds=0: must be at least 1"):
            LotteryTicketSparseFineTuning(rounds=0)
        with pytest.raises(OptionError, match="takes 68 of 6784 units in 99 rounds, less than one a round"):
            list(LotteryTicketSparseFineTuning(rounds=99).score(GROUPS, fast))


class TestColt:
    def test_equal_partitions_give_iterative_pruning(self, tmp_path: Path) -> None:
        runs = product_runs(tmp_path, parts="same", max_steps=150)
        colt = list(CyclicOverlap(density=0.75**3, drop=0.25).levels(GROUPS, runs))
        imp = list(IterativeMagnitude(schedule="geometric", density=0.75**3, keep=0.75).levels(GROUPS, runs))
        assert [level.kept.count for level in colt] == [level.kept.count for level in imp] == [5088, 3816, 2862]
        for ours, theirs in zip(colt, imp, strict=True):
            assert ours.kept.digest == theirs.kept.digest

    def test_disjoint_halves_keep_less(self, tmp_path: Path) -> None:
        runs = product_runs(tmp_path, parts="halves", max_steps=150)
        left = TOTAL
        for level in CyclicOverlap(density=0.3, drop=0.2).levels(GROUPS, runs):
            assert 0.6 * left - 1 <= level.kept.count < 0.8 * left
            left = level.kept.count
        scores = list(CyclicOverlap(density=0.3, drop=0.2).score(GROUPS, runs))
        for units, chosen in zip(level.kept.indices, cut(scores, level.kept.count), strict=True):
            assert np.array_equal(units, chosen)

    def test_one_partition_is_refused(self, fast: Runs) -> None:
        with pytest.raises(OptionError, match="overlaps tickets of several data partitions, but the evidence has 1"):
            list(CyclicOverlap().score(GROUPS, fast))
        with pytest.raises(OptionError, match=r"Finder 'colt', drop=1.0: must lie between 0 and 1"):
            CyclicOverlap(drop=1.0)

    def test_partitions_that_agree_on_nothing(self) -> None:
        from ks_lottery.finders.rounds.colt import _overlap

        ends = [Kept(GROUPS[:1], (np.array(units),), "weight") for units in ([0, 1], [2, 3])]
        with pytest.raises(TicketError, match="The tickets of 2 data partitions have no unit in common"):
            _overlap(ends)


def test_the_ticket_beats_its_shuffle(tmp_path: Path) -> None:
    """Iterative pruning to 4.66 % on the product rule: Frankle & Carbin's claim, against layerwise shuffling."""
    runs = product_runs(tmp_path)
    method = IterativeMagnitude(schedule="geometric", density=0.6**6, keep=0.6)
    *_, last = method.levels(GROUPS, runs)
    assert last.kept.count == round(TOTAL * 0.6**6)
    dense, ticket = scored(runs.train(Run())), scored(runs.train(Run(kept=last.kept)))
    control = scored(runs.train(Run(kept=shuffled(last.kept))))
    assert ticket >= dense - 0.02
    assert ticket - control >= 0.3


# These score attention heads and neurons alone, which a perceptron has not. Their own tests ask the same of them.
OF_TRANSFORMERS = ("early_bird", "super_tickets")


@pytest.mark.parametrize(
    "name", [name for name, entry in FINDERS.items() if entry.needs is Runs and name not in OF_TRANSFORMERS]
)
class TestConformance:
    """What holds for every registered finder of repeated training."""

    def test_it_scores_every_unit_and_a_second_search_trains_nothing(
        self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        runs = product_runs(tmp_path, parts=2, max_steps=3)
        base = {key: runs.base.rows(key).clone() for key in runs.base.names()}
        method = FINDERS.get(name)()
        assert method.name == name
        assert method.kind in ("update", "weight")
        assert len(method.citation) > 20
        assert "Source:" in (type(method).__doc__ or "")
        first = list(method.score(GROUPS, runs))
        for entry, group in zip(first, GROUPS, strict=True):
            assert entry.group == group
            assert {len(entry.score), len(entry.changed)} == {group.num_units}
            assert np.isfinite(entry.score).all()
        assert all(torch.equal(base[key], runs.base.rows(key)) for key in base)
        monkeypatch.setattr(type(runs), "_make", lambda *_: pytest.fail("trained again"))
        for one, other in zip(first, method.score(GROUPS, runs), strict=True):
            assert np.array_equal(one.score, other.score)
