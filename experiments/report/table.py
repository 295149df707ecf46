"""The table of verdicts: in README.md between two markers; and what `framebound claims` lists, checks and explains."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import theory
from experiments.errors import UserError
from experiments.files import write_text
from experiments.report import audit as auditing
from experiments.report import notes, words
from experiments.report.schema import PIPELINE_AUDIT, read_results
from experiments.report.outcomes import json_rung
from theory import ladder
from theory.claim import unfinished
from theory.readings import PAPER, headline

BEGIN, END = "<!-- verdicts: begin -->", "<!-- verdicts: end -->"


def list_claims() -> list[dict[str, Any]]:
    """Every claim: what it says, its verdict, and where it is checked."""
    return [auditing.describe_claim(claim) for claim in theory.CLAIMS]


def lacking_claims(audit: Mapping[str, Any]) -> list[str]:
    """Ids of the claims that this version has and a stored run did not check."""
    checked = {record["id"] for record in audit["claims"]}
    return [claim.id for claim in theory.CLAIMS if claim.id not in checked]


def check_claim(claim_id: str, seed: int) -> dict[str, Any]:
    """One claim's ladder without the real network, and what the claim still lacks (`lacks`).

    Raises:
        ValueError: an unknown id; the message lists the ids that exist.
    """
    claim = theory.find_claim(claim_id)
    record = auditing.claim_record(claim, [json_rung(claim, result) for result in ladder.verify(claim, seed=seed)])
    return {**record, "lacks": [*unfinished(claim), *notes.complaints([claim])]}


def explain_claim(claim_id: str) -> dict[str, Any]:
    """Collect what is known of a claim without computing anything: statement, hypotheses, proof, where it is checked.

    Raises:
        ValueError: an unknown id; the message lists the ids that exist.
    """
    claim = theory.find_claim(claim_id)
    readings = [
        {"group": group, "name": reading.name, "text": reading.text, "decision": str(reading.decision)}
        for group, paper in PAPER.items()
        for reading in paper.readings
        if claim_id in reading.decided_by
    ]
    return {
        **auditing.describe_claim(claim),
        "readings": readings,
        "needed_by": [other.id for other in theory.CLAIMS if claim_id in other.relies_on],
        "proof": notes.sections().get(claim_id),
        "check": f"framebound claims --check {claim_id}",
    }


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def verdict_table(audit: Mapping[str, Any] | None) -> str:
    """Two tables in Markdown, the paper's claims reading by reading and every theorem, with the numbers of a run.

    Args:
        audit: content of an audit.json; None leaves the numbers out.
    """
    return "\n".join([*_paper_rows(audit), "", *_theorem_rows(audit)]) + "\n"


def _paper_rows(audit: Mapping[str, Any] | None) -> Iterator[str]:
    links = {claim["id"]: f"[{claim['id']}]({claim['file']})" for claim in list_claims()}
    groups = {group["id"]: group for group in (audit or {"paper_claims": ()})["paper_claims"]}
    yield "| The paper's claim, in a reading of ours | Decision | With which constant, or how it fails | Decided by |"
    yield "| --- | --- | --- | --- |"
    for group, paper in PAPER.items():
        evidence = f"on the network: {words.group_evidence(groups[group])}" if group in groups else ""
        yield f"| **{group}** {_cell(paper.title)} | **{headline(paper.readings)}** | {evidence} | |"
        for reading in paper.readings:
            names = ", ".join(links[name] for name in reading.decided_by)
            yield f"| {_cell(reading.name)} | {reading.decision} | {_cell(reading.constant)} | {names} |"


def _theorem_rows(audit: Mapping[str, Any] | None) -> Iterator[str]:
    measured = {record["id"]: record for record in (audit or {"claims": ()})["claims"]}
    yield f"| Claim | Verdict | What is shown | In theory | {words.ON_NETWORK} | {words.ELSEWHERE} | Checked in |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for row in list_claims():
        # Without a run a claim still says why it asks nothing of the network.
        record = measured.get(row["id"], {**row, "theory": None, "comparisons": None})
        figure = f" ([figure](figures/claim_{row['id']}.png))" if row["id"] in measured else ""
        cells = (
            words.theory_words(record),
            words.evidence_words(record, "network"),
            words.evidence_words(record, "elsewhere"),
        )
        yield (
            f"| {row['id']} | {row['verdict']}, {row['tightness']} | {_cell(row['title'])}{figure} | "
            f"{' | '.join(map(_cell, cells))} | [{Path(row['file']).name}]({row['file']}) |"
        )


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
        ValueError: it is no audit.json, or one that another version wrote.
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
