"""A report with realistic numbers: a small LLaMA, 3,072 rows of width 192, a ticket of 18."""

import numpy as np

from ks_lottery.evaluation.agreement import Agreement
from ks_lottery.report.report import Report
from ks_lottery.report.results import PairedDifference, Result
from ks_lottery.report.token_shift import TokenShift

TOKENS = [".", "R", "▁German", r"'\n'", "▁sah", "▁Bett", "?", "▁that", "▁the", "###", ":", "▁|", "`", "$x$", "的",
          "▁Tom", "<s>", "▁_a_"]  # fmt: skip


CERTIFICATE = Agreement(
    matches=8_196, tokens=9_301, sentences=500, rate=0.8812, lower_bound=0.8755, sentence_lower_bound=0.8723,
    alpha=0.05, tau=0.1386, row_length=192,
)  # fmt: skip


def example_results() -> list[Result]:
    def run(name: str, whole: float, first: float, **options: object) -> Result:
        return Result(
            name=name, bleu_whole=whole, bleu_first_line=first, bleu_whole_interval=(whole - 2.1, whole + 2.2),
            bleu_first_line_interval=(first - 2.3, first + 2.4), **options,
        )  # fmt: skip

    return [
        run("base", 2.5, 19.0, stop_rate=0.0),
        run("full tuning", 50.6, 50.6, stop_rate=1.0, trainable=2_951_424, learning_rate=2e-4, tried_learning_rates=3),
        run(
            "embed tuning", 47.2, 47.2, stop_rate=1.0, trainable=589_824, adapter_bytes=2_360_000, learning_rate=2e-3,
            tried_learning_rates=3, steps=750, seconds=27.4, peak_memory=612_000_000, chrf_whole=61.2,
            chrf_first_line=61.2,
        ),
        run(
            "partial tuning", 46.0, 48.5, stop_rate=1.0, trainable=3_456, adapter_bytes=15_400, learning_rate=1e-2,
            tried_learning_rates=3, steps=375, seconds=20.1, certificate=CERTIFICATE,
        ),
        run("partial transfer", 8.6, 41.0, stop_rate=0.2, trainable=0),
        run("random control", 4.2, 30.4, stop_rate=0.0, trainable=3_456),
        run("frequency control", 45.5, 45.9, stop_rate=0.997, trainable=3_456),
        run("structural row", 5.8, 43.0, stop_rate=0.07, trainable=192),
        Result(name="LoRA r=8", bleu_whole=50.6),
    ]  # fmt: skip


def example_shift() -> TokenShift:
    generator = np.random.default_rng(0)
    count = np.floor(20_000 / (1 + np.arange(3072)) ** 1.25).astype(np.int64)
    height = generator.integers(1, 12, 3072)
    height[:18] = 15 + np.arange(18)[::-1]
    return TokenShift(np.where(count > 0, height, 0) / 192, count)


def example_ticket() -> dict[str, object]:
    shift = example_shift()
    rows = [
        {
            "group": "input", "id": i, "token": token, "statistic": float(shift.statistic[i]), "log10_p": -3.5 + i / 6,
            "shift": 0.4, "relative_shift": 0.31, "count": int(shift.count[i]), "prompt_count": 2 if i < 6 else 0,
        }
        for i, token in enumerate(TOKENS)
    ]  # fmt: skip
    return {
        "kind": "update", "granularity": "token_rows", "fingerprint": "0123456789abcdef" * 4,
        "groups": [{"name": "input"}],
        "base": {
            "name": "tester/pocket", "revision": None, "model_type": "llama", "num_parameters": 2_951_424,
            "shapes": {"model.embed_tokens.weight": [3072, 192]}, "digest": "f" * 64,
        },
        "provenance": {
            "method": "ks",
            "details": {"selector": {"name": "TopK", "k": 18, "scope": "global"}, "tested": 2352},
        },
        "num_units": 18, "num_trainable": 3_456, "density": {"units": 18 / 3072, "model": 3456 / 2_951_424},
        "rows": rows,
    }  # fmt: skip


def example_report() -> Report:
    return Report(
        results=example_results(),
        ticket=example_ticket(),
        token_shift=example_shift(),
        differences=[
            PairedDifference(
                of="partial tuning", against="frequency control", metric="bleu_whole", value=0.5, low=-1.4, high=2.3
            )
        ],
        title="English to German with 18 rows",
        command="python recipes/translate.py --k 18",
        meta={"model": "tester/pocket", "test sentences": 300, "seed": 0},
    )
