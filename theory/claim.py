"""What a claim is: a statement, its verdict, and everything that its checks need.

A theorem's file defines one `Claim` named CLAIM. The claim carries its statement, its hypotheses and verdict, and a `Problem`: a
family of instances on which `measured <= bound` is asserted. Everything else (the ladder of checks in theory/ladder.py, the tests, the
command line's table, the report) is derived from it.
"""

import dataclasses
import enum
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from theory import search
from theory.evidence import Evidence
from theory.formal.index import FORMAL, WHOLE
from theory.problem import (
    Expected,
    Instance,
    Origin,
    Outcome,
    Parameters,
    Problem,
    Size,
    Tells,
    worst,
)

__all__ = [
    "Assurance", "Claim", "Comparison", "Expected", "Hypothesis", "Instance", "Origin", "Outcome", "Parameters", "Plant", "Problem", "Size",
    "Tells", "Tightness", "Verdict", "worst",
]  # fmt: skip

MINIMUM_PLANTS = 4


class Verdict(enum.StrEnum):
    """What the project has decided about a statement."""

    PROVED = "proved"
    REPAIRED = "proved after repair"
    REFUTED = "refuted"


class Tightness(enum.StrEnum):
    """How the bound relates to the supremum of the measured quantity."""

    IDENTITY = "identity"  # measured = bound on every instance
    ATTAINED = "attained"  # an instance of the family itself makes both sides equal
    APPROACHED = "approached"  # the supremum is the bound, and is reached in a limit only, which `sharpness` names
    UPPER = "upper"  # measured <= bound, the supremum is not known to be the bound
    LOWER = "lower"  # the bound is exceeded: a counterexample, or a lower bound on a constant


SHARP = (Tightness.IDENTITY, Tightness.ATTAINED, Tightness.APPROACHED)


class Assurance(enum.StrEnum):
    """How a statement is held to be true, from the strongest; README says what each level trusts."""

    MACHINE_CHECKED = "machine-checked"  # a proof assistant accepts a proof of all that it states
    PARTLY_CHECKED = "machine-checked in part"  # of the part that `formal` names; the rest is proved by hand
    ENCLOSED = "enclosed"  # proved by hand, and its constant recomputed in ball arithmetic
    PROVED = "proved and attacked"  # proved by hand; no search breaks it
    MEASURED = "measured"  # nothing is proved


@dataclasses.dataclass(frozen=True)
class Hypothesis:
    """A numbered hypothesis (H1, H2, ..) and its wording."""

    id: str
    text: str


