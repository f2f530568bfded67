"""Options come from dataclasses, YAML files and flags, in that order of strength, and every mistake is named."""

import re
from pathlib import Path

import pytest
from options import CONFIGS, parse_options
from translate import RunArguments
from translation_data import DataArguments
from translation_options import EvaluationArguments, ModelArguments, TuningArguments
from translation_ticket import TicketArguments

from ks_lottery.errors import OptionError, UnknownNameError

KINDS = (ModelArguments, DataArguments, TicketArguments, TuningArguments, EvaluationArguments, RunArguments)


def parse(*arguments: str) -> dict:
    values = parse_options(KINDS, arguments, default="pocket.yaml", quick="quick.yaml")
    assert tuple(map(type, values)) == KINDS
    return {name: value for part in values for name, value in vars(part).items()}


@pytest.fixture
def config(tmp_path: Path):
    def write(text: str) -> str:
        file = tmp_path / "options.yaml"
        file.write_text(text, encoding="utf-8")
        return str(file)

    return write


def test_without_arguments_the_embedded_default_is_read() -> None:
    options = parse()
    assert (options["prompt"], options["selector"], options["top_k"]) == ("instruction", "top_k", 50)
    assert options["embed_rates"] == [0.001, 0.003]
    assert options["dataset_name"] is options["data_file"] is options["tatoeba"] is None
    assert Path(options["model_name_or_path"]).parts[-2:] == ("pocket", "model")


def test_quick_is_read_on_top() -> None:
    usual, quick = parse(), parse("--quick")
    changed = {name for name in usual if usual[name] != quick[name]}
    assert changed == {
        "train_pairs", "dev_sentences", "test_sentences", "embed_rates", "full_rates", "row_rates", "lora_rates"
    }  # fmt: skip
    assert parse("--top_k", "7", "--quick")["train_pairs"] == quick["train_pairs"]


def test_a_flag_wins_over_the_files(config) -> None:
    options = parse("--quick", "--train_pairs", "5", "--embed_rates", "0.5", "1e-3", "--top-k=7")
    assert (options["train_pairs"], options["embed_rates"], options["top_k"]) == (5, [0.5, 0.001], 7)
    file = config("top_k: 9\nbatch_size: 4\n")
    assert parse(file)["top_k"] == 9
    assert parse(file, "--top_k", "8")["top_k"] == 8
    assert parse(file, "--quick")["train_pairs"] == parse("--quick")["train_pairs"]


@pytest.mark.parametrize("flag", ["--model_name_or_path=gpt2", "--model-name-or-path=gpt2"])
def test_another_model_does_not_get_the_settings_of_the_embedded_one(flag: str) -> None:
    options = parse(flag)
    assert options["model_name_or_path"] == "gpt2"
    assert (options["selector"], options["prompt"], options["embed_rates"]) == ("alpha", "alpaca", [2e-5])
    assert parse(*flag.split("="))["selector"] == "alpha"


TRANSLATION = ["pocket.yaml", "quick.yaml", "paper.yaml"]


@pytest.mark.parametrize("name", TRANSLATION)
def test_every_shipped_configuration_can_be_read(name: str) -> None:
    others = {file.name for file in CONFIGS.iterdir() if not file.name.startswith("compare")}
    assert others == {*TRANSLATION, "classify.yaml", "study.yaml"}
    parse(str(CONFIGS / name))


def test_the_paper_s_settings() -> None:
    options = parse(str(CONFIGS / "paper.yaml"))
    assert (options["selector"], options["alpha"], options["correction"]) == ("alpha", 0.05, "none")
    assert (options["embed_rates"], options["epochs"], options["num_beams"]) == ([2e-5], 3, 4)


