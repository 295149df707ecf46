"""Inner products of frames at distance 0, 1 and 2, streamed: what the loss, its gradient and the curvature certificate depend on.

    ||F_t||^2,   <F_t, F_{t+1}>,   <F_t, F_{t+2}>

Features are read once, in blocks that fit the processor's caches, so nothing of their size is ever allocated. The inner products over two
sets of columns add up, and frames may be handed over one at a time, so features can be reduced as they are captured and never all be held.
"""

import dataclasses
import math
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import array_api_compat
import numpy as np

from theory.rounding import UNIT_ROUNDOFF, relative_budget
from theory.temporal_loss.loss import MINIMUM_CHANNELS, MINIMUM_FRAMES

SINGLE_ROUNDOFF = float(np.finfo(np.float32).eps) / 2
SINGLE_CHAIN = 1024
"""Products summed in float32 before float64 takes over: few, so that the worst rounding stays small."""
SINGLE_COLUMNS = 1 << 16
DOUBLE_COLUMNS = 1 << 13
"""Columns reduced at a time. Runs this long keep the memory streaming, and three rows of them fit a processor's second cache."""
BLOCK_BYTES = 1 << 23
"""Of many frames fewer columns are converted to float64 at a time: what fits a processor's last cache."""
TRANSFER_BYTES = 1 << 25
"""What is brought to the host, or copied because of its layout, at a time."""
THREADED_SIZE = 1 << 22
SAMPLED_BLOCKS = 4
LARGEST_ERROR = 2.0**-10
"""Beyond it the first-order bounds of the certificate's rounding margin no longer hold."""

Precision = Literal["single", "double"]


