"""Units of every granularity in every kind of architecture: exactly they train, and they act as merged ones do."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ks_lottery.adapter.attach import attach_ticket
from ks_lottery.checkpoints.reader import ModelCheckpoint
from ks_lottery.errors import AdapterError
from ks_lottery.ticket.identity import identify
from ks_lottery.ticket.ticket import Provenance, Selection, Ticket
from ks_lottery.units.granularity import GRANULARITIES
from ks_lottery.units.slab import parameters_of
from tests.adapter.tickets import randomise, weights
from tests.units import models

ARCHITECTURES = (
    "qwen2", "gemma3", "olmo2", "phi3", "gpt2", "bloom", "deberta-v2 with relative positions", "gated t5", "bart",
    "vit",
)  # fmt: skip
INSIDE = ("heads", "neurons", "supernet", "layers", "matrix_rows", "weights")


def draw(model: nn.Module, granularity: str, only: tuple[str, ...] = ()) -> Ticket:
    """A ticket of about a fifth of the units, and never of none."""
    checkpoint, rng = ModelCheckpoint(model), np.random.default_rng(0)
    groups = GRANULARITIES.get(granularity)(only=only).groups(checkpoint.layout())
    chosen = {group.name: np.flatnonzero(rng.random(group.num_units) < 0.2) for group in groups}
    if not any(map(len, chosen.values())):
        chosen[groups[0].name] = np.array([0])
    selections = {group.name: Selection(group, chosen[group.name]) for group in groups}
    return Ticket("update", granularity, selections, identify(checkpoint, parameters_of(groups)), Provenance("drawn"))


def outputs(monkeypatch: pytest.MonkeyPatch, case: str, model: nn.Module) -> Tensor:
    """Outputs of a model of a case for the case's input."""
    with monkeypatch.context() as patch:
        patch.setattr(models, "tiny", lambda _: model)
        return models.outputs(case)


@pytest.mark.parametrize("granularity", INSIDE)
@pytest.mark.parametrize("case", ARCHITECTURES)
def test_units_of_all_kinds(case: str, granularity: str, monkeypatch: pytest.MonkeyPatch) -> None:
    base = copy.deepcopy(models.tiny(case))
    # T5's table of relative positions is an embedding, of which whole rows train and no single weights.
    only = ("*.[qkvo].weight", "*.w*.weight") if (case, granularity) == ("gated t5", "weights") else ()
    ticket = draw(base, granularity, only)
    before, plain = weights(base), outputs(monkeypatch, case, base)
    model = attach_ticket(base, ticket, check_base=False)
    assert torch.equal(outputs(monkeypatch, case, base), plain)
    deltas = [parameter for name, parameter in model.named_parameters() if ".ks_ticket_" in name]
    assert all(parameter.requires_grad for parameter in deltas)
    assert sum(parameter.numel() for parameter in deltas) == ticket.num_trainable()
    randomise(model)
    unmerged = outputs(monkeypatch, case, base)
    assert not torch.equal(unmerged, plain)
    merged = model.merge_and_unload()
    torch.testing.assert_close(outputs(monkeypatch, case, merged), unmerged, rtol=1e-4, atol=1e-4)
    masks = ticket.masks()
    for name, value in merged.named_parameters():
        if name.partition(".")[0] not in ("classifier", "pre_classifier", "score"):
            mask = masks.get(name, torch.zeros(value.shape, dtype=torch.bool))
            assert torch.equal(value[~mask], before[name][~mask]), name
            assert not mask.any() or (value[mask] != before[name][mask]).float().mean() > 0.9, name


@pytest.mark.parametrize("granularity", ["neurons", "layers", "matrix_rows", "weights"])
def test_fused_experts_are_refused(granularity: str) -> None:
    base = copy.deepcopy(models.tiny("mixtral"))
    with pytest.raises(AdapterError, match="fused matrices of a mixture of experts, of which this version trains"):
        attach_ticket(base, draw(base, granularity))
    assert attach_ticket(base, draw(base, "heads")).get_nb_trainable_parameters()[0] > 0
