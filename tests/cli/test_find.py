"""`ks-lottery find` saves the ticket that `find_ticket` finds, and shows it with readable tokens."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ks_lottery.checkpoints.reader import open_checkpoint
from ks_lottery.cli.readable import token_table
from ks_lottery.finders.search import find_ticket
from ks_lottery.finders.select import Alpha, Density, TopK
from ks_lottery.finders.shift.magnitude import Magnitude
from ks_lottery.ticket.ticket import Ticket
from ks_lottery.units.token_rows import TokenRows
from tests.cli.conftest import Outcome
from tests.fake_hub import FakeHub
from tests.tiny_models import tiny_llama

Run = Callable[..., Outcome]
Pair = tuple[Path, Path]


def test_a_ticket_is_saved_and_shown(run: Run, pair: Pair, tmp_path: Path) -> None:
    outcome = run("find", *pair, "--top-k", "2", "--out", tmp_path / "ticket")
    assert (outcome.code, outcome.err) == (0, "")
    expected = find_ticket(*pair, selector=TopK(2))
    assert Ticket.load(tmp_path / "ticket") == expected
    lines = outcome.out.splitlines()
    assert lines[0] == (
        "Ticket: 2 units (token_rows), 64 weights, 3.12 % of their matrices and 0.33 % of the model; fingerprint "
        f"{expected.fingerprint[:12]}."
    )
    assert lines[1].split() == ["token", "group", "unit", "D", "log10", "p", "relative", "shift"]
    assert [line.split()[:3] for line in lines[2:4]] == [["word5", "input", "5"], ["word60", "input", "60"]]
    assert lines[4] == f"Saved in {tmp_path / 'ticket'}."
    assert lines[5].startswith("Before and after are paired values")


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (["--alpha", "0.9"], {"selector": Alpha(0.9)}),
        (["--alpha", "1", "--correction", "bh"], {"selector": Alpha(1.0, "bh")}),
        (["--density", "0.02"], {"selector": Density(0.02)}),
        (["--finder", "magnitude", "--top-k", "3"], {"finder": "magnitude", "selector": TopK(3)}),
        (
            ["--finder", "magnitude", "--option", "relative_to=before", "--option", "ends=both", "--top-k", "1"],
            {"finder": Magnitude("before"), "units": TokenRows("both"), "selector": TopK(1)},
        ),
    ],
)
def test_options_reach_the_search(
    run: Run, pair: Pair, tmp_path: Path, arguments: list[str], options: dict[str, object]
) -> None:
    assert run("find", *pair, *arguments, "--out", tmp_path / "x.safetensors").code == 0
    ticket, expected = Ticket.load(tmp_path / "x.safetensors"), find_ticket(*pair, **options)
    assert ticket == expected
    assert ticket.provenance == expected.provenance


def test_json_is_the_summary(run: Run, pair: Pair) -> None:
    outcome = run("find", *pair, "--top-k", "3", "--json")
    found = json.loads(outcome.out)
    assert [(row["id"], row["token"]) for row in found["rows"]] == [(5, "word5"), (60, "word60"), (7, "word7")]
    assert found["num_trainable"] == 96
    assert found["fingerprint"] == find_ticket(*pair, selector=TopK(3)).fingerprint


def test_the_papers_rule_is_the_default_and_says_when_it_finds_nothing(run: Run, pair: Pair) -> None:
    assert json.loads(run("find", *pair, "--json").out)["provenance"]["details"]["selector"] == {
        "name": "Alpha", "alpha": 0.05, "correction": "none"
    }  # fmt: skip
    outcome = run("find", *pair, "--alpha", "1e-4", "--out", pair[0] / "nothing")
    assert outcome.code == 1
    assert outcome.err.startswith("Error: No unit has p < 0.0001 (correction none): the smallest of 3 p-values is ")
    assert not (pair[0] / "nothing").exists()


def test_many_rows_are_cut_short_on_the_screen(run: Run, pair: Pair, tmp_path: Path) -> None:
    tiny_llama(seed=1).save_pretrained(tmp_path)
    lines = run("find", pair[0], tmp_path, "--top-k", "30").out.splitlines()
    assert lines[-2] == "... and 10 more."
    assert len(lines) == 24
    assert all(line.split()[0] == "input" for line in lines[2:22])  # no tokenizer lies there


def test_tokens_come_from_a_folder_or_the_hub(pair: Pair, tmp_path: Path, fake_hub: FakeHub) -> None:
    before, after = map(open_checkpoint, pair)
    names = token_table((before, after))
    assert names is not None
    assert (names.convert_ids_to_tokens(5), names.convert_tokens_to_ids("word5")) == ("word5", 5)
    assert (names.convert_ids_to_tokens(10**6), names.convert_tokens_to_ids("nothing")) == (None, None)
    assert token_table((before,)) is None
    assert token_table((open_checkpoint(tiny_llama()),)) is None
    whole = tmp_path / "whole"
    shutil.copytree(pair[0], whole)
    shutil.copy(pair[1] / "tokenizer.json", whole)
    fake_hub.add("tester/model", {path.name: path.read_bytes() for path in whole.iterdir()})
    remote = token_table((open_checkpoint("tester/model"),))
    assert remote is not None
    assert remote.convert_ids_to_tokens(6) == "word6"
