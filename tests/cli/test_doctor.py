"""`ks-lottery doctor` says what works; only what is needed and broken makes its exit code 1."""

import json
import os
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from ks_lottery.cli import checkup
from ks_lottery.cli.checkup import Check, worst
from tests.cli.conftest import Outcome

Run = Callable[..., Outcome]
TOKEN = "hf_doctor_secret_token"


def checks(run: Run, code: int = 0) -> dict[str, dict[str, Any]]:
    outcome = run("doctor", "--json")
    assert (outcome.code, outcome.err) == (code, "")
    content = json.loads(outcome.out)
    assert content["verdict"] == ("broken" if code else "limited")
    return {one["name"]: one for one in content["checks"]}


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without a token, on which nothing is switched off."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "HF_TOKEN", "NUMBA_DISABLE_JIT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache" / "hub"))
    monkeypatch.chdir(tmp_path)


def test_a_machine_on_which_all_that_is_needed_works(run: Run, tmp_path: Path) -> None:
    found = checks(run)
    assert {"ks_lottery", "torch", "transformers", "peft", "numba", "adapter", "CPU", "working folder"} <= set(found)
    assert not [one for one in found.values() if one["status"] == "broken"]
    assert found["torch"]["says"].startswith(f"{metadata.version('torch')}, needs >=")
    assert found["adapter"]["says"] == "PEFT knows KS_TICKET: tickets can be trained, saved and loaded"
    assert found["cache of the Hub"]["says"].startswith(f"{tmp_path}/cache/hub can be written to, ")
    assert found["token of the Hub"]["status"] == "limited"
    shown = run("doctor")
    assert shown.code == 0
    assert shown.out.splitlines()[-1].startswith("Everything that is needed works; ")
    assert not list(tmp_path.rglob(".ks-lottery-*"))


def test_the_token_is_not_shown(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "ENDPOINT", "https://me:password@mirror.example")
    outcome = run("doctor")
    assert TOKEN not in outcome.out
    assert "password" not in outcome.out
    found = checks(run)
    assert (found["token of the Hub"]["status"], found["address of the Hub"]["says"]) == (
        "ok", "https://[hidden]@mirror.example"
    )  # fmt: skip


def test_switches_that_limit(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "0")
    found = checks(run)
    assert "push and pull --list do not work" in found["HF_HUB_OFFLINE"]["says"]
    assert "HF_DATASETS_OFFLINE" not in found


def test_libraries_outside_the_bounds_are_broken(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"peft": "0.20.0", "reedsolo": "0.1"}
    real = metadata.version

    def version(name: str) -> str:
        if name == "scipy":
            raise metadata.PackageNotFoundError(name)
        return versions.get(name) or real(name)

    monkeypatch.setattr(metadata, "version", version)
    found = checks(run, code=1)
    assert found["peft"]["status"] == "broken"
    assert found["peft"]["says"].startswith("0.20.0, needs <0.22,>=0.21.2: pip install 'peft")
    assert found["scipy"]["says"].startswith("not installed, needs >=")
    assert (found["scipy"]["status"], found["reedsolo"]["status"]) == ("broken", "limited")
    assert "found something broken that is needed." in run("doctor").out.splitlines()[-1]


def test_without_being_installed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def requires(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", requires)
    assert checks(run)["packages"]["status"] == "limited"


def test_libraries_that_cannot_be_loaded(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real = checkup.importlib.import_module

    def load(name: str) -> Any:
        if name in ("ks_lottery.adapter", "numba", "triton"):
            raise ImportError(f"{name}: undefined symbol\nin two lines, with {TOKEN}")
        return real(name)

    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(checkup.importlib, "import_module", load)
    monkeypatch.setitem(sys.modules, "torch", None)
    found = checks(run, code=1)
    assert found["adapter"]["says"] == (
        "PEFT does not take the adapter's type (ImportError: ks_lottery.adapter: undefined symbol in two lines, with "
        "[hidden]): tickets cannot be trained"
    )
    assert (found["numba"]["status"], found["triton kernel"]["status"]) == ("broken", "limited")
    assert found["GPU"]["status"] == "broken"


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
def test_places_that_cannot_be_written_to(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", refuse)
    found = checks(run, code=1)
    assert (found["working folder"]["status"], found["temporary folder"]["status"]) == ("limited", "broken")
    assert found["cache of the Hub"]["says"].endswith("(Permission denied): set HF_HOME to a folder of yours")


def test_compiled_kernels_that_are_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    import numba

    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    assert next(checkup.kernels()) == Check(
        "numba kernels", "limited", "NUMBA_DISABLE_JIT is set: rows are compared without compiled kernels, slowly"
    )


def test_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    class Properties:
        name, total_memory = "Fast", 80 * 10**9

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: Properties)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    assert list(checkup.devices())[1] == Check("GPU 0", "ok", "Fast, 80.0 GB, without bfloat16")
    assert list(checkup.kernels())[1].says.endswith("rows on a GPU are compared there")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert list(checkup.devices())[1].says.startswith("Apple MPS")


def test_the_worst() -> None:
    well, limited, broken = (Check("x", status, "") for status in ("ok", "limited", "broken"))
    assert [worst([well]), worst([well, limited]), worst([limited, broken])] == ["ok", "limited", "broken"]
