"""`ks-lottery find --task`: finders that look at batches, masks over frozen weights, or repeated training."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ks_lottery.ticket.ticket import Ticket
from tests.cli.conftest import Outcome
from tests.evaluation.comparison.tiny_files import save_comparison
from tests.finders.masks.models import tuned
from tests.tiny_models import tiny_llama

Run = Callable[..., Outcome]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model, its copy after training, and a task file that names neither."""
    monkeypatch.chdir(tmp_path)
    task = yaml.safe_load(save_comparison(tmp_path).read_text())["tasks"]["de"]
    model = tiny_llama(vocabulary=tiny_llama_rows(tmp_path))
    (tmp_path / "model").rename(tmp_path / "base-model")
    tuned(model).save_pretrained(tmp_path / "tuned-model")  # type: ignore[operator]
    write_task(tmp_path, {name: value for name, value in task.items() if name != "model"})
    return tmp_path


def tiny_llama_rows(folder: Path) -> int:
    return int(yaml.safe_load((folder / "model" / "config.json").read_text())["vocab_size"])


def write_task(folder: Path, task: Any, **more: Any) -> None:
    content = {"task": task, "budget": {"steps": 2, "batch_size": 2, "batches": 2}, **more}
    (folder / "task.yaml").write_text(yaml.safe_dump(content))


def test_a_mask_over_the_weights(run: Run, folder: Path) -> None:
    outcome = run(
        "find", "base-model", "--units", "heads", "--finder", "edge_popup", "--density", "0.25", "--option", "steps=3",
        "--task", "task.yaml", "--out", "ticket",
    )  # fmt: skip
    assert (outcome.code, outcome.err) == (0, "")
    ticket = Ticket.load("ticket")
    assert (ticket.kind, len(ticket)) == ("weight", 1)
    assert ticket.provenance.details["finder_options"]["density"] == 0.25
    assert outcome.out.splitlines()[1].split() == ["group", "unit", "score"]
    assert "paired" not in outcome.out


def test_the_density_of_a_mask_is_its_own_if_no_other_is_given(run: Run, folder: Path) -> None:
    arguments = ["find", "base-model", "--units", "neurons", "--finder", "edge_popup", "--option", "steps=1"]
    assert run(*arguments, "--task", "task.yaml", "--out", "ticket").code == 0
    assert Ticket.load("ticket").density() == 0.5
    options = [*arguments, "--option", "density=0.25", "--task", "task.yaml"]
    assert run(*options, "--out", "ticket").code == 0
    assert Ticket.load("ticket").density() == 0.25
    outcome = run(*options, "--density", "0.5")
    assert outcome.code == 2
    assert "--density 0.5 and --option density=0.25: the mask is learnt at one density" in outcome.words


@pytest.mark.parametrize("given", [True, False])
def test_a_mask_over_an_update_that_is_given_or_trained(run: Run, folder: Path, given: bool) -> None:
    after = ["tuned-model"] if given else []
    outcome = run(
        "find", "base-model", *after, "--units", "neurons", "--finder", "edge_popup", "--option", "kind=update",
        "--option", "steps=2", "--density", "0.1", "--task", "task.yaml", "--out", "ticket", "--runs", "kept",
    )  # fmt: skip
    assert (outcome.code, outcome.err) == (0, "")
    assert Ticket.load("ticket").kind == "update"
    assert (folder / "kept").is_dir() == (not given)


def test_the_example_of_the_help(run: Run, folder: Path) -> None:
    outcome = run(
        "find", "base-model", "--units", "heads", "--finder", "edge_popup", "--density", "0.5", "--task", "task.yaml",
        "--out", "ticket",
    )  # fmt: skip
    assert (outcome.code, outcome.err) == (0, "")


def test_gradients_trainings_and_chance(run: Run, folder: Path) -> None:
    assert run("find", "base-model", "--finder", "fisher", "--top-k", 3, "--task", "task.yaml", "--out", "a").code == 0
    two = ["find", "base-model", "--finder", "imp", "--option", "kind=update", "--option", "rounds=1", "--top-k", 3]
    assert run(*two, "--task", "task.yaml", "--out", "b").code == 0
    assert (folder / "runs" / "find").is_dir()
    assert run("find", "base-model", "--finder", "random", "--top-k", 3, "--out", "c").code == 0
    assert [len(Ticket.load(name)) for name in "abc"] == [3, 3, 3]
    assert Ticket.load("a").base == Ticket.load("b").base


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--finder", "ks"], "Finder 'ks' looks at two checkpoints: give AFTER"),
        (["tuned-model", "--task", "task.yaml"], "--task task.yaml: finder 'ks' looks at two checkpoints alone"),
        (["--finder", "snip", "--top-k", "1"], "Finder 'snip' looks at a model and batches of its task"),
        (["tuned-model", "--finder", "snip", "--task", "task.yaml"], "not at the second checkpoint 'tuned-model'"),
        (["tuned-model", "--finder", "edge_popup", "--task", "task.yaml"], "or ask for --option kind=update"),
        (["--finder", "random", "--top-k", "1", "--task", "task.yaml"], "finder 'random' looks at nothing"),
        (["--finder", "snip", "--top-k", "1", "--task", "none.yaml"], "There is no configuration file 'none.yaml'"),
    ],
)
def test_what_a_finder_lacks_or_does_not_look_at_is_said(
    run: Run, folder: Path, arguments: list[str], message: str
) -> None:
    outcome = run("find", "base-model", *arguments)
    assert outcome.code == 2
    assert message in outcome.words


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"task": ["de"]}, "task: ['de']: must hold `kind` and the options of that kind"),
        ({"task": {}, "seed": -1}, "seed: -1: must be a whole number from 0 on"),
        ({"task": {}, "tables": []}, "has the unknown option 'tables'"),
        ({"task": {}}, "The task 'task' has no kind"),
        (
            {"task": {"kind": "translation", "model": "elsewhere"}},
            "has model: elsewhere, but the ticket is asked for b",
        ),
    ],
)
def test_task_files_that_are_wrong_are_explained(run: Run, folder: Path, content: dict[str, Any], message: str) -> None:
    (folder / "task.yaml").write_text(yaml.safe_dump(content))
    outcome = run("find", "base-model", "--finder", "snip", "--top-k", "1", "--task", "task.yaml")
    assert outcome.code == 2
    assert message in outcome.words
