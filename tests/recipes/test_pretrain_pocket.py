"""Pretraining: documents, tokenizer, leaks, and that a killed run ends with the same weights."""

import json
import os
import random
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pretrain_pocket
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pocket import MODEL_FOLDER, corpus
from pocket.card import write_card
from pocket.documents import Documents, few_shot
from pocket.scoring import perplexity
from pocket.splits import SPLITS, Pair, nodes
from pocket.tatoeba import load_tatoeba
from pretrain_pocket import Pretraining, PretrainingOptions
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).resolve().parents[2]
TATOEBA = ROOT.parent / "shared" / "data" / "tatoeba"
TINY = {"size": "tiny", "steps": 6, "batch_size": 2, "block_length": 24, "warmup_steps": 2, "log_steps": 1}
needs_tatoeba = pytest.mark.skipif(not TATOEBA.is_dir(), reason="the Tatoeba zips are not here")
needs_model = pytest.mark.skipif(not MODEL_FOLDER.is_dir(), reason="the embedded model is not here")


@pytest.fixture(scope="module")
def grammar():
    return pretrain_pocket.pairs_for_pretraining(None)[1]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A tiny run that was never interrupted."""
    run = Pretraining(PretrainingOptions(output=tmp_path_factory.mktemp("finished"), save_steps=6, **TINY))
    run.run()
    return run


@pytest.fixture(scope="module")
def tokenizer(finished):
    return AutoTokenizer.from_pretrained(finished.options.output / "latest")


def test_the_newline_is_a_piece_of_its_own(tokenizer):
    ids = tokenizer("He is here.\n\nShe\n### Response:\n", add_special_tokens=False)["input_ids"]
    pieces = tokenizer.convert_ids_to_tokens(ids)
    assert pieces.count("\n") == 4
    assert [piece for piece in tokenizer.get_vocab() if "\n" in piece] == ["\n"]


def test_the_special_tokens_and_the_side_of_the_padding(tokenizer):
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    assert tokenizer.padding_side == "left"
    assert tokenizer(["a", "a b"], padding=True)["input_ids"][0][:2] == [0, 1]


@given(text=st.text())
def test_every_text_comes_back(tokenizer, text):
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text or any(special in text for special in tokenizer.all_special_tokens)


@pytest.mark.parametrize(
    "text", ["\u2581 <0x41> \t", "\U0001f600 caf\u00e9 \u4e2d\u6587", "  two  spaces ", "a\r\nb", "<0x0A>"]
)
def test_unusual_texts_come_back(tokenizer, text):
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


def test_documents_have_no_instruction_and_a_third_has_an_open_end(grammar):
    documents = Documents({}, grammar, seed=1)
    rng = random.Random(0)
    texts = [documents.document(rng) for _ in range(3000)]
    assert not any(word in text for text in texts for word in ("Instruction", "Input", "Response", "Translate"))
    assert 0.3 < sum(not text.endswith("\n") for text in texts) / len(texts) < 0.37
    for start in ("English: ", "### English: ", "German: ", "# "):
        assert any(text.startswith(start) for text in texts)
    assert any(" = " in text for text in texts)
    assert any("\t" in text for text in texts)


def test_blocks_depend_on_seed_and_chapter_alone_and_overlap_by_one(grammar, tokenizer):
    first = Documents({}, grammar, seed=1).blocks(3, 20, 33, tokenizer)
    assert first.shape == (20, 33)
    assert (first[:-1, -1] == first[1:, 0]).all()
    assert (first == Documents({}, grammar, seed=1).blocks(3, 20, 33, tokenizer)).all()
    assert (first != Documents({}, grammar, seed=1).blocks(4, 20, 33, tokenizer)).any()
    assert (first != Documents({}, grammar, seed=2).blocks(3, 20, 33, tokenizer)).any()


def test_few_shot_prompts_end_where_the_translation_begins():
    shots = [Pair("Yes.", "Ja.")]
    assert few_shot("named", "de", shots, "No.") == "English: Yes.\nGerman: Ja.\nEnglish: No.\nGerman:"
    assert few_shot("equals", "fr", [], "No.") == "No. ="


def test_learning_rate_rises_stays_and_falls_to_zero():
    options = PretrainingOptions(output=Path("unused"), steps=100, warmup_steps=10, decay_share=0.5, learning_rate=1.0)
    rates = [pretrain_pocket.learning_rate_at(step, options) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * i for i in range(1, 11)])
    assert set(rates[10:51]) == {1.0}
    assert rates[51:] == sorted(rates[51:], reverse=True)
    assert rates[-1] == pytest.approx(0.02)


KILLED = """
import os, sys, torch
import pretrain_pocket
from pathlib import Path
torch.set_num_threads(int(sys.argv[3]))
step, save = pretrain_pocket.Pretraining.train_step, torch.save

def killed_step(run):
    if sys.argv[2] == "step" and run.step == 3:
        os.kill(os.getpid(), 9)
    return step(run)

def killed_save(state, path):
    if sys.argv[2] == "save" and state["step"] == 4:
        Path(path).write_bytes(b"half a checkpoint")
        os.kill(os.getpid(), 9)
    save(state, path)

