"""Strong tickets of attention, measured: the error against width, length, number of blocks, and scale of W_Q and W_K.

    python recipes/theory_attention.py --out docs/results/theory            # minutes on one core
    python recipes/theory_attention.py --out /tmp/theory --quick            # seconds, a few draws

Writes attention.json, with the error of every draw, and a picture of each measurement. Targets are random attention of
two heads for tokens of four values, all spectral norms 1; sources are random heads n = 4 n' columns wide; tokens lie on
the sphere of radius 2. Each draw has a target, a source and tokens of its own.
"""

import argparse
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from theory_attention_masks import DENSITY, N, losses_by_scale

from ks_lottery.checkpoints.writer import atomic_file, write_json
from ks_lottery.report.attention_plots import (
    ErrorCurve,
    ExponentialFit,
    length_picture,
    scale_picture,
    width_picture,
)
from ks_lottery.theory.attention import (
    AttentionTicket,
    attention_ticket,
    draw_source,
    draw_target,
    unit_norm,
)
from ks_lottery.theory.attention_heads import AttentionHeads, causal, largest_error
from ks_lottery.theory.bounds import attention_block_widths, attention_qk_width, transformer_first_eps
from ks_lottery.theory.transformer import block_tickets, draw_source_blocks, draw_target_blocks, transformer

D, HEADS, ALPHA = 4, 2, 2.0


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    draws: int = 21
    items: tuple[int, ...] = (4, 6, 8, 10, 12, 14, 16, 18, 20)
    lengths: tuple[int, ...] = (8, 64, 512)
    long: tuple[int, ...] = tuple(2**power for power in range(3, 14))
    long_draws: int = 5
    long_items: tuple[int, ...] = (10, 16)
    blocks: int = 3
    block_items: tuple[int, ...] = (8, 12, 16, 20, 24)
    block_draws: int = 15
    block_length: int = 16
    scales: tuple[float, ...] = tuple(2 ** (power / 2) for power in range(7))
    mask_seeds: int = 3
    mask_steps: int = 300


QUICK = Sizes(
    draws=2, items=(4, 8, 12), lengths=(8, 64), long=(8, 32, 128), long_draws=2, long_items=(6, 10), blocks=2,
    block_items=(4, 8, 12), block_draws=2, scales=(1.0, 8**0.5), mask_seeds=1, mask_steps=4,
)  # fmt: skip


def run(out: Path, quick: bool) -> None:
    """Measure everything, and write attention.json and pictures.

    Args:
        out: folder; made where it is missing.
        quick: a few draws, in seconds.
    """
    sizes = QUICK if quick else Sizes()
    results: dict[str, Any] = {
        "setting": {"d": D, "heads": HEADS, "alpha": ALPHA, **dataclasses.asdict(sizes)},
        "theorem": theorem(sizes),
    }
    for name, measure in (
        ("width", by_width), ("length", by_length), ("blocks", by_blocks), ("control", without_factor),
        ("scale", by_scale), ("masks", learnt_masks),
    ):  # fmt: skip
        results[name], picture = measure(sizes)
        with atomic_file(out / f"attention-{name}.png") as temporary:
            temporary.write_bytes(picture)
        print(f"{name}: {results[name]['medians']}", flush=True)
    write_json(out / "attention.json", results)


def by_width(sizes: Sizes) -> tuple[dict[str, Any], bytes]:
    """Error against n' at several lengths, beside the bound from the errors of the products."""
    tickets = {items: [ticket(draw, items) for draw in range(sizes.draws)] for items in sizes.items}
    curves = []
    for length in sizes.lengths:
        errors = [[error(one, draw, length) for draw, one in enumerate(tickets[items])] for items in sizes.items]
        curves.append(ErrorCurve(f"T = {length}", sizes.items, errors))
    bound = _curve("bound of Lemma 8, any T", sizes.items, lambda items: [one.bound(ALPHA) for one in tickets[items]])
    record = _record([*curves, bound])
    record["density"] = [float(np.median([one.masks.density for one in tickets[items]])) for items in sizes.items]
    return record, width_picture(curves, bound)


def by_length(sizes: Sizes) -> tuple[dict[str, Any], bytes]:
    """Error against the number of tokens at two widths."""
    curves, bounds = [], []
    for items in sizes.long_items:
        tickets = [ticket(draw, items) for draw in range(sizes.long_draws)]
        errors = [[error(one, draw, length) for length in sizes.long] for draw, one in enumerate(tickets)]
        curves.append(ErrorCurve(f"n' = {items}", sizes.long, list(zip(*errors, strict=True))))
        bound = [one.bound(ALPHA) for one in tickets]
        bounds.append(ErrorCurve(f"bound of Lemma 8, n' = {items}", sizes.long, [bound] * len(sizes.long)))
    return _record([*curves, *bounds], fitted=False), length_picture(curves, bounds)


def by_blocks(sizes: Sizes) -> tuple[dict[str, Any], bytes]:
    """Error of transformers without normalisation after each of their blocks."""
    errors = {
        items: [_block_errors(sizes, draw, items) for draw in range(sizes.block_draws)] for items in sizes.block_items
    }
    curves = []
    for count in range(1, sizes.blocks + 1):
        after = [[one[count - 1] for one in errors[items]] for items in sizes.block_items]
        curves.append(ErrorCurve(f"{count} block{'s' if count > 1 else ''}", sizes.block_items, after))
    return _record(curves), width_picture(curves)


