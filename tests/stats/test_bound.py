import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ks_lottery.errors import UnitError
from ks_lottery.stats import bound
from ks_lottery.stats.bound import bin_count, settled_below
from ks_lottery.stats.floats import FORMATS, FloatBits, bits_of
from ks_lottery.stats.pvalues import critical_statistic

DTYPES = sorted(FORMATS)
LARGEST = {"float16": 6e4, "bfloat16": 3e38, "float32": 3e38, "float64": 1.7e308}
SMALLEST = {"float16": 6e-8, "bfloat16": 1e-40, "float32": 1e-45, "float64": 5e-324}


def to_bits(values: np.ndarray, dtype: str) -> FloatBits:
    if dtype == "bfloat16":
        return FloatBits((values.astype(np.float32).view(np.int32) >> 16).astype(np.int16), dtype)
    return bits_of(values.astype(dtype))


def statistic(before: FloatBits, after: FloatBits) -> np.ndarray:
    """h by its definition: the largest difference of the two counts of values up to v, over all values v."""
    heights = []
    for a, b in zip(before.keys(), after.keys(), strict=True):
        values = np.concatenate([a, b])
        below = [np.searchsorted(np.sort(row), values, side="right") for row in (a, b)]
        heights.append(np.abs(below[0] - below[1]).max())
    return np.array(heights)


def settled_by_both(monkeypatch: pytest.MonkeyPatch, before: FloatBits, after: FloatBits, h_crit: int) -> np.ndarray:
    """What the kernel settles, which is what numpy settles."""
    settled = settled_below(before, after, h_crit)
    with monkeypatch.context() as patch:
        patch.setattr(bound, "can_compile", lambda: False)
        np.testing.assert_array_equal(settled_below(before, after, h_crit), settled)
    return settled


