"""The recorded steps of descent: losses, gradients and curvatures are those of the network, and the features those after each step."""

import dataclasses

import numpy as np
import pytest
import torch
from tiny_pipelines import adapted_editor, clip

from experiments.editor.adapters import lora_layers
from experiments.editor.capture import captured_features
from experiments.editor.training_record import (
    LONG_STEPS,
    PUBLISHED_WEIGHT,
    SCALES,
    SHARE,
    number_of_runs,
    record_trainings,
    training_arrays,
    training_records,
)
from theory.evidence import Evidence
from theory.scramble import scrambled
from theory.temporal_loss import similarities, temporal_loss
from theory.temporal_loss.recorded import change_promised, expansion, layer_similarities, loss_of_features, runs

pytestmark = pytest.mark.usefixtures("single_thread")

PROMPT = "a plain video of a man in a car"
LAYERS = ["up_blocks.1.attentions.0.transformer_blocks.0.attn1", "up_blocks.1.attentions.1.transformer_blocks.0.attn1"]
TIMESTEP = 334
STEPS = 2


@pytest.fixture(scope="module")
def editor():
    return adapted_editor()


@pytest.fixture(scope="module")
def records(editor):
    if editor.has_prompt_tokens:
        editor.set_frames(clip())
    return record_trainings(editor, editor.to_latents(clip()), TIMESTEP, PROMPT, LAYERS, steps=STEPS)


def test_runs_and_their_step_sizes(editor, records):
    assert [record.kind for record in records] == ["temporal", "published", "long", "long", "scaled", "scaled"]
    assert len(records) == number_of_runs(editor)
    temporal, published, *rest = records
    assert temporal.step_size * temporal.curvatures[0] == pytest.approx(SHARE)
    assert [run.step_size * run.curvatures[0] for run in rest[:2]] == pytest.approx(LONG_STEPS)
    assert [run.scale for run in rest[2:]] == list(SCALES) and rest[2].step_size == rest[3].step_size
    assert published.temporal_weight == PUBLISHED_WEIGHT and published.noise_weight == 1.0
    np.testing.assert_allclose(published.objectives, published.noise_losses + PUBLISHED_WEIGHT * published.temporal_losses, rtol=1e-14)
    np.testing.assert_array_equal(temporal.objectives, temporal.temporal_losses)


def test_parameters_are_afterwards_what_they_were(editor):
    before = {name: value.detach().clone() for name, value in editor.adapter_parameters().items()}
    record_trainings(editor, editor.to_latents(clip()), TIMESTEP, PROMPT, LAYERS, steps=1)
    assert all(torch.equal(before[name], value) for name, value in editor.adapter_parameters().items())


def test_losses_are_those_of_the_captured_features(records):
    for record in records:
        for step in range(len(record.objectives)):
            found = loss_of_features(record, step)
            assert found == pytest.approx(record.temporal_losses[step], rel=1e-9)
            assert found == pytest.approx(np.mean([float(temporal_loss(layer[step])) for layer in record.features]), rel=1e-9)


def test_the_first_gradient_is_that_of_the_similarities(records):
    """||grad||^2 = y^T K y with K the recorded Gram matrix of the similarities' gradients."""
    record = records[0]
    cosines = layer_similarities(record, 0)
    layers, pairs = cosines.shape
    steps = np.pad(np.diff(cosines, axis=1), ((0, 0), (1, 1)))
    slopes = (2 / (layers * (pairs - 1)) * (steps[:, :-1] - steps[:, 1:])).reshape(-1)
    assert slopes @ record.similarity_gram @ slopes == pytest.approx(record.squared_gradients[0], rel=1e-8)


