"""The model card of a ticket on the Hugging Face Hub: what it is, how well it did, how to load it, what to doubt."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ks_lottery._version import __version__
from ks_lottery.checkpoints.redaction import redacted
from ks_lottery.errors import OptionError
from ks_lottery.ticket.certificate import certificates, in_words
from ks_lottery.ticket.markdown import MISSING, code, number, percent, table
from ks_lottery.ticket.summary import cut_by

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCard

_HUB_ID = re.compile(r"[A-Za-z0-9_][\w.-]*(/[\w.-]+)?", re.ASCII)
_ROWS_SHOWN = 50
_TUNED = "partial tuning"
PEFT_IMPORT = "from peft import PeftModel"
OWN_IMPORT = "from ks_lottery import LotteryConfig  # importing it makes the adapter's type known to PEFT"
AUTO_CLASSES = {
    "CAUSAL_LM": "AutoModelForCausalLM",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
}
"""PEFT's task types to the classes of transformers that load their base models."""

PIPELINES = {
    "AutoModelForCausalLM": "text-generation",
    "AutoModelForSequenceClassification": "text-classification",
    "AutoModelForTokenClassification": "token-classification",
    "AutoModelForQuestionAnswering": "question-answering",
}
LIBRARY_TAG = "ks-lottery"
"""Tag of every card, by which tickets are listed."""

KS_LOTTERY = """@inproceedings{yuan-etal-2025-ks,
  title = "{KS}-Lottery: Finding Certified Lottery Tickets for Multilingual Transfer in Large Language Models",
  author = "Yuan, Fei and Ma, Chang and Yuan, Shuai and Sun, Qiushi and Li, Lei",
  booktitle = "Proceedings of NAACL 2025 (Volume 1: Long Papers)",
  year = "2025",
  pages = "9077--9090",
  url = "https://aclanthology.org/2025.naacl-long.458/",
  note = "arXiv:2402.02801"
}"""

LIBRARY = f"""@software{{ks_lottery,
  title = "ks\\_lottery: lottery tickets for fine-tuning transformers",
  author = "{{The ks\\_lottery authors}}",
  version = "{__version__}",
  year = "2026"
}}"""


def ticket_card(
    summary: Mapping[str, Any],
    repo_id: str,
    *,
    results: Sequence[Mapping[str, Any]] = (),
    run: str = _TUNED,
    adapter: bool = True,
    plain_subfolder: str | None = None,
    base_model: str | None = None,
    auto_class: str = "AutoModelForCausalLM",
    language: str | Sequence[str] | None = None,
    license: str | None = None,
    dataset: Mapping[str, str] | None = None,
    citation: str | None = None,
) -> "ModelCard":
    """Write the card of a repository that holds a ticket; `.save(folder / "README.md")` puts it in place.

    Args:
        summary: what `ticket_summary` gives.
        repo_id: where it will be, as the instructions for loading name it.
        results: rows of a score table as JSON values (`Result.to_dict()`).
        run: name of the row that is the model's own.
        adapter: whether the repository also holds an adapter saved by PEFT, and not the ticket alone.
        plain_subfolder: folder of the repository with a form of the adapter that PEFT loads without this library.
        base_model: Hub id of the base model; the one the ticket was found on if None, left out if that is a local
            path, which the Hub refuses.
        auto_class: class of transformers that loads the base model.
        language: code or codes of the languages ("de").
        license: identifier of the adapter's licence ("apache-2.0").
        dataset: `type` (Hub id), `name`, and if known `config` and `split`, of the test sentences; with it the model's
            own scores enter the card's metadata.
        citation: paper of the finder, in words.

    Returns:
        the card, metadata and text; access tokens, if a text holds any, are hidden.

    Raises:
        OptionError: if `base_model` is no Hub id, or `dataset` lacks its type or name.
    """
    from huggingface_hub import ModelCard, ModelCardData

    if base_model is not None and not _HUB_ID.fullmatch(base_model):
        raise OptionError(f"base_model={base_model!r} is not a Hub id. Use one such as 'user/name', or leave it out.")
    base = base_model or hub_base_model(summary["base"]["name"])
    scores = _eval_results(results, dataset, run)
    data = ModelCardData(
        base_model=base,
        base_model_relation="adapter" if base and adapter else None,
        library_name="peft" if adapter else "ks_lottery",
        language=language if language is None or isinstance(language, str) else list(language),
        license=license,
        tags=[LIBRARY_TAG, "lottery-ticket", *(["peft"] if adapter else [])],
        pipeline_tag=PIPELINES.get(auto_class) if adapter else None,
        model_name=repo_id.rpartition("/")[2] if scores else None,
        eval_results=scores or None,
    )
    parts = [_introduction(summary, repo_id, base), "## The ticket", _facts(summary, base), _rows(summary["rows"])]
    if results:
        parts += ["## Scores", _scores(results, run)]
    parts += ["## How to load it", _with_library(repo_id, base, auto_class, adapter)]
    if plain_subfolder is not None:
        parts.append(_without_library(repo_id, base, auto_class, plain_subfolder))
    caveats = [_ABOUT_P, *(in_words(name, one) for name, one in certificates(results))]
    parts += ["## What to doubt", "\n".join(f"- {caveat}" for caveat in caveats)]
    parts += ["## Licence", licence("ticket", license, base), "## Citation", _citations(summary, citation)]
    return ModelCard(redacted(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(part for part in parts if part) + "\n"))


