"""The published hypothesis fails: the exact quotient, the discontinuity at zero, and a search that finds a
counterexample by itself."""

import math

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from theory.rounding import relative_budget
from theory.temporal_loss import instances, lipschitz_constant, temporal_loss
from theory.temporal_loss.bounded_norms import exact_quotient, shrinking_pair
from theory.temporal_loss.loss import _cosines

MAX_NORM = 4

difference_quotient = jax.jit(instances.difference_quotient)


@pytest.mark.parametrize("num_frames", [3, 4, 7])
@hypothesis.given(exponent=st.floats(-8, 0))
def test_difference_quotient_is_exact(num_frames, exponent):
    radius = 10.0**exponent / 2
    pair = shrinking_pair(num_frames, 2, radius)
    measured = float(difference_quotient(pair))
    expected = exact_quotient(num_frames, radius)
    assert (
        abs(measured - expected)
        <= relative_budget(instances.pair_operations(num_frames=num_frames, dimension=2)) * expected
    )


@hypothesis.given(angle=st.floats(-math.pi, math.pi), exponent=st.floats(-100, 0))
def test_loss_has_no_limit_at_a_zero_frame(angle, exponent):
    """(1 - cos a)^2 for every r: along one ray to zero the loss is 0, along the opposite one it is 4."""
    frames = np.asarray([[1.0, 0.0], [1.0, 0.0], [math.cos(angle), math.sin(angle)]])
    frames[2] *= 10.0**exponent
    # The loss is of size 4 and is made of a norm, a quotient, a difference and a square.
    assert abs(float(temporal_loss(frames)) - (1 - math.cos(angle)) ** 2) <= 4 * relative_budget(32)


@st.composite
def pairs_with_bounded_norms(draw):
    """Two sets of frames with small whole coordinates, none of them zero; sizes are drawn, so that they shrink too."""
    num_frames, dimension = draw(st.integers(3, 5)), draw(st.integers(2, 4))
    coordinates = hnp.arrays(np.int64, (num_frames, dimension), elements=st.integers(-2, 2))
    pair = [draw(coordinates).astype(np.float64) for _ in range(2)]
    for frames in pair:
        frames[~np.any(frames, axis=1), 0] = 1.0
    scale = 2.0 ** -draw(st.integers(0, 8))
    pair[0][-1] *= scale
    pair[1][-1] *= scale
    return pair


def torch_gradient(frames: np.ndarray) -> np.ndarray:
    tensor = torch.from_numpy(frames).requires_grad_()
    temporal_loss(tensor).backward()
    return tensor.grad.numpy()


def breaks_every_bound_from_above(pair) -> bool:
    frames, others = pair
    if np.array_equal(frames, others):
        return False
    assert max(np.max(np.linalg.norm(side, axis=1)) for side in pair) <= MAX_NORM
    difference = torch_gradient(frames) - torch_gradient(others)
    return float(np.linalg.norm(difference) / np.linalg.norm(frames - others)) > lipschitz_constant(len(frames))


def test_search_finds_and_shrinks_a_counterexample():
    """Hypothesis is told the published hypothesis and a constant, nothing else; what it finds shrinks to 3 frames in 2
    dimensions."""
    frames, others = hypothesis.find(
        pairs_with_bounded_norms(),
        breaks_every_bound_from_above,
        settings=hypothesis.settings(max_examples=4000, derandomize=True, database=None, deadline=None),
    )
    assert frames.shape == others.shape == (3, 2)
    assert breaks_every_bound_from_above((frames, others))
    least = min(np.min(np.linalg.norm(side, axis=1)) for side in (frames, others))
    # Without a small frame there is no counterexample, so the one that was found has one.
    assert least < 1


def test_on_a_line_the_statement_is_true():
    """d = 1: off 0 every similarity is 1 or -1 and locally constant, so the gradient is 0 and K = 0 will do."""

    def loss(line):
        return jnp.mean(jnp.diff(_cosines(jnp, line[:, None], 0.0)) ** 2)

    generator = np.random.default_rng(0)
    for line in generator.normal(size=(20, 4)):
        assert float(jnp.max(jnp.abs(jax.grad(loss)(jnp.asarray(line))))) <= relative_budget(64) * 8 / np.min(np.abs(line))
