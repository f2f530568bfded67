"""Pretraining documents: sentence pairs in several layouts, packed into blocks of tokens."""

import random
from collections.abc import Mapping, Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

from pocket.splits import Pair

LANGUAGE_NAMES = {"de": "German", "fr": "French", "es": "Spanish"}
LANGUAGE_WEIGHTS = {"de": 0.54, "fr": 0.23, "es": 0.23}
# Share of the documents per layout. No layout is an instruction.
LAYOUTS: dict[str, tuple[str, float]] = {
    "named": ("English: {source}\n{name}: {target}\n", 0.26),
    "equals": ("{source} = {target}\n", 0.22),
    "tab": ("{source}\t{target}\n", 0.18),
    "heading": ("### English: {source}\n### {name}: {target}\n", 0.18),
    "reversed": ("{name}: {target}\nEnglish: {source}\n", 0.06),
    "source only": ("{source}\n", 0.02),
    "target only": ("{target}\n", 0.04),
    "comment": ("# {source}\n{target}\n", 0.04),
}
GRAMMAR_SHARE = 0.18  # of the pairs
OPEN_END_SHARE = 1 / 3  # of the documents; they end without a newline
SHORTEST, LONGEST = 3, 20  # pairs per document


def few_shot(layout: str, language: str, shots: Sequence[Pair], source: str) -> str:
    """A prompt of the named layout (`named` or `equals`) that ends where the translation of `source` begins."""
    template, name = LAYOUTS[layout][0], LANGUAGE_NAMES[language]
    lines = [template.format(name=name, source=pair.source, target=pair.target) for pair in shots]
    return "".join(lines) + template.format(name=name, source=source, target="\0").split("\0")[0].rstrip(" ")


class Documents:
    """An endless, repeatable stream of documents.

    Args:
        everyday: per language the everyday pairs; a language without any draws from `grammar` alone.
        grammar: per language the generated pairs.
        seed: with the number of a chapter it fixes the documents of that chapter.
    """

    def __init__(
        self, everyday: Mapping[str, Sequence[Pair]], grammar: Mapping[str, Sequence[Pair]], seed: int
    ) -> None:
        self._everyday = everyday
        self._grammar = grammar
        self._seed = seed

    def sizes(self) -> dict[str, dict[str, int]]:
        """Number of pairs per corpus and language."""
        corpora = {"everyday": self._everyday, "grammar": self._grammar}
        return {name: {key: len(pairs) for key, pairs in corpus.items()} for name, corpus in corpora.items()}

    def blocks(self, chapter: int, number: int, length: int, tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
        """The blocks of one chapter; the same arguments always give the same blocks.

        Args:
            chapter: which part of the stream.
            number: blocks per chapter.
            length: tokens per block; the last token of a block is the first of the next.
            tokenizer: adds bos in front of a document; eos is put behind it.

        Returns:
            [number, length] int64: token ids.
        """
        rng = random.Random(f"{self._seed}/{chapter}")
        needed = number * (length - 1) + 1
        tokens: list[int] = []
        while len(tokens) < needed:
            texts = [self.document(rng) for _ in range(256)]
            for encoding in tokenizer.backend_tokenizer.encode_batch(texts):
                tokens += [*encoding.ids, tokenizer.eos_token_id]
        stream = np.array(tokens[:needed], dtype=np.int64)
        starts = np.arange(number)[:, None] * (length - 1)
        return stream[starts + np.arange(length)[None, :]]

    def document(self, rng: random.Random) -> str:
        """Draws one document: pairs of one language in one layout."""
        language = rng.choices(list(LANGUAGE_WEIGHTS), list(LANGUAGE_WEIGHTS.values()))[0]
        template = rng.choices([t for t, _ in LAYOUTS.values()], [w for _, w in LAYOUTS.values()])[0]
        everyday, grammar = self._everyday.get(language, ()), self._grammar[language]
        lines = []
        for _ in range(rng.randint(SHORTEST, LONGEST)):
            pair = rng.choice(grammar if not everyday or rng.random() < GRAMMAR_SHARE else everyday)
            lines.append(template.format(name=LANGUAGE_NAMES[language], source=pair.source, target=pair.target))
        text = "".join(lines)
        return text.removesuffix("\n") if rng.random() < OPEN_END_SHARE else text
