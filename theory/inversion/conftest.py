"""A recorded round trip on known data, in place of the network's, so that the reality rung itself is tested."""

import jax.numpy as jnp
import numpy as np
import pytest

import theory  # noqa: F401  switches JAX to 64 bits
from theory import ladder
from theory.claim import Tells
from theory.evidence import Evidence, RoundTripRecord
from theory.inversion.ddim import Convention, round_trip
from theory.inversion.predictors import at_levels, mixture_predictor
from theory.inversion.schedule import noise_levels

FRAMES_SHAPE = (3, 2, 2, 1)


def record_mixture(convention: Convention = Convention.T, num_steps: int = 12) -> RoundTripRecord:
    """Three frames of four values, as one point of a Gaussian mixture in R^12, inverted and sampled."""
    alphas_cumprod = np.linspace(0.999, 0.05, num_steps + 1)
    sigmas = jnp.asarray(noise_levels(alphas_cumprod))
    generator = np.random.default_rng(3)
    predictor = at_levels(mixture_predictor(np.ones(4), generator.normal(size=(4, 12)), 0.5), sigmas)
    trip = round_trip(predictor, sigmas, jnp.asarray(generator.normal(size=12)), convention)
    roots = np.sqrt(alphas_cumprod)[:, None]
    shaped = {
        "inversion": roots * np.asarray(trip.inversion),
        "sampling": roots * np.asarray(trip.sampling),
        "inversion_predictions": np.asarray(trip.inversion_predictions),
        "sampling_predictions": np.asarray(trip.sampling_predictions),
        "predictions_at_inversion": np.asarray(trip.predictions_at_inversion),
    }
    return RoundTripRecord(
        label=f"mixture, {num_steps} steps",
        alphas_cumprod=alphas_cumprod,
        **{name: values.reshape(-1, *FRAMES_SHAPE) for name, values in shaped.items()},
    )


@pytest.fixture(scope="session")
def recorded() -> Evidence:
    return Evidence(features=(), round_trips=(record_mixture(Convention.T), record_mixture(Convention.S)))


@pytest.fixture(scope="session")
def untested_reality():
    """The last rung without its tests, which need pairs of states of a network: what holds for any recorded trip."""

    def run(claim, evidence) -> ladder.RungResult:
        outcomes, failures = [], []
        for comparison in claim.reality:
            if comparison.tells is not Tells.TEST:
                found = comparison.outcomes(evidence)
                outcomes += found
                failures += [outcome.label for outcome in comparison.failures(found)]
        return ladder.RungResult(ladder.Rung.REALITY, not failures, tuple(outcomes), tuple(failures))

    return run
