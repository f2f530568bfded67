"""What holds for every finder that looks at a model and batches, over every granularity."""

from dataclasses import fields

import numpy as np
import pytest
import torch

from ks_lottery.errors import OptionError, UnitError
from ks_lottery.finders.base import FINDERS, Finder, finder
from ks_lottery.finders.saliency.batches import Batches
from ks_lottery.finders.saliency.movement import Movement
from ks_lottery.finders.search import find_ticket
from ks_lottery.finders.select import Density, TopK
from ks_lottery.ticket.ticket import Ticket
from ks_lottery.units.granularity import GRANULARITIES
from tests.finders.saliency.models import MODELS, batches_for, evidence_of, groups_of, scores_of
from tests.tiny_models import tiny_llama

OF_BATCHES = [name for name, entry in FINDERS.items() if entry.needs is Batches]
GATED, FLOW = "it gates heads and neurons alone", "it follows the flow through feed-forward sublayers"
SKIPPED = {
    **{("head_importance", units): GATED for units in ("layers", "matrix_rows", "token_rows", "weights")},
    **{("synflow", units): FLOW for units in ("heads", "layers", "matrix_rows", "supernet", "token_rows", "weights")},
}
PAIRS = [(name, units) for name in OF_BATCHES for units in GRANULARITIES.names() if (name, units) not in SKIPPED]
# Forward and backward passes of each example.
PASSES = {
    "snip": (1, 1), "gradient": (1, 1), "fisher": (1, 1), "movement": (1, 1), "head_importance": (1, 1), "grasp": (2, 3)
}  # fmt: skip
OTHERS: dict[str, Finder] = {"moving": Movement(kind="update", learning_rate=0.5)}


def test_the_family_is_complete() -> None:
    assert set(OF_BATCHES) >= {*PASSES, "synflow"}


@pytest.mark.parametrize("case", MODELS)
@pytest.mark.parametrize(("name", "units"), PAIRS)
class TestConformance:
    def test_it_names_itself_and_its_source(self, name: str, units: str, case: str) -> None:
        method = finder(name)
        assert method.name == name
        assert method.kind in ("update", "weight")
        assert len(method.citation) > 20
        assert "Source:" in (type(method).__doc__ or "")
        assert all(len(option.metadata["help"]) > 10 for option in fields(method))  # type: ignore[arg-type]

    def test_one_finite_score_per_unit_and_the_same_again(self, name: str, units: str, case: str) -> None:
        evidence = evidence_of(case)
        first, again = scores_of(finder(name), evidence, units), scores_of(finder(name), evidence_of(case), units)
        assert [entry.group for entry in first] == list(groups_of(evidence.model, units))
        for entry, other in zip(first, again, strict=True):
            sizes = {len(entry.score), len(entry.changed), *(len(column) for column in entry.columns.values())}
            assert sizes == {entry.group.num_units}
            assert entry.score.dtype in (np.float64, np.float32)
            assert np.isfinite(entry.score).all()
            assert (entry.score == other.score).all()
        assert len(np.unique(np.concatenate([entry.score for entry in first]))) > 1

    def test_it_leaves_the_model_alone_and_counts_its_passes(self, name: str, units: str, case: str) -> None:
        evidence = evidence_of(case)
        model = evidence.model
        weights = {key: value.clone() for key, value in model.state_dict().items()}
        flags = [index % 2 == 0 for index, _ in enumerate(model.parameters())]
        grads = [
            torch.ones_like(parameter) if index % 3 == 0 else None for index, parameter in enumerate(model.parameters())
        ]
        for parameter, flag, gradient in zip(model.parameters(), flags, grads, strict=True):
            parameter.requires_grad_(flag)
            parameter.grad = gradient
        model.train()
        next(model.children()).eval()
        modes = [module.training for module in model.modules()]
        random = torch.get_rng_state()
        with torch.no_grad():
            scores_of(finder(name), evidence, units)
        assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
        assert [parameter.requires_grad for parameter in model.parameters()] == flags
        assert all(parameter.grad is gradient for parameter, gradient in zip(model.parameters(), grads, strict=True))
        assert [module.training for module in model.modules()] == modes
        assert torch.equal(torch.get_rng_state(), random)
        assert not any(module._forward_pre_hooks for module in model.modules())
        spent = (evidence.passes.forward, evidence.passes.backward)
        if name in PASSES:
            assert spent == tuple(5 * passes for passes in PASSES[name])
        assert min(spent) > 0

    def test_a_ticket_of_it_says_where_it_comes_from(self, name: str, units: str, case: str) -> None:
        evidence = evidence_of(case)
        ticket = find_ticket(evidence.model, units=units, finder=name, selector=TopK(1), evidence=evidence)
        assert ticket.kind == finder(name).kind
        details = ticket.provenance.details
        assert (details["batches"], details["examples"]) == (2, 5)
        assert details["model"] == type(evidence.model).__name__

    def test_half_precision_is_scored(self, name: str, units: str, case: str) -> None:
        evidence = evidence_of(case, dtype=torch.bfloat16)
        assert all(np.isfinite(entry.score).all() for entry in scores_of(finder(name), evidence, units))
        assert {value.dtype for value in evidence.model.parameters()} == {torch.bfloat16}

    def test_a_broken_weight_is_named(self, name: str, units: str, case: str) -> None:
        evidence = evidence_of(case)
        broken = groups_of(evidence.model, units)[-1].slabs[-1].parameter
        with torch.no_grad():
            evidence.model.get_parameter(broken).fill_(float("nan"))
        with pytest.raises(UnitError, match=f"{broken}.*NaN or infinite|NaN or infinite.*{broken}"):
            scores_of(finder(name), evidence, units)


