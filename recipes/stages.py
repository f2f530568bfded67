"""Stages of a recipe: each leaves a folder that is whole or absent, so a killed run continues where it stopped."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

from ks_lottery.checkpoints.writer import write_json
from ks_lottery.training.run_lock import RunLock

_RECORD = "stage.json"


class Stages:
    """The finished stages of one run, which keeps other runs out of its folder until it is closed or ends.

    Args:
        folder: the run's folder; `folder/<name>` is a finished stage, `folder/unfinished/<name>-<fingerprint>` the
            place where one is being made.

    Raises:
        OptionError: if another run works in the folder, or nothing can be written there.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._state = processes()
        self._lock = RunLock(folder)
        if self._state.is_main_process:
            self._lock.acquire()

    def run(self, name: str, inputs: Mapping[str, Any], make: Callable[[Path], None]) -> Path:
        """Make a stage, or return at once if it was finished with the same inputs.

        Every process calls `make` (a training needs all of them); the first one renames the result into place.

        Args:
            name: of the stage and of its folder.
            inputs: JSON values that decide the result, among them the fingerprints of earlier stages.
            make: fills the folder that it is given. It finds there what a killed attempt left, for example a Trainer's
                checkpoints, and may go on from that.

        Returns:
            The finished folder.
        """
        finished = self.folder / name
        mark = fingerprint(inputs)
        done = self._is_done(finished, mark)
        self._state.wait_for_everyone()
        if done:
            self._say(f"{name}: finished before, {finished}")
            return finished
        self._say(f"{name} ...")
        work = self.folder / "unfinished" / f"{name.replace('/', '-')}-{mark[:12]}"
        work.mkdir(parents=True, exist_ok=True)
        make(work)
        self._state.wait_for_everyone()
        if self._state.is_main_process:
            write_json(work / _RECORD, {"stage": name, "fingerprint": mark, "inputs": inputs})
            replaced = work.with_name(f"{work.name}-replaced")
            shutil.rmtree(replaced, ignore_errors=True)
            finished.parent.mkdir(parents=True, exist_ok=True)
            if finished.exists():
                finished.replace(replaced)
            work.replace(finished)
            shutil.rmtree(replaced, ignore_errors=True)
        self._state.wait_for_everyone()
        return finished

    def close(self) -> None:
        """Let other runs have the folder."""
        self._lock.release()

    def _say(self, text: str) -> None:
        if self._state.is_main_process:
            print(text, flush=True)

    @staticmethod
    def _is_done(folder: Path, mark: str) -> bool:
        try:
            record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return bool(record.get("fingerprint") == mark)


def processes() -> PartialState:
    """The processes of this run; without an accelerator they meet over gloo, which has to be asked for."""
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available())


def fingerprint(inputs: Mapping[str, Any]) -> str:
    """Hex SHA-256 of JSON values, independent of the order of keys."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
