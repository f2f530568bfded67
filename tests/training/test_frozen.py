import pytest
import torch

from ks_lottery.errors import FrozenWeightMovedError
from ks_lottery.training.frozen import FrozenWeights, row_digests
from tests.tiny_models import tiny_llama


def frozen_llama():
    model = tiny_llama().requires_grad_(False)
    model.model.embed_tokens.weight.requires_grad_(True)
    return model


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.int8, torch.uint8]
)
def test_any_flipped_bit_changes_its_row_alone(dtype: torch.dtype) -> None:
    bits = torch.randint(0, 255, (6, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    before = row_digests(bits.view(dtype))
    for bit in range(8):
        changed = bits.clone()
        changed[4, 17] ^= 1 << bit
        assert (row_digests(changed.view(dtype)) != before).nonzero().flatten().tolist() == [4]


def test_two_sign_flips_do_not_cancel() -> None:
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        rows = torch.randn(1, 16).to(dtype)
        flipped = rows.clone()
        flipped[0, :2] *= -1
        assert row_digests(rows) != row_digests(flipped)


def test_swapped_values_show() -> None:
    rows = torch.arange(8.0)[None]
    assert row_digests(rows) != row_digests(rows.flip(1))


def test_shapes() -> None:
    assert row_digests(torch.tensor(3.0)).shape == (1,)
    assert row_digests(torch.randn(5)).shape == (5,)
    assert row_digests(torch.randn(2, 3, 4)).shape == (2,)
    assert row_digests(torch.empty(0)).shape == (0,)


def test_strided_rows_equal_contiguous_ones() -> None:
    matrix = torch.randn(4, 6)
    assert torch.equal(row_digests(matrix.T), row_digests(matrix.T.contiguous()))


def test_trainable_weights_may_move() -> None:
    model = frozen_llama()
    frozen = FrozenWeights(model)
    with torch.no_grad():
        model.model.embed_tokens.weight += 1
    frozen.check(model, "by step 1")
    assert len(frozen) == len(list(model.parameters())) - 1


def test_the_message_names_parameter_rows_and_cause() -> None:
    model = frozen_llama()
    frozen = FrozenWeights(model)
    with torch.no_grad():
        model.lm_head.weight[3, 0] += 1
        model.lm_head.weight[5] *= 0.9
    with pytest.raises(
        FrozenWeightMovedError,
        match=r"'lm_head.weight' was frozen .* by step 7 it had changed in 2 of 64 rows \(at least 2 values; first: "
        r"row 3\). The optimizer does not hold it. Likely cause: it shares memory .*tied",
    ):
        frozen.check(model, "by step 7")
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.5, weight_decay=0.1)
    with pytest.raises(FrozenWeightMovedError, match=r"optimizer holds it, with weight_decay=0.1 and lr=0.5"):
        frozen.check(model, "by step 7", optimizer)
    with torch.no_grad():
        model.model.norm.weight += 1
    with pytest.raises(FrozenWeightMovedError, match="and so did 1 more frozen parameters"):
        frozen.check(model, "by step 7")
