"""Tickets of a base model are listed by what their cards say."""

from pathlib import Path

import pytest

from ks_lottery.errors import HubError
from ks_lottery.ticket.card import ticket_card
from ks_lottery.ticket.collection import ListedTicket, list_tickets
from tests.fake_hub import FakeHub
from tests.hub_trouble import busy
from tests.report.example import example_ticket


def card(base: str, adapter: bool = True) -> dict[str, bytes]:
    return {"README.md": str(ticket_card(example_ticket(), "tester/x", base_model=base, adapter=adapter)).encode()}


@pytest.fixture
def hub(fake_hub: FakeHub) -> FakeHub:
    fake_hub.add("tester/positions", card("meta/llama", adapter=False))
    fake_hub.add("ada/tuned", card("meta/llama")).commit("main", card("meta/llama"), "again")
    fake_hub.add("ada/secret", card("meta/llama"), private=True)
    fake_hub.add("ada/other", card("meta/opt"))
    fake_hub.add("meta/llama", {"README.md": b"---\ntags: [llama]\n---\n"})
    fake_hub.add("bob/quantised", {"README.md": b"---\nbase_model: meta/llama\ntags: [gguf]\n---\n"})
    return fake_hub


def test_those_of_one_base_model(hub: FakeHub) -> None:
    found = list_tickets("meta/llama")
    assert [one.repo_id for one in found] == ["ada/tuned", "tester/positions", "ada/secret"]
    assert found[0] == ListedTicket(
        "ada/tuned", "peft", "2026-05-31", 2, 1, False,
        ("ks-lottery", "lottery-ticket", "peft", "base_model:meta/llama", "base_model:adapter:meta/llama"),
    )  # fmt: skip
    assert found[1].library == "ks_lottery"
    assert found[2].to_dict()["private"] is True
    assert [one.repo_id for one in list_tickets("meta/llama", limit=1)] == ["ada/tuned"]
    assert list_tickets("meta/absent") == []


def test_strangers_do_not_see_private_ones(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "")
    assert [one.repo_id for one in list_tickets("meta/llama")] == ["ada/tuned", "tester/positions"]


def test_a_busy_hub(hub: FakeHub, tmp_path: Path) -> None:
    hub.troubles = [busy("/api/models", wait=9, times=1)]
    assert len(list_tickets("meta/llama")) == 3
    assert hub.waits == [10.0]
    hub.troubles = [busy("/api/models", 503)]
    with pytest.raises(HubError, match="Cannot list the tickets of 'meta/llama': the Hub answered with status 503"):
        list_tickets("meta/llama")
