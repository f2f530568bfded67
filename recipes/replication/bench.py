"""What all cells of one direction share: the base model, its sentence pairs, prompts, examples and token counts."""

from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from pocket import MODEL_FOLDER
from translation_base import BaseModel
from translation_data import LANGUAGES, DataArguments, Sentence, TranslationData, load_translation_data
from translation_options import ModelArguments
from translation_ticket import UNRELATED, TokenCounts, count_tokens

from ks_lottery.training.examples import (
    ResponseCollator,
    ResponseExamples,
    encode_prompts,
    padding_id,
    response_examples,
)
from ks_lottery.training.prompts import PromptTemplate
from replication.setting import Setting


class Bench:
    """The place where one direction is tuned and tested.

    Args:
        setting: of the study.
        direction: its name.

    Raises:
        DataError: if the pairs cannot be loaded.
        CheckpointError: if the base model cannot be read.
    """

    def __init__(self, setting: Setting, direction: str) -> None:
        self.setting, self.direction = setting, direction
        self.language = direction.rpartition("-")[2]
        self.pretrained = _base(setting.model or str(MODEL_FOLDER))
        self.tokenizer = self.pretrained.tokenizer
        self.collator = ResponseCollator(padding_id(self.tokenizer))
        self.examples = lru_cache(maxsize=None)(self._examples)
        self.counts = lru_cache(maxsize=None)(self._counts)

    @cached_property
    def held_out(self) -> TranslationData:
        """The development and test sentences, the same for every seed."""
        return self._data(seed=0)

    @property
    def dev(self) -> tuple[Sentence, ...]:
        """Sentences on which learning rates are chosen."""
        return self.held_out.dev

    @property
    def test(self) -> tuple[Sentence, ...]:
        """Sentences that are scored."""
        return self.held_out.test

    @cached_property
    def certified(self) -> ResponseExamples:
        """Test sentences with their first reference, on which predictions are compared."""
        pairs = [(sentence.source, sentence.references[0]) for sentence in self.test]
        return response_examples(pairs[: self.setting.certificate_sentences], self.tokenizer, self.prompt())

    def prompt(self, name: str = "") -> PromptTemplate:
        """The study's prompt, or one of its paraphrases."""
        text = self.setting.paraphrases[name] if name else self.setting.prompt
        return PromptTemplate(text, LANGUAGES["en"], LANGUAGES[self.language])

    def base(self, folder: Path | None = None) -> Any:
        """A fresh copy of the base model, or the model of a folder."""
        return self.pretrained.load(folder)

    def _data(self, seed: int) -> TranslationData:
        setting = self.setting
        return load_translation_data(
            DataArguments(
                tatoeba=setting.tatoeba if setting.directions[self.direction] == "tatoeba" else None,
                target_language=self.language,
                train_pairs=setting.train_pairs,
                dev_sentences=setting.dev_sentences,
                test_sentences=setting.test_sentences,
                data_seed=seed,
            )
        )

    def _examples(self, seed: int, prompt: str = "") -> ResponseExamples:
        """Training examples of a replicate: pairs drawn with its seed."""
        return response_examples(self._data(seed).train, self.tokenizer, self.prompt(prompt))

    def _counts(self, seed: int, prompt: str = "") -> TokenCounts:
        """Token counts of the training examples of a replicate, and of the prompt."""
        template = self.prompt(prompt)
        sources = [*(pair.source for pair in self._data(seed).train), *UNRELATED]
        prompts = encode_prompts(self.tokenizer, [template(source) for source in sources])
        examples = [example["input_ids"] for example in self.examples(seed, prompt).examples]
        return count_tokens(prompts, examples, self.pretrained.vocabulary)


@lru_cache(maxsize=1)
def _base(model: str) -> BaseModel:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return BaseModel(ModelArguments(model_name_or_path=model, dtype="float32"), device)
