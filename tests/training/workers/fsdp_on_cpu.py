"""Lets accelerate shard a model over CPU processes with FSDP2, which it otherwise does for accelerators alone.

    accelerate launch --use_fsdp --fsdp_version 2 ... -m tests.training.workers.fsdp_on_cpu MODULE ARGUMENTS

Without this, accelerate calls several CPU processes MULTI_CPU, and trains them with DDP whatever FSDP settings it got.
"""

import runpy
import sys
from typing import Any

from accelerate import state
from accelerate.utils import DistributedType


def main() -> None:
    """Run a module as if the CPU processes were accelerators."""
    original = state.PartialState.__init__

    def init(self: Any, cpu: bool = False, **options: Any) -> None:
        original(self, cpu=cpu, **options)
        shared = state.PartialState._shared_state
        if shared.get("distributed_type") == DistributedType.MULTI_CPU:
            shared["distributed_type"] = DistributedType.MULTI_GPU

    state.PartialState.__init__ = init  # type: ignore[method-assign]
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
