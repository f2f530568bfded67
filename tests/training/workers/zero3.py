"""What one DeepSpeed ZeRO-3 process on the CPU does for tests/training/test_zero3.py; what it finds goes into a folder.

A process with CPU tensors gets no ZeRO engine from accelerate, so this one makes it as accelerate would.
"""

import json
import sys
from pathlib import Path
from typing import Any

import deepspeed
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.integrations import HfDeepSpeedConfig

from ks_lottery.adapter.attach import attach_ticket
from ks_lottery.errors import AdapterError
from tests.training.workers.tickets import GLOBAL_BATCH, KINDS, adamw, batches, ticket

SETTINGS = {
    "train_micro_batch_size_per_gpu": GLOBAL_BATCH,
    "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},
    "gradient_clipping": 0.0,  # 1.0 otherwise
    "zero_force_ds_cpu_optimizer": False,
    "zero_allow_untested_optimizer": True,
}


def train_partitioned(base: nn.Module, kind: str) -> dict[str, Tensor]:
    """With ZeRO-3; what is saved of the adapter."""
    model = attach_ticket(base, ticket(kind))
    engine = deepspeed.initialize(model=model, optimizer=adamw(model), config=SETTINGS)[0]
    for batch in batches():
        engine.backward(engine(**batch).loss)
        engine.step()
    with deepspeed.zero.GatheredParameters([p for p in model.parameters() if p.requires_grad]):
        return {name: value.detach().clone() for name, value in get_peft_model_state_dict(model).items()}


def main(folder: Path) -> None:
    """Train what can be trained in a partitioned model, and try what cannot."""
    deepspeed.ops.__compatible_ops__.clear()  # nothing is compiled
    deepspeed.init_distributed("gloo")
    kept = HfDeepSpeedConfig(SETTINGS)  # from here on models are made in partitions
    report: dict[str, Any] = {}
    for kind in KINDS:
        base = AutoModelForCausalLM.from_pretrained(folder / f"base-{kind}")
        report[kind] = {"partitioned": all(value.numel() == 0 for value in base.parameters())}
        try:
            save_file(train_partitioned(base, kind), folder / f"{kind}.safetensors")
        except AdapterError as error:
            report[kind]["refused"] = str(error)
    assert kept is not None
    (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
