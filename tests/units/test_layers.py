"""Layers: without its weights a block is not there, or passes on zeros where it normalises its sum."""

from typing import Any

import pytest
import torch
from torch import nn

from ks_lottery.units.layers import Layers
from ks_lottery.units.slab import UnitGroup
from tests.units.models import CASES, POST_NORM, hooked, layout_of, outputs, tiny, zeroed


def last_blocks(case: str) -> list[tuple[UnitGroup, nn.Module]]:
    """Of the second of two blocks of each stack: its group and its module."""
    groups = Layers(only=("*layers.1",)).groups(layout_of(case))
    names = [group.slabs[0].parameter for group in groups]
    modules = [tiny(case).get_submodule(name[: name.index(".1.") + 2]) for name in names]
    return list(zip(groups, modules, strict=True))


def skip(_: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any], result: Any) -> Any:
    hidden = inputs[0] if inputs else options["hidden_states"]
    return (hidden, *result[1:]) if isinstance(result, tuple) else hidden


@pytest.mark.parametrize("case", [case for case in CASES if CASES[case][0] not in POST_NORM])
def test_a_block_of_zeros_is_a_block_that_is_not_there(case: str) -> None:
    before = outputs(case)
    for group, block in last_blocks(case):
        with hooked(block.register_forward_hook(skip, with_kwargs=True)):
            without = outputs(case)
        torch.testing.assert_close(zeroed(case, group.slabs, 0), without, rtol=0, atol=1e-6)
        assert (without - before).abs().max() > 1e-3


@pytest.mark.parametrize("case", [case for case in CASES if CASES[case][0] in POST_NORM])
def test_a_block_of_zeros_that_normalises_its_sum_passes_on_zeros(case: str) -> None:
    for group, block in last_blocks(case):
        passed: list[Any] = []
        with hooked(block.register_forward_hook(lambda *given, into=passed: into.append(given[-1]))):
            zeroed(case, group.slabs, 0)
        hidden = passed[0][0] if isinstance(passed[0], tuple) else passed[0]
        assert hidden.shape[-1] == 16
        assert not hidden.any()


def test_the_first_block_of_t5_holds_the_relative_positions_of_all() -> None:
    for name in ("encoder", "decoder"):
        first, second = Layers(only=(f"{name}.*",)).groups(layout_of("t5"))
        holders = [[slab for slab in group.slabs if "relative" in slab.parameter] for group in (first, second)]
        assert [len(slabs) for slabs in holders] == [1, 0]


def test_a_layer_owns_every_parameter_of_its_block() -> None:
    groups = Layers().groups(layout_of("bart"))
    assert [group.name for group in groups] == [
        f"{stack}.layers.{n}" for stack in ("encoder", "decoder") for n in (0, 1)
    ]
    for group in groups:
        block = tiny("bart").get_submodule(f"model.{group.name}")
        assert len(group.slabs) == len(list(block.parameters()))
        assert group.weights_per_unit(layout_of("bart").shapes) == sum(weight.numel() for weight in block.parameters())
