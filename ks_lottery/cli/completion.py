"""What the shell offers when a name is half typed: finders, units, corrections, carriers, kinds of order."""

from collections.abc import Iterator

from ks_lottery.cli.options_table import summary_of

_CORRECTIONS = {
    "none": "the paper's rule",
    "bonferroni": "p times the number of units",
    "holm": "Bonferroni, step by step",
    "bh": "Benjamini-Hochberg",
}


def finder_names(incomplete: str) -> Iterator[tuple[str, str]]:
    """Finders whose name begins so, each with the first line of its documentation."""
    from ks_lottery.finders.base import FINDERS

    return ((name, summary_of(entry)) for name, entry in FINDERS.items() if name.startswith(incomplete))


def unit_names(incomplete: str) -> Iterator[tuple[str, str]]:
    """Granularities whose name begins so, each with the first line of its documentation."""
    from ks_lottery.units.granularity import GRANULARITIES

    return ((name, summary_of(entry)) for name, entry in GRANULARITIES.items() if name.startswith(incomplete))


def correction_names(incomplete: str) -> Iterator[tuple[str, str]]:
    """Corrections of the selector by p-values whose name begins so."""
    return ((name, says) for name, says in _CORRECTIONS.items() if name.startswith(incomplete))


def carrier_names(incomplete: str) -> Iterator[str]:
    """Forms of an exported adapter whose name begins so, as they are typed; nothing is imported to list them."""
    names = ("auto", "trainable-tokens", "lora", "lora-embedding", "supertuning", "shira", "merged")
    return (name for name in names if name.startswith(incomplete))
