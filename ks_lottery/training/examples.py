"""Sentence pairs as tokenised examples whose loss covers the response alone."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

import torch

from ks_lottery.errors import DataError, OptionError

IGNORED_LABEL = -100


class Example(TypedDict):
    """One tokenised example: prompt, response and EOS; labels are `IGNORED_LABEL` on the prompt."""

    input_ids: list[int]
    labels: list[int]


class ResponseExamples(torch.utils.data.Dataset[Example]):
    """Examples for a stock `Trainer`.

    Attributes:
        examples: the tokenised pairs, in their order.
        dropped: row numbers of the pairs that were too long.
    """

    def __init__(self, examples: Sequence[Example], dropped: Sequence[int] = ()) -> None:
        self.examples = list(examples)
        self.dropped = tuple(dropped)

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        return self.examples[index]


def response_examples(
    pairs: Iterable[tuple[str, str]],
    tokenizer: Any,
    prompt: Callable[[str], str],
    max_length: int | None = None,
    too_long: Literal["error", "drop"] = "error",
) -> ResponseExamples:
    """Tokenise sentence pairs.

    Prompt and response are tokenised apart and joined: in generation the model sees exactly the prompt tokens that it
    was trained on. Nothing is ever cut off, since a cut response would teach the model to stop half way.

    Args:
        pairs: (source, target) sentences.
        tokenizer: a transformers tokenizer with an EOS token.
        prompt: source sentence to prompt, for example a `PromptTemplate`.
        max_length: longest example in tokens, prompt, response and EOS together; no limit if None.
        too_long: "error", or "drop" to leave longer pairs out; their rows are in `dropped`.

    Raises:
        DataError: if there is no pair, a sentence is empty or no text, or a pair is too long; rows count from 0.
        OptionError: if `too_long` is neither, or the tokenizer has no EOS token.
    """
    if too_long not in ("error", "drop"):
        raise OptionError(f"too_long={too_long!r}: must be 'error' or 'drop'.")
    rows = [_checked(row, pair) for row, pair in enumerate(pairs)]
    if not rows:
        raise DataError("The data set has no sentence pairs. Check the file or the split it was read from.")
    prompts = encode_prompts(tokenizer, [prompt(source) for source, _ in rows])
    responses = encode_responses(tokenizer, [target for _, target in rows])
    examples, dropped = [], []
    for row, (before, after) in enumerate(zip(prompts, responses, strict=True)):
        if max_length is not None and len(before) + len(after) > max_length:
            if too_long == "error":
                raise DataError(
                    f"Row {row} has {len(before)} prompt and {len(after)} response tokens, more than "
                    f"max_length={max_length}: {rows[row][0][:60]!r}. Raise max_length, or leave such rows out with "
                    "too_long='drop'."
                )
            dropped.append(row)
            continue
        examples.append(Example(input_ids=before + after, labels=[IGNORED_LABEL] * len(before) + after))
    if not examples:
        raise DataError(f"All {len(rows)} sentence pairs are longer than max_length={max_length} tokens. Raise it.")
    return ResponseExamples(examples, dropped)


def encode_prompts(tokenizer: Any, prompts: Sequence[str]) -> list[list[int]]:
    """Token ids of prompts, as training and generation both use them.

    Special tokens are what the tokenizer adds by itself (usually BOS), except that an EOS at the end is left out: a
    prompt is to be continued.
    """
    encoded = tokenizer(list(prompts), add_special_tokens=True)["input_ids"]
    return [list(ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids) for ids in encoded]


def encode_responses(tokenizer: Any, responses: Sequence[str]) -> list[list[int]]:
    """Token ids of responses, each followed by EOS.

    Raises:
        OptionError: if the tokenizer has no EOS token.
    """
    if tokenizer.eos_token_id is None:
        raise OptionError(
            "The tokenizer has no EOS token, so the model could never learn to stop. "
            'Set tokenizer.eos_token to the one the model was trained with, for example "</s>".'
        )
    encoded = tokenizer(list(responses), add_special_tokens=False)["input_ids"]
    return [[*ids, tokenizer.eos_token_id] for ids in encoded]


def padding_id(tokenizer: Any) -> int:
    """Id that fills a batch up; EOS where the tokenizer has no padding token. It is masked wherever it stands.

    Raises:
        OptionError: if the tokenizer has neither.
    """
    for token_id in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token_id is not None:
            return int(token_id)
    raise OptionError('The tokenizer has neither a padding nor an EOS token. Set tokenizer.pad_token = "<pad>".')


@dataclass(frozen=True)
class ResponseCollator:
    """Pads examples on the right to the longest of the batch.

    Attributes:
        pad_token_id: fills `input_ids`; attention mask 0 and label -100 keep it out of the loss and its gradient.
    """

    pad_token_id: int

    def __call__(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """A batch: `input_ids`, `attention_mask` and `labels`, each [batch, longest] int64."""
        longest = max(len(example["input_ids"]) for example in examples)
        batch = {
            "input_ids": torch.full((len(examples), longest), self.pad_token_id),
            "attention_mask": torch.zeros((len(examples), longest), dtype=torch.int64),
            "labels": torch.full((len(examples), longest), IGNORED_LABEL),
        }
        for row, example in enumerate(examples):
            length = len(example["input_ids"])
            batch["input_ids"][row, :length] = torch.tensor(example["input_ids"])
            batch["attention_mask"][row, :length] = 1
            batch["labels"][row, :length] = torch.tensor(example["labels"])
        return batch


def _checked(row: int, pair: tuple[str, str]) -> tuple[str, str]:
    try:
        source, target = pair
    except (TypeError, ValueError) as error:
        raise DataError(f"Row {row} is not a (source, target) pair: {pair!r}.") from error
    for which, sentence in (("source", source), ("target", target)):
        if not isinstance(sentence, str) or not sentence.strip():
            raise DataError(f"Row {row}: the {which} sentence is empty or no text: {sentence!r}. Remove the row.")
    return source, target
