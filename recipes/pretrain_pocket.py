"""Pretrains the embedded model of the recipes from scratch: a small LLaMA that translates English three ways.

    python recipes/pretrain_pocket.py --data tatoeba --output runs/pretrain-pocket --steps 6000

`--data` is a folder with `deu-eng.zip`, `fra-eng.zip` and `spa-eng.zip` from https://www.manythings.org/anki/; without
it the model learns from the generated corpus alone. The run continues from its last checkpoint when started again, and
its data order depends on the seed alone. With `--evaluate 400` it then scores the model and writes its card.
"""

import json
import os
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pocket import corpus, scoring
from pocket.card import write_card
from pocket.documents import Documents
from pocket.splits import SPLITS, Pair, nodes
from pocket.tatoeba import load_tatoeba
from pocket.tokenizer import train_tokenizer
from transformers import AutoTokenizer, HfArgumentParser, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from ks_lottery.checkpoints.writer import atomic_file, atomic_folder, write_json

SIZES = {
    "tiny": {"vocab_size": 600, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "heads": 2},
    "pocket": {"vocab_size": 4096, "hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 4, "heads": 6},
    "base": {"vocab_size": 8192, "hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 10, "heads": 8},
}
CHAPTER_STEPS = 250  # steps for which the batches are made at once
LAST_LINES = 10  # of the loss log, for the final loss


@dataclass
class PretrainingOptions:
    """What to train and how long."""

    output: Path = field(metadata={"help": "Folder of the run: checkpoint, log, tokenizer, exported model."})
    data: Path | None = field(
        default=None, metadata={"help": "Folder with the Tatoeba zips; without it only generated sentences are used."}
    )
    size: str = field(default="pocket", metadata={"help": "tiny (tests), pocket (3.3 M) or base (40 M, for a GPU)."})
    steps: int = field(default=6000, metadata={"help": "Optimizer steps of the whole schedule."})
    max_steps: int | None = field(default=None, metadata={"help": "Stop early after this step; the schedule stays."})
    batch_size: int = field(default=16, metadata={"help": "Blocks per step."})
    block_length: int = field(default=128, metadata={"help": "Predicted tokens per block."})
    learning_rate: float = field(default=2.5e-3, metadata={"help": "Peak learning rate of AdamW."})
    warmup_steps: int = field(default=200, metadata={"help": "Steps of linear warm-up."})
    decay_share: float = field(default=0.35, metadata={"help": "Last part of the steps, with a linear decay to zero."})
    weight_decay: float = field(default=0.1, metadata={"help": "Weight decay of AdamW, on every parameter."})
    bf16: bool = field(default=False, metadata={"help": "bfloat16 autocast: for a GPU, or a CPU with AMX."})
    seed: int = field(default=0, metadata={"help": "Fixes initialisation and data order."})
    save_steps: int = field(default=500, metadata={"help": "Steps between checkpoints and exports."})
    log_steps: int = field(default=50, metadata={"help": "Steps between lines of the loss log."})
    evaluate: int = field(
        default=0, metadata={"help": "After training, score this many test sentences per language and write the card."}
    )
    publish: Path | None = field(
        default=None, metadata={"help": "Folder to which the evaluated model is copied, replacing what is there."}
    )


PairsByLanguage = dict[str, list[Pair]]


def pairs_for_pretraining(data: Path | None) -> tuple[PairsByLanguage, PairsByLanguage]:
    """The everyday and the generated pretraining pairs, each per language.

    A sentence held out in one corpus is dropped from the other too.
    """
    grammar = {name: {language: corpus.load_split(language, name) for language in corpus.LANGUAGES} for name in SPLITS}
    if data is None:
        return {}, grammar["pretrain"]
    everyday = {
        name: {language: load_tatoeba(data, language, name) for language in corpus.LANGUAGES} for name in SPLITS
    }
    return without(everyday["pretrain"], grammar), without(grammar["pretrain"], everyday)


def without(pairs_by_language: PairsByLanguage, other: dict[str, PairsByLanguage]) -> PairsByLanguage:
    """The pairs none of whose sentences is held out (train, dev or test) in the other corpus."""
    held_out = {
        sentence
        for name in SPLITS[1:]
        for language, pairs in other[name].items()
        for pair in pairs
        for sentence in nodes(language, pair)
    }
    return {
        language: [pair for pair in pairs if held_out.isdisjoint(nodes(language, pair))]
        for language, pairs in pairs_by_language.items()
    }


def prepare_tokenizer(options: PretrainingOptions, documents: Documents) -> PreTrainedTokenizerBase:
    """Loads the tokenizer of the run, or trains and saves it."""
    folder = options.output / "tokenizer"
    if not folder.exists():
        rng = random.Random(f"{options.seed}/tokenizer")
        texts = (documents.document(rng) for _ in range(20_000 if options.size != "tiny" else 300))
        with atomic_folder(folder) as unfinished:
            train_tokenizer(texts, SIZES[options.size]["vocab_size"]).save_pretrained(unfinished)
    return AutoTokenizer.from_pretrained(folder)


def build_model(options: PretrainingOptions, tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
    """An untrained LLaMA with separate input and output embeddings."""
    shape = dict(SIZES[options.size])
    heads = shape.pop("heads")
    config = LlamaConfig(
        **{**shape, "vocab_size": len(tokenizer)},
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=2 * options.block_length,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(options.seed)
    return LlamaForCausalLM(config)


def device_description(device: torch.device) -> str:
    """The accelerator, or the CPU with its number of cores and widest instruction set."""
    if device.type == "cuda":
        return f"one {torch.cuda.get_device_name(device)}"
    return f"a CPU with {os.cpu_count()} cores ({torch.backends.cpu.get_cpu_capability()})"


def learning_rate_at(step: int, options: PretrainingOptions) -> float:
    """Linear warm-up, constant, linear decay to zero."""
    decay_steps = max(1, round(options.decay_share * options.steps))
    warmup = min(1.0, (step + 1) / max(1, options.warmup_steps))
    return options.learning_rate * warmup * min(1.0, (options.steps - step) / decay_steps)


class Pretraining:
    """One run: model, optimizer, position in the data, and their checkpoint."""

    def __init__(self, options: PretrainingOptions) -> None:
        options.output.mkdir(parents=True, exist_ok=True)
        self.options = options
        self.documents = Documents(*pairs_for_pretraining(options.data), seed=options.seed)
        self.tokenizer = prepare_tokenizer(options, self.documents)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = build_model(options, self.tokenizer).to(self.device)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            options.learning_rate,
            betas=(0.9, 0.98),
            weight_decay=options.weight_decay,
            fused=True,
        )
        self.step = 0
        self.seconds = 0.0
        self._chapter: tuple[int, torch.Tensor] | None = None
        self._resume()

    def run(self) -> None:
        """Trains to the last step, or to `max_steps`, writing checkpoints, exports and the log on the way."""
        options = self.options
        last = min(options.steps, options.max_steps or options.steps)
        started, losses = time.monotonic() - self.seconds, []
        while self.step < last:
            losses.append(self.train_step())
            self.seconds = time.monotonic() - started
            if self.step % options.log_steps == 0:
                self._log(torch.stack(losses).mean().item())
                losses = []
            if self.step % options.save_steps == 0 or self.step == last:
                self.save()

    def train_step(self) -> torch.Tensor:
        """One optimizer step on the next batch; returns its mean loss."""
        options = self.options
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(self.step, options)
        batch = self._batch()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=options.bf16):
            logits = self.model(input_ids=batch[:, :-1], use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return loss.detach()

    def save(self) -> None:
        """Writes the checkpoint and the bf16 model, each complete or not at all."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "rng": torch.get_rng_state(),
        }
        with atomic_file(self.options.output / "checkpoint.pt") as unfinished:
            torch.save(state, unfinished)
        self.export(self.options.output / "latest")

    def export(self, folder: Path) -> None:
        """Writes the model in bfloat16 with its tokenizer."""
        weights = {name: tensor.to(torch.bfloat16) for name, tensor in self.model.state_dict().items()}
        config = LlamaConfig.from_dict(self.model.config.to_dict())
        config.dtype = torch.bfloat16
        exported = LlamaForCausalLM(config).to(torch.bfloat16)
        exported.load_state_dict(weights)
        with atomic_folder(folder) as unfinished:
            exported.save_pretrained(unfinished)
            self.tokenizer.save_pretrained(unfinished)

    def summary(self) -> dict[str, Any]:
        """The facts of the run that its card states."""
        lines = [json.loads(line) for line in (self.options.output / "training_log.jsonl").read_text().splitlines()]
        last, config = lines[-LAST_LINES:], self.model.config
        names = ("steps", "batch_size", "block_length", "learning_rate", "warmup_steps", "decay_share", "weight_decay")
        return {
            "options": {name: getattr(self.options, name) for name in (*names, "bf16", "seed", "size")},
            "model": {
                "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
                "layers": config.num_hidden_layers,
                "width": config.hidden_size,
                "heads": config.num_attention_heads,
                "vocabulary": config.vocab_size,
            },
            "pretraining_pairs": self.documents.sizes(),
            "tokens": lines[-1]["tokens"],
            "seconds": lines[-1]["seconds"],
            "final_loss": sum(line["loss"] for line in last) / len(last),
            "loss_steps": len(last) * self.options.log_steps,
            "device": device_description(self.device),
            "losses": [[line["step"], line["loss"]] for line in lines],
        }

    def _batch(self) -> torch.Tensor:
        options = self.options
        number = self.step // CHAPTER_STEPS
        if self._chapter is None or self._chapter[0] != number:
            blocks = self.documents.blocks(
                number, CHAPTER_STEPS * options.batch_size, options.block_length + 1, self.tokenizer
            )
            order = torch.randperm(len(blocks), generator=torch.Generator().manual_seed(options.seed + number))
            self._chapter = (number, torch.from_numpy(blocks)[order])
        start = self.step % CHAPTER_STEPS * options.batch_size
        return self._chapter[1][start : start + options.batch_size].to(self.device)

    def _resume(self) -> None:
        path = self.options.output / "checkpoint.pt"
        if not path.exists():
            return
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]
        torch.set_rng_state(state["rng"].cpu())
        log = self.options.output / "training_log.jsonl"
        lines = log.read_text().splitlines() if log.exists() else []
        log.write_text("".join(line + "\n" for line in lines if json.loads(line)["step"] <= self.step))

    def _log(self, loss: float) -> None:
        tokens = self.step * self.options.batch_size * self.options.block_length
        line = {"step": self.step, "loss": round(loss, 4), "tokens": tokens, "seconds": round(self.seconds, 1)}
        with (self.options.output / "training_log.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")
        print(line, flush=True)


def evaluate(run: Pretraining) -> None:
    """Scores the exported model on held-out pairs; adds `training_log.json` and the model card to its folder."""
    options, folder = run.options, run.options.output / "latest"
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    corpora = {"grammar": corpus.load_split}
    if options.data is not None:
        corpora = {"everyday": partial(load_tatoeba, options.data), **corpora}
    scores = [
        {"corpus": name, "language": language, **score(model, run.tokenizer, language, load, options.evaluate)}
        for name, load in corpora.items()
        for language in corpus.LANGUAGES
    ]
    log = {**run.summary(), "scores": scores}
    write_json(folder / "training_log.json", log)
    with atomic_file(folder / "README.md") as card:
        card.write_text(write_card(log), encoding="utf-8")


def score(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    language: str,
    load: Callable[[str, str], list[Pair]],
    sentences: int,
) -> dict[str, Any]:
    """All held-out scores of one corpus and language."""
    test, dev = load(language, "test"), load(language, "dev")
    result: dict[str, Any] = {"perplexity": scoring.perplexity(model, tokenizer, language, test)}
    for layout in ("named", "equals"):
        few_shot = scoring.five_shot(model, tokenizer, language, test, dev, sentences, layout)
        result[layout] = asdict(few_shot)
    result["instruction"] = asdict(scoring.instructed(model, tokenizer, language, test, sentences))
    result["sentences"] = result["named"]["sentences"]
    print(language, result, flush=True)
    return result


def main() -> None:
    """Reads the options, trains, and evaluates if asked to."""
    (options,) = HfArgumentParser(PretrainingOptions).parse_args_into_dataclasses()
    run = Pretraining(options)
    run.run()
    print(f"Finished step {run.step}. The model is in {options.output / 'latest'}.")
    if options.evaluate:
        evaluate(run)
    if options.publish:
        with atomic_folder(options.publish) as folder:
            shutil.copytree(options.output / "latest", folder, dirs_exist_ok=True, copy_function=shutil.copyfile)
        print(f"Copied to {options.publish}.")


if __name__ == "__main__":
    main()
