"""The kernel runs in Triton's interpreter, which a process can only switch on before it imports Triton: in a child.

Where there is a GPU it also runs there, on the same rows and on larger ones.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from scipy.stats import ks_2samp

from ks_lottery.errors import UnitError
from ks_lottery.stats import triton_rows
from ks_lottery.stats.kolmogorov import two_sample_statistic

pytest.importorskip("triton", reason="Triton has no wheel for this platform; the torch path is used")

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
SIZES = {torch.float16: (8, 33), torch.bfloat16: (9, 100), torch.float32: (31, 64), torch.float64: (8, 100)}
NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

ROOT = Path(__file__).resolve().parents[2]
CHILD = """
import json, sys
from safetensors.torch import load_file
from tests.stats.test_triton_rows import statistics
print(json.dumps(statistics(load_file(sys.argv[1]))))
"""


def rows_of(dtype: torch.dtype, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Equal, shifted, heavily tied, and disjoint rows, and one of both zeros and denormals."""
    generator = torch.Generator().manual_seed(n)
    before, noise = torch.randn(2, 5, n, generator=generator, dtype=torch.float64)
    after = before + 0.5 * noise
    after[0] = before[0]
    before[2], after[2] = torch.round(before[2]), torch.round(after[2])
    after[3] = before[3] + 1000
    tiny = torch.finfo(dtype).smallest_normal / 8
    extremes = torch.tensor([0.0, -0.0, tiny, -tiny, torch.finfo(dtype).max], dtype=torch.float64)
    before[4], after[4] = extremes[torch.randint(5, (2, n), generator=generator)]
    return before.to(dtype), after.to(dtype)


def broken_rows(dtype: torch.dtype, side: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Row 2 is the first that is not finite."""
    before, after = torch.ones(2, 4, 10, dtype=dtype)
    (before if side == "before" else after)[2, 4:6] = float("-inf")
    before[3], after[3] = float("nan"), float("nan")
    return before, after


def cases() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Pairs of rows by name; the start of the name says how they are handed over."""
    pairs = {f"plain {dtype} {n}": rows_of(dtype, n) for dtype, sizes in SIZES.items() for n in sizes}
    pairs["strided"] = rows_of(torch.float32, 12)
    pairs["several warps"] = rows_of(torch.bfloat16, 100)
    pairs["empty"] = (torch.ones(0, 8), torch.ones(0, 8))
    for dtype in DTYPES:
        pairs |= {f"broken {side} {dtype}": broken_rows(dtype, side) for side in ("before", "after")}
    return pairs


def statistics(tensors: dict[str, torch.Tensor]) -> dict[str, list[int] | str]:
    """What the kernel says to each case: integers, or the message of its error."""
    results: dict[str, list[int] | str] = {}
    for name in sorted({key.removesuffix("/before") for key in tensors if key.endswith("/before")}):
        before, after = tensors[f"{name}/before"], tensors[f"{name}/after"]
        if name == "strided":
            before, after = before.T.contiguous().T, torch.stack([after, after], dim=2)[..., 0]
        each, triton_rows._VALUES_PER_THREAD = triton_rows._VALUES_PER_THREAD, 1 if name == "several warps" else 16
        try:
            results[name] = triton_rows.triton_statistic(before, after, name="embed", first_row=100).tolist()
        except UnitError as error:
            results[name] = str(error)
        finally:
            triton_rows._VALUES_PER_THREAD = each
    return results


@pytest.fixture(scope="module", params=["interpreter", pytest.param("gpu", marks=NEEDS_GPU)])
def results(request, tmp_path_factory):
    """What the kernel says to every case."""
    tensors = {f"{name}/before": before for name, (before, _) in cases().items()}
    tensors |= {f"{name}/after": after for name, (_, after) in cases().items()}
    if request.param == "gpu":
        return statistics({key: tensor.cuda() for key, tensor in tensors.items()})
    path = tmp_path_factory.mktemp("rows") / "rows.safetensors"
    save_file(tensors, path)
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    child = subprocess.run(
        [sys.executable, "-W", "error", "-c", CHILD, str(path)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout)


@pytest.mark.parametrize("name", [name for name in cases() if not name.startswith("broken")])
def test_equals_the_cpu_path_and_scipy(results, name):
    before, after = cases()[name]
    n = before.shape[1]
    pairs = zip(before.double().numpy(), after.double().numpy(), strict=True)
    scipys = [round(ks_2samp(a, b, method="asymp").statistic * n) for a, b in pairs]
    assert results[name] == two_sample_statistic(before, after).tolist() == scipys
    assert results[name][::3] == ([] if name == "empty" else [0, n])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("side", ["before", "after"])
def test_non_finite_values_are_refused_in_the_words_of_the_cpu_path(results, dtype, side):
    before, after = broken_rows(dtype, side)
    with pytest.raises(UnitError, match=f"Row 102 of 'embed' {side} holds 2 NaN or infinite") as cpu:
        two_sample_statistic(before[:3], after[:3], name="embed", first_row=100)
    assert results[f"broken {side} {dtype}"] == str(cpu.value)


@pytest.mark.parametrize(
    ("dtype", "n"), [(torch.float16, 8), (torch.bfloat16, 896), (torch.float32, 100), (torch.float64, 100)]
)
@pytest.mark.parametrize("capability", [80, 90])
def test_compiles_for_a_gpu(dtype, n, capability, tmp_path, monkeypatch):
    """Triton brings its own assembler, so that the code for a GPU is made without one."""
    from triton import compile
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from ks_lottery.stats.triton_kernel import statistic_of_row

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    rows = torch.empty(1, n, dtype=dtype)
    constants = triton_rows.layout(rows) | {"stride_before": 1, "stride_after": 1}
    warps = constants.pop("num_warps")
    pointer = f"*i{8 * rows.element_size()}"
    signature = {"before": pointer, "after": pointer, "statistic": "*i64", "n": "i32"}
    signature |= {"row_stride_before": "i32", "row_stride_after": "i32"} | dict.fromkeys(constants, "constexpr")
    source = ASTSource(statistic_of_row, signature, constants)
    made = compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps})
    assert len(made.asm["cubin"]) > 1000
    assert made.metadata.shared <= triton_rows._LARGEST_ROW


