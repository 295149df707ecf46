r"""LoRA is not smooth: every fixed learning rate makes the loss rise from some start. On a ball around the start there
is a safe one, for an explicit number of steps.

Statement as refuted. Some fixed learning rate eta > 0 makes gradient descent on theta = (A, B) of F = (W + B A) X
decrease the temporal loss from every start with ||F_t|| >= m > 0. In terms of the curvature that a step sees,

    \kappa = \frac{2 \, [L(\theta_1) - L(\theta_0) + \eta \|\nabla_\theta L\|^2]}{\eta^2 \|\nabla_\theta L\|^2} \le \frac{2}{\eta},

since the loss rises exactly when eta kappa > 2. A layer with one output at two positions, two inputs, rank one and
three frames refutes it for every eta: W = (0, 1), A = (a, 0), B = b, and inputs for which F_1 = (1, p), F_2 = (0, 1),
F_3 = (-1, 1 - p) with p = a b: norms of at least 1 for every p, and a loss that is 1/2 at p = 0 and at p = 1, and more
beyond. From b = 0 the gradient moves b alone, and the first step goes to p = (sqrt 2 + 1/2) eta a^2: the loss rises
whenever this exceeds 1. For eta = 1e-4, a = 79 it goes from 0.5 to 0.918.

Repaired. Let rho > 0, S = sqrt(||A||^2 + ||B||^2) at the start (spectral norms), and m_B > 0 for m_B = m - ||X|| (S rho
+ rho^2 / 2),

    L_B = \frac{C^+_N}{m_B^2} \|X\|^2 (S + \rho)^2 + \frac{G_N}{m_B} \|X\|.

For eta <= 1/L_B descent stays within the distance rho of the start for at least rho^2 / (2 eta L(theta_0)) steps, and
while it does, every step sees a curvature of at most L_B <= 1/eta: the loss falls by at least (eta/2) times the squared
gradient.

Hypotheses.
    H1  There are N >= 3 frames.
    H2  ||F_t|| >= m > 0 for every frame of the start.
    H3  (missing in the statement, restored in the repair) eta <= 1/L_B, and no more than rho^2 / (2 eta L_0) steps.

**Lower**: the statement is refuted; the repair is an upper bound.

In the paper: it trains adapters of this kind, and the convergence claim (C2) names one range of learning rates; that
the range is the same for every start is our reading. Proof: paper_notes.md, section C2.lora.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from theory.claim import (
    Claim,
    Comparison,
    Expected,
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
from theory.descent.adapter import derivative_bounds
from theory.descent.expansion import averaged_curvature
from theory.descent.feature_descent import gradient
from theory.descent.layers import bounded_exp, draw_layer, lora_instance
from theory.evidence import Evidence
from theory.rounding import relative_budget
from theory.temporal_loss import instances, recorded
from theory.temporal_loss.gradient import gradient_constant
from theory.temporal_loss.loss import temporal_loss
from theory.temporal_loss.upper_curvature import upper_curvature_constant

SIZES: tuple[Size, ...] = ((("num_frames", 3), ("outputs", 1), ("positions", 2), ("extra", 1), ("rank", 1)),)

LEARNING_RATE = 1e-4
"""The one the search refutes; the family of counterexamples refutes every one."""

STEPS = 3
"""Of the repaired statement that are searched."""

SLOPE = math.sqrt(2) + 0.5
"""-l'(0) of the loss of the counterexample as a function of p."""


