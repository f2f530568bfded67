"""Pickles beside a ticket, an adapter or a checkpoint are never opened, and nothing here writes one."""

import io
import pickle
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM

from ks_lottery.adapter.importers import import_sft
from ks_lottery.checkpoints.reader import open_checkpoint
from ks_lottery.errors import AdapterError, CheckpointError
from ks_lottery.finders.search import find_ticket
from ks_lottery.finders.select import TopK
from ks_lottery.ticket.ticket import Ticket
from tests.adapter.tickets import make_ticket, saved_llama, tuned
from tests.fuzz.seed_corpus import a_ticket
from tests.safety.files import malicious_pickle
from tests.tiny_models import shifted, tiny_llama

NAMES = (
    "pytorch_model.bin", "adapter_model.bin", "model.bin", "ticket.bin", "ticket.pkl", "ticket.pt", "training_args.bin",
    "optimizer.pt", "scheduler.pt", "rng_state.pth", "model.ckpt", "ticket.safetensors.pkl",
)  # fmt: skip
_opened: list[str] | None = None


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and _opened is not None:
        _opened.append(str(arguments[0]))


sys.addaudithook(_note)


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """Every path that is opened during the test."""
    global _opened
    _opened = []
    yield _opened
    _opened = None


def plant(folder: Path) -> Path:
    """Put pickles of every usual name into a folder; the path of what loading one of them would make."""
    mark = folder.parent / "ran"
    for name in NAMES:
        (folder / name).write_bytes(malicious_pickle(mark))
    return mark


def assert_untouched(opened: list[str], mark: Path) -> None:
    assert len(opened) > 0
    assert [path for path in opened if Path(path).name in NAMES] == []
    assert not mark.exists()


