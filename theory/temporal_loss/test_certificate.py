"""The certificate against dense and reduced Hessians, by kind of features, in every array library, streamed, and with bad input."""

import os
import subprocess
import sys
import tracemalloc

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from theory.rounding import relative_budget
from theory.temporal_loss import certify_curvature, gram, hessian_constant, instances, similarities, temporal_loss
from theory.temporal_loss.certificate import certify_gram, upper_curvature
from theory.temporal_loss.gram import BandedGram, banded_gram
from theory.temporal_loss.hessian import extremal_frames

dense_hessian = jax.jit(instances.dense_hessian)


def spectrum(features: np.ndarray) -> tuple[float, float, float]:
    """Least and largest eigenvalue of the Hessian, and how far either may be off: C_N / m^2 is the size of what cancels in it."""
    frames = instances.reduce_frames(features)
    eigenvalues = np.linalg.eigvalsh(np.asarray(dense_hessian(jnp.asarray(frames))))
    operations = instances.operations(num_frames=frames.shape[0], dimension=max(frames.shape[1], features[0].size))
    least_squared_norm = np.min(np.sum(frames**2, axis=1))
    slack = relative_budget(operations) * hessian_constant(frames.shape[0]) / least_squared_norm
    return float(eigenvalues[0]), float(eigenvalues[-1]), float(slack)


def gaussian(rng, num_frames, dimension):
    return rng.standard_normal((num_frames, dimension))


def smooth(rng, num_frames, dimension):
    """Waves of many phases and speeds around a mean: neighbouring frames at cosines from 0.9 to 1."""
    time, phase, speed = np.arange(num_frames)[:, None], rng.uniform(0, 2 * np.pi, dimension), rng.uniform(0.05, 0.4, dimension)
    return 1 + np.sin(speed * time + phase)


def wandering(rng, num_frames, dimension):
    """A still picture under accumulating noise."""
    return rng.standard_normal(dimension) + 0.1 * np.cumsum(rng.standard_normal((num_frames, dimension)), axis=0)


def collinear(rng, num_frames, dimension):
    """One direction, random signs and lengths, and a part in a thousand of noise."""
    lengths = rng.choice([-1.0, 1.0], (num_frames, 1)) * rng.uniform(1, 2, (num_frames, 1))
    return lengths * rng.standard_normal(dimension) + 1e-3 * rng.standard_normal((num_frames, dimension))


def unequal(rng, num_frames, dimension):
    """Gaussian frames whose norms spread over a factor of ten or more."""
    return gaussian(rng, num_frames, dimension) * np.exp(rng.standard_normal((num_frames, 1)))


# Kind of features -> the largest spectral / ||Hess||, and upper / lambda_max, over the frames and seeds below, rounded up.
RATIOS = {
    (gaussian, 512): (1.015, 1.015),
    (gaussian, 3): (1.18, 1.25),
    (gaussian, 2): (1.25, 1.001),
    (smooth, 512): (1.001, 1.001),
    (wandering, 512): (1.011, 1.011),
    (collinear, 512): (1.026, 1.92),
    (unequal, 64): (1.02, 1.02),
}


@pytest.mark.parametrize(("kind", "dimension"), RATIOS, ids=lambda value: getattr(value, "__name__", value))
def test_never_below_the_truth_and_how_far_above(kind, dimension):
    spectral_ratios, upper_ratios = [], []
    for num_frames in (3, 4, 8):
        for seed in range(4):
            features = kind(np.random.default_rng(seed), num_frames, dimension)
            low, high, slack = spectrum(features)
            certificate = certify_curvature(features)
            assert certificate.upper + slack >= high
            assert certificate.lower - slack <= low
            assert certificate.spectral == max(certificate.upper, -certificate.lower)
            spectral_ratios.append(certificate.spectral / max(high, -low))
            upper_ratios.append(certificate.upper / high)
    recorded = RATIOS[kind, dimension]
    assert max(spectral_ratios) <= recorded[0] and max(upper_ratios) <= recorded[1], (max(spectral_ratios), max(upper_ratios))


@pytest.mark.parametrize("num_frames", [3, 4, 5, 8])
def test_attained_by_collinear_frames(num_frames):
    certificate = certify_curvature(extremal_frames(num_frames, min_norm=0.5), min_norm=0.5)
    exact = hessian_constant(num_frames) / 0.25
    assert exact <= certificate.spectral <= exact + certificate.margin * (1 + relative_budget(100)) + exact * 2.0**-19
    assert certificate.margin <= 1e-5 * exact


