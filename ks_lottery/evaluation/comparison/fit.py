"""Whether tasks and models are large enough for what a plan asks of them, before anything is trained."""

import math
from collections.abc import Mapping, Sequence

from ks_lottery.checkpoints.reader import open_checkpoint
from ks_lottery.errors import DataError, OptionError
from ks_lottery.evaluation.comparison.plan import Plan
from ks_lottery.evaluation.comparison.table import Table
from ks_lottery.evaluation.tasks.base import Task
from ks_lottery.finders.saliency.batches import Batches
from ks_lottery.units.slab import UnitGroup


def require_fit(plan: Plan, tasks: Mapping[str, Task]) -> None:
    """Check a plan against its tasks.

    Args:
        plan: what is compared.
        tasks: by name.

    Raises:
        DataError: if a task has fewer training examples than a batch, a partition or the saliency finders need.
        OptionError: if a density leaves no unit at all, or, of weight tickets, none in some layer even where all layers
            keep alike: what is left out there is zero.
        UnitError: if a model lacks the units.

    Cost:
        Loads each task's model once.
    """
    for name, task in tasks.items():
        _require_examples(name, len(task.examples), plan)
        layout = open_checkpoint(task.load_model()).layout()
        for table in plan.tables:
            groups = table.granularity().groups(layout)
            for density in table.densities:
                _require_units(table, density, groups)


def _require_examples(name: str, count: int, plan: Plan) -> None:
    batch, parts = plan.budget.batch_size, plan.budget.partitions
    has = f"The task {name!r} has {count} training examples, fewer than"
    if count < batch:
        raise DataError(f"{has} one batch of {batch} (budget, batch_size). Give more examples, or a smaller batch.")
    if count // parts < batch:
        raise DataError(
            f"{has} one batch of {batch} in each of {parts} partitions (budget, partitions). Give more examples, a "
            "smaller batch, or fewer partitions: 1 is enough where no finder overlaps them, as colt does."
        )
    looking = next((one.label for table in plan.tables for one in table.finders if one.method.needs is Batches), None)
    if looking is not None and count < batch * plan.budget.batches:
        raise DataError(
            f"{has} the {plan.budget.batches} batches of {batch} (budget, batches) that finder {looking!r} looks at. "
            f"Give more examples, or at most {count // batch} batches."
        )


def _require_units(table: Table, density: float, groups: Sequence[UnitGroup]) -> None:
    total = sum(group.num_units for group in groups)
    what = f"{table.what}: density {density:g}"
    if round(density * total) < 1:
        raise OptionError(f"{what} leaves none of {total} units. Give at least {_rounded_up(1 / total)}.")
    smallest = min(groups, key=lambda group: group.num_units)
    if table.kind == "weight" and round(density * smallest.num_units) < 1:
        raise OptionError(
            f"{what} leaves the layer {smallest.name!r} empty, which has {smallest.num_units} units, and a weight "
            f"ticket is zero where it has none. Give at least {_rounded_up(1 / smallest.num_units)}, or leave such "
            "layers out with unit_options."
        )


def _rounded_up(share: float) -> str:
    """Three significant digits, not below."""
    unit = 10.0 ** (math.floor(math.log10(share)) - 2)
    return f"{math.ceil(share / unit) * unit:.3g}"
