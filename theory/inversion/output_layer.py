r"""How large the output of a network can be whose last layers are GroupNorm, SiLU and a convolution: one number for all
inputs.

    eps = W a + c,   a = SiLU(gamma v + beta),   v = (u - mean) / sqrt(variance + eps) in each group of n entries

Whatever u is, sum v^2 <= n in each group. So with A_g the largest ||a|| over a group and t_g > 0, sum t_g^2 = 1,

    ||eps|| <= ||W diag(A_g / t_g)|| + ||c||.

A_g^2 <= lambda n + sum_i sup_{|v| <= sqrt n} [SiLU(gamma_i v + beta_i)^2 - lambda v^2] for every lambda >= 0 (weak
duality), and the norm of a 3 x 3 convolution with padding 1 on H x W pixels is at most the largest norm of its symbol,
a matrix (outputs, channels), at the frequencies of a torus of (H + 1) x (W + 1) pixels: one row and one column of zeros
keep the two ends apart. Every number here is rounded upwards.

Source: paper_notes.md, section C3.bounded.
"""

import numpy as np
import scipy.optimize

from theory.evidence import OutputLayerRecord
from theory.rounding import relative_budget

LARGEST_NEGATIVE = 0.27846454276107385
"""An upper bound on |SiLU(t)| for t <= 0: .278464542761073795.. at t = -1.2784645.., rounded up."""
TURNING_POINT = (-1.2784645428, -1.2784645427)
"""An interval that holds the place of that least value; between its neighbours and 0, and below it, SiLU^2 is
monotone."""
LINEAR_FROM = 8.0
"""Beyond this argument SiLU(t)^2 is bounded by t^2, and below its negative by a constant; between them it is bounded on
a grid."""
ROUNDING = 1 + relative_budget(64)
SEARCH_POINTS, FINAL_POINTS = 2_000, 50_000
IMPROVEMENTS = 8


def silu(values: np.ndarray) -> np.ndarray:
    """t / (1 + exp(-t))."""
    return values / (1 + np.exp(-values))


def _largest_reduced(gain: float, shift: float, weight: float, reach: float, points: int) -> float:
    """An upper bound on sup over |v| <= reach of SiLU(gain v + shift)^2 - weight v^2."""
    if gain == 0:
        return float(silu(np.asarray(shift)) ** 2 * ROUNDING)
    ends = np.sort(np.clip((np.array([-LINEAR_FROM, LINEAR_FROM]) - shift) / gain, -reach, reach))
    grid = np.linspace(ends[0], ends[1], points)
    arguments = gain * grid + shift
    squares = silu(arguments) ** 2
    highest = np.maximum(squares[:-1], squares[1:])
    # Between two points SiLU^2 is largest at one of them, unless the turning point lies between.
    low, high = np.minimum(arguments[:-1], arguments[1:]), np.maximum(arguments[:-1], arguments[1:])
    turns = (low <= TURNING_POINT[1]) & (high >= TURNING_POINT[0])
    highest = np.where(turns, np.maximum(highest, LARGEST_NEGATIVE**2), highest)
    nearest = np.where(grid[:-1] * grid[1:] <= 0, 0.0, np.minimum(grid[:-1] ** 2, grid[1:] ** 2))
    found = float(np.max(highest * ROUNDING - weight * nearest / ROUNDING))
    for place in (-reach, reach):
        # Outside the grid: a quadratic on the side where the argument grows, whose largest value is at an end or at its
        # vertex.
        argument = gain * place + shift
        inner = float(ends[0] if place < 0 else ends[1])
        if argument > LINEAR_FROM:
            tops = [place, inner]
            vertex = gain * shift / (weight - gain**2) if weight > gain**2 else place
            tops += [vertex] if min(place, inner) < vertex < max(place, inner) else []
            found = max(found, *((gain * top + shift) ** 2 * ROUNDING - weight * top**2 / ROUNDING for top in tops))
        elif argument < -LINEAR_FROM:
            found = max(found, LINEAR_FROM**2 * np.exp(-2 * LINEAR_FROM) * ROUNDING - weight * inner**2 / ROUNDING)
    return found


def group_bound(gain: np.ndarray, shift: np.ndarray, pixels: int) -> float:
    """The largest ||SiLU(gamma v + beta)|| over one group, at most.

    Args:
        gain, shift: (channels of the group,) gamma and beta.
        pixels: of a channel; v has pixels * channels entries and at most that sum of squares.

    Raises:
        ValueError: sizes that differ, values that are not finite, no pixel.
    """
    gain, shift = np.asarray(gain, dtype=np.float64), np.asarray(shift, dtype=np.float64)
    if gain.ndim != 1 or gain.shape != shift.shape or not gain.size or pixels < 1:
        raise ValueError(
            f"gain {gain.shape}, shift {shift.shape}, {pixels} pixels; one gain and shift per channel and a pixel are "
            "needed"
        )
    if not (np.isfinite(gain).all() and np.isfinite(shift).all()):
        raise ValueError("gain or shift hold values that are not finite; repair the weights first")
    entries = pixels * gain.size
    reach = float(np.sqrt(entries) * ROUNDING)

    def dual(weight: float, points: int) -> float:
        parts = [_largest_reduced(float(g), float(b), weight, reach, points) for g, b in zip(gain, shift, strict=True)]
        return (weight * entries + pixels * sum(parts)) * ROUNDING

    largest = float((gain**2).max()) + 1.0
    best = scipy.optimize.minimize_scalar(
        lambda exponent: dual(float(np.exp(exponent)), SEARCH_POINTS),
        bounds=(np.log(largest) - 12, np.log(largest) + 2),
        method="bounded",
    )
    # Any weight will do; 0 serves a group without gain.
    return float(
        np.sqrt(min(dual(weight, FINAL_POINTS) for weight in (float(np.exp(best.x)), largest, 0.0))) * ROUNDING
    )


