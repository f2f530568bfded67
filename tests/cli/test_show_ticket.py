"""`ks-lottery show` prints what a ticket is: from a folder, a file or the Hub."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ks_lottery.cli.screen import PAIRED
from ks_lottery.finders.search import find_ticket
from ks_lottery.finders.select import Alpha, TopK
from ks_lottery.report.report import write_report
from ks_lottery.ticket.hub import push_folder
from ks_lottery.ticket.ownership.signature import make_key, sign_ticket
from ks_lottery.ticket.ticket import Ticket
from ks_lottery.units.weights import Weights
from tests.adapter.tickets import make_ticket
from tests.adapter.weight_tickets import weight_ticket
from tests.cli.conftest import Outcome
from tests.fake_hub import FakeHub
from tests.report.example import example_report
from tests.tiny_models import tiny_llama

Run = Callable[..., Outcome]
Pair = tuple[Path, Path]


@pytest.fixture
def ticket(pair: Pair, tmp_path: Path) -> Ticket:
    """A ticket of token rows in `ticket`, found by KS in the pair."""
    found = find_ticket(*pair, selector=Alpha(0.05))
    found.save(tmp_path / "ticket")
    return found


def squeezed(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def test_a_ticket_of_token_rows(run: Run, pair: Pair, ticket: Ticket, tmp_path: Path) -> None:
    outcome = run("show", tmp_path / "ticket")
    assert (outcome.code, outcome.err) == (0, "")
    lines = squeezed(outcome.out)
    assert lines[:8] == [
        "ticket update: what is not selected keeps its pretrained value",
        f"base model {pair[0]} (llama, 19,616 weights)",
        "found by ks",
        "cut by Alpha(alpha=0.05, correction='none')",
        f"units {len(ticket)} token_rows of 3 that could be chosen",
        lines[5],
        f"fingerprint {ticket.fingerprint}",
        "signature none",
    ]
    assert lines[5].startswith(f"weights {len(ticket) * 32}, ")
    assert lines[9] == "token group unit D log10 p relative shift"
    assert lines[10].startswith("word5 input 5 0.")
    assert PAIRED in lines
    assert any(line.startswith("input ") and line.endswith(f"{len(ticket)} of 64") for line in lines)
    assert lines[-1].startswith("No certificate lies beside this ticket")
    assert run("show", tmp_path / "ticket" / "ticket.safetensors").out == outcome.out
    assert "word5" not in run("show", tmp_path / "ticket", "--rows", 0).out


def test_rows_without_a_tokenizer_say_how_to_name_them(run: Run, pair: Pair, tmp_path: Path) -> None:
    find_ticket(tiny_llama(), pair[1], selector=TopK(2)).save(tmp_path)
    details = Ticket.load(tmp_path).provenance.details
    assert details["after"] == str(pair[1])
    named = run("show", tmp_path, "--base", pair[1])
    assert "word5" in named.out
    unnamed = run("show", tmp_path, "--base", pair[0])
    assert "word5" not in unnamed.out
    assert "--base MODEL says where one is." in unnamed.out
    assert run("show", tmp_path, "--base", "/nowhere").code == 1


@pytest.mark.parametrize(("units", "layer"), [("heads", "layers.1"), ("neurons", "layers.1"), ("layers", "layers.1")])
def test_a_bar_for_each_layer(run: Run, tmp_path: Path, units: str, layer: str) -> None:
    weight_ticket(tiny_llama(), units, lambda group: [0] if group.name.startswith("layers.1") else []).save(tmp_path)
    lines = squeezed(run("show", tmp_path).out)
    assert "ticket weight: what is not selected is zero" in lines
    empty, bar = lines[-4].split(" "), lines[-3].split(" ")
    assert empty[:4] == ["layers.0", "·" * 24, "0", "%"]
    assert bar[0] == layer
    assert set(bar[1]) <= set("█▏▎▍▌▋▊▉·")
    assert bar[1] != empty[1]
    assert bar[-2] == "of"


def test_many_single_weights(run: Run, pair: Pair, tmp_path: Path) -> None:
    units = Weights(("model.embed_tokens.weight", "model.layers.*"))
    find_ticket(*pair, units=units, finder="magnitude", selector=TopK(90)).save(tmp_path)
    outcome = run("show", tmp_path, "--rows", 4)
    assert "... and 86 more." in outcome.out
    assert any(line.startswith("model.layers.1 ") for line in squeezed(outcome.out))
    content = json.loads(run("show", tmp_path, "--rows", 4, "--json").out)
    assert len(content["rows"]) == 4
    assert content["num_units"] == 90
    assert [one["layer"] for one in content["layers"]] == [
        "model.embed_tokens.weight", "model.layers.0", "model.layers.1"
    ]  # fmt: skip


def test_json_is_one_document(run: Run, ticket: Ticket, tmp_path: Path) -> None:
    write_report(tmp_path / "ticket" / "report", example_report())
    sign_ticket(ticket, make_key(tmp_path / "owner.pem")).save(tmp_path / "ticket" / "signature.json")
    content = json.loads(run("show", tmp_path / "ticket", "--json").out)
    assert content["fingerprint"] == ticket.fingerprint
    assert content["cut_by"] == "Alpha(alpha=0.05, correction='none')"
    assert content["provenance"]["details"]["selector"]["alpha"] == 0.05
    assert content["rows"][0]["token"] == "word5"
    assert (content["signature"]["state"], content["note"]) == ("good", PAIRED)
    (certificate,) = content["certificates"]
    assert (certificate["run"], certificate["tokens"]) == ("partial tuning", 9301)
    lines = run("show", tmp_path / "ticket").out.splitlines()
    assert lines[-1].startswith("Certificate: on 9,301 held-out tokens, partial tuning predicts the same next token")
    assert any("whose key that is says ks-lottery verify --public-key" in line for line in lines)


def test_a_ticket_on_the_hub(run: Run, pair: Pair, ticket: Ticket, fake_hub: FakeHub, tmp_path: Path) -> None:
    write_report(tmp_path / "ticket" / "report", example_report())
    (tmp_path / "ticket" / "tokenizer.json").write_bytes((pair[1] / "tokenizer.json").read_bytes())
    push_folder(tmp_path / "ticket", "tester/ticket", revision="v1")
    outcome = run("show", "tester/ticket@v1")
    assert outcome.code == 0
    assert "word5" in outcome.out
    assert "Certificate: on 9,301 held-out tokens" in outcome.out
    missing = run("show", "tester/ticket")
    assert missing.code == 1
    assert missing.err == (
        "Error: Cannot download 'ticket.safetensors' of 'tester/ticket': the repository has no such file.\n"
    )


def test_what_is_no_ticket(run: Run, pair: Pair, ticket: Ticket, tmp_path: Path) -> None:
    assert run("show", pair[0]).err.startswith("Error: There is no ticket at ")
    (tmp_path / "ticket" / "results.json").write_text("{}")
    damaged = run("show", tmp_path / "ticket")
    assert (damaged.code, damaged.out) == (1, "")
    assert "is damaged or of another kind" in damaged.err
    assert run("show").code == 2


def test_the_strongest_units_are_those_of_the_whole_summary(run: Run, tmp_path: Path) -> None:
    ticket = weight_ticket(tiny_llama(), "neurons", lambda group: np.arange(20))
    for selection in ticket.selections.values():
        score = np.random.default_rng(len(selection)).random(20)
        object.__setattr__(selection, "columns", {"score": score})
    ticket.save(tmp_path)
    whole = json.loads(run("show", tmp_path, "--rows", 1000, "--json").out)["rows"]
    assert json.loads(run("show", tmp_path, "--rows", 7, "--json").out)["rows"] == whole[:7]


def test_nothing_in_a_ticket_moves_the_cursor(run: Run, tmp_path: Path) -> None:
    ticket = make_ticket(tiny_llama(), "input")
    base = dataclasses.replace(ticket.base, name="model\x1b[2J\x1b]0;title\x07")
    dataclasses.replace(ticket, base=base).save(tmp_path / "hostile")
    shown = run("show", str(tmp_path / "hostile"))
    assert shown.code == 0
    assert "\x1b" not in shown.out
    assert r"model\x1b[2J\x1b]0;title" in shown.out
