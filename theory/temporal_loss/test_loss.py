"""The loss itself: three frameworks agree, its invariances hold, and bad input is refused with the offender named."""

import itertools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from theory.rounding import relative_budget
from theory.temporal_loss import pixelwise_similarities, similarities, temporal_loss

SHAPES = {"frame": (5, 3, 2, 4), "pixel": (5, 3, 2, 4)}
FLOAT32_ROUNDOFF = float(np.finfo(np.float32).eps) / 2


def features_of(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    generator = np.random.default_rng(seed)
    scales = np.exp(generator.normal(size=(shape[0],) + (1,) * (len(shape) - 1)))
    return scales * generator.normal(size=shape)


def reference_loss(features: np.ndarray, similarity: str) -> float:
    """The published formula, written out with loops."""
    flat = (
        features.reshape(features.shape[0], -1)[..., None]
        if similarity == "frame"
        else features.reshape(*features.shape[:2], -1)
    )
    losses = []
    for pixel in range(flat.shape[2]):
        frames = flat[:, :, pixel]
        cosines = [
            frames[t] @ frames[t + 1] / (np.linalg.norm(frames[t]) * np.linalg.norm(frames[t + 1]))
            for t in range(len(frames) - 1)
        ]
        losses.append(sum((after - before) ** 2 for before, after in itertools.pairwise(cosines)) / (len(frames) - 2))
    return float(np.mean(losses))


def loss_budget(shape: tuple[int, ...], unit_roundoff: float = 2.0**-53) -> float:
    """Rounding of the loss, absolute, since similarities have size 1 and their differences cancel.

    A norm, a division, a dot product and the mean are chains of at most 3 sums over the entries and a few single
    operations; the square doubles the error of a difference of size at most 2.
    """
    return 4 * relative_budget(3 * int(np.prod(shape)) + 16, unit_roundoff)


@pytest.mark.parametrize("similarity", ["frame", "pixel"])
@hypothesis.given(seed=st.integers(0, 2**31 - 1))
def test_frameworks_agree_with_the_formula(similarity, seed):
    features = features_of(seed, SHAPES[similarity])
    expected = reference_loss(features, similarity)
    budget = loss_budget(features.shape)
    for array in (features, jnp.asarray(features), torch.from_numpy(features)):
        assert abs(float(temporal_loss(array, similarity=similarity)) - expected) <= budget


@pytest.mark.parametrize("similarity", ["frame", "pixel"])
@hypothesis.given(seed=st.integers(0, 2**31 - 1), epsilon=st.sampled_from([0.0, 0.5]))
def test_torch_and_jax_gradients_agree(similarity, seed, epsilon):
    features = features_of(seed, SHAPES[similarity])
    tensor = torch.from_numpy(features).requires_grad_()
    temporal_loss(tensor, similarity=similarity, epsilon=epsilon).backward()
    from_jax = jax.grad(lambda array: temporal_loss(array, similarity=similarity, epsilon=epsilon))(
        jnp.asarray(features)
    )
    # The gradient of a frame is at most 8 / ||F_t||, so ||F_t|| times it is of size 8, and it is this product that
    # rounds like the loss.
    norms = (
        np.linalg.norm(features, axis=1, keepdims=True)
        if similarity == "pixel"
        else np.linalg.norm(features.reshape(len(features), -1), axis=1).reshape(-1, 1, 1, 1)
    )
    assert np.max(np.abs(norms * (tensor.grad.numpy() - np.asarray(from_jax)))) <= 8 * loss_budget(features.shape)


@pytest.mark.parametrize("similarity", ["frame", "pixel"])
@hypothesis.given(seed=st.integers(0, 2**31 - 1), exponent=st.floats(-100, 100))
def test_scaling_a_frame_changes_nothing(similarity, seed, exponent):
    features = features_of(seed, SHAPES[similarity])
    scaled = features.copy()
    scaled[seed % len(features)] *= 10.0**exponent
    difference = temporal_loss(scaled, similarity=similarity) - temporal_loss(features, similarity=similarity)
    assert abs(difference) <= 2 * loss_budget(features.shape)


@hypothesis.given(seed=st.integers(0, 2**31 - 1))
def test_rotating_the_features_changes_nothing(seed):
    features = features_of(seed, (5, 4))
    rotation, _ = np.linalg.qr(np.random.default_rng(seed + 1).normal(size=(4, 4)))
    # Applying the rotation is one more matrix product, of relative error at most that of a norm.
    assert abs(temporal_loss(features @ rotation) - temporal_loss(features)) <= 2 * loss_budget((5, 4, 4))


def test_the_index_and_the_weight():
    """Three frames at right angles and then repeated: s = (0, 1), one term of size 1 and weight 1."""
    assert float(temporal_loss(np.asarray([[1.0, 0.0], [0.0, 1.0], [0.0, 2.0]]))) == 1.0
    assert float(temporal_loss(np.asarray([[1.0, 0.0], [0.0, 1.0], [0.0, 2.0], [0.0, 3.0]]))) == 0.5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(dtype):
    """A sum of 4096 squares of size 100 overflows float16; the similarities are those of the rounded entries all the
    same."""
    features = (100 * torch.randn(3, 4096, generator=torch.Generator().manual_seed(0))).to(dtype)
    measured = similarities(features)
    assert measured.dtype == torch.float32
    expected = similarities(features.to(torch.float64))
    assert torch.max(torch.abs(measured.to(torch.float64) - expected)) <= relative_budget(
        3 * 4096 + 16, FLOAT32_ROUNDOFF
    )


def test_derivatives_stay_in_range_wherever_norms_do():
    """In float32 the product of two norms of 1e-15 squared would underflow in a quotient's derivative."""
    frames = np.asarray([[1.0, 2.0, 0.5], [0.3, -1.0, 1.0], [1.0, 1.0, 1.0]], dtype=np.float32)
    reference = jax.grad(temporal_loss)(jnp.asarray(frames, dtype=jnp.float64))
    for scale in (np.float32(2.0**-45), np.float32(2.0**55)):
        for gradient in (
            np.asarray(jax.grad(temporal_loss)(jnp.asarray(frames * scale))),
            torch.func.grad(temporal_loss)(torch.from_numpy(frames * scale)).numpy(),
        ):
            assert np.max(np.abs(gradient * scale - np.asarray(reference))) <= 8 * loss_budget(
                frames.shape, FLOAT32_ROUNDOFF
            )


def test_meta_tensors_pass_through():
    """Shape inference: there are no values to check, and the result has none either."""
    loss = temporal_loss(torch.empty(4, 8, device="meta"))
    assert loss.shape == () and loss.device.type == "meta"


def with_value(frame: int, value: float) -> np.ndarray:
    features = np.ones((4, 3, 2, 2))
    features[frame, :, 1, 0] = value
    return features


@pytest.mark.parametrize("convert", [np.asarray, jnp.asarray, torch.from_numpy], ids=["numpy", "jax", "torch"])
@pytest.mark.parametrize(
    ("features", "similarity", "words"),
    [
        (with_value(2, np.nan), "frame", ["frame 2", "nan"]),
        (with_value(1, np.inf), "frame", ["frame 1", "inf"]),
        (with_value(3, 1e200), "frame", ["frame 3", "inf", "overflows", "rescale"]),
        (with_value(2, np.nan), "pixel", ["frame 2, pixel (1, 0)", "nan"]),
        (with_value(2, 0.0), "pixel", ["frame 2, pixel (1, 0)", "squared norm 0;", "epsilon > 0"]),
        (with_value(2, 1e-160), "pixel", ["frame 2, pixel (1, 0)", "at least 1e-292"]),
        (
            np.concatenate([np.ones((3, 5)), np.zeros((1, 5))]),
            "frame",
            ["frame 3", "squared norm 0;", "at least 1e-292"],
        ),
        (np.ones((2, 5)), "frame", ["2 frames", "at least 3"]),
        (np.ones(5), "frame", ["(5,)", "(frames, ...)"]),
        (np.ones((4, 5)), "pixel", ["(4, 5)", "(frames, channels, height, width)"]),
        (np.ones((4, 1)), "frame", ["1 entry", "at least 2", "(4, 1)"]),
        (np.ones((4, 1, 3, 3)), "pixel", ["1 entry", "at least 2", "(4, 1, 3, 3)"]),
        (np.ones((4, 0)), "frame", ["(4, 0)", "empty"]),
        (np.ones((4, 3), dtype=np.int64), "frame", ["int64", "floating-point"]),
        (np.ones((4, 3), dtype=np.complex128), "frame", ["complex128", "floating-point"]),
    ],
)
def test_bad_features_are_refused_by_name(convert, features, similarity, words):
    with pytest.raises(ValueError) as error:
        temporal_loss(convert(features), similarity=similarity)
    for word in words:
        assert word in str(error.value)


def test_dtype_that_numpy_does_not_know():
    with pytest.raises(ValueError, match="dtype bfloat16"):
        temporal_loss(np.ones((4, 3), dtype=jnp.bfloat16))


@pytest.mark.parametrize(
    ("features", "words"),
    [
        ([[1.0, 2.0]] * 3, ["list", "NumPy, JAX or PyTorch"]),
        ("frames", ["str"]),
        ([np.ones(3)] * 4, ["list of 4 arrays", "stack"]),
        ([torch.ones(3), torch.ones(3), torch.ones(3, device="meta")], ["frame 2", "meta", "cpu", "one device"]),
    ],
)
def test_what_is_not_one_array_is_refused(features, words):
    with pytest.raises(ValueError) as error:
        similarities(features)
    for word in words:
        assert word in str(error.value)


def test_a_tensor_with_gradient_is_refused_without_a_warning():
    frames = torch.ones(3, 2)
    frames[1] = 0
    with pytest.raises(ValueError, match="frame 1 has squared norm 0"):
        temporal_loss(frames.requires_grad_())


@pytest.mark.parametrize("epsilon", [-1.0, float("nan"), float("inf"), 1e-200])
def test_bad_epsilon_is_refused(epsilon):
    for function in (similarities, temporal_loss):
        with pytest.raises(ValueError, match="epsilon = "):
            function(np.ones((3, 2)), epsilon=epsilon)


def test_unknown_similarity_is_refused():
    with pytest.raises(ValueError, match="similarity = 'patch'"):
        temporal_loss(np.ones((3, 2)), similarity="patch")


def test_regularised_loss_takes_zero_frames_and_single_channels():
    assert float(temporal_loss(np.zeros((3, 2)), epsilon=0.1)) == 0.0
    single = pixelwise_similarities(np.ones((3, 1, 2, 2)), epsilon=1.0)
    assert single.shape == (2, 2, 2)
    assert np.max(np.abs(single - 0.5)) <= relative_budget(8)
