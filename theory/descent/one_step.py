r"""The one-step descent lemma and its sharp threshold: for an L-smooth function a gradient step is safe exactly for eta
<= 2/L.

Statement. Let the gradient of f: R^n -> R be Lipschitz with constant L, and x_1 = x_0 - eta grad f(x_0), eta > 0. Then

    f(x_1) - f(x_0) \le - \eta \Bigl(1 - \frac{\eta L}{2}\Bigr) \|\nabla f(x_0)\|^2,

and for every eta > 0 no smaller factor will do: f(x) = L x^2 / 2 attains it. So the loss falls at every point that is
not critical for every such f if eta < 2/L, and for eta > 2/L it rises by as much as (eta/2)(eta L - 2) ||grad f||^2.
The inequality is checked in the equivalent form that does not cancel: the curvature that the step sees,

    \kappa = \frac{2 \, [f(x_1) - f(x_0) + \eta \|\nabla f(x_0)\|^2]}{\eta^2 \|\nabla f(x_0)\|^2} \le L.

Hypotheses.
    H1  grad f is Lipschitz with constant L on the segment from x_0 to x_1 (for every start and step: on R^n).
    H2  eta > 0.

**Attained** by f(x) = L x^2 / 2 for every eta. A solver for worst cases over all L-smooth functions (PEPit)
finds the same number, in test_one_step.py.

In the paper: the range of learning rates of the convergence claim (C2) is read as 0 < eta < 2/L. The temporal loss is
not L-smooth (C1.stated); its regularised form is (C1.regularised), and is what the lemma is measured on. Proof:
paper_notes.md, section C2.one-step.
"""

import math
from collections.abc import Sequence

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
from theory.descent.expansion import averaged_curvature
from theory.descent.instances import draw_normals
from theory.evidence import Evidence
from theory.rounding import relative_budget
from theory.temporal_loss import instances, recorded
from theory.temporal_loss.hessian import hessian_constant
from theory.temporal_loss.loss import temporal_loss

SIZES: tuple[Size, ...] = ((("dimension", 1),), (("dimension", 3),))

LARGEST_EXPONENT = 8.0
"""Of the logarithms of drawn scales."""


def worst_change(step_size: float, smoothness: float) -> float:
    """The largest possible f(x_1) - f(x_0), in units of ||grad f(x_0)||^2, over all L-smooth functions.

        - eta (1 - eta L / 2),   negative below 2/L, positive above

    Source: paper_notes.md, C2.one-step.

    Raises:
        ValueError: step_size or smoothness not a finite number above 0.
    """
    for name, value in (("step_size", step_size), ("smoothness", smoothness)):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} = {value}; a finite number above 0 is needed")
    return -step_size * (1 - step_size * smoothness / 2)


def _rows(instance: Instance) -> jax.Array:
    """The 2 n directions q_j, two orthonormal bases over sqrt 2, so that sum_j q_j q_j^T = I."""
    axis = instances.unit_rows(instance["mirror"][None])[0]
    size = axis.shape[0]
    return jnp.concatenate([jnp.eye(size), jnp.eye(size) - 2 * axis[:, None] * axis[None, :]]) / jnp.sqrt(2.0)


def value(instance: Instance, point: jax.Array) -> jax.Array:
    """f(x) = sum_j phi_j(<q_j, x>), phi_j(t) = a_j t^2 / 2 - (b_j / w_j^2) cos(w_j t + c_j)."""
    places = _rows(instance) @ point
    frequency = instance["frequency"]
    waves = instance["wave"] / frequency**2 * jnp.cos(frequency * places + instance["phase"])
    return jnp.sum(instance["quadratic"] * places**2 / 2 - waves)


def slope(instance: Instance, point: jax.Array) -> jax.Array:
    """grad f."""
    places = _rows(instance) @ point
    frequency = instance["frequency"]
    waves = instance["wave"] / frequency * jnp.sin(frequency * places + instance["phase"])
    return _rows(instance).T @ (instance["quadratic"] * places + waves)


def _sine_defect(angle: jax.Array) -> jax.Array:
    """2 (x - sin x) / x^2, by its series where the difference would cancel."""
    small = jnp.abs(angle) < 0.5
    inside, outside = jnp.where(small, angle, 0.0), jnp.where(small, 1.0, angle)
    squared, term, total = inside**2, inside / 3, jnp.zeros_like(angle)
    # x/3 - x^3/60 + ..; at |x| = 1/2 the ninth term is below 1e-20 of the first.
    for order in range(2, 11):
        total = total + term
        term = -term * squared / ((2 * order) * (2 * order + 1))
    return jnp.where(small, total, 2 * (outside - jnp.sin(outside)) / outside**2)


