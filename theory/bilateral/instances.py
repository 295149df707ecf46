"""Instances shared by the theorems on the filter: frames of one value each, drawn or explicit, in units of sigma_range.

Entries are filtered one by one, so one value a frame is all that a bound has to hold for. All theorems are checked for
the public code's kernel of 5 frames and sigma_spatial = 1.
"""

import jax
import jax.numpy as jnp
import numpy as np

from theory.bilateral.filter import bilateral_filter
from theory.claim import Instance, Parameters, Size
from theory.evidence import Evidence, FeatureRecord
from theory.inversion.instances import bounded_exp
from theory.rounding import relative_budget

SIZES: tuple[Size, ...] = ((("num_frames", 5),), (("num_frames", 8),))

OPERATIONS = 4000
"""Roundings of a filtered value or of a derivative of it, in units of the result.

A value is a chain of some 60: 8 for each of four weights, two sums of four, a quotient, and as many for its derivative.
Frames are drawn within some 10 range widths of 0, a difference is rounded at that size, and a derivative changes by at
most 3 times the error in units of sigma_range: 60 x 10 x 3, and twice as much where two results are compared.
"""


def operations(**_: int) -> int:
    return OPERATIONS


def filtered(
    frames: jax.Array, sigma_range: jax.Array, padding: str = "reflect", *, monotone: bool = False
) -> jax.Array:
    """B_sigma(x) = sigma B_1(x / sigma), traceable in sigma; (frames, ...)."""
    return sigma_range * bilateral_filter(frames / sigma_range, sigma_range=1.0, padding=padding, monotone=monotone)


def jacobian(frames: jax.Array, sigma_range: jax.Array, padding: str = "reflect") -> jax.Array:
    """(frames, frames) by automatic differentiation."""
    return jax.jacobian(lambda x: filtered(x, sigma_range, padding))(frames)


def draw(key: jax.Array, *, num_frames: int) -> Parameters:
    """Frames a few range widths apart, and closer ones as often."""
    frames_key, spread_key, range_key = jax.random.split(key, 3)
    spread = jnp.exp(jax.random.uniform(spread_key, minval=-2.0, maxval=1.0))
    return {"frames": spread * jax.random.normal(frames_key, (num_frames,)), "log_range": jax.random.normal(range_key)}


def sigma_of(parameters: Parameters) -> jax.Array:
    return bounded_exp(parameters["log_range"], 2.0)


def instance(parameters: Parameters, *, num_frames: int) -> Instance:
    """Any frames, any sigma_range; the parameters are the frames in units of sigma_range."""
    sigma = sigma_of(parameters)
    return {"frames": sigma * parameters["frames"], "sigma_range": sigma}


def parameters_of(frames, log_range: float = 0.0) -> Parameters:
    """Parameters whose instance has these frames, in units of sigma_range."""
    return {"frames": jnp.asarray(frames, dtype=jnp.float64), "log_range": jnp.asarray(log_range)}


def draw_pair(key: jax.Array, **size: int) -> Parameters:
    """Two clips: frames as in `draw`, the second a common shift and a difference of its own away, near as often as
    far."""
    num_frames = size["num_frames"]
    keys = jax.random.split(key, 4)
    near = jnp.exp(jax.random.uniform(keys[0], minval=-4.0, maxval=1.0))
    return draw(keys[1], num_frames=num_frames) | {
        "change": near * jax.random.normal(keys[2], (num_frames,)),
        "shift": jax.random.normal(keys[3]),
    }


def pair(parameters: Parameters, **_: int) -> Instance:
    """Any two clips."""
    sigma = sigma_of(parameters)
    frames = sigma * parameters["frames"]
    return {
        "frames": frames,
        "other": frames + sigma * (parameters["change"] + parameters["shift"]),
        "sigma_range": sigma,
    }


def largest(values: jax.Array) -> jax.Array:
    """The maximum norm."""
    return jnp.max(jnp.abs(values))


def rounding(instance: Instance) -> jax.Array:
    """What two filtered clips may differ by where the exact ones do not: 30 roundings at the size of the values."""
    return relative_budget(30) * (largest(instance["frames"]) + largest(instance["other"]))


def columns(record: FeatureRecord) -> np.ndarray:
    """Features of a record as (frames, entries)."""
    return record.values.reshape(len(record.values), -1)


def cleanest(evidence: Evidence) -> list[FeatureRecord]:
    """The feature records of the least timestep.

    Raises:
        ValueError: a label that names no timestep.
    """

    def timestep(record: FeatureRecord) -> int:
        _, found, rest = record.label.partition("timestep ")
        if not found:
            raise ValueError(
                f"the feature record {record.label!r} names no timestep; label it 'LAYER, timestep T, adapter off'"
            )
        return int(rest.split(",")[0])

    least = min(timestep(record) for record in evidence.features)
    return [record for record in evidence.features if timestep(record) == least]


def adapter_pairs(evidence: Evidence) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Features of one layer and timestep without and with the adapter: (label, off, on), each (frames, entries).

    Raises:
        ValueError: no layer was recorded both ways.
    """
    by_label = {record.label: record for record in evidence.features}
    found = [
        (label.removesuffix(", adapter off"), columns(record), columns(by_label[label.removesuffix("off") + "on"]))
        for label, record in by_label.items()
        if label.endswith(", adapter off") and label.removesuffix("off") + "on" in by_label
    ]
    if not found:
        raise ValueError(
            f"none of {len(by_label)} feature records was made both with the adapter off and on; record both"
        )
    return found
