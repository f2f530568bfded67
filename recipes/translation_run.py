"""The stages of a translation run: load, probe, find, tune, transfer, test, report, push."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from method import Method, slug
from peft import LoraConfig, PeftModel, get_peft_model
from stages import Stages, fingerprint, processes
from transformers import PreTrainedModel, TrainingArguments
from translation_base import BaseModel, device_name
from translation_data import LANGUAGES, DataArguments, TranslationData, load_translation_data
from translation_options import EvaluationArguments, ModelArguments, TuningArguments
from translation_report import Tested, push_run, write_run_report
from translation_ticket import UNRELATED, TicketArguments, TokenCounts, controls_of, count_tokens
from tuning import best_rate, logs_in, steps_of, train_adapter, train_probe, trainer_arguments

from ks_lottery.adapter.attach import attach_ticket
from ks_lottery.adapter.fit import chosen_rows
from ks_lottery.adapter.transfer import read_rows, transfer_ticket
from ks_lottery.checkpoints.reader import FolderCheckpoint, open_checkpoint
from ks_lottery.checkpoints.writer import atomic_file, write_json
from ks_lottery.evaluation.agreement import ResponseArgmax, response_argmax
from ks_lottery.evaluation.translation import TranslationScores, evaluate_translation
from ks_lottery.finders.search import score_units, select_ticket
from ks_lottery.report.report import HTML_PAGE
from ks_lottery.report.results import BASE, LORA, PARTIAL_TRANSFER
from ks_lottery.report.token_shift import TokenShift
from ks_lottery.ticket.ticket import Ticket
from ks_lottery.ticket.tokens import readable_token
from ks_lottery.training.callback import TicketCallback
from ks_lottery.training.examples import (
    ResponseCollator,
    ResponseExamples,
    encode_prompts,
    padding_id,
    response_examples,
)
from ks_lottery.training.prompts import PromptTemplate

_ROWS_PRINTED = 100


class TranslationRun:
    """One run in one folder.

    Args:
        folder: of the run; finished stages are found there again.
        model: the base model.
        data: the pairs.
        ticket: how the ticket is found.
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
        self.pairs: TranslationData = load_translation_data(data)
        self.languages = data.source_language, data.target_language
        self.pretrained = BaseModel(model, self.state.device)
        self.tokenizer = self.pretrained.tokenizer
        self.prompt = PromptTemplate(model.prompt, *(LANGUAGES.get(code, code) for code in self.languages))
        self.inputs = {
            "model": self.pretrained.digest,
            "dtype": str(self.pretrained.dtype),
            "prompt": self.prompt.text,
            "languages": self.languages,
            "data": self.pairs.digest,
            "seed": tuning.seed,
            "max_length": tuning.max_length,
        }

    def base(self) -> Method:
        """The pretrained model as it is."""
        return Method(BASE, self.pretrained.load, fingerprint(self.inputs))

    def tune_densely(self, name: str, scope: str) -> Method:
        """Train a whole scope, once per learning rate, and keep the best on the development set."""
        rates = self.tuning.embed_rates if scope == "embedding" else self.tuning.full_rates

        def train(folder: Path, rate: float) -> None:
            arguments = self._arguments(folder / "probe" / "trainer", rate, self.tuning.epochs)
            watching = self._watching(folder) if scope == "embedding" else ()
            with logs_in(self._logs(name, rate)):
                train_probe(
                    self.pretrained.load(), self.examples, folder, scope, arguments, self.tokenizer,
                    callbacks=watching,
                )  # fmt: skip

        def load(folder: Path) -> PreTrainedModel:
            return self.pretrained.load(folder / "probe" / "after")

        return self._tune(name, {"scope": scope, "epochs": self.tuning.epochs}, rates, train, load)

    def tune_rows(self, name: str, ticket: Ticket) -> Method:
        """Partial tuning: train exactly the rows of a ticket."""
        inputs = {"ticket": ticket.fingerprint, "epochs": self.tuning.row_epochs}
        return self._tune_adapter(name, inputs, self.tuning.row_rates, lambda base: attach_ticket(base, ticket))

    def tune_lora(self) -> Method:
        """LoRA of rank 8 on every linear layer of the body, PEFT's own."""
        settings: dict[str, Any] = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear"}
        config = LoraConfig(**settings, task_type="CAUSAL_LM")
        inputs = {"lora": settings, "epochs": self.tuning.epochs}
        return self._tune_adapter(LORA, inputs, self.tuning.lora_rates, lambda base: get_peft_model(base, config))

    def find(self, embed: Method) -> Ticket:
        """Find the ticket between the two ends of the probe; the first process finds, all load."""
        assert embed.folder is not None
        before = FolderCheckpoint(embed.folder / "probe" / "before", name=self.pretrained.title)
        after = embed.folder / "probe" / "after"

        def make(folder: Path) -> None:
            if not self.state.is_main_process:
                return
            finder, selector = self.ticket.finder, self.ticket.make_selector()
            scores = score_units(before, after, "token_rows", finder)
            candidates = self.ticket.candidates(self.counts.training)
            ticket = select_ticket(scores, before, after, "token_rows", finder, selector, candidates)
            ticket.save(folder)
            shift = TokenShift(scores[0].score, self.counts.training, scores[0].group.name)
            with atomic_file(folder / "token_rows.safetensors") as temporary:
                temporary.write_bytes(shift.to_bytes())

        inputs = {"embed": embed.identity, **dataclasses.asdict(self.ticket)}
        folder = self.stages.run("ticket", inputs, make)
        ticket = Ticket.load(folder)
        rows = [readable_token(self.tokenizer, int(row)) for units in ticket.indices.values() for row in units]
        self._say(f"ticket: {ticket}\n  {' '.join(rows[:_ROWS_PRINTED])}{' ...' if rows[_ROWS_PRINTED:] else ''}")
        return ticket

    def controls(self, ticket: Ticket) -> dict[str, Ticket]:
        """Control tickets by the name of their row in the table."""
        return controls_of(ticket, self.counts, self.ticket.control_seed)

    def transfer(self, ticket: Ticket, embed: Method) -> Method:
        """Partial transfer: copy the tuned rows, train nothing."""
        assert embed.folder is not None
        after = embed.folder / "probe" / "after"
        source = open_checkpoint(after)
        size = sum(read_rows(source, parameter, rows).nbytes for parameter, rows in chosen_rows(ticket))
        trained = {"adapter_bytes": size, "trainable": 0}
        identity = fingerprint({"transfer": ticket.fingerprint, "from": embed.identity})
        return Method(
            PARTIAL_TRANSFER, lambda: transfer_ticket(self.pretrained.load(), ticket, after), identity, trained
        )

    def test(self, method: Method) -> Tested:
        """Score a method on the test set, and compare its predictions with embed tuning's later."""

        def make(folder: Path) -> None:
            model = method.load()
            scores = self._score(model, self.pairs.test)
            predictions = response_argmax(model, self.held_out, self.evaluation.generation_batch_size)
            if self.state.is_main_process:
                write_json(folder / "scores.json", scores.to_dict())
                predictions.save(folder / "predictions.safetensors")

        inputs = {"method": method.identity, **dataclasses.asdict(self.evaluation)}
        folder = self.stages.run(f"test/{slug(method.name)}", inputs, make)
        scores = TranslationScores.from_dict(json.loads((folder / "scores.json").read_text(encoding="utf-8")))
        self._say(
            f"{method.name}: BLEU {scores.bleu_whole:.1f} whole, {scores.bleu_first_line:.1f} first line, "
            f"stops {scores.stop_rate:.0%}"
        )
        return Tested(
            method.name, scores, ResponseArgmax.load(folder / "predictions.safetensors"), method.trained or {}
        )

    def report(self, tested: Sequence[Tested], ticket: Ticket, command: str) -> Path:
        """Write report, results and pictures."""
        folder = self.stages.folder / "report"
        if self.state.is_main_process:
            shift = TokenShift.from_bytes(
                (self.stages.folder / "ticket" / "token_rows.safetensors").read_bytes(), next(iter(ticket.selections))
            )
            meta = {
                "model": self.pretrained.title,
                "data": self.pairs.name,
                "training pairs": len(self.pairs.train),
                "development sentences": len(self.pairs.dev),
                "test sentences": len(self.pairs.test),
                "prompt": self.prompt.text,
                "dtype of frozen weights": str(self.pretrained.dtype).removeprefix("torch."),
                "device": device_name(),
                "processes": self.state.num_processes,
                "torch": torch.__version__,
            }
            path = write_run_report(
                folder, tested, ticket, shift, self.tokenizer, self.counts, command, meta, self.ticket.alpha,
                [sentence.source for sentence in self.pairs.test],
            )  # fmt: skip
            print(f"report: {path}, for a browser {path.with_name(HTML_PAGE)}", flush=True)
        self.state.wait_for_everyone()
        return folder

    def push(self, partial: Method, ticket: Ticket, report: Path, repo_id: str, private: bool) -> None:
        """Push the tuned adapter with its ticket, report and card."""
        if self.state.is_main_process:
            assert partial.folder is not None
            url = push_run(
                partial.folder / "adapter", ticket, report, self.counts, repo_id, private, self.tokenizer,
                self.languages[1], self.pretrained.name,
            )  # fmt: skip
            print(f"pushed: {url}", flush=True)
        self.state.wait_for_everyone()

    def finish(self) -> None:
        """Let all processes end together: one that leaves early aborts the others."""
        self.state.wait_for_everyone()
        self.stages.close()
        self.state.destroy_process_group()

    @cached_property
    def examples(self) -> ResponseExamples:
        """Training examples."""
        return response_examples(self.pairs.train, self.tokenizer, self.prompt, self.tuning.max_length)

    @cached_property
    def held_out(self) -> ResponseExamples:
        """Test sentences with their first reference, for the certificate."""
        pairs = [(sentence.source, sentence.references[0]) for sentence in self.pairs.test]
        return response_examples(pairs, self.tokenizer, self.prompt)

    @cached_property
    def counts(self) -> TokenCounts:
        """Token counts of the training examples and of the prompt."""
        sources = [*(pair.source for pair in self.pairs.train), *UNRELATED]
        prompts = encode_prompts(self.tokenizer, [self.prompt(source) for source in sources])
        return count_tokens(
            prompts, [example["input_ids"] for example in self.examples.examples], self.pretrained.vocabulary
        )

    def _tune_adapter(
        self, name: str, inputs: dict[str, Any], rates: Sequence[float], attach: Callable[[Any], Any]
    ) -> Method:
        def train(folder: Path, rate: float) -> None:
            torch.manual_seed(self.tuning.seed)
            model = attach(self.pretrained.load())
            arguments = self._arguments(folder / "trainer", rate, inputs["epochs"])
            with logs_in(self._logs(name, rate)):
                train_adapter(model, self.examples, folder, arguments, ResponseCollator(padding_id(self.tokenizer)))

        def load(folder: Path) -> PeftModel:
            return PeftModel.from_pretrained(self.pretrained.load(), folder / "adapter")

        return self._tune(name, inputs, rates, train, load)

    def _tune(
        self,
        name: str,
        inputs: dict[str, Any],
        rates: Sequence[float],
        train: Callable[[Path, float], None],
        load: Callable[[Path], Any],
    ) -> Method:
        """Train with each learning rate, score each on the development set, take the best."""
        everything = {
            **self.inputs, **inputs, "batch_size": self.tuning.batch_size, "beta2": self.tuning.adam_beta2,
            "dev": [self.evaluation.max_new_tokens, self.evaluation.num_beams],
        }  # fmt: skip
        return best_rate(
            self.stages, name, rates, everything, train, load,
            lambda model: self._score(model, self.pairs.dev).bleu_whole, "BLEU",
            lambda: steps_of(len(self.examples), inputs["epochs"], self.tuning),
        )  # fmt: skip

    def _score(self, model: Any, sentences: Sequence[Any]) -> TranslationScores:
        return evaluate_translation(
            model,
            self.tokenizer,
            [self.prompt(sentence.source) for sentence in sentences],
            [sentence.references for sentence in sentences],
            self.evaluation.max_new_tokens,
            self.evaluation.num_beams,
            self.evaluation.generation_batch_size,
        )

    def _arguments(self, folder: Path, rate: float, epochs: float) -> TrainingArguments:
        narrow = self.pretrained.dtype == torch.bfloat16
        return trainer_arguments(folder, rate, epochs, self.tuning, bf16=narrow, report_to=self.tuning.report_to)

    def _logs(self, name: str, rate: float) -> Path:
        return self.stages.folder / "logs" / slug(name) / f"{rate:g}"

    def _watching(self, folder: Path) -> Sequence[TicketCallback]:
        """What shows the ticket as it forms, where there is a logger to show it."""
        if self.tuning.report_to == "none":
            return ()
        before, every = folder / "probe" / "before", self.tuning.watch_steps
        return (TicketCallback(before, finder=self.ticket.finder, selector=self.ticket.make_selector(), every=every),)

    def _say(self, text: str) -> None:
        if self.state.is_main_process:
            print(text, flush=True)