def test_the_curvature_is_that_of_a_short_step(editor, records):
    """A step of eta / 1000 sees the curvature at the start, up to a term of its own length."""
    record = records[0]
    short = dataclasses.replace(record, step_size=record.step_size / 1000)
    # The change of the gradient's square along the first step is of the size that the curvature says.
    assert change_promised(short) == pytest.approx(short.step_size * record.squared_gradients[0], rel=1e-3)
    parameters = list(editor.adapter_parameters().values())
    latents = editor.to_latents(clip())
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0)).to(latents)
    alpha = float(editor.alphas_cumprod[TIMESTEP])
    noisy = alpha**0.5 * latents + (1 - alpha) ** 0.5 * noise

    def loss():
        with torch.enable_grad(), captured_features(editor.pipeline.unet, LAYERS) as features:
            editor.predict_noise(noisy, TIMESTEP, PROMPT, adapter=True)
        return torch.stack([torch.mean(torch.diff(similarities(features[name])) ** 2) for name in LAYERS]).mean()

    start = loss()
    gradients = [
        torch.zeros_like(p) if g is None else g
        for g, p in zip(torch.autograd.grad(start, parameters, allow_unused=True), parameters, strict=True)
    ]
    at_start = float(start.detach())
    assert at_start == pytest.approx(record.objectives[0], rel=1e-12)
    assert sum(float(torch.sum(g**2)) for g in gradients) == pytest.approx(record.squared_gradients[0], rel=1e-10)
    # Twice the remainder of first order over (eta ||g||)^2, at eta small and smaller, tends to the curvature.
    seen = []
    for eta in (record.step_size / 20, record.step_size / 40):
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter -= eta * gradient
        after = float(loss().detach())
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter += eta * gradient
        seen.append(2 * (after - at_start + eta * record.squared_gradients[0]) / (eta**2 * record.squared_gradients[0]))
    extrapolated = 2 * seen[1] - seen[0]
    assert extrapolated == pytest.approx(record.curvatures[0], rel=0.02)


def test_scaled_starts_have_no_update(editor, records):
    """B = 0: the features before the step do not depend on what A was multiplied by."""
    one, hundred = (record for record in records if record.kind == "scaled")
    for first, second in zip(one.features, hundred.features, strict=True):
        np.testing.assert_allclose(first[0], second[0], rtol=1e-12, atol=1e-12)
    assert lora_layers(editor.pipeline.unet)


def test_records_survive_a_file(records):
    arrays = training_arrays(records)
    assert {values.dtype for values in arrays.values()} == {np.dtype(np.float64)}
    again = training_records(dict(sorted(arrays.items())))
    assert len(again) == len(records)
    for before, after in zip(records, again, strict=True):
        assert (before.kind, before.label, before.layers) == (after.kind, after.label, after.layers)
        for name in ("objectives", "squared_gradients", "curvatures"):
            np.testing.assert_array_equal(getattr(before, name), getattr(after, name))
        for one, other in zip(before.features, after.features, strict=True):
            np.testing.assert_array_equal(one, other)
    assert training_records({}) == ()


def test_scrambled_runs_keep_the_losses_and_lose_the_features(records):
    evidence = Evidence(features=(), round_trips=(), trainings=tuple(records))
    for name, wrong in scrambled(evidence).items():
        for before, after in zip(evidence.trainings, wrong.trainings, strict=True):
            np.testing.assert_array_equal(before.objectives, after.objectives)
            assert any(not np.array_equal(one, other) for one, other in zip(before.features, after.features, strict=True)), name


def test_expansion_is_exact_on_a_short_move():
    """L(F + h V): the first and the second order are those of the loss, to the third order of the move."""
    generator = np.random.default_rng(0)
    frames, move = generator.normal(size=(2, 4, 3, 2, 2))
    for similarity in ("frame", "pixel"):
        errors = []
        for size in (1e-2, 1e-3):
            found = expansion(frames, frames + size * move, similarity)
            errors.append(abs(found["change"] - found["first"] - found["second"]))
            assert found["gradient_error"] < 10 * size * found["gradient_change"]
        assert errors[1] < errors[0] / 500


def test_a_missing_run_is_named(records):
    with pytest.raises(ValueError, match=r"no run of kind 'temporal' was recorded \(recorded: \['long'\]\)"):
        runs(Evidence(features=(), round_trips=(), trainings=tuple(record for record in records if record.kind == "long")), "temporal")
