import ks
import numpy as np
import pytest
import torch
from result import ResultsDifferError
from weight_pair import weight_pair


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("share", [1.0, 0.05])
def test_rows_are_compared_by_every_method(dtype: str, share: float) -> None:
    figures = ks.compare_rows(weight_pair(40, 64, dtype, share), repeats=1).figures()
    names = [method["name"] for method in figures["methods"]]
    assert names == [
        ks.SCIPY,
        *([ks.MOVED] if share < 1 else []),
        "scipy ks_2samp, axis=1",
        "numpy sort + searchsorted",
        "torch cat + sort + cumsum",
        ks.SORT,
        ks.ALONE,
        ks.OURS,
        ks.READ,
    ]
    targets = {method["name"]: len(method["targets"]) for method in figures["methods"] if method["targets"]}
    assert targets == ({ks.ALONE: 1, ks.OURS: 1} if share == 1 else {ks.OURS: 2})
    assert figures["checked"].startswith("the integers of 40 rows equal scipy's")
    assert all(method["time"]["median"] > 0 for method in figures["methods"])


@pytest.mark.parametrize(("dtype", "most"), [("float32", 15), ("bfloat16", 8)])
def test_a_matrix_is_compared(dtype: str, most: int) -> None:
    figures = ks.compare_matrix(weight_pair(16, 32, dtype, 1.0), repeats=1).figures()
    (target,) = next(method["targets"] for method in figures["methods"] if method["name"] == ks.OURS)
    assert target["target"] == f"≤ {most} × the time of reading both once"
    assert figures["checked"].endswith("/ 512")


def test_peers_agree_on_ties() -> None:
    before = torch.tensor([[1.0, 1, 2, 2, 3, 3, 3, 9], [0.0, 0, 0, 0, 0, 0, 0, 0]])
    after = torch.tensor([[1.0, 2, 2, 2, 2, 3, 4, 9], [0.0, 0, 0, 0, 1, 1, 1, 1]])
    expected = [1, 4]
    assert ks.torch_rows(before, after).tolist() == expected
    assert ks.numpy_rows(before.numpy(), after.numpy()).tolist() == expected
    assert ks.scipy_rows(before.numpy(), after.numpy()).tolist() == expected


def test_a_wrong_statistic_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ks, "two_sample_statistic", lambda before, after: np.zeros(len(before), dtype=np.int64))
    with pytest.raises(ResultsDifferError, match="Ours and scipy ks_2samp differ in 20 of 20 results"):
        ks.compare_rows(weight_pair(20, 64, "float32", 1.0), repeats=1)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_sorting_leaves_the_pair_alone(dtype: str) -> None:
    pair = weight_pair(4, 16, dtype, 1.0)
    kept = pair.before.clone()
    method = ks.sorting(pair, 4)
    assert method.prepare is not None
    for _ in range(2):
        method.run(method.prepare())
    assert torch.equal(pair.before, kept)


def test_the_pair_has_the_share_of_changed_rows() -> None:
    pair = weight_pair(100, 8, "bfloat16", 0.05)
    changed = (pair.before != pair.after).any(dim=1)
    assert changed.sum() == 5
    assert pair.before.dtype == torch.bfloat16
    assert torch.equal(weight_pair(100, 8, "bfloat16", 0.05).after, pair.after)
    assert not torch.equal(weight_pair(100, 8, "bfloat16", 0.05, seed=1).before, pair.before)