def hub_base_model(name: str) -> str | None:
    """A base model's name if it can be a Hub id, None if it is a folder's path or a class name."""
    is_class_name = "/" not in name and name != name.lower()
    if not _HUB_ID.fullmatch(name) or is_class_name or Path(name).exists():
        return None
    return name


def model_link(base: str | None) -> str:
    """A base model as a link to its page, where it has one."""
    return f"[{base}](https://huggingface.co/{base})" if base else "its base model"


def _introduction(summary: Mapping[str, Any], repo_id: str, base: str | None) -> str:
    rest = "keeps its pretrained value" if summary["kind"] == "update" else "is zero"
    model = model_link(base)
    return (
        f"# {repo_id.rpartition('/')[2]}\n\nA lottery ticket: {summary['num_units']:,} units "
        f"({code(summary['granularity'])}) of {model}, {summary['num_trainable']:,} weights or "
        f"{percent(summary['density']['model'], 4)} of the model. Everything else {rest}."
    )


def _facts(summary: Mapping[str, Any], base: str | None) -> str:
    """What is known of the ticket; the name of a local base model is nobody's business."""
    cut, revision = cut_by(summary), summary["base"]["revision"]
    tested = summary["provenance"]["details"].get("tested")
    facts = {
        "base model": ("a local model" if base is None else code(base)) + (f" at {code(revision)}" if revision else ""),
        "found by": code(summary["provenance"]["method"]),
        "cut by": MISSING if cut is None else code(cut),
        "units selected": f"{summary['num_units']:,}" + ("" if tested is None else f" of {tested:,} that changed"),
        "density": f"{percent(summary['density']['units'], 3)} of the matrices they lie in",
        "fingerprint": code(summary["fingerprint"]),
    }
    return table(["", ""], [[name, value] for name, value in facts.items()], left=2)


def _rows(rows: Sequence[Mapping[str, Any]]) -> str:
    header = ["token", "id", "D", "log10 p", "shift / row norm", "count in training"]
    lines = [
        [
            MISSING if row["token"] is None else code(row["token"]),
            f"{row['id']}" if row["group"] in ("input", "tied") else f"{row['id']} in {code(row['group'])}",
            number(row["statistic"], 3),
            number(row["log10_p"], 2),
            number(row["relative_shift"], 3),
            number(row["count"], 0),
        ]
        for row in rows[:_ROWS_SHOWN]
    ]
    hidden = len(rows) - len(lines)
    return table(header, lines) + (f"\n\n{hidden:,} more are in `ticket.safetensors`." if hidden else "")


def _scores(results: Sequence[Mapping[str, Any]], run: str) -> str:
    if any(row.get("accuracy") is not None for row in results):
        return _label_scores(results, run)
    header = ["run", "trained weights", "BLEU, whole", "BLEU, first line", "chrF", "stops", "gain recovered"]
    lines = [
        [
            _run_name(row, run),
            number(row.get("trainable"), 0),
            _with_interval(row, "bleu_whole"),
            _with_interval(row, "bleu_first_line"),
            number(row.get("chrf_whole")),
            percent(row.get("stop_rate")),
            percent(row.get("gain_recovered_whole")),
        ]
        for row in results
    ]
    return f"{table(header, lines)}\n\n{_HOW_TO_READ}"


def _label_scores(results: Sequence[Mapping[str, Any]], run: str) -> str:
    """The table of a classification, whose scores are shares of the test texts."""
    header = ["run", "trained weights", "accuracy", "macro F1", "gain recovered"]
    lines = [
        [
            _run_name(row, run),
            number(row.get("trainable"), 0),
            percent(row.get("accuracy"), 1),
            percent(row.get("macro_f1"), 1),
            percent(row.get("gain_recovered")),
        ]
        for row in results
    ]
    return table(header, lines)


def _run_name(row: Mapping[str, Any], run: str) -> str:
    return f"**{row['name']}**" if row["name"] == run else str(row["name"])


