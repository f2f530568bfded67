"""The controls keep what they promise and change the rest; the verdict sees through a finder of random units."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ks_lottery.checkpoints.live_model import ModelCheckpoint
from ks_lottery.errors import DataError, TicketError
from ks_lottery.evaluation.record import Record
from ks_lottery.evaluation.sanity import beats, beats_its_shuffles, inverted_like, permuted_labels, reinitialised
from ks_lottery.finders.base import UnitScores
from ks_lottery.ticket.controls import shuffled_like
from ks_lottery.ticket.identity import identify
from ks_lottery.ticket.ticket import Provenance, Selection, Ticket
from ks_lottery.training.examples import Example, ResponseExamples
from ks_lottery.units.heads import Heads
from ks_lottery.units.layers import Layers
from ks_lottery.units.slab import parameters_of
from ks_lottery.units.token_rows import TokenRows
from tests.tiny_models import tiny_llama

MODEL = tiny_llama()


def ticket_of(granularity: Any, **units: list[int]) -> Ticket:
    checkpoint = ModelCheckpoint(MODEL)
    groups = granularity.groups(checkpoint.layout())
    base = identify(checkpoint, list(parameters_of(groups)))
    chosen = {group.name: units.get(group.name.replace(".", "_"), []) for group in groups}
    selections = {group.name: Selection(group, np.array(chosen[group.name], dtype=np.int64)) for group in groups}
    return Ticket("update", granularity.name, selections, base, Provenance("hand"))


TWO_GROUPS = TokenRows(ends="both")
HEADS = ticket_of(Heads(), layers_0_heads=[0, 1], layers_1_heads=[1])


@settings(max_examples=60, deadline=None)
@given(
    st.sets(st.integers(0, 63), max_size=64), st.sets(st.integers(0, 63), min_size=1, max_size=63), st.integers(0, 99)
)
def test_a_shuffle_keeps_the_counts_and_changes_the_units(inputs: set[int], outputs: set[int], seed: int) -> None:
    ticket = ticket_of(TWO_GROUPS, input=sorted(inputs), output=sorted(outputs))
    shuffled = shuffled_like(ticket, seed)
    assert shuffled != ticket
    assert {name: len(units) for name, units in shuffled.indices.items()} == {
        "input": len(inputs), "output": len(outputs)
    }  # fmt: skip
    assert shuffled == shuffled_like(ticket, seed)
    assert shuffled.base == ticket.base
    assert shuffled.provenance.details["like"] == ticket.fingerprint


def test_a_shuffle_is_uniform() -> None:
    """One of two heads in one layer, both in the other: the first can only be the other one, the second must stay."""
    groups = {name: selection.group.num_units for name, selection in HEADS.selections.items()}
    assert set(groups.values()) == {2}
    for seed in range(20):
        indices = shuffled_like(HEADS, seed).indices
        assert indices["layers.0.heads"].tolist() == [0, 1]
        assert indices["layers.1.heads"].tolist() == [0]
    rows = ticket_of(TokenRows(ends="input"), input=[0, 1, 2])
    counts = np.zeros(64)
    for seed in range(2000):
        counts[shuffled_like(rows, seed).indices["input"]] += 1
    assert abs(counts / 2000 - 3 / 64).max() < 5 * np.sqrt(3 / 64 / 2000)
    drawn = shuffled_like(rows, 0, among=[5, 6, 7]).indices["input"]
    assert drawn.tolist() == [5, 6, 7]


def test_layers_are_redrawn_over_all_groups() -> None:
    layers = ticket_of(Layers(), layers_1=[0])
    shuffled = shuffled_like(layers, 0)
    assert {name: units.tolist() for name, units in shuffled.indices.items()} == {"layers.0": [0], "layers.1": []}
    assert shuffled.provenance.method == "shuffled_like"


def test_groups_that_leave_no_choice() -> None:
    layers = ticket_of(Layers(), layers_0=[0], layers_1=[0])
    with pytest.raises(TicketError, match="The ticket has all 2 units, so redrawing changes nothing. Select fewer"):
        shuffled_like(layers, 0)
    rows = ticket_of(TokenRows(ends="input"), input=[0, 1, 2])
    with pytest.raises(TicketError, match="redrawing within groups changes nothing. Use a control"):
        shuffled_like(rows, 0, among=[2, 1, 0])
    with pytest.raises(TicketError, match="A shuffled control needs 3 units of group 'input', but only 2 are left"):
        shuffled_like(rows, 0, among=[1, 2])


def scores_of(ticket: Ticket, *scores: list[float]) -> list[UnitScores]:
    return [
        UnitScores(selection.group, np.array(score), np.isfinite(score))
        for selection, score in zip(ticket.selections.values(), scores, strict=True)
    ]


def test_the_inverted_ticket_takes_the_smallest_scores_over_all_groups() -> None:
    one = ticket_of(Heads(), layers_0_heads=[1], layers_1_heads=[0])
    scores = scores_of(one, [3.0, 5.0], [4.0, 1.0])
    inverted = inverted_like(one, scores)
    assert {name: units.tolist() for name, units in inverted.indices.items()} == {
        "layers.0.heads": [0], "layers.1.heads": [1]
    }  # fmt: skip
    scores = scores_of(one, [3.0, 5.0], [4.0, -np.inf])
    assert {name: units.tolist() for name, units in inverted_like(one, scores).indices.items()} == {
        "layers.0.heads": [0], "layers.1.heads": [0]
    }  # fmt: skip
    among = {"layers.0.heads": [0, 1]}
    assert inverted_like(one, scores, among).indices["layers.0.heads"].tolist() == [0, 1]
    with pytest.raises(TicketError, match="The 2 units with the smallest scores are the ticket's own"):
        inverted_like(one, scores, {"layers.0.heads": [1], "layers.1.heads": [0]})
    with pytest.raises(TicketError, match="2 units are asked for, but only 1 of 4 can be selected"):
        inverted_like(one, scores, {"layers.0.heads": [1]})
    with pytest.raises(TicketError, match=r"The scores are of groups \['layers.0.heads'\], the ticket of \["):
        inverted_like(one, scores[:1])


def test_reinitialised_tensors_keep_their_values_and_lose_their_places() -> None:
    before = {name: parameter.detach().clone() for name, parameter in MODEL.named_parameters()}
    ticket = ticket_of(Heads(), layers_1_heads=[0])
    permuted = dict(reinitialised(MODEL, ticket, seed=3).named_parameters())
    touched = set(parameters_of([ticket.selections["layers.1.heads"].group]))
    assert touched
    for name, parameter in permuted.items():
        assert torch.equal(parameter, before[name]) == (name not in touched)
        assert torch.equal(parameter.flatten().sort().values, before[name].flatten().sort().values)
        assert torch.equal(dict(MODEL.named_parameters())[name], before[name])
    again = dict(reinitialised(MODEL, [ticket.selections["layers.1.heads"].group], seed=3).named_parameters())
    assert all(torch.equal(parameter, permuted[name]) for name, parameter in again.items())
    other = dict(reinitialised(MODEL, ticket, seed=4).named_parameters())
    assert not all(torch.equal(parameter, permuted[name]) for name, parameter in other.items())


def test_nothing_to_reinitialise() -> None:
    ticket = ticket_of(Heads(), layers_1_heads=[0])
    with pytest.raises(TicketError, match=r"The model has no parameter 'model.layers.1.self_attn.q_proj.weight'"):
        reinitialised(torch.nn.Linear(2, 2), ticket, 0)
    zeros = tiny_llama()
    with torch.no_grad():
        for parameter in zeros.parameters():
            parameter.zero_()
    with pytest.raises(TicketError, match="changes nothing, since each has only one value"):
        reinitialised(zeros, ticket, 0)


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 40), st.integers(0, 999))
def test_classes_are_handed_on_among_the_examples(count: int, seed: int) -> None:
    rows = [{"text": str(number), "label": number} for number in range(count)]
    permuted = permuted_labels(rows, seed, field="label")
    assert [row["text"] for row in permuted] == [row["text"] for row in rows]
    assert sorted(row["label"] for row in permuted) == list(range(count))
    assert all(row["label"] != number for number, row in enumerate(permuted))
    assert permuted == permuted_labels(rows, seed, field="label")
    assert rows[0]["label"] == 0


def test_each_prompt_gets_the_response_of_another_example() -> None:
    examples = [Example(input_ids=[k] * k + [10 + k, 2], labels=[-100] * k + [10 + k, 2]) for k in range(1, 6)]
    permuted = permuted_labels(ResponseExamples(examples), seed=0)
    assert isinstance(permuted, ResponseExamples)
    responses = []
    for number, row in enumerate(permuted.examples, 1):
        assert row["input_ids"][:number] == [number] * number
        assert row["labels"][:number] == [-100] * number
        assert row["labels"][number:] == row["input_ids"][number:]
        assert len(row["input_ids"]) == len(row["labels"]) == number + 2
        assert row["input_ids"][number] != 10 + number
        responses.append(row["input_ids"][number])
    assert sorted(responses) == [11, 12, 13, 14, 15]
    assert permuted_labels(examples, seed=0) == permuted.examples


def test_labels_of_several_classes_are_handed_on_whole() -> None:
    rows = [{"input_ids": [1, 2], "labels": [0, 1, 0]}, {"input_ids": [3], "labels": [1, 1, 0]}]
    assert [row["labels"] for row in permuted_labels(rows, 0)] == [[1, 1, 0], [0, 1, 0]]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"labels": 1}], "Labels of 1 examples cannot be permuted"),
        ([{"labels": 1}, {"label": 2}], r"Row 1 has no 'labels', it has \['label'\]"),
        ([{"labels": 1}, {"labels": 1}], "All 2 examples have the label 1, so permuting changes nothing"),
        ([{"input_ids": [3, 2], "labels": [-100, 2]}] * 2, "All 2 examples have the same response"),
        (
            [{"input_ids": [3], "labels": [3], "mask": [1]}] * 2,
            r"Row 0 has the fields \['input_ids', 'labels', 'mask'\]",
        ),
    ],
)
def test_labels_that_cannot_be_permuted(rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        permuted_labels(rows, 0)


def cell(method: str, score: float | None, replicate: int, control: str = "", **options: Any) -> Record:
    given = {
        "cell": f"{method}{replicate}{options}", "role": "control" if control else "finder", "kind": "update",
        "units": "heads", "task": "a", "found_on": "a", "density": 0.1, **options,
    }  # fmt: skip
    return Record(method=method, control=control, score=score, replicate=replicate, **given)


def test_a_finder_of_random_units_does_not_beat_its_shuffles() -> None:
    """Both scores are a drawn ticket's: on 200 made-up comparisons, at most a share of about alpha / 2 passes."""
    generator = np.random.default_rng(0)
    passed = 0
    for _ in range(200):
        worth = generator.random(24) < 0.2
        records = []
        for replicate in range(4):
            for method, control in (("fake", ""), ("fake shuffled", "shuffled")):
                units = generator.choice(24, size=6, replace=False)
                score = 0.5 + 0.05 * worth[units].sum() + 0.01 * generator.standard_normal()
                records.append(cell(method, float(score), replicate, control, of="fake" if control else ""))
        (verdict,) = beats_its_shuffles(records)
        assert verdict.pairs == 4
        assert verdict.passes or verdict.verdict == "fails: does not beat its own shuffles"
        passed += verdict.passes
    assert passed / 200 < 0.06


