"""Formulas as MathML that is built anew: whatever a results file holds in place of a formula, it stays a formula."""

from html import escape, unescape
from xml.etree.ElementTree import Element

import latex2mathml.converter
from markupsafe import Markup

from experiments.errors import UserError

LONGEST = 2000
DEEPEST = 40
_ELEMENTS = frozenset(
    """
    math mrow mi mn mo ms mtext mspace msup msub msubsup mfrac msqrt mroot mover munder munderover
    mtable mtr mtd mstyle mpadded mphantom menclose mmultiscripts mprescripts none
    """.split()
)
_ATTRIBUTES = frozenset(
    """
    accent accentunder columnalign columnlines columnspacing depth display displaystyle fence form
    height linethickness lspace mathsize mathvariant maxsize minsize movablelimits rowlines rowspacing
    rspace scriptlevel separator stretchy symmetric voffset width notation
    """.split()
)
_NAMESPACE = "http://www.w3.org/1998/Math/MathML"


def mathml(latex: str, *, display: str = "block") -> Markup:
    """A formula as MathML with its LaTeX as the fallback text.

    Only elements and attributes of presentation are written, and every text is escaped.

    Raises:
        UserError: it is too long, too deeply nested, or uses a command that the converter does not know.
    """
    deepest = depth = 0
    for letter in latex:
        depth += {"{": 1, "}": -1}.get(letter, 0)
        deepest = max(deepest, depth)
    if len(latex) > LONGEST or deepest > DEEPEST:
        raise UserError(
            f"the formula {latex[:60]!r}.. has {len(latex)} characters, nested {deepest} deep",
            limit=f"at most {LONGEST} and {DEEPEST}",
            remedy="write a shorter one",
        )
    try:
        tree = latex2mathml.converter.convert_to_element(latex, display=display)
    # Each malformed formula has an exception of its own kind.
    except Exception as error:
        raise UserError(
            f"the formula {latex!r} has no MathML ({type(error).__name__} {error})".rstrip(),
            remedy="write it otherwise",
        ) from None
    # Screen readers that know MathML read the formula itself; the others fall back on this.
    return Markup(_written(tree, latex, f' alttext="{escape(latex)}" xmlns="{_NAMESPACE}"'))


def _written(element: Element, latex: str, more: str = "") -> str:
    name = element.tag
    if name not in _ELEMENTS:
        raise UserError(
            f"the formula {latex!r} makes <{name}>", limit="which is no formula", remedy="write it otherwise"
        )
    attributes = "".join(
        f' {key}="{escape(unescape(value))}"' for key, value in sorted(element.attrib.items()) if key in _ATTRIBUTES
    )
    # The converter writes its symbols as references.
    text = unescape(element.text or "")
    # It passes an unknown command on as text instead of failing.
    if name != "mtext" and text.startswith("\\") and text[1:2].isalpha():
        raise UserError(
            f"the formula {latex!r} uses {text}, which has no MathML", remedy="write it with another command"
        )
    inside = "".join(f"{_written(child, latex)}{escape(unescape(child.tail or ''))}" for child in element)
    return f"<{name}{more}{attributes}>{escape(text)}{inside}</{name}>"