@dataclasses.dataclass(frozen=True)
class Plant:
    """A false bound that the checks must reject.

    Attributes:
        bound: of the instance, like `Problem.bound`.
        applies: `applies(**size) -> bool`, the sizes at which the false bound differs from the true one; it has to be rejected at each.
        why: where `applies` leaves sizes out, why both bounds agree there.
    """

    bound: Callable[[Instance], Any]
    applies: Callable[..., bool] = lambda **_: True
    why: str = ""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A question that a claim puts to recorded evidence (sixth rung).

    Attributes:
        question: what is compared with what, in words, with units where there are any.
        origin: what the numbers are taken from. Only `Origin.NETWORK` is shown as "on the real network".
        tells: what the answer can tell. A `Tells.TEST` must be answered otherwise on at least one kind of scrambled evidence.
        compare: evidence -> the outcomes; at least one.
        expected: HOLDS asks it of every outcome; VIOLATED asks that at least one outcome breaks it.
        because: for `IMPLIED`, what it follows from; for `VIOLATED`, what the theorem then no longer promises.
    """

    question: str
    origin: Origin
    tells: Tells
    compare: Callable[[Evidence], Sequence[Outcome]]
    expected: Expected = Expected.HOLDS
    because: str = ""

    def outcomes(self, evidence: Evidence) -> tuple[Outcome, ...]:
        """Compare, and write question and origin on every outcome.

        Raises:
            ValueError: nothing was compared.
        """
        found = self.compare(evidence)
        if not found:
            raise ValueError(f"{self.question!r} compares nothing on this evidence; record what it needs")
        stamp = {"question": self.question, "origin": self.origin, "tells": self.tells, "expected": self.expected}
        return tuple(dataclasses.replace(outcome, **stamp) for outcome in found)

    def failures(self, outcomes: Sequence[Outcome]) -> tuple[Outcome, ...]:
        """The outcomes that contradict what is declared: those that break it, or all of them where none does and one should."""
        broken = tuple(outcome for outcome in outcomes if not outcome.holds)
        if self.expected is Expected.HOLDS:
            return broken
        return () if broken else tuple(outcomes)


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
        hypotheses: numbered; each has an entry in `necessity`, or says why it has none in `definitional`. Hypotheses on sizes
            (d >= 2, N >= 3) are hypotheses too: the families satisfy them by construction, so `necessity` has to leave them.
        verdict, tightness: see the enumerations.
        origin: where the paper has it, or "not in the paper".
        measured_in_words, bound_in_words: what the two numbers are, with units or normalisation, for a reader of the report.
        problem: the inequality.
        witnesses: size -> the extremal instance (true statements) or the counterexample (refuted ones).
        witness_parameters: size -> parameters from which the family itself makes that instance; the rung compares the two.
        sharp_for: `sharp_for(**size) -> bool`, the sizes at which the bound is attained or approached; elsewhere it is an upper bound.
        sharpness: for APPROACHED the limit, in words; for a claim that is sharp at some sizes only, which, and what is known of the others.
        necessity: hypothesis id -> an outcome in which that hypothesis alone fails and the bound is broken.
        definitional: hypothesis id -> why no instance can violate it (without it the statement has no meaning).
        planted: name -> false bound, which the same checks must reject at every size; at least four, which change the shape.
        reality: what is asked of the recorded evidence.
        no_network: for a claim that cannot speak of a network, why, in one sentence.
        relies_on: ids of the claims whose statements the proof uses.
        lemmas: standard results that the proof uses and does not prove.
        enclosure: what was recomputed in ball arithmetic and where, if anything.
        floor: the least ratio that the attack must reach at every size at which the bound is sharp, so that a loosened bound fails too.
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
    necessity: Mapping[str, Callable[[], Outcome]] = dataclasses.field(default_factory=dict)
    reality: tuple[Comparison, ...] = ()
    measured_in_words: str = ""
    bound_in_words: str = ""
    witness_parameters: Callable[..., Parameters] | None = None
    sharp_for: Callable[..., bool] = lambda **_: True
    sharpness: str = ""
    definitional: Mapping[str, str] = dataclasses.field(default_factory=dict)
    planted: Mapping[str, Callable[[Instance], Any] | Plant] = dataclasses.field(default_factory=dict)
    no_network: str = ""
    relies_on: tuple[str, ...] = ()
    lemmas: tuple[str, ...] = ()
    enclosure: str = ""
    floor: float = 0.0
    floor_reason: str = ""
    counterexamples: Problem | None = None
    repaired: Problem | None = None

    def __post_init__(self) -> None:
        complaint = next(_complaints(self), None)
        if complaint is not None:
            raise ValueError(f"{self.id}: {complaint}")

    @property
    def group(self) -> str:
        """The paper's claim that this one decides or sharpens: "C1" to "C5"."""
        return self.id.split(".")[0]

    @property
    def formal(self) -> str:
        """Where a proof assistant has checked it, and what of it; "" where none has. Source: theory/formal/index.py."""
        proof = FORMAL.get(self.id)
        return "" if proof is None else f"theory/formal/{proof.file}, {', '.join(proof.theorems)}. {proof.covers}"

    @property
    def assurance(self) -> Assurance:
        """How the statement is held to be true."""
        if self.id in FORMAL:
            return Assurance.MACHINE_CHECKED if self.id in WHOLE else Assurance.PARTLY_CHECKED
        return Assurance.ENCLOSED if self.enclosure else Assurance.PROVED

    @property
    def plants(self) -> dict[str, Plant]:
        """The planted false bounds, each with the sizes at which it has to be rejected."""
        return {name: plant if isinstance(plant, Plant) else Plant(plant) for name, plant in self.planted.items()}

    def is_sharp(self, size: Size) -> bool:
        """Whether the bound is attained or approached at this size."""
        return self.tightness in SHARP and self.sharp_for(**dict(size))

    def check(self, seed: int = 0) -> Outcome:
        """Run witness and attack at every size and return the worst outcome, with its witness.

        For a true statement its ratio is at most 1 + budget; for a refuted one it lies above.
        """
        return worst([*witness(self), *attack(self, seed=seed)])


