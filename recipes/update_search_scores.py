"""How near a model's predictions on held-out sentences are to another's; and the lines that keep such scores."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ks_lottery.evaluation.inference import inference_mode
from ks_lottery.evaluation.tasks.translation import TranslationTask
from ks_lottery.training.examples import IGNORED_LABEL, response_examples

_PER_BATCH = 25


@dataclass(frozen=True)
class PredictedTokens:
    """Predictions of every response token, given the true ones before it.

    Attributes:
        log_p: [tokens, vocabulary] float32.
        labels: [tokens] int64, the true tokens.
    """

    log_p: Tensor
    labels: Tensor

    def against(self, dense: "PredictedTokens") -> dict[str, float]:
        """Distance to the predictions of the dense model, mean over tokens.

        Returns:
            `kl`, the reverse divergence KL(self || dense) in nats, and `forward_kl`, KL(dense || self); `agreement`,
            the share of tokens of which both find the same the most likely; `accuracy` and `loss` by the true tokens.
        """
        mine, theirs = self.log_p, dense.log_p
        best = mine.argmax(-1)
        return {
            "kl": float((mine.exp() * (mine - theirs)).sum(-1).mean()),
            "forward_kl": float((theirs.exp() * (theirs - mine)).sum(-1).mean()),
            "agreement": float((best == theirs.argmax(-1)).float().mean()),
            "accuracy": float((best == self.labels).float().mean()),
            "loss": float(-mine.gather(1, self.labels[:, None]).mean()),
        }


class HeldOut:
    """The test sentences of a task, each with its first translation."""

    def __init__(self, task: TranslationTask) -> None:
        first: dict[str, str] = {}
        for source, target in task.test:
            first.setdefault(source, target)
        examples = response_examples(list(first.items()), task.tokenizer, task.template).examples
        parts = [examples[start : start + _PER_BATCH] for start in range(0, len(examples), _PER_BATCH)]
        self._batches = [task.collator(part) for part in parts]

    def predict(self, model: Any) -> PredictedTokens:
        """Predictions of a model, in evaluation mode."""
        log_p, labels = [], []
        with inference_mode(model):
            for batch in self._batches:
                answers = batch["labels"][:, 1:]
                counts = answers != IGNORED_LABEL
                logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
                log_p.append(logits[counts].float().log_softmax(-1))
                labels.append(answers[counts])
        return PredictedTokens(torch.cat(log_p), torch.cat(labels))


def add_line(file: Path, line: Mapping[str, Any]) -> None:
    """Add a line of JSON in one write."""
    with file.open("ab", buffering=0) as lines:
        lines.write(json.dumps(line).encode() + b"\n")
        os.fsync(lines.fileno())


def lines_of(file: Path) -> list[dict[str, Any]]:
    """All whole lines of a file; none if it does not exist.

    What a killed process left of a last line is cut off, so that the next one stands on its own.
    """
    if not file.is_file():
        return []
    content = file.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.truncate(file, len(whole))
    return [json.loads(line) for line in whole.splitlines()]
