import numpy as np
import pvalues
import pytest
from result import ResultsDifferError

from ks_lottery.stats.pvalues import log_p_values


def test_p_values_are_compared_with_scipy() -> None:
    figures = pvalues.compare(50, 64, repeats=1).figures()
    assert [method["name"] for method in figures["methods"]] == [
        pvalues.EXACT,
        "scipy, asymptotic",
        pvalues.OURS,
        pvalues.KEPT,
        pvalues.LIMIT,
    ]
    assert figures["methods"][2]["targets"][0]["target"] == "≥ 1000 × faster than scipy, exact"
    h = np.array([3, 9, 40])
    assert pvalues.exact(h, 64) == pytest.approx(np.exp(log_p_values(h, 64)), rel=1e-10)


def test_a_wrong_p_value_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pvalues, "ours", lambda h, n: log_p_values(h, n) + 1e-9)
    with pytest.raises(ResultsDifferError, match="Ours and scipy, exact differ in 50 of 50"):
        pvalues.compare(50, 64, repeats=1)


def test_what_scipy_cannot_compute_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vars(pvalues._stats_py), "_attempt_exact_2kssamp", lambda *_: (False, 0.0, float("nan")))
    with pytest.raises(RuntimeError, match="scipy could not compute one of the p-values"):
        pvalues.exact(np.array([1]), 64)
