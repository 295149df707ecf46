"""paper_notes.md, section by section: the proofs, as they stand and as HTML with MathML."""

import functools
import re
import sys
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup
from mdit_py_plugins.dollarmath import dollarmath_plugin

from experiments.report.formulas import breaking_mathml
from experiments.store import ROOT
from theory.claim import Claim, Verdict

NAME = "paper_notes.md"
INSTALLED = Path(sys.prefix) / "share" / "framebound" / NAME
"""Where pip puts it when the package is installed without its repository."""
_HEADING = re.compile(r"^(#{2,3}) (.+)$", re.MULTILINE)


def notes_file() -> Path | None:
    """Where the proofs are: in the checkout, or where pip put them; None where neither holds them."""
    return next((path for path in (ROOT / NAME, INSTALLED) if path.is_file()), None)


@functools.lru_cache(maxsize=1)
def sections() -> Mapping[str, str]:
    """The sections by their heading (for a proof the claim's id), Markdown without the heading; {} without notes."""
    path = notes_file()
    return {} if path is None else split(path.read_text(encoding="utf-8"))


def split(text: str) -> dict[str, str]:
    """The sections of a document, from each heading of the second or third level to the next."""
    found = list(_HEADING.finditer(text))
    ends = [match.start() for match in found[1:]] + [len(text)]
    return {match.group(2).strip(): text[match.end() : end].strip() for match, end in zip(found, ends, strict=True)}


def complaints(claims: Iterable[Claim], known: Mapping[str, str] | None = None) -> list[str]:
    """A line for each claim that says something is proved or refuted and has no section with its id.

    Args:
        known: the sections; None reads paper_notes.md.
    """
    known = sections() if known is None else known
    words = {Verdict.REFUTED: "is refuted"}
    return [
        f"{claim.id} {words.get(claim.verdict, 'is proved')}, and {NAME} has no section `### {claim.id}` that shows it"
        for claim in claims
        if not known.get(claim.id)
    ]


def _display(latex: str, display: str) -> str:
    # A wide formula scrolls in its own box, which the keyboard reaches.
    if display == "block":
        box = '<span class="formula display" tabindex="0" role="group" aria-label="Formula">'
        return f"{box}{breaking_mathml(latex)}</span>"
    return str(breaking_mathml(latex, display="inline"))


def _render_math(content: str, options: Mapping[str, bool]) -> str:
    return _display(content.strip(), "block" if options["display_mode"] else "inline")


@functools.lru_cache(maxsize=1)
def _markdown() -> MarkdownIt:
    # Raw HTML is off: what a proof needs is Markdown and LaTeX, and nothing else reaches the page.
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.use(dollarmath_plugin, allow_labels=False, double_inline=True, renderer=_render_math)
    return parser


def _without_links(tokens: Iterable[Token]) -> None:
    """Links of the notes lead to files beside them, which a page that is sent alone has not; their words stay."""
    for token in tokens:
        if token.type in ("link_open", "link_close", "image"):
            token.type, token.tag, token.nesting = "text", "", 0
        _without_links(token.children or ())


def _row_headers(tokens: list[Token]) -> None:
    """The first cell of every row names it, for those who hear a table instead of seeing it."""
    first = False
    for token in tokens:
        if token.type == "tr_open":
            first = True
        elif token.type in ("td_open", "th_open"):
            if token.type == "th_open" or first:
                token.attrSet("scope", "row" if token.type == "td_open" else "col")
                token.tag = "th"
        elif token.type in ("td_close", "th_close"):
            token.tag = "th" if first or token.type == "th_close" else "td"
            first = False


def render(markdown: str, title: str) -> Markup:
    """A section as HTML with MathML.

    Args:
        title: names the section's tables and listings.

    Raises:
        ValueError: a formula uses a command that has no MathML; the message shows it.
    """
    parser = _markdown()
    tokens = parser.parse(markdown)
    _without_links(tokens)
    _row_headers(tokens)
    html = parser.renderer.render(tokens, parser.options, {})
    # Tables of the notes are wider than a phone.
    label = escape(f"Table in {title}")
    box = f'<div class="scroll" tabindex="0" role="group" aria-label="{label}">'
    opening = f'{box}<table><caption class="unseen">{label}</caption>'
    return Markup(html.replace("<table>", opening).replace("</table>", "</table></div>"))
