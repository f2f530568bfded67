"""How often a reduced model predicts what the probe predicts, on held-out text: the certificate, and only that."""

import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from ks_lottery.checkpoints.writer import atomic_file
from ks_lottery.errors import DataError, OptionError
from ks_lottery.evaluation.inference import inference_mode, run_batches
from ks_lottery.stats.intervals import bootstrap_interval, clopper_pearson
from ks_lottery.training.causal_lm import require_causal_lm
from ks_lottery.training.examples import IGNORED_LABEL, Example, ResponseCollator, ResponseExamples

Dataset = Sequence[Example] | ResponseExamples


@dataclass(frozen=True, eq=False)
class ResponseArgmax:
    """A model's most likely token at every response position of a data set, given the true tokens before it.

    Attributes:
        predicted: [tokens] int64, sentence after sentence.
        labels: [tokens] int64; the true tokens.
        lengths: [sentences] int64; response tokens of each sentence.
    """

    predicted: NDArray[np.int64]
    labels: NDArray[np.int64]
    lengths: NDArray[np.int64]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file, atomically."""
        with atomic_file(path) as temporary:
            save_file(asdict(self), temporary)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "ResponseArgmax":
        """Read what `save` wrote.

        Raises:
            DataError: if there is no such file.
        """
        if not Path(path).is_file():
            raise DataError(f"There are no saved predictions at {os.fspath(path)!r}. Make them with response_argmax.")
        return cls(**load_file(path))


@dataclass(frozen=True)
class Agreement:
    """How often two models predict the same response token.

    What is certified is `lower_bound`: agreement with the other model's predictions, on text like this, not translation
    quality. Tokens of one sentence depend on each other, which Clopper-Pearson does not know; `sentence_lower_bound`
    resamples whole sentences and is the safer one where it is lower.

    Attributes:
        matches: response tokens on which both agree.
        tokens: response tokens compared.
        sentences: sentences they come from.
        rate: matches / tokens.
        lower_bound: one-sided Clopper-Pearson bound of the rate at confidence 1 - alpha.
        sentence_lower_bound: the same by bootstrap over sentences; None for fewer than 2 sentences.
        alpha: error rate of the bounds.
        tau: sqrt(ln(2 / alpha) / row_length), a threshold on the KS statistic D in the selection of rows of this
            length, from p <= 2 exp(-n D^2); no guarantee of anything. None if the row length is not known.
        row_length: values per token row.

    Source:
        Clopper & Pearson 1934; Efron 1979; tau: Wei & Dudley 2012, arXiv 1107.5356. The constants of KS-Lottery's own
        theorem are not public.
    """

    matches: int
    tokens: int
    sentences: int
    rate: float
    lower_bound: float
    sentence_lower_bound: float | None
    alpha: float
    tau: float | None = None
    row_length: int | None = None

    def __str__(self) -> str:
        lines = [
            f"Agreement on held-out response tokens: {self.rate:.2%} ({self.matches} of {self.tokens}, "
            f"{self.sentences} sentences); with confidence {1 - self.alpha:g} at least {self.lower_bound:.2%} "
            "(Clopper-Pearson, tokens as if independent)"
        ]
        if self.sentence_lower_bound is not None:
            lines.append(f", or {self.sentence_lower_bound:.2%} (bootstrap over sentences)")
        lines.append(". This bounds agreement of predictions, not translation quality.")
        if self.tau is not None:
            lines.append(
                f" tau({self.alpha:g}) = {self.tau:.4f} for rows of {self.row_length} values: a threshold on D in the "
                "selection (Wei and Dudley), not a guarantee."
            )
        return "".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values; `Agreement(**data)` reads them back."""
        return asdict(self)