class SafeBall(NamedTuple):
    """What is promised on a ball around the start of a run on the parameters of LoRA.

    Attributes:
        radius: rho.
        min_norm: m_B, a lower bound on the norm of every frame in the ball, rounded down.
        curvature: L_B, an upper bound on the curvature of the loss in the ball, rounded up.
        step_size: 1 / L_B, the largest step size for which the promise is made, rounded down.
    """

    radius: float
    min_norm: float
    curvature: float
    step_size: float

    def steps(self, loss: float, step_size: float | None = None) -> int:
        """The number of steps for which descent from this loss stays in the ball for sure.

            rho^2 / (2 eta L(theta_0)), rounded down

        Raises:
            ValueError: a loss that is not a finite number above 0, or a step size outside (0, 1 / L_B].
        """
        eta = self.step_size if step_size is None else step_size
        if not (math.isfinite(loss) and loss > 0):
            raise ValueError(f"loss = {loss}; a finite number above 0 is needed: at 0 descent stays for ever")
        if not 0 < eta <= self.step_size:
            raise ValueError(f"step_size = {eta}; it must lie in (0, {self.step_size:.6g}], up to 1 / L_B")
        return math.floor(self.radius**2 / (2 * eta * loss))


def safe_ball(features: np.ndarray, inputs: np.ndarray, down: np.ndarray, up: np.ndarray, radius: float) -> SafeBall:
    """The safe step size on a ball around the start, for LoRA in the layer that makes the features.

    Args:
        features: (frames, outputs, positions) of the layer at the start.
        inputs: (frames, inputs, positions) of the layer, times the factor on B A (alpha / rank).
        down, up: A (rank, inputs) and B (outputs, rank) at the start.
        radius: rho > 0, so small that no frame can vanish in the ball.

    Source: paper_notes.md, C2.lora.

    Raises:
        ValueError: a radius that is not a finite number above 0, or for which m_B <= 0; the message names the largest.
    """
    least = float(np.min(np.linalg.norm(np.reshape(features, (len(features), -1)), axis=1)))
    jacobian, second = (float(x) for x in derivative_bounds(*map(jnp.asarray, (inputs, down, up))))
    limit = float(largest_radius(least, jacobian, second))
    if not (math.isfinite(radius) and 0 < radius < limit):
        raise ValueError(f"radius = {radius}; it must lie in (0, {limit:.6g}), or a frame could vanish in the ball")
    # Norms and spectral norms are sums over all entries; what is left of m in the ball may be much smaller than m.
    slack = relative_budget(features.size + inputs.size + 64 * (down.size + up.size))
    least, jacobian, second = least * (1 - slack), jacobian * (1 + slack), second * (1 + slack)
    if not radius < float(largest_radius(least, jacobian, second)):
        raise ValueError(f"radius = {radius}; it must lie below {limit:.6g} by more than rounding, or a frame could vanish in the ball")
    min_norm, curvature = (float(x) for x in _ball(len(features), least, jacobian, second, radius))
    # The difference m - J rho - H rho^2 / 2 is rounded at the size of m.
    lost = slack * least / min_norm
    curvature *= (1 + slack) * (1 + 4 * lost)
    return SafeBall(radius, min_norm * (1 - lost), curvature, (1 - slack) / curvature)


def largest_radius(min_norm, jacobian, second):
    """The radius at which m_B = m - J rho - H rho^2 / 2 vanishes, by the form of the root that does not cancel."""
    return 2 * min_norm / (jacobian + (jacobian**2 + 2 * second * min_norm) ** 0.5)


def _ball(num_frames: int, min_norm, jacobian, second, radius):
    """m_B and L_B; J and H as in C2.adapter at the centre, where ||X|| = H and ||X|| S = J."""
    least = min_norm - jacobian * radius - second * radius**2 / 2
    widest = jacobian + second * radius
    squared = upper_curvature_constant(num_frames) / least**2 * widest**2
    return least, squared + gradient_constant(num_frames) / least * second


def parameter_gradient(instance: Instance) -> tuple[jax.Array, jax.Array]:
    """Gradient of the loss in A and in B: B^T M and M A^T, M = sum_t grad_t L X_t^T."""
    frames = instance["frames"]
    pulls = jnp.reshape(gradient(jnp.reshape(frames, (frames.shape[0], -1))), frames.shape)
    matrix = jnp.einsum("top,tip->oi", pulls, instance["inputs"])
    return instance["up"].T @ matrix, matrix @ instance["down"].T


