"""The house holds: imports point one way, there is no cycle, and the root is light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "ks_lottery"
ORDER = [
    "_version", "errors", "registry", "stats", "units", "checkpoints", "ticket", "finders", "theory", "adapter",
    "training", "evaluation", "report", "cli",
]  # fmt: skip
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> list[tuple[str, bool]]:
    """(dotted name, at module level) of every import outside `if TYPE_CHECKING`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for child in ast.walk(node)
    }
    found = []
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found += [(alias.name, node in tree.body) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found += [(f"{node.module}.{alias.name}", node in tree.body) for alias in node.names]
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    here = ORDER.index(room(path))
    for name, _ in imported(path):
        if not name.startswith("ks_lottery"):
            continue
        parts = name.split(".")
        assert set(parts[1:2]) & set(ORDER), f"{path} imports the package root ({name})"
        assert ORDER.index(parts[1]) <= here, f"{path} in {room(path)} imports {name}"
        assert not (room(path) == "adapter" and parts[1] == "finders"), f"{path}: adapter imports finders"


def test_no_import_cycles() -> None:
    names = {".".join(("ks_lottery", *path.relative_to(PACKAGE).with_suffix("").parts)): path for path in MODULES}
    names = {name.removesuffix(".__init__"): path for name, path in names.items()}
    edges = {}
    for name, path in names.items():
        targets = set()
        for target, _ in imported(path):
            while target not in names and "." in target:
                target = target.rpartition(".")[0]
            if target in names and target != name:
                targets.add(target)
        edges[name] = targets
    seen: dict[str, str] = {}

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert seen.get(name) != "open", f"import cycle: {' -> '.join((*trail, name))}"
        if name in seen:
            return
        seen[name] = "open"
        for target in sorted(edges[name]):
            visit(target, (*trail, name))
        seen[name] = "closed"

    for name in edges:
        visit(name, ())


@pytest.mark.parametrize(
    ("library", "rooms"), [("peft", {"adapter"}), ("matplotlib", {"report"}), ("transformers.Trainer", {"training"})]
)
def test_heavy_libraries_stay_in_their_room(library: str, rooms: set[str]) -> None:
    users = {room(path) for path in MODULES for name, _ in imported(path) if f"{name}.".startswith(f"{library}.")}
    assert users <= rooms


def test_matplotlib_is_imported_inside_functions() -> None:
    for path in MODULES:
        assert not [name for name, top in imported(path) if top and name.split(".")[0] == "matplotlib"], path


def test_the_root_imports_nothing_heavy() -> None:
    code = (
        "import sys, ks_lottery; "
        "print(sorted({'torch', 'numpy', 'peft', 'transformers', 'scipy'} & set(sys.modules)), ks_lottery.__version__)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[] 0.1.0"


def test_files_and_functions_are_short() -> None:
    for path in MODULES:
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") <= 350, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno <= 80, f"{path}: {node.name}"
        assert path.stem not in {"utils", "helpers", "common", "misc"}
