"""What attacks leave of a mark and of a trigger set, on the embedded model: the tables of docs/ownership.md.

    python recipes/ownership.py                    # minutes on one core
    python recipes/ownership.py --steps 0          # masks alone, half a minute
    python recipes/ownership.py --print-only       # the tables of an earlier run

The secrets are fixed, so that the numbers come out again. Nobody should use them.
"""

import argparse
import json
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pocket.corpus import load_split
from pocket.documents import LAYOUTS
from pocket.scoring import perplexity
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase, Trainer

from ks_lottery.checkpoints.reader import ModelCheckpoint, open_checkpoint
from ks_lottery.checkpoints.writer import write_json
from ks_lottery.ticket.identity import identify
from ks_lottery.ticket.ownership.attacks import add_random, drop_random, drop_smallest
from ks_lottery.ticket.ownership.cells import mask_of
from ks_lottery.ticket.ownership.chance import LEVEL, log10_tail
from ks_lottery.ticket.ownership.credential import encode, written_cells
from ks_lottery.ticket.ownership.lift import lift_new_weights
from ks_lottery.ticket.ownership.mark import Source, embed_mark, magnitudes
from ks_lottery.ticket.ownership.mark_key import MarkKey, keyed_pattern, unmasked
from ks_lottery.ticket.ownership.reading import cells_at, verify_mark
from ks_lottery.ticket.ownership.trigger import Triggers, draw_triggers, verify_triggers
from ks_lottery.ticket.ticket import Provenance, Selection, Ticket
from ks_lottery.training.arguments import probe_arguments
from ks_lottery.training.examples import ResponseCollator
from ks_lottery.training.projection import Projection
from ks_lottery.units.slab import parameters_of
from ks_lottery.units.weights import Weights

MODEL = Path(__file__).parent / "pocket" / "model"
OUT = Path(__file__).parents[1] / "docs" / "results" / "ownership"
OWNER = "Ada Lovelace, London"
SECRET, THIEF = bytes(range(32)), bytes(32)
SETTINGS = ((0.5, 3), (0.5, 1), (0.2, 3), (0.2, 1), (0.05, 3))
SHARES = (0.1, 0.2, 0.3, 0.5)
TRAINED_SHARES = (0.0, 0.05, 0.1, 0.2, 0.5)
LANGUAGE = "de"
WRONG_KEYS = 10_000
ATTACKS = (*(f"smallest {share:.0%}" for share in SHARES), "random 20%", "added 1%", "added 3%")


def load_model() -> PreTrainedModel:
    """The embedded model, in float32."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    return model


def magnitude_ticket(density: float) -> Ticket:
    """The largest weights of each matrix in the blocks."""
    checkpoint = open_checkpoint(load_model())
    groups = Weights().groups(checkpoint.layout())
    selections = {}
    for group in groups:
        order = np.argsort(-magnitudes(checkpoint, group.name).ravel(), kind="stable")
        selections[group.name] = Selection(group, order[: round(density * group.num_units)])
    base = identify(checkpoint, parameters_of(groups))
    return Ticket("weight", "weights", selections, base, Provenance("magnitude", {"density": density}))


def read(ticket: Ticket, key: MarkKey) -> dict[str, Any]:
    """What is left of a mark."""
    reading = verify_mark(ticket, key)
    return {
        "errors": 1 - reading.match, "log10_p": reading.log10_p, "verified": reading.verified,
        "decoded": reading.text == key.text,
    }  # fmt: skip


def attacks(ticket: Ticket, weights: Source) -> Iterator[tuple[str, Ticket]]:
    """Name of each attack on a mask, and what it makes of it."""
    for share in SHARES:
        yield f"smallest {share:.0%}", drop_smallest(ticket, weights, share)
    yield "random 20%", drop_random(ticket, 0.2, seed=0)
    for share in (0.01, 0.03):
        yield f"added {share:.0%}", add_random(ticket, share, seed=0)


def false_claims(ticket: Ticket, marked: Ticket, key: MarkKey) -> dict[str, Any]:
    """What claims hold that should not: wrong secrets, other texts, an unmarked mask, other marks, another order."""
    written, cells, places = written_cells(key.size), cells_at(marked, key), verify_mark(marked, key).places
    generator, plain = np.random.default_rng(0), encode(key.text, key.size)
    wrong = (unmasked(plain, generator.bytes(32)) for _ in range(WRONG_KEYS))
    highest = max(int((pattern == cells)[written].sum()) for pattern in wrong)
    texts = (keyed_pattern(f"Ada Lovelace, Londo{number}", key.secret, key.size) for number in range(500))
    closest = max(int((pattern == cells)[written].sum()) for pattern in texts)
    total = int(written.sum())
    overmarked, thief = embed_mark(marked, load_model(), "A Thief, Nowhere", block=key.block, secret=THIEF)
    rows = marked.base.shapes[key.parameter][0]
    mask = mask_of(marked, key.parameter)[np.random.default_rng(0).permutation(rows)]
    moved = marked.with_units({**marked.indices, key.parameter: np.flatnonzero(mask)}, Provenance("reordered"))
    return {
        "wrong_keys": WRONG_KEYS,
        "highest_match": highest / total,
        "highest_log10_p": min(0.0, log10_tail(highest, total, 0.5) + math.log10(places)),
        "closest_text_match": closest / total,
        "closest_text_log10_p": min(0.0, log10_tail(closest, total, 0.5) + math.log10(places)),
        "unmarked": read(ticket, key),
        "thief_in_owners": read(marked, thief),
        "thief_in_thiefs": read(overmarked, thief),
        "owner_in_thiefs": read(overmarked, key),
        "reordered": read(moved, key),
    }


def masks_alone(density: float, block: int, score: Any) -> dict[str, Any]:
    """A mark in an untrained ticket: its cost, and what attacks leave of it with and without raised weights."""
    ticket = magnitude_ticket(density)
    plain, lifted = load_model(), load_model()
    marked, key = embed_mark(ticket, plain, OWNER, block=block, secret=SECRET)
    changed = len(marked - ticket)
    raised = lift_new_weights(lifted, ticket, marked)
    return {
        "density": density,
        "block": block,
        "cells": verify_mark(marked, key).cells,
        "same_size": all(len(marked.indices[name]) == len(units) for name, units in ticket.indices.items()),
        "new_weights": changed,
        "raised_weights": raised,
        "selected_weights": len(ticket),
        "perplexity": {
            "unmarked": score(zeroed(load_model(), ticket)), "marked": score(zeroed(load_model(), marked)),
            "raised": score(zeroed(lifted_model(ticket, marked), marked)),
        },
        "attacks": {name: read(one, key) for name, one in attacks(marked, plain)},
        "attacks_raised": {name: read(one, key) for name, one in attacks(marked, lifted)},
        "false_claims": false_claims(ticket, marked, key),
    }  # fmt: skip


def lifted_model(ticket: Ticket, marked: Ticket) -> PreTrainedModel:
    """The embedded model with the mark's new weights raised."""
    model = load_model()
    lift_new_weights(model, ticket, marked)
    return model


