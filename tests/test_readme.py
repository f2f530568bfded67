"""The README and the documents: their code runs, their commands parse, their links lead somewhere."""

import re
import shlex
from pathlib import Path
from typing import Any

import classification_data
import classification_options
import classify
import compare
import pytest
import torch
import translate
import translation_data
import translation_options
import translation_ticket
import typer
import yaml
from accelerate.commands.launch import launch_command_parser
from options import parse_options
from transformers import TrainingArguments

from ks_lottery.checkpoints.reader import ModelCheckpoint
from ks_lottery.cli.app import app
from ks_lottery.evaluation.comparison.plan import read_plan
from ks_lottery.finders.base import FINDERS, finder
from ks_lottery.finders.search import find_ticket
from ks_lottery.finders.select import TopK
from ks_lottery.training.arguments import probe_arguments
from ks_lottery.training.examples import ResponseCollator
from ks_lottery.units.weights import Weights
from tests.tiny_models import shifted, tiny_llama

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
COMMANDS = ("accelerate launch ", "make ", "ks-lottery ")
RECIPES: dict[str, tuple[tuple[type, ...], tuple[str, ...]]] = {
    "recipes/translate.py": (
        (
            translation_options.ModelArguments,
            translation_data.DataArguments,
            translation_ticket.TicketArguments,
            translation_options.TuningArguments,
            translation_options.EvaluationArguments,
            translate.RunArguments,
        ),
        ("pocket.yaml", "quick.yaml"),
    ),
    "recipes/classify.py": (
        (
            classification_options.ModelArguments,
            classification_data.DataArguments,
            classification_options.TicketArguments,
            classification_options.TuningArguments,
            classification_options.EvaluationArguments,
            classify.RunArguments,
        ),
        ("classify.yaml",),
    ),
}


def blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", document.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands(document: Path) -> list[str]:
    text = document.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = (re.sub(r"^\s*([A-Z_]+=\S+ )*", "", line) for line in text.splitlines())
    return [line.strip() for line in lines if line.startswith(COMMANDS)]


def recipe_of_comparisons() -> typer.core.TyperCommand:
    program = typer.Typer()
    program.command()(compare.compare)
    command = typer.main.get_command(program)
    assert isinstance(command, typer.core.TyperCommand)
    return command


RECIPE_OF_COMPARISONS = recipe_of_comparisons()


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_llama().save_pretrained("base-model")
    shifted(tiny_llama(), list(range(3, 40)), size=100.0).save_pretrained("tuned-model")


def test_the_code_of_the_readme_runs(models: None, capsys: pytest.CaptureFixture[str]) -> None:
    ids = torch.randint(3, 60, (4, 12)).tolist()
    names: dict[str, object] = {
        "args": TrainingArguments(
            output_dir="trainer", max_steps=2, report_to="none", use_cpu=True, save_strategy="no"
        ),
        "dataset": [{"input_ids": row, "labels": row} for row in ids],
        "collator": ResponseCollator(pad_token_id=0),
    }
    found = blocks(ROOT / "README.md", "python")
    assert len(found) == 3
    for block in found:
        exec(compile(block, "README.md", "exec"), names)
    assert "Ticket(update, token_rows, input: 18 of 64" in capsys.readouterr().out
    assert Path("adapter/adapter_config.json").is_file()
    assert names["model"].peft_config["default"].peft_type == "TRAINABLE_TOKENS"  # type: ignore[attr-defined]


def test_the_code_of_the_finders_page_runs(models: None) -> None:
    (block,) = blocks(ROOT / "docs" / "finders.md", "python")
    ids = torch.randint(3, 60, (128, 12)).tolist()
    model, weights = tiny_llama(), Weights()
    names: dict[str, object] = {
        "model": model,
        "load_model": tiny_llama,
        "dataset": [{"input_ids": row, "labels": row} for row in ids],
        "collator": ResponseCollator(pad_token_id=0),
        "TrainingArguments": lambda folder, max_steps: probe_arguments(
            folder, max_steps=2, use_cpu=True, save_strategy="no", disable_tqdm=True
        ),
        "units": weights,
        "layout": ModelCheckpoint(model).layout(),
    }
    exec(compile(block, "finders.md", "exec"), names)
    counts, ticket = names["counts"], names["ticket"]
    assert {name: len(found) for name, found in ticket.indices.items()} == counts  # type: ignore[attr-defined]


def test_the_code_of_the_theory_page_runs() -> None:
    (block,) = blocks(ROOT / "docs" / "theory.md", "python")
    names: dict[str, Any] = {}
    exec(compile(block, "theory.md", "exec"), names)
    assert 0.0 < names["ticket"].masks.density < 0.5


def test_the_configuration_of_the_comparison_page_is_one() -> None:
    (block,) = blocks(ROOT / "docs" / "comparison.md", "yaml")
    plan = read_plan(yaml.safe_load(block))
    assert [entry.label for entry in plan.tables[0].finders] == ["ks", "fisher", "three rounds", "random"]


def test_every_finder_stands_on_its_page() -> None:
    page = (ROOT / "docs" / "finders.md").read_text(encoding="utf-8")
    assert [name for name in FINDERS.names() if f"| `{name}` |" not in page] == []
    assert len(FINDERS.names()) == 24
    assert "Twenty-four finders" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_code_stands_by_line_ten_after_one_sentence() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert lines[0].count(".") == 1
    assert "find_ticket(" in "\n".join(lines[:10])


def test_the_finder_of_the_architecture_page_works() -> None:
    (block,) = blocks(ROOT / "docs" / "architecture.md", "python")
    imports = """
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar
import numpy as np
from ks_lottery.checkpoints.pair import paired_chunks
from ks_lottery.checkpoints.reader import ModelCheckpoint
from ks_lottery.cli.app import app
from ks_lottery.evaluation.comparison.plan import read_plan
from ks_lottery.finders.base import FINDERS, Evidence, Shift, UnitScores
from ks_lottery.stats.floats import bits_of
from ks_lottery.ticket.ticket import Kind
from ks_lottery.units.slab import UnitGroup
"""
    try:
        exec(compile(imports + block, "architecture.md", "exec"), {"__name__": "example"})
        ticket = find_ticket(
            tiny_llama(), shifted(tiny_llama(), [7, 3]), "token_rows", finder("largest_value"), TopK(2)
        )
        assert ticket.indices["input"].tolist() == [3, 7]
    finally:
        FINDERS._entries.pop("largest_value", None)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_parse(document: Path) -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for command in commands(document):
        words = shlex.split(command, comments=True)
        if words[0] == "make":
            assert words[1] in targets, command
            continue
        if words[0] == "ks-lottery":
            program = typer.main.get_command(app)
            assert isinstance(program, typer.core.TyperGroup)
            with program.make_context("ks-lottery", words[1:2]) as context:
                program.commands[words[1]].make_context(words[1], words[2:], parent=context)
            continue
        launched = launch_command_parser().parse_args(words[2:])
        if launched.training_script == "train.py":  # the reader's own
            continue
        if launched.training_script == "recipes/compare.py":
            context = RECIPE_OF_COMPARISONS.make_context("compare.py", list(launched.training_script_args))
            assert read_plan(ROOT / context.params["config"]).tables, command
            continue
        options, configurations = RECIPES[launched.training_script]
        arguments = [
            str(ROOT / word) if word.endswith(".yaml") else word
            for word in launched.training_script_args
            if word != "..."
        ]
        assert len(parse_options(options, arguments, *configurations)) == len(options)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text(encoding="utf-8")):
        assert (document.parent / target).exists(), target
