"""Abstract sentences in Spanish: gender and number, dropped pronouns, ser and estar, personal a, al."""

from pocket.abstract import LEADS, Clause, NounPhrase, Sentence
from pocket.lexicon import PERSONS, Adjective, SpanishVerb

_SUBJECTS = {"3sm": "él", "3sf": "ella", "3p": "ellos"}
_CLITICS = {"1s": "me", "2s": "te", "3sm": "lo", "3sf": "la", "1p": "nos", "3p": "los"}
_POSSESSIVES = {
    "1s": ("mi", "mi", "mis"),
    "2s": ("tu", "tu", "tus"),
    "m": ("su", "su", "sus"),
    "f": ("su", "su", "sus"),
    "1p": ("nuestro", "nuestra", "nuestros"),
    "3p": ("su", "su", "sus"),
}
_COPULA = {
    ("ser", "present"): ("soy", "eres", "es", "somos", "son"),
    ("ser", "past"): ("era", "eras", "era", "éramos", "eran"),
    ("ser", "future"): ("seré", "serás", "será", "seremos", "serán"),
    ("estar", "present"): ("estoy", "estás", "está", "estamos", "están"),
    ("estar", "past"): ("estaba", "estabas", "estaba", "estábamos", "estaban"),
    ("estar", "future"): ("estaré", "estarás", "estará", "estaremos", "estarán"),
}
_HAD = ("tenía", "tenías", "tenía", "teníamos", "tenían")
_FUTURE = ("é", "ás", "á", "emos", "án")
_MODALS = {
    "can": ("puedo", "puedes", "puede", "podemos", "pueden"),
    "must": ("debo", "debes", "debe", "debemos", "deben"),
    "want": ("quiero", "quieres", "quiere", "queremos", "quieren"),
}
_WANTED = ("quería", "querías", "quería", "queríamos", "querían")
_QUESTIONS = {"question": "", "what": "qué", "where": "dónde", "when": "cuándo", "why": "por qué"}
_SUBORDINATORS = {"that": "que", "if": "si", "because": "porque", **_QUESTIONS}
_IMPERATIVES = {"ir": "ve", "venir": "ven"}
_STRESSED_A = ("agua",)  # feminine, but with the article "el"
_SUBJUNCTIVES = {"dar": "des", "ir": "vayas"}


def realise(sentence: Sentence) -> str:
    """The sentence in Spanish, with its capital and its punctuation (an opening question mark)."""
    clause, mood = sentence.clause, sentence.mood
    start, end = ("¿", "?") if mood in _QUESTIONS else ("", "?" if mood == "do you know" else ".")
    if mood in LEADS:
        word = _where(clause) if sentence.subordinator == "where" else _SUBORDINATORS[sentence.subordinator]
        inverted = sentence.subordinator in ("what", "where", "when", "why")
        lead = LEADS[mood][3]
        same = clause.subject.pronoun and lead.split()[0].lower() == _subject(clause.subject)
        text = f"{lead} {word} {_clause(clause, inverted, drop_subject=same)}"
    elif mood == "imperative":
        text = _imperative(clause)
    elif mood in _QUESTIONS:
        word = _where(clause) if mood == "where" else _QUESTIONS[mood]
        text = f"{word} {_clause(clause, inverted=True)}".strip()
    elif mood == "fronted":
        text = f"{clause.moment.spanish} {_clause(clause, with_time=False)}"
    else:
        text = _clause(clause)
    first = 1 if text.startswith("¿") else 0
    return start + text[:first] + text[first].upper() + text[first + 1 :] + end


def noun_phrase(phrase: NounPhrase) -> str:
    """A noun phrase; the adjective follows the noun."""
    if phrase.name:
        return phrase.name
    form = phrase.head.spanish
    noun = form.plural if phrase.plural else form.singular
    words = [_article(phrase), noun]
    if phrase.adjective is not None:
        words.append(adjective(phrase.adjective, form.gender, phrase.plural))
    return " ".join(word for word in words if word)


def adjective(word: Adjective, gender: str, plural: bool) -> str:
    """An adjective that agrees."""
    form = word.spanish[gender == "f"]
    if not plural:
        return form
    if form.endswith("z"):
        return form[:-1] + "ces"
    return {"joven": "jóvenes"}.get(form, form + ("s" if form[-1] in "aeo" else "es"))


