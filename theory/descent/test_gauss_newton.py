"""The Gauss-Newton sharpness against the dense matrix, on features against the certificate, and what it refuses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from theory.descent import gauss_newton_model, gauss_newton_remainder, gauss_newton_sharpness
from theory.descent.gauss_newton import PROBLEM, draw, instance_of, lora_frames
from theory.rounding import relative_budget
from theory.search import evaluate
from theory.temporal_loss import certify_curvature, similarities, temporal_loss
from theory.temporal_loss.instances import dense_hessian


def _network(num_frames=5, dimension=3, seed=0):
    size = {"num_frames": num_frames, "dimension": dimension}
    return instance_of(draw(jax.random.key(seed), **size), **size)


@pytest.mark.parametrize("seed", range(3))
def test_sharpness_is_the_norm_of_the_dense_matrix(seed):
    instance = _network(seed=seed)
    jacobian = np.asarray(instance["gradients"])
    num_pairs = len(jacobian)
    difference = np.diff(np.eye(num_pairs), axis=0)
    dense = 2 / (num_pairs - 1) * (difference @ jacobian).T @ (difference @ jacobian)
    # Forming the Gram matrix and subtracting its entries twice costs what the entries are worth.
    slack = relative_budget(16 * num_pairs + jacobian.shape[1]) * 4 * np.linalg.norm(jacobian) ** 2
    assert gauss_newton_sharpness(jacobian @ jacobian.T) == pytest.approx(np.linalg.norm(dense, 2), abs=slack)


def test_everything_that_the_residuals_know_matches_automatic_differentiation():
    instance = _network(seed=1)
    loss, gradient = jax.value_and_grad(lambda flat: temporal_loss(lora_frames(flat, instance)))(instance["adapter"])
    rows = np.diff(np.asarray(instance["gradients"]), axis=0)
    known = gauss_newton_model(np.diff(np.asarray(similarities(instance["frames"]))), rows @ rows.T)
    budget = 1e4 * relative_budget(64)  # neighbouring similarities are subtracted: four digits are left to cancellation
    assert known.loss == pytest.approx(float(loss), rel=budget)
    assert known.squared_gradient == pytest.approx(float(gradient @ gradient), rel=budget)
    dense = 2 / len(rows) * rows.T @ rows
    assert known.sharpness == pytest.approx(np.linalg.norm(dense, 2), rel=budget)
    assert known.along_gradient == pytest.approx(float(gradient @ dense @ gradient / (gradient @ gradient)), rel=budget)
    assert known.along_gradient <= known.sharpness * (1 + budget)


def test_mean_over_layers_is_one_mean_of_squares():
    """Residuals of two layers in a row: the matrix is the mean of the layers' matrices, and its norm not the mean of their norms."""
    layers = [np.diff(np.asarray(_network(seed=seed)["gradients"]), axis=0) for seed in (2, 3)]
    rows = np.concatenate(layers)
    dense = sum(2 / len(layer) * layer.T @ layer for layer in layers) / len(layers)
    known = gauss_newton_model(np.ones(len(rows)), rows @ rows.T)
    slack = relative_budget(16 * len(rows) + rows.shape[1]) * np.linalg.norm(rows) ** 2
    assert known.sharpness == pytest.approx(np.linalg.norm(dense, 2), abs=slack)


@pytest.mark.parametrize(("num_frames", "dimension"), [(3, 2), (6, 3)])
def test_inequality_at_other_sizes(num_frames, dimension):
    size = (("num_frames", num_frames), ("dimension", dimension))
    parameters = jax.vmap(functools.partial(draw, **dict(size)))(jax.random.split(jax.random.key(5), 200))
    measured, bound = evaluate(PROBLEM, size, parameters)
    assert np.all(measured <= bound * (1 + PROBLEM.budget(size)))


@pytest.mark.parametrize("seed", range(4))
def test_on_features_it_is_the_certificates_value_and_the_remainder_bounds_the_rest_of_the_hessian(seed):
    frames = np.random.default_rng(seed).normal(size=(5, 4))
    jacobian = np.asarray(jax.jacobian(similarities)(jnp.asarray(frames))).reshape(4, -1)
    certificate = certify_curvature(frames)
    assert gauss_newton_sharpness(jacobian @ jacobian.T) == pytest.approx(certificate.gauss_newton, rel=1e4 * relative_budget(64))
    difference = np.diff(np.eye(4), axis=0)
    rest = np.asarray(dense_hessian(jnp.asarray(frames))) - 2 / 3 * jacobian.T @ difference.T @ difference @ jacobian
    assert np.linalg.norm(rest, 2) <= gauss_newton_remainder(frames) * (1 + 1e4 * relative_budget(64))


def test_remainder_vanishes_with_the_loss():
    """At a loss of order h^2 it is of order h."""
    turned = lambda h: np.array([[1, 0], [0, 1], [-1, h], [0.0, -1]])  # noqa: E731
    remainders = [gauss_newton_remainder(turned(h)) for h in (1e-3, 1e-4, 1e-5)]
    assert remainders[0] / remainders[1] == pytest.approx(10, rel=1e-2)
    assert remainders[1] / remainders[2] == pytest.approx(10, rel=1e-2)


def test_same_value_for_every_kind_of_array():
    gram = np.cov(np.random.default_rng(0).normal(size=(4, 9)))
    for other in (jnp.asarray(gram), torch.from_numpy(gram)):
        assert gauss_newton_sharpness(other) == gauss_newton_sharpness(gram)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gauss_newton_sharpness(np.zeros((3, 2))), r"gram has shape \(3, 2\); \(M, M\) is needed"),
        (lambda: gauss_newton_sharpness(np.zeros((1, 1))), "1 similarity; at least 2"),
        (lambda: gauss_newton_sharpness(np.eye(3, dtype=int)), "dtype int64; a floating-point dtype"),
        (lambda: gauss_newton_sharpness(np.full((2, 2), np.nan)), "gram holds 4 values that are not finite"),
        (lambda: gauss_newton_model(np.zeros((2, 2)), np.eye(2)), r"residuals have shape \(2, 2\)"),
        (lambda: gauss_newton_model(np.zeros(2), np.eye(3)), r"gram has shape \(3, 3\); \(2, 2\) is needed"),
        (lambda: gauss_newton_remainder(np.eye(3), jacobian_norm=-1.0), "jacobian_norm = -1.0"),
        (lambda: gauss_newton_remainder(np.eye(3), curvature_norm=np.inf), "curvature_norm = inf"),
        (lambda: gauss_newton_remainder(np.diag([1.0, 0, 1])), "frame 1"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
