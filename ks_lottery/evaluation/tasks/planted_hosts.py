"""The models that tickets are planted in, a perceptron and a tiny GPT-2: a seed gives the same ones everywhere."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoConfig, GPT2Config, GPT2LMHeadModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput, SequenceClassifierOutput

from ks_lottery.theory.relu_network import ReluNetwork

VOCABULARY, LENGTH, HEADS = 64, 16, 4
_DEVIATION, _MATRICES = 0.02, 5.0


class PerceptronConfig(PreTrainedConfig):
    """Widths of the layers of a perceptron, input and output included, and what its outputs are multiplied by."""

    model_type = "planted_perceptron"

    def __init__(self, widths: Sequence[int] = (1, 1), scale: Sequence[float] = (1.0,), **options: Any) -> None:
        super().__init__(**options)
        self.widths = list(widths)
        self.scale = list(scale)


class HostPerceptron(PreTrainedModel):
    """Linear layers with ReLU between them; cross entropy of whole labels, squared error of others."""

    config_class = PerceptronConfig

    def __init__(self, config: PerceptronConfig) -> None:
        super().__init__(config)
        self.layers = nn.ModuleList(nn.Linear(inputs, outputs) for inputs, outputs in pairwise(config.widths))
        self.post_init()

    def forward(
        self,
        x: torch.Tensor,
        labels: torch.Tensor | None = None,
        output_hidden_states: bool = False,
        return_dict: bool = True,
    ) -> SequenceClassifierOutput:
        """Outputs of a batch [examples, inputs], and the loss if there are labels."""
        states = [x]
        for layer in self.layers[:-1]:
            states.append(torch.relu(layer(states[-1])))
        outputs = self.layers[-1](states[-1]) * torch.tensor(self.config.scale, dtype=x.dtype, device=x.device)
        loss = None
        if labels is not None:
            measure = nn.functional.mse_loss if labels.is_floating_point() else nn.functional.cross_entropy
            loss = measure(outputs, labels)
        seen = tuple(states) if output_hidden_states else None
        return SequenceClassifierOutput(loss=loss, logits=outputs, hidden_states=seen)


class HostTransformer(GPT2LMHeadModel):
    """A GPT-2 that learns logits: the loss is the mean squared error to those of a teacher."""

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        output_hidden_states: bool = False,
        return_dict: bool = True,
    ) -> CausalLMOutput:
        """Logits of a batch [examples, tokens], and the loss if there are labels [examples, tokens, vocabulary]."""
        given = {"input_ids": input_ids, "attention_mask": attention_mask, "inputs_embeds": inputs_embeds}
        seen = super().forward(**given, use_cache=False, output_hidden_states=output_hidden_states, return_dict=True)
        loss = None if labels is None else nn.functional.mse_loss(seen.logits, labels)
        return CausalLMOutput(loss=loss, logits=seen.logits, hidden_states=seen.hidden_states)


AutoConfig.register("planted_perceptron", PerceptronConfig, exist_ok=True)


def host_perceptron(network: ReluNetwork) -> HostPerceptron:
    """A perceptron with the values of a network, in float32."""
    model = HostPerceptron(PerceptronConfig(network.widths, network.scale.tolist()))
    with torch.no_grad():
        for layer, weight, bias in zip(model.layers, network.weights, network.biases, strict=True):
            assert isinstance(layer, nn.Linear)
            layer.weight.copy_(torch.from_numpy(weight))
            layer.bias.copy_(torch.from_numpy(bias))
    return model


def host_transformer(seed: int, layers: int = 2, width: int = 32) -> HostTransformer:
    """A random GPT-2 without dropout whose embeddings and head are two matrices.

    Args:
        seed: of the weights: from N(0, .02), projections into the residual stream smaller by sqrt(2 layers) as in
            GPT-2, and all matrices of the blocks times 5, so that attention and neurons do something; biases are 0.
        layers: number of blocks.
        width: of the hidden states; four heads share it.
    """
    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=LENGTH, n_embd=width, n_layer=layers, n_head=HEADS, resid_pdrop=0.0,
        embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0, tie_word_embeddings=False,
        attn_implementation="eager",
    )  # fmt: skip
    model = HostTransformer(config)
    generator = np.random.default_rng([seed, 2])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() < 2:
                continue
            deviation = _DEVIATION * (_MATRICES if ".h." in name else 1.0)
            deviation /= math.sqrt(2.0 * layers) if name.endswith("c_proj.weight") else 1.0
            parameter.copy_(torch.from_numpy(deviation * generator.standard_normal(tuple(parameter.shape))))
    return model
