"""What the commands print for people: tables and sections for a terminal, from the same words as the page."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from experiments.report import words
from experiments.report.numbers import apart, ratio_words, short_number


def summary(audit: Mapping[str, Any], lacking: Sequence[str] = ()) -> Group:
    """What a run decided: the paper's claims reading by reading, then every statement with its numbers.

    Args:
        lacking: ids of the claims that this version has and the run did not check.
    """
    parts: list[Any] = [_readings(audit), _statements(audit)]
    if lacking:
        parts.append(Text(f"Not checked in this run: {', '.join(lacking)}"))
    if audit.get("adapter_effect"):
        parts.append(Text(f"Did the adapter help on this clip? {audit['adapter_effect']}"))
    return Group(*parts)


def _readings(audit: Mapping[str, Any]) -> Table:
    table = Table(title="The paper's claims, in readings of ours", title_justify="left")
    table.add_column("claim", no_wrap=True)
    for column in ("verdict, or reading", "decision"):
        table.add_column(column)
    for group in audit["paper_claims"]:
        passed = Text("") if group["passed"] else Text("a check FAILED")
        table.add_row(group["id"], Text(words.group_verdict(group)), passed, style="bold")
        for reading in group["readings"]:
            table.add_row("", Text(f"  {reading['name']}"), Text(words.reading_decision(reading)))
        table.add_section()
    return table


def _statements(audit: Mapping[str, Any]) -> Table:
    table = Table(title="measured / bound", title_justify="left")
    table.add_column("claim", no_wrap=True)
    for column in ("verdict", "in theory", words.ON_NETWORK.lower(), words.ELSEWHERE.lower(), "passed"):
        table.add_column(column)
    for record in audit["claims"]:
        evidence = (words.evidence_words(record, column) for column in ("network", "elsewhere"))
        cells = (record["verdict"], words.theory_words(record), *evidence, "yes" if record["passed"] else "NO")
        table.add_row(record["id"], *map(Text, cells))
    return table


def claims_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Every claim and its verdict."""
    table = Table()
    table.add_column("claim", no_wrap=True)
    table.add_column("verdict")
    table.add_column("bound", no_wrap=True)
    table.add_column("what is shown")
    table.add_column("file", overflow="fold")
    group = None
    for row in rows:
        if group not in (None, row["group"]):
            table.add_section()
        group = row["group"]
        table.add_row(*map(Text, (row["id"], row["verdict"], row["tightness"], row["title"], row["file"])))
    return table


def ladder(record: Mapping[str, Any]) -> Group:
    """One climbed ladder; where a rung failed with the digits in which its numbers differ, and why."""
    title = Text(f"{record['id']}: {record['title']} ({record['verdict']}, {record['tightness']})")
    table = Table(title=title, title_justify="left")
    left = ("rung", "passed", "it asks", "deciding instance")
    for column in (*left, "measured", "bound", "ratio", "budget"):
        table.add_column(column, justify="left" if column in left else "right")
    for rung in record["rungs"]:
        worst = rung["worst"]
        numbers = ("nothing compared", "", "", "") if worst is None else _rung_numbers(worst, rung["passed"])
        label = "" if worst is None else worst["label"]
        table.add_row(*map(Text, (rung["rung"], "yes" if rung["passed"] else "NO", rung["requires"], label, *numbers)))
    parts: list[Any] = [table]
    parts += [Text(f"failed: {line}") for line in record["failures"]]
    parts += [Text(f"lacking: {line}") for line in record["lacks"]]
    return Group(*parts)


def _rung_numbers(worst: Mapping[str, Any], passed: bool) -> tuple[str, str, str, str]:
    measured, bound, ratio, budget = (worst[name] for name in ("measured", "bound", "ratio", "budget"))
    if passed:
        return short_number(measured), short_number(bound), short_number(ratio), short_number(budget)
    return (*apart(measured, bound), ratio_words(ratio), short_number(budget))


def explanation(claim: Mapping[str, Any]) -> str:
    """Statement, hypotheses, proof and where the check is, as plain text."""
    return "\n".join(_explanation_lines(claim)) + "\n"


def _explanation_lines(claim: Mapping[str, Any]) -> list[str]:
    lines = [f"{claim['id']}: {claim['title']}", f"{claim['verdict']}, {claim['tightness']}; {claim['origin']}"]
    if claim["sharpness"]:
        lines.append(f"sharp: {claim['sharpness']}")
    lines += ["", "STATEMENT", claim["statement"], "", f"    {claim['latex']}", "", "HYPOTHESES"]
    for hypothesis in claim["hypotheses"]:
        reason = claim["definitional"].get(hypothesis["id"])
        lines.append(
            f"{hypothesis['id']}  {hypothesis['text']}" + (f" (no instance can leave it: {reason})" if reason else "")
        )
    unsaid = "not said in words yet"
    lines += ["", f"measured: {claim['measured_in_words'] or unsaid}", f"bound:    {claim['bound_in_words'] or unsaid}"]
    if claim["no_network"]:
        lines.append(f"network:  {claim['no_network']}")
    lines += ["", "WHAT IT DECIDES"]
    lines += [f"{entry['group']} {entry['name']}: {entry['decision']}. {entry['text']}" for entry in claim["readings"]]
    if not claim["readings"]:
        lines.append("no reading of the paper's claims by itself")
    lines += ["", "WHAT IT RESTS ON", f"assurance: {claim['assurance']}"]
    lines += [claim[name] for name in ("formal", "enclosure") if claim[name]]
    for name, values in (("claims", claim["relies_on"]), ("lemmas", claim["lemmas"]), ("used by", claim["needed_by"])):
        lines.append(f"{name}: {'; '.join(values) or 'none named'}")
    lines += ["", f"PROOF (paper_notes.md, section {claim['id']})"]
    lines.append(claim["proof"] or "This version has no section of that id in paper_notes.md.")
    lines += [
        "",
        "WHERE IT IS CHECKED",
        f"theorem: {claim['file']}",
        f"check:   {claim['check']}",
        f"test:    {claim['test']}",
    ]
    if claim["own_test"]:
        lines.append(f"         pytest {claim['own_test']}")
    return lines
