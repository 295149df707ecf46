r"""The sharpness of a temporal loss trained through a network, from one backward pass a residual, and how far it is from the Hessian's.

Statement. Let F = Phi(theta) be N >= 3 frames, none of them zero, s their similarities, y = dL/ds, K = J_s J_s^T the Gram matrix of the
gradients of s with respect to theta, D the difference matrix. L = |D s|^2 / (N-2) is a sum of N - 2 squares, so its Gauss-Newton matrix has
the norm

    \gamma = \frac{2}{N-2} \, \lambda_{\max}(D K D^\top),

exactly, from N - 2 gradients (of the differences) and no iteration. And for every Phi with ||dPhi(theta)|| <= J, ||d^2 Phi(theta)|| <= H,

    |\lambda_{\max}(\nabla^2_\theta L) - \gamma| \le \|\nabla^2_\theta L - GN\| \le J^2 a(F) + H \, \|\nabla_F L\|,

with a(F) the top eigenvalue of the N x N tridiagonal matrix with diagonal (|sig_t| + sqrt(sig_t^2 + 4 |g_t|^2)) / (2 r_t^2) and off-diagonal
|y_t| / (r_t r_{t+1}); r_t = ||F_t||, sig_t = y_{t-1} s_{t-1} + y_t s_t, g_t = r_t grad_t L. The right-hand side is of the order of
sqrt(L): as the loss goes to zero, gamma is the sharpness.

Hypotheses.
    H1  There are N >= 3 frames, none of them zero.
    H2  K is the Gram matrix of the gradients at theta.
    H3  J bounds the first derivative of the map at theta.
    H4  H bounds its second derivative.

**Attained**: both sides are equal where L = 0; the second inequality is attained by collinear frames with alternating similarities. What is
searched is a LoRA layer, F_t = b_t + B A x_t, where H = ||X|| is the best constant.

Not in the paper. Proof: paper_notes.md, section C2.gauss-newton.
"""

import dataclasses
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
from theory.descent.feature_descent import steepest_frames
from theory.descent.instances import draw_normals
from theory.descent.remainder import band
from theory.evidence import Evidence
from theory.rounding import relative_budget
from theory.temporal_loss import instances, recorded
from theory.temporal_loss.gradient import gradient_constant
from theory.temporal_loss.hessian import hessian_constant
from theory.temporal_loss.loss import similarities, temporal_loss


@dataclasses.dataclass(frozen=True)
class GaussNewton:
    """What the residuals of a mean of squares and the Gram matrix of their gradients say about it.

    Attributes:
        loss: L = |d|^2 / M.
        squared_gradient: ||grad L||^2 = (4 / M^2) d^T G d.
        sharpness: norm of the Gauss-Newton matrix, (2/M) lambda_max(G), a value and not a bound.
        along_gradient: curvature of the Gauss-Newton matrix along the gradient, (2/M) d^T G^2 d / d^T G d <= sharpness; 0 where the gradient is.
    """

    loss: float
    squared_gradient: float
    sharpness: float
    along_gradient: float


def _host(array: Any, name: str) -> np.ndarray:
    array = array.detach().cpu().numpy() if hasattr(array, "detach") else np.asarray(array)
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"{name} has dtype {array.dtype}; a floating-point dtype is needed, convert it first")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds {np.count_nonzero(~np.isfinite(array))} values that are not finite; the network has diverged there")
    return array.astype(np.float64)


def _check_gram(gram: np.ndarray, size: int | None = None) -> None:
    expected = "(M, M)" if size is None else f"({size}, {size})"
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1] or gram.shape[0] == 0 or size not in (None, gram.shape[0]):
        raise ValueError(f"gram has shape {gram.shape}; {expected} is needed: one row a gradient, their inner products")


