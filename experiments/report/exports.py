"""report.md for a pull request and claims.csv for a spreadsheet: audit.json once more, for other readers."""

import csv
import html
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from experiments.report import words

EVIDENCE = ("question", "origin", "tells", "expected", "passed", "measured", "bound", "ratio")
"""What a row says of the comparison that is quoted of the network's evidence, and of the other evidence."""
COLUMNS = (
    "id",
    "group",
    "verdict",
    "tightness",
    "assurance",
    "passed",
    "measured",
    "bound",
    "ratio",
    *(f"network_{name}" for name in EVIDENCE),
    "no_network",
    *(f"elsewhere_{name}" for name in EVIDENCE),
    "identities",
    "group_checked",
    "group_needed",
    "group_verdict",
    "file",
    "seed",
)
"""Of claims.csv: one row per claim, numbers in full precision, the seed that of the run."""


# What spreadsheets take for the start of a formula, the full-width forms of it among them.
_FORMULA = tuple("=+-@\t\r＝＋－＠")


def claims_csv(audit: Mapping[str, Any]) -> str:
    """One row per claim as RFC 4180 has it: lines end with CR LF, what holds a comma or a quote is quoted.

    The verdict on the paper's claim stands in each row of its group; it is empty where only a part of it was checked.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    groups = {group["id"]: group for group in audit["paper_claims"]}
    for claim in audit["claims"]:
        group = groups[claim["group"]]
        identities = sum(entry["tells"] == "identity" for entry in claim["comparisons"] or ())
        row = [
            *(claim[name] for name in ("id", "group", "verdict", "tightness", "assurance")),
            _yes(claim["passed"]),
            *_numbers(claim["theory"]),
            *_evidence(claim["network"]),
            claim["no_network"],
            *_evidence(claim["elsewhere"]),
            identities,
            group["checked"],
            group["needed"],
            group["verdict"],
            claim["file"],
            audit["settings"]["seed"],
        ]
        writer.writerow([_cell(cell) for cell in row])
    return text.getvalue()


def _yes(passed: bool) -> str:
    return "yes" if passed else "no"


def _cell(text: Any) -> Any:
    """A text that no spreadsheet takes for a formula: one that begins like one gets an apostrophe in front."""
    return f"'{text}" if isinstance(text, str) and text.lstrip()[:1] in _FORMULA else text


def _numbers(outcome: Mapping[str, Any] | None) -> list[Any]:
    # Nothing measured is an empty field, which no reader takes for a zero.
    return [None if outcome is None else outcome[name] for name in ("measured", "bound", "ratio")]


def _evidence(number: Mapping[str, Any] | None) -> list[Any]:
    if number is None:
        return [None] * len(EVIDENCE)
    return [_yes(number[name]) if name == "passed" else number[name] for name in EVIDENCE]


def markdown(audit: Mapping[str, Any], lacking: Sequence[str] = ()) -> str:
    """Write a comment for a pull request: what failed, the paper's claims, then every claim, those that failed first.

    Args:
        lacking: ids of the claims that this version has and the run did not check.
    """
    return "\n".join(_lines(audit, lacking)) + "\n"


def _lines(audit: Mapping[str, Any], lacking: Sequence[str]) -> Iterator[str]:
    claims, failures = audit["claims"], audit["failures"]
    supported = sum(claim["passed"] for claim in claims)
    yield f"# framebound: {supported} of {len(claims)} statements supported by every check"
    yield ""
    settings, clip = audit["settings"], audit["clip"]
    yield (
        f"Profile {_plain(settings['profile'])}, seed {settings['seed']}, clip {_plain(clip['name'])}, device "
        f"{_plain(audit['device'])}, commit {_plain((audit['commit'] or 'none')[:12])}. Numbers are measured / bound."
    )
    if lacking:
        yield ""
        yield f"Not checked in this run: {', '.join(map(_plain, lacking))}."
    if failures:
        yield ""
        yield f"## {len(failures)} failed {'check' if len(failures) == 1 else 'checks'}"
        yield ""
        yield from (f"- {_plain(line)}" for line in failures)
    yield ""
    yield "## The paper's claims, reading by reading"
    yield ""
    yield "| Claim | Verdict | Reading | Decision | Constant or counterexample |"
    yield "| --- | --- | --- | --- | --- |"
    for group in audit["paper_claims"]:
        verdict = words.group_verdict(group) + ("" if group["passed"] else " (a check FAILED)")
        yield _row(f"**{group['id']}** {_plain(group['title'])}", _plain(verdict), "", "", "")
        for reading in group["readings"]:
            shown = (reading["name"], words.reading_decision(reading), words.reading_constant(reading))
            yield _row("", "", *map(_plain, shown))
    yield ""
    yield "## Every statement"
    yield ""
    yield f"| Claim | Verdict | In theory | {words.ON_NETWORK} | {words.ELSEWHERE} |"
    yield "| --- | --- | --- | --- | --- |"
    for claim in sorted(claims, key=lambda claim: claim["passed"]):
        verdict = _plain(f"{claim['verdict']}, {claim['tightness']}")
        evidence = (words.evidence_words(claim, column) for column in ("network", "elsewhere"))
        cells = map(_plain, (words.theory_words(claim), *evidence))
        yield _row(_plain(claim["id"]), verdict if claim["passed"] else f"**FAILED** ({verdict})", *cells)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(text: str) -> str:
    """Text that Markdown shows as it is, on one line and within one cell of a table."""
    escaped = re.sub(r"([\\`*_\[\]|#~])", r"\\\1", " ".join(str(text).split()))
    return html.escape(escaped, quote=False)
