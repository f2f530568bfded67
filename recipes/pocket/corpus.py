"""The generated corpus: everyday English sentences with their German, French and Spanish translations."""

import random
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

from pocket import english, french, german, spanish
from pocket.abstract import LEADS_BY_SUBORDINATOR, Clause, NounPhrase, Sentence
from pocket.lexicon import Lexicon, Noun, Verb, load_lexicon
from pocket.splits import Pair, split_languages

LANGUAGES: dict[str, Callable[[Sentence], str]] = {
    "de": german.realise,
    "fr": french.realise,
    "es": spanish.realise,
}
SIZE = 40_000
SEED = 7
FRACTIONS = {"pretrain": 0.82, "train": 0.14, "dev": 0.015, "test": 0.025}
SALT = "grammar"
_FRAME_WEIGHTS = {"object": 10, "have": 2, "give": 3, "place": 4, "goal": 3, "copula": 4}
_PRONOUNS = (("1s", "m"), ("2s", "m"), ("3s", "m"), ("3s", "f"), ("1p", "m"), ("3p", "m"))
_LASTING = ("know", "love")  # present only, without a time
_MOMENTS = ("find", "lose", "forget")  # no present
_HOMES = ("city", "village", "hotel")
_NAMES = (("Tom", "m"), ("Tom", "m"), ("Mary", "f"), ("John", "m"), ("Anna", "f"))


def sentence_pairs(language: str) -> list[Pair]:
    """All generated pairs of a language, in a fixed order, the same English sentences for every language.

    Args:
        language: `de`, `fr` or `es`.

    Returns:
        40,000 pairs with distinct English sentences.

    Raises:
        ValueError: if the language is unknown.
    """
    if language not in LANGUAGES:
        raise ValueError(f"Unknown language {language!r}. Available: {', '.join(LANGUAGES)}.")
    return list(_pairs(language))


def load_split(language: str, split: str) -> list[Pair]:
    """The pairs of one split: `pretrain`, `train`, `dev` or `test`.

    Components run over all three languages, so a held-out sentence is held out with all its translations.

    Raises:
        ValueError: if the language or the split is unknown.
    """
    if language not in LANGUAGES:
        raise ValueError(f"Unknown language {language!r}. Available: {', '.join(LANGUAGES)}.")
    if split not in FRACTIONS:
        raise ValueError(f"Unknown split {split!r}. Available: {', '.join(FRACTIONS)}.")
    return list(_splits()[language][split])


@lru_cache(maxsize=1)
def _splits() -> dict[str, dict[str, list[Pair]]]:
    return split_languages({language: _pairs(language) for language in LANGUAGES}, FRACTIONS, SALT)


@lru_cache(maxsize=3)
def _pairs(language: str) -> tuple[Pair, ...]:
    return tuple(Pair(source, LANGUAGES[language](sentence)) for source, sentence in _sentences().items())


@lru_cache(maxsize=1)
def _sentences() -> dict[str, Sentence]:
    """Distinct English sentences of 2 to 10 words with what they say."""
    draw = _Draw(load_lexicon(), random.Random(SEED))
    found: dict[str, Sentence] = {}
    while len(found) < SIZE:
        sentence = draw.sentence()
        text = english.realise(sentence)
        if text not in found and 2 <= len(text.split()) <= 10:
            found[text] = sentence
    return found


