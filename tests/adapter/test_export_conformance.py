"""Every carrier with every kind of ticket: it computes what was trained, without this library, or it says why not."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from ks_lottery.adapter.attach import attach_ticket
from ks_lottery.adapter.export.carrier import CARRIERS
from ks_lottery.adapter.export.exporter import export_ticket
from ks_lottery.checkpoints.reader import ModelCheckpoint
from ks_lottery.errors import AdapterError
from ks_lottery.ticket.ticket import Ticket
from ks_lottery.units.granularity import Granularity
from ks_lottery.units.heads import Heads
from ks_lottery.units.layers import Layers
from ks_lottery.units.matrix_rows import MatrixRows
from ks_lottery.units.neurons import Neurons
from ks_lottery.units.token_rows import TokenRows
from ks_lottery.units.weights import Weights
from tests.adapter.mixed_tickets import Group, gpt2_groups, hand_drawn, llama_groups, scattered
from tests.adapter.tickets import logits, randomise, tiny_gpt2
from tests.adapter.without_us import LOADERS, logits_without_us
from tests.tiny_models import tiny_llama

MODELS = {"llama": tiny_llama, "tied llama": lambda: tiny_llama(tied=True), "gpt2": tiny_gpt2}
KINDS: dict[str, Granularity | None] = {
    "token rows": TokenRows(),
    "heads": Heads(),
    "neurons": Neurons(),
    "matrix rows": MatrixRows(("*.0.*",)),
    "weights": Weights(("*.0.mlp.*.weight",)),
    "norms": None,
    "a block": Layers(("*.1",)),
    "mixed": None,
}
TOKENS, ONE_LIST = "holds rows of embeddings and output heads, but parts of", "one list of rows for all modules"
NO_EMBEDDING, NO_CONV1D, NO_VECTORS = "is an embedding", "is a Conv1D layer", "LoRA weights hold no vectors"
NOTHING_LINEAR, SHARED, TOO_MANY = "of which none is tuned", "shares its matrix with", "does not have so many"
REFUSED: dict[tuple[str, str], dict[str, str]] = {
    ("trainable_tokens", model): {kind: TOKENS for kind in KINDS if kind != "token rows"} for model in MODELS
}
for carrier in ("supertuning", "shira"):
    for model in MODELS:
        REFUSED[carrier, model] = {"token rows": NO_EMBEDDING, "norms": NOTHING_LINEAR, "mixed": NO_EMBEDDING}
    REFUSED[carrier, "gpt2"] |= dict.fromkeys(("heads", "neurons", "matrix rows", "weights", "a block"), NO_CONV1D)
REFUSED["shira", "llama"]["a block"] = REFUSED["shira", "tied llama"]["a block"] = TOO_MANY
for model in MODELS:
    REFUSED["lora_embedding", model] = dict.fromkeys(("norms", "a block", "mixed"), NO_VECTORS)
REFUSED["lora_embedding", "gpt2"] |= {"heads": NO_VECTORS, "neurons": NO_VECTORS}
for model in ("tied llama", "gpt2"):
    REFUSED["lora_embedding", model] |= {"token rows": SHARED, "mixed": SHARED}

EVERY_WAY = [way for way in LOADERS if way != "base"]
TWO_WAYS = ["PeftModel", "merged"]


def drawn(model: nn.Module, name: str, kind: str) -> Ticket:
    """A ticket of this kind, with a few units of every group."""
    granularity = Weights(("*.ln_*" if name == "gpt2" else "*norm.weight",)) if kind == "norms" else KINDS[kind]
    groups: Sequence[Group] = gpt2_groups() if name == "gpt2" else llama_groups(tied=name == "tied llama")
    if granularity is not None:
        units = granularity.groups(ModelCheckpoint(model).layout())
        counts = {"weights": 40, "token rows": 5, "heads": 1}
        groups = [
            (
                group.name,
                group.slabs,
                group.num_units,
                scattered(min(counts.get(kind, 2), group.num_units), group.num_units),
            )
            for group in units
        ]
    return hand_drawn(model, groups)


@pytest.fixture(scope="module")
def tokens() -> Tensor:
    """[2, 12] token ids of all the vocabulary."""
    return torch.from_numpy(np.random.default_rng(1).integers(64, size=(2, 12)))


def test_every_carrier_holds_every_kind_of_ticket_or_says_why_not(
    tmp_path_factory: pytest.TempPathFactory, tokens: Tensor
) -> None:
    folder = tmp_path_factory.mktemp("conformance")
    cases: dict[str, dict[str, Any]] = {}
    expected: dict[str, Tensor] = {}
    refused: dict[tuple[str, str], dict[str, str]] = {}
    for name, build in MODELS.items():
        build().save_pretrained(folder / name)
        for kind in KINDS:
            base = AutoModelForCausalLM.from_pretrained(folder / name)
            model = attach_ticket(base, drawn(base, name, kind)).eval()
            randomise(model)
            wanted = logits(model, tokens)
            for carrier in CARRIERS.names():
                case = f"{carrier}, {name}, {kind}"
                try:
                    export_ticket(model, folder / case, to=carrier)
                except AdapterError as error:
                    refused.setdefault((carrier, name), {})[kind] = str(error)
                    continue
                expected[case] = wanted
                whole, first = carrier == "merged", not any(key.startswith(f"{carrier}, {name}, ") for key in cases)
                cases[case] = {
                    "adapter": str(folder / case),
                    "base": str(folder / (case if whole else name)),
                    "scratch": str(folder / "scratch"),
                    "loaders": ["base"] if whole else EVERY_WAY if first or kind == "mixed" else TWO_WAYS,
                    "warns": carrier == "trainable_tokens" and name != "llama",
                }
    assert {key: set(kinds) for key, kinds in refused.items()} == {key: set(kinds) for key, kinds in REFUSED.items()}
    for key, kinds in REFUSED.items():
        for kind, reason in kinds.items():
            able = [carrier for carrier in CARRIERS.names() if kind not in REFUSED.get((carrier, key[1]), {})]
            assert reason in refused[key][kind], (key, kind)
            assert refused[key][kind].endswith(f". Carriers that can: {', '.join(able)}.")
    results = logits_without_us(cases, tokens, folder)
    for case, target in expected.items():
        for loader, got in results[case].items():
            if case.startswith("shira") and loader in ("AutoModel", "load_adapter"):
                assert got == "KeyError('default')", case
                continue
            assert isinstance(got, Tensor), (case, loader, got)
            assert float((got - target).abs().max()) <= 1e-5, (case, loader)
