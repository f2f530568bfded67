"""The setting of a study, read from YAML: all that decides its numbers."""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from ks_lottery.errors import OptionError

SOURCES = ("tatoeba", "embedded")


@dataclass(frozen=True)
class Setting:
    """All that decides the numbers of a study.

    Attributes:
        directions: name to the source of its sentences, tatoeba or embedded; the language follows the last hyphen.
        parts: which parts of the study are made; see `plan.PARTS`.
        methods: of the main table, by name.
        brief_methods: of the directions that are only reported beside (`brief`).
        brief: directions that have the brief table alone.
        tuned_on: the direction on whose first seed learning rates are tried.
        rates: learning rates to try, the same number for every method; by kind of method, and of rows by their number.
        seeds: replicates; each draws other training pairs, in another order.
        model: folder of the base model; the embedded one if empty.
        tatoeba: folder with the Tatoeba zips.
        prompt: of the main table: a name, or a text with {source}.
        paraphrases: other prompts, by name.
        rows: how many rows a ticket of fixed size has.
        alphas: levels of the paper's rule.
        train_pairs: to tune on.
        epochs: passes over them.
        batch_size: pairs of a step.
        adam_beta2: of every training, unless a part varies it.
        dev_sentences: on which learning rates are chosen.
        test_sentences: that are scored.
        certificate_sentences: of those, on which predictions are compared.
        max_new_tokens: limit of a translation.
        generation_batch: prompts at once.
    """

    directions: dict[str, str]
    parts: tuple[str, ...]
    methods: tuple[str, ...]
    tuned_on: str
    rates: dict[str, tuple[float, ...]]
    brief: tuple[str, ...] = ()
    brief_methods: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    model: str = ""
    tatoeba: str = ""
    prompt: str = "instruction"
    paraphrases: dict[str, str] = field(default_factory=dict)
    rows: int = 18
    alphas: tuple[float, ...] = (0.05, 0.5, 0.95)
    train_pairs: int = 3200
    epochs: int = 1
    batch_size: int = 16
    adam_beta2: float = 0.95
    dev_sentences: int = 200
    test_sentences: int = 1000
    certificate_sentences: int = 500
    max_new_tokens: int = 32
    generation_batch: int = 128

    def __post_init__(self) -> None:
        for name, source in self.directions.items():
            if source not in SOURCES:
                raise OptionError(f"directions: {name}: {source!r} must be one of {', '.join(SOURCES)}.")
        for name in (self.tuned_on, *self.brief):
            if name not in self.directions:
                raise OptionError(f"{name!r} is none of the directions: {', '.join(self.directions)}.")
        if len({len(tries) for tries in self.rates.values()}) != 1:
            counts = ", ".join(f"{name} {len(tries)}" for name, tries in self.rates.items())
            raise OptionError(f"Every kind of method has as many learning rates to try as the others, not {counts}.")

    @property
    def tries(self) -> int:
        """Learning rates that each method tries."""
        return len(next(iter(self.rates.values())))

    @property
    def full_directions(self) -> tuple[str, ...]:
        """The directions that have every part."""
        return tuple(name for name in self.directions if name not in self.brief)

    def rates_of_rows(self, rows: int) -> tuple[float, ...]:
        """Learning rates to try for so many token rows."""
        return self.rates["one_row" if rows <= 2 else "few_rows" if rows <= 200 else "many_rows"]

    def training(self) -> dict[str, Any]:
        """What decides every training, as JSON values."""
        names = ("model", "train_pairs", "epochs", "batch_size", "adam_beta2", "prompt")
        return {name: getattr(self, name) for name in names}

    def decoding(self) -> dict[str, Any]:
        """What decides every score, as JSON values."""
        names = ("test_sentences", "certificate_sentences", "max_new_tokens")
        return {name: getattr(self, name) for name in names}


def read_setting(path: Path, **changes: Any) -> Setting:
    """Read a setting.

    Args:
        path: YAML file.
        changes: fields that replace those of the file.

    Raises:
        OptionError: if there is no such file, it is no mapping, a field is unknown or missing, or a value is wrong.
    """
    if not path.is_file():
        raise OptionError(f"There is no study setting {str(path)!r}. The study's own is recipes/configs/study.yaml.")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise OptionError(f"{str(path)!r} is no YAML: {error}") from error
    if not isinstance(values, dict):
        raise OptionError(f"{str(path)!r} must hold the fields of a study, one `name: value` a line.")
    known = {entry.name for entry in fields(Setting)}
    if unknown := sorted(set(values) - known):
        raise OptionError(f"{str(path)!r} has the unknown field {unknown[0]!r}. Known: {', '.join(sorted(known))}.")
    try:
        return Setting(**{name: _frozen(value) for name, value in {**values, **changes}.items()})
    except TypeError as error:
        raise OptionError(f"{str(path)!r}: {error}") from error


def described(setting: Setting) -> dict[str, Any]:
    """A setting as JSON values."""
    content: dict[str, Any] = json.loads(json.dumps(asdict(setting)))
    return content


def _frozen(value: Any) -> Any:
    """Lists as tuples; in mappings too, where YAML may have read `1e-3` as a text."""
    if isinstance(value, list):
        return tuple(_number(entry) for entry in value)
    return {name: _frozen(entry) for name, entry in value.items()} if isinstance(value, dict) else value


def _number(value: Any) -> Any:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