def gauss_newton_model(residuals: Any, gram: Any) -> GaussNewton:
    """Loss, gradient and Gauss-Newton curvature of L = |d|^2 / M from its M residuals, with nothing of the parameters' size.

    For one temporal loss d = D s, M = N - 2. The mean of the losses of several layers is again of this form, d all their differences in a row.

    Args:
        residuals: (M,) floating-point NumPy, JAX or PyTorch array.
        gram: (M, M) inner products of the gradients of the residuals.

    Source: paper_notes.md, C2.gauss-newton.

    Raises:
        ValueError: shapes that do not belong together, values that are not floating-point numbers or not finite.
    """
    residuals, gram = _host(residuals, "residuals"), _host(gram, "gram")
    if residuals.ndim != 1 or residuals.size == 0:
        raise ValueError(f"residuals have shape {residuals.shape}; (M,) with M >= 1 is needed: flatten the differences of all layers")
    _check_gram(gram, residuals.size)
    scale = 2 / residuals.size
    turned = gram @ residuals
    squared, along = float(residuals @ turned), float(turned @ turned)
    return GaussNewton(
        loss=float(np.mean(residuals**2)),
        squared_gradient=scale**2 * max(squared, 0.0),
        sharpness=scale * max(float(np.linalg.eigvalsh(gram)[-1]), 0.0),
        along_gradient=scale * along / squared if squared > 0 else 0.0,
    )


def gauss_newton_sharpness(gram: Any) -> float:
    """The norm of the Gauss-Newton matrix of one temporal loss from the Gram matrix of the gradients of its similarities.

        (2/(N-2)) lambda_max(D K D^T)

    Args:
        gram: (N - 1, N - 1) inner products of the gradients of s_1, .., s_{N-1} with respect to the same parameters.

    Source: paper_notes.md, C2.gauss-newton.

    Raises:
        ValueError: not square, fewer than 2 similarities, not floating-point, or not finite.
    """
    gram = _host(gram, "gram")
    _check_gram(gram)
    if len(gram) < 2:
        raise ValueError("gram belongs to 1 similarity; at least 2 are needed: the loss compares neighbouring pairs of 3 frames or more")
    small = np.diff(np.diff(gram, axis=0), axis=1)
    return 2 / len(small) * max(float(np.linalg.eigvalsh(small)[-1]), 0.0)


def lora_frames(parameters: Any, instance: Instance) -> jax.Array:
    """F_t = b_t + B A x_t of flat parameters (A, B), with b chosen so that the instance's own parameters give its frames."""
    inputs, frames = instance["inputs"], instance["frames"]

    def update(flat: Any) -> jax.Array:
        rank = flat.shape[0] // (inputs.shape[1] + frames.shape[1])
        down, up = flat[: rank * inputs.shape[1]], flat[rank * inputs.shape[1] :]
        return inputs @ jnp.reshape(down, (rank, -1)).T @ jnp.reshape(up, (-1, rank)).T

    return frames + update(parameters) - update(instance["adapter"])


def _hessian(instance: Instance) -> jax.Array:
    hessian = jax.hessian(lambda flat: temporal_loss(lora_frames(flat, instance)))(instance["adapter"])
    return (hessian + hessian.T) / 2


def _sharpness(instance: Instance) -> jax.Array:
    """gamma from the recorded gradients of the similarities."""
    changes = jnp.diff(instance["gradients"], axis=0)
    return 2 / changes.shape[0] * instances.extreme_eigenvalue(changes @ changes.T, largest_magnitude=False)


def _parts(instance: Instance) -> tuple[Any, Any]:
    """J^2 a(F) and H ||grad_F L||."""
    frames = instance["frames"]
    top, squared = band(
        jnp, jnp.sum(frames**2, axis=1), jnp.sum(frames[:-1] * frames[1:], axis=1), jnp.sum(frames[:-2] * frames[2:], axis=1)
    )
    positive = squared > 0
    gradient = jnp.where(positive, jnp.sqrt(jnp.where(positive, squared, 1.0)), 0.0)
    return instance["jacobian_norm"] ** 2 * top, instance["curvature_norm"] * gradient


def _chain(num_frames: int, dimension: int) -> int:
    """Roundings from parameters to an eigenvalue: those of the loss, through a layer of at most as many inputs as there are features."""
    return 4 * instances.operations(num_frames=num_frames, dimension=dimension)


