"""Text classification: an encoder with a new classifier, and its accuracy."""

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ks_lottery.checkpoints.reader import open_checkpoint
from ks_lottery.errors import DataError, OptionError
from ks_lottery.evaluation.classification import evaluate_classification
from ks_lottery.evaluation.tasks.base import TASKS, count_tokens
from ks_lottery.evaluation.tasks.files import read_rows
from ks_lottery.ticket.identity import identify
from ks_lottery.units.layout import task_head

Texts = Sequence[tuple[str, str]]


@dataclass
class ClassificationTask:
    """Tuning an encoder, or a decoder, to classify texts.

    The classifier is new, and the same for every cell of a comparison, however the data is ordered: it is drawn from a
    seed of its own and trains beside every ticket.

    Attributes:
        name: as tables call it.
        model: folder or Hub id.
        train: (text, label) pairs.
        dev: pairs on which learning rates are chosen.
        test: pairs that are scored.
        max_length: tokens of a text that are read.
        head_seed: of the classifier's first weights.
        metric: main score: accuracy or macro_f1.

    Raises:
        DataError: if a split is empty, or has a label that no training text has, or all training texts have one label.
        OptionError: if the tokenizer has no padding token.
    """

    name: str
    model: str
    train: Texts
    dev: Texts
    test: Texts
    max_length: int = 64
    head_seed: int = 0
    metric: str = "accuracy"

    def __post_init__(self) -> None:
        from transformers import AutoTokenizer, DataCollatorWithPadding

        self.labels = sorted({label for _, label in self.train})
        for split in ("train", "dev", "test"):
            pairs = getattr(self, split)
            if not pairs:
                raise DataError(f"The task {self.name!r} has no texts in its {split} split.")
            unknown = sorted({label for _, label in pairs} - set(self.labels))
            if unknown:
                raise DataError(
                    f"The {split} split of the task {self.name!r} has the label {unknown[0]!r}, which no training text "
                    "has. Give more training texts, or leave such texts out."
                )
        if len(self.labels) < 2:
            raise DataError(
                f"All training texts of the task {self.name!r} have the label {self.labels[0]!r}. Give others."
            )
        self.tokenizer = AutoTokenizer.from_pretrained(self.model)
        if self.tokenizer.pad_token_id is None:
            raise OptionError(f"The tokenizer of {self.model!r} has no padding token. Set one and save it.")
        self.collator = DataCollatorWithPadding(self.tokenizer)

    @cached_property
    def digest(self) -> str:
        """Hex digest of the model and of all texts."""
        checkpoint = open_checkpoint(self.model)
        content = (identify(checkpoint, checkpoint.names()).digest, self.max_length, self.head_seed)
        texts = tuple(tuple(map(tuple, pairs)) for pairs in (self.train, self.dev, self.test))
        return hashlib.sha256(repr((content, texts)).encode()).hexdigest()

    @cached_property
    def examples(self) -> list[dict[str, Any]]:
        """Tokenised training texts with their classes."""
        encoded = self.tokenizer([text for text, _ in self.train], truncation=True, max_length=self.max_length)
        classes = self._classes(self.train)
        return [
            {**{name: values[row] for name, values in encoded.items()}, "labels": label}
            for row, label in enumerate(classes)
        ]

    def load_model(self) -> Any:
        """The pretrained weights with a new classifier.

        Raises:
            OptionError: if more than the classifier is new.
        """
        import torch
        from transformers import AutoModelForSequenceClassification
        from transformers.utils import logging

        verbosity = logging.get_verbosity()
        logging.set_verbosity_error()  # the table of new weights, which are the ones that train
        try:
            with torch.random.fork_rng(), warnings.catch_warnings():
                torch.manual_seed(self.head_seed)
                model, info = AutoModelForSequenceClassification.from_pretrained(
                    self.model, dtype=torch.float32, num_labels=len(self.labels),
                    pad_token_id=self.tokenizer.pad_token_id, ignore_mismatched_sizes=True, output_loading_info=True,
                )  # fmt: skip
        finally:
            logging.set_verbosity(verbosity)
        head = task_head(dict(model.named_parameters()))
        new = sorted(name for name in info["missing_keys"] if name.partition(".")[0] != head)
        if new:
            raise OptionError(
                f"{self.model} as a {type(model).__name__} has new weights outside its classifier: {', '.join(new)}. "
                "Tickets would leave these at random. Take another encoder, or a decoder."
            )
        return model.to(torch.accelerator.current_accelerator() or "cpu")

    def score(self, model: Any, split: str = "test") -> dict[str, float]:
        """Accuracy and macro F1, in percent."""
        pairs = getattr(self, split)
        scores = evaluate_classification(
            model, self.tokenizer, [text for text, _ in pairs], self._classes(pairs), self.max_length, progress=False
        )
        return {"accuracy": 100.0 * scores.accuracy, "macro_f1": 100.0 * scores.macro_f1}

    def token_counts(self) -> np.ndarray:
        """[rows of the input embedding] int64, how often the training texts use each token."""
        return count_tokens(self.examples, int(open_checkpoint(self.model).config.vocab_size))

    def _classes(self, pairs: Texts) -> list[int]:
        places = {label: place for place, label in enumerate(self.labels)}
        return [places[label] for _, label in pairs]


@TASKS.register("classification")
@dataclass(frozen=True)
class ClassificationFiles:
    """A classification task whose texts stand in files.

    Attributes:
        model: folder or Hub id.
        train: .csv, .tsv or .jsonl file with a line of column names and one text a row.
        test: the same.
        text: column with the texts.
        label: column with the labels.
        dev: as `train`; its last tenth if None.
        max_length: tokens of a text that are read.
        train_texts: how many training texts to take from the start of the file; all if None.
        test_texts: how many test texts.
    """

    model: str
    train: str
    test: str
    text: str = "text"
    label: str = "label"
    dev: str | None = None
    max_length: int = 64
    train_texts: int | None = None
    test_texts: int | None = None

    def task(self, name: str) -> ClassificationTask:
        """Read the files; errors as `read_rows` and `ClassificationTask`."""
        train = self._texts(self.train, self.train_texts)
        held = max(1, len(train) // 10)
        return ClassificationTask(
            name,
            self.model,
            train=train if self.dev else train[:-held],
            dev=self._texts(self.dev, None) if self.dev else train[-held:],
            test=self._texts(self.test, self.test_texts),
            max_length=self.max_length,
        )

    def _texts(self, file: str, count: int | None) -> Texts:
        return [(row[self.text], row[self.label]) for row in read_rows(file, (self.text, self.label))[:count]]
