"""The model card: its metadata parses back and the Hub takes it, its code runs, and it hides nothing."""

import re
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

import ks_lottery
from ks_lottery.errors import OptionError
from ks_lottery.report.results import with_gains
from ks_lottery.ticket.card import hub_base_model, ticket_card
from ks_lottery.ticket.hub import push_folder
from tests.fake_hub import FakeHub
from tests.report.example import example_results, example_ticket

DATASET = {"type": "tatoeba", "name": "Tatoeba en-de", "split": "test"}
RESULTS = [result.to_dict() for result in with_gains(example_results())]


def summary(**base: object) -> dict[str, object]:
    ticket = example_ticket()
    return {**ticket, "base": {**ticket["base"], **base}}


def code_blocks(card: ModelCard) -> list[str]:
    return re.findall(r"```python\n(.*?)\n```", card.text, flags=re.DOTALL)


def test_metadata_parses_back() -> None:
    card = ModelCard(str(ticket_card(
        summary(), "tester/tuned", results=RESULTS, language=["en", "de"], license="apache-2.0", dataset=DATASET
    )))  # fmt: skip
    data = card.data
    assert data.library_name == "peft"
    assert data.base_model == "tester/pocket"
    assert data.tags == ["ks-lottery", "lottery-ticket", "peft"]
    assert data.language == ["en", "de"]
    assert data.license == "apache-2.0"
    assert data.pipeline_tag == "text-generation"
    assert data.model_name == "tuned"
    scores = {(entry.metric_type, entry.metric_name): entry.metric_value for entry in data.eval_results}
    assert scores == {("bleu", "BLEU, whole continuation"): 46.0, ("bleu", "BLEU, first line"): 48.5}
    assert {(entry.task_type, entry.dataset_type, entry.dataset_split) for entry in data.eval_results} == {
        ("translation", "tatoeba", "test")
    }


def test_no_scores_without_data_set_or_own_row() -> None:
    for options in ({"results": RESULTS}, {"results": RESULTS[:1], "dataset": DATASET}, {"dataset": DATASET}):
        assert "model-index" not in ticket_card(summary(), "tester/tuned", **options).data.to_dict()


def test_text_names_rows_scores_and_doubts() -> None:
    text = ticket_card(summary(), "tester/tuned", results=RESULTS, citation="Somebody 2025.").text
    assert "18 units (`token_rows`) of [tester/pocket]" in text
    assert r"| `'\n'` | 3 | 0.151 |" in text
    assert r"`▁\|`" in text
    assert "`TopK(k=18, scope='global')`" in text
    assert "| **partial tuning** | 3,456 | 46.0 [43.9, 48.2] | 48.5 [46.2, 50.9] | — | 100 % | 97 % |" in text
    assert "**not an error rate**" in text
    assert "at least 87.55 % (Clopper-Pearson), or 87.23 % by a bootstrap over sentences" in text
    assert "Somebody 2025." in text
    assert "arXiv:2402.02801" in text
    assert "ks_lottery" in text


def test_citation_of_other_finders() -> None:
    ticket = {**summary(), "provenance": {"method": "magnitude", "details": {}}}
    text = ticket_card(ticket, "tester/tuned", citation="Ansell 2022.").text
    assert "Ansell 2022." in text
    assert "2402.02801" not in text
    assert "| cut by | — |" in text
    assert "| units selected | 18 |" in text


def test_long_tickets_are_cut_short() -> None:
    rows = [{**summary()["rows"][0], "id": number} for number in range(60)]
    assert "10 more are in `ticket.safetensors`." in ticket_card({**summary(), "rows": rows}, "tester/tuned").text


def test_rows_of_the_output_head_say_so() -> None:
    rows = [{**summary()["rows"][0], "group": "output"}]
    assert "| 0 in `output` |" in ticket_card({**summary(), "rows": rows}, "tester/tuned").text


def test_weight_tickets_say_what_becomes_of_the_rest() -> None:
    assert "Everything else is zero." in ticket_card({**summary(), "kind": "weight"}, "tester/tuned").text
    assert "Everything else keeps its pretrained value." in ticket_card(summary(), "tester/tuned").text


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("user/model", "user/model"), ("gpt2", "gpt2"), ("Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-0.5B"),
        ("/home/me/model", None), ("./model", None), ("../runs/base", None), ("a/b/c", None), ("~/model", None),
        (r"C:\models\base", None), ("LlamaForCausalLM", None), ("", None),
    ],
)  # fmt: skip
def test_hub_base_model(name: str, expected: str | None) -> None:
    assert hub_base_model(name) == expected


