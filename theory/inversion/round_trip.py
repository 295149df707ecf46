r"""Bound A: the round-trip error of DDIM inversion, from what each step commits and how sampling passes it on.

Statement. In the variables y, with z the inversion, w the sampling from w_N = z_N, E_k = w_k - z_k and d_k = h_k
(e_{k+1}(z_{k+1}) - e^_k),

    E_k = E_{k+1} - h_k [e_{k+1}(w_{k+1}) - e_{k+1}(z_{k+1})] - d_k                      (exact)
    \|E_0\| \le \sum_k \|d_k\| \prod_{j<k} (1 + h_j L_{j+1}).

Under convention T (diffusers) ||d_k|| <= h_k L^x_{k+1} ||x_{k+1} - x_k||, L^x the Lipschitz constant in the latent: no
regularity of the predictor in time is needed. Under S the defect also holds the predictor's change in time.

Hypotheses.
    H1  The noise levels increase from the data to the noise.
    H2  L_k is a Lipschitz constant of e_k on a convex set that holds z_k and w_k, for k = 1, .., N-1.
    H3  Sampling starts where the inversion ended: w_N = z_N.

A corollary of C3.any-inversion, without start error. **Attained** by e_k(y) = -L y + b_k with defects of one direction,
for which Groenwall's inequality is an equality at every step.

In the paper: claim C3, of which only the wording "remains controlled" is known. Proof: paper_notes.md, section
C3.round-trip.
"""

from collections.abc import Sequence
from typing import Any

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
    Problem,
    Tells,
    Tightness,
    Verdict,
)
from theory.evidence import Evidence
from theory.inversion import instances, recorded
from theory.inversion.any_inversion import trip_bound
from theory.inversion.ddim import Convention, RoundTrip, recorded_round_trip
from theory.inversion.growth import step_growth
from theory.inversion.schedule import check_noise_levels
from theory.rounding import relative_budget


def uniform_bound(largest_rate: float, lipschitz: float, sigma_range: float) -> float:
    """Bound A with one constant for all steps.

        max_k (||d_k|| / h_k) (exp(L (sigma_N - sigma_0)) - 1) / L,   and its limit max_k (||d_k|| / h_k) (sigma_N -
        sigma_0) for L = 0

    Raises:
        ValueError: an argument negative, NaN or infinite.
    """
    for name, value in (("largest_rate", largest_rate), ("lipschitz", lipschitz), ("sigma_range", sigma_range)):
        if not (np.isfinite(value) and value >= 0):
            raise ValueError(f"{name} = {value}; a finite number >= 0 is needed")
    return largest_rate * (np.expm1(lipschitz * sigma_range) / lipschitz if lipschitz > 0 else sigma_range)


def timestep_defect_bounds(sigmas: Any, states: Any, lipschitz: Any) -> np.ndarray:
    """What convention T can commit at each step, without any regularity in time.

        ||d_k|| <= h_k L^x_{k+1} ||x_{k+1} - x_k||

    Args:
        sigmas: (num_steps + 1,) increasing noise levels.
        states: (num_steps + 1, ...) the latents x_k of the inversion.
        lipschitz: (num_steps + 1,) Lipschitz constant L^x_k of eps(x, t_k) in the latent x.

    Returns:
        (num_steps,) float64.

    Raises:
        ValueError: noise levels that do not increase; sizes that differ.
    """
    check_noise_levels(sigmas)
    sigmas, states, lipschitz = (np.asarray(value, dtype=np.float64) for value in (sigmas, states, lipschitz))
    if len(states) != len(sigmas) or lipschitz.shape != sigmas.shape:
        raise ValueError(
            f"{len(sigmas)} noise levels, {len(states)} states and {lipschitz.size} Lipschitz constants; one of each "
            "per level"
        )
    moves = np.linalg.norm(np.diff(states.reshape(len(states), -1), axis=0), axis=1)
    return np.diff(sigmas) * lipschitz[1:] * moves


def _bound_of(instance: Instance, growth) -> Any:
    trip = instances.table_round_trip(instance)
    return trip_bound(trip, instances.table_rounding(trip, instance), growth)


def _bound(instance: Instance):
    return _bound_of(instance, step_growth(instance["sigmas"], instance["lipschitz"]))


def measure(instance: Instance):
    """||E_0|| of an instance."""
    return instances.norms(instances.table_round_trip(instance).errors[0])


PROBLEM = Problem(
    sizes=instances.SIZES,
    draw=instances.draw,
    instance=instances.instance,
    measured=measure,
    bound=_bound,
    operations=instances.operations,
)


