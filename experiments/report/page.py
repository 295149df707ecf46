"""report.html: audit.json and the figures in one file that fetches nothing; beside it report.md and claims.csv."""

import base64
import json
import re
import struct
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from experiments.errors import UserError
from experiments.files import make_folder, sweep, write_bytes
from experiments.report import exports, graph, notes, sources, table, words
from experiments.report.formulas import breaking_mathml, mathml
from experiments.report.numbers import apart, ratio_words, short_number
from experiments.report.schema import PIPELINE_AUDIT, is_plain_name, read_results
from theory.readings import Decision

TEMPLATE = "report.html.j2"
AUDIT_TEMPLATE = "pipeline_audit.html.j2"
STYLE = "report.css"
"""The kind of an audit.json that `framebound audit` wrote."""


def verdict_class(verdict: str) -> str:
    """The style class of a verdict, a decision or a headline; the word itself is always printed beside the colour."""
    if "; " in verdict:
        return "mixed"
    plain = {"proved": "proved", "proved after repair": "repaired", "refuted": "refuted"}
    if verdict in plain:
        return plain[verdict]
    for decision, name in ((Decision.REPAIRED, "repaired"), (Decision.TRUE, "proved"), (Decision.FALSE, "refuted")):
        if verdict.startswith(decision):
            return name
    return "open"


def told_apart(outcome: Mapping[str, Any], passed: bool) -> tuple[str, str, str]:
    """Measured, bound and ratio; where a rung failed with the digits in which they differ."""
    measured, bound, ratio = outcome["measured"], outcome["bound"], outcome["ratio"]
    if passed:
        return short_number(measured), short_number(bound), short_number(ratio)
    return (*apart(measured, bound), ratio_words(ratio))


def anchor(name: str) -> str:
    """A claim's id as an HTML id."""
    return re.sub(r"[^A-Za-z0-9]+", "-", name)


def breakable(text: str) -> Markup:
    """A path or dotted name that may break after its separators, so that it fits a narrow column."""
    return Markup(re.sub(r"([./_])", r"\1<wbr>", str(escape(text))))


_GREEK = dict(
    zip(
        "alpha beta gamma delta eps epsilon eta theta kappa lambda mu nu rho sigma tau phi psi omega".split(),
        "αβγδεεηθκλμνρστφψω",
        strict=True,
    )
)
_LETTER = re.compile(rf"(?<![\w.])({'|'.join(_GREEK)})(?=_|\b)")
_PLAIN = (
    (re.compile(r"(?<![A-Za-z0-9])([A-Za-zα-ω])_(\w+)"), r"\1<sub>\2</sub>"),
    (re.compile(r"\^(-?\w+|\([^()]*\))"), r"<sup>\1</sup>"),
    (re.compile(r"&gt;="), "≥"),
    (re.compile(r"&lt;="), "≤"),
    (re.compile(r"\|\|"), "‖"),
)


def prose(text: str) -> Markup:
    """A sentence in which F_t, m^2, eta and >= are set as they are read; everything else is shown as it stands."""
    shown = _LETTER.sub(lambda found: _GREEK[found[1]], escape(text, quote=False))
    for pattern, replacement in _PLAIN:
        shown = pattern.sub(replacement, shown)
    return Markup(shown)


def witness_text(witness: Mapping[str, Any]) -> str:
    """An instance as assignments, in full precision, one row of an array a line; large arrays by shape and digest."""
    return "\n".join(f"{name} = {_value_text(value)}" for name, value in witness.items())


def _value_text(value: Any, indent: str = "") -> str:
    if isinstance(value, Mapping):
        shape = " × ".join(map(str, value["shape"]))
        return f"array of {shape} {value['dtype']}, SHA-256 {value['sha256'][:16]}.."
    if isinstance(value, list) and any(isinstance(entry, list) for entry in value):
        rows = ",\n".join(f"{indent}  {_value_text(entry, indent + '  ')}" for entry in value)
        return f"[\n{rows}\n{indent}]"
    return json.dumps(value)


def embedded_picture(folder: Path, name: str) -> dict[str, Any]:
    """The PNG of a figure for the macro `picture`: its bytes as a data: address, its width and height.

    Raises:
        ValueError: FOLDER/NAME.png is missing or is no PNG.
    """
    if not is_plain_name(name):
        raise UserError(f"{name!r} is no name of a figure", remedy="write audit.json again with this version")
    path = folder / f"{name}.png"
    if not path.is_file():
        raise ValueError(f"{path} is missing; draw it again with `framebound figures`")
    content = path.read_bytes()
    if content[:8] != b"\x89PNG\r\n\x1a\n" or len(content) < 24:
        raise ValueError(f"{path} is no PNG; draw it again with `framebound figures`")
    # The first chunk of every PNG is its header, which begins with the two lengths.
    width, height = struct.unpack(">II", content[16:24])
    source = "data:image/png;base64," + base64.b64encode(content).decode("ascii")
    return {"name": name, "source": source, "width": width, "height": height}


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals["words"] = words
    environment.filters |= {
        "mathml": mathml,
        "breaking": breaking_mathml,
        "inline": lambda latex: mathml(latex, display="inline"),
        "number": short_number,
        "told_apart": told_apart,
        "theory_words": words.theory_words,
        "no_number": words.no_number,
        "remark": words.remark,
        "came_out": words.came_out,
        "vacuous": words.is_vacuous,
        "group_verdict": words.group_verdict,
        "group_evidence": words.group_evidence,
        "reading_decision": words.reading_decision,
        "reading_constant": words.reading_constant,
        "verdict_class": verdict_class,
        "anchor": anchor,
        "breakable": breakable,
        "prose": prose,
        "formal_files": sources.formal_files,
        "witness": witness_text,
    }
    return environment


