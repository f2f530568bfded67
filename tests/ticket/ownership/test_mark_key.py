"""The owner's half of a mark is a private file that comes back as it was, or not at all."""

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from ks_lottery.errors import OptionError, TicketError
from ks_lottery.ticket.ownership.mark_key import MarkKey, unmasked
from ks_lottery.ticket.ownership.private_file import write_private
from tests.ticket.ownership.masks import OWNER, QUERY, SECRET

KEY = MarkKey(OWNER, SECRET, QUERY, row=3, column=5, block=3, size=29)


def test_a_saved_key_comes_back(tmp_path: Path) -> None:
    KEY.save(tmp_path / "new" / "key.json")
    assert MarkKey.load(tmp_path / "new" / "key.json") == KEY
    assert stat.S_IMODE(os.stat(tmp_path / "new" / "key.json").st_mode) == 0o600
    with pytest.raises(OptionError, match=r"key.json' exists, and a key that is written over is lost"):
        KEY.save(tmp_path / "new" / "key.json")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["key.json"]


def test_nothing_is_left_where_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_private(tmp_path / "key", b"secret")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "it has no format 1"),
        ({"place": 3}, r"it has \['block', .*'place'.*\] and must have"),
        ({"text": 5}, "text, secret, parameter must be texts"),
        ({"row": -1}, "row, column, block, size must be whole numbers from 0"),
        ({"row": True}, "row, column, block, size must be whole numbers from 0"),
        ({"secret": "xyz"}, "non-hexadecimal number"),
        ({"secret": "00"}, "The secret has 1 bytes"),
        ({"size": 30}, "A pattern of 30 x 30 cells"),
        ({"size": 21}, "21 x 21 cells carry from 1 to 6"),
        ({"block": 9}, "block=9"),
    ],
)
def test_a_changed_key_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    KEY.save(tmp_path / "key.json")
    content = json.loads((tmp_path / "key.json").read_text())
    (tmp_path / "bad.json").write_text(json.dumps({**content, **change}))
    with pytest.raises(TicketError, match=f"bad.json' is damaged or no mark key: .*{message}"):
        MarkKey.load(tmp_path / "bad.json")


def test_a_truncated_or_missing_key_is_refused(tmp_path: Path) -> None:
    KEY.save(tmp_path / "key.json")
    (tmp_path / "cut.json").write_bytes((tmp_path / "key.json").read_bytes()[:50])
    with pytest.raises(TicketError, match="is damaged or no mark key"):
        MarkKey.load(tmp_path / "cut.json")
    with pytest.raises(TicketError, match="There is no mark key at"):
        MarkKey.load(tmp_path / "absent.json")


def test_the_secret_s_stream_is_its_own_inverse() -> None:
    cells = KEY.pattern()
    plain = unmasked(cells, SECRET)
    assert (plain != cells).any()
    assert (unmasked(plain, SECRET) == cells).all()
