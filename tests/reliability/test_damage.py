"""Bits that a disk forgot: whatever changes a result is noticed, named, and made or fetched again."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants

from ks_lottery.checkpoints.reader import open_checkpoint
from ks_lottery.errors import CheckpointError, DataError, TicketError
from ks_lottery.finders.rounds.runs import Run
from ks_lottery.ticket.ticket import Ticket
from ks_lottery.training.sealed import opened, read_sealed, require_seal, seal_folder, sealed
from tests.fake_hub import FakeHub
from tests.reliability import deeds
from tests.tiny_models import tiny_llama


def flipped(content: bytes, place: int) -> bytes:
    """The content with one bit changed; which one of a byte depends on its place."""
    return content[:place] + bytes([content[place] ^ (1 << place % 8)]) + content[place + 1 :]


def test_no_flipped_bit_changes_the_units_of_a_ticket(tmp_path: Path) -> None:
    """It is refused, or it is in what does not decide the units: provenance, names of the base, columns, spaces."""
    ticket = deeds.ticket_of([3, 5])
    ticket.save(tmp_path)
    file = tmp_path / "ticket.safetensors"
    whole = file.read_bytes()
    messages = []
    for place in range(len(whole)):
        file.write_bytes(flipped(whole, place))
        try:
            assert Ticket.load(tmp_path) == ticket, place
        except TicketError as error:
            messages.append(str(error))
    assert len(messages) > len(whole) // 2
    assert [message for message in messages if str(file) not in message] == []


def test_a_cut_off_ticket_is_refused(tmp_path: Path) -> None:
    deeds.ticket_of([3, 5]).save(tmp_path)
    file = tmp_path / "ticket.safetensors"
    whole = file.read_bytes()
    for size in range(0, len(whole), 7):
        file.write_bytes(whole[:size])
        with pytest.raises(TicketError, match="ticket.safetensors' cannot be read"):
            Ticket.load(tmp_path)


def test_a_cut_off_checkpoint_is_refused(tmp_path: Path) -> None:
    tiny_llama().save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    whole = file.read_bytes()
    for size in (0, 7, 100, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match="model.safetensors"):
            open_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["run.json", "trained-00001.safetensors", "checksums.json"])
def test_every_flipped_byte_of_a_run_is_noticed(tmp_path: Path, name: str) -> None:
    """Of weights every 97th byte, of the record each one."""
    runs = deeds.runs_in(tmp_path)
    place = Path(runs.train(Run()).name)
    whole = (place / name).read_bytes()
    for number in range(0, len(whole) - 1, 97 if name.endswith("safetensors") else 1):
        (place / name).write_bytes(flipped(whole, number))
        with pytest.raises(DataError, match=f"Delete the folder '{place}': it is made again") as caught:
            runs.train(Run())
        assert str(place) in str(caught.value)
    (place / name).write_bytes(whole)
    assert runs.train(Run()).name == str(place)


def test_a_file_of_a_run_that_is_gone_is_missed(tmp_path: Path) -> None:
    runs = deeds.runs_in(tmp_path)
    place = Path(runs.train(Run()).name)
    (place / "trained-00001.safetensors").unlink()
    with pytest.raises(DataError, match="trained-00001.safetensors' is missing, and was there when the run ended"):
        runs.train(Run())


def test_a_folder_without_checksums_gets_them(tmp_path: Path) -> None:
    """One of an older version, or of a process that was killed between the run and its checksums."""
    runs = deeds.runs_in(tmp_path)
    place = Path(runs.train(Run()).name)
    checksums = (place / "checksums.json").read_bytes()
    (place / "checksums.json").unlink()
    runs.train(Run())
    assert (place / "checksums.json").read_bytes() == checksums


@pytest.fixture
def compared(tmp_path: Path) -> Path:
    """A finished comparison."""
    deeds.compare(tmp_path / "compared")
    return tmp_path / "compared"


Damage = Callable[[str], str]
DAMAGES: list[tuple[str, Damage, str]] = [
    ("comparison.json", lambda text: text.replace('"steps": 2', '"steps": 3'), "comparison.json' is damaged: its val"),
    ("comparison.json", lambda text: text[:-20], "comparison.json' is damaged, and cannot be read as JSON"),
    ("comparison.json", lambda text: "[]", "comparison.json' is damaged: it holds no JSON object"),
    ("results/0-of-1.jsonl", lambda text: text.replace('"score": ', '"score": 1', 1), "Line 1 of .* is damaged"),
]


@pytest.mark.parametrize(("name", "damage", "message"), DAMAGES)
def test_damage_to_what_a_comparison_keeps(compared: Path, name: str, damage: Damage, message: str) -> None:
    text = (compared / name).read_text(encoding="utf-8")
    assert damage(text) != text
    (compared / name).write_text(damage(text), encoding="utf-8")
    with pytest.raises(DataError, match=message):
        deeds.comparison_in(compared).run()


@pytest.mark.parametrize("kind", ["trained/*.json", "tickets/*/found.json"])
def test_damage_behind_a_cell_is_an_error_of_the_cell(compared: Path, kind: str) -> None:
    """The damaged file is deleted, as the message says, and the comparison goes on."""
    expected = deeds.timeless(deeds.comparison_in(compared).records())
    (compared / "results" / "0-of-1.jsonl").unlink()
    damaged = sorted(compared.glob(kind))[0]
    kept = json.loads(damaged.read_text(encoding="utf-8"))
    number = "trainable" if kind.startswith("trained") else "cost"
    kept[number] = 17 if number == "trainable" else {**kept["cost"], "forward": 1}
    damaged.write_text(json.dumps(kept), encoding="utf-8")
    errors = [record.error for record in deeds.comparison_in(compared).run() if record.error]
    assert errors
    assert all(error.startswith(f"DataError: {str(damaged)!r} is damaged: its values have SHA-256") for error in errors)
    assert all(" Delete " in error for error in errors)
    damaged.unlink()
    if damaged.name == "found.json":
        for file in damaged.parent.rglob("*"):
            if file.is_file():
                file.unlink()
        for folder in sorted(damaged.parent.glob("*")):
            folder.rmdir()
        damaged.parent.rmdir()
    assert deeds.timeless(deeds.comparison_in(compared).run()) == expected


def test_a_lost_ticket_of_a_search_is_named(compared: Path) -> None:
    (compared / "results" / "0-of-1.jsonl").unlink()
    ticket = sorted(compared.glob("tickets/*/*-ticket"))[0]
    ticket.rename(ticket.with_name("elsewhere"))
    errors = [record.error for record in deeds.comparison_in(compared).run() if record.error]
    assert errors
    assert errors[0].startswith(f"TicketError: {str(ticket)!r} is missing, and was there when the search ended.")


def test_a_seal_is_of_the_values_and_not_of_their_order(tmp_path: Path) -> None:
    values = {"b": (1, 2), "a": {2: 0.1, 10: float("inf")}}
    read = json.loads(json.dumps(sealed(values), sort_keys=True))
    assert opened(read, "It", "Do.") == {"b": [1, 2], "a": {"2": 0.1, "10": float("inf")}}
    with pytest.raises(DataError, match="It is damaged: its values have SHA-256 [0-9a-f]{12}, and [0-9a-f]{12} when"):
        opened({**read, "b": [1, 3]}, "It", "Do.")
    assert opened({"a": 1}, "It", "Do.") == {"a": 1}, "an older version had no seals"
    with pytest.raises(DataError, match="There is no .*x.json', which was written with what lies beside it. Do"):
        read_sealed(tmp_path / "x.json", "Do.")


def test_a_file_that_is_another_one_is_noticed_by_size_and_by_hash(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "x").write_text("abc")
    seal_folder(tmp_path)
    require_seal(tmp_path, "Do.")
    for content, size in (("ab", 2), ("abd", 3)):
        (tmp_path / "sub" / "x").write_text(content)
        with pytest.raises(DataError, match=f"sub/x' is damaged: it has {size} bytes of SHA-256 .*, and had 3 of"):
            require_seal(tmp_path, "Do.")
    (tmp_path / "sub" / "x").write_text("abc")
    require_seal(tmp_path, "Do.")


def test_a_cached_checkpoint_that_was_cut_off_is_refused_and_named(fake_hub: FakeHub, tmp_path: Path) -> None:
    tiny_llama().save_pretrained(tmp_path / "model")
    fake_hub.add("tester/model", tmp_path / "model")
    checkpoint = open_checkpoint("tester/model")
    checkpoint.rows("lm_head.weight")
    (cached,) = Path(constants.HF_HUB_CACHE).glob("models--tester--model/snapshots/*/model.safetensors")
    with cached.resolve().open("r+b") as file:
        file.truncate(cached.stat().st_size - 1)
    with pytest.raises(CheckpointError, match=f"in '{cached}', which has only .* truncated; download or"):
        open_checkpoint("tester/model").rows("lm_head.weight")
