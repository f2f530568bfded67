"""A toy classification task in files: a random BERT, a word-level tokenizer, and sentences with a colour in them."""

import csv
import itertools
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

COLOURS = {"red": "warm", "orange": "warm", "blue": "cold", "green": "cold", "grey": "none", "black": "none"}
THINGS = ("sky", "house", "car", "dress", "door")
ENDS = ("today", "again", "there", "indeed")
TEXTS = [
    (f"the {thing} is {colour} {end}", COLOURS[colour])
    for thing, colour, end in itertools.product(THINGS, COLOURS, ENDS)
]


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "is", *THINGS, *COLOURS, *ENDS, "unused"]
    tokenizer = Tokenizer(models.WordLevel({name: number for number, name in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


def save_encoder(folder: Path) -> Path:
    """A BERT of 2 layers of width 16 with 2 heads."""
    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=16, pad_token_id=0, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_texts(folder: Path) -> tuple[Path, Path]:
    """Files with 90 training texts and 30 test texts."""
    folder.mkdir(parents=True, exist_ok=True)
    order = torch.randperm(len(TEXTS), generator=torch.Generator().manual_seed(0)).tolist()
    files = folder / "train.csv", folder / "test.csv"
    for file, numbers in zip(files, (order[30:], order[:30]), strict=True):
        with file.open("w", encoding="utf-8", newline="") as handle:
            writer = csv.writer(handle)
            writer.writerow(["text", "label"])
            writer.writerows(TEXTS[number] for number in numbers)
    return files
