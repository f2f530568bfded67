"""A weight ticket as zeros in the old shapes: every granularity and architecture, every other bit as it was."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ks_lottery.adapter import weight_base
from ks_lottery.adapter.zeros import zero_checkpoint
from ks_lottery.errors import OptionError, TicketError
from ks_lottery.units.granularity import GRANULARITIES
from ks_lottery.units.weights import Weights
from tests.adapter.weight_tickets import drawn, loaded, outputs, weight_ticket, zeros
from tests.tiny_models import tiny_llama
from tests.units.models import tiny


@pytest.mark.parametrize("case", ["phi3", "mixtral", "gpt2", "bert", "t5", "bart"])
def test_zeros_exactly_where_nothing_is_selected(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_base, "_PIECE_BYTES", 100)
    model = tiny(case)
    for units in GRANULARITIES.names():
        ticket = weight_ticket(model, units, drawn)
        assert zero_checkpoint(model, ticket, tmp_path / "out") == tmp_path / "out"
        after = load_file(tmp_path / "out" / "model.safetensors")
        with zeros(model, ticket):
            expected = model.state_dict()
            assert after.keys() <= expected.keys()
            assert after.keys() >= dict(model.named_parameters()).keys()
            assert all(torch.equal(values, expected[name]) for name, values in after.items())


def test_a_folder_keeps_its_shapes_and_computes_what_the_zeros_do(tmp_path: Path) -> None:
    tiny("bert for tokens").save_pretrained(tmp_path / "base")
    model = loaded(tmp_path / "base", "AutoModelForMaskedLM")
    ticket = weight_ticket(tmp_path / "base", "layers", drawn)
    zero_checkpoint(tmp_path / "base", ticket, tmp_path / "out")
    with zeros(model, ticket):
        expected = outputs(model)
    assert torch.equal(outputs(loaded(tmp_path / "out", "AutoModelForMaskedLM")), expected)
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("base", "out"))
    assert {name: t.shape for name, t in before.items()} == {name: t.shape for name, t in after.items()}
    configs = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("base", "out")]
    assert configs[0] == configs[1]


def test_groups_beyond_the_default_ones_and_nan(tmp_path: Path) -> None:
    model = tiny_llama(dtype=torch.bfloat16)
    with torch.no_grad():
        model.model.norm.weight[3] = torch.nan
    ticket = weight_ticket(model, Weights(only=("model.norm.weight",)), lambda group: [0, 5])
    zero_checkpoint(model, ticket, tmp_path / "out")
    after = load_file(tmp_path / "out" / "model.safetensors")["model.norm.weight"]
    assert after.dtype == torch.bfloat16
    assert np.flatnonzero(after.float()).tolist() == [0, 5]


def test_an_update_ticket_is_refused_and_so_is_the_own_folder(tmp_path: Path) -> None:
    tiny_llama().save_pretrained(tmp_path / "base")
    update, weight = (
        weight_ticket(tmp_path / "base", "heads", lambda _: [0], kind=kind) for kind in ("update", "weight")
    )
    with pytest.raises(TicketError, match="of kind 'update'"):
        zero_checkpoint(tmp_path / "base", update, tmp_path / "out")
    with pytest.raises(OptionError, match="The result would replace"):
        zero_checkpoint(tmp_path / "base", weight, tmp_path / "base")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base"]
