"""Folders go to the Hub and tickets come back; every refusal says what to do."""

from pathlib import Path

import pytest
from huggingface_hub import constants

from ks_lottery.errors import HubError, OptionError
from ks_lottery.ticket.hub import pull_ticket_file, push_folder
from tests.fake_hub import FakeHub
from tests.hub_trouble import Trouble, busy


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    (folder / "plain").mkdir(parents=True)
    (folder / "ticket.safetensors").write_bytes(b"the ticket")
    (folder / "README.md").write_text("---\nlibrary_name: peft\n---\nA card.\n", encoding="utf-8")
    (folder / "plain" / "adapter_config.json").write_text("{}", encoding="utf-8")
    return folder


def refusal(folder: Path, repo_id: str, **options: object) -> str:
    with pytest.raises(HubError) as caught:
        push_folder(folder, repo_id, **options)
    return str(caught.value)


def test_push_then_pull(fake_hub: FakeHub, folder: Path) -> None:
    url = push_folder(folder, "tester/ticket", commit_message="First")
    files = fake_hub.files("tester/ticket")
    assert sorted(files) == ["README.md", "plain/adapter_config.json", "ticket.safetensors"]
    commit = fake_hub.repositories["tester/ticket"].commits[-1]
    assert url == f"{fake_hub.url}/tester/ticket/commit/{commit.oid}"
    assert commit.message == "First"
    assert pull_ticket_file("tester/ticket").read_bytes() == b"the ticket"


def test_push_again_replaces_and_keeps(fake_hub: FakeHub, folder: Path) -> None:
    fake_hub.add("tester/ticket", {"ticket.safetensors": b"old", "notes.txt": b"mine"})
    push_folder(folder, "tester/ticket")
    files = fake_hub.files("tester/ticket")
    assert (files["ticket.safetensors"], files["notes.txt"]) == (b"the ticket", b"mine")


def test_a_name_alone_means_the_own_account(fake_hub: FakeHub, folder: Path) -> None:
    push_folder(folder, "ticket")
    assert "ticket.safetensors" in fake_hub.files("tester/ticket")


def test_private(fake_hub: FakeHub, folder: Path) -> None:
    push_folder(folder, "tester/hidden", private=True)
    push_folder(folder, "tester/shown")
    assert fake_hub.repositories["tester/hidden"].private
    assert not fake_hub.repositories["tester/shown"].private


def test_revision_is_a_branch(fake_hub: FakeHub, folder: Path) -> None:
    push_folder(folder, "tester/ticket", revision="alpha-0.5")
    push_folder(folder, "tester/ticket", revision="alpha-0.5", commit_message="again")
    assert fake_hub.files("tester/ticket") == {}
    assert "ticket.safetensors" in fake_hub.files("tester/ticket", "alpha-0.5")
    assert pull_ticket_file("tester/ticket", revision="alpha-0.5").read_bytes() == b"the ticket"


def test_repository_without_a_ticket(fake_hub: FakeHub) -> None:
    fake_hub.add("tester/model", {"config.json": b"{}"})
    with pytest.raises(HubError, match=r"'ticket.safetensors' of 'tester/model': the repository has no such file"):
        pull_ticket_file("tester/model")


def test_nothing_to_push(fake_hub: FakeHub, tmp_path: Path) -> None:
    for folder in (tmp_path / "absent", tmp_path):
        with pytest.raises(OptionError, match="There is no file in .* to push. Save a ticket or an adapter"):
            push_folder(folder, "tester/ticket")
    assert fake_hub.requests == []


def test_nobody_logged_in(fake_hub: FakeHub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "")
    text = refusal(folder, "tester/ticket")
    assert text.startswith(f"Cannot push {folder.name!r} to 'tester/ticket': the Hub does not know you")
    assert "hf auth login" in text
    push_folder(folder, "tester/ticket", token="hf_fake_token")
    assert "ticket.safetensors" in fake_hub.files("tester/ticket")


def test_account_of_somebody_else(fake_hub: FakeHub, folder: Path) -> None:
    assert "your account or token may not do that (" in refusal(folder, "meta/ticket")
    fake_hub.add("meta/ticket", {})
    assert "token with write permission" in refusal(folder, "meta/ticket")


def test_malformed_id(fake_hub: FakeHub, folder: Path) -> None:
    assert "that is not a Hub id" in refusal(folder, "no good/id")


def test_card_with_a_local_path_as_base(fake_hub: FakeHub, folder: Path) -> None:
    (folder / "README.md").write_text("---\nbase_model: /home/me/model\n---\n", encoding="utf-8")
    text = refusal(folder, "tester/ticket")
    assert 'with value "/home/me/model" is not valid' in text
    assert text.endswith("Correct the metadata at the head of README.md.")
    assert fake_hub.files("tester/ticket") == {}


def test_bad_request_is_no_complaint_about_the_card(
    fake_hub: FakeHub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_hub.refuse_commits = 400
    assert "the Hub answered with status 400 (No such commit)." in refusal(folder, "tester/ticket")


def test_offline(fake_hub: FakeHub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set. Unset it to reach the Hub." in refusal(folder, "tester/ticket")


def test_connection_refused(fake_hub: FakeHub, folder: Path) -> None:
    fake_hub.close()
    assert f"the Hub at {fake_hub.url} cannot be reached" in refusal(folder, "tester/ticket")


def test_a_damaged_ticket_is_refused_and_fetched_anew(fake_hub: FakeHub, folder: Path) -> None:
    push_folder(folder, "tester/ticket")
    fake_hub.troubles = [Trouble(".*/ticket.safetensors", "GET", corrupt=True, times=1)]
    with pytest.raises(HubError, match="'ticket.safetensors' of 'tester/ticket' is damaged: it has hash "):
        pull_ticket_file("tester/ticket")
    assert pull_ticket_file("tester/ticket").read_bytes() == b"the ticket"


@pytest.mark.parametrize("what", ["/api/repos/create", ".*/preupload/.*", ".*/commit/.*"])
def test_a_busy_hub_takes_it_in_the_end(fake_hub: FakeHub, folder: Path, what: str) -> None:
    fake_hub.troubles = [busy(what, 429, wait=4, times=1), busy(what, 503, times=1)]
    push_folder(folder, "tester/ticket")
    assert "ticket.safetensors" in fake_hub.files("tester/ticket")
    assert 4 in fake_hub.waits or 5.0 in fake_hub.waits


@pytest.mark.parametrize("what", [".*/preupload/.*", ".*/commit/.*"])
def test_a_connection_that_stays_broken_uploads_nothing(fake_hub: FakeHub, folder: Path, what: str) -> None:
    fake_hub.add("tester/ticket", {"ticket.safetensors": b"old"})
    fake_hub.troubles = [Trouble(what, status=502)]
    assert "the Hub answered with status 502 (There is trouble). Try again later." in refusal(folder, "tester/ticket")
    assert fake_hub.files("tester/ticket") == {"ticket.safetensors": b"old"}


def test_somebody_else_commits_at_the_same_time(fake_hub: FakeHub, folder: Path) -> None:
    fake_hub.refuse_commits = 409
    assert "somebody else changes the repository at the same time" in refusal(folder, "tester/ticket")
