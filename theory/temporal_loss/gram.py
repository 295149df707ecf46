"""Inner products of frames at distance 0, 1 and 2, streamed: what the loss, its gradient and the curvature certificate depend on.

    ||F_t||^2,   <F_t, F_{t+1}>,   <F_t, F_{t+2}>

Features are read once, in blocks that fit the processor's caches, so nothing of their size is ever allocated. The inner products over two
sets of columns add up, and frames may be handed over one at a time, so features can be reduced as they are captured and never all be held.

Where neighbouring frames are close, sums in float32 lose the sines in the rounding of the cosines. They keep them if what is summed is
the differences d_t = F_{t+1} - F_t, of which every entry is rounded relative to itself: with r_t = ||F_t||,

    1 - cos(F_s, F_t) = (||F_t - F_s||^2 - (r_t - r_s)^2) / (2 r_s r_t),   ||F_{t+2} - F_t||^2 = ||d_t||^2 + ||d_{t+1}||^2 + 2 <d_t, d_{t+1}>.
"""

import dataclasses
import math
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, get_args

import array_api_compat
import numpy as np

from theory.rounding import UNIT_ROUNDOFF, relative_budget
from theory.temporal_loss.loss import MINIMUM_CHANNELS, MINIMUM_FRAMES, is_real_floating

SINGLE_ROUNDOFF = float(np.finfo(np.float32).eps) / 2
SINGLE_CHAIN = 1024
"""Products summed in float32 before float64 takes over: few, so that the worst rounding stays small."""
SINGLE_COLUMNS = 1 << 16
DOUBLE_COLUMNS = 1 << 13
LEAST_COLUMNS = 1 << 6
"""Columns reduced at a time. Runs this long keep the memory streaming, and three rows of them fit a processor's second cache."""
DIFFERENCES = 8
"""Of frames as long as these runs, taken and multiplied while they are in a cache."""
BLOCK_BYTES = 1 << 23
"""Of many frames fewer columns are converted to float64 at a time: what fits a processor's last cache."""
TRANSFER_BYTES = 1 << 25
"""What is brought to the host, or copied because of its layout, at a time."""
THREADED_SIZE = 1 << 22
SHORT_FLOATS = ("float32", "bfloat16")
"""What is summed in float32 if asked for; bfloat16, which NumPy lacks, is float32 on the host."""
WORTH_SAMPLING = 1 << 20
"""Of fewer features all are read in double precision in less time than the certificate takes."""
SAMPLED_BLOCKS, SAMPLED_SHARE = 4, 64
CLOSE_NEIGHBOURS = 0.75
CLOSE_STEPS = 2.0**-12
"""Where a sample has cosines above the first, the margin of sums of products in float32 comes out above 1/32 of the certificate; where the
error of the cosines is above this share of the least 1 - cos, that of sums of products of differences."""
LARGEST_ERROR = 2.0**-10
"""Beyond it the first-order bounds of the certificate's rounding margin no longer hold."""
LEAST_SQUARED_NORM = 2.0**-900
"""Below it products of a frame's entries may have underflowed, gradually or not, and their error is no longer relative to the norms."""
LARGEST_RATIO = 2.0**1000
"""Of two squared norms, so that all of them are in the range of float64 when the least is scaled to 1."""

Precision = Literal["single", "differences", "double"]


