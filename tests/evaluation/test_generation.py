import copy

import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration

from ks_lottery.errors import DataError, OptionError
from ks_lottery.evaluation.generation import Continuation, generate_continuations
from ks_lottery.training.examples import encode_prompts
from tests.tiny_models import tiny_llama
from tests.training.tiny_task import PAIRS, PROMPT

PROMPTS = [PROMPT(source) for source, _ in PAIRS]


def greedy_by_hand(model, tokenizer, prompt: str, steps: int) -> list[int]:
    ids = encode_prompts(tokenizer, [prompt])[0]
    start = len(ids)
    for _ in range(steps):
        ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == tokenizer.eos_token_id:
            break
    return ids[start:]


@pytest.mark.parametrize(
    ("text", "first", "whole"),
    [
        ("der Hund", "der Hund", "der Hund"),
        ("\n \n  der Hund \r\nund mehr\n", "der Hund", "der Hund und mehr"),
        (" der\tHund\n\n### x", "der\tHund", "der Hund ### x"),
        ("", "", ""),
        ("\n\n", "", ""),
    ],
)
def test_first_line_and_whole(text: str, first: str, whole: str) -> None:
    continuation = Continuation(text, stopped=True, num_tokens=1)
    assert (continuation.first_line, continuation.whole) == (first, whole)


def test_a_trained_model_translates_and_stops(translator, tokenizer) -> None:
    found = generate_continuations(translator, tokenizer, PROMPTS, max_new_tokens=8)
    assert [one.text for one in found] == [target for _, target in PAIRS]
    assert all(one.stopped and one.num_tokens == 5 for one in found)
    cut = generate_continuations(translator, tokenizer, PROMPTS, max_new_tokens=4)
    assert [one.text for one in cut] == [target for _, target in PAIRS]
    assert not any(one.stopped for one in cut), "the EOS would have been the fifth token"


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_batches_of_padded_prompts_equal_greedy_search_by_hand(tokenizer, batch_size: int) -> None:
    model = tiny_llama(seed=3, vocabulary=len(tokenizer)).eval()
    prompts = [*PROMPTS, "the cat", "a dog runs . \n"]
    found = generate_continuations(model, tokenizer, prompts, max_new_tokens=6, batch_size=batch_size)
    for prompt, one in zip(prompts, found, strict=True):
        expected = greedy_by_hand(model, tokenizer, prompt, 6)
        assert one.text == tokenizer.decode(expected, skip_special_tokens=True)
        assert one.num_tokens == len(expected)


def test_the_models_own_generation_settings_take_no_part(translator, tokenizer) -> None:
    plain = generate_continuations(translator, tokenizer, PROMPTS, max_new_tokens=8)
    model = copy.deepcopy(translator).train()
    own = model.generation_config
    own.do_sample, own.temperature, own.repetition_penalty, own.min_new_tokens = True, 5.0, 3.0, 8
    model.config.use_cache = False
    assert generate_continuations(model, tokenizer, PROMPTS, max_new_tokens=8) == plain
    assert model.generation_config is own
    assert model.training
    assert tokenizer.padding_side == "right"


def test_the_models_own_end_tokens_stop_too(translator, tokenizer) -> None:
    model = copy.deepcopy(translator)
    full_stop = tokenizer(" .", add_special_tokens=False)["input_ids"][0]
    model.generation_config.eos_token_id = [full_stop]
    found = generate_continuations(model, tokenizer, PROMPTS[:1], max_new_tokens=8)
    assert found == [Continuation("die Katze schläft", stopped=True, num_tokens=4)]


def test_beam_search(translator, tokenizer) -> None:
    found = generate_continuations(translator, tokenizer, PROMPTS, max_new_tokens=8, num_beams=3)
    assert [one.text for one in found] == [target for _, target in PAIRS]


def test_a_peft_model_generates_without_its_own_settings(translator, tokenizer) -> None:
    from peft import LoraConfig, get_peft_model

    plain = generate_continuations(translator, tokenizer, PROMPTS, max_new_tokens=8)
    base = copy.deepcopy(translator)
    base.generation_config.repetition_penalty = 3.0
    own = base.generation_config
    model = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"]))
    assert generate_continuations(model, tokenizer, PROMPTS, max_new_tokens=8) == plain
    assert base.generation_config is own
    assert model.generation_config is own


def test_no_prompts_no_continuations(translator, tokenizer) -> None:
    assert generate_continuations(translator, tokenizer, []) == []


def test_errors(translator, tokenizer) -> None:
    with pytest.raises(OptionError, match="max_new_tokens=0"):
        generate_continuations(translator, tokenizer, PROMPTS, max_new_tokens=0)
    with pytest.raises(OptionError, match="num_beams=0"):
        generate_continuations(translator, tokenizer, PROMPTS, num_beams=0)
    with pytest.raises(DataError, match=r"Prompt 0 has \d+ tokens; with max_new_tokens=60 .* model's 64 positions"):
        generate_continuations(translator, tokenizer, PROMPTS, max_new_tokens=60)
    config = T5Config(vocab_size=8, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, decoder_start_token_id=0)
    with pytest.raises(OptionError, match="Generation needs a decoder"):
        generate_continuations(T5ForConditionalGeneration(config), tokenizer, PROMPTS)


def test_empty_prompts_are_named(translator) -> None:
    from tests.training.tiny_task import tiny_tokenizer

    with pytest.raises(DataError, match="Prompt 1 is empty"):
        generate_continuations(translator, tiny_tokenizer(bos=False), ["the cat", ""], max_new_tokens=2)
