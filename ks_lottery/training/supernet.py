"""Training a supernet: gates on heads, neurons and sublayers, whose smallest fall and come back; a stock Trainer."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from ks_lottery.checkpoints.writer import atomic_folder, write_json
from ks_lottery.errors import OptionError
from ks_lottery.finders.masks.supernet_search import SupernetRecord, SupernetSearch
from ks_lottery.training.gated import require_finite_gates, with_gates
from ks_lottery.training.scope import only_trainable
from ks_lottery.units.gates import Gates
from ks_lottery.units.slab import UnitGroup

_LAYER_GATES = "layer_gate_biases"  # the Trainer decays no parameter whose name says bias
_FILE = "supernet.safetensors"


def train_supernet(
    model: Any,
    search: SupernetSearch,
    trained: Mapping[str, torch.nn.Parameter],
    arguments: TrainingArguments,
    dataset: Any,
    collator: Any = None,
) -> SupernetRecord:
    """Train a model with gates to the end, and draw a ticket at each event.

    Args:
        model: a transformers model; left with trained weights, into which the gates are folded: dead units are zero.
        search: what is gated, and when masks are drawn.
        trained: parameters of the model that train beside the gates, by name.
        arguments: of the Trainer.
        dataset: training examples.
        collator: of the Trainer; None: its own.

    Raises:
        UnitError: if the units have no gates in this model.
        OptionError: for float16 without clipping, where gradients are still scaled when the penalty is added.
        DataError: if a gate becomes NaN or infinite.

    Cost:
        One training; beside it a copy of the weights outside the mask, written back after each step.
    """
    if arguments.fp16 and not arguments.max_grad_norm:
        raise OptionError(
            "A supernet trains with fp16=True and max_grad_norm=0, so that gradients are still scaled when the penalty "
            "of the gates joins them. Use bf16=True, or a max_grad_norm above 0."
        )
    places = Gates(model, search.groups)
    with with_gates(model, search.groups) as gates, with_layer_gates(model, search.groups) as layers:
        training = SupernetTraining(search, gates, layers if search.layers else [], dict(model.named_parameters()))
        named = {f"gates.{number}": gate for number, gate in enumerate(training.parameters)}
        alive = {group.name: mask for group, mask in zip(search.groups, training.present, strict=True)}
        with places.installed(alive), only_trainable(model, {**trained, **named}):
            trainer = Trainer(
                model=model, args=arguments, train_dataset=dataset, data_collator=collator, callbacks=[training]
            )
            trainer.remove_callback(PrinterCallback)
            trainer.train()
            ends = training.ends()
    places.fold({group.name: end for group, end in zip(search.groups, ends, strict=True)})
    return training.record(trainer.state.global_step)


@contextlib.contextmanager
def with_layer_gates(model: torch.nn.Module, groups: Sequence[UnitGroup]) -> Iterator[list[torch.nn.Parameter]]:
    """A gate of 1 for each group, which scales all that its output projection reads; afterwards both are gone."""
    device = next(model.parameters()).device
    gates = torch.nn.ParameterList([torch.ones(1, device=device) for _ in groups])
    model.register_module(_LAYER_GATES, gates)
    with contextlib.ExitStack() as hooks:
        hooks.callback(delattr, model, _LAYER_GATES)
        for group, gate in zip(groups, gates, strict=True):
            module = model.get_submodule(group.slabs[-1].parameter.rpartition(".")[0])
            hooks.callback(module.register_forward_pre_hook(partial(_scale, gate)).remove)
        yield list(gates)


def _scale(gate: torch.Tensor, _: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return (inputs[0] * gate.to(inputs[0]), *inputs[1:])


class HeldUnits:
    """Units that take no part for a while: their weights and gates are put back after every optimizer step.

    Nothing is set to zero, so that they are as they were when they come back.

    Args:
        groups: all units.
        out: per group, [num_units] bool; the units that are held.
        parameters: of the model, by name.
        gates: of the groups.
    """

    def __init__(
        self,
        groups: Sequence[UnitGroup],
        out: Sequence[np.ndarray],
        parameters: Mapping[str, torch.nn.Parameter],
        gates: Sequence[torch.nn.Parameter],
    ) -> None:
        self._values = []
        for group, mask in zip(groups, out, strict=True):
            units = np.flatnonzero(mask)
            for slab in group.slabs if len(units) else ():
                values = parameters[slab.parameter]
                if values.requires_grad:
                    self._values.append((slab, values, units, slab.take(values.detach(), units).clone()))
        self._gates = [
            (gate, torch.from_numpy(mask).to(gate.device), gate.detach().clone())
            for gate, mask in zip(gates, out, strict=True)
        ]

    @torch.no_grad()
    def put_back(self) -> None:
        """Undo what the optimizer did to them."""
        for slab, values, units, rows in self._values:
            slab.put(values, units, rows)
        for gate, mask, value in self._gates:
            gate.copy_(torch.where(mask, value, gate))


class SupernetTraining(TrainerCallback):
    """Steps and penalties of gates, and the events at which masks are drawn.

    A gate that a step would carry across zero stops there, and leaves zero only where the task's gradient is larger
    than the penalty's: without this, gates would jump to and fro around zero by the size of their steps.

    Args:
        search: what is asked for.
        gates: of its groups, one parameter [num_units] each.
        layers: of its groups, one parameter [1] each; none where sublayers have no gates.
        parameters: of the model, by name.

    Attributes:
        present: per group, [num_units] float32: 1, and 0 while a unit takes no part; what its gate is multiplied by.
    """

    def __init__(
        self,
        search: SupernetSearch,
        gates: Sequence[torch.nn.Parameter],
        layers: Sequence[torch.nn.Parameter],
        parameters: Mapping[str, torch.nn.Parameter],
    ) -> None:
        self._search, self._gates, self._layers, self._parameters = search, gates, layers, parameters
        self.present = [torch.ones_like(gate, requires_grad=False) for gate in gates]
        self._alive = np.ones(search.num_units, dtype=bool)
        self._mask = np.ones(search.num_units, dtype=bool)
        self._average = np.ones(search.num_units)
        self._held: HeldUnits | None = None
        self._before: list[torch.Tensor] = []
        self._still: list[torch.Tensor] = []
        self._events: list[tuple[int, np.ndarray, np.ndarray, np.ndarray]] = []

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """All gates."""
        return [*self._gates, *self._layers]

    @torch.no_grad()
    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Add the penalty's gradient, behind the clipping, and remember where the step of the gates begins."""
        self._before, self._still = [], []
        size = self._search.l1 * min(1.0, (state.global_step + 1) / max(1, self._search.warmup))
        for gate, cost in zip(self.parameters, self._costs(), strict=True):
            slope = torch.zeros_like(gate) if gate.grad is None else gate.grad
            # Where |gate| has no derivative, what the task wants beyond the penalty.
            beyond = slope.sign() * (slope.abs() - size * cost).clamp_min(0)
            gate.grad = torch.where(gate == 0, beyond, slope + size * cost * gate.sign())
            self._before.append(gate.clone())
            self._still.append((gate == 0) & (gate.grad == 0))

    @torch.no_grad()
    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Scale the step of the gates, stop them at zero, and hold what takes no part."""
        for gate, before, still in zip(self.parameters, self._before, self._still, strict=True):
            gate.copy_(before + self._search.gate_rate * (gate - before))
            gate[still | (gate * before < 0)] = 0.0
        if self._held is not None:
            self._held.put_back()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Bring units back, or draw a mask."""
        step, search = state.global_step, self._search
        values = self._values(step)
        self._average = search.memory * self._average + (1 - search.memory) * values
        since = step % search.every
        if since == 0:
            self._draw(step, values)
        elif since >= search.masked * search.every and not self._mask.all():
            self._hold(np.ones_like(self._mask))

    def ends(self) -> list[torch.Tensor]:
        """Per group, [num_units] gates of the end, 0 of dead units."""
        self._hold(np.ones_like(self._mask))
        found = [(gate * present.to(gate)).detach() for gate, present in zip(self._gates, self.present, strict=True)]
        for gate, layer in zip(found, self._layers, strict=False):
            gate.mul_(layer.detach())
        return found

    def record(self, steps: int) -> SupernetRecord:
        """What came of it."""
        at, gates, kept, alive = zip(*self._events, strict=True)
        return SupernetRecord(at, np.stack(gates), np.stack(kept), np.stack(alive), steps)

    def _draw(self, step: int, values: np.ndarray) -> None:
        """An event: leave dead units out for good, draw a mask, and let it act."""
        search = self._search
        dead = np.maximum(np.abs(values), np.abs(self._average)) <= search.threshold
        self._alive = self._alive & ~dead
        stay = self._mask if search.masked == 1.0 else np.ones_like(self._mask)
        kept = search.kept(values, self._alive & stay, len(self._events) + 1)
        self._events.append((step, values, kept, self._alive.copy()))
        self._hold(kept if search.masked > 0.0 else np.ones_like(kept))

    def _hold(self, mask: np.ndarray) -> None:
        """From here on only units of the mask that are alive take part."""
        self._mask = mask
        part = mask & self._alive
        for present, own in zip(self.present, self._search.split(part), strict=True):
            present.copy_(torch.from_numpy(own).to(present))
        out = self._search.split(~part)
        self._held = None if part.all() else HeldUnits(self._search.groups, out, self._parameters, self._gates)

    def _costs(self) -> list[float]:
        """Of one gate of each group, and of each sublayer's: that of its living units, over the average sublayer."""
        costs = list(self._search.costs)
        groups = self._search.groups
        average = sum(cost * group.num_units for cost, group in zip(costs, groups, strict=True)) / len(groups)
        living = [float(own.sum()) for own in self._search.split(self._alive)]
        whole = [cost * count / average for cost, count in zip(costs, living, strict=True)]
        return costs + (whole if self._layers else [])

    def _values(self, step: int) -> np.ndarray:
        """[units] float64 gates, those of the sublayers multiplied in.

        Raises:
            DataError: if one is NaN or infinite.
        """
        layers = [float(layer.detach()) for layer in self._layers] or [1.0] * len(self._gates)
        found = [gate.detach().double().cpu().numpy() * layer for gate, layer in zip(self._gates, layers, strict=True)]
        require_finite_gates(self._search.groups, found, step)
        return np.concatenate(found)


def write_supernet(record_file: Path, found: SupernetRecord, record: Mapping[str, Any]) -> None:
    """Write what came of a search, atomically.

    Args:
        record_file: its folder is replaced as a whole.
        found: the result.
        record: what else the file says.
    """
    with atomic_folder(record_file.parent) as folder:
        save_file({"gates": found.gates, "kept": found.kept, "alive": found.alive}, folder / _FILE)
        write_json(folder / record_file.name, {**record, "at": list(found.at)})


def read_supernet(record_file: Path) -> SupernetRecord:
    """Read what `write_supernet` wrote."""
    record = json.loads(record_file.read_text(encoding="utf-8"))
    values = load_file(record_file.with_name(_FILE))
    return SupernetRecord(tuple(record["at"]), values["gates"], values["kept"], values["alive"], record["steps"])
