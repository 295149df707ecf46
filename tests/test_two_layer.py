"""The shipped two-layer network: its matrices are the network, its weights are those that are stated."""

import numpy as np
import pytest
import torch

from experiments.editor import two_layer
from experiments.editor.clips import load_clip
from experiments.editor.two_layer import TwoLayerPredictor, load_two_layer, two_layer_latents
from theory.rounding import relative_budget

pytestmark = pytest.mark.usefixtures("single_thread")


def test_matrices_are_the_network():
    """e_k(y) = s y + V tanh(a U y + b) + c equals eps(x, t) at x = y / sqrt(1 + sigma^2)."""
    network = load_two_layer()
    sigmas = np.array([0.03, 0.5, 14.0])
    latents = two_layer_latents(load_clip("carphone", "held_out", 8)[:1])
    parts = network.matrices(sigmas)
    for level, sigma in enumerate(sigmas):
        expected = network(latents, torch.tensor([sigma], dtype=torch.float64)).flatten().numpy()
        y = latents.flatten().numpy() * np.sqrt(1 + sigma**2)
        hidden = np.tanh(parts["scales"][level] * (parts["inner"] @ y) + parts["biases"][level])
        found = parts["skip"][level] * y + parts["outer"] @ hidden + parts["offsets"][level]
        # Sums of 28 and of 145 products, at the size of their operands, and tanh and the change of variables.
        operands = np.abs(parts["outer"]) @ (
            np.abs(parts["scales"][level] * parts["inner"]) @ np.abs(y) + np.abs(parts["biases"][level])
        ) + np.abs(parts["skip"][level] * y)
        assert (np.abs(found - expected) <= relative_budget(256) * (1 + operands)).all()


def test_shipped_network_predicts_noise_in_held_out_frames():
    """It is worth certifying: the convolutions take away at least half of what the best linear prediction leaves."""
    frames = two_layer_latents(load_clip("bikes", "held_out", 8))
    network, bare = load_two_layer(), load_two_layer()
    torch.nn.init.zeros_(bare.outer.weight)
    torch.nn.init.zeros_(bare.offset.weight)
    errors = [
        float(two_layer.noise_error(one, frames, torch.Generator().manual_seed(0), 512).square().mean())
        for one in (network, bare)
    ]
    assert errors[0] < errors[1] / 2


def test_training_is_a_function_of_its_seed():
    first, again, other = (two_layer.weights_file(two_layer.train_two_layer(seed=s, steps=2)) for s in (0, 0, 1))
    assert first == again
    assert first != other


def test_faults_are_named(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="steps = 0; at least 1 is needed"):
        two_layer.train_two_layer(steps=0)
    with pytest.raises(ValueError, match=r"shape \(1, 9, 8, 3\); \(frames, 8, 8, 3\) is needed"):
        two_layer_latents(np.zeros((1, 9, 8, 3)))
    monkeypatch.setattr(two_layer, "WEIGHTS", tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="no such file; install the package again"):
        load_two_layer()
    two_layer.save_two_layer(TwoLayerPredictor(), tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="has SHA-256 .* is expected: restore the shipped file"):
        load_two_layer()
