"""Token rows on a base whose linear layers are quantised, and the refusal of slices of those layers."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel, prepare_model_for_kbit_training
from torch import Tensor, nn
from transformers import PreTrainedModel

from ks_lottery.adapter.attach import attach_ticket
from ks_lottery.adapter.config import LotteryConfig
from ks_lottery.errors import AdapterError
from tests.adapter.test_training import train
from tests.adapter.tickets import INPUT_ROWS, logits, make_ticket
from tests.tiny_models import tiny_llama


class Int8Linear(nn.Module):
    """A linear layer whose matrix is bytes and one scale per output, as in LLM.int8."""

    def __init__(self, source: nn.Linear) -> None:
        super().__init__()
        scale = source.weight.detach().abs().amax(dim=1, keepdim=True) / 127
        self.weight = nn.Parameter((source.weight.detach() / scale).round().to(torch.int8), requires_grad=False)
        self.register_buffer("scale", scale)

    def forward(self, hidden: Tensor) -> Tensor:
        return nn.functional.linear(hidden, self.weight.to(hidden.dtype) * self.scale)


def quantised_llama() -> PreTrainedModel:
    """A llama whose body is quantised and whose embeddings are not."""
    model = tiny_llama()
    for parent in [module for name, module in model.named_modules() if name.endswith(("self_attn", "mlp"))]:
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear):
                setattr(parent, name, Int8Linear(child))
    model.is_loaded_in_8bit = True
    return model


@pytest.mark.parametrize("prepared", [False, True])
def test_rows_train_on_a_quantised_body(prepared: bool, tmp_path: Path, tokens: Tensor) -> None:
    base = quantised_llama()
    if prepared:
        base = prepare_model_for_kbit_training(base, use_gradient_checkpointing=False)
    before = {name: value.detach().clone() for name, value in base.named_parameters()}
    model = attach_ticket(base, make_ticket(tiny_llama(), "both"))
    train(model, tmp_path / "run", steps=3, weight_decay=0.1)
    moved = [name for name, value in model.named_parameters() if value.requires_grad]
    assert len(moved) == 2
    for name, value in before.items():
        frozen = model.base_model.model.get_parameter(name.replace("tokens.", "tokens.base_layer.").replace(
            "lm_head.", "lm_head.base_layer."))  # fmt: skip
        assert torch.equal(frozen, value)
    model.eval()
    expected = logits(model, tokens)
    model.save_pretrained(tmp_path / "adapter")
    loaded = PeftModel.from_pretrained(quantised_llama(), str(tmp_path / "adapter")).eval()
    torch.testing.assert_close(logits(loaded, tokens), expected, rtol=0, atol=1e-6)
    merged = model.merge_and_unload()
    torch.testing.assert_close(logits(merged, tokens), expected, rtol=0, atol=1e-5)
    rows = merged.model.embed_tokens.weight[INPUT_ROWS]
    assert not torch.equal(rows, before["model.embed_tokens.weight"][INPUT_ROWS])


def test_slices_of_a_quantised_matrix_are_refused() -> None:
    model = quantised_llama()
    config = LotteryConfig(column_positions={"model.layers.0.mlp.down_proj": [3]}, task_type="CAUSAL_LM")
    with pytest.raises(AdapterError, match="'model.layers.0.mlp.down_proj' is a .*Int8Linear"):
        PeftModel(model, config)
    assert not any("ks_ticket" in name for name, _ in model.named_parameters())
