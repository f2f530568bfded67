"""A task whose answer is known: a teacher that differs from the base model in a few token rows, and nothing else."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch

from ks_lottery.evaluation.comparison.plan import Plan, read_plan
from ks_lottery.finders.base import Evidence, UnitScores
from ks_lottery.ticket.ticket import Kind
from ks_lottery.units.slab import UnitGroup
from tests.tiny_models import shifted, tiny_llama

TOKENS = 24
PLANTED = (5, 11, 17)
LENGTH = 8
BUDGET = {"steps": 10, "batch_size": 8, "dense_rates": [0.01], "probe_rate": 0.01, "ticket_rates": [0.2], "batches": 2}


def base_model() -> Any:
    """A random Llama that is sure of what it predicts, mostly from the last token."""
    model = tiny_llama(vocabulary=TOKENS)
    with torch.no_grad():
        model.lm_head.weight *= 30
        model.model.embed_tokens.weight *= 10
    return model


class PlantedTask:
    """Predict what the teacher predicts; the score is the share of tokens where student and teacher agree.

    Args:
        rows: in which the teacher differs.
        seed: of the texts.
    """

    metric = "agreement"

    def __init__(self, name: str = "planted", rows: Sequence[int] = PLANTED, seed: int = 0, texts: int = 48) -> None:
        self.name, self.rows = name, list(rows)
        generator = torch.Generator().manual_seed(seed)
        self.texts = torch.randint(3, TOKENS, (texts + 32, LENGTH), generator=generator)
        self.teacher = shifted(base_model(), self.rows, size=3.0).eval()
        with torch.no_grad():
            self.logits = self.teacher(self.texts).logits
        self.order: list[list[tuple[int, ...]]] = []  # per training, the first tokens of each batch

    @property
    def digest(self) -> str:
        return hashlib.sha256(f"{self.rows} {self.texts.tolist()}".encode()).hexdigest()

    @property
    def examples(self) -> list[dict[str, torch.Tensor]]:
        labels = torch.full((len(self.texts), LENGTH), -100)
        labels[:, 1:] = self.logits.argmax(-1)[:, :-1]
        return [{"input_ids": text, "labels": label} for text, label in zip(self.texts, labels, strict=True)][:-32]

    def collator(self, rows: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        self.order[-1].append(tuple(int(row["input_ids"][0] * 100 + row["input_ids"][1]) for row in rows))
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def load_model(self) -> Any:
        self.order.append([])
        return base_model()

    @torch.no_grad()
    def score(self, model: Any, split: str = "test") -> dict[str, float]:
        part = slice(-32, -16) if split == "dev" else slice(-16, None)
        same = model.eval()(self.texts[part]).logits.argmax(-1) == self.logits[part].argmax(-1)
        return {"agreement": 100 * float(same.float().mean())}

    def token_counts(self) -> np.ndarray:
        return np.bincount(self.texts[:-32].reshape(-1).numpy(), minlength=TOKENS)


@dataclass(frozen=True)
class Oracle:
    """Scores the planted rows above all others."""

    name: ClassVar[str] = "oracle"
    citation: ClassVar[str] = "None: a test of the harness."
    needs: ClassVar[type[Evidence]] = Evidence

    kind: Kind = "update"
    rows: tuple[int, ...] = PLANTED

    def score(self, groups: Sequence[UnitGroup], evidence: Evidence) -> Iterator[UnitScores]:
        for group in groups:
            score = np.isin(np.arange(group.num_units), self.rows).astype(float)
            yield UnitScores(group, score, np.ones(group.num_units, dtype=bool))


@dataclass(frozen=True)
class Dice:
    """Scores by chance, with draws other than those of the finder `random`."""

    name: ClassVar[str] = "dice"
    citation: ClassVar[str] = "None: a test of the harness."
    needs: ClassVar[type[Evidence]] = Evidence

    kind: Kind = "update"
    seed: int = field(default=0)

    def score(self, groups: Sequence[UnitGroup], evidence: Evidence) -> Iterator[UnitScores]:
        generator = np.random.default_rng([self.seed, 77])
        for group in groups:
            yield UnitScores(group, generator.random(group.num_units), np.ones(group.num_units, dtype=bool))


@dataclass(frozen=True)
class Broken:
    """Crashes, as long as it is told to."""

    name: ClassVar[str] = "broken"
    citation: ClassVar[str] = "None: a test of the harness."
    needs: ClassVar[type[Evidence]] = Evidence
    crashes: ClassVar[bool] = True

    kind: Kind = "update"

    def score(self, groups: Sequence[UnitGroup], evidence: Evidence) -> Iterator[UnitScores]:
        if type(self).crashes:
            raise ZeroDivisionError("an accident\nin two lines")
        yield from Oracle(self.kind).score(groups, evidence)


def planted_plan(finders: Sequence[Any], tasks: Sequence[str] = ("planted",), **changes: Any) -> Plan:
    """A comparison of token rows at the density of the planted ones."""
    budget = {**BUDGET, **changes.pop("budget", {})}
    table = {"units": "token_rows", "densities": [len(PLANTED) / TOKENS], "finders": list(finders)}
    table |= changes.pop("table", {})
    tasks_of = {name: {"kind": "planted"} for name in tasks}
    return read_plan({"tasks": tasks_of, "tables": [table], "replicates": [0, 1], "budget": budget, **changes})
