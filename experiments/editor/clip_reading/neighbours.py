"""Neighbouring frames that are equal, and neighbours between which another time passes than between the others.

The temporal loss compares neighbours. Where a clip repeats frames (12 frames a second stored as 24) their similarity is
1 and then, at the next pair, is not: the loss measures the repetition.
"""

from collections.abc import Sequence

import numpy as np

HALF_A_STEP = 0.5 / 255
UNEVEN = 1.5
"""Time to the next frame over the median: rounding to milliseconds, as matroska does, stays below it."""
_SHOWN = 8


def describe_neighbours(
    frames: Sequence[np.ndarray], times: Sequence[float | None]
) -> tuple[tuple[int, ...], tuple[tuple[int, float], ...], list[str]]:
    """Equal neighbours, uneven ones, and sentences about both.

    Args:
        frames: (height, width, 3) each, in [0, 1].
        times: seconds of each frame, None where it is not known.

    Returns:
        Indices k of frames that nowhere differ by more than half a step of 8 bits from frame k + 1; (k, seconds) of
        neighbours that are more than `UNEVEN` times as far apart as the median, or closer in the same proportion; and
        what to say.
    """
    equal = tuple(
        index
        for index, (before, after) in enumerate(zip(frames, frames[1:], strict=False))
        if np.abs(after - before).max() <= HALF_A_STEP
    )
    uneven = _uneven(times)
    found = []
    if len(frames) > 1 and len(equal) == len(frames) - 1:
        found.append("the clip is still: no frame differs from the next by more than half a step of 8 bits anywhere")
    elif equal:
        pairs = ", ".join(f"{index} and {index + 1}" for index in equal[:_SHOWN])
        found.append(
            f"{len(equal)} of {len(frames) - 1} neighbouring pairs of frames are equal to half a step of 8 bits (frames"
            f" {pairs}{', ..' if len(equal) > _SHOWN else ''}, counted from 0): the temporal loss then measures the"
            " repetition; drop the repeated frames"
        )
    if uneven:
        named = ", ".join(f"{seconds:.3g} s after frame {index}" for index, seconds in uneven[:_SHOWN])
        found.append(
            f"the frames are not evenly spaced in time ({named}{', ..' if len(uneven) > _SHOWN else ''}; the median is"
            f" {_median(times):.3g} s): neighbours are compared as if they were"
        )
    return equal, uneven, found


def _steps(times: Sequence[float | None]) -> list[float]:
    known = [time for time in times if time is not None]
    return [] if len(known) < len(times) else [after - before for before, after in zip(known, known[1:], strict=False)]


def _median(times: Sequence[float | None]) -> float:
    return float(np.median(_steps(times)))


def _uneven(times: Sequence[float | None]) -> tuple[tuple[int, float], ...]:
    steps = _steps(times)
    if len(steps) < 2:
        return ()
    median = float(np.median(steps))
    if median <= 0:
        return ()
    return tuple(
        (index, float(step)) for index, step in enumerate(steps) if step > UNEVEN * median or step * UNEVEN < median
    )