def step_curvature(instance: Instance) -> jax.Array:
    """The curvature that the step sees; 0 at a critical point.

        kappa = sum_j kappa_j <q_j, g>^2 / ||g||^2,   x = w_j eta <q_j, g>,   theta = w_j <q_j, x_0> + c_j,
        kappa_j = a_j + b_j [cos(theta) (sin(x/2) / (x/2))^2 + 2 sin(theta) (x - sin x) / x^2]
    """
    rows, frequency = _rows(instance), instance["frequency"]
    along = rows @ slope(instance, instance["start"])
    scale = jax.lax.stop_gradient(jnp.max(jnp.abs(along)))
    shares = (along / jnp.where(scale > 0, scale, 1.0)) ** 2
    angle = frequency * instance["step_size"] * along
    theta = frequency * (rows @ instance["start"]) + instance["phase"]
    seen = jnp.cos(theta) * jnp.sinc(angle / (2 * jnp.pi)) ** 2 + jnp.sin(theta) * _sine_defect(angle)
    total = jnp.sum(shares)
    return jnp.sum((instance["quadratic"] + instance["wave"] * seen) * shares) / jnp.where(total > 0, total, 1.0)


def _draw(key: jax.Array, *, dimension: int) -> Parameters:
    rows = (2 * dimension,)
    return draw_normals(
        key,
        {
            "quadratic": rows,
            "wave": rows,
            "phase": rows,
            "log_frequency": rows,
            "start": (dimension,),
            "mirror": (dimension,),
            "log_smoothness": (),
            "log_step": (),
        },
    )


def _bounded_exp(log: jax.Array) -> jax.Array:
    return jnp.exp(LARGEST_EXPONENT * jnp.tanh(log / LARGEST_EXPONENT))


def _instance(parameters: Parameters, *, dimension: int) -> Instance:
    """Quadratics and waves of either sign, |a_j| + |b_j| <= L, hence L-smooth and in general not convex; any step
    size."""
    smoothness = _bounded_exp(parameters["log_smoothness"])
    quadratic, wave = parameters["quadratic"], parameters["wave"]
    share = smoothness / jnp.maximum(jnp.abs(quadratic) + jnp.abs(wave), 1.0)
    return {
        "quadratic": share * quadratic,
        "wave": share * wave,
        "frequency": _bounded_exp(parameters["log_frequency"]),
        "phase": parameters["phase"],
        "start": parameters["start"],
        "mirror": parameters["mirror"],
        "step_size": _bounded_exp(parameters["log_step"]) / smoothness,
        "smoothness": smoothness,
    }


def _operations(*, dimension: int) -> int:
    """Longest chain of roundings from the coefficients to the curvature.

    Whatever the rounded angles and shares, kappa is a weighted mean of a_j + b_j times an average of cosines: its own
    roundings are those of the share, the series (counted as 32) and two sums over 2 n directions.
    """
    return 64 + 8 * dimension


def _magnitude(instance: Instance) -> jax.Array:
    # A step that sees negative curvature gains more than promised; 0 keeps the magnitude that is compared non-negative.
    return jnp.maximum(step_curvature(instance), 0.0)


PROBLEM = Problem(
    sizes=SIZES,
    draw=_draw,
    instance=_instance,
    measured=_magnitude,
    bound=lambda instance: instance["smoothness"],
    operations=_operations,
)


def witness(*, dimension: int) -> Instance:
    """f(x) = L ||x||^2 / 2 with L = 2, and a step of 2.2 / L, beyond the threshold."""
    rows = jnp.ones(2 * dimension)
    return {
        "quadratic": 2 * rows,
        "wave": 0 * rows,
        "frequency": rows,
        "phase": 0 * rows,
        "start": jnp.ones(dimension),
        "mirror": jnp.ones(dimension),
        "step_size": jnp.asarray(1.1),
        "smoothness": jnp.asarray(2.0),
    }


def witness_parameters(*, dimension: int) -> Parameters:
    rows = jnp.ones(2 * dimension)
    exact = LARGEST_EXPONENT * jnp.arctanh(jnp.log(jnp.asarray([2.0, 2.2])) / LARGEST_EXPONENT)
    return {
        "quadratic": rows,
        "wave": 0 * rows,
        "phase": 0 * rows,
        "log_frequency": 0 * rows,
        "start": jnp.ones(dimension),
        "mirror": jnp.ones(dimension),
        "log_smoothness": exact[0],
        "log_step": exact[1],
    }


def _smooth_at_the_start_only() -> Outcome:
    # f(x) = - 8 cos(x / sqrt 2 + c) up to a constant: f''(0) = 8 cos(c) = 1.6 < L = 2, but up to 8 on the way down.
    instance = dict(witness(dimension=1))
    phase = jnp.arccos(jnp.asarray(0.2))
    instance |= {
        "quadratic": jnp.zeros(2),
        "wave": jnp.full(2, 8.0),
        # The second direction is the first one's opposite.
        "phase": jnp.stack([phase, -phase]),
        "start": jnp.zeros(1),
        "step_size": jnp.asarray(1 / 6),
    }
    return PROBLEM.outcome(instance, SIZES[0], "second derivative below L at the start, above it further on")


def _curvature_at_start(instance: Instance) -> jax.Array:
    places = _rows(instance) @ instance["start"]
    waves = instance["wave"] * jnp.cos(instance["frequency"] * places + instance["phase"])
    return jnp.max(jnp.abs(instance["quadratic"] + waves))


