import json
import sys

import gpu_rows
import pytest
import torch
from result import ResultsDifferError
from weight_pair import weight_pair

from ks_lottery.stats.kolmogorov import two_sample_statistic


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu_rows.py"])
    with pytest.raises(SystemExit, match=r"needs a GPU, and torch finds none\. benchmarks/ks\.py measures the CPU"):
        gpu_rows.main()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_runs_without_a_gpu_is_compared(dtype: str) -> None:
    figures = gpu_rows.compare(weight_pair(20, 64, dtype, 0.05), torch.device("cpu"), repeats=1).figures()
    assert [method["name"] for method in figures["methods"]] == [gpu_rows.PLAIN, gpu_rows.TORCH, gpu_rows.READ]
    assert [len(method["targets"]) for method in figures["methods"]] == [0, 1, 0]
    assert figures["checked"] == "the integers of all 20 rows equal those of the CPU path"


def test_the_kernel_is_compared_and_has_a_target(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_rows, "available", lambda rows: True)
    monkeypatch.setattr(gpu_rows, "triton_statistic", two_sample_statistic)
    figures = gpu_rows.compare(weight_pair(20, 64, "bfloat16", 1.0), torch.device("cpu"), repeats=1).figures()
    (target,) = next(method["targets"] for method in figures["methods"] if method["name"] == gpu_rows.TRITON)
    assert target["target"] == "≤ 80 × the time of reading both once"


def test_a_wrong_statistic_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_rows, "torch_statistic", lambda before, after: torch.zeros(len(before)))
    with pytest.raises(ResultsDifferError, match=r"Ours and ours, torch differ in 20 of 20 results"):
        gpu_rows.compare(weight_pair(20, 64, "float32", 1.0), torch.device("cpu"), repeats=1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_it_leaves_its_figures(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["--rows", "200", "--width", "64", "--repeats", "1", "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["gpu_rows.py", *arguments])
    gpu_rows.main()
    tables = json.loads((tmp_path / "gpu_rows.json").read_text(encoding="utf-8"))["tables"]
    assert len(tables) == 4


def test_plain_form_is_right_on_ties() -> None:
    before = torch.tensor([[1.0, 1, 2, 2, 3, 3, 3, 9], [0.0, 0, 0, 0, 0, 0, 0, 0]])
    after = torch.tensor([[1.0, 2, 2, 2, 2, 3, 4, 9], [0.0, 0, 0, 0, 1, 1, 1, 1]])
    assert gpu_rows.plain_statistic(before, after).tolist() == [1, 4]
