"""Abstract sentences in German: case, adjective endings, verb-second and verb-final order, separable verbs."""

from pocket.abstract import LEADS, Clause, NounPhrase, Sentence

_PRONOUNS = {  # nominative, accusative, dative
    "1s": ("ich", "mich", "mir"),
    "2s": ("du", "dich", "dir"),
    "3sm": ("er", "ihn", "ihm"),
    "3sf": ("sie", "sie", "ihr"),
    "1p": ("wir", "uns", "uns"),
    "3p": ("sie", "sie", "ihnen"),
}
_POSSESSIVES = {"1s": "mein", "2s": "dein", "m": "sein", "f": "ihr", "1p": "unser", "3p": "ihr"}
_DEFINITE = {"nom": ("er", "ie", "as", "ie"), "acc": ("en", "ie", "as", "ie"), "dat": ("em", "er", "em", "en")}
_THIS = {"nom": ("er", "e", "es", "e"), "acc": ("en", "e", "es", "e"), "dat": ("em", "er", "em", "en")}
_EIN = {"nom": ("", "e", "", "e"), "acc": ("en", "e", "", "e"), "dat": ("em", "er", "em", "en")}
_WEAK = {"nom": ("e", "e", "e", "en"), "acc": ("en", "e", "e", "en"), "dat": ("en", "en", "en", "en")}
_MIXED = {"nom": ("er", "e", "es", "en"), "acc": ("en", "e", "es", "en"), "dat": ("en", "en", "en", "en")}
_STRONG = {"nom": ("er", "e", "es", "e"), "acc": ("en", "e", "es", "e"), "dat": ("em", "er", "em", "en")}
_SEIN = {"1s": "bin", "2s": "bist", "3s": "ist", "1p": "sind", "3p": "sind"}
_WAR = {"1s": "war", "2s": "warst", "3s": "war", "1p": "waren", "3p": "waren"}
_HABEN = {"1s": "habe", "2s": "hast", "3s": "hat", "1p": "haben", "3p": "haben"}
_HATTE = {"1s": "hatte", "2s": "hattest", "3s": "hatte", "1p": "hatten", "3p": "hatten"}
_WERDEN = {"1s": "werde", "2s": "wirst", "3s": "wird", "1p": "werden", "3p": "werden"}
_MODALS = {
    "can": {"1s": "kann", "2s": "kannst", "3s": "kann", "1p": "können", "3p": "können"},
    "must": {"1s": "muss", "2s": "musst", "3s": "muss", "1p": "müssen", "3p": "müssen"},
    "want": {"1s": "will", "2s": "willst", "3s": "will", "1p": "wollen", "3p": "wollen"},
}
_WANTED = {"1s": "wollte", "2s": "wolltest", "3s": "wollte", "1p": "wollten", "3p": "wollten"}
_SUBORDINATORS = {"that": "dass", "if": "ob", "because": "weil"}


def realise(sentence: Sentence) -> str:
    """The sentence in German, with its capital and its final punctuation."""
    clause, mood = sentence.clause, sentence.mood
    subject = noun_phrase(clause.subject, "nom")
    finite, final, fused = _verbs(clause)
    end = "?" if mood in ("question", "what", "where", "when", "why", "do you know") else "."
    if mood in LEADS:
        word = _SUBORDINATORS.get(sentence.subordinator) or _question_word(sentence.subordinator, clause)
        words = [LEADS[mood][1] + ",", word, subject, *_middle(clause), *fused]
    elif mood == "imperative":
        words = [clause.action.german.imperative, *_middle(clause), clause.action.german.prefix]
    elif mood == "fronted":
        words = [clause.moment.german, finite, subject, *_middle(clause, with_time=False), *final]
    elif mood == "question":
        words = [finite, subject, *_middle(clause), *final]
    elif mood == "statement":
        words = [subject, finite, *_middle(clause), *final]
    else:
        words = [_question_word(mood, clause), finite, subject, *_middle(clause), *final]
    text = " ".join(word for word in words if word)
    return text[0].upper() + text[1:] + end


