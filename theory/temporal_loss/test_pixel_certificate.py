"""The per-pixel certificate against the dense Hessian of all pixels at once, in every array library, and with bad
input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from theory.rounding import relative_budget
from theory.temporal_loss import (
    certify_curvature,
    certify_pixels,
    feature_bounds,
    hessian_constant,
    pixelwise,
    temporal_loss,
)

SHAPE = (4, 3, 2, 2)


@jax.jit
def dense_spectrum(features):
    """Eigenvalues of the Hessian over all entries; it knows nothing of pixels."""

    def loss(vector):
        return temporal_loss(jnp.reshape(vector, features.shape), similarity="pixel")

    hessian = jax.hessian(loss)(jnp.reshape(features, (-1,)))
    return jnp.linalg.eigvalsh((hessian + hessian.T) / 2)


def gaussian(rng):
    return rng.standard_normal(SHAPE)


def smooth(rng):
    time = np.arange(SHAPE[0])[:, None, None, None]
    return 1.5 + np.sin(rng.uniform(0.05, 0.4, SHAPE[1:]) * time + rng.uniform(0, 2 * np.pi, SHAPE[1:]))


def uneven(rng):
    """Pixels whose norms spread over a factor of ten or more."""
    return rng.standard_normal(SHAPE) * np.exp(rng.standard_normal((1, 1, *SHAPE[2:])))


@pytest.mark.parametrize("kind", [gaussian, smooth, uneven])
def test_never_below_the_dense_hessian_of_all_pixels(kind):
    for seed in range(4):
        features = kind(np.random.default_rng(seed))
        eigenvalues = np.asarray(dense_spectrum(jnp.asarray(features)))
        certificate = certify_curvature(features, similarity="pixel")
        size = pixelwise.operations(num_frames=SHAPE[0], channels=SHAPE[1], pixels=4)
        slack = relative_budget(size) * feature_bounds(features, similarity="pixel").hessian
        assert certificate.upper >= eigenvalues[-1] - slack
        assert certificate.lower <= eigenvalues[0] + slack
        # In three dimensions the certificate of a set of frames is at most 1.25 times the truth (test_certificate.py).
        assert certificate.spectral <= 1.25 * np.max(np.abs(eigenvalues)) + slack


def test_is_the_extreme_of_the_pixels_own_certificates():
    features = np.random.default_rng(1).standard_normal((5, 6, 3, 4))
    found = certify_pixels(features)
    alone = [[certify_curvature(features[:, :, row, column]) for column in range(4)] for row in range(3)]
    for name in ("upper", "lower", "spectral", "gauss_newton"):
        expected = np.array([[getattr(certificate, name) for certificate in line] for line in alone]) / 12
        assert getattr(found, name) == pytest.approx(expected, rel=relative_budget(10_000))
    row, column = found.worst
    assert found.upper[row, column] == found.whole.upper == np.max(found.upper)
    assert found.whole == certify_curvature(features, similarity="pixel")
    assert found.least_norms == pytest.approx(np.min(np.linalg.norm(features, axis=1), axis=0), rel=relative_budget(16))


@pytest.mark.parametrize("num_frames", [3, 5])
def test_attained_where_one_pixel_is_extremal(num_frames):
    features = np.asarray(pixelwise.witness(num_frames=num_frames, channels=2, pixels=6)["features"])
    certificate = certify_curvature(features, similarity="pixel", min_norm=1.0)
    exact = hessian_constant(num_frames) / 6
    assert exact <= certificate.spectral <= (1 + 1e-5) * exact
    assert certify_pixels(features).spectral[0, 0] == certificate.spectral


def test_many_pixels_are_taken_a_few_rows_at_a_time(monkeypatch):
    features = np.random.default_rng(2).standard_normal((4, 3, 7, 2))
    expected = certify_pixels(features)
    monkeypatch.setattr("theory.temporal_loss.pixel_certificate.ENTRIES_AT_A_TIME", 4 * 3 * 2 * 2)
    assert np.array_equal(certify_pixels(features).upper, expected.upper)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_libraries_layouts_and_short_floats(dtype):
    features = torch.from_numpy(np.random.default_rng(3).standard_normal((4, 5, 2, 3))).to(dtype)
    expected = certify_curvature(features.to(torch.float64), similarity="pixel")
    assert certify_curvature(features.requires_grad_(), similarity="pixel") == expected
    rolled = features.detach().permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert certify_curvature(rolled, similarity="pixel") == expected
    assert certify_curvature(jnp.asarray(features.detach().to(torch.float64).numpy()), similarity="pixel") == expected


GOOD = np.random.default_rng(4).standard_normal((4, 3, 2, 3))


def changed(value: float) -> np.ndarray:
    features = GOOD.copy()
    features[2, :, 1, 0] = value
    return features


@pytest.mark.parametrize(
    ("features", "options", "words"),
    [
        (changed(0.0), {}, ["frame 2, pixel (1, 0)", "squared norm 0;", "at least 1.18e-271", "dead"]),
        (changed(1e-160), {}, ["frame 2, pixel (1, 0)", "at least 1.18e-271"]),
        (changed(1e-160) * 1e60, {}, ["pixel (1, 0) has squared norms from", "1.07e+301 times"]),
        (changed(np.nan), {}, ["frame 2, pixel (1, 0)", "nan"]),
        (changed(np.inf), {}, ["frame 2, pixel (1, 0)", "inf"]),
        (changed(1e-3), {"min_norm": 0.1}, ["frame 2, pixel (1, 0)", "norm 0.00173205", "below min_norm = 0.1"]),
        (GOOD, {"min_norm": 0.0}, ["min_norm = 0.0"]),
        (GOOD[:2], {}, ["2 frames", "at least 3"]),
        (GOOD[:, :1], {}, ["1 channel", "at least 2"]),
        (GOOD[:, :, 0], {}, ["(4, 3, 3)", "(frames, channels, height, width)"]),
        (GOOD[:, :, :0], {}, ["(4, 3, 0, 3)"]),
        (np.ones((4, 3, 2, 2), dtype=np.int64), {}, ["int64", "floating-point"]),
        (list(GOOD), {}, ["a list", "one NumPy, JAX or PyTorch array"]),
        (
            [torch.ones(3, 2, 2), torch.ones(3, 2, 2, device="meta"), torch.ones(3, 2, 2)],
            {},
            ["a list", "on one device"],
        ),
    ],
)
def test_bad_features(features, options, words):
    with pytest.raises(ValueError) as error:
        certify_curvature(features, similarity="pixel", **options)
    for word in words:
        assert word in str(error.value)


def test_unknown_similarity():
    with pytest.raises(ValueError, match="similarity = 'patch'"):
        certify_curvature(GOOD, similarity="patch")