@dataclasses.dataclass(frozen=True, eq=False)
class BandedGram:
    """Inner products of N frames, each with itself and its next two, and how far rounding may have moved them.

    Attributes:
        squared_norms: (N,) float64, ||F_t||^2.
        neighbours: (N - 1,) float64, <F_t, F_{t+1}>.
        second_neighbours: (N - 2,) float64, <F_t, F_{t+2}>.
        error: every entry lies within error * ||F_s|| ||F_t|| of the exact one. The default is one rounding of an exact entry; whoever summed
            n products in float64 passes theory.rounding.relative_budget(n).

    Raises:
        ValueError: shapes that do not belong together, fewer than 3 frames, arrays on several devices, a squared norm that is NaN, infinite or
            too small, a product above that of the norms (Cauchy-Schwarz), or an error outside [0, 2^-10].
    """

    squared_norms: Any
    neighbours: Any
    second_neighbours: Any
    error: float = UNIT_ROUNDOFF

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
        self._check_norms()
        self._check_products()

    def _check_norms(self) -> None:
        # Below it products of the frame's entries may have underflowed, and their error is no longer relative.
        least = float(np.finfo(np.float64).tiny / np.finfo(np.float64).eps)
        for frame, value in enumerate(self.squared_norms):
            if not (math.isfinite(value) and value >= least):
                raise ValueError(
                    f"frame {frame} has squared norm {value:g}; a finite value of at least {least:.3g} is needed, since the cosine "
                    "similarity is undefined elsewhere: drop or repair that frame, or rescale the features"
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
        """Inner products of the same frames over the columns of both.

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


def _followed_by(error: float, roundings: int) -> float:
    """Relative error of sums whose terms carry `error` and which round that many times in float64."""
    budget = relative_budget(roundings)
    return error + budget + error * budget


def _on_host(array: Any) -> np.ndarray:
    """A NumPy view where the memory allows one, else a copy; bfloat16, which NumPy lacks, as float32, which holds it exactly."""
    if array_api_compat.is_torch_array(array):
        xp = array_api_compat.array_namespace(array)
        array = array.detach().cpu()
        return (array.to(xp.float32) if array.dtype == xp.bfloat16 else array).numpy()
    if str(getattr(array, "dtype", "")) == "bfloat16":
        return np.asarray(array.astype(np.float32))
    return np.asarray(array)


def _check_num_frames(num_frames: int) -> None:
    if num_frames < MINIMUM_FRAMES:
        raise ValueError(f"{num_frames} frames were given, at least {MINIMUM_FRAMES} are needed: the loss compares neighbouring pairs")


def _check_array(array: Any, name: str) -> None:
    if not array_api_compat.is_array_api_obj(array):
        raise ValueError(f"{name} is a {type(array).__name__}; pass a NumPy, JAX or PyTorch array")
    floating = array_api_compat.array_namespace(array).isdtype(array.dtype, "real floating")
    if not (floating or str(array.dtype) == "bfloat16"):
        raise ValueError(f"{name} has dtype {array.dtype}; a real floating-point dtype is needed, convert it first")


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
    if str(array_api_compat.device(array)).lower().startswith("cpu"):
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


def _chained(block: np.ndarray, chain: int) -> np.ndarray:
    """Banded inner products of a block (N, columns), (3, N): each chain in the block's dtype, their sums in float64."""
    num_frames, columns = block.shape
    row, entry = block.strides
    shape = (num_frames - 2, columns // chain, 3, chain)
    # Frame t meets t, t + 1 and t + 2 at once, so two of every three reads come from a cache.
    ahead = np.lib.stride_tricks.as_strided(block, shape, (row, chain * entry, row, entry), writeable=False)
    sums = np.zeros((3, num_frames))
    sums[:, :-2] = np.sum(np.vecdot(ahead[:, :, :1], ahead).astype(np.float64, copy=False), axis=1).T
    last = block[-2:].reshape(2, -1, chain)
    sums[0, -2:] = np.sum(np.vecdot(last, last), axis=1, dtype=np.float64)
    sums[1, -2] = np.sum(np.vecdot(last[0], last[1]), dtype=np.float64)
    return sums


def _reduce_block(block: np.ndarray, chain: int, buffer: np.ndarray | None) -> np.ndarray:
    if buffer is not None:
        buffer = buffer[:, : block.shape[1]]
        np.copyto(buffer, block)
        block = buffer
    whole = block.shape[1] - block.shape[1] % chain
    parts = [(block[:, :whole], chain), (block[:, whole:], block.shape[1] - whole)]
    return sum(_chained(part, length) for part, length in parts if part.shape[1])


def _num_workers() -> int:
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(available, 4)


def _reduce(matrix: np.ndarray, precision: Precision) -> tuple[np.ndarray, float]:
    """Banded inner products (3, N) of a host matrix (N, columns) in float64, and their error relative to the norms."""
    num_frames, width = matrix.shape
    if precision == "single" and matrix.dtype == np.float32:
        dtype, columns, chain, roundoff = np.dtype(np.float32), SINGLE_COLUMNS, SINGLE_CHAIN, SINGLE_ROUNDOFF
    else:
        columns = min(DOUBLE_COLUMNS, max(SINGLE_CHAIN, BLOCK_BYTES // (8 * num_frames)))
        dtype, chain, roundoff = np.dtype(np.float64), columns, UNIT_ROUNDOFF
    starts = range(0, width, columns)
    workers = 1 if matrix.size < THREADED_SIZE else min(_num_workers(), len(starts))

    def work(first: int) -> list[np.ndarray]:
        as_it_lies = matrix.dtype == dtype and matrix.strides[1] == dtype.itemsize
        # One buffer a worker: fresh memory for every block costs more than the conversion.
        buffer = None if as_it_lies else np.empty((num_frames, min(columns, width)), dtype)
        return [_reduce_block(matrix[:, start : start + columns], chain, buffer) for start in starts[first::workers]]

    if workers == 1:
        results = work(0)
    else:
        with ThreadPoolExecutor(workers) as pool:
            shares = list(pool.map(work, range(workers)))
        # Added in the order of the columns, however many workers there were: the same features give the same bytes.
        results = [shares[index % workers][index // workers] for index in range(len(starts))]
    sums = sum(results[1:], start=results[0])
    # Of a chain every product is rounded once and takes part in all but one addition; one rounding more covers what underflows.
    return sums, _followed_by(relative_budget(min(chain, width) + 1, roundoff), columns // chain + 1 + len(starts))


def banded_gram(features: Any, *, precision: Precision = "double") -> BandedGram:
    """Inner products of each frame with itself and its next two, reading the features once.

    Args:
        features: (frames, ...) floating-point NumPy, JAX or PyTorch array; or an iterable of frames (...), which are reduced one at a time
            while two are held. From another device than the host they are fetched in pieces.
        precision: "double" sums in float64 the exact products of shorter floats. "single" sums up to 1024 float32 products in float32 before
            float64 takes over: about twice as fast, with an `error` up to 7e-5. It concerns arrays of float32 only, and is passed over where
            products leave the range of float32.

    Returns:
        The inner products and a bound on their rounding error.

    Raises:
        ValueError: not of a floating-point dtype, fewer than 3 frames, fewer than 2 features a frame, a frame whose squared norm is NaN,
            infinite or zero, or (iterable) a frame whose shape, dtype or device is not that of frame 0. The message names the frame.
    """
    if precision not in ("single", "double"):
        raise ValueError(f"precision = {precision!r}; 'single' or 'double' is needed")
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
    with np.errstate(over="ignore", invalid="ignore"):  # infinity and NaN are reported with their frame
        parts = [_reduce(matrix, precision) for matrix in _columns(features)]
        sums = sum((part for part, _ in parts[1:]), start=parts[0][0])
    # Each of the n products and additions of float32 may underflow by tiny; n of them are one more rounding of a squared norm above this.
    least = 2 * math.prod(features.shape[1:]) * float(np.finfo(np.float32).tiny) / SINGLE_ROUNDOFF
    if precision == "single" and not (np.all(np.isfinite(sums)) and np.min(sums[0]) >= least):
        return _gram_of_array(features, "double")
    error = _followed_by(max(error for _, error in parts), len(parts))
    return BandedGram(sums[0], sums[1, :-1], sums[2, :-2], error)


def sampled_cosine(features: Any) -> float:
    """The largest cosine of neighbouring frames, in magnitude, over a few of their features; 0 where there is none.

    A guess at what the whole array will show, from less than a hundredth of a large one. Nothing that is certified may rest on it.
    """
    matrix = next(_columns(features))
    length = min(SINGLE_CHAIN, matrix.shape[1])
    starts = np.unique(np.linspace(0, matrix.shape[1] - length, SAMPLED_BLOCKS).astype(int))
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        sums = sum(_reduce_block(matrix[:, start : start + length].astype(np.float64), length, None) for start in starts)
        cosines = np.abs(sums[1, :-1]) / np.sqrt(sums[0, :-1] * sums[0, 1:])
    return float(np.max(cosines[np.isfinite(cosines)], initial=0.0))


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
    chain = 2 * DOUBLE_COLUMNS
    starts = range(0, left.size, chain)
    with np.errstate(over="ignore", invalid="ignore"):
        parts = [np.dot(left[k : k + chain].astype(np.float64), right[k : k + chain].astype(np.float64)) for k in starts]
    return float(sum(parts)), _followed_by(relative_budget(min(chain, left.size) + 1), len(starts))
