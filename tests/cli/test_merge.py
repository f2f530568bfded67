"""`ks-lottery merge` writes a plain model: with an adapter's weights, or with a ticket's from a tuned model."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from ks_lottery.adapter.attach import attach_ticket
from ks_lottery.finders.search import find_ticket
from ks_lottery.finders.select import TopK
from tests.adapter.tickets import assert_same_logits, logits, make_ticket, randomise
from tests.cli.conftest import MOVED, Outcome
from tests.cli.test_app import interrupted

Run = Callable[..., Outcome]
Pair = tuple[Path, Path]
TOKENS = torch.arange(24).view(2, 12)


@pytest.fixture(scope="module")
def adapter(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.Tensor]:
    """A saved adapter of the pair's first model, and the logits of the two together."""
    folder = tmp_path_factory.mktemp("adapter") / "adapter"
    model = AutoModelForCausalLM.from_pretrained(pair[0])
    tuned = attach_ticket(model, make_ticket(model, "both")).eval()
    randomise(tuned)
    tuned.save_pretrained(folder)
    return folder, logits(tuned, TOKENS)


def test_an_adapter(run: Run, adapter: tuple[Path, torch.Tensor], tmp_path: Path) -> None:
    saved, expected = adapter
    outcome = run("merge", saved, "--out", tmp_path / "merged")
    assert outcome.code == 0
    size = sum(path.stat().st_size for path in (tmp_path / "merged").iterdir())
    assert outcome.out == (
        f"Wrote the base model with the adapter's weights in {tmp_path / 'merged'}: 3 files, {size:,} bytes.\n"
    )
    assert_same_logits(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "merged"), TOKENS), expected)
    content = json.loads(run("merge", saved, "--out", tmp_path / "merged", "--json").out)
    assert content["files"] == ["config.json", "generation_config.json", "model.safetensors"]
    assert (content["bytes"], content["transferred"]) == (size, False)


def test_a_transferred_ticket(run: Run, pair: Pair, tmp_path: Path) -> None:
    find_ticket(*pair, selector=TopK(2)).save(tmp_path / "ticket")
    outcome = run("merge", tmp_path / "ticket", "--after", pair[1], "--out", tmp_path / "merged")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith(f"Wrote the base model with the ticket's weights of {pair[1]} in ")
    before = load_file(pair[0] / "model.safetensors")["model.embed_tokens.weight"]
    merged = load_file(tmp_path / "merged" / "model.safetensors")["model.embed_tokens.weight"]
    changed = (merged != before).any(dim=1).nonzero().flatten().tolist()
    assert changed == sorted(MOVED[:2])


def test_what_is_missing_is_said(run: Run, pair: Pair, adapter: tuple[Path, torch.Tensor], tmp_path: Path) -> None:
    find_ticket(*pair, selector=TopK(2)).save(tmp_path / "ticket")
    outcome = run("merge", tmp_path / "ticket", "--out", tmp_path / "merged")
    assert outcome.code == 1
    assert "holds a ticket and no adapter: positions, and no weights. Give --after MODEL" in outcome.err
    hand = make_ticket(AutoModelForCausalLM.from_pretrained(pair[0]), "input")
    object.__setattr__(hand.base, "name", "/gone/model")
    hand.save(tmp_path / "hand")
    outcome = run("merge", tmp_path / "hand", "--after", pair[1], "--out", tmp_path / "merged")
    assert "was found on '/gone/model', which is not on this machine. Give --base-model." in outcome.err
    again = run("merge", tmp_path / "hand", "--after", pair[1], "--base-model", pair[0], "--out", tmp_path / "merged")
    assert again.code == 0
    assert run("merge", adapter[0]).code == 2
    own = run("merge", adapter[0], "--out", adapter[0])
    assert own.code == 1
    assert "would replace" in own.err
    assert (adapter[0] / "adapter_config.json").is_file()


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_leaves_the_older_model(pair: Pair, tmp_path: Path) -> None:
    find_ticket(*pair, selector=TopK(2)).save(tmp_path / "ticket")
    out = tmp_path / "merged"
    out.mkdir()
    (out / "config.json").write_text("older")
    arguments = ["merge", tmp_path / "ticket", "--after", pair[1], "--out", out]
    assert interrupted("ks_lottery.adapter.transfer_files", "read_chosen", arguments) == 130
    assert (out / "config.json").read_text() == "older"
    assert sorted(os.listdir(tmp_path)) == ["merged", "ticket"]
