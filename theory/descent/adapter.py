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

**Tight** for LoRA in dimension d >= 2, as ||A||^2 + ||B||^2 grows: reached at the extremal frames of C1.hessian with A
and B of rank one along their stiffest direction. Neither constant can be lowered for N = 3 (there G_3 is sharp): a Phi
that is linear meets the first term, one with D Phi = 0 the second. They are not met at once, since the gradient
vanishes where the curvature is largest.

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
    Problem,
    Size,
    Tells,
    Tightness,
    Verdict,
)
from theory.descent.instances import draw_normals
from theory.evidence import AdapterRecord, Evidence
from theory.temporal_loss import instances
from theory.temporal_loss.gradient import gradient_constant
from theory.temporal_loss.hessian import extremal_frames, hessian_constant
from theory.temporal_loss.loss import temporal_loss

SIZES: tuple[Size, ...] = ((("num_frames", 4), ("outputs", 2), ("inputs", 2), ("rank", 1)),)

POWER_STEPS = 40
LARGEST_EXPONENT = 16.0
"""Of the logarithms of drawn norms."""


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


def _draw(key: jax.Array, *, num_frames: int, outputs: int, inputs: int, rank: int) -> Parameters:
    return draw_normals(
        key,
        {
            "directions": (num_frames, outputs),
            "excess": (num_frames,),
            "log_min_norm": (),
            "inputs": (num_frames, inputs, 1),
            "down": (rank, inputs),
            "up": (outputs, rank),
            "log_down": (),
            "log_up": (),
        },
    )


def bounded_exp(log: jax.Array) -> jax.Array:
    """exp, kept within e^16 and e^-16."""
    return jnp.exp(LARGEST_EXPONENT * jnp.tanh(log / LARGEST_EXPONENT))


def lora_instance(parameters: Parameters, *, num_frames: int, outputs: int, inputs: int, rank: int) -> Instance:
    """Features of norms >= m, inputs, and an adapter of any size, from far below m to far above."""
    start = instances.instance(parameters, num_frames=num_frames, dimension=outputs)
    return {
        "frames": start["frames"][:, :, None],
        "min_norm": start["min_norm"],
        "inputs": parameters["inputs"],
        "down": bounded_exp(3 * parameters["log_down"]) * parameters["down"],
        "up": bounded_exp(3 * parameters["log_up"]) * parameters["up"],
    }


def operations(*, num_frames: int, outputs: int, inputs: int, rank: int) -> int:
    """Longest chain of roundings from the instance to an eigenvalue of the dense Hessian.

    That of the loss (theory/temporal_loss/instances.py), two sweeps through the products with B, A and X, and an
    eigenproblem of size rank (inputs + outputs); the bound's norms are eigenvalues of smaller matrices.
    """
    parameters = rank * (inputs + outputs)
    return 16 * (outputs + num_frames) + 16 * (inputs + rank) + 16 * parameters


def _terms(first: float = 1.0, second: float = 1.0, power: int = 2, up: float = 1.0):
    def bound(instance: Instance):
        num_frames = instance["frames"].shape[0]
        jacobian, curved = derivative_bounds(instance["inputs"], instance["down"], up * instance["up"])
        curvature = first * hessian_constant(num_frames)
        norm = instance["min_norm"] ** (power / 2)
        return _composite(num_frames, norm, jacobian, second * curved, curvature)

    return bound


PROBLEM = Problem(
    sizes=SIZES,
    draw=_draw,
    instance=lora_instance,
    measured=lambda instance: instances.extreme_eigenvalue(lora_hessian(instance), largest_magnitude=True),
    bound=_terms(),
    operations=operations,
)


def stiffest_pattern(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The displacement of planar frames along which the Hessian is largest in magnitude, as (frames,) x (dimension,).

    For collinear frames it moves every frame along one normal, so it has rank one.
    """
    values, vectors = np.linalg.eigh(np.asarray(instances.dense_hessian(jnp.asarray(frames))))
    pattern = np.reshape(vectors[:, np.argmax(np.abs(values))], frames.shape)
    left, _, right = np.linalg.svd(pattern)
    return left[:, 0], right[0]


def witness(*, num_frames: int, outputs: int, inputs: int, rank: int) -> Instance:
    """Extremal frames, A and B of rank one and norm 1e8 along their stiffest displacement: the second term is 1e-16 of
    the first."""
    frames = extremal_frames(num_frames, outputs)
    pattern, normal = stiffest_pattern(frames)
    size = 1e8
    return {
        "frames": jnp.asarray(frames)[:, :, None],
        "min_norm": jnp.asarray(1.0),
        "inputs": jnp.zeros((num_frames, inputs, 1)).at[:, 0, 0].set(pattern),
        "down": jnp.zeros((rank, inputs)).at[0, 0].set(size),
        "up": jnp.zeros((outputs, rank)).at[:, 0].set(size * normal),
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
        ("inputs", record.inputs.shape[1]),
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


CLAIM = Claim(
    id="C2.adapter",
    title="Composite curvature bound for adapters, explicit for LoRA",
    statement=(
        "In the parameters of an adapter the temporal loss has curvature at most (C_N / m^2) J^2 + (G_N / m) H, with J "
        "and H bounds on the first and second derivative of the features; for LoRA J <= ||X|| sqrt(||A||^2 + ||B||^2) and H <= ||X||."
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
    tightness=Tightness.ATTAINED,
    origin="not in the paper",
    problem=PROBLEM,
    witnesses=witness,
    necessity={"H2": _one_short_frame},
    definitional={"H1": "with fewer than three frames the loss has no term"},
    planted={
        "without the second derivative of the map": _terms(second=0.0),
        "B left out": _terms(up=0.0),
        "m for m^2": _terms(power=1),
    },
    reality=(
        Comparison(
            question="the claim's inequality",
            origin=Origin.NETWORK,
            tells=Tells.IMPLIED,
            compare=_reality,
            because="the theorem, whose hypotheses hold for these numbers by the way they are read off",
        ),
    ),
    floor=0.999,
    floor_reason="the supremum is approached as the adapter grows beyond m, where the second term fades",
)
