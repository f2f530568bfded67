"""Valid files of every kind that the fuzz targets read, a few kilobytes each, from which the fuzzer starts.

    python -m tests.fuzz.seed_corpus ticket FOLDER

An input of the target `ticket` is a ticket's file. One of the target `adapter` is a bundle of the files of one folder:
a JSON object of name and length of each, a line break, and their contents one after the other.
"""

import io
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save as save_tensors

from ks_lottery.ticket.freeze_pattern import FreezePattern, FrozenCounts
from ks_lottery.ticket.identity import BaseIdentity
from ks_lottery.ticket.seeded_store import write_seeded
from ks_lottery.ticket.ticket import Provenance, Selection, Ticket
from ks_lottery.units.slab import Slab, UnitGroup

SHAPES = {
    "embed.weight": (64, 32),
    "layers.0.proj.weight": (32, 48),
    "layers.0.experts": (4, 8, 6),
    "norm.weight": (32,),
}


def bundle(files: Mapping[str, bytes]) -> bytes:
    """Several files as one input."""
    lengths = json.dumps({name: len(content) for name, content in files.items()})
    return lengths.encode() + b"\n" + b"".join(files.values())


def unbundle(data: bytes) -> dict[str, bytes]:
    """The files of an input; none if it is no bundle."""
    head, _, rest = data.partition(b"\n")
    try:
        lengths = json.loads(head)
        sizes = {str(name): int(length) for name, length in lengths.items()}
    except (ValueError, AttributeError, TypeError, OverflowError, RecursionError):
        return {}
    files, start = {}, 0
    for name, size in sizes.items():
        stop = start + max(0, size)
        files[name] = rest[start:stop]
        start = stop
    return files


def require_short(error: Exception) -> None:
    """A message that names the trouble has no room for a file's content."""
    assert 20 < len(str(error)) < 4000, len(str(error))


def seeds(target: str) -> dict[str, bytes]:
    """Inputs of a target by name."""
    return dict({"ticket": _tickets, "adapter": _adapters}[target]())


def write_seeds(target: str, folder: Path) -> None:
    """Write the inputs of a target, one file each."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in seeds(target).items():
        (folder / name).write_bytes(content)


def a_ticket() -> Ticket:
    """A ticket with groups of every form: rows with columns, a run of columns, single weights, and an expert's."""
    groups = [
        (UnitGroup("input", (Slab("embed.weight", 0),), 64), [3, 5, 63]),
        (UnitGroup("layers.0.heads", (Slab("layers.0.proj.weight", 1, width=12),), 4), [0, 2]),
        (UnitGroup("norm.weight", (Slab("norm.weight", None),), 32), [31]),
        (UnitGroup("layers.0.experts.1", (Slab("layers.0.experts", 1, start=2, lead=(1,)),), 6), [5]),
    ]
    base = BaseIdentity("a base", None, "llama", SHAPES, 10_000, "0" * 64)
    columns = {"input": {"statistic": np.array([0.5, 0.25, 1.0]), "log_p": np.array([-np.inf, -1.0, 0.0])}}
    selections = {g.name: Selection(g, np.array(units), columns.get(g.name, {})) for g, units in groups}
    return Ticket("update", "by_hand", selections, base, Provenance("by hand", {"alpha": 0.05, "of": ["a", None]}))


def _tickets() -> Iterator[tuple[str, bytes]]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "ticket.safetensors"
        a_ticket().save(file)
        yield "whole", file.read_bytes()
        group = UnitGroup("norm.weight", (Slab("norm.weight", None),), 32)
        units = np.arange(0, 32, 2)
        base = BaseIdentity("a base", "abc", "llama", {"norm.weight": (32,)}, 10_000, "0" * 64)
        ticket = Ticket("weight", "weights", {"norm.weight": Selection(group, units)}, base, Provenance("by hand"))
        ticket.save(file)
        yield "small", file.read_bytes()
        pattern = FreezePattern(7, {"norm.weight": FrozenCounts(32, 0, 0)})
        write_seeded(ticket, pattern, file)
        yield "seeded", file.read_bytes()


def _adapters() -> Iterator[tuple[str, bytes]]:
    import torch

    indices, values = np.array([3, 40, 500], np.int64), np.array([0.5, -1.0, 2.0], np.float32)
    fork = "base_model.model.model.layers.0.mlp.up_proj.sft_delta."
    yield (
        "fork",
        bundle(
            {
                "adapter_config.json": json.dumps({"peft_type": "SFT", "target_modules": ["up_proj"]}).encode(),
                "adapter_model.safetensors": save_tensors({f"{fork}indices": indices, f"{fork}values": values}),
            }
        ),
    )
    sparse = torch.sparse_coo_tensor(
        torch.tensor([[0, 5], [3, 4]]), torch.tensor([1.0, 2.0]), (48, 32), check_invariants=True
    )
    steps = {"size": [32], "index_steps": [1, 4, 20], "values": torch.tensor([0.5, 1.0, 2.0])}
    content = io.BytesIO()
    torch.save({"diffs": {"a.weight": sparse, "b.weight": steps}, "abs": {"c.weight": torch.ones(2, 3)}}, content)
    yield "diff", bundle({"pytorch_diff.bin": content.getvalue()})
    rows = "base_model.model.embed.ks_ticket_"
    yield (
        "adapter",
        bundle(
            {
                "adapter_config.json": json.dumps(
                    {"peft_type": "KS_TICKET", "rows": {"embed": 3}, "tied_modules": {"embed": []}, "ticket": "0" * 64}
                ).encode(),
                "adapter_model.safetensors": save_tensors(
                    {f"{rows}index": np.array([3, 40, 63]), f"{rows}delta": np.zeros((3, 32), np.float32)}
                ),
            }
        ),
    )
    weights = {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}
    config = {"model_type": "llama", "tie_word_embeddings": False}
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, "model-1.safetensors")}
    yield (
        "checkpoint",
        bundle(
            {"config.json": json.dumps(config).encode(), "model.safetensors": save_tensors(weights)},
        ),
    )
    yield (
        "sharded",
        bundle(
            {
                "config.json": json.dumps({"model_type": "llava", "text_config": config}).encode(),
                "model.safetensors.index.json": json.dumps(index).encode(),
                "model-1.safetensors": save_tensors(weights),
            }
        ),
    )


if __name__ == "__main__":
    write_seeds(sys.argv[1], Path(sys.argv[2]))