@pytest.mark.parametrize(("num_frames", "dimension"), [(3, 2), (4, 7), (9, 40)])
def test_gauss_newton_is_that_of_the_dense_matrix(num_frames, dimension):
    features = np.random.default_rng(num_frames).standard_normal((num_frames, dimension))
    jacobian = jax.jacobian(lambda flat: similarities(jnp.reshape(flat, (num_frames, dimension))))(jnp.asarray(features.ravel()))
    change = np.diff(np.asarray(jacobian), axis=0)
    dense = 2 / (num_frames - 2) * np.linalg.norm(change, 2) ** 2
    budget = relative_budget(instances.operations(num_frames=num_frames, dimension=dimension))
    assert abs(certify_curvature(features).gauss_newton - dense) <= budget * dense


def test_directions_hidden_in_one_frame_of_a_pair_only():
    """Angles of 2.5e-5 and 4.9e-5 from a half turn: rounding hides the plane of the middle frame and not those of the outer ones."""
    angles = np.array([-1.46424623, -1.46424623 - 2.5375e-5 + np.pi, -1.46424623 + 2.3917e-5])
    frames = np.array([1.637, 0.6353, 0.618])[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    low, high, _ = spectrum(frames)
    certificate = certify_curvature(frames)
    assert certificate.upper - certificate.margin >= 0.999 * high
    assert certificate.lower <= low


@pytest.mark.parametrize("error", [1e-4, 1e-8, 1e-12])
def test_gram_matrix_that_rounding_made_indefinite(error):
    """Collinear frames whose recorded products are off by what `error` allows: sines of almost 0 with a mixed term that does not fit them."""
    cosine = np.sqrt(1 - 1e-6 * error)
    certificate = certify_gram(BandedGram(np.ones(3), np.full(2, cosine), np.array([1 - error]), error))
    # Vectors as long as the root of 16 errors of a cosine, 3 errors each, are what the frames may have; the Hessian is quadratic in them.
    assert 0 < certificate.spectral <= 12 * 4 * (16 * 3 * error + 2.0**-40)
    assert certificate.spectral < hessian_constant(3)


def test_many_frames_of_many_features_in_single_precision():
    features = np.random.default_rng(0).standard_normal((32, 20_000)).astype(np.float32)
    low, high, slack = spectrum(features.astype(np.float64))
    certificate = certify_curvature(features)
    assert high - slack <= certificate.upper <= 1.05 * high
    assert certificate.lower <= low + slack


SUMS = ("squared_norms", "neighbours", "second_neighbours")


def assert_within_its_errors(features: np.ndarray, precision: str) -> BandedGram:
    """The inner products and their cosines lie within the errors they claim of those summed in float64."""
    found, exact = banded_gram(features, precision=precision), banded_gram(features.astype(np.float64))
    norms, found_norms = np.sqrt(exact.squared_norms), np.sqrt(found.squared_norms)
    for distance, name in enumerate(SUMS):
        before, after = slice(len(norms) - distance), slice(distance, None)
        moved = np.abs(getattr(found, name) - getattr(exact, name))
        assert np.all(moved <= (found.error + exact.error) * norms[before] * norms[after])
        if distance:
            cosines = getattr(found, name) / (found_norms[before] * found_norms[after])
            moved = np.abs(cosines - getattr(exact, name) / (norms[before] * norms[after]))
            assert np.all(moved <= found.cosine_errors[distance - 1] + exact.cosine_errors[distance - 1])
    return found


def still(rng, num_frames, dimension):
    """A constant picture, of which all roundings of a sum go the same way, and a slow ramp on it."""
    return 1 / 3 + 1e-3 / 3 * np.arange(num_frames)[:, None] * (np.arange(dimension) % 2)


def resized(rng, num_frames, dimension):
    """Close frames whose norms differ by a tenth, so that the differences of the norms take most of those of the frames."""
    return wandering(rng, num_frames, dimension) * rng.uniform(0.9, 1.1, (num_frames, 1))


KINDS = (gaussian, smooth, wandering, collinear, unequal, still, resized)


@pytest.mark.parametrize("precision", ["single", "differences"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("num_frames", "dimension"), [(3, 1023), (9, 1025), (10, 4096), (11, 70_000)])
def test_sums_in_single_precision_lie_within_their_errors(precision, kind, num_frames, dimension):
    features = kind(np.random.default_rng(num_frames), num_frames, dimension).astype(np.float32)
    found = assert_within_its_errors(features, precision)
    exact = certify_gram(banded_gram(features.astype(np.float64)))
    certificate = certify_gram(found)
    assert certificate.upper >= exact.upper - exact.margin
    assert certificate.lower <= exact.lower + exact.margin
    assert certificate.spectral <= exact.spectral + 2 * certificate.margin + 4 * found.error * exact.spectral


def test_errors_of_sums_in_single_precision_are_of_the_size_that_is_seen():
    """Sums that round the same way all along: an error bound far above what they show would cost the certificate its use."""
    features = np.full((3, 1024), 1 / 3, dtype=np.float32)
    features[1] += np.float32(1e-3)
    found, exact = banded_gram(features, precision="single"), banded_gram(features.astype(np.float64))
    seen = np.max(np.abs(found.squared_norms / exact.squared_norms - 1))
    assert found.error / 2000 <= seen <= found.error


@hypothesis.given(
    seed=st.integers(0, 2**31 - 1),
    step=st.floats(-5, 1),
    spread=st.floats(-6, 0.5),
    num_frames=st.integers(3, 20),
    dimension=st.integers(2, 3000),
)
def test_sums_of_differences_lie_within_their_errors(seed, step, spread, num_frames, dimension):
    rng = np.random.default_rng(seed)
    features = rng.standard_normal(dimension) + 10.0**step * rng.standard_normal((num_frames, dimension))
    assert_within_its_errors((features * np.exp(10.0**spread * rng.standard_normal((num_frames, 1)))).astype(np.float32), "differences")


def test_frames_that_are_the_same():
    features = np.repeat(np.random.default_rng(0).standard_normal((1, 3000)).astype(np.float32), 5, axis=0)
    found = assert_within_its_errors(features, "differences")
    assert found.neighbours == pytest.approx(found.squared_norms[1:], rel=relative_budget(4))
    certificate = certify_gram(found)
    assert 0 <= certificate.upper - certificate.margin <= 1e-3 * hessian_constant(5) / found.squared_norms[0]


@pytest.mark.parametrize("precision", ["single", "differences"])
@pytest.mark.parametrize("scale", [1e-24, 1e-19, 1e-17, 1e22])
def test_products_outside_the_range_of_single_precision(precision, scale):
    """Squares of 1e-24 vanish in float32, as those of differences do at 1e-17, and those of 1e22 are infinite."""
    rng = np.random.default_rng(0)
    features = (scale * (rng.standard_normal(4000) + 1e-4 * rng.standard_normal((4, 4000)))).astype(np.float32)
    assert_within_its_errors(features, precision)
    certificate, exact = certify_curvature(features), certify_curvature(features.astype(np.float64))
    assert certificate.upper >= exact.upper - exact.margin
    assert certificate.upper <= 1.05 * exact.upper


@pytest.mark.parametrize("precision", ["single", "differences", "double"])
@pytest.mark.parametrize("workers", [2, 3])
def test_same_sums_whatever_the_number_of_threads(monkeypatch, precision, workers):
    features = smooth(np.random.default_rng(5), 12, 500_100).astype(np.float32)
    found = []
    for number in (1, workers):
        monkeypatch.setattr(gram, "_num_workers", lambda number=number: number)
        found.append(banded_gram(features, precision=precision))
    for name in SUMS:
        first, second = (getattr(sums, name) for sums in found)
        assert np.array_equal(first, second)


@pytest.mark.parametrize("num_frames", [3, 9])
def test_second_implementation(num_frames):
    """The bound on lambda_max by dense eigenproblems in JAX, all of which are solved, and from bands in LAPACK, of which some are not."""
    by_eigenproblems = jax.jit(upper_curvature, static_argnames="error")
    for kind in KINDS:
        entries = banded_gram(kind(np.random.default_rng(num_frames), num_frames, 300))
        traced = float(by_eigenproblems(*(getattr(entries, name) for name in SUMS), error=entries.error))
        found = certify_gram(entries)
        # Where frames are almost collinear the margin is what rounding may do; elsewhere it is of the size of the budget.
        assert abs(traced - found.upper) <= found.margin + relative_budget(10_000) * found.spectral, kind.__name__


def alternating(rng, num_frames, dimension):
    """Two blocks of features: in the first, which a sample of four places meets, frames are independent; in the rest they are alike."""
    features = np.repeat(rng.standard_normal((1, dimension)), num_frames, axis=0) + 0.01 * rng.standard_normal((num_frames, dimension))
    for start in np.linspace(0, dimension - 512, 4).astype(int):
        features[:, start : start + 512] = rng.standard_normal((num_frames, 512))
    return features


def test_features_are_read_in_the_fastest_precision_that_serves():
    rng = np.random.default_rng(1)
    for kind, precision in ((gaussian, "single"), (smooth, "differences"), (resized, "double"), (still, "double")):
        features = kind(rng, 6, 200_000).astype(np.float32)
        assert gram.advised_precision(features) == precision
        assert gram.advised_precision(torch.from_numpy(features)) == precision
        assert gram.advised_precision(features.astype(np.float64)) == "double"
        assert gram.advised_precision(features[:, :1000]) == "double"
        certificate = certify_gram(banded_gram(features, precision=precision))
        assert certify_curvature(features) == certificate
        assert certificate.margin <= certificate.upper / 32
        # Elsewhere than at the fastest the faster ones would leave more.
        if precision == "differences":
            assert certify_gram(banded_gram(features, precision="single")).margin > certificate.upper / 32


def test_features_whose_sample_misleads_are_read_again_in_double():
    features = alternating(np.random.default_rng(1), 6, 200_000).astype(np.float32)
    assert gram.advised_precision(features) == "single"
    assert certify_gram(banded_gram(features, precision="single")).margin > 0.1 * certify_curvature(features).upper
    assert certify_curvature(features) == certify_gram(banded_gram(features))


def test_same_certificate_from_every_library_layout_and_stream():
    features = np.random.default_rng(2).standard_normal((5, 4, 6, 7))
    expected = certify_curvature(features)
    halves = banded_gram(features[:, :1]) + banded_gram(features[:, 1:])
    for other in (
        certify_curvature(torch.from_numpy(features).requires_grad_()),
        certify_curvature(torch.from_numpy(features).permute(0, 2, 3, 1)),
        certify_curvature(jnp.asarray(features)),
        certify_curvature(np.repeat(features, 2, axis=2)[:, :, ::2]),
        certify_curvature(frame for frame in features),
        certify_curvature([torch.from_numpy(frame) for frame in features]),
        certify_gram(halves),
    ):
        for name in ("upper", "lower", "spectral", "gauss_newton"):
            assert getattr(other, name) == pytest.approx(getattr(expected, name), rel=relative_budget(100 * features[0].size))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_short_floats_are_summed_exactly(dtype):
    features = torch.from_numpy(np.random.default_rng(3).standard_normal((4, 300))).to(dtype)
    assert certify_gram(banded_gram(features)) == certify_curvature(features.to(torch.float64))


def test_bfloat16_of_jax():
    features = jnp.asarray(np.random.default_rng(3).standard_normal((4, 300)), dtype=jnp.bfloat16)
    wide = np.asarray(features, dtype=np.float64)
    assert certify_curvature(features) == certify_curvature(np.asarray(features)) == certify_curvature(wide)
    assert certify_curvature(list(features)) == certify_curvature(list(np.asarray(features))) == certify_curvature(list(wide))


def test_views_of_torch_with_a_sign_or_a_conjugate_pending():
    features = torch.from_numpy(np.random.default_rng(3).standard_normal((2, 4, 300)))
    pending = torch.complex(*features).conj().imag
    assert pending.is_neg()
    assert certify_curvature(pending) == certify_curvature(-features[1])


def test_margin_is_all_that_rounding_adds():
    """An error of the inner products alone, with cosines that are known better, scales the bound."""
    entries = (np.ones(3), np.array([0.3, -0.2]), np.array([0.1]))
    exact, rough = (certify_gram(BandedGram(*entries, error, (1e-14, 1e-14))) for error in (2.0**-53, 2.0**-10))
    assert rough.upper > exact.upper
    assert rough.upper - rough.margin <= exact.upper


def test_norms_as_far_apart_as_float64_holds():
    features = np.random.default_rng(0).standard_normal((4, 8)) * np.array([[1e-75], [1.0], [1e70], [1.0]])
    certificate = certify_curvature(features)
    assert np.isfinite(certificate.upper) and certificate.upper > 0
    assert np.isfinite(certificate.lower) and certificate.gauss_newton >= 0


@hypothesis.given(st.integers(0, 2**31 - 1), st.floats(-8, 8))
def test_scales_with_the_inverse_square_of_the_features(seed, exponent):
    features = gaussian(np.random.default_rng(seed), 5, 6)
    scale = 10.0**exponent
    first, second = certify_curvature(features), certify_curvature(scale * features)
    assert second.gauss_newton * scale**2 == pytest.approx(first.gauss_newton, rel=relative_budget(10_000))


def test_nothing_of_the_size_of_the_features_is_allocated():
    features = np.random.default_rng(4).standard_normal((16, 400_000), dtype=np.float32)
    strided = np.moveaxis(np.zeros((16, 250, 400, 4), dtype=np.float32) + features.reshape(16, 250, 400, 4), 3, 1)
    certify_curvature(features[:, :1000])
    for array in (features, strided):
        tracemalloc.start()
        certify_curvature(array)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak <= 0.3 * features.nbytes


def test_nothing_of_the_size_of_many_short_frames_is_allocated():
    """Frames of fewer features than are summed in float32 at a time."""
    features = np.random.default_rng(4).standard_normal((16_000, 1023), dtype=np.float32)
    tracemalloc.start()
    banded_gram(features)
    gram.advised_precision(features)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= 0.4 * features.nbytes


def test_bfloat16_is_converted_a_piece_at_a_time(monkeypatch):
    features = torch.from_numpy(np.random.default_rng(4).standard_normal((8, 1 << 20), dtype=np.float32)).to(torch.bfloat16)
    whole = banded_gram(features.double())
    sizes, on_host = [], gram._on_host

    def recorded(array):
        sizes.append(np.prod(array.shape))
        return on_host(array)

    monkeypatch.setattr(gram, "_on_host", recorded)
    pieces = banded_gram(features)
    gram.advised_precision(features)
    assert pieces.squared_norms == pytest.approx(whole.squared_norms, rel=pieces.error + whole.error)
    assert max(sizes) <= features.numel() / 2


@pytest.mark.parametrize("read", ["features", "iter(features)"])
def test_same_sums_whatever_the_number_of_threads_of_blas(read):
    code = (
        "import numpy as np\n"
        "from theory.temporal_loss.gram import banded_gram\n"
        "features = np.random.default_rng(0).standard_normal((4, 1 << 19), dtype=np.float32)\n"
        f"sums = banded_gram({read})\n"
        "print(*(value.hex() for value in (*sums.squared_norms, *sums.neighbours, *sums.second_neighbours)))"
    )
    printed = [
        subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"OPENBLAS_NUM_THREADS": threads}, capture_output=True, text=True, check=True
        ).stdout
        for threads in ("1", "2")
    ]
    assert printed[0] and printed[0] == printed[1]


