"""Pairs come from files, data sets, zips or the embedded corpus; what cannot be used is named with its row."""

import csv
import json
import re
import zipfile
from pathlib import Path

import datasets
import pytest
from pocket.splits import Pair, nodes
from translation_data import DataArguments, Sentence, TranslationData, load_translation_data

from ks_lottery.errors import DataError
from tests.recipes.tiny_run import save_tiny_pairs, tiny_pairs

ALL = {"train_pairs": 10_000, "dev_sentences": 10_000, "test_sentences": 10_000}
PAIRS = [Pair(*pair) for pair in (("One cat.", "Unu kato."), ("Two cats.", "Du katoj."), ("Three.", "Tri."))]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch) -> None:
    """Data sets are cached below `tmp_path`, and say nothing."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_CACHE_HOME", str(tmp_path))


def load(**options) -> TranslationData:
    return load_translation_data(DataArguments(**{"target_language": "eo", **options}))


def pairs_of(data: TranslationData) -> list[Pair]:
    held_out = [Pair(s.source, reference) for s in (*data.dev, *data.test) for reference in s.references]
    return [*data.train, *held_out]


def write_csv(file: Path, rows: list[dict]) -> Path:
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return file


def write_jsonl(file: Path, rows: list) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def flat(pairs) -> list[dict]:
    return [{"id": number, "en": source, "eo": target} for number, (source, target) in enumerate(pairs)]


def nested(pairs) -> list[dict]:
    return [{"translation": {"en": source, "eo": target}} for source, target in pairs]


def test_every_kind_of_file_gives_the_same_data(tmp_path) -> None:
    files = [
        save_tiny_pairs(tmp_path / "pairs.tsv"),
        write_csv(tmp_path / "pairs.csv", flat(tiny_pairs())),
        write_jsonl(tmp_path / "pairs.jsonl", flat(tiny_pairs())),
        write_jsonl(tmp_path / "nested.json", nested(tiny_pairs())),
    ]
    loaded = [load(data_file=str(file), **ALL) for file in files]
    assert [data.name for data in loaded] == [file.name for file in files]
    assert len({data.digest for data in loaded}) == 1
    assert sorted(pairs_of(loaded[0])) == sorted(tiny_pairs())


def test_no_sentence_is_on_two_sides_of_a_split(tmp_path) -> None:
    pairs = [Pair(f"Sentence {a}.", f"Frazo {b}!") for a in range(300) for b in (a, a + a % 2)]
    file = write_csv(tmp_path / "pairs.csv", flat(pairs))
    data = load(data_file=str(file), **ALL)
    assert set(pairs_of(data)) == set(pairs)
    splits = (
        data.train,
        *([Pair(s.source, r) for s in held_out for r in s.references] for held_out in (data.dev, data.test)),
    )
    sentences = [{node for pair in split for node in nodes("eo", pair)} for split in splits]
    assert all(sentences)
    assert sum(map(len, sentences)) == len(set().union(*sentences))
    assert len(data.train) > 5 * len(data.test) > 5 * len(data.dev)


def test_the_draw_has_the_asked_size_and_depends_on_its_seed_alone(tmp_path) -> None:
    file = str(save_tiny_pairs(tmp_path / "pairs.tsv"))
    options = {"data_file": file, "train_pairs": 20, "dev_sentences": 3, "test_sentences": 5}
    first, same, other = load(**options), load(**options), load(**options, data_seed=1)
    assert (len(first.train), len(first.dev), len(first.test)) == (20, 3, 5)
    assert first == same
    assert first.digest == same.digest != other.digest
    assert set(first.train) <= set(load(data_file=file, **ALL).train)


def test_all_translations_of_a_held_out_sentence_are_references(tmp_path) -> None:
    pairs = [Pair(f"Sentence {n}.", f"Frazo {n}{end}") for n in range(100) for end in (".", "!", ".")]
    data = load(data_file=str(write_jsonl(tmp_path / "pairs.jsonl", flat(pairs))), **ALL)
    assert data.test
    for sentence in (*data.dev, *data.test):
        number = sentence.source.split()[1]
        assert sentence == Sentence(sentence.source, (f"Frazo {number}", f"Frazo {number[:-1]}!"))


def test_a_file_is_read_as_it_is(tmp_path) -> None:
    """A byte order mark, Windows line ends, further columns, sentences that pandas or splitlines would tear."""
    pairs = [*PAIRS, Pair("NA", "null"), Pair("A\x0bB\u2028C\x85D", "E"), Pair('He said "no", then.', "Ne, li diris.")]
    more = [Pair(f"Sentence {n}.", f"Frazo {n}.") for n in range(200)]
    tsv = tmp_path / "pairs.tsv"
    lines = "".join(f"{source}\t{target}\tCC-BY\r\n" for source, target in pairs + more)
    tsv.write_bytes(b"\xef\xbb\xbf" + lines.encode())
    table = write_csv(tmp_path / "pairs.csv", flat(pairs + more))
    assert sorted(pairs_of(load(data_file=str(tsv), **ALL))) == sorted(pairs + more)
    assert sorted(pairs_of(load(data_file=str(table), **ALL))) == sorted(pairs + more)


def test_a_column_may_be_called_translation(tmp_path) -> None:
    rows = [{"text": source, "translation": target} for source, target in tiny_pairs()]
    file = str(write_csv(tmp_path / "pairs.csv", rows))
    data = load(data_file=file, source_language="text", target_language="translation", **ALL)
    assert sorted(pairs_of(data)) == sorted(tiny_pairs())
    with pytest.raises(DataError, match="has columns text, translation, but not both 'text' and 'eo'"):
        load(data_file=file, source_language="text")


@pytest.mark.parametrize("layout", ["files", "saved"])
def test_a_local_data_set_keeps_its_splits(tmp_path, layout: str) -> None:
    folder = tmp_path / "set"
    parts = {"train": tiny_pairs()[:90], "validation": tiny_pairs()[90:100], "test": tiny_pairs()[100:120]}
    if layout == "files":
        folder.mkdir()
        for split, pairs in parts.items():
            write_jsonl(folder / f"{split}.jsonl", nested(pairs))
    else:
        datasets.DatasetDict(
            {split: datasets.Dataset.from_list(nested(pairs)) for split, pairs in parts.items()}
        ).save_to_disk(str(folder))
    data = load(dataset_name=str(folder), **ALL)
    assert data.name == str(folder)
    assert sorted(data.train) == sorted(parts["train"])
    for held_out, split in ((data.dev, "validation"), (data.test, "test")):
        assert sorted(Pair(s.source, *s.references) for s in held_out) == sorted(parts[split])


def test_a_missing_split_is_held_out_from_train_and_the_others_stay(tmp_path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    write_csv(folder / "train.csv", flat(tiny_pairs()[:300]))
    write_csv(folder / "test.csv", flat(tiny_pairs()[300:320]))
    data = load(dataset_name=str(folder), **ALL)
    assert {sentence.source for sentence in data.test} == {pair.source for pair in tiny_pairs()[300:320]}
    assert sorted([*data.train, *(Pair(s.source, *s.references) for s in data.dev)]) == sorted(tiny_pairs()[:300])
    assert 0 < len(data.dev) < 30


def test_the_embedded_corpus_needs_nothing() -> None:
    data = load_translation_data(DataArguments(target_language="fr", train_pairs=50))
    assert data.name == "embedded corpus en-fr"
    assert (len(data.train), len(data.dev), len(data.test)) == (50, 150, 400)


def test_a_tatoeba_zip(tmp_path) -> None:
    file = tmp_path / "deu-eng.zip"
    lines = "".join(f"He sees {n} cats.\tEr sieht {n} Katzen.\tCC-BY 2.0\n" for n in range(1000))
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("deu.txt", lines)
    data = load(tatoeba=str(file), target_language="de", train_pairs=20, dev_sentences=1, test_sentences=1)
    assert data.name == "Tatoeba en-de"
    assert len(data.train) == 20
    with pytest.raises(DataError, match=r"--tatoeba .* --target_language fr: No fra-eng\.zip at "):
        load(tatoeba=str(tmp_path), target_language="fr")


def refusal(**options) -> str:
    with pytest.raises(DataError) as caught:
        load(**options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", "One.\tUnu.\nTwo.\n", "Line 2 of a.tsv has no tab: 'Two.'. A TSV line is SOURCE, tab, TARGET."),
        ("a.tsv", "One.\tUnu.\n \tDu.\n", "Row 2 of a.tsv has an empty source sentence. Remove the row."),
        ("a.tsv", "One.\tUnu.\n\t\n", "Row 2 of a.tsv has an empty source sentence."),
        ("a.tsv", "One.\t\n", "Row 1 of a.tsv has an empty target sentence."),
        ("a.tsv", "", "The train split of a.tsv is empty. Give more pairs, or another source."),
        ("a.tsv", "One.\tUnu.\n", "split of a.tsv is empty. Give more pairs, or another source."),
        ("a.csv", "en,de\nOne.,Eins.\n", "a.csv has columns en, de, but not both 'en' and 'eo'. Name them with "),
        ("a.csv", "en,eo\nOne.\n", "Row 1 of a.csv has an empty target sentence."),
        ("a.csv", "en\nOne.,Unu.\n", "a.csv has columns en, None, but not both 'en' and 'eo'."),
        ("a.csv", "", "The train split of a.csv is empty."),
        ("a.jsonl", '{"en": "One.", "eo": null}\n', "Row 1 of a.jsonl has an empty target sentence."),
        ("a.jsonl", '{"translation": {"en": "One."}}\n', "a.jsonl has columns en, but not both 'en' and 'eo'."),
        ("a.jsonl", '{"en": "One.", "eo": "Unu."}\n{"en":\n', "Line 2 of a.jsonl is no JSON (Expecting value"),
        ("a.json", '[{"en": "One."}]', "Line 1 of a.json is no JSON object: '[{\"en\": \"One.\"}]'. Write one"),
        ("a.txt", "One.\tUnu.\n", "a.txt: only .tsv, .csv, .jsonl and .json are read."),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used(tmp_path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert message in refusal(data_file=str(tmp_path / name))


def test_a_file_that_is_not_there_or_not_utf_8(tmp_path) -> None:
    assert refusal(data_file="nowhere.tsv") == "There is no file 'nowhere.tsv'."
    (tmp_path / "a.tsv").write_bytes("One.\tEins, z\u00e4hlen.\n".encode("latin-1"))
    assert re.match(r"a\.tsv is not UTF-8 \(.*\)\. Save it as UTF-8\.", refusal(data_file=str(tmp_path / "a.tsv")))


def test_one_source_at_a_time() -> None:
    assert refusal(dataset_name="a/b", data_file="pairs.tsv") == (
        "--dataset_name and --data_file are given; the pairs have one source."
    )
    assert refusal(tatoeba="folder", data_file="pairs.tsv").startswith("--data_file and --tatoeba are given;")


@pytest.mark.parametrize("name", ["train_pairs", "dev_sentences", "test_sentences"])
def test_there_must_be_something_to_train_and_score_on(name: str) -> None:
    assert refusal(**{name: 0}) == f"--{name} 0: must be at least 1."


def test_unknown_languages_of_the_embedded_corpus() -> None:
    assert refusal(target_language="xx") == "--target_language xx: Unknown language 'xx'. Available: de, fr, es."
    for source in ({}, {"tatoeba": "folder"}):
        assert refusal(source_language="fr", target_language="de", **source).startswith(
            "--source_language fr: Tatoeba and the embedded corpus translate from en. Leave it out, or give --data_file"
        )


def test_a_data_set_that_cannot_be_loaded_without_a_network() -> None:
    message = refusal(dataset_name="Helsinki-NLP/opus-100", dataset_config_name="en-eo")
    assert message.startswith("The data set Helsinki-NLP/opus-100 en-eo cannot be loaded: ")
    assert message.endswith(
        "Without a network set HF_HUB_OFFLINE=1 to use the local cache, give --data_file or --tatoeba, or leave all "
        "three out for the embedded corpus."
    )


def test_a_data_set_without_a_usable_split(tmp_path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    write_jsonl(folder / "test.jsonl", flat(PAIRS))
    assert refusal(dataset_name=str(folder)) == f"The data set {folder} has splits test, but no train split."
    write_jsonl(folder / "train.jsonl", flat([("One.", "Unu."), ("Two.", " ")]))
    assert refusal(dataset_name=str(folder)) == (
        f"Row 2 of {folder} train has an empty target sentence. Remove the row."
    )
    write_jsonl(folder / "train.jsonl", [{"english": "One.", "eo": "Unu."}])
    assert refusal(dataset_name=str(folder)).startswith(f"The data set {folder} cannot be loaded: An error occurred")
