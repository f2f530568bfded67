"""Tokens are counted exactly, and the controls are what the table says they are."""

from collections import Counter

import numpy as np
import pytest
from translation_ticket import UNRELATED, TicketArguments, TokenCounts, controls_of, count_tokens

from ks_lottery.errors import TicketError
from ks_lottery.finders.search import find_ticket
from ks_lottery.finders.select import Alpha, Density, TopK
from ks_lottery.report.results import FREQUENCY_CONTROL, PROMPT_ROWS, RANDOM_CONTROL, STRUCTURAL_ROW
from ks_lottery.training.examples import encode_prompts, response_examples
from tests.recipes.tiny_run import PROMPT, tiny_pairs, tiny_tokenizer
from tests.tiny_models import shifted, tiny_llama

PROMPT_TOKENS = [
    "<s>", "###", " Instruction:", "\n", "Translate", " from", " English", " to", " eo.", "\n", "###", " Input:", "\n",
    "\n", "###", " Response:", "\n",
]  # fmt: skip
"""All but the sentence, which stands after the third line break."""


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def counts(tokenizer) -> TokenCounts:
    return counts_of(tokenizer, tiny_pairs()[:12])


@pytest.fixture(scope="module")
def ticket(tokenizer, counts):
    before = tiny_llama(vocabulary=len(tokenizer))
    rows = [tokenizer.convert_tokens_to_ids(token) for token in ("\n", " cat", "unused1")]
    return find_ticket(before, shifted(before, rows), selector=TopK(3))


def counts_of(tokenizer, pairs) -> TokenCounts:
    prompts = encode_prompts(tokenizer, [PROMPT(source) for source in (*(pair.source for pair in pairs), *UNRELATED)])
    examples = response_examples(pairs, tokenizer, PROMPT).examples
    return count_tokens(prompts, [example["input_ids"] for example in examples], len(tokenizer))


def named(tokenizer, counts) -> Counter:
    return Counter({tokenizer.convert_ids_to_tokens(int(row)): int(counts[row]) for row in np.flatnonzero(counts)})


@pytest.mark.parametrize("pairs", [1, 2, 450])
def test_the_prompt_s_tokens_are_found_exactly(tokenizer, pairs: int) -> None:
    """Also where every sentence has a full stop and twice the word `the`."""
    counts = counts_of(tokenizer, tiny_pairs()[:pairs])
    assert named(tokenizer, counts.prompt) == Counter(PROMPT_TOKENS)
    assert counts.last == tokenizer.convert_tokens_to_ids("\n")


def test_training_tokens_are_counted_in_prompts_responses_and_ends(tokenizer) -> None:
    source, target = tiny_pairs()[0]
    assert (source, target) == ("the cat sees the dog now .", "kato vidas hundon nun .")
    words = ["the", " cat", " sees", " the", " dog", " now", " .", "kato", " vidas", " hundon", " nun", " .", "</s>"]
    counts = counts_of(tokenizer, [tiny_pairs()[0]] * 3)
    assert named(tokenizer, counts.training) == Counter((PROMPT_TOKENS + words) * 3)
    assert counts.training.dtype == counts.prompt.dtype == np.int64
    assert counts.training.shape == counts.prompt.shape == (len(tokenizer),)


@pytest.mark.parametrize("seed", range(20))
def test_the_random_control_is_drawn_among_tokens_that_occur_outside_ticket_and_prompt(ticket, counts, seed) -> None:
    drawn = controls_of(ticket, counts, seed)[RANDOM_CONTROL].indices["input"]
    assert len(drawn) == len(ticket)
    assert counts.training[drawn].all()
    assert not counts.prompt[drawn].any()
    assert not np.isin(drawn, ticket.indices["input"]).any()


def test_the_random_control_follows_its_seed(ticket, counts) -> None:
    assert len({controls_of(ticket, counts, seed)[RANDOM_CONTROL] for seed in (0, 0, 1, 2, 3)}) == 4


def test_the_other_controls(ticket, counts, tokenizer) -> None:
    controls = controls_of(ticket, counts, 0)
    assert list(controls) == [RANDOM_CONTROL, FREQUENCY_CONTROL, PROMPT_ROWS, STRUCTURAL_ROW]
    rows = {name: control.indices["input"].tolist() for name, control in controls.items()}
    ranked = sorted(range(len(tokenizer)), key=lambda row: (-counts.training[row], row))
    assert rows[FREQUENCY_CONTROL] == sorted(ranked[:3])
    assert set(tokenizer.convert_ids_to_tokens(rows[PROMPT_ROWS])) == set(PROMPT_TOKENS)
    assert tokenizer.convert_ids_to_tokens(rows[STRUCTURAL_ROW]) == ["\n"]
    assert all(control.base == ticket.base for control in controls.values())


def test_a_ticket_that_leaves_no_rows_for_the_random_control(ticket, counts) -> None:
    large = ticket.with_units({"input": range(40)}, ticket.provenance)
    with pytest.raises(TicketError, match="A random control needs 40 units of group 'input', but only .* are left"):
        controls_of(large, counts, 0)


def test_the_options_describe_a_selector() -> None:
    assert TicketArguments().make_selector() == Alpha(0.05, "none")
    assert TicketArguments(alpha=0.01, correction="holm").make_selector() == Alpha(0.01, "holm")
    assert TicketArguments(selector="top_k", top_k=7).make_selector() == TopK(7)
    assert TicketArguments(selector="density", density=0.1).make_selector() == Density(0.1)


def test_rare_tokens_can_be_left_out() -> None:
    counts = np.array([0, 5, 1, 2])
    assert TicketArguments().candidates(counts) is None
    assert TicketArguments(minimum_count=2).candidates(counts).tolist() == [1, 3]
    assert TicketArguments(minimum_count=1).candidates(counts).tolist() == [1, 2, 3]
