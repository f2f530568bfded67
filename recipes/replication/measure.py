"""What is measured of a model: translations, the statistics that scores and intervals come from, and predictions."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file
from translation_data import Sentence

from ks_lottery.evaluation.agreement import response_argmax
from ks_lottery.evaluation.translation import TEXTS, TranslationScores, evaluate_translation
from replication.bench import Bench

STATISTICS, PREDICTIONS, TEXT = "statistics.safetensors", "predictions.safetensors", "translations.jsonl"


def translate(bench: Bench, model: Any, sentences: Sequence[Sentence], prompt: str = "") -> TranslationScores:
    """Translate sentences greedily and score them."""
    template, setting = bench.prompt(prompt), bench.setting
    return evaluate_translation(
        model,
        bench.tokenizer,
        [template(sentence.source) for sentence in sentences],
        [sentence.references for sentence in sentences],
        setting.max_new_tokens,
        batch_size=setting.generation_batch,
        progress=False,
    )


def measure_test(bench: Bench, model: Any, folder: Path, prompt: str = "", predict: bool = True) -> dict[str, Any]:
    """Score a model on the test sentences; the run directory gets what intervals are made of.

    Files: `statistics.safetensors` with `bleu_whole`, `bleu_first_line` [sentences, 10], `chrf_whole`,
    `chrf_first_line` [sentences, 18] and `stopped` [sentences], int32; `translations.jsonl`; `predictions.safetensors`
    if asked for.

    Returns:
        The scores.
    """
    scores = translate(bench, model, bench.test, prompt)
    keep_statistics(scores, folder)
    if predict:
        response_argmax(model, bench.certified, bench.setting.generation_batch, False).save(folder / PREDICTIONS)
    return brief(scores)


def brief(scores: TranslationScores) -> dict[str, Any]:
    """The scores of a test, without its sentences."""
    return {
        "bleu_whole": scores.bleu_whole,
        "bleu_first_line": scores.bleu_first_line,
        "chrf_whole": scores.chrf_whole,
        "chrf_first_line": scores.chrf_first_line,
        "stop_rate": scores.stop_rate,
        "mean_tokens": scores.mean_tokens,
        "sentences": len(scores.outputs),
        "test_seconds": scores.seconds,
    }


def keep_statistics(scores: TranslationScores, folder: Path) -> None:
    """Write what intervals are made of, and the translations."""
    tables = {
        f"{metric}_{text}": scores.statistics(metric, text).astype(np.int32)
        for metric in ("bleu", "chrf")
        for text in TEXTS
    }
    stopped = np.array([output.continuation.stopped for output in scores.outputs], dtype=np.int32)
    save_file({**tables, "stopped": stopped}, folder / STATISTICS)
    lines = [json.dumps(output.continuation.text, ensure_ascii=False) + "\n" for output in scores.outputs]
    (folder / TEXT).write_text("".join(lines), encoding="utf-8")


def statistics(folder: Path) -> dict[str, np.ndarray]:
    """What `keep_statistics` wrote."""
    return load_file(folder / STATISTICS)
