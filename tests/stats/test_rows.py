import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from ks_lottery.stats import compiled, rows, vectorised
from ks_lottery.stats.floats import FORMATS, FloatBits, bits_of
from ks_lottery.stats.kolmogorov import two_sample_statistic
from ks_lottery.stats.rows import as_words, word_masks

TINY = np.float32(1e-45)


def adversarial(n: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Pairs of float32 rows that have hurt implementations."""
    generator = np.random.default_rng(n)
    draw = generator.normal(size=n)
    signs = np.where(np.arange(n) % 2, 1.0, -1.0)
    pairs = {
        "all equal": (draw, draw),
        "one value": (np.ones(n), np.ones(n) * 2),
        "one value differs": (draw, np.where(np.arange(n) == n - 1, 9.0, draw)),
        "alternating signs": (signs, -signs * 0.5),
        "both zeros": (np.zeros(n) * signs, np.zeros(n) * -signs),
        "denormals": (TINY * generator.integers(0, 5, n), TINY * generator.integers(0, 6, n)),
        "sorted": (np.sort(draw), np.sort(draw) + 0.1),
        "reversed": (draw, draw[::-1]),
        "sorted against reversed": (np.sort(draw), -np.sort(draw)[::-1] * 1.5),
        "heavy ties": (np.round(draw), np.round(draw * 1.3)),
        "disjoint": (draw, draw + 100),
        "interleaved": (2.0 * np.arange(n), 2.0 * np.arange(n) + 1),
        "half moved": (draw, np.where(np.arange(n) < n // 2, draw + 3, draw)),
        "scaled": (draw, draw * 1.01),
    }
    return {name: (a.astype(np.float32), b.astype(np.float32)) for name, (a, b) in pairs.items()}


def scipys(before: np.ndarray, after: np.ndarray) -> list[int]:
    pairs = zip(before.astype(np.float64), after.astype(np.float64), strict=True)
    return [round(ks_2samp(a, b, method="asymp").statistic * before.shape[1]) for a, b in pairs]


@pytest.mark.parametrize("n", [8, 9, 31, 63, 64, 65, 255, 257, 511, 513, 1000, 4097, 10_000])
def test_adversarial_rows_equal_scipy(n):
    pairs = adversarial(n)
    before, after = (np.stack([pair[side] for pair in pairs.values()]) for side in (0, 1))
    assert dict(zip(pairs, two_sample_statistic(before, after).tolist(), strict=True)) == dict(
        zip(pairs, scipys(before, after), strict=True)
    )


def same_sums(before: np.ndarray, after: np.ndarray, dtype: str) -> None:
    """Both sets of kernels find the same changed rows and values, and sums that are equal to rounding."""
    old, new = (FloatBits(side, dtype).values().astype(np.float64) for side in (before, after))
    differ = before != after
    chosen = np.flatnonzero(differ.any(axis=1))
    for run in (compiled, vectorised):
        changed, norm = np.zeros(len(before), dtype=bool), np.ones(len(before))
        count, shift = np.ones(len(chosen), dtype=np.int64), np.ones(len(chosen))
        if dtype == "bfloat16":
            run.compare_bfloat16(before, after, changed, norm)
            run.moves_bfloat16(before, after, chosen, count, shift)
        else:
            values = [side.astype(np.float32 if dtype == "float16" else dtype) for side in (old, new)]
            run.compare(before, after, values[0], changed, norm)
            run.moves(before, after, *values, chosen, count, shift)
        np.testing.assert_array_equal(changed, differ.any(axis=1))
        np.testing.assert_array_equal(count, 1 + differ.sum(axis=1)[chosen])
        np.testing.assert_allclose(norm, 1 + np.square(old).sum(axis=1), rtol=1e-13)
        np.testing.assert_allclose(shift, 1 + np.square(new - old).sum(axis=1)[chosen], rtol=1e-13)


def same_integers(before: np.ndarray, after: np.ndarray, dtype: str) -> None:
    """Both sets of kernels give the same keys, changed rows, finiteness and statistics."""
    integer = before.dtype
    exponent = np.array([FORMATS[dtype].exponent], dtype=integer)
    magnitude = np.array([np.iinfo(integer).max], dtype=integer)
    results = []
    for run, words in itertools.product((compiled, vectorised), (True, False)):
        changed, finite = np.empty(len(before), dtype=bool), np.empty(len(before), dtype=bool)
        screened = as_words(before, after) if words else (before, after)
        run.screen(*screened, word_masks(dtype, screened[0].dtype.name), changed, finite)
        chosen = np.flatnonzero(changed)
        keys = [np.empty((len(chosen), before.shape[1]), dtype=integer) for _ in range(2)]
        run.pack(before, after, chosen, magnitude, *keys)
        packed = [out.copy() for out in keys]
        for out in keys:
            out.sort(axis=1)
        statistic = np.empty(len(chosen), dtype=np.int64)
        run.climb(*keys, exponent, statistic)
        results.append([changed, finite, *packed, statistic])
    for found in zip(*results, strict=True):
        for other in found[1:]:
            np.testing.assert_array_equal(found[0], other)
    assert np.array_equal(results[0][2], FloatBits(before, dtype).keys()[results[0][0]])


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(FORMATS)),
    st.sampled_from([8, 13, 64, 300, 513, 1100]),
    st.sampled_from([0.0, 0.01, 0.3]),
    st.sampled_from([None, 2, 30]),
    st.integers(0, 2**31),
)
def test_compiled_and_numpy_kernels_give_the_same(dtype, n, noise, levels, seed):
    generator = np.random.default_rng(seed)
    before = generator.normal(size=(6, n))
    after = before + noise * generator.normal(size=(6, n))
    after[::2] = before[::2]
    if levels:
        before, after = np.round(before * levels), np.round(after * levels)
    if dtype == "bfloat16":
        x, y = ((side.astype(np.float32).view(np.int32) >> 16).astype(np.int16) for side in (before, after))
    else:
        x, y = (bits_of(side.astype(dtype)).array for side in (before, after))
    same_integers(x, y, dtype)
    same_sums(x, y, dtype)
    x[1, n // 2] = FORMATS[dtype].exponent
    same_integers(x, x.copy(), dtype)
    same_integers(x, y, dtype)


def test_without_numba_the_integers_are_the_same():
    """A process in which nothing may be compiled imports no numba and finds the same statistics."""
    code = (
        "import sys, numpy as np\n"
        "from ks_lottery.stats.kolmogorov import two_sample_statistic\n"
        "g = np.random.default_rng(0)\n"
        "a = g.normal(size=(20, 300)).astype(np.float32)\n"
        "b = a + np.float32(.1) * g.normal(size=a.shape).astype(np.float32)\n"
        "print(two_sample_statistic(a, b).tolist(), 'numba' in sys.modules, 'torch' in sys.modules)"
    )
    prints = []
    for disabled in ("1", "0"):
        environment = {**os.environ, "NUMBA_DISABLE_JIT": disabled}
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
        prints.append(run.stdout.strip())
    assert prints[0].endswith("] False False")
    assert prints[1].endswith("] True False")
    assert prints[0].split("]")[0] == prints[1].split("]")[0]


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_threads_do_not_show(threads, monkeypatch):
    monkeypatch.setattr(rows, "_MOST_BLOCK_BYTES", 4 * 100 * 7)
    monkeypatch.setattr(rows, "_SORT_BYTES", 4 * 100 * 3)
    monkeypatch.setattr(rows, "_VALUES_PER_THREAD", 1)
    generator = np.random.default_rng(3)
    before = generator.normal(size=(150, 100)).astype(np.float32)
    after = before.copy()
    after[::4] += generator.normal(size=(38, 1)).astype(np.float32)
    assert two_sample_statistic(before, after, threads=threads).tolist() == scipys(before, after)


def test_an_error_of_a_thread_reaches_the_caller(monkeypatch):
    monkeypatch.setattr(rows, "_MOST_BLOCK_BYTES", 64)
    monkeypatch.setattr(rows, "_VALUES_PER_THREAD", 1)
    before = np.ones((40, 16), dtype=np.float32)
    before[37, 2] = np.nan
    with pytest.raises(rows.UnitError, match=r"Row 137 of 'embed' before holds 1 NaN"):
        two_sample_statistic(before, before.copy(), name="embed", first_row=100, threads=2)


def test_sort_kind_is_one_of_numpys_and_kept():
    assert rows.sort_kind("int32") == "quicksort"
    assert rows.sort_kind("int16") in ("quicksort", "stable")
    assert rows.sort_kind("int16") == rows.sort_kind("int16")