def _oracle_rounding(instance: Instance):
    """How far the dense Hessian may be off: its terms, of size J^2 C_N / r^2 + H G_N / r, cancel to whatever the curvature is."""
    num_frames, dimension = instance["frames"].shape
    least = jnp.sqrt(jnp.min(jnp.sum(instance["frames"] ** 2, axis=1)))
    size = instance["jacobian_norm"] ** 2 * hessian_constant(num_frames) / least**2
    size = size + instance["curvature_norm"] * gradient_constant(num_frames) / least
    return relative_budget(_chain(num_frames, dimension)) * size


def _measured(instance: Instance):
    # A negative lambda_max promises nothing: 0 keeps what is compared a magnitude.
    top = jnp.maximum(instances.extreme_eigenvalue(_hessian(instance), largest_magnitude=False), 0.0)
    return jnp.where(instance["from_below"], jnp.maximum(_sharpness(instance) - top, 0.0), top)


def _compared(feature_share: float = 1.0, map_share: float = 1.0, divisor_shift: int = 2):
    def bound(instance: Instance):
        by_features, by_map = _parts(instance)
        num_frames = instance["frames"].shape[0]
        sharpness = (num_frames - 2) / (num_frames - divisor_shift) * _sharpness(instance)
        remainder = feature_share * by_features + map_share * by_map + _oracle_rounding(instance)
        return remainder + jnp.where(instance["from_below"], 0.0, sharpness)

    return bound


@jax.jit
def _complete(frames: Any, inputs: Any, adapter: Any, from_below: Any) -> Instance:
    """The instance with what the hypotheses promise: the gradients at its parameters, and the least J and H there."""
    instance = {"frames": frames, "inputs": inputs, "adapter": adapter}
    spectral = jnp.sqrt(instances.extreme_eigenvalue(inputs.T @ inputs, largest_magnitude=False))
    rank = adapter.shape[0] // (inputs.shape[1] + frames.shape[1])
    down = jnp.reshape(adapter[: rank * inputs.shape[1]], (rank, -1))
    up = jnp.reshape(adapter[rank * inputs.shape[1] :], (-1, rank))
    # |dB A X + B dA X| <= ||X|| (||A|| |dB| + ||B|| |dA|)
    squared = sum(instances.extreme_eigenvalue(factor @ factor.T, largest_magnitude=False) for factor in (down, up.T))
    return instance | {
        "gradients": jax.jacobian(lambda flat: similarities(lora_frames(flat, instance)))(adapter),
        "jacobian_norm": spectral * jnp.sqrt(squared),
        "curvature_norm": spectral,
        "from_below": from_below,
    }


NUM_INPUTS, RANK = 2, 1

SIZES: tuple[Size, ...] = ((("num_frames", 4), ("dimension", 2)),)
"""One size, for the sake of compilation: others are in test_gauss_newton.py."""


def draw(key: jax.Array, *, num_frames: int, dimension: int) -> Parameters:
    """Frames from collinear to generic, inputs and factors of LoRA of any size, and which of the two sides is compared."""
    frames_key, map_key = jax.random.split(key)
    shapes = {"inputs": (num_frames, NUM_INPUTS), "adapter": (RANK * (NUM_INPUTS + dimension),), "side": (), "log_scale": ()}
    drawn = draw_normals(map_key, shapes)
    return {**instances.draw(frames_key, num_frames=num_frames, dimension=dimension), **drawn}


def instance_of(parameters: Parameters, *, num_frames: int, dimension: int) -> Instance:
    """A LoRA layer whose outputs are the drawn frames: any real parameters give one."""
    start = instances.instance(parameters, num_frames=num_frames, dimension=dimension)
    # Factors between tiny, where the layer is all curvature, and huge, where it is all slope.
    adapter = jnp.exp(2 * jnp.clip(parameters["log_scale"], -4.0, 4.0)) * parameters["adapter"]
    return _complete(start["frames"], parameters["inputs"], adapter, parameters["side"] > 0)


def witness(*, num_frames: int, dimension: int) -> Instance:
    """Frames that each turn by a right angle: all similarities are equal, the loss is zero, and gamma is the sharpness."""
    frames = jnp.asarray(steepest_frames(num_frames, dimension))
    inputs = jnp.reshape(jnp.cos(jnp.arange(num_frames * NUM_INPUTS, dtype=float) ** 2), (num_frames, NUM_INPUTS))
    return _complete(frames, inputs, jnp.linspace(-1.0, 2.0, RANK * (NUM_INPUTS + dimension)), jnp.asarray(False))


