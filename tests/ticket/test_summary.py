"""A ticket as plain values: order, units of measure, names and counts."""

import json
import math

import numpy as np
import pytest

from ks_lottery.errors import OptionError
from ks_lottery.ticket.identity import BaseIdentity
from ks_lottery.ticket.summary import cut_by, ticket_summary
from ks_lottery.ticket.ticket import Provenance, Selection, Ticket
from ks_lottery.units.slab import Slab, UnitGroup


class Letters:
    """A tokenizer with 26 tokens."""

    def convert_ids_to_tokens(self, ids: int) -> str:
        return "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[ids]

    def convert_tokens_to_ids(self, tokens: str) -> None:
        return None


@pytest.fixture
def ticket() -> Ticket:
    base = BaseIdentity("tester/base", None, "llama", {"embed": (26, 8), "head": (26, 8)}, 1000, "d" * 64)
    columns = {
        "statistic": np.array([0.25, 0.75, 0.5]),
        "log_p": np.array([math.log(0.01), -np.inf, math.log(0.1)]),
        "relative_shift": np.array([0.1, 0.2, 0.3]),
    }
    selections = {
        "input": Selection(UnitGroup("input", (Slab("embed", 0),), 26), np.array([3, 9, 1]), columns),
        "output": Selection(UnitGroup("output", (Slab("head", 0),), 26), np.array([4])),
    }
    details = {"selector": {"name": "TopK", "k": 4, "scope": "global"}, "tested": 20}
    return Ticket("update", "token_rows", selections, base, Provenance("ks", details))


def test_rows_are_ordered_and_in_the_units_that_people_read(ticket: Ticket) -> None:
    counts = np.arange(26) * 10
    summary = ticket_summary(ticket, Letters(), counts=counts, prompt_counts=[1] * 26)
    assert [(row["group"], row["id"], row["token"]) for row in summary["rows"]] == [
        ("input", 9, "J"), ("input", 1, "B"), ("input", 3, "D"), ("output", 4, "E"),
    ]  # fmt: skip
    assert [row["statistic"] for row in summary["rows"]] == [0.75, 0.5, 0.25, None]
    assert summary["rows"][2]["log10_p"] == pytest.approx(-2)
    assert summary["rows"][0]["log10_p"] is None
    assert [row["count"] for row in summary["rows"]] == [90, 10, 30, 40]
    assert summary["rows"][0]["prompt_count"] == 1
    assert (summary["num_units"], summary["num_trainable"]) == (4, 32)
    assert summary["density"] == {"units": 4 / 52, "model": 0.032}
    assert summary["fingerprint"] == ticket.fingerprint
    assert cut_by(summary) == "TopK(k=4, scope='global')"
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_what_is_not_known_is_none(ticket: Ticket) -> None:
    row = ticket_summary(ticket)["rows"][0]
    assert (row["token"], row["count"], row["prompt_count"], row["shift"]) == (None, None, None, None)


def test_a_ticket_without_a_selector_was_cut_by_nothing(ticket: Ticket) -> None:
    assert cut_by(ticket_summary(ticket.with_units({"input": [1]}, Provenance("by hand")))) is None


def test_counts_of_another_vocabulary(ticket: Ticket) -> None:
    with pytest.raises(OptionError, match=r"prompt_counts has shape \(3,\), but group 'input' has 26 units"):
        ticket_summary(ticket, prompt_counts=[1, 2, 3])
