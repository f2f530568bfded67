"""What is pushed can be used by others: a card, a base model that they can load, and nothing of this machine."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from peft import AutoPeftModelForCausalLM
from torch import Tensor
from transformers import AutoModelForCausalLM

from ks_lottery.adapter.attach import attach_ticket
from ks_lottery.adapter.export.exporter import export_ticket
from ks_lottery.errors import OptionError, TicketError
from ks_lottery.report.examples import TranslationExample, Written
from ks_lottery.report.report import write_report
from ks_lottery.ticket.ownership.signature import make_key, sign_ticket
from ks_lottery.ticket.publish import Publication, publish
from ks_lottery.ticket.ticket import Ticket
from tests.adapter.tickets import assert_same_logits, logits, make_ticket, randomise, saved_llama
from tests.fake_hub import FakeHub
from tests.report.example import example_report

TOKENS = torch.arange(24).view(2, 12)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Tensor]:
    """Folders `ticket`, `adapter` and `plain` below one, the base model's folder, and the tuned model's logits."""
    folder = tmp_path_factory.mktemp("made")
    base = saved_llama(folder)
    model = AutoModelForCausalLM.from_pretrained(base)
    ticket = make_ticket(model, "both")
    ticket.save(folder / "ticket")
    tuned = attach_ticket(model, ticket).eval()
    randomise(tuned)
    tuned.save_pretrained(folder / "adapter")
    export_ticket(tuned, folder / "plain")
    return folder, base, logits(tuned, TOKENS)


def card_of(hub: FakeHub, repo_id: str) -> ModelCard:
    return ModelCard(hub.files(repo_id)["README.md"].decode())


def test_an_adapter_with_its_ticket_and_report(
    fake_hub: FakeHub, made: tuple[Path, Path, Tensor], tmp_path: Path
) -> None:
    folder, base, expected = made
    fake_hub.add("tester/base", base)
    quoted = TranslationExample("a sentence of others", ("r",), {"base": Written("w", True)})
    write_report(tmp_path / "report", dataclasses.replace(example_report(), examples=[quoted]))
    ticket = Ticket.load(folder / "ticket")
    ticket.save(tmp_path / "signed")
    sign_ticket(ticket, make_key(tmp_path / "owner.pem")).save(tmp_path / "signed" / "signature.json")
    what = Publication(
        ticket=tmp_path / "signed", report=tmp_path / "report", base_model="tester/base", language=("en", "de"),
        license="apache-2.0", dataset={"type": "tatoeba", "name": "Tatoeba en-de"},
    )  # fmt: skip
    before = (folder / "adapter" / "adapter_config.json").read_bytes()
    pushed = publish(folder / "adapter", "tester/tuned", what)
    assert (folder / "adapter" / "adapter_config.json").read_bytes() == before
    assert pushed.base_model == "tester/base"
    assert set(pushed.files) == set(fake_hub.files("tester/tuned"))
    assert {"ticket.safetensors", "signature.json", "report/results.json", "plain/adapter/adapter_config.json"} <= set(
        pushed.files
    )
    assert not any(b"a sentence of others" in content for content in fake_hub.files("tester/tuned").values())
    data = card_of(fake_hub, "tester/tuned").data
    assert (data.library_name, data.base_model, data.license) == ("peft", "tester/base", "apache-2.0")
    assert data.to_dict()["base_model_relation"] == "adapter"
    assert data.pipeline_tag == "text-generation"
    assert {(one.dataset_name, one.metric_name, one.metric_value) for one in data.eval_results} == {
        ("Tatoeba en-de", "BLEU, whole continuation", 46.0), ("Tatoeba en-de", "BLEU, first line", 48.5)
    }  # fmt: skip
    model = AutoPeftModelForCausalLM.from_pretrained("tester/tuned").eval()
    assert torch.equal(logits(model, TOKENS), expected)


def test_an_exported_adapter_loads_without_us(fake_hub: FakeHub, made: tuple[Path, Path, Tensor]) -> None:
    folder, base, expected = made
    fake_hub.add("tester/base", base)
    assert publish(folder / "plain", "tester/plain", Publication(base_model="tester/base")).base_model == "tester/base"
    card = card_of(fake_hub, "tester/plain")
    assert (card.data.library_name, card.data.base_model) == ("peft", "tester/base")
    assert card.data.tags == ["ks-lottery", "lottery-ticket", "peft"]
    assert "It loads with PEFT alone." in card.text
    assert "ks_lottery import" not in card.text
    model = AutoPeftModelForCausalLM.from_pretrained("tester/plain").eval()
    assert_same_logits(logits(model, TOKENS), expected)


def test_paths_of_this_machine_are_not_told(fake_hub: FakeHub, made: tuple[Path, Path, Tensor]) -> None:
    folder, base, _ = made
    assert publish(folder / "adapter", "tester/tuned").base_model is None
    files = fake_hub.files("tester/tuned")
    for name in ("adapter_config.json", "plain/adapter/adapter_config.json"):
        assert json.loads(files[name])["base_model_name_or_path"] is None
    texts = [content for name, content in files.items() if name.endswith((".json", ".md"))]
    assert not any(str(base).encode() in text for text in texts)
    assert "It needs `pip install ks_lottery`." in card_of(fake_hub, "tester/tuned").text


def test_a_ticket_alone_and_a_card_of_one_s_own(
    fake_hub: FakeHub, made: tuple[Path, Path, Tensor], tmp_path: Path
) -> None:
    folder, _, _ = made
    publish(folder / "ticket", "tester/ticket", private=True)
    assert fake_hub.repositories["tester/ticket"].private
    assert sorted(fake_hub.files("tester/ticket")) == ["README.md", "ticket.safetensors"]
    assert card_of(fake_hub, "tester/ticket").data.library_name == "ks_lottery"
    shutil.copytree(folder / "ticket", tmp_path / "own")
    (tmp_path / "own" / "README.md").write_text("---\ntags: [mine]\n---\nMine.\n")
    (tmp_path / "own" / "checkpoint-5").mkdir()
    (tmp_path / "own" / "checkpoint-5" / "rng_state.pth").write_bytes(b"a pickle")
    publish(tmp_path / "own", "tester/own")
    assert fake_hub.files("tester/own")["README.md"].endswith(b"Mine.\n")
    assert sorted(fake_hub.files("tester/own")) == ["README.md", "ticket.safetensors"]


def test_the_report_names_the_data_where_nobody_does(
    fake_hub: FakeHub, made: tuple[Path, Path, Tensor], tmp_path: Path
) -> None:
    folder, _, _ = made
    shutil.copytree(folder / "ticket", tmp_path / "ticket")
    rows = [{"name": "KS heads", "accuracy": 0.7896, "macro_f1": 0.788, "trainable": 5}]
    results = {"rows": rows, "meta": {"data": "Banking 77"}}
    (tmp_path / "ticket" / "results.json").write_text(json.dumps(results))
    publish(tmp_path / "ticket", "tester/heads", Publication(run="KS heads"))
    card = card_of(fake_hub, "tester/heads")
    (accuracy, f1) = card.data.eval_results
    assert (accuracy.task_type, accuracy.metric_type, accuracy.metric_value) == (
        "text-classification",
        "accuracy",
        0.7896,
    )
    assert (f1.dataset_type, f1.dataset_name, f1.metric_type) == ("banking-77", "Banking 77", "f1")
    assert "| **KS heads** | 5 | 79.0 % | 78.8 % | — |" in card.text


def test_what_cannot_be_published(fake_hub: FakeHub, made: tuple[Path, Path, Tensor], tmp_path: Path) -> None:
    folder, base, _ = made
    with pytest.raises(OptionError, match=r"holds neither ticket.safetensors nor adapter_config.json"):
        publish(base, "tester/x")
    with pytest.raises(OptionError, match="holds no results.json, so it is no report's folder"):
        publish(folder / "ticket", "tester/x", Publication(report=tmp_path))
    with pytest.raises(TicketError, match="There is no ticket at"):
        publish(folder / "adapter", "tester/x", Publication(ticket=tmp_path))
    shutil.copytree(folder / "ticket", tmp_path / "leaky")
    make_key(tmp_path / "leaky" / "owner.pem")
    with pytest.raises(OptionError, match=r"'owner.pem' .* is a private key"):
        publish(tmp_path / "leaky", "tester/x")
    assert fake_hub.requests == []