def _with_interval(row: Mapping[str, Any], metric: str) -> str:
    interval = row.get(f"{metric}_interval")
    return number(row.get(metric)) + (f" [{number(interval[0])}, {number(interval[1])}]" if interval else "")


_HOW_TO_READ = (
    "*Whole* scores everything the model wrote, *first line* only the first line that is not blank, so that what "
    "is learnt about stopping can be told from what is learnt about the task. *Gain recovered* is the share of embed "
    "tuning's gain over the base model. Brackets hold bootstrap intervals over test sentences. The random and the "
    "frequency control have as many rows as the ticket, chosen otherwise."
)
_ABOUT_P = (
    "A row before and after tuning is paired, so p in the table codes the size of a shift (with D and shift / row "
    "norm) and is **not an error rate**. Rows of frequent tokens tend to move most; compare with the frequency control."
)


def _with_library(repo_id: str, base: str | None, auto_class: str, adapter: bool) -> str:
    positions = loading_code(
        base,
        auto_class,
        ["from ks_lottery import Ticket, attach_ticket"],
        f'ticket = Ticket.from_pretrained("{repo_id}")',
        "model = attach_ticket(base, ticket)  # a PeftModel: exactly the ticket trains, with any Trainer",
    )
    text = f"The positions alone, to train them on your own data:\n\n{positions}"
    if not adapter:
        return text
    tuned = loading_code(
        base,
        auto_class,
        [OWN_IMPORT, PEFT_IMPORT],
        f'model = PeftModel.from_pretrained(base, "{repo_id}")',
    )
    return f"The tuned model, with `pip install ks_lottery`:\n\n{tuned}\n\n{text}"


def _without_library(repo_id: str, base: str | None, auto_class: str, subfolder: str) -> str:
    load = f'model = PeftModel.from_pretrained(base, "{repo_id}", subfolder="{subfolder}")'
    block = loading_code(base, auto_class, [PEFT_IMPORT], load)
    return f"The tuned model with PEFT alone, without this library:\n\n{block}"


def loading_code(base: str | None, auto_class: str, imports: Sequence[str], *lines: str) -> str:
    """A block of code that loads the base model as `base` and goes on with the given lines."""
    load = f'base = {auto_class}.from_pretrained("{base or "path/to/the/base/model"}")'
    code_lines = [*imports, f"from transformers import {auto_class}", "", load, *lines]
    return "\n".join(["```python", *code_lines, "```"])


def licence(what: str, license: str | None, base: str | None) -> str:
    """Under what the ticket or adapter ("ticket") stands, and that the base model has a licence of its own."""
    own = f"No licence is stated for the {what}" if license is None else f"The {what} is under {code(license)}"
    return f"{own}; the licence of {base or 'the base model'} applies to what is built with it."


def _citations(summary: Mapping[str, Any], citation: str | None) -> str:
    papers = [KS_LOTTERY] if summary["provenance"]["method"] == "ks" else []
    words = f"{citation}\n\n" if citation else ""
    return words + "```bibtex\n" + "\n\n".join([*papers, LIBRARY]) + "\n```"


_TRANSLATION = {
    "bleu_whole": ("bleu", "BLEU, whole continuation"),
    "bleu_first_line": ("bleu", "BLEU, first line"),
    "chrf_whole": ("chrf", "chrF, whole continuation"),
    "chrf_first_line": ("chrf", "chrF, first line"),
    "spbleu_whole": ("spbleu", "spBLEU, whole continuation"),
}
_CLASSIFICATION = {"accuracy": ("accuracy", "accuracy"), "macro_f1": ("f1", "macro F1")}
_TASKS = {"translation": (_TRANSLATION, 2), "text-classification": (_CLASSIFICATION, 4)}
"""Task to its scores (field, metric of the Hub, name), and the decimals that they are worth."""


def _eval_results(
    results: Sequence[Mapping[str, Any]], dataset: Mapping[str, str] | None, run: str
) -> "list[EvalResult]":
    """The model's own scores, as the Hub lists them."""
    from huggingface_hub import EvalResult

    if dataset is None:
        return []
    if not {"type", "name"} <= set(dataset):
        raise OptionError(f"dataset={dict(dataset)!r} must have a type (Hub id) and a name.")
    own = next((row for row in results if row["name"] == run), {})
    return [
        EvalResult(
            task_type=task,
            dataset_type=dataset["type"],
            dataset_name=dataset["name"],
            dataset_config=dataset.get("config"),
            dataset_split=dataset.get("split"),
            metric_type=kind,
            metric_name=name,
            metric_value=round(own[field], decimals),
        )
        for task, (metrics, decimals) in _TASKS.items()
        for field, (kind, name) in metrics.items()
        if own.get(field) is not None
    ]
