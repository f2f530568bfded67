"""How often the paper's rule rejects where nothing was learnt: two seeds, weight decay, rounding, tied heads."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ks_lottery.checkpoints.reader import open_checkpoint
from ks_lottery.stats.comparison import compare_rows
from ks_lottery.stats.pvalues import log_p_values
from ks_lottery.training.probe import probe
from ks_lottery.training.shared_prefix import shared_prefix
from replication.laboratory import Laboratory
from replication.methods import training_arguments
from replication.shift import RowShift

DECAYS = (0.01, 0.03, 0.1, 0.3, 1.0)
"""Sums of learning rate times weight decay over a training."""
LEVELS = (0.05, 0.5, 0.95)


def counted(d: np.ndarray, p: np.ndarray, rows: np.ndarray) -> dict[str, Any]:
    """How many of the given rows pass each level, and how large D is among them.

    Args:
        d: [all rows] KS statistic.
        p: [all rows] p-value.
        rows: which rows are counted.
    """
    passing = {f"below_{level:g}": int((p[rows] < level).sum()) for level in LEVELS}
    bonferroni = int((p[rows] < 0.05 / max(1, len(rows))).sum())
    largest = {"median_d": float(np.median(d[rows])), "largest_d": float(d[rows].max())} if len(rows) else {}
    return {"rows": len(rows), **passing, "bonferroni": bonferroni, **largest}


def compared(one: torch.Tensor, other: torch.Tensor, among: np.ndarray | None = None) -> dict[str, Any]:
    """Count the rows of two tables that the test tells apart, among those that differ or the given ones."""
    d, p, changed = _tested(one, other)
    return counted(d, p, np.flatnonzero(changed) if among is None else among)


def between_seeds(lab: Laboratory, direction: str, folder: Path) -> dict[str, Any]:
    """Two probes of the same base that differ in their seed, compared with each other and with the base."""
    del folder
    seeds = lab.setting.seeds
    tables = {seed: _rows(lab.folder(direction, seed, "embed") / "probe" / "after") for seed in seeds}
    shifts = {seed: RowShift.load(lab.folder(direction, seed, "embed")) for seed in seeds}
    pairs, kept = {}, {}
    for number, one in enumerate(seeds):
        for other in seeds[number + 1 :]:
            d, p, _ = _tested(tables[one], tables[other])
            both = np.flatnonzero(shifts[one].changed & shifts[other].changed)
            pairs[f"{one} and {other}"] = counted(d, p, both)
            beyond = np.minimum(shifts[one].d, shifts[other].d)[both] > d[both]
            kept[f"{one} and {other}"] = int(beyond.sum())
    with_base = {str(seed): counted(s.d, s.p, np.flatnonzero(s.changed)) for seed, s in shifts.items()}
    return {"between": pairs, "with_base": with_base, "shift_beyond_seeds": kept}


def rounding(lab: Laboratory, direction: str, folder: Path) -> dict[str, Any]:
    """Each probe's end and the same rounded to bfloat16; and base and rounded end beside base and end."""
    del folder
    result = {}
    for seed in lab.setting.seeds:
        ends = lab.folder(direction, seed, "embed") / "probe"
        before, after = _rows(ends / "before"), _rows(ends / "after")
        rounded = after.bfloat16().float()
        result[str(seed)] = {"alone": compared(after, rounded), "with_base": compared(before, rounded)}
    return {"rounding": result}


def weight_decay(lab: Laboratory, direction: str, folder: Path) -> dict[str, Any]:
    """The base model's rows after AdamW's decay without any gradient."""
    del folder
    table = lab.bench(direction).base().get_input_embeddings().weight.detach().clone()
    steps = 200
    result = {}
    for total in DECAYS:
        parameter = torch.nn.Parameter(table.clone())
        optimizer = torch.optim.AdamW([parameter], lr=total / steps, weight_decay=1.0)
        parameter.grad = torch.zeros_like(parameter)
        for _ in range(steps):
            optimizer.step()
        result[f"{total:g}"] = compared(table, parameter.detach())
    return {"decay": result}


def tied_heads(lab: Laboratory, direction: str, seed: int, folder: Path) -> dict[str, Any]:
    """Embed tuning with a head of its own, and with the head tied to the embedding: rows that no text used.

    The tied model is the base with its head replaced by its embedding, tuned as a whole first, so that it is a
    language model again when its probe begins.
    """
    bench = lab.bench(direction)
    rate = lab.cells.result(lab.best(direction, seed, "embed"))["rate"]
    healing = lab.cells.result(lab.best(direction, seed, "full"))["rate"]
    model = bench.base()
    config = copy.deepcopy(model.config)
    config.tie_word_embeddings = True
    tied = type(model)(config)
    tied.load_state_dict({name: value for name, value in model.state_dict().items() if "lm_head" not in name}, False)
    tied.tie_weights()
    unused = np.flatnonzero(bench.counts(seed).training == 0)
    for stage, scope, stage_rate in (("healed", "full", healing), ("probed", "embedding", rate)):
        arguments = training_arguments(bench, seed, stage_rate, folder / stage)
        with shared_prefix(tied):
            probe(tied, bench.examples(seed), folder / stage, scope, arguments, bench.tokenizer, bench.collator)
    places = {"tied": folder / "probed", "own_head": lab.folder(direction, seed, "embed") / "probe"}
    result: dict[str, Any] = {"unused_rows": len(unused)}
    for name, place in places.items():
        before, after = _rows(place / "before"), _rows(place / "after")
        moved = int((before != after).any(dim=1).numpy()[unused].sum())
        result[name] = {**compared(before, after, unused), "moved": moved}
    return result


def _tested(one: torch.Tensor, other: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """D, p, and whether any bit differs, of each row of two tables."""
    width = one.shape[1]
    found = compare_rows(one.numpy(), other.numpy())
    assert found.statistic is not None
    return found.statistic / width, np.exp(log_p_values(found.statistic, width)), found.changed


def _rows(folder: Path) -> torch.Tensor:
    """[vocabulary, width] float32 token rows of a checkpoint."""
    checkpoint = open_checkpoint(folder)
    (name,) = (name for name in checkpoint.names() if name.endswith("embed_tokens.weight"))
    return checkpoint.rows(name).float()
