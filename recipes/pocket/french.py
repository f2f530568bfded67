"""Abstract sentences in French: gender and number, elision, contraction, clitics, negation around the finite verb."""

import re

from pocket.abstract import LEADS, Clause, NounPhrase, Sentence
from pocket.lexicon import PERSONS, Adjective

_SUBJECTS = {"1s": "je", "2s": "tu", "3sm": "il", "3sf": "elle", "1p": "nous", "3p": "ils"}
_CLITICS = {"1s": "me", "2s": "te", "3sm": "le", "3sf": "la", "1p": "nous", "3p": "les"}
_STRESSED = {"1s": "moi", "2s": "toi", "3sm": "lui", "3sf": "elle", "1p": "nous", "3p": "eux"}
_POSSESSIVES = {
    "1s": ("mon", "ma", "mes"),
    "2s": ("ton", "ta", "tes"),
    "m": ("son", "sa", "ses"),
    "f": ("son", "sa", "ses"),
    "1p": ("notre", "notre", "nos"),
    "3p": ("leur", "leur", "leurs"),
}
_ETRE = ("suis", "es", "est", "sommes", "sont")
_ETAIT = ("étais", "étais", "était", "étions", "étaient")
_AVOIR = ("ai", "as", "a", "avons", "ont")
_AVAIT = ("avais", "avais", "avait", "avions", "avaient")
_FUTURE = ("ai", "as", "a", "ons", "ont")
_MODALS = {
    "can": ("peux", "peux", "peut", "pouvons", "peuvent"),
    "must": ("dois", "dois", "doit", "devons", "doivent"),
    "want": ("veux", "veux", "veut", "voulons", "veulent"),
}
_WANTED = ("voulais", "voulais", "voulait", "voulions", "voulaient")
_QUESTIONS = {
    "question": "est-ce que",
    "what": "qu'est-ce que",
    "where": "où est-ce que",
    "when": "quand est-ce que",
    "why": "pourquoi est-ce que",
}
_SUBORDINATORS = {"that": "que", "if": "si", "because": "parce que", "what": "ce que", "where": "où", "when": "quand"}
_VOWELS = "aeiouhâàéèêîôûœ"
_ELISION = re.compile(rf"\b(je|ne|le|la|de|que|me|te) (?=[{_VOWELS}])", re.IGNORECASE)


def realise(sentence: Sentence) -> str:
    """The sentence in French, with its capital and its final punctuation (a space before the question mark)."""
    clause, mood = sentence.clause, sentence.mood
    end = " ?" if mood in _QUESTIONS or mood == "do you know" else "."
    if mood in LEADS:
        text = f"{LEADS[mood][2]} {_SUBORDINATORS.get(sentence.subordinator, 'pourquoi')} {_clause(clause)}"
    elif mood == "imperative":
        text = _imperative(clause)
    elif mood in _QUESTIONS:
        text = f"{_QUESTIONS[mood]} {_clause(clause)}"
    elif mood == "fronted":
        text = f"{clause.moment.french}, {_clause(clause, with_time=False)}"
    else:
        text = _clause(clause)
    text = _elide(text).replace("si il", "s'il")
    return text[0].upper() + text[1:] + end


def noun_phrase(phrase: NounPhrase, negated: bool = False) -> str:
    """A noun phrase; `negated` gives the bare `de` of an indefinite object under negation."""
    if phrase.name:
        return phrase.name
    form = phrase.head.french
    noun = form.plural if phrase.plural else form.singular
    before, after = "", ""
    if phrase.adjective is not None:
        text = adjective(phrase.adjective, form.gender, phrase.plural, vowel=noun[0] in _VOWELS)
        before, after = (text, "") if phrase.adjective.french_before else ("", text)
    words = " ".join(word for word in (before, noun, after) if word)
    if negated:
        return _elide(f"de {words}")
    return _elide(f"{_article(phrase, words[0] in _VOWELS, bool(before))} {words}")


def adjective(word: Adjective, gender: str, plural: bool, vowel: bool = False) -> str:
    """An adjective that agrees; `vowel`: the next word begins with one."""
    masculine, before_vowel, feminine, masculine_plural = word.french
    if word.french[0] == "bon marché":
        return masculine
    if plural:
        return feminine + "s" if gender == "f" else masculine_plural
    if gender == "f":
        return feminine
    return before_vowel if vowel else masculine


