"""Abstract sentences: what a sentence says, before any language says it."""

from dataclasses import dataclass

from pocket.lexicon import Adjective, Noun, Place, Time, Verb


@dataclass(frozen=True)
class NounPhrase:
    """A pronoun, a name, or a determiner with an adjective and a noun.

    `determiner`: the, a, this, none, or the person of a possessor (1s, 2s, m, f, 1p, 3p).
    """

    person: str = "3s"
    gender: str = "m"
    pronoun: bool = False
    name: str = ""
    noun: Noun | None = None
    determiner: str = ""
    adjective: Adjective | None = None
    plural: bool = False

    @property
    def head(self) -> Noun:
        """The noun, of a phrase that has one."""
        assert self.noun is not None
        return self.noun

    @property
    def is_human(self) -> bool:
        """Whether the phrase stands for a person."""
        return self.noun is None or self.noun.is_human

    @property
    def is_indefinite(self) -> bool:
        """Whether German negates the phrase with `kein` and French with `de`."""
        return self.noun is not None and self.determiner in ("a", "none")


@dataclass(frozen=True)
class Clause:
    """One clause: a verb with its subject and complements, or (`verb` None) a copula with an adjective."""

    subject: NounPhrase
    verb: Verb | None = None
    adjective: Adjective | None = None
    tense: str = "present"  # present, habit, past, future
    modal: str = ""  # can, must, want
    negated: bool = False
    object: NounPhrase | None = None
    receiver: NounPhrase | None = None
    place: Place | None = None
    relation: int = 0  # 0 at, 1 to, 2 from
    time: Time | None = None

    @property
    def action(self) -> Verb:
        """The verb, of a clause that is not a copula."""
        assert self.verb is not None
        return self.verb

    @property
    def predicate(self) -> Adjective:
        """The adjective of a copula."""
        assert self.adjective is not None
        return self.adjective

    @property
    def moment(self) -> Time:
        """The time adverb, of a clause that has one."""
        assert self.time is not None
        return self.time


@dataclass(frozen=True)
class Sentence:
    """A clause with its use.

    `mood`: statement, fronted (the time adverb comes first), question, imperative, what, where, when, why, or the name
    of a main clause from `LEADS` with the clause subordinate to it.
    """

    clause: Clause
    mood: str = "statement"
    subordinator: str = ""  # that, if, because, what, where, when, why


# Main clauses in front of a subordinate clause: English, German, French, Spanish.
LEADS: dict[str, tuple[str, str, str, str]] = {
    "know": ("I know", "Ich weiß", "Je sais", "Sé"),
    "he knows": ("He knows", "Er weiß", "Il sait", "Él sabe"),
    "think": ("I think", "Ich denke", "Je pense", "Creo"),
    "believe": ("She believes", "Sie glaubt", "Elle croit", "Ella cree"),
    "says": ("Tom says", "Tom sagt", "Tom dit", "Tom dice"),
    "said": ("You said", "Du hast gesagt", "Tu as dit", "Dijiste"),
    "hope": ("We hope", "Wir hoffen", "Nous espérons", "Esperamos"),
    "see": ("I see", "Ich sehe", "Je vois", "Veo"),
    "do not know": ("I don't know", "Ich weiß nicht", "Je ne sais pas", "No sé"),
    "she does not know": ("She doesn't know", "Sie weiß nicht", "Elle ne sait pas", "Ella no sabe"),
    "do you know": ("Do you know", "Weißt du", "Sais-tu", "¿Sabes"),
    "tell me": ("Tell me", "Sag mir", "Dis-moi", "Dime"),
    "am tired": ("I'm tired", "Ich bin müde", "Je suis fatigué", "Estoy cansado"),
    "is happy": ("She's happy", "Sie ist glücklich", "Elle est heureuse", "Ella es feliz"),
    "is crying": ("Mary is crying", "Mary weint", "Mary pleure", "Mary llora"),
    "cannot come": ("I can't come", "Ich kann nicht kommen", "Je ne peux pas venir", "No puedo venir"),
}
LEADS_BY_SUBORDINATOR = {
    "that": ("know", "he knows", "think", "believe", "says", "said", "see"),
    "if": ("do not know", "she does not know", "do you know", "tell me"),
    "because": ("am tired", "is happy", "is crying", "cannot come"),
    "wh": ("know", "he knows", "do not know", "she does not know", "do you know", "tell me"),
}
