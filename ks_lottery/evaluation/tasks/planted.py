"""Tasks whose best ticket is known, because it was planted."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch

from ks_lottery.checkpoints.reader import open_checkpoint
from ks_lottery.errors import OptionError
from ks_lottery.evaluation.tasks.base import TASKS, count_tokens
from ks_lottery.evaluation.tasks.planted_hosts import LENGTH, VOCABULARY, host_perceptron, host_transformer
from ks_lottery.theory.planted_targets import TARGETS
from ks_lottery.theory.planted_update import PlantedUnits, plant_units
from ks_lottery.theory.planting import parameters, plant
from ks_lottery.theory.relu_network import mother_network
from ks_lottery.ticket.identity import identify
from ks_lottery.ticket.ticket import Kind, Ticket
from ks_lottery.units.granularity import GRANULARITIES, Granularity

TRANSFORMER = "transformer"
_HELD = {"dev": 256, "test": 512}


@dataclass
class PlantedTask:
    """Learning what a planted ticket computes.

    Attributes:
        name: as tables call it.
        fresh: makes the base model, on the CPU.
        units: what is planted.
        planted: which of them.
        data: name to [examples, ...] tensor of the forward pass; the last 768 examples are held out.
        nothing: loss of a model that has learnt nothing.
        metric: share of `nothing` that a model has learnt away, in percent.
    """

    name: str
    fresh: Callable[[], Any]
    units: Granularity
    planted: PlantedUnits
    data: Mapping[str, torch.Tensor]
    nothing: float
    metric: str = "fit"

    def __post_init__(self) -> None:
        self.collator: Any = _stacked

    @cached_property
    def digest(self) -> str:
        """Hex digest of the base model, of the planted units and of the data."""
        base = open_checkpoint(self.fresh())
        digest = hashlib.sha256(repr((identify(base, base.names()).digest, self.truth.fingerprint)).encode())
        for name, values in self.data.items():
            digest.update(f"{name} {tuple(values.shape)}".encode())
            digest.update(values.numpy().tobytes())
        return digest.hexdigest()

    @cached_property
    def truth(self) -> Ticket:
        """The planted ticket."""
        return self.planted.ticket(open_checkpoint(self.fresh()), self.units.name)

    @cached_property
    def examples(self) -> list[dict[str, torch.Tensor]]:
        """Training examples."""
        columns = [values[: -sum(_HELD.values())] for values in self.data.values()]
        return [dict(zip(self.data, row, strict=True)) for row in zip(*columns, strict=True)]

    def load_model(self) -> Any:
        """A fresh copy of the base model."""
        return self.fresh().to(torch.accelerator.current_accelerator() or "cpu")

    def holding(self, ticket: Ticket) -> Any:
        """The base model with what is planted at a ticket's units, and without training.

        Of an update ticket these units move as the teacher's do, if they are planted, and nothing else moves. Of a
        weight ticket everything else is zero.

        Raises:
            TicketError: if the ticket is not over the units of this task.
        """
        self.truth.same_units(ticket)
        model = self.load_model()
        self.planted.teach(model, ticket.indices)
        return model

    @torch.no_grad()
    def score(self, model: Any, split: str = "test") -> dict[str, float]:
        """Loss, the share of the loss of ignorance that is gone, and of classes the accuracy; shares in percent."""
        stop = len(next(iter(self.data.values()))) - (_HELD["test"] if split == "dev" else 0)
        device = next(model.parameters()).device
        batch = {name: values[stop - _HELD[split] : stop].to(device) for name, values in self.data.items()}
        outputs = model.eval()(**batch)
        loss = float(outputs.loss)
        scores = {"fit": 100.0 * (1.0 - loss / self.nothing), "loss": loss}
        if not batch["labels"].is_floating_point():
            scores["accuracy"] = 100.0 * float((outputs.logits.argmax(-1) == batch["labels"]).float().mean())
        return scores

    def token_counts(self) -> np.ndarray:
        """[rows of the input embedding] int64, how often the training texts use each token.

        Raises:
            OptionError: if the host reads no tokens.
        """
        if "input_ids" not in self.data:
            raise OptionError(f"The task {self.name!r} has numbers for inputs, and no tokens. Choose other units.")
        return count_tokens(self.examples, VOCABULARY)


@TASKS.register("planted")
@dataclass(frozen=True)
class Planted:
    """A task whose best ticket is known.

    A perceptron holds a small network, a weight ticket over all of its weights and biases. A transformer has a teacher
    that differs from it in planted units: an update ticket; or that has nothing but them: a weight ticket.

    Attributes:
        host: relu, circle or helix, a perceptron that holds a network for that task; or transformer, a tiny GPT-2.
        kind: of a transformer's ticket: update or weight.
        units: granularity of a transformer's ticket.
        only: patterns of its unit groups, with spaces between them; all groups if empty.
        count: planted units of a transformer; by `density` if None.
        density: planted share of the units of a transformer.
        size: by how much a planted weight of an update moves, up or down.
        seed: of weights, planting and data.
        examples: to train on; 768 more are held out.
        width: of hidden layers or hidden states; 100 of a perceptron and 32 of a transformer if None.
        depth: layers; 3 of a perceptron and 2 of a transformer if None.

    Source:
        Fischer & Burkholz 2022, arXiv 2111.11153, for perceptrons; update tickets: ours.
    """

    host: str = TRANSFORMER
    kind: str = "update"
    units: str = "neurons"
    only: str = ""
    count: int | None = None
    density: float = 0.05
    size: float = 0.3
    seed: int = 0
    examples: int = 4096
    width: int | None = None
    depth: int | None = None

    def task(self, name: str) -> PlantedTask:
        """Plant.

        Raises:
            OptionError: if the host is unknown, there are no examples, or as `plant_units` and the targets.
            UnknownNameError: if the granularity is unknown.
            UnitError: if the host is too narrow for the target, or has fewer units than are to be planted.
        """
        if self.host not in (TRANSFORMER, *TARGETS):
            raise OptionError(
                f"The task {name!r}, host: {self.host!r}: must be {TRANSFORMER} or one of {', '.join(TARGETS)}."
            )
        if self.examples < 1:
            raise OptionError(f"The task {name!r}, examples: {self.examples}: draw at least 1.")
        return self._in_transformer(name) if self.host == TRANSFORMER else self._in_perceptron(name)

    def _in_perceptron(self, name: str) -> PlantedTask:
        target, depth, width = TARGETS[self.host], self.depth or 3, self.width or 100
        network = target.network(depth)
        widths = (target.inputs, *[width] * (depth - 1), target.outputs)
        found = plant(network, mother_network(widths, np.random.default_rng([self.seed, 0])))
        units = _granularity("weights", "*")
        groups = units.groups(open_checkpoint(host_perceptron(found.host)).layout())
        masks = {parameter: mask for parameter, _, mask in parameters(found)}
        indices = {group.name: np.flatnonzero(masks[group.name]) for group in groups}
        x, labels = target.data(self.examples + sum(_HELD.values()), np.random.default_rng([self.seed, 3]))
        data = {
            "x": torch.from_numpy(x).float(),
            "labels": torch.from_numpy(labels) if target.classes else torch.from_numpy(labels).float(),
        }
        planted = PlantedUnits(tuple(groups), indices, "weight", {}, self.seed)
        return PlantedTask(name, lambda: host_perceptron(found.host), units, planted, data, _ignorance(labels))

    def _in_transformer(self, name: str) -> PlantedTask:
        def fresh() -> Any:
            return host_transformer(self.seed, self.depth or 2, self.width or 32)

        model, units = fresh(), _granularity(self.units, self.only)
        base = open_checkpoint(model)
        groups = units.groups(base.layout())
        total = sum(group.num_units for group in groups)
        count = max(1, round(self.density * total)) if self.count is None else self.count
        shapes = {parameter: base.shape(parameter) for parameter in base.names()}
        planted = plant_units(groups, shapes, count, self.seed, self.size, cast(Kind, self.kind))
        generator = np.random.default_rng([self.seed, 3])
        texts = torch.from_numpy(generator.integers(0, VOCABULARY, (self.examples + sum(_HELD.values()), LENGTH)))
        teacher = fresh()
        planted.teach(teacher)
        with torch.no_grad():
            labels = torch.cat([teacher.eval()(some).logits for some in texts.split(1024)])
            nothing = model.eval()(texts[-_HELD["test"] :], labels=labels[-_HELD["test"] :]).loss
        return PlantedTask(name, fresh, units, planted, {"input_ids": texts, "labels": labels}, float(nothing))


def _stacked(rows: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def _granularity(name: str, only: str) -> Granularity:
    """A granularity with patterns, if it takes any."""
    entry: Any = GRANULARITIES.get(name)
    if only and "only" not in entry.__dataclass_fields__:
        raise OptionError(f"only: {only!r}: units={name!r} takes no patterns. Leave them out.")
    return cast(Granularity, entry(only=tuple(only.split())) if only else entry())


def _ignorance(labels: np.ndarray) -> float:
    """Loss of the best constant: the entropy of classes, or the variance of numbers."""
    if labels.dtype.kind == "f":
        return float(labels.var(axis=0).mean())
    shares = np.bincount(labels) / len(labels)
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum())
