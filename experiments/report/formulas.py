"""LaTeX to MathML that is safe to put into a page whoever wrote the LaTeX."""

import functools
import re
from html import escape
from xml.etree import ElementTree

import latex2mathml.converter
from markupsafe import Markup

ELEMENTS = frozenset(
    "math mrow mi mn mo mtext mspace msub msup msubsup mover munder munderover mfrac msqrt mroot mtable mtr mtd mstyle mpadded "
    "mphantom menclose".split()
)
ATTRIBUTES = frozenset(
    "display displaystyle scriptlevel mathvariant stretchy fence form separator lspace rspace width height depth linethickness "
    "minsize maxsize columnalign rowspacing columnspacing accent accentunder notation movablelimits largeop symmetric mathsize".split()
)
# The converter knows \lvert, but not with a size before it.
_ALIASES = ((re.compile(r"\\[lr]vert(?![A-Za-z])"), "|"), (re.compile(r"\\[lr]Vert(?![A-Za-z])"), r"\\|"))
_TAG = re.compile(r"\\tag\{([^{}]*)\}")


@functools.lru_cache(maxsize=None)
def mathml(latex: str, *, display: str = "block") -> Markup:
    """A formula as MathML with its LaTeX as the fallback text.

    Of what the converter writes only known elements and attributes are kept, so LaTeX from outside brings no markup of its own.

    Raises:
        ValueError: it uses a command that the converter does not know.
    """
    source = _TAG.sub(r"\\qquad(\1)", latex)
    for pattern, plain in _ALIASES:
        source = pattern.sub(plain, source)
    try:
        converted = latex2mathml.converter.convert(source, display=display)
    except Exception as error:  # whatever the converter stumbles over, the formula is at fault
        raise ValueError(f"the formula {latex!r} has no MathML ({type(error).__name__}: {error}); write it otherwise") from None
    root = ElementTree.fromstring(converted)
    # The converter passes an unknown command on as text instead of failing.
    unknown = re.search(r"\\[A-Za-z]+", "".join(root.itertext()))
    if unknown:
        raise ValueError(
            f"the formula {latex!r} uses {unknown.group(0)}, which has no MathML; write it with another command"
        )
    # Screen readers that know MathML read the formula itself; the others fall back on this.
    return Markup(_rebuilt(root, f' alttext="{escape(latex)}"'))


def _rebuilt(element: ElementTree.Element, extra: str = "") -> str:
    name = element.tag.rpartition("}")[2]
    if name not in ELEMENTS:
        raise ValueError(f"a formula became <{name}>, which is no MathML that a page may hold")
    kept = "".join(f' {key}="{escape(value)}"' for key, value in element.attrib.items() if key in ATTRIBUTES)
    inner = escape(element.text or "", quote=False) + "".join(
        _rebuilt(child) + escape(child.tail or "", quote=False) for child in element
    )
    return f"<{name}{extra}{kept}>{inner}</{name}>"
