"""Two processes in one folder: one of them works, the other one says who."""

import logging
import os
import re
import signal
import socket
import time
from pathlib import Path

import pytest
from stages import Stages

from ks_lottery.errors import OptionError
from ks_lottery.evaluation.comparison.store import Store
from ks_lottery.training import run_lock
from ks_lottery.training.run_lock import RunLock, exclusively
from tests.evaluation.comparison.test_store import cell
from tests.reliability import deeds
from tests.reliability.children import exit_code, in_child, start_child

SINCE = r"since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d"


def hold_run(folder: Path, ready: Path) -> None:
    """Take a run folder and keep it until killed."""
    lock = RunLock(folder)
    lock.acquire()
    ready.touch()
    time.sleep(100)


def hold_place(place: Path, ready: Path, go_on: Path) -> None:
    """Make a place, slowly."""
    with exclusively(place):
        ready.touch()
        until(go_on)
        place.write_text("made by the other one")


def begin(folder: Path) -> None:
    """What a recipe does first."""
    Stages(folder)


def append_cells(folder: Path, mark: str) -> None:
    """What a worker of a comparison does, many times."""
    store = Store(folder, deeds.PLAN)
    for number in range(40):
        store.append(cell(f"{mark}{number}", error="x" * 5000, score=None))


def until(file: Path) -> None:
    deadline = time.monotonic() + 60
    while not file.exists():
        assert time.monotonic() < deadline, f"{file} does not come"
        time.sleep(0.01)


def test_a_second_process_in_a_run_folder_is_told_who_works_there(tmp_path: Path) -> None:
    folder, log = tmp_path / "run", tmp_path / "log"
    holder = start_child(hold_run, folder, tmp_path / "ready", log=tmp_path / "holder")
    until(tmp_path / "ready")
    assert in_child(begin, folder, log=log) == 1
    said = log.read_text().splitlines()[-1]
    assert re.fullmatch(
        f"OptionError: The run folder {re.escape(repr(str(folder)))} is in use by process {holder.pid} on "
        f"{re.escape(socket.gethostname())}, {SINCE}. Wait until that has ended, end it, or give another folder; what "
        "it finishes is taken over by the next run there.",
        said,
    )
    os.kill(holder.pid, signal.SIGKILL)
    assert exit_code(holder) == -signal.SIGKILL


