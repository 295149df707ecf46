r"""The error of sampling back from ANY inversion: one theorem, of which every round trip is a case.

Statement. Let z_0, .., z_N be any states at the levels of the sampling, whoever produced them: DDIM on this ladder or
on a finer one, a fixed point, guidance, another network, a filter. Let e be the predictor that samples, w_k = w_{k+1} -
h_k e_{k+1}(w_{k+1}), E_k = w_k - z_k, and call

    d_k = z_k - z_{k+1} + h_k e_{k+1}(z_{k+1})

the defect of step k: what one sampling step from z_{k+1} misses z_k by. Then

    E_k = E_{k+1} - h_k [e_{k+1}(w_{k+1}) - e_{k+1}(z_{k+1})] - d_k                      (exact)
    \|E_0\| \le r \prod_{j<N} (1 + h_j L_{j+1}) + \sum_k \|d_k\| \prod_{j<k} (1 + h_j L_{j+1}).

How an inversion works enters through its defects alone. Of a DDIM inversion with predictions e^_k they are h_k
(e_{k+1}(z_{k+1}) - e^_k); of one on a finer ladder, e^_k is the average of the finer steps' predictions, each weighted
by its step (`mean_predictions`).

Hypotheses.
    H1  The noise levels increase from the data to the noise.
    H2  L_k is a Lipschitz constant of e_k on a convex set that holds z_k and w_k, for k = 1, .., N.
    H3  ||w_N - z_N|| <= r.

**Attained** by e_k(y) = -L y + b_k with defects and start error of one direction.

In the paper: claim C3, of which only the wording "remains controlled" is known. C3.round-trip, C3.adapter, C3.guidance
and C3.practice are its corollaries. Proof: paper_notes.md, section C3.any-inversion.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from theory.claim import (
    Claim,
    Comparison,
    Hypothesis,
    Instance,
    Origin,
    Outcome,
    Parameters,
    Plant,
    Problem,
    Size,
    Tells,
    Tightness,
    Verdict,
)
from theory.evidence import Evidence
from theory.inversion import instances, recorded
from theory.inversion.ddim import Predictor, RoundTrip, sample
from theory.inversion.growth import round_trip_bound, step_growth
from theory.inversion.schedule import as_vector, check_noise_levels, is_traced

SIZES: tuple[Size, ...] = instances.SIZES


def any_inversion_bound(defects: Any, growth: Any, start: Any = 0.0) -> Any:
    """The error that defects and a start error can cause at most, whatever the inversion was.

        start prod_j growth[j] + sum_k defects[k] prod_{j<k} growth[j]

    Args:
        defects, growth: as for `round_trip_bound`; the last growth factor acts on the start error alone.
        start: r >= 0, the largest ||w_N - z_N||.

    Returns:
        A float64 scalar array of the same kind.

    Raises:
        ValueError: what `round_trip_bound` raises; a start negative, NaN or infinite.

    Source: paper_notes.md, C3.any-inversion.
    """
    if not is_traced(start) and not (np.isfinite(float(start)) and float(start) >= 0):
        raise ValueError(f"start = {start}; a finite norm >= 0 is needed")
    growth, xp = as_vector("growth", growth)
    return round_trip_bound(defects, growth) + start * xp.prod(growth)


def defects_of_states(sigmas: Any, states: Any, predictions: Any) -> Any:
    """What each sampling step misses the states by.

        d_k = z_k - z_{k+1} + h_k e_{k+1}(z_{k+1})

    Args:
        sigmas: (num_steps + 1,) increasing noise levels.
        states: (num_steps + 1, dimension) z_0, .., z_N.
        predictions: (num_steps, dimension) e_{k+1}(z_{k+1}), by the predictor that samples.

    Returns:
        (num_steps, dimension) float64, NumPy.

    Raises:
        ValueError: noise levels that do not increase; sizes that differ.
    """
    check_noise_levels(sigmas)
    sigmas, states, predictions = (np.asarray(value, dtype=np.float64) for value in (sigmas, states, predictions))
    if len(states) != len(sigmas) or predictions.shape != (len(sigmas) - 1, *states.shape[1:]):
        raise ValueError(
            f"{len(sigmas)} noise levels, states {states.shape} and predictions {predictions.shape}; a state per "
            "level and a prediction per step are needed"
        )
    return states[:-1] - states[1:] + np.diff(sigmas)[:, None] * predictions


def mean_predictions(fine_sigmas: Any, predictions: Any, places: Sequence[int]) -> np.ndarray:
    """The predictions of a fine inversion, averaged over each step of a coarse ladder with the fine steps as weights.

        e^_k = sum_i h_i e^_i / sum_i h_i   over the fine steps i between the places k and k + 1

    Args:
        fine_sigmas: (fine steps + 1,) increasing noise levels.
        predictions: (fine steps, dimension).
        places: (num_steps + 1,) increasing indices into the fine levels.

    Returns:
        (num_steps, dimension) float64: with them the coarse inversion has the fine one's states.

    Raises:
        ValueError: noise levels that do not increase; places that do not increase or lie outside.
    """
    check_noise_levels(fine_sigmas)
    fine_sigmas, predictions = (np.asarray(value, dtype=np.float64) for value in (fine_sigmas, predictions))
    places = np.asarray(places)
    if not (0 <= places[0] and places[-1] < len(fine_sigmas) and (np.diff(places) > 0).all()):
        raise ValueError(f"places = {places.tolist()}; increasing indices in 0 .. {len(fine_sigmas) - 1} are needed")
    steps = np.diff(fine_sigmas)
    return np.stack(
        [
            steps[first:last] @ predictions[first:last] / (fine_sigmas[last] - fine_sigmas[first])
            for first, last in zip(places[:-1], places[1:], strict=True)
        ]
    )


def sample_states(
    predict: Predictor, sigmas: jax.Array, states: jax.Array, start_offset: jax.Array | float = 0.0
) -> RoundTrip:
    """Sampling from any states' last one, as a round trip whose inversion "predicted" the slopes between them; JAX.

    Args:
        predict: the predictor that samples.
        states: (N + 1, dimension) z_0, .., z_N.
        start_offset: w_N - z_N.
    """
    sampling, sampled = sample(predict, sigmas, states[-1] + start_offset)
    at_states = jax.vmap(predict)(states[1:], jnp.arange(1, sigmas.shape[0]))
    slopes = jnp.diff(states, axis=0) / jnp.diff(sigmas)[:, None]
    return RoundTrip(sigmas, states, sampling, slopes, sampled, at_states)


def trip_bound(trip: RoundTrip, roundings: Any, growth: Any, start: Any = 0.0) -> Any:
    """The theorem on a round trip: its defects with their roundings added, and growth factors; NumPy or JAX as the
    trip."""
    return any_inversion_bound(instances.norms(trip.defects) + roundings, growth, start)


def _simulate(instance: Instance) -> RoundTrip:
    return sample_states(
        instances.predictor(instance), instance["sigmas"], instance["states"], instance["start_offset"]
    )


def measure(instance: Instance):
    """||E_0|| of an instance."""
    return instances.norms(_simulate(instance).errors[0])


def _bound_of(instance: Instance, growth=None, start_weight: float = 1.0, defects=None):
    trip = _simulate(instance)
    growth = step_growth(instance["sigmas"], instance["lipschitz"]) if growth is None else growth
    missed = trip.defects if defects is None else defects(trip)
    roundings = instances.table_rounding(trip, instance)
    return any_inversion_bound(instances.norms(missed) + roundings, growth, start_weight * instance["start_radius"])


def _draw(key: jax.Array, *, num_steps: int) -> Parameters:
    keys = jax.random.split(key, 5)
    spread = 10.0 ** jax.random.uniform(keys[0], minval=-3.0, maxval=0.5)
    return {
        "first_level": jax.random.normal(keys[1]),
        "increments": jax.random.normal(keys[2], (num_steps,)),
        "states": spread * jax.random.normal(keys[3], (num_steps + 1, instances.DIMENSION)),
        "start_offset": spread * jax.random.normal(keys[0], (instances.DIMENSION,)),
        "tables": instances.draw_tables(keys[4], num_steps=num_steps),
    }


def _instance(parameters: Parameters, *, num_steps: int) -> Instance:
    return {
        "sigmas": instances.increasing_levels(parameters["first_level"], parameters["increments"]),
        "states": parameters["states"],
        "start_offset": parameters["start_offset"],
        # The smallest number that does for an offset of zero, where a norm has no gradient.
        "start_radius": jnp.sqrt(jnp.sum(parameters["start_offset"] ** 2) + 1e-200),
        **instances.tables(parameters["tables"]),
    }


def _operations(*, num_steps: int) -> int:
    """Roundings in units of the witness's error: operands of at most 8 a step (two states of at most num_steps / 4 +
    error, slope and offset of order 1), which grow as the error does; each of its defects is at least 1/4."""
    return instances.OPERATIONS_PER_STEP * 32 * num_steps


PROBLEM = Problem(
    sizes=SIZES, draw=_draw, instance=_instance, measured=measure, bound=_bound_of, operations=_operations
)


def witness(*, num_steps: int) -> Instance:
    """States that walk away from the sampling, z_k = -k / 4, with e_k(y) = 1 - y, and a start error of 1/2 the same
    way."""
    levels, axis = num_steps + 1, jnp.asarray([1.0, 0.0])
    return {
        "sigmas": jnp.linspace(0.0, 2.0, levels),
        "states": -jnp.arange(levels)[:, None] / 4 * axis[None, :],
        "start_offset": -axis / 2,
        "start_radius": jnp.asarray(0.5),
        "lipschitz": jnp.ones(levels),
        "blend": jnp.ones(levels),
        "linear": jnp.tile(-jnp.eye(2), (levels, 1, 1)),
        "inner": jnp.tile(jnp.eye(2), (levels, 1, 1)),
        "shift": jnp.zeros((levels, instances.DIMENSION)),
        "offset": jnp.tile(axis, (levels, 1)),
    }


def witness_parameters(*, num_steps: int) -> Parameters:
    """Parameters from which the family makes the witness."""
    instance = witness(num_steps=num_steps)
    return {
        **instances.level_parameters(instance["sigmas"]),
        "states": instance["states"],
        "start_offset": instance["start_offset"],
        "tables": instances.table_parameters(instance),
    }


def _broken(label: str, change) -> Outcome:
    size = SIZES[1]
    return PROBLEM.outcome(change(dict(witness(**dict(size)))), size, label)


def _falling_levels() -> Outcome:
    """A predictor +L y, whose sampling steps expand when the noise level rises on the way."""

    def change(instance):
        instance["sigmas"] = jnp.linspace(2.0, 1.0, instance["sigmas"].shape[0])
        instance["linear"] = -instance["linear"]
        return instance

    # step_growth refuses such levels where it sees their values, and inside a compiled program it does not.
    return _broken("noise levels that decrease", change)


def _understated_constant() -> Outcome:
    def change(instance):
        # The predictor keeps its slope -1: the constant halves where the matrix doubles.
        instance["lipschitz"] = instance["lipschitz"].at[1].multiply(0.5)
        instance["linear"] = instance["linear"].at[1].multiply(2.0)
        return instance

    return _broken("Lipschitz constant of level 1 understated by half", change)


def _understated_start() -> Outcome:
    return _broken(
        "start error of twice the stated radius", lambda instance: instance | {"start_radius": jnp.asarray(0.25)}
    )


def _lower_level_constant(instance: Instance):
    sigmas, lipschitz = instance["sigmas"], instance["lipschitz"]
    return _bound_of(instance, 1 + jnp.diff(sigmas) * lipschitz[:-1])


def _shifted_product(instance: Instance):
    growth = step_growth(instance["sigmas"], instance["lipschitz"])
    return _bound_of(instance, jnp.concatenate([jnp.ones(1), growth[:-1]]))


def _largest_defect(instance: Instance):
    trip = _simulate(instance)
    growth = step_growth(instance["sigmas"], instance["lipschitz"])
    weights = jnp.concatenate([jnp.ones(1), jnp.cumprod(growth[:-1])])
    largest = jnp.max(instances.norms(trip.defects) * weights)
    return instance["start_radius"] * jnp.prod(growth) + largest


def _at_the_lower_state(trip: RoundTrip) -> jax.Array:
    # The prediction of the level above, as if it had been made at z_k: what a reader would write who mixes up the two.
    shifted = jnp.concatenate([trip.predictions_at_inversion[:1], trip.predictions_at_inversion[:-1]])
    return trip.steps[:, None] * (shifted - trip.inversion_predictions)


def _practice_identity(evidence: Evidence) -> Sequence[Outcome]:
    outcomes = []
    for record in evidence.practice:
        trip = recorded.practice_parts(record).trip
        residuals = np.linalg.norm(trip.errors[:-1] - (trip.errors[1:] - trip.feedback - trip.defects), axis=1)
        states, used = instances.operands(trip)
        # The fine steps between two levels are rounded each, at the size of the states.
        roundings = recorded.relative_budget(instances.OPERATIONS_PER_STEP * len(record.fine_predictions)) * (
            states + (trip.sigmas[:-1] + trip.sigmas[1:]) * used
        )
        step = int(np.argmax(residuals / roundings))
        outcomes.append(
            Outcome(
                f"{record.label}: step {step}",
                float(residuals[step]),
                float(roundings[step]),
                recorded.recorded_budget(trip.errors.shape[1]),
            )
        )
    return outcomes


def _finer_ladder(evidence: Evidence) -> Sequence[Outcome]:
    if not evidence.round_trips:
        raise ValueError("0 round trips; the coarse inversion is needed beside the fine one")
    coarse = recorded.first_frame(evidence.round_trips[0])
    outcomes = []
    for record in evidence.practice:
        parts = recorded.practice_parts(record)
        if not np.array_equal(parts.sigmas, coarse.sigmas):
            raise ValueError(f"{record.label}: its levels are not those of {evidence.round_trips[0].label}")
        outcomes.append(
            Outcome(
                f"{record.label}, against as many steps up as down",
                2 * float(instances.norms(parts.ladder).sum()),
                float(instances.norms(coarse.defects).sum()),
                recorded.recorded_budget(parts.states.shape[1]),
            )
        )
    return outcomes


CLAIM = Claim(
    id="C3.any-inversion",
    title="The error of sampling back from any inversion",
    statement=(
        "Whoever produced the states of an inversion, sampling back from the last of them errs by at most the sum of "
        "what one sampling step misses each state by, and of the error of the start, each multiplied by the growth 1 "
        "+ h L of the sampling steps still to come."
    ),
    latex=(
        r"\|E_0\| \le \|E_N\| \prod_{j<N} (1 + h_j L_{j+1}) + "
        r"\sum_{k=0}^{N-1} \|d_k\| \prod_{j<k} (1 + h_j L_{j+1}),\quad "
        r"d_k = z_k - z_{k+1} + h_k e_{k+1}(z_{k+1})"
    ),
    hypotheses=(
        Hypothesis("H1", "The noise levels increase from the data to the noise."),
        Hypothesis(
            "H2",
            "L_k is a Lipschitz constant of the sampling predictor at level k on a convex set that holds z_k and w_k, "
            "k >= 1.",
        ),
        Hypothesis("H3", "Sampling starts within r of where the inversion ended."),
    ),
    verdict=Verdict.PROVED,
    tightness=Tightness.ATTAINED,
    origin="claim C3; the paper's bound is not known to us",
    measured_in_words="norm of the error of the returned state, in the variables y = x / sqrt(alphas_cumprod)",
    bound_in_words=(
        "start error and defects, each times the product of the growth factors that it still passes, in the same "
        "variables"
    ),
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    necessity={"H1": _falling_levels, "H2": _understated_constant, "H3": _understated_start},
    planted={
        "product over j < k - 1": _shifted_product,
        "L_j for L_{j+1}": Plant(_lower_level_constant),
        "the largest term for the sum": _largest_defect,
        "the start error without its growth": lambda instance: (
            _bound_of(instance, start_weight=0.0) + instance["start_radius"]
        ),
        "predictions of the level below": lambda instance: _bound_of(instance, defects=_at_the_lower_state),
    },
    reality=(
        Comparison(
            question=(
                "Inverting on a finer ladder, of up to ten times the steps, at least halves what the steps miss: twice "
                "the sum of the defects "
                "(part of the ladder alone, first frame) against the sum of the defects of as many steps up as down"
            ),
            origin=Origin.NETWORK,
            tells=Tells.TEST,
            compare=_finer_ladder,
        ),
        Comparison(
            question=(
                "The exact recursion of the error on the guided sampling from a finer, unguided inversion: what is "
                "left of it, against the rounding of its operands"
            ),
            origin=Origin.NETWORK,
            tells=Tells.IDENTITY,
            compare=_practice_identity,
        ),
    ),
    lemmas=("discrete Groenwall inequality",),
    floor=0.99,
    floor_reason=(
        "attained where defects and start error point one way and the predictor is -L y + b_k; ascent turns them "
        "there gradually"
    ),
)
