"""The ticket of a translation run: token counts, the finder's options, and the controls of the table."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ks_lottery.errors import OptionError
from ks_lottery.finders.base import finder
from ks_lottery.finders.select import Alpha, Density, Selector, TopK
from ks_lottery.report.results import FREQUENCY_CONTROL, PROMPT_ROWS, RANDOM_CONTROL, STRUCTURAL_ROW
from ks_lottery.ticket.controls import frequency_like, random_like, structural_row, these_rows
from ks_lottery.ticket.ticket import Ticket

UNRELATED = ("a", "7", "?")
"""Sentences that share no token, so that what all prompts share is the prompt's own."""

_SELECTORS = ("alpha", "top_k", "density")


@dataclass
class TicketArguments:
    """How the ticket is found."""

    finder: str = field(default="ks", metadata={"help": "ks, magnitude, or any registered finder of two checkpoints."})
    selector: str = field(default="alpha", metadata={"help": "alpha (p < alpha), top_k, or density."})
    alpha: float = field(default=0.05, metadata={"help": "Threshold on the p-value; also 1 - certificate confidence."})
    correction: str = field(default="none", metadata={"help": "none (the paper), bonferroni, holm or bh."})
    top_k: int = field(default=18, metadata={"help": "Rows, with --selector top_k."})
    density: float = field(default=0.001, metadata={"help": "Share of all rows, with --selector density."})
    minimum_count: int = field(
        default=0, metadata={"help": "Leave out tokens that the training text uses less often than this."}
    )
    control_seed: int = field(default=0, metadata={"help": "Seed of the random control."})

    def __post_init__(self) -> None:
        if self.selector not in _SELECTORS:
            raise OptionError(f"--selector {self.selector}: must be one of {', '.join(_SELECTORS)}.")
        if self.minimum_count < 0:
            raise OptionError(f"--minimum_count {self.minimum_count}: must not be negative.")
        if not 0.0 < self.alpha <= 1.0:
            raise OptionError(f"--alpha {self.alpha}: must be above 0 and at most 1; the paper's is 0.05.")
        self.make_selector()
        finder(self.finder)

    def make_selector(self) -> Selector:
        """The selector that the options describe."""
        if self.selector == "alpha":
            return Alpha(self.alpha, self.correction)
        return TopK(self.top_k) if self.selector == "top_k" else Density(self.density)

    def candidates(self, counts: np.ndarray) -> np.ndarray | None:
        """Rows that may be selected; None for all."""
        return np.flatnonzero(counts >= self.minimum_count) if self.minimum_count else None


@dataclass(frozen=True)
class TokenCounts:
    """How often each token occurs.

    Attributes:
        training: [vocabulary] int64, in all training examples.
        prompt: [vocabulary] int64, in the prompt around one sentence.
        last: the prompt's last token, a line break in the usual templates.
    """

    training: np.ndarray
    prompt: np.ndarray
    last: int


def count_tokens(prompts: Sequence[Sequence[int]], examples: Sequence[Sequence[int]], vocabulary: int) -> TokenCounts:
    """Count the tokens of a data set.

    A token belongs to the prompt as often as it occurs in every tokenised prompt, whatever the sentence.

    Args:
        prompts: token ids of each prompt, among them prompts of sentences that share no token.
        examples: token ids of each training example.
        vocabulary: number of embedding rows.
    """
    training = np.zeros(vocabulary, dtype=np.int64)
    for ids in examples:
        training += np.bincount(ids, minlength=vocabulary)
    common = np.bincount(prompts[0], minlength=vocabulary)
    for ids in prompts[1:]:
        common = np.minimum(common, np.bincount(ids, minlength=vocabulary))
    return TokenCounts(training, common, int(prompts[0][-1]))


def controls_of(ticket: Ticket, counts: TokenCounts, seed: int) -> dict[str, Ticket]:
    """The control tickets that stand in every table.

    The random control is drawn among tokens that the training text uses, without the ticket's and the prompt's: rows
    outside those cannot learn anything, and these are what it is compared with.
    """
    prompt = np.flatnonzero(counts.prompt)
    taken = np.union1d(prompt, np.concatenate(list(ticket.indices.values())))
    return {
        RANDOM_CONTROL: random_like(ticket, seed, among=np.flatnonzero(counts.training), exclude=taken),
        FREQUENCY_CONTROL: frequency_like(ticket, counts.training),
        PROMPT_ROWS: these_rows(ticket, prompt, "prompt_rows"),
        STRUCTURAL_ROW: structural_row(ticket, counts.last),
    }
