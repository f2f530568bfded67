"""A byte-fallback BPE tokenizer that gives back every text exactly and keeps the newline a piece of its own."""

import json
from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

SPECIAL = ("<pad>", "<s>", "</s>")
_BYTES = tuple(f"<0x{value:02X}>" for value in range(256))
_PIECES = Regex(r"\n|\t| ?\p{L}+'?| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s")


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Trains the tokenizer.

    Pieces never cross a word or a line; a space belongs to the word after it. Ids: pad 0, bos 1, eos 2, then the 256
    bytes that stand in for characters the texts did not have, then the letters and the merges.

    Args:
        texts: training text, with newlines.
        vocab_size: number of pieces, special tokens and bytes included.

    Returns:
        A tokenizer that adds bos in front and pads on the left.
    """
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Split(_PIECES, "isolated")
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(SPECIAL) - len(_BYTES),
        initial_alphabet=["\n", "\t", " ", "#", "=", ":"],
        limit_alphabet=200,
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    learned = json.loads(learner.to_str())["model"]
    pieces = [*SPECIAL, *_BYTES, *sorted(learned["vocab"], key=learned["vocab"].get)]
    merges = [tuple(merge) for merge in learned["merges"]]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(_PIECES, "isolated")
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(piece, special=True, normalized=False) for piece in SPECIAL])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", vocabulary["<s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        padding_side="left",
        model_max_length=256,
        clean_up_tokenization_spaces=False,
    )
