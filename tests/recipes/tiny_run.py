"""A translation run in seconds: a random Llama, a word-level tokenizer, a made-up language, the recipe in a child."""

import contextlib
import gc
import io
import itertools
import json
import multiprocessing
import os
import shutil
import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import sacrebleu.metrics  # noqa: F401  (here and below: so that children need not import it)
import torch
import translate
from peft.tuners import lora  # noqa: F401
from pocket.splits import Pair
from stages import Stages
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, Trainer

from ks_lottery.ticket.ticket import Ticket
from ks_lottery.training.prompts import PromptTemplate
from tests.tiny_models import tiny_llama

ROOT = Path(__file__).resolve().parents[2]
NOUNS = {"cat": "kato", "dog": "hundo", "bird": "birdo", "fish": "fisho", "horse": "cevalo", "mouse": "muso"}
VERBS = {"sees": "vidas", "hears": "audas", "eats": "mangas", "finds": "trovas", "likes": "shatas"}
ADVERBS = {"now": "nun", "often": "ofte", "today": "hodiau"}
PROMPT = PromptTemplate("instruction", "English", "eo")
OPTIONS = {
    "prompt": "instruction", "target_language": "eo", "selector": "top_k", "top_k": 6, "train_pairs": 32,
    "dev_sentences": 4, "test_sentences": 8, "embed_rates": 0.02, "full_rates": 0.01, "row_rates": 0.05,
    "lora_rates": 0.02, "epochs": 1, "row_epochs": 1, "batch_size": 8, "max_new_tokens": 10, "checkpoint_steps": 2,
}  # fmt: skip
ROWS = (
    "base", "embed tuning", "full tuning", "partial tuning", "partial transfer", "random control", "frequency control",
    "prompt rows", "structural row", "LoRA r=8",
)  # fmt: skip
TUNED = {
    "embed tuning": "embed-tuning/0.02", "partial tuning": "partial-tuning/0.05",
    "random control": "random-control/0.05", "frequency control": "frequency-control/0.05",
    "prompt rows": "prompt-rows/0.05", "structural row": "structural-row/0.05", "full tuning": "full-tuning/0.01",
    "LoRA r=8": "lora-r-8/0.02",
}  # fmt: skip
_PIECES = Regex(r" ?[^\s]+|\s")


