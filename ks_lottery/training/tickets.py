"""Partial tuning in one call: a stock Trainer on the adapter of a ticket."""

from typing import Any

import torch
from transformers import PrinterCallback, Trainer, TrainingArguments

from ks_lottery.adapter.attach import attach_ticket
from ks_lottery.ticket.ticket import Ticket


def train_ticket(model: Any, ticket: Ticket, dataset: Any, arguments: TrainingArguments, collator: Any) -> Any:
    """Make exactly a ticket trainable, and train it.

    Args:
        model: the base model; changed in place.
        ticket: an update ticket.
        dataset: tokenised examples.
        arguments: of the Trainer; their seed is that of dropout and data order.
        collator: of the Trainer.

    Returns:
        the tuned `PeftModel`.

    Raises:
        AdapterError, TicketError: as `attach_ticket`.
    """
    torch.manual_seed(arguments.seed)
    tuned = attach_ticket(model, ticket)
    trainer = Trainer(model=tuned, args=arguments, train_dataset=dataset, data_collator=collator)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return tuned
