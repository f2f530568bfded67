"""A token of the environment stands in nothing that the library writes or prints."""

import os
import subprocess
import sys
from pathlib import Path

from tests.tiny_models import shifted, tiny_llama

TOKEN = "hf_" + "Zy9" * 12


def test_no_file_and_no_line_of_a_find_holds_the_token(tmp_path: Path) -> None:
    tiny_llama().save_pretrained(tmp_path / "before")
    shifted(tiny_llama(), [7, 3]).save_pretrained(tmp_path / "after")
    environment = {**os.environ, "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "1"}
    program = "from ks_lottery.cli.app import main; main()"
    printed = ""
    for arguments in (
        ["find", "before", "after", "--units", "token_rows", "--top-k", "2", "--out", "ticket"],
        ["show", "ticket"],
        ["doctor"],
        ["find", f"https://user:{TOKEN}@host/x", "after", "--out", "other"],
    ):
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert (done.returncode == 0) == (arguments[0] != "find" or arguments[-1] == "ticket"), done.stderr
        printed += done.stdout + done.stderr
    assert (tmp_path / "ticket" / "ticket.safetensors").is_file()
    assert TOKEN not in printed
    assert [path for path in tmp_path.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()] == []
