"""Prompt tokens: which patches they see, how they start, how they enter the context."""

import numpy as np
import pytest
import torch
from tiny_pipelines import adapted_editor, clip, pixel_pipeline

from experiments.editor.editor import Editor
from experiments.editor.tokens import PromptTokens, patch_features
from theory.rounding import relative_budget

pytestmark = pytest.mark.usefixtures("single_thread")


def test_patches_are_every_second_square_row_by_row():
    frames = torch.arange(2 * 3 * 4 * 6, dtype=torch.float64).reshape(2, 3, 4, 6)
    features = patch_features(frames, 2)
    corners = [(0, 0), (0, 4), (2, 2)]  # of the 2 x 3 patches, numbers 0, 2 and 4
    assert features.shape == (2, 3, 12)
    for frame in range(2):
        for index, (top, left) in enumerate(corners):
            patch = frames[frame, :, top : top + 2, left : left + 2]
            assert torch.equal(features[frame, index], patch.reshape(-1))


@pytest.mark.parametrize(("patch_size", "height", "width"), [(0, 4, 4), (-2, 4, 4), (3, 4, 6), (3, 6, 4), (8, 4, 4)])
def test_patches_must_tile_the_frame(patch_size, height, width):
    with pytest.raises(ValueError, match=f"patch_size = {patch_size} must divide the {height} x {width} frame"):
        patch_features(torch.zeros(1, 3, height, width), patch_size)


def test_tokens_are_shared_then_linear_in_the_patches():
    tokens = PromptTokens(num_shared=2, dim=5, channels=3, patch_size=2, seed=0).double()
    features = torch.randn((4, 3, 12), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        tokens.frame.bias.copy_(torch.arange(5))
        result = tokens(features)
    assert result.shape == (4, 5, 5)
    assert torch.equal(result[:, :2], tokens.shared.detach().expand(4, 2, 5))
    weight, bias = tokens.frame.weight.detach().numpy(), tokens.frame.bias.detach().numpy()
    expected = features.numpy() @ weight.T + bias
    operands = np.abs(features.numpy()) @ np.abs(weight.T) + np.abs(bias)
    assert (np.abs(result[:, 2:].numpy() - expected) <= relative_budget(2 * 13) * operands).all()


def test_tokens_start_normal_with_deviation_002_and_zero_bias():
    tokens = PromptTokens(num_shared=64, dim=256, channels=3, patch_size=8, seed=0)
    for values in (tokens.shared, tokens.frame.weight):
        scaled = values.detach().numpy() / 0.02
        # Five standard errors of the mean and of the standard deviation of n normal numbers.
        assert abs(scaled.mean()) < 5 / np.sqrt(scaled.size)
        assert abs(scaled.std() - 1) < 5 / np.sqrt(2 * scaled.size)
    assert not tokens.frame.bias.any()


def test_a_seed_means_the_same_tokens_and_leaves_the_global_generator():
    before = torch.random.get_rng_state()
    first, again, other = (PromptTokens(num_shared=4, dim=8, channels=3, patch_size=2, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.shared, again.shared)
    assert torch.equal(first.frame.weight, again.frame.weight)
    assert not torch.equal(first.shared, other.shared)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"num_shared": -1}, "num_shared = -1 must be at least 0"),
        ({"dim": 0}, "dim = 0"),
        ({"channels": 0}, "channels = 0"),
        ({"patch_size": 0}, "patch_size = 0"),
    ],
)
def test_sizes_out_of_range(sizes, message):
    with pytest.raises(ValueError, match=message):
        PromptTokens(**{"num_shared": 4, "dim": 8, "channels": 3, "patch_size": 2, "seed": 0, **sizes})


def test_context_is_shared_then_frame_then_text():
    editor = adapted_editor()
    text = editor.encode_prompt("a plain video")
    with editor.adapters(True), torch.no_grad():
        context = editor.context("a plain video", 4)
    # 2 shared tokens; 16 x 16 frames have 4 patches of 8 x 8, of which every second one counts.
    assert context.shape == (4, 2 + 2 + text.shape[1], 16)
    parameters = editor.adapter_parameters()
    assert torch.equal(context[:, :2], parameters["tokens.shared"].detach().expand(4, 2, 16))
    assert torch.equal(context[:, 4:], text.expand(4, -1, -1))
    assert not torch.equal(context[0, 2:4], context[1, 2:4])
    with editor.adapters(False):
        assert torch.equal(editor.context("a plain video", 4), text.expand(4, -1, -1))


def test_frame_indices_pick_the_tokens_of_those_frames():
    editor = adapted_editor()
    with editor.adapters(True), torch.no_grad():
        everything = editor.context("", 4)
        assert torch.equal(editor.context("", 2, frame_indices=[3, 1]), everything[[3, 1]])
        with pytest.raises(ValueError, match="3 frames were given and the tokens of 4 frames chosen"):
            editor.context("", 3)
        with pytest.raises(ValueError, match="frame_indices holds 4; the frames of set_frames are numbered 0 to 3"):
            editor.context("", 2, frame_indices=[0, 4])
        with pytest.raises(ValueError, match="frame_indices holds -1"):
            editor.context("", 1, frame_indices=[-1])


def test_prompt_tokens_need_their_frames():
    editor = Editor(pixel_pipeline())
    with pytest.raises(ValueError, match="no prompt tokens; call add_prompt_tokens first"):
        editor.set_frames(clip())
    editor.add_prompt_tokens()
    with pytest.raises(ValueError, match="call set_frames first"):
        editor.predict_noise(editor.to_latents(clip()), 10, "", adapter=True)
    with pytest.raises(ValueError, match="prompt tokens already"):
        editor.add_prompt_tokens()


def test_gradients_reach_every_token_parameter():
    editor = adapted_editor()
    eps = editor.predict_noise(editor.to_latents(clip()), 300, "a plain video", adapter=True)
    names = ["tokens.shared", "tokens.frame.weight", "tokens.frame.bias"]
    parameters = editor.adapter_parameters()
    for gradient in torch.autograd.grad(eps.square().sum(), [parameters[name] for name in names]):
        assert gradient.abs().max(dim=-1).values.min() > 0
