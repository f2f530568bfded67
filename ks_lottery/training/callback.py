"""A ticket while it forms: which units have shifted so far, at intervals, during any Trainer run."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback

from ks_lottery.checkpoints.pair import require_comparable
from ks_lottery.checkpoints.reader import Checkpoint, open_checkpoint
from ks_lottery.errors import OptionError, TicketError
from ks_lottery.finders.base import Finder, UnitScores
from ks_lottery.finders.search import Source, score_units
from ks_lottery.finders.select import Alpha, Selector
from ks_lottery.ticket.algebra import jaccard
from ks_lottery.training.frozen import FrozenWeights
from ks_lottery.units.granularity import Granularity, granularity
from ks_lottery.units.slab import parameters_of

_STATE = "ks_lottery_looks"


class TicketCallback(TrainerCallback):
    """Looks at the shift while a model trains, checks that what is frozen stays frozen, and can stop the run early.

    Each look logs `ticket/selected` (units the selector takes), `ticket/jaccard` (with the look before; from the
    second on), `ticket/largest_score` and, where the finder tests D, `ticket/largest_D`. The looks are in
    `trainer.state.log_history`; attached to its Trainer, they also reach its loggers (W&B, TensorBoard).

        callback = TicketCallback(before="base-model", every=50, patience=3)
        callback.attach(trainer)             # or Trainer(..., callbacks=[callback])
        trainer.train()

    Args:
        before: the weights at the start of the run, in the dtype the model trains in: folder, Hub id, checkpoint, or
            another live model. Read at every look, in pieces.
        units: granularity, by name or as an object with options.
        finder: method, by name or as an object with options.
        selector: how to cut; `Alpha(0.05)` if None. What it refuses to select counts as 0 units.
        every: optimizer steps between two looks; the end of training is one more.
        patience: stop after this many looks in a row whose units are nearly those of the look before; never if None.
        stable: Jaccard similarity from which two looks count as nearly the same. Two empty ones never do.

    Raises:
        OptionError: if an option is out of range; at the start of training, for a PEFT model, or if `before` is the
            trained model itself.
        CheckpointError: at the start of training, if `before` cannot be compared with the model.
        FrozenWeightMovedError: at a look or the end, if a weight changed that was frozen at the start.

    Cost:
        A look streams the parameters that hold units (`find_ticket`), and reads every frozen weight once.

    Source:
        Stopping when the ticket no longer changes: You et al. 2020 (Early-Bird tickets), with Jaccard similarity in
        the place of the Hamming distance of masks.
    """

    def __init__(
        self,
        before: Source,
        units: str | Granularity = "token_rows",
        finder: str | Finder = "ks",
        selector: Selector | None = None,
        every: int = 50,
        patience: int | None = None,
        stable: float = 0.95,
    ) -> None:
        if every < 1:
            raise OptionError(f"TicketCallback(every={every}): must be at least 1 optimizer step.")
        if patience is not None and patience < 1:
            raise OptionError(f"TicketCallback(patience={patience}): must be at least 1 look, or None never to stop.")
        if not 0.0 < stable <= 1.0:
            raise OptionError(f"TicketCallback(stable={stable}): must be above 0 and at most 1, a Jaccard similarity.")
        self.before = before
        self.units = granularity(units)
        self.finder = finder
        self.selector = selector or Alpha()
        self.every = every
        self.patience = patience
        self.stable = stable
        self._log: Callable[[dict[str, float]], None] | None = None
        self._opened: Checkpoint
        self._frozen: FrozenWeights
        self._previous: dict[str, np.ndarray] | None = None
        self._steady = 0
        self._last_step = 0

    def attach(self, trainer: Any) -> "TicketCallback":
        """Add this callback to a Trainer, and log through `trainer.log`."""
        trainer.add_callback(self)
        self._log = trainer.log
        return self

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Open `before`, check that it can be compared, and remember what is frozen."""
        if self.before is model:
            raise OptionError(
                "TicketCallback(before=...) is the very model that is being trained, so nothing would ever shift. "
                "Give the folder or Hub id it was loaded from, or a copy."
            )
        if hasattr(model, "peft_config"):
            raise OptionError(
                "TicketCallback watches a dense run, but this model trains a PEFT adapter, and its base weights never "
                "shift. Leave the callback out."
            )
        self._opened = open_checkpoint(self.before)
        now = open_checkpoint(model)
        for parameter in parameters_of(self.units.groups(self._opened.layout())):
            require_comparable(self._opened, now, parameter)
        self._frozen = FrozenWeights(model)
        saved = state.stateful_callbacks.get(_STATE) if state.global_step else None
        self._last_step = state.global_step
        self._previous, self._steady = None, 0
        if saved:
            self._previous = {name: np.asarray(units, dtype=np.int64) for name, units in saved["units"].items()}
            self._steady = int(saved["steady"])

    def on_step_end(
        self, args: Any, state: Any, control: Any, model: Any = None, optimizer: Any = None, **kwargs: Any
    ) -> Any:
        """Look, every `every` optimizer steps."""
        if state.global_step % self.every == 0:
            self._look(state, control, model, optimizer)
            if self.patience is not None and self._steady >= self.patience:
                control.should_training_stop = True
        return control

    def on_train_end(
        self, args: Any, state: Any, control: Any, model: Any = None, optimizer: Any = None, **kwargs: Any
    ) -> None:
        """Look at the final weights."""
        if state.global_step != self._last_step:
            self._look(state, control, model, optimizer)

    def _look(self, state: Any, control: Any, model: torch.nn.Module, optimizer: Any) -> None:
        self._last_step = state.global_step
        self._frozen.check(model, f"by step {state.global_step}", optimizer)
        scores = score_units(self._opened, model, self.units, self.finder)
        selected = self._selected(scores)
        logs = {
            "ticket/selected": float(sum(map(len, selected.values()))),
            "ticket/largest_score": max(float(entry.score.max()) for entry in scores),
        }
        statistics = [entry.columns["statistic"].max() for entry in scores if "statistic" in entry.columns]
        if statistics:
            logs["ticket/largest_D"] = float(max(statistics))
        if self._previous is not None:
            logs["ticket/jaccard"] = jaccard(selected, self._previous)
            similar = logs["ticket/selected"] > 0 and logs["ticket/jaccard"] >= self.stable
            self._steady = self._steady + 1 if similar else 0
        self._previous = selected
        state.stateful_callbacks[_STATE] = {
            "units": {name: units.tolist() for name, units in selected.items()},
            "steady": self._steady,
        }
        if self._log is None:
            state.log_history.append({**logs, "epoch": state.epoch, "step": state.global_step})
        else:
            wanted = control.should_log
            self._log(logs)
            control.should_log = wanted  # a Trainer takes every log for the one that was due: the loss would be lost

    def _selected(self, scores: list[UnitScores]) -> dict[str, np.ndarray]:
        """Selected units per group; none where the selector finds nothing to select."""
        names = [entry.group.name for entry in scores]
        try:
            chosen = self.selector.select(scores, [entry.changed for entry in scores])
        except TicketError:
            return {name: np.empty(0, dtype=np.int64) for name in names}
        return dict(zip(names, chosen, strict=True))
