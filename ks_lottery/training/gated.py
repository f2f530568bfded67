"""Training with a gate on every head or neuron, until the largest gates stay the same; through a stock Trainer."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from ks_lottery.checkpoints.writer import atomic_folder, write_json
from ks_lottery.errors import DataError, OptionError
from ks_lottery.finders.rounds.early_bird import MaskWindow
from ks_lottery.finders.rounds.runs import GateRecord, GateSearch, Kept
from ks_lottery.training.scope import only_trainable
from ks_lottery.units.gates import Gates
from ks_lottery.units.slab import UnitGroup

_GATES = "unit_gate_biases"  # the Trainer decays no parameter whose name says bias
_FILE = "gates.safetensors"


def train_gates(
    model: Any,
    search: GateSearch,
    trained: Mapping[str, torch.nn.Parameter],
    arguments: TrainingArguments,
    dataset: Any,
    collator: Any = None,
) -> GateRecord:
    """Train a model with gates until its masks agree, or to the end.

    Args:
        model: a transformers model; left with trained weights and without gates.
        search: what is gated, and when the masks agree.
        trained: parameters of the model that train beside the gates, by name.
        arguments: of the Trainer.
        dataset: training examples.
        collator: of the Trainer; None: its own.

    Raises:
        UnitError: if the units have no gates in this model.
        OptionError: for float16 without clipping, where gradients are still scaled when the penalty is added.
        DataError: if a gate becomes NaN or infinite.

    Cost:
        One training. With `worm`, one pass over the gated weights per step, and two copies of them.
    """
    if arguments.fp16 and not arguments.max_grad_norm:
        raise OptionError(
            "Gates train with fp16=True and max_grad_norm=0, so that gradients are still scaled when the L1 penalty "
            "joins them. Use bf16=True, or a max_grad_norm above 0."
        )
    with with_gates(model, search.groups) as gates:
        training = GateTraining(search, gates, dict(model.named_parameters()))
        with only_trainable(model, {**trained, **{f"{_GATES}.{number}": gate for number, gate in enumerate(gates)}}):
            trainer = Trainer(
                model=model, args=arguments, train_dataset=dataset, data_collator=collator, callbacks=[training]
            )
            trainer.remove_callback(PrinterCallback)
            trainer.train()
        return GateRecord(training.values(trainer.state.global_step), training.fired, trainer.state.global_step)


@contextlib.contextmanager
def with_gates(model: torch.nn.Module, groups: Sequence[UnitGroup]) -> Iterator[list[torch.nn.Parameter]]:
    """Gates of 1 in front of a model's projections, as parameters of the model; afterwards both are gone.

    Raises:
        UnitError: if the units have no gates in this model.
    """
    places = Gates(model, groups)
    device = next(model.parameters()).device
    gates = torch.nn.ParameterList([torch.ones(group.num_units, device=device) for group in groups])
    model.register_module(_GATES, gates)
    try:
        with places.installed({group.name: gate for group, gate in zip(groups, gates, strict=True)}):
            yield list(gates)
    finally:
        delattr(model, _GATES)


class GateTraining(TrainerCallback):
    """Steps of gates and of what they gate, and looks at the masks.

    Adam does not notice a constant factor of a gradient, so what is to move farther, or less far, has its step scaled
    after the optimizer: p + scale * (step), exactly the step for a scale of 1 and exactly none for 0.

    Args:
        search: what is asked for.
        gates: of its groups, the parameters that train.
        parameters: of the model, by name.

    Attributes:
        fired: optimizer step at which the masks agreed; None: not yet.
    """

    def __init__(
        self,
        search: GateSearch,
        gates: Sequence[torch.nn.Parameter],
        parameters: Mapping[str, torch.nn.Parameter],
    ) -> None:
        self.fired: int | None = None
        self._search = search
        self._gates = gates
        self._parameters = parameters
        self._window = MaskWindow(search.window, search.epsilon)
        self._scaled: list[tuple[torch.nn.Parameter, torch.Tensor]] = []
        self._before: list[torch.Tensor] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Until the first look every unit steps alike."""
        self._scaled = [(gate, torch.full_like(gate, self._search.gate_rate)) for gate in self._gates]

    @torch.no_grad()
    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Add the sub-gradient of the penalty, behind the clipping, and remember where the step begins."""
        for gate in self._gates:
            if gate.grad is None:
                gate.grad = torch.zeros_like(gate)
            gate.grad.add_(gate.sign(), alpha=self._search.l1)
        self._before = [parameter.detach().clone() for parameter, _ in self._scaled]

    @torch.no_grad()
    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Scale the step."""
        for (parameter, scale), before in zip(self._scaled, self._before, strict=True):
            parameter.copy_(torch.lerp(before, parameter, scale))
        self._before = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """Look at the mask, and stop where the masks agree."""
        if state.global_step % self._search.every == 0:
            kept = self._search.kept(self.values(state.global_step))
            masks = [
                np.isin(np.arange(group.num_units), units)
                for group, units in zip(kept.groups, kept.indices, strict=True)
            ]
            if self._window.look(np.concatenate(masks)):
                self.fired = state.global_step
                control.should_training_stop = True
            elif self._search.worm is not None:
                self._shorten(kept, masks)
        return control

    def values(self, step: int) -> tuple[np.ndarray, ...]:
        """Per group, [num_units] float64 gates.

        Raises:
            DataError: if one is NaN or infinite.
        """
        values = tuple(gate.detach().double().cpu().numpy() for gate in self._gates)
        require_finite_gates(self._search.groups, values, step)
        return values

    def _shorten(self, kept: Kept, masks: Sequence[np.ndarray]) -> None:
        """From here on units outside the masks take `worm` of their step."""
        worm = self._search.worm
        assert worm is not None
        self._scaled = [
            (gate, torch.where(torch.from_numpy(mask).to(gate.device), 1.0, worm) * self._search.gate_rate)
            for gate, mask in zip(self._gates, masks, strict=True)
        ]
        shapes = {name: tuple(parameter.shape) for name, parameter in self._parameters.items()}
        for name, mask in kept.masks(shapes).items():
            parameter = self._parameters[name]
            if parameter.requires_grad:
                self._scaled.append((parameter, torch.where(mask.to(parameter.device), 1.0, worm).to(parameter.dtype)))


