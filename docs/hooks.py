"""What the site has beside its Markdown: pages of what is registered, reports to open, text for links to elsewhere."""

import importlib
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
_LINK = re.compile(r"\[([^\]]*)\]\((\.\./[^)]+)\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages."""
    pages = {
        "reference/finders.md": _registered("Every finder", "ks_lottery.finders.base", "FINDERS"),
        "reference/units.md": _registered("Units", "ks_lottery.units.granularity", "GRANULARITIES"),
        "notebook.md": _notebook(ROOT / "docs" / "notebooks" / "pocket.ipynb"),
    }
    reports = dict(_reports())
    pages["reports.md"] = _gallery(reports)
    for name, text in {**pages, **{place: html for place, (_, html) in reports.items()}}.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Write links to files outside of this folder as text: the site has them not."""

    def plain(found: re.Match[str]) -> str:
        target = (ROOT / "docs" / page.file.src_uri).parent / found[2].partition("#")[0]
        inside = target.resolve().is_relative_to(ROOT / "docs")
        return found[0] if inside else f"{found[1]} (`{target.resolve().relative_to(ROOT)}`)"

    return _LINK.sub(plain, markdown)


def _registered(title: str, module: str, registry: str) -> str:
    """A page with the documentation of every class in a registry."""
    entries = getattr(importlib.import_module(module), registry)
    parts = [f"# {title}"]
    for name, entry in entries.items():
        source = f"\n\n*Source:* {entry.citation}" if hasattr(entry, "citation") else ""
        parts.append(f"## `{name}` {{#{name}}}{source}\n\n::: {entry.__module__}.{entry.__qualname__}\n"
                     "    options: {heading_level: 3, show_root_full_path: false}")  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _reports() -> Iterator[tuple[str, tuple[str, str]]]:
    """Path in the site to title and content of every report, made from its numbers."""
    sys.path.insert(0, str(ROOT / "recipes"))
    from ks_lottery.evaluation.record import Record
    from ks_lottery.report.comparison import write_comparison
    from ks_lottery.report.report import rebuild_report

    with tempfile.TemporaryDirectory() as temporary:
        for folder in sorted(path for path in RESULTS.iterdir() if path.is_dir()):
            place = Path(temporary) / folder.name
            if (folder / "comparison.json").is_file():
                data = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
                records = [Record.from_dict(record) for record in data["records"]]
                page = write_comparison(place, records, data["overlaps"], data["meta"], data["command"])
                html, title = page.with_name("comparison.html"), f"Comparison: {folder.name.removeprefix('compare-')}"
            elif (folder / "token_rows.safetensors").is_file():
                shutil.copytree(folder, place)
                html, title = rebuild_report(place).with_name("report.html"), f"Translation: {folder.name}"
            elif (folder / "results.json").is_file() and (folder / "heads.png").is_file():
                report = json.loads((folder / "results.json").read_text(encoding="utf-8"))
                written = importlib.import_module("classification_report").write_pages(place, report)
                html, title = written.with_name("report.html"), f"Classification: {folder.name}"
            else:
                continue
            yield f"reports/{folder.name}.html", (title, html.read_text(encoding="utf-8"))


def _gallery(reports: dict[str, tuple[str, str]]) -> str:
    lines = "\n".join(f"- [{title}]({place})" for place, (title, _) in reports.items())
    return (
        "# Reports to open\n\nEach is one file that needs no network, as `recipes/translate.py`, `recipes/classify.py` "
        f"and `ks-lottery compare` leave it. [How to read one](reading-the-report.md).\n\n{lines}\n"
    )


def _notebook(file: Path) -> str:
    """A notebook as a page: its texts and its code."""
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    parts = []
    for cell in cells:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    return (
        "\n\n".join(parts) + "\n\nRun it: `jupyter lab docs/notebooks/pocket.ipynb`, from the root of the repository.\n"
    )
