"""The words of the generated corpus, read from `lexicon/*.tsv`."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).resolve().parent / "lexicon"
PERSONS = ("1s", "2s", "3s", "1p", "3p")


class Form(NamedTuple):
    """A noun in one language: gender `m`, `f` or `n` (German `w`: a masculine that declines weakly)."""

    singular: str
    gender: str
    plural: str


@dataclass(frozen=True)
class Noun:
    """A noun in four languages."""

    kind: str
    english: str
    english_plural: str
    german: Form
    french: Form
    spanish: Form

    @property
    def is_human(self) -> bool:
        """Whether the noun names a person."""
        return self.kind in ("person", "relative")


@dataclass(frozen=True)
class Adjective:
    """An adjective in four languages; `attributive` is false where it only follows a copula."""

    kinds: tuple[str, ...]
    attributive: bool
    english: str
    german: str
    german_stem: str
    french: tuple[str, str, str, str]  # masculine, masculine before a vowel, feminine, masculine plural
    french_before: bool
    spanish: tuple[str, str]  # masculine, feminine
    spanish_copula: str


@dataclass(frozen=True)
class GermanVerb:
    """German verb forms; a separable prefix is kept apart."""

    prefix: str
    infinitive: str
    second: str
    third: str
    participle: str
    auxiliary: str
    imperative: str
    dative: bool


@dataclass(frozen=True)
class FrenchVerb:
    """French verb forms; `present` in the order of `PERSONS`."""

    infinitive: str
    present: tuple[str, ...]
    participle: str
    future_stem: str
    with_etre: bool


@dataclass(frozen=True)
class SpanishVerb:
    """Spanish verb forms; `present` and `preterite` in the order of `PERSONS`."""

    infinitive: str
    present: tuple[str, ...]
    preterite: tuple[str, ...]
    future_stem: str


@dataclass(frozen=True)
class Verb:
    """A verb in four languages. `frame`: object, have, give, place or goal; `objects`: the nouns it takes."""

    frame: str
    objects: tuple[str, ...]
    english: tuple[str, str, str, str]  # base, third person, past, -ing ("!" where the progressive is not used)
    german: GermanVerb
    french: FrenchVerb
    spanish: SpanishVerb


class Place(NamedTuple):
    """A place: per language the phrases for being at it, going to it and coming from it."""

    english: tuple[str, str, str]
    german: tuple[str, str, str]
    french: tuple[str, str, str]
    spanish: tuple[str, str, str]


class Time(NamedTuple):
    """A time adverb and the tenses it goes with (`habit`: the English simple present)."""

    tenses: tuple[str, ...]
    english: str
    german: str
    french: str
    spanish: str


@dataclass(frozen=True)
class Lexicon:
    """All words, in the order of the files."""

    nouns: tuple[Noun, ...]
    adjectives: tuple[Adjective, ...]
    verbs: tuple[Verb, ...]
    places: tuple[Place, ...]
    times: tuple[Time, ...]

    def objects_of(self, verb: Verb) -> list[Noun]:
        """The nouns a verb takes as its object."""
        chosen: list[Noun] = []
        for item in verb.objects:
            head, *without = item.split("-")
            chosen += [n for n in self.nouns if head in (n.kind, n.english) and n.english not in without]
        return chosen


@lru_cache(maxsize=1)
def load_lexicon() -> Lexicon:
    """Reads the five tables."""
    return Lexicon(
        nouns=tuple(_noun(row) for row in _rows("nouns")),
        adjectives=tuple(_adjective(row) for row in _rows("adjectives")),
        verbs=tuple(_verb(row) for row in _rows("verbs")),
        places=tuple(_place(row) for row in _rows("places")),
        times=tuple(Time(tuple(row[0].split(",")), *row[1:]) for row in _rows("times")),
    )


def _rows(name: str) -> list[list[str]]:
    lines = (FOLDER / f"{name}.tsv").read_text(encoding="utf-8").splitlines()
    return [line.split("|") for line in lines if line and not line.startswith("#")]


def _noun(row: list[str]) -> Noun:
    return Noun(row[0], row[1], row[2], Form(*row[3:6]), Form(*row[6:9]), Form(*row[9:12]))


def _adjective(row: list[str]) -> Adjective:
    kinds = row[0].removeprefix("P:")
    return Adjective(
        kinds=tuple(kinds.split(",")),
        attributive=kinds == row[0],
        english=row[1],
        german=row[2],
        german_stem=row[3],
        french=(row[4], row[5], row[6], row[7]),
        french_before=row[8] == "before",
        spanish=(row[9], row[10]),
        spanish_copula=row[11],
    )


def _place(row: list[str]) -> Place:
    english, german, french, spanish = ((row[i], row[i + 1], row[i + 2]) for i in range(0, 12, 3))
    return Place(english, german, french, spanish)


def _verb(row: list[str]) -> Verb:
    base, third, past, ing = (word.replace("_", " ") for word in row[2].split(" "))
    return Verb(
        frame=row[0],
        objects=tuple(item for item in row[1].split(",") if item),
        english=(base, third, past, ing),
        german=_german(row[3].split(" ")),
        french=_french(row[4].split(":")),
        spanish=_spanish(row[5].split(":")),
    )


def _german(words: list[str]) -> GermanVerb:
    prefix, _, infinitive = words[0].rpartition("_")
    second, third, participle, auxiliary, imperative = words[1:6]
    return GermanVerb(prefix, infinitive, second, third, participle, auxiliary, imperative, dative="dat" in words[6:])


def _french(parts: list[str]) -> FrenchVerb:
    infinitive = parts[0]
    if len(parts) > 1:
        return FrenchVerb(infinitive, tuple(parts[1].split()), parts[2], parts[3], "etre" in parts[4:])
    stem = infinitive.removesuffix("er")
    return FrenchVerb(
        infinitive, tuple(stem + e for e in ("e", "es", "e", "ons", "ent")), stem + "é", infinitive, False
    )


def _spanish(parts: list[str]) -> SpanishVerb:
    infinitive = parts[0]
    if len(parts) > 1:
        return SpanishVerb(infinitive, tuple(parts[1].split()), tuple(parts[2].split()), parts[3])
    stem, ending = infinitive[:-2], infinitive[-2:]
    present = {"ar": "o as a amos an", "er": "o es e emos en", "ir": "o es e imos en"}[ending]
    preterite = "é aste ó amos aron" if ending == "ar" else "í iste ió imos ieron"
    return SpanishVerb(
        infinitive,
        tuple(stem + e for e in present.split()),
        tuple(stem + e for e in preterite.split()),
        infinitive,
    )
