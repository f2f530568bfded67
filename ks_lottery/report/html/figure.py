"""What a page shows besides its text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from markupsafe import Markup


class Figure(Protocol):
    """Something to look at and to point at."""

    def html(self, name: str) -> Markup:
        """The figure as HTML, in which everything that came from elsewhere is escaped.

        Args:
            name: id of the figure, unique on the page.
        """
        ...


@dataclass(frozen=True)
class Section:
    """A part of a page that its Markdown does not have.

    Attributes:
        title: headline.
        text: what to know before, as Markdown.
        figure: what is shown.
    """

    title: str
    text: str
    figure: Figure


@dataclass(frozen=True)
class Stack:
    """Several figures in the place of one, from top to bottom."""

    figures: Sequence[Figure]

    def html(self, name: str) -> Markup:
        """All of them."""
        return Markup("").join(figure.html(f"{name}-{number}") for number, figure in enumerate(self.figures, 1))
