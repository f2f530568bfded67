"""Comparing two folders starts in a moment: what it does not need is not imported."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny_models import shifted, tiny_llama

HEAVY = ("torch", "transformers", "peft", "accelerate", "datasets", "pandas", "matplotlib", "scipy.stats")

_FIND = """
import json, sys
from ks_lottery import Ticket, TopK, find_ticket
before, after = sys.argv[1] + "/before", sys.argv[1] + "/after"
ticket = find_ticket(before=before, after=after, selector=TopK(3))
ticket.save(sys.argv[1])
assert Ticket.load(sys.argv[1]) == ticket
print(json.dumps([ticket.indices["input"].tolist(), sorted(sys.modules)]))
"""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two tiny models."""
    folder = tmp_path_factory.mktemp("pair")
    tiny_llama().save_pretrained(folder / "before")
    shifted(tiny_llama(), [7, 3, 50]).save_pretrained(folder / "after")
    return folder


def test_finding_a_ticket_in_folders_imports_nothing_heavy(pair: Path) -> None:
    result = subprocess.run([sys.executable, "-c", _FIND, str(pair)], capture_output=True, text=True, check=True)
    units, modules = json.loads(result.stdout)
    assert units == [3, 7, 50]
    assert [name for name in HEAVY if name in modules] == []
