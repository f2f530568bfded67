"""Sentences of the study's page follow the numbers, whichever way they fall."""

from pathlib import Path

import numpy as np
import pytest
from replication.page import put_between_marks, render
from replication.page_short import differences, short, verdict
from replication.paired import Paired, paired_difference
from replication.plan import Plan
from safetensors.numpy import save_file

from ks_lottery.errors import DataError
from tests.recipes.test_study_paper import finish, plan_of

UP, DOWN, NONE = Paired(3.0, 1.0, 5.0, (2.0, 4.0)), Paired(-3.0, -5.0, -1.0, (-2.0, -4.0)), Paired(0.1, -1, 1, (0.1,))


def test_a_verdict_says_what_is_shown_and_what_is_not() -> None:
    assert verdict("a", "b", {"de": UP, "fr": UP}).startswith(
        "a score higher than b in every direction (BLEU de +3.0 ["
    )
    assert verdict("a", "b", {"de": DOWN}).startswith("a score lower than b (BLEU de -3.0")
    assert verdict("a", "b", {"de": NONE, "fr": NONE}).startswith("no difference is shown between a and b")
    mixed = verdict("a", "b", {"de": UP, "fr": DOWN, "es": NONE})
    assert mixed.startswith("a against b: higher in de; lower in fr; no difference is shown in es")


def test_replicates_that_disagree_show_nothing() -> None:
    assert UP.shown
    assert DOWN.shown
    assert not NONE.shown
    assert not Paired(3.0, 1.0, 5.0, (-0.1, 6.1)).shown


def bleu_rows(matches: list[int]) -> np.ndarray:
    """[sentences, 10] statistics of sentences of 10 words, with as many right n-grams of each order as can be."""
    rows = []
    for right in matches:
        counts = [max(0, right - order) for order in range(4)]
        rows.append([10, 10, *counts, 10, 9, 8, 7])
    return np.array(rows, dtype=np.int32)


def scored(plan: Plan, cell: str, matches: list[int]) -> None:
    finish(plan, cell, bleu_whole=1.0, bleu_first_line=1.0, stop_rate=1.0, chrf_whole=1.0)
    save_file({"bleu_whole": bleu_rows(matches)}, plan.lab.cells.place(cell) / "statistics.safetensors")


def test_differences_are_paired_over_sentences_and_means_over_seeds(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    for seed in (0, 1):
        scored(plan, f"tested/de/{seed}/ks", [10, 9, 8, 10])
        scored(plan, f"tested/de/{seed}/embed", [10, 9, 8, 10] if seed else [5, 4, 3, 5])
    found = paired_difference(plan.lab, "de", "ks", "embed")
    assert found is not None
    assert found.by_seed[0] > 20
    assert found.by_seed[1] == 0.0
    assert found.mean == pytest.approx(sum(found.by_seed) / 2)
    assert found.low <= found.mean <= found.high
    assert not found.shown  # one replicate has no difference
    assert paired_difference(plan.lab, "fr", "ks", "embed") is None
    assert set(differences(plan.lab, "ks", "embed")) == {"de"}


def test_a_method_without_rows_is_compared_as_the_base_model(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    scored(plan, "tested/de/0/base", [2, 1, 2, 1])
    finish(plan, "tested/de/0/ks-0.05", empty="no row passes")
    scored(plan, "tested/de/0/ks", [9, 9, 9, 9])
    found = paired_difference(plan.lab, "de", "ks-0.05", "base")
    assert found is not None
    assert found.mean == 0.0
    other = paired_difference(plan.lab, "de", "ks", "base")
    assert other is not None
    assert other.shown


def test_the_page_is_written_and_the_tables_go_between_their_marks(tmp_path: Path) -> None:
    plan = plan_of(tmp_path / "study")
    scored(plan, "tested/de/0/base", [2, 1, 2, 1])
    scored(plan, "tested/de/0/ks", [9, 9, 9, 9])
    docs = tmp_path / "docs"
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- study -->\nold\n<!-- /study -->\nafter\n", encoding="utf-8")
    page = render(plan, docs, (lambda plan, folder: f"## Section\n\nin {folder.name}",))
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# Is the ticket winning?")
    assert "cells are still missing" in text
    assert text.endswith("## Section\n\nin study\n")
    lines = readme.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "before"
    assert lines[-1] == "after"
    assert "old" not in lines
    assert any(line.startswith("| KS rows, 18 largest D |") for line in lines)
    assert short(plan.lab, {name: method.title for name, method in plan.methods.items()}) == ""


def test_what_is_known_of_the_embedded_model_is_said_of_it_alone(tmp_path: Path) -> None:
    embedded = plan_of(tmp_path / "embedded")
    text = render(embedded, tmp_path / "one", ()).read_text(encoding="utf-8")
    assert "The embedded LLaMA" in text
    assert "One small model" in text
    other = plan_of(tmp_path / "other", model="runs/pretrain-base/latest")
    text = render(other, tmp_path / "two", ()).read_text(encoding="utf-8")
    assert "The base model is `runs/pretrain-base/latest`." in text
    assert "embedded LLaMA" not in text
    assert "One small model" not in text


def test_a_file_without_marks_is_refused(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("<!-- study --> and no end", encoding="utf-8")
    with pytest.raises(DataError, match="has no <!-- study -->"):
        put_between_marks(tmp_path / "README.md", "table")
