"""Tables, pictures and sentences of the study's main table and certificate, whichever way a result falls."""

from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet
from replication.figures_main import Scored, Sized, bytes_picture, score_picture
from replication.paired import score_interval
from replication.parquet import write_parquet
from replication.parts import plan_study
from replication.plan import Plan
from replication.section_certificate import certify
from replication.section_certificate_limits import Point, alike, certificate_limits, crossed
from replication.section_main import main_tables, stopping_table, tries_table
from replication.section_scores import PICTURE, against_all, frozen_section, score_section
from replication.setting import Setting
from safetensors.numpy import save_file
from scipy.stats import beta

from ks_lottery.errors import DataError
from ks_lottery.evaluation.agreement import ResponseArgmax
from ks_lottery.evaluation.corpus_scores import score_from_statistics
from ks_lottery.stats.intervals import Interval
from tests.recipes.test_study_page import bleu_rows
from tests.recipes.test_study_paper import finish

ALL, HALF, FEW = [10] * 6, [5, 4, 5, 4, 5, 4], [2, 1, 2, 1, 2, 1]
METHODS = ("base", "embed", "ks", "ks-0.05", "transfer-ks-0.05", "transfer-ks-0.5", "frequency", "all-others")


def plan_of(folder: Path) -> Plan:
    kinds = ("full", "embed", "one_row", "few_rows", "many_rows", "others", "lora", "prefix", "heads", "norms")
    setting = Setting(
        directions={"de": "embedded"}, parts=("main",), methods=METHODS, tuned_on="de",
        rates=dict.fromkeys(kinds, (1e-3, 1e-2, 1e-1)), seeds=(0, 1), alphas=(0.05, 0.5),
    )  # fmt: skip
    return plan_study(setting, folder)


