"""Calls that the Hub's library makes once are made again where that helps, and only there."""

import pytest
from huggingface_hub import HfApi

from ks_lottery.checkpoints.hub_errors import hub_errors
from ks_lottery.checkpoints.hub_patience import patiently
from ks_lottery.errors import HubError
from tests.fake_hub import FakeHub
from tests.hub_trouble import Trouble, busy

CREATE = "/api/repos/create"


def create() -> str:
    with hub_errors("create 'tester/new'"):
        return str(patiently(lambda: HfApi().create_repo("tester/new", exist_ok=True)).repo_id)


def message() -> str:
    with pytest.raises(HubError) as caught:
        create()
    return str(caught.value)


def test_it_waits_as_long_as_the_hub_asks(fake_hub: FakeHub, caplog: pytest.LogCaptureFixture) -> None:
    fake_hub.troubles = [busy(CREATE, wait=7, times=1)]
    assert create() == "tester/new"
    assert fake_hub.waits == [7]
    assert "too many requests. Try again in 7 seconds, as it asks. Waiting 7 s before attempt 2 of 3." in caplog.text


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_after_three_attempts_it_says_so(fake_hub: FakeHub, status: int) -> None:
    fake_hub.troubles = [busy(CREATE, status)]
    assert f"Cannot create 'tester/new': the Hub answered with status {status} (There is trouble)" in message()
    assert fake_hub.waits == [1, 2]
    assert fake_hub.requests == [("POST", CREATE)] * 3


def test_a_wait_of_an_hour_is_left_to_people(fake_hub: FakeHub) -> None:
    fake_hub.troubles = [busy(CREATE, wait=3600)]
    assert "too many requests. Try again in 3,600 seconds, as it asks." in message()
    assert fake_hub.waits == []


def test_what_does_not_pass_by_itself_is_not_tried_again(fake_hub: FakeHub) -> None:
    for status, said in ((403, "or ask its owner for access"), (409, "changes the repository at the same time")):
        fake_hub.troubles = [busy("/api/models/.*|/api/repos/create", status)]
        with pytest.raises(HubError, match=said), hub_errors("create"):
            patiently(lambda: HfApi().create_repo("tester/new"))
    assert fake_hub.waits == []


def test_a_connection_that_breaks_off(fake_hub: FakeHub) -> None:
    fake_hub.troubles = [Trouble(CREATE, drop=True, times=2)]
    assert create() == "tester/new"
    assert fake_hub.waits == [1, 2]
    fake_hub.troubles = [Trouble(CREATE, drop=True)]
    text = message()
    assert f"the connection to the Hub at {fake_hub.url} broke off" in text
    assert "Nothing half fetched was kept. Check the network, and try again." in text
