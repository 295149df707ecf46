"""The way round the hole, pairs on opposite sides of it, and the constant's closed form."""

import math

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from theory import search
from theory.rounding import relative_budget
from theory.temporal_loss import gradient_constant, hessian_constant, lipschitz_constant
from theory.temporal_loss.lipschitz import PROBLEM, detour

# A square root of a difference of squares halves the digits where the segment touches the ball, so lengths are compared
# to sqrt(u).
GRAZING = math.sqrt(relative_budget(64))


@st.composite
def points_outside_the_ball(draw):
    dimension = draw(st.integers(2, 3))
    vectors = draw(hnp.arrays(np.float64, (2, dimension), elements=st.floats(-4, 4)))
    vectors[~np.any(vectors, axis=1), 0] = 1.0
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    norms = draw(hnp.arrays(np.float64, (2, 1), elements=st.sampled_from([1.0, 1.001, 2.0, 10.0])))
    if draw(st.booleans()):
        unit[1] = -unit[0]
    return norms * unit


@hypothesis.given(points_outside_the_ball())
def test_detour_stays_outside_and_is_short(points):
    start, end = points
    # The drawn norms round to just below their value; norms of a row and of a vector round differently.
    least = min(1.0, float(np.linalg.norm(start)), float(np.linalg.norm(end)))
    path, length = detour(start, end, least)
    distance = float(np.linalg.norm(end - start))
    assert np.min(np.linalg.norm(path, axis=1)) >= least * (1 - GRAZING)
    assert np.linalg.norm(path[0] - start) <= GRAZING * 10 and np.linalg.norm(path[-1] - end) <= GRAZING * 10
    steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
    assert np.sum(steps) <= length * (1 + GRAZING) + GRAZING
    assert np.max(steps, initial=0.0) <= length / (len(path) - 1) * (1 + GRAZING) + GRAZING
    assert length <= math.pi / 2 * distance * (1 + GRAZING) + GRAZING
    if distance <= 2 * least:
        # arcsin has infinite slope at 1: a relative error u of its argument there is an error sqrt(2 u) of the angle.
        assert length <= 2 * least * math.asin(min(1.0, distance / (2 * least))) * (1 + GRAZING) + GRAZING


def test_detour_length_by_hand():
    """From one side of the unit ball to the other: half a circle. At a right angle: a quarter. Past the ball: the
    segment."""
    for start, end, expected in (
        ([1.0, 0.0], [-1.0, 0.0], math.pi),
        ([2.0, 0.0], [-3.0, 0.0], math.pi + 3.0),
        ([1.0, 0.0], [0.0, 1.0], math.pi / 2),
        ([1.0, 1.0], [-1.0, 1.0], 2.0),
    ):
        _, length = detour(np.asarray(start), np.asarray(end), 1.0)
        assert abs(length - expected) <= GRAZING


@pytest.mark.parametrize("num_frames", [3, 4, 6, 16, 64])
def test_constant_lies_between_the_hessian_and_half_a_circle(num_frames):
    constant, curvature, slope = (
        lipschitz_constant(num_frames),
        hessian_constant(num_frames),
        gradient_constant(num_frames),
    )
    assert curvature < constant <= math.pi / 2 * curvature * (1 + relative_budget(8))
    # Whatever the distance, one of the two estimates of the proof is at most K_N: C times the longest detour, and 2 G.
    for distance in np.linspace(1e-3, 2.0, 2001):
        estimate = min(2 * curvature * math.asin(distance / 2), 2 * slope) / distance
        assert estimate <= constant * (1 + relative_budget(16))


def test_ratios_of_the_docstring():
    ratios = {
        num_frames: lipschitz_constant(num_frames) / hessian_constant(num_frames) for num_frames in (3, 4, 6, 8, 16)
    }
    assert {num_frames: round(ratio, 3) for num_frames, ratio in ratios.items()} == {
        3: 1.028,
        4: 1.036,
        6: 1.048,
        8: 1.067,
        16: 1.161,
    }


@pytest.mark.parametrize("size", PROBLEM.sizes[:2], ids=str)
def test_pairs_on_opposite_sides_of_the_hole(size):
    """Every segment here passes through the ball of at least one frame; the quotient stays below K, and in fact below
    C."""
    parameters = search.draw(PROBLEM, size, seed=0, count=512)
    parameters["logit_angle"] = jnp.full((512,), 40.0)
    pairs = jax.jit(jax.vmap(lambda member: PROBLEM.instance(member, **dict(size))))(parameters)
    frames, others, least = (np.asarray(pairs[name]) for name in ("frames", "others", "min_norm"))
    directions = others - frames
    nearest = np.clip(
        -np.sum(frames * directions, axis=2) / np.maximum(np.sum(directions**2, axis=2), np.finfo(float).tiny), 0, 1
    )
    closest = np.min(np.linalg.norm(frames + nearest[..., None] * directions, axis=2), axis=1)
    assert np.all(closest < 0.01 * least)
    measured, bound = search.evaluate(PROBLEM, size, parameters)
    assert np.max(measured / bound) <= hessian_constant(dict(size)["num_frames"]) / lipschitz_constant(
        dict(size)["num_frames"]
    )


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        ([0.5, 0.0], [2.0, 0.0], "start has norm 0.5; at least min_norm = 1"),
        ([2.0, 0.0], [0.0, 0.25], "end has norm 0.25; at least min_norm = 1"),
        ([2.0, 0.0], [float("nan"), 0.0], "end has norm nan"),
        ([2.0], [-2.0], "dimension = 1; at least 2"),
    ],
)
def test_detour_refuses(start, end, message):
    with pytest.raises(ValueError, match=message):
        detour(np.asarray(start), np.asarray(end), 1.0)


def test_too_few_frames():
    with pytest.raises(ValueError, match="num_frames = 2; at least 3"):
        lipschitz_constant(2)
