"""What the theorems on the temporal loss ask of recorded evidence: features of the UNet, and steps of descent on its adapter.

A prediction from one part of the record about another can fail: the numbers before a step (loss, gradient, curvature, features) predict the
features after it. Such comparisons are tests; how far they may be off (`TOLERANCE` and the like) is chosen, not proved, and stands in their
questions.
"""

import functools
from collections.abc import Iterator
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from theory.evidence import Evidence, TrainingRecord
from theory.problem import Outcome
from theory.rounding import relative_budget
from theory.temporal_loss import instances
from theory.temporal_loss.loss import temporal_loss

RECORD_BUDGET = relative_budget(1 << 20)
"""Of comparisons that allow a chosen tolerance: more roundings than any chain here has, and 1e-10 of the tolerance."""


def runs(evidence: Evidence, kind: str) -> list[TrainingRecord]:
    """The recorded runs of one kind.

    Raises:
        ValueError: there is none.
    """
    found = [record for record in evidence.trainings if record.kind == kind]
    if not found:
        kinds = sorted({record.kind for record in evidence.trainings})
        raise ValueError(f"no run of kind {kind!r} was recorded (recorded: {kinds}); record steps of descent on the adapter first")
    return found


def similarities_of(values: np.ndarray) -> np.ndarray:
    """s of one layer's features (frames, ...), (frames - 1,) float64."""
    frames = np.reshape(values, (len(values), -1))
    units = frames / np.linalg.norm(frames, axis=1, keepdims=True)
    return np.sum(units[1:] * units[:-1], axis=1)


def layer_similarities(record: TrainingRecord, step: int) -> np.ndarray:
    """s of every layer after `step` steps, (layers, frames - 1), from the captured features."""
    return np.stack([similarities_of(values[step]) for values in record.features])


def predicted_move(record: TrainingRecord) -> np.ndarray:
    """The change of every similarity in the first step, to first order, (layers, frames - 1).

        - eta K y,   K the Gram matrix of the similarities' gradients in the parameters at the start, y = dL/ds of the mean over the layers
    """
    before = layer_similarities(record, 0)
    layers, pairs = before.shape
    steps = np.pad(np.diff(before, axis=1), ((0, 0), (1, 1)))
    slopes = 2 / (layers * (pairs - 1)) * (steps[:, :-1] - steps[:, 1:])
    return -record.step_size * (record.similarity_gram @ slopes.reshape(-1)).reshape(before.shape)


def loss_of_features(record: TrainingRecord, step: int) -> float:
    """The temporal loss after `step` steps, mean over the layers, from the captured features and not from the editor's own sum."""
    return float(np.mean(np.diff(layer_similarities(record, step), axis=1) ** 2))


def change_promised(record: TrainingRecord, step: int = 0, *, stiffer: float = 1.0) -> float:
    """By how much a step lowers the objective if the curvature along it is `stiffer` times that along the gradient at its start.

        eta (1 - eta kappa / 2) ||g||^2
    """
    eta = record.step_size
    return eta * (1 - stiffer * eta * record.curvatures[step] / 2) * record.squared_gradients[step]


def compared(label: str, measured: float, bound: float, **witness: np.ndarray | float) -> Outcome:
    """An outcome of a comparison that allows a chosen tolerance."""
    arrays = {name: np.asarray(value) for name, value in witness.items()}
    return Outcome(label, float(measured), float(bound), RECORD_BUDGET, witness=arrays)


def layer_steps(record: TrainingRecord, step: int = 0) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Label, features before and features after one step, layer by layer."""
    for layer, values in zip(record.layers, record.features, strict=True):
        yield f"{layer}, step {step + 1} of the {record.label}", values[step], values[step + 1]


def first_steps(evidence: Evidence) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Label, features before and features after the first step of training on L alone and of training as published, layer by layer."""
    for kind in ("temporal", "published"):
        for record in runs(evidence, kind):
            yield from layer_steps(record)


@functools.partial(jax.jit, static_argnames="similarity")
def _expansion(before: jax.Array, after: jax.Array, similarity: str):
    def loss(values: jax.Array) -> jax.Array:
        return temporal_loss(values, similarity=similarity)

    move = after - before
    start, gradient = jax.value_and_grad(loss)(before)
    end, gradient_after = jax.value_and_grad(loss)(after)
    turned = jax.jvp(jax.grad(loss), (before,), (move,))[1]
    change = gradient_after - gradient
    return {
        "change": end - start,
        "first": jnp.sum(gradient * move),
        "second": jnp.sum(move * turned) / 2,
        "gradient_change": jnp.sqrt(jnp.sum(change**2)),
        "gradient_error": jnp.sqrt(jnp.sum((change - turned) ** 2)),
    }


def expansion(before: np.ndarray, after: np.ndarray, similarity: Literal["frame", "pixel"] = "frame") -> dict[str, float]:
    """The temporal loss from one set of features to another, and what its derivatives at the first say about the second.

    Returns:
        "change" L(after) - L(before); "first" <grad L, move> and "second" move^T Hess L move / 2, both at `before`; "gradient_change"
        ||grad L(after) - grad L(before)||, and "gradient_error" how far that change is from Hess L move.
    """
    if similarity == "frame":
        before, after = np.split(instances.reduce_frames(np.concatenate([before, after])), 2)
    found = _expansion(jnp.asarray(before), jnp.asarray(after), similarity)
    return {name: float(value) for name, value in found.items()}
