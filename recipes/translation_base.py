"""The base model of a translation run: its tokenizer, its dtype, and fresh copies of it."""

import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils import logging
from translation_options import ModelArguments

from ks_lottery.checkpoints.reader import Checkpoint, open_checkpoint
from ks_lottery.errors import OptionError
from ks_lottery.ticket.identity import identify
from ks_lottery.units.token_rows import TokenRows


class BaseModel:
    """The pretrained model that every method starts from.

    Args:
        options: which model, and the dtype of its frozen weights.
        device: where copies go.

    Attributes:
        name: folder or Hub id.
        title: how reports call it: a folder below the working directory by its relative path.
        tokenizer: its tokenizer.
        dtype: of frozen weights.
        vocabulary: rows of the input embedding.
        digest: hex digest of sampled weights of every parameter.

    Raises:
        CheckpointError, HubError: if there is no such model, or the Hub cannot be reached.
        OptionError: if the tokenizer has tokens without a row.
    """

    def __init__(self, options: ModelArguments, device: torch.device) -> None:
        logging.disable_progress_bar()  # one bar per loaded copy, of which a run has dozens
        # PEFT asks for an attribute that transformers is going to rename, once per adapter.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        self.name = options.model_name_or_path
        path = Path(self.name)
        inside = path.is_absolute() and path.is_relative_to(Path.cwd())
        self.title = str(path.relative_to(Path.cwd())) if inside else self.name
        self._device = device
        checkpoint = open_checkpoint(self.name)
        self.tokenizer = AutoTokenizer.from_pretrained(self.name)
        self.vocabulary = _rows_for(self.tokenizer, checkpoint)
        self.digest = identify(checkpoint, checkpoint.names()).digest
        narrow = options.dtype == "bfloat16" or (options.dtype == "auto" and device.type == "cuda")
        self.dtype = torch.bfloat16 if narrow else torch.float32

    def load(self, folder: str | Path | None = None) -> PreTrainedModel:
        """A fresh copy, or the model in a folder in the same dtype, on the run's device."""
        return AutoModelForCausalLM.from_pretrained(folder or self.name, dtype=self.dtype).to(self._device)


def device_name() -> str:
    """The processor that a run used, as its report names it."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU, {torch.get_num_threads()} threads"


def _rows_for(tokenizer: Any, checkpoint: Checkpoint) -> int:
    """Rows of the input embedding, after checking that every token of the tokenizer has one."""
    (group,) = TokenRows().groups(checkpoint.layout())
    if len(tokenizer) > group.num_units:
        raise OptionError(
            f"The tokenizer of {checkpoint.name!r} has {len(tokenizer)} tokens, but the model has {group.num_units} "
            "embedding rows: tokens were added. Resize the model first, model.resize_token_embeddings(len(tokenizer)), "
            "and save both into one folder."
        )
    return group.num_units
