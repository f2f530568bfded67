"""What several models wrote after the same source, side by side, with the first line marked."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from ks_lottery.report.examples import TranslationExample
from ks_lottery.report.html.templating import template


@dataclass(frozen=True)
class SideBySide:
    """Translations.

    Attributes:
        examples: in the order to show.
        methods: names of the runs, from left to right; an example that lacks one leaves it out.
    """

    examples: Sequence[TranslationExample]
    methods: Sequence[str]

    def html(self, name: str) -> Markup:
        """One article for each example."""
        shown = [
            {
                "source": example.source,
                "references": example.references,
                "outputs": [
                    (method, *example.written[method].parts, example.written[method].stopped)
                    for method in self.methods
                    if method in example.written
                ],
            }
            for example in self.examples
        ]
        return template("side_by_side.html", name=name, examples=shown)
