"""An adapter from anywhere is refused by name of what is wrong before any weight of the model is changed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from ks_lottery.errors import AdapterError
from tests.adapter.tickets import tuned, weights
from tests.tiny_models import tiny_llama

ROWS = "model.embed_tokens"
KEY = f"base_model.model.{ROWS}.ks_ticket_"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    tuned(tiny_llama(), "both").save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def refusal(folder: Path) -> str:
    model = tiny_llama()
    with pytest.raises(AdapterError) as caught:
        PeftModel.from_pretrained(model, str(folder))
    assert len(str(caught.value)) < 2000
    before = weights(tiny_llama())
    after = {name.replace(".base_layer", ""): value for name, value in weights(model).items()}
    assert all(torch.equal(after[name], value) for name, value in before.items())
    return str(caught.value)


CONFIGS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "rows that are text": (lambda c: c["rows"].update({ROWS: "5"}), f"rows={{'lm_head': 3, '{ROWS}': '5'}}): must be"),
    "no rows": (lambda c: c.update(rows=None), "rows=None): must be an object"),
    "a list of rows": (lambda c: c.update(rows=[ROWS]), "must be an object of names and numbers of 1 or more"),
    "negative rows": (lambda c: c["rows"].update({ROWS: -5}), "must be an object of names and numbers of 1 or more"),
    "half rows": (lambda c: c["rows"].update({ROWS: 5.5}), "must be an object of names and numbers of 1 or more"),
    "a boolean": (lambda c: c["rows"].update({ROWS: True}), "must be an object of names and numbers of 1 or more"),
    "endless rows": (lambda c: c["rows"].update({ROWS: 10**15}), f"trains {10**15} rows of the weight of '{ROWS}'"),
    "more rows than there are": (lambda c: c["rows"].update({ROWS: 65}), "up to 64, which has only 64"),
    "fewer rows than in the file": (lambda c: c["rows"].update({ROWS: 4}), "where 4 positions should be"),
    "another module": (lambda c: c["rows"].update({"model.x": 5}), "which this LlamaForCausalLM does not have"),
    "the whole model": (lambda c: c["rows"].update({"": 5}), "'' is a transformers.models.llama"),
    "ties that are a number": (lambda c: c.update(tied_modules=5), "tied_modules=5): must be an object"),
    "ties with a number": (lambda c: c["tied_modules"].update({ROWS: 5}), "must be an object of names and lists"),
    "a fingerprint that is a list": (lambda c: c.update(ticket=[]), "ticket=[]): must be a fingerprint"),
    "modules that are a number": (lambda c: c.update(modules_to_save=5), "modules_to_save=5): must be a list"),
    "modules around the rows": (lambda c: c.update(modules_to_save=["model"]), "all of 'model', in which it lies"),
    "positions": (lambda c: c.update(positions={ROWS: [10**9]}), "has 'positions', which is never written there"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_configuration_that_is_never_written_is_refused(case: str, saved: Path) -> None:
    change, expected = CONFIGS[case]
    values = json.loads((saved / "adapter_config.json").read_text())
    change(values)
    (saved / "adapter_config.json").write_text(json.dumps(values))
    assert expected in refusal(saved)


def test_an_ambiguous_configuration_is_refused(saved: Path) -> None:
    text = (saved / "adapter_config.json").read_text()
    (saved / "adapter_config.json").write_text(text.replace("{", '{"rows": {}, ', 1))
    assert "it names 'rows' twice" in refusal(saved)


TENSORS: dict[str, tuple[dict[str, Any], str]] = {
    "negative": ({"index": torch.tensor([-1, 7, 9, 31, 63])}, "goes from -1 to 63"),
    "too far": ({"index": torch.tensor([0, 7, 9, 31, 64])}, "from 0 to 63"),
    "beyond int32": ({"index": torch.tensor([0, 7, 9, 31, 2**62])}, f"goes from 0 to {2**62}"),
    "twice": ({"index": torch.tensor([0, 7, 7, 31, 63])}, "sorted, each once"),
    "unsorted": ({"index": torch.tensor([0, 9, 7, 31, 63])}, "sorted, each once"),
    "floats": ({"index": torch.tensor([0.5, 7, 9, 31, 63])}, "is torch.float32 of shape (5,), where 5 positions"),
    "not a number": ({"index": torch.full((5,), float("nan"))}, "is torch.float32 of shape (5,)"),
    "booleans": ({"index": torch.ones(5, dtype=torch.bool)}, "is torch.bool of shape (5,)"),
    "a matrix": ({"index": torch.zeros(5, 1, dtype=torch.int64)}, "is torch.int64 of shape (5, 1)"),
    "no positions": ({"index": None}, "ks_ticket_delta.default' alone"),
    "no values": ({"delta": None}, "ks_ticket_index.default' alone"),
    "narrow values": ({"delta": torch.zeros(5, 3)}, "where floats of shape (5, 32) should be"),
    "values of integers": ({"delta": torch.zeros(5, 32, dtype=torch.int64)}, "is torch.int64 of shape (5, 32)"),
}


@pytest.mark.parametrize("case", TENSORS)
def test_positions_and_values_that_do_not_fit_are_refused(case: str, saved: Path) -> None:
    changes, expected = TENSORS[case]
    file = saved / "adapter_model.safetensors"
    tensors = load_file(file) | {KEY + name: value for name, value in changes.items()}
    save_file({name: value for name, value in tensors.items() if value is not None}, file)
    assert expected in refusal(saved)


def test_damaged_weights_are_refused(saved: Path) -> None:
    file = saved / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    assert "The weights of the adapter in" in refusal(saved)