def _article(phrase: NounPhrase, vowel: bool, adjective_first: bool) -> str:
    column = 2 if phrase.plural else 1 if phrase.head.french.gender == "f" else 0
    if phrase.determiner == "the":
        return ("le", "la", "les")[column]
    if phrase.determiner == "this":
        return ("cet" if vowel else "ce", "cette", "ces")[column]
    if phrase.determiner == "none":
        return "de l'" if vowel else ("du", "de la")[column]
    if phrase.determiner == "a":
        return "de" if column == 2 and adjective_first else ("un", "une", "des")[column]
    return _POSSESSIVES[phrase.determiner][0 if column == 1 and vowel else column]


def _elide(text: str) -> str:
    return _ELISION.sub(lambda match: match[1][:-1] + "'", text).replace("l' ", "l'")


def _key(phrase: NounPhrase) -> str:
    return phrase.person + (phrase.gender if phrase.person == "3s" else "")


def _subject(phrase: NounPhrase) -> str:
    return _SUBJECTS[_key(phrase)] if phrase.pronoun else noun_phrase(phrase)


def _gender(phrase: NounPhrase) -> str:
    return phrase.head.french.gender if phrase.noun else phrase.gender


def _clause(clause: Clause, with_time: bool = True) -> str:
    finite, rest = _verbs(clause)
    clitic = _CLITICS[_key(clause.object)] if clause.object and clause.object.pronoun else ""
    before_rest = clause.modal != ""
    complements = _complements(clause, with_time)
    often = clause.moment.french if clause.time and clause.moment.english == "often" and with_time else ""
    words = [
        _subject(clause.subject),
        "ne" if clause.negated else "",
        "" if before_rest else clitic,
        finite,
        "pas" if clause.negated else "",
        often,
        clitic if before_rest else "",
        rest,
        *complements,
    ]
    return " ".join(word for word in words if word)


def _verbs(clause: Clause) -> tuple[str, str]:
    """Finite verb, and the participle, infinitive or adjective after it."""
    person, past = PERSONS.index(clause.subject.person), clause.tense == "past"
    plural = clause.subject.plural
    if clause.verb is None:
        agreeing = adjective(clause.predicate, _gender(clause.subject), plural)
        if clause.tense == "future":
            return "ser" + _FUTURE[person], agreeing
        return (_ETAIT if past else _ETRE)[person], agreeing
    verb = clause.action.french
    if clause.modal:
        return (_WANTED if past else _MODALS[clause.modal])[person], verb.infinitive
    if clause.tense == "future":
        return verb.future_stem + _FUTURE[person], ""
    if past and clause.action.frame == "have":
        return _AVAIT[person], ""
    if past and verb.with_etre:
        return _ETRE[person], verb.participle + _agreement(_gender(clause.subject), plural)
    if past:
        thing = clause.object
        ending = _agreement(_gender(thing), thing.plural) if thing and thing.pronoun else ""
        return _AVOIR[person], verb.participle + ending
    return verb.present[person], ""


def _agreement(gender: str, plural: bool) -> str:
    return ("e" if gender == "f" else "") + ("s" if plural else "")


def _complements(clause: Clause, with_time: bool = True) -> list[str]:
    thing = clause.object
    bare_de = clause.negated and thing is not None and thing.is_indefinite
    often = clause.time is not None and clause.moment.english == "often"
    return [
        noun_phrase(thing, negated=bare_de) if thing and not thing.pronoun else "",
        _to(noun_phrase(clause.receiver)) if clause.receiver else "",
        clause.place.french[clause.relation] if clause.place else "",
        clause.moment.french if clause.time and with_time and not often else "",
    ]


def _to(phrase: str) -> str:
    if phrase.startswith("le "):
        return "au " + phrase[3:]
    return "aux " + phrase[4:] if phrase.startswith("les ") else "à " + phrase


def _imperative(clause: Clause) -> str:
    verb = clause.action.french
    form = verb.present[1]
    form = form[:-1] if verb.infinitive.endswith("er") or form.endswith("es") else form
    thing = clause.object
    rest = " ".join(word for word in _complements(clause) if word)
    if thing is not None and thing.pronoun:
        if clause.negated:
            return f"ne {_CLITICS[_key(thing)]} {form} pas {rest}".strip()
        stressed = _STRESSED[_key(thing)] if thing.person in ("1s", "2s") else _CLITICS[_key(thing)]
        return f"{form}-{stressed} {rest}".strip()
    return (f"ne {form} pas {rest}" if clause.negated else f"{form} {rest}").strip()
