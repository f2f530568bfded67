"""The study: cells that are made once, its setting, its plan, and a run of everything on a few sentences."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from replication.calibration import compared, counted
from replication.cells import Cell, Cells
from replication.parts import PARTS, plan_study
from replication.setting import Setting, described, read_setting
from replication.spans import Frame, acting_in

from ks_lottery.errors import LotteryError, OptionError, UnknownNameError

ROOT = Path(__file__).resolve().parents[2]
STUDY = ROOT / "recipes" / "configs" / "study.yaml"


def cell(name: str, needs: tuple[str, ...] = (), made: list[str] | None = None, **config: Any) -> Cell:
    def make(folder: Path) -> dict[str, Any]:
        (folder / "file").write_text(name, encoding="utf-8")
        if made is not None:
            made.append(name)
        return {"value": len(name)}

    return Cell(name, config, needs, make)


def quiet(text: str) -> None:
    del text


def test_cells_are_made_once_in_order_and_leave_a_record(tmp_path: Path) -> None:
    made: list[str] = []
    cells = [cell("b/1", ("a/1",), made), cell("a/1", (), made, seed=7)]
    assert Cells(tmp_path, cells).work(say=quiet) == 0
    assert made == ["a/1", "b/1"]
    again = Cells(tmp_path, cells)
    assert again.work(say=quiet) == 0
    assert made == ["a/1", "b/1"]
    record = json.loads((tmp_path / "a" / "1" / "run.json").read_text(encoding="utf-8"))
    assert record["config"] == {"seed": 7}
    assert record["result"] == {"value": 3}
    assert record["seconds"] >= 0
    assert record["fingerprint"] == again.mark("a/1")
    assert set(record) >= {"commit", "uncommitted", "torch", "transformers", "peft", "device", "threads"}
    assert (tmp_path / "a" / "1" / "file").read_text(encoding="utf-8") == "a/1"


def test_another_configuration_is_another_result_for_all_that_follow(tmp_path: Path) -> None:
    made: list[str] = []
    first = [cell("a/1", (), made, rate=1), cell("b/1", ("a/1",), made), cell("c/1", (), made)]
    Cells(tmp_path, first).work(say=quiet)
    changed = Cells(tmp_path, [cell("a/1", (), made, rate=2), cell("b/1", ("a/1",), made), cell("c/1", (), made)])
    assert changed.record("a/1") is None
    assert changed.record("b/1") is None
    assert changed.record("c/1") is not None
    changed.work(say=quiet)
    assert made == ["a/1", "b/1", "c/1", "a/1", "b/1"]


def test_a_cell_that_fails_leaves_nothing_and_what_was_made_stays(tmp_path: Path) -> None:
    def fail(folder: Path) -> dict[str, Any]:
        (folder / "half").write_text("half", encoding="utf-8")
        raise LotteryError("out of luck")

    cells = Cells(tmp_path, [cell("a/1"), Cell("b/1", {}, (), fail)])
    with pytest.raises(LotteryError, match="out of luck"):
        cells.work(say=quiet)
    assert cells.record("a/1") is not None
    assert not (tmp_path / "b").exists()
    repaired = Cells(tmp_path, [cell("a/1"), cell("b/1")])
    repaired.work(say=quiet)
    assert not (tmp_path / "b" / "1" / "half").exists()


def test_a_cell_that_another_process_holds_is_left_to_it(tmp_path: Path) -> None:
    made: list[str] = []
    cells = Cells(tmp_path, [cell("a/1", (), made), cell("b/1", (), made)])
    (tmp_path / "locks").mkdir()
    with FileLock(tmp_path / "locks" / "a-1.lock"):
        worker = threading.Thread(target=lambda: cells.work(say=quiet))
        worker.start()
        while not made:
            time.sleep(0.01)
        assert made == ["b/1"]
    worker.join()
    assert made == ["b/1", "a/1"]


def test_time_left_is_the_mean_of_each_kind(tmp_path: Path) -> None:
    cells = Cells(tmp_path, [cell("a/1"), cell("a/2"), cell("a/3"), cell("b/1")])
    assert np.isnan(cells.seconds_left())
    for name, seconds in (("a/1", 10.0), ("b/1", 4.0)):
        place = tmp_path / name
        place.mkdir(parents=True)
        content = {"fingerprint": cells.mark(name), "seconds": seconds, "result": {}}
        (place / "run.json").write_text(json.dumps(content), encoding="utf-8")
    assert cells.seconds_left(workers=2) == pytest.approx(10.0)


def test_two_cells_of_one_name_and_needs_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="two cells of the name 'a/1'"):
        Cells(tmp_path, [cell("a/1"), cell("a/1")])
    with pytest.raises(OptionError, match="'a/1' needs 'b/1', which the study does not have"):
        Cells(tmp_path, [cell("a/1", ("b/1",))])
    with pytest.raises(LotteryError, match="'a/1' of .* is not finished"):
        Cells(tmp_path, [cell("a/1")]).result("a/1")


def test_the_setting_of_the_study_is_what_the_page_says() -> None:
    setting = read_setting(STUDY)
    assert len(setting.seeds) >= 3
    assert setting.test_sentences >= 1000
    assert setting.tries == 3
    assert setting.full_directions == ("de", "fr", "es")
    assert setting.alphas == (0.05, 0.5, 0.95)
    assert setting.rates["embed"] == (1e-3, 3e-3, 1e-2)
    assert set(setting.parts) == set(PARTS)
    assert json.loads(json.dumps(described(setting))) == described(setting)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"directions": {"de": "hub"}}, "'hub' must be one of tatoeba, embedded"),
        ({"tuned_on": "it"}, "'it' is none of the directions"),
        ({"rates": {"embed": (1e-3,), "lora": (1e-3, 1e-2)}}, "as many learning rates"),
        ({"wings": 2}, "unknown|unexpected"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        read_setting(STUDY, **changes)


def test_setting_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no study setting"):
        read_setting(tmp_path / "none.yaml")
    for text, message in (
        ("[1, 2]", "must hold the fields"),
        ("a: [", "is no YAML"),
        ("sead: 1", "unknown field 'sead'"),
    ):
        (tmp_path / "wrong.yaml").write_text(text, encoding="utf-8")
        with pytest.raises(OptionError, match=message):
            read_setting(tmp_path / "wrong.yaml")


def tiny(**changes: Any) -> Setting:
    one = (1e-2,)
    kinds = ("full", "embed", "one_row", "few_rows", "many_rows", "others", "lora", "prefix", "heads", "norms")
    values: dict[str, Any] = {
        "directions": {"de": "embedded", "fr": "embedded", "embedded-es": "embedded"},
        "brief": ("embedded-es",),
        "parts": ("main", "brief"),
        "methods": ("base", "embed", "ks", "transfer-ks", "newline", "ks-0.05"),
        "brief_methods": ("base", "embed"),
        "tuned_on": "de",
        "rates": dict.fromkeys(kinds, one),
        "seeds": (0, 1),
        "train_pairs": 32,
        "dev_sentences": 4,
        "test_sentences": 6,
        "certificate_sentences": 4,
        "max_new_tokens": 4,
    }
    return Setting(**{**values, **changes})


def test_an_unknown_part_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="no part 'wings'"):
        plan_study(tiny(parts=("wings",)), tmp_path)


def test_learning_rates_are_tried_once_and_taken_over(tmp_path: Path) -> None:
    lab = plan_study(read_setting(STUDY), tmp_path).lab
    assert len(lab.trainings("de", 0, "ks")) == 3
    assert lab.trainings("de", 1, "ks") == ("tuned/de/1/ks/chosen",)
    assert lab.trainings("fr", 0, "ks") == ("tuned/fr/0/ks/chosen",)
    assert set(lab.trainings("de", 0, "ks")) <= set(lab.cells.cells["tuned/fr/0/ks/chosen"].needs)
    assert len(lab.trainings("embedded-de", 0, "ks")) == 3
    assert lab.trainings("de", 0, "union") == ("tuned/de/0/union/chosen",)
    assert set(lab.trainings("de", 0, "ks")) <= set(lab.cells.cells["tuned/de/0/union/chosen"].needs)


def test_a_study_runs_to_its_end_and_goes_on_after_a_stop(tmp_path: Path) -> None:
    plan = plan_study(tiny(), tmp_path)
    cells = plan.lab.cells
    lines: list[str] = []
    assert cells.work(minutes=-1, say=lines.append) == len(cells.cells)
    assert cells.work(say=lines.append) == 0
    assert len(lines) == len(cells.cells)
    assert "left" in lines[-1]
    for name in ("tested/de/0/ks", "tested/fr/1/transfer-ks", "tested/embedded-es/0/embed"):
        result = cells.result(name)
        assert result["sentences"] == 6
        assert 0 <= result["bleu_whole"] <= 100
        assert 0 <= result["stop_rate"] <= 1
    ticket = plan.lab.ticket("de", 0, "ks")
    assert ticket is not None
    assert len(ticket) == 18
    own = cells.result("tuned/de/0/ks/try-0")
    assert own["trainable"] == 18 * 192
    assert own["steps"] == 2
    assert own["rate"] == 1e-2
    assert cells.result("tuned/fr/1/ks/chosen")["rate"] == 1e-2
    if plan.lab.ticket("de", 0, "ks-0.05") is None:
        assert "empty" in cells.result("tested/de/0/ks-0.05")


def test_spans_are_found_behind_padding() -> None:
    frame = Frame(before=2, after=1, pad=0)
    ids = torch.tensor([[0, 0, 5, 6, 7, 9], [5, 6, 7, 7, 7, 9]])
    assert frame.active(ids, "source").tolist() == [[False] * 4 + [True, False], [False, False] + [True] * 3 + [False]]
    assert frame.active(ids, "instruction").tolist() == [
        [False, False, True, True, False, True],
        [True, True, False, False, False, True],
    ]
    assert not frame.active(ids, "target").any()
    assert frame.active(torch.tensor([[7], [7]]), "target").all()
    assert not frame.active(torch.tensor([[7]]), "source").any()


def test_rows_act_in_their_span_only() -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rows = torch.nn.Embedding.from_pretrained(torch.ones(10, 2))

        def get_input_embeddings(self) -> torch.nn.Module:
            return self.rows

    model, frame = Model(), Frame(before=2, after=1, pad=0)
    with acting_in("source", frame, model, torch.zeros(10, 2)):
        assert model.rows(torch.tensor([[5, 6, 7, 9]]))[0, :, 0].tolist() == [0, 0, 1, 0]
        assert model.rows(torch.tensor([[7]]))[0, :, 0].tolist() == [0]
    assert model.rows(torch.tensor([[5]]))[0, 0, 0] == 1


def test_rows_that_pass_are_counted() -> None:
    d, p = np.array([0.1, 0.2, 0.5, 0.9]), np.array([0.9, 0.4, 0.04, 1e-9])
    found = counted(d, p, np.array([1, 2, 3]))
    assert found == {
        "rows": 3,
        "below_0.05": 2,
        "below_0.5": 3,
        "below_0.95": 3,
        "bonferroni": 1,
        "median_d": 0.5,
        "largest_d": 0.9,
    }
    assert counted(d, p, np.array([], dtype=int)) == {
        "rows": 0, "below_0.05": 0, "below_0.5": 0, "below_0.95": 0, "bonferroni": 0
    }  # fmt: skip


def test_equal_rows_are_not_compared_and_far_ones_pass() -> None:
    one = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    other = one.clone()
    other[2] += 100
    found = compared(one, other)
    assert found["rows"] == 1
    assert found["below_0.05"] == 1
    assert found["largest_d"] == 1.0
    assert compared(one, other, among=np.array([0, 1]))["below_0.95"] == 0


def test_every_part_runs(tmp_path: Path) -> None:
    further = tuple(part for part in PARTS if part not in ("main", "brief"))
    paraphrase = {"plain": "Translate to {target_language}: {source}\n"}
    setting = tiny(
        directions={"de": "embedded"}, brief=(), parts=further, seeds=(0,), train_pairs=32, paraphrases=paraphrase
    )
    plan = plan_study(setting, tmp_path)
    cells = plan.lab.cells
    assert cells.work(say=quiet) == 0
    assert cells.result("tickets/de/0/norms")["weights"] == 9 * 192
    mixed = plan.lab.ticket("de", 0, "rows-and-norms")
    rows = plan.lab.ticket("de", 0, "ks")
    assert mixed is not None
    assert rows is not None
    assert mixed.num_trainable() == rows.num_trainable() + 9 * 192
    assert cells.result("tuned/de/0/rows-and-norms/try-0")["trainable"] == mixed.num_trainable()
    replicated = plan.lab.ticket("de", 0, "replicated")
    assert replicated is not None  # with one seed the rows that replicate are the rows
    assert replicated.indices["input"].tolist() == rows.indices["input"].tolist()
    decay = cells.result("calibration/de/decay")["decay"]
    assert decay["0.01"]["rows"] == 4095  # the row of the padding token is zero and stays so
    assert decay["0.01"]["below_0.05"] <= decay["0.3"]["below_0.05"] <= decay["1"]["below_0.05"]
    tied = cells.result("calibration/de/tied-0")
    assert tied["tied"]["moved"] == tied["unused_rows"] > 0  # every row of a tied table gets gradient
    assert tied["own_head"]["moved"] == 0
    assert 0 <= cells.result("spans/de/0/ks/source")["stop_rate"] <= 1