def test_a_finder_of_the_right_units_passes() -> None:
    records = [cell("right", 0.9 + 0.01 * k, k) for k in range(3)]
    records += [cell("s", 0.5 - 0.01 * k, k, "shuffled", of="right") for k in range(3)]
    (verdict,) = beats_its_shuffles(records)
    assert verdict.passes
    assert verdict.mean == pytest.approx(0.42)
    assert verdict.low is not None
    assert verdict.high is not None
    # differences 0.40, 0.42, 0.44: deviation 0.02, t quantile 4.3027 with 2 degrees of freedom
    assert verdict.high - verdict.mean == pytest.approx(4.302653 * 0.02 / np.sqrt(3), rel=1e-6)
    assert verdict.to_dict()["pairs"] == 3


def test_what_makes_a_pair() -> None:
    records = [
        cell("one", 0.9, 0), cell("one", 0.9, 1), cell("one", 0.8, 0, density=0.5), cell("one", None, 2),
        cell("one", 0.1, 0, found_on="b"), cell("two", 0.9, 0),
        cell("s", 0.5, 0, "shuffled", of="one"), cell("s", 0.4, 0, "shuffled", of="one", density=0.5),
        cell("s", 0.4, 2, "shuffled", of="one"), cell("s", 0.4, 1, "shuffled", of="one", units="neurons"),
        cell("s", 0.4, 1, "shuffled", of="one", task="b"), cell("s", 0.4, 1, "shuffled", of="one", kind="weight"),
    ]  # fmt: skip
    one, two = beats_its_shuffles(records)
    assert one.pairs == 2
    assert one.mean == pytest.approx(0.4)
    assert (two.pairs, two.mean, two.verdict) == (0, None, "unknown: fewer than 4 pairs")
    assert beats_its_shuffles(records[:1] + records[6:7])[0].mean == pytest.approx(0.4)


def test_random_units_are_a_control_of_every_finder() -> None:
    records = [cell("random", 0.5, k, "random", found_on="") for k in range(3)]
    records += [cell(name, score, k) for name, score in (("good", 0.8), ("bad", 0.5)) for k in range(3)]
    good, bad = beats(records, "random")
    assert good.passes
    assert bad.verdict == "fails: does not beat random units"
    assert beats(records, "frequency")[0].pairs == 0
    drawn_otherwise = [cell("random by layer", 0.3, k, "random") for k in range(3)]
    assert beats([*records, *drawn_otherwise], "random")[0].mean == pytest.approx(0.4)
