"""A full disk, and a folder that may not be written: one error that names the file, and nothing is lost."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError
from stages import Stages

from ks_lottery.checkpoints.writer import atomic_file, atomic_folder, write_json
from ks_lottery.errors import OptionError, WriteError
from ks_lottery.finders.rounds.runs import Run
from ks_lottery.training.run_lock import RunLock
from tests.reliability import deeds
from tests.reliability.children import Nobody, SmallDisk, in_child
from tests.reliability.test_kill import snapshot

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@pytest.mark.parametrize(
    ("work", "old", "new"),
    [
        (deeds.save_ticket, [3, 5], [7, 11, 13]),
        (deeds.save_json, "old", "new" * 400),
        (deeds.save_folder, "old", "new" * 400),
        (deeds.export, 1, 2),
    ],
)
def test_a_file_that_does_not_fit(tmp_path: Path, work: Callable[..., None], old: Any, new: Any) -> None:
    """Files cannot grow beyond 700 bytes, whoever writes them."""
    place, log = tmp_path / "x", tmp_path / "log"
    work(place, old)
    before = snapshot(place)
    assert in_child(work, place, new, log=log, change=SmallDisk(700)) == 1
    named = place / "ticket.safetensors" if work is deeds.save_ticket else place
    said = log.read_text().splitlines()[-1]
    assert said.startswith(f"WriteError: Cannot write {str(named)!r}: File too large, ")
    assert said.endswith(
        " bytes are free. What stood there is as it was. Raise the limit on the size of files (ulimit -f), or write "
        "to another file system."
    )
    assert snapshot(place) == before
    assert sorted(os.listdir(tmp_path)) == ["log", "x"]


@pytest.mark.parametrize("number", FULL)
@pytest.mark.parametrize("write", [1, 2, 3])
def test_a_disk_that_is_full_at_the_nth_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, write: int
) -> None:
    deeds.save_folder(tmp_path / "x", "old")
    before = snapshot(tmp_path / "x")
    done: list[str] = []
    write_text = Path.write_text

    def full(path: Path, text: str, *given: Any, **options: Any) -> int:
        done.append(path.name)
        if len(done) == write:
            write_text(path, text[:1])
            raise OSError(number, os.strerror(number))
        return write_text(path, text, *given, **options)

    monkeypatch.setattr(Path, "write_text", full)

    def save() -> None:
        with atomic_folder(tmp_path / "x") as folder:
            (folder / "one").write_text("new")
            write_json(folder / "two.json", {"new": 1})
            (folder / "three").write_text("new")

    with pytest.raises(WriteError) as caught:
        save()
    assert caught.value.errno == number
    assert str(caught.value).startswith(f"Cannot write {str(tmp_path / 'x')!r}: {os.strerror(number)}, ")
    assert "What stood there is as it was. " in str(caught.value)
    assert len(done) == write
    assert snapshot(tmp_path / "x") == before
    assert os.listdir(tmp_path) == ["x"]


def test_what_the_safetensors_library_says_of_a_full_disk_is_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: Any) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("ks_lottery.ticket.store.save_file", full)
    with pytest.raises(WriteError, match="No space left on device, [0-9]+ bytes are free") as caught:
        deeds.save_ticket(tmp_path / "x", [3, 5])
    assert caught.value.errno == errno.ENOSPC
    assert os.listdir(tmp_path / "x") == []


def test_a_disk_that_is_full_before_a_run_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(OptionError, match="cannot be written: No space left on device. Free some space, or give anoth"):
        RunLock(tmp_path / "run").acquire()


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(PermissionError, match="of something else"), atomic_file(tmp_path / "x"):
        raise PermissionError(errno.EACCES, "of something else")
    with pytest.raises(ZeroDivisionError), atomic_folder(tmp_path / "x"):
        raise ZeroDivisionError


WORKS = (
    ("save_ticket", "WriteError: Cannot write 'run/ticket.safetensors': Permission denied. What stood there is as it "
     "was. Make the folder writable, or write to another one."),
    ("export", "WriteError: Cannot write 'run': Permission denied. What stood there is as it was. Make the folder "
     "writable, or write to another one."),
    ("make_run", "OptionError: The folder 'run' cannot be written: Permission denied. Make it writable, or give "
     "another folder."),
    ("compare", "OptionError: The folder 'run' cannot be written: Permission denied. Make it writable, or give "
     "another folder."),
    ("make_stage", "OptionError: The folder 'run' cannot be written: Permission denied. Make it writable, or give "
     "another folder."),
)  # fmt: skip


def without_training(work: str, place: Path) -> None:
    """Do something in which no training may begin."""
    from transformers import Trainer

    def train(*given: Any, **options: Any) -> None:
        raise AssertionError("a training has begun")

    Trainer.train = train
    if work == "make_stage":
        Stages(place)
    else:
        given = {"save_ticket": ([3, 5],), "export": (1,)}.get(work, ())
        getattr(deeds, work)(place, *given)


@pytest.mark.parametrize(("work", "expected"), WORKS)
def test_a_read_only_folder_is_refused_before_anything_is_trained(tmp_path: Path, work: str, expected: str) -> None:
    log = tmp_path / "log"
    (tmp_path / "mine").mkdir()
    assert in_child(without_training, work, Path("run"), log=log, change=Nobody(tmp_path / "mine")) == 1
    assert log.read_text().splitlines()[-1] == expected
    assert os.listdir(tmp_path / "mine") == []


def test_a_file_in_the_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    place = tmp_path / "file" / "run"
    for begin in (lambda: Stages(place), lambda: deeds.runs_in(place).train(Run()), lambda: deeds.comparison_in(place)):
        with pytest.raises(OptionError, match="cannot be written: Not a directory. Make it writable, or give another"):
            begin()
    with pytest.raises(NotADirectoryError):
        deeds.save_ticket(place, [3, 5])
    assert (tmp_path / "file").read_text() == "kept"
