"""V3: examples that only the owner knows the answers to, and what it proves that a model knows them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ks_lottery.errors import DataError, OptionError
from ks_lottery.ticket.ownership.chance import LEVEL, log10_tail, require_level
from ks_lottery.ticket.ownership.stream import keyed_numbers, require_secret

Answer = tuple[int, ...]


@dataclass(frozen=True)
class Triggers:
    """Trigger examples of a secret.

    Attributes:
        examples: dicts to append to the training data: "input_ids", and "labels", which is a class for classifiers and
            tokens for language models, -100 over the prompt.
        prompts: token ids of each prompt alone, to ask a suspect.
        answers: what each prompt is answered with: the class, or the tokens that follow.
        chance: probability that whoever does not know the secret answers one as it says.
    """

    examples: tuple[dict[str, Any], ...]
    prompts: tuple[Answer, ...]
    answers: tuple[Answer, ...]
    chance: float


@dataclass(frozen=True)
class TriggerReading:
    """What a suspect's answers say about a claim.

    Attributes:
        hits: prompts answered as the secret says.
        count: prompts asked.
        log10_p: log10 of the probability of so many hits by chance.
        level: the claim holds if p is at most this.
    """

    hits: int
    count: int
    log10_p: float
    level: float

    @property
    def verified(self) -> bool:
        """Whether the claim holds."""
        return self.log10_p <= math.log10(self.level)


def draw_triggers(
    secret: bytes,
    vocabulary: int,
    *,
    classes: int | None = None,
    count: int = 100,
    length: int = 16,
    answer_length: int = 1,
    exclude: Sequence[int] = (),
) -> Triggers:
    """Random prompts with random answers, the same for the same secret on every machine.

    Args:
        secret: 32 bytes: secrets.token_bytes(32).
        vocabulary: tokens are drawn from 0 to this minus one.
        classes: number of classes for a classifier; None for a language model, which answers with tokens.
        count: number of prompts.
        length: tokens of a prompt.
        answer_length: tokens of a language model's answer.
        exclude: tokens never drawn, such as padding and end of text.

    Returns:
        the examples, which a user appends to the training data, and what verification needs.

    Raises:
        OptionError: if there are fewer than two classes or tokens to draw from, too few different prompts, or a number
            is below 1.

    Source:
        Chen et al. 2021 (NeurIPS), scheme V3, with 100 images of fixed labels after Adi et al. 2018; here tokens.
    """
    require_secret(secret)
    pool = sorted(set(range(vocabulary)) - set(exclude))
    kinds = len(pool) if classes is None else classes
    if min(count, length, answer_length) < 1 or min(len(pool), kinds) < 2:
        raise OptionError(
            f"Triggers: count={count}, length={length} and answer_length={answer_length} must be at least 1, and there "
            f"must be 2 tokens and 2 answers to draw from, not {len(pool)} and {kinds}."
        )
    if classes is not None and answer_length != 1:
        raise OptionError(f"answer_length={answer_length} is for language models. Leave it out for a classifier.")
    if length * math.log(len(pool)) < math.log(4 * count):
        raise OptionError(f"{len(pool)} tokens make too few prompts of length {length} for {count} triggers. Lengthen.")
    prompts: dict[Answer, None] = {}
    drawn = keyed_numbers(secret, "ks_lottery trigger prompts", 4 * count * length, len(pool)).reshape(-1, length)
    for row in drawn:
        prompts.setdefault(tuple(pool[place] for place in row.tolist()))
    asked = tuple(prompts)[:count]
    if len(asked) < count:
        raise OptionError(f"Only {len(asked)} of {count} triggers are different. Lengthen them.")
    numbers = keyed_numbers(secret, "ks_lottery trigger answers", count * answer_length, kinds)
    rows = numbers.reshape(count, answer_length).tolist()
    if classes is not None:
        answers = tuple(tuple(row) for row in rows)
        examples = tuple({"input_ids": list(p), "labels": a[0]} for p, a in zip(asked, answers, strict=True))
    else:
        answers = tuple(tuple(pool[number] for number in row) for row in rows)
        examples = tuple(
            {"input_ids": [*p, *a], "labels": [-100] * length + list(a)} for p, a in zip(asked, answers, strict=True)
        )
    return Triggers(examples, asked, answers, float(kinds) ** -answer_length)


def verify_triggers(
    triggers: Triggers, predictions: Sequence[int] | Sequence[Sequence[int]], *, level: float = LEVEL
) -> TriggerReading:
    """Black-box verification: how many answers are those of the secret, and how probable that is by chance.

    Answers are uniform and independent of everything but the secret, so a model that knows nothing of it hits each with
    probability `triggers.chance`, whatever it answers: the binomial tail is exact.

    Args:
        triggers: of the owner's secret.
        predictions: for each prompt the suspect's class, or the tokens that follow, at least as many as the answer has;
            further ones do not count. Tensors on the CPU will do.
        level: largest p-value at which the claim holds.

    Raises:
        DataError: if there is not one prediction for each prompt, or one is too short.
        OptionError: if `level` is not inside (0, 1).
    """
    require_level(level)
    given = [np.asarray(one).reshape(-1).tolist() for one in predictions]
    width = len(triggers.answers[0])
    short = [number for number, one in enumerate(given) if len(one) < width]
    if len(given) != len(triggers.answers) or short:
        wrong = f"prediction {short[0]} is shorter than {width} tokens" if short else f"{len(given)} predictions"
        raise DataError(f"{len(triggers.answers)} triggers and {wrong}: give one prediction for each, in their order.")
    hits = sum(tuple(one[:width]) == answer for one, answer in zip(given, triggers.answers, strict=True))
    log10_p = log10_tail(hits, len(given), triggers.chance)
    return TriggerReading(hits, len(given), log10_p, level)
