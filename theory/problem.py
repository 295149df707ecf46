"""Both sides of one inequality: a family of instances, and what comes out when an instance is evaluated."""

import dataclasses
import enum
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from theory.rounding import relative_budget

Size = tuple[tuple[str, int], ...]
Parameters = Any
Instance = Mapping[str, Any]


class Origin(enum.StrEnum):
    """What the numbers of a comparison were taken from."""

    NETWORK = "network"  # predictions or features of the trained UNet, with or without its adapter
    CLIP = "clip"  # exact scores built on the clip's frames, at the network's schedule; no network in it
    CONSTRUCTED = "constructed"  # another network or another distribution of data


class Tells(enum.StrEnum):
    """What a comparison can tell about the thing that it was made on."""

    IDENTITY = "identity"  # holds for any recorded numbers, whoever made them
    IMPLIED = "implied"  # follows from a hypothesis that is checked beside it
    TEST = "test"  # could have come out otherwise, and scrambled evidence is noticed


class Expected(enum.StrEnum):
    """How a comparison is declared to come out; the rung fails where it comes out otherwise."""

    HOLDS = "holds"
    VIOLATED = "violated"  # the network is declared to break the inequality, and does


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One comparison of a measured quantity with its bound.

    Attributes:
        label: where the instance comes from ("witness", "attack", a hypothesis id, a layer of the network, ..).
        measured, bound: the two sides of `measured <= bound`, in the units of the claim.
        budget: relative rounding slack granted to the comparison.
        seed: the seed the instance was drawn from; None when it is explicit.
        witness: the instance itself, as NumPy arrays.
        question, origin, tells, expected: of the `reality.Comparison` that made this outcome; None elsewhere.
    """

    label: str
    measured: float
    bound: float
    budget: float
    seed: int | None = None
    witness: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict, repr=False)
    question: str | None = None
    origin: Origin | None = None
    tells: Tells | None = None
    expected: Expected | None = None

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