def step(instance: Instance, step_size) -> tuple[Instance, jax.Array]:
    """The instance after one step of descent, and the curvature that the step sees."""
    frames, inputs = instance["frames"], instance["inputs"]
    down, up = parameter_gradient(instance)
    scale = jax.lax.stop_gradient(jnp.maximum(jnp.max(jnp.abs(down)), jnp.max(jnp.abs(up))))
    safe = jnp.where(scale > 0, scale, 1.0)
    down, up, scaled = down / safe, up / safe, step_size * scale
    velocity = jnp.einsum("oi,tip->top", up @ instance["down"] + instance["up"] @ down, inputs)
    bend = jnp.einsum("oi,tip->top", up @ down, inputs)
    flat = (frames.shape[0], -1)
    curvature = averaged_curvature(
        *(jnp.reshape(array, flat) for array in (frames, velocity, bend)), scaled, jnp.sum(down**2) + jnp.sum(up**2)
    )
    after = dict(instance) | {
        "frames": frames - scaled * velocity + scaled**2 * bend,
        "down": instance["down"] - scaled * down,
        "up": instance["up"] - scaled * up,
    }
    return after, curvature


def worst_curvature(instance: Instance, num_steps: int = 1) -> jax.Array:
    """The largest curvature that the first steps of descent see; 0 for a negative one, where a step gains more than
    promised."""
    _, curvatures = jax.lax.scan(
        lambda current, _: step(current, instance["step_size"]), dict(instance), None, length=num_steps
    )
    return jnp.maximum(jnp.max(curvatures), 0.0)


_draw = functools.partial(draw_layer, radius=(), step=())


def _layer(parameters: Parameters, **size: int) -> Instance:
    return lora_instance({name: value for name, value in parameters.items() if name not in ("radius", "step")}, **size)


def _any_start(parameters: Parameters, **size: int) -> Instance:
    """Any features of norms at least 1, any inputs, an adapter of norms up to some hundred, and the one learning
    rate."""
    scales = {name: 2 * jnp.tanh(parameters[name]) for name in ("log_down", "log_up")}
    start = _layer(parameters | scales | {"log_min_norm": jnp.asarray(0.0)}, **size)
    return start | {"step_size": jnp.asarray(LEARNING_RATE)}


def _start_in_ball(parameters: Parameters, **size: int) -> Instance:
    """Any start, a ball on which the norms stay above m/2, and a step size that covers STEPS steps in it."""
    start = _layer(parameters, **size)
    jacobian, second = derivative_bounds(start["inputs"], start["down"], start["up"])
    # Inputs that vanish give a map that is constant; the ball is then as large as m.
    second = jnp.maximum(second, 1e-12)
    radius = largest_radius(start["min_norm"] / 2, jacobian, second) * jax.nn.sigmoid(3 * parameters["radius"])
    _, curvature = _ball(size["num_frames"], start["min_norm"], jacobian, second, radius)
    loss = temporal_loss(start["frames"])
    slow = radius**2 / (2 * STEPS * jnp.where(loss > 0, loss, 1.0))
    longest = jnp.minimum(1 / curvature, jnp.where(loss > 0, slow, 1 / curvature))
    return start | {"radius": radius, "step_size": longest * jax.nn.sigmoid(parameters["step"])}


def _turning_back(parameters: Parameters, **size: int) -> Instance:
    """The counterexample for any learning rate and any m: its first step goes to p between 1.05 and 5."""
    step_size = bounded_exp(3 * parameters["log_up"])
    target = 1.05 + 3.95 * jax.nn.sigmoid(parameters["step"])
    return counterexample(step_size, jnp.sqrt(target / (SLOPE * step_size)), bounded_exp(parameters["log_min_norm"]))


def counterexample(step_size, down, min_norm=1.0) -> Instance:
    """The start b = 0 with A = (a, 0): the second input is the feature itself, the first one what p = a b
    multiplies."""
    features = jnp.asarray([[1.0, 0.0], [0.0, 1.0], [-1.0, 1.0]])
    moves = jnp.asarray([[0.0, 1.0], [0.0, 0.0], [0.0, -1.0]])
    return {
        "frames": min_norm * features[:, None, :],
        "min_norm": jnp.asarray(min_norm),
        "inputs": min_norm * jnp.stack([moves, features], axis=1),
        "down": jnp.asarray(down) * jnp.asarray([[1.0, 0.0]]),
        "up": jnp.zeros((1, 1)),
        "step_size": jnp.asarray(step_size),
    }


