import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binom, bootstrap

from ks_lottery.errors import DataError, OptionError
from ks_lottery.stats import intervals
from ks_lottery.stats.intervals import bootstrap_interval, clopper_pearson, paired_bootstrap_difference


def ratio(sums):
    return sums[..., 0] / sums[..., 1]


def first(sums):
    return sums[..., 0]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.5, 0.95, 0.99])
)
def test_clopper_pearson_solves_its_defining_equations(counts, confidence):
    k, n = counts
    value, low, high = clopper_pearson(k, n, confidence)
    assert value == k / n
    assert high == 1.0
    assert binom.sf(k - 1, n, low) == pytest.approx(1 - confidence if k else 1.0, rel=1e-6)
    two = clopper_pearson(k, n, confidence, side="two-sided")
    rest = (1 - confidence) / 2
    assert two.low == pytest.approx(beta.ppf(rest, k, n - k + 1) if k else 0.0, rel=1e-6)
    assert two.high == pytest.approx(beta.isf(rest, k + 1, n - k) if k < n else 1.0, rel=1e-6)
    assert two.low <= low <= value <= two.high


def test_clopper_pearson_at_the_ends():
    assert clopper_pearson(0, 10) == (0.0, 0.0, 1.0)
    assert clopper_pearson(10, 10).low == pytest.approx(0.05 ** (1 / 10))  # low^n = alpha
    assert clopper_pearson(np.int64(3), np.int64(4)).value == 0.75


def test_clopper_pearson_refuses():
    with pytest.raises(OptionError, match=r"0 <= successes <= trials, got 5 of 4\. Count both on the same"):
        clopper_pearson(5, 4)
    with pytest.raises(OptionError, match="got -1 of 4"):
        clopper_pearson(-1, 4)
    with pytest.raises(OptionError, match="got 0 of 0"):
        clopper_pearson(0, 0)
    with pytest.raises(OptionError, match=r"side must be 'lower' or 'two-sided', got 'upper'"):
        clopper_pearson(1, 4, side="upper")
    with pytest.raises(OptionError, match=r"confidence must lie in \(0, 1\), got 95\. Use 0\.95"):
        clopper_pearson(1, 4, confidence=95)


@pytest.fixture
def segments():
    generator = np.random.default_rng(0)
    total = generator.integers(5, 40, size=60)
    return np.stack([generator.binomial(total, 0.7), total], axis=1)


def drawn(segments, resamples, seed=12345):
    """Segment numbers of each resampled corpus, drawn all at once as sacrebleu does."""
    return np.random.default_rng(seed).choice(segments, size=(resamples, segments), replace=True)


def test_interval_equals_resampling_segment_by_segment(segments):
    scores = [sum(segments[i, 0] for i in row) / sum(segments[i, 1] for i in row) for row in drawn(60, 200)]
    result = bootstrap_interval(segments, ratio, resamples=200, confidence=0.9)
    assert result.value == segments[:, 0].sum() / segments[:, 1].sum()
    assert result[1:] == tuple(np.quantile(scores, [0.05, 0.95]))


def test_difference_equals_resampling_segment_by_segment(segments):
    other = segments.copy()
    other[::4, 0] = other[::4, 0] * 9 // 10
    differences = []
    for row in drawn(60, 300, seed=7):
        corpora = [matrix[row].sum(axis=0) for matrix in (segments, other)]
        differences.append(corpora[0][0] / corpora[0][1] - corpora[1][0] / corpora[1][1])
    result = paired_bootstrap_difference(segments, other, ratio, resamples=300, seed=7)
    assert result.value == ratio(segments.sum(axis=0)) - ratio(other.sum(axis=0))
    assert result[1:3] == tuple(np.quantile(differences, [0.025, 0.975]))
    far = [abs(d - np.mean(differences)) >= abs(result.value) for d in differences]
    assert result.p == (1 + sum(far)) / 301