def render_page(template: str, **context: Any) -> str:
    """A page from a template of this folder that extends base.html.j2.

    Raises:
        ValueError: the context lacks something that the template shows, or a formula cannot be converted.
    """
    style = Markup((Path(__file__).parent / STYLE).read_text(encoding="utf-8"))
    try:
        return _environment().get_template(template).render(style=style, **context)
    except jinja2.UndefinedError as error:
        raise ValueError(
            f"the data of {template.removesuffix('.j2')} is incomplete ({error.message}); write it again with this "
            "version"
        ) from None


def _pictures(audit: Mapping[str, Any], folder: Path) -> dict[str, dict[str, Any]]:
    """Every figure that the audit names, for the macro `picture`."""
    return {figure["name"]: {**figure, **embedded_picture(folder, figure["name"])} for figure in audit["figures"]}


def _counts(claims: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many claims each choice of the filter shows, and how many rungs were climbed."""
    classes = [verdict_class(claim["verdict"]) for claim in claims]
    return {
        "all": len(claims),
        **{name: classes.count(name) for name in ("proved", "repaired", "refuted")},
        "failed": sum(not claim["passed"] for claim in claims),
        "rungs": sum(len(claim["rungs"]) for claim in claims),
    }


def _worst_rung(claim: Mapping[str, Any]) -> str | None:
    """The rung whose instance is shown: the counterexample, or the one that came closest to breaking the bound."""
    shown = ("witness",) if claim["verdict"] == "refuted" else ("witness", "property", "attack")
    rungs = [rung for rung in claim["rungs"] if rung["rung"] in shown and rung["worst"]]
    return max(rungs, key=lambda rung: float(rung["worst"]["ratio"]))["rung"] if rungs else None


def render(audit: Mapping[str, Any], figures: Path) -> str:
    """The page.

    Args:
        audit: content of audit.json.
        figures: folder with the PNG of every figure that the audit names.

    Raises:
        ValueError: a figure is missing, or a formula cannot be converted.
    """
    claims = audit["claims"]
    anchors = {claim["id"]: anchor(claim["id"]) for claim in claims}
    return render_page(
        TEMPLATE,
        audit=audit,
        figures=_pictures(audit, figures),
        counts=_counts(claims),
        worst_rungs={claim["id"]: _worst_rung(claim) for claim in claims},
        checked=anchors.keys(),
        lacking=table.lacking_claims(audit),
        proofs=_proofs(claims),
        listings=sources.listings(claims),
        graphs={group["id"]: graph.dependency_graph(claims, group["id"], anchors) for group in audit["paper_claims"]},
    )


def _proofs(claims: Sequence[Mapping[str, Any]]) -> dict[str, Markup]:
    """The section of paper_notes.md of every claim that has one."""
    known = notes.sections()
    return {
        claim["id"]: notes.render(known[claim["id"]], f"the proof of {claim['id']}")
        for claim in claims
        if claim["id"] in known
    }


def render_pipeline_audit(audit: Mapping[str, Any], figures: Path) -> str:
    """The page of `framebound audit`.

    Args:
        audit: content of its audit.json.
        figures: folder with the PNG of every figure that the audit names.

    Raises:
        ValueError: a figure is missing.
    """
    return render_page(AUDIT_TEMPLATE, audit=audit, figures=_pictures(audit, figures))


def figure_folder(run: Path) -> Path:
    """Where the figures of a run lie: in its folder `figures`, or beside audit.json, as in the repository."""
    return run / "figures" if (run / "figures").is_dir() else run


def write_report(run: Path, out: Path | None = None) -> tuple[Path, ...]:
    """Write report.html from RUN/audit.json and the figures, and for a run that checked claims report.md and
    claims.csv.

    Args:
        out: the folder to write to, created when missing; None is RUN.

    Returns:
        The paths of what was written, in this order.

    Raises:
        ValueError: there is no audit.json, or it is damaged, or a figure is missing.
    """
    out = run if out is None else out
    source = run / "audit.json"
    again = f"`framebound reproduce --out {run}`"
    if not source.exists():
        raise UserError(f"{source} is missing", remedy=f"write it with {again}")
    audit = read_results(source, PIPELINE_AUDIT)
    # All before any is written, so that a damaged audit leaves the old ones alone.
    figures = figure_folder(run)
    try:
        if audit.get("kind") == PIPELINE_AUDIT:
            contents = {"report.html": render_pipeline_audit(audit, figures)}
        else:
            contents = {
                "report.html": render(audit, figures),
                "report.md": exports.markdown(audit, table.lacking_claims(audit)),
                "claims.csv": exports.claims_csv(audit),
            }
    except (KeyError, TypeError, AttributeError, OverflowError, IndexError) as error:
        raise ValueError(
            f"{source} is no audit.json that this version reads ({type(error).__name__}: {error}); write it again with "
            f"{again}"
        ) from None
    sweep(make_folder(out))
    for name, text in contents.items():
        # Not as text: CSV ends its lines with CR LF on every system.
        write_bytes(out / name, text.encode("utf-8"))
    return tuple(out / name for name in contents)