@pytest.mark.parametrize("workers", [1, 2])
def test_values_out_of_range_are_no_warnings_on_any_thread(monkeypatch, workers):
    monkeypatch.setattr(gram, "_num_workers", lambda: workers)
    features = np.random.default_rng(0).standard_normal((4, 1 << 20))
    assert certify_curvature((1e30 * features).astype(np.float32)).upper > 0
    features[1, 7] = 1e200
    with pytest.raises(ValueError, match="frame 1 has squared norm inf"):
        certify_curvature(features)


def test_same_features_same_certificate():
    features = np.random.default_rng(5).standard_normal((12, 500_000), dtype=np.float32)
    assert certify_curvature(features) == certify_curvature(features)


GOOD = np.random.default_rng(6).standard_normal((4, 10))


def changed(frame: int, value: float) -> np.ndarray:
    features = GOOD.copy()
    features[frame] = value
    return features


@pytest.mark.parametrize(
    ("features", "options", "message"),
    [
        (GOOD[:2], {}, "2 frames were given, at least 3"),
        (iter(GOOD[:2]), {}, "2 frames were given, at least 3"),
        (GOOD[:, :1], {}, "each frame has 1 feature, at least 2"),
        (GOOD[:, 0], {}, r"shape \(4,\)"),
        (np.ones((4, 10), dtype=np.int64), {}, "dtype int64"),
        (torch.ones((4, 10), dtype=torch.int32), {}, "dtype torch.int32"),
        (np.ones((4, 10), dtype=np.complex128), {}, "dtype complex128"),
        ("features", {}, "a str"),
        (3.0, {}, "a float"),
        (changed(1, np.nan), {}, "frame 1 has squared norm nan"),
        (changed(3, np.inf), {}, "frame 3 has squared norm inf"),
        (changed(2, 0.0), {}, "frame 2 has squared norm 0"),
        (changed(2, 1e-160), {}, "frame 2 has squared norm"),
        (changed(2, 1e-160) * 1e60, {}, "frames 2 and . have squared norms"),
        (torch.ones((4, 10), dtype=torch.float8_e5m2), {}, "dtype torch.float8_e5m2"),
        (torch.ones((4, 10)).to_sparse(), {}, "layout torch.sparse_coo"),
        (changed(2, 1e-3), {"min_norm": 0.1}, r"frame 2 has norm 0\.00316.*below min_norm = 0\.1"),
        (GOOD, {"min_norm": 0.0}, "min_norm = 0.0"),
        (GOOD, {"min_norm": float("nan")}, "min_norm = nan"),
        ([GOOD[0], GOOD[1], GOOD[2, :5]], {}, r"frame 2 has shape \(5,\); \(10,\)"),
        ([GOOD[0], GOOD[1], GOOD[2].astype(np.float32)], {}, "frame 2 has dtype float32; float64"),
        ([torch.ones(10), torch.ones(10), torch.ones(10, device="meta")], {}, "frame 2 has device meta; cpu"),
        ([GOOD[0], GOOD[1], [1.0, 2.0]], {}, "frame 2 is a list"),
    ],
)
def test_bad_features(features, options, message):
    with pytest.raises(ValueError, match=message):
        certify_curvature(features, **options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.ones(2), np.ones(1), np.ones(0)), "2 frames were given"),
        ((np.ones(4), np.ones(4), np.ones(2)), r"neighbours have shape \(4,\); \(3,\)"),
        ((np.ones(4), np.array([0, 0, 1.5]), np.zeros(2)), "frames 2 and 3 have inner product 1.5"),
        ((np.ones(4), np.zeros(3), np.array([np.nan, 0])), "frames 0 and 2 have inner product nan"),
        ((np.ones(4), np.zeros(3), np.zeros(2), 0.1), "error = 0.1"),
        ((np.ones(4), np.zeros(3), np.zeros(2), 1e-6, (1e-6, -1.0)), r"cosine_errors = \(1e-06, -1.0\)"),
        ((np.ones(4), np.zeros(3), np.zeros(2), 1e-6, (np.nan, 1e-6)), r"cosine_errors = \(nan, 1e-06\)"),
        ((np.ones(4), np.zeros(3), np.zeros(2), 1e-6, 1e-6), "cosine_errors = 1e-06; two numbers"),
        ((np.ones(4), np.zeros(3), np.zeros(2), 1e-6, (1e-6,)), r"cosine_errors = \(1e-06,\)"),
        ((np.array([1, 1e-160, 1, 1e160]), np.zeros(3), np.zeros(2)), "frames 1 and 3 have squared norms 1e-160 and 1e\\+160"),
        ((torch.ones(4), torch.ones(3, device="meta"), torch.ones(2)), "on devices cpu, meta, cpu"),
    ],
)
def test_bad_inner_products(arguments, message):
    with pytest.raises(ValueError, match=message):
        BandedGram(*arguments)