def agreement(
    model: Any,
    reference: Any,
    dataset: Dataset | None = None,
    alpha: float = 0.05,
    row_length: int | None = None,
    batch_size: int = 16,
    resamples: int = 1000,
    seed: int = 12345,
    progress: bool = True,
) -> Agreement:
    """Compare a reduced model's predictions with the probe's on held-out, teacher-forced response tokens.

    Args:
        model: the ticket's model, or its `response_argmax`.
        reference: the probe's model, or its `response_argmax`, so that both need not be in memory.
        dataset: held-out tokenised examples (`response_examples`), that neither probe nor ticket has seen; needed for
            whichever of the two is a model.
        alpha: the bounds hold with confidence 1 - alpha.
        row_length: values per token row, for `tau`; the model's hidden size if None.
        batch_size: examples per batch.
        resamples: of the sentence bootstrap.
        seed: of the sentence bootstrap.
        progress: show a bar when it takes longer than two seconds.

    Raises:
        DataError: if there is no response token, or the two predictions are not of the same text.
        OptionError: if `alpha` is outside (0, 0.5), or a model comes without a data set.
    """
    if not 0.0 < alpha < 0.5:
        raise OptionError(f"alpha={alpha}: must lie between 0 and 0.5; the bounds hold with confidence 1 - alpha.")
    if row_length is None and isinstance(model, torch.nn.Module):
        row_length = int(model.config.get_text_config().hidden_size)  # type: ignore[union-attr, operator]
    mine, theirs = (_argmax_of(one, dataset, batch_size, progress) for one in (model, reference))
    if not np.array_equal(mine.lengths, theirs.lengths) or not np.array_equal(mine.labels, theirs.labels):
        raise DataError(
            f"The predictions are of different texts: {len(mine.lengths)} sentences with {len(mine.labels)} response "
            f"tokens and {len(theirs.lengths)} with {len(theirs.labels)}. Make both from the same data set."
        )
    same = (mine.predicted == theirs.predicted).astype(np.int64)
    matches, tokens = int(same.sum()), len(same)
    by_sentence = np.add.reduceat(same, np.cumsum(mine.lengths) - mine.lengths)
    sentence_bound = None
    if len(mine.lengths) > 1:
        sentence_bound = bootstrap_interval(
            np.stack([by_sentence, mine.lengths], axis=1),
            lambda sums: sums[..., 0] / sums[..., 1],
            resamples=resamples,
            seed=seed,
            confidence=1 - 2 * alpha,
        ).low
    return Agreement(
        matches=matches,
        tokens=tokens,
        sentences=len(mine.lengths),
        rate=matches / tokens,
        lower_bound=clopper_pearson(matches, tokens, 1 - alpha, side="lower").low,
        sentence_lower_bound=sentence_bound,
        alpha=alpha,
        tau=None if row_length is None else ks_threshold(alpha, row_length),
        row_length=row_length,
    )


def response_argmax(model: Any, dataset: Dataset, batch_size: int = 16, progress: bool = True) -> ResponseArgmax:
    """Predict every response token of a data set, given the true tokens before it.

    Args:
        model: causal language model, PEFT or plain, on its device.
        dataset: tokenised examples; labels other than -100 mark the response.
        batch_size: examples per batch.
        progress: show a bar when it takes longer than two seconds.

    Raises:
        DataError: if there is no example, or one has no response token.
        OptionError: if the model is no decoder.
    """
    require_causal_lm(model, "Agreement")
    examples = [dataset[index] for index in range(len(dataset))]
    labels = [[token for token in example["labels"][1:] if token != IGNORED_LABEL] for example in examples]
    if not examples:
        raise DataError("The data set is empty, so there is nothing to compare predictions on.")
    for row, response in enumerate(labels):
        if not response:
            raise DataError(f"Row {row} has no response token: all its labels are {IGNORED_LABEL}. Remove the row.")
    collate = ResponseCollator(pad_token_id=0)

    def predict(batch: list[Example]) -> list[list[int]]:
        inputs = {name: tensor.to(model.device) for name, tensor in collate(batch).items()}
        logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False).logits
        predicted = logits[:, :-1].argmax(dim=-1)
        response = inputs["labels"][:, 1:] != IGNORED_LABEL
        return [row[kept].tolist() for row, kept in zip(predicted, response, strict=True)]

    lengths = [len(example["input_ids"]) for example in examples]
    with inference_mode(model):
        predictions = run_batches(examples, lengths, batch_size, predict, "predicting", progress)
    return ResponseArgmax(
        predicted=np.concatenate(predictions).astype(np.int64),
        labels=np.concatenate(labels).astype(np.int64),
        lengths=np.array([len(response) for response in labels], dtype=np.int64),
    )


def ks_threshold(alpha: float, row_length: int) -> float:
    """Closed-form threshold on D at level alpha for two samples of `row_length` values: sqrt(ln(2 / alpha) / n).

    Source:
        Wei & Dudley 2012, arXiv 1107.5356: p <= 2 exp(-n D^2) for equal n >= 458; within 1 % of the exact value there.
    """
    return math.sqrt(math.log(2.0 / alpha) / row_length)


def _argmax_of(one: Any, dataset: Dataset | None, batch_size: int, progress: bool) -> ResponseArgmax:
    if isinstance(one, ResponseArgmax):
        return one
    if dataset is None:
        raise OptionError("agreement(...) with a model needs dataset=...; only saved predictions go without.")
    return response_argmax(one, dataset, batch_size, progress)
