"""A ticket or an adapter as others can use it: with a card, without what only this machine knows, on the Hub."""

import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ks_lottery.checkpoints.strict_json import strict_json_file
from ks_lottery.checkpoints.writer import write_json
from ks_lottery.errors import OptionError
from ks_lottery.ticket.card import AUTO_CLASSES, hub_base_model, ticket_card
from ks_lottery.ticket.certificate import results_beside
from ks_lottery.ticket.hub import push_folder
from ks_lottery.ticket.ownership.signature import signature_file
from ks_lottery.ticket.plain_card import adapter_card
from ks_lottery.ticket.store import TICKET_FILE, ticket_file
from ks_lottery.ticket.summary import ticket_summary
from ks_lottery.ticket.ticket import Ticket
from ks_lottery.ticket.tokens import TokenTable

CARD = "README.md"
ADAPTER_CONFIG = "adapter_config.json"
_PLAIN = "plain/adapter"
_BOILERPLATE = "[More Information Needed]"
_LEFT_BEHIND = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt", "checkpoint-*", "trainer_state.json", ".*", "__pycache__")
"""Pickles, what a Trainer needs to resume, and hidden files."""

_SENTENCES = "examples.json"
_WITH_SENTENCES = (_SENTENCES, "report.html")
"""What of a report quotes the test data, whose licence nobody asked for."""


@dataclass(frozen=True)
class Publication:
    """What is pushed beside the folder's own files, and what its card says.

    Attributes:
        ticket: folder or file of the ticket that an adapter was trained on, to lie beside it.
        report: folder of a report, to lie in `report/`; its scores enter the card. Files that quote test sentences stay
            here.
        base_model: Hub id of the base model; the one that the files name if None.
        run: row of the report that is the model's own.
        dataset: `type` and `name` of the test data; from the report if None.
        language: code or codes ("de").
        license: identifier ("apache-2.0").
        tokenizer: names the rows of a ticket in the card.
    """

    ticket: str | os.PathLike[str] | None = None
    report: str | os.PathLike[str] | None = None
    base_model: str | None = None
    run: str = "partial tuning"
    dataset: Mapping[str, str] | None = None
    language: Sequence[str] = ()
    license: str | None = None
    tokenizer: TokenTable | None = None


@dataclass(frozen=True)
class Published:
    """What was pushed.

    Attributes:
        url: of the commit.
        files: paths in the repository, sorted.
        base_model: Hub id that the files name now, or None: then others have to be told which model it is.
    """

    url: str
    files: Sequence[str]
    base_model: str | None


def publish(
    folder: str | os.PathLike[str],
    repo_id: str,
    what: Publication | None = None,
    *,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str = "Upload lottery ticket",
) -> Published:
    """Push a ticket's or an adapter's folder in one commit, with a card; the folder itself stays as it is.

    The card is written where there is none, or only the empty form that PEFT writes. A base model that is a path of
    this machine is left out of the adapter's configuration. Pickles, checkpoints and hidden files stay here.

    Args:
        folder: with `ticket.safetensors`, `adapter_config.json` or both.
        repo_id: "user/name", or "name" in your own account; created if there is none.
        what: further files, and facts for the card.
        private: whether a new repository is private; the account's default if None.
        revision: branch to commit to, created if there is none.
        commit_message: headline of the commit.

    Raises:
        OptionError: if the folder holds neither ticket nor adapter, or something secret; nothing is pushed then.
        TicketError: if the ticket, the report or the adapter's configuration is damaged.
        HubError: if the Hub cannot be reached or refuses.
    """
    what = what or Publication()
    source = Path(folder)
    if not any((source / name).is_file() for name in (TICKET_FILE, ADAPTER_CONFIG)):
        raise OptionError(
            f"{str(source)!r} holds neither {TICKET_FILE} nor {ADAPTER_CONFIG}. Give the folder of a saved ticket or "
            "adapter."
        )
    with tempfile.TemporaryDirectory(prefix="ks-lottery-push-") as temporary:
        outgoing = Path(temporary) / (source.resolve().name or "ticket")
        shutil.copytree(source, outgoing, ignore=shutil.ignore_patterns(*_LEFT_BEHIND))
        base = _gather(outgoing, what)
        if _needs_card(outgoing):
            _write_card(outgoing, repo_id, what, base)
        url = push_folder(outgoing, repo_id, private=private, revision=revision, commit_message=commit_message)
        files = sorted(path.relative_to(outgoing).as_posix() for path in outgoing.rglob("*") if path.is_file())
    return Published(url, files, base)


def _gather(outgoing: Path, what: Publication) -> str | None:
    """Put ticket and report beside the adapter, and name the base model as others know it.

    Returns:
        Hub id of the base model, or None if nobody said.
    """
    if what.ticket is not None:
        Ticket.load(what.ticket).save(outgoing)
        signature = signature_file(what.ticket)
        if signature.is_file():
            shutil.copyfile(signature, signature_file(outgoing))
    if what.report is not None:
        if not (Path(what.report) / "results.json").is_file():
            raise OptionError(f"report={str(what.report)!r} holds no results.json, so it is no report's folder.")
        private = _WITH_SENTENCES if (Path(what.report) / _SENTENCES).is_file() else ()
        shutil.copytree(what.report, outgoing / "report", dirs_exist_ok=True, ignore=shutil.ignore_patterns(*private))
    configs = list(outgoing.rglob(ADAPTER_CONFIG))
    named = [strict_json_file(config).get("base_model_name_or_path") for config in configs]
    if ticket_file(outgoing).is_file():
        named.append(Ticket.load(outgoing).base.name)
    base = what.base_model or next((one for one in map(_as_hub_id, named) if one), None)
    for config in configs:
        write_json(config, {**strict_json_file(config), "base_model_name_or_path": base})
    return base


def _as_hub_id(name: str | None) -> str | None:
    return hub_base_model(name) if name else None


def _needs_card(outgoing: Path) -> bool:
    card = outgoing / CARD
    return not card.is_file() or _BOILERPLATE in card.read_text(encoding="utf-8", errors="replace")


def _write_card(outgoing: Path, repo_id: str, what: Publication, base: str | None) -> None:
    config = outgoing / ADAPTER_CONFIG
    adapter: dict[str, Any] = strict_json_file(config) if config.is_file() else {}
    results, meta = results_beside(outgoing)
    dataset = what.dataset or _dataset(meta)
    common: dict[str, Any] = {
        "base_model": base,
        "auto_class": AUTO_CLASSES.get(
            str(adapter.get("task_type")), "AutoModel" if adapter else "AutoModelForCausalLM"
        ),
        "language": list(what.language) or None,
        "license": what.license,
    }
    if ticket_file(outgoing).is_file():
        summary = ticket_summary(Ticket.load(outgoing), what.tokenizer)
        card = ticket_card(
            summary, repo_id, results=results, run=what.run, dataset=dataset, adapter=bool(adapter),
            plain_subfolder=_PLAIN if (outgoing / _PLAIN / ADAPTER_CONFIG).is_file() else None, **common,
        )  # fmt: skip
    else:
        card = adapter_card(adapter, repo_id, **common)
    card.save(outgoing / CARD)


def _dataset(meta: Mapping[str, Any]) -> dict[str, str] | None:
    """The test data as a report names them, for the card's metadata."""
    name = meta.get("data")
    if not isinstance(name, str) or not name:
        return None
    return {"type": re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower(), "name": name, "split": "test"}
