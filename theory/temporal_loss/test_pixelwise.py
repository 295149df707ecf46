"""The per-pixel loss against a loop over its pixels, and dead pixels found in every framework."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from theory.claim import Tells
from theory.evidence import Evidence, FeatureRecord
from theory.rounding import relative_budget
from theory.temporal_loss import dead_pixels, hessian_constant, pixelwise, pixelwise_gradient, temporal_loss


def features_of(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape)


def test_loss_is_the_mean_over_pixels():
    features = features_of((4, 3, 2, 5))
    by_pixel = [float(temporal_loss(features[:, :, row, column])) for row in range(2) for column in range(5)]
    assert abs(float(temporal_loss(features, similarity="pixel")) - np.mean(by_pixel)) <= 4 * relative_budget(64)


@pytest.mark.parametrize("shape", [(3, 2, 1, 3), (3, 6, 2, 1)], ids=["few channels", "reduced channels"])
def test_pixels_do_not_interact(shape):
    """The dense Hessian over all entries has the norm of the worst pixel's own, over P; through the reduction for many
    channels too."""
    features = features_of(shape)
    dense = float(pixelwise.pixelwise_hessian_norm(jnp.asarray(features)))
    by_pixel = pixelwise.hessian_norm_by_pixel(features)
    pixels = shape[2] * shape[3]
    assert by_pixel.shape == (pixels,)
    budget = relative_budget(pixelwise.operations(num_frames=shape[0], channels=shape[1], pixels=pixels))
    assert abs(dense - np.max(by_pixel) / pixels) <= 2 * budget * dense


def test_batches_of_pixels_are_put_together(monkeypatch):
    features = features_of((3, 2, 2, 5))
    whole = pixelwise.hessian_norm_by_pixel(features)
    monkeypatch.setattr(pixelwise, "PIXELS_AT_A_TIME", 4)
    assert np.max(np.abs(pixelwise.hessian_norm_by_pixel(features) - whole)) <= relative_budget(64) * np.max(whole)


def test_gradient_is_attained_by_equal_pixels():
    """G_3 = 2 sqrt 6 in each of 9 pixels: the mean's gradient is 2 sqrt 6 / 3."""
    size = (("num_frames", 3), ("channels", 2), ("pixels", 9))
    outcome = pixelwise_gradient.PROBLEM.outcome(pixelwise_gradient.witness(**dict(size)), size, "nine pixels")
    assert outcome.attains
    assert outcome.bound == pytest.approx(2 * math.sqrt(6) / 3, rel=relative_budget(8))


@pytest.mark.parametrize("claim", [pixelwise.CLAIM, pixelwise_gradient.CLAIM], ids=lambda claim: claim.id)
def test_reality_on_synthetic_features(claim):
    record = FeatureRecord("synthetic", features_of((4, 8, 3, 3)))
    implied = next(comparison for comparison in claim.reality if comparison.tells is Tells.IMPLIED)
    (outcome,) = implied.outcomes(Evidence(features=(record,), round_trips=()))
    assert outcome.holds and 0 < outcome.ratio < 1


@pytest.mark.parametrize("convert", [np.asarray, jnp.asarray, torch.from_numpy], ids=["numpy", "jax", "torch"])
def test_dead_pixels_are_named(convert):
    features = features_of((4, 3, 2, 5))
    assert dead_pixels(convert(features)) == []
    features[0, :, 1, 4] = 0
    features[2, 1, 0, 3] = np.nan
    features[3, :, 1, 0] = 1e-3 / math.sqrt(3)
    assert dead_pixels(convert(features)) == [(0, 1, 4), (2, 0, 3)]
    assert dead_pixels(convert(features), min_norm=2e-3) == [(0, 1, 4), (2, 0, 3), (3, 1, 0)]


def test_a_dead_pixel_leaves_no_bound():
    """Halving one pixel's vector in one frame quarters m^2; the Hessian there follows it up without limit."""
    for shrink in (1e-1, 1e-3):
        features = np.asarray(pixelwise.witness(num_frames=3, channels=2, pixels=2)["features"]).copy()
        features[1, :, 0, 0] *= shrink
        assert float(np.max(pixelwise.hessian_norm_by_pixel(features))) > 2 * hessian_constant(3) / 12 / shrink**2
    features[1, :, 0, 0] = 0
    with pytest.raises(ValueError, match=r"frame 1, pixel \(0, 0\) has squared norm 0;"):
        pixelwise.hessian_norm_by_pixel(features)


@pytest.mark.parametrize(
    ("features", "min_norm", "message"),
    [
        (np.ones((3, 4)), 0.0, r"shape \(3, 4\); \(frames, channels, height, width\)"),
        ([1.0], 0.0, "shape None"),
        (np.ones((3, 2, 1, 1), dtype=np.int32), 0.0, "int32"),
        (np.ones((3, 2, 1, 1)), -1.0, "min_norm = -1.0"),
        (np.ones((3, 2, 1, 1)), float("nan"), "min_norm = nan"),
    ],
)
def test_dead_pixels_refuses(features, min_norm, message):
    with pytest.raises(ValueError, match=message):
        dead_pixels(features, min_norm=min_norm)