@dataclasses.dataclass(frozen=True, eq=False)
class BandedGram:
    """Inner products of N frames, each with itself and its next two, and how far rounding may have moved them.

    Attributes:
        squared_norms: (N,) float64, ||F_t||^2.
        neighbours: (N - 1,) float64, <F_t, F_{t+1}>.
        second_neighbours: (N - 2,) float64, <F_t, F_{t+2}>.
        error: every entry lies within error * ||F_s|| ||F_t|| of the exact one. The default is one rounding of an exact entry; whoever summed
            n products in float64 passes theory.rounding.relative_budget(n).
        cosine_errors: every cosine of neighbours, and of second neighbours, lies within these of the exact one, rounding of the quotient
            included. The default is what follows from `error`; they are smaller where the entries come from differences of neighbouring frames.

    Raises:
        ValueError: shapes that do not belong together, fewer than 3 frames, arrays on several devices, a squared norm that is NaN, infinite or
            below 2^-900, two of which one is more than 2^1000 times the other, a product above that of the norms (Cauchy-Schwarz), an error
            outside [0, 2^-10], or cosine_errors that are not two numbers from one rounding to what follows from 2^-10.
    """

    squared_norms: Any
    neighbours: Any
    second_neighbours: Any
    error: float = UNIT_ROUNDOFF
    cosine_errors: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        names = ("squared_norms", "neighbours", "second_neighbours")
        given = [getattr(self, name) for name in names]
        devices = [str(array_api_compat.device(array)) for array in given if array_api_compat.is_array_api_obj(array)]
        if len(set(devices)) > 1:
            raise ValueError(f"the inner products are on devices {', '.join(devices)}; one device is needed, move them together")
        _check_num_frames(len(given[0]))
        for distance, (name, array) in enumerate(zip(names, given, strict=True)):
            array = _on_host(array).astype(np.float64)
            if array.shape != (len(given[0]) - distance,):
                raise ValueError(
                    f"{name} have shape {array.shape}; {(len(given[0]) - distance,)} is needed for {len(given[0])} frames"
                )
            object.__setattr__(self, name, array)
        if not 0 <= self.error <= LARGEST_ERROR:
            raise ValueError(f"error = {self.error}; a number in [0, {LARGEST_ERROR}] is needed: sum in float64, or in shorter chains")
        if self.cosine_errors is None:
            object.__setattr__(self, "cosine_errors", (error_of_cosines(self.error),) * 2)
        least, largest = error_of_cosines(0.0), error_of_cosines(LARGEST_ERROR)
        given = self.cosine_errors if isinstance(self.cosine_errors, tuple | list) else ()
        if len(given) != 2 or not all(least <= cosine_error <= largest for cosine_error in given):
            raise ValueError(f"cosine_errors = {self.cosine_errors}; two numbers in [{least:.3g}, {largest:.3g}] are needed, or none")
        self._check_norms()
        self._check_products()

    def _check_norms(self) -> None:
        for frame, value in enumerate(self.squared_norms):
            if not (math.isfinite(value) and value >= LEAST_SQUARED_NORM):
                raise ValueError(
                    f"frame {frame} has squared norm {value:g}; a finite value of at least {LEAST_SQUARED_NORM:.3g} is needed, since the "
                    "cosine similarity is undefined elsewhere: drop or repair that frame, or rescale the features"
                )
        shortest, longest = int(np.argmin(self.squared_norms)), int(np.argmax(self.squared_norms))
        if self.squared_norms[longest] / LARGEST_RATIO > self.squared_norms[shortest]:
            raise ValueError(
                f"frames {shortest} and {longest} have squared norms {self.squared_norms[shortest]:g} and {self.squared_norms[longest]:g}; at "
                f"most {LARGEST_RATIO:.3g} times the least is possible in float64: drop or rescale the shorter frame"
            )

    def _check_products(self) -> None:
        norms = np.sqrt(self.squared_norms)
        for distance, products in ((1, self.neighbours), (2, self.second_neighbours)):
            limits = norms[:-distance] * norms[distance:] * (1 + 4 * self.error + 8 * UNIT_ROUNDOFF)
            for frame in np.flatnonzero(~(np.abs(products) <= limits)):
                raise ValueError(
                    f"frames {frame} and {frame + distance} have inner product {products[frame]:g}; at most {limits[frame]:g} in magnitude, "
                    "the product of their norms, is possible: the entries do not belong to one set of frames"
                )

    @property
    def num_frames(self) -> int:
        return self.squared_norms.shape[0]

    def __add__(self, other: "BandedGram") -> "BandedGram":
        """Inner products of the same frames over the columns of both; their `cosine_errors` are the default.

        The errors e_1 ||F'|| ||G'|| + e_2 ||F''|| ||G''|| are at most max(e_1, e_2) ||F|| ||G|| by Cauchy-Schwarz; the sum rounds once more.
        """
        if self.num_frames != other.num_frames:
            raise ValueError(f"{self.num_frames} and {other.num_frames} frames; columns of the same frames are needed to add them")
        return BandedGram(
            self.squared_norms + other.squared_norms,
            self.neighbours + other.neighbours,
            self.second_neighbours + other.second_neighbours,
            _followed_by(max(self.error, other.error), 1),
        )


