"""CKA is what it should be, and a block that does nothing shows."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ks_lottery.errors import DataError
from ks_lottery.evaluation.similarity import block_similarity, linear_cka
from tests.units.models import POST_NORM, changed, tiny

TOKENS = torch.tensor([[3, 7, 5, 11, 4], [6, 3, 19, 8, 10]])


def orthogonal(width: int, generator: np.random.Generator) -> np.ndarray:
    return np.linalg.qr(generator.standard_normal((width, width)))[0]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**16), st.integers(4, 30), st.integers(2, 12), st.floats(1e-3, 1e3))
def test_cka_is_one_for_equals_and_invariant(seed: int, examples: int, width: int, scale: float) -> None:
    generator = np.random.default_rng(seed)
    x, y = generator.standard_normal((examples, width)), generator.standard_normal((examples, 5))
    assert linear_cka(x, x) == pytest.approx(1.0, abs=1e-12)
    value = linear_cka(x, y)
    assert 0.0 <= value <= 1.0 + 1e-12
    assert linear_cka(y, x) == pytest.approx(value, abs=1e-12)
    turned = scale * x @ orthogonal(width, generator) + generator.standard_normal(width)
    assert linear_cka(turned, y) == pytest.approx(value, abs=1e-9)
    assert linear_cka(turned, x) == pytest.approx(1.0, abs=1e-9)


def test_cka_by_its_definition() -> None:
    generator = np.random.default_rng(0)
    x, y = generator.standard_normal((12, 3)), generator.standard_normal((12, 4))
    centre = np.eye(12) - 1 / 12
    k, m = centre @ x @ x.T @ centre, centre @ y @ y.T @ centre
    expected = np.sum(k * m) / np.sqrt(np.sum(k * k) * np.sum(m * m))
    assert linear_cka(x, y) == pytest.approx(expected, abs=1e-12)
    wide = np.concatenate([x, np.zeros((12, 30))], axis=1)
    assert linear_cka(wide, torch.from_numpy(y)) == pytest.approx(expected, abs=1e-12)
    assert linear_cka([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]], [[1.0], [1.0], [-2.0]]) == pytest.approx(0.0, abs=1e-15)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (np.ones((3, 2, 2)), np.ones((3, 2)), r"got shapes \(3, 2, 2\) and \(3, 2\)"),
        (np.ones((3, 2)), np.ones((4, 2)), "the same 2 or more examples"),
        (np.ones((3, 2)), np.eye(3), "are the same for all examples, so CKA is not defined"),
        (np.eye(3), np.full((3, 1), np.nan), "hold NaN or infinity"),
    ],
)
def test_activations_without_cka(first: np.ndarray, second: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        linear_cka(first, second)


def inputs_of(case: str) -> dict[str, torch.Tensor]:
    model = tiny(case)
    if model.config.model_type == "vit":
        return {"pixel_values": torch.linspace(-1, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8).sin()}
    both = {"input_ids": TOKENS, "attention_mask": torch.ones_like(TOKENS)}
    if model.config.is_encoder_decoder:
        both |= {"decoder_input_ids": TOKENS[:, :4], "decoder_attention_mask": torch.ones_like(TOKENS[:, :4])}
    return both


def hooks_of(model: Any) -> list[int]:
    """How many forward hooks each module has."""
    return [len(module._forward_hooks) for module in model.modules()]


@pytest.mark.parametrize("case", ["llama", "gpt2", "bert", "t5", "bart", "vit", "gpt_neox", "bloom", "bare bert"])
def test_every_block_is_compared(case: str) -> None:
    model = tiny(case)
    model(**inputs_of(case))  # transformers may leave hooks of its own in a first pass
    before = hooks_of(model)
    blocks = block_similarity(model, [inputs_of(case)] * 2).blocks
    assert len(blocks) == (4 if model.config.is_encoder_decoder else 2)
    for block in blocks:
        assert block.cka is not None
        assert 0.0 < block.cka < 1.0
        assert 0.0 < block.distance < 2.0
        assert block.positions >= 16
    assert hooks_of(model) == before


def test_sums_over_batches_are_cka_of_all_positions() -> None:
    """Positions that are padding count neither in CKA nor in the cosine."""
    model = tiny("llama")
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    handle = model.model.layers[1].register_forward_hook(
        lambda _, arguments, result: seen.append((arguments[0], result))
    )
    batches = [{"input_ids": TOKENS, "attention_mask": mask}, {"input_ids": TOKENS.flip(0), "attention_mask": mask}]
    found = block_similarity(model, batches).blocks[1]
    handle.remove()
    x, y = (torch.cat([side[mask.bool()] for side in sides]) for sides in zip(*seen, strict=True))
    assert found.positions == len(x) == 16
    assert found.cka == pytest.approx(linear_cka(x, y), abs=1e-9)
    cosine = torch.nn.functional.cosine_similarity(x.double(), y.double()).mean()
    assert found.distance == pytest.approx(float(1 - cosine), abs=1e-12)


@pytest.mark.parametrize("case", ["gpt2", "llama"])
def test_a_block_that_does_nothing(case: str) -> None:
    assert case not in POST_NORM
    outputs = ("h.1.attn.c_proj", "h.1.mlp.c_proj", "layers.1.self_attn.o_proj", "layers.1.mlp.down_proj")
    with changed(case) as parameters:
        for name, parameter in parameters.items():
            if any(output in name for output in outputs):
                parameter.zero_()
        first, second = block_similarity(tiny(case), [inputs_of(case)]).blocks
    assert second.distance == 0.0
    assert second.cka == pytest.approx(1.0, abs=1e-9)
    assert first.distance > 0.01


def test_nothing_to_compare(tmp_path: Path) -> None:
    model = tiny("llama")
    with pytest.raises(DataError, match="Block 'layers.0' saw 0 token positions"):
        block_similarity(model, [])
    constant = {"input_ids": torch.full((2, 1), 3)}
    similarity = block_similarity(model, [constant])
    assert [block.cka for block in similarity.blocks] == [None, None]
    similarity.save(tmp_path / "similarity.json")
    assert json.loads((tmp_path / "similarity.json").read_text())["blocks"][0]["positions"] == 2
