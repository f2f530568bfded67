"""Means of a study, the paper's figures beside them, and the short table: exact numbers on hand-made cells."""

import json
from pathlib import Path
from typing import Any

import pytest
from replication.cells import RECORD
from replication.means import Means, shown, spread
from replication.page_paper import paper_table, readme_table
from replication.parts import plan_study
from replication.plan import Plan
from replication.setting import Setting


def plan_of(folder: Path, model: str = "") -> Plan:
    kinds = ("full", "embed", "one_row", "few_rows", "many_rows", "others", "lora", "prefix", "heads", "norms")
    return plan_study(
        Setting(
            directions={"de": "embedded", "fr": "embedded"},
            parts=("main", "spans"),
            methods=("base", "embed", "ks", "ks-0.05", "transfer-ks", "newline"),
            tuned_on="de",
            rates=dict.fromkeys(kinds, (1e-3, 1e-2)),
            seeds=(0, 1),
            model=model,
        ),
        folder,
    )


def finish(plan: Plan, name: str, **result: Any) -> None:
    place = plan.lab.cells.place(name)
    place.mkdir(parents=True)
    content = {"cell": name, "fingerprint": plan.lab.cells.mark(name), "config": {}, "seconds": 1.0, "commit": "c" * 40,
               "result": result}  # fmt: skip
    (place / RECORD).write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    plan = plan_of(tmp_path)
    for direction, offset in (("de", 0.0), ("fr", 10.0)):
        finish(plan, f"tested/{direction}/0/base", bleu_whole=offset, bleu_first_line=offset, stop_rate=0.0)
        for seed in (0, 1):
            score = 20.0 + offset + 2 * seed
            finish(plan, f"tested/{direction}/{seed}/ks", bleu_whole=score, bleu_first_line=score - 5, stop_rate=1.0)
            finish(plan, f"tested/{direction}/{seed}/ks-0.05", empty="no row passes")
            finish(plan, f"tickets/{direction}/{seed}/ks-0.05", units=0, empty="no row passes")
            finish(plan, f"spans/{direction}/{seed}/ks/source", bleu_whole=offset + 4.2)
    finish(plan, "tuned/de/0/ks/try-0", rate=1e-3, dev_bleu=3.0, trainable=7, adapter_bytes=100)
    finish(plan, "tuned/de/0/ks/try-1", rate=1e-2, dev_bleu=9.0, trainable=3456, adapter_bytes=14000)
    return plan


def test_means_are_over_seeds_and_directions(plan: Plan) -> None:
    means = Means(plan.lab)
    assert means.values("de", "ks", "bleu_whole") == [20.0, 22.0]
    assert means.mean("fr", "ks", "bleu_whole") == 31.0
    assert means.mean(("de", "fr"), "ks", "bleu_whole") == 26.0
    assert means.mean("de", "newline", "bleu_whole") is None
    assert means.gain("fr", "ks", "bleu_whole") == 21.0
    assert means.gain("de", "ks/source", "bleu_whole", kind="spans") == pytest.approx(4.2)


def test_a_method_without_rows_is_the_base_model(plan: Plan) -> None:
    assert Means(plan.lab).values("fr", "ks-0.05", "bleu_whole") == [10.0, 10.0]


def test_costs_are_those_of_the_best_try(plan: Plan) -> None:
    means = Means(plan.lab)
    assert means.cost("de", "ks", "trainable") == [3456.0]
    assert means.untrained == {"base", "transfer-ks"}


def test_the_short_table_has_a_column_for_each_direction(plan: Plan) -> None:
    lines = readme_table(plan.lab, {name: method.title for name, method in plan.methods.items()}).splitlines()
    assert lines[0] == "| run | trained weights | adapter | en-de | en-fr | first line | stops |"
    assert "| KS rows, 18 largest D | 3,456 | 14.0 kB | 21.0 | 31.0 | 21.0 | 100% |" in lines
    assert not any(line.startswith("| embed tuning") for line in lines)  # not tested yet


def test_the_papers_figures_stand_beside_the_studys(plan: Plan) -> None:
    text = paper_table(plan.lab)
    assert "| 18 KS rows, trained | 27.9 on average; ca 37.7 | ca 35.7 (3 seeds) | de 21.0, fr 31.0 |" in text
    assert "| rows with p < 0.05 | 18 (ca) | 4 to 5 | de 0 (0 to 0), fr 0 (0 to 0) |" in text
    assert "| share of the ticket's gain that is stopping | — | ca 94 %, es 97 %, ro 107 % | de 24%, fr 24% |" in text
    assert "act in the source only | — | -0.00 | de 0.20, fr 0.20 |" in text
    assert "full tuning" not in text  # a figure without a counterpart is left out


def test_numbers_as_tables_write_them() -> None:
    assert (shown(None), shown(float("nan")), shown(1234.56)) == ("—", "—", "1,234.6")
    assert spread([]) == "—"
    assert spread([3.0]) == "3.0"
    assert spread([1.0, 2.0, 6.0], 0) == "3 (1 to 6)"
