"""The base model of a run: what it is called, which dtype it has, what is refused before anything is trained."""

from pathlib import Path

import pytest
import torch
from translation_base import BaseModel
from translation_options import ModelArguments

from ks_lottery.errors import CheckpointError, HubError, OptionError
from tests.recipes.tiny_run import save_tiny_model

CPU = torch.device("cpu")


def test_copies_are_fresh_and_in_the_runs_dtype(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "model")
    base = BaseModel(ModelArguments(str(folder)), CPU)
    assert base.dtype == base.load().dtype == torch.float32
    assert base.load() is not base.load()
    assert BaseModel(ModelArguments(str(folder), dtype="bfloat16"), CPU).load().dtype == torch.bfloat16
    assert base.vocabulary == base.load().get_input_embeddings().weight.shape[0]


def test_the_digest_follows_the_weights_and_not_the_name(tmp_path: Path) -> None:
    first = BaseModel(ModelArguments(str(save_tiny_model(tmp_path / "a"))), CPU)
    model = first.load()
    assert BaseModel(ModelArguments(str(save_tiny_model(tmp_path / "b"))), CPU).digest == first.digest
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(2)
    model.save_pretrained(tmp_path / "b")
    assert BaseModel(ModelArguments(str(tmp_path / "b")), CPU).digest != first.digest


def test_a_folder_below_the_working_directory_is_called_by_its_relative_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_tiny_model(tmp_path / "models" / "tiny")
    assert BaseModel(ModelArguments(str(folder)), CPU).title == str(folder)
    monkeypatch.chdir(tmp_path)
    assert BaseModel(ModelArguments(str(folder)), CPU).title == "models/tiny"
    assert BaseModel(ModelArguments("models/tiny"), CPU).title == "models/tiny"


def test_a_token_without_a_row_is_refused(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "model")
    tokenizer = BaseModel(ModelArguments(str(folder)), CPU).tokenizer
    tokenizer.add_tokens([f"<new{number}>" for number in range(1000)])
    tokenizer.save_pretrained(folder)
    with pytest.raises(OptionError, match=r"embedding rows: tokens were added. Resize the model first"):
        BaseModel(ModelArguments(str(folder)), CPU)


def test_models_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match="is not a folder. Give a folder that save_pretrained wrote, or a Hub id"):
        BaseModel(ModelArguments(str(tmp_path / "nowhere")), CPU)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set.*an embedded model, recipes/pocket/model"):
        BaseModel(ModelArguments("nobody/nothing"), CPU)
