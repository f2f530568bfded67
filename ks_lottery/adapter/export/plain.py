"""The form without this library that lies in every saved adapter."""

import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ks_lottery.adapter.export.carrier import CARRIERS, Carrier, Export
from ks_lottery.adapter.tuned import Tuned
from ks_lottery.checkpoints.writer import atomic_folder
from ks_lottery.errors import AdapterError

if TYPE_CHECKING:
    from ks_lottery.adapter.config import LotteryConfig

PLAIN_FOLDER = "plain"
PLAIN_ADAPTER = "plain/adapter"

_README = """# The same adapter, for plain PEFT

The adapter in the folder above has the type KS_TICKET, which needs `ks_lottery`. The one in this folder holds the same
rows and needs only `peft`:

    PeftModel.from_pretrained(base_model, ADAPTER, subfolder="{subfolder}")

where ADAPTER is the folder above, or its Hub id. It is written anew with every save. To train further, load the adapter
above: it pulls towards the pretrained rows, this one would pull towards zero.
"""


def best_carrier(export: Export) -> Carrier:
    """The first carrier, in order of rank, that can hold the values exactly.

    Raises:
        AdapterError: if none can; with each one's reason.
    """
    carriers = [(name, kind()) for name, kind in CARRIERS.items()]
    ranked = [(rank, name, carrier) for name, carrier in carriers if (rank := carrier.rank(export)) is not None]
    reasons = []
    for _, name, carrier in sorted(ranked, key=lambda entry: entry[0]):
        refusal = carrier.refusal(export)
        if refusal is None:
            return carrier
        reasons.append(f"{name}: {refusal}")
    raise AdapterError(
        f"No adapter of plain PEFT can hold this ticket exactly ({'; '.join(reasons)}). Export the whole model: "
        "export_ticket(model, folder, to='merged')."
    )


def header_of(config: "LotteryConfig", auto_mapping: dict[str, Any] | None, base_model: str | None) -> dict[str, Any]:
    """The keys of `adapter_config.json` that do not depend on the carrier."""
    header = {
        "base_model_name_or_path": base_model or config.base_model_name_or_path,
        "revision": config.revision,
        "task_type": None if config.task_type is None else getattr(config.task_type, "value", config.task_type),
        "inference_mode": True,
    }
    return header if auto_mapping is None else {**header, "auto_mapping": auto_mapping}


def write_plain_form(tuned: Tuned, config: "LotteryConfig", folder: Path, auto_mapping: dict[str, Any] | None) -> None:
    """Write `plain/adapter` into the folder of a saved adapter, or remove an older one that no longer holds.

    Warns:
        UserWarning: if there is no plain form of these values; the reason is said.
    """
    export = Export(tuned, header_of(config, auto_mapping, None))
    try:
        carrier = best_carrier(export)
    except AdapterError as error:
        shutil.rmtree(folder / PLAIN_FOLDER, ignore_errors=True)
        warnings.warn(f"{str(folder)!r} was saved without a form for plain PEFT: {error}", stacklevel=2)
        return
    with atomic_folder(folder / PLAIN_FOLDER) as plain:
        (plain / "adapter").mkdir()
        carrier.write(export, plain / "adapter")
        (plain / "README.md").write_text(_README.format(subfolder=PLAIN_ADAPTER), encoding="utf-8")
