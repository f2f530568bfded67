"""What holds for every finder that learns a mask over frozen weights, over every granularity and both kinds."""

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch

from ks_lottery.errors import OptionError, UnitError
from ks_lottery.finders.base import FINDERS, finder
from ks_lottery.finders.masks.frozen import Frozen
from ks_lottery.finders.search import find_ticket
from ks_lottery.finders.select import Density, TopK
from ks_lottery.ticket.ticket import Kind, Ticket
from ks_lottery.units.granularity import GRANULARITIES
from tests.finders.masks.models import frozen_of, kept_units, quick
from tests.finders.saliency.models import batches_for, groups_of, scores_of
from tests.tiny_models import tiny_llama

NAMES = [name for name, entry in FINDERS.items() if entry.needs is Frozen]
KINDS: list[Kind] = ["weight", "update"]


def test_the_family_is_complete() -> None:
    assert set(NAMES) >= {"concrete", "edge_popup", "gem_miner", "moments", "partially_frozen", "supermask"}


@pytest.mark.parametrize("name", NAMES)
def test_it_names_itself_and_its_source(name: str) -> None:
    method = finder(name)
    assert method.name == name
    assert len(method.citation) > 20
    assert "Source:" in (type(method).__doc__ or "")
    assert all(len(option.metadata["help"]) > 10 for option in fields(method))  # type: ignore[arg-type]
    assert {"kind", "steps"} <= {option.name for option in fields(method)}  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("units", GRANULARITIES.names())
@pytest.mark.parametrize("name", NAMES)
class TestConformance:
    def test_one_finite_score_per_unit_and_the_same_again(self, name: str, units: str, kind: Kind) -> None:
        evidence = frozen_of("llama", kind)
        first = scores_of(quick(name, kind), evidence, units)
        again = scores_of(quick(name, kind), frozen_of("llama", kind), units)
        assert [entry.group for entry in first] == list(groups_of(evidence.model, units))
        for entry, other in zip(first, again, strict=True):
            sizes = {len(entry.score), len(entry.changed), *(len(column) for column in entry.columns.values())}
            assert sizes == {entry.group.num_units}
            assert np.isfinite(entry.score).all()
            assert (entry.score == other.score).all()
        assert len(np.unique(np.concatenate([entry.score for entry in first]))) > 1

    def test_a_cut_at_its_density_is_the_learnt_mask(self, name: str, units: str, kind: Kind) -> None:
        evidence = frozen_of("llama", kind)
        entries = scores_of(quick(name, kind), evidence, units)
        kept, scores = kept_units(entries).astype(bool), kept_units(entries, scores=True)
        assert 0 < kept.sum() < len(kept)
        assert scores[kept].min() > scores[~kept].max()
        ticket = find_ticket(
            evidence.model, units=units, finder=quick(name, kind), selector=TopK(int(kept.sum())), evidence=evidence
        )
        chosen = [np.isin(np.arange(entry.group.num_units), ticket.indices[entry.group.name]) for entry in entries]
        assert ticket.kind == kind
        assert (np.concatenate(chosen) == kept).all()

    def test_it_leaves_the_model_alone_and_holds_state_for_units_only(
        self, name: str, units: str, kind: Kind, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        evidence = frozen_of("bert", kind)
        model = evidence.model
        with torch.no_grad():
            model(**evidence.batches[0], output_hidden_states=True)  # transformers hangs its own hooks in, once
        hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]
        weights = {key: value.clone() for key, value in model.state_dict().items()}
        places = [parameter.data_ptr() for parameter in model.parameters()]
        model.train()
        next(model.children()).eval()
        modes = [module.training for module in model.modules()]
        random = torch.get_rng_state()
        held: list[int] = []
        add = torch.optim.Optimizer.add_param_group

        def counted(self: Any, group: dict[str, Any]) -> None:
            add(self, group)
            held.extend(parameter.numel() for parameter in group["params"])

        monkeypatch.setattr(torch.optim.Optimizer, "add_param_group", counted)
        entries = scores_of(quick(name, kind), evidence, units)
        assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
        assert [parameter.data_ptr() for parameter in model.parameters()] == places
        assert not any(parameter.requires_grad or parameter.grad is not None for parameter in model.parameters())
        assert [module.training for module in model.modules()] == modes
        assert torch.equal(torch.get_rng_state(), random)
        assert hooks == [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]
        assert len(held) == 1
        assert 0 < held[0] <= sum(entry.group.num_units for entry in entries)
        assert evidence.passes.backward == 3 + 2 + 3
        assert evidence.passes.forward >= evidence.passes.backward

    def test_half_precision_is_scored(self, name: str, units: str, kind: Kind) -> None:
        evidence = frozen_of("llama", kind, dtype=torch.bfloat16)
        assert all(np.isfinite(entry.score).all() for entry in scores_of(quick(name, kind), evidence, units))
        assert {value.dtype for value in evidence.model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("name", NAMES)
class TestRefusals:
    def test_a_broken_weight_is_named(self, name: str) -> None:
        evidence = frozen_of("bert", "weight")
        broken = groups_of(evidence.model, "heads")[-1].slabs[-1].parameter
        evidence.model.get_parameter(broken).data.fill_(float("nan"))
        with pytest.raises(UnitError, match=f"{broken}.*NaN or infinite"):
            scores_of(quick(name, "weight"), evidence, "heads")

    def test_an_update_needs_to_know_where_it_went(self, name: str) -> None:
        with pytest.raises(OptionError, match="masks the move from the model to `after`"):
            scores_of(quick(name, "update"), frozen_of("llama", "weight"), "heads")

    def test_plain_batches_are_refused(self, name: str) -> None:
        with pytest.raises(OptionError, match=f"Finder '{name}' looks at a mask over a frozen model, evidence=Frozen"):
            find_ticket(tiny_llama(), tiny_llama(), finder=name)

    @pytest.mark.parametrize("option", ["kind", "steps", "density"])
    def test_options_out_of_range_are_refused(self, name: str, option: str) -> None:
        wrong = {"kind": "both", "steps": 0, "density": 1.0}[option]
        if option not in {field.name for field in fields(FINDERS.get(name))}:  # type: ignore[arg-type]
            assert option == "density"
            return
        with pytest.raises(OptionError, match=f"{option}={wrong!r}"):
            FINDERS.get(name)(**{option: wrong})


def test_a_ticket_says_where_it_comes_from_and_is_stored(tmp_path: Any) -> None:
    evidence = frozen_of("llama", "update")
    ticket = find_ticket(
        evidence.model, units="heads", finder=quick("edge_popup", "update"), selector=Density(0.5), evidence=evidence
    )
    ticket.save(tmp_path)
    details = Ticket.load(tmp_path).provenance.details
    assert details["finder_options"]["density"] == 0.5
    assert (details["batches"], details["examples"], details["after"]) == (2, 5, "LlamaForCausalLM")


def test_units_that_did_not_move_are_in_no_update_ticket() -> None:
    model = tiny_llama().requires_grad_(False)
    after = tiny_llama()
    with torch.no_grad():
        after.model.embed_tokens.weight[4:9] += 0.1
    evidence = Frozen(model, batches_for("llama"), after=after)
    for name in NAMES:
        (entry,) = scores_of(quick(name, "update"), evidence, "token_rows")
        assert np.flatnonzero(entry.changed).tolist() == [4, 5, 6, 7, 8]