def test_chunks_do_not_show(segments, monkeypatch):
    whole = bootstrap_interval(segments, ratio, resamples=50)
    for chunk in (1, 61 * 7, 60 * 50):
        monkeypatch.setattr(intervals, "_CHUNK_COUNTS", chunk)
        assert bootstrap_interval(segments, ratio, resamples=50) == whole


def test_seed_decides(segments):
    results = [bootstrap_interval(segments, ratio, resamples=50, seed=seed) for seed in (1, 1, 2)]
    assert results[0] == results[1] != results[2]


def test_both_systems_get_the_same_segments():
    """A constant lead per segment leaves no spread, however different the segments are."""
    matrix = np.arange(30.0)[:, None] ** 2
    result = paired_bootstrap_difference(matrix + 2.0, matrix, first, resamples=99)
    assert result == (60.0, 60.0, 60.0, 0.01)
    assert paired_bootstrap_difference(matrix, matrix + 2.0, first, resamples=99) == (-60.0, -60.0, -60.0, 0.01)


def test_equal_systems_do_not_differ(segments):
    assert paired_bootstrap_difference(segments, segments, ratio, resamples=20) == (0.0, 0.0, 0.0, 1.0)


def test_interval_agrees_with_scipy(segments):
    ours = bootstrap_interval(segments[:, :1], lambda sums: sums[..., 0] / 60, resamples=4000)
    scipys = bootstrap(
        (segments[:, 0],), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert ours[1:] == pytest.approx(tuple(scipys), rel=0.02)


def test_two_segments_by_enumeration():
    result = bootstrap_interval([[0.0], [1.0]], first, resamples=20_000, confidence=0.6)
    assert result == (1.0, 0.0, 2.0)  # 0, 1, 2 with probabilities 1/4, 1/2, 1/4: 0.2 and 0.8 lie outside the middle
    assert bootstrap_interval([[0.0], [1.0]], first, resamples=20_000, confidence=0.4) == (1.0, 1.0, 1.0)


def test_memory_does_not_grow_with_the_resamples():
    matrix = np.ones((5000, 2))
    tracemalloc.start()
    try:
        bootstrap_interval(matrix, ratio, resamples=1000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40 * 2**20


def test_what_cannot_be_resampled_is_refused(segments):
    with pytest.raises(DataError, match=r"\[segments, m\] with at least 2 segments, got shape \(1, 2\)"):
        bootstrap_interval(segments[:1], ratio)
    with pytest.raises(DataError, match=r"got shape \(60,\)"):
        bootstrap_interval(segments[:, 0], ratio)
    broken = segments.astype(float)
    broken[3, 1] = np.nan
    with pytest.raises(DataError, match=r"Segment 3 has a NaN or infinite statistic in column 1\. Score it again"):
        bootstrap_interval(broken, ratio)
    with pytest.raises(OptionError, match=r"resamples must be at least 1, got 0\. Published tables use 1000"):
        bootstrap_interval(segments, ratio, resamples=0)
    for function in (bootstrap_interval, lambda *args, **kw: paired_bootstrap_difference(segments, *args, **kw)):
        with pytest.raises(OptionError, match=r"confidence must lie in \(0, 1\), got 1\.0"):
            function(segments, ratio, confidence=1.0)
    with pytest.raises(DataError, match=r"got shapes \(60, 2\) and \(59, 2\)\. Score both systems on one test set"):
        paired_bootstrap_difference(segments, segments[:59], ratio)


def test_scores_that_cannot_be_used_are_refused(segments):
    with pytest.raises(
        DataError, match=r"sums of shape \(11, 2\) to shape \(11,\), got \(11, 2\)\. Index its argument"
    ):
        bootstrap_interval(segments, lambda sums: sums, resamples=10)
    with pytest.raises(DataError, match=r"score returned NaN or infinity for 11 of 11 corpora\. Guard its divisions"):
        bootstrap_interval(segments, lambda sums: sums[..., 0] * np.inf, resamples=10)