def zeroed(model: PreTrainedModel, ticket: Ticket) -> PreTrainedModel:
    """The model with zeros in what a ticket does not select, in place."""
    with torch.no_grad():
        for name, mask in ticket.masks().items():
            model.get_parameter(name).mul_(mask)
    return model.eval()


def trained(model: PreTrainedModel, ticket: Ticket, data: list[dict[str, Any]], steps: int) -> PreTrainedModel:
    """The model after training under a ticket's mask by a stock Trainer."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = probe_arguments(
            folder, max_steps=steps, learning_rate=2e-3, per_device_train_batch_size=32, save_strategy="no",
            logging_strategy="no", disable_tqdm=True, use_cpu=True, seed=0,
        )  # fmt: skip
        collator = ResponseCollator(pad_token_id=0)
        Trainer(model, arguments, collator, data, callbacks=[Projection(ticket.masks())]).train()
    return zeroed(model, ticket)


def documents(tokenizer: PreTrainedTokenizerBase, number: int) -> list[dict[str, Any]]:
    """Training examples: three training pairs to a document."""
    pairs, template = load_split(LANGUAGE, "train"), LAYOUTS["named"][0]
    texts = (
        "".join(
            template.format(name="German", source=pair.source, target=pair.target)
            for pair in pairs[3 * place : 3 * place + 3]
        )
        for place in range(number)
    )
    rows = (tokenizer(text)["input_ids"][:256] for text in texts)
    return [{"input_ids": row, "labels": row} for row in rows]


def answers(model: PreTrainedModel, triggers: Triggers) -> list[list[int]]:
    """The model's greedy answer to each trigger prompt, one token."""
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor(triggers.prompts)).logits[:, -1]
    found: list[list[int]] = logits.argmax(dim=-1, keepdim=True).tolist()
    return found


def with_training(steps: int, tokenizer: PreTrainedTokenizerBase, score: Any) -> dict[str, Any]:
    """A marked ticket trained with a trigger set, pruned afterwards; and the same without mark and triggers."""
    ticket = magnitude_ticket(0.5)
    marked, key = embed_mark(ticket, load_model(), OWNER, secret=SECRET)
    triggers = draw_triggers(SECRET, 4096, count=100, length=16, exclude=[0, 1, 2])
    texts = documents(tokenizer, 800)
    own = trained(lifted_model(ticket, marked), marked, [*texts, *(list(triggers.examples) * 8)], steps)
    other = trained(load_model(), ticket, texts, steps)
    nonzero = {name: np.flatnonzero(own.get_parameter(name).detach().numpy()) for name in ticket.indices}
    stolen = marked.with_units(nonzero, Provenance("stolen"))
    rows = []
    for share in TRAINED_SHARES:
        attacked = stolen if not share else drop_smallest(stolen, ModelCheckpoint(own), share)
        model = zeroed(own, attacked)
        reading = verify_triggers(triggers, answers(model, triggers))
        rows.append(
            {"dropped": share, "perplexity": score(model), **read(attacked, key), "trigger_hits": reading.hits,
             "trigger_log10_p": reading.log10_p, "trigger_verified": reading.verified}
        )  # fmt: skip
    unmarked = verify_triggers(triggers, answers(other, triggers))
    return {
        "steps": steps, "density": 0.5, "block": 3, "triggers": unmarked.count, "rows": rows,
        "unmarked": {"perplexity": score(other), "trigger_hits": unmarked.hits, "trigger_log10_p": unmarked.log10_p},
    }  # fmt: skip


