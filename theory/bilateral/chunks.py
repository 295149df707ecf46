r"""Filtering along the batch axis: what a cut changes, and what a seam does.

Statement. Let a sequence of frames be cut into pieces of at least h + 1 = 3 frames. Filtering the sequence, and
filtering each piece by itself under reflect padding, differ

    by at most D sigma_range, D = 0.5407874 for kernel 5 and sigma_spatial 1,

at the h = 2 frames on either side of a cut and nowhere else. The same D bounds both faults of filtering along the batch
axis: a clip filtered in chunks (the cuts are wrong: the result depends on the batch size), and a batch under guidance,
unconditional frames and then conditional ones, filtered as one sequence (the missing cut is wrong: the two mix at the
seam). A piece filtered with h frames more on either side, which are dropped afterwards, gives the sequence's result bit
for bit.

    D = max_{r, s} (q s - p r) / (1 + p + q) + 2 p r / (1 + 2 p),   p = G e^{-r^2/2} / 2,  q = G e^{-s^2/2} / 2

Hypotheses.
    H1  Every piece has at least 3 frames.
    H2  The difference is measured against the weights' own range width sigma_range.

**Tight**: attained at the last frame of a piece, whose past lies r = 1.5452428 below it and whose future s = 1.0312228
above it: the sequence pulls it up, and the piece, which sees its past twice, down.

In the paper: nothing; it is what the public code of the companion system does. Proof: paper_notes.md, section
C4.chunks.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import array_api_compat
import jax
import jax.numpy as jnp
import numpy as np

from theory.bilateral import instances
from theory.bilateral.constants import _host, check_sigma_range, largest_change, neighbour_weight
from theory.bilateral.filter import bilateral_filter, spatial_weights
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
from theory.rounding import relative_budget

GRID = 400
FARTHEST = 10.0
REFINEMENTS = 12
SIZES: tuple[Size, ...] = ((("num_frames", 6), ("piece", 3)), (("num_frames", 8), ("piece", 4)))


def _end_difference(past, future, weight: float):
    """(sequence - piece) at the last frame of a piece, past `past` below and future `future` above it, in range
    widths."""
    p, q = weight / 2 * np.exp(-(past**2) / 2), weight / 2 * np.exp(-(future**2) / 2)
    return (q * future - p * past) / (1 + p + q) + 2 * p * past / (1 + 2 * p)


@functools.cache
def end_extremum(weight: float) -> tuple[float, float, float]:
    """D of the last frame of a piece, and the r and s where it is attained, by a grid that is refined around its best
    point."""
    centre, width = (FARTHEST / 2, FARTHEST / 2), FARTHEST / 2
    for _ in range(REFINEMENTS):
        past, future = (np.linspace(max(0.0, middle - width), middle + width, GRID) for middle in centre)
        values = _end_difference(past[:, None], future[None, :], weight)
        best = np.unravel_index(np.argmax(values), values.shape)
        centre, width = (float(past[best[0]]), float(future[best[1]])), width * 8 / GRID
        if width < 1e-12:
            break
    return float(np.max(values)), *centre


def _one_sided(weight: float, mean: float) -> float:
    """sup_u w e^{-u^2/2} (u - mean) / (1 + w e^{-u^2/2}): how far frames of weight w can pull a mean up."""
    # At the supremum k: u (u - mean - k) = 1, and k = w e^{-u^2/2} / u; the right side falls and u - mean - 1/u rises
    # in u.
    low, high = 1e-9, FARTHEST + abs(mean)
    for _ in range(200):
        u = (low + high) / 2
        low, high = (low, u) if u - mean - 1 / u > weight * math.exp(-u * u / 2) / u else (u, high)
    return weight * math.exp(-high * high / 2) / high


@functools.cache
def _constant(kernel_size: int, sigma_spatial: float) -> tuple[float, bool]:
    """D, and whether it is attained: at the ends of the pieces exactly, further inside by a bound that is no more than
    sufficient."""
    weight, half = neighbour_weight(kernel_size, sigma_spatial), kernel_size // 2
    spatial = spatial_weights(kernel_size, sigma_spatial)
    end = end_extremum(weight)[0]
    inside = 0.0
    for before in range(1, half):
        for after in range(max(1, half - before), half + 1):
            cut = math.fsum(spatial[before:]) + math.fsum(spatial[after:])
            kept = largest_change(weight - cut)
            inside = max(inside, _one_sided(cut, kept) + _one_sided(cut, -kept))
    return max(end, inside), end >= inside


def chunked_difference_bound(sigma_range: Any, kernel_size: int = 5, sigma_spatial: float = 1.0) -> Any:
    """The most that cutting a sequence, or failing to cut it, changes a filtered value under reflect padding.

        D sigma_range;  D = 0.5407874 for kernel 5 and sigma_spatial 1, the best constant

    Args:
        sigma_range: number or array (NumPy, JAX, PyTorch), in the units of the values.
        kernel_size, sigma_spatial: of the filter. Where frames beside the end of a piece could change more than the end
            itself (sigma_spatial above 1.593 for kernel 5) D is an upper bound and perhaps not the best one.

    Returns:
        Of the same kind and units.

    Raises:
        ValueError: settings that define no filter; a sigma_range that is not finite and positive.

    Source: paper_notes.md, C4.chunks.
    """
    check_sigma_range(_host(sigma_range))
    neighbour_weight(kernel_size, sigma_spatial)
    return _constant(int(kernel_size), float(sigma_spatial))[0] * sigma_range


def chunked_filter(x: Any, frames_at_once: int, *, overlap: int = 0, **settings: Any) -> Any:
    """A clip filtered a few frames at a time.

    Args:
        x: (frames, ...), as `bilateral_filter` takes it.
        frames_at_once: frames that a piece gives to the result.
        overlap: frames that a piece sees beside them on either side. kernel_size // 2 give the result of the whole clip
            bit for bit; 0, which is what filtering along the batch axis does, is off by up to
            `chunked_difference_bound`.
        settings: of `bilateral_filter`.

    Returns:
        Same shape, kind and dtype.

    Raises:
        ValueError: frames_at_once below 1; overlap below 0; what `bilateral_filter` raises, for example for a piece
            that is too short.
    """
    if frames_at_once < 1:
        raise ValueError(f"frames_at_once = {frames_at_once}; at least 1 is needed")
    if overlap < 0:
        raise ValueError(
            f"overlap = {overlap}; 0 or more frames are needed, kernel_size // 2 for the whole clip's result"
        )
    xp = array_api_compat.array_namespace(x)
    pieces = []
    for start in range(0, x.shape[0], frames_at_once):
        first, stop = max(0, start - overlap), min(x.shape[0], start + frames_at_once)
        piece = bilateral_filter(x[first : min(x.shape[0], stop + overlap), ...], **settings)
        pieces.append(piece[start - first : stop - first, ...])
    return xp.concat(pieces, axis=0)


def _cut_filter(frames: jax.Array, sigma_range: jax.Array, piece: int) -> jax.Array:
    # Pieces of equal length are filtered as columns of one array.
    columns = frames.reshape(-1, piece).T
    return instances.filtered(columns, sigma_range).T.reshape(-1)


def _measured(instance: Instance):
    frames, sigma = instance["frames"], instance["sigma_range"]
    return instances.largest(instances.filtered(frames, sigma) - _cut_filter(frames, sigma, instance["piece"].shape[0]))


def _draw(key: jax.Array, *, num_frames: int, piece: int) -> Parameters:
    return instances.draw(key, num_frames=num_frames)


def _instance(parameters: Parameters, *, num_frames: int, piece: int) -> Instance:
    return instances.instance(parameters, num_frames=num_frames) | {"piece": jnp.zeros(piece)}


PROBLEM = Problem(
    sizes=SIZES,
    draw=_draw,
    instance=_instance,
    measured=_measured,
    bound=lambda instance: chunked_difference_bound(1.0) * instance["sigma_range"],
    operations=instances.operations,
)


def extremal_frames(num_frames: int, piece: int) -> np.ndarray:
    """0 at the last frame of the first piece, -r before it and s after it, in units of sigma_range."""
    _, past, future = end_extremum(neighbour_weight())
    frames = np.full(num_frames, future)
    frames[:piece] = -past
    frames[piece - 1] = 0.0
    return frames


def witness(*, num_frames: int, piece: int) -> Instance:
    """The extremal frames with sigma_range = 1."""
    return {
        "frames": jnp.asarray(extremal_frames(num_frames, piece)),
        "sigma_range": jnp.asarray(1.0),
        "piece": jnp.zeros(piece),
    }


def witness_parameters(*, num_frames: int, piece: int) -> Parameters:
    return instances.parameters_of(extremal_frames(num_frames, piece))


def _half_the_width() -> Outcome:
    found = PROBLEM.outcome(witness(num_frames=6, piece=3), SIZES[0], "a sigma_range that is half the weights' own")
    return Outcome(found.label, found.measured, found.bound / 2, found.budget, witness=found.witness)


def _planted(weight: float):
    return lambda instance: end_extremum(weight)[0] * instance["sigma_range"]


def _seam(evidence: Evidence) -> Sequence[Outcome]:
    """Features without and with the adapter one after the other, as the two halves of a guided batch, filtered as one
    sequence and each by itself."""
    outcomes = []
    for label, off, on in instances.adapter_pairs(evidence):
        for sigma in (1.0, 0.05):
            apart = np.concatenate([bilateral_filter(half, sigma_range=sigma) for half in (off, on)])
            mixed = bilateral_filter(np.concatenate([off, on]), sigma_range=sigma)
            budget = relative_budget(64) * (1 + float(np.max(np.abs(mixed))) / sigma)
            bound = float(chunked_difference_bound(sigma))
            outcomes.append(
                Outcome(f"{label}, sigma_range {sigma:g}", float(np.max(np.abs(mixed - apart))), bound, budget)
            )
    return outcomes


CLAIM = Claim(
    id="C4.chunks",
    title="What filtering along the batch axis changes",
    statement=(
        "A sequence filtered as a whole, and cut into pieces of at least 3 frames that are filtered one by one, "
        "differ by at most 0.5407874 sigma_range, at the two frames on either side of a cut; two frames of overlap "
        "mend it."
    ),
    latex=r"\|B(x) - (B(x^{(1)}), \ldots, B(x^{(n)}))\|_\infty \le D \sigma_r,\quad D = 0.5407874",
    hypotheses=(
        Hypothesis("H1", "Every piece has at least 3 frames."),
        Hypothesis("H2", "The difference is measured against the weights' own range width sigma_range."),
    ),
    verdict=Verdict.PROVED,
    tightness=Tightness.ATTAINED,
    origin="not in the paper; the public code of the companion system filters along the batch axis",
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    measured_in_words=(
        "the largest difference between the sequence's and the pieces' filtered values, in units of the values"
    ),
    bound_in_words="D times sigma_range, in the same units",
    necessity={"H2": _half_the_width},
    definitional={
        "H1": (
            "a piece of fewer than 3 frames has no reflect padding of a window of 5, so there is no filter to compare "
            "with"
        )
    },
    planted={
        "K of the neighbours on one side": lambda instance: (
            largest_change(neighbour_weight() / 2) * instance["sigma_range"]
        ),
        "K, the most that a value changes": lambda instance: (
            largest_change(neighbour_weight()) * instance["sigma_range"]
        ),
        "the nearest neighbours only": _planted(2 * math.exp(-0.5)),
        "sigma_range^2 for sigma_range": lambda instance: chunked_difference_bound(1.0) * instance["sigma_range"] ** 2,
        "a quarter of the widest step": lambda instance: instances.largest(jnp.diff(instance["frames"])) / 4,
    },
    reality=(
        Comparison(
            question=(
                "The trained UNet's self-attention features of 5 frames without and then with the adapter, filtered "
                "as one sequence of 10 and as two of 5, with sigma_range 1 and 0.05: the largest difference against D "
                "sigma_range"
            ),
            origin=Origin.NETWORK,
            tells=Tells.IDENTITY,
            compare=_seam,
        ),
    ),
    lemmas=("Jensen's inequality",),
    floor=0.999,
    floor_reason="the supremum is attained at a smooth maximum",
)