def without_factor(sizes: Sizes) -> tuple[dict[str, Any], bytes]:
    """The negative control: no factor n^(1/4) in W_Q and W_K, under the same masks and under masks of their own."""
    length = sizes.lengths[-1]

    def same_masks(items: int) -> list[float]:
        return [
            _distance(source(draw, items, scaled=False).masked(ticket(draw, items).masks), draw, length)
            for draw in draws
        ]

    draws = range(sizes.draws)
    curves = [
        _curve(
            "entries of W_Q, W_K from U[-n^(1/4), n^(1/4)]",
            sizes.items,
            lambda items: [error(ticket(draw, items), draw, length) for draw in draws],
        ),
        _curve("from U[-1, 1], the same masks", sizes.items, same_masks),
        _curve(
            "from U[-1, 1], masks solved for them",
            sizes.items,
            lambda items: [error(ticket(draw, items, scaled=False), draw, length) for draw in draws],
        ),
    ]
    return _record(curves), width_picture(curves, fitted=False)


def by_scale(sizes: Sizes) -> tuple[dict[str, Any], bytes]:
    """Error of exact masks against the scale of W_Q and W_K, n = 64 columns; masks solved at each scale."""
    items, length = N // D, sizes.lengths[0]

    def errors(scale: float) -> list[float]:
        found = []
        for draw in range(sizes.draws):
            raw = source(draw, items, scaled=False)
            scaled = dataclasses.replace(raw, query=scale * raw.query, key=scale * raw.key)
            found.append(error(attention_ticket(target(draw), scaled), draw, length))
        return found

    curve = _curve(f"exact subset sums, n = {N}", sizes.scales, errors)
    return _record([curve], fitted=False), scale_picture([curve], N**0.25, f"n^(1/4) = {N**0.25:.2f}")


def learnt_masks(sizes: Sizes) -> tuple[dict[str, Any], bytes]:
    """Loss of masks learnt over random heads against the scale of W_Q and W_K, beside trained weights."""
    seeds = range(sizes.mask_seeds)
    curves = [
        ErrorCurve(label, sizes.scales, losses_by_scale(sizes.scales, seeds, sizes.mask_steps, masked=masked))
        for label, masked in ((f"learnt mask of density {DENSITY}, weights as drawn", True), ("trained weights", False))
    ]
    picture = scale_picture(curves, N**0.25, f"n^(1/4) = {N**0.25:.2f}", "loss / variance of the answers")
    return _record(curves, fitted=False), picture


def theorem(sizes: Sizes) -> dict[str, Any]:
    """Widths that the theorems ask for in this setting, with the empirical constant."""
    first = {str(count): transformer_first_eps(count, D, HEADS, ALPHA, 0.01) for count in range(1, sizes.blocks + 1)}
    return {
        "items_of_attention": {
            str(eps): attention_qk_width(D, HEADS, ALPHA, eps) // D for eps in (0.1, 0.01, 0.001)
        },
        "first_eps_of_blocks": first,
        "items_of_blocks": {
            count: attention_block_widths(D, HEADS, ALPHA, 2, eps).attention // D for count, eps in first.items()
        },
    }  # fmt: skip


def target(draw: int) -> AttentionHeads:
    """The target of a draw."""
    return draw_target(np.random.default_rng([draw, 0]), HEADS, D, D, D, D)


def source(draw: int, items: int, *, scaled: bool = True) -> AttentionHeads:
    """The source of a draw, n' = `items`."""
    generator = np.random.default_rng([draw, 1, items])
    return draw_source(generator, HEADS, D, D, D * items, D * items, scaled=scaled)


def tokens(draw: int, length: int) -> np.ndarray:
    """[length, D] on the sphere of radius ALPHA."""
    return ALPHA * unit_norm(np.random.default_rng([draw, 2]).standard_normal((length, 1, D)))[:, 0]


def ticket(draw: int, items: int, *, scaled: bool = True) -> AttentionTicket:
    """The ticket of a draw."""
    return attention_ticket(target(draw), source(draw, items, scaled=scaled))


def error(found: AttentionTicket, draw: int, length: int) -> float:
    """Largest error of a ticket on a draw's first tokens."""
    return _distance(found.attention(), draw, length)


def _distance(found: AttentionHeads, draw: int, length: int) -> float:
    x = tokens(draw, length)
    return largest_error(found.forward(x), target(draw).forward(x))


def _block_errors(sizes: Sizes, draw: int, items: int) -> list[float]:
    wanted = draw_target_blocks(np.random.default_rng([draw, 3]), sizes.blocks, HEADS, D)
    generator = np.random.default_rng([draw, 4, items])
    random = draw_source_blocks(generator, wanted, D * items, 2 * D * items)
    kept = [one.block() for one in block_tickets(wanted, random)]
    x, allowed = tokens(draw, sizes.block_length), causal(sizes.block_length)
    pairs = zip(transformer(kept, x, allowed), transformer(wanted, x, allowed), strict=True)
    return [largest_error(one, other) for one, other in pairs]


def _curve(label: str, places: Sequence[Any], errors: Callable[[Any], Sequence[float]]) -> ErrorCurve:
    return ErrorCurve(label, places, [errors(place) for place in places])


def _record(curves: Iterable[ErrorCurve], fitted: bool = True) -> dict[str, Any]:
    curves = list(curves)
    record: dict[str, Any] = {
        "places": list(curves[0].places),
        "medians": {curve.label: curve.medians for curve in curves},
        "errors": {curve.label: [list(draws) for draws in curve.errors] for curve in curves},
    }
    if fitted:
        record["fits"] = {curve.label: dataclasses.asdict(ExponentialFit.of(curve)) for curve in curves}
    return record


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of attention.json and the pictures")
    parser.add_argument("--quick", action="store_true", help="a few draws, in seconds")
    options = parser.parse_args()
    run(options.out, options.quick)


if __name__ == "__main__":
    main()
