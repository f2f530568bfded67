"""What is secret is found before anything is uploaded, and is not quoted."""

import json
from pathlib import Path

import pytest

from ks_lottery.errors import OptionError
from ks_lottery.ticket.hub import push_folder
from ks_lottery.ticket.ownership.mark_key import MarkKey
from ks_lottery.ticket.ownership.signature import make_key
from ks_lottery.ticket.secret_files import require_no_secrets
from tests.fake_hub import TOKEN, FakeHub

LEAKED = "hf_" + "xY7" * 8


def fill(folder: Path, what: str) -> None:
    (folder / "sub").mkdir()
    if what == "key":
        make_key(folder / "sub" / "owner.pem")
    elif what == "mark":
        MarkKey("Ada", b"s" * 32, "w", 0, 0, 3, 21).save(folder / "sub" / "mark.json")
    elif what == "token":
        (folder / "sub" / "log.txt").write_text(f"login with {LEAKED}")
    else:
        (folder / "sub" / "run.json").write_text(json.dumps({"hub_token": TOKEN}))


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("key", "owner.pem' .* is a private key, which is for you alone"),
        ("mark", "mark.json' .* is the key of a mark, which is for you alone"),
        ("token", "log.txt' .* holds an access token, which is for you alone"),
        ("own token", "run.json' .* holds an access token, which is for you alone"),
    ],
)
def test_nothing_is_uploaded(fake_hub: FakeHub, tmp_path: Path, what: str, said: str) -> None:
    fill(tmp_path, what)
    with pytest.raises(OptionError, match=said) as caught:
        push_folder(tmp_path, "tester/ticket")
    assert "nothing was uploaded" in str(caught.value)
    assert LEAKED not in str(caught.value)
    assert fake_hub.requests == []


def test_a_trainer_s_arguments_stay_here(fake_hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "training_args.bin").write_bytes(b"a pickle with a token")
    (tmp_path / "config.json").write_text("{}")
    push_folder(tmp_path, "tester/ticket")
    assert list(fake_hub.files("tester/ticket")) == ["config.json"]


def test_what_is_no_secret(tmp_path: Path) -> None:
    (tmp_path / "owner.pem.pub").write_text("-----BEGIN PUBLIC KEY-----\nabc\n-----END PUBLIC KEY-----\n")
    (tmp_path / "half.json").write_text('{"secret": ')
    (tmp_path / "other.json").write_text('{"secret": "of a novel"}')
    (tmp_path / "weights.bin").write_bytes(bytes(range(256)))
    (tmp_path / "long.txt").write_text("x" * (2**20 + 1))
    require_no_secrets(tmp_path)
    (tmp_path / "key.pem").write_text("-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----\n")
    with pytest.raises(OptionError, match=r"'key.pem' .* is a private key"):  # among the same files it is found
        require_no_secrets(tmp_path)