def test_the_payload_does_what_it_is_said_to_do(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    mark = plant(tmp_path / "folder")
    pickle.loads((tmp_path / "folder" / "ticket.pt").read_bytes())
    assert mark.is_dir()


def test_a_ticket_is_read_past_them(tmp_path: Path, opened: list[str]) -> None:
    a_ticket().save(tmp_path / "ticket")
    mark = plant(tmp_path / "ticket")
    opened.clear()
    assert Ticket.from_pretrained(tmp_path / "ticket") == a_ticket()
    assert_untouched(opened, mark)


def test_checkpoints_are_compared_past_them(tmp_path: Path, opened: list[str]) -> None:
    for name, model in (("before", tiny_llama()), ("after", shifted(tiny_llama(), [7, 3]))):
        model.save_pretrained(tmp_path / name)
        mark = plant(tmp_path / name)
    opened.clear()
    ticket = find_ticket(before=str(tmp_path / "before"), after=str(tmp_path / "after"), selector=TopK(2))
    assert ticket.indices["input"].tolist() == [3, 7]
    assert_untouched(opened, mark)


def test_an_adapter_is_read_past_them(tmp_path: Path, opened: list[str]) -> None:
    base = saved_llama(tmp_path)
    model = tuned(AutoModelForCausalLM.from_pretrained(base), "input")
    model.save_pretrained(tmp_path / "adapter")
    mark = plant(tmp_path / "adapter")
    opened.clear()
    again = AutoPeftModelForCausalLM.from_pretrained(str(tmp_path / "adapter"))
    assert torch.equal(
        again.state_dict()["base_model.model.model.embed_tokens.ks_ticket_delta.default"],
        model.state_dict()["base_model.model.model.embed_tokens.ks_ticket_delta.default"],
    )
    assert_untouched(opened, mark)


def test_a_checkpoint_of_pickles_alone_is_refused_unopened(tmp_path: Path, opened: list[str]) -> None:
    tiny_llama().save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    mark = plant(tmp_path / "model")
    opened.clear()
    with pytest.raises(CheckpointError, match="holds only pickled weights"):
        open_checkpoint(tmp_path / "model")
    assert_untouched(opened, mark)


@pytest.mark.parametrize("name", ["pytorch_diff.bin", "adapter_model.bin"])
def test_an_importer_runs_no_code(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "foreign"
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"peft_type": "SFT"}')
    (folder / name).write_bytes(malicious_pickle(tmp_path / "ran"))
    with pytest.raises(CheckpointError, match="cannot be read without running code"):
        import_sft(folder, tiny_llama())
    archived = io.BytesIO()
    torch.save({"diffs": {}}, archived)
    with zipfile.ZipFile(archived) as archive:
        parts = {part: archive.read(part) for part in archive.namelist()}
    with zipfile.ZipFile(folder / name, "w") as archive:
        for part, content in parts.items():
            archive.writestr(part, malicious_pickle(tmp_path / "ran") if part.endswith("data.pkl") else content)
    with pytest.raises(CheckpointError, match="cannot be read without running code"):
        import_sft(folder, tiny_llama())
    assert not (tmp_path / "ran").exists()


def saved(folder: Path, content: object) -> Path:
    torch.save(content, folder / "pytorch_diff.bin")
    return folder / "pytorch_diff.bin"


def test_an_importer_unpacks_no_bomb(tmp_path: Path) -> None:
    file = saved(tmp_path, {"diffs": {"a": torch.zeros(1_000_000)}})
    with zipfile.ZipFile(file) as archive:
        parts = {part: archive.read(part) for part in archive.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for part, content in parts.items():
            archive.writestr(part, content)
    assert file.stat().st_size < 10_000
    with pytest.raises(CheckpointError, match=r"is a zip archive of \d+ bytes whose \d+ parts unpack to 40\d+, and"):
        import_sft(file, tiny_llama())
    file.write_bytes(b"PK\x05\x06" + b"\xff" * 18)
    with pytest.raises(CheckpointError, match="cannot be read|is a damaged zip archive"):
        import_sft(file, tiny_llama())


NORM = "model.norm.weight"


def sparse(position: int, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.sparse_coo_tensor(torch.tensor([[position]]), torch.ones(1), shape, check_invariants=False)


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ({"diffs": {NORM: sparse(10**6, (32,))}}, CheckpointError, "cannot be read without running code"),
        ({"diffs": {}, "abs": {NORM: sparse(10**6, (32,))}}, CheckpointError, "cannot be read without running code"),
        ({"diffs": {NORM: sparse(0, (2**62,))}}, AdapterError, r"but it has shape \(4611686018427387904,\)"),
        ({"diffs": {NORM: sparse(3, (32,))}, "abs": {NORM: sparse(0, (2**40,))}}, AdapterError, "it has shape"),
        (
            {"diffs": {NORM: {"size": [2**40, 2**40], "index_steps": [1], "values": torch.ones(1)}}},
            CheckpointError,
            "holds values that no sparse fine-tuning has",
        ),
        ({"diffs": {NORM: {"size": 3, "index_steps": [1], "values": torch.ones(1)}}}, CheckpointError, "no sparse"),
        (
            {"diffs": {NORM: {"size": [32], "index_steps": ["x"], "values": torch.ones(1)}}},
            CheckpointError,
            "no sparse",
        ),
        ({"diffs": {NORM: {"size": [32], "index_steps": [40], "values": torch.ones(1)}}}, CheckpointError, "from 40"),
        ({"diffs": {NORM: torch.ones(32, dtype=torch.int64)}}, CheckpointError, "must be integers and floats"),
    ],
)
def test_an_importer_checks_shapes_before_it_uses_them(
    content: object, error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        import_sft(saved(tmp_path, content), tiny_llama())


def test_what_is_saved_is_safetensors_json_and_text(tmp_path: Path) -> None:
    make_ticket(tiny_llama(), "input").save(tmp_path / "ticket")
    tuned(tiny_llama(), "input").save_pretrained(tmp_path / "adapter")
    endings = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert endings == {".safetensors", ".json", ".md"}
