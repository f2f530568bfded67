"""Importing the package loads nothing that takes long."""

import json
import re
import subprocess
import sys

import pytest

HEAVY = {"torch", "transformers", "peft", "accelerate", "datasets", "numpy", "scipy", "numba", "pandas", "matplotlib"}
LEAST = {"ks_lottery", "ks_lottery._version"}


def after(*code: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after some code."""
    program = "; ".join(("import json, sys", *code, "print(json.dumps(sorted(sys.modules)))"))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_the_package_loads_itself_alone() -> None:
    modules = after("import ks_lottery", "ks_lottery.__version__")
    assert modules >= {"ks_lottery"}
    assert modules & HEAVY == set()
    assert {name for name in modules if name.startswith("ks_lottery")} <= LEAST


@pytest.mark.parametrize("name", ["TopK", "Alpha", "Ticket", "find_ticket"])
def test_a_name_that_needs_no_model_loads_no_torch(name: str) -> None:
    modules = after(f"from ks_lottery import {name}")
    assert modules & {"torch", "transformers", "peft", "accelerate", "datasets", "matplotlib"} == set()


def test_what_python_lists_agrees() -> None:
    command = [sys.executable, "-X", "importtime", "-c", "import ks_lottery"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stderr.splitlines()
    loaded = {re.split(r"\s*\|\s*", line)[-1].strip().partition(".")[0] for line in lines if "|" in line}
    assert "ks_lottery" in loaded
    assert loaded & HEAVY == set()
