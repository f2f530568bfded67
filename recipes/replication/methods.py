"""The methods of the study: how each trains on one direction and seed, and how its model is loaded again."""

import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from method import saved_size
from peft import LoraConfig, PeftModel, PrefixTuningConfig, TrainableTokensConfig, get_peft_model
from transformers import Trainer, TrainingArguments
from typing_extensions import override

from ks_lottery.adapter.attach import attach_ticket
from ks_lottery.adapter.fit import chosen_rows
from ks_lottery.adapter.transfer import read_rows, transfer_ticket
from ks_lottery.checkpoints.reader import open_checkpoint
from ks_lottery.training.arguments import probe_arguments
from ks_lottery.training.cost import measure
from ks_lottery.training.probe import probe
from ks_lottery.training.shared_prefix import shared_prefix
from replication.bench import Bench
from replication.laboratory import Laboratory
from replication.measure import translate
from replication.shift import row_shift
from replication.tickets import rows_of


@dataclass(frozen=True)
class Method(ABC):
    """One row of the main table.

    Attributes:
        title: how the table calls it.
        ticket: name of the ticket that it uses; "" for none.
    """

    title: str
    ticket: str = ""

    @abstractmethod
    def load(self, lab: Laboratory, direction: str, seed: int, folder: Path) -> Any:
        """The model to test; `folder` is what `train` filled, of methods that train."""


@dataclass(frozen=True)
class Trained(Method):
    """A method that trains.

    Attributes:
        rates: key of the learning rates to try; "rows" for those of its number of rows.
        prompt: paraphrase that it is tuned on; "" for the study's prompt.
        rate_of: method with as many rows whose chosen rate it takes over; "" where it tries its own.
    """

    rates: str = "rows"
    prompt: str = ""
    rate_of: str = ""

    @abstractmethod
    def train(self, lab: Laboratory, direction: str, seed: int, rate: float, folder: Path) -> None:
        """Leave the trained weights in a folder."""

    def tries(self, lab: Laboratory, direction: str, seed: int) -> tuple[float, ...]:
        """Learning rates to try."""
        if self.rates != "rows":
            return lab.setting.rates[self.rates]
        ticket = lab.ticket(direction, seed, self.ticket)
        return lab.setting.rates_of_rows(0 if ticket is None else len(ticket))

    def steps(self, bench: Bench, seed: int) -> int:
        """Optimizer steps of a training."""
        size = len(bench.examples(seed, self.prompt))
        return -(-size // bench.setting.batch_size) * bench.setting.epochs


@dataclass(frozen=True)
class Base(Method):
    """The pretrained model as it is."""

    @override
    def load(self, lab: Laboratory, direction: str, seed: int, folder: Path) -> Any:
        return lab.bench(direction).base()


@dataclass(frozen=True)
class Dense(Trained):
    """Tuning of a whole scope: the probe.

    Attributes:
        scope: embedding or full.
        beta2: of Adam; the study's if None.
    """

    scope: str = "embedding"
    beta2: float | None = None

    @override
    def train(self, lab: Laboratory, direction: str, seed: int, rate: float, folder: Path) -> None:
        bench = lab.bench(direction)
        model = bench.base()
        arguments = training_arguments(bench, seed, rate, folder, self.beta2)
        with shared_prefix(model):
            probe(model, bench.examples(seed, self.prompt), folder / "probe", self.scope, arguments,
                  bench.tokenizer, bench.collator)  # fmt: skip
        if self.scope == "embedding":
            row_shift(folder / "probe" / "before", folder / "probe" / "after").save(folder)

    @override
    def load(self, lab: Laboratory, direction: str, seed: int, folder: Path) -> Any:
        return lab.bench(direction).base(folder / "probe" / "after")


@dataclass(frozen=True)
class Adapter(Trained):
    """An adapter of PEFT, trained by a stock Trainer."""

    shares_prefix = True

    @override
    def train(self, lab: Laboratory, direction: str, seed: int, rate: float, folder: Path) -> None:
        bench = lab.bench(direction)
        torch.manual_seed(seed)
        model = self.attach(lab, direction, seed, bench.base())
        trainer = Trainer(
            model=model,
            args=training_arguments(bench, seed, rate, folder),
            train_dataset=bench.examples(seed, self.prompt),
            data_collator=bench.collator,
        )
        if self.shares_prefix:
            with shared_prefix(model):
                trainer.train()
        else:
            trainer.train()
        with warnings.catch_warnings():
            # Heads and norms have no form for plain PEFT; the study loads them with this library.
            warnings.filterwarnings("ignore", "The adapter .* is saved without a form for plain PEFT")
            model.save_pretrained(folder / "adapter")

    @override
    def load(self, lab: Laboratory, direction: str, seed: int, folder: Path) -> Any:
        return PeftModel.from_pretrained(lab.bench(direction).base(), folder / "adapter")

    @abstractmethod
    def attach(self, lab: Laboratory, direction: str, seed: int, base: Any) -> Any:
        """The base model with the untrained adapter."""


@dataclass(frozen=True)
class Units(Adapter):
    """Partial tuning: exactly the units of a ticket."""

    @override
    def attach(self, lab: Laboratory, direction: str, seed: int, base: Any) -> Any:
        ticket = lab.ticket(direction, seed, self.ticket)
        assert ticket is not None
        return attach_ticket(base, ticket)


@dataclass(frozen=True)
class TrainableTokens(Adapter):
    """PEFT's TrainableTokens on the rows of a ticket."""

    @override
    def attach(self, lab: Laboratory, direction: str, seed: int, base: Any) -> Any:
        ticket = lab.ticket(direction, seed, self.ticket)
        assert ticket is not None
        config = TrainableTokensConfig(token_indices=rows_of(ticket).tolist(), task_type="CAUSAL_LM")
        return get_peft_model(base, config)


@dataclass(frozen=True)
class Lora(Adapter):
    """PEFT's LoRA.

    Attributes:
        rank: of the update.
        targets: module names; all linear layers of the blocks if empty.
        layers: numbers of the blocks; all if empty.
    """

    rank: int = 8
    targets: tuple[str, ...] = ()
    layers: tuple[int, ...] = ()

    @override
    def attach(self, lab: Laboratory, direction: str, seed: int, base: Any) -> Any:
        config = LoraConfig(
            r=self.rank,
            lora_alpha=2 * self.rank,
            target_modules=list(self.targets) or "all-linear",
            layers_to_transform=list(self.layers) or None,
            task_type="CAUSAL_LM",
        )
        return get_peft_model(base, config)


@dataclass(frozen=True)
class Prefix(Adapter):
    """PEFT's prefix tuning: keys and values of virtual tokens in every layer.

    Attributes:
        tokens: how many virtual tokens.
    """

    tokens: int = 8
    shares_prefix = False

    @override
    def attach(self, lab: Laboratory, direction: str, seed: int, base: Any) -> Any:
        return get_peft_model(base, PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=self.tokens))


