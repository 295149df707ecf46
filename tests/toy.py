"""A claim that costs nothing to check, and the fewest frames and steps that a run can have."""

import jax
import jax.numpy as jnp
import numpy as np

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


def record_numbers(evidence):
    """A number of each record, which any recorded numbers satisfy."""
    return [Outcome(record.label, 0.5, 1.0, 1e-15) for record in evidence.features]


def levels_agree(evidence):
    """At the noise end inversion and sampling are in one state, so both predictions there are the same numbers."""
    found = []
    for trip in evidence.round_trips:
        difference = np.max(np.abs(trip.predictions_at_inversion[-1] - trip.sampling_predictions[-1]))
        found.append(
            Outcome(trip.label, float(difference), float(np.max(np.abs(trip.sampling_predictions[-1]))) * 1e-9, 1e-15)
        )
    return found


IDENTITY = Comparison("a number of each record", Origin.NETWORK, Tells.IDENTITY, record_numbers)
TEST = Comparison("the predictions at the noise end agree", Origin.NETWORK, Tells.TEST, levels_agree)
FALSE_TEST = Comparison("a number of each record, called a test", Origin.NETWORK, Tells.TEST, record_numbers)


def claim(
    *,
    bound: float = 1.0,
    claim_id: str = "C1.toy",
    title: str = "A cosine is at most 1",
    reality: tuple[Comparison, ...] = (IDENTITY, TEST),
) -> Claim:
    """A true claim; with a bound below 1 a false one that says it is true."""
    problem = _problem(bound=bound)

    def unscaled() -> Outcome:
        return _problem(scale=2.0).outcome({"angle": jnp.asarray(0.0)}, SIZE, "twice the cosine")

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
        witness_parameters=lambda num_entries: jnp.zeros(num_entries),
        measured_in_words="the absolute cosine, without unit",
        bound_in_words="the number 1",
        necessity={"H1": unscaled},
        planted={
            "half": lambda instance: jnp.asarray(0.5),
            "its square": lambda instance: jnp.cos(instance["angle"]) ** 2 / 2,
            "the sine": lambda instance: jnp.abs(jnp.sin(instance["angle"])),
            "the cosine of twice the angle": lambda instance: jnp.abs(jnp.cos(2 * instance["angle"])) / 2,
        },
        reality=reality,
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
