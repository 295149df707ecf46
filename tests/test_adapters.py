"""LoRA: where it sits, what it computes against the dense update, and that off is the base network bit for bit."""

import numpy as np
import pytest
import torch
from tiny_pipelines import adapted_editor, clip, pixel_pipeline

from experiments.editor.adapters import (
    ADAPTER_NAME,
    add_lora,
    lora_enabled,
    lora_is_enabled,
    lora_layers,
    lora_parameters,
    lora_update_norms,
    remove_lora,
    set_lora_enabled,
)
from experiments.editor.capture import self_attention_layers
from experiments.editor.editor import Editor
from theory.rounding import relative_budget

pytestmark = pytest.mark.usefixtures("single_thread")


def adapted_unet(rank=2, alpha=6.0, seed=0, dtype=torch.float64):
    unet = pixel_pipeline().to(dtype=dtype).unet
    unet.requires_grad_(False)
    add_lora(unet, rank=rank, alpha=alpha, seed=seed, dtype=dtype)
    return unet


def test_all_projections_of_all_attentions_are_adapted_and_nothing_else():
    unet = adapted_unet()
    attentions = [name.removesuffix("1") + str(number) for name in self_attention_layers(unet) for number in (1, 2)]
    expected = {f"{name}.{part}" for name in attentions for part in ("to_q", "to_k", "to_v", "to_out.0")}
    assert set(lora_layers(unet)) == expected
    trainable = {id(value) for value in unet.parameters() if value.requires_grad}
    assert trainable == {id(value) for value in lora_parameters(unet).values()}
    assert len(trainable) == 2 * len(expected)


def test_an_adapted_layer_is_the_dense_update():
    """Against x (W + (alpha/rank) B A)^T + bias in extended precision; a chain has at most in + rank + 6 roundings."""
    unet = adapted_unet(rank=2, alpha=6.0)
    generator = torch.Generator().manual_seed(0)
    for parameter in lora_parameters(unet).values():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator))
    set_lora_enabled(unet, True)
    for layer in lora_layers(unet).values():
        x = torch.randn((5, layer.in_features), generator=generator, dtype=torch.float64)
        base, down, up = (
            module.weight.detach().numpy().astype(np.longdouble)
            for module in (layer.base_layer, layer.lora_A[ADAPTER_NAME], layer.lora_B[ADAPTER_NAME])
        )
        bias = 0 if layer.base_layer.bias is None else layer.base_layer.bias.detach().numpy()
        expected = x.numpy() @ (base + 3 * (up @ down)).T + bias
        operands = np.abs(x.numpy()) @ (np.abs(base) + 3 * (np.abs(up) @ np.abs(down))).T + np.abs(bias)
        with torch.no_grad():
            error = np.abs(layer(x).numpy() - expected)
        assert (error <= relative_budget(layer.in_features + 2 + 6) * operands).all()
        assert (error < 1e-3 * np.abs(x.numpy() @ (3 * up @ down).T).max()).all()


def test_a_fresh_adapter_changes_nothing_even_when_it_is_on():
    base = Editor(pixel_pipeline(), dtype=torch.float64)
    latents = base.to_latents(clip())
    expected = base.predict_noise(latents, 500, "a plain video")
    base.add_adapter()
    with torch.no_grad():
        assert torch.equal(base.predict_noise(latents, 500, "a plain video", adapter=True), expected)
    assert set(base.adapter_update_norms().values()) == {0.0}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_off_is_the_base_network_bit_for_bit(dtype):
    base, adapted = Editor(pixel_pipeline(), dtype=dtype), adapted_editor(dtype)
    latents = base.to_latents(clip())
    expected = base.predict_noise(latents, 500, "a plain video")
    with torch.no_grad():
        assert not torch.equal(adapted.predict_noise(latents, 500, "a plain video", adapter=True), expected)
        assert torch.equal(adapted.predict_noise(latents, 500, "a plain video", adapter=False), expected)
        assert torch.equal(adapted.predict_noise(latents, 500, "a plain video"), expected)
        adapted.remove_adapter()
        assert torch.equal(adapted.predict_noise(latents, 500, "a plain video"), expected)
    assert not adapted.has_adapter
    assert adapted.adapter_parameters() == {}
    names = [name for name, _ in adapted.pipeline.unet.named_parameters()]
    assert names == [name for name, _ in base.pipeline.unet.named_parameters()]


