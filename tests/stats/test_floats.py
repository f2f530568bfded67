import numpy as np
import pytest
import torch

from ks_lottery.errors import UnitError
from ks_lottery.stats.floats import FORMATS, FloatBits, bits_of, dtype_of, is_tensor


@pytest.mark.parametrize("dtype", sorted(FORMATS))
def test_bits_keep_values_order_and_finiteness(dtype):
    values = torch.tensor([3.5, -3.5, 0.0, -0.0, 1e-6, -1e-6, float("inf"), float("-inf"), float("nan"), 1.0])
    bits = bits_of(values.to(getattr(torch, dtype)))
    assert dtype_of(bits) == dtype
    np.testing.assert_array_equal(bits.values(), values.to(getattr(torch, dtype)).double().numpy())
    assert bits.finite().tolist() == torch.isfinite(values).tolist()
    keys, numbers = bits.keys()[bits.finite()], values[torch.isfinite(values)].to(getattr(torch, dtype)).double()
    for i in range(len(keys)):
        for j in range(len(keys)):
            assert (keys[i] < keys[j]) == bool(numbers[i] < numbers[j])
            assert (keys[i] == keys[j]) == bool(numbers[i] == numbers[j])


def test_bits_are_views():
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    bits = bits_of(array)
    assert np.shares_memory(bits.array, array)
    assert bits[1:].shape == (2, 4)
    assert len(bits.reshape(4, 3)) == 4
    assert bits_of(bits) is bits
    assert np.shares_memory(bits_of(torch.from_numpy(array)).array, array)


def test_what_is_no_float_is_refused():
    with pytest.raises(UnitError, match=r"'w': dtype int64 has no KS test here\. Cast to one of: float16"):
        bits_of(np.arange(4), "w")
    with pytest.raises(UnitError, match=r"Bits of bfloat16 are int16, got an array of int32\. View"):
        FloatBits(np.zeros(4, dtype=np.int32), "bfloat16")
    with pytest.raises(UnitError, match="dtype float8 has no KS test"):
        FloatBits(np.zeros(4, dtype=np.int16), "float8")


def test_only_tensors_are_tensors():
    assert is_tensor(torch.zeros(1))
    assert not is_tensor(np.zeros(1))
