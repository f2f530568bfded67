"""Continuations of prompts, by greedy or beam search, and what counts as their first line."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig

from ks_lottery.errors import DataError, OptionError
from ks_lottery.evaluation.inference import inference_mode, run_batches
from ks_lottery.training.causal_lm import require_causal_lm
from ks_lottery.training.examples import encode_prompts, padding_id


@dataclass(frozen=True)
class Continuation:
    """What a model wrote after a prompt.

    Attributes:
        text: all of it, special tokens left out.
        stopped: whether it ended with EOS rather than at the token limit.
        num_tokens: generated tokens, the EOS included.
    """

    text: str
    stopped: bool
    num_tokens: int

    @property
    def whole(self) -> str:
        """All of the text on one line: every run of white space, line breaks included, is one space."""
        return " ".join(self.text.split())

    @property
    def first_line(self) -> str:
        """The first line that is not blank, without white space at its ends; empty if there is none.

        Scoring it takes out most of what stopping is worth: what a model writes after its translation does not count.
        """
        return next((line.strip() for line in self.text.split("\n") if line.strip()), "")


def generate_continuations(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    max_new_tokens: int = 256,
    num_beams: int = 1,
    batch_size: int = 16,
    progress: bool = True,
) -> list[Continuation]:
    """Continue prompts deterministically.

    The model's own `generation_config` takes no part, except for its EOS ids: a sampling temperature or a repetition
    penalty there would make runs incomparable. Prompts are tokenised as in training and padded on the left. With
    several processes all must call this; each generates a part and gets everything.

    Args:
        model: causal language model, PEFT or plain, on its device.
        tokenizer: its tokenizer.
        prompts: texts to continue.
        max_new_tokens: limit per continuation, EOS included.
        num_beams: 1 is greedy search.
        batch_size: prompts per batch.
        progress: show a bar when it takes longer than two seconds.

    Returns:
        one continuation per prompt, in the order of the prompts.

    Raises:
        OptionError: if an option is below 1, the model is no decoder, or the tokenizer has neither padding nor EOS.
        DataError: if a prompt is empty, or leaves no room for `max_new_tokens`.
    """
    require_causal_lm(model, "Generation")
    for name, value in (("max_new_tokens", max_new_tokens), ("num_beams", num_beams)):
        if value < 1:
            raise OptionError(f"{name}={value}: must be at least 1.")
    encoded = encode_prompts(tokenizer, prompts) if prompts else []
    _check_lengths(encoded, max_new_tokens, model.config)
    config = _search(model, tokenizer, max_new_tokens, num_beams)

    def continue_batch(batch: list[list[int]]) -> list[Continuation]:
        inputs = _left_padded(batch, config.pad_token_id, model.device)
        generated = model.generate(**inputs, generation_config=config)[:, inputs["input_ids"].shape[1] :]
        return [_continuation(ids, tokenizer, config.eos_token_id or ()) for ids in generated.tolist()]

    with inference_mode(model), _generation_config(model, config):
        return run_batches(encoded, [len(ids) for ids in encoded], batch_size, continue_batch, "generating", progress)


def _search(model: Any, tokenizer: Any, max_new_tokens: int, num_beams: int) -> GenerationConfig:
    """The whole search: nothing is left for the model's own configuration to fill in."""
    own = getattr(model.generation_config, "eos_token_id", None)
    ends = {tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])} - {None}
    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        num_beams=num_beams,
        do_sample=False,
        pad_token_id=padding_id(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=sorted(ends) or None,
    )


@contextlib.contextmanager
def _generation_config(model: Any, config: GenerationConfig) -> Iterator[None]:
    """Put `config` in the place of the model's own, which would fill in what `config` leaves open."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    holders = [holder for holder in (model, inner) if "generation_config" in vars(holder)]
    kept = [holder.generation_config for holder in holders]
    try:
        for holder in holders:
            holder.generation_config = config
        yield
    finally:
        for holder, own in zip(holders, kept, strict=True):
            holder.generation_config = own


def _left_padded(batch: Sequence[list[int]], pad: int, device: torch.device) -> dict[str, torch.Tensor]:
    longest = max(map(len, batch))
    ids = [[pad] * (longest - len(prompt)) + prompt for prompt in batch]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in batch]
    return {"input_ids": torch.tensor(ids, device=device), "attention_mask": torch.tensor(mask, device=device)}


def _continuation(ids: list[int], tokenizer: Any, ends: Sequence[int]) -> Continuation:
    end = next((place for place, token in enumerate(ids) if token in ends), None)
    kept = ids if end is None else ids[:end]
    text = tokenizer.decode(kept, skip_special_tokens=True)
    return Continuation(text, stopped=end is not None, num_tokens=len(kept) + (end is not None))


def _check_lengths(prompts: Sequence[list[int]], max_new_tokens: int, config: Any) -> None:
    limit = getattr(config.get_text_config(), "max_position_embeddings", None)
    for number, prompt in enumerate(prompts):
        if not prompt:
            raise DataError(f"Prompt {number} is empty, so there is nothing to continue. Remove it.")
        if limit is not None and len(prompt) + max_new_tokens > limit:
            raise DataError(
                f"Prompt {number} has {len(prompt)} tokens; with max_new_tokens={max_new_tokens} that is more than the "
                f"model's {limit} positions. Lower max_new_tokens, or shorten the prompt."
            )
