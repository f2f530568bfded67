"""One row of a score table, as a value that is also JSON."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal

from ks_lottery.errors import DataError

if TYPE_CHECKING:
    from ks_lottery.evaluation.agreement import Agreement
    from ks_lottery.evaluation.translation import TranslationScores

BASE = "base"
FULL_TUNING = "full tuning"
EMBED_TUNING = "embed tuning"
PARTIAL_TUNING = "partial tuning"
PARTIAL_TRANSFER = "partial transfer"
RANDOM_CONTROL = "random control"
FREQUENCY_CONTROL = "frequency control"
PROMPT_ROWS = "prompt rows"
STRUCTURAL_ROW = "structural row"
LORA = "LoRA r=8"

Metric = Literal["bleu_whole", "bleu_first_line"]
METRICS: tuple[Metric, ...] = ("bleu_whole", "bleu_first_line")
_INTERVALS = ("bleu_whole_interval", "bleu_first_line_interval")


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one run scored and what it cost. None means: not measured.

    Attributes:
        name: what was run: one of this module's names where it is one of them; unique in a table.
        trainable: single weights that were trained.
        adapter_bytes: size of what was saved.
        learning_rate: of the run.
        tried_learning_rates: among how many it was chosen, on the development set.
        steps: optimiser steps.
        bleu_whole: of the whole continuation, newlines as spaces; 0 to 100.
        bleu_first_line: of the first line that is not blank, which takes out most of what stopping is worth.
        chrf_whole: of the whole continuation, 0 to 100.
        chrf_first_line: of the first line.
        spbleu_whole: of the whole continuation, with the SentencePiece tokeniser of Flores.
        stop_rate: share of sentences whose continuation ended by itself.
        certificate: agreement with embed tuning on held-out text.
        seconds: wall clock of training.
        peak_memory: bytes.
        bleu_whole_interval: bootstrap interval of `bleu_whole` over sentences.
        bleu_first_line_interval: the same of `bleu_first_line`.
        gain_recovered_whole: share of embed tuning's gain in `bleu_whole` over the base model; see `with_gains`.
        gain_recovered_first_line: the same of `bleu_first_line`.

    Raises:
        DataError: if a value is NaN or infinite, a rate is outside 0 to 1, or an interval is upside down.
    """

    name: str
    trainable: int | None = None
    adapter_bytes: int | None = None
    learning_rate: float | None = None
    tried_learning_rates: int | None = None
    steps: int | None = None
    bleu_whole: float | None = None
    bleu_first_line: float | None = None
    chrf_whole: float | None = None
    chrf_first_line: float | None = None
    spbleu_whole: float | None = None
    stop_rate: float | None = None
    certificate: "Agreement | None" = None
    seconds: float | None = None
    peak_memory: int | None = None
    bleu_whole_interval: tuple[float, float] | None = None
    bleu_first_line_interval: tuple[float, float] | None = None
    gain_recovered_whole: float | None = None
    gain_recovered_first_line: float | None = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            for number in value if isinstance(value, tuple) else (value,):
                if isinstance(number, Real) and not math.isfinite(number):
                    raise DataError(
                        f"{field.name} of {self.name!r} is {value}. Leave out what was not measured (None)."
                    )
        if self.stop_rate is not None and not 0.0 <= self.stop_rate <= 1.0:
            raise DataError(
                f"stop_rate of {self.name!r} is {self.stop_rate}, but is a share: give 0 to 1, not percent."
            )
        for interval in _INTERVALS:
            bounds = getattr(self, interval)
            if bounds is not None and not bounds[0] <= bounds[1]:
                raise DataError(f"{interval} of {self.name!r} is {bounds}. Give its lower end first.")

    @classmethod
    def of(cls, name: str, scores: "TranslationScores", **costs: Any) -> "Result":
        """The row of an evaluated run, with bootstrap intervals of both BLEU scores.

        Args:
            name: what was run.
            scores: what `evaluate_translation` gives.
            costs: the other fields: what it trained, how, and what that took.
        """
        intervals = {text: scores.interval("bleu", text) for text in ("whole", "first_line")}
        return cls(
            name=name,
            bleu_whole=scores.bleu_whole,
            bleu_first_line=scores.bleu_first_line,
            chrf_whole=scores.chrf_whole,
            chrf_first_line=scores.chrf_first_line,
            spbleu_whole=scores.spbleu_whole,
            stop_rate=scores.stop_rate,
            bleu_whole_interval=(intervals["whole"].low, intervals["whole"].high),
            bleu_first_line_interval=(intervals["first_line"].low, intervals["first_line"].high),
            **costs,
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON values by field; numpy numbers become Python's."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values["certificate"] = None if self.certificate is None else self.certificate.to_dict()
        return {name: _plain(value) for name, value in values.items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Result":
        """Read what `to_dict` wrote.

        Raises:
            DataError: if a field is unknown or malformed.
        """
        values = dict(data)
        try:
            if values.get("certificate") is not None:
                from ks_lottery.evaluation.agreement import Agreement

                values["certificate"] = Agreement(**values["certificate"])
            for name in _INTERVALS:
                if values.get(name) is not None:
                    low, high = values[name]
                    values[name] = (low, high)
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise DataError(f"The result {data.get('name')!r} cannot be read: {error}") from error


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """Score of one run minus score of another, on the same sentences.

    Attributes:
        of: name of the result that is measured.
        against: name of the result that is subtracted.
        metric: the score.
        value: the difference.
        low: lower end of its paired bootstrap interval.
        high: upper end.
    """

    of: str
    against: str
    metric: Metric
    value: float
    low: float
    high: float

    @classmethod
    def between(
        cls,
        of: str,
        scores: "TranslationScores",
        against: str,
        other: "TranslationScores",
        metric: Metric = "bleu_whole",
    ) -> "PairedDifference":
        """Compare two evaluated runs by paired bootstrap.

        Args:
            of: name of the first run's result.
            scores: the first run's scores.
            against: name of the second run's result.
            other: the second run's scores.
            metric: what to compare.

        Raises:
            DataError: if the two were not scored on the same references.
        """
        difference = scores.difference(other, "bleu", "whole" if metric == "bleu_whole" else "first_line")
        return cls(
            of=of, against=against, metric=metric, value=difference.value, low=difference.low, high=difference.high
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON values by field."""
        return {name: _plain(value) for name, value in dataclasses.asdict(self).items()}


def by_name(results: Sequence[Result]) -> dict[str, Result]:
    """Results by name.

    Raises:
        DataError: if two have one name, or there is none.
    """
    found = {result.name: result for result in results}
    if len(found) < len(results):
        names = [result.name for result in results]
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(
            f"Two results are called {twice!r}. Name each run differently, for example {twice + ' (50)'!r}."
        )
    if not found:
        raise DataError("There are no results to report. Give at least one.")
    return found


def with_gains(results: Sequence[Result]) -> list[Result]:
    """Fill in what share of embed tuning's gain over the base model each result recovers, where it is not given.

    It stays None where a score is missing, where embed tuning gained nothing, and for the base model.

    Raises:
        DataError: as `by_name`.
    """
    named = by_name(results)
    filled = []
    for result in results:
        gains: dict[str, Any] = {}
        for metric, field in zip(METRICS, ("gain_recovered_whole", "gain_recovered_first_line"), strict=True):
            if getattr(result, field) is None and result.name != BASE:
                gains[field] = _share(result, named.get(BASE), named.get(EMBED_TUNING), metric)
        filled.append(dataclasses.replace(result, **gains))
    return filled


def gain(result: Result | None, base: Result | None, metric: Metric) -> float | None:
    """Score of a result minus the base model's, or None where one is missing."""
    score = None if result is None else getattr(result, metric)
    start = None if base is None else getattr(base, metric)
    return None if score is None or start is None else float(score - start)


def _share(result: Result, base: Result | None, reference: Result | None, metric: Metric) -> float | None:
    part, whole = gain(result, base, metric), gain(reference, base, metric)
    return None if part is None or whole is None or whole <= 0 else part / whole


def _plain(value: Any) -> Any:
    """A value as JSON knows it."""
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, tuple):
        return [_plain(entry) for entry in value]
    return value.item() if hasattr(value, "item") else value
