"""The translation scores as a metric of Hugging Face `evaluate`, made directly and never downloaded."""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from ks_lottery.evaluation.corpus_scores import METRICS, corpus_score, why_unavailable

_DESCRIPTION = """\
Corpus BLEU (13a tokens), chrF and spBLEU (Flores-200 pieces) by sacrebleu, with one or more references per segment.
"""
_ARGUMENTS = """\
Args:
    predictions: list of str, one translation per segment.
    references: list of list of str, one or more per segment.
Returns:
    bleu, chrf: 0 to 100.
    spbleu: 0 to 100, or None where its SentencePiece model is not on this machine.
    note: why spbleu is None, else None.
"""
_CITATION = """\
Post. A Call for Clarity in Reporting BLEU Scores. WMT 2018.
Popovic. chrF: character n-gram F-score for automatic MT evaluation. WMT 2015.
Goyal et al. The Flores-101 Evaluation Benchmark. TACL 2022 (spBLEU).
"""


class TranslationMetric(evaluate.Metric):
    """BLEU, chrF and spBLEU behind the interface of `evaluate`.

        TranslationMetric().compute(predictions=["Der Hund."], references=[["Der Hund.", "Ein Hund."]])

    `add`, `add_batch` and `evaluate.combine` work as for any metric. spBLEU is computed only where sacrebleu's
    SentencePiece model is cached already; otherwise it is None, and `note` says why.

    Args:
        options: of `evaluate.Metric`; what is added is kept in memory unless told otherwise.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"keep_in_memory": options.get("num_process", 1) == 1, **options})

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_ARGUMENTS,
            features=datasets.Features({"predictions": text, "references": datasets.Sequence(text)}),
            reference_urls=["https://github.com/mjpost/sacrebleu"],
        )

    def _compute(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Any]:
        note = why_unavailable("spbleu")
        scores: dict[str, Any] = {
            name: corpus_score(name, predictions, references) for name in METRICS if why_unavailable(name) is None
        }
        return {"spbleu": None, **scores, "note": note}
