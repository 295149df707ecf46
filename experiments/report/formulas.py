"""LaTeX to MathML that is safe to put into a page whoever wrote the LaTeX, and that breaks where TeX would break it."""

import functools
import re
from collections.abc import Iterator
from html import escape
from xml.etree import ElementTree

import latex2mathml.converter
from markupsafe import Markup

from experiments.errors import UserError

ELEMENTS = frozenset(
    "math mrow mi mn mo mtext mspace msub msup msubsup mover munder munderover mfrac msqrt mroot mtable mtr mtd mstyle "
    "mpadded mphantom menclose".split()
)
ATTRIBUTES = frozenset(
    "display displaystyle scriptlevel mathvariant stretchy fence form separator lspace rspace width height depth "
    "linethickness minsize maxsize columnalign rowspacing columnspacing accent accentunder notation movablelimits "
    "largeop symmetric mathsize".split()
)
# The converter knows \lvert, but not with a size before it.
_ALIASES = (
    (re.compile(r"(\\[Bb]igg?[lr]?)\s*\\[lr]vert(?![A-Za-z])"), r"\1|"),
    (re.compile(r"(\\[Bb]igg?[lr]?)\s*(?:\\[lr]Vert(?![A-Za-z])|\\\|)"), r"\1‖"),
    (re.compile(r"\\tag\{([^{}]*)\}"), r"\\qquad(\1)"),
    (re.compile(r":="), r"\\coloneqq "),
)
# Each prime by itself would become a superscript of the one before.
_PRIMES = re.compile(r"('+)(?:\^(\{[^{}]*\}|\\[A-Za-z]+|[^\s\\]))?")
_NAMES = frozenset("sin cos tan arctan log exp sinh cosh tanh asinh artanh diag tr sym sign dim ker".split())
_ROWS = ("mrow", "math", "mtd", "mstyle", "msqrt")
"""Elements with any number of parts; in the others each part has its own meaning by its place."""
_SCRIPTED = ("msup", "msub", "msubsup")
_BARS = frozenset("|‖/")
_OPENING, _CLOSING = frozenset("([{⟨⌊⌈"), frozenset(")]}⟩⌋⌉")
_RELATIONS = frozenset("=≤≥<>≔≈≠∈⪰⪯⇒⟹⇔→↦")
_ORDERS = frozenset("⪰⪯≽≼")
_WIDE = ("1em", "2em")
LONGEST = 2000
DEEPEST = 40
LONG = 24
"""Characters of a piece beyond which it may break at a sign or a comma as well."""
_SIGNS = frozenset("−+±∓-")
_BEFORE_SIGN = frozenset("(,[{=≤≥<>→⇒;∈≠≔:≈⟨·×")


@functools.cache
def mathml(latex: str, *, display: str = "block") -> Markup:
    """A formula as MathML with its LaTeX as the fallback text.

    Only known elements and attributes of what the converter writes are kept, so LaTeX brings no markup of its own.

    Raises:
        ValueError: it uses a command that the converter does not know.
    """
    return _math(
        latex, display, [_rebuilt(child, spacing) for child, spacing in _children(_tree(latex, display))], first=True
    )


@functools.cache
def breaking_mathml(latex: str, *, display: str = "block") -> Markup:
    """The same in pieces that each hold together, so that a line may break before a relation, after a wide space, and
    in a long piece before a sign or after a comma.

    No browser breaks within a formula. The first piece carries the LaTeX of the whole.

    Raises:
        ValueError: it uses a command that the converter does not know.
    """
    pieces: list[list[str]] = [[]]
    depth, bars, length = 0, 0, 0
    for child, spacing in _children(_tree(latex, display)):
        text = _operator(child)
        depth += (text in _OPENING) - (text in _CLOSING)
        bars += text in _BARS and text != "/"
        free = depth == 0 and bars % 2 == 0
        long = length > LONG
        if free and pieces[-1] and (text in _RELATIONS or long and text in _SIGNS and not spacing):
            pieces.append([])
            length = 0
            spacing += ' form="infix"'
        space = _name(child) == "mspace"
        # A space after a comma at which the line may break belongs to the piece before it.
        (pieces[-2] if space and not pieces[-1] and len(pieces) > 1 else pieces[-1]).append(_rebuilt(child, spacing))
        length += len("".join(child.itertext()))
        wide = space and child.get("width", "") in _WIDE
        if free and pieces[-1] and (wide or long and text == ","):
            pieces.append([])
            length = 0
    pieces = [piece for piece in pieces if piece]
    if len(pieces) < 2:
        return mathml(latex, display=display)
    style = " displaystyle" if display == "block" else ""
    return Markup("<wbr>").join(_math(latex, style, piece, first=not number) for number, piece in enumerate(pieces))


def _math(latex: str, display: str, inner: list[str], *, first: bool) -> Markup:
    # Screen readers that know MathML read the formula itself; the others fall back on this.
    alternative = f' alttext="{escape(latex)}"' if first else ""
    shown = {"block": ' display="block"', " displaystyle": ' displaystyle="true"'}.get(display, "")
    return Markup(f"<math{alternative}{shown}><mrow>{''.join(inner)}</mrow></math>")


