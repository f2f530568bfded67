"""Conformance of every finder, and what each one finds."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import combine_pvalues, ks_2samp

from ks_lottery.checkpoints.reader import Checkpoint, ModelCheckpoint
from ks_lottery.errors import OptionError, TicketError, UnitError
from ks_lottery.finders.base import FINDERS, Evidence, Shift, finder
from ks_lottery.finders.search import find_ticket, score_units, select_ticket
from ks_lottery.finders.select import Alpha, TopK
from ks_lottery.finders.shift.magnitude import Magnitude
from ks_lottery.ticket.ticket import Ticket
from ks_lottery.units.granularity import GRANULARITIES, granularity
from ks_lottery.units.slab import Slab, UnitGroup
from ks_lottery.units.token_rows import TokenRows
from tests.tiny_models import VOCABULARY, shifted, tiny_llama

EMBEDDING = "model.embed_tokens.weight"
PLANTED = [7, 3, 50]


REFUSED = {("ks", "weights")}  # one value is no distribution
OF_SHIFT = [name for name, entry in FINDERS.items() if entry.needs is Shift]
PAIRS = [(name, units) for name in OF_SHIFT for units in GRANULARITIES.names() if (name, units) not in REFUSED]


def planted(units: str, count: int = 3, size: float = 1.0) -> tuple[torch.nn.Module, dict[str, list[int]]]:
    """A tiny Llama in which some units were moved, far and by different amounts, and which ones."""
    model = tiny_llama()
    groups = granularity(units).groups(ModelCheckpoint(model).layout())
    every = [(group, unit) for group in groups for unit in range(group.num_units)]
    chosen: dict[str, list[int]] = {}
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for rank, position in enumerate(range(1, len(every), max(1, (len(every) - 1) // count))[:count]):
            group, unit = every[position]
            for slab in group.slabs:
                parameter = model.get_parameter(slab.parameter)
                values = slab.take(parameter, np.array([unit]))
                noise = 0.5 + torch.rand(values.shape, generator=generator)
                slab.put(parameter, np.array([unit]), values + size * (1 + rank) * noise)
            chosen.setdefault(group.name, []).append(unit)
    return model, chosen


@pytest.mark.parametrize(("name", "units"), PAIRS)
class TestConformance:
    """What holds for every registered finder of two checkpoints over every registered granularity."""

    def test_it_names_itself_and_its_source(self, name: str, units: str) -> None:
        method = finder(name)
        assert method.name == name
        assert method.kind in ("update", "weight")
        assert len(method.citation) > 20
        assert "Source:" in (type(method).__doc__ or "")

    def test_one_score_per_unit(self, name: str, units: str) -> None:
        for entry in score_units(tiny_llama(), planted(units)[0], units, name):
            sizes = {len(entry.score), len(entry.changed), *(len(column) for column in entry.columns.values())}
            assert sizes == {entry.group.num_units}
            assert entry.score.dtype in (np.float64, np.float32)
            assert np.isfinite(entry.score).all()

    def test_planted_units_come_first(self, name: str, units: str) -> None:
        after, chosen = planted(units, 2)
        count = sum(map(len, chosen.values()))
        if count == sum(entry.group.num_units for entry in score_units(tiny_llama(), after, units, name)):
            after, chosen, count = *planted(units, 1), 1
        ticket = find_ticket(tiny_llama(), after, units, name, TopK(count))
        assert {group: found.tolist() for group, found in ticket.indices.items() if len(found)} == chosen

    def test_unmoved_units_cannot_be_chosen(self, name: str, units: str) -> None:
        after, chosen = planted(units)
        count = sum(map(len, chosen.values()))
        with pytest.raises(
            TicketError, match=f"{count + 1} units are asked for, but only {count} of .* can be selected"
        ):
            find_ticket(tiny_llama(), after, units, name, TopK(count + 1))

    def test_the_same_evidence_gives_the_same_ticket_from_files_and_live(
        self, name: str, units: str, tmp_path: Path
    ) -> None:
        after, _ = planted(units)
        tiny_llama().save_pretrained(tmp_path / "before")
        after.save_pretrained(tmp_path / "after", max_shard_size="10KB")
        stored = find_ticket(tmp_path / "before", tmp_path / "after", units, name, TopK(1))
        assert stored == find_ticket(tiny_llama(), after, units, name, TopK(1))
        stored.save(tmp_path)
        assert Ticket.load(tmp_path) == stored

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    @pytest.mark.parametrize("which", ["before", "after"])
    def test_nan_and_infinity_are_refused(self, name: str, units: str, value: float, which: str) -> None:
        models = {"before": tiny_llama(), "after": planted(units)[0]}
        slab = granularity(units).groups(ModelCheckpoint(models["before"]).layout())[-1].slabs[0]
        with torch.no_grad():
            models[which].get_parameter(slab.parameter).view(-1)[3] = value
        with pytest.raises(UnitError, match=f"(Row|Weight) [0-9]+ of '{slab.parameter}' {which} .*NaN or infinite"):
            find_ticket(models["before"], models["after"], units, name, TopK(1))


@pytest.mark.parametrize(("name", "units"), sorted(REFUSED))
def test_what_a_finder_cannot_score_is_refused_with_a_way_out(name: str, units: str) -> None:
    with pytest.raises(
        UnitError, match=r"at least 8 values per unit, but units of '.*' have 1\. Use finder 'magnitude'"
    ):
        find_ticket(tiny_llama(), planted(units)[0], units, name, TopK(1))


def test_a_finder_of_other_evidence_is_refused() -> None:
    with pytest.raises(OptionError, match=r"Finder 'ks' looks at two checkpoints, .*, but was given nothing"):
        find_ticket(tiny_llama(), finder="ks")
    with pytest.raises(OptionError, match="are given; a ticket has one evidence"):
        find_ticket(tiny_llama(), tiny_llama(), evidence=Evidence())


def test_ks_combines_the_slabs_of_a_head() -> None:
    before, after = tiny_llama(), planted("heads", size=0.003)[0]
    for entry in score_units(before, after, "heads", "ks"):
        for unit in range(entry.group.num_units):
            p_values, distances = [], []
            for slab in entry.group.slabs:
                old, new = (
                    slab.take(model.get_parameter(slab.parameter), np.array([unit])) for model in (before, after)
                )
                test = ks_2samp(old.detach().numpy()[0], new.detach().numpy()[0], method="exact")
                p_values.append(min(test.pvalue, 1.0))
                distances.append(test.statistic)
            assert entry.log_p[unit] == pytest.approx(np.log(combine_pvalues(p_values).pvalue), rel=1e-8, abs=1e-12)
            assert entry.columns["statistic"][unit] == pytest.approx(distances[int(np.argmin(p_values))])
            assert entry.score[unit] == -entry.log_p[unit]


def test_ks_is_scipys_statistic_and_p_value() -> None:
    before, after = tiny_llama(), shifted(tiny_llama(), PLANTED)
    (entry,) = score_units(before, after, "token_rows", "ks")
    old, new = before.get_parameter(EMBEDDING).detach(), after.get_parameter(EMBEDDING).detach()
    for row in range(VOCABULARY):
        expected = ks_2samp(old[row].numpy(), new[row].numpy(), method="exact")
        assert entry.score[row] == pytest.approx(expected.statistic, abs=1e-15)
        assert np.exp(entry.log_p[row]) == pytest.approx(expected.pvalue, rel=1e-9)
    assert entry.changed.nonzero()[0].tolist() == sorted(PLANTED)


def test_ks_sees_no_permutation_but_magnitude_does() -> None:
    after = tiny_llama()
    with torch.no_grad():
        after.get_parameter(EMBEDDING)[5] = after.get_parameter(EMBEDDING)[5].flip(0)
    (by_distribution,) = score_units(tiny_llama(), after, finder="ks")
    (by_move,) = score_units(tiny_llama(), after, finder="magnitude")
    assert by_distribution.score[5] == 0.0
    assert by_distribution.changed[5]
    assert by_move.score[5] > 0.0


def test_magnitude_is_the_norm_of_the_move() -> None:
    before, after = tiny_llama(), shifted(tiny_llama(), PLANTED)
    old, new = before.get_parameter(EMBEDDING).detach().double(), after.get_parameter(EMBEDDING).detach().double()
    (entry,) = score_units(before, after, finder="magnitude")
    np.testing.assert_allclose(entry.score, (new - old).norm(dim=1).numpy(), rtol=1e-6)
    (relative,) = score_units(before, after, finder=Magnitude(relative_to="before"))
    np.testing.assert_allclose(
        relative.score, ((new - old).norm(dim=1) / old.norm(dim=1)).nan_to_num().numpy(), rtol=1e-6
    )
    with pytest.raises(OptionError, match=r"Magnitude\(relative_to='after'\): must be one of nothing, before"):
        Magnitude(relative_to="after")  # type: ignore[arg-type]


def test_the_papers_rule_is_the_default() -> None:
    before, after = tiny_llama(), shifted(tiny_llama(), [7, 3], size=4.0)
    ticket = find_ticket(before, after)
    (entry,) = score_units(before, after)
    assert ticket.indices["input"].tolist() == np.flatnonzero(np.exp(entry.log_p) < 0.05).tolist()
    assert ticket.provenance.method == "ks"
    assert ticket.provenance.details["selector"] == {"name": "Alpha", "alpha": 0.05, "correction": "none"}
    assert ticket.provenance.details["tested"] == 2


def test_nothing_selected_says_the_smallest_p() -> None:
    with pytest.raises(TicketError, match=r"No unit has p < 0.05 .* the smallest of 1 p-values is 1.*use TopK\(k\)"):
        find_ticket(tiny_llama(), shifted(tiny_llama(), [3], size=1e-4))
    with pytest.raises(TicketError, match="before and after are bit-identical in every candidate"):
        find_ticket(tiny_llama(), tiny_llama())


def test_everything_selected_is_refused() -> None:
    after = tiny_llama()
    with torch.no_grad():
        after.get_parameter(EMBEDDING).add_(0.1)
    with pytest.raises(TicketError, match="All 64 units are selected, so the ticket is the whole of input"):
        find_ticket(tiny_llama(), after, selector=TopK(64))


def test_both_ends_are_searched_together_or_each() -> None:
    after = shifted(shifted(tiny_llama(), [3, 4]), [9], parameter="lm_head.weight")
    ticket = find_ticket(tiny_llama(), after, TokenRows(ends="both"), "ks", TopK(3))
    assert {name: units.tolist() for name, units in ticket.indices.items()} == {"input": [3, 4], "output": [9]}
    each = find_ticket(tiny_llama(), after, TokenRows(ends="both"), "ks", TopK(1, scope="group"))
    assert {name: len(units) for name, units in each.indices.items()} == {"input": 1, "output": 1}


def test_candidates_limit_the_choice() -> None:
    after = shifted(tiny_llama(), PLANTED)
    ticket = find_ticket(tiny_llama(), after, selector=TopK(1), candidates=[3, 4])
    assert ticket.indices["input"].tolist() == [3]
    assert ticket.provenance.details["tested"] == 1
    assert find_ticket(tiny_llama(), after, selector=TopK(1), candidates={"input": [50]}).indices["input"] == [50]
    with pytest.raises(OptionError, match="candidates name units 3 to 64, but group 'input' has units 0 to 63"):
        find_ticket(tiny_llama(), after, candidates=[3, 64])


def test_ks_refuses_units_that_it_cannot_test() -> None:
    class Narrow:
        name = "narrow"

        def groups(self, layout: object) -> Iterator[UnitGroup]:
            yield UnitGroup("norms", (Slab("model.norm.weight", 0),), 32)

    with pytest.raises(UnitError, match="needs at least 8 values per unit, but units of 'norms' have 1. Use finder 'm"):
        score_units(tiny_llama(), tiny_llama(), Narrow(), "ks")  # type: ignore[arg-type]


def test_a_finder_is_a_name_or_an_instance() -> None:
    assert finder(Magnitude()) == Magnitude()
    with pytest.raises(OptionError, match="is neither the name nor an instance of a finder. Names: .*ks, .*magnitude"):
        finder(Magnitude)  # type: ignore[arg-type]
    assert Alpha() == Alpha(0.05, "none")


@pytest.mark.parametrize("name", OF_SHIFT)
def test_a_bad_row_is_named_by_its_place_in_the_whole_tensor(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows come in pieces; the message counts from the tensor's first row."""
    after = shifted(tiny_llama(), PLANTED)
    with torch.no_grad():
        after.get_parameter(EMBEDDING)[50, 3] = float("nan")
    monkeypatch.setattr(Checkpoint.chunks, "__defaults__", (7 * 32 * 4,))
    with pytest.raises(UnitError, match=f"Row 50 of '{EMBEDDING}'"):
        find_ticket(tiny_llama(), after, "token_rows", name, TopK(2))


@pytest.mark.parametrize("correction", ["none", "bonferroni", "holm", "bh"])
@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.6])
def test_settling_rows_below_the_threshold_changes_no_ticket(alpha: float, correction: str) -> None:
    before, after = tiny_llama(), tiny_llama()
    with torch.no_grad():
        weight = after.get_parameter(EMBEDDING)
        weight[:40] += weight.std() * torch.linspace(0, 6, 40)[:, None]
    scores = score_units(before, after)
    exact = select_ticket(scores, before, after, selector=Alpha(alpha, correction))
    assert 0 < len(exact.indices["input"]) < 40
    assert find_ticket(before, after, selector=Alpha(alpha, correction)) == exact
    (settled,) = finder("ks").score(
        TokenRows().groups(ModelCheckpoint(before).layout()),
        Shift(ModelCheckpoint(before), ModelCheckpoint(after), level=alpha),
    )
    assert (settled.log_p >= scores[0].log_p).all()
    assert (settled.log_p[scores[0].log_p < np.log(alpha)] == scores[0].log_p[scores[0].log_p < np.log(alpha)]).all()