@pytest.mark.parametrize(("name", "units"), sorted(SKIPPED))
def test_what_a_finder_cannot_score_is_refused_with_a_way_out(name: str, units: str) -> None:
    with pytest.raises(
        UnitError, match=r"(no group of attention heads|feed-forward sublayers).* Use units='(heads|ne)"
    ):
        scores_of(finder(name), evidence_of("llama"), units)


def test_weights_that_move_are_restored() -> None:
    evidence = evidence_of("llama")
    before = {key: value.clone() for key, value in evidence.model.state_dict().items()}
    entries = scores_of(OTHERS["moving"], evidence, "heads")
    assert all(torch.equal(value, before[key]) for key, value in evidence.model.state_dict().items())
    assert all(np.abs(entry.score).min() > 0 for entry in entries)


def test_a_ticket_is_stored_and_loaded(tmp_path: "pytest.TempPathFactory") -> None:
    evidence = evidence_of("llama")
    ticket = find_ticket(evidence.model, units="weights", finder="snip", selector=Density(0.9), evidence=evidence)
    ticket.save(tmp_path)  # type: ignore[arg-type]
    assert Ticket.load(tmp_path) == ticket  # type: ignore[arg-type]


def test_units_that_no_batch_speaks_of_are_in_no_update_ticket() -> None:
    """The batches hold tokens below 32 alone, so the other rows of the input embedding have no gradient."""
    for name in ("fisher", "gradient"):
        (entry,) = scores_of(finder(name), evidence_of("llama"), "token_rows")
        used = np.unique(np.concatenate([batch["input_ids"].flatten() for batch in batches_for("llama")]))
        assert set(np.flatnonzero(entry.changed)) <= set(used.tolist())
        assert entry.changed.sum() > len(used) // 2
    (entry,) = scores_of(finder("snip"), evidence_of("llama"), "token_rows")
    assert entry.changed.all()


def test_other_evidence_is_refused() -> None:
    with pytest.raises(OptionError, match=r"Finder 'snip' looks at a model and batches of its task, evidence=Batches"):
        find_ticket(tiny_llama(), tiny_llama(), finder="snip")


def test_the_units_of_another_model_are_refused() -> None:
    bert = evidence_of("bert")
    with pytest.raises(UnitError, match=r"The units lie in 'model.layers.0.*no such parameter; it has bert\.emb"):
        list(finder("snip").score(groups_of(tiny_llama(), "heads"), bert))
    with pytest.raises(UnitError, match=r"80 units of 1 from 0 on do not fit into .* of shape \(64, 32\)"):
        list(finder("snip").score(groups_of(tiny_llama(vocabulary=80), "token_rows"), evidence_of("llama")))