def regularised_step(frames: jax.Array, epsilon: jax.Array, step_size: jax.Array) -> jax.Array:
    """The curvature that a step of gradient descent on the regularised temporal loss sees, of (frames, dimension) JAX
    frames."""
    gradient = jax.grad(lambda x: temporal_loss(x, epsilon=epsilon))(frames)
    scale = jnp.max(jnp.abs(gradient))
    direction = gradient / jnp.where(scale > 0, scale, 1.0)
    return averaged_curvature(
        frames, direction, jnp.zeros_like(frames), step_size * scale, jnp.sum(direction**2), epsilon
    )


def _reality(evidence: Evidence) -> Sequence[Outcome]:
    """The regularised temporal loss is smooth everywhere, with L = C_N / eps^2: one step on the network's features."""
    outcomes = []
    for label, size, start in instances.frame_instances(evidence):
        epsilon = 0.1 * start["min_norm"]
        smoothness = hessian_constant(dict(size)["num_frames"]) / epsilon**2
        for multiple in (0.99, 2.2):
            curvature = jax.jit(regularised_step)(start["frames"], epsilon, multiple / smoothness)
            outcomes.append(
                Outcome(
                    f"{label}, regularised, eta L = {multiple}",
                    max(float(curvature), 0.0),
                    float(smoothness),
                    relative_budget(instances.operations(**dict(size))),
                    witness={"frames": np.asarray(start["frames"]), "epsilon": np.asarray(epsilon)},
                )
            )
    return outcomes


STIFFER = 1.5


def _first_steps(evidence: Evidence) -> Sequence[Outcome]:
    """Loss of the features after the first step of a run, beside what loss, gradient and curvature before it promise."""
    outcomes = []
    standard = [record for record in evidence.trainings if record.kind == "scaled" and record.scale == 1]
    for record in (*recorded.runs(evidence, "temporal"), *standard):
        promised = record.temporal_losses[0] - recorded.change_promised(record, stiffer=STIFFER)
        outcomes.append(recorded.compared(f"step 1 of the {record.label}", recorded.loss_of_features(record, 1), promised))
    return outcomes


def _mean_smoothness(instance: Instance) -> jax.Array:
    return jnp.mean(jnp.abs(instance["quadratic"]) + jnp.abs(instance["wave"]))


CLAIM = Claim(
    id="C2.one-step",
    title="One gradient step on a smooth function, with the sharp threshold 2/L",
    statement=(
        "A gradient step of size eta on a function whose gradient is L-Lipschitz changes its value by at most "
        "-eta (1 - eta L / 2) times the squared gradient, for every eta, and no smaller number will do: it descends "
        "for sure exactly for eta < 2/L."
    ),
    latex=(
        r"f(x_1) - f(x_0) \le -\eta\Bigl(1 - \frac{\eta L}{2}\Bigr)\|\nabla f(x_0)\|^2,"
        r"\quad x_1 = x_0 - \eta\nabla f(x_0)"
    ),
    hypotheses=(
        Hypothesis("H1", "grad f is Lipschitz with constant L on the segment from x_0 to x_1."),
        Hypothesis("H2", "eta > 0."),
    ),
    verdict=Verdict.PROVED,
    tightness=Tightness.ATTAINED,
    origin="the textbook lemma behind the paper's convergence claim, whose range of learning rates is our reading",
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    measured_in_words="curvature that a step sees, 2 (f(x_1) - f(x_0) + eta ||g||^2) / (eta^2 ||g||^2)",
    bound_in_words="L, the Lipschitz constant of the gradient, in the same units",
    sharpness="attained in every dimension and for every eta, by f(x) = L x^2 / 2",
    necessity={"H1": _smooth_at_the_start_only},
    definitional={"H2": "without a step there is nothing to compare"},
    planted={
        "the mean of the directions' constants for the largest": Plant(
            _mean_smoothness, lambda dimension: dimension > 1, "on a line both directions are the same, and the curvature is their mean"
        ),
        "L/2 for L (a threshold of 4/L)": lambda instance: instance["smoothness"] / 2,
        "the curvature at the start alone": _curvature_at_start,
        "the quadratic part alone": lambda instance: jnp.max(jnp.abs(instance["quadratic"])),
    },
    reality=(
        Comparison(
            question=(
                "Is the curvature that a step on the regularised temporal loss sees at the UNet's features at most "
                "C_N / eps^2, eps a tenth of their least norm?"
            ),
            origin=Origin.NETWORK,
            tells=Tells.IMPLIED,
            compare=_reality,
            because="C2.one-step and C1.regularised, which ask nothing of the features",
        ),
        Comparison(
            question=(
                "Does the first recorded step of training on L, from the trained adapter and from LoRA's standard "
                "start, lower the loss of the features by what "
                "the lemma promises with L taken as 1.5 times the curvature along the gradient at its start?"
            ),
            origin=Origin.NETWORK,
            tells=Tells.TEST,
            compare=_first_steps,
        ),
    ),
    lemmas=("fundamental theorem of calculus",),
    floor=0.999,
    floor_reason="the supremum is attained by every quadratic whose second derivatives are all L",
)
