"""The notebook runs on a CPU, from its folder, and is what its script writes."""

import json
import runpy
from pathlib import Path

import pytest

from tests.docs.pages import DOCS

NOTEBOOK = DOCS / "notebooks" / "pocket.ipynb"


def test_it_is_what_its_script_writes(tmp_path: Path) -> None:
    script = tmp_path / "make.py"
    script.write_text((DOCS / "notebooks" / "make.py").read_text(encoding="utf-8"), encoding="utf-8")
    runpy.run_path(str(script), run_name="__main__")
    assert json.loads((tmp_path / "pocket.ipynb").read_text()) == json.loads(NOTEBOOK.read_text())


@pytest.mark.filterwarnings("ignore")
def test_it_runs() -> None:
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client.NotebookClient(notebook, timeout=500, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    printed = [
        "".join(output.get("text", "")) for cell in notebook.cells for output in cell.get("outputs", ())
    ]  # fmt: skip
    said = "".join(printed)
    assert said.count("D = ") == 18
    assert "KS rows minus most frequent rows" in said
    gap = float(said.rpartition("largest difference of the logits: ")[2])
    assert gap < 1e-4
    assert any("image/png" in output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", ()))