def require_finite_gates(groups: Sequence[UnitGroup], gates: Sequence[np.ndarray], step: int) -> None:
    """Check gates at an optimizer step.

    Args:
        groups: of the gates.
        gates: per group, [num_units] float.
        step: for the message.

    Raises:
        DataError: if one is NaN or infinite.
    """
    for group, values in zip(groups, gates, strict=True):
        finite = np.isfinite(values)
        if not finite.all():
            raise DataError(
                f"At step {step} the gate of unit {int(finite.argmin())} of {group.name!r} is NaN or infinite. Lower "
                "the learning rate or gate_rate."
            )


def write_gates(record_file: Path, found: GateRecord, record: Mapping[str, Any]) -> None:
    """Write what came of a search, atomically.

    Args:
        record_file: its folder is replaced as a whole.
        found: the result.
        record: what else the file says.
    """
    with atomic_folder(record_file.parent) as folder:
        save_file({str(number): gate for number, gate in enumerate(found.gates)}, folder / _FILE)
        write_json(folder / record_file.name, {**record, "fired": found.fired})


def read_gates(record_file: Path) -> GateRecord:
    """Read what `write_gates` wrote."""
    record = json.loads(record_file.read_text(encoding="utf-8"))
    gates = load_file(record_file.with_name(_FILE))
    return GateRecord(tuple(gates[str(number)] for number in range(len(gates))), record["fired"], record["steps"])
