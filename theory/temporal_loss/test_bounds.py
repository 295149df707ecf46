"""The constants for given features, and the frame or pixel that contradicts a claimed least norm."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from theory.rounding import relative_budget
from theory.temporal_loss import (
    feature_bounds,
    gradient_constant,
    hessian_constant,
    instances,
    lipschitz_constant,
    pixelwise,
    upper_curvature_constant,
)


def features_of(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape)


@pytest.mark.parametrize("convert", [np.asarray, jnp.asarray, torch.from_numpy], ids=["numpy", "jax", "torch"])
def test_constants_over_powers_of_the_least_norm(convert):
    features = features_of((5, 3, 2, 2))
    least = float(np.min(np.linalg.norm(features.reshape(5, -1), axis=1)))
    bounds = feature_bounds(convert(features))
    expected = (
        least,
        gradient_constant(5) / least,
        hessian_constant(5) / least**2,
        upper_curvature_constant(5) / least**2,
        lipschitz_constant(5) / least**2,
    )
    measured = (bounds.min_norm, bounds.gradient, bounds.hessian, bounds.upper, bounds.lipschitz)
    assert measured == pytest.approx(expected, rel=relative_budget(64))


def test_frames_lie_under_their_bounds():
    frames = jnp.asarray(features_of((4, 3)))
    bounds = feature_bounds(frames)
    eigenvalues = np.linalg.eigvalsh(np.asarray(instances.dense_hessian(frames)))
    assert 0 < eigenvalues[-1] < bounds.upper <= bounds.hessian <= bounds.lipschitz
    assert -bounds.hessian < eigenvalues[0]
    assert float(jnp.linalg.norm(instances.gradient(frames))) < bounds.gradient


def test_pixels_lie_under_their_bounds():
    features = features_of((3, 2, 2, 2))
    bounds = feature_bounds(features, similarity="pixel")
    assert float(jax.jit(pixelwise.pixelwise_hessian_norm)(jnp.asarray(features))) < bounds.hessian
    assert bounds.min_norm == pytest.approx(float(pixelwise.least_channel_norm(jnp.asarray(features))))
    assert bounds.hessian == pytest.approx(hessian_constant(3) / (4 * bounds.min_norm**2), rel=relative_budget(8))
    assert bounds.gradient == pytest.approx(gradient_constant(3) / (2 * bounds.min_norm), rel=relative_budget(8))


def test_a_smaller_claim_is_weaker():
    features = features_of((4, 6))
    assert feature_bounds(features, min_norm=0.01).hessian == hessian_constant(4) / 0.01**2


@pytest.mark.parametrize(
    ("similarity", "min_norm", "message"),
    [
        ("frame", 2.0, r"frame 1 has norm 1.73205, below the claimed min_norm = 2; claim at most 1.73205"),
        ("pixel", 0.9, r"frame 1, pixel \(0, 1\) has norm 0.707107, below the claimed min_norm = 0.9"),
        ("frame", 0.0, "min_norm = 0.0; a finite number above 0"),
        ("frame", float("nan"), "min_norm = nan"),
        ("patch", None, "similarity = 'patch'"),
    ],
)
def test_refuses(similarity, min_norm, message):
    features = np.ones((4, 2, 2, 2))
    features[1, :, 0, 1] = 0.5
    features[1, :, 0, 0] = features[1, :, 1, 1] = np.sqrt(0.5)
    features[1, :, 1, 0] = np.sqrt(0.25)
    with pytest.raises(ValueError, match=message):
        feature_bounds(features, similarity=similarity, min_norm=min_norm)


def test_bad_features_are_refused():
    with pytest.raises(ValueError, match="frame 2 has squared norm 0;"):
        feature_bounds(np.concatenate([np.ones((2, 3)), np.zeros((1, 3))]))