def _operations(*, num_frames: int, outputs: int, positions: int, extra: int, rank: int) -> int:
    """Longest chain of roundings from the start to the curvature of the last step, at the size of the bound.

    A gradient, its products with A, B and X, and the expansion (counted as 128), with every dot product in between; an
    error of one step reaches the next multiplied by |1 - eta lambda| <= 2, since eta lambda <= 1.
    """
    return 2 ** (STEPS - 1) * (128 + 16 * (outputs * positions + num_frames + outputs + extra + rank))


AS_STATED = Problem(
    sizes=SIZES,
    draw=_draw,
    instance=_any_start,
    measured=worst_curvature,
    bound=lambda instance: 2 / instance["step_size"],
    operations=_operations,
)

COUNTEREXAMPLES = Problem(
    sizes=SIZES,
    draw=_draw,
    instance=_turning_back,
    measured=worst_curvature,
    bound=AS_STATED.bound,
    operations=_operations,
)


def _promised(up: float = 1.0, curved: float = 1.0, power: float = 1.0):
    def bound(instance: Instance):
        jacobian, second = derivative_bounds(instance["inputs"], instance["down"], up * instance["up"])
        radius = instance["radius"]
        _, curvature = _ball(
            instance["frames"].shape[0], instance["min_norm"] ** power, jacobian, curved * second, radius
        )
        return curvature

    return bound


REPAIRED = Problem(
    sizes=SIZES,
    draw=_draw,
    instance=_start_in_ball,
    measured=lambda instance: worst_curvature(instance, STEPS),
    bound=_promised(),
    operations=_operations,
)


def _without_second_derivative(instance: Instance):
    jacobian, second = derivative_bounds(instance["inputs"], instance["down"], instance["up"])
    least = instance["min_norm"] - jacobian * instance["radius"] - second * instance["radius"] ** 2 / 2
    widest = jacobian + second * instance["radius"]
    return upper_curvature_constant(instance["frames"].shape[0]) / least**2 * widest**2


def witness(*, num_frames: int, outputs: int, positions: int, extra: int, rank: int) -> Instance:
    """The counterexample at the one learning rate, with a = 79."""
    return counterexample(LEARNING_RATE, 79.0)


def witness_parameters(*, num_frames: int, outputs: int, positions: int, extra: int, rank: int) -> Parameters:
    start = counterexample(LEARNING_RATE, 79.0)
    return {
        **instances.parameters_of(start["frames"][:, 0, :]),
        "inputs": start["inputs"][:, :1],
        "down": start["down"],
        "up": start["up"],
        # The adapter's scales are 1, and the other inputs are the features themselves.
        **{name: jnp.asarray(0.0) for name in ("log_down", "log_up", "log_carried", "radius", "step")},
    }


def _at_the_standard_start(evidence: Evidence) -> Sequence[Outcome]:
    """Loss of the features after one step from LoRA's standard start, beside the editor's loss before it."""
    (record,) = (record for record in recorded.runs(evidence, "scaled") if record.scale == 1)
    return [recorded.compared(record.label, recorded.loss_of_features(record, 1), record.temporal_losses[0])]


def _at_the_scaled_start(evidence: Evidence) -> Sequence[Outcome]:
    return [
        recorded.compared(record.label, recorded.loss_of_features(record, 1), record.temporal_losses[0])
        for record in recorded.runs(evidence, "scaled")
        if record.scale != 1
    ]


def _inputs_without_square(instance: Instance):
    """||X|| for ||X||^2 in the first term."""
    _, second = derivative_bounds(instance["inputs"], instance["down"], instance["up"])
    num_frames = instance["frames"].shape[0]
    least, curvature = _ball(
        num_frames, instance["min_norm"], *derivative_bounds(instance["inputs"], instance["down"], instance["up"]), instance["radius"]
    )
    by_map = gradient_constant(num_frames) / least * second
    return (curvature - by_map) / second + by_map


