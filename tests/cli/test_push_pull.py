"""`ks-lottery push` and `pull`: there and back, listed in between, and one line about what goes wrong."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from ks_lottery.finders.search import find_ticket
from ks_lottery.finders.select import TopK
from ks_lottery.report.report import write_report
from ks_lottery.ticket.ticket import Ticket
from tests.cli.conftest import Outcome
from tests.fake_hub import TOKEN, FakeHub
from tests.hub_trouble import Trouble, busy
from tests.report.example import example_report

Run = Callable[..., Outcome]
Pair = tuple[Path, Path]


@pytest.fixture
def ticket(pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ticket:
    """In the current folder: a ticket in `ticket`, a report in `report`."""
    monkeypatch.chdir(tmp_path)
    found = find_ticket(*pair, selector=TopK(3))
    found.save("ticket")
    write_report("report", example_report())
    return found


def test_there_and_back(run: Run, fake_hub: FakeHub, ticket: Ticket) -> None:
    outcome = run(
        "push", "ticket", "me-ticket", "--private", "--report", "report", "--base-model", "meta/llama", "--language",
        "de", "--license", "apache-2.0", "--dataset", "tatoeba", "--message", "First",
    )  # fmt: skip
    assert (outcome.code, outcome.err) == (0, "")
    repository = fake_hub.repositories["tester/me-ticket"]
    assert outcome.out == f"Pushed 9 files: {fake_hub.url}/tester/me-ticket/commit/{repository.commits[-1].oid}\n"
    assert repository.private
    assert repository.commits[-1].message == "First"
    card = ModelCard(fake_hub.files("tester/me-ticket")["README.md"].decode())
    assert (card.data.base_model, card.data.language, card.data.license) == ("meta/llama", ["de"], "apache-2.0")
    assert {one.dataset_type for one in card.data.eval_results} == {"tatoeba"}
    assert "`word5`" in card.text

    listed = run("pull", "--list", "meta/llama")
    assert listed.code == 0
    assert [line.split() for line in listed.out.splitlines()] == [
        ["ticket", "holds", "downloads", "likes", "updated"],
        ["tester/me-ticket", "positions,", "private", "2", "1", "2026-05-31"],
    ]
    (entry,) = json.loads(run("pull", "--list", "meta/llama", "--limit", 3, "--json").out)
    assert (entry["repo_id"], entry["private"]) == ("tester/me-ticket", True)

    pulled = run("pull", "tester/me-ticket", "--out", "pulled")
    assert pulled.code == 0
    assert pulled.out.startswith("Pulled tester/me-ticket into pulled: 3 units (token_rows) of ")
    assert Ticket.load("pulled") == ticket
    assert Path("pulled/report/results.json").is_file()
    content = json.loads(run("pull", "tester/me-ticket@main", "--out", "pulled", "--ticket-only", "--json").out)
    assert (content["fingerprint"], content["num_units"], content["folder"]) == (ticket.fingerprint, 3, "pulled")
    assert os.listdir("pulled") == ["ticket.safetensors"]


def test_push_as_json_and_a_base_model_that_nobody_else_has(run: Run, fake_hub: FakeHub, ticket: Ticket) -> None:
    outcome = run("push", "ticket", "tester/ticket", "--json")
    content = json.loads(outcome.out)
    assert content["files"] == ["README.md", "ticket.safetensors"]
    assert content["base_model"] is None
    assert outcome.err == (
        "Note: The base model has no Hub id, so that others cannot know which it is. --base-model HUB_ID says it.\n"
    )
    assert run("pull", "--list", "meta/llama").out.startswith("The Hub lists no ticket of meta/llama that you may see.")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["push", "ticket"], "Missing argument 'REPO_ID'"),
        (["push", "absent", "me/x"], "'absent' holds neither ticket.safetensors nor adapter_config.json"),
        (["push", "ticket", "me/x", "--base-model", "/home/me/base"], "--base-model /home/me/base: others cannot load"),
        (["pull"], "Give REPO_ID and --out DIR to fetch a ticket, or --list BASE to see which there are."),
        (["pull", "me/x"], "Give REPO_ID and --out DIR"),
        (["pull", "me/x", "--out", "o", "--limit", "3"], "--limit 3 is for --list BASE"),
        (["pull", "me/x", "--list", "b/c", "--ticket-only"], "leave REPO_ID and --ticket-only out."),
        (["pull", "me/x", "--out", "report"], "'report' is there and holds no ticket"),
    ],
)
def test_wrong_usage(run: Run, fake_hub: FakeHub, ticket: Ticket, arguments: list[str], message: str) -> None:
    outcome = run(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.words
    assert fake_hub.requests == []


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        (busy(status=401), "the Hub does not know you (There is trouble). Log in with `hf auth login`"),
        (busy(status=403), "your account or token may not do that (There is trouble)."),
        (busy(status=404), "the Hub has nothing of that name (There is trouble)."),
        (busy(status=409), "somebody else changes the repository at the same time"),
        (busy(wait=60), "status 429 (There is trouble): too many requests. Try again in 60 seconds, as it asks."),
        (busy(status=503), "the Hub answered with status 503 (There is trouble). Try again later."),
        (Trouble(".*", drop=True), "broke off ("),
    ],
)
@pytest.mark.parametrize(
    "arguments",
    [["push", "ticket", "tester/new"], ["pull", "tester/old", "--out", "out"], ["pull", "--list", "meta/llama"]],
)
def test_every_failure_is_one_line_without_the_token_and_leaves_nothing(
    run: Run, fake_hub: FakeHub, ticket: Ticket, arguments: list[str], trouble: Trouble, message: str
) -> None:
    fake_hub.add("tester/old", Path("ticket"))
    fake_hub.troubles = [trouble]
    outcome = run(*arguments)
    assert (outcome.code, outcome.out) == (1, "")
    last = outcome.err.splitlines()[-1]
    assert last.startswith("Error: Cannot ")
    assert message in last
    assert TOKEN not in outcome.err
    assert sorted(os.listdir()) in (["report", "ticket"], ["hub-cache", "report", "ticket"])
    assert all(fake_hub.files(repo) == {} for repo in fake_hub.repositories if repo != "tester/old")


def test_a_damaged_file(run: Run, fake_hub: FakeHub, ticket: Ticket) -> None:
    fake_hub.add("tester/old", Path("ticket"))
    fake_hub.troubles = [Trouble(".*/ticket.safetensors", "GET", corrupt=True)]
    outcome = run("pull", "tester/old", "--out", "out")
    assert outcome.code == 1
    assert outcome.err.startswith("Error: 'ticket.safetensors' of 'tester/old' is damaged: it has hash ")
    assert not Path("out").exists()
