"""Outcomes as JSON: what the store keeps of a climbed ladder, and what audit.json shows of it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.store import digest_array
from theory.claim import Claim, Comparison, Outcome, Tightness, Verdict
from theory.ladder import Rung, RungResult

SMALL_WITNESS = 64
RATIOS_KEPT = 256

BELOW, ABOVE, DECLARED = "below", "above", "declared"
_EXPECTED = {
    Rung.WITNESS: BELOW,
    Rung.PROPERTY: BELOW,
    Rung.ATTACK: BELOW,
    Rung.NECESSITY: ABOVE,
    Rung.POWER: ABOVE,
    Rung.REALITY: DECLARED,
}
_EXPECTED_REFUTED = {
    Rung.WITNESS: ABOVE,
    Rung.PROPERTY: ABOVE,
    Rung.ATTACK: ABOVE,
    Rung.NECESSITY: BELOW,
    Rung.POWER: ABOVE,
    Rung.REALITY: DECLARED,
}


def expected_side(claim: Claim, rung: Rung) -> str:
    """On which side of the bound a rung's outcomes have to lie; on the last one each comparison declares it."""
    return (_EXPECTED_REFUTED if claim.verdict is Verdict.REFUTED else _EXPECTED)[rung]


def requirement(claim: Claim, rung: Rung) -> str:
    """What the rung asks of its ratios, in words; "the budget" is the rounding that each comparison is granted."""
    side = expected_side(claim, rung)
    if side == ABOVE:
        return "every ratio above 1 + budget"
    if side == DECLARED:
        return "every comparison comes out as declared"
    everywhere = all(claim.is_sharp(size) for size in claim.problem.sizes)
    if claim.tightness is Tightness.IDENTITY and rung is Rung.PROPERTY:
        return "every ratio 1 within the budget"
    if rung is Rung.WITNESS and claim.tightness in (Tightness.IDENTITY, Tightness.ATTAINED):
        return "ratio 1 within the budget" + (
            "" if everywhere else " where the bound is sharp, elsewhere at most 1 + budget"
        )
    if claim.floor and (rung is Rung.ATTACK or rung is Rung.WITNESS and claim.tightness is Tightness.APPROACHED):
        return f"at most 1 + budget, and at least {claim.floor:g}" + ("" if everywhere else " where the bound is sharp")
    return "every ratio at most 1 + budget"


def json_number(value: float) -> float | str:
    """A JSON number, or "infinity", which JSON cannot write: the ratio where only the bound vanishes."""
    return float(value) if math.isfinite(value) else "infinity"


def json_witness(witness: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Nested lists where an array is small, otherwise its shape, dtype and digest."""
    result = {}
    for name, value in witness.items():
        array = np.asarray(value)
        if array.size <= SMALL_WITNESS and np.all(np.isfinite(array)):
            result[name] = array.tolist()
        else:
            result[name] = {"shape": list(array.shape), "dtype": str(array.dtype), "sha256": digest_array(array)}
    return result


def json_outcome(outcome: Outcome, *, witness: bool = False) -> dict[str, Any]:
    """The fields of an outcome, and its ratio."""
    result = {
        "label": outcome.label,
        "measured": outcome.measured,
        "bound": outcome.bound,
        "ratio": json_number(outcome.ratio),
        "budget": outcome.budget,
        "seed": outcome.seed,
    }
    for name in ("question", "origin", "tells", "expected"):
        if getattr(outcome, name) is not None:
            result[name] = str(getattr(outcome, name))
    if witness:
        result["witness"] = json_witness(outcome.witness)
    return result


def _thin(ratios: np.ndarray) -> list[float]:
    """Order statistics of a batch of ratios, both extremes among them; infinite ratios are left out."""
    finite = np.sort(ratios[np.isfinite(ratios)])
    if finite.size > RATIOS_KEPT:
        finite = finite[np.round(np.linspace(0, finite.size - 1, RATIOS_KEPT)).astype(int)]
    return [float(ratio) for ratio in finite]


def _stamp(outcome: Outcome | Comparison) -> tuple:
    return (outcome.question, outcome.origin, outcome.tells, outcome.expected)


def json_comparisons(claim: Claim, outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """What each question to the evidence was answered: its words, whether it came out as declared, and its outcomes.

    `worst` is the outcome of the largest ratio: the nearest to breaking the inequality, or the one that breaks it most.
    """
    found = []
    for comparison in claim.reality:
        own = [outcome for outcome in outcomes if _stamp(outcome) == _stamp(comparison)]
        if not own:
            continue
        found.append(
            {
                "question": comparison.question,
                "origin": str(comparison.origin),
                "tells": str(comparison.tells),
                "expected": str(comparison.expected),
                "because": comparison.because,
                "passed": not comparison.failures(own),
                "broken": sum(not outcome.holds for outcome in own),
                "worst": json_outcome(max(own, key=lambda outcome: outcome.ratio)),
                "outcomes": [json_outcome(outcome) for outcome in own],
            }
        )
    return found


def json_rung(claim: Claim, result: RungResult) -> dict[str, Any]:
    """One rung: whether it passed, the deciding outcome with its witness, all outcomes without, ratios for the figure.

    The deciding outcome is the one nearest to contradicting the verdict: the largest ratio where the bound has to hold,
    the smallest where it has to break. The last rung has none, as it asks several questions: it lists them as
    `comparisons`.
    """
    expected = expected_side(claim, result.rung)
    choose = min if expected == ABOVE else max
    reality = result.rung is Rung.REALITY
    deciding = None if reality else choose(result.outcomes, key=lambda outcome: outcome.ratio, default=None)
    batch = (
        result.ratios if result.ratios.size else np.array([outcome.ratio for outcome in result.outcomes], dtype=float)
    )
    return {
        "rung": str(result.rung),
        "passed": result.passed,
        "expected": expected,
        "requires": requirement(claim, result.rung),
        "failures": list(result.failures),
        "worst": None if deciding is None else json_outcome(deciding, witness=True),
        "outcomes": [] if reality else [json_outcome(outcome) for outcome in result.outcomes],
        "ratios": [] if reality else _thin(batch),
        **({"comparisons": json_comparisons(claim, result.outcomes)} if reality else {}),
    }
