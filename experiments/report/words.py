"""What the report calls things, once for page, Markdown, terminal and README."""

from collections.abc import Mapping
from typing import Any

from experiments.report.numbers import apart, short_number
from theory.claim import Expected, Origin, Tells, Verdict

VACUOUS = 1e-3
"""A recorded quantity below this share of its bound is bounded in name only."""
ORIGINS = {
    Origin.NETWORK: "real network",
    Origin.CLIP: "exact score on the clip, no network",
    Origin.CONSTRUCTED: "constructed",
}
"""What the numbers of a comparison were taken from."""
ON_NETWORK, ELSEWHERE = "On the real network", "Other evidence"
"""The two columns of evidence; a number in the second says what it was taken from. An identity stands in neither."""
NOT_RUN = "not run"


def is_vacuous(number: Mapping[str, Any]) -> bool:
    """Whether a bound that is meant to hold lies so far above the recorded quantity that it says nothing about it."""
    return number["expected"] == Expected.HOLDS and float(number["ratio"]) < VACUOUS


def pair(number: Mapping[str, Any] | None) -> str:
    """measured / bound, with as many digits as tell the two apart where the bound is broken."""
    if number is None:
        return NOT_RUN
    measured, bound = number["measured"], number["bound"]
    broken = measured > bound * (1 + number["budget"])
    return " / ".join(apart(measured, bound) if broken else (short_number(measured), short_number(bound)))


def theory_words(record: Mapping[str, Any]) -> str:
    """The column "In theory" of a claim."""
    number = record.get("theory")
    if number is None:
        return NOT_RUN
    if record["verdict"] == Verdict.REFUTED:
        return f"every drawn member of a family breaks it, by a factor of at least {short_number(number['ratio'])}"
    return pair(number)


def came_out(number: Mapping[str, Any]) -> str:
    """How a comparison with evidence came out, beside how it was declared to."""
    violated = number["expected"] == Expected.VIOLATED
    if number["passed"]:
        return "violated, as declared" if violated else "holds"
    if number["tells"] == Tells.TEST:
        return "came out otherwise: declared violated, and holds" if violated else "came out otherwise: violated"
    return "FAILED: declared violated, and holds" if violated else "FAILED: violated"


def remark(number: Mapping[str, Any]) -> str:
    """What a quoted comparison can tell, and how it came out."""
    origin = "" if number["origin"] == Origin.NETWORK else f"{ORIGINS[Origin(number['origin'])]}, "
    return f"{origin}{number['tells']}, {came_out(number)}" + (", vacuous" if is_vacuous(number) else "")


def no_number(record: Mapping[str, Any], column: str) -> str:
    """Why a column of evidence ("network", "elsewhere") holds no number for a claim."""
    comparisons = record.get("comparisons")
    if column == "network" and record.get("no_network"):
        return record["no_network"]
    if comparisons is None:
        return NOT_RUN
    own = [entry for entry in comparisons if (entry["origin"] == Origin.NETWORK) == (column == "network")]
    if own and all(entry["tells"] == Tells.IDENTITY for entry in own):
        return "an identity only, which any recorded numbers satisfy: no evidence"
    return "nothing was asked"


def evidence_words(record: Mapping[str, Any], column: str) -> str:
    """A column of evidence of a claim: numbers, what they can tell and how they came out; or why there are none."""
    number = record.get(column)
    return no_number(record, column) if number is None else f"{pair(number)} ({remark(number)})"


def group_verdict(group: Mapping[str, Any]) -> str:
    """The verdict on one of the paper's claims, or how much of what decides it a run has checked."""
    if group["verdict"] is None:
        return f"no verdict: {group['checked']} of {group['needed']} deciding theorems checked"
    return group["verdict"]


def group_evidence(group: Mapping[str, Any]) -> str:
    """How many comparisons with the network the claims of a group make, and how they came out."""
    parts = [
        f"{count['passed']} of {count['asked']} {name}"
        for name, words in (("tests", Tells.TEST), ("implied", Tells.IMPLIED))
        if (count := group["network"][words])["asked"]
    ]
    return f"{', '.join(parts)} as declared" if parts else "nothing that could tell"


def reading_constant(reading: Mapping[str, Any]) -> str:
    """With which constant a reading holds, or how it fails; nothing where this run decides nothing about it."""
    return reading["constant"] if reading["complete"] else ""


def reading_decision(reading: Mapping[str, Any]) -> str:
    """The decision on a reading, or why this run has none."""
    if not reading["complete"]:
        return f"no decision: {len(reading['checked'])} of {len(reading['decided_by'])} theorems checked"
    return reading["decision"] if reading["passed"] else f"{reading['decision']} (a check FAILED)"