class _Draw:
    """Draws abstract sentences that make sense."""

    def __init__(self, lexicon: Lexicon, rng: random.Random) -> None:
        self._lexicon = lexicon
        self._rng = rng
        self._verbs = {
            frame: [verb for verb in lexicon.verbs if verb.frame == frame]
            for frame in _FRAME_WEIGHTS
            if frame != "copula"
        }
        self._objects = {id(verb): lexicon.objects_of(verb) for verb in lexicon.verbs}
        self._humans = [noun for noun in lexicon.nouns if noun.is_human]

    def sentence(self) -> Sentence:
        frame = self._weighted(_FRAME_WEIGHTS)
        if frame == "copula":
            clause = self._copula()
            return self._subordinate(clause) if self._chance(0.25) else self._simple(clause)
        verb = self._rng.choice(self._verbs[frame])
        if frame in ("object", "give", "place") and self._chance(0.1) and verb.german.imperative != "-":
            return self._imperative(verb)
        clause = self._action(verb)
        return self._subordinate(clause) if self._chance(0.2) else self._simple(clause)

    def _chance(self, probability: float) -> bool:
        return self._rng.random() < probability

    def _weighted(self, weights: dict[str, int]) -> str:
        return self._rng.choices(list(weights), weights=list(weights.values()))[0]

    def _copula(self) -> Clause:
        adjectives = self._lexicon.adjectives
        if self._chance(0.6):
            subject = self._subject()
            adjective = self._rng.choice([a for a in adjectives if "person" in a.kinds])
        else:
            noun = self._rng.choice([n for n in self._lexicon.nouns if n.kind in ("thing", "text", "animal")])
            adjective = self._rng.choice([a for a in adjectives if noun.kind in a.kinds and a.english != "new"])
            subject = self._phrase(noun, ("the", "this", "1s", "2s", "m", "f", "1p"), adjectives=False)
        tense = self._weighted({"present": 6, "past": 2, "future": 0 if adjective.attributive else 1})
        return Clause(subject, adjective=adjective, tense=tense, negated=self._chance(0.25))

    def _action(self, verb: Verb) -> Clause:
        subject = self._subject()
        name = verb.english[0]
        if name in _LASTING:
            return Clause(subject, verb, negated=self._chance(0.22), **self._complements(verb, subject))
        modal = self._weighted({"": 6, "can": 1, "must": 1, "want": 1}) if verb.frame != "have" else ""
        tense = self._weighted({"present": 0 if name in _MOMENTS else 4, "habit": 1, "past": 4, "future": 2})
        if modal:
            tense = "past" if modal == "want" and self._chance(0.3) else "present"
        if verb.english[3] == "!" and tense == "habit":
            tense = "past" if name in _MOMENTS else "present"
        negated = modal != "must" and tense != "habit" and self._chance(0.22)
        parts = self._complements(verb, subject)
        times = [t for t in self._lexicon.times if tense in t.tenses and not (modal and t.english == "now")]
        stative = verb.english[3] == "!" and tense == "present" and not modal
        timed = tense == "habit" or (not stative and self._chance(0.15 if modal else 0.4))
        time = self._rng.choice(times) if timed else None
        return Clause(subject, verb, None, tense, modal, negated, time=time, **parts)

    def _complements(self, verb: Verb, subject: NounPhrase) -> dict[str, Any]:
        if verb.frame in ("place", "goal"):
            optional = verb.frame == "place" and verb.english[0] != "live" and self._chance(0.3)
            places = self._lexicon.places
            if verb.english[0] == "live":
                places = tuple(place for place in places if place.english[0].split()[-1] in _HOMES)
            place = None if optional else self._rng.choice(places)
            relation = 0
            if verb.frame == "goal":
                relation = 2 if verb.english[0] in ("come", "come back") and self._chance(0.6) else 1
            return {"place": place, "relation": relation}
        parts: dict[str, Any] = {"object": self._object(verb, subject)}
        if verb.frame == "give":
            parts["receiver"] = self._person(("the",))
        return parts

    def _object(self, verb: Verb, subject: NounPhrase) -> NounPhrase:
        if "pronoun" in verb.objects and self._chance(0.3):
            others = [p for p in _PRONOUNS if not (p[0][0] == subject.person[0] and p[0][0] in "12")]
            person, gender = self._rng.choice(others)
            return NounPhrase(person, gender, pronoun=True, plural=person.endswith("p"))
        noun = self._rng.choice(self._objects[id(verb)])
        if noun.kind == "mass":
            return NounPhrase(noun=noun, determiner="none" if self._chance(0.7) else "the")
        if verb.frame == "have":
            return self._phrase(noun, ("a",))
        if noun.kind == "relative":
            return self._phrase(noun, (self._own(subject), "1s", "2s"))
        determiners: tuple[str, ...] = ("the", "a", "a", "this")
        if noun.kind in ("thing", "text") or noun.english in ("dog", "cat", "horse"):
            determiners += (self._own(subject),) * 2
        return self._phrase(noun, determiners)

    def _own(self, subject: NounPhrase) -> str:
        if subject.person != "3s":
            return subject.person
        return "f" if subject.gender == "f" else "m"

    def _subject(self) -> NounPhrase:
        kind = self._weighted({"pronoun": 9, "name": 4, "noun": 5})
        if kind == "pronoun":
            person, gender = self._rng.choice(_PRONOUNS)
            return NounPhrase(person, gender, pronoun=True, plural=person.endswith("p"))
        if kind == "name":
            name, gender = self._rng.choice(_NAMES)
            return NounPhrase(gender=gender, name=name)
        return self._person(("the", "the", "this"))

    def _person(self, determiners: tuple[str, ...]) -> NounPhrase:
        noun = self._rng.choice(self._humans)
        return self._phrase(noun, ("1s", "2s", "m", "f") if noun.kind == "relative" else determiners)

    def _phrase(self, noun: Noun, determiners: tuple[str, ...], adjectives: bool = True) -> NounPhrase:
        determiner = self._rng.choice(determiners)
        plural = bool(noun.english_plural) and self._chance(0.25)
        adjective = None
        if adjectives and self._chance(0.3):
            fitting = [a for a in self._lexicon.adjectives if a.attributive and noun.kind in a.kinds]
            adjective = self._rng.choice(fitting) if fitting else None
        return NounPhrase(
            person="3p" if plural else "3s",
            gender=noun.french.gender,
            noun=noun,
            determiner=determiner,
            adjective=adjective,
            plural=plural,
        )

    def _simple(self, clause: Clause) -> Sentence:
        if clause.time is not None and clause.moment.english != "often" and self._chance(0.35):
            return Sentence(clause, "fronted")
        roll = self._rng.random()
        indefinite = clause.object is not None and clause.object.is_indefinite
        if roll < 0.2 and not (clause.negated and (indefinite or clause.tense == "future")):
            return Sentence(clause, "question")
        if roll < 0.3 and clause.verb is not None and not clause.negated:
            return Sentence(*self._asked(clause))
        return Sentence(clause)

    def _asked(self, clause: Clause) -> tuple[Clause, str]:
        """The clause without what a question word asks for, and that word."""
        known: dict[str, Any] = {name: getattr(clause, name) for name in ("subject", "verb", "tense", "modal")}
        if clause.action.frame == "object" and "pronoun" not in clause.action.objects:
            word = self._rng.choice(("what", "why", "where"))
            if word == "where" and clause.tense != "past":
                word = "what"
            if word == "what":
                return Clause(**known, time=clause.time), word
            kept: dict[str, Any] = {"object": clause.object}
        elif clause.action.frame == "place" or clause.action.english[0] in ("go", "run"):
            word, kept = "where", {}
        else:
            word = self._rng.choice(("why", "when")) if clause.tense in ("past", "future") else "why"
            kept = {name: getattr(clause, name) for name in ("object", "receiver", "place", "relation")}
        return Clause(**known, **kept), word

    def _subordinate(self, clause: Clause) -> Sentence:
        if clause.subject.name:
            clause = replace(clause, subject=self._person(("the", "this")))
        kind = self._weighted({"that": 4, "if": 2, "because": 2, "wh": 3})
        word = kind
        if kind == "wh":
            if clause.verb is None or clause.negated:
                word = "why"
            else:
                clause, word = self._asked(clause)
        lead = self._rng.choice(LEADS_BY_SUBORDINATOR[kind])
        return Sentence(clause, lead, word)

    def _imperative(self, verb: Verb) -> Sentence:
        you = NounPhrase("2s", "m", pronoun=True)
        negated = self._chance(0.3)
        if verb.frame == "place":
            return Sentence(
                Clause(you, verb, place=self._rng.choice(self._lexicon.places), negated=negated), "imperative"
            )
        thing = self._object(verb, you)
        if thing.is_human and verb.frame == "object" and not thing.pronoun:
            thing = NounPhrase("3s", "m", pronoun=True)
        receiver = self._person(("the",)) if verb.frame == "give" else None
        return Sentence(Clause(you, verb, object=thing, receiver=receiver, negated=negated), "imperative")