def witness_parameters(*, num_frames: int, dimension: int) -> Parameters:
    instance = witness(num_frames=num_frames, dimension=dimension)
    return {
        **instances.parameters_of(instance["frames"]),
        "inputs": instance["inputs"],
        "adapter": instance["adapter"],
        "side": jnp.asarray(-1.0),
        "log_scale": jnp.asarray(0.0),
    }


def _operations(*, num_frames: int, dimension: int) -> int:
    """What the oracle is granted is part of the bound, and relative to J^2 C_N / r^2, of which the witness's sharpness is over a quarter."""
    return 4 * _chain(num_frames, dimension)


PROBLEM = Problem(
    sizes=SIZES,
    draw=draw,
    instance=instance_of,
    measured=_measured,
    bound=_compared(),
    operations=_operations,
)


def _spoilt(instance: Instance, label: str, **factors: float) -> Outcome:
    spoilt = dict(instance)
    for name, factor in factors.items():
        spoilt[name] = factor * spoilt[name]
    return PROBLEM.outcome(spoilt, SIZES[0], label)


def _gradients_of_others() -> Outcome:
    return _spoilt(witness(**dict(SIZES[0])), "gradients recorded where they were half as long", gradients=0.5)


def flat_layer(num_frames: int = 4, dimension: int = 2) -> Instance:
    """LoRA at A = B = 0, where J vanishes and the curvature is all that of the map: lambda_max = ||sum_t grad_t L x_t^T||.

    With x_t the entries of the gradient in its own direction the norm is H ||grad_F L||: the composite term is attained.
    """
    frames = np.zeros((num_frames, dimension))
    # In a plane every gradient lies along the tangent; near collinear frames all tangents are the same line.
    angles = 1e-3 * np.cos(np.arange(num_frames) ** 2)
    frames[:, 0], frames[:, 1] = np.cos(angles), np.sin(angles)
    frames = jnp.asarray(frames)
    sizes = instances.gradient(frames)[:, 1]
    inputs = jnp.stack([sizes / jnp.linalg.norm(sizes)] + [jnp.zeros(num_frames)] * (NUM_INPUTS - 1), axis=1)
    return _complete(frames, inputs, jnp.zeros(RANK * (NUM_INPUTS + dimension)), jnp.asarray(False))


def saddle(num_frames: int = 4, dimension: int = 2) -> Instance:
    """A saddle of the loss, e_1, e_1, e_2, -e_2, where gamma = 4 and the similarities curve, seen from below."""
    basis = jnp.eye(dimension)
    frames = jnp.stack([basis[0], basis[0], basis[1], -basis[1]])
    inputs = jnp.reshape(jnp.cos(jnp.arange(num_frames * NUM_INPUTS, dtype=float) ** 2), (num_frames, NUM_INPUTS))
    return _complete(frames, inputs, jnp.linspace(-1.0, 2.0, RANK * (NUM_INPUTS + dimension)), jnp.asarray(True))


def _reality(evidence: Evidence) -> Sequence[Outcome]:
    outcomes = []
    for label, _, instance in instances.frame_instances(evidence):
        frames = instance["frames"]
        num_frames, dimension = frames.shape
        # An adapter of a layer that reads the recorded features: its inputs are the features, its factors drawn.
        adapter = draw_normals(jax.random.key(0), {"adapter": (RANK * 2 * dimension,)})["adapter"]
        size = (("num_frames", num_frames), ("dimension", dimension))
        for side, from_below in (("from above", False), ("from below", True)):
            composed = _complete(frames, frames, adapter, jnp.asarray(from_below))
            outcomes.append(PROBLEM.outcome(composed, size, f"LoRA on {label}, {side}"))
    return outcomes


def _largest_gradient_alone(instance: Instance):
    """The largest squared gradient of a difference for the top eigenvalue of their Gram matrix."""
    changes = jnp.diff(instance["gradients"], axis=0)
    largest = 2 / changes.shape[0] * jnp.max(jnp.sum(changes**2, axis=1))
    return _compared()(instance) + jnp.where(instance["from_below"], 0.0, largest - _sharpness(instance))