def test_a_killed_process_blocks_nobody(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    holder = start_child(hold_run, folder, tmp_path / "ready", log=tmp_path / "holder")
    until(tmp_path / "ready")
    os.kill(holder.pid, signal.SIGKILL)
    assert exit_code(holder) == -signal.SIGKILL
    assert f'"pid": {holder.pid}' in (folder / ".lock.holder").read_text(), "what it said of itself is left"
    stages = Stages(folder)
    assert f'"pid": {os.getpid()}' in (folder / ".lock.holder").read_text()
    stages.close()
    assert [path.name for path in folder.iterdir()] == [".lock"]


def test_one_process_may_take_its_folder_several_times(tmp_path: Path) -> None:
    first, second = RunLock(tmp_path), RunLock(tmp_path)
    first.acquire()
    second.acquire()
    first.release()
    assert in_child(begin, tmp_path, log=tmp_path / "log") == 1, "the second one still has it"
    second.release()
    second.release()
    assert in_child(begin, tmp_path, log=tmp_path / "log") == 0


def test_a_holder_that_has_said_nothing_is_another_process(tmp_path: Path) -> None:
    lock = RunLock(tmp_path)
    lock.acquire()
    for content in ("", "{", "[]", "{}", "1"):
        (tmp_path / ".lock.holder").write_text(content)
        assert in_child(begin, tmp_path, log=tmp_path / "log") == 1
        assert "is in use by another process. Wait" in (tmp_path / "log").read_text().splitlines()[-1]
    lock.release()


def test_a_place_that_another_one_makes_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(run_lock, "_PATIENCE_SECONDS", 0.01)
    place, ready, go_on = tmp_path / "place", tmp_path / "ready", tmp_path / "go_on"
    holder = start_child(hold_place, place, ready, go_on, log=tmp_path / "log")
    until(ready)

    class Told(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            go_on.touch()

    told = Told()
    logging.getLogger(run_lock.__name__).addHandler(told)
    try:
        with caplog.at_level(logging.WARNING), exclusively(place):
            assert place.read_text() == "made by the other one"
    finally:
        logging.getLogger(run_lock.__name__).removeHandler(told)
    assert exit_code(holder) == 0
    (said,) = caplog.messages
    assert re.fullmatch(f"Waiting for {str(place)!r}, which process {holder.pid} on .*, {SINCE} makes.", said)


def test_what_a_killed_one_left_of_a_place_is_cleared(tmp_path: Path) -> None:
    (tmp_path / ".place.abc.tmp").mkdir()
    (tmp_path / ".place.abc.tmp" / "half").write_text("half")
    (tmp_path / ".place.def.tmp").write_text("half")
    (tmp_path / ".place.ghi.old" / "place").mkdir(parents=True)
    (tmp_path / ".other.abc.tmp").write_text("of another one")
    with exclusively(tmp_path / "place"):
        assert (tmp_path / "place").is_dir()
    assert sorted(os.listdir(tmp_path)) == [".other.abc.tmp", ".place.lock", "place"]


def test_two_processes_that_are_one_worker_of_a_comparison_append_whole_lines(tmp_path: Path) -> None:
    children = [start_child(append_cells, tmp_path / "run", mark, log=tmp_path / mark) for mark in "ab"]
    assert [exit_code(child) for child in children] == [0, 0]
    found = {record.cell for record in Store(tmp_path / "run", deeds.PLAN).records()}
    assert found == {f"{mark}{number}" for mark in "ab" for number in range(40)}


def test_two_processes_that_are_one_worker_make_each_training_once(tmp_path: Path) -> None:
    children = [start_child(deeds.compare, tmp_path / "run", log=tmp_path / str(number)) for number in range(2)]
    assert [exit_code(child) for child in children] == [0, 0]
    deeds.compare(tmp_path / "alone")
    shared, alone = (deeds.comparison_in(tmp_path / name) for name in ("run", "alone"))
    assert deeds.timeless(shared.records()) == deeds.timeless(alone.records())
    assert len(list((tmp_path / "run" / "trained").glob("[!.]*.json"))) == len(
        list((tmp_path / "alone" / "trained").glob("[!.]*.json"))
    )


def test_a_folder_that_cannot_be_made_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OptionError, match="cannot be written: Not a directory. Make it writable, or give another"):
        RunLock(tmp_path / "file" / "run").acquire()


def probe_there(folder: Path) -> None:
    """What a user calls by hand."""
    from ks_lottery.training.probe import probe
    from tests.tiny_models import tiny_llama
    from tests.training.tiny_task import tiny_examples, tiny_tokenizer

    tokenizer = tiny_tokenizer()
    model = tiny_llama(vocabulary=len(tokenizer))
    options = {"max_steps": 1, "use_cpu": True, "disable_tqdm": True}
    probe(model, tiny_examples(tokenizer), folder, arguments=options, processing_class=tokenizer)


def test_a_second_probe_in_a_folder_is_told_who_works_there(tmp_path: Path) -> None:
    folder, log = tmp_path / "probe", tmp_path / "log"
    holder = start_child(hold_run, folder, tmp_path / "ready", log=tmp_path / "holder")
    until(tmp_path / "ready")
    assert in_child(probe_there, folder, log=log) == 1
    assert f"is in use by process {holder.pid} on " in log.read_text()
    assert not (folder / "before").exists()
    os.kill(holder.pid, signal.SIGKILL)
    assert exit_code(holder) == -signal.SIGKILL
    assert in_child(probe_there, folder, log=log) == 0
    assert (folder / "after" / "config.json").is_file()
