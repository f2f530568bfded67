"""The generated corpus: its size, its agreement, and that it is the same every time."""

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pocket import english, french, german, spanish
from pocket.abstract import Clause, NounPhrase, Sentence
from pocket.corpus import LANGUAGES, load_split, sentence_pairs
from pocket.lexicon import load_lexicon

LEXICON = load_lexicon()
I = NounPhrase("1s", pronoun=True)  # noqa: E741
YOU = NounPhrase("2s", pronoun=True)
SHE = NounPhrase("3s", "f", pronoun=True)
THEY = NounPhrase("3p", pronoun=True, plural=True)
HIM = NounPhrase("3s", "m", pronoun=True)
TOM = NounPhrase(name="Tom")


def thing(word: str, determiner: str = "the", adjective: str = "", plural: bool = False) -> NounPhrase:
    noun = next(noun for noun in LEXICON.nouns if noun.english == word)
    chosen = next((a for a in LEXICON.adjectives if a.english == adjective), None)
    person = "3p" if plural else "3s"
    return NounPhrase(person, noun.french.gender, noun=noun, determiner=determiner, adjective=chosen, plural=plural)


def verb(word: str, frame: str | None = None):
    return next(v for v in LEXICON.verbs if v.english[0] == word and frame in (None, v.frame))


def adjective(word: str):
    return next(a for a in LEXICON.adjectives if a.english == word)


def time(word: str):
    return next(t for t in LEXICON.times if t.english == word)


def place(word: str):
    return next(p for p in LEXICON.places if p.english[0].endswith(word))


def all_languages(sentence: Sentence) -> list[str]:
    return [module.realise(sentence) for module in (english, german, french, spanish)]


@pytest.mark.parametrize("language", LANGUAGES)
def test_tens_of_thousands_of_distinct_pairs_of_everyday_length(language):
    pairs = sentence_pairs(language)
    assert len(pairs) == len(set(pairs)) == len({pair.source for pair in pairs}) == 40_000
    assert len({pair.target for pair in pairs}) > 39_500
    assert all(2 <= len(pair.source.split()) <= 10 for pair in pairs)


def test_all_languages_translate_the_same_english_sentences():
    german_pairs, french_pairs, spanish_pairs = (sentence_pairs(language) for language in ("de", "fr", "es"))
    assert [p.source for p in german_pairs] == [p.source for p in french_pairs] == [p.source for p in spanish_pairs]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_sentence_has_a_capital_an_end_and_single_spaces(language):
    for source, target in sentence_pairs(language):
        assert re.fullmatch(r"[A-Z][\w' ]*[.?]", source), source
        assert re.fullmatch(r"¿?[A-ZÉÀÊÂÖÄÜ][\w' ,¿-]*[.?]", target), target
        assert "  " not in target
        assert source[-1] == target[-1]
        assert target.startswith("¿") or "¿" in target or language != "es" or target[-1] != "?"


@pytest.mark.parametrize(
    ("phrase", "nominative", "accusative", "dative"),
    [
        (("dog", "the", "small"), "der kleine Hund", "den kleinen Hund", "dem kleinen Hund"),
        (("cat", "the", "small"), "die kleine Katze", "die kleine Katze", "der kleinen Katze"),
        (("horse", "the", "small"), "das kleine Pferd", "das kleine Pferd", "dem kleinen Pferd"),
        (("dog", "a", "small"), "ein kleiner Hund", "einen kleinen Hund", "einem kleinen Hund"),
        (("cat", "a", "small"), "eine kleine Katze", "eine kleine Katze", "einer kleinen Katze"),
        (("horse", "a", "small"), "ein kleines Pferd", "ein kleines Pferd", "einem kleinen Pferd"),
        (("car", "1p", "expensive"), "unser teures Auto", "unser teures Auto", "unserem teuren Auto"),
        (("boy", "this", "old"), "dieser alte Junge", "diesen alten Jungen", "diesem alten Jungen"),
    ],
)
def test_german_declension(phrase, nominative, accusative, dative):
    built = thing(*phrase)
    assert [german.noun_phrase(built, case) for case in ("nom", "acc", "dat")] == [nominative, accusative, dative]


