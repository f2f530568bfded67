"""The page of a classification report: verdict, tables, pictures, and what to doubt."""

from collections.abc import Mapping, Sequence
from typing import Any

from classification_heads import INVERTED_HEADS, KS_HEADS, MAGNITUDE_HEADS, RANDOM_HEADS

from ks_lottery.report.results import FULL_TUNING, LORA
from ks_lottery.report.tables import meta_table, plain
from ks_lottery.ticket.markdown import MISSING, code, data_size, number, percent, table

_HEADS_SHOWN = 100
_HOW_TO_READ = (
    "*Gain recovered*: (accuracy − frozen encoder) / (full tuning − frozen encoder). Square brackets hold 95 % "
    "bootstrap intervals over test texts. The classifier on top of the encoder is new and is trained in every row: "
    "alone in *frozen encoder*, which is the baseline; all other rows start from that one and go on training it, "
    "together with every weight (*full tuning*, the probe), with the attention heads of a ticket or a control, or with "
    "LoRA on every linear layer. Trained weights and adapter sizes include it."
)
_CAVEATS = (
    "**The frozen encoder is the baseline to beat**, and LoRA the rival of the same size: a ticket that recovers a "
    "gain which random heads recover too has found nothing.",
    "**p is no error rate.** A head's weights before and after tuning are paired, and they are not independent draws, "
    "so the test's assumptions do not hold: p codes the size of a shift. The p-values of a head's slabs (query, key, "
    "value and output weights, biases) are combined by Fisher's method; D is that of the slab with the smallest p.",
    "**The random heads are one draw**, as many in each layer as the KS ticket has; they say whether *these* heads "
    "matter, given how many each layer gets, and nothing about which layers. The inverted heads are those that KS puts "
    "last.",
    "**Learning rates were chosen on the development texts**, among the same number for every method; the cost table "
    "says how many.",
    "**Intervals cover the choice of test texts only**, neither training seeds nor data order. A difference within an "
    "interval is no difference; one outside it still is one run of each.",
    "**Discovery is not free.** The tickets were found by a tuning of all weights first; what is small is the adapter.",
)


def page(report: Mapping[str, Any]) -> str:
    """The whole page, out of what `results.json` holds."""
    rows, differences = report["rows"], report["differences"]
    parts = [f"# {plain(report['title'])}", *_verdict(report)]
    parts += [f"Made by:\n\n```\n{report['command']}\n```", meta_table(report["meta"])]
    parts += ["## Scores", _score_table(rows), "![Scores](scores.png)", _HOW_TO_READ]
    parts += ["## Ticket minus rival", _difference_table(rows, differences)]
    parts += ["## What it cost", _cost_table(rows)]
    parts += ["## The heads", _ticket_table(report["tickets"]), _ks_power(report["heads"])]
    parts += ["![Scores of all heads](heads.png)", _head_table(report["heads"])]
    parts += ["## Before you believe this", "\n".join(f"- {caveat}" for caveat in (*_CAVEATS, *_edges(rows)))]
    return "\n\n".join(parts) + "\n"