def test_a_number_without_a_point_is_read_as_on_the_command_line(config) -> None:
    options = parse(config("embed_rates: [1e-3, 1]\nalpha: 1e-2\nepochs: 2\nprivate: yes\nmicro_batch_size:\n"))
    assert options["embed_rates"] == [0.001, 1.0]
    assert (options["alpha"], options["epochs"], options["private"]) == (0.01, 2.0, True)
    assert options["micro_batch_size"] is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("topk: 5", "has the unknown option 'topk'. Did you mean 'top_k'? See --help for all of them."),
        ("5: 5", "has the unknown option 5. See --help"),
        ("help: true", "has the unknown option 'help'."),
        ("- top_k", "must hold options, one `name: value` a line."),
        ("", "must hold options, one `name: value` a line."),
        ("top_k: [", "is no YAML: "),
        ("top_k: 2.5", "has top_k: 2.5, which cannot be read: invalid literal for int()"),
        ("top_k: [5]", "has top_k: [5], which cannot be read: a single value is expected."),
        ("top_k: {a: 5}", "which cannot be read: a single value is expected."),
        ("top_k:", "has top_k: None, which cannot be read: a single value is expected."),
        ("embed_rates: 0.1", "has embed_rates: 0.1, which cannot be read: a list is expected."),
        ("embed_rates: [high]", "which cannot be read: could not convert string to float: 'high'."),
        ("private: maybe", "has private: 'maybe', which cannot be read: Truthy value expected"),
    ],
)
def test_a_wrong_file_is_refused(config, text: str, message: str) -> None:
    with pytest.raises(OptionError, match=rf"options\.yaml' .*{re.escape(message)}"):
        parse(config(text))


def test_a_missing_file_is_named() -> None:
    with pytest.raises(OptionError, match=r"There is no configuration file 'nowhere\.yaml'\."):
        parse("nowhere.yaml")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--topk", "5"], "Unknown argument '--topk'. Did you mean '--top_k'? A configuration file comes first;"),
        (["--model", "gpt2"], "Unknown argument '--model'."),
        (["--quick", "paper.yaml"], "Unknown argument 'paper.yaml'. A configuration file comes first;"),
        (["--selector", "best"], "--selector best: must be one of alpha, top_k, density."),
        (["--alpha", "0"], "--alpha 0.0: must be above 0 and at most 1; the paper's is 0.05."),
        (["--alpha", "1.5"], "--alpha 1.5: must be above 0"),
        (["--selector", "alpha", "--correction", "bonferoni"], "Alpha(correction='bonferoni'): must be one of none,"),
        (["--top_k", "0"], "TopK(0): k must be at least 1."),
        (["--selector", "density", "--density", "2"], "Density(2.0): rho must lie between 0 and 1"),
        (["--minimum_count", "-1"], "--minimum_count -1: must not be negative."),
        (["--dtype", "float16"], "--dtype float16: must be auto, float32 or bfloat16."),
        (["--row_rates", "0.1", "0"], "--row_rates [0.1, 0.0]: must be one or more learning rates above 0."),
        (["--epochs", "0"], "--epochs 0.0: must be above 0."),
        (["--micro_batch_size", "0"], "--micro_batch_size 0: must be above 0."),
        (["--max_new_tokens", "0"], "--max_new_tokens 0: must be above 0."),
        (["--push_to_hub"], "--push_to_hub needs --hub_model_id user/name."),
    ],
)
def test_a_wrong_value_is_refused_before_anything_is_done(arguments: list[str], message: str) -> None:
    with pytest.raises(OptionError, match=re.escape(message)):
        parse(*arguments)


def test_an_unknown_finder_is_refused_before_anything_is_done() -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown finder 'kss'\. Did you mean 'ks'\?"):
        parse("--finder", "kss")


def test_an_empty_list_of_learning_rates_is_refused(config) -> None:
    with pytest.raises(OptionError, match=r"--lora_rates \[\]: must be one or more learning rates above 0\."):
        parse(config("lora_rates: []"))


def test_help_shows_every_option_and_how_to_give_files(capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        parse("--help")
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    assert "[CONFIG.yaml] [--quick] [--flags]" in printed
    assert all(f"--{name}" in printed for name in parse())