def test_a_removed_adapter_can_be_added_again():
    editor = adapted_editor()
    editor.remove_adapter()
    editor.remove_adapter()
    editor.add_adapter(rank=3)
    assert {value.shape[0] for name, value in editor.adapter_parameters().items() if "lora_A" in name} == {3}


def test_switching_is_undone_after_an_error():
    unet = adapted_unet()
    for state in (False, True):
        set_lora_enabled(unet, state)
        with pytest.raises(RuntimeError, match="inside"), lora_enabled(unet, not state):
            assert lora_is_enabled(unet) is not state
            raise RuntimeError("inside")
        assert lora_is_enabled(unet) is state


def test_a_loss_computed_with_the_adapter_on_can_be_differentiated_after_it_is_off():
    editor = adapted_editor()
    loss = editor.predict_noise(editor.to_latents(clip()), 500, "", adapter=True).square().sum()
    assert not lora_is_enabled(editor.pipeline.unet)
    parameters = editor.adapter_parameters()
    assert all(parameter.requires_grad for parameter in parameters.values())
    gradients = torch.autograd.grad(loss, list(parameters.values()))
    ups = [gradient for name, gradient in zip(parameters, gradients, strict=True) if "lora_B" in name]
    assert all(gradient.abs().max() > 0 for gradient in ups)


def test_update_norms_are_those_of_the_scaled_product():
    editor = adapted_editor()
    parameters = {name: value.detach().numpy() for name, value in editor.adapter_parameters().items()}
    norms = editor.adapter_update_norms()
    assert set(norms) == set(lora_layers(editor.pipeline.unet))
    for name, norm in norms.items():
        down, up = (parameters[f"unet.{name}.{part}.weight"] for part in ("lora_A", "lora_B"))
        size = np.linalg.norm(np.abs(up) @ np.abs(down))
        assert abs(norm - np.linalg.norm(up @ down)) <= relative_budget(2 * (up.size + down.size)) * size
        assert norm > 0


def test_a_seed_means_the_same_start_in_every_dtype_and_leaves_the_global_generator():
    before = torch.random.get_rng_state()
    first, wide, other = (
        lora_parameters(adapted_unet(seed=seed, dtype=dtype))
        for seed, dtype in ((1, torch.float32), (1, torch.float64), (2, torch.float64))
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    for name, parameter in first.items():
        assert wide[name].dtype == torch.float64
        assert torch.equal(parameter.double(), wide[name])
        if "lora_A" in name:
            assert not torch.equal(wide[name], other[name])
            assert parameter.abs().max() <= parameter.shape[1] ** -0.5
        else:
            assert not parameter.any()


def test_half_precision_pipelines_keep_a_single_precision_adapter():
    editor = adapted_editor(torch.bfloat16)
    assert {parameter.dtype for parameter in editor.adapter_parameters().values()} == {torch.float32}
    with torch.no_grad():
        eps = editor.predict_noise(editor.to_latents(clip()), 500, "a plain video", adapter=True)
    assert eps.dtype == torch.bfloat16
    assert torch.isfinite(eps).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rank": 0}, "rank = 0 must be at least 1"),
        ({"alpha": 0}, "alpha = 0 must be positive"),
        ({"alpha": float("nan")}, "alpha = nan"),
        ({"alpha": float("inf")}, "alpha = inf"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    editor = Editor(pixel_pipeline())
    with pytest.raises(ValueError, match=message):
        editor.add_adapter(**arguments)
    assert not editor.has_adapter


def test_one_adapter_at_a_time():
    editor = adapted_editor()
    with pytest.raises(ValueError, match="has a LoRA adapter already; remove it first"):
        editor.add_adapter()


def test_nothing_to_switch_on_is_named():
    editor = Editor(pixel_pipeline())
    with pytest.raises(ValueError, match="no adapter to switch on; call add_adapter"):
        editor.predict_noise(editor.to_latents(clip()), 1, "", adapter=True)
    remove_lora(editor.pipeline.unet)
    assert lora_update_norms(editor.pipeline.unet) == {}
