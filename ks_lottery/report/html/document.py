"""One self-contained HTML page out of a report's Markdown and its figures."""

import base64
import hashlib
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from ks_lottery.checkpoints.redaction import redacted
from ks_lottery.report.html.figure import Figure, Section
from ks_lottery.report.html.markdown import rendered
from ks_lottery.report.html.templating import resource, template


def html_page(
    markdown: str, figures: Mapping[str, Figure], sections: Sequence[Section] = (), before: str | None = None
) -> str:
    """Make the page.

    It loads nothing: style and script are inside, and its content security policy forbids everything else, scripts that
    a text might smuggle in among them. Tables can be sorted and, from 8 rows on, filtered; commands can be copied.
    Tokens and passwords are hidden as in every message of this library.

    Args:
        markdown: the page for people who read Markdown; its first headline is the title. HTML in it is shown as text.
        figures: by the file name of the picture in whose place each is shown.
        sections: further parts.
        before: headline of the Markdown before which they stand; at the end if None.

    Returns:
        the file's content.

    Raises:
        DataError: if the Markdown has a picture that is not among the figures, or no headline `before`.
    """
    body = rendered(redacted(markdown), figures, sections, before)
    script = resource("page.js")
    return template(
        "page.html", title=body.title, contents=body.contents, body=body.html, style=Markup(resource("page.css")),
        script=Markup(script), script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )  # fmt: skip
