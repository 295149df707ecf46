"""Outcomes as JSON: what the store keeps of a climbed ladder, and what audit.json shows of it."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.store import digest_array
from theory.claim import Claim, Outcome, Verdict
from theory.ladder import Rung, RungResult

SMALL_WITNESS = 64
RATIOS_KEPT = 256

BELOW, ABOVE, RECORDED = "below", "above", "recorded"
_EXPECTED = {
    Rung.WITNESS: BELOW,
    Rung.PROPERTY: BELOW,
    Rung.ATTACK: BELOW,
    Rung.NECESSITY: ABOVE,
    Rung.POWER: ABOVE,
    Rung.REALITY: BELOW,
}
_EXPECTED_REFUTED = {
    Rung.WITNESS: ABOVE,
    Rung.PROPERTY: ABOVE,
    Rung.ATTACK: ABOVE,
    Rung.NECESSITY: BELOW,
    Rung.POWER: ABOVE,
    Rung.REALITY: RECORDED,
}


def expected_side(claim: Claim, rung: Rung) -> str:
    """On which side of the bound the outcomes of a rung have to lie to support the claim's verdict."""
    return (_EXPECTED_REFUTED if claim.verdict is Verdict.REFUTED else _EXPECTED)[rung]


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
    if witness:
        result["witness"] = json_witness(outcome.witness)
    return result


def _thin(ratios: np.ndarray) -> list[float]:
    """Order statistics of a batch of ratios, both extremes among them; infinite ratios are left out."""
    finite = np.sort(ratios[np.isfinite(ratios)])
    if finite.size > RATIOS_KEPT:
        finite = finite[np.round(np.linspace(0, finite.size - 1, RATIOS_KEPT)).astype(int)]
    return [float(ratio) for ratio in finite]


def json_rung(claim: Claim, result: RungResult) -> dict[str, Any]:
    """One rung: whether it passed, the deciding outcome with its witness, all outcomes without, ratios for the figure.

    The deciding outcome is the one nearest to contradicting the verdict: the largest ratio where the bound has to hold,
    the smallest where it has to break.
    """
    expected = expected_side(claim, result.rung)
    choose = min if expected == ABOVE else max
    deciding = choose(result.outcomes, key=lambda outcome: outcome.ratio, default=None)
    batch = (
        result.ratios if result.ratios.size else np.array([outcome.ratio for outcome in result.outcomes], dtype=float)
    )
    return {
        "rung": str(result.rung),
        "passed": result.passed,
        "expected": expected,
        "failures": list(result.failures),
        "worst": None if deciding is None else json_outcome(deciding, witness=True),
        "outcomes": [json_outcome(outcome) for outcome in result.outcomes],
        "ratios": _thin(batch),
    }
