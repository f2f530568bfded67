"""Further kinds of task for comparisons: the embedded corpora, Tatoeba, and folders of labelled texts."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from classification_data import DataArguments, LabelledText, load_classification_data
from classification_options import packaged_model
from pocket.corpus import load_split
from pocket.splits import Pair
from pocket.tatoeba import load_tatoeba
from translation_data import LANGUAGES

from ks_lottery.errors import DataError
from ks_lottery.evaluation.tasks.base import TASKS
from ks_lottery.evaluation.tasks.classification import ClassificationTask
from ks_lottery.evaluation.tasks.translation import TranslationTask

POCKET_MODEL = Path(__file__).parent / "pocket" / "model"


@TASKS.register("embedded")
@dataclass(frozen=True)
class EmbeddedCorpus:
    """Sentences of a grammar, from English, on the embedded model.

    Attributes:
        language: de, fr or es.
        train_pairs: how many pairs to train on.
        dev_sentences: how many sentences to choose learning rates on.
        test_sentences: how many sentences to score.
        model: folder or Hub id; the embedded model if empty.
        data_seed: of the draw.
    """

    language: str
    train_pairs: int = 1000
    dev_sentences: int = 50
    test_sentences: int = 100
    model: str = ""
    data_seed: int = 0

    def task(self, name: str) -> TranslationTask:
        """Draw the pairs.

        Raises:
            DataError: if the language is unknown.
        """
        try:
            splits = {split: load_split(self.language, split) for split in ("train", "dev", "test")}
        except ValueError as error:
            raise DataError(f"The task {name!r}, language: {self.language!r}: {error}") from error
        return _translation(name, self, splits)


@TASKS.register("tatoeba")
@dataclass(frozen=True)
class Tatoeba(EmbeddedCorpus):
    """Everyday sentences of the ManyThings.org export of Tatoeba, from English.

    Attributes:
        folder: with the zips.
    """

    folder: str = "."

    def task(self, name: str) -> TranslationTask:
        """Draw the pairs; errors as `load_tatoeba`."""
        try:
            splits = {split: load_tatoeba(self.folder, self.language, split) for split in ("train", "dev", "test")}
        except (ValueError, FileNotFoundError) as error:
            raise DataError(f"The task {name!r}, folder: {self.folder!r}: {error}") from error
        return _translation(name, self, splits)


@TASKS.register("labelled_texts")
@dataclass(frozen=True)
class LabelledTexts:
    """A folder with train.csv and test.csv, such as BANKING77.

    Attributes:
        folder: of the files.
        model: folder or Hub id of an encoder; the packaged MiniLM if empty.
        train_examples: texts to train on, taken from all labels in turn; a part gets those of its labels.
        dev_examples: texts to choose learning rates on, in the same way.
        test_examples: texts that are scored, in the same way.
        text_column: column with the texts.
        label_column: column with the labels.
        part: which part of the labels this task has, of `parts`: label i belongs to part i modulo `parts`.
        parts: into how many tasks the labels are shared out.
        max_length: tokens of a text that are read.
        data_seed: of the draw.
    """

    folder: str
    model: str = ""
    train_examples: int = 770
    dev_examples: int = 385
    test_examples: int = 770
    text_column: str = "text"
    label_column: str = "category"
    part: int = 0
    parts: int = 1
    max_length: int = 48
    data_seed: int = 0

    def task(self, name: str) -> ClassificationTask:
        """Draw the texts; errors as `load_classification_data`."""
        if not 0 <= self.part < self.parts:
            raise DataError(f"The task {name!r}: part {self.part} of {self.parts} does not exist; count from 0.")
        data = load_classification_data(
            DataArguments(
                data_dir=self.folder, text_column=self.text_column, label_column=self.label_column,
                train_examples=self.train_examples, dev_examples=self.dev_examples, test_examples=self.test_examples,
                data_seed=self.data_seed,
            )
        )  # fmt: skip
        mine = set(data.labels[self.part :: self.parts])

        def texts(split: Sequence[LabelledText]) -> list[tuple[str, str]]:
            return [(text.text, text.label) for text in split if text.label in mine]

        return ClassificationTask(
            name, self.model or str(packaged_model()), texts(data.train), texts(data.dev), texts(data.test),
            self.max_length,
        )  # fmt: skip


def _translation(name: str, options: EmbeddedCorpus, splits: dict[str, list[Pair]]) -> TranslationTask:
    draw = random.Random(options.data_seed)
    train = draw.sample(splits["train"], min(options.train_pairs, len(splits["train"])))
    return TranslationTask(
        name,
        options.model or str(POCKET_MODEL),
        train=[(pair.source, pair.target) for pair in train],
        dev=_sentences(splits["dev"], options.dev_sentences, draw),
        test=_sentences(splits["test"], options.test_sentences, draw),
        source_language=LANGUAGES["en"],
        target_language=LANGUAGES[options.language],
    )


def _sentences(pairs: Sequence[Pair], count: int, draw: random.Random) -> list[tuple[str, str]]:
    """All pairs of so many source sentences."""
    sources = list(dict.fromkeys(pair.source for pair in pairs))
    chosen = set(draw.sample(sources, min(count, len(sources))))
    return [(pair.source, pair.target) for pair in pairs if pair.source in chosen]
