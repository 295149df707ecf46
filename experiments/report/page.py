"""report.html: audit.json and the figures in one file that fetches nothing."""

import base64
import json
import re
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import jinja2
import latex2mathml.converter
from markupsafe import Markup

from experiments.files import whole_file

TEMPLATE = "report.html.j2"
STYLE = "report.css"


def mathml(latex: str, *, display: str = "block") -> Markup:
    """A formula as MathML with its LaTeX as the fallback text.

    Raises:
        ValueError: it uses a command that the converter does not know.
    """
    converted = latex2mathml.converter.convert(latex, display=display)
    # The converter passes an unknown command on as text instead of failing.
    unknown = re.search(r">[^<]*(\\[A-Za-z]+)", converted)
    if unknown:
        raise ValueError(
            f"the formula {latex!r} uses {unknown.group(1)}, which has no MathML; write it with another command"
        )
    return Markup(converted.replace("<math ", f'<math aria-label="{escape(latex)}" ', 1))


def short_number(value: Any) -> str:
    """A number as a person reads it; words pass through."""
    if value is None:
        return "–"
    if isinstance(value, str):
        return "∞" if value == "infinity" else value
    if isinstance(value, bool | int):
        return str(value)
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        # Near the bound the digits that matter are those of the distance to it.
        return f"{value:.6f}" if 0.98 < value < 1.02 else f"{value:.4g}"
    mantissa, exponent = f"{value:.2e}".split("e")
    digits = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{mantissa}\u2009×\u200910{digits}"


def verdict_class(verdict: str) -> str:
    """The style class of a verdict; the word itself is always printed beside the colour."""
    if verdict.startswith("refuted as stated"):
        return "mixed"
    return {"proved": "proved", "proved after repair": "repaired", "refuted": "refuted"}.get(verdict, "open")


def anchor(name: str) -> str:
    """A claim's id as an HTML id."""
    return re.sub(r"[^A-Za-z0-9]+", "-", name)


def _embedded(folder: Path, name: str) -> str:
    path = folder / f"{name}.png"
    if not path.is_file():
        raise ValueError(f"{path} is missing; draw it again with `framebound figures`")
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"mathml": mathml, "number": short_number, "verdict_class": verdict_class, "anchor": anchor}
    return environment


def render(audit: Mapping[str, Any], figures: Path) -> str:
    """The page.

    Args:
        audit: content of audit.json.
        figures: folder with the PNG of every figure that the audit names.

    Raises:
        ValueError: a figure is missing, or a formula cannot be converted.
    """
    pictures = {figure["name"]: {**figure, "source": _embedded(figures, figure["name"])} for figure in audit["figures"]}
    style = Markup((Path(__file__).parent / STYLE).read_text(encoding="utf-8"))
    return _environment().get_template(TEMPLATE).render(audit=audit, figures=pictures, style=style)


def write_report(out: Path) -> Path:
    """Write OUT/report.html from OUT/audit.json and OUT/figures.

    Raises:
        ValueError: there is no audit.json, or it is damaged.
    """
    source = out / "audit.json"
    try:
        audit = json.loads(source.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{source} is missing; write it with `framebound reproduce --out {out}`") from None
    except ValueError as error:
        raise ValueError(
            f"{source} is no JSON ({error}); write it again with `framebound reproduce --out {out}`"
        ) from None
    page = render(audit, out / "figures")
    with whole_file(out / "report.html") as temporary:
        temporary.write_text(page, encoding="utf-8")
    return out / "report.html"
