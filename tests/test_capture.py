"""Feature capture: the right layers, laid out as images, with no hook left behind."""

import pytest
import torch
from diffusers.models.attention import BasicTransformerBlock
from tiny_pipelines import adapted_editor, clip, pixel_pipeline

from experiments.editor.capture import captured_features, select_layers, self_attention_layers
from experiments.editor.editor import Editor

pytestmark = pytest.mark.usefixtures("single_thread")

LAYERS = [
    "down_blocks.1.attentions.0.transformer_blocks.0.attn1",
    "down_blocks.2.attentions.0.transformer_blocks.0.attn1",
    "up_blocks.0.attentions.0.transformer_blocks.0.attn1",
    "up_blocks.0.attentions.1.transformer_blocks.0.attn1",
    "up_blocks.1.attentions.0.transformer_blocks.0.attn1",
    "up_blocks.1.attentions.1.transformer_blocks.0.attn1",
    "mid_block.attentions.0.transformer_blocks.0.attn1",
]


@pytest.fixture(scope="module")
def editor():
    return Editor(pixel_pipeline(), dtype=torch.float64)


def hooks_of(unet):
    return [
        (name, kind)
        for name, module in unet.named_modules()
        for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
        for _ in getattr(module, kind)
    ]


def test_self_attentions_of_the_unet(editor):
    assert self_attention_layers(editor.pipeline.unet) == LAYERS


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (None, LAYERS[2:6]),
        ("mid_block", LAYERS[6:]),
        (r"blocks\.[12]\.", LAYERS[:2] + LAYERS[4:6]),
        (LAYERS[3], [LAYERS[3]]),
        ([LAYERS[6], LAYERS[0]], [LAYERS[6], LAYERS[0]]),
        (tuple(LAYERS[:2]), LAYERS[:2]),
    ],
)
def test_selection(editor, layers, expected):
    assert select_layers(editor.pipeline.unet, layers) == expected


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([], "layers is empty; choose from: down_blocks.1"),
        ("decoder", "'decoder' matches no self-attention; there are: down_blocks.1"),
        ("(", "is no regular expression"),
        ([LAYERS[0], LAYERS[0].replace("attn1", "attn2")], "attn2', which is no self-attention"),
    ],
)
def test_selection_faults(editor, layers, message):
    with pytest.raises(ValueError, match=message):
        select_layers(editor.pipeline.unet, layers)


@pytest.mark.parametrize("size", [16, (16, 32), (32, 16)])
def test_features_are_the_tokens_laid_out_row_by_row(editor, size):
    height, width = (size, size) if isinstance(size, int) else size
    latents = torch.randn((3, 3, height, width), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tokens = {}
    module = editor.pipeline.unet.get_submodule(LAYERS[4])
    handle = module.register_forward_hook(lambda module, arguments, output: tokens.update(raw=output))
    try:
        with torch.no_grad():
            features = editor.features(latents, 500, "a plain video", layers=[LAYERS[4], LAYERS[6]])
    finally:
        handle.remove()
    assert list(features) == [LAYERS[6], LAYERS[4]]
    # up_blocks.1 works at half the resolution, the middle at a quarter.
    assert features[LAYERS[6]].shape == (3, 16, height // 4, width // 4)
    image = features[LAYERS[4]]
    assert image.shape == (3, 8, height // 2, width // 2)
    for row in range(height // 2):
        for column in range(width // 2):
            assert torch.equal(image[:, :, row, column], tokens["raw"][:, row * (width // 2) + column])


def test_nothing_is_stored_that_was_not_asked_for_and_no_hook_stays(editor):
    unet = editor.pipeline.unet
    before = hooks_of(unet)
    latents = editor.to_latents(clip())
    with torch.no_grad(), captured_features(unet, [LAYERS[0]]) as features:
        assert len(hooks_of(unet)) == len(before) + 2
        editor.predict_noise(latents, 500, "")
        assert list(features) == [LAYERS[0]]
    assert hooks_of(unet) == before
    editor.predict_noise(latents, 501, "")
    assert list(features) == [LAYERS[0]]


def test_no_hook_stays_after_an_error(editor):
    unet = editor.pipeline.unet
    before = hooks_of(unet)
    with pytest.raises(RuntimeError, match="inside"), captured_features(unet):
        raise RuntimeError("inside")
    with pytest.raises(ValueError, match="timestep = 1000"):
        editor.features(editor.to_latents(clip()), 1000, "")
    assert hooks_of(unet) == before


def test_capturing_does_not_change_the_prediction(editor):
    latents = editor.to_latents(clip())
    expected = editor.predict_noise(latents, 500, "a plain video")
    with captured_features(editor.pipeline.unet, ""):
        assert torch.equal(editor.predict_noise(latents, 500, "a plain video"), expected)


def test_the_adapter_changes_the_features_and_gradients_reach_it():
    editor = adapted_editor()
    latents = editor.to_latents(clip())
    with torch.no_grad():
        off, on = (editor.features(latents, 500, "", adapter=adapter) for adapter in (False, True))
    assert all(not torch.equal(off[name], on[name]) for name in LAYERS[2:6])
    features = editor.features(latents, 500, "", adapter=True, layers=[LAYERS[2]])
    parameter = editor.adapter_parameters()[f"unet.{LAYERS[2]}.to_v.lora_B.weight"]
    (gradient,) = torch.autograd.grad(features[LAYERS[2]].square().sum(), parameter)
    assert gradient.abs().max() > 0


class Bare(torch.nn.Module):
    """A transformer block without the Transformer2DModel that would tell the size of the image."""

    def __init__(self):
        super().__init__()
        self.block = BasicTransformerBlock(8, 2, 4).double()

    def forward(self, tokens):
        return self.block(tokens)


def test_without_a_transformer_the_image_must_be_square():
    bare = Bare()
    tokens = torch.randn((2, 9, 8), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad(), captured_features(bare, "block") as features:
        bare(tokens)
    assert features["block.attn1"].shape == (2, 8, 3, 3)
    with (
        pytest.raises(ValueError, match="returned 8 tokens, which is no square image"),
        captured_features(bare, "block"),
    ):
        bare(tokens[:, :8])
    assert hooks_of(bare) == []
