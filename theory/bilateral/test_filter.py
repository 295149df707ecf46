"""The filter itself: three frameworks agree with the formula, its invariances hold, bad input is refused."""

import math
import tracemalloc

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from theory.bilateral import bilateral_filter
from theory.bilateral import filter as filter_module
from theory.rounding import relative_budget

PADDINGS = ("reflect", "symmetric", "circular")
SPATIAL = np.exp(-(np.arange(-2, 3) ** 2) / 2)


def frames_of(seed: int, shape: tuple[int, ...] = (6, 2, 3)) -> np.ndarray:
    """Values a few range widths apart, and now and then far apart."""
    generator = np.random.default_rng(seed)
    return generator.normal(size=shape) * np.exp(generator.normal(size=shape))


def reference_filter(x, sigma_range, sigma_spatial=1.0, kernel_size=5, padding="reflect"):
    """The published formula for one entry a frame, written out with loops."""
    count, half = len(x), kernel_size // 2

    def place(position):
        while not 0 <= position < count:
            if padding == "circular":
                position %= count
            elif position < 0:
                position = -position if padding == "reflect" else -position - 1
            else:
                position = 2 * (count - 1) - position if padding == "reflect" else 2 * count - 1 - position
        return position

    filtered = []
    for i in range(count):
        above, below = 0.0, 0.0
        for k in range(-half, half + 1):
            value = x[place(i + k)]
            in_time, in_value = k / sigma_spatial, (value - x[i]) / sigma_range
            weight = math.exp(-(in_time**2) / 2) * math.exp(-(in_value**2) / 2)
            above, below = above + weight * value, below + weight
        filtered.append(above / below)
    return np.array(filtered)


def filter_budget(x: np.ndarray, kernel_size: int = 5, unit_roundoff: float = 2.0**-53) -> float:
    """Rounding of one filtered value, absolute, at the size of the values.

    A difference rounds at the size of the values, which moves its own term by |d (w d)/d d| = w |1 - u^2| <= w + 2/e of
    that; a weight is a chain of some 8 operations whose exponent u^2 / 2 multiplies the error, w u^2 / 2 <= 1/e. The
    sums, the quotient and the last sum are at most 2 kernel_size + 2 further operations on averages of the values.
    """
    return relative_budget(8 * kernel_size + 32, unit_roundoff) * 2 * float(np.max(np.abs(x)))


