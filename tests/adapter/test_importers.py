"""Sparse fine-tunings of composable-sft and of the SFT fork of PEFT, written here in exactly their formats."""

import json
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification

from ks_lottery.adapter.attach import attach_ticket
from ks_lottery.adapter.importers import import_sft
from ks_lottery.adapter.importers.composable_sft import read_composable_sft
from ks_lottery.errors import AdapterError, CheckpointError
from ks_lottery.ticket.ticket import Ticket
from tests.adapter.tickets import assert_same_logits, logits
from tests.fake_hub import FakeHub
from tests.tiny_models import VOCABULARY, WIDTH, tiny_llama

pytestmark = pytest.mark.filterwarnings("ignore:.*without a form for plain PEFT:UserWarning")

QUERY, UP = "model.layers.0.self_attn.q_proj.weight", "model.layers.1.mlp.up_proj.weight"
NORM, EMBEDDING = "model.layers.1.input_layernorm.weight", "model.embed_tokens.weight"


def bert(kind: type = BertForSequenceClassification) -> nn.Module:
    torch.manual_seed(0)
    size = {"hidden_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    return kind(BertConfig(vocab_size=VOCABULARY, **size)).eval()


def sparse(shape: tuple[int, ...], count: int = 20, seed: int = 0) -> Tensor:
    """A dense tensor with `count` values that are not zero."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.zeros(int(np.prod(shape)))
    values[torch.randperm(len(values), generator=generator)[:count]] = 0.1 * torch.randn(count, generator=generator)
    return values.view(shape)


def encoded(tensor: Tensor) -> dict[str, Any]:
    """What composable-sft writes for a sparse tensor; the first of the steps is a number of numpy, as there."""
    tensor = tensor.to_sparse().coalesce()
    places = np.array([1, *np.cumprod(tensor.shape)[:-1]]) @ tensor.indices().numpy()
    order = np.argsort(places)
    steps = [places[order][0], *np.diff(places[order]).tolist()] if len(places) else []
    return {"size": tensor.shape, "index_steps": steps, "values": tensor.values()[order]}


def diffs(model: nn.Module, *names: str) -> dict[str, Tensor]:
    return {name: sparse(tuple(model.get_parameter(name).shape), seed=seed) for seed, name in enumerate(names)}


def applied(model: nn.Module, changes: Mapping[str, Tensor], whole: Mapping[str, Tensor] | None = None) -> nn.Module:
    """The model with a fine-tuning applied, as the other libraries do it."""
    with torch.no_grad():
        for name, change in changes.items():
            model.get_parameter(name).add_(change)
        for name, value in (whole or {}).items():
            model.get_parameter(name).copy_(value)
    return model.eval()


def composable(folder: Path, content: Any) -> Path:
    """A folder as composable-sft saves one."""
    folder.mkdir(exist_ok=True)
    torch.save(content, folder / "pytorch_diff.bin")
    return folder


def fork(folder: Path, tensors: dict[str, Tensor], suffix: str = "safetensors", kind: str = "SFT") -> Path:
    """A folder as the SFT fork of PEFT saves one."""
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": kind, "num_deltas": {}}))
    if suffix == "safetensors":
        save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    else:
        torch.save(tensors, folder / "adapter_model.bin")
    return folder


def fork_tensors(changes: Mapping[str, Tensor]) -> dict[str, Tensor]:
    tensors = {}
    for name, change in changes.items():
        index = torch.randperm(len(change.flatten().nonzero()))
        places = change.flatten().nonzero().flatten()[index]
        prefix = f"base_model.model.{name.removesuffix('.weight')}.sft_delta"
        tensors |= {f"{prefix}.indices": places.to(torch.int32), f"{prefix}.values": change.flatten()[places]}
    return tensors


Writer = Callable[[dict[str, Tensor]], dict[str, Any]]
SPELLINGS: dict[str, Writer] = {
    "released": lambda changes: {"diffs": {name: encoded(change) for name, change in changes.items()}, "abs": {}},
    "sparse tensors": lambda changes: {"diffs": {n: change.to_sparse() for n, change in changes.items()}, "abs": {}},
    "one difference": lambda changes: {"diff": {name: change.to_sparse() for name, change in changes.items()}},
    "old": lambda changes: {"body": {name: encoded(change) for name, change in changes.items()}},
    "blocks": lambda changes: {"diffs": {name: encoded(c) for name, c in changes.items()}, "block_sparses": {}},
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_composable_sft_becomes_a_ticket_and_an_adapter(spelling: str, tmp_path: Path, tokens: Tensor) -> None:
    changes = diffs(tiny_llama(), QUERY, UP, NORM)
    folder = composable(tmp_path / "sft", SPELLINGS[spelling](changes))
    ticket, model = import_sft(folder, tiny_llama())
    assert isinstance(model, PeftModel)
    assert (ticket.kind, ticket.granularity, len(ticket)) == ("update", "weights", 60)
    assert ticket.provenance.details["written_by"] == "composable-sft"
    for name, mask in ticket.masks().items():
        assert torch.equal(mask, changes[name] != 0), name
    expected = logits(applied(tiny_llama(), changes), tokens)
    assert_same_logits(logits(model.eval(), tokens), expected)
    ticket.save(tmp_path / "ticket")
    assert Ticket.load(tmp_path / "ticket") == ticket
    assert model.peft_config["default"].ticket == ticket.fingerprint
    assert torch.equal(logits(model.merge_and_unload(), tokens), expected)


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_an_adapter_of_the_fork_becomes_a_ticket_and_an_adapter(suffix: str, tmp_path: Path, tokens: Tensor) -> None:
    changes = diffs(tiny_llama(), QUERY, UP)
    norm = torch.linspace(0.5, 1.5, WIDTH)
    tensors = {**fork_tensors(changes), "base_model.model.model.norm.weight": norm}
    ticket, model = import_sft(fork(tmp_path / "sft", tensors, suffix), tiny_llama())
    assert ticket.provenance.details["written_by"] == "AlanAnsell/peft SFT"
    for name, mask in ticket.masks().items():
        assert torch.equal(mask, changes[name] != 0), name
    expected = logits(applied(tiny_llama(), changes, {"model.norm.weight": norm}), tokens)
    assert_same_logits(logits(model.eval(), tokens), expected)


def test_positions_that_stand_twice_add_up(tmp_path: Path) -> None:
    tensors = {
        "base_model.model.model.layers.0.self_attn.q_proj.sft_delta.indices": torch.tensor([7, 3, 7]),
        "base_model.model.model.layers.0.self_attn.q_proj.sft_delta.values": torch.tensor([1.0, 2.0, 3.0]),
    }
    ticket, model = import_sft(fork(tmp_path / "sft", tensors), tiny_llama())
    assert ticket.indices[QUERY].tolist() == [3, 7]
    before, after = tiny_llama().get_parameter(QUERY), model.merge_and_unload().get_parameter(QUERY)
    assert (after - before).flatten()[[3, 7]].tolist() == pytest.approx([2.0, 4.0])


def test_a_matrix_that_is_changed_everywhere(tmp_path: Path, tokens: Tensor) -> None:
    changes = {QUERY: sparse((WIDTH, WIDTH), WIDTH * WIDTH)}
    ticket, model = import_sft(composable(tmp_path, {"diffs": changes}), tiny_llama())
    assert len(ticket) == WIDTH * WIDTH
    assert_same_logits(logits(model.eval(), tokens), logits(applied(tiny_llama(), changes), tokens))


@settings(max_examples=25, deadline=None)
@given(shape=st.tuples(st.integers(1, 9), st.integers(1, 9)), count=st.integers(0, 30), seed=st.integers(0, 99))
def test_the_encoding_is_read_in_its_own_order(
    shape: tuple[int, int], count: int, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    dense = sparse(shape, min(count, shape[0] * shape[1]), seed)
    folder = composable(tmp_path_factory.mktemp("sft"), {"diffs": {"x": encoded(dense)}})
    change = read_composable_sft(folder / "pytorch_diff.bin", "file").changes["x"]
    again = torch.zeros(dense.numel())
    again[torch.from_numpy(change.index)] = change.delta
    assert torch.equal(again.view(shape), dense)


def test_heads_are_whole_modules(tmp_path: Path, tokens: Tensor) -> None:
    changes = diffs(bert(), "bert.encoder.layer.0.attention.self.query.weight", "bert.pooler.dense.bias")
    head = {"classifier.weight": sparse((2, WIDTH), 9, seed=7), "classifier.bias": torch.tensor([1.0, -1.0])}
    content = {
        "diffs": {name: encoded(change) for name, change in changes.items()},
        "abs": {"classifier.weight": encoded(head["classifier.weight"]), "classifier.bias": head["classifier.bias"]},
    }
    folder = composable(tmp_path / "sft", content)
    ticket, model = import_sft(folder / "pytorch_diff.bin", bert())
    assert not any("classifier" in name for name in ticket.selections)
    expected = logits(applied(bert(), changes, head), tokens)
    assert_same_logits(logits(model.eval(), tokens), expected)
    model.save_pretrained(tmp_path / "adapter")
    assert_same_logits(logits(PeftModel.from_pretrained(bert(), str(tmp_path / "adapter")), tokens), expected)
    _, without = import_sft(folder, bert(), with_abs=False)
    assert_same_logits(logits(without.eval(), tokens), logits(applied(bert(), changes), tokens))


def test_single_weights_of_embeddings_need_their_rows(tmp_path: Path, tokens: Tensor) -> None:
    changes = diffs(tiny_llama(tied=True), EMBEDDING, QUERY)
    folder = composable(tmp_path, {"diffs": {name: encoded(change) for name, change in changes.items()}})
    with pytest.raises(
        AdapterError, match=r"20 single weights of 'model.embed_tokens.weight' in 1\d rows.*whole_rows=True"
    ):
        import_sft(folder, tiny_llama(tied=True))
    ticket, model = import_sft(folder, tiny_llama(tied=True), whole_rows=True)
    assert list(ticket.selections) == ["tied", QUERY]
    with pytest.raises(AdapterError, match="The model does not tie its input embedding"):
        attach_ticket(tiny_llama(), ticket)
    assert torch.equal(ticket.masks()[EMBEDDING].any(dim=1), (changes[EMBEDDING] != 0).any(dim=1))
    expected = logits(applied(tiny_llama(tied=True), changes), tokens)
    assert_same_logits(logits(model.eval(), tokens), expected)


def test_a_language_fine_tuning_leaves_its_head_out(tmp_path: Path) -> None:
    name = "bert.encoder.layer.0.attention.self.query.weight"
    content = {"diffs": diffs(bert(), name), "abs": {"cls.predictions.bias": torch.zeros(VOCABULARY)}}
    folder = composable(tmp_path, content)
    with pytest.raises(
        AdapterError, match=r"'cls.predictions.bias', which this BertForSequenceClassification does not"
    ):
        import_sft(folder, bert())
    assert list(import_sft(folder, bert(), with_abs=False)[0].selections) == [name]
    with pytest.raises(AdapterError, match=r"'cls.predictions' whole, but it shares parameters with 'bert.embeddings"):
        import_sft(folder, bert(BertForMaskedLM))


def test_from_the_hub(tmp_path: Path, fake_hub: FakeHub) -> None:
    changes = diffs(tiny_llama(), QUERY)
    fake_hub.add("tester/lt-sft", composable(tmp_path / "a", {"diffs": changes}))
    fake_hub.add("tester/spiel", fork(tmp_path / "b", fork_tensors(changes)))
    fake_hub.add("tester/spiel-bin", fork(tmp_path / "c", fork_tensors(changes), "bin"))
    found = [import_sft(f"tester/{name}", tiny_llama())[0] for name in ("lt-sft", "spiel", "spiel-bin")]
    assert found[0] == found[1] == found[2]


class Bomb:
    """What would run code when a pickle is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('ran')",))


def test_code_in_a_file_is_never_run(tmp_path: Path) -> None:
    for folder in (composable(tmp_path / "a", {"diffs": Bomb()}), fork(tmp_path / "b", {"x": Bomb()}, "bin")):  # type: ignore[dict-item]
        with pytest.raises(
            CheckpointError, match="cannot be read without running code that it may hold .*plain tensors"
        ):
            import_sft(folder, tiny_llama())
    (tmp_path / "a" / "pytorch_diff.bin").write_bytes(pickle.dumps({"diffs": Bomb()}, protocol=2))
    with pytest.raises(CheckpointError, match="cannot be read without running code"):
        import_sft(tmp_path / "a", tiny_llama())
    (tmp_path / "a" / "pytorch_diff.bin").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="cannot be read without running code"):
        import_sft(tmp_path / "a", tiny_llama())