def test_rows_that_are_too_long_or_on_two_devices_are_refused():
    rows = torch.ones(2, 16_385)
    with pytest.raises(
        UnitError, match=r"'embed': rows of 16385 float32 values do not fit .* up to 16384\. Use torch_"
    ):
        triton_rows.triton_statistic(rows, rows, name="embed")
    with pytest.raises(UnitError, match=r"rows of 8193 float64 values do not fit .* up to 8192\."):
        triton_rows.triton_statistic(rows[:, :8193].double(), rows[:, :8193].double())
    with pytest.raises(UnitError, match=r"before is on meta, after on cpu\. Move both to one device\."):
        triton_rows.triton_statistic(rows.to("meta"), rows)


def test_available_where_rows_fit_a_gpu_that_triton_can_use(monkeypatch):
    def rows(n: int, dtype: torch.dtype, is_cuda: bool = True) -> SimpleNamespace:
        size = torch.empty(0, dtype=dtype).element_size()
        return SimpleNamespace(is_cuda=is_cuda, shape=(5, n), element_size=lambda: size, device="cuda:0")

    capability = (9, 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(triton_rows, "_installed", lambda: True)
    assert not triton_rows.available(torch.ones(2, 8))
    assert not triton_rows.available(rows(4096, torch.bfloat16, is_cuda=False))
    for dtype, longest in ((torch.bfloat16, 16_384), (torch.float32, 16_384), (torch.float64, 8192)):
        assert triton_rows.available(rows(longest, dtype))
        assert not triton_rows.available(rows(longest + 1, dtype))
    capability = (7, 5)
    assert not triton_rows.available(rows(4096, torch.bfloat16))
    capability = (8, 0)
    monkeypatch.setattr(triton_rows, "_installed", lambda: False)
    assert not triton_rows.available(rows(4096, torch.bfloat16))


def test_installed_means_a_compiler_and_a_triton_that_has_what_the_kernel_uses(monkeypatch):
    import triton

    installed = triton_rows._installed.__wrapped__
    monkeypatch.setenv("CC", sys.executable)
    monkeypatch.setattr(triton, "__version__", "3.10.1+git")
    assert installed()
    monkeypatch.setattr(triton, "__version__", "3.3.1")
    assert not installed()
    monkeypatch.setattr(triton, "__version__", "3.4.0")
    monkeypatch.setenv("PATH", "")
    assert installed()
    monkeypatch.delenv("CC")
    assert not installed()


@NEEDS_GPU
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [8, 100, 896, 2048, 4096, 5000, 8192])
def test_on_a_gpu_equal_with_every_layout(dtype, n):
    generator = torch.Generator().manual_seed(n)
    before, noise = torch.randn(2, 600, n, generator=generator)
    after = torch.where(torch.rand(600, 1, generator=generator) < 0.9, before + 0.3 * noise, before)
    after[::4] = torch.round(after[::4])
    before, after = before.to(dtype), after.to(dtype)
    on_gpu = before.cuda(), after.cuda()
    assert triton_rows.available(on_gpu[0])
    h = triton_rows.triton_statistic(*on_gpu)
    assert h.device.type == "cuda"
    assert torch.equal(h.cpu(), two_sample_statistic(before, after))
    assert torch.equal(h, triton_rows.triton_statistic(*(rows.T.contiguous().T for rows in on_gpu)))
