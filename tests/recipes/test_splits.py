"""Splits by connected component: nothing leaks, and nothing depends on order."""

import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pocket import corpus, tatoeba
from pocket.splits import SPLITS, Pair, nodes, normalise, split_languages, split_pairs
from pocket.tatoeba import load_tatoeba

FRACTIONS = {"pretrain": 0.4, "train": 0.3, "dev": 0.1, "test": 0.2}
TATOEBA = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "tatoeba"
needs_tatoeba = pytest.mark.skipif(not TATOEBA.is_dir(), reason="the Tatoeba zips are not here")

pair_lists = st.lists(
    st.builds(lambda a, b: Pair(f"source {a}.", f"target {b}!"), st.integers(0, 30), st.integers(0, 30)), max_size=60
)


def sentences(language: str, pairs) -> set:
    return {sentence for pair in pairs for sentence in nodes(language, pair)}


def assert_disjoint(splits: dict[str, set]) -> None:
    union = set().union(*splits.values())
    assert sum(len(found) for found in splits.values()) == len(union)


@given(pair_lists)
def test_no_sentence_is_in_two_splits_and_no_pair_is_lost(pairs):
    splits = split_pairs(pairs, FRACTIONS)
    assert list(splits) == list(FRACTIONS)
    assert sorted(pair for found in splits.values() for pair in found) == sorted(pairs)
    assert_disjoint({name: sentences("de", found) for name, found in splits.items()})


@given(pair_lists, st.randoms(use_true_random=False))
def test_the_order_of_the_pairs_does_not_matter(pairs, random):
    shuffled = list(pairs)
    random.shuffle(shuffled)
    first, second = split_pairs(pairs, FRACTIONS), split_pairs(shuffled, FRACTIONS)
    assert {name: set(found) for name, found in first.items()} == {name: set(found) for name, found in second.items()}


@given(pair_lists, pair_lists)
@settings(max_examples=50)
def test_languages_are_held_out_together(german, french):
    splits = split_languages({"de": german, "fr": french}, FRACTIONS)
    for language, pairs in (("de", german), ("fr", french)):
        assert sorted(pair for found in splits[language].values() for pair in found) == sorted(pairs)
    assert_disjoint(
        {name: sentences("de", splits["de"][name]) | sentences("fr", splits["fr"][name]) for name in FRACTIONS}
    )


def test_fractions_are_met_by_many_components():
    pairs = [Pair(f"source {i}", f"target {i}") for i in range(20_000)]
    splits = split_pairs(pairs, FRACTIONS)
    for name, fraction in FRACTIONS.items():
        assert abs(len(splits[name]) / len(pairs) - fraction) < 0.02


def test_another_salt_gives_another_split():
    pairs = [Pair(f"source {i}", f"target {i}") for i in range(100)]
    assert split_pairs(pairs, FRACTIONS, "a") == split_pairs(pairs, FRACTIONS, "a")
    assert split_pairs(pairs, FRACTIONS, "a") != split_pairs(pairs, FRACTIONS, "b")


def test_giant_components_overflow():
    chain = [Pair(f"source {i}", f"target {i + step}") for i in range(50) for step in (0, 1)]
    only_test = {"pretrain": 0.0, "test": 1.0}
    assert split_pairs(chain, only_test)["pretrain"] == []
    assert split_pairs(chain, only_test, max_component=100)["test"] == []
    assert split_pairs(chain, only_test, max_component=101)["pretrain"] == []
    assert len(split_pairs(chain, only_test, max_component=10, overflow="test")["test"]) == 100


@pytest.mark.parametrize(
    ("left", "right"),
    [("I'm here.", "i'm  here"), ("STRASSE!", "Straße?"), ("¿Qué?", "qu" + "e\u0301"), (" Go!", "go…")],
)
def test_sentences_that_count_as_one(left, right):
    assert normalise(left) == normalise(right)
    together = [Pair(left, "a"), Pair(right, "b")]
    assert 2 in [len(found) for found in split_pairs(together, FRACTIONS).values()]


@given(st.text())
def test_normalising_twice_changes_nothing(text):
    assert normalise(normalise(text)) == normalise(text)


@pytest.mark.parametrize("fractions", [{"pretrain": 0.5}, {"pretrain": 1.5, "test": -0.5}, {}])
def test_fractions_must_sum_to_one(fractions):
    with pytest.raises(ValueError, match="must be non-negative and sum to 1"):
        split_pairs([Pair("a", "b")], fractions)


def test_the_overflow_split_must_exist():
    with pytest.raises(ValueError, match="The overflow split 'pretrain' is not among the splits \\['train', 'test'\\]"):
        split_pairs([Pair("a", "b")], {"train": 0.5, "test": 0.5})


def write_zip(folder: Path, language: str, lines: list[str]) -> Path:
    name, member = tatoeba.FILES[language]
    with zipfile.ZipFile(folder / name, "w") as archive:
        archive.writestr(f"folder/{member}", "\n".join(lines))
    return folder / name


def test_zips_are_read_filtered_and_split(tmp_path):
    words = ("one", "two", "three")
    expected = [
        Pair(f"{a} number {w}.", f"{b} Nummer {w}.") for a, b in (("See", "Sieh"), ("Take", "Nimm")) for w in words
    ]
    lines = [f"{pair.source}\t{pair.target}\tCC-BY 2.0" for pair in expected]
    path = write_zip(tmp_path, "de", [*lines, lines[0], "See.\tSieh.", "See number two now.\tSieh jetzt Nummer two."])
    limits = {"english_words": 6, "target_words": 6}
    assert load_tatoeba(path, "de", **limits) == expected
    assert load_tatoeba(tmp_path, "de", **limits) == expected
    split = [load_tatoeba(path, "de", name, **limits) for name in SPLITS]
    assert sorted(pair for found in split for pair in found) == sorted(expected)


def test_a_missing_zip_or_unknown_name_is_refused(tmp_path):
    write_zip(tmp_path, "de", ["Go on.\tMach weiter."])
    with pytest.raises(FileNotFoundError, match="No fra-eng.zip at .*manythings"):
        load_tatoeba(tmp_path, "fr")
    with pytest.raises(FileNotFoundError, match="No fra-eng.zip"):
        load_tatoeba(tmp_path / "deu-eng.zip", "fr")
    with pytest.raises(ValueError, match="Unknown language 'it'. Available: de, fr, es"):
        load_tatoeba(tmp_path, "it")
    with pytest.raises(ValueError, match="Unknown split 'valid'. Available: pretrain, train, dev, test"):
        load_tatoeba(tmp_path, "de", "valid")


def test_no_generated_sentence_is_in_two_splits():
    assert_disjoint(
        {
            name: set().union(*(sentences(key, corpus.load_split(key, name)) for key in corpus.LANGUAGES))
            for name in SPLITS
        }
    )


@needs_tatoeba
def test_no_tatoeba_sentence_is_in_two_splits():
    assert_disjoint(
        {
            name: set().union(*(sentences(key, load_tatoeba(TATOEBA, key, name)) for key in tatoeba.FILES))
            for name in SPLITS
        }
    )


@needs_tatoeba
@pytest.mark.parametrize("language", tatoeba.FILES)
def test_tatoeba_splits_are_large_enough(language):
    sizes = {name: len({pair.source for pair in load_tatoeba(TATOEBA, language, name)}) for name in SPLITS}
    assert sizes["test"] >= 1000
    assert sizes["train"] >= 4500
    assert sizes["dev"] >= 500
    assert sizes["pretrain"] >= 30_000
