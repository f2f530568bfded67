"""Translation pairs for the recipes: a data set of the Hub, a file, the Tatoeba zips, or the embedded corpus."""

import csv
import hashlib
import json
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pocket.corpus import load_split
from pocket.splits import Pair, split_pairs
from pocket.tatoeba import load_tatoeba

from ks_lottery.errors import DataError

LANGUAGES = {
    "ar": "Arabic", "bg": "Bulgarian", "ca": "Catalan", "cs": "Czech", "da": "Danish", "de": "German", "el": "Greek",
    "en": "English", "es": "Spanish", "et": "Estonian", "fi": "Finnish", "fr": "French", "hi": "Hindi",
    "hr": "Croatian", "hu": "Hungarian", "id": "Indonesian", "it": "Italian", "ja": "Japanese", "ko": "Korean",
    "lt": "Lithuanian", "lv": "Latvian", "nl": "Dutch", "no": "Norwegian", "pl": "Polish", "pt": "Portuguese",
    "ro": "Romanian", "ru": "Russian", "sk": "Slovak", "sl": "Slovenian", "sv": "Swedish", "th": "Thai",
    "tr": "Turkish", "uk": "Ukrainian", "vi": "Vietnamese", "zh": "Chinese",
}  # fmt: skip
_FRACTIONS = {"dev": 0.03, "test": 0.07}
_SPLIT_NAMES = {"train": ("train",), "dev": ("validation", "dev", "valid"), "test": ("test",)}


@dataclass
class DataArguments:
    """Where the pairs come from. With none of the three sources given: the embedded corpus."""

    dataset_name: str | None = field(
        default=None, metadata={"help": "Translation set on the Hub, for example Helsinki-NLP/opus-100."}
    )
    dataset_config_name: str | None = field(default=None, metadata={"help": "Its configuration, for example ca-en."})
    data_file: str | None = field(
        default=None,
        metadata={"help": "TSV, CSV or JSONL file with one pair per line; it is split by connected component."},
    )
    tatoeba: str | None = field(
        default=None, metadata={"help": "Folder with deu-eng.zip, fra-eng.zip, spa-eng.zip, or one of them."}
    )
    source_language: str = field(default="en", metadata={"help": "Language code or column name of the source."})
    target_language: str = field(default="de", metadata={"help": "Language code or column name of the target."})
    train_pairs: int = field(default=2000, metadata={"help": "How many training pairs to use."})
    dev_sentences: int = field(default=150, metadata={"help": "Sentences on which learning rates are chosen."})
    test_sentences: int = field(default=400, metadata={"help": "Sentences that are scored."})
    data_seed: int = field(default=0, metadata={"help": "Seed of the draw of pairs and sentences."})

    def __post_init__(self) -> None:
        given = [name for name in ("dataset_name", "data_file", "tatoeba") if getattr(self, name)]
        if len(given) > 1:
            raise DataError(f"{' and '.join('--' + name for name in given)} are given; the pairs have one source.")
        for name in ("train_pairs", "dev_sentences", "test_sentences"):
            if getattr(self, name) < 1:
                raise DataError(f"--{name} {getattr(self, name)}: must be at least 1.")


@dataclass(frozen=True)
class Sentence:
    """A source sentence with all translations that the data has of it."""

    source: str
    references: tuple[str, ...]


@dataclass(frozen=True)
class TranslationData:
    """Training pairs, and sentences with references to choose and to score on.

    Attributes:
        name: what the report calls it.
        train: pairs.
        dev: for choosing learning rates.
        test: for the scores of the report.
    """

    name: str
    train: tuple[Pair, ...]
    dev: tuple[Sentence, ...]
    test: tuple[Sentence, ...]

    @property
    def digest(self) -> str:
        """Hex SHA-256 of all sentences."""
        content = repr((self.train, self.dev, self.test)).encode()
        return hashlib.sha256(content).hexdigest()


def load_translation_data(arguments: DataArguments) -> TranslationData:
    """Load, check and draw the pairs of a run.

    Raises:
        DataError: if the source is missing, empty, lacks the columns, or a sentence is empty; with the row.
    """
    name, splits = _splits(arguments)
    for split, pairs in splits.items():
        if not pairs:
            raise DataError(f"The {split} split of {name} is empty. Give more pairs, or another source.")
    draw = random.Random(arguments.data_seed)
    train = draw.sample(splits["train"], min(arguments.train_pairs, len(splits["train"])))
    dev = _sentences(splits["dev"], arguments.dev_sentences, draw)
    test = _sentences(splits["test"], arguments.test_sentences, draw)
    return TranslationData(name, tuple(train), dev, test)


