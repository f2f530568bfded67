"""`ks-lottery diff` prints and writes what the comparison found."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from scipy.stats import ks_2samp

from ks_lottery.checkpoints.diff import compare_checkpoints
from ks_lottery.cli import screen
from ks_lottery.cli.screen import percent, progress_bar
from ks_lottery.stats.pvalues import log_p_values
from ks_lottery.ticket.ticket import Ticket
from tests.cli.conftest import MOVED, Outcome

Run = Callable[..., Outcome]
Pair = tuple[Path, Path]
EMBEDDING = "model.embed_tokens.weight"
UNIT_COLUMNS = ["granularity", "group", "unit", "statistic", "h", "log_p", "shift", "relative_shift", "changed"]
PARAMETER_COLUMNS = [
    "name", "shape", "dtype", "values", "changed_values", "changed_share", "rows", "changed_rows", "statistic", "h",
    "shift", "relative_shift",
]  # fmt: skip


def embeddings(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    """The input embedding before and after, [64, 32] float64."""
    found = [load_file(file)[EMBEDDING] for folder in pair for file in folder.glob("*") if holds_embedding(file)]
    assert len(found) == 2
    return found[0].double().numpy(), found[1].double().numpy()


def holds_embedding(file: Path) -> bool:
    return file.suffix == ".safetensors" and EMBEDDING in load_file(file)


def test_the_screen_has_what_changed_and_sums_up_the_rest(run: Run, pair: Pair) -> None:
    outcome = run("diff", *pair)
    assert (outcome.code, outcome.err) == (0, "")
    lines = [line.split() for line in outcome.out.splitlines()]
    assert lines[0] == ["parameter", "shape", "dtype", "changed", "changed", "rows", "D", "relative", "shift"]
    (one,) = [one for one in compare_checkpoints(*pair) if one.changed_values]
    assert lines[1] == [
        EMBEDDING, "64x32", "float32", *f"{100 * one.changed_share:.2f} % 3 of 64".split(), f"{one.statistic:.4g}",
        f"{one.relative_shift:.4g}",
    ]  # fmt: skip
    assert outcome.out.splitlines()[2] == "20 of 21 parameters are bit-identical (70.3 kB)."
    assert lines[3][:2] == ["Compared", "156.9"]
    assert outcome.out.splitlines()[4] == (
        "Before and after are paired values of one parameter, so D and any p code the size of a shift; they are no "
        "error rate."
    )
    assert len(lines) == 5


def test_equal_checkpoints(run: Run, pair: Pair) -> None:
    outcome = run("diff", pair[0], pair[0])
    assert outcome.code == 0
    assert outcome.out.startswith("21 of 21 parameters are bit-identical (78.5 kB).\nCompared ")


@pytest.mark.parametrize("suffix", [".csv", ".json", ".parquet"])
def test_unit_tables_equal_brute_force(run: Run, pair: Pair, tmp_path: Path, suffix: str) -> None:
    table = tmp_path / f"new/rows{suffix}"
    assert run("diff", *pair, "--units", "token_rows", "--table", table).code == 0
    rows = rows_of(table)
    assert [list(row) for row in rows] == [UNIT_COLUMNS] * 64
    before, after = embeddings(pair)
    for unit, row in enumerate(rows):
        x, y = before[unit], after[unit]
        h = round(ks_2samp(x, y, method="asymp").statistic * 32)
        assert (row["granularity"], row["group"], row["unit"], row["h"]) == ("token_rows", "input", unit, h)
        assert row["statistic"] == h / 32
        assert row["log_p"] == float(log_p_values([h], 32)[0])
        assert row["changed"] is bool((x != y).any()) is (unit in MOVED)
        assert row["shift"] == pytest.approx(np.linalg.norm(y - x), rel=1e-12)
        norm = np.linalg.norm(x)  # that of the padding row is 0
        assert row["relative_shift"] == (pytest.approx(np.linalg.norm(y - x) / norm, rel=1e-12) if norm else 0.0)
    assert os.listdir(table.parent) == [table.name]


def rows_of(table: Path) -> list[dict[str, Any]]:
    """Rows of a table with typed values."""
    if table.suffix == ".parquet":
        return pyarrow.parquet.read_table(table).to_pylist()
    if table.suffix == ".json":
        return json.loads(table.read_text())
    with table.open(encoding="utf-8", newline="") as file:
        return [{name: typed(name, text) for name, text in row.items()} for row in csv.DictReader(file)]


def typed(name: str, text: str) -> Any:
    if name in ("name", "shape", "dtype", "granularity", "group"):
        return text
    return None if text == "" else json.loads(text)


def test_parameter_tables_are_the_same_in_every_format(run: Run, pair: Pair, tmp_path: Path) -> None:
    tables = []
    for suffix in (".csv", ".json", ".parquet"):
        assert run("diff", *pair, "--table", tmp_path / f"x{suffix}", "--jobs", 1 + len(tables)).code == 0
        tables.append(rows_of(tmp_path / f"x{suffix}"))
    assert tables[0] == tables[1] == tables[2]
    assert [list(row) for row in tables[0]] == [PARAMETER_COLUMNS] * 21
    expected = {one.pair.name: one for one in compare_checkpoints(*pair)}
    for row in tables[0]:
        one = expected[row["name"]]
        assert row["shape"] == "x".join(map(str, one.pair.shape))
        assert row["changed_values"] == one.changed_values
        for name in ("changed_share", "changed_rows", "statistic", "h", "shift", "relative_shift"):
            assert row[name] == getattr(one, name)
        for name in ("values", "rows", "dtype"):
            assert row[name] == getattr(one.pair, name)


def test_json_has_everything(run: Run, pair: Pair, tmp_path: Path) -> None:
    outcome = run("diff", *pair, "--json", "--units", "token_rows", "--top-k", "2", "--out", tmp_path / "ticket")
    assert (outcome.code, outcome.err) == (0, "")
    found = json.loads(outcome.out)
    assert sorted(found) == ["after", "before", "note", "parameters", "remarks", "seconds", "ticket", "units"]
    assert (found["before"], found["after"], found["remarks"]) == (str(pair[0]), str(pair[1]), [])
    assert [list(one) for one in found["parameters"]] == [sorted(PARAMETER_COLUMNS)] * 21
    before, after = embeddings(pair)
    largest = max(ks_2samp(x, y, method="asymp").statistic for x, y in zip(before, after, strict=True))
    assert found["units"] == [
        {"granularity": "token_rows", "group": "input", "units": 64, "changed": 3, "largest_statistic": largest}
    ]
    assert "no error rate" in found["note"]
    assert found["ticket"]["fingerprint"] == Ticket.load(tmp_path / "ticket").fingerprint
    assert [row["id"] for row in found["ticket"]["rows"]] == [5, 60]
    assert json.loads(run("diff", *pair, "--json").out)["ticket"] is None


def test_a_ticket_is_found_only_if_asked_for(run: Run, pair: Pair) -> None:
    assert "Ticket:" not in run("diff", *pair, "--units", "token_rows").out
    outcome = run("diff", *pair, "--units", "token_rows", "--top-k", "3")
    assert "token_rows, group input: 3 of 64 units changed, largest D 0.4375." in outcome.out
    assert "Ticket: 3 units (token_rows), 96 weights, 4.69 % of their matrices and 0.49 % of the model" in outcome.out
    assert "word60" in outcome.out
    assert outcome.out.count("no error rate") == 1
    assert "Saved" not in outcome.out


def test_scope(run: Run, pair: Pair, tmp_path: Path) -> None:
    outcome = run("diff", *pair, "--scope", "*.mlp.*", "--scope", "*norm*", "--table", tmp_path / "x.json")
    assert outcome.code == 0
    assert {row["name"].split(".")[-2] for row in rows_of(tmp_path / "x.json")} == {
        "gate_proj", "up_proj", "down_proj", "norm", "input_layernorm", "post_attention_layernorm"
    }  # fmt: skip
    wrong = run("diff", *pair, "--scope", "mlp")
    assert wrong.code == 1
    assert "scope 'mlp' matches none of 21 tensors" in wrong.err


@pytest.fixture
def odd_pair(pair: Pair, tmp_path: Path) -> Pair:
    """A pair with one of every exception, and several tensors that changed."""
    before = tmp_path / "before"
    after = tmp_path / "after"
    tensors = load_file(pair[0] / "model.safetensors")
    changed = {name: tensor.clone() for name, tensor in tensors.items()}
    changed["lm_head.weight"][:2] += 0.5
    changed["model.norm.weight"][3] = 7.0
    changed[EMBEDDING] = torch.cat([changed[EMBEDDING], torch.ones(2, 32)])
    for number in range(7):
        changed[f"model.extra.{number}"] = torch.ones(2, 2)
    changed["model.layers.0.mlp.up_proj.weight"] = changed["model.layers.0.mlp.up_proj.weight"].half()
    tensors["model.steps[0]"], changed["model.steps[0]"] = torch.arange(4), torch.arange(4) + 1
    for folder, content in ((before, tensors), (after, changed)):
        folder.mkdir()
        shutil.copy(pair[0] / "config.json", folder)
        save_file(content, folder / "model.safetensors", metadata={"format": "pt"})
    return before, after


def test_every_exception_is_listed(run: Run, odd_pair: Pair) -> None:
    outcome = run("diff", *odd_pair)
    assert outcome.code == 0
    text = outcome.out[outcome.out.index("17 of 20 parameters are bit-identical") :]
    after = str(odd_pair[1])
    assert text.splitlines()[1:-2] == [
        "1 compared byte for byte, no floats:",
        "  model.steps[0]: (4,) int64, compared byte for byte",
        "7 not compared, only after:",
        *(f"  model.extra.{number}: (2, 2) float32, only in after = {after!r}" for number in range(5)),
        "  ... and 2 more; --json lists all.",
        "1 not compared, another dtype:",
        "  model.layers.0.mlp.up_proj.weight: float32 before, float16 after: rounding alone would look like a shift, "
        "so save both in one dtype",
        "1 not compared, another shape:",
        f"  {EMBEDDING}: (64, 32) before, (66, 32) after; rows 0 to 63 are in both",
    ]
    remarks = json.loads(run("diff", *odd_pair, "--json").out)["remarks"]
    assert len(remarks) == 10
    assert set(remarks[0]) == {"kind", "name", "text"}


@pytest.mark.parametrize(
    ("order", "names"),
    [
        ("statistic", ["lm_head.weight", "model.norm.weight", "model.steps[0]"]),
        ("relative-shift", ["lm_head.weight", "model.norm.weight", "model.steps[0]"]),
        ("changed-share", ["model.steps[0]", "lm_head.weight", "model.norm.weight"]),
        ("name", ["lm_head.weight", "model.norm.weight", "model.steps[0]"]),
        ("file", ["lm_head.weight", "model.norm.weight", "model.steps[0]"]),
    ],
)
def test_sorting(run: Run, odd_pair: Pair, order: str, names: list[str]) -> None:
    lines = run("diff", *odd_pair, "--sort", order).out.splitlines()
    shown = [line.split()[0] for line in lines[1:4]]
    if order != "file":
        assert shown == names
    assert sorted(shown) == sorted(names)
    steps = lines[1 + shown.index("model.steps[0]")].split()
    assert steps[1:] == ["4", "int64", "12.50", "%", "—", "—", "—"]


def test_tied_heads_are_named(run: Run, pair: Pair, tmp_path: Path) -> None:
    tied = tmp_path / "tied"
    shutil.copytree(pair[0], tied)
    config = json.loads((tied / "config.json").read_text())
    (tied / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    outcome = run("diff", tied, pair[1])
    assert "1 not compared, tied on the other side:\n  lm_head.weight: (64, 32) float32, only in after" in outcome.out


def test_nan_is_one_line_that_names_the_row(run: Run, pair: Pair, tmp_path: Path) -> None:
    tensors = load_file(pair[0] / "model.safetensors")
    tensors[EMBEDDING][9, 4] = float("nan")
    shutil.copy(pair[0] / "config.json", tmp_path)
    save_file(tensors, tmp_path / "model.safetensors")
    outcome = run("diff", pair[0], tmp_path)
    assert outcome.code == 1
    assert outcome.err.startswith(
        f"Error: Row 9 of '{EMBEDDING}' after holds 1 NaN or infinite value(s), the first at p"
    )
    assert outcome.err.count("\n") == 1


def test_a_terminal_gets_a_progress_bar_with_a_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    def watched(terminal: bool) -> str:
        stream = io.StringIO()
        monkeypatch.setattr(
            screen, "console", lambda stderr=False: Console(file=stream, force_terminal=terminal, width=120)
        )
        with progress_bar(4 * 10**9, "Comparing") as advance:
            for _ in range(4):
                advance(10**9)
        return stream.getvalue()

    assert watched(False) == ""
    assert "Comparing" in watched(True)
    assert "4.0/4.0 GB" in watched(True)


def test_shares_are_never_rounded_to_none_or_all() -> None:
    assert [percent(share) for share in (0.0, 1e-9, 1e-4, 0.5, 0.9999, 1 - 1e-9, 1.0)] == [
        "0 %", "< 0.01 %", "0.01 %", "50.00 %", "99.99 %", "> 99.99 %", "100 %"
    ]  # fmt: skip


def test_neither_comparing_nor_finding_imports_anything_heavy(pair: Pair) -> None:
    code = (
        "import sys; sys.argv[0] = 'ks-lottery'\n"
        "from ks_lottery.cli.app import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'transformers', 'scipy.stats', 'pyarrow', 'pandas', 'peft'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, "diff", *map(str, pair), "--units", "token_rows", "--top-k", "2"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Ticket: 2 units" in result.stdout
    assert result.stdout.splitlines()[-1] == "[]"
