"""Partial transfer: the ticket's rows of `after`, every other weight as it was."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaForSequenceClassification

from ks_lottery.adapter.transfer import read_rows, transfer_ticket
from ks_lottery.checkpoints.reader import ModelCheckpoint, open_checkpoint
from ks_lottery.errors import AdapterError, TicketError
from ks_lottery.finders.search import find_ticket
from ks_lottery.finders.select import TopK
from tests.adapter.tickets import INPUT_ROWS, OUTPUT_ROWS, make_ticket, tiny_gpt2, tuned, weights
from tests.tiny_models import VOCABULARY, tiny_llama


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_exactly_the_rows_of_both_ends_are_copied(dtype: torch.dtype, tmp_path: Path) -> None:
    model, after = tiny_llama(dtype=dtype), tiny_llama(seed=3)
    after.save_pretrained(tmp_path)
    expected = weights(model)
    expected["model.embed_tokens.weight"][INPUT_ROWS] = after.model.embed_tokens.weight[INPUT_ROWS].to(dtype).detach()
    expected["lm_head.weight"][OUTPUT_ROWS] = after.lm_head.weight[OUTPUT_ROWS].to(dtype).detach()
    ticket = make_ticket(model, "both")
    assert transfer_ticket(model, ticket, tmp_path) is model
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("source", ["model", "checkpoint"])
def test_a_tied_matrix_stays_tied(source: str) -> None:
    model, after = tiny_llama(tied=True), tiny_llama(seed=3, tied=True)
    transfer_ticket(model, make_ticket(model), after if source == "model" else open_checkpoint(after))
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert torch.equal(model.lm_head.weight[INPUT_ROWS], after.lm_head.weight[INPUT_ROWS])
    assert not torch.equal(model.lm_head.weight[1], after.lm_head.weight[1])


def test_only_the_rows_of_the_ticket_are_read() -> None:
    class Watched(ModelCheckpoint):
        read: list[tuple[int, int]] = []

        def rows(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
            self.read.append((start, stop))
            return super().rows(name, start, stop)

    values = read_rows(Watched(tiny_llama()), "model.embed_tokens.weight", np.array([0, 4, 5, 6, 63]))
    assert Watched.read == [(0, 1), (4, 7), (63, 64)]
    assert torch.equal(values, tiny_llama().model.embed_tokens.weight[[0, 4, 5, 6, 63]])


def test_a_model_with_an_adapter_is_refused() -> None:
    base = tiny_llama()
    ticket = make_ticket(base)
    with pytest.raises(AdapterError, match=r"writes into a plain model, but this one has an adapter.*model.unload\(\)"):
        transfer_ticket(tuned(base), ticket, tiny_llama(seed=3))


def test_another_base_model_is_refused_unless_asked_for() -> None:
    ticket = make_ticket(tiny_llama(seed=1))
    with pytest.raises(TicketError, match="other weights"):
        transfer_ticket(tiny_llama(), ticket, tiny_llama(seed=3))
    transfer_ticket(tiny_llama(), ticket, tiny_llama(seed=3), check_base=False)


@pytest.mark.parametrize(
    ("after", "message"),
    [
        (tiny_llama(tied=True), "ties its embeddings, unlike the model that the ticket was found on"),
        (tiny_llama(vocabulary=VOCABULARY + 8), r"shape \(72, 32\) in after = .* but \(64, 32\) in"),
    ],
)
def test_a_probe_of_another_model_is_refused(after: nn.Module, message: str) -> None:
    model = tiny_llama()
    before = weights(model)
    with pytest.raises(AdapterError, match=message):
        transfer_ticket(model, make_ticket(model), after)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_probe_of_another_architecture_is_refused() -> None:
    model = tiny_llama(tied=True)
    with pytest.raises(AdapterError, match=r"has no 'model.embed_tokens.weight'. Transfer from the ticket's own probe"):
        transfer_ticket(model, make_ticket(model), tiny_gpt2())


def test_a_classifier_s_embedding_is_copied_whatever_its_configuration_ties(tmp_path: Path) -> None:
    config = tiny_llama(tied=True).config
    torch.manual_seed(0)
    base, after = LlamaForSequenceClassification(config), LlamaForSequenceClassification(config)
    after.save_pretrained(tmp_path)
    ticket = find_ticket(base, after, "token_rows", "magnitude", TopK(3))
    assert list(ticket.selections) == ["input"]
    model = transfer_ticket(base, ticket, after=tmp_path)
    rows = ticket.indices["input"].tolist()
    assert torch.equal(model.model.embed_tokens.weight[rows], after.model.embed_tokens.weight[rows])
