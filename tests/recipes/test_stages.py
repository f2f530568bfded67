"""A stage is whole or absent, is made once, and is made again when what decides it changes."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from stages import Stages, fingerprint


class Killed(BaseException):
    """Stands for a kill at some moment."""


def write(text: str):
    def make(folder: Path) -> None:
        (folder / "result.txt").write_text(text)

    return make


def never(folder: Path) -> None:
    pytest.fail(f"made {folder} again")


def test_a_stage_is_made_once(tmp_path, capsys) -> None:
    inputs = {"rate": 0.1, "languages": ("en", "de")}
    folder = Stages(tmp_path).run("tuned/embed/0.1", inputs, write("first"))
    assert folder == tmp_path / "tuned" / "embed" / "0.1"
    assert (folder / "result.txt").read_text() == "first"
    assert json.loads((folder / "stage.json").read_text()) == {
        "stage": "tuned/embed/0.1", "fingerprint": fingerprint(inputs),
        "inputs": {"rate": 0.1, "languages": ["en", "de"]},
    }  # fmt: skip
    assert Stages(tmp_path).run("tuned/embed/0.1", inputs, never) == folder
    assert capsys.readouterr().out.splitlines() == [
        "tuned/embed/0.1 ...", f"tuned/embed/0.1: finished before, {folder}"
    ]  # fmt: skip
    assert list((tmp_path / "unfinished").iterdir()) == []


def test_other_inputs_make_it_again_and_leave_nothing_of_the_old_one(tmp_path) -> None:
    stages = Stages(tmp_path)
    folder = stages.run("ticket", {"k": 1}, lambda folder: (folder / "old.txt").write_text("old"))
    assert stages.run("ticket", {"k": 2}, write("new")) == folder
    assert {path.name for path in folder.iterdir()} == {"result.txt", "stage.json"}
    assert stages.run("ticket", {"k": 2}, never) == folder
    stages.run("ticket", {"k": 1}, write("again"))
    assert (folder / "result.txt").read_text() == "again"


def test_a_killed_attempt_is_gone_on_with(tmp_path) -> None:
    stages = Stages(tmp_path)

    def half(folder: Path) -> None:
        (folder / "checkpoint").write_text("half")
        raise Killed

    def rest(folder: Path) -> None:
        (folder / "result.txt").write_text((folder / "checkpoint").read_text() + " and the rest")

    with pytest.raises(Killed):
        stages.run("tuned/full", {"k": 1}, half)
    assert not (tmp_path / "tuned").exists()
    with pytest.raises(FileNotFoundError):
        stages.run("tuned/full", {"k": 2}, rest)
    folder = stages.run("tuned/full", {"k": 1}, rest)
    assert (folder / "result.txt").read_text() == "half and the rest"


@pytest.mark.parametrize("record", ["", "{", '{"fingerprint": "other"}', "{}"])
def test_a_folder_without_a_readable_record_is_not_finished(tmp_path, record: str) -> None:
    folder = tmp_path / "ticket"
    folder.mkdir()
    (folder / "result.txt").write_text("half")
    (folder / "stage.json").write_text(record)
    Stages(tmp_path).run("ticket", {}, write("whole"))
    assert (folder / "result.txt").read_text() == "whole"


@pytest.mark.parametrize("renames", [0, 1])
def test_a_kill_while_the_old_one_is_replaced_loses_no_attempt(tmp_path, monkeypatch, renames: int) -> None:
    stages = Stages(tmp_path)
    stages.run("ticket", {"k": 1}, write("old"))
    replace, done = Path.replace, []

    def replace_or_die(path: Path, target: Path) -> Path:
        if path.is_file():
            return replace(path, target)
        if len(done) == renames:
            raise Killed
        done.append(path)
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace_or_die)
        with pytest.raises(Killed):
            stages.run("ticket", {"k": 2}, write("new"))
    folder = tmp_path / "ticket"
    assert folder.exists() == (renames == 0)
    assert not folder.exists() or (folder / "result.txt").read_text() == "old"
    stages.run("ticket", {"k": 2}, write("new"))
    assert (folder / "result.txt").read_text() == "new"
    assert list((tmp_path / "unfinished").iterdir()) == []


def test_only_the_first_process_renames_and_speaks(tmp_path, capsys) -> None:
    stages = Stages(tmp_path)
    waits = []
    stages._state = SimpleNamespace(is_main_process=False, wait_for_everyone=lambda: waits.append(None))
    folder = stages.run("ticket", {}, write("a part"))
    assert not folder.exists()
    assert len(waits) == 3, "all processes meet before the work, after it, and when it is in its place"
    assert capsys.readouterr().out == ""


def test_the_fingerprint_depends_on_values_and_not_on_their_order() -> None:
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": (1, 2), "a": 1})
    assert len({fingerprint(inputs) for inputs in ({}, {"a": 1}, {"a": 1.5}, {"a": "1"}, {"b": 1})}) == 5
