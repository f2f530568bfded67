"""Translation: sentence pairs, a prompt, and BLEU of the whole continuation and of its first line."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ks_lottery.checkpoints.reader import open_checkpoint
from ks_lottery.errors import DataError
from ks_lottery.evaluation.tasks.base import TASKS, count_tokens
from ks_lottery.evaluation.tasks.files import read_rows
from ks_lottery.evaluation.translation import evaluate_translation
from ks_lottery.ticket.identity import identify
from ks_lottery.training.examples import ResponseCollator, ResponseExamples, padding_id, response_examples
from ks_lottery.training.prompts import PromptTemplate

Pairs = Sequence[tuple[str, str]]


@dataclass
class TranslationTask:
    """Tuning a decoder to translate after a prompt.

    Attributes:
        name: as tables call it.
        model: folder or Hub id.
        train: (source, target) pairs.
        dev: pairs on which learning rates are chosen.
        test: pairs that are scored; several targets of one source are its references.
        source_language: as the prompt names it.
        target_language: as the prompt names it.
        prompt: name or text of the template.
        max_new_tokens: longest continuation.
        metric: main score: bleu_whole or bleu_first_line.

    Raises:
        DataError: if a split is empty.
    """

    name: str
    model: str
    train: Pairs
    dev: Pairs
    test: Pairs
    source_language: str
    target_language: str
    prompt: str = "instruction"
    max_new_tokens: int = 40
    metric: str = "bleu_whole"

    def __post_init__(self) -> None:
        from transformers import AutoTokenizer

        for split in ("train", "dev", "test"):
            if not getattr(self, split):
                raise DataError(f"The task {self.name!r} has no pairs in its {split} split.")
        self.tokenizer = AutoTokenizer.from_pretrained(self.model)
        self.template = PromptTemplate(self.prompt, self.source_language, self.target_language)
        self.collator = ResponseCollator(padding_id(self.tokenizer))

    @cached_property
    def digest(self) -> str:
        """Hex digest of the model and of all texts."""
        checkpoint = open_checkpoint(self.model)
        content = (identify(checkpoint, checkpoint.names()).digest, self.template.text, self.max_new_tokens)
        texts = tuple(tuple(map(tuple, pairs)) for pairs in (self.train, self.dev, self.test))
        return hashlib.sha256(repr((content, texts)).encode()).hexdigest()

    @cached_property
    def examples(self) -> ResponseExamples:
        """Tokenised training examples."""
        return response_examples(self.train, self.tokenizer, self.template)

    def load_model(self) -> Any:
        """A fresh copy of the pretrained model."""
        import torch
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(self.model, dtype=torch.float32)
        return model.to(torch.accelerator.current_accelerator() or "cpu")

    def score(self, model: Any, split: str = "test") -> dict[str, float]:
        """BLEU and chrF of the whole continuation and of its first line, and the stop rate; in percent."""
        references: dict[str, dict[str, None]] = {}
        for source, target in getattr(self, split):
            references.setdefault(source, {})[target] = None
        prompts = [self.template(source) for source in references]
        scores = evaluate_translation(
            model, self.tokenizer, prompts, [list(targets) for targets in references.values()],
            self.max_new_tokens, batch_size=100, progress=False,
        )  # fmt: skip
        return {
            "bleu_whole": scores.bleu_whole,
            "bleu_first_line": scores.bleu_first_line,
            "chrf_whole": scores.chrf_whole,
            "stop_rate": 100.0 * scores.stop_rate,
        }

    def token_counts(self) -> np.ndarray:
        """[rows of the input embedding] int64, how often the training examples use each token."""
        rows = int(open_checkpoint(self.model).config.vocab_size)
        return count_tokens(self.examples.examples, rows)


@TASKS.register("translation")
@dataclass(frozen=True)
class TranslationFiles:
    """A translation task whose pairs stand in files.

    Attributes:
        model: folder or Hub id.
        train: .tsv, .csv or .jsonl file with a line of column names and one pair a row.
        test: the same.
        source: column with the sentences.
        target: column with the translations.
        dev: as `train`; its last tenth if None.
        source_language: as the prompt names it; the column's name if empty.
        target_language: the same.
        prompt: name or text of the template.
        max_new_tokens: longest continuation.
        train_pairs: how many training pairs to take from the start of the file; all if None.
        test_pairs: how many test pairs.
    """

    model: str
    train: str
    test: str
    source: str
    target: str
    dev: str | None = None
    source_language: str = ""
    target_language: str = ""
    prompt: str = "instruction"
    max_new_tokens: int = 256
    train_pairs: int | None = None
    test_pairs: int | None = None

    def task(self, name: str) -> TranslationTask:
        """Read the files.

        Raises:
            DataError: if a file is missing, lacks a column, or has an empty field.
        """
        train = self._pairs(self.train, self.train_pairs)
        held = max(1, len(train) // 10)
        return TranslationTask(
            name,
            self.model,
            train=train if self.dev else train[:-held],
            dev=self._pairs(self.dev, None) if self.dev else train[-held:],
            test=self._pairs(self.test, self.test_pairs),
            source_language=self.source_language or self.source,
            target_language=self.target_language or self.target,
            prompt=self.prompt,
            max_new_tokens=self.max_new_tokens,
        )

    def _pairs(self, file: str, count: int | None) -> Pairs:
        return [(row[self.source], row[self.target]) for row in read_rows(file, (self.source, self.target))[:count]]