def _splits(arguments: DataArguments) -> tuple[str, dict[str, list[Pair]]]:
    language = arguments.target_language
    if not (arguments.data_file or arguments.dataset_name) and arguments.source_language != "en":
        raise DataError(
            f"--source_language {arguments.source_language}: Tatoeba and the embedded corpus translate from en. Leave "
            "it out, or give --data_file or --dataset_name."
        )
    if arguments.tatoeba:
        names = ("train", "dev", "test")
        try:
            splits = {split: load_tatoeba(arguments.tatoeba, language, split) for split in names}
        except (ValueError, FileNotFoundError) as error:
            raise DataError(f"--tatoeba {arguments.tatoeba} --target_language {language}: {error}") from error
        return f"Tatoeba en-{language}", splits
    if arguments.data_file:
        path = Path(arguments.data_file)
        pairs = _checked(_read_file(path, arguments), path.name)
        return path.name, _with_held_out({"train": list(pairs)})
    if arguments.dataset_name:
        return _read_hub(arguments)
    try:
        return f"embedded corpus en-{language}", {
            split: load_split(language, split) for split in ("train", "dev", "test")
        }
    except ValueError as error:
        raise DataError(f"--target_language {language}: {error}") from error


def _read_file(path: Path, arguments: DataArguments) -> Iterator[Mapping[str, Any] | tuple[str, str]]:
    if not path.is_file():
        raise DataError(f"There is no file {str(path)!r}.")
    if path.suffix not in (".tsv", ".csv", ".jsonl", ".json"):
        raise DataError(f"{path.name}: only .tsv, .csv, .jsonl and .json are read.")
    try:
        with path.open(encoding="utf-8-sig", newline="" if path.suffix == ".csv" else None) as file:
            if path.suffix == ".tsv":
                yield from _tsv_pairs(file, path.name)
            else:
                rows = csv.DictReader(file) if path.suffix == ".csv" else _json_rows(file, path.name)
                yield from _pairs_of(rows, path.name, arguments)
    except UnicodeDecodeError as error:
        raise DataError(f"{path.name} is not UTF-8 ({error}). Save it as UTF-8.") from error


def _tsv_pairs(lines: Iterable[str], name: str) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(lines, 1):
        fields = line.rstrip("\n").split("\t")
        if len(fields) < 2:
            raise DataError(
                f"Line {number} of {name} has no tab: {fields[0][:60]!r}. A TSV line is SOURCE, tab, TARGET."
            )
        yield fields[0], fields[1]


def _json_rows(lines: Iterable[str], name: str) -> Iterator[Mapping[str, Any]]:
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"Line {number} of {name} is no JSON ({error}). Write one object a line.") from error
        if not isinstance(row, dict):
            raise DataError(f"Line {number} of {name} is no JSON object: {line[:60]!r}. Write one object a line.")
        yield row


def _read_hub(arguments: DataArguments) -> tuple[str, dict[str, list[Pair]]]:
    from datasets import load_dataset, load_from_disk
    from datasets.exceptions import DatasetsError

    assert arguments.dataset_name is not None
    name = f"{arguments.dataset_name} {arguments.dataset_config_name or ''}".strip()
    try:
        if (Path(arguments.dataset_name) / "dataset_dict.json").is_file():
            loaded = load_from_disk(arguments.dataset_name)
        else:
            loaded = load_dataset(arguments.dataset_name, arguments.dataset_config_name)
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        raise DataError(
            f"The data set {name} cannot be loaded: {error}. Without a network set HF_HUB_OFFLINE=1 to use the local "
            "cache, give --data_file or --tatoeba, or leave all three out for the embedded corpus."
        ) from error
    found = {
        split: next((loaded[other] for other in names if other in loaded), None)
        for split, names in _SPLIT_NAMES.items()
    }
    if found["train"] is None:
        raise DataError(f"The data set {name} has splits {', '.join(loaded)}, but no train split.")
    pairs = {
        split: list(_checked(_pairs_of(rows, f"{name} {split}", arguments), f"{name} {split}"))
        for split, rows in found.items()
        if rows is not None
    }
    return name, _with_held_out(pairs)


def _with_held_out(splits: dict[str, list[Pair]]) -> dict[str, list[Pair]]:
    """Splits, of which the missing ones are held out from `train` by connected component."""
    fractions = {name: share for name, share in _FRACTIONS.items() if name not in splits}
    return splits | split_pairs(splits["train"], {"train": 1 - sum(fractions.values()), **fractions}, overflow="train")


def _pairs_of(rows: Iterable[Mapping[str, Any]], name: str, arguments: DataArguments) -> Iterator[tuple[str, str]]:
    source, target = arguments.source_language, arguments.target_language
    for row in rows:
        nested = row.get("translation")
        pair = nested if isinstance(nested, Mapping) else row
        if source not in pair or target not in pair:
            raise DataError(
                f"{name} has columns {', '.join(map(str, pair))}, but not both {source!r} and {target!r}. Name them "
                "with --source_language and --target_language."
            )
        yield pair[source], pair[target]


def _checked(pairs: Iterable[Any], name: str) -> Iterator[Pair]:
    for number, (source, target) in enumerate(pairs, 1):
        for which, sentence in (("source", source), ("target", target)):
            if not isinstance(sentence, str) or not sentence.strip():
                raise DataError(f"Row {number} of {name} has an empty {which} sentence. Remove the row.")
        yield Pair(source.strip(), target.strip())


def _sentences(pairs: Iterable[Pair], count: int, draw: random.Random) -> tuple[Sentence, ...]:
    references: dict[str, dict[str, None]] = {}
    for source, target in pairs:
        references.setdefault(source, {})[target] = None
    sentences = [Sentence(source, tuple(targets)) for source, targets in references.items()]
    return tuple(draw.sample(sentences, min(count, len(sentences))))
