"""Every registered granularity on every architecture: no weight has two owners, and no covered one has none."""

import json
import math

import numpy as np
import pytest

from ks_lottery.errors import UnitError
from ks_lottery.units.architecture import architectures
from ks_lottery.units.granularity import GRANULARITIES, granularity
from ks_lottery.units.slab import UnitGroup, parameters_of
from tests.units.models import CASES, layout_of

NO_TOKENS = {"vit"}


def owners(groups: tuple[UnitGroup, ...], shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """How many units own each weight of the parameters that the groups cover."""
    counts = {name: np.zeros(shapes[name], dtype=np.int64) for name in parameters_of(groups)}
    for group in groups:
        for slab in group.slabs:
            inside = counts[slab.parameter][(*slab.lead, ...)]
            for unit in range(group.num_units):
                own = slice(slab.start + unit * slab.width, slab.start + (unit + 1) * slab.width)
                if slab.dim is None:
                    inside.reshape(-1)[own] += 1
                else:
                    inside[(*[slice(None)] * (slab.dim - len(slab.lead)), own)] += 1
    return counts


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", GRANULARITIES.names())
def test_units_partition_what_they_cover(name: str, case: str) -> None:
    layout = layout_of(case)
    if name == "token_rows" and case in NO_TOKENS:
        with pytest.raises(UnitError, match="A 'vit' model reads no tokens, so it has no token rows. Use units="):
            granularity(name).groups(layout)
        return
    groups = tuple(granularity(name).groups(layout))
    assert len({group.name for group in groups}) == len(groups) > 0
    assert groups == tuple(granularity(name).groups(layout))
    counts = owners(groups, dict(layout.shapes))
    assert {parameter for parameter, count in counts.items() if not (count == 1).all()} == set()
    total = sum(group.num_units * group.weights_per_unit(layout.shapes) for group in groups)
    assert total == sum(math.prod(layout.shapes[parameter]) for parameter in counts)
    for group in groups:
        assert UnitGroup.from_dict(json.loads(json.dumps(group.to_dict()))) == group


@pytest.mark.parametrize("case", CASES)
def test_heads_and_neurons_share_all_matrices_of_the_blocks(case: str) -> None:
    layout = layout_of(case)
    covered = {name: set(parameters_of(granularity(name).groups(layout))) for name in GRANULARITIES.names()[:-2]}
    assert not covered["heads"] & covered["neurons"]
    assert covered["heads"] | covered["neurons"] <= covered["layers"]
    left = covered["matrix_rows"] - covered["heads"] - covered["neurons"]
    assert {name for name in left if "relative_attention_bias" not in name and "mlp.gate.weight" not in name} == set()
    assert bool(left) == (layout.model_type in ("t5", "mt5", "mixtral"))


@pytest.mark.parametrize("name", GRANULARITIES.names())
def test_a_granularity_names_itself(name: str) -> None:
    assert granularity(name).name == name
    assert granularity(granularity(name)) == granularity(name)


def test_every_architecture_of_the_table_is_tested() -> None:
    assert {model_type for model_type, _, _ in CASES.values()} == {n for n in architectures() if "martian" not in n}