@pytest.mark.parametrize(
    ("phrase", "nominative", "accusative", "dative"),
    [
        (("dog", "the", "small"), "die kleinen Hunde", "die kleinen Hunde", "den kleinen Hunden"),
        (("child", "a", "old"), "alte Kinder", "alte Kinder", "alten Kindern"),
        (("student", "1s", ""), "meine Studenten", "meine Studenten", "meinen Studenten"),
        (("car", "this", "red"), "diese roten Autos", "diese roten Autos", "diesen roten Autos"),
    ],
)
def test_german_plural_declension(phrase, nominative, accusative, dative):
    built = thing(*phrase, plural=True)
    assert [german.noun_phrase(built, case) for case in ("nom", "acc", "dat")] == [nominative, accusative, dative]


@pytest.mark.parametrize(
    ("phrase", "plural", "expected"),
    [
        (("book", "the"), False, "le livre"),
        (("apple", "the"), False, "la pomme"),
        (("child", "the"), False, "l'enfant"),
        (("child", "this"), False, "cet enfant"),
        (("story", "1s"), False, "mon histoire"),
        (("house", "1s", "old"), False, "ma vieille maison"),
        (("bird", "a", "beautiful"), False, "un bel oiseau"),
        (("car", "a", "red"), True, "des voitures rouges"),
        (("car", "a", "new"), True, "de nouvelles voitures"),
        (("water", "none"), False, "de l'eau"),
        (("milk", "none"), False, "du lait"),
        (("beer", "none"), False, "de la bière"),
    ],
)
def test_french_noun_phrases(phrase, plural, expected):
    assert french.noun_phrase(thing(*phrase, plural=plural)) == expected


@pytest.mark.parametrize(
    ("phrase", "plural", "expected"),
    [
        (("house", "a", "red"), False, "una casa roja"),
        (("book", "the", "new"), True, "los libros nuevos"),
        (("friend", "1p"), True, "nuestros amigos"),
        (("table", "1p", "green"), True, "nuestras mesas verdes"),
        (("girl", "this", "young"), True, "estas chicas jóvenes"),
        (("water", "the"), False, "el agua"),
        (("coffee", "none"), False, "café"),
    ],
)
def test_spanish_noun_phrases(phrase, plural, expected):
    assert spanish.noun_phrase(thing(*phrase, plural=plural)) == expected


SENTENCES = {
    "the verb comes second after a fronted adverb": (
        Sentence(
            Clause(thing("man"), verb("buy"), tense="past", object=thing("car", "a", "red"), time=time("yesterday")),
            "fronted",
        ),
        "Yesterday the man bought a red car.",
        "Gestern hat der Mann ein rotes Auto gekauft.",
        "Hier, l'homme a acheté une voiture rouge.",
        "Ayer el hombre compró un coche rojo.",
    ),
    "the verb comes last in a subordinate clause": (
        Sentence(Clause(SHE, verb("live")), "do you know", "where"),
        "Do you know where she lives?",
        "Weißt du, wo sie wohnt?",
        "Sais-tu où elle habite ?",
        "¿Sabes dónde vive ella?",
    ),
    "modal and negated definite object": (
        Sentence(Clause(I, verb("find"), modal="can", negated=True, object=thing("key", "1s", plural=True))),
        "I can't find my keys.",
        "Ich kann meine Schlüssel nicht finden.",
        "Je ne peux pas trouver mes clés.",
        "No puedo encontrar mis llaves.",
    ),
    "negated indefinite object": (
        Sentence(Clause(YOU, verb("have"), negated=True, object=thing("car", "a"))),
        "You don't have a car.",
        "Du hast kein Auto.",
        "Tu n'as pas de voiture.",
        "No tienes un coche.",
    ),
    "separable verb": (
        Sentence(Clause(THEY, verb("close"), object=thing("door"))),
        "They're closing the door.",
        "Sie machen die Tür zu.",
        "Ils ferment la porte.",
        "Ellos cierran la puerta.",
    ),
    "separable verb at the end": (
        Sentence(Clause(TOM, verb("call"), object=HIM), "am tired", "because"),
        "I'm tired because Tom is calling him.",
        "Ich bin müde, weil Tom ihn anruft.",
        "Je suis fatigué parce que Tom l'appelle.",
        "Estoy cansado porque Tom lo llama.",
    ),
    "dative object, clitic, personal a": (
        Sentence(Clause(SHE, verb("help"), tense="past", object=thing("boy"))),
        "She helped the boy.",
        "Sie hat dem Jungen geholfen.",
        "Elle a aidé le garçon.",
        "Ella ayudó al chico.",
    ),
    "two objects": (
        Sentence(Clause(TOM, verb("give"), tense="past", object=thing("book", "a"), receiver=thing("teacher"))),
        "Tom gave a book to the teacher.",
        "Tom hat dem Lehrer ein Buch gegeben.",
        "Tom a donné un livre au professeur.",
        "Tom le dio un libro al profesor.",
    ),
    "participle agrees with the subject": (
        Sentence(Clause(SHE, verb("go"), tense="past", negated=True, place=place("library"), relation=1)),
        "She didn't go to the library.",
        "Sie ist nicht in die Bibliothek gegangen.",
        "Elle n'est pas allée à la bibliothèque.",
        "Ella no fue a la biblioteca.",
    ),
    "ser": (
        Sentence(Clause(thing("house", plural=True), adjective=adjective("old"), negated=True)),
        "The houses aren't old.",
        "Die Häuser sind nicht alt.",
        "Les maisons ne sont pas vieilles.",
        "Las casas no son viejas.",
    ),
    "estar": (
        Sentence(Clause(SHE, adjective=adjective("tired")), "question"),
        "Is she tired?",
        "Ist sie müde?",
        "Est-ce qu'elle est fatiguée ?",
        "¿Está cansada ella?",
    ),
    "imperative": (
        Sentence(Clause(YOU, verb("look for"), object=HIM), "imperative"),
        "Look for him.",
        "Such ihn.",
        "Cherche-le.",
        "Búscalo.",
    ),
    "negative imperative": (
        Sentence(Clause(YOU, verb("look for"), negated=True, object=HIM), "imperative"),
        "Don't look for him.",
        "Such ihn nicht.",
        "Ne le cherche pas.",
        "No lo busques.",
    ),
    "where to": (
        Sentence(Clause(YOU, verb("go")), "where"),
        "Where are you going?",
        "Wohin gehst du?",
        "Où est-ce que tu vas ?",
        "¿Adónde vas?",
    ),
    "future": (
        Sentence(Clause(I, verb("come"), tense="future", place=place("station"), relation=2, time=time("tomorrow"))),
        "I will come from the station tomorrow.",
        "Ich werde morgen vom Bahnhof kommen.",
        "Je viendrai de la gare demain.",
        "Vendré de la estación mañana.",
    ),
}


