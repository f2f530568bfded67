"""A saved adapter is merged into the base model's files without a model, and only the ticket's bytes change."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GPT2Model, LlamaForSequenceClassification

from ks_lottery.adapter.attach import attach_ticket
from ks_lottery.adapter.config import LotteryConfig
from ks_lottery.adapter.export import merged_files
from ks_lottery.adapter.export.exporter import export_ticket
from ks_lottery.checkpoints.safetensors_file import SafetensorsFile
from ks_lottery.errors import AdapterError, CheckpointError
from ks_lottery.ticket.ticket import Ticket
from tests.adapter.mixed_tickets import gpt2_groups, hand_drawn, llama_groups
from tests.adapter.tickets import logits, randomise, tiny_gpt2
from tests.fake_hub import FakeHub
from tests.tiny_models import VOCABULARY, tiny_llama

pytestmark = pytest.mark.filterwarnings("ignore:.*without a form for plain PEFT:UserWarning")

BUILDS: dict[str, Callable[[torch.dtype], nn.Module]] = {
    "llama": lambda dtype: tiny_llama(dtype=dtype),
    "tied llama": lambda dtype: tiny_llama(dtype=dtype, tied=True),
    "gpt2": lambda dtype: tiny_gpt2().to(dtype),
}


def trained(folder: Path, name: str, dtype: torch.dtype = torch.float32, shards: str = "20KB") -> tuple[Path, Ticket]:
    """A sharded base model in `base`, with more beside it, and a mixed adapter in `adapter`; and its ticket."""
    BUILDS[name](dtype).save_pretrained(folder / "base", max_shard_size=shards)
    (folder / "base" / "tokenizer.json").write_text("{}")
    (folder / "base" / "README.md").write_text("the base model")
    (folder / "base" / "pytorch_model.bin").write_bytes(b"a pickle")
    model = AutoModelForCausalLM.from_pretrained(folder / "base")
    ticket = hand_drawn(model, gpt2_groups() if name == "gpt2" else llama_groups(tied=name == "tied llama"))
    model = attach_ticket(model, ticket).eval()
    randomise(model)
    model.save_pretrained(folder / "adapter")
    return folder / "adapter", ticket


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", BUILDS)
def test_only_the_bytes_of_the_ticket_change(
    name: str, dtype: torch.dtype, tmp_path: Path, tokens: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter, ticket = trained(tmp_path, name, dtype)
    base, out = tmp_path / "base", tmp_path / "out"
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(adapter))
    merged = model.merge_and_unload().eval()
    expected, wanted = logits(merged, tokens), dict(merged.named_parameters())
    with monkeypatch.context() as patch:
        patch.setattr(merged_files, "_PIECE_BYTES", 300)
        patch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", _refuse)
        assert export_ticket(adapter, out, to="merged") == out
    left_out = {"README.md", "pytorch_model.bin"}
    assert {path.name for path in out.iterdir()} == {path.name for path in base.iterdir()} - left_out
    masks = ticket.masks()
    for path in out.iterdir():
        if path.suffix != ".safetensors":
            assert path.read_bytes() == (base / path.name).read_bytes()
            continue
        before, after = (folder / path.name for folder in (base, out))
        same = bytearray(after.read_bytes())
        for tensor, entry in SafetensorsFile(before).entries.items():
            assert torch.equal(load_file(after)[tensor], wanted[tensor].detach()), tensor
            if tensor in masks:
                assert not torch.equal(load_file(after)[tensor], load_file(before)[tensor])
                same[entry.begin : entry.end] = before.read_bytes()[entry.begin : entry.end]
        assert same == before.read_bytes()
    again = AutoModelForCausalLM.from_pretrained(out)
    assert torch.equal(logits(again, tokens), expected)


def _refuse(*args: object, **kwargs: object) -> None:
    raise AssertionError("a model was built")


def test_a_matrix_that_was_stored_twice_changes_twice(tmp_path: Path, tokens: Tensor) -> None:
    adapter, _ = trained(tmp_path, "tied llama", shards="1MB")
    file = tmp_path / "base" / "model.safetensors"
    tensors = load_file(file)
    save_file({**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"].clone()}, file, {"format": "pt"})
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    expected = logits(PeftModel.from_pretrained(base, str(adapter)).merge_and_unload().eval(), tokens)
    export_ticket(adapter, tmp_path / "out", to="merged")
    merged = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(merged["lm_head.weight"], merged["model.embed_tokens.weight"])
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert again.lm_head.weight is again.model.embed_tokens.weight
    assert torch.equal(logits(again, tokens), expected)


def test_files_that_spell_names_without_their_prefix(tmp_path: Path, tokens: Tensor) -> None:
    adapter, _ = trained(tmp_path, "gpt2")
    expected = logits(PeftModel.from_pretrained(tiny_gpt2(), str(adapter)).merge_and_unload(), tokens)
    GPT2Model.from_pretrained(tmp_path / "base").save_pretrained(tmp_path / "bare")
    assert "wte.weight" in load_file(tmp_path / "bare" / "model.safetensors")
    export_ticket(adapter, tmp_path / "out", to="merged", base_model=str(tmp_path / "bare"))
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out"), tokens), expected)


def whole_norm(folder: Path, head: bool = False) -> Path:
    """An adapter that also trains a module whole: the last norm, or a classifier."""
    base = tiny_llama() if not head else LlamaForSequenceClassification(tiny_llama().config)
    names = ["score"] if head else ["model.norm"]
    task = "SEQ_CLS" if head else "CAUSAL_LM"
    config = LotteryConfig(positions={"model.embed_tokens": [3, 60]}, modules_to_save=names, task_type=task)
    model = get_peft_model(base.eval(), config)
    randomise(model)
    model.save_pretrained(folder / "adapter")
    return folder / "adapter"


def test_whole_modules_are_replaced(tmp_path: Path, tokens: Tensor) -> None:
    adapter = whole_norm(tmp_path)
    tiny_llama(dtype=torch.bfloat16).save_pretrained(tmp_path / "base")
    export_ticket(adapter, tmp_path / "out", to="merged", base_model=str(tmp_path / "base"))
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    expected = logits(PeftModel.from_pretrained(base, str(adapter)).merge_and_unload().eval(), tokens)
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out"), tokens), expected)


def test_a_head_that_the_base_model_lacks_is_refused(tmp_path: Path) -> None:
    tiny_llama().save_pretrained(tmp_path / "base")
    with pytest.raises(
        AdapterError, match="'score.weight' of shape .2, 32. whole, but the files .* do not hold it. Load"
    ):
        export_ticket(whole_norm(tmp_path, head=True), tmp_path / "out", to="merged", base_model=str(tmp_path / "base"))
    assert not (tmp_path / "out").exists()


def test_another_base_model_is_refused(tmp_path: Path) -> None:
    adapter, _ = trained(tmp_path, "llama")
    tiny_llama(vocabulary=VOCABULARY // 2).save_pretrained(tmp_path / "small")
    with pytest.raises(
        AdapterError, match="'model.embed_tokens.weight' is float32 of shape .32, 32. .*up to 63 of dim"
    ):
        export_ticket(adapter, tmp_path / "out", to="merged", base_model=str(tmp_path / "small"))
    tiny_gpt2().save_pretrained(tmp_path / "gpt2")
    with pytest.raises(AdapterError, match="changes 'model.embed_tokens.weight', which the files of .* do not hold"):
        export_ticket(adapter, tmp_path / "out", to="merged", base_model=str(tmp_path / "gpt2"))


def test_quantised_weights_are_refused(tmp_path: Path) -> None:
    adapter, _ = trained(tmp_path, "llama", shards="1MB")
    file = tmp_path / "base" / "model.safetensors"
    quantised = {name: value.to(torch.float8_e4m3fn) for name, value in load_file(file).items()}
    save_file(quantised, file, {"format": "pt"})
    with pytest.raises(AdapterError, match="is float8_e4m3fn of shape .*not quantised and not resized"):
        export_ticket(adapter, tmp_path / "out", to="merged")


def test_a_base_model_in_pickles_is_refused(tmp_path: Path) -> None:
    adapter, _ = trained(tmp_path, "llama", shards="1MB")
    (tmp_path / "base" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="only pickled weights"):
        export_ticket(adapter, tmp_path / "out", to="merged")


def test_an_export_does_not_replace_what_it_is_made_from(tmp_path: Path) -> None:
    adapter, _ = trained(tmp_path, "llama")
    for folder in (adapter, tmp_path / "base", tmp_path):
        with pytest.raises(AdapterError, match="would replace .*from which it is made. Choose another folder"):
            export_ticket(adapter, folder, to="merged")
    assert (tmp_path / "base" / "config.json").is_file()


@pytest.mark.parametrize("file", ["adapter_config.json", "adapter_model.safetensors"])
def test_an_adapter_without_its_files_is_refused(file: str, tmp_path: Path) -> None:
    adapter, _ = trained(tmp_path, "llama")
    (adapter / file).unlink()
    with pytest.raises(AdapterError, match=f"holds no {file}"):
        export_ticket(adapter, tmp_path / "out", to="merged")


def test_adapter_and_base_model_come_from_the_hub(tmp_path: Path, fake_hub: FakeHub, tokens: Tensor) -> None:
    adapter, _ = trained(tmp_path, "llama")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    expected = logits(PeftModel.from_pretrained(base, str(adapter)).merge_and_unload().eval(), tokens)
    header = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**header, "base_model_name_or_path": "tester/base"}))
    (tmp_path / "base" / "original").mkdir()
    shutil.copy(tmp_path / "base" / "config.json", tmp_path / "base" / "original" / "large.json")
    fake_hub.add("tester/base", tmp_path / "base")
    fake_hub.add("tester/adapter", adapter)
    export_ticket("tester/adapter", tmp_path / "out", to="merged")
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out"), tokens), expected)
    assert (tmp_path / "out" / "tokenizer.json").is_file()
    fetched = {path.rpartition("/")[2] for method, path in fake_hub.requests if method == "GET"}
    assert not fetched & {"pytorch_model.bin", "large.json", "README.md"}
