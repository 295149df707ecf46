"""The companion code's shape convention in torch and JAX, and the audit rule that recognises it."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from theory.temporal_loss import degenerate_similarities, pixelwise_similarities, similarity_warning, temporal_loss
from theory.temporal_loss.companion import companion_similarities


def torch_companion_similarities(features: torch.Tensor) -> torch.Tensor:
    """A replica of the convention: every frame's (1, tokens, channels) is taken for (channels, height, width), cosine
    over the first axis."""
    channels, height, width = features[0].unsqueeze(0).shape
    assert (channels, height, width) == (1, *features.shape[1:])
    return torch.stack(
        [
            torch.nn.functional.cosine_similarity(before.unsqueeze(0), after.unsqueeze(0), dim=0, eps=1e-8)
            for before, after in itertools.pairwise(features)
        ]
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_torch_replica_is_flat(dtype):
    features = torch.randn(4, 6, 5, dtype=dtype, generator=torch.Generator().manual_seed(0)).requires_grad_()
    cosines = torch_companion_similarities(features)
    assert degenerate_similarities(cosines.detach()) is not None
    torch.mean((cosines[1:] - cosines[:-1]) ** 2).backward()
    # Each entry's gradient is a difference of two equal numbers of size 8 / |F|; what is left is their rounding.
    assert torch.max(torch.abs(features.grad * features.detach())) <= 32 * torch.finfo(dtype).eps


def test_jax_replica_agrees():
    features = np.random.default_rng(0).normal(size=(4, 6, 5))
    ours, theirs = (
        np.asarray(companion_similarities(jnp.asarray(features))),
        torch_companion_similarities(torch.from_numpy(features)).numpy(),
    )
    assert ours.shape == theirs.shape == (3, 6, 5)
    assert np.array_equal(np.sign(ours), np.sign(theirs))


def test_our_loss_refuses_the_convention():
    """With the frames' axis first the same mistake is one channel, and the loss says so instead of being flat."""
    features = np.random.default_rng(0).normal(size=(4, 1, 6, 5))
    with pytest.raises(ValueError, match="at least 2 are needed"):
        pixelwise_similarities(features)
    with pytest.raises(ValueError, match="at least 2 are needed"):
        temporal_loss(features, similarity="pixel")


@pytest.mark.parametrize("convert", [np.asarray, jnp.asarray, torch.from_numpy], ids=["numpy", "jax", "torch"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_audit_rule(convert, dtype):
    signs = np.asarray([[1.0, -1.0, 1.0], [-1.0, -1.0, 1.0]], dtype=dtype)
    message = degenerate_similarities(convert(signs))
    assert message is not None and "all 6 similarities" in message and "length one" in message
    signs[0, 1] = 0.999
    assert degenerate_similarities(convert(signs)) is None


def test_audit_rule_on_right_features():
    features = np.random.default_rng(0).normal(size=(4, 8, 3, 3))
    assert degenerate_similarities(pixelwise_similarities(features)) is None


@pytest.mark.parametrize(
    ("similarities", "message"),
    [
        ([1.0, -1.0], "list"),
        (np.asarray([1, -1]), "int64"),
        (np.empty((0, 3)), r"shape \(0, 3\)"),
        (np.asarray([1.0, np.nan]), "magnitude nan"),
        (np.asarray([1.0, 3.0]), "magnitude 3"),
    ],
)
def test_audit_rule_refuses(similarities, message):
    with pytest.raises(ValueError, match=message):
        degenerate_similarities(similarities)


def test_warning_of_features():
    """Frame by frame first, then pixel by pixel; a dead pixel is for `dead_pixels` to name."""
    features = np.random.default_rng(0).normal(size=(4, 8, 3, 3))
    assert similarity_warning(features) is None
    still = np.repeat(features[:1], 4, axis=0)
    assert similarity_warning(still).startswith("frame by frame all 3 similarities are +1 or -1")
    lengths = np.random.default_rng(1).uniform(1, 2, size=(4, 1, 3, 3))
    assert similarity_warning(lengths * still).startswith("pixel by pixel all 27 similarities are +1 or -1")
    assert "one channel (shape (4, 1, 3, 3))" in similarity_warning(features[:, :1])
    assert similarity_warning(features.reshape(4, -1)) is None
    dead = features.copy()
    dead[1, :, 0, 2] = 0
    assert similarity_warning(dead) is None


def test_gradient_is_zero_and_not_small():
    """At features of whole powers of two no operation rounds, and the gradient is zero to the last bit."""
    features = jnp.asarray(2.0 ** np.arange(12).reshape(3, 2, 2) * (-1.0) ** np.arange(12).reshape(3, 2, 2))

    def loss(values):
        cosines = companion_similarities(values)
        return jnp.mean((cosines[1:] - cosines[:-1]) ** 2)

    assert np.array_equal(np.asarray(jax.grad(loss)(features)), np.zeros((3, 2, 2)))
