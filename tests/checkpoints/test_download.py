"""Files from the Hub: found, missing, hidden, refused, unreachable, and from the cache alone."""

import pytest
from huggingface_hub import constants

from ks_lottery.checkpoints.download import download
from ks_lottery.errors import HubError
from tests.fake_hub import FakeHub

FILES = {"config.json": b"{}", "sub/ticket.safetensors": b"\x00\x01"}


@pytest.fixture
def hub(fake_hub: FakeHub) -> FakeHub:
    fake_hub.add("tester/model", FILES)
    return fake_hub


def message(repo_id: str, filename: str = "config.json", **options: object) -> str:
    with pytest.raises(HubError) as caught:
        download(repo_id, filename, **options)
    assert isinstance(caught.value, OSError)
    return str(caught.value)


def test_a_file_arrives_and_its_folder_is_named_like_the_commit(hub: FakeHub) -> None:
    path = download("tester/model", "sub/ticket.safetensors")
    assert path.read_bytes() == b"\x00\x01"
    assert path.parent.parent.name == hub.repositories["tester/model"].branches["main"]


def test_revision_is_a_branch_or_a_commit(hub: FakeHub) -> None:
    repository = hub.repositories["tester/model"]
    first = repository.branches["main"]
    repository.commit("other", {"config.json": b"[1]"}, "second")
    assert download("tester/model", "config.json", revision="other").read_bytes() == b"[1]"
    assert download("tester/model", "config.json", revision=first).read_bytes() == b"{}"


def test_missing_file(hub: FakeHub) -> None:
    assert message("tester/model", "absent.json") == (
        "Cannot download 'absent.json' of 'tester/model': the repository has no such file."
    )
    assert download("tester/model", "absent.json", missing_ok=True) is None


def test_missing_revision(hub: FakeHub) -> None:
    text = message("tester/model", revision="v9")
    assert "'config.json' of 'tester/model' at revision 'v9': the repository has no such revision" in text
    assert "no such revision" in message("tester/model", revision="v9", missing_ok=True)


@pytest.mark.parametrize("login", ["hf_fake_token", ""])
def test_missing_repository(hub: FakeHub, monkeypatch: pytest.MonkeyPatch, login: str) -> None:
    monkeypatch.setenv("HF_TOKEN", login)
    text = message("tester/absent", missing_ok=True)
    assert "the Hub has no such repository, or hides it because it is private" in text
    assert "hf auth login" in text


def test_private_repository_is_hidden_from_others_and_open_to_its_owner(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("tester/secret", FILES, private=True)
    assert download("tester/secret", "config.json").is_file()
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", constants.HF_HUB_CACHE + "-of-another-user")
    assert "private" in message("tester/secret")


def test_gated_repository(hub: FakeHub) -> None:
    hub.add("meta/gated", FILES, gated=True)
    assert "the repository is gated. Accept its conditions" in message("meta/gated")


def test_rejected_token(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    assert "the Hub does not know you (Invalid credentials in Authorization header). Log in" in message("tester/model")


@pytest.mark.parametrize("repo_id", ["not a repo id", "a/b/c", "user/model.git"])
def test_malformed_id(hub: FakeHub, repo_id: str) -> None:
    text = message(repo_id)
    assert f"of {repo_id!r}: that is not a Hub id. One looks like 'user/name'; a local folder must exist." in text
    assert hub.requests == []


def test_hub_is_down(hub: FakeHub) -> None:
    hub.down = 503
    text = message("tester/model", missing_ok=True)
    assert "which is not in the local cache: the Hub answered with status 503 (The Hub is down). Try again" in text


def test_hub_answers_with_an_unexpected_status(hub: FakeHub) -> None:
    hub.down = 418
    assert "the Hub answered with status 418 (The Hub is down)." in message("tester/model")


def test_connection_refused(hub: FakeHub) -> None:
    url = hub.url
    hub.close()
    text = message("tester/model")
    assert "which is not in the local cache: the Hub at " + url + " cannot be reached" in text
    assert "HF_HUB_OFFLINE=1 uses what was downloaded before" in text
    assert "cannot be reached" in message("tester/model", "absent.json", missing_ok=True)


def test_connection_refused_with_a_full_cache(hub: FakeHub) -> None:
    download("tester/model", "config.json")
    download("tester/model", "absent.json", missing_ok=True)
    hub.close()
    assert download("tester/model", "config.json").read_bytes() == b"{}"
    assert download("tester/model", "absent.json", missing_ok=True) is None


def test_offline(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    download("tester/model", "config.json")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked = len(hub.requests)
    assert download("tester/model", "config.json").read_bytes() == b"{}"
    assert download("tester/model", "never-asked.json", missing_ok=True) is None
    text = message("tester/model", "never-asked.json")
    assert "which is not in the local cache: HF_HUB_OFFLINE is set. Unset it to reach the Hub." in text
    assert len(hub.requests) == asked


def test_a_full_disk_is_no_hub_error(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", full)
    with pytest.raises(OSError, match="No space left") as caught:
        download("tester/model", "config.json")
    assert not isinstance(caught.value, HubError)
