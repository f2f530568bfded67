"""Sentence pairs of the ManyThings.org export of Tatoeba: reading, filtering and splitting them."""

import re
import zipfile
from collections import Counter
from functools import lru_cache
from pathlib import Path

from pocket.splits import Pair, split_languages

ATTRIBUTION = "Sentences: tatoeba.org, exported by www.manythings.org/anki, CC BY 2.0 FR."
FILES = {"de": ("deu-eng.zip", "deu.txt"), "fr": ("fra-eng.zip", "fra.txt"), "es": ("spa-eng.zip", "spa.txt")}
FRACTIONS = {"pretrain": 0.84, "train": 0.12, "dev": 0.015, "test": 0.025}
SALT = "tatoeba"
MAX_COMPONENT = 60
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")


def load_tatoeba(
    path: str | Path,
    language: str,
    split: str | None = None,
    max_words: int = 8,
    english_words: int = 2000,
    target_words: int = 3000,
) -> list[Pair]:
    """Everyday pairs of one language, split by components over every zip that lies beside each other.

    The embedded model was pretrained on the `pretrain` split that three zips give together. Only a folder with the
    same three zips gives exactly the same `train`, `dev` and `test`; a single zip is split by its own components, and
    its held-out sentences may then be among those the embedded model has seen.

    Args:
        path: a folder with `deu-eng.zip`, `fra-eng.zip` and `spa-eng.zip` (those that are there are used), or one zip.
        language: `de`, `fr` or `es`.
        split: `pretrain`, `train`, `dev` or `test`; all pairs if None.
        max_words: longest English sentence, in words; the shortest has 2.
        english_words: how many of the most frequent English words a sentence may use.
        target_words: how many of the most frequent words of the other language a sentence may use.

    Returns:
        The pairs, in the order of the file, without duplicates.

    Raises:
        ValueError: if the language or the split is unknown.
        FileNotFoundError: if the zip of the language is not at `path`.
    """
    if language not in FILES:
        raise ValueError(f"Unknown language {language!r}. Available: {', '.join(FILES)}.")
    if split is not None and split not in FRACTIONS:
        raise ValueError(f"Unknown split {split!r}. Available: {', '.join(FRACTIONS)}.")
    zips = _zips(Path(path))
    if language not in zips:
        raise FileNotFoundError(
            f"No {FILES[language][0]} at {path}. Download it from https://www.manythings.org/anki/ and pass its folder."
        )
    limits = (max_words, english_words, target_words)
    if split is None:
        return list(_everyday_pairs(zips[language], language, *limits))
    return list(_splits(tuple(sorted(zips.items())), *limits)[language][split])


def _zips(path: Path) -> dict[str, Path]:
    if path.is_file():
        return {language: path for language, (name, _) in FILES.items() if path.name == name}
    return {language: path / name for language, (name, _) in FILES.items() if (path / name).is_file()}


@lru_cache(maxsize=4)
def _splits(
    zips: tuple[tuple[str, Path], ...], max_words: int, english_words: int, target_words: int
) -> dict[str, dict[str, list[Pair]]]:
    pairs = {
        language: _everyday_pairs(path, language, max_words, english_words, target_words) for language, path in zips
    }
    return split_languages(pairs, FRACTIONS, SALT, MAX_COMPONENT)


@lru_cache(maxsize=8)
def _everyday_pairs(
    path: Path, language: str, max_words: int, english_words: int, target_words: int
) -> tuple[Pair, ...]:
    pairs = _read_zip(path, FILES[language][1])
    english_counts: Counter[str] = Counter()
    target_counts: Counter[str] = Counter()
    for pair in pairs:
        english_counts.update(_words(pair.source))
        target_counts.update(_words(pair.target))
    frequent_english = _most_frequent(english_counts, english_words)
    frequent_target = _most_frequent(target_counts, target_words)
    return tuple(
        pair
        for pair in pairs
        if 2 <= len(pair.source.split()) <= max_words
        and frequent_english.issuperset(_words(pair.source))
        and frequent_target.issuperset(_words(pair.target))
    )


def _read_zip(path: Path, member: str) -> list[Pair]:
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.rsplit("/", 1)[-1] == member)
        lines = archive.read(name).decode("utf-8-sig").splitlines()
    fields = (line.split("\t") for line in lines if "\t" in line)
    return list(dict.fromkeys(Pair(_clean(field[0]), _clean(field[1])) for field in fields))


def _clean(sentence: str) -> str:
    return " ".join(sentence.split())


def _words(sentence: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(sentence)]


def _most_frequent(counts: Counter[str], number: int) -> set[str]:
    return {word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:number]}