@pytest.mark.parametrize("case", SENTENCES)
def test_whole_sentences(case):
    sentence, *expected = SENTENCES[case]
    assert all_languages(sentence) == expected


def test_french_elides_and_contracts_everywhere():
    broken = re.compile(
        r"(?i)\b(?:à les?|de les|si ils?|(?:de le) |(?:que|je|ne|le|la|ma|ta|sa|ce|te|me|de) [aeiouéêèœhâ])\w*"
    )
    assert [pair.target for pair in sentence_pairs("fr") if broken.search(pair.target)] == []


def test_spanish_contracts_everywhere():
    assert [pair.target for pair in sentence_pairs("es") if re.search(r"\b(a el|de el|la agua)\b", pair.target)] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_splits_are_large_enough_and_share_no_sentence(language):
    splits = {name: load_split(language, name) for name in ("pretrain", "train", "dev", "test")}
    sizes = {name: len(pairs) for name, pairs in splits.items()}
    assert sum(sizes.values()) == 40_000
    assert sizes["train"] >= 4000
    assert sizes["dev"] >= 400
    assert sizes["test"] >= 600
    for side in (0, 1):
        sentences = {pair[side] for pairs in splits.values() for pair in pairs}
        assert sum(len({pair[side] for pair in pairs}) for pairs in splits.values()) == len(sentences)


def test_a_sentence_is_in_the_same_split_for_every_language():
    of_language = {
        language: {pair.source: name for name in ("train", "dev", "test") for pair in load_split(language, name)}
        for language in LANGUAGES
    }
    assert of_language["de"] == of_language["fr"] == of_language["es"]


def test_the_corpus_does_not_depend_on_the_hash_seed():
    code = (
        "import hashlib; from pocket.corpus import *;"
        "print(hashlib.sha256(repr([sentence_pairs(k) for k in LANGUAGES]).encode()).hexdigest())"
    )
    recipes = Path(__file__).resolve().parents[2] / "recipes"
    environment = {"PYTHONHASHSEED": "1", "PYTHONPATH": str(recipes)}
    child = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    here = hashlib.sha256(repr([sentence_pairs(language) for language in LANGUAGES]).encode()).hexdigest()
    assert child.stdout.strip() == here


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="Unknown language 'it'. Available: de, fr, es"):
        sentence_pairs("it")
    with pytest.raises(ValueError, match="Unknown language 'it'"):
        load_split("it", "test")
    with pytest.raises(ValueError, match="Unknown split 'valid'. Available: pretrain, train, dev, test"):
        load_split("de", "valid")
