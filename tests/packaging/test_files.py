"""The files around the package say what `pyproject.toml` says."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ks_lottery._version import __version__
from tests.packaging.pyproject_file import PROJECT, ROOT, dependencies, lowest, required

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
# What PyPI and conda-forge call differently.
CONDA_NAMES = {"pytorch": "torch", "matplotlib-base": "matplotlib", "python-sacrebleu": "sacrebleu"}


def workflow(name: str) -> dict[Any, Any]:
    parsed: dict[Any, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text(encoding="utf-8"))
    return parsed


def commands(job: dict[str, Any]) -> str:
    return "\n".join(step.get("run", "") for step in job["steps"])


def test_the_conda_environment_has_the_dependencies_and_no_others() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    lines = [line.replace(" ", "") for line in environment["dependencies"]]
    python, rest = (
        lines[0],
        required([CONDA_NAMES.get(n := re.split("[<>=]", x)[0], n) + x[len(n) :] for x in lines[1:]]),
    )
    assert python == f"python{PROJECT['requires-python']}"
    assert rest == dependencies()
    assert environment["channels"] == ["conda-forge", "nodefaults"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_is_whole_and_its_actions_are_pinned(path: Path) -> None:
    parsed = workflow(path.name)
    assert set(parsed) == {"name", True, "permissions", "jobs"}  # YAML 1.1 takes `on` for a boolean
    assert parsed["permissions"] == {"contents": "read"}
    for name, job in parsed["jobs"].items():
        assert job["timeout-minutes"] > 0, name
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step)
            if "uses" in step:
                assert re.fullmatch(r"[\w-]+/[\w.-]+@v\d+\.\d+\.\d+", step["uses"])
            assert "${{ github.event" not in step.get("run", "")


def test_ci_runs_the_script_on_every_supported_python_and_the_lowest_versions() -> None:
    jobs = workflow("ci.yml")["jobs"]
    assert jobs["check"]["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
    assert PROJECT["requires-python"] == ">=3.11"
    assert ".ci/run" in commands(jobs["check"])
    pins = dict(re.findall(r"\b(transformers|peft)==(\S+)", commands(jobs["lowest"])))
    assert pins == {name: lowest(name) for name in ("transformers", "peft")}


def test_ci_fuzzes_the_readers() -> None:
    assert "tests/fuzz/run.py --seconds 60" in commands(workflow("ci.yml")["jobs"]["fuzz"])


def test_a_release_is_built_tested_and_published_without_a_stored_token() -> None:
    parsed = workflow("release.yml")
    assert parsed[True] == {"push": {"tags": ["v*"]}}
    jobs = parsed["jobs"]
    assert jobs["publish"]["needs"] == ["build"]
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert "secrets." not in (ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8")
    assert "python -m build" in commands(jobs["build"])
    assert "pytest" in commands(jobs["build"])


def test_the_changelog_has_a_section_for_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[(.+?)\]", text, flags=re.MULTILINE)
    assert versions == ["Unreleased", __version__]
    kinds = re.findall(r"^### (.+)$", text, flags=re.MULTILINE)
    assert set(kinds) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


@pytest.mark.parametrize("name", ["SECURITY.md", "CHANGELOG.md"])
def test_paths_and_links_of_a_page_lead_somewhere(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    links = [target for target in re.findall(r"\]\(([^)#]+)", text) if "://" not in target]
    paths = re.findall(r"`((?:tests|docs|ks_lottery|recipes|benchmarks)/[\w./-]+)`", text)
    assert [path for path in links + paths if not (ROOT / path).exists()] == []
    assert len(links + paths) > 2