DAMAGED: dict[str, tuple[Any, str]] = {
    "no dictionary": (torch.zeros(3), "no sparse fine-tuning of composable-sft: it holds Tensor"),
    "other keys": ({"weights": 3}, "it holds 'weights', not 'diffs'"),
    "no names": ({"diffs": [1]}, "it holds 'diffs', not 'diffs'"),
    "block sparse": ({"diffs": {}, "block_sparses": {"x": 1}}, "also holds 'block_sparses', which is not read here"),
    "no tensor": ({"diffs": {"x": 3}}, "has a int for 'x', which is neither a tensor nor"),
    "outside": (
        {"diffs": {"x": {"size": (2, 2), "index_steps": [3, 1], "values": torch.ones(2)}}},
        r"positions from 3 to 4 for 'x' of shape \(2, 2\); it is damaged",
    ),
    "too few": (
        {"diffs": {"x": {"size": (2, 2), "index_steps": [0, 1], "values": torch.ones(1)}}},
        r"positions of shape \(2,\) and values of shape \(1,\) for 'x'",
    ),
    "not finite": ({"diffs": {"x": torch.tensor([[0.0, torch.nan]])}}, "NaN or infinite values for 'x'"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_files_are_refused(case: str, tmp_path: Path) -> None:
    content, message = DAMAGED[case]
    with pytest.raises(CheckpointError, match=message):
        import_sft(composable(tmp_path, content), tiny_llama())


def test_damaged_adapters_are_refused(tmp_path: Path) -> None:
    index = {"base_model.model.x.sft_delta.indices": torch.tensor([1])}
    with pytest.raises(CheckpointError, match="indices' without 'base_model.model.x.sft_delta.values'; it is damaged"):
        import_sft(fork(tmp_path, index), tiny_llama())
    negative = {name: -index[name] for name in index} | {"base_model.model.x.sft_delta.values": torch.ones(1)}
    with pytest.raises(CheckpointError, match=r"positions from -1 to -1 for 'x.weight' of shape None"):
        import_sft(fork(tmp_path, negative), tiny_llama())
    with pytest.raises(CheckpointError, match="holds an adapter of type LORA, and import_sft reads SFT"):
        import_sft(fork(tmp_path, index, kind="LORA"), tiny_llama())
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(CheckpointError, match="adapter_config.json of .* cannot be read"):
        import_sft(tmp_path, tiny_llama())
    (tmp_path / "adapter_config.json").unlink()
    with pytest.raises(CheckpointError, match="holds neither pytorch_diff.bin .* nor adapter_config.json with"):
        import_sft(tmp_path, tiny_llama())
    with pytest.raises(CheckpointError, match="holds no dictionary of tensors; it is damaged"):
        import_sft(fork(tmp_path / "bin", [1], "bin"), tiny_llama())  # type: ignore[arg-type]


def test_what_does_not_fit_the_model_is_refused(tmp_path: Path) -> None:
    def imported(content: dict[str, Any], model: nn.Module) -> None:
        import_sft(composable(tmp_path / "a", content), model)

    with pytest.raises(AdapterError, match="changes no single weight, so it is no ticket"):
        imported({"diffs": {QUERY: torch.zeros(WIDTH, WIDTH)}}, tiny_llama())
    with pytest.raises(AdapterError, match=r"has shape \(32, 32\) in this .*, but it has shape \(32, 5\) in"):
        imported({"diffs": {QUERY: sparse((WIDTH, 5), 3)}}, tiny_llama())
    with pytest.raises(AdapterError, match="which is tied to 'model.embed_tokens.weight' in this LlamaForCausalLM"):
        imported({"diffs": {"lm_head.weight": sparse((VOCABULARY, WIDTH), 3)}}, tiny_llama(tied=True))
    both = {"diffs": {"model.norm.weight": sparse((WIDTH,), 3)}, "abs": {"model.norm.weight": torch.ones(WIDTH)}}
    with pytest.raises(AdapterError, match="'model.norm' whole, but also changes it in parts"):
        imported(both, tiny_llama())
    with pytest.raises(AdapterError, match="takes a plain model, but this one has an adapter"):
        imported(
            {"diffs": {}},
            import_sft(composable(tmp_path / "b", {"diffs": diffs(tiny_llama(), QUERY)}), tiny_llama())[1],
        )
    bare = {"diffs": {"layers.0.mlp.up_proj.weight": sparse((48, WIDTH), 3)}, "abs": {"norm.weight": torch.ones(WIDTH)}}
    with pytest.raises(AdapterError, match="finds such modules by the end of their name, would take 'layers.0"):
        imported(bare, tiny_llama().model)
    large = {
        "base_model.model.model.layers.0.self_attn.q_proj.sft_delta.indices": torch.tensor([WIDTH * WIDTH]),
        "base_model.model.model.layers.0.self_attn.q_proj.sft_delta.values": torch.ones(1),
    }
    with pytest.raises(AdapterError, match="but positions go up to 1024 in"):
        import_sft(fork(tmp_path / "c", large), tiny_llama())