TOLERANCE = 0.35


def _model_of_a_step(evidence: Evidence) -> Sequence[Outcome]:
    """Loss of the features after a step, beside that of the residuals moved along their gradients, d - eta (2/M) G d."""
    outcomes = []
    for record in recorded.runs(evidence, "temporal"):
        moved = recorded.layer_similarities(record, 0) + recorded.predicted_move(record)
        predicted = float(np.mean(np.diff(moved, axis=1) ** 2))
        allowed = TOLERANCE * (record.temporal_losses[0] - predicted)
        error = abs(recorded.loss_of_features(record, 1) - predicted)
        # A model that predicts no decrease allows no error.
        outcomes.append(recorded.compared(f"step 1 of the {record.label}", error, max(allowed, 0.0)))
    return outcomes


CLAIM = Claim(
    id="C2.gauss-newton",
    title="Sharpness through a network from one backward pass a residual",
    statement=(
        "The Gauss-Newton matrix of the temporal loss with respect to the parameters of a network has a norm that "
        "follows exactly from N - 2 "
        "gradients, and lambda_max of the Hessian differs from it by at most J^2 a(F) + H ||grad L||, which vanishes "
        "with the loss."
    ),
    latex=(
        r"\Bigl|\lambda_{\max}(\nabla^2_\theta L) - \tfrac{2}{N-2}\lambda_{\max}(D K D^\top)\Bigr| "
        r"\le J^2 a(F) + H\,\|\nabla_F L\|"
    ),
    hypotheses=(
        Hypothesis("H1", "There are N >= 3 frames, none of them zero."),
        Hypothesis("H2", "K is the Gram matrix of the gradients of the similarities at theta."),
        Hypothesis("H3", "J bounds the first derivative of the map from parameters to features at theta."),
        Hypothesis("H4", "H bounds its second derivative at theta."),
    ),
    verdict=Verdict.PROVED,
    tightness=Tightness.ATTAINED,
    origin="not in the paper",
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    measured_in_words="lambda_max of the Hessian in LoRA's parameters, or what the Gauss-Newton norm exceeds it by",
    bound_in_words="the Gauss-Newton norm and J^2 a(F) + H ||grad_F L||, or the latter alone",
    sharpness=(
        "attained wherever the loss vanishes, at every N; that H is the best constant is seen at A = B = 0 near "
        "collinear frames"
    ),
    necessity={
        "H2": _gradients_of_others,
        "H3": lambda: _spoilt(saddle(), "a tenth of J", jacobian_norm=0.1),
        "H4": lambda: _spoilt(flat_layer(), "half of H", curvature_norm=0.5),
    },
    definitional={
        "H1": (
            "with fewer than three frames the loss is an empty mean, 0/0; at a zero frame it is not defined"
        ),
    },
    planted={
        "without the curvature of the similarities": _compared(feature_share=0.0),
        "without the curvature of the map": _compared(map_share=0.0),
        "N - 1 for N - 2": _compared(divisor_shift=1),
        "the largest gradient of a difference for the top eigenvalue": _largest_gradient_alone,
    },
    reality=(
        Comparison(
            question=(
                "With a LoRA of drawn factors that reads and moves the UNet's features, is lambda_max within J^2 a(F) "
                "+ H ||grad L|| of the Gauss-Newton norm?"
            ),
            origin=Origin.NETWORK,
            tells=Tells.IMPLIED,
            compare=_reality,
            because="C2.gauss-newton; the factors are drawn and not the network's, the features are the network's",
        ),
        Comparison(
            question=(
                "Does the Gauss-Newton model of the mean temporal loss in ALL adapter parameters, from the gradients "
                "of the similarities before a recorded training step, "
                "predict the loss of the features after it, to within 0.35 of the predicted decrease?"
            ),
            origin=Origin.NETWORK,
            tells=Tells.TEST,
            compare=_model_of_a_step,
        ),
    ),
    relies_on=("C1.certificate",),
    lemmas=("Weyl's inequality", "chain rule"),
    floor=0.999,
    floor_reason="the sides agree where the loss vanishes, and the search may descend to it",
)
