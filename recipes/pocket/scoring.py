"""How good the pretrained model is: perplexity on held-out pairs and BLEU of its five-shot translations."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import sacrebleu
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pocket.documents import LANGUAGE_NAMES, LAYOUTS, few_shot
from pocket.splits import Pair

# Only ever a prompt of the evaluation: pretraining has no instruction layout.
INSTRUCTION = "### Instruction:\nTranslate from English to {name}.\n### Input:\n{source}\n### Response:\n"
SHOTS = 5
PAIRS_PER_DOCUMENT = 6


@dataclass(frozen=True)
class TranslationScores:
    """BLEU in percent and the share of answers that ended with eos."""

    whole: float
    first_line: float
    stop_rate: float
    sentences: int


def perplexity(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, language: str, pairs: Sequence[Pair]
) -> float:
    """Perplexity per token of held-out pairs, six to a document in the `named` layout."""
    template, loss_sum, tokens = LAYOUTS["named"][0], 0.0, 0
    shuffled = _sample(pairs, len(pairs))
    for start in range(0, len(shuffled), PAIRS_PER_DOCUMENT):
        lines = (
            template.format(name=LANGUAGE_NAMES[language], source=pair.source, target=pair.target)
            for pair in shuffled[start : start + PAIRS_PER_DOCUMENT]
        )
        ids = tokenizer("".join(lines), return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            loss = model(input_ids=ids, labels=ids).loss
        loss_sum += loss.item() * (ids.shape[1] - 1)
        tokens += ids.shape[1] - 1
    return math.exp(loss_sum / tokens)


def five_shot(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    language: str,
    pairs: Sequence[Pair],
    shots: Sequence[Pair],
    sentences: int,
    layout: str = "named",
) -> TranslationScores:
    """Scores greedy translations after five examples in a layout of the pretraining.

    Args:
        model: in evaluation mode.
        tokenizer: of the model.
        language: the target language.
        pairs: held-out pairs; every translation of a sentence is a reference.
        shots: pairs from another split, of which five are drawn once.
        sentences: how many English sentences to translate.
        layout: `named` or `equals`.
    """
    examples = _sample(shots, SHOTS)
    return _score(model, tokenizer, pairs, sentences, lambda source: few_shot(layout, language, examples, source))


def instructed(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    language: str,
    pairs: Sequence[Pair],
    sentences: int,
) -> TranslationScores:
    """Scores greedy answers to an instruction prompt, a layout the pretraining never had."""
    name = LANGUAGE_NAMES[language]
    return _score(model, tokenizer, pairs, sentences, lambda source: INSTRUCTION.format(name=name, source=source))


def _sample(pairs: Sequence[Pair], number: int) -> list[Pair]:
    return random.Random(0).sample(list(pairs), min(number, len(pairs)))


def _score(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[Pair],
    sentences: int,
    prompt_of: Callable[[str], str],
) -> TranslationScores:
    references: dict[str, list[str]] = {}
    for pair in _sample(pairs, len(pairs)):
        references.setdefault(pair.source, []).append(pair.target)
    sources = list(references)[:sentences]
    answers = _generate(model, tokenizer, [prompt_of(source) for source in sources])
    most = max(len(references[source]) for source in sources)
    columns = [[references[s][i] if i < len(references[s]) else None for s in sources] for i in range(most)]
    texts = [text for text, _ in answers]
    whole = [" ".join(text.split()) for text in texts]
    first = [text.lstrip("\n").split("\n")[0].strip() for text in texts]
    return TranslationScores(
        whole=round(sacrebleu.corpus_bleu(whole, columns).score, 1),
        first_line=round(sacrebleu.corpus_bleu(first, columns).score, 1),
        stop_rate=round(sum(stopped for _, stopped in answers) / len(answers), 3),
        sentences=len(sources),
    )


def _generate(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[str], batch_size: int = 50
) -> list[tuple[str, bool]]:
    """Greedy continuations of at most 40 tokens, and whether each ended with eos."""
    answers = []
    for start in range(0, len(prompts), batch_size):
        batch = tokenizer(prompts[start : start + batch_size], return_tensors="pt", padding=True)
        with torch.inference_mode():
            output = model.generate(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                max_new_tokens=40,
                do_sample=False,
            )
        for ids in output[:, batch["input_ids"].shape[1] :].tolist():
            stopped = tokenizer.eos_token_id in ids
            ids = ids[: ids.index(tokenizer.eos_token_id)] if stopped else ids
            answers.append((tokenizer.decode(ids, skip_special_tokens=True), stopped))
    return answers
