import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp
from torch.utils._python_dispatch import TorchDispatchMode

from ks_lottery.errors import UnitError
from ks_lottery.stats import torch_rows
from ks_lottery.stats.kolmogorov import two_sample_statistic
from ks_lottery.stats.torch_rows import torch_statistic

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def scipys(before: torch.Tensor, after: torch.Tensor) -> list[int]:
    n = before.shape[1]
    pairs = zip(before.double().numpy(), after.double().numpy(), strict=True)
    return [round(ks_2samp(a, b, method="asymp").statistic * n) for a, b in pairs]


@st.composite
def row_pairs(draw):
    """Random rows: continuous or with ties and both zeros, some equal, some permuted, some far apart."""
    n = draw(st.one_of(st.integers(8, 70), st.sampled_from([255, 256, 257, 1000])))
    levels = draw(st.sampled_from([None, 1, 3, 40]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    units = draw(st.integers(1, 5))
    before, noise = torch.randn(2, units, n, generator=generator, dtype=torch.float64)
    after = before + draw(st.sampled_from([0.0, 0.01, 1.0, 30.0])) * noise + draw(st.sampled_from([0.0, 0.1, 9.0]))
    if levels:
        before, after = (torch.round(rows * levels) / levels for rows in (before, after))
    after[0] = before[0] if draw(st.booleans()) else before[0].flip(0)
    dtype = draw(st.sampled_from(DTYPES))
    return before.to(dtype), after.to(dtype)


@settings(max_examples=60, deadline=None)
@given(row_pairs())
def test_equals_the_cpu_path_and_scipy(pair):
    h = torch_statistic(*pair)
    assert h.dtype == torch.int64
    assert h.tolist() == two_sample_statistic(*pair).tolist() == scipys(*pair)
    assert h[0] == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_zeros_of_both_signs_denormals_and_the_largest_values(dtype):
    info = torch.finfo(dtype)
    tiny = info.smallest_normal / 8
    values = torch.tensor([0.0, -0.0, tiny, -tiny, 2 * tiny, 1.0, -1.0, info.max, info.min], dtype=dtype)
    assert len(values.unique()) == 8
    generator = torch.Generator().manual_seed(0)
    before, after = values[torch.randint(len(values), (2, 30, 11), generator=generator)]
    assert torch_statistic(before, after).tolist() == scipys(before, after)
    zeros = torch.zeros(3, 16, dtype=dtype)
    assert torch_statistic(zeros, -zeros).tolist() == [0, 0, 0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_strided_inputs_and_gradients_are_accepted_and_nothing_is_written(dtype):
    generator = torch.Generator().manual_seed(2)
    before, after = torch.randn(2, 40, 7, generator=generator).to(dtype)
    kept = before.clone(), after.clone()
    h = torch_statistic(before.requires_grad_().T, after.T)
    assert h.tolist() == scipys(before.detach().T, after.T)
    assert torch.equal(before, kept[0])
    assert torch.equal(after, kept[1])
    assert not h.requires_grad


def test_chunks_do_not_show_and_only_changed_rows_are_sorted(monkeypatch):
    generator = torch.Generator().manual_seed(4)
    before = torch.randn(50, 33, generator=generator)
    after = before.clone()
    after[::3] += torch.randn(17, 33, generator=generator)
    whole = torch_statistic(before, after)
    assert whole.tolist() == scipys(before, after)
    sorted_rows: list[int] = []
    climb = torch_rows._largest_rank_difference

    def counting(keys: torch.Tensor) -> torch.Tensor:
        sorted_rows.append(keys.shape[1])
        return climb(keys)

    monkeypatch.setattr(torch_rows, "_largest_rank_difference", counting)
    for values, parts in ((1, [1] * 17), (33 * 7, [7, 7, 3]), (33 * 50, [17])):
        monkeypatch.setattr(torch_rows, "_SCREEN_VALUES", values)
        monkeypatch.setattr(torch_rows, "_SORT_BYTES", 8 * values)
        sorted_rows.clear()
        assert torch.equal(whole, torch_statistic(before, after))
        assert sorted_rows == parts


def test_equal_rows_and_no_rows():
    rows = torch.randn(3, 8)
    assert torch_statistic(rows, rows.clone()).tolist() == [0, 0, 0]
    assert torch_statistic(rows[:0], rows[:0]).shape == (0,)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("side", ["before", "after", "both"])
def test_non_finite_values_are_refused_in_the_words_of_the_cpu_path(dtype, value, side, monkeypatch):
    monkeypatch.setattr(torch_rows, "_SCREEN_VALUES", 20)
    before, after = torch.ones(2, 9, 10, dtype=dtype)
    if side != "after":
        before[7, 4] = value
    if side != "before":
        after[7, 4:6] = value
    with pytest.raises(UnitError) as cpu:
        two_sample_statistic(before, after, name="embed", first_row=100)
    with pytest.raises(UnitError, match=r"Row 107 of 'embed' (before|after) holds [12] NaN") as ours:
        torch_statistic(before, after, name="embed", first_row=100)
    assert str(ours.value) == str(cpu.value)


def test_the_first_row_that_is_not_finite_is_named():
    before, after = torch.ones(2, 9, 10)
    before[5], after[3], after[8] = float("nan"), float("inf"), float("nan")
    with pytest.raises(UnitError, match=r"Row 3 of 'rows' after holds 10 NaN or infinite value\(s\)"):
        torch_statistic(before, after)


def test_rows_on_two_devices_are_refused():
    rows = torch.ones(2, 8)
    with pytest.raises(UnitError, match=r"'embed': before is on cpu, after on meta\. Move both to one device\."):
        torch_statistic(rows, rows.to("meta"), name="embed")


class LiveBytes(TorchDispatchMode):
    """Peak of the memory held by tensors that are made while this is on; views are no memory."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = {part.untyped_storage().data_ptr() for part in (*args, *kwargs.values()) if torch.is_tensor(part)}
        result = func(*args, **kwargs)
        for made in result if isinstance(result, tuple | list) else (result,):
            if torch.is_tensor(made) and made.untyped_storage().data_ptr() not in given:
                self.live += made.nbytes
                weakref.finalize(made, self._free, made.nbytes)
        self.peak = max(self.peak, self.live)
        return result

    def _free(self, size: int) -> None:
        self.live -= size


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_tensors_beyond_the_inputs_stay_below_64_mib(dtype):
    before = torch.randn(600, 2**13, generator=torch.Generator().manual_seed(5)).to(dtype)
    after = before.clone()
    after[:100] *= 1.5
    with LiveBytes() as memory:
        h = torch_statistic(before, after)
    assert ((h > 0) == (torch.arange(600) < 100)).all()
    assert 2**20 < memory.peak < 64 * 2**20


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [9, 4096, 5000, 20_000])
def test_on_a_gpu_equal_and_below_64_mib(dtype, n):
    generator = torch.Generator().manual_seed(6)
    before, noise = torch.randn(2, 2**23 // n, n, generator=generator)
    after = torch.where(torch.rand(len(before), 1, generator=generator) < 0.9, before + 0.3 * noise, before)
    before, after = before.to(dtype), after.to(dtype)
    on_gpu = before.cuda(), after.cuda()
    torch.cuda.reset_peak_memory_stats()
    used = torch.cuda.memory_allocated()
    h = torch_statistic(*on_gpu)
    assert torch.cuda.max_memory_allocated() - used < 64 * 2**20
    assert h.device.type == "cuda"
    assert torch.equal(h.cpu(), two_sample_statistic(before, after))
