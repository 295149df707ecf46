"""The composite bound beyond the sizes of the ladder, its two terms apart, on general maps, and on the network's own
layer."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from theory.descent.adapter import (
    PROBLEM,
    DerivativeBounds,
    adapter_curvature_bound,
    flat_witness,
    lora_curvature_found,
    lora_derivative_bounds,
    lora_hessian,
    recorded_adapter,
    spectral_norm,
    witness,
)
from theory.descent.layers import frozen_weight
from theory.rounding import relative_budget
from theory.search import draw, evaluate
from theory.temporal_loss import gradient_constant, hessian_constant, largest_gradient, temporal_loss
from theory.temporal_loss import gradient as gradient_theorem
from theory.temporal_loss.hessian import extremal_frames
from theory.temporal_loss.instances import extreme_eigenvalue

LARGER = (("num_frames", 5), ("outputs", 3), ("positions", 1), ("extra", 4), ("rank", 2))


def test_bound_on_thousands_of_larger_adapters():
    measured, bound = evaluate(PROBLEM, LARGER, draw(PROBLEM, LARGER, 0, 2000))
    assert np.all(measured <= bound * (1 + PROBLEM.budget(LARGER)))
    assert np.max(measured / bound) > 0.1


def test_derivative_bounds_are_those_of_the_map():
    """J against the largest singular value of the Jacobian, H against D^2 Phi[u, u] = 2 dB dA X for many u."""
    generator = np.random.default_rng(0)
    inputs, down, up = (generator.normal(size=shape) for shape in ((4, 3, 2), (2, 3), (5, 2)))
    bounds = lora_derivative_bounds(inputs, down, up)

    def features(theta):
        return jnp.einsum("oi,tip->top", jnp.reshape(theta[6:], (5, 2)) @ jnp.reshape(theta[:6], (2, 3)), inputs)

    theta = jnp.concatenate([down.ravel(), up.ravel()])
    jacobian = np.reshape(np.asarray(jax.jit(jax.jacobian(features))(theta)), (-1, theta.size))
    assert 0.5 * bounds.jacobian < np.linalg.norm(jacobian, 2) <= bounds.jacobian * (1 + relative_budget(512))
    directions = generator.normal(size=(500, theta.size))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    steps = directions[:, 6:].reshape(-1, 5, 2) @ directions[:, :6].reshape(-1, 2, 3)
    seconds = np.linalg.norm(2 * np.einsum("noi,tip->ntop", steps, inputs).reshape(500, -1), axis=1)
    assert 0.1 * bounds.second < np.max(seconds) <= bounds.second * (1 + relative_budget(64))


@pytest.mark.parametrize("num_frames", [3, 4])
def test_first_term_is_attained_by_a_linear_map(num_frames):
    """Phi(theta) = F + 3 theta at the extremal frames: J = 3, H = 0."""
    frames = jnp.asarray(extremal_frames(num_frames))
    moved = jax.jit(jax.hessian(lambda x: temporal_loss(frames + 3 * jnp.reshape(x, frames.shape))))
    hessian = moved(jnp.zeros(frames.size))
    bound = adapter_curvature_bound(num_frames, 1.0, DerivativeBounds(3.0, 0.0))
    assert bound == pytest.approx(9 * hessian_constant(num_frames), rel=relative_budget(8))
    found = float(extreme_eigenvalue((hessian + hessian.T) / 2, largest_magnitude=True))
    assert found == pytest.approx(bound, rel=relative_budget(1024))


def test_second_term_is_attained_by_a_map_without_first_derivative():
    """Phi(theta) = F + theta^2 h / 2 with h along the largest gradient of three frames: J = 0, H = ||h||, curvature G_3
    ||h||."""
    frames = jnp.asarray(gradient_theorem.frames_of(largest_gradient(3).similarities))
    direction = jax.jit(jax.grad(temporal_loss))(frames)
    bend = 5 * direction / jnp.linalg.norm(direction)
    curvature = float(jax.jit(jax.hessian(lambda x: temporal_loss(frames + x**2 / 2 * bend)))(0.0))
    bound = adapter_curvature_bound(3, 1.0, DerivativeBounds(0.0, 5.0))
    assert bound == pytest.approx(5 * gradient_constant(3), rel=relative_budget(8))
    # The frames come from a search that stops at a gradient of 1e-5 of a smooth maximum.
    assert bound * (1 - 1e-8) < curvature <= bound * (1 + relative_budget(256))


def test_composite_bound_on_general_smooth_maps():
    """Phi(theta) = tanh(theta K) M, whose derivatives at theta are known in closed form: both terms matter."""
    generator = np.random.default_rng(1)
    weights, mixing = generator.normal(size=(40, 3, 8)), generator.normal(size=(40, 8, 8))
    thetas = generator.normal(size=(40, 3))

    def features(theta, inner, outer):
        return jnp.reshape(jnp.tanh(theta @ inner) @ outer, (4, 2))

    @jax.jit
    @jax.vmap
    def sides(theta, inner, outer):
        hessian = jax.hessian(lambda x: temporal_loss(features(x, inner, outer)))(theta)
        tanh = jnp.tanh(theta @ inner)
        jacobian = spectral_norm((inner * (1 - tanh**2)[None, :]) @ outer)
        # D^2 Phi[u, u] = (-2 tanh (1 - tanh^2) (u K)^2) M, and |(u K)_i| <= ||K_i||.
        columns = jnp.sum(inner**2, axis=0)
        second = jnp.sqrt(jnp.sum((2 * tanh * (1 - tanh**2) * columns) ** 2)) * spectral_norm(outer)
        least = jnp.sqrt(jnp.min(jnp.sum(features(theta, inner, outer) ** 2, axis=1)))
        return extreme_eigenvalue((hessian + hessian.T) / 2, largest_magnitude=True), least, jacobian, second

    for found, least, jacobian, second in zip(*map(np.asarray, sides(thetas, weights, mixing)), strict=True):
        assert found <= adapter_curvature_bound(4, float(least), DerivativeBounds(float(jacobian), float(second)))


def test_curvature_found_is_the_norm_of_the_dense_hessian():
    size = dict(LARGER)
    parameters = draw(PROBLEM, LARGER, 5, 20)
    drawn = jax.jit(jax.vmap(functools.partial(PROBLEM.instance, **size)))(parameters)
    dense = jax.jit(jax.vmap(lambda one: extreme_eigenvalue(lora_hessian(one), largest_magnitude=True)))(drawn)
    found = np.asarray(jax.vmap(lora_curvature_found)(drawn))
    assert np.all(found <= np.asarray(dense) * (1 + PROBLEM.budget(LARGER)))
    # Power iteration lags where the two largest eigenvalues are close.
    assert np.median(found / dense) > 0.999


@pytest.mark.parametrize("num_frames", [3, 6])
def test_lora_approaches_the_first_term_for_other_numbers_of_frames(num_frames):
    size = (("num_frames", num_frames), ("outputs", 1), ("positions", 2), ("extra", 1), ("rank", 1))
    outcome = PROBLEM.outcome(witness(**dict(size)), size, "witness")
    assert outcome.holds and outcome.ratio > 1 - 1e-9


@pytest.mark.parametrize(("num_frames", "share"), [(3, 1.0), (4, 0.9418)])
def test_lora_approaches_the_second_term_at_zero(num_frames, share):
    """A = B = 0: only the second derivative of the map is left, and 0.92 G_N would be too small."""
    instance = flat_witness(num_frames)
    measured, bound = (float(jax.jit(side)(instance)) for side in (PROBLEM.measured, PROBLEM.bound))
    assert measured == pytest.approx(share * bound, rel=1e-4)
    assert measured > 0.92 * bound


@pytest.mark.parametrize("size", [*PROBLEM.sizes, LARGER], ids=str)
def test_every_instance_is_a_layer(size):
    """F = (W + B A) X for some frozen W: nothing is left of fitting it, for drawn layers and for the witness."""
    drawn = draw(PROBLEM, size, 3, 20)
    found = [PROBLEM.instance(jax.tree.map(lambda leaf, i=i: leaf[i], drawn), **dict(size)) for i in range(20)]
    if dict(size)["outputs"] == 1:
        found.append(witness(**dict(size)))
    for instance in found:
        instance = {name: np.asarray(value) for name, value in instance.items()}
        weight = frozen_weight(instance) + instance["up"] @ instance["down"]
        error = np.einsum("oi,tip->top", weight, instance["inputs"]) - instance["frames"]
        # The fit and B A cancel: what rounds is of the size of B A X.
        size_of_terms = np.linalg.norm(instance["frames"]) + np.linalg.norm(instance["up"] @ instance["down"]) * np.linalg.norm(instance["inputs"])
        assert np.linalg.norm(error) <= 1e-12 * size_of_terms


def test_offsets_of_their_own_are_no_layer():
    """Frames (+, +, -, -) e_1 and inputs (.162, -.688, -.688, .162): the best layer with a bias leaves a residual of norm 2."""
    inputs, signs = np.array([0.162, -0.688, -0.688, 0.162]), np.array([1.0, 1.0, -1.0, -1.0])
    rows = np.stack([inputs, np.ones(4)], axis=1)
    assert np.linalg.norm(rows @ np.linalg.lstsq(rows, signs, rcond=None)[0] - signs) == pytest.approx(2.0)


def test_record_of_the_network_gives_the_features(evidence):
    (record,) = evidence.adapters
    _, instance = recorded_adapter(record)
    layer = record.label.removeprefix("LoRA of ").split(".to_out")[0]
    (features,) = [one for one in evidence.features if one.label == f"{layer}, timestep 1, adapter on"]
    np.testing.assert_array_equal(np.reshape(record.outputs, features.values.shape), features.values)
    assert float(jnp.linalg.norm(instance["up"])) > 0
    assert lora_derivative_bounds(instance["inputs"], instance["down"], instance["up"]).second > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((2, 1.0, DerivativeBounds(1.0, 1.0)), "num_frames = 2; at least 3"),
        ((3, 0.0, DerivativeBounds(1.0, 1.0)), "min_norm = 0.0"),
        ((3, float("nan"), DerivativeBounds(1.0, 1.0)), "min_norm = nan"),
        ((3, 1.0, DerivativeBounds(-1.0, 1.0)), "derivatives.jacobian = -1.0"),
        ((3, 1.0, DerivativeBounds(1.0, float("inf"))), "derivatives.second = inf"),
    ],
)
def test_bad_arguments_of_the_composite_bound(arguments, message):
    with pytest.raises(ValueError, match=message):
        adapter_curvature_bound(*arguments)


def test_bad_adapters():
    good = np.ones((3, 2, 4)), np.ones((1, 2)), np.ones((5, 1))
    with pytest.raises(ValueError, match=r"shapes \(3, 2, 4\), \(1, 3\), \(5, 1\)"):
        lora_derivative_bounds(good[0], np.ones((1, 3)), good[2])
    with pytest.raises(ValueError, match="up hold a NaN"):
        lora_derivative_bounds(good[0], good[1], np.full((5, 1), np.nan))
