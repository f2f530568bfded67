"""The claims that take a moment; the others are trained in tests/finders/rounds and tests/evaluation."""

from pathlib import Path

import paper_claims
import pytest


def test_synflow_empties_no_layer_where_others_do(tmp_path: Path) -> None:
    ((claim, here, against),) = paper_claims.collapse(tmp_path, [0, 1])
    assert "SynFlow empties no layer" in claim
    assert here == "empty layers of 4: SynFlow 0"
    assert against == "SNIP 1, magnitude 3"


def test_a_shuffle_has_as_many_weights_in_each_layer() -> None:
    kept = paper_claims.everything(paper_claims.matrices(paper_claims.perceptron()), "weight")
    half = paper_claims.replace(kept, indices=tuple(units[::2] for units in kept.indices))
    other = paper_claims.shuffled(half, 0)
    assert [len(units) for units in other.indices] == [len(units) for units in half.indices]
    assert other.digest != half.digest


def test_one_claim_is_printed_as_a_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["paper_claims.py", "--seeds", "1", "--only", "collapse"])
    paper_claims.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["| claim | here | against |", "| --- | --- | --- |"]
    assert len(lines) == 3
    assert lines[2].startswith("| SynFlow empties no layer")
