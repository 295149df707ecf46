r"""Bound B1: a tube around the inversion that holds the sampling, from derivatives along the inversion.

Statement. With J_k the Jacobian of e_k, g_k = ||I - h_k J_{k+1}(z_{k+1})|| and M_k a Lipschitz constant of J_{k+1} on
the ball B(z_{k+1}, r_{k+1}), the radii

    r_N = 0, \qquad r_k = g_k r_{k+1} + \tfrac{1}{2} h_k M_k r_{k+1}^2 + \|d_k\|

satisfy ||E_k|| <= r_k. Everything on the right is known once the inversion is done, level by level from the noise down:
the ball of M_k has the radius that the step before has found.

The growth is ||I - h J||, not a logarithmic norm. exp(h mu(J)), mu(J) the largest eigenvalue of the symmetric part,
bounds what the INVERSION does to an error: for e(y) = -L y it promises exp(-h L) where sampling grows by 1 + h L. Even
the right one, exp(h mu(-J)), is no bound on an Euler step: for J = L times a quarter turn mu(-J) = 0, and ||I - h J|| =
sqrt(1 + h^2 L^2).

Hypotheses.
    H1  The noise levels increase from the data to the noise.
    H2  M_k is a Lipschitz constant of J_{k+1} on the whole ball B(z_{k+1}, r_{k+1}), not at its centre only.
    H3  Sampling starts where the inversion ended.

**Attained** in one dimension by e_k(y) = b_k - L y - M y^2 / 2 with defects that push into the bend; for M = 0
it is exact on Gaussian data in one dimension.

In the paper: not there; bound A of C3.round-trip without a Lipschitz constant. Proof: paper_notes.md, section C3.tube.
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
    Problem,
    Size,
    Tells,
    Tightness,
    Verdict,
)
from theory.evidence import Evidence
from theory.inversion import instances, recorded
from theory.inversion.ddim import Convention, Predictor, RoundTrip, round_trip
from theory.inversion.log_concave import fitted_gaussian_outcomes
from theory.inversion.schedule import as_vector, check_noise_levels, is_traced, refuse_first

DIMENSION = instances.DIMENSION
SIZES: tuple[Size, ...] = ((("num_steps", 3),),)
"""Short: the radius can square at every step, and eight squarings of a drawn radius leave the floating-point range."""

LARGEST_BEND = 2.0


def tube_bound(sigmas: Any, defects: Any, growth: Any, curvature: Any) -> Any:
    """Radii of balls around the inversion's states that hold the sampling's.

        r_N = 0,   r_k = growth[k] r_{k+1} + h_k M_k r_{k+1}^2 / 2 + defects[k],   h_k = sigmas[k+1] - sigmas[k]

    Args:
        sigmas: (num_steps + 1,) increasing noise levels.
        defects: (num_steps,) norms ||d_k||; k = 0 is the step nearest the data.
        growth: (num_steps,) ||I - h_k J_{k+1}(z_{k+1})||, for example from `euler_growth`.
        curvature: (num_steps,) M_k; or a function (step, radius) -> M_k, a Lipschitz constant of J_{k+1} on the ball of
            that radius around z_{k+1}.

    Returns:
        (num_steps + 1,) float64 radii r_0, .., r_N of the same kind as the defects; r_0 bounds the round-trip error.

    Raises:
        ValueError: noise levels that do not increase; sizes that differ; an entry negative, NaN or infinite; a radius
            above the largest float, with the step at which the tube burst.

    Source: paper_notes.md, C3.tube.
    """
    check_noise_levels(sigmas)
    sigmas, _ = as_vector("noise levels", sigmas)
    defects, xp = as_vector("defects", defects)
    growth, _ = as_vector("growth", growth)
    num_steps = sigmas.shape[0] - 1
    vectors = {"defects": defects, "growth factors": growth}
    if not callable(curvature):
        vectors["curvatures"], _ = as_vector("curvatures", curvature)
    for name, vector in vectors.items():
        if vector.shape[0] != num_steps:
            raise ValueError(f"{num_steps} steps and {vector.shape[0]} {name} were given; one is needed per step")
        if not is_traced(vector):
            refuse_first(name, vector, vector < 0, "a norm is at least 0")
    radius = 0 * defects[0]
    radii = [radius]
    for step in reversed(range(num_steps)):
        bend = curvature(step, radius) if callable(curvature) else vectors["curvatures"][step]
        if not is_traced(bend) and not (np.isfinite(float(bend)) and float(bend) >= 0):
            raise ValueError(
                f"curvature at step {step} is {float(bend):.6g}; a finite Lipschitz constant >= 0 is needed"
            )
        with np.errstate(over="ignore"):
            radius = growth[step] * radius + (sigmas[step + 1] - sigmas[step]) * bend * radius**2 / 2 + defects[step]
        if not is_traced(radius) and not np.isfinite(float(radius)):
            raise ValueError(
                f"the tube's radius at step {step} is {float(radius)}, above the largest float "
                f"{np.finfo(np.float64).max:.3g}: take shorter steps, or a curvature of smaller balls"
            )
        radii.append(radius)
    return xp.stack(radii[::-1])


def euler_growth(sigmas: Any, jacobians: Any) -> np.ndarray:
    """||I - h_k J_{k+1}||, the factor by which sampling step k can enlarge a small error.

    Args:
        sigmas: (num_steps + 1,) increasing noise levels.
        jacobians: (num_steps, dimension, dimension) J_{k+1} at z_{k+1}.

    Returns:
        (num_steps,) float64.

    Raises:
        ValueError: noise levels that do not increase; sizes that differ.
    """
    check_noise_levels(sigmas)
    steps, jacobians = np.diff(np.asarray(sigmas, dtype=np.float64)), np.asarray(jacobians, dtype=np.float64)
    if jacobians.ndim != 3 or len(jacobians) != len(steps) or jacobians.shape[1] != jacobians.shape[2]:
        raise ValueError(
            f"jacobians have shape {jacobians.shape}; ({len(steps)}, dimension, dimension) is needed for "
            f"{len(steps) + 1} noise levels"
        )
    return np.linalg.norm(np.eye(jacobians.shape[1]) - steps[:, None, None] * jacobians, ord=2, axis=(1, 2))


def _bent_predictor(instance: Instance) -> Predictor:
    """e_k(y) = L_k R_k y + b_k + c_k psi(<q_k, y>) p_k, with unit vectors p_k, q_k and 0 <= m_k <= 1 in

    psi(t) = (1 - m_k) t^2 / 2 + m_k (sqrt(1 + t^2) - 1),   psi''(t) = 1 - m_k + m_k (1 + t^2)^(-3/2)

    Its Jacobian is L_k R_k + c_k psi'(<q_k, y>) p_k q_k^T.
    """

    def predict(state: jax.Array, level: jax.Array) -> jax.Array:
        along, share = instance["inner"][level] @ state, instance["share"][level]
        bent = (1 - share) * along**2 / 2 + share * (jnp.sqrt(1 + along**2) - 1)
        linear = instance["lipschitz"][level] * (instance["linear"][level] @ state)
        return linear + instance["offset"][level] + instance["bend"][level] * bent * instance["outer"][level]

    return predict


def _simulate(instance: Instance) -> RoundTrip:
    return round_trip(
        _bent_predictor(instance),
        instance["sigmas"],
        instance["start"],
        instance["convention"],
        start_offset=instance["start_offset"],
    )


def measure(instance: Instance):
    """||E_0|| of an instance."""
    return instances.norms(_simulate(instance).errors[0])


def _norm(matrices: jax.Array) -> jax.Array:
    """Spectral norms of 2 x 2 matrices: the radii of the rotating and of the reflecting part, added."""
    (a, b), (c, d) = (matrices[..., 0, 0], matrices[..., 0, 1]), (matrices[..., 1, 0], matrices[..., 1, 1])
    return (jnp.hypot(a + d, c - b) + jnp.hypot(a - d, b + c)) / 2


def _jacobians(instance: Instance, trip: RoundTrip) -> jax.Array:
    """J_{k+1}(z_{k+1}), (N, 2, 2)."""
    along = jnp.sum(instance["inner"] * trip.inversion, axis=1)[1:]
    share = instance["share"][1:]
    slope = instance["bend"][1:] * ((1 - share) * along + share * along / jnp.sqrt(1 + along**2))
    linear = instance["lipschitz"][1:, None, None] * instance["linear"][1:]
    return linear + slope[:, None, None] * instance["outer"][1:, :, None] * instance["inner"][1:, None, :]


def _growth(instance: Instance, trip: RoundTrip) -> jax.Array:
    return _norm(jnp.eye(DIMENSION)[None] - trip.steps[:, None, None] * _jacobians(instance, trip))


def _defects(instance: Instance, trip: RoundTrip) -> jax.Array:
    """||d_k|| with the roundings of the step added, (N,)."""
    # The bend is rounded at the size of 1 + t^2, of each of the two states.
    squares = 2 + instances.norms(trip.inversion)[1:] ** 2 + instances.norms(trip.sampling)[1:] ** 2
    constants = instances.norms(instance["offset"])[1:] + jnp.abs(instance["bend"][1:]) * squares
    roundings = instances.rounding_defects(trip, instance["lipschitz"][1:], constants)
    return instances.norms(trip.defects) + roundings


def _radius(instance: Instance, growth=_growth, bend_weight: float = 1.0):
    trip = _simulate(instance)
    along = jnp.abs(jnp.sum(instance["inner"] * trip.inversion, axis=1))

    def curvature(step, radius):
        share, bend = instance["share"][step + 1], jnp.abs(instance["bend"][step + 1])
        nearest = jnp.maximum(along[step + 1] - instance["ball"] * radius, 0.0)
        return bend_weight * bend * (1 - share + share * (1 + nearest**2) ** -1.5)

    return tube_bound(instance["sigmas"], _defects(instance, trip), growth(instance, trip), curvature)[0]


def _draw(key: jax.Array, *, num_steps: int) -> Parameters:
    keys = jax.random.split(key, 5)
    levels = num_steps + 1
    spread = 10.0 ** jax.random.uniform(keys[0], minval=-3.0, maxval=0.5)
    return instances.draw(keys[1], num_steps=num_steps) | {
        "bend": jax.random.normal(keys[2], (levels,)),
        "share": jax.random.normal(keys[3], (levels,)),
        "bend_angles": spread * jax.random.normal(keys[4], (levels, 2)),
    }


def _instance(parameters: Parameters, *, num_steps: int) -> Instance:
    drawn = instances.instance(parameters, num_steps=num_steps)
    angles = parameters["bend_angles"]
    names = ("sigmas", "start", "convention", "start_offset", "lipschitz", "linear", "offset")
    return {name: drawn[name] for name in names} | {
        "bend": LARGEST_BEND * jnp.tanh(parameters["bend"]),
        "share": jnp.sin(parameters["share"]) ** 2,
        "inner": instances.rotations(angles[:, 0])[:, :, 0],
        "outer": instances.rotations(angles[:, 0] + angles[:, 1])[:, :, 0],
        "ball": jnp.asarray(1.0),
    }


def _operations(*, num_steps: int) -> int:
    """Roundings in units of the witness's error: operands of at most 8 a step (states up to 1, slope 1, bend 1, offset
    3 / 2), against defects of at least h / 8, two of which point one way; the norm of a 2 x 2 matrix has 12."""
    return (instances.OPERATIONS_PER_STEP * 64 + 12) * num_steps


PROBLEM = Problem(sizes=SIZES, draw=_draw, instance=_instance, measured=measure, bound=_radius, operations=_operations)


def witness(*, num_steps: int) -> Instance:
    """e_k(y) = 3/2 - k (k + 1) / 4 - y - y^2 / 2 from y_0 = 1 under S, which is at rest until the offset falls."""
    levels = num_steps + 1
    falls = jnp.arange(levels) * jnp.arange(1, levels + 1) / 4
    axis = jnp.asarray([1.0, 0.0])
    return {
        "sigmas": jnp.arange(levels) / 4,
        "start": axis,
        "convention": jnp.asarray(int(Convention.S)),
        "start_offset": jnp.zeros(DIMENSION),
        "lipschitz": jnp.ones(levels),
        "linear": jnp.tile(-jnp.eye(DIMENSION), (levels, 1, 1)),
        "offset": (1.5 - falls)[:, None] * axis[None, :],
        "bend": -jnp.ones(levels),
        "share": jnp.zeros(levels),
        "inner": jnp.tile(axis, (levels, 1)),
        "outer": jnp.tile(axis, (levels, 1)),
        "ball": jnp.asarray(1.0),
    }


def witness_parameters(*, num_steps: int) -> Parameters:
    """Parameters from which the family makes the witness."""
    instance, levels = witness(num_steps=num_steps), num_steps + 1
    straight = {
        "blend": jnp.ones(levels),
        "inner": jnp.tile(jnp.eye(DIMENSION), (levels, 1, 1)),
        "shift": jnp.zeros((levels, DIMENSION)),
    }
    return instances.parameters_of(instance | straight, Convention.S) | {
        "bend": jnp.arctanh(instance["bend"] / LARGEST_BEND),
        "share": jnp.zeros(levels),
        "bend_angles": jnp.zeros((levels, 2)),
    }


def _broken(label: str, **changes: Any) -> Outcome:
    size = SIZES[0]
    return PROBLEM.outcome(
        dict(witness(**dict(size))) | {name: jnp.asarray(value) for name, value in changes.items()}, size, label
    )


def _falling_levels() -> Outcome:
    """Backwards, h_k < 0 takes the bend off the radius, and the error has it all the same."""
    levels = SIZES[0][0][1] + 1
    return _broken(
        "noise levels that decrease",
        sigmas=np.linspace(0.75, 0.0, levels),
        bend=np.ones(levels),
        offset=np.outer(np.arange(levels) - 0.5, [1.0, 0.0]),
    )


def _curvature_at_the_centre() -> Outcome:
    """A bend started where it is straight: its curvature lies inside the ball and not at the centre."""
    levels = SIZES[0][0][1] + 1
    return _broken(
        "curvature at the centre of the ball only",
        ball=0.0,
        share=np.ones(levels),
        bend=np.full(levels, -8.0),
        linear=np.zeros((levels, DIMENSION, DIMENSION)),
        start=np.array([-3.0, 0.0]),
        offset=np.outer([17.3] + [-2.7] * (levels - 1), [1.0, 0.0]),
    )


def _other_start() -> Outcome:
    return _broken("sampling starts elsewhere", start_offset=[1.0, 0.0])


def _logarithmic_growth(instance: Instance, trip: RoundTrip) -> jax.Array:
    """exp(h mu(J)): the growth of the inversion, and the wrong sign for sampling."""
    jacobians = _jacobians(instance, trip)
    return jnp.exp(trip.steps * jnp.linalg.eigvalsh((jacobians + jacobians.mT) / 2)[:, -1])


def _with_fitted_gaussian(evidence: Evidence) -> Sequence[Outcome]:
    """The real clip on the real schedule with the exact predictor of a Gaussian fitted to its frames, where M = 0: the
    Jacobian of a network has no Lipschitz constant that anybody knows."""

    def bound(sigmas: np.ndarray, defects: np.ndarray, variances: np.ndarray) -> float:
        slopes = np.diff(sigmas)[:, None] * sigmas[1:, None] / (variances + sigmas[1:, None] ** 2)
        growth = np.abs(1 - slopes).max(axis=1)
        return float(tube_bound(sigmas, defects, growth, np.zeros(len(defects)))[0])

    return fitted_gaussian_outcomes(evidence, bound)


@recorded.at_every_level
def _halves(record, found, trip):
    change = trip.sampling_predictions[found.step] - trip.predictions_at_inversion[found.step]
    if not record.error.any():
        return None
    return np.linalg.norm(change - 2 * record.half_error_change), np.linalg.norm(change) / 4


CLAIM = Claim(
    id="C3.tube",
    title="A tube around the inversion that holds the sampling",
    statement=(
        "From the Jacobian on the inversion trajectory, a Lipschitz constant of it on balls around that trajectory "
        "and the one-step defects, a recursion gives radii within which the sampling stays; none of its three terms "
        "can be made smaller."
    ),
    latex=(
        r"\|E_k\| \le r_k,\quad r_k = \|I - h_k J_{k+1}(z_{k+1})\|\, r_{k+1} + \tfrac12 h_k M_k r_{k+1}^2 + \|d_k\|,"
        r"\quad r_N = 0"
    ),
    hypotheses=(
        Hypothesis("H1", "The noise levels increase from the data to the noise."),
        Hypothesis(
            "H2", "M_k is a Lipschitz constant of the Jacobian on the whole ball around z_{k+1} of radius r_{k+1}."
        ),
        Hypothesis("H3", "Sampling starts where the inversion ended."),
    ),
    verdict=Verdict.PROVED,
    tightness=Tightness.ATTAINED,
    origin="not in the paper; claim C3 without a Lipschitz constant",
    measured_in_words="norm of the round-trip error in the variables y = x / sqrt(alphas_cumprod)",
    bound_in_words="radius of the tube at the data's level, in the same variables",
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    necessity={"H1": _falling_levels, "H2": _curvature_at_the_centre, "H3": _other_start},
    planted={
        "half of the curvature": lambda instance: _radius(instance, bend_weight=0.5),
        "without the curvature": lambda instance: _radius(instance, bend_weight=0.0),
        "no growth": lambda instance: _radius(instance, growth=lambda instance, trip: jnp.ones_like(trip.steps)),
        "logarithmic norm of the wrong sign": lambda instance: _radius(instance, growth=_logarithmic_growth),
    },
    reality=(
        Comparison(
            question=(
                "The network is nearly linear across the recorded error, first frame: its change over the whole error "
                "minus twice its change over half of it, against a quarter of the whole change. The half way state "
                "belongs to neither trajectory"
            ),
            origin=Origin.NETWORK,
            tells=Tells.TEST,
            compare=_halves,
        ),
        Comparison(
            question=(
                "The clip on its schedule with the exact score of a Gaussian fitted to its frames, whose Jacobian is "
                "constant: round-trip error against the tube's radius"
            ),
            origin=Origin.CLIP,
            tells=Tells.IMPLIED,
            compare=_with_fitted_gaussian,
            because="the theorem, since the Jacobian is constant (M = 0)",
        ),
    ),
    relies_on=("C3.any-inversion",),
    lemmas=("Taylor's formula with integral remainder",),
    floor=0.999,
    floor_reason=(
        "attained where every defect pushes along the growth's direction into the bend; ascent turns them gradually"
    ),
)
