"""`ks-lottery export`: a trained ticket for people without this library."""

import json
from typing import Annotated

import typer

from ks_lottery.cli.method import usage_errors
from ks_lottery.cli.screen import console

Adapter = Annotated[str, typer.Argument(help="Folder or Hub id of a saved ticket adapter.")]
CarrierName = Annotated[
    str,
    typer.Option(
        "--to",
        help="auto, trainable-tokens, lora, lora-embedding, supertuning or shira, which are adapters for plain PEFT, "
        "or merged, a whole model.",
    ),
]
OutFolder = Annotated[str, typer.Option("--out", metavar="DIR", help="Where to; an older folder there is replaced.")]
BaseModel = Annotated[
    str | None,
    typer.Option("--base-model", help="Folder or Hub id of the base model. Default: the one that the adapter names."),
]


def export(adapter: Adapter, out: OutFolder, to: CarrierName = "auto", base_model: BaseModel = None) -> None:
    """Write a saved adapter in a form that loads where this library is not installed.

    auto takes the adapter type that suits the ticket best: rows of tokens go to trainable-tokens, single weights to
    supertuning, all else and mixtures to lora. shira holds single weights for older versions of PEFT, lora-embedding
    rows of tokens for servers that know nothing but LoRA. What a type cannot hold exactly is refused, with those that
    can. merged copies the files of the base model and rewrites in them what the ticket changes, without building a
    model.

    Example: ks-lottery export adapter --to merged --out merged-model
    """
    with usage_errors():
        from ks_lottery.adapter.export.carrier import CARRIERS

        carrier = to.replace("-", "_")
        if carrier != "auto":
            CARRIERS.get(carrier)
    from ks_lottery.adapter.export.exporter import export_ticket

    folder = export_ticket(adapter, out, to=carrier, base_model=base_model)
    files = [path for path in folder.rglob("*") if path.is_file()]
    config = folder / "adapter_config.json"
    kind = json.loads(config.read_text(encoding="utf-8"))["peft_type"] if config.is_file() else None
    what = "the merged model" if kind is None else f"a {kind} adapter for plain PEFT"
    size = sum(path.stat().st_size for path in files)
    console().print(f"Wrote {what} in {out}: {len(files)} files, {size:,} bytes.", soft_wrap=True, markup=False)
