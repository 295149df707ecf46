"""The drift of similarities beyond the ladder's sizes: every pair of pairs, attained by ramps."""

import numpy as np
import pytest

from theory.rounding import relative_budget
from theory.temporal_loss import largest_drift, similarities, temporal_loss
from theory.temporal_loss.steadiness import CLAIM, frames_with


@pytest.mark.parametrize("num_frames", [3, 5, 12])
def test_every_drift_of_drawn_frames_lies_below(num_frames):
    generator = np.random.default_rng(num_frames)
    nearest = 0.0
    for _ in range(300):
        frames = generator.normal(size=(num_frames, 4))
        cosines, loss = similarities(frames), float(temporal_loss(frames))
        for gap in range(1, num_frames - 1):
            drift = np.max(np.abs(cosines[gap:] - cosines[:-gap]))
            bound = largest_drift(num_frames, loss, gap)
            assert drift <= bound + relative_budget(1 << 10)
            nearest = max(nearest, drift / bound)
    assert nearest > 0.95


@pytest.mark.parametrize(("num_frames", "first", "gap"), [(3, 0, 1), (7, 2, 1), (7, 0, 5), (9, 3, 4)])
def test_ramps_attain_it(num_frames, first, gap):
    size = (("num_frames", num_frames), ("dimension", 2), ("first", first), ("gap", gap))
    assert CLAIM.problem.outcome(CLAIM.witnesses(**dict(size)), size, "ramp").attains


def test_exact_value():
    """s = (0, 1/2, 1): L = 1/4, and over both steps sqrt(2 * 2 / 4) = 1."""
    frames = np.asarray(frames_with(np.array([0.0, 0.5, 1.0]), 2))
    assert float(temporal_loss(frames)) == pytest.approx(0.25)
    assert largest_drift(4, 0.25, 2) == 1.0
    assert largest_drift(4, 4.0, 2) == 2.0
    assert largest_drift(4, 0.0, 1) == 0.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((2, 0.1, 1), "num_frames = 2"),
        ((4, -0.1, 1), "loss = -0.1"),
        ((4, float("nan"), 1), "loss = nan"),
        ((4, 0.1, 0), "gap = 0; an integer from 1 to 2"),
        ((4, 0.1, 3), "gap = 3"),
        ((4, 0.1, 1.0), "gap = 1.0"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        largest_drift(*arguments)
