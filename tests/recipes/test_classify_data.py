"""Labelled texts: drawn from all labels in turn, none of the test set's among them, and every mistake is named."""

import csv
import re
from collections import Counter
from pathlib import Path

import pytest
from classification_data import DataArguments, LabelledText, load_classification_data
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from ks_lottery.errors import DataError

LABELS = ("food", "travel", "weather")


def rows(split: str, per_label: int) -> list[tuple[str, str]]:
    return [(f"{split} text {number} about {label}", label) for label in LABELS for number in range(per_label)]


def write(file: Path, lines: list[tuple[str, str]], header: tuple[str, str] = ("text", "category")) -> None:
    with file.open("w", encoding="utf-8", newline="") as opened:
        csv.writer(opened).writerows([header, *lines])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "train.csv", [*rows("train", 8), ("one, with a comma and “quotes”", "food")])
    write(tmp_path / "test.csv", rows("test", 4))
    return tmp_path


def load(folder: Path, **options):
    return load_classification_data(
        DataArguments(**{"data_dir": str(folder), "train_examples": 9, "dev_examples": 6, **options})
    )


def test_labels_come_in_turn_and_parts_share_no_text(folder: Path) -> None:
    data = load(folder)
    assert data.labels == LABELS
    assert (len(data.train), len(data.dev), len(data.test)) == (9, 6, 12)
    for part, each in ((data.train, 3), (data.dev, 2), (data.test, 4)):
        assert Counter(example.label for example in part) == dict.fromkeys(LABELS, each)
    texts = [example.text for part in (data.train, data.dev, data.test) for example in part]
    assert len(set(texts)) == len(texts)
    assert data.classes(data.train) == [LABELS.index(example.label) for example in data.train]
    assert Counter(example.label for example in load(folder, test_examples=6).test) == dict.fromkeys(LABELS, 2)


def test_the_seed_decides_the_draw(folder: Path) -> None:
    assert load(folder) == load(folder)
    assert load(folder).digest == load(folder).digest
    assert load(folder, data_seed=1).train != load(folder).train
    assert load(folder, data_seed=1).digest != load(folder).digest


def test_quoted_fields_are_read_whole(folder: Path) -> None:
    data = load(folder, train_examples=19)
    assert LabelledText("one, with a comma and “quotes”", "food") in (*data.train, *data.dev)


def test_training_texts_of_the_test_set_are_left_out(folder: Path) -> None:
    write(
        folder / "train.csv",
        [("TEST  text 0 about food", "food"), ("train text 1 about food", "food"), *rows("train", 8)],
    )
    data = load(folder, train_examples=20, dev_examples=4)
    assert data.left_out == 2
    assert Counter(example.text for example in (*data.train, *data.dev))["train text 1 about food"] == 1


def test_a_data_set_on_disk_names_its_classes(folder: Path, tmp_path: Path) -> None:
    features = Features({"sentence": Value("string"), "intent": ClassLabel(names=["travel", "food", "weather"])})
    splits = {
        split: Dataset.from_list([{"sentence": text, "intent": label} for text, label in rows(split, 6)], features)
        for split in ("train", "test")
    }
    DatasetDict(splits).save_to_disk(tmp_path / "stored")
    options = {"data_dir": None, "text_column": "sentence", "label_column": "intent", "dev_examples": 3}
    data = load(folder, dataset_name=str(tmp_path / "stored"), **options)
    assert data.labels == LABELS
    assert all(example.text.endswith(f" {example.label}") for example in data.train)
    DatasetDict(train=splits["train"]).save_to_disk(tmp_path / "half")
    with pytest.raises(DataError, match="has splits train, but no test split"):
        load(folder, dataset_name=str(tmp_path / "half"), **options)
    with pytest.raises(DataError, match=r"The data set nobody/nothing cannot be loaded: .* or give --data_dir\."):
        load(folder, dataset_name="nobody/nothing", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data_dir": None}, "--dataset_name, a classification set of the Hub. Neither is given."),
        ({"dataset_name": "a/b"}, "Both is given."),
        ({"dev_examples": 0}, "--dev_examples 0: must be at least 1."),
        ({"test_examples": 0}, "--test_examples 0: must be at least 1."),
        ({"test_examples": 13}, "--test_examples 13: the test split of {folder} has 12."),
        ({"train_examples": 20}, "ask for 26 texts, but the training split of {folder} has 25 that can be used."),
        ({"train_examples": 2}, "1 of the 3 labels of {folder} have no text among the 2 training texts: "),
        ({"text_column": "question"}, "train.csv has columns text, category, but no 'question'. Name it with --text_"),
        ({"label_column": "label"}, "train.csv has columns text, category, but no 'label'. Name it with --label_"),
    ],
)
def test_options_that_cannot_be_met(folder: Path, options, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message.format(folder=folder.name))):
        load(folder, **options)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "train.csv has no rows."),
        ([("hello", "food"), ("   ", "food")], "Row 2 of train.csv has an empty 'text'. Remove the row."),
        ([("hello", "")], "Row 1 of train.csv has an empty 'category'. Remove the row."),
        ([("hello",)], "Row 1 of train.csv has an empty 'category'. Remove the row."),
    ],
)
def test_files_that_cannot_be_used(folder: Path, lines, message: str) -> None:
    write(folder / "train.csv", lines)
    with pytest.raises(DataError, match=re.escape(message)):
        load(folder)


def test_labels_of_the_test_set_alone_are_named(folder: Path) -> None:
    write(folder / "test.csv", [*rows("test", 4), ("play a song", "music")])
    with pytest.raises(DataError, match=r"1 of the 4 labels .* have no text among the 9 training texts: 'music'\."):
        load(folder)


def test_files_that_are_missing_or_no_text(folder: Path) -> None:
    (folder / "test.csv").write_bytes(b"text,category\ncaf\xe9,food\n")
    with pytest.raises(DataError, match="test.csv is not UTF-8"):
        load(folder)
    (folder / "test.csv").unlink()
    with pytest.raises(DataError, match=r"There is no file '.*test\.csv'; --data_dir needs train\.csv and test\.csv"):
        load(folder)
