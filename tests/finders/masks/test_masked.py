"""A model under a mask: its weights, the gradient by the mask, and that it is as before afterwards."""

import pytest
import torch
from torch import Tensor, nn

from ks_lottery.checkpoints.reader import ModelCheckpoint
from ks_lottery.errors import CheckpointError, OptionError, UnitError
from ks_lottery.finders.masks.frozen import Frozen
from ks_lottery.finders.masks.masked import masked
from ks_lottery.ticket.ticket import Kind
from ks_lottery.units.granularity import GRANULARITIES
from ks_lottery.units.slab import Slab, UnitGroup
from tests.finders.masks.models import frozen_of, tuned
from tests.finders.saliency.models import MODELS, batches_for, groups_of
from tests.tiny_models import tiny_llama

KINDS: list[Kind] = ["weight", "update"]


def states(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def expected(groups: tuple[UnitGroup, ...], mask: Tensor, base: dict[str, Tensor], after: dict[str, Tensor] | None):  # type: ignore[no-untyped-def]
    """The weights under a mask, unit by unit, with the slabs' own reading and writing."""
    found = {name: value.clone() for name, value in base.items()}
    start = 0
    for group in groups:
        for unit in range(group.num_units):
            factor, units = mask[start + unit], torch.tensor([unit]).numpy()
            for slab in group.slabs:
                own = slab.take(base[slab.parameter], units)
                value = own * factor
                if after is not None:
                    value = own + factor * (slab.take(after[slab.parameter], units) - own)
                slab.put(found[slab.parameter], units, value)
        start += group.num_units
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("units", GRANULARITIES.names())
@pytest.mark.parametrize("case", ["llama", "bert"])
def test_the_weights_are_those_of_the_formula(units: str, kind: Kind, case: str) -> None:
    evidence = frozen_of(case, kind, dtype=torch.float64)
    groups, base = groups_of(evidence.model, units), states(evidence.model)
    after = None if evidence.after is None else {name: evidence.after.rows(name) for name in evidence.after.names()}  # type: ignore[union-attr]
    with masked(evidence, groups, kind) as model:
        mask = torch.rand(model.num_units, generator=torch.Generator().manual_seed(0))
        model.write(mask)
        wanted = expected(groups, mask.double(), base, after)
        for name, value in evidence.model.named_parameters():
            torch.testing.assert_close(value.detach(), wanted[name], rtol=1e-12, atol=1e-12)
    assert all(torch.equal(value, base[name]) for name, value in evidence.model.state_dict().items())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("units", GRANULARITIES.names())
def test_the_gradient_is_that_of_finite_differences(units: str, kind: Kind) -> None:
    evidence = frozen_of("bert", kind, dtype=torch.float64)
    with masked(evidence, groups_of(evidence.model, units), kind) as model:
        generator = torch.Generator().manual_seed(1)
        mask = 0.5 + 0.5 * torch.rand(model.num_units, generator=generator)
        along = torch.randn(model.num_units, generator=generator)

        numeric = 0.0
        for step in (1e-4, -1e-4):
            model.write(mask.double() + step * along.double())
            with torch.no_grad():
                numeric += float(in_double(evidence)) / (2 * step)
        model.write(mask)
        gradient = model.gradient(lambda: in_double(evidence))
        assert gradient.dtype == torch.float32
        torch.testing.assert_close(float(gradient.double() @ along.double()), numeric, rtol=1e-5, atol=1e-9)


def in_double(evidence: Frozen) -> Tensor:
    """Mean squared logit of a BERT, which computes everything in float64."""
    value: Tensor = evidence.model(input_ids=evidence.batches[0]["input_ids"]).logits.square().mean()
    return value


def test_a_mask_of_ones_changes_nothing_and_of_zeros_everything_that_units_own() -> None:
    evidence = frozen_of("llama", "weight")
    groups, base = groups_of(evidence.model, "neurons"), states(evidence.model)
    with masked(evidence, groups, "weight") as model:
        assert all(torch.equal(value, base[name]) for name, value in evidence.model.state_dict().items())
        model.write(torch.zeros(model.num_units))
        mlp = [value for name, value in evidence.model.named_parameters() if ".mlp." in name]
        assert mlp
        assert not any(value.any() for value in mlp)


def test_an_error_inside_leaves_the_model_as_it_was() -> None:
    evidence = frozen_of("bert")
    base = states(evidence.model)
    groups = groups_of(evidence.model, "heads")

    def crash() -> None:
        with masked(evidence, groups, "update") as model:
            model.write(torch.zeros(model.num_units))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        crash()
    assert all(torch.equal(value, base[name]) for name, value in evidence.model.state_dict().items())
    assert not any(parameter.requires_grad for parameter in evidence.model.parameters())


def test_units_that_did_not_move_are_known() -> None:
    model = tiny_llama().requires_grad_(False)
    after = tiny_llama()
    with torch.no_grad():
        after.model.layers[1].self_attn.o_proj.weight[:, 8:16] += 1
    evidence = Frozen(model, batches_for("llama"), after=after)
    with masked(evidence, groups_of(model, "heads"), "update") as held:
        per_group = [part.tolist() for part in held.split(torch.from_numpy(held.movable()))]
    assert not any(per_group[0])
    assert sum(per_group[1]) == 1
    with masked(evidence, groups_of(model, "weights"), "update") as held:
        assert held.movable().sum() == 8 * 32


def test_a_model_that_would_train_is_refused() -> None:
    model = tiny_llama().requires_grad_(False)
    model.lm_head.weight.requires_grad_(True)
    with pytest.raises(UnitError, match=r"1 parameters require gradients, 'lm_head.weight' the first.*requires_grad_"):
        Frozen(model, batches_for("llama"))


def test_an_update_ticket_needs_to_know_where_it_went() -> None:
    evidence = frozen_of("llama", "weight")
    with (
        pytest.raises(OptionError, match="masks the move from the model to `after`, but the evidence has none"),
        masked(evidence, groups_of(evidence.model, "heads"), "update"),
    ):
        pass


@pytest.mark.parametrize("where", ["model", "move"])
def test_broken_weights_are_named(where: str) -> None:
    model = tiny_llama().requires_grad_(False)
    after = tuned(model)
    with torch.no_grad():
        (model if where == "model" else after).get_parameter("model.layers.1.mlp.up_proj.weight")[0, 0] = float("inf")
    evidence = Frozen(model, batches_for("llama"), after=after)
    with (
        pytest.raises(UnitError, match=rf"layers\.1\.mlp\.up_proj\.weight' has NaN or infinite values in the {where}"),
        masked(evidence, groups_of(model, "neurons"), "update"),
    ):
        pass


def test_another_architecture_as_after_is_refused() -> None:
    model = tiny_llama().requires_grad_(False)
    groups = (UnitGroup("input", (Slab("model.embed_tokens.weight", 0),), 64),)
    for after, has in ((tiny_llama(vocabulary=80), r"shape \(80, 32\)"), (MODELS["bert"](), "no such parameter")):
        checkpoint = ModelCheckpoint(after)
        with (
            pytest.raises(CheckpointError, match=rf"'model.embed_tokens.weight' has shape \(64, 32\).* has {has}"),
            masked(Frozen(model, batches_for("llama"), after=checkpoint), groups, "update"),
        ):
            pass
