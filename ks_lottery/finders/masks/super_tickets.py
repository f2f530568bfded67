"""SuperTickets: architecture and weights in one training, whose smallest gates fall and may come back."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np

from ks_lottery.errors import OptionError
from ks_lottery.finders.base import FINDERS, Evidence, UnitScores
from ks_lottery.finders.masks.supernet_search import SupernetRecord, SupernetSearch, relative_costs
from ks_lottery.finders.rounds.levels import trained_parameters
from ks_lottery.finders.rounds.runs import Runs
from ks_lottery.ticket.ticket import Kind
from ks_lottery.units.slab import UnitGroup

_LOG = logging.getLogger(__name__)


@FINDERS.register("super_tickets")
@dataclass(frozen=True)
class SuperTickets:
    """Score = the last event of one training whose mask had the unit, and |gate| among units of the same event.

    One training, in which a gate of 1 multiplies the output of each head and neuron, and one more each sublayer. All of
    them are trained with the weights, under a penalty that is larger for units of more weights and grows to its size
    over the first steps. Every few steps an event draws a mask of the largest gates, and the share that it keeps falls
    by `drop` each time, down to `density` (progressive pruning). What is outside the mask takes no part for a share of
    the steps that follow, `masked`, and then comes back with the values that it had (iterative reactivation): with
    `masked=0` at once, with `masked=1` never. Gates that are dead, they and their moving average, leave for good.

    So one training gives a ticket at each event, of as many costs: `event=3` ranks units by the third, and `Density` of
    its density, 1 - 3 * drop, cuts exactly its mask. `event=0` ranks by all of them: `Density(density)` cuts exactly
    the last mask. The training is made once for all. A share of units is no share of weights, since a head is larger
    than a neuron: `ticket.num_trainable()` counts weights.

    A gate stops at zero where the penalty is larger than the task's gradient. Adam divides the size of a gradient out,
    so gates that the task says nothing of fall alike whatever they cost; where it says something, costs decide. The
    official code removes dead channels from the tensors; here they are held at zero until the end.

    Columns: `gate` at the event, `cost` in weights, `last` event whose mask had the unit, `alive`.

    Granularities: supernet, heads, neurons. One-shot statistics of gates, as in the super tickets of Liang et al.
    2021 (arXiv 2105.12002), are finder `head_importance`.

    Raises:
        OptionError: if an option is out of range.

    Source:
        You et al. 2022, arXiv 2207.03677 (cost-weighted progressive pruning and reactivation of a supernet). Gates of
        transformers, and steps instead of epochs: ours.
    """

    name: ClassVar[str] = "super_tickets"
    citation: ClassVar[str] = (
        "You et al. SuperTickets: Drawing Task-Agnostic Lottery Tickets from Supernets via Jointly Architecture "
        "Searching and Parameter Pruning. ECCV 2022."
    )
    needs: ClassVar[type[Evidence]] = Runs

    kind: Kind = field(
        default="weight", metadata={"help": "weight: the rest is zero; update: the rest stays as it was."}
    )
    density: float = field(default=0.5, metadata={"help": "Share of the units that the last masks keep."})
    drop: float = field(default=0.1, metadata={"help": "Share of all units that each event drops more."})
    every: int = field(default=10, metadata={"help": "Optimizer steps between two events."})
    event: int = field(default=0, metadata={"help": "Event whose ticket is drawn, from 1; 0: ranked by all events."})
    masked: float = field(
        default=0.5, metadata={"help": "Share of the steps up to the next event for which what fell stays out."}
    )
    cost: Literal["weights", "equal"] = field(
        default="weights",
        metadata={"help": "weights: a gate's penalty grows with its unit's weights; equal: all alike."},
    )
    l1: float = field(default=1e-4, metadata={"help": "Weight of the penalty of gates of average cost."})
    warmup: float = field(default=0.1, metadata={"help": "Share of the steps over which the penalty grows."})
    layers: bool = field(default=True, metadata={"help": "Whether each sublayer has a gate, too."})
    gate_rate: float = field(default=10.0, metadata={"help": "How many times as far as weights gates step."})
    threshold: float = field(default=1e-3, metadata={"help": "A gate that, with its average, is no larger is dead."})
    memory: float = field(
        default=0.8, metadata={"help": "Share of that average that a step keeps; the paper's: .9999."}
    )

    def __post_init__(self) -> None:
        for option, fine, wanted in (
            ("kind", self.kind in ("weight", "update"), "be weight or update"),
            ("density", 0.0 < self.density < 1.0, "lie between 0 and 1"),
            ("drop", 0.0 < self.drop < 1.0, "lie between 0 and 1"),
            ("every", self.every >= 1, "be at least 1 optimizer step"),
            ("event", self.event >= 0, "be 0, or the number of an event from 1"),
            ("masked", 0.0 <= self.masked <= 1.0, "lie from 0 to 1"),
            ("cost", self.cost in ("weights", "equal"), "be weights or equal"),
            ("l1", self.l1 >= 0.0, "be at least 0"),
            ("warmup", 0.0 <= self.warmup <= 1.0, "lie from 0 to 1"),
            ("gate_rate", self.gate_rate > 0.0, "be above 0"),
            ("threshold", self.threshold >= 0.0, "be at least 0"),
            ("memory", 0.0 <= self.memory < 1.0, "be at least 0 and below 1"),
        ):
            if not fine:
                raise OptionError(f"Finder 'super_tickets', {option}={getattr(self, option)!r}: must {wanted}.")

    def search(self, groups: Sequence[UnitGroup], evidence: Runs) -> SupernetSearch:
        """The training that is asked for; the same one for every `event`."""
        shapes = {slab.parameter: evidence.base.shape(slab.parameter) for group in groups for slab in group.slabs}
        weights = [group.weights_per_unit(shapes) if self.cost == "weights" else 1 for group in groups]
        return SupernetSearch(
            tuple(groups), trained_parameters(groups, self.kind), relative_costs(groups, weights), self.layers,
            self.every, self.drop, self.density, self.masked, self.l1, round(self.warmup * evidence.steps),
            self.gate_rate, self.threshold, self.memory,
        )  # fmt: skip

    def score(self, groups: Sequence[UnitGroup], evidence: Evidence) -> Iterator[UnitScores]:
        """Score every unit.

        Raises:
            OptionError: if a training has fewer events than are asked for.
            UnitError: if the units are no heads or neurons.
            DataError: if a gate becomes NaN or infinite.

        Cost:
            One training. Memory: a copy of what is outside the mask.
        """
        assert isinstance(evidence, Runs)
        events = evidence.steps // self.every
        if events < max(1, self.event):
            raise OptionError(
                f"Finder 'super_tickets' draws one ticket every {self.every} steps, and event {max(1, self.event)} is "
                f"asked for, but a training of {evidence.steps} steps has {events}. Lower every or event, or train "
                "longer."
            )
        search = self.search(groups, evidence)
        record = evidence.train_supernet(search)
        reached = search.density_at(events)
        if not self.event and reached > self.density:
            _LOG.warning(
                "super_tickets: %d events of %d steps reach a density of %g, not %g; below it units are ranked by "
                "their gates at the end.", events, self.every, reached, self.density,
            )  # fmt: skip
        yield from self._entries(search, record, evidence)

    def _entries(self, search: SupernetSearch, record: SupernetRecord, evidence: Runs) -> Iterator[UnitScores]:
        which = (self.event or len(record.at)) - 1
        score = record.event_scores(self.event) if self.event else record.scores()
        flat = {"gate": record.gates[which], "last": record.last_kept(), "alive": record.alive[which]}
        columns = {name: search.split(values.astype(np.float64)) for name, values in flat.items()}
        for number, (group, own) in enumerate(zip(search.groups, search.split(score), strict=True)):
            shapes = {slab.parameter: evidence.base.shape(slab.parameter) for slab in group.slabs}
            cost = np.full(group.num_units, float(group.weights_per_unit(shapes)))
            mine = {name: values[number] for name, values in columns.items()}
            yield UnitScores(group, own, np.ones(group.num_units, dtype=bool), {**mine, "cost": cost})