def never_wrong(before: FloatBits, after: FloatBits) -> None:
    """No row is settled at any threshold up to its own statistic, by the kernel or by numpy."""
    heights = statistic(before, after)
    with pytest.MonkeyPatch.context() as patch:
        for h_crit in np.unique(np.concatenate([heights, heights + 1, heights + before.shape[1] // 8])).tolist():
            settled = settled_by_both(patch, before, after, h_crit)
            assert not (settled & (heights >= h_crit)).any()


@st.composite
def row_pairs(draw):
    """Rows of many sizes and scales: continuous, tied, off centre, with outliers, shifted by nothing to everything."""
    dtype = draw(st.sampled_from(DTYPES))
    n = draw(st.one_of(st.integers(1, 70), st.sampled_from([192, 255, 257, 896, 4096])))
    generator = np.random.default_rng(draw(st.integers(0, 2**31)))
    before = generator.normal(size=(4, n))
    before[1] = generator.standard_cauchy(n)
    after = before + draw(st.sampled_from([0.0, 0.01, 1.0])) * generator.normal(size=(4, n))
    after += draw(st.sampled_from([0.0, 0.1, 9.0])) * (generator.random((4, n)) < draw(st.sampled_from([0.1, 1.0])))
    if levels := draw(st.sampled_from([None, 1, 3, 40])):
        before, after = np.round(before * levels) / levels, np.round(after * levels) / levels
    after[3] = before[3, ::-1]
    scale, centre = draw(st.sampled_from([1e-3, 1.0, 10.0])), draw(st.sampled_from([0.0, 5.0]))
    low, high = -LARGEST[dtype], LARGEST[dtype]
    return tuple(to_bits(np.clip(scale * (side + centre), low, high), dtype) for side in (before, after))


@settings(max_examples=80, deadline=None)
@given(row_pairs())
def test_no_row_is_settled_that_reaches_the_threshold(pair):
    never_wrong(*pair)


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(DTYPES), st.integers(1, 12), st.data())
def test_few_values_with_both_zeros_subnormals_and_the_largest(dtype, n, data):
    tiny, huge = SMALLEST[dtype], LARGEST[dtype]
    values = st.sampled_from([0.0, -0.0, tiny, -tiny, 1e-3, 1.0, -1.0, 1.5, huge, -huge, huge / 2])
    rows = st.lists(st.lists(values, min_size=n, max_size=n), min_size=3, max_size=3)
    before, after = (to_bits(np.array(data.draw(rows)), dtype) for _ in range(2))
    never_wrong(before, after)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [31, 192, 896])
def test_adversarial_rows(dtype, n):
    generator = np.random.default_rng(n)
    draw = generator.normal(size=n)
    signs = np.where(np.arange(n) % 2, 1.0, -1.0)
    steps = max(1, n // 32)
    pairs = [
        (np.ones(n), 2 * np.ones(n)),
        (np.zeros(n) * signs, np.zeros(n) * -signs),
        (draw, np.where(np.arange(n) == n - 1, 9.0, draw)),
        (draw, draw + 100),
        (draw, draw + 1e-2),
        (1e-3 * draw, draw),
        (np.sort(draw), np.sort(draw)[::-1] * 1.5),
        (np.where(np.arange(n) % steps, draw, 1e3), draw),  # every sampled value is an outlier
        (np.where(np.arange(n) % steps, draw, 0.0), draw + 0.1),  # every sampled value is the same
        (np.round(draw), np.round(1.3 * draw)),
        (np.where(np.arange(n) < n // 2, 0.0, draw), np.where(np.arange(n) < n // 2, 1e-4, draw)),
    ]
    never_wrong(*(to_bits(np.stack([pair[side] for pair in pairs]), dtype) for side in (0, 1)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [192, 896, 4096])
def test_rows_that_moved_little_are_settled_and_shifted_ones_are_not(dtype, n, monkeypatch):
    generator = np.random.default_rng(n)
    scale = generator.uniform(0.01, 1.0, size=(40, 1))
    before = scale * generator.normal(size=(40, n))
    after = before + 0.03 * scale * generator.normal(size=(40, n))
    after[::4] += scale[::4]
    before, after = to_bits(before, dtype), to_bits(after, dtype)
    for alpha in (0.05, 0.05 / 32000):
        h_crit = critical_statistic(n, alpha)
        heights = statistic(before, after)
        assert ((heights >= h_crit) == (np.arange(40) % 4 == 0)).all()
        assert settled_by_both(monkeypatch, before, after, h_crit).tolist() == (heights < h_crit).tolist()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("position", [0, 5, 299])
def test_a_row_that_is_not_finite_is_never_settled(dtype, value, side, position, monkeypatch):
    sides = [np.random.default_rng(0).normal(size=(3, 300)) for _ in range(2)]
    sides[side][1, position] = value
    before, after = (to_bits(rows, dtype) for rows in sides)
    assert settled_by_both(monkeypatch, before, after, 301).tolist() == [True, False, True]


def test_float64_values_beyond_float32_leave_their_row_open(monkeypatch):
    before = np.random.default_rng(0).normal(size=(2, 64))
    after = before.copy()
    after[0, 3] = 1e200
    assert settled_by_both(monkeypatch, bits_of(before), bits_of(after), 65).tolist() == [False, True]


def test_blocks_and_strides_do_not_show(monkeypatch):
    generator = np.random.default_rng(4)
    wide = generator.normal(size=(90, 250)).astype(np.float32)
    before, after = wide[:, ::2], wide[:, ::2] + generator.uniform(0, 0.4, size=(90, 1)).astype(np.float32)
    before, after = FloatBits(wide.view(np.int32)[:, ::2], "float32"), bits_of(after)
    whole = settled_below(before, after, 25)
    assert 10 < whole.sum() < 80
    monkeypatch.setattr(bound, "_BLOCK_VALUES", 125 * 7)
    assert settled_by_both(monkeypatch, before, after, 25).tolist() == whole.tolist()
    assert settled_below(before[:0], after[:0], 25).tolist() == []


def test_without_numba_the_same_rows_are_settled():
    """A process in which nothing may be compiled imports no numba."""
    code = (
        "import sys, numpy as np\n"
        "from ks_lottery.stats.bound import settled_below\n"
        "from ks_lottery.stats.floats import bits_of\n"
        "g = np.random.default_rng(0)\n"
        "a = g.normal(size=(40, 300)).astype(np.float32)\n"
        "b = a + g.uniform(0, .3, size=(40, 1)).astype(np.float32)\n"
        "print(settled_below(bits_of(a), bits_of(b), 34).tolist(), 'numba' in sys.modules)"
    )
    prints = []
    for disabled in ("1", "0"):
        environment = {**os.environ, "NUMBA_DISABLE_JIT": disabled}
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
        prints.append(run.stdout.strip().rsplit(" ", 1))
    assert [imported for _, imported in prints] == ["False", "True"]
    assert prints[0][0] == prints[1][0]
    assert "True" in prints[0][0]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (np.zeros((2, 8)), np.zeros((2, 9))),
        (np.zeros((2, 8)), np.zeros((2, 8), dtype=np.float32)),
        (np.zeros(8), np.zeros(8)),
        (np.zeros((2, 0)), np.zeros((2, 0))),
    ],
)
def test_rows_that_are_no_pairs_are_refused(before, after):
    with pytest.raises(UnitError, match=r"before has shape .* must be \[units, n\] of one dtype with n at least 1"):
        settled_below(bits_of(before), bits_of(after), 3)


def test_bins_grow_with_the_row_within_limits():
    assert [bin_count(n) for n in (1, 64, 192, 256, 896, 4096, 10**6)] == [16, 16, 64, 64, 256, 1024, 4096]
