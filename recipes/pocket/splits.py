"""Splits of sentence pairs in which no sentence, on either side, occurs in two splits."""

import hashlib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

SPLITS = ("pretrain", "train", "dev", "test")
Node = tuple[str, str]


class Pair(NamedTuple):
    """One English sentence and its translation."""

    source: str
    target: str


def normalise(sentence: str) -> str:
    """Identity of a sentence: NFC, case-folded, single spaces, no punctuation at either end."""
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", sentence).casefold())
    return " ".join(folded.split()).strip(" .!?…¡¿\"'«»“”„")


def split_pairs(
    pairs: Iterable[Pair],
    fractions: Mapping[str, float],
    salt: str = "",
    max_component: int | None = None,
    overflow: str = "pretrain",
) -> dict[str, list[Pair]]:
    """Splits pairs by connected component of the bipartite graph of source and target sentences.

    Args:
        pairs: English sentences with their translations, in any order.
        fractions: share of the components per split name; the shares sum to 1.
        salt: another salt gives another assignment.
        max_component: components with more sentences than this go to `overflow`, whatever their hash says.
        overflow: the split of the components above `max_component`.

    Returns:
        Per split name its pairs, in the order they came.

    Raises:
        ValueError: if the fractions are negative, do not sum to 1, or `overflow` is not among them.

    Cost:
        O(pairs) time and memory.
    """
    return split_languages({"target": list(pairs)}, fractions, salt, max_component, overflow)["target"]


def split_languages(
    pairs_by_language: Mapping[str, Sequence[Pair]],
    fractions: Mapping[str, float],
    salt: str = "",
    max_component: int | None = None,
    overflow: str = "pretrain",
) -> dict[str, dict[str, list[Pair]]]:
    """Splits the pairs of several languages by components over all of them together.

    The English sentence is one node for all languages, so a sentence held out in one language is held out with its
    translations into every other. The assignment depends on the sets of sentences only, never on their order.

    Args:
        pairs_by_language: per target language its pairs.
        fractions: as in `split_pairs`.
        salt: as in `split_pairs`.
        max_component: as in `split_pairs`.
        overflow: as in `split_pairs`.

    Returns:
        Per language, per split name, its pairs in the order they came.

    Raises:
        ValueError: as `split_pairs`.
    """
    _check_fractions(fractions, overflow)
    components = _Components()
    for language, pairs in pairs_by_language.items():
        for pair in pairs:
            components.join(*nodes(language, pair))
    assigned = components.assign(fractions, salt, max_component, overflow)
    result: dict[str, dict[str, list[Pair]]] = {}
    for language, pairs in pairs_by_language.items():
        result[language] = {name: [] for name in fractions}
        for pair in pairs:
            result[language][assigned[components.root(nodes(language, pair)[0])]].append(pair)
    return result


def nodes(language: str, pair: Pair) -> tuple[Node, Node]:
    """The two sentences of a pair as nodes of the graph: (language, normalised sentence)."""
    return ("english", normalise(pair.source)), (language, normalise(pair.target))


def _check_fractions(fractions: Mapping[str, float], overflow: str) -> None:
    total = sum(fractions.values())
    if min(fractions.values(), default=-1) < 0 or abs(total - 1) > 1e-9:
        raise ValueError(f"Split fractions must be non-negative and sum to 1, but {dict(fractions)} sums to {total}.")
    if overflow not in fractions:
        raise ValueError(f"The overflow split {overflow!r} is not among the splits {list(fractions)}.")


class _Components:
    """Disjoint sets of sentences (union by size, path halving)."""

    def __init__(self) -> None:
        self._parent: dict[Node, Node] = {}
        self._size: dict[Node, int] = {}

    def root(self, node: Node) -> Node:
        parent = self._parent
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    def join(self, first: Node, second: Node) -> None:
        for node in (first, second):
            if node not in self._parent:
                self._parent[node] = node
                self._size[node] = 1
        large, small = self.root(first), self.root(second)
        if large == small:
            return
        if self._size[large] < self._size[small]:
            large, small = small, large
        self._parent[small] = large
        self._size[large] += self._size[small]

    def assign(
        self, fractions: Mapping[str, float], salt: str, max_component: int | None, overflow: str
    ) -> dict[Node, str]:
        smallest: dict[Node, str] = {}
        for node in self._parent:
            if node[0] == "english":
                root = self.root(node)
                smallest[root] = min(smallest.get(root, node[1]), node[1])
        return {
            root: overflow
            if max_component is not None and self._size[root] > max_component
            else _split_of(sentence, fractions, salt)
            for root, sentence in smallest.items()
        }


def _split_of(sentence: str, fractions: Mapping[str, float], salt: str) -> str:
    digest = hashlib.sha256(f"{salt}\n{sentence}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    for name, fraction in fractions.items():
        if position < fraction:
            return name
        position -= fraction
    return list(fractions)[-1]
