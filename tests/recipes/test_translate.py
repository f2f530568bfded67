"""The translation recipe from its command line: whole, again, changed, killed, in two processes, pushed, refused."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import sacrebleu
import torch
import yaml
from peft import PeftModel
from pocket import MODEL_FOLDER
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer

from ks_lottery.errors import CheckpointError, DataError, OptionError, TicketError
from ks_lottery.finders.search import find_ticket
from ks_lottery.finders.select import TopK
from ks_lottery.report.report import read_report
from ks_lottery.ticket.ticket import Ticket
from ks_lottery.ticket.tokens import readable_token
from tests.recipes.tiny_run import (
    PROMPT,
    ROOT,
    ROWS,
    TUNED,
    Death,
    TinyRun,
    WatchWrites,
    contents,
    exit_code,
    free_port,
    said,
    save_tiny_model,
    save_tiny_pairs,
    start_child,
    tiny_pairs,
    translate_here,
)

SHARED = ROOT.parent / "shared"
TATOEBA = SHARED / "data" / "tatoeba" / "deu-eng.zip"
POCKET = next((path for path in (MODEL_FOLDER, SHARED / "models" / "pocket-prototype") if path.is_dir()), None)
needs_pocket = pytest.mark.skipif(POCKET is None, reason="the embedded model is not here")
PICTURES = ("adapter_bytes.png", "scores.png", "token_shift.png")


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> TinyRun:
    """A run that nothing interrupted."""
    place = tmp_path_factory.mktemp("clean")
    run = TinyRun(save_tiny_model(place / "model"), save_tiny_pairs(place / "pairs.tsv"), place / "run")
    run.printed.append(translate_here(run.command()))
    return run


def made(printed: str) -> list[str]:
    """Stages that were made, in their order."""
    return re.findall(r"^(\S+) \.\.\.$", printed, flags=re.MULTILINE)


def results_of(folder: Path) -> dict[str, dict]:
    return {row["name"]: row for row in json.loads((folder / "report" / "results.json").read_text())["rows"]}


def slug(name: str) -> str:
    return name.lower().replace(" ", "-").replace("=", "-")


@pytest.fixture
def no_training(monkeypatch) -> None:
    """No Trainer trains."""
    monkeypatch.setattr(Trainer, "train", lambda *_, **__: pytest.fail("a training was started"))


def test_a_run_leaves_ticket_models_scores_and_report(clean) -> None:
    stages = made(clean.printed[0])
    tuned, tested = ([f"tuned/{folder}" for folder in TUNED.values()], [f"test/{slug(name)}" for name in ROWS])
    assert sorted(stages) == sorted(["ticket", *tuned, *tested])
    for stage in stages:
        assert (clean.folder / stage / "stage.json").is_file()
    assert [path.name for path in (clean.folder / "unfinished").iterdir()] == []
    assert not list(clean.folder.rglob("trainer")), "the Trainers' checkpoints are gone"
    report = clean.folder / "report"
    files = {path.name for path in report.iterdir()}
    assert files == {
        "examples.json", "report.html", "report.md", "results.json", "token_rows.safetensors", *PICTURES
    }  # fmt: skip
    assert all((report / name).read_bytes().startswith(b"\x89PNG") for name in PICTURES)
    page = (report / "report.md").read_text()
    assert all(f"| {name} |" in page for name in ROWS)
    assert f"accelerate launch recipes/translate.py --model_name_or_path {clean.model}" in page
    assert f"report: {report / 'report.md'}, for a browser {report / 'report.html'}" in clean.printed[0]
    shown = read_report(report)
    assert {example.source for example in shown.examples} <= {pair.source for pair in tiny_pairs()}
    assert len(shown.examples) == 8
    assert set(shown.examples[0].written) == {"base", "full tuning", "partial tuning"}
    assert shown.token_shift.tokens[0] == readable_token(AutoTokenizer.from_pretrained(clean.model), 0)


def test_every_row_has_its_scores_and_what_it_cost(clean) -> None:
    rows = results_of(clean.folder)
    assert tuple(rows) == ROWS
    vocabulary = len(AutoTokenizer.from_pretrained(clean.model))
    weights = AutoModelForCausalLM.from_pretrained(clean.model).num_parameters()
    prompt_rows = len(Ticket.load(clean.folder / "ticket").base.shapes)
    assert prompt_rows == 1
    trainable = {name: row["trainable"] for name, row in rows.items()}
    lora = load_file(clean.folder / "tuned" / TUNED["LoRA r=8"] / "adapter" / "adapter_model.safetensors")
    assert trainable == {
        "base": None, "embed tuning": 32 * vocabulary, "full tuning": weights, "partial tuning": 32 * 6,
        "partial transfer": 0, "random control": 32 * 6, "frequency control": 32 * 6, "prompt rows": 32 * 11,
        "structural row": 32, "LoRA r=8": sum(tensor.size for tensor in lora.values()),
    }  # fmt: skip
    for name, row in rows.items():
        for field in ("bleu_whole", "bleu_first_line", "chrf_whole", "chrf_first_line"):
            assert 0 <= row[field] <= 100, (name, field)
        for field in ("bleu_whole", "bleu_first_line"):
            low, high = row[f"{field}_interval"]
            assert low <= row[field] <= high, (name, field)
        assert 0 <= row["stop_rate"] <= 1
        assert (row["certificate"] is None) == (name == "embed tuning")
        trained = name in TUNED
        assert (row["adapter_bytes"] is not None) == (name != "base")
        assert [row["steps"], row["tried_learning_rates"]] == ([4, 1] if trained else [None, None])
        assert row["learning_rate"] == (float(TUNED[name].split("/")[1]) if trained else None)
        assert (row["seconds"] or 0) > 0 if trained else row["seconds"] is None
        assert (row["peak_memory"] or 0) > 2**20 if trained else row["peak_memory"] is None


def test_the_numbers_are_those_of_an_independent_computation(clean) -> None:
    row = results_of(clean.folder)["partial tuning"]
    scores = json.loads((clean.folder / "test" / "partial-tuning" / "scores.json").read_text())
    texts = [output["continuation"]["text"] for output in scores["outputs"]]
    references = [output["references"] for output in scores["outputs"]]
    assert len(texts) == 8
    streams = [[alternatives[0] for alternatives in references]]
    assert all(len(alternatives) == 1 for alternatives in references)
    whole = [" ".join(text.split()) for text in texts]
    first = [next((line.strip() for line in text.split("\n") if line.strip()), "") for text in texts]
    assert row["bleu_whole"] == sacrebleu.corpus_bleu(whole, streams, force=True).score
    assert row["bleu_first_line"] == sacrebleu.corpus_bleu(first, streams, force=True).score
    assert row["chrf_whole"] == sacrebleu.corpus_chrf(whole, streams).score
    assert row["stop_rate"] == np.mean([output["continuation"]["stopped"] for output in scores["outputs"]])

    targets = {pair.target: pair.source for pair in tiny_pairs()}
    tokenizer = AutoTokenizer.from_pretrained(clean.model)
    adapter = clean.folder / "tuned" / TUNED["partial tuning"] / "adapter" / "plain" / "adapter"
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(clean.model), adapter)
    for text, (target,) in zip(texts, references, strict=True):
        prompt = tokenizer(PROMPT(targets[target]), return_tensors="pt")
        ids = model.generate(**prompt, max_new_tokens=10, do_sample=False)[0, prompt["input_ids"].shape[1] :]
        assert tokenizer.decode(ids, skip_special_tokens=True) == text

    predicted, reference = (
        load_file(clean.folder / "test" / name / "predictions.safetensors")["predicted"]
        for name in ("partial-tuning", "embed-tuning")
    )
    assert row["certificate"]["rate"] == np.mean(predicted == reference)


def test_the_ticket_is_that_of_the_probe(clean) -> None:
    probe = clean.folder / "tuned" / TUNED["embed tuning"] / "probe"
    found = find_ticket(before=clean.model, after=probe / "after", selector=TopK(6))
    assert Ticket.load(clean.folder / "ticket") == found
    summary = json.loads((clean.folder / "report" / "results.json").read_text())["ticket"]
    assert summary["fingerprint"] == found.fingerprint
    config = json.loads(
        (clean.folder / "tuned" / TUNED["partial tuning"] / "adapter" / "adapter_config.json").read_text()
    )
    assert config["ticket"] == found.fingerprint


def test_tied_embeddings_in_bfloat16_with_beams_and_two_learning_rates(tmp_path, clean) -> None:
    model = save_tiny_model(tmp_path / "model", tied=True, dtype=torch.bfloat16)
    run = TinyRun(model, clean.pairs, tmp_path / "run")
    options = {"dtype": "bfloat16", "num_beams": 2, "epochs": 0.6, "lora_rates": [0.02, 0.002], "minimum_count": 2}
    translate_here(run.command(**options))
    ticket = Ticket.load(run.folder / "ticket")
    assert {name: len(rows) for name, rows in ticket.indices.items()} == {"tied": 6}
    rows = results_of(run.folder)
    assert rows["partial tuning"]["trainable"] == 6 * 32, "a shared matrix is trained once"
    assert [rows[name]["steps"] for name in ("embed tuning", "partial tuning", "full tuning")] == [3, 4, 3]
    tries = [json.loads(file.read_text()) for file in sorted(run.folder.glob("tuned/lora-r-8/*/training.json"))]
    assert {record["rate"] for record in tries} == {0.02, 0.002}
    chosen = max(tries, key=lambda record: (record["dev_bleu"], record["rate"]))
    assert (rows["LoRA r=8"]["learning_rate"], rows["LoRA r=8"]["tried_learning_rates"]) == (chosen["rate"], 2)
    summary = json.loads((run.folder / "report" / "results.json").read_text())["ticket"]
    assert min(row["count"] for row in summary["rows"]) >= 2


def test_a_second_run_returns_at_once_and_writes_the_same_report(clean, tmp_path, no_training, monkeypatch) -> None:
    report = clean.folder / "report"
    before = {path.name: path.read_bytes() for path in report.iterdir()}
    for path in report.iterdir():
        path.unlink()
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda *_, **__: pytest.fail("a model was loaded"))
    printed = translate_here(clean.command())
    assert made(printed) == []
    assert printed.count(": finished before, ") == 19
    assert {path.name: path.read_bytes() for path in report.iterdir()} == before


def test_a_changed_option_makes_again_what_it_decides_and_nothing_before(clean, tmp_path) -> None:
    folder = clean.copy(tmp_path / "run")
    again = made(translate_here(clean.command(folder, top_k=5, checkpoint_steps=100)))
    follows = ("partial tuning", "random control", "frequency control")
    assert again == [
        "ticket", *(f"tuned/{TUNED[name]}" for name in follows), "test/partial-tuning", "test/partial-transfer",
        "test/random-control", "test/frequency-control",
    ]  # fmt: skip
    before, after = results_of(clean.folder), results_of(folder)
    unchanged = set(ROWS) - {*follows, "partial transfer"}
    assert all(after[name] == before[name] for name in unchanged)
    assert {after[name]["trainable"] for name in follows} == {5 * 32}
    assert len(Ticket.load(folder / "ticket")) == 5


def test_a_run_that_is_killed_everywhere_ends_as_one_that_is_not(clean, tmp_path) -> None:
    """Killed in each stage: at its start, in the midst of a training, and when only the renaming is left to do.

    A probe whose work is done is not trained again and an adapter is, which decides the order of the moments.
    """
    folder, log = tmp_path / "run", tmp_path / "log"
    stages = made(clean.printed[0])
    dense, adapters = ("embed tuning", "full tuning"), ("partial tuning", "LoRA r=8")
    moments = {f"tuned/{TUNED[name]}": ("start", 4, "end") for name in dense}
    moments |= {f"tuned/{TUNED[name]}": ("start", "end", 4) for name in adapters}
    for number, stage in enumerate(stages):
        for moment in moments.get(stage, ("start", "end")):
            code = exit_code(start_child(clean.command(folder), log, Death(stage, moment)))
            assert code == -9, f"{stage} {moment}: {code}\n{said(log)}"
            assert not (folder / stage).exists()
            assert all((folder / earlier / "stage.json").is_file() for earlier in stages[:number])
            begun = [path.name for path in (folder / "unfinished").rglob("checkpoint-*")]
            assert begun == (["checkpoint-2"] if moment == 4 else []), f"{stage} {moment}"
    assert exit_code(start_child(clean.command(folder), log)) == 0, said(log)
    expected, found = contents(clean.folder), contents(folder)
    assert set(found) == set(expected)
    assert [name for name in expected if found[name] != expected[name]] == []
    unknown = {name for name, row in results_of(folder).items() if row["seconds"] is None}
    assert unknown == {"base", "partial transfer", *dense, *adapters}, "nobody timed the whole of a resumed training"


def test_a_run_that_died_in_its_first_step_goes_on_with_smaller_batches(clean, tmp_path) -> None:
    """As one does whose memory was too small."""
    folder, log = tmp_path / "run", tmp_path / "log"
    stage = f"tuned/{TUNED['embed tuning']}"
    assert exit_code(start_child(clean.command(folder), log, Death(stage, 1))) == -9, said(log)
    assert list((folder / "unfinished").rglob("probe.json"))
    smaller = clean.command(folder, micro_batch_size=4)
    assert exit_code(start_child(smaller, log, Death("ticket", "start"))) == -9, said(log)
    tuned, expected = (
        load_file(place / stage / "probe/after/trained-00001.safetensors") for place in (folder, clean.folder)
    )
    np.testing.assert_allclose(tuned["model.embed_tokens.weight"], expected["model.embed_tokens.weight"], atol=1e-3)


def test_two_processes_find_the_same_ticket_and_the_first_one_writes(clean, tmp_path) -> None:
    folder = tmp_path / "run"
    together = {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
        "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    logs = [tmp_path / f"{rank}.log" for rank in range(2)]
    children = [
        start_child(clean.command(folder), log, WatchWrites(folder), RANK=str(rank), LOCAL_RANK=str(rank), **together)
        for rank, log in enumerate(logs)
    ]
    codes = [exit_code(child) for child in children]
    assert codes == [0, 0], "\n".join(map(said, logs))
    assert Ticket.load(folder / "ticket") == Ticket.load(clean.folder / "ticket")
    results = json.loads((folder / "report" / "results.json").read_text())
    assert results["meta"]["processes"] == 2
    assert results_of(folder)["base"] == results_of(clean.folder)["base"]
    alone = results_of(clean.folder)
    assert {row["name"]: row["trainable"] for row in results["rows"]} == {n: alone[n]["trainable"] for n in ROWS}
    assert made(said(logs[0])) == made(clean.printed[0])
    assert logs[1].read_text() == ""
    first, second = (re.findall(r"^WRITES (.*)$", said(log), flags=re.MULTILINE) for log in logs)
    assert any("scores.json" in path for path in first)
    assert [path for path in second if "/trainer/" not in path] == [], "beside its part of the Trainers' checkpoints"


def test_a_run_is_pushed_with_everything_that_is_needed(clean, fake_hub, tmp_path, no_training) -> None:
    fake_hub.add("tester/tiny", clean.model)
    folder = clean.copy(tmp_path / "run")
    options = {"model_name_or_path": "tester/tiny", "push_to_hub": True, "hub_model_id": "tester/mini", "private": True}
    printed = translate_here(clean.command(folder, **options))
    assert f"pushed: {fake_hub.url}/tester/mini/commit/" in printed
    assert fake_hub.repositories["tester/mini"].private
    files = fake_hub.files("tester/mini")
    adapter = {"adapter_config.json", "adapter_model.safetensors"}
    assert set(files) == {
        "README.md", "ticket.safetensors", "plain/README.md", *adapter, *(f"plain/adapter/{name}" for name in adapter),
        *(f"report/{path.name}" for path in (folder / "report").iterdir() if path.name != "examples.json"),
    }  # fmt: skip
    assert not any(pair.source in files["report/report.html"].decode() for pair in tiny_pairs())
    header, _, text = files["README.md"].decode().removeprefix("---\n").partition("\n---\n")
    assert yaml.safe_load(header)["base_model"] == "tester/tiny"
    assert yaml.safe_load(header)["library_name"] == "peft"
    assert all(re.search(rf"^\| (\*\*)?{re.escape(name)}(\*\*)? \|", text, re.MULTILINE) for name in ROWS)
    for name in ("adapter_config.json", "plain/adapter/adapter_config.json"):
        assert json.loads(files[name])["base_model_name_or_path"] == "tester/tiny"

    assert Ticket.from_pretrained("tester/mini") == Ticket.load(clean.folder / "ticket")
    prompt = AutoTokenizer.from_pretrained("tester/tiny")(PROMPT("the cat sees the dog now ."), return_tensors="pt")
    local = clean.folder / "tuned" / TUNED["partial tuning"] / "adapter"
    sources = ((local, {}), ("tester/mini", {}), ("tester/mini", {"subfolder": "plain/adapter"}))
    base, *models = (AutoModelForCausalLM.from_pretrained("tester/tiny") for _ in range(4))
    logits = [
        PeftModel.from_pretrained(model, source, **place)(**prompt).logits
        for model, (source, place) in zip(models, sources, strict=True)
    ]
    assert torch.equal(logits[0], logits[1])
    assert torch.equal(logits[0], logits[2])
    assert not torch.equal(logits[0], base(**prompt).logits)


def test_a_local_path_is_not_pushed_as_the_base_model(clean, fake_hub, no_training) -> None:
    translate_here(clean.command(push_to_hub=True, hub_model_id="tester/mini"))
    files = fake_hub.files("tester/mini")
    assert "base_model:" not in files["README.md"].decode()
    for name in ("adapter_config.json", "plain/adapter/adapter_config.json"):
        assert json.loads(files[name])["base_model_name_or_path"] is None


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"micro_batch_size": 3}, OptionError, "--batch_size 8 is no multiple of 1 processes times micro_"),
        ({"prompt": "alpacca"}, LookupError, "Unknown prompt 'alpacca'. Did you mean 'alpaca'?"),
        ({"prompt": "To {language}: {source}"}, OptionError, "has the unknown field {language}."),
        ({"max_length": 20}, DataError, "more than max_length=20"),
        ({"data_file": None, "target_language": "xx"}, DataError, "Unknown language 'xx'. Available: de, fr, es."),
        ({"model_name_or_path": "nowhere/at/all"}, CheckpointError, "'nowhere/at/all' is not a folder."),
    ],
)  # fmt: skip
def test_what_cannot_be_run_is_refused_before_anything_is_trained(
    clean, tmp_path, no_training, options, kind, message: str
) -> None:
    with pytest.raises(kind, match=re.escape(message)):
        translate_here(clean.command(tmp_path / "run", **options))
    assert not list((tmp_path).glob("run/tuned/*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"selector": "alpha", "alpha": 1e-30}, r"No unit has p < 1e-30 .* smallest of \d+ p-values is "),
        ({"selector": "alpha", "finder": "magnitude"}, "Alpha needs p-values, but the finder gives none"),
        ({"top_k": 59}, r"59 units are asked for, but only \d+ of 59 can be selected"),
        ({"minimum_count": 10_000}, "6 units are asked for, but only 0 of 59 can be selected"),
    ],
)  # fmt: skip
def test_a_ticket_that_cannot_be_found(clean, tmp_path, no_training, options, message: str) -> None:
    folder = clean.copy(tmp_path / "run")
    with pytest.raises((TicketError, OptionError), match=message):
        translate_here(clean.command(folder, **options))
    assert Ticket.load(folder / "ticket") == Ticket.load(clean.folder / "ticket"), "the earlier one stays"


def pocket_run(folder: Path, **options: object) -> dict[str, dict]:
    """The embedded default with some options changed."""
    flags = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    config = ROOT / "recipes" / "configs" / "pocket.yaml"
    translate_here([str(config), "--model_name_or_path", str(POCKET), "--output_dir", str(folder), *flags])
    return results_of(folder)


@needs_pocket
def test_the_embedded_default_made_small(tmp_path) -> None:
    rows = pocket_run(
        tmp_path, train_pairs=48, dev_sentences=4, test_sentences=8, epochs=1, row_epochs=1, embed_rates=0.003,
        full_rates=0.001, row_rates=0.03, lora_rates=0.01, max_new_tokens=20,
    )  # fmt: skip
    assert tuple(rows) == ROWS
    assert rows["partial tuning"]["trainable"] == 50 * 192


@pytest.mark.slow
@needs_pocket
@pytest.mark.skipif(not TATOEBA.is_file(), reason="the Tatoeba zips are not here")
def test_real_sentences_show_what_the_paper_says(tmp_path) -> None:
    """On 600 pairs of Tatoeba 50 rows recover most of what tuning all rows gains, and random rows do not."""
    rows = pocket_run(
        tmp_path, tatoeba=TATOEBA, train_pairs=600, dev_sentences=50, test_sentences=100, embed_rates=0.003,
        full_rates=0.001, row_rates=0.03, lora_rates=0.01,
    )  # fmt: skip
    bleu = {name: row["bleu_whole"] for name, row in rows.items()}
    assert bleu["random control"] < bleu["base"] + 10 < bleu["partial tuning"]
    assert rows["partial tuning"]["gain_recovered_whole"] > 0.7
    assert rows["base"]["stop_rate"] < 0.1 < 0.9 < rows["partial tuning"]["stop_rate"]
