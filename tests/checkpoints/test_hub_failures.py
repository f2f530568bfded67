"""Downloads in trouble: the Hub's library tries again, and what cannot be fetched leaves an error and no half file."""

from pathlib import Path

import pytest
from huggingface_hub import close_session, constants

from ks_lottery.checkpoints.download import download
from ks_lottery.errors import HubError
from tests.fake_hub import FakeHub
from tests.hub_trouble import Trouble, busy

WEIGHTS = bytes(range(256)) * 40
FILE = "/tester/model/resolve/.*/model.safetensors"


@pytest.fixture
def hub(fake_hub: FakeHub) -> FakeHub:
    fake_hub.add("tester/model", {"model.safetensors": WEIGHTS})
    return fake_hub


def fetch() -> Path:
    return download("tester/model", "model.safetensors")


def message() -> str:
    with pytest.raises(HubError) as caught:
        fetch()
    return str(caught.value)


def kept() -> list[Path]:
    """Files in the cache that hold anything of the weights."""
    places = ("*/blobs/**/*", "*/snapshots/**/*")
    return [path for place in places for path in Path(constants.HF_HUB_CACHE).glob(place) if not path.is_dir()]


def test_a_busy_hub_is_asked_again_after_the_time_that_it_says(hub: FakeHub) -> None:
    hub.troubles = [busy(FILE, wait=30, times=2)]
    assert fetch().read_bytes() == WEIGHTS
    assert 31.0 in hub.waits


def test_a_hub_that_stays_busy(hub: FakeHub) -> None:
    hub.troubles = [busy(FILE, wait=30)]
    text = message()
    assert "status 429 (There is trouble): too many requests. Try again in 30 seconds, as it asks." in text
    assert kept() == []


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_hub_that_breaks_down_for_a_while(hub: FakeHub, status: int) -> None:
    hub.troubles = [busy(FILE, status, times=3)]
    assert fetch().read_bytes() == WEIGHTS


def test_a_connection_that_breaks_off_half_way_goes_on_where_it_stopped(hub: FakeHub) -> None:
    hub.troubles = [Trouble(FILE, "GET", drop=True, times=2)]
    assert fetch().read_bytes() == WEIGHTS
    assert sum(path.endswith("model.safetensors") for method, path in hub.requests if method == "GET") == 3


def test_a_connection_that_breaks_off_and_does_not_come_back(hub: FakeHub) -> None:
    hub.troubles = [Trouble(FILE, "GET", drop=True, times=1), busy(FILE, 503, methods="GET")]
    assert "the Hub answered with status 503 (There is trouble). Try again later." in message()
    assert kept() == []


def test_less_than_was_announced(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    def short(*_: object, **__: object) -> None:
        raise OSError("Consistency check failed: file should be of size 10 but has size 5 (model.safetensors).")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", short)
    assert message() == (
        "Cannot download 'model.safetensors' of 'tester/model': what arrived is not as long as the Hub announced. "
        "Nothing of it was kept. Try again."
    )


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "the Hub does not know you (There is trouble). Log in with `hf auth login`, or set HF_TOKEN"),
        (403, "your account or token may not do that (There is trouble)."),
        (404, "the Hub has nothing of that name (There is trouble). Check the name of the repository, and the rev"),
        (412, "somebody else changes the repository at the same time, or it holds something of that name (There is"),
        (418, "the Hub answered with status 418 (There is trouble)."),
    ],
)
def test_refusals(hub: FakeHub, status: int, said: str) -> None:
    hub.troubles = [busy(FILE, status)]
    assert said in message()
    assert kept() == []


def test_no_message_tells_the_token_or_a_password(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_expired_token")
    assert "hf_expired_token" not in message()
    monkeypatch.setattr(constants, "ENDPOINT", hub.url.replace("http://", "http://me:password@"))
    hub.close()
    close_session()
    text = message()
    assert "[hidden]@127.0.0.1" in text
    assert "password" not in text