def keep(plan: Plan, name: str, matches: list[int], first: list[int] | None = None, seeds: tuple[int, ...] = (0, 1),
           predicted: list[int] | None = None) -> None:  # fmt: skip
    """Finished tests whose statistics have so many matching words a sentence, and predictions of 4 sentences."""
    for seed in seeds[:1] if name == "base" else seeds:
        cell = f"tested/de/{seed}/{name}"
        tables = {"bleu_whole": bleu_rows(matches), "bleu_first_line": bleu_rows(first or matches)}
        scores = {key: bleu(table) for key, table in tables.items()}
        finish(plan, cell, **scores, chrf_whole=50.0, chrf_first_line=60.0, stop_rate=0.25)
        save_file(tables, plan.lab.cells.place(cell) / "statistics.safetensors")
        if predicted is not None:
            labels, lengths = np.arange(len(predicted)), np.full(4, len(predicted) // 4)
            ResponseArgmax(np.array(predicted), labels, lengths).save(
                plan.lab.cells.place(cell) / "predictions.safetensors"
            )


def bleu(rows: np.ndarray) -> float:
    return float(score_from_statistics("bleu", rows.sum(axis=0)))


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    plan = plan_of(tmp_path / "study")
    keep(plan, "base", FEW)
    return plan


def test_the_mean_over_seeds_lies_in_its_interval(plan: Plan) -> None:
    keep(plan, "ks", ALL, seeds=(0,))
    keep(plan, "ks", HALF, seeds=(1,))
    found = score_interval(plan.lab, "de", "ks")
    assert found is not None
    assert found.value == pytest.approx((100 + bleu(bleu_rows(HALF))) / 2)
    assert found.low < found.value < found.high
    assert score_interval(plan.lab, "de", "embed") is None


def test_a_method_without_rows_has_the_interval_of_the_base_model(plan: Plan) -> None:
    for seed in (0, 1):
        finish(plan, f"tested/de/{seed}/ks-0.05", empty="no row passes")
    assert score_interval(plan.lab, "de", "ks-0.05") == score_interval(plan.lab, "de", "base")


def test_every_cell_is_a_row_of_the_parquet_file(plan: Plan, tmp_path: Path) -> None:
    finish(plan, "tuned/de/0/ks/try-1", rate=1e-2, dev_bleu=9.0, trainable=3456, adapter_bytes=14000)
    finish(plan, "tested/de/1/ks-0.05", empty="no row passes")
    for seed_cell in plan.lab.cells.cells.values():
        if (record := plan.lab.cells.record(seed_cell.name)) is not None:
            record.update(cell=seed_cell.name, config=seed_cell.config)
    assert write_parquet(plan, tmp_path / "results.parquet") == 3
    rows = {row["cell"]: row for row in parquet.read_table(tmp_path / "results.parquet").to_pylist()}
    base = rows["tested/de/0/base"]
    assert (base["kind"], base["direction"], base["seed"], base["name"]) == ("tested", "de", 0, "base")
    assert base["bleu_whole"] == bleu(bleu_rows(FEW))
    assert base["commit"] == "c" * 40
    assert '"method"' in base["config"]
    training = rows["tuned/de/0/ks/try-1"]
    assert (training["name"], training["more"], training["trainable"]) == ("ks", "try-1", 3456.0)
    assert training["fingerprint"] == plan.lab.cells.mark("tuned/de/0/ks/try-1")
    assert rows["tested/de/1/ks-0.05"]["empty"] == "no row passes"
    assert rows["tested/de/1/ks-0.05"]["bleu_whole"] is None


def test_the_share_of_stopping_is_what_the_first_line_does_not_gain(plan: Plan, tmp_path: Path) -> None:
    keep(plan, "ks", ALL, first=HALF)
    base = bleu(bleu_rows(FEW))
    whole, first = 100 - base, bleu(bleu_rows(HALF)) - base
    text = stopping_table(plan, tmp_path)
    assert f"| KS rows, 18 largest D | {whole:+.1f} | {first:+.1f} | {1 - first / whole:.0%} |" in text
    keep(plan, "frequency", FEW)
    assert "| most frequent, 18 rows | +0.0 | +0.0 | too small |" in stopping_table(plan, tmp_path)


def test_the_main_table_has_costs_and_differences(plan: Plan, tmp_path: Path) -> None:
    keep(plan, "embed", HALF)
    keep(plan, "ks", ALL)
    for number in (1, 2):
        finish(plan, f"tuned/de/0/ks/try-{number}", rate=1e-2, dev_bleu=3.0, trainable=1, adapter_bytes=1, steps=1)
    finish(plan, "tuned/de/0/ks/try-0", rate=1e-3, dev_bleu=9.0, trainable=3456, adapter_bytes=14000, steps=200,
           train_seconds=7.0)  # fmt: skip
    text = main_tables(plan, tmp_path)
    assert (
        "| KS rows, 18 largest D | 3,456 | 14.0 kB | 200 | 7 | 100.0 (100.0 to 100.0) | 100.0 | 50.0 | 60.0 |" in text
    )
    gain = 100 - bleu(bleu_rows(HALF))
    row = next(line for line in text.splitlines() if line.startswith("| KS rows, 18 largest D"))
    assert f"| 25% | **+{gain:.1f} [" in row


def test_tries_say_where_the_best_lies_at_the_edge(plan: Plan, tmp_path: Path) -> None:
    for number, (inner, edge) in enumerate(((3.0, 9.0), (9.0, 4.0), (4.0, 3.0))):
        rate = plan.setting.rates["embed"][number]
        finish(plan, f"tuned/de/0/embed/try-{number}", rate=rate, dev_bleu=inner)
        finish(plan, f"tuned/de/0/frequency/try-{number}", rate=rate, dev_bleu=edge)
    text = tries_table(plan, tmp_path)
    assert "| embed tuning | en-de | 0.001: 3.0 | 0.01: **9.0** | 0.1: 4.0 |  |" in text
    assert "| most frequent, 18 rows | en-de | 0.001: **9.0** | 0.01: 4.0 | 0.1: 3.0 | yes |" in text
    assert "1 of 2 methods are best at the edge" in text


@pytest.mark.parametrize(
    ("others", "said", "end"),
    [
        (FEW, "score lower than embed tuning", "The other rows do not make up for the ticket with this training."),
        (HALF, "no difference is shown between", "A loss without the ticket is not shown in any direction."),
        (ALL, "score higher than embed tuning", "A loss without the ticket is not shown in any direction."),
    ],
)
def test_freezing_says_what_is_lost(plan: Plan, tmp_path: Path, others: list[int], said: str, end: str) -> None:
    assert "Not run yet." in frozen_section(plan, tmp_path)
    keep(plan, "embed", HALF)
    keep(plan, "ks", HALF)
    keep(plan, "all-others", others)
    text = frozen_section(plan, tmp_path)
    base, embed = bleu(bleu_rows(FEW)), bleu(bleu_rows(HALF))
    share = (bleu(bleu_rows(others)) - base) / (embed - base)
    assert f"**Of embed tuning's gain the other rows reach en-de {share:.0%}.**" in text
    assert said in text.replace("No difference", "no difference")
    assert end in text
    assert "No run freezes as many other rows" in text
    assert f"| en-de | embed tuning | {embed:.1f} ({embed:.1f} to {embed:.1f}) |" in text


def test_freezing_without_a_gain_has_no_share(plan: Plan, tmp_path: Path) -> None:
    keep(plan, "embed", FEW)
    keep(plan, "all-others", FEW)
    text = frozen_section(plan, tmp_path)
    assert "the other rows reach" not in text
    assert text.splitlines()[-1].startswith("| en-de | all rows but the 18 of KS |")


def test_methods_are_grouped_by_what_is_shown(plan: Plan, tmp_path: Path) -> None:
    assert against_all(plan, "embed") == ""
    assert "Not run yet." not in score_section(plan, tmp_path)  # the base model is there
    keep(plan, "embed", HALF)
    keep(plan, "ks", ALL)
    keep(plan, "frequency", HALF)
    keep(plan, "all-others", FEW)
    keep(plan, "transfer-ks-0.5", ALL, seeds=(0,))
    keep(plan, "transfer-ks-0.5", FEW, seeds=(1,))  # replicates that disagree show nothing
    text = against_all(plan, "embed")
    assert "Shown to score higher in every direction: KS rows, 18 largest D." in text
    assert "Shown to score lower in every direction: all rows but the 18 of KS." in text
    assert "No difference shown in any direction: partial transfer, p < 0.5; most frequent, 18 rows." in text
    assert "of different signs: none." in text
    assert text in score_section(plan, tmp_path)
    assert (tmp_path / PICTURE).read_bytes().startswith(b"\x89PNG")


def test_no_test_leaves_a_line(tmp_path: Path) -> None:
    empty = plan_of(tmp_path / "other")
    assert score_section(empty, tmp_path).endswith("Not run yet.")
    assert certificate_limits(empty, tmp_path) == ""
    assert not (tmp_path / PICTURE).exists()


def test_pictures_refuse_what_they_cannot_draw() -> None:
    with pytest.raises(DataError, match="no finished test to draw"):
        score_picture({}, "embed tuning")
    with pytest.raises(DataError, match="no adapter to draw"):
        bytes_picture([], "BLEU")
    with pytest.raises(DataError, match="'none' has 0 bytes"):
        bytes_picture([Sized("none", 0, (1.0,), "others")], "BLEU")


def test_pictures_are_the_same_for_the_same_numbers() -> None:
    methods = [Sized("small", 1e3, (10.0, 12.0), "token rows"), Sized("large", 1e6, (20.0,), "LoRA"),
               Sized("worse", 1e6, (15.0,), "others")]  # fmt: skip
    assert bytes_picture(methods, "BLEU") == bytes_picture(methods, "BLEU")
    panel = {"en-de": [Scored("embed tuning", Interval(40.0, 38.0, 42.0), 41.0, (39.0, 41.0))]}
    assert score_picture(panel, "embed tuning").startswith(b"\x89PNG")


def test_the_certificate_is_that_of_whole_sentences_and_tokens(tmp_path: Path) -> None:
    plan = plan_of(tmp_path / "study")
    true = list(range(40))
    near, far = [*true[:36], *[-1] * 4], [*true[:20], *[-1] * 20]
    keep(plan, "embed", HALF, predicted=true)
    keep(plan, "ks", ALL, predicted=near)
    keep(plan, "frequency", HALF, predicted=true)
    assert certificate_limits(plan, tmp_path) == ""
    keep(plan, "base", FEW, predicted=far)
    keep(plan, "transfer-ks-0.5", HALF, predicted=near)
    for seed in (0, 1):
        finish(plan, f"tested/de/{seed}/transfer-ks-0.05", empty="no row passes")
        finish(plan, f"tested/de/{seed}/ks-0.05", empty="no row passes")
    found, untouched = certify(plan.lab, "ks"), certify(plan.lab, "base")
    assert found is not None
    assert found.rate == 0.9
    assert found.bound == pytest.approx(beta.ppf(0.05, 36, 5))  # Clopper-Pearson, 36 of 40
    assert certify(plan.lab, "transfer-ks-0.05") == untouched
    text = certificate_limits(plan, tmp_path)
    assert "partial transfer, p < 0.05 in 2 of 2, KS rows, p < 0.05 in 2 of 2 directions and replicates" in text
    assert "never agrees less at a larger alpha (50.0% at 0.05, 90.0% at 0.5)" in text
    assert (
        "The KS rows agree on 90.0%. Of methods that choose no row by KS, most frequent, 18 rows 100.0% agree" in text
    )
    assert "resampling sentences gives the lower worst bound for" in text


def test_agreement_that_falls_with_alpha_is_told(tmp_path: Path) -> None:
    plan = plan_of(tmp_path / "study")
    true = list(range(40))
    keep(plan, "base", FEW, predicted=[-1] * 40)
    keep(plan, "embed", HALF, predicted=true)
    keep(plan, "transfer-ks-0.05", HALF, predicted=true)
    keep(plan, "transfer-ks-0.5", HALF, predicted=[*true[:20], *[-1] * 20])
    text = certificate_limits(plan, tmp_path)
    assert "agrees less at some larger alpha (100.0% at 0.05, 50.0% at 0.5), although more rows are copied" in text
    assert "Every level selects rows in every direction and replicate." in text


def test_agreement_and_score_are_compared_pair_by_pair() -> None:
    points = [Point("a", 0.90, 0.8, 0.8, 10.0), Point("b", 0.905, 0.8, 0.8, 30.0), Point("c", 0.95, 0.9, 0.9, 20.0)]
    assert alike(points).startswith("Equal agreement, other scores: a (90.0%) and b (90.5%) agree alike")
    assert "20.0 apart" in alike(points)
    assert alike([points[0], points[2]]) == ""
    assert crossed(points).startswith(
        "Agreement puts 1 of 3 pairs of methods in another order than BLEU: c agrees more (95.0% against 90.5%) and "
        "scores 10.0 BLEU less than b."
    )
    assert crossed(points[:2]) == "Agreement puts all 1 pairs of methods here in the order of their BLEU."
    assert crossed(points[:1]) == ""
