"""BLEU, chrF and spBLEU of a corpus, as functions of summed segment statistics.

sacrebleu gives the scores; the statistics of each segment make bootstrap intervals possible, and their sums give the
same numbers to the last bit.
"""

import importlib.util
from collections import Counter
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Literal

import numpy as np
import sacrebleu.utils
from numpy.typing import NDArray
from sacrebleu.metrics import BLEU, CHRF

from ks_lottery.errors import DataError, OptionError

MetricName = Literal["bleu", "chrf", "spbleu"]
METRICS: tuple[MetricName, ...] = ("bleu", "chrf", "spbleu")

_ORDERS = BLEU().max_ngram_order
_CHRF_ORDERS = CHRF.CHAR_ORDER
_SPBLEU_TOKENIZER = "flores200"
_SPBLEU_FILE = "flores200sacrebleuspm"


def why_unavailable(metric: MetricName) -> str | None:
    """Why a metric cannot be computed here, in plain words; None if it can. Nothing is ever downloaded.

    Raises:
        OptionError: if there is no such metric.
    """
    if metric not in METRICS:
        raise OptionError(f"metric={metric!r}: must be one of {', '.join(METRICS)}.")
    if metric != "spbleu":
        return None
    if importlib.util.find_spec("sentencepiece") is None:
        return "spBLEU is not computed: it needs the package sentencepiece (pip install sentencepiece)."
    file = Path(sacrebleu.utils.SACREBLEU_DIR) / "models" / _SPBLEU_FILE
    if not file.is_file():
        return (
            f"spBLEU is not computed: its SentencePiece model is not at {file}. With a network, one call of "
            f"sacrebleu --tokenize {_SPBLEU_TOKENIZER} puts it there."
        )
    return None


def corpus_score(metric: MetricName, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Score of a corpus by sacrebleu, 0 to 100.

    Args:
        metric: "bleu" (13a tokens), "chrf" (character 6-grams, beta 2) or "spbleu" (Flores-200 pieces).
        hypotheses: one text per segment.
        references: per segment one or more texts; their number may differ.

    Raises:
        DataError: if there is no segment, the two lengths differ, or a segment has no reference.
        OptionError: if the metric is unknown or its model file is missing (`why_unavailable` says so beforehand).
    """
    scorer = _scorer(metric)
    _check(hypotheses, references)
    streams = [list(stream) for stream in zip_longest(*references)]
    return float(scorer.corpus_score(list(hypotheses), streams).score)


def segment_statistics(
    metric: MetricName, hypotheses: Sequence[str], references: Sequence[Sequence[str]]
) -> NDArray[np.int64]:
    """What each segment adds to the corpus score; arguments and errors as `corpus_score`.

    Returns:
        [segments, m] int64. BLEU, m = 10: hypothesis length, closest reference length, n-gram matches and n-gram totals
        of orders 1 to 4. chrF, m = 18: hypothesis n-grams, reference n-grams and matches of each order 1 to 6, against
        the best reference.
    """
    _scorer(metric)
    _check(hypotheses, references)
    if metric == "chrf":
        rows = [_chrf_row(text, alternatives) for text, alternatives in zip(hypotheses, references, strict=True)]
        return np.array(rows, dtype=np.int64)
    scorer = _scorer(metric, effective_order=True)
    scores = [scorer.sentence_score(text, list(alts)) for text, alts in zip(hypotheses, references, strict=True)]
    return np.array([[s.sys_len, s.ref_len, *s.counts, *s.totals] for s in scores], dtype=np.int64)


def score_from_statistics(metric: MetricName, sums: NDArray[np.float64] | NDArray[np.int64]) -> NDArray[np.float64]:
    """Corpus scores from summed segment statistics.

    Args:
        metric: as for `segment_statistics`.
        sums: [..., m] sums over segments.

    Returns:
        [...] float64, 0 to 100.
    """
    if metric == "chrf":
        return _chrf_score(np.asarray(sums, dtype=np.float64))
    flat = np.asarray(sums).reshape(-1, 2 + 2 * _ORDERS).astype(np.int64).tolist()
    scores = [BLEU.compute_bleu(r[2 : 2 + _ORDERS], r[2 + _ORDERS :], r[0], r[1], "exp").score for r in flat]
    return np.array(scores, dtype=np.float64).reshape(np.shape(sums)[:-1])


def _scorer(metric: MetricName, **options: bool) -> BLEU | CHRF:
    reason = why_unavailable(metric)
    if reason is not None:
        raise OptionError(reason)
    if metric == "chrf":
        return CHRF()
    return BLEU(tokenize=_SPBLEU_TOKENIZER if metric == "spbleu" else "13a", force=True, **options)


def _check(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    if not len(hypotheses):
        raise DataError("There is no segment to score. Check the test set.")
    if len(hypotheses) != len(references):
        raise DataError(f"There are {len(hypotheses)} hypotheses, but references for {len(references)} segments.")
    for segment, alternatives in enumerate(references):
        if isinstance(alternatives, str) or not len(alternatives):
            raise DataError(
                f"Segment {segment} needs a list of one or more references, got {alternatives!r}. "
                'Wrap a single one: ["Der Hund schläft."].'
            )


def _chrf_row(hypothesis: str, references: Sequence[str]) -> list[int]:
    """Statistics against the reference with the best score; the first of equal ones."""
    found = _character_ngrams(hypothesis)
    rows = []
    for reference in references:
        row: list[int] = []
        for mine, wanted in zip(found, _character_ngrams(reference), strict=True):
            matches = sum((mine & wanted).values())
            row += [mine.total() if wanted else 0, wanted.total(), matches]
        rows.append(row)
    return rows[int(np.argmax(_chrf_score(np.array(rows, dtype=np.float64))))]


def _character_ngrams(text: str) -> list[Counter[str]]:
    characters = "".join(text.split())
    return [
        Counter(characters[start : start + order] for start in range(len(characters) - order + 1))
        for order in range(1, _CHRF_ORDERS + 1)
    ]


def _chrf_score(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """F-score of mean precision and mean recall over the orders that both sides have; beta = 2."""
    found, wanted, matches = sums[..., 0::3], sums[..., 1::3], sums[..., 2::3]
    counted = (found > 0) & (wanted > 0)
    precision = np.zeros(sums.shape[:-1])
    recall = np.zeros(sums.shape[:-1])
    for order in range(_CHRF_ORDERS):
        use = counted[..., order]
        precision = precision + np.where(use, matches[..., order] / np.where(use, found[..., order], 1), 0)
        recall = recall + np.where(use, matches[..., order] / np.where(use, wanted[..., order], 1), 0)
    orders = np.maximum(counted.sum(axis=-1), 1)
    precision, recall = precision / orders, recall / orders
    weight = CHRF.BETA**2
    below = weight * precision + recall
    return 100 * ((1 + weight) * precision * recall / np.where(below > 0, below, 1))