def noun_phrase(phrase: NounPhrase, case: str, negated: bool = False) -> str:
    """A noun phrase in the case `nom`, `acc` or `dat`; `negated` turns `ein` into `kein`."""
    if phrase.pronoun:
        key = phrase.person + (phrase.gender if phrase.person == "3s" else "")
        return _PRONOUNS[key][("nom", "acc", "dat").index(case)]
    if phrase.name:
        return phrase.name
    column = 3 if phrase.plural else {"m": 0, "w": 0, "f": 1, "n": 2}[phrase.head.german.gender]
    article, endings = _article(phrase.determiner, case, column, negated)
    adjective = phrase.adjective.german_stem + endings[case][column] if phrase.adjective else ""
    return " ".join(word for word in (article, adjective, _noun(phrase, case)) if word)


def _article(
    determiner: str, case: str, column: int, negated: bool
) -> tuple[str, dict[str, tuple[str, str, str, str]]]:
    if determiner == "the":
        return "d" + _DEFINITE[case][column], _WEAK
    if determiner == "this":
        return "dies" + _THIS[case][column], _WEAK
    if determiner in _POSSESSIVES:
        stem = _POSSESSIVES[determiner]
        ending = _EIN[case][column]
        return stem + ending, _MIXED
    if negated:
        return "kein" + _EIN[case][column], _MIXED
    if determiner == "none" or column == 3:
        return "", _STRONG
    return "ein" + _EIN[case][column], _MIXED


def _noun(phrase: NounPhrase, case: str) -> str:
    form = phrase.head.german
    if phrase.plural:
        return form.plural + ("n" if case == "dat" and form.plural[-1] not in "ns" else "")
    return form.plural if form.gender == "w" and case != "nom" else form.singular


def _question_word(word: str, clause: Clause) -> str:
    if word == "where" and clause.verb is not None and clause.action.frame == "goal":
        return "wohin"
    return {"what": "was", "where": "wo", "when": "wann", "why": "warum"}[word]


def _verbs(clause: Clause) -> tuple[str, list[str], list[str]]:
    """Finite verb and clause-final words of a main clause, and the verb words that end a subordinate clause."""
    person = clause.subject.person
    if clause.verb is None:
        adjective = clause.predicate.german
        if clause.tense == "future":
            return _WERDEN[person], [adjective, "sein"], [adjective, "sein", _WERDEN[person]]
        finite = (_WAR if clause.tense == "past" else _SEIN)[person]
        return finite, [adjective], [adjective, finite]
    verb = clause.action.german
    infinitive = verb.prefix + verb.infinitive
    if clause.modal:
        finite = _WANTED[person] if clause.tense == "past" else _MODALS[clause.modal][person]
        return finite, [infinitive], [infinitive, finite]
    if clause.tense == "future":
        return _WERDEN[person], [infinitive], [infinitive, _WERDEN[person]]
    if clause.tense == "past" and clause.action.frame == "have":
        return _HATTE[person], [], [_HATTE[person]]
    if clause.tense == "past":
        auxiliary = (_SEIN if verb.auxiliary == "sein" else _HABEN)[person]
        return auxiliary, [verb.participle], [verb.participle, auxiliary]
    stem = verb.infinitive.removesuffix("n").removesuffix("e")
    first = stem + "e"
    finite = {"1s": first, "2s": verb.second, "3s": verb.third}.get(person, verb.infinitive)
    return finite, [verb.prefix], [verb.prefix + finite]


def _middle(clause: Clause, with_time: bool = True) -> list[str]:
    time = clause.moment.german if clause.time and with_time else ""
    place = clause.place.german[clause.relation] if clause.place else ""
    receiver = noun_phrase(clause.receiver, "dat") if clause.receiver else ""
    negation = "nicht" if clause.negated else ""
    if clause.object is None:
        return [receiver, time, negation, place]
    case = "dat" if clause.action.german.dative else "acc"
    kein = clause.negated and clause.object.is_indefinite
    thing = noun_phrase(clause.object, case, negated=kein)
    if clause.object.pronoun or (clause.negated and not kein):
        return [receiver, thing, time, negation, place]
    return [time, receiver, thing, "" if kein else negation, place]