@dataclass(frozen=True)
class Transfer(Method):
    """Partial transfer: the ticket's rows as the probe left them; nothing trains.

    Attributes:
        probe: method whose trained weights are copied.
    """

    probe: str = "embed"

    @override
    def load(self, lab: Laboratory, direction: str, seed: int, folder: Path) -> Any:
        ticket = lab.ticket(direction, seed, self.ticket)
        assert ticket is not None
        return transfer_ticket(lab.bench(direction).base(), ticket, self._after(lab, direction, seed))

    def size(self, lab: Laboratory, direction: str, seed: int) -> dict[str, int]:
        """Trained weights, none, and bytes of the rows that are copied."""
        ticket = lab.ticket(direction, seed, self.ticket)
        assert ticket is not None
        source = open_checkpoint(self._after(lab, direction, seed))
        bytes_ = sum(read_rows(source, parameter, rows).nbytes for parameter, rows in chosen_rows(ticket))
        return {"trainable": 0, "adapter_bytes": bytes_}

    def _after(self, lab: Laboratory, direction: str, seed: int) -> Path:
        return lab.folder(direction, seed, self.probe) / "probe" / "after"


def tune_cell(
    lab: Laboratory, name: str, method: Trained, direction: str, seed: int, attempt: int | None, folder: Path
) -> dict[str, Any]:
    """Train a method and score it on the development sentences.

    Args:
        lab: of the study.
        name: of the method.
        method: what trains.
        direction: on which.
        seed: of the training pairs, their order and initial values.
        attempt: which of the learning rates; None for the one that was best where rates are tried.
        folder: run directory.

    Returns:
        rate, scores, size and cost; only `empty`, the reason, where the ticket has no units.
    """
    if method.ticket and lab.ticket(direction, seed, method.ticket) is None:
        return {"empty": lab.cells.result(lab.ticket_cell(direction, seed, method.ticket))["empty"], "rate": 0.0}
    bench = lab.bench(direction)
    if attempt is None:
        rate = lab.chosen_rate(direction, name) or method.tries(lab, direction, seed)[0]
    else:
        rate = method.tries(lab, direction, seed)[attempt]
    with measure() as cost:
        method.train(lab, direction, seed, rate, folder)
    result = {
        "rate": rate,
        "train_seconds": cost.seconds,
        "peak_bytes": cost.peak_bytes,
        "steps": method.steps(bench, seed),
        **saved_size(folder),
    }
    if attempt is not None:
        model = method.load(lab, direction, seed, folder)
        scores = translate(bench, model, bench.dev, method.prompt)
        result |= {"dev_bleu": scores.bleu_whole, "dev_stop_rate": scores.stop_rate}
    return result


def training_arguments(
    bench: Bench, seed: int, rate: float, folder: Path, beta2: float | None = None
) -> TrainingArguments:
    """Arguments of every training of the study; Adam's beta2 is the setting's unless one is given."""
    setting = bench.setting
    return probe_arguments(
        folder / "trainer",
        learning_rate=rate,
        num_train_epochs=setting.epochs,
        per_device_train_batch_size=setting.batch_size,
        adam_beta2=beta2 or setting.adam_beta2,
        seed=seed,
        train_sampling_strategy="group_by_length",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )
