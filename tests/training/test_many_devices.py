"""Finding and tuning over several processes: DDP and FSDP2 with two on the CPU, as `accelerate launch` starts them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor

from ks_lottery.finders.search import find_ticket, score_units
from ks_lottery.finders.select import TopK
from ks_lottery.ticket.ticket import Ticket
from tests.tiny_models import tiny_llama
from tests.training.workers.launch import accelerate_launch
from tests.training.workers.tickets import KINDS, base_model, train, trained_values

RANKS = (0, 1)
SHARDED = [
    *("--use_fsdp", "--fsdp_version", "2", "--fsdp_auto_wrap_policy", "TRANSFORMER_BASED_WRAP"),
    *("--fsdp_transformer_layer_cls_to_wrap", "LlamaDecoderLayer", "--fsdp_state_dict_type", "FULL_STATE_DICT"),
    *("--fsdp_reshard_after_forward", "true", "--fsdp_cpu_ram_efficient_loading", "false"),
]


def shifted_everywhere() -> torch.nn.Module:
    """A tiny Llama in which every weight moved."""
    model = tiny_llama()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two DDP processes left."""
    folder = tmp_path_factory.mktemp("ddp")
    tiny_llama().save_pretrained(folder / "before", max_shard_size="12KB")
    after = shifted_everywhere()
    after.save_pretrained(folder / "after", max_shard_size="12KB")
    with torch.no_grad():
        after.get_parameter("model.embed_tokens.weight")[50, 1] = float("nan")
    after.save_pretrained(folder / "broken")
    accelerate_launch(["--multi_gpu"], "tests.training.workers.two_processes", folder)
    return folder


@pytest.fixture(scope="module")
def reports(folder: Path) -> list[dict[str, Any]]:
    """What each of them reports."""
    return [json.loads((folder / f"rank-{rank}" / "report.json").read_text(encoding="utf-8")) for rank in RANKS]


@pytest.fixture(scope="module", params=KINDS)
def alone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Tensor]]:
    """A kind of ticket, and what one process trains of it with the batches of two."""
    model = train(request.param, tmp_path_factory.mktemp("alone"), processes=1)
    return request.param, dict(trained_values(model))


def as_saved(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Under the names of an adapter file."""
    return {name.replace(".default", ""): value for name, value in values.items()}


def test_two_processes_exchange_bytes(reports: list[dict[str, Any]]) -> None:
    for report in reports:
        assert (report["processes"], report["backend"]) == (2, "gloo")
        assert report["exchanged"] == ["x", "xxxxxx"]


def test_finding_over_two_processes_is_finding_in_one(folder: Path, reports: list[dict[str, Any]]) -> None:
    expected = find_ticket(folder / "before", folder / "after", "heads", selector=TopK(3))
    scores = score_units(folder / "before", folder / "after", "neurons", "ks")
    for rank, report in zip(RANKS, reports, strict=True):
        found = Ticket.load(folder / f"rank-{rank}" / "ticket")
        assert (found, found.base, found.provenance) == (expected, expected.base, expected.provenance)
        assert bytes.fromhex(report["scores"]) == b"".join(entry.score.tobytes() for entry in scores)


def test_a_nan_in_the_share_of_one_process_is_an_error_in_both(reports: list[dict[str, Any]]) -> None:
    assert reports[1]["refused"].startswith("UnitError: Row 50 of 'model.embed_tokens.weight' after holds 1 NaN")
    assert reports[0]["refused"] == reports[1]["refused"].replace("UnitError: ", "UnitError: On rank 1: ")


def test_a_probe_over_two_processes_is_watched_and_found(folder: Path, reports: list[dict[str, Any]]) -> None:
    assert reports[0]["looks"] == reports[1]["looks"]
    assert [look[:2] for look in reports[0]["looks"]] == [[2, 5.0], [4, 5.0]]
    expected = find_ticket(folder / "probe" / "before", folder / "probe" / "after", selector=TopK(5))
    assert [Ticket.load(folder / f"rank-{rank}" / "probed") for rank in RANKS] == [expected] * 2


def test_both_processes_train_what_one_would(folder: Path, alone: tuple[str, dict[str, Tensor]]) -> None:
    kind, expected = alone
    first, second = (load_file(folder / f"rank-{rank}" / f"{kind}.safetensors") for rank in RANKS)
    assert first.keys() == second.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(first[name], second[name])
        assert float(value.abs().max()) > 0.03
        torch.testing.assert_close(first[name], value, rtol=0, atol=2e-5)


def test_the_first_process_alone_saves(folder: Path, reports: list[dict[str, Any]]) -> None:
    names = [f"{place}/adapter_model.safetensors" for place in ("adapter", "checkpoints/checkpoint-2")]
    assert reports[0]["saved"] == [*names, "checkpoints/checkpoint-4/adapter_model.safetensors"]
    assert reports[1]["saved"] == []


def test_what_was_saved_loads_in_one_process(folder: Path) -> None:
    model = PeftModel.from_pretrained(base_model("mixed"), str(folder / "rank-0" / "adapter"))
    saved = load_file(folder / "rank-0" / "checkpoints" / "checkpoint-4" / "adapter_model.safetensors")
    loaded = as_saved({name: value for name, value in model.named_parameters() if "ks_ticket" in name})
    assert {name for name in saved if "index" not in name} == loaded.keys()
    assert all(torch.equal(saved[name], value) for name, value in loaded.items())


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two FSDP2 processes left."""
    folder = tmp_path_factory.mktemp("fsdp")
    workers = "tests.training.workers"
    accelerate_launch(SHARDED, f"{workers}.fsdp_on_cpu", f"{workers}.sharded", folder)
    return folder


def test_a_sharded_model_trains_what_a_whole_one_does(sharded: Path, alone: tuple[str, dict[str, Tensor]]) -> None:
    kind, expected = alone
    report = json.loads((sharded / "report.json").read_text(encoding="utf-8"))
    assert report["processes"] == 2
    assert report[kind] == {"sharded": True, "classes": ["DTensor"], "moved": []}
    saved = load_file(sharded / kind / "adapter" / "adapter_model.safetensors")
    for name, value in as_saved(expected).items():
        torch.testing.assert_close(saved[name], value, rtol=0, atol=2e-5)


def test_training_a_sharded_model_continues_bit_for_bit(sharded: Path) -> None:
    whole, resumed = (
        load_file(sharded / "mixed" / name / "adapter_model.safetensors") for name in ("adapter", "resumed")
    )
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
