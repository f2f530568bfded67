import pytest
import torch

from ks_lottery.errors import DataError, OptionError
from ks_lottery.training.causal_lm import require_causal_lm
from ks_lottery.training.examples import ResponseCollator, encode_prompts, padding_id, response_examples
from tests.training.tiny_task import PAIRS, PROMPT, tiny_examples, tiny_tokenizer


def test_labels_cover_response_and_eos_only() -> None:
    tokenizer = tiny_tokenizer()
    for (_, target), example in zip(PAIRS, tiny_examples(tokenizer), strict=True):
        response = [token for token in example["labels"] if token != -100]
        start = len(example["labels"]) - len(response)
        assert example["labels"][:start] == [-100] * start
        assert example["input_ids"][start:] == response
        assert response[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(response[:-1]) == target


@pytest.mark.parametrize("eos_in_prompt", [False, True])
def test_generation_sees_exactly_the_training_prompt(eos_in_prompt: bool) -> None:
    tokenizer = tiny_tokenizer(eos_in_prompt=eos_in_prompt)
    prompts = encode_prompts(tokenizer, [PROMPT(source) for source, _ in PAIRS])
    for prompt, example in zip(prompts, tiny_examples(tokenizer), strict=True):
        assert prompt == example["input_ids"][: len(prompt)]
        assert example["labels"][len(prompt)] != -100
        assert prompt[0] == tokenizer.bos_token_id
        assert tokenizer.eos_token_id not in prompt


def test_long_rows_are_refused_or_counted() -> None:
    tokenizer = tiny_tokenizer()
    longer = ("the cat eats the dog .", "die Katze frisst der Hund .")
    limit = max(len(example["input_ids"]) for example in tiny_examples(tokenizer))
    with pytest.raises(DataError, match=rf"Row 1 has \d+ prompt and 7 response tokens, more than max_length={limit}"):
        response_examples([PAIRS[0], longer], tokenizer, PROMPT, max_length=limit)
    kept = response_examples([PAIRS[0], longer, PAIRS[1]], tokenizer, PROMPT, max_length=limit, too_long="drop")
    assert (len(kept), kept.dropped) == (2, (1,))
    with pytest.raises(DataError, match="All 8 sentence pairs are longer than max_length=3"):
        response_examples(PAIRS, tokenizer, PROMPT, max_length=3, too_long="drop")
    with pytest.raises(OptionError, match="too_long='cut'"):
        response_examples(PAIRS, tokenizer, PROMPT, too_long="cut")  # type: ignore[arg-type]


def test_bad_rows_are_named() -> None:
    tokenizer = tiny_tokenizer()
    with pytest.raises(DataError, match="no sentence pairs"):
        response_examples([], tokenizer, PROMPT)
    with pytest.raises(DataError, match="Row 1: the target sentence is empty or no text: ' '"):
        response_examples([PAIRS[0], ("the cat", " ")], tokenizer, PROMPT)
    with pytest.raises(DataError, match="Row 0: the source sentence is empty or no text: None"):
        response_examples([(None, "x")], tokenizer, PROMPT)  # type: ignore[list-item]
    with pytest.raises(DataError, match=r"Row 0 is not a \(source, target\) pair: \('x',\)"):
        response_examples([("x",)], tokenizer, PROMPT)  # type: ignore[list-item]
    tokenizer.eos_token = None
    with pytest.raises(OptionError, match="no EOS token"):
        response_examples(PAIRS, tokenizer, PROMPT)


def test_collator_pads_on_the_right() -> None:
    batch = ResponseCollator(pad_token_id=9)(
        [{"input_ids": [1, 5, 2], "labels": [-100, 5, 2]}, {"input_ids": [1, 2], "labels": [-100, 2]}]
    )
    assert batch["input_ids"].tolist() == [[1, 5, 2], [1, 2, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["labels"].tolist() == [[-100, 5, 2], [-100, 2, -100]]
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}


def test_padding_falls_back_to_eos() -> None:
    tokenizer = tiny_tokenizer()
    assert padding_id(tokenizer) == 0
    tokenizer.pad_token = None
    assert padding_id(tokenizer) == tokenizer.eos_token_id
    tokenizer.eos_token = None
    with pytest.raises(OptionError, match="neither a padding nor an EOS token"):
        padding_id(tokenizer)


def test_encoder_decoders_are_refused() -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(vocab_size=8, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, decoder_start_token_id=0)
    with pytest.raises(OptionError, match=r"The probe needs a decoder .* T5ForConditionalGeneration \('t5'\)"):
        require_causal_lm(T5ForConditionalGeneration(config), "The probe")
    with pytest.raises(OptionError, match="needs a transformers model such as .* got Linear"):
        require_causal_lm(torch.nn.Linear(2, 2), "The probe")
