"""The filter's constants: roots of what defines them, attained by the filter itself for every kernel, never
exceeded."""

import math

import flint
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from theory.bilateral import bilateral_filter, defect_bound, lipschitz_constant
from theory.bilateral.constants import largest_change, negative_share, neighbour_weight
from theory.bilateral.filter import spatial_weights
from theory.rounding import relative_budget

KERNELS = st.sampled_from([3, 5, 7, 9, 15])
WIDTHS = st.floats(0.3, 50)
BUDGET = relative_budget(4000)


def row_norms(windows: np.ndarray, kernel_size: int, sigma_spatial: float) -> np.ndarray:
    """sum_j |dy_i / dx_j| of the middle frame, by the closed form; windows (count, kernel_size - 1) of u without the
    middle."""
    near = spatial_weights(kernel_size, sigma_spatial)
    weights = np.array([*near[::-1], *near]) * np.exp(-(windows**2) / 2)
    weights /= 1 + weights.sum(axis=1, keepdims=True)
    mean = (weights * windows).sum(axis=1, keepdims=True)
    derivatives = weights * (1 - windows * (windows - mean))
    return np.abs(derivatives).sum(axis=1) + np.abs(1 - derivatives.sum(axis=1))


def test_values_of_the_public_settings():
    assert round(lipschitz_constant(), 7) == 2.0249284
    assert round(defect_bound(1.0), 7) == 0.5061296
    assert round(defect_bound(2.0, monotone=True) / 2, 7) == 0.5973801


@hypothesis.given(weight=st.floats(1e-3, 1e3))
def test_the_constants_are_the_roots_of_their_equations(weight):
    u = np.linspace(0, 9, 200_001)
    share, change = negative_share(weight), largest_change(weight)
    # A grid misses a maximum by at most half its second derivative, below 4, times half a spacing squared.
    missed = 2 * (u[1] / 2) ** 2
    for value, wanted in (
        (np.max(np.exp(-(u**2) / 2) * (u**2 - 1 - share)), share / weight),
        (np.max(np.exp(-(u**2) / 2) * (u - change)), change / weight),
    ):
        assert abs(value - wanted) <= missed * (1 + share) + BUDGET


@pytest.mark.parametrize("kernel_size", [3, 5, 7, 15])
@pytest.mark.parametrize("sigma_spatial", [0.5, 1.0, 3.0])
def test_balls_enclose_the_constants(kernel_size, sigma_spatial):
    """The closed forms again in ball arithmetic, from the kernel on; the balls are thinner than a double."""
    flint.ctx.prec = 100
    width, half = flint.arb(sigma_spatial), flint.arb(1) / 2
    weight = 2 * sum(((-(flint.arb(k) ** 2)) / (2 * width**2)).exp() for k in range(1, kernel_size // 2 + 1))
    lipschitz = 1 + 4 * (weight * (-3 * half).exp()).lambertw()
    root = 2 * (weight * half * (-half).exp()).lambertw()
    for ball, value in (
        (lipschitz, lipschitz_constant(kernel_size, sigma_spatial)),
        (root / (1 + root).sqrt(), defect_bound(1.0, kernel_size, sigma_spatial)),
    ):
        assert float(ball.rad()) < 1e-25
        assert abs(float(ball.mid()) - value) <= relative_budget(100) * value


@hypothesis.given(kernel_size=KERNELS, sigma_spatial=WIDTHS)
def test_every_kernel_attains_its_constants(kernel_size, sigma_spatial):
    """By the filter's own derivatives, and without a condition on the kernel."""
    half, weight = kernel_size // 2, neighbour_weight(kernel_size, sigma_spatial)
    settings = {"sigma_range": 1.0, "kernel_size": kernel_size, "sigma_spatial": sigma_spatial}
    t = math.sqrt(3 + negative_share(weight))
    window = torch.tensor(t * np.sign(np.arange(-half, half + 1.0)), requires_grad=True)
    (row,) = torch.autograd.grad(bilateral_filter(window, **settings)[half], window)
    assert abs(float(row.abs().sum()) / lipschitz_constant(kernel_size, sigma_spatial) - 1) <= BUDGET
    s = largest_change(weight) / 2 + math.sqrt(largest_change(weight) ** 2 / 4 + 1)
    frames = np.full(kernel_size, s)
    frames[half] = 0.0
    moved = bilateral_filter(frames, **settings)[half]
    assert abs(moved / defect_bound(1.0, kernel_size, sigma_spatial) - 1) <= BUDGET


@hypothesis.given(seed=st.integers(0, 2**31 - 1), kernel_size=st.sampled_from([3, 5, 7, 31, 201]), sigma_spatial=WIDTHS)
def test_no_window_exceeds_the_constant(seed, kernel_size, sigma_spatial):
    """Windows of several scales, of two values, and close to the extremal one; wide kernels are the proof's second
    case."""
    rng = np.random.default_rng(seed)
    t = math.sqrt(3 + negative_share(neighbour_weight(kernel_size, sigma_spatial)))
    shape = (200, kernel_size - 1)
    windows = np.concatenate(
        [
            rng.normal(size=shape) * np.exp(rng.normal(size=(200, 1))),
            rng.choice([-1.0, 0.0, 1.0], size=shape) * t * np.exp(0.3 * rng.normal(size=(200, 1))),
            t * np.sign(rng.normal(size=shape)) + 0.1 * rng.normal(size=shape),
        ]
    )
    assert row_norms(windows, kernel_size, sigma_spatial).max() <= lipschitz_constant(kernel_size, sigma_spatial) * (
        1 + BUDGET
    )


@pytest.mark.parametrize("count", [3, 4])
def test_fewer_frames_than_a_window_stay_below(count):
    """Reflect padding then repeats frames; the constant is an upper bound and, as far as a search shows, not
    attained."""
    rng = np.random.default_rng(0)
    jacobians = jax.vmap(jax.jacobian(lambda x: bilateral_filter(x, sigma_range=1.0)))(
        jnp.asarray(2 * rng.normal(size=(4000, count)))
    )
    largest = float(jnp.max(jnp.sum(jnp.abs(jacobians), axis=2)))
    assert 1.5 < largest < 0.97 * lipschitz_constant()


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray, lambda values: torch.tensor(values, dtype=torch.float64)])
def test_bounds_scale_arrays_of_every_framework(array):
    widths = array([0.5, 2.0])
    found = defect_bound(widths)
    assert type(found) is type(widths)
    np.testing.assert_allclose(np.asarray(found), np.array([0.5, 2.0]) * defect_bound(1.0), rtol=BUDGET)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lipschitz_constant(4), "kernel_size = 4; an odd integer"),
        (lambda: lipschitz_constant(5, 0.0), "sigma_spatial = 0.0; a positive number"),
        (lambda: defect_bound(0.0), "sigma_range = 0.0; a finite number > 0"),
        (lambda: defect_bound(math.inf), "sigma_range = inf; a finite number > 0"),
        (lambda: defect_bound(np.array([1.0, math.nan])), "sigma_range = nan"),
        (lambda: defect_bound(1.0, 2), "kernel_size = 2; an odd integer"),
    ],
)
def test_faults_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