def _symbols(kernel: np.ndarray, frame_size: tuple[int, int]) -> np.ndarray:
    """The convolution's matrices at the frequencies of the torus, (frequencies, outputs, channels), complex."""
    waves = [np.exp(2j * np.pi * np.outer(np.arange(size + 1), np.arange(-1, 2)) / (size + 1)) for size in frame_size]
    return np.einsum("oikl,pk,ql->pqoi", kernel, *waves).reshape(-1, *kernel.shape[:2])


def _largest_norm(symbols: np.ndarray) -> float:
    """The largest spectral norm, with the rounding of symbols and singular values granted at the size of the Frobenius
    norm."""
    outputs, channels = symbols.shape[1:]
    norms = np.linalg.svd(symbols, compute_uv=False)[:, 0]
    sizes = np.sqrt(np.sum(np.abs(symbols) ** 2, axis=(1, 2)))
    return float(np.max(norms + relative_budget(32 * (outputs + channels)) * sizes * np.sqrt(9 * outputs * channels)))


def convolution_norm_bound(kernel: np.ndarray, frame_size: tuple[int, int]) -> float:
    """The operator norm of a 3 x 3 convolution with padding 1 on frames of this size, at most.

    Args:
        kernel: (outputs, channels, 3, 3).

    Raises:
        ValueError: another shape, values that are not finite, a frame without pixels.
    """
    return _largest_norm(_symbols(_checked_kernel(kernel, frame_size), frame_size))


def _checked_kernel(kernel: np.ndarray, frame_size: tuple[int, int]) -> np.ndarray:
    kernel = np.asarray(kernel, dtype=np.float64)
    if kernel.ndim != 4 or kernel.shape[2:] != (3, 3) or not np.isfinite(kernel).all() or min(frame_size) < 1:
        raise ValueError(
            f"kernel {kernel.shape} on frames {frame_size}; a finite (outputs, channels, 3, 3) kernel and a pixel are "
            "needed"
        )
    return kernel


def output_bound(record: OutputLayerRecord) -> float:
    """G with ||eps|| <= G for a frame, whatever the input, the timestep, the prompt and the adapter in other layers;
    rounded up.

    Raises:
        ValueError: sizes that do not fit together; values that are not finite.
    """
    kernel = _checked_kernel(record.kernel, record.frame_size)
    channels, pixels = kernel.shape[1], int(np.prod(record.frame_size))
    if channels % record.num_groups or record.gain.shape != (channels,) or record.bias.shape != kernel.shape[:1]:
        raise ValueError(
            f"kernel {kernel.shape}, gain {record.gain.shape}, bias {record.bias.shape}, {record.num_groups} groups; "
            "they do not fit together"
        )
    size = channels // record.num_groups
    groups = [slice(first, first + size) for first in range(0, channels, size)]
    largest = np.array([group_bound(record.gain[group], record.shift[group], pixels) for group in groups])
    symbols = _symbols(kernel, record.frame_size)

    def weighted(shares: np.ndarray) -> np.ndarray:
        return symbols * np.repeat(largest / np.sqrt(shares), size)

    # Shares t_g^2 of the groups: any will do. With A_g^2 the bound is ||W|| ||A||; the worst vector's own shares may
    # lower it.
    shares, best = largest**2 / np.sum(largest**2), np.inf
    for _ in range(IMPROVEMENTS):
        scaled = weighted(shares)
        best = min(best, _largest_norm(scaled))
        _, values, right = np.linalg.svd(scaled, full_matrices=False)
        worst = np.abs(right[int(np.argmax(values[:, 0])), 0]) ** 2
        shares = 0.8 * shares + 0.2 * worst.reshape(record.num_groups, size).sum(axis=1)
        shares /= shares.sum()
    # The shares sum to 1 up to rounding.
    return float((best * ROUNDING + np.sqrt(pixels) * np.linalg.norm(record.bias)) * ROUNDING)


def guided_output_bound(output: float, scale: float) -> float:
    """The same for a guided prediction w e^c + (1 - w) e^u, w >= 0.

        (w + |w - 1|) G

    Raises:
        ValueError: a bound or scale negative or not finite.
    """
    for name, value in (("output bound", output), ("guidance scale", scale)):
        if not (np.isfinite(value) and value >= 0):
            raise ValueError(f"{name} = {value}; a finite number >= 0 is needed")
    return (scale + abs(scale - 1)) * output * ROUNDING
