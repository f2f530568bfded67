"""The encoder of a classification run, with a classifier on top whose first weights are drawn once per seed."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from classification_options import PACKAGED_MODEL, ModelArguments, packaged_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel
from transformers.utils import logging

from ks_lottery.checkpoints.reader import open_checkpoint
from ks_lottery.errors import OptionError
from ks_lottery.ticket.identity import identify

CLASSIFIERS = ("classifier", "score")
"""Names of the module that PEFT trains and saves whole beside every adapter of a sequence classifier."""


class Encoder:
    """The pretrained model that every method starts from.

    Args:
        options: which model.
        labels: names of the classes.
        seed: of the classifier's first weights.
        device: where copies go.

    Attributes:
        name: folder or Hub id.
        title: how reports call it.
        tokenizer: its tokenizer.
        digest: hex digest of sampled weights of every parameter.

    Raises:
        OptionError: if no model is given and none is installed, or the tokenizer has no padding token.
        CheckpointError, HubError: if there is no such model, or the Hub cannot be reached.
    """

    def __init__(self, options: ModelArguments, labels: Sequence[str], seed: int, device: torch.device) -> None:
        logging.disable_progress_bar()  # one bar per loaded copy, of which a run has dozens
        # PEFT asks for an attribute that transformers is going to rename, once per adapter.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        # An adapter of heads has no form that plain PEFT loads; saying so at every save helps nobody here.
        warnings.filterwarnings("ignore", ".* is saved without a form for plain PEFT")
        self.name = options.model_name_or_path or str(packaged_model())
        self.title = _title(options.model_name_or_path)
        self._labels, self._seed, self._device = tuple(labels), seed, device
        checkpoint = open_checkpoint(self.name)
        self.digest = identify(checkpoint, checkpoint.names()).digest
        self.tokenizer = AutoTokenizer.from_pretrained(self.name)
        if self.tokenizer.pad_token_id is None:
            raise OptionError(
                f"The tokenizer of {self.name!r} has no padding token, which batches of texts need. Set one and save "
                "it with the model: tokenizer.pad_token = tokenizer.eos_token; tokenizer.save_pretrained(folder)."
            )

    def new(self) -> PreTrainedModel:
        """The pretrained weights with a new classifier; the same weights every time.

        Raises:
            OptionError: if more than the classifier is new, which adapters would leave at random.
        """
        verbosity = logging.get_verbosity()
        logging.set_verbosity_error()  # the table of new weights, which are the ones that this recipe trains
        try:
            torch.manual_seed(self._seed)
            model, info = AutoModelForSequenceClassification.from_pretrained(
                self.name,
                dtype=torch.float32,
                id2label=dict(enumerate(self._labels)),
                label2id={label: place for place, label in enumerate(self._labels)},
                pad_token_id=self.tokenizer.pad_token_id,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
        finally:
            logging.set_verbosity(verbosity)
        untrained = sorted(name for name in info["missing_keys"] if name.partition(".")[0] not in CLASSIFIERS)
        if untrained:
            raise OptionError(
                f"{self.title} as a {type(model).__name__} has new weights outside its classifier: "
                f"{', '.join(untrained)}. Adapters train {' and '.join(CLASSIFIERS)} whole and would leave these at "
                "random. Take another encoder (BERT with its pooler, RoBERTa) or a decoder."
            )
        return model.to(self._device)

    def load(self, folder: Path) -> PreTrainedModel:
        """The model in a folder of this run, on the run's device."""
        return AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).to(self._device)


def classifier_weights(model: Any) -> dict[str, torch.nn.Parameter]:
    """The classifier's parameters by name."""
    return {name: weight for name, weight in model.named_parameters() if name.partition(".")[0] in CLASSIFIERS}


def _title(name: str | None) -> str:
    if name is None:
        return f"MiniLM of the PyPI package {PACKAGED_MODEL}"
    path = Path(name)
    return str(path.relative_to(Path.cwd())) if path.is_absolute() and path.is_relative_to(Path.cwd()) else name