def groenwall_instance(num_steps: int, lipschitz: float = 1.0, rate: float = 1.0, sigma_max: float = 2.0) -> Instance:
    """The predictor for which Groenwall is an equality, on uniform steps of [0, sigma_max] under convention S.

        e(y, sigma) = -L (y - c sigma^2 / 2) + c sigma,   y_0 = 0

    All its defects are positive for h L < 1, and every sampling step multiplies the error by exactly 1 + h L.
    """
    sigmas = jnp.linspace(0.0, sigma_max, num_steps + 1)
    levels = num_steps + 1
    direction = jnp.asarray([1.0, 0.0])
    return {
        "sigmas": sigmas,
        "start": jnp.zeros(instances.DIMENSION),
        "convention": jnp.asarray(int(Convention.S)),
        "start_offset": jnp.zeros(instances.DIMENSION),
        "lipschitz": jnp.full(levels, lipschitz),
        "blend": jnp.ones(levels),
        "linear": jnp.tile(-jnp.eye(2), (levels, 1, 1)),
        "inner": jnp.tile(jnp.eye(2), (levels, 1, 1)),
        "shift": jnp.zeros((levels, instances.DIMENSION)),
        "offset": ((lipschitz * rate * sigmas**2 / 2 + rate * sigmas)[:, None]) * direction[None, :],
    }


def groenwall_error(num_steps: int, lipschitz: float, rate: float, sigma_max: float) -> float:
    """|E_0| of that predictor, in closed form, for h L < 1.

        c h / L [(1 + h L)^N - 1 + (1 - (1 - h^2 L^2)^N) / 2]

    Raises:
        ValueError: h L >= 1, where defects change sign.
    """
    step = sigma_max / num_steps
    gain = step * lipschitz
    if not 0 < gain < 1:
        raise ValueError(
            f"h L = {gain:.6g} with h = {step:.6g}; it must lie in (0, 1): take more than {sigma_max * lipschitz:.6g} "
            "steps"
        )
    return (
        rate
        * step
        / lipschitz
        * (np.expm1(num_steps * np.log1p(gain)) - np.expm1(num_steps * np.log1p(-(gain**2))) / 2)
    )


def witness(*, num_steps: int) -> Instance:
    """The predictor for which Groenwall is an equality."""
    return groenwall_instance(num_steps)


def witness_parameters(*, num_steps: int) -> Parameters:
    """Parameters from which the family makes the witness."""
    return instances.parameters_of(witness(num_steps=num_steps), Convention.S)


def _broken(label: str, change) -> Outcome:
    size = instances.SIZES[1]
    return PROBLEM.outcome(change(dict(witness(**dict(size)))), size, label)


def _falling_levels() -> Outcome:
    """A predictor +L y, whose sampling steps contract going down and expand when the noise level rises on the way."""

    def change(instance):
        size = instance["sigmas"].shape[0]
        instance["sigmas"] = jnp.linspace(2.0, 1.0, size)
        instance["linear"] = -instance["linear"]
        instance["offset"] = jnp.linspace(0.0, 1.0, size)[:, None] * jnp.asarray([[1.0, 0.0]])
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


def _other_start() -> Outcome:
    return _broken("sampling starts 0.1 away", lambda instance: instance | {"start_offset": jnp.asarray([-0.1, 0.0])})


def _shifted_product(instance: Instance):
    growth = step_growth(instance["sigmas"], instance["lipschitz"])
    return _bound_of(instance, jnp.concatenate([jnp.ones(1), growth[:-1]]))


def _lower_level_constant(instance: Instance):
    sigmas, lipschitz = instance["sigmas"], instance["lipschitz"]
    return _bound_of(instance, 1 + (sigmas[1:] - sigmas[:-1]) * lipschitz[:-1])


def _no_growth(instance: Instance):
    return _bound_of(instance, jnp.ones(instance["sigmas"].shape[0] - 1))


def _largest_term(instance: Instance):
    trip = instances.table_round_trip(instance)
    growth = step_growth(instance["sigmas"], instance["lipschitz"])
    return jnp.max(instances.norms(trip.defects) * jnp.concatenate([jnp.ones(1), jnp.cumprod(growth[:-1])]))


def two_point_growth(trip: RoundTrip) -> np.ndarray:
    """1 + h_k L_{k+1} with the least L for which the predictor's two recorded values at level k + 1 are Lipschitz,
    (N,), NumPy."""
    errors = np.linalg.norm(trip.errors[1:], axis=1)
    changes = np.linalg.norm(trip.feedback, axis=1)
    return 1 + np.divide(changes, errors, out=np.zeros_like(errors), where=errors > 0)


def path_growth(trip: RoundTrip) -> np.ndarray:
    """What each sampling step did to the error it was given, (N,).

        g_k = ||E_{k+1} - h_k [e(w_{k+1}) - e(z_{k+1})]|| / ||E_{k+1}||

    With these factors the sum of bound A holds for this pair of trajectories by the triangle inequality alone; they say
    nothing about another.
    """
    before = np.linalg.norm(trip.errors[1:], axis=1)
    after = np.linalg.norm(trip.errors[1:] - trip.feedback, axis=1)
    return np.divide(after, before, out=np.ones_like(before), where=before > 0)