def _article(phrase: NounPhrase) -> str:
    column = (2 if phrase.plural else 0) + (phrase.head.spanish.gender == "f")
    if phrase.determiner == "the" and phrase.head.spanish.singular in _STRESSED_A:
        return "el"
    if phrase.determiner == "the":
        return ("el", "la", "los", "las")[column]
    if phrase.determiner == "this":
        return ("este", "esta", "estos", "estas")[column]
    if phrase.determiner in ("a", "none"):
        return "" if phrase.plural or phrase.determiner == "none" else ("un", "una")[column]
    singular_m, singular_f, plural_m = _POSSESSIVES[phrase.determiner]
    plural_f = "nuestras" if plural_m == "nuestros" else plural_m
    return (singular_m, singular_f, plural_m, plural_f)[column]


def _key(phrase: NounPhrase) -> str:
    return phrase.person + (phrase.gender if phrase.person == "3s" else "")


def _subject(phrase: NounPhrase) -> str:
    return _SUBJECTS.get(_key(phrase), "") if phrase.pronoun else noun_phrase(phrase)


def _where(clause: Clause) -> str:
    return "adónde" if clause.verb is not None and clause.action.frame == "goal" else "dónde"


def _clause(clause: Clause, inverted: bool = False, with_time: bool = True, drop_subject: bool = False) -> str:
    subject = "" if drop_subject else _subject(clause.subject)
    finite, rest = _verbs(clause)
    clitics = _clitics(clause)
    if clause.modal and clitics:
        rest, clitics = rest + clitics, ""
    verb = [finite, rest]
    if inverted:
        verb = [finite, rest, subject] if clause.verb is None else [finite, subject, rest]
    words = [
        "" if inverted else subject,
        "no" if clause.negated else "",
        clitics,
        *verb,
        *_complements(clause, with_time),
    ]
    return " ".join(word for word in words if word)


def _clitics(clause: Clause) -> str:
    if clause.receiver is not None:
        return "les" if clause.receiver.plural else "le"
    return _CLITICS[_key(clause.object)] if clause.object and clause.object.pronoun else ""


def _verbs(clause: Clause) -> tuple[str, str]:
    person, past = PERSONS.index(clause.subject.person), clause.tense == "past"
    if clause.verb is None:
        gender = clause.subject.head.spanish.gender if clause.subject.noun else clause.subject.gender
        tense = "present" if clause.tense == "habit" else clause.tense
        finite = _COPULA[clause.predicate.spanish_copula, tense][person]
        return finite, adjective(clause.predicate, gender, clause.subject.plural)
    verb = clause.action.spanish
    if clause.modal:
        return (_WANTED if past else _MODALS[clause.modal])[person], verb.infinitive
    if clause.tense == "future":
        return verb.future_stem + _FUTURE[person], ""
    if past:
        return (_HAD if clause.action.frame == "have" else verb.preterite)[person], ""
    return verb.present[person], ""


def _complements(clause: Clause, with_time: bool = True) -> list[str]:
    thing = clause.object
    personal = thing is not None and thing.is_human and clause.action.frame != "have"
    return [
        "" if thing is None or thing.pronoun else _to(noun_phrase(thing)) if personal else noun_phrase(thing),
        _to(noun_phrase(clause.receiver)) if clause.receiver else "",
        clause.place.spanish[clause.relation] if clause.place else "",
        clause.moment.spanish if clause.time and with_time else "",
    ]


def _to(phrase: str) -> str:
    return "al " + phrase[3:] if phrase.startswith("el ") else "a " + phrase


def _imperative(clause: Clause) -> str:
    verb = clause.action.spanish
    rest = " ".join(word for word in _complements(clause) if word)
    clitics = _clitics(clause)
    if clause.negated:
        return " ".join(word for word in ("no", clitics, _subjunctive(verb), rest) if word)
    form = _IMPERATIVES.get(verb.infinitive, verb.present[2])
    return f"{_stressed(form) if clitics else form}{clitics} {rest}".strip()


def _subjunctive(verb: SpanishVerb) -> str:
    if verb.infinitive in _SUBJUNCTIVES:
        return _SUBJUNCTIVES[verb.infinitive]
    stem = verb.present[0][:-1]
    if not verb.infinitive.endswith("ar"):
        return stem + "as"
    for ending, spelled in (("c", "qu"), ("g", "gu"), ("z", "c")):
        if stem.endswith(ending):
            stem = stem[: -len(ending)] + spelled
    return stem + "es"


def _stressed(form: str) -> str:
    """The accent an imperative of two or more syllables takes before one clitic."""
    vowels = [i for i, letter in enumerate(form) if letter in "aeiou"]
    if len(vowels) < 2 or any(letter in "áéíóú" for letter in form):
        return form
    place = vowels[-2]
    if form[place] in "iu" and place > 0 and form[place - 1] in "aeo":
        place -= 1
    return form[:place] + "áéíóú"["aeiou".index(form[place])] + form[place + 1 :]
