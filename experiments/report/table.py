"""The table of verdicts: in the terminal, and in README.md between two markers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import theory
from experiments.errors import UserError
from experiments.files import write_text
from experiments.report import audit as auditing
from experiments.report.page import PIPELINE_AUDIT
from experiments.report.schema import read_results
from experiments.report.outcomes import json_rung
from experiments.report.numbers import short_number
from theory import ladder

BEGIN, END = "<!-- verdicts: begin -->", "<!-- verdicts: end -->"


def list_claims() -> list[dict[str, Any]]:
    """Every claim: what it says, its verdict, and where it is checked."""
    return [auditing.describe_claim(claim) for claim in theory.CLAIMS]


def check_claim(claim_id: str, seed: int) -> dict[str, Any]:
    """One claim's ladder without the real network.

    Raises:
        ValueError: an unknown id; the message lists the ids that exist.
    """
    claim = theory.find_claim(claim_id)
    return auditing.claim_record(claim, [json_rung(claim, result) for result in ladder.verify(claim, seed=seed)])


def _pair(outcome: Mapping[str, Any] | None) -> str:
    return "–" if outcome is None else f"{short_number(outcome['measured'])} / {short_number(outcome['bound'])}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def verdict_table(audit: Mapping[str, Any] | None) -> str:
    """The table in Markdown, from the claims and, where there are, the numbers of a run.

    Args:
        audit: content of an audit.json; None leaves the numbers out.
    """
    measured = {record["id"]: record for record in (audit or {"claims": ()})["claims"]}
    groups = {record["id"]: record for record in (audit or {"paper_claims": ()})["paper_claims"]}
    rows = list_claims()
    lines = [
        "| Claim | Verdict | What it says | In theory | On the real network | Checked in |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for group, title in theory.PAPER_CLAIMS.items():
        members = [row for row in rows if row["group"] == group]
        if not members:
            continue
        verdict = auditing.group_verdict([row["verdict"] for row in members])
        record = groups.get(group, {})
        theory_pair, network_pair = _pair(record.get("theory")), _pair(record.get("network"))
        lines.append(
            f"| **{group}** | **{verdict}** | {_cell(title)} | {theory_pair} | {network_pair} | "
            "[paper_notes.md](paper_notes.md) |"
        )
        for row in members:
            record = measured.get(row["id"], {})
            figure = f" ([figure](figures/claim_{row['id']}.png))" if row["id"] in measured else ""
            lines.append(
                f"| {row['id']} | {row['verdict']}, {row['tightness']} | {_cell(row['title'])}{figure} | "
                f"{_pair(record.get('theory'))} | {_pair(record.get('network'))} | "
                f"[{Path(row['file']).name}]({row['file']}) |"
            )
    return "\n".join(lines) + "\n"


def readme_with_table(text: str, audit: Mapping[str, Any] | None) -> str:
    """README's text with the section between the two markers replaced.

    Raises:
        ValueError: the markers are not there, once each and in order.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(
            f"README needs the markers {BEGIN} and {END}, once each and in this order; put them where the table belongs"
        )
    head, rest = text.split(BEGIN)
    _, tail = rest.split(END)
    return f"{head}{BEGIN}\n{verdict_table(audit)}{END}{tail}"


def read_audit(path: Path) -> dict[str, Any] | None:
    """The content of an audit.json, or None where there is none.

    Raises:
        ValueError: it is no audit.json.
    """
    if not path.exists():
        return None
    audit = read_results(path, PIPELINE_AUDIT)
    if "paper_claims" not in audit:
        raise UserError(
            f"{path} is that of `framebound audit` and holds no claims", remedy="write one with `framebound reproduce`"
        )
    return audit


def update_readme(readme: Path, audit: Path) -> bool:
    """Rewrite the table in README.md.

    Returns:
        Whether the file changed.

    Raises:
        ValueError: no README, no markers, or a damaged audit.json.
    """
    if not readme.is_file():
        raise ValueError(f"{readme} is not in the current folder; run this in the folder of the repository")
    before = readme.read_text(encoding="utf-8")
    after = readme_with_table(before, read_audit(audit))
    if after == before:
        return False
    write_text(readme, after)
    return True