def _complaints(claim: Claim):
    """What is missing in a claim or contradicts itself, most basic first."""
    names = [hypothesis.id for hypothesis in claim.hypotheses]
    covered = sorted([*claim.necessity, *claim.definitional])
    if covered != sorted(names):
        yield (
            f"hypotheses {names}, but an outcome in `necessity` or a reason in `definitional` is given for {covered}; they must agree: "
            "give for each hypothesis an instance that breaks the bound without it, or say why there is none"
        )
    for name in ("counterexamples", "repaired"):
        if (getattr(claim, name) is not None) != (claim.verdict is Verdict.REFUTED):
            yield f"verdict {claim.verdict}; exactly the refuted claims carry {name}"
    if claim.tightness in SHARP and not claim.floor:
        yield f"tightness {claim.tightness} needs a `floor` > 0: the least measured / bound that the attack must reach"
    if claim.tightness is Tightness.APPROACHED and not claim.sharpness:
        yield "tightness approached needs `sharpness`: in which limit, and at which sizes"
    if any(not claim.sharp_for(**dict(size)) for size in claim.problem.sizes) and not claim.sharpness:
        yield "it is sharp at some of its sizes only; `sharpness` has to say which, and what is known of the others"
    for comparison in claim.reality:
        if not (isinstance(comparison.origin, Origin) and isinstance(comparison.tells, Tells)):
            yield f"the evidence for {comparison.question!r} has origin {comparison.origin!r}; give an Origin and a Tells"
        if (comparison.tells is Tells.IMPLIED or comparison.expected is Expected.VIOLATED) and not comparison.because:
            yield f"{comparison.question!r} is {comparison.tells}, {comparison.expected}; `because` has to say what follows from what"
    asks_network = any(comparison.origin is Origin.NETWORK for comparison in claim.reality)
    if asks_network == bool(claim.no_network):
        yield "a claim either asks something of the network in `reality` or says in `no_network` why it cannot, and not both"


def unfinished(claim: Claim) -> list[str]:
    """What a claim still lacks before it counts as checked in full."""
    found = []
    if len(claim.planted) < MINIMUM_PLANTS:
        found.append(f"{len(claim.planted)} planted false bounds that change the shape; at least {MINIMUM_PLANTS} are needed")
    for name in ("measured_in_words", "bound_in_words", "witness_parameters"):
        if not getattr(claim, name):
            found.append(f"`{name}` is missing")
    return found


@functools.lru_cache(maxsize=None)
def _witness_outcomes(claim: Claim) -> tuple[Outcome, ...]:
    problem = claim.problem
    return tuple(problem.outcome(claim.witnesses(**dict(size)), size, "witness") for size in problem.sizes)


def witness(claim: Claim) -> list[Outcome]:
    """The extremal instance (or the counterexample), at every size."""
    return list(_witness_outcomes(claim))


def membership_residual(claim: Claim, size: Size) -> float:
    """How far the witness is from the instance that the family makes of `witness_parameters`, relative to the largest entry.

    Returns:
        The largest |difference| of an entry over the largest entry of that array; infinite where names or shapes differ.
    """
    wanted = {name: np.asarray(value, dtype=np.float64) for name, value in claim.witnesses(**dict(size)).items()}
    made = claim.problem.instance(claim.witness_parameters(**dict(size)), **dict(size))
    made = {name: np.asarray(value, dtype=np.float64) for name, value in made.items()}
    if {name: value.shape for name, value in wanted.items()} != {name: value.shape for name, value in made.items()}:
        return float("inf")
    return max(
        float(np.max(np.abs(wanted[name] - made[name]), initial=0.0) / max(np.max(np.abs(wanted[name]), initial=0.0), 1e-300))
        for name in wanted
    )


@functools.lru_cache(maxsize=None)
def search_all(problem: Problem, seed: int) -> tuple[tuple[Outcome, ...], np.ndarray]:
    """Adversarial search at every size, once per seed and process: the best outcomes, and the ratios of all starts."""
    found = [search.maximise(problem, size, seed=seed) for size in problem.sizes]
    return tuple(outcome for outcome, _ in found), np.concatenate([ratios for _, ratios in found])


def attack(claim: Claim, *, seed: int = 0) -> list[Outcome]:
    """The best instance that adversarial search finds at every size."""
    return list(search_all(claim.problem, seed)[0])
