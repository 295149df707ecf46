"""What an answer of the audit is, and how its numbers are known."""

from dataclasses import dataclass

from experiments.studies import Number

PROVED = "proved"
CERTIFIED = "certified for this input"
ESTIMATED = "estimated"
MEASURED = "measured"
KINDS = {
    PROVED: "follows from a theorem, for every input that satisfies its hypotheses",
    CERTIFIED: "a bound computed from the recorded values, which holds for these and for no others",
    ESTIMATED: "an extrapolation; nothing guarantees it",
    MEASURED: "read off this run",
}

INVISIBLE = 0.5
"""A pixel error below half a step of 8 bits rounds away."""
USUAL_WEIGHT = 0.01
STILL = "The clip is still: no frame differs from the next by more than half a step of 8 bits."

YES, NO, PARTLY, UNKNOWN = "yes", "no", "partly", "not asked"


@dataclass(frozen=True)
class Answer:
    """One question about the pipeline.

    Attributes:
        id: short name, also the anchor in the report.
        question, answer: a sentence each.
        verdict: "yes", "no", "partly", or "" where the answer is a number.
        numbers: what the answer rests on; `Number.group` is the paper's claim, C1 to C3.
        claims: ids of the theorems.
        details: further sentences.
        mend: what to do, or "".
    """

    id: str
    question: str
    answer: str
    verdict: str
    numbers: tuple[Number, ...]
    claims: tuple[str, ...]
    details: tuple[str, ...] = ()
    mend: str = ""
