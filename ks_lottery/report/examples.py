"""Sentences of a test set with what several runs made of them, as values that are also JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from ks_lottery.errors import DataError

if TYPE_CHECKING:
    from ks_lottery.evaluation.translation import TranslationScores

_FORMAT = 1


@dataclass(frozen=True)
class Written:
    """What a model wrote.

    Attributes:
        text: all of it.
        stopped: whether it ended by itself.
    """

    text: str
    stopped: bool

    @property
    def parts(self) -> tuple[str, str, str]:
        """What stands before the first line that is not blank, that line, and the rest; together the text."""
        begin = 0
        for line in self.text.split("\n"):
            if line.strip():
                start = begin + len(line) - len(line.lstrip())
                end = begin + len(line.rstrip())
                return self.text[:start], self.text[start:end], self.text[end:]
            begin += len(line) + 1
        return self.text, "", ""


@dataclass(frozen=True)
class TranslationExample:
    """One test sentence.

    Attributes:
        source: what was to be translated.
        references: accepted translations.
        written: by the name of the run in the score table.
    """

    source: str
    references: Sequence[str]
    written: Mapping[str, Written]


def evenly_chosen(
    sources: Sequence[str], scores: "Mapping[str, TranslationScores]", number: int = 24
) -> list[TranslationExample]:
    """Examples from all over a test set, chosen by place alone: the first, and others at equal distances.

    Args:
        sources: [n] sentences to translate.
        scores: by the name of a run: its scores on these sentences, in this order.
        number: how many at most.

    Raises:
        DataError: if a run has another number of sentences.
    """
    for name, one in scores.items():
        if len(one.outputs) != len(sources):
            raise DataError(
                f"{name!r} has {len(one.outputs):,} outputs for {len(sources):,} sources. Give the sources of its test "
                "set, in the same order."
            )
    step = max(1, -(-len(sources) // max(1, number)))
    return [
        TranslationExample(
            sources[place],
            next((one.outputs[place].references for one in scores.values()), ()),
            {
                name: Written(one.outputs[place].continuation.text, one.outputs[place].continuation.stopped)
                for name, one in scores.items()
            },
        )
        for place in range(0, len(sources), step)
    ]


def examples_to_bytes(examples: Sequence[TranslationExample]) -> bytes:
    """A JSON file that `examples_from_bytes` reads back."""
    data = {"format": _FORMAT, "examples": [asdict(example) for example in examples]}
    return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode()


def examples_from_bytes(content: bytes) -> list[TranslationExample]:
    """Read what `examples_to_bytes` wrote.

    Raises:
        DataError: if it is damaged or of an unknown format.
    """
    try:
        data = json.loads(content)
        if data["format"] != _FORMAT:
            raise ValueError(f"format {data['format']!r}, where this version of ks_lottery reads {_FORMAT}")
        return [
            TranslationExample(
                entry["source"], tuple(entry["references"]),
                {name: Written(one["text"], one["stopped"]) for name, one in entry["written"].items()},
            )
            for entry in data["examples"]
        ]  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"The examples cannot be read ({error!r}). Run what made the report again.") from error
