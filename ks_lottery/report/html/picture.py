"""A matplotlib figure inside a page: text stays text, colours follow the page, and points say what they are."""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from markupsafe import Markup

from ks_lottery.report.canvas import to_png
from ks_lottery.report.html.templating import template

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

_SVG, _LINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}\b")
_REFERENCE = re.compile(r"""(?:url\(|href=")#([^)"]+)""")
_FOCUSED_AT_MOST = 200  # points; more of them can be pointed at, but not reached by keyboard one by one

Notes = Sequence[str] | str


@dataclass(frozen=True)
class Picture:
    """A drawing with notes.

    Attributes:
        drawing: of matplotlib.
        title: below the drawing; also what screen readers say first.
        description: what the drawing shows, for who cannot see it.
        notes: by the gid of an artist: a text, or a text for each of a scatter's points.
        focused: gids whose points can be reached by keyboard.
    """

    drawing: "Drawing"
    title: str
    description: str
    notes: Mapping[str, Notes] = field(default_factory=dict)
    focused: Sequence[str] = ()

    def png(self, tight: bool = False) -> bytes:
        """The drawing as a PNG file, as `to_png` makes it."""
        return to_png(self.drawing, tight)

    def html(self, name: str) -> Markup:
        """The drawing as SVG; numbers of pixels become the page's business."""
        root = ElementTree.fromstring(_svg(self.drawing, name))
        root.set("role", "group")
        root.set("aria-label", f"{self.title}. {self.description}")
        for gone in ("width", "height"):
            root.attrib.pop(gone, None)
        for element in root.findall(f"{{{_SVG}}}metadata"):
            root.remove(element)
        for gid, notes in self.notes.items():
            _note(root, gid, notes, gid in self.focused)
        hint = "Point at a mark" + (", or walk over them with Tab and the arrow keys." if self.focused else ".")
        return template("picture.html", name=name, svg=_inline(root), title=self.title, hint=hint if self.notes else "")


def _svg(drawing: "Drawing", name: str) -> bytes:
    """The drawing as a file of its own, whose inner ids nothing else on the page has."""
    import matplotlib

    content = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        drawing.savefig(
            content, format="svg", metadata={"Date": None, "Creator": None}, transparent=True, bbox_inches="tight",
            pad_inches=0.12,
        )  # fmt: skip
    return content.getvalue()


def _note(root: ElementTree.Element, gid: str, notes: Notes, focused: bool) -> None:
    """Write texts to the marks of an artist."""
    group = root.find(f".//{{{_SVG}}}g[@id='{gid}']")
    if group is None:
        return
    marks = [group] if isinstance(notes, str) else list(group.iter(f"{{{_SVG}}}use"))
    texts = [notes] if isinstance(notes, str) else list(notes)
    walked = focused and len(marks) <= _FOCUSED_AT_MOST
    if walked and len(marks) > 1:
        group.set("data-walk", "")
    for number, (mark, text) in enumerate(zip(marks, texts, strict=True)):
        mark.set("data-note", text)
        if walked:
            mark.set("tabindex", "0" if number == 0 else "-1")
            mark.set("role", "img")
            mark.set("aria-label", text)


def _inline(root: ElementTree.Element) -> Markup:
    """SVG as it stands inside HTML: without ids that nothing refers to, in colours that the page's style may change."""
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _LINK)
    text = ElementTree.tostring(root, encoding="unicode")
    needed = set(_REFERENCE.findall(text))
    for element in root.iter():
        if element.get("id") not in needed:
            element.attrib.pop("id", None)
    text = ElementTree.tostring(root, encoding="unicode")
    styled = re.sub(r'style="[^"]*"', lambda found: _COLOUR.sub(_variable, found[0]), text)
    return Markup(re.sub(r"<style[^>]*>.*?</style>", "", styled, flags=re.DOTALL))


def _variable(colour: re.Match[str]) -> str:
    return f"var(--c-{colour[0][1:].lower()}, {colour[0]})"
