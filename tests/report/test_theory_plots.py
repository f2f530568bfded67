"""Pictures of theory: whole PNG files, the same for the same record, different for another."""

from ks_lottery.report.theory_plots import (
    sparse_source_picture,
    subset_sum_picture,
    universal_picture,
    widths_picture,
)

SUMS = {
    "items": [6, 7, 8], "exact": [1e-2, 5e-3, 2e-3], "greedy": [4e-2, 3e-2, 2e-2], "reached": [0.2, 0.1, 0.08],
    "missed": {"0.01": [0.6, 0.3, 0.0], "0.001": [0.9, 0.8, 0.7]}, "constant": 4.2,
}  # fmt: skip
WIDTHS = {
    name: {"widths": [4, 8], "median": [0.5, 0.1], "worst": [0.6, 0.3], "asked": [40, 80], "eps": [0.3, 0.1]}
    for name in ("malach", "orseau", "pensia")
}


def is_png(content: bytes) -> bool:
    return content.startswith(b"\x89PNG") and content.endswith(b"IEND\xaeB`\x82")


def test_pictures_are_whole_and_show_their_records() -> None:
    sine = {"inputs": [0.0, 0.5, 1.0], "wanted": [0.0, 1.0, 0.0], "outputs": [0.1, 0.9, 0.0], "error": 0.1}
    families = {"polynomials": [{"ticket": 1.0, "inputs": 0.5}] * 2, "sums": [{"ticket": 0.9, "inputs": 0.1}]}
    sparse = {"0.5": {"widths": [4, 8], "found": [0.0, 1.0], "asked": 16}}
    for picture in (
        subset_sum_picture(SUMS), widths_picture(WIDTHS), sparse_source_picture(sparse),
        universal_picture(sine, families),
    ):  # fmt: skip
        assert is_png(picture)
    assert sparse_source_picture(sparse) == sparse_source_picture({"0.5": dict(sparse["0.5"])})
    assert sparse_source_picture({"0.5": {**sparse["0.5"], "asked": 12}}) != sparse_source_picture(sparse)
