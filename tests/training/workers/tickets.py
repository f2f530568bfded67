"""Tickets of several kinds, and one way to train them that does not depend on the number of processes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import PreTrainedModel, Trainer, TrainingArguments, set_seed

from ks_lottery.adapter.attach import attach_ticket
from ks_lottery.ticket.ticket import Ticket
from ks_lottery.training.frozen import FrozenWeights
from tests.adapter.mixed_tickets import hand_drawn, llama_groups
from tests.adapter.tickets import INPUT_ROWS, OUTPUT_ROWS, make_ticket
from tests.tiny_models import VOCABULARY, tiny_llama

STEPS, GLOBAL_BATCH = 4, 4
KINDS = ("token_rows", "tied_token_rows", "heads", "mixed")


class Sentences(Dataset[dict[str, Tensor]]):
    """Random token sequences that hold every row of the tickets."""

    def __init__(self) -> None:
        rows = torch.tensor(sorted({*INPUT_ROWS, *OUTPUT_ROWS}))
        self.tokens = torch.randint(VOCABULARY, (16, 10), generator=torch.Generator().manual_seed(0))
        self.tokens[:, : len(rows)] = rows

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        return {"input_ids": self.tokens[number], "labels": self.tokens[number]}


def base_model(kind: str) -> PreTrainedModel:
    """The model that a ticket of this kind is for."""
    return tiny_llama(tied=kind == "tied_token_rows")


def ticket(kind: str) -> Ticket:
    """A ticket of token rows at both ends, of those of tied embeddings, of heads, or of everything together."""
    model = base_model(kind)
    if kind == "heads":
        return hand_drawn(model, [group for group in llama_groups() if group[0].endswith("heads")])
    if kind == "mixed":
        return hand_drawn(model, llama_groups())
    return make_ticket(model, None if kind == "tied_token_rows" else "both")


def trainer_of(model: nn.Module, folder: Path, processes: int, **options: Any) -> Trainer:
    """A stock Trainer whose batches, over all processes, are the same whatever their number."""
    set_seed(0)
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=STEPS,
        per_device_train_batch_size=GLOBAL_BATCH // processes,
        learning_rate=1e-2,
        weight_decay=0.1,
        lr_scheduler_type="constant",
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        **{"save_strategy": "no", **options},
    )
    return Trainer(model=model, args=arguments, train_dataset=Sentences())


def train(kind: str, folder: Path, processes: int) -> PeftModel:
    """Attach a ticket and train it; what is frozen must stay bit-identical."""
    model = attach_ticket(base_model(kind), ticket(kind))
    frozen = FrozenWeights(model)
    assert len(frozen) > 0
    trainer_of(model, folder, processes).train()
    frozen.check(model, "after training")
    return model


def trained_values(model: nn.Module) -> Mapping[str, Tensor]:
    """Copies of everything that was trained, by name."""
    return {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of training by hand."""
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.1)


def batches() -> list[dict[str, Tensor]]:
    """The batches of training by hand."""
    return [{"input_ids": part, "labels": part} for part in Sentences().tokens.split(GLOBAL_BATCH)][:STEPS]


def train_by_hand(kind: str) -> PeftModel:
    """Attach a ticket and train it in one process, without a Trainer."""
    model = attach_ticket(base_model(kind), ticket(kind))
    optimizer = adamw(model)
    for batch in batches():
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model
