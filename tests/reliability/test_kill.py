"""kill -9 at any moment: files and folders are the old or the new one, and what is started again ends the same."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import equal

from ks_lottery.checkpoints import writer
from ks_lottery.checkpoints.writer import atomic_folder, clear_unfinished
from ks_lottery.finders.rounds.runs import Run
from ks_lottery.ticket.ticket import Ticket
from tests.reliability import deeds
from tests.reliability.children import Kill, SmallDisk, in_child


def snapshot(place: Path) -> dict[str, bytes]:
    """The files below a path, or the file itself, by name."""
    files = [place] if place.is_file() else [file for file in sorted(place.rglob("*")) if file.is_file()]
    return {str(file.relative_to(place)): file.read_bytes() for file in files}


def killed_everywhere(work: Callable[..., None], place: Path, old: Any, new: Any) -> int:
    """Kill a writer at every change that it makes, each time over the old content; returns how many there are.

    After every kill there is the old content or the new, whole, and from the moment on where it is the new one it
    stays so.
    """
    log = place.parent.with_name("log")
    contents = []
    for value in (old, new):
        assert in_child(work, place, value, log=log) == 0, log.read_text()
        contents.append(snapshot(place))
    assert contents[0] != contents[1]
    seen = []
    for at in range(1, 200):
        assert in_child(work, place, old, log=log) == 0
        code = in_child(work, place, new, log=log, change=Kill(place.parent, at))
        seen.append(contents.index(snapshot(place)))
        if code == 0:
            break
        assert code == -signal.SIGKILL, log.read_text()
    assert seen == sorted(seen)
    assert {seen[0], seen[-1]} == {0, 1}
    clear_unfinished(place)
    assert os.listdir(place.parent) == [place.name]
    return len(seen) - 1


def test_a_file_is_the_old_or_the_new_one(tmp_path: Path) -> None:
    assert killed_everywhere(deeds.save_json, tmp_path / "files" / "x.json", "old", "new") >= 4


def test_a_ticket_is_the_old_or_the_new_one(tmp_path: Path) -> None:
    file = tmp_path / "tickets" / "x.safetensors"
    assert killed_everywhere(deeds.save_ticket, file, [3, 5], [7, 11, 13]) >= 4
    assert Ticket.load(file) == deeds.ticket_of([7, 11, 13])


def test_a_folder_is_the_old_or_the_new_one(tmp_path: Path) -> None:
    assert killed_everywhere(deeds.save_folder, tmp_path / "folders" / "x", "old", "new") >= 8


def test_an_exported_adapter_is_the_old_or_the_new_one(tmp_path: Path) -> None:
    assert killed_everywhere(deeds.export, tmp_path / "exports" / "x", 1, 2) >= 6


@pytest.mark.parametrize("size", [0, 1, 100, 799])
def test_a_file_that_was_half_written_is_the_old_one(tmp_path: Path, size: int) -> None:
    """The process ends inside the system call, when the new file has this many bytes."""
    place, change = tmp_path / "x.json", SmallDisk(size, dies=True)
    deeds.save_json(place, "old")
    before = snapshot(place)
    assert in_child(deeds.save_json, place, "new" * 400, log=Path("/dev/null"), change=change) == -signal.SIGXFSZ
    assert snapshot(place) == before
    assert [len(content) for name, content in snapshot(tmp_path).items() if name != "x.json"] == [size]
    clear_unfinished(place)
    assert os.listdir(tmp_path) == ["x.json"]


@pytest.mark.parametrize("size", [0, 1, 100, 799])
def test_a_ticket_that_was_half_written_is_the_old_one(tmp_path: Path, size: int) -> None:
    file, change = tmp_path / "x.safetensors", SmallDisk(size, dies=True)
    deeds.save_ticket(file, [3, 5])
    before = snapshot(file)
    assert len(before["."]) > size
    assert in_child(deeds.save_ticket, file, [7, 11, 13], log=Path("/dev/null"), change=change) == -signal.SIGXFSZ
    assert snapshot(file) == before
    deeds.save_ticket(file, [7, 11, 13])
    assert Ticket.load(file) == deeds.ticket_of([7, 11, 13])


def test_where_folders_cannot_be_exchanged_the_old_one_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its two renames the folder is missing, and the older one lies beside it, whole."""
    deeds.save_folder(tmp_path / "x", "old")
    before = snapshot(tmp_path / "x")
    replace = Path.replace

    def killed(path: Path, target: Path) -> Path:
        if target == tmp_path / "x":
            raise SystemExit
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(writer, "_exchange", lambda one, other: False)
        patch.setattr(Path, "replace", killed)
        patch.setattr(writer.shutil, "rmtree", lambda *given, **options: None)
        with pytest.raises(SystemExit), atomic_folder(tmp_path / "x") as folder:
            (folder / "half").write_text("half")
    assert sorted(name.split(".")[-1] for name in os.listdir(tmp_path)) == ["old", "tmp"]
    clear_unfinished(tmp_path / "x")
    assert os.listdir(tmp_path) == ["x"]
    assert snapshot(tmp_path / "x") == before


