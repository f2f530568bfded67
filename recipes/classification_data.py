"""Labelled texts for the classification recipe: a folder with train.csv and test.csv, or a data set of the Hub."""

import csv
import hashlib
import itertools
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ks_lottery.errors import DataError

_SPLITS = ("train", "test")


@dataclass
class DataArguments:
    """Where the labelled texts come from: one of the two sources has to be given."""

    data_dir: str | None = field(
        default=None, metadata={"help": "Folder with train.csv and test.csv, each with a line of column names."}
    )
    dataset_name: str | None = field(
        default=None, metadata={"help": "Classification set on the Hub with the splits train and test."}
    )
    text_column: str = field(default="text", metadata={"help": "Column with the texts."})
    label_column: str = field(default="category", metadata={"help": "Column with the labels."})
    train_examples: int = field(default=2000, metadata={"help": "Texts to train on, taken from all labels in turn."})
    dev_examples: int = field(
        default=400, metadata={"help": "Further training texts, on which learning rates are chosen."}
    )
    test_examples: int | None = field(default=None, metadata={"help": "Test texts that are scored; default: all."})
    data_seed: int = field(default=0, metadata={"help": "Seed of the draw of texts."})

    def __post_init__(self) -> None:
        if bool(self.data_dir) == bool(self.dataset_name):
            raise DataError(
                "Give --data_dir, a folder with train.csv and test.csv such as BANKING77 has them "
                "(github.com/PolyAI-LDN/task-specific-datasets, folder banking_data), or --dataset_name, a "
                f"classification set of the Hub. {'Both' if self.data_dir else 'Neither'} is given."
            )
        for name in ("train_examples", "dev_examples", "test_examples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise DataError(f"--{name} {value}: must be at least 1.")


class LabelledText(NamedTuple):
    """A text and its label."""

    text: str
    label: str


@dataclass(frozen=True)
class ClassificationData:
    """Texts to train on, to choose learning rates on, and to score on.

    Attributes:
        name: what the report calls it.
        labels: all labels, sorted; a class is the place of its label.
        train: training texts.
        dev: texts that neither train nor test.
        test: texts of the scores of the report.
        left_out: texts of the training split that stand in the test split too, or twice.
    """

    name: str
    labels: tuple[str, ...]
    train: tuple[LabelledText, ...]
    dev: tuple[LabelledText, ...]
    test: tuple[LabelledText, ...]
    left_out: int

    @property
    def digest(self) -> str:
        """Hex SHA-256 of all texts and labels."""
        content = repr((self.labels, *(list(map(tuple, part)) for part in (self.train, self.dev, self.test))))
        return hashlib.sha256(content.encode()).hexdigest()

    def classes(self, texts: Iterable[LabelledText]) -> list[int]:
        """The class of each text."""
        places = {label: place for place, label in enumerate(self.labels)}
        return [places[text.label] for text in texts]


def load_classification_data(arguments: DataArguments) -> ClassificationData:
    """Load, check and draw the texts of a run.

    Texts are drawn from all labels in turn, so that small draws hold every label. A training text that stands in the
    test split, but for case and white space, is left out.

    Raises:
        DataError: if the source is missing or lacks a column, a text or label is empty, a text of the test split has a
            label that no training text has, or there are fewer texts than asked for.
    """
    name, splits = _read(arguments)
    known = {_normalised(example.text) for example in splits["test"]}
    usable = []
    for example in splits["train"]:
        if (text := _normalised(example.text)) not in known:
            known.add(text)
            usable.append(example)
    draw = random.Random(arguments.data_seed)
    turns = _in_turn(usable, draw)
    _require_enough(name, arguments, len(turns), len(splits["test"]))
    train = turns[: arguments.train_examples]
    dev = turns[arguments.train_examples : arguments.train_examples + arguments.dev_examples]
    test = _in_turn(splits["test"], draw)[: arguments.test_examples]
    labels = sorted({example.label for part in splits.values() for example in part})
    missing = sorted(set(labels) - {example.label for example in train})
    if missing:
        raise DataError(
            f"{len(missing)} of the {len(labels)} labels of {name} have no text among the {len(train)} training texts: "
            f"{', '.join(map(repr, missing[:5]))}{' ...' if missing[5:] else ''}. Raise --train_examples, or remove "
            "the texts of labels that the training split lacks."
        )
    return ClassificationData(
        name, tuple(labels), tuple(train), tuple(dev), tuple(test), len(splits["train"]) - len(usable)
    )


def _read(arguments: DataArguments) -> tuple[str, dict[str, list[LabelledText]]]:
    if arguments.data_dir:
        folder = Path(arguments.data_dir)
        files = {split: folder / f"{split}.csv" for split in _SPLITS}
        return folder.name, {
            split: list(_checked(_csv_rows(file), file.name, arguments)) for split, file in files.items()
        }
    name, loaded = str(arguments.dataset_name), _load_hub(str(arguments.dataset_name))
    splits = {}
    for split in _SPLITS:
        if split not in loaded:
            raise DataError(f"The data set {name} has splits {', '.join(loaded)}, but no {split} split.")
        splits[split] = list(_checked(_named(loaded[split], arguments), f"{name} {split}", arguments))
    return name, splits


def _csv_rows(file: Path) -> Iterator[Mapping[str, Any]]:
    if not file.is_file():
        raise DataError(f"There is no file {str(file)!r}; --data_dir needs train.csv and test.csv.")
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            yield from csv.DictReader(lines)
    except UnicodeDecodeError as error:
        raise DataError(f"{file.name} is not UTF-8 ({error}). Save it as UTF-8.") from error


def _load_hub(name: str) -> Any:
    from datasets import load_dataset, load_from_disk
    from datasets.exceptions import DatasetsError

    try:
        return load_from_disk(name) if (Path(name) / "dataset_dict.json").is_file() else load_dataset(name)
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        raise DataError(
            f"The data set {name} cannot be loaded: {error}. Without a network set HF_HUB_OFFLINE=1 to use the local "
            "cache, or give --data_dir."
        ) from error


def _named(rows: Any, arguments: DataArguments) -> Iterator[Mapping[str, Any]]:
    """Rows of a data set with the name of the label where it stores a number."""
    names = getattr(rows.features.get(arguments.label_column), "names", None)
    for row in rows:
        label = row.get(arguments.label_column)
        yield row if names is None or label is None else {**row, arguments.label_column: names[label]}


def _checked(rows: Iterable[Mapping[str, Any]], name: str, arguments: DataArguments) -> Iterator[LabelledText]:
    number = 0
    for number, row in enumerate(rows, 1):
        values = []
        for option in ("text_column", "label_column"):
            column = getattr(arguments, option)
            if column not in row:
                raise DataError(
                    f"{name} has columns {', '.join(map(str, row))}, but no {column!r}. Name it with --{option}."
                )
            value = row[column]
            if value is None or not str(value).strip():
                raise DataError(f"Row {number} of {name} has an empty {column!r}. Remove the row.")
            values.append(str(value).strip())
        yield LabelledText(*values)
    if not number:
        raise DataError(f"{name} has no rows. Give another source.")


def _normalised(text: str) -> str:
    return " ".join(text.lower().split())


def _in_turn(examples: Sequence[LabelledText], draw: random.Random) -> list[LabelledText]:
    """All texts in random order, one of each label, then one more of each, as long as a label has any."""
    by_label: dict[str, list[LabelledText]] = {}
    for example in draw.sample(examples, len(examples)):
        by_label.setdefault(example.label, []).append(example)
    turns = itertools.zip_longest(*by_label.values())
    return [example for turn in turns for example in turn if example is not None]


def _require_enough(name: str, arguments: DataArguments, train: int, test: int) -> None:
    asked = arguments.train_examples + arguments.dev_examples
    if asked > train:
        raise DataError(
            f"--train_examples {arguments.train_examples} and --dev_examples {arguments.dev_examples} ask for {asked} "
            f"texts, but the training split of {name} has {train} that can be used. Ask for fewer."
        )
    if arguments.test_examples is not None and arguments.test_examples > test:
        raise DataError(
            f"--test_examples {arguments.test_examples}: the test split of {name} has {test}. Ask for less."
        )
