"""What this machine offers: versions, devices, places to write, settings of the Hub; each check is one line."""

import importlib
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from ks_lottery._version import __version__
from ks_lottery.checkpoints.redaction import redacted
from ks_lottery.ticket.markdown import data_size

Status = Literal["ok", "limited", "broken"]

_PACKAGE = "ks_lottery"
_EXTRAS = {
    "ownership": "ks-lottery sign and verify",
    "ray": "ks-lottery compare --ray",
    "zero3": "training under DeepSpeed ZeRO-3",
}
"""Extra of the package to what does not work without it."""

_OFFLINE = {
    "HF_HUB_OFFLINE": "Hub ids are answered from the cache alone; ks-lottery push and pull --list do not work",
    "TRANSFORMERS_OFFLINE": "Hub ids are answered from the cache alone; ks-lottery push and pull --list do not work",
    "HF_DATASETS_OFFLINE": "data sets are read from the cache alone",
}
_OFF = ("", "0", "false", "no", "off")


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: what.
        status: "ok"; "limited": something does not work, and the rest does; "broken": something needed does not work.
        says: what was found, and what works and what does not.
    """

    name: str
    status: Status
    says: str

    def to_dict(self) -> dict[str, Any]:
        """JSON values by field."""
        return asdict(self)


def checkup() -> Iterator[Check]:
    """Look at everything, the quick things first; nothing is sent anywhere."""
    yield python()
    yield from packages()
    yield adapter_type()
    yield from devices()
    yield from kernels()
    yield from places()
    yield from hub_settings()


def python() -> Check:
    """The interpreter and this library."""
    return Check(
        "ks_lottery",
        "ok",
        f"{__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}",
    )


def packages() -> Iterator[Check]:
    """Every library that this one needs, against the bounds that its package states; then the optional ones."""
    from packaging.requirements import Requirement

    try:
        stated = [Requirement(text) for text in metadata.requires(_PACKAGE) or ()]
    except metadata.PackageNotFoundError:
        yield Check(
            "packages", "limited", f"{_PACKAGE} runs without being installed, so its bounds are unknown: pip install ."
        )
        return
    for one in stated:
        if one.marker is None or one.marker.evaluate({"extra": ""}):
            yield _package(one.name, one.specifier, None)
    for extra, what in _EXTRAS.items():
        for one in stated:
            if (
                one.marker is not None
                and one.marker.evaluate({"extra": extra})
                and not one.marker.evaluate({"extra": ""})
            ):
                yield _package(one.name, one.specifier, (extra, what))


def _package(name: str, bounds: Any, extra: tuple[str, str] | None) -> Check:
    """One library; `extra` names the extra that it is of, and what does not work without it."""
    needed = f"needs {bounds}" if str(bounds) else "any version"
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        if extra is not None:
            return Check(
                name, "limited", f"not installed: {extra[1]} will not work; pip install '{_PACKAGE}[{extra[0]}]'"
            )
        return Check(name, "broken", f"not installed, {needed}: pip install '{name}{bounds}'")
    if bounds.contains(version, prereleases=True):
        return Check(name, "ok", f"{version}, {needed}")
    return Check(name, "broken" if extra is None else "limited", f"{version}, {needed}: pip install '{name}{bounds}'")


def adapter_type() -> Check:
    """Whether PEFT takes the adapter's type: this loads torch, transformers and PEFT."""
    try:
        importlib.import_module("ks_lottery.adapter")
    except Exception as error:
        return Check(
            "adapter",
            "broken",
            f"PEFT does not take the adapter's type ({_one_line(error)}): tickets cannot be trained",
        )
    return Check("adapter", "ok", "PEFT knows KS_TICKET: tickets can be trained, saved and loaded")


