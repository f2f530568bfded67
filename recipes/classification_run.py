"""The stages of a classification run: classifier, probe, heads, tuning, test, report."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from classification_base import Encoder, classifier_weights
from classification_data import ClassificationData, DataArguments, LabelledText, load_classification_data
from classification_heads import HeadTickets, find_heads
from classification_options import EvaluationArguments, ModelArguments, TicketArguments, TuningArguments
from classification_report import FROZEN_ENCODER, Tested, write_classification_report
from method import Method, slug
from peft import LoraConfig, PeftModel, get_peft_model
from stages import Stages, processes
from transformers import DataCollatorWithPadding, PreTrainedModel, Trainer, TrainingArguments
from translation_base import device_name
from tuning import best_rate, steps_of, train_adapter, train_probe, trainer_arguments

from ks_lottery.adapter.attach import attach_ticket
from ks_lottery.checkpoints.reader import FolderCheckpoint
from ks_lottery.checkpoints.writer import write_json
from ks_lottery.evaluation.classification import ClassificationScores, evaluate_classification
from ks_lottery.report.results import FULL_TUNING, LORA
from ks_lottery.ticket.ticket import Ticket
from ks_lottery.training.probe import newest_checkpoint
from ks_lottery.training.probe_folders import write_whole_checkpoint
from ks_lottery.training.scope import only_trainable


class ClassificationRun:
    """One run in one folder.

    Args:
        folder: of the run; finished stages are found there again.
        model: the pretrained model.
        data: the labelled texts.
        ticket: how the tickets are found.
        tuning: how methods are trained.
        evaluation: how they are scored.
    """

    def __init__(
        self,
        folder: str | Path,
        model: ModelArguments,
        data: DataArguments,
        ticket: TicketArguments,
        tuning: TuningArguments,
        evaluation: EvaluationArguments,
    ) -> None:
        self.ticket, self.tuning, self.evaluation = ticket, tuning, evaluation
        self.state = processes()
        self.stages = Stages(folder)
        self.texts: ClassificationData = load_classification_data(data)
        self.encoder = Encoder(model, self.texts.labels, tuning.seed, self.state.device)
        self.tokenizer = self.encoder.tokenizer
        self.collator = DataCollatorWithPadding(self.tokenizer)
        self.inputs = {
            "model": self.encoder.digest,
            "data": self.texts.digest,
            "seed": tuning.seed,
            "max_length": tuning.max_length,
            "batch_size": tuning.batch_size,
            "beta2": tuning.adam_beta2,
        }

    def tune_classifier(self) -> Method:
        """Train a new classifier on the frozen encoder: the baseline, and where all other methods start."""

        def train(folder: Path, rate: float) -> None:
            model = self.encoder.new()
            checkpoints = folder / "trainer"
            with only_trainable(model, classifier_weights(model)):
                trainer = Trainer(
                    model=model,
                    args=self._arguments(checkpoints, rate, self.tuning.classifier_epochs),
                    train_dataset=self.examples,
                    data_collator=self.collator,
                )
                trainer.train(resume_from_checkpoint=newest_checkpoint(checkpoints))
            if self.state.is_main_process:
                trained = list(classifier_weights(model))
                write_whole_checkpoint(folder / "model", model, model.config, trained, self.tokenizer)
            self.state.wait_for_everyone()

        epochs = self.tuning.classifier_epochs
        return self._tune(FROZEN_ENCODER, {"epochs": epochs}, self.tuning.classifier_rates, train, self._whole("model"))

    def tune_full(self, start: Method) -> Method:
        """Train every weight: the probe."""

        def train(folder: Path, rate: float) -> None:
            arguments = self._arguments(folder / "probe" / "trainer", rate, self.tuning.epochs)
            train_probe(start.load(), self.examples, folder, "full", arguments, self.tokenizer, self.collator)

        inputs = {"start": start.identity, "epochs": self.tuning.epochs}
        return self._tune(FULL_TUNING, inputs, self.tuning.full_rates, train, self._whole("probe/after"))

    def find(self, full: Method) -> HeadTickets:
        """Find the tickets between the two ends of the probe; the first process finds, all load."""
        assert full.folder is not None
        before = FolderCheckpoint(full.folder / "probe" / "before", name=self.encoder.title)
        after = full.folder / "probe" / "after"

        def make(folder: Path) -> None:
            if self.state.is_main_process:
                found = find_heads(before, after, self.ticket.top_k, self.ticket.control_seed)
                for name, ticket in found.tickets.items():
                    ticket.save(folder / slug(name))
                write_json(folder / "heads.json", {"heads": list(found.heads), "tickets": list(found.tickets)})

        inputs = {"full": full.identity, "top_k": self.ticket.top_k, "control_seed": self.ticket.control_seed}
        folder = self.stages.run("tickets", inputs, make)
        kept = json.loads((folder / "heads.json").read_text(encoding="utf-8"))
        tickets = {name: Ticket.load(folder / slug(name)) for name in kept["tickets"]}
        for name, ticket in tickets.items():
            self._say(f"{name}: {ticket}")
        return HeadTickets(tickets, kept["heads"])

    def tune_heads(self, name: str, ticket: Ticket, start: Method) -> Method:
        """Train exactly the heads of a ticket, and the classifier beside them."""
        inputs = {"ticket": ticket.fingerprint}
        return self._tune_adapter(name, inputs, self.tuning.head_rates, start, lambda base: attach_ticket(base, ticket))

    def tune_lora(self, start: Method) -> Method:
        """LoRA of rank 8 on every linear layer but the classifier, which PEFT trains beside it."""
        settings: dict[str, Any] = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear"}
        config = LoraConfig(**settings, task_type="SEQ_CLS")
        return self._tune_adapter(
            LORA, {"lora": settings}, self.tuning.lora_rates, start, lambda base: get_peft_model(base, config)
        )

    def test(self, method: Method) -> Tested:
        """Score a method on the test set."""

        def make(folder: Path) -> None:
            scores = self._score(method.load(), self.texts.test)
            if self.state.is_main_process:
                write_json(folder / "scores.json", scores.to_dict())

        batch = self.evaluation.evaluation_batch_size
        folder = self.stages.run(f"test/{slug(method.name)}", {"method": method.identity, "batch": batch}, make)
        scores = ClassificationScores.from_dict(json.loads((folder / "scores.json").read_text(encoding="utf-8")))
        self._say(f"{method.name}: accuracy {scores.accuracy:.1%}, macro F1 {scores.macro_f1:.1%}")
        return Tested(method.name, scores, method.trained or {})

    def report(self, tested: Sequence[Tested], found: HeadTickets, command: str) -> Path:
        """Write report, results and pictures."""
        folder = self.stages.folder / "report"
        if self.state.is_main_process:
            path = write_classification_report(folder, tested, found, command, self._meta())
            print(f"report: {path}", flush=True)
        self.state.wait_for_everyone()
        return folder

    def finish(self) -> None:
        """Let all processes end together: one that leaves early aborts the others."""
        self.state.wait_for_everyone()
        self.stages.close()
        self.state.destroy_process_group()

    @cached_property
    def examples(self) -> list[dict[str, Any]]:
        """Tokenised training texts with their classes."""
        encoded = self.tokenizer(
            [example.text for example in self.texts.train], truncation=True, max_length=self.tuning.max_length
        )
        classes = self.texts.classes(self.texts.train)
        return [
            {**{name: values[row] for name, values in encoded.items()}, "labels": label}
            for row, label in enumerate(classes)
        ]

    def _tune_adapter(
        self,
        name: str,
        inputs: Mapping[str, Any],
        rates: Sequence[float],
        start: Method,
        attach: Callable[[PreTrainedModel], PeftModel],
    ) -> Method:
        def train(folder: Path, rate: float) -> None:
            torch.manual_seed(self.tuning.seed)
            model = attach(start.load())
            arguments = self._arguments(folder / "trainer", rate, self.tuning.epochs)
            train_adapter(model, self.examples, folder, arguments, self.collator)

        def load(folder: Path) -> PeftModel:
            return PeftModel.from_pretrained(start.load(), folder / "adapter")

        everything = {**inputs, "start": start.identity, "epochs": self.tuning.epochs}
        return self._tune(name, everything, rates, train, load)

    def _tune(
        self,
        name: str,
        inputs: Mapping[str, Any],
        rates: Sequence[float],
        train: Callable[[Path, float], None],
        load: Callable[[Path], Any],
    ) -> Method:
        """Train with each learning rate, score each on the development set, take the best."""
        return best_rate(
            self.stages, name, rates, {**self.inputs, **inputs}, train, load,
            lambda model: 100 * self._score(model, self.texts.dev).accuracy, "accuracy",
            lambda: steps_of(len(self.examples), inputs["epochs"], self.tuning),
        )  # fmt: skip

    def _whole(self, place: str) -> Callable[[Path], PreTrainedModel]:
        """A loader of whole models that lie in a place of a stage's folder."""
        return lambda folder: self.encoder.load(folder / place)

    def _score(self, model: Any, texts: Sequence[LabelledText]) -> ClassificationScores:
        return evaluate_classification(
            model,
            self.tokenizer,
            [example.text for example in texts],
            self.texts.classes(texts),
            self.tuning.max_length,
            self.evaluation.evaluation_batch_size,
        )

    def _arguments(self, folder: Path, rate: float, epochs: float) -> TrainingArguments:
        """Texts of similar length go into one batch: most are far shorter than the longest."""
        return trainer_arguments(folder, rate, epochs, self.tuning, train_sampling_strategy="group_by_length")

    def _meta(self) -> dict[str, Any]:
        """Facts about the run for the report."""
        texts, tuning = self.texts, self.tuning
        lengths = self.tokenizer([example.text for example in (*texts.train, *texts.dev, *texts.test)])["input_ids"]
        return {
            "model": self.encoder.title,
            "data": texts.name,
            "labels": len(texts.labels),
            "training texts": len(texts.train),
            "development texts": len(texts.dev),
            "test texts": len(texts.test),
            "training texts left out (in the test split, or twice)": texts.left_out,
            "longer texts, cut off": f"{sum(len(ids) > tuning.max_length for ids in lengths)} of {len(lengths)}",
            "longest text in tokens": tuning.max_length,
            "epochs": f"{tuning.classifier_epochs:g} classifier alone, then {tuning.epochs:g} for each method",
            "batch size": tuning.batch_size,
            "seed": tuning.seed,
            "device": device_name(),
            "processes": self.state.num_processes,
            "torch": torch.__version__,
        }

    def _say(self, text: str) -> None:
        if self.state.is_main_process:
            print(text, flush=True)
