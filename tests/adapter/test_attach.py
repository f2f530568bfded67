"""Attaching: exactly the ticket trains, nothing changes before training, and what does not fit is refused."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from peft import (
    LoraConfig,
    PeftModelForCausalLM,
    PeftModelForSeq2SeqLM,
    PeftModelForSequenceClassification,
    get_peft_model,
)
from torch import Tensor, nn
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    LlamaConfig,
    LlamaForSequenceClassification,
    LlamaModel,
    T5Config,
    T5ForConditionalGeneration,
)

from ks_lottery.adapter.attach import attach_ticket, task_type
from ks_lottery.adapter.layer import RowLayer, TiedRowLayer
from ks_lottery.checkpoints.reader import ModelCheckpoint
from ks_lottery.errors import AdapterError, TicketError
from ks_lottery.ticket.identity import identify
from ks_lottery.ticket.ticket import Provenance, Selection, Ticket
from ks_lottery.units.slab import Slab, UnitGroup
from tests.adapter.tickets import INPUT_ROWS, KINDS, OUTPUT_ROWS, logits, make_ticket, tiny_gpt2, trainable, tuned
from tests.tiny_models import VOCABULARY, WIDTH, tiny_llama

DELTA = "base_model.model.{}.ks_ticket_delta.default"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("tied", "ends"), KINDS)
def test_only_the_ticket_trains_and_nothing_changes_at_first(
    tied: bool, ends: str | None, dtype: torch.dtype, tokens: Tensor
) -> None:
    base = tiny_llama(tied=tied, dtype=dtype).eval()
    before = logits(base, tokens)
    ticket = make_ticket(base, ends)
    model = attach_ticket(base, ticket)
    expected = {}
    if ends != "output":
        expected[DELTA.format("model.embed_tokens")] = (len(INPUT_ROWS), WIDTH)
    if ends in ("output", "both"):
        expected[DELTA.format("lm_head")] = (len(OUTPUT_ROWS), WIDTH)
    assert isinstance(model, PeftModelForCausalLM)
    assert trainable(model) == expected
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert model.get_nb_trainable_parameters()[0] == ticket.num_trainable()
    assert torch.equal(logits(model, tokens), before)
    assert model.peft_config["default"].ticket == ticket.fingerprint


def test_a_tied_head_follows_the_input_rows(tokens: Tensor) -> None:
    model = tuned(tiny_llama(tied=True))
    base = model.get_base_model()
    assert isinstance(base.model.embed_tokens, RowLayer)
    assert isinstance(base.lm_head, TiedRowLayer)
    assert base.lm_head.weight is base.model.embed_tokens.weight
    with model.disable_adapter():
        before = logits(model, tokens)
    after = logits(model, tokens)
    assert not torch.equal(before[..., INPUT_ROWS], after[..., INPUT_ROWS])


def test_a_base_model_rounded_to_bfloat16_is_the_same_base_model() -> None:
    ticket = make_ticket(tiny_llama())
    assert attach_ticket(tiny_llama(dtype=torch.bfloat16), ticket).dtype == torch.bfloat16


def test_another_base_model_is_refused_unless_asked_for() -> None:
    ticket = make_ticket(tiny_llama(seed=1))
    with pytest.raises(TicketError, match="the same architecture and shapes, but other weights"):
        attach_ticket(tiny_llama(), ticket)
    assert trainable(attach_ticket(tiny_llama(), ticket, check_base=False))


def test_gpt2_trains_both_ends_of_its_tied_matrix(tokens: Tensor) -> None:
    base = tiny_gpt2()
    before = logits(base, tokens)
    model = attach_ticket(base, make_ticket(base))
    assert list(trainable(model)) == [DELTA.format("transformer.wte")]
    assert torch.equal(logits(model, tokens), before)
    model(input_ids=tokens, labels=tokens).loss.backward()
    delta = model.get_base_model().transformer.wte.ks_ticket_delta["default"]
    assert (delta.grad.abs().sum(dim=1) > 0).all()


def bart() -> nn.Module:
    torch.manual_seed(0)
    size = {"d_model": WIDTH, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "scale_embedding": True}
    config = BartConfig(vocab_size=VOCABULARY, max_position_embeddings=32, pad_token_id=1, **size, **heads)
    return BartForConditionalGeneration(config).eval()


def t5() -> nn.Module:
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=VOCABULARY, d_model=WIDTH, d_kv=8, d_ff=48, num_layers=1, num_heads=2, decoder_start_token_id=0
    )
    return T5ForConditionalGeneration(config).eval()


@pytest.mark.parametrize("build", [bart, t5])
def test_encoder_decoders_follow_in_every_shared_embedding(build: Callable[[], Any], tokens: Tensor) -> None:
    base = build()
    model = tuned(base)
    assert isinstance(model, PeftModelForSeq2SeqLM)
    inputs = {"input_ids": tokens, "decoder_input_ids": tokens}
    with torch.no_grad():
        unmerged = model(**inputs).logits
        merged = model.merge_and_unload()(**inputs).logits
    torch.testing.assert_close(unmerged, merged, rtol=1e-5, atol=1e-5)
    untouched = build()
    with torch.no_grad():
        assert not torch.allclose(untouched(**inputs).logits, merged, atol=1e-3)


def test_a_classifier_trains_its_head_beside_the_rows() -> None:
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4
    )
    base = LlamaForSequenceClassification(config)
    model = attach_ticket(base, make_ticket(base))
    assert isinstance(model, PeftModelForSequenceClassification)
    assert set(trainable(model)) == {
        DELTA.format("model.embed_tokens"),
        "base_model.model.score.modules_to_save.default.weight",
    }


def test_task_types() -> None:
    assert task_type(tiny_gpt2()) == "CAUSAL_LM"
    assert task_type(t5()) == "SEQ_2_SEQ_LM"
    assert task_type(LlamaModel(tiny_llama().config)) is None


def drawn(model: nn.Module, **changes: Any) -> Ticket:
    """A ticket of this model with some attributes replaced."""
    ticket = make_ticket(model)
    fields = {name: changes.get(name, getattr(ticket, name)) for name in Ticket.__dataclass_fields__}
    return Ticket(**fields)


def test_weight_tickets_are_refused() -> None:
    with pytest.raises(AdapterError, match="is a 'weight' ticket .found by 'by hand'.: what it does not select"):
        attach_ticket(tiny_llama(), drawn(tiny_llama(), kind="weight"))


def test_a_ticket_of_everything_is_refused() -> None:
    with pytest.raises(AdapterError, match="Every one of the ticket's 64 rows is selected; this is embed tuning"):
        attach_ticket(tiny_llama(), make_ticket(tiny_llama(), rows=[range(VOCABULARY)]))


def test_a_resized_vocabulary_is_refused_with_both_sizes() -> None:
    model = tiny_llama()
    ticket = make_ticket(model)
    model.resize_token_embeddings(VOCABULARY - 8)
    with pytest.raises(AdapterError, match=r"shape \(56, 32\).*but \(64, 32\).*up to 63.*embeddings\(64\)"):
        attach_ticket(model, ticket)


def test_another_width_is_refused() -> None:
    wide = LlamaConfig(vocab_size=VOCABULARY, hidden_size=64, num_hidden_layers=1, num_attention_heads=4)
    with pytest.raises(AdapterError, match="Load the base model that the ticket was found on"):
        attach_ticket(type(tiny_llama())(wide), make_ticket(tiny_llama()))


def test_another_architecture_is_refused() -> None:
    with pytest.raises(AdapterError, match=r"rows of 'model.embed_tokens.weight', which the model .* does not have"):
        attach_ticket(tiny_gpt2(), make_ticket(tiny_llama()))


def test_a_model_that_is_tied_otherwise_is_refused() -> None:
    with pytest.raises(AdapterError, match="does not tie its input embedding and output head, but .* that does"):
        attach_ticket(tiny_llama(), make_ticket(tiny_llama(tied=True)))
    with pytest.raises(AdapterError, match="ties its input embedding and output head, but .* that does not"):
        attach_ticket(tiny_llama(tied=True), make_ticket(tiny_llama()))


def test_a_plain_module_is_refused() -> None:
    with pytest.raises(AdapterError, match="Linear is no transformers model"):
        attach_ticket(nn.Linear(2, 2), make_ticket(tiny_llama()))


def test_another_type_of_adapter_is_refused() -> None:
    base = tiny_llama()
    ticket = make_ticket(base)
    model = get_peft_model(base, LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
    with pytest.raises(AdapterError, match=r"adapter of type LORA, and PEFT does not mix types.*merge_and_unload"):
        attach_ticket(model, ticket)
    merged = model.merge_and_unload()
    assert list(trainable(attach_ticket(merged, ticket))) == [DELTA.format("model.embed_tokens")]


def test_a_merged_ticket_must_be_unmerged_first() -> None:
    base = tiny_llama()
    ticket = make_ticket(base)
    model = tuned(base)
    model.merge_adapter()
    with pytest.raises(AdapterError, match="The adapters default are merged into the model.*unmerge_adapter"):
        attach_ticket(model, ticket, "second")


def test_empty_groups_of_a_ticket_are_left_alone() -> None:
    base = tiny_llama()
    model = attach_ticket(base, make_ticket(base, "both", rows=[INPUT_ROWS, []]))
    assert list(trainable(model)) == [DELTA.format("model.embed_tokens")]


def test_a_ticket_of_wide_slabs_trains_every_row_of_a_unit() -> None:
    base = tiny_llama()
    parameter = "model.embed_tokens.weight"
    group = UnitGroup("input", (Slab(parameter, dim=0, width=2),), num_units=VOCABULARY // 2)
    identity = identify(ModelCheckpoint(base), [parameter])
    selection = {"input": Selection(group, np.array([0, 5]))}
    model = attach_ticket(base, Ticket("update", "token_rows", selection, identity, Provenance("by hand")))
    index = model.get_base_model().model.embed_tokens.ks_ticket_index["default"]
    assert index.tolist() == [0, 1, 10, 11]