def _tree(latex: str, display: str) -> ElementTree.Element:
    """What the converter makes of a formula, without the row around it."""
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
    source = latex
    for pattern, plain in _ALIASES:
        source = pattern.sub(plain, source)
    source = _PRIMES.sub(_superscript, source)
    try:
        converted = latex2mathml.converter.convert(source, display="inline" if display == "inline" else "block")
        root = ElementTree.fromstring(converted)
    except Exception as error:  # whatever the converter stumbles over, the formula is at fault
        raise UserError(
            f"the formula {latex!r} has no MathML ({type(error).__name__}: {error})", remedy="write it otherwise"
        ) from None
    # The converter passes an unknown command on as text instead of failing.
    unknown = re.search(r"\\([A-Za-z]+|.)", "".join(root.itertext()))
    if unknown:
        raise UserError(
            f"the formula {latex!r} uses {unknown.group(0)}, which has no MathML",
            remedy="write it with another command",
        )
    _hold_together(root)
    inner = list(root)
    return inner[0] if len(inner) == 1 and inner[0].tag.endswith("}mrow") else root


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _base(element: ElementTree.Element) -> ElementTree.Element:
    """What a subscript or superscript is set on, or the element itself."""
    return element[0] if _name(element) in _SCRIPTED else element


def _operator(element: ElementTree.Element) -> str:
    """The operator that an element is, or that a script is set on; "" for anything else."""
    base = _base(element)
    return (base.text or "").strip() if _name(base) == "mo" else ""


def _hold_together(row: ElementTree.Element) -> None:
    """Make a row of what a script's parenthesis closes: a browser does not stretch a parenthesis that has a script."""
    for child in row:
        _hold_together(child)
    place = 0
    while place < len(row):
        scripted = row[place]
        if _name(scripted) in _SCRIPTED and _operator(scripted) in _CLOSING:
            start = _opening(row, place)
            if start is not None:
                inner = ElementTree.Element(scripted.tag.replace(_name(scripted), "mrow"))
                inner.extend(list(row)[start:place])
                inner.append(scripted[0])
                for child in list(row)[start:place]:
                    row.remove(child)
                scripted.remove(scripted[0])
                scripted.insert(0, inner)
                place = start
        place += 1


def _opening(row: ElementTree.Element, place: int) -> int | None:
    """Where the parenthesis opens that closes at a place; None where it opens in another row."""
    depth = 1
    for start in range(place - 1, -1, -1):
        text = _operator(row[start])
        depth += (text in _CLOSING) - (text in _OPENING)
        if depth == 0:
            return start
    return None


def _children(row: ElementTree.Element) -> Iterator[tuple[ElementTree.Element, str]]:
    """The parts of a row, each with what its place asks of its spacing, and thin spaces around functions' names."""
    before, bars = None, 0
    for child in row:
        if before is not None and _name(row) in _ROWS and _needs_space(before, child):
            yield ElementTree.Element(child.tag.replace(_name(child), "mspace"), {"width": "0.167em"}), ""
        yield child, _spacing(child, before, bars % 2 == 1) if _name(child) == "mo" else ""
        bars += _operator(child) in ("|", "‖")
        before = child


def _needs_space(before: ElementTree.Element, after: ElementTree.Element) -> bool:
    """Between a function's name and a letter, a number or another name, on either side of the name."""
    names = [(_base(element).text or "").strip() in _NAMES for element in (before, after)]
    if _name(before) == "mspace" or _name(after) == "mspace":
        return False
    return names[0] and not _operator(after) or names[1] and not _operator(before)


def _superscript(primes: re.Match) -> str:
    """x'', x'^2 with one superscript."""
    return f"^{{{len(primes[1]) * chr(0x2032)}{(primes[2] or '').strip('{}')}}}"


def _spacing(element: ElementTree.Element, before: ElementTree.Element | None, within_bars: bool) -> str:
    """Attributes that set an operator as TeX does: bars and slashes close to their operands, signs close to theirs."""
    text = (element.text or "").strip()
    if text in _BARS:
        sized = {"minsize", "maxsize", "stretchy"} & element.attrib.keys()
        return ' lspace="0" rspace="0"' + ("" if sized else ' stretchy="false"')
    previous = "" if before is None else _operator(before)
    opened = before is None or previous in _BEFORE_SIGN or within_bars and previous in ("|", "‖")
    return ' form="prefix"' if text in _SIGNS and opened else ""


def _rebuilt(element: ElementTree.Element, extra: str = "") -> str:
    name = _name(element)
    if name == "mi" and (element.text or "").strip() in _ORDERS:
        # The converter takes these relations for letters.
        name, extra = "mo", f'{extra} lspace="0.278em" rspace="0.278em"'
    if name not in ELEMENTS:
        raise UserError(
            f"a formula became <{name}>", limit="which is no MathML that a page may hold", remedy="write it otherwise"
        )
    ours = {part.partition("=")[0] for part in extra.split()}
    kept = "".join(
        f' {key}="{escape(value)}"' for key, value in element.attrib.items() if key in ATTRIBUTES and key not in ours
    )
    inner = escape(element.text or "", quote=False) + "".join(
        _rebuilt(child, spacing) + escape(child.tail or "", quote=False) for child, spacing in _children(element)
    )
    return f"<{name}{extra}{kept}>{inner}</{name}>"