def tiny_pairs() -> list[Pair]:
    """All sentences of the made-up language, `the cat sees the dog now .` and `kato vidas hundon nun .`"""
    return [
        Pair(
            f"the {subject} {verb} the {other} {adverb} .",
            f"{NOUNS[subject]} {VERBS[verb]} {NOUNS[other]}n {ADVERBS[adverb]} .",
        )
        for (subject, other), verb, adverb in itertools.product(itertools.permutations(NOUNS, 2), VERBS, ADVERBS)
    ]


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Pieces are words with their leading space, and single white space; ids 0 to 3 are pad, bos, eos, unk."""
    splitter = pre_tokenizers.Split(_PIECES, behavior="isolated")
    texts = [text for source, target in tiny_pairs() for text in (PROMPT(source), target)]
    pieces = sorted({piece for text in texts for piece, _ in splitter.pre_tokenize_str(text)})
    names = ["<pad>", "<s>", "</s>", "<unk>", *pieces, *(f"unused{number}" for number in range(8))]
    tokenizer = Tokenizer(models.WordLevel({name: number for number, name in enumerate(names)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def save_tiny_model(folder: Path, **options: Any) -> Path:
    """A random Llama of 2 layers with the tokenizer of the made-up language; options as of `tiny_llama`."""
    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(folder)
    tiny_llama(vocabulary=len(tokenizer), **options).save_pretrained(folder)
    return folder


def save_tiny_pairs(file: Path) -> Path:
    """The pairs of the made-up language as TSV."""
    file.write_text("".join(f"{source}\t{target}\n" for source, target in tiny_pairs()), encoding="utf-8")
    return file


@dataclass(frozen=True)
class TinyRun:
    """A finished run, and what started it."""

    model: Path
    pairs: Path
    folder: Path
    printed: list[str] = field(default_factory=list)

    def command(self, folder: Path | None = None, **options: Any) -> list[str]:
        """Arguments of the recipe, with some options changed."""
        given = {"model_name_or_path": self.model, "data_file": self.pairs, **OPTIONS, **options}
        flags = [text for name, value in given.items() if value is not None for text in _flag(name, value)]
        return [*flags, "--output_dir", str(folder or self.folder)]

    def copy(self, folder: Path) -> Path:
        """The finished run somewhere else, to be changed there."""
        shutil.copytree(self.folder, folder)
        return folder


def _flag(name: str, value: Any) -> list[str]:
    if value is True:
        return [f"--{name}"]
    return [f"--{name}", *map(str, value if isinstance(value, list) else [value])]


def translate_here(arguments: Sequence[str]) -> str:
    """Run the recipe in this process, on one thread as children do; returns what it printed."""
    printed, before, threads = io.StringIO(), sys.argv, torch.get_num_threads()
    sys.argv = ["recipes/translate.py", *arguments]
    torch.set_num_threads(1)
    gc.freeze()  # the Trainer collects garbage after each training, and all that is imported would be searched
    try:
        with contextlib.redirect_stdout(printed):
            translate.main()
    finally:
        gc.unfreeze()
        torch.set_num_threads(threads)
        sys.argv = before
    return printed.getvalue()


@dataclass(frozen=True)
class Death:
    """Where a child kills itself with SIGKILL.

    Attributes:
        stage: name of the stage.
        moment: "start", "end" (the work is done, and not yet in its place), or the number of a training step.
    """

    stage: str
    moment: str | int

    def arm(self) -> None:
        """Arrange it in this process."""
        run = Stages.run

        def run_and_die(stages: Stages, name: str, inputs: Mapping[str, Any], make: Any) -> Path:
            return run(stages, name, inputs, self._dying(make) if name == self.stage else make)

        Stages.run = run_and_die

    def _dying(self, make: Any) -> Any:
        def make_and_die(folder: Path) -> None:
            if self.moment == "start":
                _die()
            if isinstance(self.moment, int):
                _die_in_step(self.moment)
            make(folder)
            _die()

        return make_and_die


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _die_in_step(number: int) -> None:
    step, steps = Trainer.training_step, itertools.count(1)

    def step_or_die(self: Trainer, *args: Any, **kwargs: Any) -> Any:
        if next(steps) == number:
            _die()
        return step(self, *args, **kwargs)

    Trainer.training_step = step_or_die


@dataclass(frozen=True)
class WatchWrites:
    """Makes a child print `WRITES path` when it writes, renames or removes a file below a folder."""

    folder: Path

    def arm(self) -> None:
        """Arrange it in this process."""
        sys.addaudithook(self._hook)

    def _hook(self, event: str, details: tuple[Any, ...]) -> None:
        writes = event in ("os.rename", "os.remove", "os.rmdir", "os.link")
        if event == "open":
            writes = bool(details[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        if writes and str(details[0]).startswith(str(self.folder)):
            os.write(2, f"\nWRITES {details[0]}\n".encode())


def start_child(arguments: Sequence[str], log: Path, *changes: Death | WatchWrites, **environment: str) -> Any:
    """Start the recipe in a process of its own, which a server forks that has imported everything already."""
    context = multiprocessing.get_context("forkserver")
    _start_server(context)
    child = context.Process(target=_child, args=(list(arguments), log, changes, environment))
    child.start()
    return child


def errors_of(log: Path) -> Path:
    """Where a child's standard error goes, if its standard output goes to `log`."""
    return log.with_suffix(".errors")


def said(log: Path) -> str:
    """All that children wrote, to standard output first."""
    return log.read_text(encoding="utf-8") + errors_of(log).read_text(encoding="utf-8")


def exit_code(child: Any) -> int:
    """Wait for a child; minus the signal where one ended it. One that hangs is ended after two minutes."""
    child.join(120)
    if child.is_alive():
        child.terminate()
        child.join()
    return int(child.exitcode)


def _start_server(context: Any) -> None:
    context.set_forkserver_preload(["tests.recipes.tiny_run"])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "recipes")])
    try:
        forkserver.ensure_running()
    finally:
        del os.environ["PYTHONPATH"]
        if before is not None:
            os.environ["PYTHONPATH"] = before


def _child(
    arguments: list[str], log: Path, changes: Sequence[Death | WatchWrites], environment: Mapping[str, str]
) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)
    for descriptor, place in ((1, log), (2, errors_of(log))):
        with place.open("ab") as file:
            os.dup2(file.fileno(), descriptor)
    for change in changes:
        change.arm()
    sys.argv = ["recipes/translate.py", *arguments]
    gc.freeze()
    translate.main()


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def contents(folder: Path) -> dict[str, Any]:
    """What a run leaves, by file name; without pages and pictures, times and memory, and the folder's own name."""
    return dict(_contents(folder))


def _contents(folder: Path) -> Iterator[tuple[str, Any]]:
    for file in sorted(folder.rglob("*")):
        if not file.is_file() or file.suffix in (".png", ".md", ".html"):
            continue
        content: Any = file.read_bytes().replace(str(folder).encode(), b"FOLDER")
        if file.name == "ticket.safetensors":
            ticket = Ticket.load(file)
            content = [ticket.fingerprint, *(values.tolist() for values in ticket.selections["input"].columns.values())]
        elif file.suffix == ".json":
            content = _comparable(json.loads(content))
        yield str(file.relative_to(folder)), content


def _comparable(value: Any) -> Any:
    if isinstance(value, list):
        return [_comparable(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    left_out = ("seconds", "peak_bytes", "peak_memory", "command")
    return {
        key: sorted(entry) if key == "target_modules" else _comparable(entry)  # PEFT writes a set
        for key, entry in value.items()
        if key not in left_out
    }