def recorded_roundings(trip: RoundTrip) -> np.ndarray:
    """Rounding of each recorded step, (N,): the network's own rounding cancels, since its recorded values are used as
    they are."""
    states, used = instances.operands(trip)
    # A scheduler's step goes through the latent: x_0 = (x - b eps) / a, and back, with operands sigma eps.
    return relative_budget(instances.OPERATIONS_PER_STEP) * (states + (trip.sigmas[:-1] + trip.sigmas[1:]) * used)


def identity_residuals(trip: RoundTrip) -> np.ndarray:
    """||E_k - (E_{k+1} - h_k [e_{k+1}(w_{k+1}) - e_{k+1}(z_{k+1})] - d_k)|| per step, (N,); zero up to rounding."""
    return np.linalg.norm(trip.errors[:-1] - (trip.errors[1:] - trip.feedback - trip.defects), axis=1)


def _recursion(evidence: Evidence) -> Sequence[Outcome]:
    outcomes = []
    for record in evidence.round_trips:
        trip = recorded_round_trip(record)
        roundings, residuals = recorded_roundings(trip), identity_residuals(trip)
        step = int(np.argmax(residuals / roundings))
        budget = relative_budget(instances.operations(num_steps=len(roundings)))
        outcomes.append(Outcome(f"{record.label}: step {step}", float(residuals[step]), float(roundings[step]), budget))
    return outcomes


def _own_growth(evidence: Evidence) -> Sequence[Outcome]:
    outcomes = []
    for record in evidence.round_trips:
        trip = recorded_round_trip(record)
        roundings = recorded_roundings(trip)
        bound = trip_bound(trip, roundings, two_point_growth(trip))
        budget = relative_budget(instances.operations(num_steps=len(roundings)))
        outcomes.append(Outcome(record.label, float(np.linalg.norm(trip.errors[0])), float(bound), budget))
    return outcomes


@recorded.at_every_level
def _growth_from_elsewhere(record, found, trip):
    growth = recorded.growth_of_error(trip, found.step)
    return None if growth is None else (growth, found.stretched)


CLAIM = Claim(
    id="C3.round-trip",
    title="Round-trip error of DDIM inversion from its one-step defects",
    statement=(
        "The round-trip error is at most the sum of the one-step defects, each multiplied by the growth 1 + h L of the "
        "sampling steps it still has to pass, and no smaller combination of these numbers will do."
    ),
    latex=r"\|E_0\| \le \sum_{k=0}^{N-1} \|d_k\| \prod_{j<k} (1 + h_j L_{j+1})",
    hypotheses=(
        Hypothesis("H1", "The noise levels increase from the data to the noise."),
        Hypothesis(
            "H2",
            "L_k is a Lipschitz constant of the predictor at level k on a convex set that holds both trajectories' "
            "states.",
        ),
        Hypothesis("H3", "Sampling starts where the inversion ended."),
    ),
    verdict=Verdict.PROVED,
    tightness=Tightness.ATTAINED,
    origin="claim C3; the paper's bound is not known to us",
    measured_in_words="norm of the round-trip error in the variables y = x / sqrt(alphas_cumprod)",
    bound_in_words=(
        "one-step defects, each times the product of the growth factors 1 + h L that it still passes, in the same "
        "variables"
    ),
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    necessity={"H1": _falling_levels, "H2": _understated_constant, "H3": _other_start},
    planted={
        "product over j < k - 1": _shifted_product,
        "L_j for L_{j+1}": _lower_level_constant,
        "no growth": _no_growth,
        "the largest term for the sum": _largest_term,
    },
    reality=(
        Comparison(
            question=(
                "Growth of the recorded error in a sampling step, first frame, against the largest stretch of pairs "
                "of states that were sought elsewhere, a thousandth of the state's norm away from the inversion"
            ),
            origin=Origin.NETWORK,
            tells=Tells.TEST,
            compare=_growth_from_elsewhere,
        ),
        Comparison(
            question=(
                "The exact recursion of the error along the recorded trip: what is left of it, against the rounding "
                "of its operands"
            ),
            origin=Origin.NETWORK,
            tells=Tells.IDENTITY,
            compare=_recursion,
        ),
        Comparison(
            question=(
                "Round-trip error of all frames, against the bound with the growth read off the same two trajectories"
            ),
            origin=Origin.NETWORK,
            tells=Tells.IDENTITY,
            compare=_own_growth,
        ),
    ),
    relies_on=("C3.any-inversion",),
    lemmas=("discrete Groenwall inequality",),
    floor=0.999,
    floor_reason=(
        "attained where defects of all steps point one way and the predictor is -L y + b_k; ascent turns them there "
        "gradually"
    ),
)