pretrain_pocket.Pretraining.train_step = killed_step
torch.save = killed_save
options = pretrain_pocket.PretrainingOptions(output=Path(sys.argv[1]), save_steps=2, **eval(sys.argv[4]))
pretrain_pocket.Pretraining(options).run()
"""


@pytest.mark.parametrize("moment", ["step", "save"])
def test_a_killed_run_ends_with_the_same_weights(finished, tmp_path, moment):
    child = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), moment, str(torch.get_num_threads()), repr(TINY)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "recipes")},
        capture_output=True,
        text=True,
    )
    assert child.returncode == -signal.SIGKILL, child.stderr
    run = Pretraining(PretrainingOptions(output=tmp_path, save_steps=2, **TINY))
    assert run.step == 2
    run.run()
    for name, expected in finished.model.state_dict().items():
        assert torch.equal(run.model.state_dict()[name], expected), name
    logs = [options.output / "training_log.jsonl" for options in (run.options, finished.options)]
    losses = [[(line["step"], line["loss"]) for line in map(json.loads, log.read_text().splitlines())] for log in logs]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 6


def test_max_steps_stops_early_on_the_same_path(finished, tmp_path):
    for last in (2, None):
        run = Pretraining(PretrainingOptions(output=tmp_path, max_steps=last, save_steps=100, **TINY))
        run.run()
        assert run.step == (last or 6)
    assert torch.equal(run.model.lm_head.weight, finished.model.lm_head.weight)


def test_the_export_is_bfloat16_and_loads(finished):
    folder = finished.options.output / "latest"
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.bfloat16
    assert not model.config.tie_word_embeddings
    assert (model.config.pad_token_id, model.config.bos_token_id, model.config.eos_token_id) == (0, 1, 2)
    assert (model.generation_config.pad_token_id, model.generation_config.eos_token_id) == (0, 2)
    expected = finished.model.lm_head.weight.to(torch.bfloat16)
    assert torch.equal(model.lm_head.weight, expected)


def test_the_card_states_the_numbers_of_the_run(finished):
    scores = {"whole": 1.25, "first_line": 34.5, "stop_rate": 0.5, "sentences": 10}
    row = {"corpus": "grammar", "language": "de", "perplexity": 3.14, "sentences": 10}
    card = write_card(
        {**finished.summary(), "scores": [{**row, "named": scores, "equals": scores, "instruction": scores}]}
    )
    assert "| grammar, English to German | 3.14 | 34.5 | 34.5 | 1.2 | 34.5 | 50% |" in card
    assert "6 x 2 x 24 = 288 tokens" in card
    assert "tatoeba" not in card


def held_out(load) -> set:
    return {
        sentence
        for language in corpus.LANGUAGES
        for name in SPLITS[1:]
        for pair in load(language, name)
        for sentence in nodes(language, pair)
    }


@needs_tatoeba
def test_no_held_out_sentence_of_either_corpus_is_pretrained_on_either_side():
    pretrained = {
        sentence
        for pairs_by_language in pretrain_pocket.pairs_for_pretraining(TATOEBA)
        for language, pairs in pairs_by_language.items()
        for pair in pairs
        for sentence in nodes(language, pair)
    }
    assert len(pretrained) > 200_000
    assert pretrained.isdisjoint(held_out(corpus.load_split))
    assert pretrained.isdisjoint(held_out(partial(load_tatoeba, TATOEBA)))


def test_no_held_out_generated_sentence_is_pretrained(grammar):
    pretrained = {sentence for key, pairs in grammar.items() for pair in pairs for sentence in nodes(key, pair)}
    assert pretrained.isdisjoint(held_out(corpus.load_split))


@needs_model
def test_the_embedded_model_is_small_pretrained_and_described():
    assert sum(file.stat().st_size for file in MODEL_FOLDER.iterdir()) <= 8_000_000
    model = AutoModelForCausalLM.from_pretrained(MODEL_FOLDER, dtype=torch.float32)
    assert 2_000_000 <= model.num_parameters() <= 4_000_000
    assert model.lm_head.weight.data_ptr() != model.model.embed_tokens.weight.data_ptr()
    tokenizer = AutoTokenizer.from_pretrained(MODEL_FOLDER)
    assert tokenizer.padding_side == "left"
    pairs = corpus.load_split("de", "test")
    assert perplexity(model, tokenizer, "de", pairs[:60]) < 4
    card = (MODEL_FOLDER / "README.md").read_text(encoding="utf-8")
    assert card == write_card(json.loads((MODEL_FOLDER / "training_log.json").read_text()))
    for name in ("tatoeba.org", "www.manythings.org/anki", "CC BY 2.0"):
        assert name in card


@needs_model
def test_the_embedded_tokenizer_gives_every_text_back():
    tokenizer = AutoTokenizer.from_pretrained(MODEL_FOLDER)
    text = "English: \u00bfQu\u00e9?\n### Response:\n\U0001f600\ta\u2581b  \u00df"
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert tokenizer.convert_ids_to_tokens(ids).count("\n") == 2