def test_inner_products_of_different_frames_are_not_added():
    with pytest.raises(ValueError, match="4 and 3 frames"):
        banded_gram(GOOD) + banded_gram(GOOD[:3])


def test_unknown_precision():
    with pytest.raises(ValueError, match="precision = 'half'"):
        banded_gram(GOOD, precision="half")


def test_norms_far_from_one():
    """Squares of the curvature leave the range of float64 long before the curvature does."""
    features = np.random.default_rng(7).standard_normal((5, 6))
    expected = certify_curvature(features)
    for scale in (2.0**-400, 2.0**400):
        certificate = certify_curvature(scale * features)
        for name in ("upper", "lower", "spectral", "gauss_newton", "margin"):
            assert getattr(certificate, name) * scale**2 == getattr(expected, name)


@pytest.mark.parametrize("similarity", ["frame", "pixel"])
def test_lanczos_finds_the_ends_of_the_dense_spectrum(similarity):
    features = np.random.default_rng(8).standard_normal((4, 3, 1, 2))
    flat = jnp.asarray(features.ravel())
    hessian = jax.hessian(lambda vector: temporal_loss(jnp.reshape(vector, features.shape), similarity=similarity))(flat)
    eigenvalues = np.linalg.eigvalsh(np.asarray(hessian))
    found = instances.lanczos_extremes(features, similarity=similarity)
    assert (found.lower, found.upper) == pytest.approx((eigenvalues[0], eigenvalues[-1]), rel=relative_budget(100_000))
    assert found.products > 0
    assert np.isnan(instances.lanczos_extremes(features, similarity=similarity, ends=("upper",)).lower)
