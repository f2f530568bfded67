"""Files are whole or absent."""

import json
import os
import stat
from pathlib import Path

import pytest

from ks_lottery.checkpoints.writer import atomic_file, atomic_folder, write_json


def test_a_file_appears_whole_with_ordinary_permissions(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "new" / "x.txt") as temporary:
        temporary.write_text("whole")
        assert not (tmp_path / "new" / "x.txt").exists()
    (tmp_path / "plain").write_text("")
    assert (tmp_path / "new" / "x.txt").read_text() == "whole"
    assert stat.S_IMODE((tmp_path / "new" / "x.txt").stat().st_mode) == stat.S_IMODE(
        (tmp_path / "plain").stat().st_mode
    )
    assert os.listdir(tmp_path / "new") == ["x.txt"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("old")

    def write() -> None:
        with atomic_file(tmp_path / "x.txt") as temporary:
            temporary.write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write()
    assert (tmp_path / "x.txt").read_text() == "old"
    assert os.listdir(tmp_path) == ["x.txt"]


def test_a_folder_replaces_the_old_one_whole(tmp_path: Path) -> None:
    target = tmp_path / "run"
    target.mkdir()
    (target / "old").write_text("old")
    with atomic_folder(target) as temporary:
        (temporary / "sub").mkdir()
        (temporary / "sub" / "new").write_text("new")
        assert (target / "old").exists()
    assert sorted(path.name for path in target.rglob("*")) == ["new", "sub"]

    def fail() -> None:
        with atomic_folder(target) as temporary:
            (temporary / "half").write_text("half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert sorted(path.name for path in target.rglob("*")) == ["new", "sub"]
    assert os.listdir(tmp_path) == ["run"]


def test_json_is_readable_and_sorted(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"b": "ü", "a": [1]})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": [1], "b": "ü"}
    assert "ü" in (tmp_path / "x.json").read_text(encoding="utf-8")


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.fail("this system has no /dev/full to imitate a full disk")

    def write() -> None:
        with atomic_file(tmp_path / "x.json") as temporary:
            temporary.unlink()
            temporary.symlink_to("/dev/full")
            temporary.write_text("anything")

    with pytest.raises(OSError, match="No space left on device"):
        write()
    assert os.listdir(tmp_path) == []


def test_an_old_folder_is_there_until_the_new_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "run"
    target.mkdir()
    (target / "old").write_text("old")
    replace = Path.replace

    def interrupted(self: Path, other: Path) -> Path:
        if self.suffix == ".tmp":
            raise KeyboardInterrupt
        return replace(self, other)

    monkeypatch.setattr("ks_lottery.checkpoints.writer._exchange", lambda one, other: False)
    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt), atomic_folder(target) as temporary:
        (temporary / "new").write_text("new")
    assert (target / "old").read_text() == "old"
    assert os.listdir(tmp_path) == ["run"]


def test_a_file_is_no_place_for_a_folder(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("kept")
    with pytest.raises(NotADirectoryError), atomic_folder(tmp_path / "run") as temporary:
        (temporary / "new").write_text("new")
    assert (tmp_path / "run").read_text() == "kept"
    assert os.listdir(tmp_path) == ["run"]