def test_a_folder_that_looks_like_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models" / "pocket").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert hub_base_model("models/pocket") is None
    assert hub_base_model("models/other") == "models/other"


def test_a_local_base_model_is_left_out_and_not_told() -> None:
    card = ticket_card(summary(name="/home/me/secret-model"), "tester/tuned", plain_subfolder="plain/adapter")
    assert "base_model" not in card.data.to_dict()
    assert "secret-model" not in str(card)
    assert 'from_pretrained("path/to/the/base/model")' in card.text
    named = ticket_card(summary(name="/home/me/secret-model"), "tester/tuned", base_model="tester/pocket")
    assert named.data.base_model == "tester/pocket"


def test_wrong_options() -> None:
    with pytest.raises(OptionError, match="base_model='/home/me/model' is not a Hub id"):
        ticket_card(summary(), "tester/tuned", base_model="/home/me/model")
    with pytest.raises(OptionError, match="must have a type"):
        ticket_card(summary(), "tester/tuned", dataset={"name": "Tatoeba"})


def test_code_is_python_and_uses_public_names() -> None:
    card = ticket_card(summary(), "tester/tuned", plain_subfolder="plain/adapter", auto_class="AutoModelForSeq2SeqLM")
    tuned, positions, plain = code_blocks(card)
    for block in (tuned, positions, plain):
        compile(block, "card", "exec")
        for names in re.findall(r"from ks_lottery import ([\w, ]+)", block):
            assert {name.strip() for name in names.split(",")} <= set(ks_lottery.__all__)
    assert 'PeftModel.from_pretrained(base, "tester/tuned")' in tuned
    assert 'Ticket.from_pretrained("tester/tuned")' in positions
    assert 'PeftModel.from_pretrained(base, "tester/tuned", subfolder="plain/adapter")' in plain
    assert "ks_lottery" not in plain
    assert "pipeline_tag" not in card.data.to_dict()


def test_a_ticket_alone() -> None:
    card = ticket_card(summary(), "tester/ticket", adapter=False)
    [positions] = code_blocks(card)
    assert "attach_ticket" in positions
    assert card.data.library_name == "ks_lottery"
    assert card.data.tags == ["ks-lottery", "lottery-ticket"]


def test_the_hub_takes_it(fake_hub: FakeHub, tmp_path: Path) -> None:
    card = ticket_card(summary(), "tester/tuned", results=RESULTS, dataset=DATASET)
    card.save(tmp_path / "README.md")
    push_folder(tmp_path, "tester/tuned")
    assert ModelCard(fake_hub.files("tester/tuned")["README.md"].decode()).data.to_dict() == card.data.to_dict()
    assert ModelCard.load("tester/tuned").data.base_model == "tester/pocket"


def test_metadata_names_the_relation_to_the_base_model() -> None:
    assert ticket_card(summary(), "tester/tuned").data.to_dict()["base_model_relation"] == "adapter"
    for options in ({"adapter": False}, {}):
        name = "/home/me/model" if not options else "tester/pocket"
        assert "base_model_relation" not in ticket_card(summary(name=name), "tester/x", **options).data.to_dict()
    labels = ticket_card(summary(), "tester/x", auto_class="AutoModelForSequenceClassification")
    assert labels.data.pipeline_tag == "text-classification"


def test_scores_of_a_classification() -> None:
    rows = [
        {"name": "full tuning", "accuracy": 0.7896, "macro_f1": 0.7881, "trainable": 10_000, "gain_recovered": 1.0},
        {"name": "KS heads", "accuracy": 0.7758, "macro_f1": 0.7743, "trainable": 1_200, "gain_recovered": 0.59},
    ]
    card = ticket_card(summary(), "tester/heads", results=rows, run="KS heads", dataset=DATASET)
    assert "| **KS heads** | 1,200 | 77.6 % | 77.4 % | 59 % |" in card.text
    assert "BLEU" not in card.text
    scores = {(one.task_type, one.metric_type): one.metric_value for one in card.data.eval_results}
    assert scores == {("text-classification", "accuracy"): 0.7758, ("text-classification", "f1"): 0.7743}
    assert ticket_card(summary(), "tester/heads", results=rows, dataset=DATASET).data.eval_results is None


def test_tokens_do_not_get_into_a_card() -> None:
    token = "hf_" + "aB3" * 8
    assert token not in str(ticket_card(summary(), "tester/tuned", citation=f"see https://x?token={token}"))