def _norm_of_the_start(instance: Instance):
    """m + (m - m_B) for m_B: as if norms grew in the ball by what they may lose."""
    jacobian, second = derivative_bounds(instance["inputs"], instance["down"], instance["up"])
    grown = instance["min_norm"] + jacobian * instance["radius"] + second * instance["radius"] ** 2 / 2
    num_frames = instance["frames"].shape[0]
    widest = jacobian + second * instance["radius"]
    return upper_curvature_constant(num_frames) / grown**2 * widest**2 + gradient_constant(num_frames) / grown * second


CLAIM = Claim(
    id="C2.lora",
    title="One learning rate for LoRA, whatever the start",
    statement=(
        "Some fixed learning rate makes descent on the parameters of LoRA lower the temporal loss from every start. "
        "False for every one. True on a ball around the start, for learning rates up to 1 / L_B and rho^2 / (2 eta "
        "L_0) steps."
    ),
    latex=(
        r"\exists\,\eta>0\ \forall\,(A,B):\ L(\theta-\eta\nabla L) \le L(\theta);\quad \text{repaired: } \eta \le 1/L_B,\ "
        r"L_B = \frac{C^+_N}{m_B^2}\|X\|^2(S+\rho)^2 + \frac{G_N}{m_B}\|X\|"
    ),
    hypotheses=(
        Hypothesis("H1", "There are N >= 3 frames."),
        Hypothesis("H2", "||F_t|| >= m > 0 for every frame of the start."),
        Hypothesis("H3", "(restored by the repair) eta <= 1 / L_B, and no more than rho^2 / (2 eta L_0) steps."),
    ),
    verdict=Verdict.REFUTED,
    tightness=Tightness.LOWER,
    origin="the paper's convergence claim, read for its adapters; that one range serves every start is our reading",
    problem=AS_STATED,
    witnesses=witness,
    witness_parameters=witness_parameters,
    measured_in_words=(
        "curvature that the first step on LoRA's A and B sees, 2 (L_1 - L_0 + eta ||g||^2) / (eta^2 ||g||^2)"
    ),
    bound_in_words=(
        "2 / eta at the one learning rate eta = 1e-4: above it the step raises the loss; every other rate is refuted "
        "in the same way"
    ),
    definitional={
        "H1": "with fewer than three frames the loss is an empty mean, 0/0, and has no value",
        "H2": "it holds all along the counterexample's step, so it is not what the statement lacks",
        "H3": "its absence is what the counterexamples refute",
    },
    planted={
        "repair with B left out": _promised(up=0.0),
        "repair without the second derivative of the map": _without_second_derivative,
        "repair with ||X|| for its square": _inputs_without_square,
        "repair with norms that grow in the ball": _norm_of_the_start,
        "repair with m for m^2": _promised(power=0.5),
    },
    reality=(
        Comparison(
            question=(
                "Does one recorded step from LoRA's standard start, half of 1 / curvature long, lower the temporal "
                "loss of the UNet's features?"
            ),
            origin=Origin.NETWORK,
            tells=Tells.TEST,
            compare=_at_the_standard_start,
        ),
        Comparison(
            question="Does a step of the same size lower it from the standard start with A multiplied by 100?",
            origin=Origin.NETWORK,
            tells=Tells.TEST,
            compare=_at_the_scaled_start,
            expected=Expected.VIOLATED,
            because=(
                "the gradient in B grows with A and the step's change of B A with its square, as in the "
                "counterexample: a learning rate that suits one start "
                "promises nothing at another"
            ),
        ),
    ),
    relies_on=("C2.adapter", "C1.upper-curvature"),
    lemmas=("Taylor's formula", "Cauchy-Schwarz"),
    counterexamples=COUNTEREXAMPLES,
    repaired=REPAIRED,
)
