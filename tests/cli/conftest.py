"""A pair of tiny models on disk, and the program run in this process."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from tokenizers import Tokenizer, models

from ks_lottery.cli.app import main
from tests.tiny_models import VOCABULARY, shifted, tiny_llama

MOVED = [5, 60, 7]


class Outcome(NamedTuple):
    """What a run of the program left behind."""

    code: int
    out: str
    err: str

    @property
    def words(self) -> str:
        """Standard error in one line, without the frames that are drawn around usage errors."""
        return " ".join("".join(" " if letter in "│╭╮╰╯─" else letter for letter in self.err).split())


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of a model and of one in which rows 5, 60 and 7 of the input embedding moved, less and less."""
    folder = tmp_path_factory.mktemp("pair")
    model = tiny_llama()
    model.save_pretrained(folder / "before")
    shifted(model, MOVED, size=4.0).save_pretrained(folder / "after", max_shard_size="10KB")
    vocabulary = {f"word{number}": number for number in range(VOCABULARY - 1)}
    Tokenizer(models.WordLevel(vocabulary, unk_token="word0")).save(str(folder / "after" / "tokenizer.json"))
    return folder / "before", folder / "after"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """The program, given its arguments."""

    def call(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["ks-lottery", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        captured = capsys.readouterr()
        return Outcome(int(caught.value.code or 0), captured.out, captured.err)

    return call
