"""The study of searched update tickets, on a tiny random model."""

import json
import math
from pathlib import Path

import pytest
import torch
import update_search
from update_search import Setting, UnitTable
from update_search_page import all_ratios, conclusions, ratio_of, render
from update_search_scores import PredictedTokens, lines_of

from ks_lottery.errors import DataError, OptionError
from tests.recipes.tiny_run import save_tiny_model

FINDERS = ("concrete", "magnitude", "fisher", "random")


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    model = save_tiny_model(tmp_path_factory.mktemp("model"))
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    (model / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 128}), encoding="utf-8")
    return Setting(
        tables={
            "weights": UnitTable(0.01, (0.05,), FINDERS),
            "token_rows": UnitTable(0.01, (0.05, 0.1), (*FINDERS, "ks")),
        },
        seeds=(0,),
        model=str(model),
        train_pairs=12,
        test_sentences=3,
        batch_size=4,
        dense_steps=3,
        batches=2,
        search_steps=3,
        translated=(0.1,),
    )


@pytest.fixture(scope="module")
def study(setting: Setting, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    update_search.run(setting, folder)
    return folder


def without_time(cells: list[dict]) -> list[dict]:
    return [{key: value for key, value in cell.items() if key != "seconds"} for cell in cells]


def test_every_cell_is_scored_against_the_whole_update(study: Path) -> None:
    cells = lines_of(study / "cells.jsonl")
    assert len(cells) == 2 + 4 + 2 + 10
    for cell in cells:
        if cell["finder"] == "dense":
            assert (cell["kl"], cell["agreement"]) == (pytest.approx(0.0, abs=1e-6), 1.0)
        elif cell["finder"] == "base":
            assert cell["kept"] == 0
            assert cell["kl"] > 0
        else:
            assert math.isfinite(cell["kl"])
        assert ("bleu_whole" in cell) == (cell["density"] in (None, 0.1))
    kept = {(cell["units"], cell["density"]): cell["kept"] for cell in cells if cell["density"]}
    for units in ("weights", "token_rows"):
        same = {cell["kept"] for cell in cells if (cell["units"], cell["density"]) == (units, 0.05)}
        assert same == {kept[units, 0.05]}
    searches = [cell for cell in cells if cell["finder"] == "concrete"]
    assert {(cell["forward"], cell["backward"]) for cell in searches} == {(3 * 4 + 8, 3 * 4)}
    assert all(0.5 < cell["held"] < 2 for cell in searches)
    assert {cell["backward"] for cell in cells if cell["finder"] == "fisher"} == {8}


def test_a_killed_study_goes_on_with_the_same_numbers(setting: Setting, study: Path, tmp_path: Path) -> None:
    before = (study / "cells.jsonl").read_bytes()
    lines = before.splitlines(keepends=True)
    (tmp_path / "runs").symlink_to(study / "runs")
    (tmp_path / "setting.json").write_bytes((study / "setting.json").read_bytes())
    (tmp_path / "cells.jsonl").write_bytes(b"".join(lines[:-3]) + lines[-3][:20])
    update_search.run(setting, tmp_path, minutes=0)
    assert len(lines_of(tmp_path / "cells.jsonl")) == len(lines) - 3
    update_search.run(setting, tmp_path)
    assert without_time(lines_of(tmp_path / "cells.jsonl")) == without_time(lines_of(study / "cells.jsonl"))


def test_a_folder_belongs_to_one_setting(study: Path) -> None:
    with pytest.raises(OptionError, match="holds a study of another setting"):
        update_search.run(Setting(), study)


def test_the_page_says_what_was_found(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["update_search.py", "--out", str(study), "--render", str(tmp_path)])
    update_search.main()
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert results["cells"] == lines_of(study / "cells.jsonl")
    assert len(results["against"]) == 3 + 2 * 4
    page = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "**token rows, against KS**: undecided at 5 % (" in page
    assert "| weights | the whole update | — | 1 | 0.0000 | 100.0 |" in page
    assert (tmp_path / "nearness.png").read_bytes().startswith(b"\x89PNG")


def test_a_study_without_cells_has_no_page(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no ticket of the search beside one of a rival"):
        render(tmp_path, tmp_path / "page")


def test_the_verdict_is_that_of_the_interval() -> None:
    search = {0: 1.0, 1: 1.0, 2: 1.0}
    assert ratio_of({0: 2.0, 1: 2.2, 2: 1.9}, search).verdict == "nearer"
    assert ratio_of({0: 0.5, 1: 0.6, 2: 0.4}, search).verdict == "farther"
    assert ratio_of({0: 0.5, 1: 2.0, 2: 1.5}, search).verdict == "undecided"
    few = ratio_of({0: 8.0, 1: 2.0, 7: 1.0}, search)
    assert few == (pytest.approx(4.0), None, None, 2, 2)
    assert few.verdict == "undecided"
    with pytest.raises(DataError, match="there is none"):
        ratio_of({5: 1.0}, search)


def test_conclusions_name_units_rivals_and_densities() -> None:
    cells = [
        {"units": "neurons", "density": density, "finder": finder, "seed": seed, "kl": kl * (1 + 0.01 * seed**2)}
        for seed in range(3)
        for density, finder, kl in (
            (0.1, "concrete", 1.0), (0.1, "ks", 2.0), (0.2, "concrete", 1.0), (0.2, "ks", 0.5)
        )
    ]  # fmt: skip
    assert conclusions(all_ratios(cells)) == [
        "**neurons, against KS**: nearer at 10 % (2x [2, 2], 3 of 3); farther at 20 % (0.5x [0.5, 0.5], 0 of 3)."
    ]


def test_distances_between_predictions() -> None:
    half = PredictedTokens(torch.tensor([[0.5, 0.5], [0.25, 0.75]]).log(), torch.tensor([0, 1]))
    other = PredictedTokens(torch.tensor([[0.5, 0.5], [0.75, 0.25]]).log(), torch.tensor([0, 1]))
    found = half.against(other)
    assert found["kl"] == pytest.approx((0.25 * math.log(1 / 3) + 0.75 * math.log(3)) / 2, rel=1e-5)
    assert found["agreement"] == 0.5
    assert found["accuracy"] == 1.0
    assert found["loss"] == pytest.approx(-(math.log(0.5) + math.log(0.75)) / 2, rel=1e-5)
