"""Every block of code on the site's pages runs: Python in one session for a page, commands of this program for real."""

import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import ks_lottery
from ks_lottery.adapter import importers
from ks_lottery.adapter.attach import attach_ticket
from ks_lottery.finders.base import FINDERS
from ks_lottery.finders.draws.random import Random
from ks_lottery.finders.masks.concrete import ConcreteTicketSearch
from ks_lottery.finders.masks.frozen import Frozen
from ks_lottery.finders.masks.super_tickets import SuperTickets
from ks_lottery.finders.saliency.batches import batches_of
from ks_lottery.finders.search import find_ticket
from ks_lottery.finders.select import Density, TopK
from ks_lottery.training.arguments import probe_arguments
from ks_lottery.training.runs import trainer_runs
from ks_lottery.units import architecture
from ks_lottery.units.granularity import GRANULARITIES
from tests.cli.conftest import Outcome
from tests.docs.pages import DOCS, POCKET, blocks, common_names, lay_out
from tests.tiny_models import tiny_llama

Names = dict[str, Any]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with what pages take for granted; what pages register is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    lay_out(tmp_path)
    registered: tuple[Any, ...] = (FINDERS._entries, GRANULARITIES._entries, architecture._ARCHITECTURES)
    kept = [(entries, dict(entries)) for entries in registered]
    torch.manual_seed(0)
    yield tmp_path
    for entries, before in kept:
        entries.clear()
        entries.update(before)


def run_page(name: str, names: Names, program: Callable[..., Outcome] | None = None) -> Names:
    """Run the blocks of a page in their order; commands of other programs are passed over."""
    page = DOCS / name
    found = blocks(page, "python", "bash")
    assert found
    for number, (language, text) in enumerate(found):
        if language == "python":
            exec(compile(text, f"{name}, block {number}", "exec"), names)
            continue
        for line in text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if program is not None and words[:1] == ["ks-lottery"] and not _needs_the_hub(words):
                outcome = program(*words[1:])
                assert outcome.code == 0, f"{line}\n{outcome.err}"
    return names


def _needs_the_hub(words: list[str]) -> bool:
    return words[1] in ("push", "pull")


def test_quickstart(place: Path, run: Callable[..., Outcome]) -> None:
    names = run_page("quickstart.md", common_names(), run)
    assert len(names["ticket"]) == 18
    assert names["tuned"] > names["untouched"]
    assert names["model"].get_nb_trainable_parameters()[0] == 18 * 192
    assert (place / "runs/quickstart/plain/adapter_model.safetensors").is_file()


def test_bring_your_own(place: Path, run: Callable[..., Outcome]) -> None:
    names = run_page("bring-your-own.md", common_names(), run)
    assert names["ticket"].granularity == "down_outputs"
    assert len(names["examples"]) == 2


def test_without_this_library(place: Path, run: Callable[..., Outcome]) -> None:
    names = run_page("without-this-library.md", common_names(), run)
    assert names["arrays"]["input.indices"].shape == (18,)


def test_command_line(place: Path, run: Callable[..., Outcome]) -> None:
    run_page("cli.md", common_names(), run)
    assert (place / "merged-model" / "model.safetensors").is_file()


def test_units_and_adapters(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = run_page("units.md", common_names())
    assert names["heads"].granularity == "heads"
    asked: list[tuple[object, ...]] = []

    def import_sft(*given: object) -> tuple[str, str]:
        asked.append(given)
        return "ticket", "model"

    monkeypatch.setattr(importers, "import_sft", import_sft)
    monkeypatch.setitem(vars(ks_lottery), "import_sft", importers.import_sft)
    adapted = common_names() | {"base_model": tiny_llama(), "trainer": _Trainer()}
    adapted["model"] = _adapted(adapted["model"])
    assert run_page("adapters.md", adapted)["ticket"] == "ticket"
    assert asked[0][0] == "cambridgeltl/mbert-lang-sft-de-small"
    assert adapted["trainer"].trained == 1


class _Trainer:
    """Counts what a Trainer is asked for."""

    trained = 0

    def train(self) -> None:
        self.trained += 1


def _adapted(model: Any) -> Any:
    rows = find_ticket("base-model", "tuned-model", selector=TopK(3))
    return attach_ticket(model, rows)


def test_learnt_masks(place: Path) -> None:
    names = common_names()
    names["batches"] = batches_of(names["dataset"], names["collator"], batch_size=8, count=2)
    names |= {
        "Frozen": Frozen,
        "find_ticket": find_ticket,
        "Density": Density,
        "ConcreteTicketSearch": lambda **options: ConcreteTicketSearch(steps=2, **options),
        "trainer_runs": trainer_runs,
        "SuperTickets": SuperTickets,
        "arguments": lambda folder: probe_arguments(
            folder, max_steps=60, use_cpu=True, save_strategy="no", disable_tqdm=True
        ),
        **_toy_generator(),
    }
    ticket = run_page("masks.md", names)["ticket"]
    assert ticket.granularity == "supernet"


def _toy_generator() -> Names:
    """A generator of points, noise for it, data, and a frozen network that looks at points."""

    def eye(points: Any) -> list[torch.Tensor]:
        seen = getattr(points, "logits", points)
        return [seen.reshape(-1, seen.shape[-1])]

    return {
        "generator": tiny_llama().requires_grad_(False),
        "noise": [{"input_ids": torch.randint(3, 60, (4, 8))} for _ in range(3)],
        "eye": eye,
        "data": [torch.randn(32, tiny_llama().config.vocab_size) for _ in range(2)],
    }


def test_ownership(place: Path) -> None:
    pytest.importorskip("cryptography")
    names = common_names()
    big = AutoModelForCausalLM.from_pretrained(POCKET)
    names |= {"model": big, "suspect": big, "answers_of": lambda model, prompts: [[0] * 16 for _ in prompts]}
    names["ticket"] = find_ticket(big, units="weights", finder=Random(kind="weight"), selector=Density(0.3))
    names = run_page("ownership.md", names)
    assert names["key"] is not None


def test_how_it_works(place: Path) -> None:
    names = run_page("how-it-works.md", common_names())
    height = names["height"]
    assert height[0] == height[2] == 0
    assert height[1] > 0.139 * 192


def test_choosing_a_finder(place: Path, run: Callable[..., Outcome]) -> None:
    names = run_page("choose-a-finder.md", common_names(), run)
    assert len(names["control"]) == 18
    assert (place / "heads-ticket" / "ticket.safetensors").is_file()


def test_home(place: Path) -> None:
    assert len(run_page("index.md", common_names())["ticket"]) == 18


def test_many_devices(place: Path) -> None:
    assert run_page("many-devices.md", common_names())["ticket"].granularity == "heads"


def test_no_page_was_forgotten() -> None:
    """Pages with Python are run here or by the tests of the README."""
    elsewhere = {"finders.md", "theory.md", "architecture.md"}
    here = set(re.findall(r'run_page\(\s*"([^"]+)"', Path(__file__).read_text(encoding="utf-8")))
    with_python = {page.name for page in DOCS.glob("*.md") if blocks(page, "python")}
    assert with_python <= here | elsewhere
