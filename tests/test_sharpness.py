"""Sharpness of the temporal loss in the adapter's parameters: against one graph of all frames; the steps it allows."""

import dataclasses

import numpy as np
import pytest
import torch
from tiny_pipelines import adapted_editor, clip

from experiments.editor.sharpness import adapter_curvature, safe_step, temporal_losses
from theory.temporal_loss import similarities, temporal_loss

pytestmark = pytest.mark.usefixtures("single_thread")

TIMESTEP, PROMPT = 300, "a plain video of a car"


@pytest.fixture(scope="module")
def case():
    editor = adapted_editor()
    latents = editor.to_latents(clip())
    return editor, latents, adapter_curvature(editor, latents, TIMESTEP, PROMPT)


def all_frames_at_once(editor, latents):
    """The loss and the residuals' Jacobian from one graph of all frames."""
    features = editor.features(latents, TIMESTEP, PROMPT, adapter=True)
    residuals = torch.cat([torch.diff(similarities(values)) for values in features.values()])
    loss = torch.stack([temporal_loss(values) for values in features.values()]).mean()
    parameters = list(editor.adapter_parameters().values())

    def gradient(value):
        found = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
        flat = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]
        return torch.cat([part.reshape(-1) for part in flat])

    return loss.item(), gradient(loss), torch.stack([gradient(value) for value in residuals])


def test_gradient_and_sharpness_are_those_of_one_graph(case):
    editor, latents, found = case
    loss, gradient, jacobian = all_frames_at_once(editor, latents)
    flat = torch.cat([value.reshape(-1).double() for value in found.gradient.values()])
    assert found.model.loss == pytest.approx(loss, rel=1e-12)
    assert found.num_parameters == len(gradient)
    # Batches of one frame and of four round differently.
    np.testing.assert_allclose(flat, gradient, rtol=0, atol=1e-6 * float(gradient.abs().max()))
    assert found.model.squared_gradient == pytest.approx(float(gradient @ gradient), rel=1e-6)
    dense = 2 / len(jacobian) * torch.linalg.svdvals(jacobian)[0] ** 2
    assert found.model.sharpness == pytest.approx(float(dense), rel=1e-6)


def test_loss_of_reduced_features(case):
    editor, latents, found = case
    for frames_at_once in (None, 1, 3):
        value = temporal_losses(editor, latents, TIMESTEP, PROMPT, frames_at_once=frames_at_once)
        assert value == pytest.approx(found.model.loss, rel=1e-9)


def test_safe_steps_lower_the_loss_and_the_next_does_not(case):
    editor, latents, found = case
    before = {name: parameter.detach().clone() for name, parameter in editor.adapter_parameters().items()}
    steps = safe_step(editor, latents, TIMESTEP, PROMPT, found)
    assert all(torch.equal(parameter, before[name]) for name, parameter in editor.adapter_parameters().items())
    start = temporal_losses(editor, latents, TIMESTEP, PROMPT)
    tried = dict(steps.tried)
    assert tried[steps.largest] < start <= tried[steps.unsafe]
    assert all(loss < start for size, loss in steps.tried if size <= steps.largest)
    assert 0 < steps.largest < steps.unsafe
    # A step that was said to lower the loss lowers it.
    with torch.no_grad():
        for name, parameter in editor.adapter_parameters().items():
            parameter -= steps.largest * found.gradient[name]
    try:
        assert temporal_losses(editor, latents, TIMESTEP, PROMPT) < start
    finally:
        with torch.no_grad():
            for name, parameter in editor.adapter_parameters().items():
                parameter.copy_(before[name])


def test_no_gradient_no_steps(case):
    editor, latents, found = case
    flat = dataclasses.replace(found, model=dataclasses.replace(found.model, squared_gradient=0.0))
    assert safe_step(editor, latents, TIMESTEP, PROMPT, flat).tried == ()


def test_refusals(case):
    editor, latents, _ = case
    with pytest.raises(ValueError, match="2 frames were given, at least 3"):
        adapter_curvature(editor, latents[:2], TIMESTEP, PROMPT)
    with pytest.raises(ValueError, match="no adapter whose loss could curve"):
        bare = adapted_editor()
        bare.remove_adapter()
        adapter_curvature(bare, latents, TIMESTEP, PROMPT)


def test_frames_in_parts_predict_the_same(case):
    editor, latents, _ = case
    options = {"adapter": True, "guidance_scale": 3.0}
    whole = editor.predict_noise(latents, TIMESTEP, PROMPT, **options)
    for frames_at_once in (1, 3, 4, 9):
        parts = editor.predict_noise(latents, TIMESTEP, PROMPT, frames_at_once=frames_at_once, **options)
        np.testing.assert_allclose(parts.detach(), whole.detach(), rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="frames_at_once = 0 must be at least 1"):
        editor.predict_noise(latents, TIMESTEP, PROMPT, frames_at_once=0)
