"""Abstract sentences in English."""

from pocket.abstract import LEADS, Clause, NounPhrase, Sentence

_SUBJECTS = {"1s": "I", "2s": "you", "1p": "we", "3p": "they"}
_OBJECTS = {"1s": "me", "2s": "you", "1p": "us", "3p": "them"}
_POSSESSIVES = {"1s": "my", "2s": "your", "m": "his", "f": "her", "1p": "our", "3p": "their"}
_BE = {"1s": "am", "3s": "is"}
_WAS = {"1s": "was", "3s": "was"}
_NEGATIVES = {"am": "am not", "will": "won't", "can": "can't"}


def realise(sentence: Sentence) -> str:
    """The sentence in English, with its capital and its final punctuation."""
    clause, mood = sentence.clause, sentence.mood
    if mood in LEADS:
        words = [LEADS[mood][0], sentence.subordinator, *_clause(clause)]
        end = "?" if mood == "do you know" else "."
    elif mood == "imperative":
        words = ["don't" if clause.negated else "", clause.action.english[0], *_complements(clause)]
        end = "."
    elif mood in ("question", "what", "where", "when", "why"):
        words = ["" if mood == "question" else mood, *_clause(clause, inverted=True)]
        end = "?"
    elif mood == "fronted":
        words, end = [clause.moment.english, *_clause(clause, with_time=False)], "."
    else:
        words, end = _clause(clause), "."
    text = " ".join(word for word in words if word)
    for full, short in (("I am ", "I'm "), ("you are ", "you're "), ("we are ", "we're "), ("they are ", "they're ")):
        text = text.replace(full, short) if text.lower().startswith(full.lower()) else text
    return text[0].upper() + text[1:] + end


def noun_phrase(phrase: NounPhrase, is_object: bool = False) -> str:
    """A subject or object phrase."""
    if phrase.pronoun:
        third = ("him", "her") if is_object else ("he", "she")
        return (_OBJECTS if is_object else _SUBJECTS).get(phrase.person, third[phrase.gender == "f"])
    if phrase.name:
        return phrase.name
    noun = phrase.head.english_plural if phrase.plural else phrase.head.english
    words = [phrase.adjective.english, noun] if phrase.adjective else [noun]
    if phrase.determiner == "a":
        article = "" if phrase.plural else "an" if words[0][0] in "aeiou" else "a"
    elif phrase.determiner == "this":
        article = "these" if phrase.plural else "this"
    else:
        article = {"the": "the", "none": "", **_POSSESSIVES}[phrase.determiner]
    return " ".join([article, *words]).strip()


def _clause(clause: Clause, inverted: bool = False, with_time: bool = True) -> list[str]:
    subject = noun_phrase(clause.subject)
    auxiliary, rest = _verbs(clause, inverted)
    if clause.negated:
        auxiliary = _NEGATIVES.get(auxiliary, auxiliary + "n't")
    if inverted and auxiliary == "am not":
        return ["am", subject, "not", *rest, *_complements(clause, with_time)]
    words = [auxiliary, subject] if inverted else [subject, auxiliary]
    if clause.time is not None and clause.moment.english == "often" and with_time:
        rest, with_time = ["often", *rest], False
    return [*words, *rest, *_complements(clause, with_time)]


def _verbs(clause: Clause, inverted: bool) -> tuple[str, list[str]]:
    """Finite auxiliary ("" if none is needed) and the other verb words."""
    person, past, future = clause.subject.person, clause.tense == "past", clause.tense == "future"
    needs_do = inverted or clause.negated
    if clause.verb is None:
        if future:
            return "will", ["be", clause.predicate.english]
        return (_WAS.get(person, "were") if past else _BE.get(person, "are")), [clause.predicate.english]
    base, third, preterite, ing = clause.action.english
    if clause.modal == "want":
        base, third, preterite, ing = f"want to {base}", f"wants to {base}", f"wanted to {base}", "!"
    elif clause.modal:
        return clause.modal, [base]
    if future:
        return "will", [base]
    if past:
        return ("did", [base]) if needs_do else ("", [preterite])
    if ing != "!" and clause.tense != "habit":
        return _BE.get(person, "are"), [ing]
    if needs_do:
        return ("does" if person == "3s" else "do"), [base]
    return "", [third if person == "3s" else base]


def _complements(clause: Clause, with_time: bool = True) -> list[str]:
    return [
        noun_phrase(clause.object, is_object=True) if clause.object else "",
        "to " + noun_phrase(clause.receiver, is_object=True) if clause.receiver else "",
        clause.place.english[clause.relation] if clause.place else "",
        clause.moment.english if clause.time and with_time else "",
    ]
