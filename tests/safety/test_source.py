"""What no module of the package does: unpickle, evaluate text, or let a model's repository run its code."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted((ROOT / "ks_lottery").rglob("*.py"))
PICKLING = {"pickle", "cPickle", "_pickle", "marshal", "dill", "joblib", "shelve", "cloudpickle", "jsonpickle"}
EVALUATING = {"eval", "exec", "compile", "__import__"}
LOADERS = {"torch.load", "numpy.load", "np.load", "pandas.read_pickle", "pd.read_pickle"}
YAML = {"yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load", "yaml.Loader", "yaml.UnsafeLoader"}
# Files of composable-sft are what torch.save wrote; they are read by torch's unpickler of plain tensors alone.
RESTRICTED = {("ks_lottery/adapter/importers/composable_sft.py", "torch.load", "weights_only", True)}


def findings(source: str) -> Iterator[str]:
    """What a source does of all this; a keyword that makes it harmless is taken into account."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.partition(".")[0] in PICKLING)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in PICKLING:
            yield str(node.module)
        elif isinstance(node, ast.Call):
            yield from _of_call(ast.unparse(node.func), {word.arg: word.value for word in node.keywords})


def _of_call(function: str, keywords: dict[str | None, ast.expr]) -> Iterator[str]:
    constants = {name: value.value for name, value in keywords.items() if isinstance(value, ast.Constant)}
    if function in EVALUATING or function in YAML:
        yield function
    if function in LOADERS and constants.get("allow_pickle", True) is not False:
        yield function
    if "trust_remote_code" in keywords and constants.get("trust_remote_code", True) is not False:
        yield "trust_remote_code"
    if "allow_pickle" in keywords and constants.get("allow_pickle", True) is not False:
        yield "allow_pickle"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import pickle", ["pickle"]),
        ("from dill.source import x", ["dill.source"]),
        ("torch.load(f, weights_only=True)", ["torch.load"]),
        ("np.load(f)", ["np.load"]),
        ("np.load(f, allow_pickle=False)", []),
        ("np.load(f, allow_pickle=x)", ["np.load", "allow_pickle"]),
        ("eval('1')", ["eval"]),
        ("model.eval()", []),
        ("yaml.load(f)", ["yaml.load"]),
        ("yaml.safe_load(f)", []),
        ("A.from_pretrained(x, trust_remote_code=True)", ["trust_remote_code"]),
        ("A.from_pretrained(x, trust_remote_code=asked)", ["trust_remote_code"]),
        ("A.from_pretrained(x, trust_remote_code=False)", []),
    ],
)
def test_the_scan_sees_each_of_them(source: str, found: list[str]) -> None:
    assert list(findings(source)) == found


def test_no_module_does_any_of_them_but_one_that_says_why() -> None:
    found = [(str(m.relative_to(ROOT)), what) for m in MODULES for what in findings(m.read_text(encoding="utf-8"))]
    assert found == [(path, what) for path, what, *_ in RESTRICTED]
    assert len(MODULES) > 200


@pytest.mark.parametrize(("path", "function", "keyword", "value"), sorted(RESTRICTED))
def test_the_one_that_reads_foreign_tensors_is_restricted_to_tensors(
    path: str, function: str, keyword: str, value: object
) -> None:
    calls = [
        node
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == function
    ]
    assert [[ast.unparse(word.value) for word in call.keywords if word.arg == keyword] for call in calls] == [
        [f"{value}"]
    ]