def measure(steps: int, settings: tuple[tuple[float, int], ...] = SETTINGS, pairs: int = 180) -> dict[str, Any]:
    """All that the tables show."""
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    held_out = load_split(LANGUAGE, "test")[:pairs]

    def score(model: PreTrainedModel) -> float:
        return perplexity(model, tokenizer, LANGUAGE, held_out)

    return {
        "owner": OWNER,
        "level": LEVEL,
        "dense_perplexity": score(load_model().eval()),
        "masks": [masks_alone(density, block, score) for density, block in settings],
        "trained": with_training(steps, tokenizer, score) if steps else None,
    }


def cell(result: dict[str, Any]) -> str:
    """Bit errors and log10 p: bold where the mark holds, with a d where its text is read."""
    text = f"{result['errors']:.3f} / {round(result['log10_p'])}"
    return (f"**{text}**" if result["verified"] else text) + (" d" if result["decoded"] else "")


def tables(results: dict[str, Any]) -> str:
    """The results as markdown."""
    names = list(ATTACKS)
    lines = [f"| density, block | weights | {' | '.join(names)} |", "| --- " * (len(names) + 2) + "|"]
    for one in results["masks"]:
        for kind, found in (("as they are", one["attacks"]), ("raised", one["attacks_raised"])):
            cells = " | ".join(cell(found[name]) for name in names)
            lines.append(f"| {one['density']}, {one['block']} x {one['block']} | {kind} | {cells} |")
    head = (
        "density, block", "wrong secrets, best match", "500 other texts, best match", "unmarked", "rows reordered",
        "thief's mark in the owner's", "owner's mark under the thief's",
    )  # fmt: skip
    lines += ["", f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
    for one in results["masks"]:
        false = one["false_claims"]
        guesses = (
            f"{false['highest_match']:.3f} / {round(false['highest_log10_p'])}",
            f"{false['closest_text_match']:.3f} / {round(false['closest_text_log10_p'])}",
        )
        found = [cell(false[name]) for name in ("unmarked", "reordered", "thief_in_owners", "owner_in_thiefs")]
        lines.append(f"| {one['density']}, {one['block']} x {one['block']} | {' | '.join((*guesses, *found))} |")
    lines += ["", "| density, block | new weights, of all selected | perplexity: ticket | marked | and raised |"]
    lines.append("| --- " * 5 + "|")
    for one in results["masks"]:
        worth = " | ".join(
            f"{value:.4g}" for value in (one["perplexity"][name] for name in ("unmarked", "marked", "raised"))
        )
        lines.append(
            f"| {one['density']}, {one['block']} x {one['block']} | {one['new_weights']:,} of "
            f"{one['selected_weights']:,} | {worth} |"
        )
    return "\n".join([*lines, *_trained_table(results["trained"])])


def _trained_table(trained_results: dict[str, Any] | None) -> list[str]:
    if trained_results is None:
        return []
    head = ("further weights dropped", "perplexity", "mark", "triggers answered", "log10 p of the triggers")
    lines = ["", f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
    total = trained_results["triggers"]
    for row in trained_results["rows"]:
        hits = (
            f"**{row['trigger_hits']} of {total}**" if row["trigger_verified"] else f"{row['trigger_hits']} of {total}"
        )
        numbers = f"{row['perplexity']:.4g} | {cell(row)} | {hits} | {row['trigger_log10_p']:.0f}"
        lines.append(f"| {row['dropped']:.0%} | {numbers} |")
    other = trained_results["unmarked"]
    hits = f"{other['trigger_hits']} of {total} | {other['trigger_log10_p']:.0f}"
    lines.append(f"| trained without mark and triggers | {other['perplexity']:.4g} | - | {hits} |")
    return lines


def main() -> None:
    """Measure, write the results and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=150, help="of training under the mask; 0: none")
    parser.add_argument("--out", type=Path, default=OUT, help="folder for attacks.json")
    parser.add_argument("--print-only", action="store_true", help="print the tables of what is in the folder")
    options = parser.parse_args()
    if not options.print_only:
        write_json(options.out / "attacks.json", measure(options.steps))
    print(tables(json.loads((options.out / "attacks.json").read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
