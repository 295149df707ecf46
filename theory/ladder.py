"""The ladder: six rungs on which every claim is checked, the same code for the tests, the command line and the report.

For a true statement                                  For a refuted one
1 witness    the extremal instance attains the bound  the counterexample breaks it
2 property   no random instance breaks it             every member of the family of counterexamples breaks it
3 attack     the search stays below 1, above a floor  the search finds a counterexample by itself
4 necessity  without a hypothesis the bound breaks    with the missing hypothesis restored the search comes out empty
5 power      a planted false bound is rejected        a planted false repair is rejected
6 reality    every question put to recorded evidence   the same
             is answered as the claim declares

Rungs 1, 3 and 5 are climbed at every size of the family. Rung 6 says of each comparison what its numbers were taken from and what it can
tell; `notice` replaces the evidence by scrambled evidence, which every comparison that calls itself a test has to notice.
"""

import dataclasses
import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from theory import search
from theory.claim import (
    SHARP,
    Claim,
    Comparison,
    Instance,
    Outcome,
    Plant,
    Problem,
    Size,
    Tells,
    Tightness,
    Verdict,
    _witness_outcomes,
    membership_residual,
    search_all,
    worst,
)
from theory.evidence import Evidence

SHARPNESS_PLANT = 0.98


class Rung(enum.StrEnum):
    WITNESS = "witness"
    PROPERTY = "property"
    ATTACK = "attack"
    NECESSITY = "necessity"
    POWER = "power"
    REALITY = "reality"


@dataclasses.dataclass(frozen=True)
class RungResult:
    """What one rung found.

    Attributes:
        rung: which one.
        passed: whether it supports the claim's verdict.
        outcomes: the comparisons made, the worst of each size or family.
        failures: one line for each outcome that does not support the verdict.
        ratios: every ratio of a random batch or of the starts of a search, for the figures; empty where there is no batch.
    """

    rung: Rung
    passed: bool
    outcomes: tuple[Outcome, ...]
    failures: tuple[str, ...] = ()
    ratios: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0), repr=False)


def _ratios(measured: np.ndarray, bound: np.ndarray) -> np.ndarray:
    return np.divide(measured, bound, out=np.where(measured == 0, 0.0, np.inf), where=bound != 0)


def batch(problem: Problem, size: search.Size, seed: int) -> tuple[Outcome, Outcome, np.ndarray]:
    """Random instances: the largest ratio, the smallest ratio, and all of them."""
    parameters = search.draw(problem, size, seed, search.BATCH)
    ratios = _ratios(*search.evaluate(problem, size, parameters))
    high, low = (
        search.select(problem, size, parameters, int(pick(ratios)), "random", seed) for pick in (np.argmax, np.argmin)
    )
    return high, low, ratios


def _describe(outcome: Outcome) -> str:
    return (
        f"{outcome.label}: measured {outcome.measured:.9g}, bound {outcome.bound:.9g}, "
        f"ratio - 1 = {outcome.ratio - 1:.3g}, budget {outcome.budget:.3g}, seed {outcome.seed}"
    )


def _judge(
    rung: Rung, outcomes: Sequence[Outcome], supports: Callable[[Outcome], bool], ratios: np.ndarray | None = None
) -> RungResult:
    failures = tuple(_describe(outcome) for outcome in outcomes if not supports(outcome))
    return RungResult(rung, not failures, tuple(outcomes), failures, np.empty(0) if ratios is None else ratios)


def _breaks(outcome: Outcome) -> bool:
    return not outcome.holds


def run_witness(claim: Claim) -> RungResult:
    def supports(size: Size, outcome: Outcome) -> bool:
        if claim.verdict is Verdict.REFUTED:
            return not outcome.holds
        if not claim.is_sharp(size):
            return outcome.holds
        if claim.tightness is Tightness.APPROACHED:
            return outcome.holds and outcome.ratio >= claim.floor
        return outcome.attains

    outcomes = _witness_outcomes(claim)
    failures = [
        _describe(outcome) for size, outcome in zip(claim.problem.sizes, outcomes, strict=True) if not supports(size, outcome)
    ]
    for size in claim.problem.sizes if claim.witness_parameters else ():
        residual, budget = membership_residual(claim, size), claim.problem.budget(size)
        if residual > budget:
            failures.append(f"witness at {dict(size)} is no member of the family: residual {residual:.3g}, budget {budget:.3g}")
    return RungResult(Rung.WITNESS, not failures, outcomes, tuple(failures))


def run_property(claim: Claim, seed: int = 0) -> RungResult:
    problem = claim.counterexamples or claim.problem
    batches = [batch(problem, size, seed) for size in problem.sizes]
    if claim.verdict is Verdict.REFUTED:
        outcomes, supports = [low for _, low, _ in batches], _breaks
    elif claim.tightness is Tightness.IDENTITY:
        outcomes, supports = [end for high, low, _ in batches for end in (high, low)], Outcome.attains.fget
    else:
        outcomes, supports = [high for high, _, _ in batches], Outcome.holds.fget
    return _judge(Rung.PROPERTY, outcomes, supports, np.concatenate([ratios for _, _, ratios in batches]))


def run_attack(claim: Claim, seed: int = 0) -> RungResult:
    outcomes, ratios = search_all(claim.problem, seed)

    def supports(size: Size, outcome: Outcome) -> bool:
        if claim.verdict is Verdict.REFUTED:
            return not outcome.holds
        return outcome.holds and outcome.ratio >= (claim.floor if claim.is_sharp(size) else 0.0)

    failures = tuple(
        _describe(outcome) for size, outcome in zip(claim.problem.sizes, outcomes, strict=True) if not supports(size, outcome)
    )
    return RungResult(Rung.ATTACK, not failures, outcomes, failures, ratios)


