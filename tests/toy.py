"""A claim that costs nothing to check, and the fewest frames and steps that a run can have."""

import jax
import jax.numpy as jnp

from experiments.settings import Settings
from theory.claim import Claim, Comparison, Hypothesis, Origin, Outcome, Problem, Tells, Tightness, Verdict

SIZE = (("num_entries", 2),)


def _problem(scale: float = 1.0, bound: float = 1.0) -> Problem:
    """|x . u| <= 1 for the normalised direction u of x, scaled."""
    return Problem(
        sizes=(SIZE,),
        draw=lambda key, num_entries: jax.random.normal(key, (num_entries,)),
        instance=lambda parameters, num_entries: {"angle": parameters[0]},
        measured=lambda instance: scale * jnp.abs(jnp.cos(instance["angle"])),
        bound=lambda instance: jnp.asarray(bound),
        operations=lambda num_entries: 8,
    )


def claim(*, bound: float = 1.0, claim_id: str = "C1.toy", title: str = "A cosine is at most 1") -> Claim:
    """A true claim; with a bound below 1 a false one that says it is true."""
    problem = _problem(bound=bound)

    def unscaled() -> Outcome:
        return _problem(scale=2.0).outcome({"angle": jnp.asarray(0.0)}, SIZE, "twice the cosine")

    def reality(evidence):
        return [Outcome(record.label, 0.5, 1.0, 1e-15) for record in evidence.features]

    return Claim(
        id=claim_id,
        title=title,
        statement="The absolute cosine of an angle is at most 1.",
        latex=r"|\cos\alpha| \le 1",
        hypotheses=(Hypothesis("H1", "The cosine is not scaled."),),
        verdict=Verdict.PROVED,
        tightness=Tightness.ATTAINED,
        origin="a test",
        problem=problem,
        witnesses=lambda num_entries: {"angle": jnp.asarray(0.0)},
        necessity={"H1": unscaled},
        planted={"half": lambda instance: jnp.asarray(0.5)},
        reality=(Comparison("a number of each record", Origin.NETWORK, Tells.IDENTITY, reality),),
        floor=0.99,
        floor_reason="attained",
    )


def settings(pipeline, **overrides) -> Settings:
    """The smallest run."""
    smallest = {
        "pipeline": str(pipeline),
        "num_frames": 3,
        "num_steps": 4,
        "adapter_steps": 2,
        "round_trip_steps": (5,),
        "ideal_steps": (10, 20),
        "feature_levels": 2,
        "study_instances": 4,
        "descent_steps": 1,
        "long_descent_steps": 1,
    }
    return Settings.preset("small", **{**smallest, **overrides})
