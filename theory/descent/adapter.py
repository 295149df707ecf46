r"""Adapters: through a map F = Phi(theta) the curvature of the temporal loss obeys a composite bound, with explicit
constants for LoRA.

Statement. Let F = Phi(theta), Phi twice differentiable, with ||F_t|| >= m > 0 for the N >= 3 frames at theta, J the
operator norm of D Phi(theta), and H the largest norm of D^2 Phi(theta)[u, u] over unit u. Then

    \| \nabla^2_\theta \, L(\Phi(\theta)) \|_{op} \le \frac{C_N}{m^2} J^2 + \frac{G_N}{m} H,

with C_N of C1.hessian and G_N of C1.gradient. For LoRA on one linear layer, F = (W + B A) X with theta = (A, B),

    J \le \|X\| \sqrt{\|A\|^2 + \|B\|^2}, \qquad H \le \|X\|,

in spectral norms, X being the layer's inputs at all frames and positions side by side. The bound of J grows with theta
without limit, which is why no learning rate serves every theta (C2.lora).

Hypotheses.
    H1  There are N >= 3 frames.
    H2  ||F_t|| >= m > 0 for every frame at theta.

**Approached** by LoRA, each term by itself: the first, for every N, as ||A||^2 + ||B||^2 grows, at the extremal frames of
C1.hessian with A and B along their stiffest direction; the second, for N = 3, at A = B = 0 and the extremal frames of
C1.gradient, as the inputs that carry the frozen layer's own output shrink. For N >= 4 the second is only as near as G_N is
(0.942 at N = 4). They are not met at once, since the gradient vanishes where the curvature is largest.

In the paper: it trains adapters, and its convergence claim (C2) is about their parameters; it states no such bound that
we know of. Proof: paper_notes.md, section C2.adapter.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

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
from theory.descent.layers import CARRIED_EXPONENT, LARGEST_EXPONENT, draw_layer, lora_instance
from theory.evidence import AdapterRecord, Evidence
from theory.temporal_loss import instances, recorded
from theory.temporal_loss.gradient import frames_of, gradient_constant, largest_gradient
from theory.temporal_loss.hessian import extremal_frames, hessian_constant
from theory.temporal_loss.loss import temporal_loss

SIZES: tuple[Size, ...] = tuple(
    (("num_frames", num_frames), ("outputs", 1), ("positions", 2), ("extra", 1), ("rank", 1)) for num_frames in (3, 4)
)
"""One output at two positions, so that a frame has two features; the layer has `extra` inputs beside those that carry its own output."""

POWER_STEPS = 40


class DerivativeBounds(NamedTuple):
    """Bounds on the derivatives of theta -> features.

    Attributes:
        jacobian: on the operator norm of D Phi.
        second: on the norm of D^2 Phi[u, u] over unit u.
    """

    jacobian: float
    second: float


def adapter_curvature_bound(num_frames: int, min_norm: float, derivatives: DerivativeBounds) -> float:
    """The curvature of the temporal loss in the parameters of an adapter, at most.

        C_N / m^2 J^2 + G_N / m H

    Args:
        num_frames: N.
        min_norm: m, the least norm of a frame of the features.
        derivatives: J and H of the map from parameters to features.

    Source: paper_notes.md, C2.adapter.

    Raises:
        ValueError: fewer than 3 frames; min_norm not a finite number above 0; a derivative bound that is negative, NaN
            or infinite.
    """
    if not (math.isfinite(min_norm) and min_norm > 0):
        raise ValueError(
            f"min_norm = {min_norm}; a finite number above 0 is needed: the loss has no gradient at a zero frame"
        )
    for name, value in derivatives._asdict().items():
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"derivatives.{name} = {value}; a finite number of at least 0 is needed")
    curvature = hessian_constant(num_frames)
    return float(_composite(num_frames, min_norm, derivatives.jacobian, derivatives.second, curvature))


def lora_derivative_bounds(inputs: np.ndarray, down: np.ndarray, up: np.ndarray) -> DerivativeBounds:
    """J and H of LoRA on one linear layer, F = (W + B A) X, in theta = (A, B).

        J <= ||X|| sqrt(||A||^2 + ||B||^2),   H <= ||X||,   spectral norms

    Args:
        inputs: (frames, inputs, positions) of the layer; a factor on B A (alpha / rank) is multiplied into them.
        down, up: A (rank, inputs) and B (outputs, rank).

    Source: paper_notes.md, C2.adapter.

    Raises:
        ValueError: shapes that do not fit, or entries that are NaN or infinite.
    """
    inputs, down, up = (np.asarray(array, np.float64) for array in (inputs, down, up))
    if inputs.ndim != 3 or down.ndim != 2 or up.ndim != 2 or down.shape != (up.shape[1], inputs.shape[1]):
        raise ValueError(
            f"shapes {inputs.shape}, {down.shape}, {up.shape} of inputs, down, up; (frames, inputs, positions), "
            "(rank, inputs) and (outputs, rank) are needed"
        )
    for name, array in (("inputs", inputs), ("down", down), ("up", up)):
        if not np.all(np.isfinite(array)):
            raise ValueError(f"{name} hold a NaN or an infinity; finite numbers are needed")
    return DerivativeBounds(*(float(bound) for bound in derivative_bounds(*map(jnp.asarray, (inputs, down, up)))))


def spectral_norm(matrix: jax.Array) -> jax.Array:
    """The largest singular value; its derivative is zero, and not NaN, at a zero matrix."""
    wide = matrix.shape[0] <= matrix.shape[1]
    gram = matrix @ matrix.T if wide else matrix.T @ matrix
    squared = instances.extreme_eigenvalue(gram, largest_magnitude=False) if gram.shape[0] > 1 else gram[0, 0]
    return jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1.0)), 0.0)


def derivative_bounds(inputs: jax.Array, down: jax.Array, up: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`lora_derivative_bounds`, JAX-traceable and unchecked."""
    largest = spectral_norm(jnp.reshape(jnp.swapaxes(inputs, 0, 1), (inputs.shape[1], -1)))
    return largest * jnp.sqrt(spectral_norm(down) ** 2 + spectral_norm(up) ** 2), largest


