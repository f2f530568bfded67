"""How well a model classifies: accuracy and macro F1, with intervals."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ks_lottery.errors import DataError, OptionError
from ks_lottery.evaluation.inference import inference_mode, run_batches
from ks_lottery.stats.intervals import Difference, Interval, bootstrap_interval, paired_bootstrap_difference

ClassMetric = Literal["accuracy", "macro_f1"]
CLASS_METRICS: tuple[ClassMetric, ...] = ("accuracy", "macro_f1")


@dataclass(frozen=True)
class ClassificationScores:
    """Scores of one model on one test set, 0 to 1.

    Attributes:
        accuracy: share of texts whose predicted class is theirs.
        macro_f1: mean of the F1 of all classes that occur among the labels or the predictions.
        num_classes: how many classes the model tells apart.
        labels: right class of each text.
        predictions: predicted class of each text.
        seconds: wall clock of the predictions.
    """

    accuracy: float
    macro_f1: float
    num_classes: int
    labels: tuple[int, ...]
    predictions: tuple[int, ...]
    seconds: float = 0.0

    def interval(
        self, metric: ClassMetric = "accuracy", resamples: int = 1000, seed: int = 12345, confidence: float = 0.95
    ) -> Interval:
        """Bootstrap interval of a score over texts; the same seed resamples the same texts for every model.

        Raises:
            OptionError: if an option is out of range.
            DataError: if there are fewer than 2 texts.
        """
        score = partial(score_from_counts, metric)
        return bootstrap_interval(self.counts(metric), score, resamples=resamples, seed=seed, confidence=confidence)

    def difference(
        self,
        other: "ClassificationScores",
        metric: ClassMetric = "accuracy",
        resamples: int = 1000,
        seed: int = 12345,
        confidence: float = 0.95,
    ) -> Difference:
        """Paired bootstrap of this model's score minus the other's.

        Raises:
            DataError: if the two were not scored on the same labels.
            OptionError: if an option is out of range.
        """
        if (self.labels, self.num_classes) != (other.labels, other.num_classes):
            raise DataError(
                f"A paired comparison needs one test set: {len(self.labels)} texts of {self.num_classes} classes and "
                f"{len(other.labels)} of {other.num_classes}, with other labels. Evaluate both models on the same "
                "texts in the same order."
            )
        return paired_bootstrap_difference(
            self.counts(metric),
            other.counts(metric),
            partial(score_from_counts, metric),
            resamples=resamples,
            seed=seed,
            confidence=confidence,
        )

    def counts(self, metric: ClassMetric) -> NDArray[np.int64]:
        """What each text adds to a score.

        Args:
            metric: "accuracy" or "macro_f1".

        Returns:
            [texts, m] int64. Accuracy, m = 2: whether the prediction is right, and 1. Macro F1, m = 3 * classes:
            whether a class is predicted and right, predicted, and right.

        Raises:
            OptionError: if the metric is unknown.
        """
        _require_metric(metric)
        labels, predictions = np.array(self.labels), np.array(self.predictions)
        right = labels == predictions
        if metric == "accuracy":
            return np.stack([right, np.ones_like(right)], axis=1).astype(np.int64)
        classes = np.arange(self.num_classes)
        predicted, labelled = predictions[:, None] == classes, labels[:, None] == classes
        return np.concatenate([predicted & labelled, predicted, labelled], axis=1).astype(np.int64)

    def to_dict(self) -> dict[str, Any]:
        """A JSON form that `from_dict` reads back."""
        return {**asdict(self), "labels": list(self.labels), "predictions": list(self.predictions)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "ClassificationScores":
        """Read what `to_dict` wrote."""
        return cls(**{**data, "labels": tuple(data["labels"]), "predictions": tuple(data["predictions"])})


def score_from_counts(metric: ClassMetric, sums: ArrayLike) -> NDArray[np.float64]:
    """A score from summed counts.

    Args:
        metric: as for `ClassificationScores.counts`.
        sums: [..., m] sums over texts.

    Returns:
        [...] float64, 0 to 1.

    Raises:
        OptionError: if the metric is unknown.
    """
    _require_metric(metric)
    totals = np.asarray(sums, dtype=np.float64)
    if metric == "accuracy":
        accuracy: NDArray[np.float64] = totals[..., 0] / totals[..., 1]
        return accuracy
    both, predicted, labelled = np.moveaxis(totals.reshape(*totals.shape[:-1], 3, -1), -2, 0)
    occurs = predicted + labelled
    f1 = 2 * both / np.where(occurs > 0, occurs, 1)
    mean: NDArray[np.float64] = f1.sum(axis=-1) / (occurs > 0).sum(axis=-1)
    return mean


def score_classification(
    predictions: Sequence[int], labels: Sequence[int], num_classes: int, seconds: float = 0.0
) -> ClassificationScores:
    """Score predictions.

    Args:
        predictions: one class per text.
        labels: the right ones.
        num_classes: classes are 0 to `num_classes` - 1.
        seconds: what the predictions took.

    Raises:
        DataError: if there is no text, the lengths differ, or a class is out of range.
    """
    _require_labels("predictions", predictions, labels)
    for what, classes in (("label", labels), ("prediction", predictions)):
        text = next((text for text, number in enumerate(classes) if not 0 <= number < num_classes), None)
        if text is not None:
            raise DataError(
                f"The {what} of text {text} is class {classes[text]}, but the classes are 0 to {num_classes - 1}. "
                "Score a model on the labels that it was trained on."
            )
    unscored = ClassificationScores(
        0.0, 0.0, num_classes, tuple(map(int, labels)), tuple(map(int, predictions)), seconds
    )
    accuracy, macro_f1 = (
        float(score_from_counts(metric, unscored.counts(metric).sum(axis=0))) for metric in CLASS_METRICS
    )
    return ClassificationScores(accuracy, macro_f1, num_classes, unscored.labels, unscored.predictions, seconds)


def evaluate_classification(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str],
    labels: Sequence[int],
    max_length: int | None = None,
    batch_size: int = 64,
    progress: bool = True,
) -> ClassificationScores:
    """Classify a test set and score it.

    Args:
        model: sequence classifier, PEFT or plain, on its device.
        tokenizer: its tokenizer, with a padding token.
        texts: what to classify.
        labels: the right class of each text.
        max_length: tokens of a text that are read, as in training; the rest is cut off. All if None.
        batch_size: texts per batch.
        progress: show a bar when it takes longer than two seconds.

    Raises:
        DataError: as `score_classification`.
        OptionError: if `batch_size` is below 1.
    """
    from transformers import DataCollatorWithPadding

    _require_labels("texts", texts, labels)
    start = time.perf_counter()
    encoded = tokenizer(list(texts), truncation=max_length is not None, max_length=max_length)
    rows = [{name: values[row] for name, values in encoded.items()} for row in range(len(texts))]
    padded = DataCollatorWithPadding(tokenizer)

    def classify(batch: list[dict[str, Any]]) -> list[int]:
        predicted: list[int] = model(**padded(batch).to(model.device)).logits.argmax(dim=-1).tolist()
        return predicted

    with inference_mode(model):
        lengths = [len(row["input_ids"]) for row in rows]
        predictions = run_batches(rows, lengths, batch_size, classify, "classifying", progress)
    seconds = time.perf_counter() - start
    return score_classification(predictions, labels, int(model.config.num_labels), seconds)


def _require_labels(what: str, given: Sequence[Any], labels: Sequence[int]) -> None:
    if len(given) != len(labels):
        raise DataError(f"There are {len(given)} {what}, but labels of {len(labels)} texts. Give one label per text.")
    if not len(labels):
        raise DataError("The test set is empty. Check the split it was made from.")


def _require_metric(metric: str) -> None:
    if metric not in CLASS_METRICS:
        raise OptionError(f"metric={metric!r}: must be one of {', '.join(CLASS_METRICS)}.")
