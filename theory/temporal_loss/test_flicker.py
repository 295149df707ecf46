"""Flicker without loss, the largest loss of a mean similarity against all arrangements, and what descent cannot see."""

import itertools
import math

import numpy as np
import pytest

from theory.rounding import relative_budget
from theory.temporal_loss import flickering_frames, largest_loss, similarities, temporal_loss
from theory.temporal_loss.steadiness import frames_with


@pytest.mark.parametrize("num_frames", [3, 4, 9])
@pytest.mark.parametrize("mean", [-1.0, -0.3, 0.0, 0.75, 1.0])
def test_any_mean_similarity_has_a_clip_without_loss(num_frames, mean):
    frames = flickering_frames(num_frames, mean, dimension=3)
    assert np.max(np.abs(similarities(frames) - mean)) <= relative_budget(64)
    assert temporal_loss(frames) <= relative_budget(64) ** 2
    assert np.linalg.norm(frames[0] - frames[1]) == pytest.approx(math.sqrt(2 - 2 * mean), abs=relative_budget(1 << 27) ** 0.5)


def _all_arrangements(num_pairs, defect):
    twos = min(int(defect // 2), num_pairs - 1)
    entries = [2.0] * twos + [defect - 2 * twos] + [0.0] * (num_pairs - 1 - twos)
    return max(sum((b - a) ** 2 for a, b in itertools.pairwise(order)) for order in set(itertools.permutations(entries)))


@pytest.mark.parametrize("num_frames", range(3, 8))
def test_largest_loss_is_that_of_the_best_arrangement(num_frames):
    pairs = num_frames - 1
    for defect in np.linspace(0, 2 * pairs, 33):
        expected = _all_arrangements(pairs, float(defect)) / (num_frames - 2)
        assert largest_loss(num_frames, 1 - defect / pairs) == pytest.approx(expected, abs=relative_budget(1 << 8))


@pytest.mark.parametrize("num_frames", [3, 4, 5, 8, 13])
def test_closed_forms(num_frames):
    pairs = num_frames - 1
    room = 2 * ((num_frames - 2) // 2)
    for defect in np.linspace(0, 2 * pairs, 41):
        found = largest_loss(num_frames, 1 - defect / pairs) * (num_frames - 2)
        twos = math.floor(defect / 2)
        simple = 8 * twos + 2 * (defect - 2 * twos) ** 2
        assert found <= simple + relative_budget(1 << 12)
        if defect <= room:
            assert found == pytest.approx(simple, abs=relative_budget(1 << 12))
        assert found == pytest.approx(largest_loss(num_frames, -1 + defect / pairs) * (num_frames - 2), abs=relative_budget(1 << 12))
    assert largest_loss(3, 0.25) == pytest.approx(1.5**2)


def test_ends():
    assert largest_loss(5, 1.0) == largest_loss(5, -1.0) == 0.0
    # (0, 2, 1): 4 + 1, over N - 2 = 2.
    assert largest_loss(4, 0.0) == 2.5


def test_no_drawn_frames_have_a_larger_loss():
    generator = np.random.default_rng(0)
    nearest = 0.0
    for _ in range(2000):
        num_frames = int(generator.integers(3, 9))
        cosines = np.sin(3 * generator.normal(size=num_frames - 1))
        loss = float(temporal_loss(np.asarray(frames_with(cosines, 2))))
        bound = largest_loss(num_frames, float(np.clip(np.mean(cosines), -1, 1)))
        assert loss <= bound + relative_budget(1 << 12)
        nearest = max(nearest, loss / bound)
    assert nearest > 0.9


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: largest_loss(2, 0.0), "num_frames = 2; at least 3"),
        (lambda: largest_loss(3, 1.5), r"mean_similarity = 1.5; a number in \[-1, 1\]"),
        (lambda: largest_loss(3, float("nan")), "mean_similarity = nan"),
        (lambda: flickering_frames(3, -1.5), "mean_similarity = -1.5"),
        (lambda: flickering_frames(3, 0.5, dimension=1), "dimension = 1; at least 2"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
