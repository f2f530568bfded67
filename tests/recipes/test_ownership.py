"""The table of attacks on marks: measured anew in small, and shown as it was measured."""

import json
import re
from pathlib import Path

import numpy as np
import ownership
import pytest

from tests.ticket.ownership.masks import gaussian_model, magnitude_ticket

DOCS = Path(__file__).resolve().parents[2] / "docs"
MEASURED = json.loads((DOCS / "results" / "ownership" / "attacks.json").read_text(encoding="utf-8"))
PAGE = (DOCS / "ownership.md").read_text(encoding="utf-8")


def test_the_page_shows_what_was_measured() -> None:
    parts = ownership.tables(MEASURED).split("\n\n")
    assert len(parts) == 4
    for part in parts:
        assert part in PAGE


def test_marks_in_blocks_survive_pruning_and_nothing_false_holds() -> None:
    for one in MEASURED["masks"]:
        assert one["same_size"]
        assert one["attacks_raised"]["smallest 20%"]["log10_p"] < -12
        if one["block"] == 3 and one["density"] >= 0.2:
            assert one["attacks"]["smallest 20%"]["log10_p"] < -12
        false = one["false_claims"]
        assert false["wrong_keys"] == 10_000
        assert min(false["highest_log10_p"], false["closest_text_log10_p"]) > -9
        assert not any(false[name]["verified"] for name in ("unmarked", "reordered", "thief_in_owners"))
        assert false["owner_in_thiefs"]["verified"]
    trained = MEASURED["trained"]
    assert trained["rows"][0]["errors"] == 0.0
    assert trained["rows"][0]["trigger_verified"]
    assert trained["unmarked"]["trigger_log10_p"] > -9


def test_a_setting_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The attacks come out as measured; perplexity, which needs the corpus, is left to the recipe."""
    monkeypatch.setattr(ownership, "WRONG_KEYS", 200)
    one = ownership.masks_alone(0.2, 3, score=lambda model: 1.0)
    before = next(row for row in MEASURED["masks"] if (row["density"], row["block"]) == (0.2, 3))
    for name in ("attacks", "attacks_raised"):
        found = [one[name][attack]["errors"] for attack in ownership.ATTACKS]
        assert found == pytest.approx([before[name][attack]["errors"] for attack in ownership.ATTACKS], abs=0.01)
    assert (one["new_weights"], one["same_size"]) == (before["new_weights"], True)
    assert one["false_claims"]["unmarked"]["errors"] == before["false_claims"]["unmarked"]["errors"]
    assert ownership.tables({"masks": [one], "trained": None}).count("0.2, 3 x 3") == 4


def test_the_code_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    model = gaussian_model()

    def answers_of(suspect: object, prompts: tuple[tuple[int, ...], ...]) -> np.ndarray:
        return np.zeros(len(prompts), dtype=int)

    names: dict[str, object] = {
        "model": model, "ticket": magnitude_ticket(model, 0.2), "dataset": [], "suspect": model,
        "answers_of": answers_of,
    }  # fmt: skip
    exec(compile(block, "ownership.md", "exec"), names)
    mark, triggers = map(float, capsys.readouterr().out.split())
    assert mark < -170
    assert triggers == 0.0
    assert len(names["dataset"]) == 100  # type: ignore[arg-type]
    assert (tmp_path / "mark-key.json").is_file()
