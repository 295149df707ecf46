"""report.md for a pull request and claims.csv for a spreadsheet: audit.json once more, for other readers."""

import csv
import html
import io
import re
from collections.abc import Iterator, Mapping
from typing import Any

from experiments.report.numbers import short_number

COLUMNS = (
    "id",
    "group",
    "verdict",
    "tightness",
    "passed",
    "measured",
    "bound",
    "ratio",
    "network_measured",
    "network_bound",
    "network_ratio",
    "file",
    "seed",
)
"""Of claims.csv: one row per claim, numbers in full precision, the seed that of the run."""


# What spreadsheets take for the start of a formula, the full-width forms of it among them.
_FORMULA = tuple("=+-@\t\r＝＋－＠")


def claims_csv(audit: Mapping[str, Any]) -> str:
    """One row per claim as RFC 4180 has it: lines end with CR LF, what holds a comma or a quote is quoted."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for claim in audit["claims"]:
        words = [_cell(claim[name]) for name in ("id", "group", "verdict", "tightness")]
        writer.writerow(
            [
                *words,
                "yes" if claim["passed"] else "no",
                *_numbers(claim["theory"]),
                *_numbers(claim["network"]),
                _cell(claim["file"]),
                audit["settings"]["seed"],
            ]
        )
    return text.getvalue()


def _cell(text: Any) -> Any:
    """A text that no spreadsheet takes for a formula: one that begins like one gets an apostrophe in front."""
    return f"'{text}" if isinstance(text, str) and text.lstrip()[:1] in _FORMULA else text


def _numbers(outcome: Mapping[str, Any] | None) -> list[Any]:
    # Nothing measured is an empty field, which no reader takes for a zero.
    return [None if outcome is None else outcome[name] for name in ("measured", "bound", "ratio")]


def markdown(audit: Mapping[str, Any]) -> str:
    """A comment for a pull request: what failed, then every claim with its numbers, those that failed first."""
    return "\n".join(_lines(audit)) + "\n"


def _lines(audit: Mapping[str, Any]) -> Iterator[str]:
    claims, failures = audit["claims"], audit["failures"]
    supported = sum(claim["passed"] for claim in claims)
    yield f"# framebound: {supported} of {len(claims)} verdicts supported by every check"
    yield ""
    settings, clip = audit["settings"], audit["clip"]
    yield (
        f"Profile {_plain(settings['profile'])}, seed {settings['seed']}, clip {_plain(clip['name'])}, device "
        f"{_plain(audit['device'])}, commit {_plain((audit['commit'] or 'none')[:12])}. Numbers are measured / bound = "
        "ratio."
    )
    if failures:
        yield ""
        yield f"## {len(failures)} failed {'check' if len(failures) == 1 else 'checks'}"
        yield ""
        yield from (f"- {_plain(line)}" for line in failures)
    yield ""
    yield "| Claim | Verdict | In theory | On the real network |"
    yield "| --- | --- | --- | --- |"
    for group in audit["paper_claims"]:
        yield _row(group, f"**{_plain(group['id'])}** {_plain(group['title'])}", _plain(group["verdict"]))
    for claim in sorted(claims, key=lambda claim: claim["passed"]):
        yield _row(claim, _plain(claim["id"]), _plain(f"{claim['verdict']}, {claim['tightness']}"))


def _row(record: Mapping[str, Any], name: str, verdict: str) -> str:
    if not record["passed"]:
        verdict = f"**FAILED** ({verdict})"
    return f"| {name} | {verdict} | {_pair(record['theory'])} | {_pair(record['network'])} |"


def _pair(outcome: Mapping[str, Any] | None) -> str:
    if outcome is None:
        return short_number(None)
    measured, bound, ratio = (short_number(outcome[name]) for name in ("measured", "bound", "ratio"))
    return f"{measured} / {bound} = {ratio}"


def _plain(text: str) -> str:
    """Text that Markdown shows as it is, on one line and within one cell of a table."""
    escaped = re.sub(r"([\\`*_\[\]|#~])", r"\\\1", " ".join(str(text).split()))
    return html.escape(escaped, quote=False)