def _edges(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What to say of learning rates that lie at the edge of three or more that were tried."""
    names = [plain(row["name"]) for row in rows if row["rate_at_edge"]]
    if not names:
        return []
    return [
        f"**The best learning rate lies at the edge of those tried** for {', '.join(names)}: others may score higher."
    ]


def _verdict(report: Mapping[str, Any]) -> list[str]:
    """One paragraph for each found ticket."""
    rows = {row["name"]: row for row in report["rows"]}
    paragraphs = []
    for name in (KS_HEADS, MAGNITUDE_HEADS):
        row, ticket = rows[name], report["tickets"][name]
        base, full = report["rows"][0], rows[FULL_TUNING]
        share = (
            "Full tuning gains nothing over it, so there is no gain to recover."
            if row["gain_recovered"] is None
            else f"That is **{percent(row['gain_recovered'])} of full tuning's gain**."
        )
        differences = {entry["against"]: entry for entry in report["differences"] if entry["of"] == name}
        against = "; ".join(_against(differences[rival]) for rival in (RANDOM_HEADS, INVERTED_HEADS, LORA))
        paragraphs.append(
            f"**{name}**, {ticket['heads']} of {ticket['of']} attention heads, score {percent(row['accuracy'], 1)} "
            f"accuracy ({base['name']} {percent(base['accuracy'], 1)}, {full['name']} {percent(full['accuracy'], 1)}). "
            f"{share} Against rivals: {against}."
        )
    return paragraphs


def _against(difference: Mapping[str, Any]) -> str:
    value, low, high = difference["accuracy"]
    evidence = f"{100 * value:+.1f} points, paired interval [{100 * low:.1f}, {100 * high:.1f}]"
    if low <= 0 <= high:
        return f"**no clear difference** from {difference['against']} ({evidence})"
    return f"{'**better**' if value > 0 else '**worse**'} than {difference['against']} ({evidence})"


def _score_table(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        [
            plain(row["name"]),
            *(f"{_points(row[metric])} {_interval(row[f'{metric}_interval'])}" for metric in ("accuracy", "macro_f1")),
            percent(row["gain_recovered"]),
            number(row["trainable"], 0),
            data_size(row["adapter_bytes"]),
        ]
        for row in rows
    ]
    return table(["run", "accuracy, %", "macro F1, %", "gain recovered", "trained weights", "adapter"], lines)


def _difference_table(rows: Sequence[Mapping[str, Any]], differences: Sequence[Mapping[str, Any]]) -> str:
    found = {(entry["of"], entry["against"]): entry for entry in differences}
    lines = []
    for row in rows:
        cells = [plain(row["name"])]
        for name in (KS_HEADS, MAGNITUDE_HEADS):
            for metric in ("accuracy", "macro_f1"):
                entry = found.get((name, row["name"]))
                cells.append(
                    MISSING if entry is None else f"{100 * entry[metric][0]:+.1f} {_interval(entry[metric][1:])}"
                )
        lines.append(cells)
    header = [f"{name}, {metric}" for name in (KS_HEADS, MAGNITUDE_HEADS) for metric in ("accuracy", "macro F1")]
    return table(["points above", *header], lines)


def _cost_table(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        [
            plain(row["name"]),
            MISSING if row["learning_rate"] is None else f"{row['learning_rate']:g}",
            number(row["tried_learning_rates"], 0),
            number(row["dev_accuracy"]),
            number(row["steps"], 0),
            MISSING if row["seconds"] is None else f"{number(row['seconds'])} s",
            data_size(row["peak_memory"]),
        ]
        for row in rows
    ]
    header = ["run", "learning rate", "rates tried", "development accuracy, %", "steps", "time", "peak memory"]
    return table(header, lines)


def _ticket_table(tickets: Mapping[str, Mapping[str, Any]]) -> str:
    lines = [
        [
            plain(name),
            f"{ticket['heads']} of {ticket['of']}",
            ", ".join(f"{group} {count}" for group, count in ticket["by_group"].items() if count),
            f"{ticket['weights']:,}",
            percent(ticket["density"], 2),
            f"{ticket['shared_with_ks']}",
            code(ticket["fingerprint"][:12]),
        ]
        for name, ticket in tickets.items()
    ]
    header = ["ticket", "heads", "in", "weights", "of the model", "shared with KS heads", "fingerprint"]
    return table(header, lines)


def _ks_power(heads: Sequence[Mapping[str, Any]]) -> str:
    """How much the test sees at all."""
    smallest = 10 ** min(head["log10_p"] for head in heads)
    passed = sum(head["log10_p"] < -1.30103 for head in heads)
    text = f"{passed} of {len(heads)} heads have p < 0.05; the smallest p is {smallest:.3g}."
    if passed:
        return text
    return (
        f"{text} **The KS test sees no shift in any head**: it ranks them inside of what it calls no difference, by "
        "differences of p from 1, where biases of few numbers, whose D comes in coarse steps, weigh most. Read its "
        "choice with that in mind."
    )


def _head_table(heads: Sequence[Mapping[str, Any]]) -> str:
    """The heads of the two found tickets, and their places in both rankings."""
    places = {}
    for column in ("ks_score", "shift"):
        ranked = sorted(range(len(heads)), key=lambda place: -heads[place][column])
        places[column] = {head: place for place, head in enumerate(ranked, 1)}
    chosen = [number for number, head in enumerate(heads) if {KS_HEADS, MAGNITUDE_HEADS} & set(head["in"])]
    chosen.sort(key=lambda head: places["ks_score"][head])
    lines = [
        [
            f"{code(heads[head]['group'])} {heads[head]['id']}",
            str(places["ks_score"][head]),
            number(heads[head]["statistic"], 4),
            f"{0.0 - heads[head]['log10_p']:.2g}",
            str(places["shift"][head]),
            number(heads[head]["shift"], 3),
            number(heads[head]["relative_shift"], 4),
            ", ".join(heads[head]["in"]),
        ]
        for head in chosen[:_HEADS_SHOWN]
    ]
    header = ["head", "KS rank", "D", "−log10 p", "magnitude rank", "shift", "shift / norm", "in"]
    shown = table(header, lines)
    hidden = len(chosen) - len(lines)
    return f"{shown}\n\n{hidden:,} more are in `results.json`." if hidden else shown


def _points(share: float) -> str:
    return number(100 * share)


def _interval(bounds: Sequence[float]) -> str:
    return f"[{number(100 * bounds[0])}, {number(100 * bounds[1])}]"
