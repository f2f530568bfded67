"""What is built, and that it works where it is installed: away from the repository, from the wheel alone."""

import email
import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from ks_lottery._version import __version__
from tests.packaging.pyproject_file import PROJECT, ROOT, dependencies, required
from tests.tiny_models import shifted

pytestmark = pytest.mark.slow
QUIET = {**os.environ, "HF_HUB_OFFLINE": "1", "MPLBACKEND": "agg", "COLUMNS": "200"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist."""
    pytest.importorskip("build", reason="build is not installed")
    pytest.importorskip("hatchling", reason="hatchling is not installed")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    return built / f"ks_lottery-{__version__}-py3-none-any.whl"


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of a fresh environment with the wheel, which finds all other packages where they are."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    inside = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
    (Path(inside) / "elsewhere.pth").write_text(sysconfig.get_path("purelib"))
    python = programs / "python"
    subprocess.run([python, "-m", "pip", "install", "--no-deps", "--no-index", wheel], check=True, capture_output=True)
    return programs


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    about = f"ks_lottery-{__version__}.dist-info"
    assert {name.partition("/")[0] for name in names} == {"ks_lottery", about}
    tracked = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "ks_lottery").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in names if name.startswith("ks_lottery/")} == tracked
    assert {"ks_lottery/py.typed", f"{about}/licenses/LICENSE"} <= names


def test_the_sdist_holds_the_package_and_its_papers(built: Path) -> None:
    with tarfile.open(built / f"ks_lottery-{__version__}.tar.gz") as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    outside = {name for name in names if not name.startswith("ks_lottery/")}
    assert {"LICENSE", "README.md", "CITATION.cff", "pyproject.toml", "PKG-INFO"} <= outside
    assert [name for name in outside if name.startswith(("tests", "runs", "docs", ".venv", ".github", ".ci"))] == []


def test_the_metadata_says_what_the_project_says(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        about = f"ks_lottery-{__version__}.dist-info"
        metadata = email.message_from_string(archive.read(f"{about}/METADATA").decode())
        entry_points = archive.read(f"{about}/entry_points.txt").decode()
    assert (metadata["Name"], metadata["Version"]) == ("ks_lottery", __version__)
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == PROJECT["requires-python"]
    assert metadata["Summary"] == PROJECT["description"]
    assert metadata.get_payload().strip() == (ROOT / "README.md").read_text(encoding="utf-8").strip()
    needed = [line for line in metadata.get_all("Requires-Dist") or [] if "extra ==" not in line]
    assert required(needed) == dependencies()
    assert set(metadata.get_all("Provides-Extra") or []) == set(PROJECT["optional-dependencies"])
    assert entry_points.split("\n")[:2] == ["[console_scripts]", "ks-lottery = ks_lottery.cli.app:main"]


def test_the_installed_program_knows_itself_and_the_machine(installed: Path, tmp_path: Path) -> None:
    def run(*command: object) -> str:
        done = subprocess.run(list(map(str, command)), cwd=tmp_path, env=QUIET, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = run(installed / "python", "-c", "import ks_lottery; print(ks_lottery.__file__)").strip()
    assert Path(where).is_relative_to(installed.parent)
    assert run(installed / "ks-lottery", "--version").strip().endswith(__version__)
    checks = json.loads(run(installed / "ks-lottery", "doctor", "--json"))
    assert checks["verdict"] in ("ok", "limited")


def test_the_installed_program_finds_a_ticket_of_the_embedded_model(installed: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(ROOT / "recipes" / "pocket" / "model")
    model.save_pretrained(tmp_path / "before")
    shifted(model, [7, 3, 50]).save_pretrained(tmp_path / "after")
    find = ["find", "before", "after", "--units", "token_rows", "--finder", "ks", "--top-k", "3", "--out", "ticket"]
    subprocess.run([installed / "ks-lottery", *find], cwd=tmp_path, env=QUIET, check=True, capture_output=True)
    code = "from ks_lottery import Ticket; print(Ticket.load('ticket').indices['input'].tolist())"
    shown = subprocess.run([installed / "python", "-c", code], cwd=tmp_path, env=QUIET, check=True, capture_output=True)
    assert shown.stdout.decode().strip() == "[3, 7, 50]"
