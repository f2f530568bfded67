"""Prompts of the translation task: the only place where their wording stands."""

import difflib
import string
from dataclasses import dataclass, field

from ks_lottery.errors import OptionError, UnknownNameError

PROMPTS: dict[str, str] = {
    "alpaca": (
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nTranslate the following sentence from {source_language} to {target_language}.\n\n"
        "### Input:\n{source}\n\n### Response:\n"
    ),
    "instruction": (
        "### Instruction:\nTranslate from {source_language} to {target_language}.\n"
        "### Input:\n{source}\n### Response:\n"
    ),
}
_FIELDS = ("source", "source_language", "target_language")


@dataclass(frozen=True)
class PromptTemplate:
    """Turns a source sentence into the text that the model continues.

    Both named templates end with a line break, so that the response is a line of its own and training and generation
    cut the text at the same place.

    Example:
        `PromptTemplate("alpaca", "English", "German")("The cat sleeps.")`

    Raises:
        UnknownNameError: if `template` is neither a known name nor a text with fields.
        OptionError: if the text lacks `{source}`, has an unknown field, or needs a language that is not given.

    Source:
        The Alpaca wording is what KS-Lottery's predecessor code uses; the paper's own prompt is not published.
    """

    template: str = field(
        default="alpaca",
        metadata={
            "help": "alpaca, instruction, or a text with {source} and, if wanted, {source_language} and "
            "{target_language}; write a literal brace twice."
        },
    )
    source_language: str | None = field(
        default=None, metadata={"help": "Name of the source language, as the prompt spells it: English."}
    )
    target_language: str | None = field(
        default=None, metadata={"help": "Name of the target language, as the prompt spells it: German."}
    )

    def __post_init__(self) -> None:
        used = _fields_of(self.text)
        unknown = sorted(used - set(_FIELDS))
        if unknown:
            raise OptionError(
                f"The prompt {self.text!r} has the unknown field {{{unknown[0]}}}. "
                f"Known: {', '.join(f'{{{name}}}' for name in _FIELDS)}; write a literal brace twice."
            )
        if "source" not in used:
            raise OptionError(
                f"The prompt {self.text!r} has no {{source}}, so the model would not see the sentence. "
                "Put {source} where it belongs."
            )
        for name in ("source_language", "target_language"):
            if name in used and not getattr(self, name):
                raise OptionError(f'The prompt {self.text!r} needs {name}: pass for example {name}="German".')

    @property
    def text(self) -> str:
        """The template's wording, with its fields."""
        if self.template in PROMPTS or "{" in self.template:
            return PROMPTS.get(self.template, self.template)
        close = difflib.get_close_matches(self.template, PROMPTS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise UnknownNameError(
            f"Unknown prompt {self.template!r}.{hint} Available: {', '.join(sorted(PROMPTS))}; "
            "or give a text with {source}."
        )

    def __call__(self, source: str) -> str:
        """The prompt of one sentence."""
        return self.text.format(
            source=source, source_language=self.source_language, target_language=self.target_language
        )


def _fields_of(text: str) -> set[str]:
    try:
        return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
    except ValueError as error:
        raise OptionError(f"The prompt {text!r} cannot be read ({error}); write a literal brace twice.") from error
