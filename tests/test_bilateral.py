"""The filter inside the UNet: across frames and nothing else, each copy of the clip by itself, no hook left behind."""

import numpy as np
import pytest
import torch
from test_capture import LAYERS, Bare, hooks_of
from tiny_pipelines import clip, pixel_pipeline, stable_diffusion_pipeline

from experiments.editor.bilateral import bilateral_filtering, filtered_layers
from experiments.editor.capture import captured_features
from experiments.editor.editor import Editor
from theory.bilateral import bilateral_filter
from theory.rounding import relative_budget

pytestmark = pytest.mark.usefixtures("single_thread")

PROMPT = "a plain video"


@pytest.fixture(scope="module")
def editor():
    return Editor(pixel_pipeline(), dtype=torch.float64)


@pytest.fixture(scope="module")
def latents(editor):
    return editor.to_latents(clip())


def predicted(editor, latents, **keywords):
    with torch.no_grad():
        return editor.predict_noise(latents, 500, PROMPT, **keywords)


def test_off_is_the_base_network_bit_for_bit(editor, latents):
    unet = editor.pipeline.unet
    before, hooks = predicted(editor, latents), hooks_of(unet)
    with bilateral_filtering(unet, sigma_range=0.1) as names:
        assert names == filtered_layers(unet) == LAYERS[4:6]
        filtered = predicted(editor, latents)
        assert len(hooks_of(unet)) == len(hooks) + 3
    assert hooks_of(unet) == hooks
    assert not torch.equal(filtered, before)
    assert torch.equal(predicted(editor, latents), before)


def test_no_hook_stays_after_an_error(editor, latents):
    unet = editor.pipeline.unet
    hooks, before = hooks_of(unet), predicted(editor, latents)
    with pytest.raises(RuntimeError, match="inside"), bilateral_filtering(unet):
        raise RuntimeError("inside")
    with pytest.raises(ValueError, match="2 frames were given; reflect padding"), bilateral_filtering(unet):
        predicted(editor, latents[:2])
    assert hooks_of(unet) == hooks
    assert torch.equal(predicted(editor, latents), before)


def test_layer_outputs_are_filtered_along_the_frames(editor, latents):
    """The first filtered layer sees unfiltered inputs, so its output is the filter of the base network's output."""
    unet, settings = editor.pipeline.unet, {"sigma_range": 0.3, "sigma_spatial": 2.0, "kernel_size": 3}
    with captured_features(unet, LAYERS[4:6]) as base:
        predicted(editor, latents)
    with bilateral_filtering(unet, **settings), captured_features(unet, LAYERS[4:6]) as filtered:
        predicted(editor, latents)
    assert torch.equal(filtered[LAYERS[4]], bilateral_filter(base[LAYERS[4]], **settings))
    assert not torch.equal(filtered[LAYERS[5]], bilateral_filter(base[LAYERS[5]], **settings))
    assert not torch.equal(filtered[LAYERS[4]][0], base[LAYERS[4]][0])


def test_frames_see_their_window_and_no_frame_beyond_it(editor):
    """Two filtered layers of windows of 3 reach two frames; reflect padding goes no further."""
    latents = editor.to_latents(clip(6))
    changed = latents.clone()
    changed[0] += 0.1
    with bilateral_filtering(editor.pipeline.unet, kernel_size=3):
        before, after = predicted(editor, latents), predicted(editor, changed)
    moved = [not torch.equal(old, new) for old, new in zip(before, after, strict=True)]
    assert moved == [True, True, True, False, False, False]


def test_equal_frames_are_left_alone(editor, latents):
    still = latents[:1].expand(3, -1, -1, -1).contiguous()
    base = predicted(editor, still)
    with bilateral_filtering(editor.pipeline.unet):
        filtered = predicted(editor, still)
    # The network itself rounds equal frames differently at different places of the batch.
    assert float((filtered - base).abs().max()) <= relative_budget(10_000) * float(base.abs().max())


def test_guidance_filters_each_copy_by_itself(editor, latents):
    with bilateral_filtering(editor.pipeline.unet, num_frames=len(latents)):
        guided = predicted(editor, latents, guidance_scale=3.0)
        conditional = predicted(editor, latents)
        with torch.no_grad():
            unconditional = editor.predict_noise(latents, 500, "")
    # The two halves of one batch against two batches: sums in another order, amplified by 2 w.
    budget = 6 * relative_budget(10_000) * float(guided.abs().max())
    expected = unconditional + 3 * (conditional - unconditional)
    assert float((guided - expected).abs().max()) <= budget
    assert float((conditional - unconditional).abs().max()) > 1e3 * budget


def test_mixed_copies_and_cut_clips_are_refused(editor, latents):
    unet = editor.pipeline.unet
    with bilateral_filtering(unet), pytest.raises(ValueError, match="same 4 frames twice, as under guidance"):
        predicted(editor, latents, guidance_scale=3.0)
    with bilateral_filtering(unet, num_frames=4), pytest.raises(ValueError, match="3 frames, no multiple of num_fra"):
        predicted(editor, latents, frames_at_once=3)


def test_gradients_reach_the_neighbouring_frames(editor, latents):
    leaf = latents.clone().requires_grad_()
    with bilateral_filtering(editor.pipeline.unet):
        (gradient,) = torch.autograd.grad(editor.predict_noise(leaf, 500, PROMPT)[0].square().sum(), leaf)
    assert (gradient.abs().amax(dim=(1, 2, 3)) > 0).all()


def test_default_layers_of_stable_diffusion():
    """Its last up block has attention, in blocks one after another; the first two of them are filtered."""
    unet = stable_diffusion_pipeline().unet
    assert filtered_layers(unet) == [f"up_blocks.1.attentions.{index}.transformer_blocks.0.attn1" for index in (0, 1)]


@pytest.mark.parametrize(
    ("layers", "settings", "message"),
    [
        (["mid_block"], {}, "'mid_block', which is no self-attention"),
        (None, {"sigma_range": 0.0}, "sigma_range = 0.0"),
        (None, {"sigma_spatial": np.nan}, "sigma_spatial = nan"),
        (None, {"kernel_size": 2}, "kernel_size = 2"),
        (None, {"num_frames": 0}, "num_frames = 0 must be at least 1"),
    ],
)
def test_faults_are_named_before_a_forward_pass(editor, layers, settings, message):
    hooks = hooks_of(editor.pipeline.unet)
    with (
        pytest.raises(ValueError, match=message),
        bilateral_filtering(editor.pipeline.unet, layers, **settings),
    ):
        pass
    assert hooks_of(editor.pipeline.unet) == hooks


def test_a_network_without_up_blocks_needs_layers():
    with pytest.raises(ValueError, match="no up block of the UNet has self-attention"):
        filtered_layers(Bare())
