import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st

from ks_lottery.errors import DataError, OptionError
from ks_lottery.evaluation import corpus_scores
from ks_lottery.evaluation.corpus_scores import (
    METRICS,
    corpus_score,
    score_from_statistics,
    segment_statistics,
    why_unavailable,
)
from ks_lottery.evaluation.generation import Continuation
from ks_lottery.evaluation.metric import TranslationMetric
from ks_lottery.evaluation.translation import score_translations

HYPOTHESES = ["Der Hund schläft heute nicht.", "Eine Katze frisst, glaube ich, den Fisch .", "", "ja"]
REFERENCES = [
    ["Der Hund schläft heute nicht.", "Heute schläft der Hund nicht."],
    ["Eine Katze frisst den Fisch, glaube ich."],
    ["Nein."],
    ["Ja.", "ja", "Jawohl!"],
]
words = st.lists(st.sampled_from(["der", "Hund", "die", "Katze", ".", "schläft", "z. B.", "$5"]), max_size=9).map(
    " ".join
)
segments = st.lists(st.tuples(words, st.lists(words, min_size=1, max_size=3)), min_size=1, max_size=6)


@pytest.mark.parametrize("metric", ["bleu", "chrf"])
def test_sums_of_statistics_give_the_corpus_score(metric: str) -> None:
    statistics = segment_statistics(metric, HYPOTHESES, REFERENCES)
    assert statistics.shape == (4, {"bleu": 10, "chrf": 18}[metric])
    assert statistics.dtype == np.int64
    assert score_from_statistics(metric, statistics.sum(axis=0)) == corpus_score(metric, HYPOTHESES, REFERENCES)


@settings(max_examples=60, deadline=None)
@given(segments)
def test_statistics_equal_sacrebleu_on_any_corpus(rows) -> None:
    hypotheses, references = [row[0] for row in rows], [row[1] for row in rows]
    for metric in ("bleu", "chrf"):
        sums = segment_statistics(metric, hypotheses, references).sum(axis=0)
        assert score_from_statistics(metric, sums) == corpus_score(metric, hypotheses, references)


def test_single_reference_scores_are_sacrebleus_functions() -> None:
    single = [alternatives[:1] for alternatives in REFERENCES]
    streams = [[alternatives[0] for alternatives in single]]
    assert corpus_score("bleu", HYPOTHESES, single) == sacrebleu.corpus_bleu(HYPOTHESES, streams).score
    assert corpus_score("chrf", HYPOTHESES, single) == sacrebleu.corpus_chrf(HYPOTHESES, streams).score


def test_scores_are_taken_over_any_leading_shape() -> None:
    for metric in ("bleu", "chrf"):
        statistics = segment_statistics(metric, HYPOTHESES, REFERENCES)
        sums = np.stack([statistics.sum(axis=0), statistics[:2].sum(axis=0)])
        both = score_from_statistics(metric, sums.astype(np.float64))
        assert both.tolist() == [
            corpus_score(metric, HYPOTHESES, REFERENCES),
            corpus_score(metric, HYPOTHESES[:2], REFERENCES[:2]),
        ]
        assert score_from_statistics(metric, sums[None]).shape == (1, 2)


def test_spbleu_never_downloads(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(sacrebleu.utils, "SACREBLEU_DIR", str(tmp_path))
    monkeypatch.setattr(corpus_scores.importlib.util, "find_spec", lambda name: object())
    assert str(tmp_path / "models" / "flores200sacrebleuspm") in why_unavailable("spbleu")
    with pytest.raises(OptionError, match="SentencePiece model is not at .* sacrebleu --tokenize flores200"):
        corpus_score("spbleu", HYPOTHESES, REFERENCES)
    monkeypatch.setattr(corpus_scores.importlib.util, "find_spec", lambda name: None)
    assert "needs the package sentencepiece" in why_unavailable("spbleu")


def test_spbleu_uses_the_cached_model(tmp_path, monkeypatch) -> None:
    from sacrebleu.tokenizers import tokenizer_spm

    class Processor:
        def Load(self, path: str) -> None:
            assert path == str(tmp_path / "models" / "flores200sacrebleuspm")

        def EncodeAsPieces(self, line: str) -> list[str]:
            return list(line.replace(" ", "▁"))

    fake = ModuleType("sentencepiece")
    fake.__spec__ = ModuleSpec("sentencepiece", None)
    fake.SentencePieceProcessor = Processor
    monkeypatch.setitem(sys.modules, "sentencepiece", fake)
    monkeypatch.setattr(sacrebleu.utils, "SACREBLEU_DIR", str(tmp_path))
    monkeypatch.setattr(tokenizer_spm, "SACREBLEU_DIR", str(tmp_path))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "flores200sacrebleuspm").touch()
    assert why_unavailable("spbleu") is None
    score = corpus_score("spbleu", HYPOTHESES, REFERENCES)
    assert corpus_score("bleu", HYPOTHESES, REFERENCES) < score < 100
    assert score_from_statistics("spbleu", segment_statistics("spbleu", HYPOTHESES, REFERENCES).sum(axis=0)) == score
    scores = score_translations([Continuation(text, True, 1) for text in HYPOTHESES], REFERENCES)
    assert (scores.spbleu_whole, scores.spbleu_note) == (score, None)
    assert TranslationMetric().compute(predictions=HYPOTHESES, references=REFERENCES)["spbleu"] == score


def test_the_evaluate_metric() -> None:
    metric = TranslationMetric()
    result = metric.compute(predictions=HYPOTHESES, references=REFERENCES)
    assert result["bleu"] == corpus_score("bleu", HYPOTHESES, REFERENCES)
    assert result["chrf"] == corpus_score("chrf", HYPOTHESES, REFERENCES)
    assert (result["spbleu"] is None) == (result["note"] is not None)
    for hypothesis, alternatives in zip(HYPOTHESES, REFERENCES, strict=True):
        metric.add(prediction=hypothesis, reference=alternatives)
    assert metric.compute() == result
    assert "sacrebleu" in metric.description


def test_errors() -> None:
    with pytest.raises(OptionError, match="metric='meteor': must be one of bleu, chrf, spbleu"):
        corpus_score("meteor", HYPOTHESES, REFERENCES)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no segment to score"):
        corpus_score("bleu", [], [])
    with pytest.raises(DataError, match="4 hypotheses, but references for 1 segments"):
        corpus_score("bleu", HYPOTHESES, [["x"]])
    with pytest.raises(DataError, match="Segment 1 needs a list of one or more references, got 'b'"):
        corpus_score("bleu", ["a", "b"], [["a"], "b"])
    with pytest.raises(DataError, match=r"Segment 0 needs a list of one or more references, got \[\]"):
        segment_statistics("chrf", ["a"], [[]])
    assert set(METRICS) == {"bleu", "chrf", "spbleu"}
