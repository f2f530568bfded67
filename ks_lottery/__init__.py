"""Find the few parameters of a transformer that matter for a task, prove how much, and train only those.

    ticket = find_ticket(before="base-model", after="tuned-model", units="token_rows", finder="ks")
    model = attach_ticket(AutoModelForCausalLM.from_pretrained("base-model"), ticket)
    Trainer(model=model, ...).train()
    model.save_pretrained("adapter")

Names are imported when first used, so that `import ks_lottery` costs nothing. Where PEFT is imported already, it learns
the adapter's type at once; where it is imported later, `import ks_lottery.adapter` teaches it.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

from ks_lottery._version import __version__

if TYPE_CHECKING:
    from ks_lottery.adapter.attach import attach_ticket
    from ks_lottery.adapter.config import LotteryConfig
    from ks_lottery.adapter.export import export_ticket
    from ks_lottery.adapter.importers import import_sft
    from ks_lottery.adapter.prefix import skip_unused_gradients
    from ks_lottery.adapter.shrink import shrink_checkpoint
    from ks_lottery.adapter.transfer import transfer_ticket
    from ks_lottery.adapter.zeros import zero_checkpoint
    from ks_lottery.errors import LotteryError
    from ks_lottery.evaluation.stability import connectivity
    from ks_lottery.finders.densities import layer_counts
    from ks_lottery.finders.masks.frozen import Frozen
    from ks_lottery.finders.saliency.batches import Batches, batches_of
    from ks_lottery.finders.search import find_ticket
    from ks_lottery.finders.select import Alpha, Counts, Density, TopK
    from ks_lottery.ticket.controls import (
        count_like,
        frequency_like,
        random_like,
        shuffled_like,
        structural_row,
        these_rows,
    )
    from ks_lottery.ticket.ownership.mark import embed_mark
    from ks_lottery.ticket.ownership.reading import verify_mark
    from ks_lottery.ticket.ownership.signature import sign_ticket, verify_signature
    from ks_lottery.ticket.ticket import Ticket
    from ks_lottery.training.callback import TicketCallback
    from ks_lottery.training.dynamic import SET, RigL
    from ks_lottery.training.probe import probe
    from ks_lottery.training.runs import trainer_runs
    from ks_lottery.training.shared_prefix import shared_prefix
    from ks_lottery.units.token_rows import TokenRows

_HOMES = {
    "Alpha": "ks_lottery.finders.select",
    "Batches": "ks_lottery.finders.saliency.batches",
    "Counts": "ks_lottery.finders.select",
    "Density": "ks_lottery.finders.select",
    "Frozen": "ks_lottery.finders.masks.frozen",
    "LotteryConfig": "ks_lottery.adapter.config",
    "LotteryError": "ks_lottery.errors",
    "RigL": "ks_lottery.training.dynamic",
    "SET": "ks_lottery.training.dynamic",
    "Ticket": "ks_lottery.ticket.ticket",
    "TicketCallback": "ks_lottery.training.callback",
    "TokenRows": "ks_lottery.units.token_rows",
    "TopK": "ks_lottery.finders.select",
    "attach_ticket": "ks_lottery.adapter.attach",
    "batches_of": "ks_lottery.finders.saliency.batches",
    "connectivity": "ks_lottery.evaluation.stability",
    "count_like": "ks_lottery.ticket.controls",
    "embed_mark": "ks_lottery.ticket.ownership.mark",
    "export_ticket": "ks_lottery.adapter.export",
    "find_ticket": "ks_lottery.finders.search",
    "frequency_like": "ks_lottery.ticket.controls",
    "import_sft": "ks_lottery.adapter.importers",
    "layer_counts": "ks_lottery.finders.densities",
    "probe": "ks_lottery.training.probe",
    "random_like": "ks_lottery.ticket.controls",
    "shared_prefix": "ks_lottery.training.shared_prefix",
    "shrink_checkpoint": "ks_lottery.adapter.shrink",
    "shuffled_like": "ks_lottery.ticket.controls",
    "sign_ticket": "ks_lottery.ticket.ownership.signature",
    "skip_unused_gradients": "ks_lottery.adapter.prefix",
    "structural_row": "ks_lottery.ticket.controls",
    "these_rows": "ks_lottery.ticket.controls",
    "trainer_runs": "ks_lottery.training.runs",
    "transfer_ticket": "ks_lottery.adapter.transfer",
    "verify_mark": "ks_lottery.ticket.ownership.reading",
    "verify_signature": "ks_lottery.ticket.ownership.signature",
    "zero_checkpoint": "ks_lottery.adapter.zeros",
}

__all__ = [
    "SET",
    "Alpha",
    "Batches",
    "Counts",
    "Density",
    "Frozen",
    "LotteryConfig",
    "LotteryError",
    "RigL",
    "Ticket",
    "TicketCallback",
    "TokenRows",
    "TopK",
    "__version__",
    "attach_ticket",
    "batches_of",
    "connectivity",
    "count_like",
    "embed_mark",
    "export_ticket",
    "find_ticket",
    "frequency_like",
    "import_sft",
    "layer_counts",
    "probe",
    "random_like",
    "shared_prefix",
    "shrink_checkpoint",
    "shuffled_like",
    "sign_ticket",
    "skip_unused_gradients",
    "structural_row",
    "these_rows",
    "trainer_runs",
    "transfer_ticket",
    "verify_mark",
    "verify_signature",
    "zero_checkpoint",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'ks_lottery' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


if "peft" in sys.modules:
    importlib.import_module("ks_lottery.adapter")