def test_a_probe_that_is_killed_again_and_again_ends_as_one_that_is_not(tmp_path: Path) -> None:
    log, whole, broken = tmp_path / "log", tmp_path / "whole", tmp_path / "broken"
    assert in_child(deeds.make_probe, whole, log=log) == 0, log.read_text()
    kills = 0
    for at in range(1, 400, 11):
        code = in_child(deeds.make_probe, broken, log=log, change=Kill(broken, at))
        if code == 0:
            break
        assert code == -signal.SIGKILL, log.read_text()
        kills += 1
        for end in ("before", "after"):
            if (broken / end).exists():
                assert snapshot(broken / end) == snapshot(whole / end)
    assert kills >= 3
    assert snapshot(broken / "before") == snapshot(whole / "before")
    assert snapshot(broken / "after") == snapshot(whole / "after")


def test_a_run_that_is_killed_again_and_again_ends_as_one_that_is_not(tmp_path: Path) -> None:
    log, whole, broken = tmp_path / "log", tmp_path / "whole", tmp_path / "broken"
    assert in_child(deeds.make_run, whole, log=log) == 0, log.read_text()
    kills = 0
    for at in range(1, 400, 7):
        code = in_child(deeds.make_run, broken, log=log, change=Kill(broken, at))
        if code == 0:
            break
        assert code == -signal.SIGKILL, log.read_text()
        kills += 1
    assert kills >= 3
    expected, found = (Path(deeds.runs_in(folder).train(Run()).name) for folder in (whole, broken))
    assert expected.name == found.name
    values, others = (load_file(folder / "trained-00001.safetensors") for folder in (expected, found))
    assert values.keys() == others.keys()
    assert all(equal(value, others[name]) for name, value in values.items())
    assert not list(broken.glob(".*.tmp")), "what was half written is gone"
    assert not list((broken / "unfinished").iterdir()), "and so are the Trainer's checkpoints"


def test_a_comparison_that_is_killed_again_and_again_ends_as_one_that_is_not(tmp_path: Path) -> None:
    log, whole, broken = tmp_path / "log", tmp_path / "whole", tmp_path / "broken"
    assert in_child(deeds.compare, whole, log=log) == 0, log.read_text()
    kills = 0
    for at in range(1, 2000, 23):
        code = in_child(deeds.compare, broken, log=log, change=Kill(broken, at))
        if code == 0:
            break
        assert code == -signal.SIGKILL, log.read_text()
        kills += 1
    assert kills >= 3
    expected = deeds.timeless(deeds.comparison_in(whole).records())
    assert deeds.timeless(deeds.comparison_in(broken).records()) == expected
    assert len(expected) > 3
