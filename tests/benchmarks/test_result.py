import json
from pathlib import Path

import numpy as np
import pytest
from interleaved import Timing
from result import Judgement, ResultsDifferError, Table, Target, machine, markdown, require_equal, write_result

TIMINGS = {
    "theirs": Timing("theirs", (80e-6, 120e-6, 100e-6)),
    "ours": Timing("ours", (2e-6, 2e-6, 4e-6)),
    "read": Timing("read", (1e-6, 1e-6, 1e-6)),
}


def table() -> Table:
    targets = [Target("ours", "theirs", faster=30), Target("ours", "read", slower=1.5)]
    return Table(
        "Three rows.",
        "µs/row",
        1e6,
        TIMINGS,
        "theirs",
        "read",
        [*(target.judge(TIMINGS) for target in targets), Judgement("theirs", "≤ 5 MB", 4.0, True)],
        "three rows are equal",
        {"peak MB": {"ours": "12", "read": "3"}},
    )


def test_targets_are_judged_by_the_median_ratio() -> None:
    assert Target("ours", "theirs", faster=40).judge(TIMINGS) == Judgement(
        "ours", "≥ 40 × faster than theirs", pytest.approx(40.0), True
    )
    assert not Target("ours", "theirs", faster=41).judge(TIMINGS).met
    assert Target("ours", "read", slower=2).judge(TIMINGS) == Judgement(
        "ours", "≤ 2 × the time of read", pytest.approx(2.0), True
    )
    assert not Target("ours", "read", slower=1.9).judge(TIMINGS).met


def test_the_file_and_the_page_say_the_same(tmp_path: Path) -> None:
    about = machine()
    text = write_result(tmp_path, "three", "Three", [table()], about)
    stored = json.loads((tmp_path / "three.json").read_text())
    assert markdown(stored) == text
    assert stored["machine"] == about
    (figures,) = stored["tables"]
    ours = figures["methods"][1]
    assert ours["time"] == {"median": 2.0, "low": 2.0, "high": 4.0}
    assert ours["times_faster_than_peer"] == {"median": 40.0, "low": 25.0, "high": 60.0}
    assert ours["time_over_limit"]["median"] == 2.0
    assert [judged["met"] for judged in ours["targets"]] == [True, False]
    lines = text.splitlines()
    assert lines[0] == "## Three"
    assert lines[4] == "**Three rows.** Checked first: three rows are equal."
    assert lines[6:] == [
        "| method | µs/row | range | faster than theirs | time / read | peak MB | target |",
        "| :-- | --: | --: | --: | --: | --: | :-- |",
        "| theirs | 100 | 80 to 120 | 1 × | 100 × |  | ≤ 5 MB: 4, met |",
        "| ours | 2 | 2 to 4 | 40 × | 2 × | 12 | ≥ 30 × faster than theirs: 40, met; ≤ 1.5 × the time of read: 2, "
        "**missed** |",
        "| read | 1 | 1 to 1 | 100 × | 1 × | 3 |  |",
    ]


def test_the_machine_is_described_without_places() -> None:
    about = machine()
    assert {"numpy", "scipy", "torch", "numba", "ks_lottery"} == set(about["versions"])
    assert about["cores"] >= 1
    assert about["cpu"]
    assert about["command"].startswith("python benchmarks/")


def test_results_that_differ_are_refused() -> None:
    require_equal("them", [1, 2, 3], np.array([1, 2, 3]))
    require_equal("them", [1.0, 1e-300], [1.0 + 1e-12, 1e-300], tolerance=1e-10)
    with pytest.raises(ResultsDifferError, match=r"them differ in 2 of 3 results, first at 1: 2 and 5\. No time"):
        require_equal("them", [1, 2, 3], [1, 5, 6])
    with pytest.raises(ResultsDifferError, match="differ in 1 of 1"):
        require_equal("them", [1.0], [float("nan")], tolerance=1e-10)
    with pytest.raises(ResultsDifferError, match=r"Ours has shape \(2,\), them \(3,\)"):
        require_equal("them", [1, 2], [1, 2, 3])
