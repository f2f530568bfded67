"""`ks-lottery export`: a trained ticket, or the model that a weight ticket leaves, for people without this library."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from ks_lottery.cli.completion import carrier_names
from ks_lottery.cli.method import usage_errors
from ks_lottery.cli.screen import AsJson, announced_bar, console, only_json, percent, print_json, written
from ks_lottery.errors import OptionError, TicketError

Exported = Annotated[
    str,
    typer.Argument(
        metavar="ADAPTER", help="Folder or Hub id of a saved ticket adapter; with --shrink of a weight ticket."
    ),
]
CarrierName = Annotated[
    str,
    typer.Option(
        "--to",
        help="auto, trainable-tokens, lora, lora-embedding, supertuning or shira, which are adapters for plain PEFT, "
        "or merged, a whole model.",
        autocompletion=carrier_names,
    ),
]
OutFolder = Annotated[str, typer.Option("--out", metavar="DIR", help="Where to; an older folder there is replaced.")]
BaseModel = Annotated[
    str | None,
    typer.Option(
        "--base-model", help="Folder or Hub id of the base model. Default: the one that the adapter or ticket names."
    ),
]
Shrink = Annotated[
    bool,
    typer.Option(
        "--shrink", help="Write the smaller dense model that a weight ticket of heads, neurons or layers leaves."
    ),
]


def export(
    adapter: Exported,
    out: OutFolder,
    to: CarrierName = "auto",
    base_model: BaseModel = None,
    shrink: Shrink = False,
    as_json: AsJson = False,
) -> None:
    """Write a saved adapter in a form that loads where this library is not installed.

    auto takes the adapter type that suits the ticket best: rows of tokens go to trainable-tokens, single weights to
    supertuning, all else and mixtures to lora. shira holds single weights for older versions of PEFT, lora-embedding
    rows of tokens for servers that know nothing but LoRA. What a type cannot hold exactly is refused, with those that
    can. merged copies the files of the base model and rewrites in them what the ticket changes, without building a
    model.

    --shrink takes a weight ticket, whose unselected units are zero, and leaves these out: fewer heads, neurons or
    layers in every file, and a configuration that says so. The outputs are those of the model with zeros. What an
    architecture's configuration cannot express is refused, with the reason.

    Example: ks-lottery export adapter --to merged --out merged-model
    """
    if shrink:
        _shrink(adapter, out, to, base_model, as_json)
        return
    with usage_errors():
        from ks_lottery.adapter.export.carrier import CARRIERS

        carrier = to.replace("-", "_")
        if carrier != "auto":
            CARRIERS.get(carrier)
    from ks_lottery.adapter.export.exporter import export_ticket

    with only_json(as_json), announced_bar("Merging") as progress:
        folder = export_ticket(adapter, out, to=carrier, base_model=base_model, progress=progress)
    files, size = written(folder)
    config = folder / "adapter_config.json"
    kind = json.loads(config.read_text(encoding="utf-8"))["peft_type"] if config.is_file() else None
    what = "the merged model" if kind is None else f"a {kind} adapter for plain PEFT"
    if as_json:
        print_json({"folder": out, "type": kind or "model", "files": files, "bytes": size})
        return
    console().print(f"Wrote {what} in {out}: {len(files)} files, {size:,} bytes.", soft_wrap=True, markup=False)


def _shrink(ticket_folder: str, out: str, to: str, base_model: str | None, as_json: bool) -> None:
    from ks_lottery.ticket.ticket import Ticket

    with usage_errors():
        if to != "auto":
            raise OptionError(
                f"--shrink writes a whole model, so --to {to} says something else. Leave one of them out."
            )
    ticket = Ticket.from_pretrained(ticket_folder)
    source = base_model or ticket.provenance.details.get("before")
    if not source:
        raise TicketError(f"The ticket in {ticket_folder!r} does not say what its base model is. Give --base-model.")
    from ks_lottery.adapter.shrink import shrink_checkpoint

    with only_json(as_json):
        shrunk = shrink_checkpoint(str(source), ticket, out)
    if as_json:
        summary = {name: value for name, value in asdict(shrunk).items() if name != "folder"}
        print_json({"folder": out, "type": "smaller model", **summary})
        return
    share = percent(shrunk.num_parameters / shrunk.num_parameters_before)
    changes = ", ".join(f"{key} {before} -> {after}" for key, (before, after) in shrunk.config.items())
    console().print(
        f"Wrote a smaller model in {out}: {shrunk.num_parameters:,} of {shrunk.num_parameters_before:,} weights "
        f"({share}); {changes or 'its configuration stays'}.",
        soft_wrap=True,
        markup=False,
    )