def _composite(num_frames: int, min_norm, jacobian, second, curvature: float):
    return curvature / min_norm**2 * jacobian**2 + gradient_constant(num_frames) / min_norm * second


def _displaced_loss(instance: Instance):
    """(dA, dB), flat, -> temporal loss of the features F + [(B + dB)(A + dA) - B A] X.

    Only the change of B A enters, so W is not needed, and cannot cancel against a large B A.
    """
    down, up, inputs = instance["down"], instance["up"], instance["inputs"]

    def loss(displacement: jax.Array) -> jax.Array:
        change_down = jnp.reshape(displacement[: down.size], down.shape)
        change_up = jnp.reshape(displacement[down.size :], up.shape)
        update = change_up @ down + up @ change_down + change_up @ change_down
        return temporal_loss(instance["frames"] + jnp.einsum("oi,tip->top", update, inputs))

    return loss, jnp.zeros(down.size + up.size)


def lora_hessian(instance: Instance) -> jax.Array:
    """Hessian of the temporal loss in (A, B), dense, by automatic differentiation."""
    loss, origin = _displaced_loss(instance)
    hessian = jax.hessian(loss)(origin)
    return (hessian + hessian.T) / 2


@jax.jit
def lora_curvature_found(instance: Instance) -> jax.Array:
    """|v^T Hess v| for the unit vector v that POWER_STEPS power iterations lead to: at most the norm, without its
    matrix."""
    loss, origin = _displaced_loss(instance)

    def product(vector: jax.Array) -> jax.Array:
        return jax.jvp(jax.grad(loss), (origin,), (vector,))[1]

    def step(vector: jax.Array, _: None) -> tuple[jax.Array, None]:
        image = product(vector)
        length = jnp.sqrt(jnp.sum(image**2))
        return jnp.where(length > 0, image / jnp.where(length > 0, length, 1.0), vector), None

    # No direction is preferred, and none is left out.
    start = jnp.cos(jnp.arange(origin.size, dtype=origin.dtype)) + 0.5
    vector, _ = jax.lax.scan(step, start / jnp.sqrt(jnp.sum(start**2)), None, length=POWER_STEPS)
    return jnp.abs(jnp.sum(vector * product(vector)))


def operations(*, num_frames: int, outputs: int, positions: int, extra: int, rank: int) -> int:
    """Longest chain of roundings from the instance to an eigenvalue of the dense Hessian.

    That of the loss (theory/temporal_loss/instances.py), two sweeps through the products with B, A and X, and an
    eigenproblem of size rank (inputs + outputs); the bound's norms are eigenvalues of smaller matrices.
    """
    inputs = extra + outputs
    return 16 * (outputs * positions + num_frames) + 16 * (inputs + rank) + 16 * rank * (inputs + outputs)


def _terms(second: float = 1.0, power: int = 2, up: float = 1.0, down: float = 1.0):
    def bound(instance: Instance):
        num_frames = instance["frames"].shape[0]
        jacobian, curved = derivative_bounds(instance["inputs"], down * instance["down"], up * instance["up"])
        norm = instance["min_norm"] ** (power / 2)
        return _composite(num_frames, norm, jacobian, second * curved, hessian_constant(num_frames))

    return bound


