"""The clamped cosine: its jump, and torch's gradient inside the eps ball, which is not the gradient of torch's
forward."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from theory.rounding import relative_budget
from theory.temporal_loss import clamped, temporal_loss

EPSILON = 0.5
UNIT = np.asarray([1.0, 0.0, 0.0])
INSIDE = 0.25 * np.asarray([0.8, 0.6, 0.0])

clamped_quotient = jax.jit(clamped.clamped_quotient)


def torch_cosine(vector: np.ndarray) -> tuple[float, np.ndarray]:
    """Value and autograd gradient of torch's cosine similarity with the first basis vector."""
    tensor = torch.from_numpy(vector).requires_grad_()
    cosine = torch.nn.functional.cosine_similarity(tensor, torch.from_numpy(UNIT), dim=0, eps=EPSILON)
    cosine.backward()
    return float(cosine.detach()), tensor.grad.numpy()


@hypothesis.given(st.floats(2.0**-12, 0.5), st.sampled_from([0.1, 1.0, 20.0]))
def test_quotient_is_exact(gap, epsilon):
    pair = {**clamped.straddling_pair(gap, epsilon), "epsilon": jnp.asarray(epsilon)}
    expected = clamped.exact_quotient(gap, epsilon)
    # The gradients are subtracted and divided by a distance of 2 h eps, as in the claim's own count but with h down to
    # 2^-12.
    budget = 4 * relative_budget(clamped.operations(num_frames=3, dimension=2))
    assert abs(float(clamped_quotient(pair)) - expected) <= budget * expected


def test_gradient_of_the_cosine_jumps_by_s_u_over_eps():
    """u = (0.8, 0.6, 0), s = 0.8: inside u' / eps = (2, 0, 0), outside (u' - s u) / eps = (0.72, -0.96, 0)."""

    def cosine(vector):
        return vector @ UNIT / jnp.sqrt(jnp.maximum(vector @ vector, EPSILON**2))

    direction = np.asarray([0.8, 0.6, 0.0])
    step = 2.0**-40
    inside, outside = (
        np.asarray(jax.grad(cosine)(jnp.asarray(EPSILON * factor * direction))) for factor in (1 - step, 1 + step)
    )
    jump = 0.8 * direction / EPSILON
    # On either side the gradient changes at a rate of at most 3 / eps^2 over the distance 2^-40 eps.
    assert np.max(np.abs(inside - outside - jump)) <= 8 * step / EPSILON


def test_torch_forward_is_the_clamped_cosine():
    value, _ = torch_cosine(INSIDE)
    assert abs(value - INSIDE @ UNIT / EPSILON) <= relative_budget(16)


def test_torch_gradient_inside_the_ball_is_not_the_gradient_of_its_forward():
    """Recorded with torch 2.13. If this fails torch has changed: then say so in the claim's docstring and in
    paper_notes.md.

    Inside the ball the forward is the linear function <F, u'> / eps, of gradient u' / eps = (2, 0, 0); torch clamps the
    norm in its forward but not in its backward, and returns (u' - s F / ||F||) / eps = (1.36, -0.48, 0).
    """
    value, autograd = torch_cosine(INSIDE)
    # The forward is linear here, so a central difference has rounding errors only, and a step of 1/16 divides them by
    # 1/16.
    step = 2.0**-4
    differences = [
        (torch_cosine(INSIDE + step * axis)[0] - torch_cosine(INSIDE - step * axis)[0]) / (2 * step)
        for axis in np.eye(3)
    ]
    budget = 64 * relative_budget(16)
    assert np.max(np.abs(np.asarray(differences) - UNIT / EPSILON)) <= budget
    recorded = (UNIT - value * INSIDE / np.linalg.norm(INSIDE)) / EPSILON
    assert np.max(np.abs(recorded - [1.36, -0.48, 0.0])) <= budget
    assert np.max(np.abs(autograd - recorded)) <= budget, (
        f"torch {torch.__version__} now returns {autograd} inside the eps ball"
    )
    assert np.max(np.abs(autograd - UNIT / EPSILON)) > 0.5


def test_torch_gradient_outside_the_ball_is_right():
    _, autograd = torch_cosine(4 * INSIDE)
    unit = INSIDE / np.linalg.norm(INSIDE)
    assert np.max(np.abs(autograd - (UNIT - (unit @ UNIT) * unit))) <= relative_budget(64)


@pytest.mark.parametrize("num_frames", [3, 5])
def test_where_the_clamp_is_idle_it_is_the_plain_loss(num_frames):
    frames = 1 + np.random.default_rng(0).uniform(size=(num_frames, 3))
    assert abs(float(clamped.clamped_loss(jnp.asarray(frames), 1.0)) - temporal_loss(frames)) <= 4 * relative_budget(64)
