"""How well a model translates: scores of the whole text and of the first line, with intervals."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ks_lottery.errors import DataError, OptionError
from ks_lottery.evaluation.corpus_scores import (
    MetricName,
    corpus_score,
    score_from_statistics,
    segment_statistics,
    why_unavailable,
)
from ks_lottery.evaluation.generation import Continuation, generate_continuations
from ks_lottery.stats.intervals import Difference, Interval, bootstrap_interval, paired_bootstrap_difference

Text = Literal["whole", "first_line"]
TEXTS: tuple[Text, ...] = ("whole", "first_line")


@dataclass(frozen=True)
class TranslationOutput:
    """One test sentence.

    Attributes:
        continuation: what the model wrote.
        references: accepted translations.
    """

    continuation: Continuation
    references: tuple[str, ...]


@dataclass(frozen=True)
class TranslationScores:
    """Scores of one model on one test set, 0 to 100.

    The whole text punishes a model that translates and then goes on; the first line does not. The gap between the two
    is what stopping is worth.

    Attributes:
        bleu_whole: BLEU of all the text, newlines as spaces.
        bleu_first_line: BLEU of the first line.
        chrf_whole: chrF of all the text.
        chrf_first_line: chrF of the first line.
        spbleu_whole: spBLEU of all the text; None where it cannot be computed.
        spbleu_first_line: spBLEU of the first line; None where it cannot be computed.
        spbleu_note: why spBLEU is None, else None.
        stop_rate: share of continuations that ended with EOS, 0 to 1.
        mean_tokens: generated tokens per continuation.
        seconds: wall clock of the generation.
        outputs: every segment.
    """

    bleu_whole: float
    bleu_first_line: float
    chrf_whole: float
    chrf_first_line: float
    spbleu_whole: float | None
    spbleu_first_line: float | None
    spbleu_note: str | None
    stop_rate: float
    mean_tokens: float
    seconds: float
    outputs: tuple[TranslationOutput, ...]

    def interval(
        self,
        metric: MetricName = "bleu",
        text: Text = "whole",
        resamples: int = 1000,
        seed: int = 12345,
        confidence: float = 0.95,
    ) -> Interval:
        """Bootstrap interval of a score over segments; the same seed resamples the same segments for every model.

        Raises:
            OptionError: if an option is out of range, or spBLEU cannot be computed.
            DataError: if there are fewer than 2 segments.
        """
        score = partial(score_from_statistics, metric)
        statistics = self.statistics(metric, text)
        return bootstrap_interval(statistics, score, resamples=resamples, seed=seed, confidence=confidence)

    def difference(
        self,
        other: "TranslationScores",
        metric: MetricName = "bleu",
        text: Text = "whole",
        resamples: int = 1000,
        seed: int = 12345,
        confidence: float = 0.95,
    ) -> Difference:
        """Paired bootstrap of this model's score minus the other's.

        Raises:
            DataError: if the two were not scored on the same references.
            OptionError: if an option is out of range, or spBLEU cannot be computed.
        """
        if [output.references for output in self.outputs] != [output.references for output in other.outputs]:
            raise DataError(
                f"A paired comparison needs one test set: {len(self.outputs)} and {len(other.outputs)} segments with "
                "other references. Evaluate both models on the same prompts in the same order."
            )
        return paired_bootstrap_difference(
            self.statistics(metric, text),
            other.statistics(metric, text),
            partial(score_from_statistics, metric),
            resamples=resamples,
            seed=seed,
            confidence=confidence,
        )

    def statistics(self, metric: MetricName = "bleu", text: Text = "whole") -> NDArray[np.int64]:
        """[segments, m] sufficient statistics; see `segment_statistics`."""
        return segment_statistics(metric, self.hypotheses(text), [output.references for output in self.outputs])

    def hypotheses(self, text: Text = "whole") -> list[str]:
        """The texts that were scored.

        Raises:
            OptionError: if `text` is neither "whole" nor "first_line".
        """
        if text not in TEXTS:
            raise OptionError(f"text={text!r}: must be one of {', '.join(TEXTS)}.")
        return [getattr(output.continuation, text) for output in self.outputs]

    def to_dict(self) -> dict[str, Any]:
        """A JSON form that `from_dict` reads back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "TranslationScores":
        """Read what `to_dict` wrote."""
        outputs = tuple(
            TranslationOutput(Continuation(**output["continuation"]), tuple(output["references"]))
            for output in data["outputs"]
        )
        return cls(**{**data, "outputs": outputs})


def evaluate_translation(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    references: Sequence[Sequence[str]],
    max_new_tokens: int = 256,
    num_beams: int = 1,
    batch_size: int = 16,
    progress: bool = True,
) -> TranslationScores:
    """Translate a test set and score it.

    Args:
        model: causal language model, PEFT or plain, on its device.
        tokenizer: its tokenizer.
        prompts: one per test sentence, worded as in training (`PromptTemplate`).
        references: per test sentence one or more accepted translations.
        max_new_tokens: limit per translation, EOS included.
        num_beams: 1 is greedy search.
        batch_size: prompts per batch.
        progress: show a bar when it takes longer than two seconds.

    Raises:
        DataError: if there is no sentence, one has no reference, or a prompt is too long.
        OptionError: as `generate_continuations`.
    """
    if len(prompts) != len(references):
        raise DataError(f"There are {len(prompts)} prompts, but references for {len(references)} sentences.")
    if not len(prompts):
        raise DataError("The test set is empty. Check the split it was made from.")
    start = time.perf_counter()
    continuations = generate_continuations(
        model, tokenizer, prompts, max_new_tokens, num_beams=num_beams, batch_size=batch_size, progress=progress
    )
    return score_translations(continuations, references, seconds=time.perf_counter() - start)


def score_translations(
    continuations: Sequence[Continuation], references: Sequence[Sequence[str]], seconds: float = 0.0
) -> TranslationScores:
    """Score continuations that were generated before.

    Args:
        continuations: one per test sentence.
        references: per test sentence one or more accepted translations.
        seconds: what the generation took.

    Raises:
        DataError: if there is no sentence, the lengths differ, or one has no reference.
    """
    texts = {text: [getattr(continuation, text) for continuation in continuations] for text in TEXTS}
    note = why_unavailable("spbleu")
    spbleu = {text: None if note else corpus_score("spbleu", texts[text], references) for text in TEXTS}
    return TranslationScores(
        bleu_whole=corpus_score("bleu", texts["whole"], references),
        bleu_first_line=corpus_score("bleu", texts["first_line"], references),
        chrf_whole=corpus_score("chrf", texts["whole"], references),
        chrf_first_line=corpus_score("chrf", texts["first_line"], references),
        spbleu_whole=spbleu["whole"],
        spbleu_first_line=spbleu["first_line"],
        spbleu_note=note,
        stop_rate=float(np.mean([continuation.stopped for continuation in continuations])),
        mean_tokens=float(np.mean([continuation.num_tokens for continuation in continuations])),
        seconds=seconds,
        outputs=tuple(
            TranslationOutput(continuation, tuple(alternatives))
            for continuation, alternatives in zip(continuations, references, strict=True)
        ),
    )