def run_necessity(claim: Claim, seed: int = 0) -> RungResult:
    if claim.verdict is Verdict.REFUTED:
        outcomes, ratios = search_all(claim.repaired, seed)
        return _judge(Rung.NECESSITY, outcomes, Outcome.holds.fget, ratios)
    outcomes = [dataclasses.replace(build(), label=name) for name, build in claim.necessity.items()]
    return _judge(Rung.NECESSITY, outcomes, _breaks)


def planted_bounds(claim: Claim) -> dict[str, Plant]:
    """The claim's own plants, and for a sharp bound 0.98 of it where it is sharp."""
    honest = (claim.repaired or claim.problem).bound
    planted = claim.plants
    if claim.tightness in SHARP:
        planted[f"bound x {SHARPNESS_PLANT}"] = Plant(lambda instance: SHARPNESS_PLANT * honest(instance), claim.sharp_for)
    return planted


def _with_bound(outcome: Outcome, bound: Callable[[Instance], Any]) -> Outcome:
    instance = {name: jnp.asarray(value) for name, value in outcome.witness.items()}
    return dataclasses.replace(outcome, bound=float(jax.jit(bound)(instance)))


def _worst_of_batch(problem: Problem, size: search.Size, planted: Callable[[Instance], Any], seed: int) -> Outcome:
    """Of the batch that the property rung draws, the instance that speaks loudest against a planted bound."""
    parameters = search.draw(problem, size, seed, search.BATCH)
    measured, _ = search.evaluate(problem, size, parameters)
    bounds = jax.jit(jax.vmap(lambda member: planted(problem.instance(member, **dict(size)))))(parameters)
    ratios = _ratios(measured, np.asarray(bounds, dtype=np.float64))
    return _with_bound(search.select(problem, size, parameters, int(np.argmax(ratios)), "random", seed), planted)


def catch(claim: Claim, planted: Callable[[Instance], Any], size: Size, seed: int = 0) -> Outcome:
    """Run the checks at one size against a false bound, cheapest first, and return the outcome that breaks it, or else the worst one found.

    The measured side is the true claim's, so what its own rungs have measured is compared again with the false bound; only if that does not
    catch it, a search of its own is run.
    """
    target = claim.repaired or claim.problem
    seen: list[Outcome] = []

    def stages():
        if claim.repaired is None:
            yield _with_bound(_witness_outcomes(claim)[target.sizes.index(size)], planted)
        yield _worst_of_batch(target, size, planted, seed)
        yield _with_bound(search_all(target, seed)[0][target.sizes.index(size)], planted)
        yield search.maximise(dataclasses.replace(target, bound=planted), size, seed=seed)[0]

    for outcome in stages():
        seen.append(outcome)
        if not outcome.holds:
            break
    return worst(seen)


def run_power(claim: Claim, seed: int = 0) -> RungResult:
    caught = []
    for name, plant in planted_bounds(claim).items():
        for size in (claim.repaired or claim.problem).sizes:
            if plant.applies(**dict(size)):
                outcome = catch(claim, plant.bound, size, seed)
                at = ", ".join(f"{key} = {value}" for key, value in size)
                caught.append(dataclasses.replace(outcome, label=f"{name} at {at}, by {outcome.label}"))
    if not caught:
        return RungResult(Rung.POWER, False, (), (f"{claim.id} plants no false bound, so nothing shows that its checks can fail",))
    return _judge(Rung.POWER, caught, _breaks)


def run_reality(claim: Claim, evidence: Evidence, *, tests_bind: bool = True) -> RungResult:
    """Put the claim's questions to recorded evidence.

    Args:
        tests_bind: whether a test that comes out otherwise than declared fails the rung. The declarations are about the shipped network and
            clip; of another network such an answer is a finding, and only what the theorem implies there can fail.
    """
    outcomes: list[Outcome] = []
    failures: list[str] = []
    for comparison in claim.reality:
        found = comparison.outcomes(evidence)
        outcomes += found
        if tests_bind or comparison.tells is not Tells.TEST:
            failures += [
                f"{comparison.question}: expected {comparison.expected}; {_describe(outcome)}" for outcome in comparison.failures(found)
            ]
    return RungResult(Rung.REALITY, not failures, tuple(outcomes), tuple(failures))


def noticed(comparison: Comparison, scrambled: Mapping[str, Evidence]) -> dict[str, bool]:
    """On which scrambled evidence a comparison comes out otherwise than it declares.

    Evidence that the comparison refuses (a ValueError that names the value, or sides that are not finite) counts as noticed.
    """
    found = {}
    for name, evidence in scrambled.items():
        try:
            found[name] = bool(comparison.failures(comparison.outcomes(evidence)))
        except (ValueError, ArithmeticError):
            found[name] = True
    return found


def unnoticed_tests(claim: Claim, scrambled: Mapping[str, Evidence]) -> list[str]:
    """The questions of a claim that call themselves a test and come out as declared on every scrambled evidence."""
    return [
        comparison.question
        for comparison in claim.reality
        if comparison.tells is Tells.TEST and not any(noticed(comparison, scrambled).values())
    ]


def verify(claim: Claim, *, seed: int = 0, evidence: Evidence | None = None) -> list[RungResult]:
    """Climb the ladder. Without evidence the last rung, which needs the real network, is left out."""
    results = [
        run_witness(claim),
        run_property(claim, seed),
        run_attack(claim, seed),
        run_necessity(claim, seed),
        run_power(claim, seed),
    ]
    if evidence is not None:
        results.append(run_reality(claim, evidence))
    return results