def devices() -> Iterator[Check]:
    """Processors and accelerators."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Check("CPU", "ok", f"{cores} cores")
    try:
        import torch
    except Exception as error:
        yield Check("GPU", "broken", f"torch cannot be loaded ({_one_line(error)}): nothing can be trained")
        return
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            bfloat16 = "with" if torch.cuda.is_bf16_supported() else "without"
            yield Check(
                f"GPU {index}", "ok", f"{properties.name}, {data_size(properties.total_memory)}, {bfloat16} bfloat16"
            )
    elif torch.backends.mps.is_available():
        yield Check("GPU", "ok", "Apple MPS: training works there; tickets are found on the CPU")
    else:
        yield Check("GPU", "limited", f"none that torch {torch.__version__} sees: everything works on the CPU, slower")


def kernels() -> Iterator[Check]:
    """The compilers of the kernels that compare rows."""
    try:
        numba = importlib.import_module("numba")
    except Exception as error:
        yield Check("numba", "broken", f"it cannot be loaded ({_one_line(error)}): pip install --upgrade numba")
    else:
        off = bool(numba.config.DISABLE_JIT)
        says = (
            "NUMBA_DISABLE_JIT is set: rows are compared without compiled kernels, slowly" if off else "kernels compile"
        )
        yield Check("numba kernels", "limited" if off else "ok", says)
    try:
        triton = importlib.import_module("triton")
    except Exception:
        yield Check("triton kernel", "limited", "not installed: models on a GPU are compared by torch, slower")
    else:
        gpu = _has_cuda()
        says = "rows on a GPU are compared there" if gpu else "there is no CUDA device for it; the CPU kernels serve"
        yield Check("triton kernel", "ok", f"{triton.__version__}: {says}")


def places() -> Iterator[Check]:
    """Where files are written."""
    from huggingface_hub import constants

    yield _place("working folder", Path.cwd(), "limited", "give --out and --runs folders elsewhere")
    yield _place("cache of the Hub", Path(constants.HF_HUB_CACHE), "limited", "set HF_HOME to a folder of yours")
    yield _place("temporary folder", Path(tempfile.gettempdir()), "broken", "set TMPDIR to a folder of yours")


def _place(name: str, folder: Path, otherwise: Status, way_out: str) -> Check:
    """Whether a file can be made in a folder, or in the nearest one above it that exists."""
    existing = next(one for one in (folder, *folder.parents) if one.exists())
    try:
        with tempfile.NamedTemporaryFile(dir=existing, prefix=".ks-lottery-"):
            free = shutil.disk_usage(existing).free
    except OSError as error:
        return Check(name, otherwise, f"{folder} cannot be written to ({error.strerror}): {way_out}")
    return Check(name, "ok", f"{folder} can be written to, {data_size(free)} free")


def hub_settings() -> Iterator[Check]:
    """Switches of the Hub's library, and whether there is a token; the token itself is never shown."""
    from huggingface_hub import constants, get_token

    flags = [name for name in _OFFLINE if os.environ.get(name, "").strip().lower() not in _OFF]
    for name in flags:
        yield Check(name, "limited", f"set: {_OFFLINE[name]}")
    if not flags:
        yield Check("offline flags", "ok", f"none of {', '.join(_OFFLINE)} is set")
    address = redacted(constants.ENDPOINT)
    yield Check("address of the Hub", "ok", address)
    if get_token():
        yield Check("token of the Hub", "ok", "there is one (not shown): private repositories and push work if it may")
    else:
        yield Check(
            "token of the Hub",
            "limited",
            "none: public tickets can be pulled, push and private ones need hf auth login",
        )


def worst(checks: Sequence[Check]) -> Status:
    """The worst status of all."""
    order: tuple[Status, ...] = ("broken", "limited", "ok")
    return next(status for status in order if status == "ok" or any(one.status == status for one in checks))


def _has_cuda() -> bool:
    try:
        import torch
    except Exception:
        return False
    return torch.cuda.is_available()


def _one_line(error: BaseException) -> str:
    return redacted(re.sub(r"\s+", " ", f"{type(error).__name__}: {error}"))[:300]