def error_of_cosines(error: float) -> float:
    """How far a cosine may be off whose inner product and squared norms are off by this relative error; paper_notes.md, C1.certificate."""
    return 2.01 * error + 16 * UNIT_ROUNDOFF


def _followed_by(error: float, roundings: int) -> float:
    """Relative error of sums whose terms carry `error` and which round that many times in float64."""
    budget = relative_budget(roundings)
    return error + budget + error * budget


def _dtype_name(array: Any) -> str:
    return str(array.dtype).removeprefix("torch.")


def _is_bfloat16(array: Any) -> bool:
    return _dtype_name(array) == "bfloat16"


def _on_host(array: Any) -> np.ndarray:
    """A NumPy view where the memory allows one, else a copy; bfloat16, which NumPy lacks, as float32, which holds it exactly."""
    if array_api_compat.is_torch_array(array):
        array = array.detach().cpu().resolve_conj().resolve_neg()
        return (array.float() if _is_bfloat16(array) else array).numpy()
    array = np.asarray(array)
    return array.astype(np.float32) if _is_bfloat16(array) else array


def _check_num_frames(num_frames: int) -> None:
    if num_frames < MINIMUM_FRAMES:
        raise ValueError(f"{num_frames} frames were given, at least {MINIMUM_FRAMES} are needed: the loss compares neighbouring pairs")


def _check_array(array: Any, name: str) -> None:
    if not array_api_compat.is_array_api_obj(array):
        raise ValueError(f"{name} is a {type(array).__name__}; pass a NumPy, JAX or PyTorch array")
    if not is_summable(array):
        raise ValueError(f"{name} has dtype {array.dtype}; a real floating-point dtype is needed, convert it first")
    if array_api_compat.is_torch_array(array) and str(array.layout) != "torch.strided":
        raise ValueError(f"{name} has layout {array.layout}; a dense array is needed, call to_dense() first")


def is_summable(array: Any) -> bool:
    """Whether an array has a dtype that is summed here: float16, bfloat16, float32, float64 or a longer one of NumPy."""
    return _is_bfloat16(array) or (is_real_floating(array) and "float8" not in str(array.dtype))


def _check_width(width: int, name: str) -> None:
    if width < MINIMUM_CHANNELS:
        raise ValueError(
            f"{name} has {width} feature, at least {MINIMUM_CHANNELS} are needed: a cosine of vectors of length one is +1 or -1 and has no "
            "curvature; check which axis holds the channels"
        )


