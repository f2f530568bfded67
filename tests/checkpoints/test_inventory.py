"""Every tensor of two checkpoints is compared, remarked upon, or both."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ks_lottery.checkpoints.inventory import Inventory, TensorPair, pair_tensors
from ks_lottery.checkpoints.reader import open_checkpoint
from ks_lottery.errors import OptionError
from tests.tiny_models import tiny_llama

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"
NORM = "model.norm.weight"
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "before"
    tiny_llama().save_pretrained(path)
    return path


def edited(before: Path, after: Path, edit: Callable[[Tensors], Tensors], **config: object) -> Inventory:
    """The inventory of a folder and of a copy whose tensors and configuration were edited."""
    after.mkdir(exist_ok=True)
    (after / "config.json").write_text(json.dumps(json.loads((before / "config.json").read_text()) | config))
    save_file(edit(load_file(before / "model.safetensors")), after / "model.safetensors", metadata={"format": "pt"})
    return pair_tensors(open_checkpoint(before), open_checkpoint(after))


def texts(inventory: Inventory) -> dict[tuple[str, str], str]:
    return {(remark.kind, remark.name): remark.text for remark in inventory.remarks}


def compared(inventory: Inventory) -> set[str]:
    return {pair.name for pair in inventory.pairs}


def test_equal_folders_have_everything_in_common_and_no_remarks(before: Path, tmp_path: Path) -> None:
    inventory = edited(before, tmp_path / "after", lambda tensors: tensors)
    assert inventory.remarks == ()
    assert compared(inventory) == set(load_file(before / "model.safetensors"))
    assert inventory.pair(EMBEDDING) == TensorPair(EMBEDDING, (64, 32), "float32", 64 * 32 * 4)
    assert inventory.pair("ghost") is None


def test_pairs_are_in_file_order_shard_by_shard(before: Path, tmp_path: Path) -> None:
    tiny_llama().save_pretrained(tmp_path / "shards", max_shard_size="10KB")
    sides = open_checkpoint(tmp_path / "shards"), open_checkpoint(before)
    inventory = pair_tensors(*sides)
    weight_map = json.loads((tmp_path / "shards" / "model.safetensors.index.json").read_text())["weight_map"]
    assert len(set(weight_map.values())) > 2
    files = [weight_map[pair.name] for pair in inventory.pairs]
    assert files == sorted(files)
    assert compared(inventory) == set(weight_map)
    assert {pair.name for pair in pair_tensors(open_checkpoint(tiny_llama()), sides[1]).pairs} == set(weight_map)


def test_tensors_on_one_side_only(before: Path, tmp_path: Path) -> None:
    def edit(tensors: Tensors) -> Tensors:
        tensors["model.extra.weight"] = tensors.pop(NORM)
        return tensors

    inventory = edited(before, tmp_path / "after", edit)
    assert texts(inventory) == {
        ("only_after", "model.extra.weight"): f"(32,) float32, only in after = {str(tmp_path / 'after')!r}",
        ("only_before", NORM): f"(32,) float32, only in before = {str(before)!r}",
    }
    assert not {NORM, "model.extra.weight"} & compared(inventory)
    assert inventory.remark(NORM) == inventory.remarks[1]
    assert inventory.remark(HEAD) is None


@pytest.mark.parametrize("tied_side", ["before", "after"])
def test_a_head_that_the_other_side_ties(tmp_path: Path, tied_side: str) -> None:
    models = {side: tiny_llama(tied=side == tied_side) for side in ("before", "after")}
    for side, model in models.items():
        model.save_pretrained(tmp_path / side)
    other = {"before": "after", "after": "before"}[tied_side]
    for sides in (models, {side: tmp_path / side for side in models}):
        opened = {side: open_checkpoint(source) for side, source in sides.items()}
        inventory = pair_tensors(opened["before"], opened["after"])
        assert [(remark.kind, remark.name) for remark in inventory.remarks] == [("tied", HEAD)]
        assert inventory.remarks[0].text == (
            f"(64, 32) float32, only in {other} = {opened[other].name!r}: {tied_side} = "
            f"{opened[tied_side].name!r} ties its output head to the input embedding and has no other"
        )
        assert EMBEDDING in compared(inventory)


def test_reshaped_tensors_and_a_vocabulary_that_grew(before: Path, tmp_path: Path) -> None:
    def edit(tensors: Tensors) -> Tensors:
        tensors[EMBEDDING] = torch.cat([tensors[EMBEDDING], torch.ones(6, 32)])
        tensors[HEAD] = tensors[HEAD].T.contiguous()
        tensors[NORM] = tensors[NORM].reshape(1, 32)
        return tensors

    inventory = edited(before, tmp_path / "after", edit)
    assert texts(inventory) == {
        ("reshaped", EMBEDDING): "(64, 32) before, (70, 32) after; rows 0 to 63 are in both",
        ("reshaped", HEAD): "(64, 32) before, (32, 64) after",
        ("reshaped", NORM): "(32,) before, (1, 32) after",
    }
    assert not {EMBEDDING, HEAD, NORM} & compared(inventory)


def test_another_dtype_is_not_compared(before: Path, tmp_path: Path) -> None:
    inventory = edited(before, tmp_path / "after", lambda tensors: tensors | {NORM: tensors[NORM].bfloat16()})
    assert texts(inventory) == {
        (
            "other_dtype",
            NORM,
        ): "float32 before, bfloat16 after: rounding alone would look like a shift, so save both in one dtype"
    }
    assert NORM not in compared(inventory)


def test_dtypes_that_are_no_float_are_compared_byte_for_byte(before: Path, tmp_path: Path) -> None:
    extra = {
        "steps": torch.arange(6).reshape(2, 3),
        "flag": torch.tensor(True),
        "tiny": torch.ones(4, 4).to(torch.float8_e4m3fn),
    }
    edited(before, tmp_path / "one", lambda tensors: tensors | extra)
    inventory = edited(tmp_path / "one", tmp_path / "two", lambda tensors: tensors)
    assert texts(inventory) == {
        ("not_float", "flag"): "() bool, compared byte for byte",
        ("not_float", "steps"): "(2, 3) int64, compared byte for byte",
        ("not_float", "tiny"): "(4, 4) float8_e4m3fn, compared byte for byte",
    }
    steps = inventory.pair("steps")
    assert steps is not None
    assert (steps.num_bytes, steps.values, steps.rows, steps.itemsize, steps.is_float) == (48, 48, 1, 1, False)


def test_names_without_the_base_models_prefix(before: Path, tmp_path: Path) -> None:
    inventory = edited(
        before, tmp_path / "after", lambda tensors: {name.removeprefix("model."): t for name, t in tensors.items()}
    )
    assert Counter(remark.kind for remark in inventory.remarks) == {"renamed": len(inventory.pairs) - 1}
    assert texts(inventory)["renamed", EMBEDDING] == (
        "'model.embed_tokens.weight' in the files before, 'embed_tokens.weight' after"
    )
    assert HEAD in compared(inventory)
    assert inventory.remark(HEAD) is None


def test_a_live_model_and_its_folder_pair_up(before: Path) -> None:
    model = tiny_llama()
    inventory = pair_tensors(open_checkpoint(model), open_checkpoint(before))
    assert inventory.remarks == ()
    assert [pair.name for pair in inventory.pairs] == [name for name, _ in model.named_parameters()]
    assert all(pair.num_bytes == 4 * pair.values for pair in inventory.pairs)


def test_scope_keeps_what_matches_any_pattern(before: Path, tmp_path: Path) -> None:
    inventory = edited(before, tmp_path / "after", lambda tensors: tensors | {NORM: tensors[NORM].half()})
    part = inventory.within(["*.mlp.*", NORM])
    assert {pair.name.split(".")[-3] for pair in part.pairs} == {"mlp"}
    assert len(part.pairs) == 6
    assert [remark.name for remark in part.remarks] == [NORM]
    assert inventory.within(None) is inventory
    assert inventory.within([]) is inventory


def test_a_scope_that_matches_nothing_is_an_error(before: Path) -> None:
    folder = open_checkpoint(before)
    with pytest.raises(
        OptionError, match=r"scope 'nothing' matches none of 21 tensors. Their names look like '.*', '"
    ) as e:
        pair_tensors(folder, folder).within(["*norm*", "nothing"])
    assert str(e.value).endswith("'*' stands for any part of one: '*embed*'.")


def test_a_folder_without_any_common_name(before: Path, tmp_path: Path) -> None:
    shutil.copy(before / "config.json", tmp_path)
    save_file({"model.other": torch.zeros(3)}, tmp_path / "model.safetensors")
    inventory = pair_tensors(open_checkpoint(before), open_checkpoint(tmp_path))
    assert inventory.pairs == ()
    assert Counter(remark.kind for remark in inventory.remarks) == {"only_before": 21, "only_after": 1}
