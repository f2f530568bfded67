"""`ks-lottery finders` and `units` list what is registered, and count the units of a model."""

import json
from collections.abc import Callable
from pathlib import Path

from ks_lottery.finders.base import FINDERS
from ks_lottery.units.granularity import GRANULARITIES
from tests.cli.conftest import Outcome
from tests.fake_hub import FakeHub
from tests.tiny_models import tiny_llama

Run = Callable[..., Outcome]


def test_every_finder(run: Run) -> None:
    outcome = run("finders")
    assert (outcome.code, outcome.err) == (0, "")
    names = [line.split(" ")[0] for line in outcome.out.splitlines() if line[:1].strip()]
    assert names == ["finder", *FINDERS.names()]
    assert "Yuan et al. KS-Lottery" in outcome.out
    content = {one["name"]: one for one in json.loads(run("finders", "--json").out)}
    assert list(content) == list(FINDERS.names())
    assert (content["ks"]["needs"], content["ks"]["kinds"], content["ks"]["options"]) == (
        "two checkpoints",
        ["update"],
        [],
    )
    assert content["snip"]["evidence"] == "Batches"
    assert content["concrete"]["kinds"] == ["update", "weight"]
    rule = next(one for one in content["criterion"]["options"] if one["name"] == "rule")
    assert rule["default"] == "magnitude_increase"
    assert rule["help"]


def test_every_granularity(run: Run) -> None:
    outcome = run("units")
    assert (outcome.code, outcome.err) == (0, "")
    content = json.loads(run("units", "--json").out)
    assert [one["name"] for one in content] == list(GRANULARITIES.names())
    rows = next(one for one in content if one["name"] == "token_rows")
    assert rows["options"][0]["choices"] == ["input", "output", "both", None]
    assert "number" not in rows


def test_the_units_of_a_model(run: Run, pair: tuple[Path, Path]) -> None:
    outcome = run("units", pair[0])
    assert (outcome.code, outcome.err) == (0, "")
    lines = {line.split()[0]: line.split() for line in outcome.out.splitlines() if line[:1].strip()}
    assert lines["token_rows"][1:4] == ["64", "1", "32"]
    assert lines["heads"][1:4] == ["4", "2", "1,536"]
    assert lines["matrix_rows"][3:6] == ["32", "to", "48"]
    content = json.loads(run("units", pair[0], "--json").out)
    assert content["model"] == str(pair[0])
    layers = next(one for one in content["units"] if one["name"] == "layers")
    assert (layers["number"], layers["groups"], layers["weights"], layers["reason"]) == (2, 2, [7744, 7744], None)


def test_a_model_on_the_hub_is_not_downloaded(run: Run, fake_hub: FakeHub, tmp_path: Path) -> None:
    tiny_llama().save_pretrained(tmp_path / "model", max_shard_size="20KB")
    fake_hub.add("tester/model", tmp_path / "model")
    content = json.loads(run("units", "tester/model", "--json").out)
    assert next(one["number"] for one in content["units"] if one["name"] == "weights") == 15_360
    assert not list((tmp_path / "hub-cache").rglob("*.safetensors"))


def test_what_a_model_lacks_stands_there_with_the_reason(run: Run, pair: tuple[Path, Path], tmp_path: Path) -> None:
    for file in pair[0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_attention_heads": 3, "head_dim": 8}))
    content = json.loads(run("units", tmp_path, "--json").out)
    heads = next(one for one in content["units"] if one["name"] == "heads")
    assert heads["number"] is None
    assert "multiple of the number of attention heads (3)" in heads["reason"]
    assert "\n" not in heads["reason"]
    assert "number of attention heads (3)" in run("units", tmp_path).out
    assert run("units", tmp_path / "absent").code == 1
