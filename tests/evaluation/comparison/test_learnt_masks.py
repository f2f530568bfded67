"""Finders that learn a mask in a comparison: one search for each density, over the weights or over a trained update."""

from pathlib import Path

import pytest

from ks_lottery.errors import OptionError
from ks_lottery.evaluation.compare import Comparison
from ks_lottery.evaluation.record import Record
from tests.evaluation.comparison.planted import PLANTED, TOKENS, PlantedTask, planted_plan

POPUP = {"finder": "edge_popup", "steps": 4}


def comparison(folder: Path, **table: object) -> Comparison:
    plan = planted_plan([POPUP], table={"densities": [0.5, len(PLANTED) / TOKENS], **table}, replicates=[0])
    return Comparison(plan, folder, tasks={"planted": PlantedTask()}, say=lambda line: None)


def found(records: list[Record], method: str = "edge_popup") -> list[Record]:
    return [record for record in records if record.method == method]


@pytest.mark.parametrize(("kind", "units"), [("update", "token_rows"), ("weight", "neurons")])
def test_each_density_is_learnt_and_all_of_it_is_counted(tmp_path: Path, kind: str, units: str) -> None:
    made = comparison(tmp_path, kind=kind, units=units)
    records = made.run()
    assert not [record.error for record in records if record.error]
    for record in found(records):
        cell = next(cell for cell, mark in made.cells if mark == record.cell)
        options = made.ticket(cell).provenance.details["finder_options"]
        assert options["density"] == record.density
        assert options["kind"] == kind
        # Four steps of 8 examples for each of two densities; of an update ten steps of the probe besides.
        probe = 80 if kind == "update" else 0
        assert (record.finding.forward, record.finding.backward) == (64 + probe, 64 + probe)
    assert {record.density for record in found(records)} == {0.5, len(PLANTED) / TOKENS}
    assert found(records, "edge_popup, shuffled")


def test_the_density_is_the_tables() -> None:
    with pytest.raises(OptionError, match=r"density: 0.1: the comparison takes it from `densities` of the table"):
        planted_plan([{**POPUP, "density": 0.1}])