def _columns(array: Any) -> Iterator[np.ndarray]:
    """The features as host matrices (frames, columns) that together hold every column once, in any order.

    Inner products do not see the order of the feature axes, so they are taken in the order of the memory, where flattening copies nothing.
    """
    # All of bfloat16 is not converted at once.
    if str(array_api_compat.device(array)).lower().startswith("cpu") and not _is_bfloat16(array):
        array = _on_host(array)
        inward = sorted(range(1, array.ndim), key=lambda axis: -abs(array.strides[axis]))
        array = np.transpose(array, (0, *inward))
        if all(array.strides[axis] == array.strides[axis + 1] * array.shape[axis + 1] for axis in range(1, array.ndim - 1)):
            yield array.reshape(array.shape[0], -1)
            return
    if array.ndim > 2 and 8 * math.prod(array.shape) > TRANSFER_BYTES:
        for index in range(array.shape[1]):
            yield from _columns(array[:, index, ...])
        return
    width = max(1, TRANSFER_BYTES // (8 * array.shape[0])) if array.ndim == 2 else array.shape[1]
    for start in range(0, array.shape[1], width):
        yield _on_host(array[:, start : start + width, ...]).reshape(array.shape[0], -1)


@dataclasses.dataclass(frozen=True)
class _Plan:
    """How a matrix is reduced: in what dtype, frames or their differences, columns at a time, products summed before float64 takes over."""

    dtype: np.dtype
    differences: bool
    columns: int
    chain: int
    roundoff: float

    @property
    def roundings(self) -> int:
        """Of a chain every product is rounded once and takes part in all but one addition; one more covers what underflows."""
        # Each of the two differences that are multiplied is rounded as well.
        return self.chain + 1 + 2 * self.differences


def _converted_columns(num_frames: int, most: int) -> int:
    return min(most, max(LEAST_COLUMNS, BLOCK_BYTES // (8 * num_frames)))


def _plan(num_frames: int, precision: Precision) -> _Plan:
    if precision == "double":
        columns = _converted_columns(num_frames, DOUBLE_COLUMNS)
        return _Plan(np.dtype(np.float64), False, columns, columns, UNIT_ROUNDOFF)
    return _Plan(np.dtype(np.float32), precision == "differences", SINGLE_COLUMNS, SINGLE_CHAIN, SINGLE_ROUNDOFF)


def _dots(rows: np.ndarray, sums: np.ndarray) -> None:
    """Products of each row with itself and the next ones; rows (R, chains, chain), sums (R', chains, reach) with R' <= R, 0 where none is left."""
    reach = sums.shape[2]
    together = max(0, min(len(sums), len(rows) - reach + 1))
    # Row t meets t, t + 1, .. at once, so all reads but one come from a cache.
    shape = (together, rows.shape[1], reach, rows.shape[2])
    strides = (rows.strides[0], rows.strides[1], rows.strides[0], rows.strides[2])
    ahead = np.lib.stride_tricks.as_strided(rows, shape, strides, writeable=False)
    np.vecdot(ahead[:, :, :1], ahead, out=sums[:together])
    for row in range(together, len(sums)):
        for distance in range(min(reach, len(rows) - row)):
            np.vecdot(rows[row], rows[row + distance], out=sums[row, :, distance])


def _reduce_products(block: np.ndarray, sums: np.ndarray, plan: _Plan, buffer: np.ndarray | None) -> None:
    """Sums (N, chains, 3) of the products of frames at distance 0, 1 and 2; a block that is not of the dtype is converted into the buffer."""
    if buffer is not None:
        np.copyto(buffer, block)
        block = buffer
    _dots(block.reshape(block.shape[0], -1, plan.chain), sums)


def _reduce_differences(block: np.ndarray, sums: np.ndarray, plan: _Plan, buffer: np.ndarray) -> None:
    """Sums (N, chains, 3) of ||F_t||^2, ||d_t||^2 and <d_t, d_{t+1}>, the differences in the buffer."""
    rows = buffer.reshape(buffer.shape[0], -1, plan.chain)
    for first in range(0, block.shape[0], DIFFERENCES):
        # One difference more than are summed, which the last one meets.
        frames = block[first : first + DIFFERENCES + 2]
        own = sums[first : first + DIFFERENCES]
        np.subtract(frames[1:], frames[:-1], out=buffer[: len(frames) - 1])
        _dots(frames[: len(own)].reshape(len(own), -1, plan.chain), own[:, :, :1])
        taken = rows[: len(frames) - 1]
        _dots(taken, own[: len(taken), :, 1:])


def _num_workers() -> int:
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(available, 4)


def _reduce_chains(matrix: np.ndarray, plan: _Plan) -> np.ndarray:
    """Sums (3, N) in float64 over the columns of a matrix (N, chains * plan.chain)."""
    num_frames, width = matrix.shape
    sums = np.zeros((num_frames, width // plan.chain, 3), plan.dtype)
    starts = range(0, width, plan.columns)
    workers = 1 if matrix.size < THREADED_SIZE else min(_num_workers(), len(starts))
    as_it_lies = matrix.dtype == plan.dtype and matrix.strides[1] == plan.dtype.itemsize
    rows = min(DIFFERENCES + 1, num_frames - 1) if plan.differences else num_frames

    reduce = _reduce_differences if plan.differences else _reduce_products

    def work(worker: int) -> None:
        # One buffer a worker: fresh memory for every block costs more than the conversion.
        buffer = None if as_it_lies and not plan.differences else np.empty((rows, min(plan.columns, width)), plan.dtype)
        with np.errstate(over="ignore", invalid="ignore"):  # of this thread; infinity and NaN are reported with their frame
            for start in starts[worker::workers]:
                block = matrix[:, start : start + plan.columns]
                chains = sums[:, start // plan.chain : (start + block.shape[1]) // plan.chain]
                reduce(block, chains, plan, None if buffer is None else buffer[:, : block.shape[1]])

    if workers == 1:
        work(0)
    else:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(work, range(workers)))
    # However many workers there were, the same features give the same bytes.
    return np.sum(sums, axis=1, dtype=np.float64).T


def _reduce(matrix: np.ndarray, precision: Precision) -> tuple[np.ndarray, float]:
    """Sums (3, N) of a host matrix (N, columns) in float64, and their error relative to the norms.

    They are the inner products at distance 0, 1 and 2, or with "differences" ||F_t||^2, ||d_t||^2 and <d_t, d_{t+1}>.
    """
    width = matrix.shape[1]
    plan = _plan(matrix.shape[0], precision)
    whole = width - width % plan.chain
    sums, error = np.zeros((3, matrix.shape[0])), 0.0
    if whole:
        sums = _reduce_chains(matrix[:, :whole], plan)
        error = _followed_by(relative_budget(plan.roundings, plan.roundoff), whole // plan.chain)
    # What no chain is filled with, in float64 and again not too many columns at a time.
    length = _converted_columns(matrix.shape[0], plan.chain)
    for start in range(whole, width, length):
        block = matrix[:, start : start + length].astype(np.float64)
        rest = dataclasses.replace(plan, dtype=block.dtype, columns=block.shape[1], chain=block.shape[1], roundoff=UNIT_ROUNDOFF)
        sums = sums + _reduce_chains(block, rest)
        error = _followed_by(max(error, relative_budget(rest.roundings)), 1)
    return sums, error


def banded_gram(features: Any, *, precision: Precision = "double") -> BandedGram:
    """Inner products of each frame with itself and its next two, reading the features once (twice where `precision` is passed over).

    Args:
        features: (frames, ...) floating-point NumPy, JAX or PyTorch array; or an iterable of frames (...), which are reduced one at a time
            while two are held. From another device than the host they are fetched in pieces.
        precision: "double" sums in float64 the exact products of shorter floats. "single" sums up to 1024 float32 products in float32 before
            float64 takes over: two to three times as fast, with an `error` up to 7e-5. "differences" does so with the differences of
            neighbouring frames: the `cosine_errors` are about 1e-4 times the largest 1 - cos, small where all neighbours are close. Both
            concern arrays of float32 and bfloat16 only, and are passed over where products leave the range of float32, or differences are
            too long.

    Returns:
        The inner products and a bound on their rounding error.

    Raises:
        ValueError: not of a floating-point dtype, fewer than 3 frames, fewer than 2 features a frame, a frame whose squared norm is NaN,
            infinite or below 2^-900, two whose squared norms are more than 2^1000 apart, or (iterable) a frame whose shape, dtype or device is
            not that of frame 0. The message names the frame.
    """
    if precision not in get_args(Precision):
        raise ValueError(f"precision = {precision!r}; one of {', '.join(map(repr, get_args(Precision)))} is needed")
    if array_api_compat.is_array_api_obj(features):
        return _gram_of_array(features, precision)
    if not isinstance(features, Iterable) or isinstance(features, str | bytes | dict):
        raise ValueError(f"features are a {type(features).__name__}; pass a NumPy, JAX or PyTorch array, or an iterable of frames")
    return _gram_of_frames(features)


def check_array(features: Any) -> None:
    """Refuse an array that is not (frames, ...) of a floating-point dtype, or has too few frames or features; see `banded_gram`."""
    _check_array(features, "the array of features")
    if features.ndim < 2:
        raise ValueError(f"features have shape {tuple(features.shape)}; (frames, ...) with at least one feature axis is needed")
    _check_num_frames(features.shape[0])
    _check_width(math.prod(features.shape[1:]), "each frame")


def _gram_of_array(features: Any, precision: Precision) -> BandedGram:
    check_array(features)
    if _dtype_name(features) not in SHORT_FLOATS:
        precision = "double"
    with np.errstate(over="ignore", invalid="ignore"):  # infinity and NaN are reported with their frame
        parts = [_reduce(matrix, precision) for matrix in _columns(features)]
        sums = sum((part for part, _ in parts[1:]), start=parts[0][0])
    # Each of the n products and additions of float32 may underflow by tiny; n of them are one more rounding of a squared norm above this.
    least = 2 * math.prod(features.shape[1:]) * float(np.finfo(np.float32).tiny) / SINGLE_ROUNDOFF
    if precision != "double" and not (np.all(np.isfinite(sums)) and np.min(sums[0]) >= least):
        return _gram_of_array(features, "double")
    error = _followed_by(max(error for _, error in parts), len(parts))
    if precision != "differences":
        return BandedGram(sums[0], sums[1, :-1], sums[2, :-2], error)
    *products, cosine_errors = _from_differences(sums[0], sums[1, :-1], sums[2, :-2], error, least)
    product_error = 1.01 * (error + max(cosine_errors))
    if not product_error <= LARGEST_ERROR:
        return _gram_of_array(features, "double")
    return BandedGram(sums[0], *products, product_error, cosine_errors)


def _from_differences(
    squared_norms: np.ndarray, squared_steps: np.ndarray, step_products: np.ndarray, error: float, least: float
) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
    """<F_t, F_{t+1}>, <F_t, F_{t+2}> and the errors of their cosines from ||F_t||^2, ||d_t||^2 and <d_t, d_{t+1}>.

    Source: paper_notes.md, C1.certificate, "Sums of differences".

    Args:
        error: each of the three is off by at most this times the norms of its two factors, ..
        least: .. or times this, the square of a norm, where that is larger and products may have underflowed.
    """
    error = error + 8 * UNIT_ROUNDOFF  # the roundings of what follows
    norms = np.sqrt(squared_norms)
    steps = np.sqrt(np.maximum(squared_steps, least))
    squared_chords = (squared_steps, squared_steps[:-1] + squared_steps[1:] + 2 * step_products)
    chord_errors = (error * steps**2, error * (steps[:-1] + steps[1:]) ** 2)
    products, cosine_errors = [], []
    for distance, (squared_chord, chord_error) in enumerate(zip(squared_chords, chord_errors, strict=True), start=1):
        before, after = norms[:-distance], norms[distance:]
        gap, gap_error = np.abs(after - before), 0.51 * error * (before + after)
        versines = (squared_chord - gap**2) / (2 * before * after)  # 1 - cos
        moved = (chord_error + (2 * gap + gap_error) * gap_error) / (2 * before * after)
        cosine_errors.append(1.02 * float(np.max(moved + error * np.abs(versines))) + error_of_cosines(0.0))
        products.append(before * after * (1 - np.clip(versines, 0.0, 2.0)))
    return *products, tuple(cosine_errors)


def advised_precision(features: Any) -> Precision:
    """In which precision to read an array of features that is to be certified, guessed from some of them, at most one in 64.

    The guess is the fastest whose rounding margin is likely to be a small share of the certificate, which is about the least sine squared of
    neighbouring frames. Nothing that is certified may rest on it.
    """
    if _dtype_name(features) not in SHORT_FLOATS or math.prod(features.shape) < WORTH_SAMPLING:
        return "double"
    matrix = next(_columns(features))
    length = max(1, min(SINGLE_CHAIN, matrix.shape[1] // (SAMPLED_BLOCKS * SAMPLED_SHARE)))
    starts = np.unique(np.linspace(0, matrix.shape[1] - length, SAMPLED_BLOCKS).astype(int))
    sample = np.concatenate([matrix[:, start : start + length] for start in starts], axis=1, dtype=np.float64)
    with np.errstate(all="ignore"):  # what is not finite, or zero, is reported by whoever reads all of it
        differences = np.diff(sample, axis=0)
        steps = np.vecdot(sample, sample), np.vecdot(differences, differences), np.vecdot(differences[:-1], differences[1:])
        norms = np.sqrt(steps[0])
        cosines = (steps[0][:-1] + steps[0][1:] - steps[1]) / (2 * norms[:-1] * norms[1:])
        closest = np.max(np.abs(cosines))
        if closest <= CLOSE_NEIGHBOURS:
            return "single"
        *_, (cosine_error, _) = _from_differences(*steps, relative_budget(SINGLE_CHAIN, SINGLE_ROUNDOFF), 0.0)
    return "differences" if cosine_error <= CLOSE_STEPS * (1 - closest) else "double"


class GramStream:
    """Inner products of frames that are handed over one at a time, as a network computes them; the last two frames are held.

    Unlike a `BandedGram` it takes a frame of zeros, so that a caller can say which frames have no similarity instead of stopping there.

    Attributes:
        squared_norms, neighbours, second_neighbours: of the frames so far, as in `BandedGram`.
    """

    def __init__(self) -> None:
        self.squared_norms: list[float] = []
        self.neighbours: list[float] = []
        self.second_neighbours: list[float] = []
        self._held: list[np.ndarray] = []
        self._expected: dict[str, Any] | None = None
        self._error = 0.0

    def add(self, frame: Any) -> None:
        """Take the next frame, (...) floating-point NumPy, JAX or PyTorch array on any device.

        Raises:
            ValueError: not of a floating-point dtype, fewer than 2 features, or a shape, dtype or device that is not that of frame 0.
        """
        index = len(self.squared_norms)
        _check_array(frame, f"frame {index}")
        found = {"shape": tuple(frame.shape), "dtype": frame.dtype, "device": array_api_compat.device(frame)}
        self._expected = self._expected or found
        for name in found:
            if found[name] != self._expected[name]:
                raise ValueError(f"frame {index} has {name} {found[name]}; {self._expected[name]}, that of frame 0, is needed")
        _check_width(math.prod(frame.shape), f"frame {index}")
        # A copy: a view would keep alive, or share, whatever larger array the frame was cut out of.
        self._held = [np.array(_on_host(frame), order="C").reshape(-1), *self._held[:2]]
        for products, earlier in zip((self.squared_norms, self.neighbours, self.second_neighbours), self._held, strict=False):
            product, self._error = _dot(earlier, self._held[0])
            products.append(product)
        self._held = self._held[:2]

    def gram(self) -> BandedGram:
        """The inner products of all frames so far.

        Raises:
            ValueError: what `BandedGram` raises: fewer than 3 frames, or a frame that is zero or not finite.
        """
        products = (np.asarray(entries) for entries in (self.squared_norms, self.neighbours, self.second_neighbours))
        return BandedGram(*products, self._error)


def _gram_of_frames(frames: Iterable[Any]) -> BandedGram:
    stream = GramStream()
    for frame in frames:
        stream.add(frame)
    return stream.gram()


def _dot(left: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """Inner product of two host vectors in float64, and its error relative to the norms."""
    # BLAS shares out longer ones between its threads, and the sum would depend on how many they are.
    chain = DOUBLE_COLUMNS
    starts = range(0, left.size, chain)
    with np.errstate(over="ignore", invalid="ignore"):
        parts = [np.dot(left[k : k + chain].astype(np.float64), right[k : k + chain].astype(np.float64)) for k in starts]
    return float(sum(parts)), _followed_by(relative_budget(min(chain, left.size) + 1), len(starts))