def _larger_factor(instance: Instance):
    """max(||A||, ||B||) for the root of the sum of their squares."""
    num_frames = instance["frames"].shape[0]
    _, curved = derivative_bounds(instance["inputs"], instance["down"], instance["up"])
    jacobian = curved * jnp.maximum(spectral_norm(instance["down"]), spectral_norm(instance["up"]))
    return _composite(num_frames, instance["min_norm"], jacobian, curved, hessian_constant(num_frames))


PROBLEM = Problem(
    sizes=SIZES,
    draw=draw_layer,
    instance=lora_instance,
    measured=lambda instance: instances.extreme_eigenvalue(lora_hessian(instance), largest_magnitude=True),
    bound=_terms(),
    operations=operations,
)


def stiffest_pattern(num_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """The extremal frames of C1.hessian in a plane, and the displacements normal to their line along which the Hessian has norm C_N.

    Returns:
        (num_frames, 2), and (num_frames,) of length 1.
    """
    frames = extremal_frames(num_frames)
    values, vectors = np.linalg.eigh(np.asarray(instances.dense_hessian(jnp.asarray(frames))))
    pattern = np.reshape(vectors[:, np.argmax(np.abs(values))], frames.shape)
    return frames, pattern[:, 1]


def witness_parameters(*, num_frames: int, outputs: int, positions: int, extra: int, rank: int) -> Parameters:
    """Collinear extremal frames, A and B of norm e^16 and along their stiffest displacement, delta = e^-24.

    The second term is then 1e-14 of the first, and the rows of X that carry the features 1e-20 of the others.
    """
    frames, pattern = stiffest_pattern(num_frames)
    return {
        **instances.parameters_of(frames),
        "inputs": jnp.zeros((num_frames, extra, positions)).at[:, 0, 1].set(pattern),
        "down": jnp.zeros((rank, extra + outputs)).at[0, 0].set(1.0),
        "up": jnp.ones((outputs, rank)),
        # tanh is 1 to the last bit from 20 on.
        "log_down": jnp.asarray(20.0 * LARGEST_EXPONENT / 3),
        "log_up": jnp.asarray(20.0 * LARGEST_EXPONENT / 3),
        "log_carried": jnp.asarray(20.0 * CARRIED_EXPONENT),
    }


def witness(*, num_frames: int, outputs: int, positions: int, extra: int, rank: int) -> Instance:
    """The first term met: extremal frames, and a large adapter of rank one along their stiffest displacement."""
    frames, pattern = stiffest_pattern(num_frames)
    features = jnp.asarray(frames)[:, None, :]
    size, carried = jnp.exp(LARGEST_EXPONENT), jnp.exp(-CARRIED_EXPONENT)
    moves = jnp.zeros((num_frames, extra, positions)).at[:, 0, 1].set(pattern)
    return {
        "frames": features,
        "min_norm": jnp.asarray(1.0),
        "inputs": jnp.concatenate([moves, carried * features], axis=1),
        "down": jnp.zeros((rank, extra + outputs)).at[0, 0].set(size),
        "up": size * jnp.ones((outputs, rank)),
    }


def flat_witness(num_frames: int = 3) -> Instance:
    """The second term met for N = 3: A = B = 0, the frames of the largest gradient, and inputs along that gradient."""
    frames = jnp.asarray(frames_of(largest_gradient(num_frames).similarities))
    pull = instances.gradient(frames)
    features = frames[:, None, :]
    inputs = jnp.concatenate([(pull / jnp.sqrt(jnp.sum(pull**2)))[:, None, :], jnp.exp(-CARRIED_EXPONENT) * features], axis=1)
    return {
        "frames": features,
        "min_norm": jnp.asarray(1.0),
        "inputs": inputs,
        "down": jnp.zeros((1, 2)),
        "up": jnp.zeros((1, 1)),
    }


def _one_short_frame() -> Outcome:
    instance = dict(witness(**dict(SIZES[0])))
    instance["frames"] = instance["frames"].at[2].multiply(0.5)
    return PROBLEM.outcome(instance, SIZES[0], "one frame of norm m / 2")


def recorded_adapter(record: AdapterRecord) -> tuple[Size, Instance]:
    """Size and instance of one adapted layer of the real network, its factor on B A multiplied into the inputs."""
    frames = jnp.asarray(record.outputs)
    norms = jnp.sqrt(jnp.sum(frames**2, axis=(1, 2)))
    size = (
        ("num_frames", frames.shape[0]),
        ("outputs", frames.shape[1]),
        ("positions", frames.shape[2]),
        ("extra", max(record.inputs.shape[1] - frames.shape[1], 1)),
        ("rank", record.down.shape[0]),
    )
    return size, {
        "frames": frames,
        "min_norm": jnp.min(norms),
        "inputs": record.factor * jnp.asarray(record.inputs),
        "down": jnp.asarray(record.down),
        "up": jnp.asarray(record.up),
    }


def _reality(evidence: Evidence) -> Sequence[Outcome]:
    """The editor's own LoRA, in the output projection of a self-attention whose outputs are the features; the curvature
    is the largest that power iteration finds, which a network of any size allows."""
    outcomes = []
    for record in evidence.adapters:
        size, instance = recorded_adapter(record)
        outcomes.append(
            Outcome(
                record.label,
                float(lora_curvature_found(instance)),
                float(PROBLEM.bound(instance)),
                PROBLEM.budget(size),
                witness={name: np.asarray(value) for name, value in instance.items()},
            )
        )
    return outcomes


TOLERANCE = 0.4


def _chain_rule_on_a_step(evidence: Evidence) -> Sequence[Outcome]:
    """Curvature along the gradient in the parameters, from backward passes, beside that of the loss along the features' own displacement."""
    outcomes = []
    for record in recorded.runs(evidence, "temporal"):
        squared_step = record.step_size**2 * record.squared_gradients[0]
        second = [2 * recorded.expansion(before, after)["second"] for _, before, after in recorded.layer_steps(record)]
        by_features = float(np.mean(second)) / squared_step
        error = abs(by_features - record.curvatures[0])
        outcomes.append(recorded.compared(f"step 1 of the {record.label}", error, TOLERANCE * record.curvatures[0]))
    return outcomes


CLAIM = Claim(
    id="C2.adapter",
    title="Composite curvature bound for adapters, explicit for LoRA",
    statement=(
        "In the parameters of an adapter the temporal loss has curvature at most (C_N / m^2) J^2 + (G_N / m) H, with J "
        "and H bounds on the first and second derivative of the features; for LoRA J <= ||X|| sqrt(||A||^2 + ||B||^2) "
        "and H <= ||X||."
    ),
    latex=(
        r"\|\nabla^2_{(A,B)} L\|_{\mathrm{op}} \le \frac{C_N}{m^2}\|X\|^2(\|A\|^2+\|B\|^2) + \frac{G_N}{m}\|X\|"
        r"\quad\text{for } F = (W + BA)X"
    ),
    hypotheses=(
        Hypothesis("H1", "There are N >= 3 frames."),
        Hypothesis("H2", "||F_t|| >= m > 0 for every frame at theta."),
    ),
    verdict=Verdict.PROVED,
    tightness=Tightness.APPROACHED,
    origin="not in the paper",
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    measured_in_words=(
        "norm of the Hessian of the temporal loss in the entries of LoRA's A and B, of one layer F = (W + B A) X"
    ),
    bound_in_words=(
        "(C_N / m^2) ||X||^2 (||A||^2 + ||B||^2) + (G_N / m) ||X||, spectral norms, m the least norm of a frame"
    ),
    sharpness=(
        "each term by itself: the first, for every N, as A and B grow beyond m; the second, for N = 3, at A = B = 0; "
        "both as the inputs that carry the "
        "frozen layer's output shrink. For N >= 4 the second term is an upper bound, as G_N is"
    ),
    necessity={"H2": _one_short_frame},
    definitional={"H1": "with fewer than three frames the loss is an empty mean, 0/0, and has no value"},
    planted={
        "without the second derivative of the map": _terms(second=0.0),
        "0.92 G_N for G_N": Plant(
            _terms(second=0.92),
            lambda num_frames, **_: num_frames == 3,
            "the supremum of the second term is known for three frames only",
        ),
        "B left out": _terms(up=0.0),
        "A left out": _terms(down=0.0),
        "the larger of ||A|| and ||B|| for the root of the sum of squares": _larger_factor,
        "m for m^2": _terms(power=1),
    },
    reality=(
        Comparison(
            question=(
                "Is the largest curvature that power iteration finds in the editor's own LoRA of an output "
                "projection, whose outputs are the features, at "
                "most the composite bound?"
            ),
            origin=Origin.NETWORK,
            tells=Tells.IMPLIED,
            compare=_reality,
            because=(
                "C2.adapter; the recorded layer is linear with LoRA, and that no frame is zero is read off the same "
                "features"
            ),
        ),
        Comparison(
            question=(
                "Is the curvature along the gradient in ALL adapter parameters, by backward passes, that of the loss "
                "along the displacement of the "
                "recorded features (the bound's first term), to within 0.4 of it?"
            ),
            origin=Origin.NETWORK,
            tells=Tells.TEST,
            compare=_chain_rule_on_a_step,
        ),
    ),
    relies_on=("C1.hessian", "C1.gradient"),
    lemmas=("chain rule", "Cauchy-Schwarz"),
    floor=0.999,
    floor_reason="the supremum is approached as the adapter grows beyond m, where the second term fades",
)
