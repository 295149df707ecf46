"""What a claim is, and what comes out when one is checked.

A theorem's file defines one `Claim` named CLAIM. The claim carries its statement, its hypotheses and verdict, and a `Problem`: a
family of instances on which `measured <= bound` is asserted. Everything else (the ladder of checks in theory/ladder.py, the tests, the
command line's table, the report) is derived from it.
"""

import dataclasses
import enum
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from theory.evidence import Evidence
from theory.rounding import relative_budget

Size = tuple[tuple[str, int], ...]
Parameters = Any
Instance = Mapping[str, Any]


class Verdict(enum.StrEnum):
    """What the project has decided about a statement."""

    PROVED = "proved"
    REPAIRED = "proved after repair"
    REFUTED = "refuted"


class Tightness(enum.StrEnum):
    """How the bound relates to the supremum of the measured quantity."""

    IDENTITY = "identity"  # measured = bound on every instance
    TIGHT = "tight"  # the supremum is the bound
    UPPER = "upper"  # measured <= bound, the supremum is not known to be the bound
    LOWER = "lower"  # the bound is exceeded: a counterexample, or a lower bound on a constant


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One comparison of a measured quantity with its bound.

    Attributes:
        label: where the instance comes from ("witness", "attack", a hypothesis id, a layer of the network, ..).
        measured, bound: the two sides of `measured <= bound`, in the units of the claim.
        budget: relative rounding slack granted to the comparison.
        seed: the seed the instance was drawn from; None when it is explicit.
        witness: the instance itself, as NumPy arrays.
    """

    label: str
    measured: float
    bound: float
    budget: float
    seed: int | None = None
    witness: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        # A comparison with NaN is False, so `holds` would be False and `broken` too: refuse it here, once.
        if not (np.isfinite(self.measured) and np.isfinite(self.bound)):
            raise ArithmeticError(f"{self.label}: measured = {self.measured}, bound = {self.bound}; both must be finite")
        if self.bound < 0:
            raise ArithmeticError(f"{self.label}: bound = {self.bound} is negative, so it cannot bound a magnitude")

    @property
    def ratio(self) -> float:
        """measured / bound; 0 when both vanish, infinite when only the bound does."""
        if self.bound == 0:
            return 0.0 if self.measured == 0 else float("inf")
        return self.measured / self.bound

    @property
    def holds(self) -> bool:
        """measured <= bound (1 + budget)."""
        return self.measured <= self.bound * (1 + self.budget)

    @property
    def attains(self) -> bool:
        """|measured - bound| <= budget * bound."""
        return abs(self.measured - self.bound) <= self.budget * self.bound


def worst(outcomes: Sequence[Outcome]) -> Outcome:
    """The outcome whose ratio is the largest, that is, the one closest to breaking the bound (or breaking it most)."""
    if not outcomes:
        raise ValueError("0 outcomes were given, at least 1 is needed: run a rung first")
    return max(outcomes, key=lambda outcome: outcome.ratio)


@dataclasses.dataclass(frozen=True)
class Hypothesis:
    """A numbered hypothesis (H1, H2, ..) and its wording."""

    id: str
    text: str


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """A family of instances, and the two sides of the inequality that is claimed on it. All callables are JAX-traceable.

    Attributes:
        sizes: the sizes at which the family is searched, each a tuple of (name, integer) pairs passed as keywords.
        draw: `draw(key, **size) -> parameters`, unconstrained real parameters of a random instance.
        instance: `instance(parameters, **size) -> dict of arrays`, maps ANY real parameters to an instance that satisfies every
            hypothesis, so no search and no generator ever has to reject.
        measured, bound: functions of the instance, each returning a scalar.
        operations: `operations(**size) -> int`, floating-point operations on the longest chain, for the rounding budget.
    """

    sizes: tuple[Size, ...]
    draw: Callable[..., Parameters]
    instance: Callable[..., Instance]
    measured: Callable[[Instance], Any]
    bound: Callable[[Instance], Any]
    operations: Callable[..., int]

    def budget(self, size: Size) -> float:
        """Relative rounding slack of one comparison at this size."""
        return relative_budget(self.operations(**dict(size)))

    def outcome(self, instance: Instance, size: Size, label: str, seed: int | None = None) -> Outcome:
        """Evaluate both sides on one explicit instance, which need not satisfy the hypotheses."""
        return self._outcome((instance, *_compiled_sides(self)(instance)), size, label, seed)

    def outcome_of(self, parameters: Parameters, size: Size, label: str, seed: int | None = None) -> Outcome:
        """Evaluate both sides on the instance that unconstrained parameters give."""
        return self._outcome(_compiled_member(self, size)(parameters), size, label, seed)

    def _outcome(
        self, evaluated: tuple[Instance, Any, Any], size: Size, label: str, seed: int | None
    ) -> Outcome:
        instance, measured, bound = evaluated
        return Outcome(
            label=label,
            measured=float(measured),
            bound=float(bound),
            budget=self.budget(size),
            seed=seed,
            witness={name: np.asarray(value) for name, value in instance.items()},
        )


@functools.lru_cache(maxsize=None)
def _compiled_sides(problem: Problem) -> Callable[[Instance], tuple[Any, Any]]:
    # Operation by operation, second derivatives take longer to dispatch than the whole program takes to compile.
    return jax.jit(lambda instance: (problem.measured(instance), problem.bound(instance)))


@functools.lru_cache(maxsize=None)
def _compiled_member(problem: Problem, size: Size) -> Callable[[Parameters], tuple[Instance, Any, Any]]:
    def member(parameters: Parameters) -> tuple[Instance, Any, Any]:
        instance = problem.instance(parameters, **dict(size))
        return instance, problem.measured(instance), problem.bound(instance)

    return jax.jit(member)


@dataclasses.dataclass(frozen=True, eq=False)
class Claim:
    """A statement, its verdict, and everything needed to check it.

    For a statement that is true (PROVED, REPAIRED) `problem` is the inequality under its hypotheses. For one that is REFUTED `problem`
    is the inequality as stated, `witnesses` are counterexamples, and `repaired` is the same inequality with the missing hypothesis
    restored, on which the very search that refutes the statement must come out empty. `counterexamples` is a family every member of
    which breaks the statement, so that it is refuted for every constant one may propose and not for a single number.

    Attributes:
        id: "C1.hessian": the paper's claim and the theorem's short name.
        title, statement, latex: in words, in full, and in mathematics.
        hypotheses: numbered; each has an entry in `necessity`, or says why it has none in `definitional`.
        verdict, tightness: see the enumerations.
        origin: where the paper has it, or "not in the paper".
        problem: the inequality.
        witnesses: size -> the extremal instance (true statements) or the counterexample (refuted ones).
        necessity: hypothesis id -> an outcome in which that hypothesis alone fails and the bound is broken.
        definitional: hypothesis id -> why no instance can violate it (without it the statement has no meaning).
        planted: name -> false bound, a function of the instance, which the same checks must reject.
        reality: evidence from the real network -> outcomes of the same inequality there.
        floor: the least ratio that the attack must reach at every size (tight claims), so that a loosened bound fails too.
        floor_reason: why the floor is what it is.
        counterexamples, repaired: see above; None for true statements.
    """

    id: str
    title: str
    statement: str
    latex: str
    hypotheses: tuple[Hypothesis, ...]
    verdict: Verdict
    tightness: Tightness
    origin: str
    problem: Problem
    witnesses: Callable[..., Instance]
    necessity: Mapping[str, Callable[[], Outcome]]
    reality: Callable[[Evidence], Sequence[Outcome]]
    definitional: Mapping[str, str] = dataclasses.field(default_factory=dict)
    planted: Mapping[str, Callable[[Instance], Any]] = dataclasses.field(default_factory=dict)
    floor: float = 0.0
    floor_reason: str = ""
    counterexamples: Problem | None = None
    repaired: Problem | None = None

    def __post_init__(self) -> None:
        names = [hypothesis.id for hypothesis in self.hypotheses]
        covered = sorted([*self.necessity, *self.definitional])
        if covered != sorted(names):
            raise ValueError(f"{self.id}: hypotheses {names}, but necessity or a reason is given for {covered}; they must agree")
        for name in ("counterexamples", "repaired"):
            if (getattr(self, name) is not None) != (self.verdict is Verdict.REFUTED):
                raise ValueError(f"{self.id}: verdict {self.verdict}; exactly the refuted claims carry {name}")
        if self.tightness in (Tightness.TIGHT, Tightness.IDENTITY) and not self.floor:
            raise ValueError(f"{self.id}: tightness {self.tightness} needs a floor > 0 that the attack must reach")

    @property
    def group(self) -> str:
        """The paper's claim that this one decides or sharpens: "C1" to "C5"."""
        return self.id.split(".")[0]

    def check(self, seed: int = 0) -> Outcome:
        """Run witness and attack at every size and return the worst outcome, with its witness.

        For a true statement its ratio is at most 1 + budget; for a refuted one it lies above.
        """
        from theory.ladder import attack, witness  # the ladder is built on claims

        return worst([*witness(self), *attack(self, seed=seed)])
