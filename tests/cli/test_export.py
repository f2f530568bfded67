"""`ks-lottery export` writes what `export_ticket` writes, and says what it was."""

import json
from pathlib import Path

import pytest
import torch
import typer
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner, Result

from ks_lottery.adapter.attach import attach_ticket
from ks_lottery.cli.export import export
from ks_lottery.errors import AdapterError, TicketError, UnitError
from tests.adapter.tickets import assert_same_logits, logits, make_ticket, randomise, saved_llama
from tests.adapter.weight_tickets import weight_ticket, zeros

program = typer.Typer()
program.command()(export)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Tensor]:
    """Folders of a base model and of an adapter of token rows, and the logits of both together."""
    folder = tmp_path_factory.mktemp("adapter")
    base = saved_llama(folder)
    model = AutoModelForCausalLM.from_pretrained(base)
    tuned = attach_ticket(model, make_ticket(model, "both")).eval()
    randomise(tuned)
    tuned.save_pretrained(folder / "adapter")
    return base, folder / "adapter", logits(tuned, torch.arange(24).view(2, 12))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(program, [*map(str, arguments)])


@pytest.mark.parametrize(("to", "kind"), [("auto", "LORA"), ("lora-embedding", "LORA"), ("lora_embedding", "LORA")])
def test_an_adapter_for_plain_peft(adapter: tuple[Path, Path, Tensor], tmp_path: Path, to: str, kind: str) -> None:
    base, saved, expected = adapter
    result = run(saved, "--to", to, "--out", tmp_path / "out")
    assert (result.exit_code, result.stderr) == (0, "")
    size = sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    assert result.stdout == f"Wrote a {kind} adapter for plain PEFT in {tmp_path / 'out'}: 2 files, {size:,} bytes.\n"
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["peft_type"] == kind
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(tmp_path / "out"))
    assert_same_logits(logits(model, torch.arange(24).view(2, 12)), expected)


def test_json(adapter: tuple[Path, Path, Tensor], tmp_path: Path) -> None:
    base, saved, _ = adapter
    content = json.loads(run(saved, "--out", tmp_path / "out", "--json").stdout)
    assert content["files"] == ["adapter_config.json", "adapter_model.safetensors"]
    assert (content["folder"], content["type"]) == (str(tmp_path / "out"), "LORA")
    assert content["bytes"] == sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    weight_ticket(base, "neurons", lambda group: range(group.num_units // 2)).save(tmp_path / "ticket")
    arguments = ("--shrink", "--base-model", base, "--out", tmp_path / "smaller", "--json")
    content = json.loads(run(tmp_path / "ticket", *arguments).stdout)
    assert content["type"] == "smaller model"
    assert content["num_parameters"] < content["num_parameters_before"]
    assert content["config"]["intermediate_size"] == [48, 24]


def test_a_merged_model_of_a_moved_base(adapter: tuple[Path, Path, Tensor], tmp_path: Path) -> None:
    base, saved, expected = adapter
    (tmp_path / "moved").symlink_to(base)
    result = run(saved, "--to", "merged", "--base-model", tmp_path / "moved", "--out", tmp_path / "out")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Wrote the merged model in {tmp_path / 'out'}: 3 files, ")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert_same_logits(logits(model, torch.arange(24).view(2, 12)), expected)


def test_an_unknown_carrier_is_wrong_usage(adapter: tuple[Path, Path, Tensor], tmp_path: Path) -> None:
    result = run(adapter[1], "--to", "merge", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: Unknown export carrier 'merge'. Did you mean 'merged'? Available: lora, ")


def test_a_carrier_that_cannot_hold_the_ticket_is_an_error(adapter: tuple[Path, Path, Tensor], tmp_path: Path) -> None:
    result = run(adapter[1], "--to", "supertuning", "--out", tmp_path / "out")
    assert isinstance(result.exception, AdapterError)
    assert "Carriers that can: lora, lora_embedding, merged." in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_a_smaller_model_of_a_weight_ticket(adapter: tuple[Path, Path, Tensor], tmp_path: Path) -> None:
    base, *_ = adapter
    ticket = weight_ticket(base, "neurons", lambda group: range(group.num_units // 2))
    ticket.save(tmp_path / "ticket")
    result = run(tmp_path / "ticket", "--shrink", "--base-model", base, "--out", tmp_path / "out")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "weights (" in result.stdout
    assert "; intermediate_size " in result.stdout
    model, tokens = AutoModelForCausalLM.from_pretrained(base).eval(), torch.arange(24).view(2, 12)
    with zeros(model, ticket):
        expected = logits(model, tokens)
    smaller = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    assert smaller.num_parameters() < model.num_parameters()
    assert_same_logits(logits(smaller, tokens), expected)


def test_what_a_configuration_cannot_express_is_said(adapter: tuple[Path, Path, Tensor], tmp_path: Path) -> None:
    ticket = weight_ticket(adapter[0], "neurons", lambda group: range(3 if group.name.startswith("layers.0") else 2))
    ticket.save(tmp_path / "ticket")
    result = run(tmp_path / "ticket", "--shrink", "--base-model", adapter[0], "--out", tmp_path / "out")
    assert isinstance(result.exception, UnitError)
    assert not (tmp_path / "out").exists()


def test_shrinking_needs_the_base_model_and_nothing_else(adapter: tuple[Path, Path, Tensor], tmp_path: Path) -> None:
    weight_ticket(adapter[0], "neurons", lambda group: range(2)).save(tmp_path / "ticket")
    result = run(tmp_path / "ticket", "--shrink", "--out", tmp_path / "out")
    assert isinstance(result.exception, TicketError)
    assert "does not say what its base model is. Give --base-model." in str(result.exception)
    result = run(tmp_path / "ticket", "--shrink", "--to", "lora", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "--shrink writes a whole model, so --to lora says something else." in result.stderr
