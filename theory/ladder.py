"""The ladder: six rungs on which every claim is checked, the same code for the tests, the command line and the report.

For a true statement                                  For a refuted one
1 witness    the extremal instance attains the bound  the counterexample breaks it
2 property   no random instance breaks it             every member of the family of counterexamples breaks it
3 attack     the search stays below 1, above a floor  the search finds a counterexample by itself
4 necessity  without a hypothesis the bound breaks    with the missing hypothesis restored the search comes out empty
5 power      a planted false bound is rejected        a planted false repair is rejected
6 reality    it holds on the real network             how near the real network comes to the counterexample (recorded)
"""

import dataclasses
import enum
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from theory import search
from theory.claim import Claim, Instance, Outcome, Problem, Tightness, Verdict, worst
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


@functools.lru_cache(maxsize=None)
def _witness_outcomes(claim: Claim) -> tuple[Outcome, ...]:
    problem = claim.problem
    return tuple(problem.outcome(claim.witnesses(**dict(size)), size, "witness") for size in problem.sizes)


def witness(claim: Claim) -> list[Outcome]:
    """The extremal instance (or the counterexample), at every size."""
    return list(_witness_outcomes(claim))


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


@functools.lru_cache(maxsize=None)
def _search_all(problem: Problem, seed: int) -> tuple[tuple[Outcome, ...], np.ndarray]:
    found = [search.maximise(problem, size, seed=seed) for size in problem.sizes]
    return tuple(outcome for outcome, _ in found), np.concatenate([ratios for _, ratios in found])


def attack(claim: Claim, *, seed: int = 0) -> list[Outcome]:
    """The best instance that adversarial search finds at every size. Searched once per seed and process."""
    return list(_search_all(claim.problem, seed)[0])


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
    if claim.verdict is Verdict.REFUTED:
        supports = _breaks
    elif claim.tightness in (Tightness.TIGHT, Tightness.IDENTITY):
        supports = Outcome.attains.fget
    else:
        supports = Outcome.holds.fget
    return _judge(Rung.WITNESS, witness(claim), supports)


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
    outcomes, ratios = _search_all(claim.problem, seed)

    def supports(outcome: Outcome) -> bool:
        if claim.verdict is Verdict.REFUTED:
            return not outcome.holds
        return outcome.holds and outcome.ratio >= claim.floor

    return _judge(Rung.ATTACK, outcomes, supports, ratios)


def run_necessity(claim: Claim, seed: int = 0) -> RungResult:
    if claim.verdict is Verdict.REFUTED:
        outcomes, ratios = _search_all(claim.repaired, seed)
        return _judge(Rung.NECESSITY, outcomes, Outcome.holds.fget, ratios)
    outcomes = [dataclasses.replace(build(), label=name) for name, build in claim.necessity.items()]
    return _judge(Rung.NECESSITY, outcomes, _breaks)


def _planted_bounds(claim: Claim) -> dict[str, Callable[[Instance], Any]]:
    honest = (claim.repaired or claim.problem).bound
    planted = dict(claim.planted)
    if claim.tightness in (Tightness.TIGHT, Tightness.IDENTITY):
        planted[f"bound x {SHARPNESS_PLANT}"] = lambda instance: SHARPNESS_PLANT * honest(instance)
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


def catch(claim: Claim, planted: Callable[[Instance], Any], seed: int = 0) -> Outcome:
    """Run the checks against a false bound, cheapest first, and return the outcome that breaks it, or else the worst one found.

    The measured side is the true claim's, so what its own rungs have measured is compared again with the false bound; only if that does not
    catch it, a search of its own is run.
    """
    target = claim.repaired or claim.problem
    seen: list[Outcome] = []

    def stages():
        for outcome in _witness_outcomes(claim) if claim.repaired is None else ():
            yield _with_bound(outcome, planted)
        for size in target.sizes:
            yield _worst_of_batch(target, size, planted, seed)
        for outcome in _search_all(target, seed)[0]:
            yield _with_bound(outcome, planted)
        false = dataclasses.replace(target, bound=planted)
        for size in false.sizes:
            yield search.maximise(false, size, seed=seed)[0]

    for outcome in stages():
        seen.append(outcome)
        if not outcome.holds:
            break
    return worst(seen)


def run_power(claim: Claim, seed: int = 0) -> RungResult:
    caught = []
    for name, planted in _planted_bounds(claim).items():
        outcome = catch(claim, planted, seed)
        caught.append(dataclasses.replace(outcome, label=f"{name}, by {outcome.label}"))
    if not caught:
        return RungResult(Rung.POWER, False, (), (f"{claim.id} plants no false bound, so nothing shows that its checks can fail",))
    return _judge(Rung.POWER, caught, _breaks)


def run_reality(claim: Claim, evidence: Evidence) -> RungResult:
    outcomes = list(claim.reality(evidence))
    if not outcomes:
        return RungResult(Rung.REALITY, False, (), (f"{claim.id} compares nothing on the real network",))
    if claim.verdict is Verdict.REFUTED:
        return _judge(Rung.REALITY, outcomes, lambda outcome: True)
    return _judge(Rung.REALITY, outcomes, Outcome.holds.fget)


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