@pytest.mark.parametrize("padding", PADDINGS)
@hypothesis.given(
    seed=st.integers(0, 2**31 - 1),
    count=st.integers(1, 7),
    kernel_size=st.sampled_from([3, 5, 7]),
    sigma_range=st.floats(0.1, 10),
    sigma_spatial=st.floats(0.3, 3),
)
def test_frameworks_agree_with_the_formula(padding, seed, count, kernel_size, sigma_range, sigma_spatial):
    x = frames_of(seed, (count if padding != "reflect" else count + kernel_size // 2, 2))
    settings = {"sigma_spatial": sigma_spatial, "kernel_size": kernel_size, "padding": padding}
    expected = np.stack([reference_filter(entry, sigma_range, **settings) for entry in x.T], axis=1)
    for array in (x, jnp.asarray(x), torch.from_numpy(x)):
        found = bilateral_filter(array, sigma_range=sigma_range, **settings)
        assert type(found) is type(array)
        assert np.max(np.abs(np.asarray(found) - expected)) <= filter_budget(x, kernel_size)


@hypothesis.given(seed=st.integers(0, 2**31 - 1), sigma_range=st.floats(0.1, 10))
def test_torch_and_jax_gradients_agree(seed, sigma_range):
    x = frames_of(seed)
    weights = np.random.default_rng(seed + 1).normal(size=x.shape)
    tensor = torch.from_numpy(x).requires_grad_()
    (torch.from_numpy(weights) * bilateral_filter(tensor, sigma_range=sigma_range)).sum().backward()
    from_jax = jax.grad(lambda array: jnp.sum(jnp.asarray(weights) * bilateral_filter(array, sigma_range=sigma_range)))(
        jnp.asarray(x)
    )
    # An entry of the Jacobian is w (1 - u (u - F)), of size at most 1 + 2/e + |F|, and |F| < 1; at most 5 of them meet.
    # What a value's rounding does to u is that times |x| / sigma_range.
    budget = filter_budget(np.maximum(np.abs(x), sigma_range)) / sigma_range
    assert np.max(np.abs(tensor.grad.numpy() - np.asarray(from_jax))) <= 5 * 3 * np.max(np.abs(weights)) * budget


@hypothesis.given(seed=st.integers(0, 2**31 - 1))
def test_jacobian_is_the_closed_form(seed):
    """dy_i/dx_j = w_j (1 - u_j (u_j - F)) for j != i, in the interior; rows add up to 1 everywhere."""
    x = frames_of(seed, (7,))
    jacobian = np.asarray(jax.jacobian(lambda array: bilateral_filter(array, sigma_range=1.0))(jnp.asarray(x)))
    budget = 5 * 3 * filter_budget(np.maximum(np.abs(x), 1))
    assert np.max(np.abs(jacobian.sum(axis=1) - 1)) <= budget
    for i in range(2, 5):
        u = x[i - 2 : i + 3] - x[i]
        weights = SPATIAL * np.exp(-(u**2) / 2)
        weights /= weights.sum()
        expected = weights * (1 - u * (u - weights @ u))
        expected[2] = 1 - np.delete(expected, 2).sum()
        assert np.max(np.abs(jacobian[i, i - 2 : i + 3] - expected)) <= budget


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("value", [0.1, -3e30, 1e-320])
def test_constants_are_kept(padding, value):
    x = np.full((4, 2), value)
    np.testing.assert_array_equal(bilateral_filter(x, sigma_range=0.7, padding=padding), x)


@pytest.mark.parametrize("padding", PADDINGS)
@hypothesis.given(seed=st.integers(0, 2**31 - 1), sigma_range=st.floats(0.01, 100))
def test_maximum_principle(padding, seed, sigma_range):
    x = frames_of(seed)
    filtered = bilateral_filter(x, sigma_range=sigma_range, padding=padding)
    budget = filter_budget(x)
    assert (filtered <= x.max(axis=0) + budget).all()
    assert (filtered >= x.min(axis=0) - budget).all()


@hypothesis.given(seed=st.integers(0, 2**31 - 1), shift=st.floats(-100, 100))
def test_translation_moves_the_result_along(seed, shift):
    x = frames_of(seed)
    moved = bilateral_filter(x + shift, sigma_range=1.0) - shift
    # The shifted values are rounded once before the filter sees them, and its Lipschitz constant is below 3.
    budget = 4 * filter_budget(np.append(x + shift, shift))
    assert np.max(np.abs(moved - bilateral_filter(x, sigma_range=1.0))) <= budget


@hypothesis.given(seed=st.integers(0, 2**31 - 1), exponent=st.integers(-200, 200))
def test_range_width_is_a_unit(seed, exponent):
    """B_sigma(x) = sigma B_1(x / sigma): exactly where sigma is a power of two."""
    x, sigma = frames_of(seed), 2.0**exponent
    np.testing.assert_array_equal(
        bilateral_filter(sigma * x, sigma_range=sigma), sigma * bilateral_filter(x, sigma_range=1.0)
    )


@hypothesis.given(seed=st.integers(0, 2**31 - 1))
def test_every_entry_is_filtered_by_itself(seed):
    x = frames_of(seed)
    filtered = bilateral_filter(x, sigma_range=1.0)
    np.testing.assert_array_equal(filtered[:, 1, 2], bilateral_filter(x[:, 1, 2], sigma_range=1.0))
    changed = x.copy()
    changed[:, 0, 0] += 1.0
    np.testing.assert_array_equal(bilateral_filter(changed, sigma_range=1.0)[:, 1], filtered[:, 1])


def test_an_infinite_range_is_the_linear_filter():
    x = frames_of(0, (9,))
    expected = np.convolve(x, SPATIAL / SPATIAL.sum(), mode="valid")
    found = bilateral_filter(x, sigma_range=math.inf)[2:-2]
    assert np.max(np.abs(found - expected)) <= filter_budget(x)


def reference_monotone(x, sigma_range, sigma_spatial=1.0, kernel_size=5, padding="symmetric"):
    """x_i + sum_k g(k) psi(x_{i+k} - x_i) / sum_k g(k), on the window that NumPy pads."""
    half = kernel_size // 2
    mode = {"circular": "wrap"}.get(padding, padding)
    padded = np.pad(x, half, mode=mode)
    spatial = np.exp(-((np.arange(-half, half + 1) / sigma_spatial) ** 2) / 2)
    filtered = []
    for i in range(len(x)):
        differences = padded[i : i + kernel_size] - x[i]
        bent = differences / np.sqrt(1 + (differences / sigma_range) ** 2)
        filtered.append(x[i] + spatial @ bent / spatial.sum())
    return np.array(filtered)


@pytest.mark.parametrize("padding", PADDINGS)
@hypothesis.given(
    seed=st.integers(0, 2**31 - 1),
    kernel_size=st.sampled_from([3, 5, 7]),
    sigma_range=st.floats(0.1, 10) | st.just(math.inf),
    sigma_spatial=st.floats(0.3, 3),
)
def test_monotone_frameworks_agree_with_the_formula(padding, seed, kernel_size, sigma_range, sigma_spatial):
    x = frames_of(seed, (5, 2))
    settings = {"sigma_spatial": sigma_spatial, "kernel_size": kernel_size, "padding": padding}
    expected = np.stack([reference_monotone(entry, sigma_range, **settings) for entry in x.T], axis=1)
    for array in (x, jnp.asarray(x), torch.from_numpy(x)):
        found = bilateral_filter(array, sigma_range=sigma_range, monotone=True, **settings)
        assert type(found) is type(array)
        assert np.max(np.abs(np.asarray(found) - expected)) <= filter_budget(x, kernel_size)


def test_monotone_derivatives_agree_and_far_values_saturate():
    x = frames_of(3)
    tensor = torch.from_numpy(x).requires_grad_()
    bilateral_filter(tensor, sigma_range=0.5, monotone=True)[1].sum().backward()
    from_jax = jax.grad(lambda array: bilateral_filter(array, sigma_range=0.5, monotone=True)[1].sum())(jnp.asarray(x))
    assert np.max(np.abs(tensor.grad.numpy() - np.asarray(from_jax))) <= filter_budget(np.maximum(np.abs(x), 1)) / 0.5
    far = torch.tensor([0.0, 1e300, -1e300], dtype=torch.float64, requires_grad=True)
    filtered = bilateral_filter(far, sigma_range=1e-200, monotone=True)
    filtered.sum().backward()
    assert torch.isfinite(filtered).all() and torch.equal(far.grad, torch.ones_like(far))


def test_padding_follows_the_filter():
    x = frames_of(1)
    for monotone, padding in ((False, "reflect"), (True, "symmetric")):
        found = bilateral_filter(x, sigma_range=1.0, monotone=monotone)
        np.testing.assert_array_equal(found, bilateral_filter(x, sigma_range=1.0, monotone=monotone, padding=padding))
    assert bilateral_filter(x[:1], sigma_range=1.0, monotone=True).shape == x[:1].shape


@pytest.mark.parametrize("monotone", [False, True])
def test_many_columns_are_filtered_a_few_at_a_time(monotone, monkeypatch):
    """The same numbers as in one piece, in every framework; memory beside the result does not grow with the columns."""
    x = np.random.default_rng(0).normal(size=(6, 7, 501)).astype(np.float32)
    whole = np.asarray(bilateral_filter(jnp.asarray(x), sigma_range=1.0, monotone=monotone))
    monkeypatch.setattr(filter_module, "_BLOCK", 600)
    parts = bilateral_filter(x, sigma_range=1.0, monotone=monotone)
    budget = filter_budget(x, unit_roundoff=2.0**-24)
    assert parts.shape == x.shape and np.max(np.abs(parts - whole)) <= budget
    tensor = bilateral_filter(torch.from_numpy(x), sigma_range=1.0, monotone=monotone)
    assert np.max(np.abs(tensor.numpy() - whole)) <= budget
    x[4, 3, 17] = np.nan
    with pytest.raises(ValueError, match="frame 4 holds nan"):
        bilateral_filter(x, sigma_range=1.0, monotone=monotone)


def extra_memory(columns: int) -> int:
    """Bytes at the peak of one call beside its argument and its result."""
    x = np.ones((8, columns), dtype=np.float32)
    tracemalloc.start()
    result = bilateral_filter(x, sigma_range=1.0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak - result.nbytes


def test_memory_beside_the_result_does_not_grow():
    small, large = extra_memory(20_000), extra_memory(400_000)
    assert large <= 1.1 * small < 400_000 * 8 * 4


def test_hypothesis_finds_clips_that_move_apart():
    """Three frames in halves of sigma_range: two clips whose largest difference grows by a fifth and more."""
    entries = st.integers(-8, 8).map(lambda half: half / 2)
    clips = st.tuples(*[entries] * 6).map(lambda values: np.array(values).reshape(2, 3))

    def apart(clip: np.ndarray) -> bool:
        filtered = bilateral_filter(clip.T, sigma_range=1.0).T
        return bool(np.max(np.abs(filtered[1] - filtered[0])) > 1.2 * np.max(np.abs(clip[1] - clip[0])) > 0)

    found = hypothesis.find(clips, apart, settings=hypothesis.settings(max_examples=5000, database=None))
    assert apart(found)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_dtype_is_kept_and_half_precision_computed_in_single(dtype):
    x = torch.from_numpy(frames_of(0)).to(dtype)
    found = bilateral_filter(x, sigma_range=1.0)
    assert found.dtype == dtype
    assert torch.equal(found, bilateral_filter(x.float(), sigma_range=1.0).to(dtype))


def test_far_values_have_no_weight_and_finite_derivatives():
    x = torch.tensor([0.0, 1e300, -1e300, 5.0], dtype=torch.float64, requires_grad=True)
    np.testing.assert_array_equal(bilateral_filter(x.detach().numpy(), sigma_range=1e-300), x.detach().numpy())
    filtered = bilateral_filter(x, sigma_range=1e-300)
    assert torch.equal(filtered, x)
    filtered.sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))


X = np.zeros((3, 2))


@pytest.mark.parametrize(
    ("x", "settings", "message"),
    [
        (X.tolist(), {}, "x is a list"),
        (X.astype(int), {}, "dtype int64; a real floating-point dtype"),
        (np.float64(1.0).reshape(()), {}, r"shape \(\); \(frames, ...\)"),
        (X[:, :0], {}, r"shape \(3, 0\)"),
        (X[:2], {}, "2 frames were given; reflect padding of a window of 5 needs at least 3"),
        (X, {"kernel_size": 7}, "3 frames were given; reflect padding of a window of 7 needs at least 4"),
        (np.array([0.0, 1.0, math.nan]), {}, "frame 2 holds nan"),
        (np.array([[0.0, 1.0], [1.0, -math.inf], [0.0, 0.0]]), {}, "frame 1 holds -inf"),
        (np.array([0.0, 1.0, 1e308]), {}, r"frame 2 holds 1e\+308; finite values of size at most 1.8e\+307"),
        (X, {"kernel_size": 4}, "kernel_size = 4; an odd integer"),
        (X, {"kernel_size": 1}, "kernel_size = 1; an odd integer"),
        (X, {"kernel_size": 5.0}, "kernel_size = 5.0; an odd integer"),
        (X, {"sigma_range": 0.0}, "sigma_range = 0.0; a positive number"),
        (X, {"sigma_range": math.nan}, "sigma_range = nan"),
        (X.astype(np.float32), {"sigma_range": 1e-40}, "sigma_range = 1e-40; float32 divides by numbers from 1.18e-38"),
        (X, {"sigma_spatial": -1.0}, "sigma_spatial = -1.0"),
        (X, {"padding": "zeros"}, "padding = 'zeros'; 'reflect', 'symmetric', 'circular' is needed"),
    ],
)
def test_faults_are_named(x, settings, message):
    with pytest.raises(ValueError, match=message):
        bilateral_filter(x, **{"sigma_range": 1.0, **settings})
