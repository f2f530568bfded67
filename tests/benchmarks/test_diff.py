import json
import sys
from pathlib import Path

import checkpoint_pair
import diff
import pytest
from result import ResultsDifferError

from ks_lottery.checkpoints.reader import open_checkpoint


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs") / "small"
    checkpoint_pair.write_pair(folder, 1e6, "bfloat16")
    return folder


def test_the_pair_is_a_sharded_llama_of_the_size(pair: Path) -> None:
    before, after = (open_checkpoint(pair / side) for side in ("before", "after"))
    assert before.model_type == "llama"
    assert before.names() == after.names()
    assert len(list((pair / "before").glob("model-*-of-00004.safetensors"))) == 4
    size = 2 * 2 * before.num_parameters()
    assert 0.7e6 < size < 1.3e6
    known = json.loads((pair / "pair.json").read_text())
    assert known["moved_rows"]["model.embed_tokens.weight"] == -(-before.shape("model.embed_tokens.weight")[0] // 20)
    assert known["moved_rows"]["model.norm.weight"] == 0


@pytest.mark.parametrize(
    ("total", "dtype", "hidden"), [(2e9, "bfloat16", 2048), (2e9, "float32", 2048), (2e7, "float32", 128)]
)
def test_large_pairs_meet_their_size(total: float, dtype: str, hidden: int) -> None:
    config = checkpoint_pair.llama_config(total, dtype)
    shapes = checkpoint_pair.tensor_shapes(config)
    size = (
        2 * (2 if dtype == "bfloat16" else 4) * sum(rows * (rest[0] if rest else 1) for rows, *rest in shapes.values())
    )
    assert config["hidden_size"] == hidden
    assert size == pytest.approx(total, rel=0.1)


def test_the_diff_is_checked_and_timed_beside_the_read(pair: Path) -> None:
    tables = [table.figures() for table in diff.compare(pair, repeats=1)]
    in_memory = ["≤ 1.5 × the time of plain read"]
    for table, targets in zip(tables, [in_memory, *[[*in_memory, "≤ 300 MB"]] * 2], strict=True):
        assert [method["name"] for method in table["methods"]] == [diff.DIFF, diff.READ]
        assert [judged["target"] for judged in table["methods"][0]["targets"]] == targets
        assert float(table["methods"][1]["GB/s"]) >= 0
    assert int(tables[1]["methods"][1]["largest resident set, MB"]) > 10


def test_a_diff_that_misses_a_row_is_not_timed(pair: Path) -> None:
    known = json.loads((pair / "pair.json").read_text())
    found = [{"name": name, "changed_rows": rows, "h": 1} for name, rows in known["moved_rows"].items()]
    with pytest.raises(ResultsDifferError, match="Ours and scipy differ"):
        diff.check(known, json.dumps({"parameters": found}))
    with pytest.raises(ResultsDifferError, match=r"Ours and the pair differ in 1 of \d+ results, first at 0: -1 and"):
        diff.check(known, json.dumps({"parameters": found[1:]}))


def test_a_pair_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def make(command: list[str]) -> None:
        commands.append(command)
        Path(command[2]).mkdir(parents=True)
        (Path(command[2]) / "pair.json").write_text("{}")

    monkeypatch.setattr(diff, "run", make)
    folders = [diff.make_pair(tmp_path, 2e9, "bfloat16") for _ in range(2)]
    assert folders == [tmp_path / "bfloat16-2e+09"] * 2
    assert [command[3:] for command in commands] == [["--bytes", "2000000000.0", "--dtype", "bfloat16"]]


def test_a_program_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match=r"ended with 3: no such thing"):
        diff.run([sys.executable, "-c", "import sys; sys.stderr.write('no such thing'); sys.exit(3)"])
