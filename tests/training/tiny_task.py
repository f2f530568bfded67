"""A toy translation task: a handful of sentences, and a word-level tokenizer that keeps every character."""

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from ks_lottery.training.examples import ResponseExamples, response_examples
from ks_lottery.training.prompts import PromptTemplate

PAIRS = [
    ("the cat sleeps .", "die Katze schläft ."),
    ("the dog sleeps .", "der Hund schläft ."),
    ("the cat eats .", "die Katze frisst ."),
    ("the dog eats .", "der Hund frisst ."),
    ("a cat runs .", "eine Katze läuft ."),
    ("a dog runs .", "ein Hund läuft ."),
    ("the dog runs .", "der Hund läuft ."),
    ("a cat eats .", "eine Katze frisst ."),
]
PROMPT = PromptTemplate("instruction", "English", "German")
_PIECES = Regex(r" ?[^\s]+|\s")
_UNUSED = [f"unused{number}" for number in range(12)]


def tiny_tokenizer(bos: bool = True, eos_in_prompt: bool = False) -> PreTrainedTokenizerFast:
    """Pieces are words with their leading space, and single white space; ids 0 to 3 are pad, bos, eos, unk."""
    splitter = pre_tokenizers.Split(_PIECES, behavior="isolated")
    texts = [PROMPT(source) + target for source, target in PAIRS] + [target for _, target in PAIRS]
    pieces = sorted({piece for text in texts for piece, _ in splitter.pre_tokenize_str(text)})
    names = ["<pad>", "<s>", "</s>", "<unk>", *pieces, " ", *_UNUSED]
    tokenizer = Tokenizer(models.WordLevel({name: number for number, name in enumerate(names)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.Fuse()
    parts = (["<s>"] if bos else []) + ["$A"] + (["</s>"] if eos_in_prompt else [])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=" ".join(parts), special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def tiny_examples(tokenizer: PreTrainedTokenizerFast | None = None) -> ResponseExamples:
    return response_examples(PAIRS, tokenizer or tiny_tokenizer(), PROMPT)
