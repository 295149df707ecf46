"""The adjoint sweep: exact where the predictor is linear, the derivative of the round trip elsewhere."""

import dataclasses

import numpy as np
import pytest
import torch
from tiny_pipelines import clip, pixel_pipeline

from experiments.editor.attribution import adjoint_sweep, error_direction
from experiments.editor.editor import Editor
from experiments.editor.evidence import record_round_trip, record_trip, recorded_inversion, sample_back
from experiments.editor.inversion import noise_ladder
from theory.inversion import noise_levels
from theory.rounding import relative_budget

pytestmark = pytest.mark.usefixtures("single_thread")

PROMPT = "a plain video of a man in a car"
STEPS = 4


@pytest.fixture(scope="module")
def editor():
    return Editor(pixel_pipeline(), dtype=torch.float64)


@pytest.fixture(scope="module")
def ladder(editor):
    return noise_ladder(editor.pipeline.scheduler, STEPS, torch.float64)


def gaussian(ladder, variances):
    """The exact predictor of N(0, diag(variances)) on latents (frames, dimension)."""
    level_of = {int(timestep): level for level, timestep in enumerate(ladder.timesteps)}
    sigmas = noise_levels(ladder.alphas_cumprod)

    def predict(latents, timestep):
        sigma = sigmas[level_of[timestep]]
        return sigma * np.sqrt(1 + sigma**2) / (variances + sigma**2) * latents

    return predict


def test_estimate_is_the_error_on_gaussian_data(ladder):
    """A linear predictor has no curvature: the contributions add up to the error, and to each of its coordinates."""
    variances = torch.tensor([0.04, 0.25, 1.0, 4.0], dtype=torch.float64)
    predict = gaussian(ladder, variances)
    start = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 4)))
    record = record_trip(predict, start, ladder, "Gaussian")
    direction, size = error_direction(record)
    operands = np.abs(record.inversion).max() * noise_levels(record.alphas_cumprod)[-1]
    budget = relative_budget(200 * STEPS) * operands
    total = adjoint_sweep(predict, record, ladder, direction)["defect"].sum()
    assert size > 1e-3
    assert abs(total - size) <= budget
    coordinate = torch.zeros(2, 4, dtype=torch.float64)
    coordinate[1, 2] = 1
    error = (record.sampling[0] - record.inversion[0])[1, 2] / np.sqrt(record.alphas_cumprod[0])
    assert abs(adjoint_sweep(predict, record, ladder, coordinate)["defect"].sum() - error) <= budget


def test_estimate_is_the_derivative_of_the_sampling(editor, ladder):
    """On the UNet, swept along the sampling's own latents: the central difference of sampling restarted with an error
    -size h g in y_2, which is what a defect h g of step 2 leaves there.

    The difference is wrong by its curvature, which two sizes show, and by the rounding of the results.
    """
    level = 2
    record = record_round_trip(editor, editor.to_latents(clip()[:1]), PROMPT, STEPS, "")
    record = dataclasses.replace(record, inversion=record.sampling)
    generator = np.random.default_rng(1)
    direction = torch.from_numpy(generator.normal(size=record.inversion.shape[1:]))
    still, change = np.zeros((2, *record.inversion_predictions.shape))
    change[level] = generator.normal(size=record.inversion.shape[1:])

    def predict(latents, timestep):
        return editor.predict_noise(latents, timestep, PROMPT)

    found = adjoint_sweep(predict, record, ladder, direction, {"change": (change, still)})["change"]
    step = np.diff(noise_levels(record.alphas_cumprod))[level] * np.sqrt(record.alphas_cumprod[level])

    def result(size):
        moved = torch.from_numpy(record.inversion[level] - size * step * change[level])
        with torch.no_grad():
            for lower in reversed(range(level)):
                moved = ladder.step_down(predict(moved, int(ladder.timesteps[lower + 1])), lower, moved)
        return float((direction * moved).sum()) / np.sqrt(record.alphas_cumprod[0])

    differences = {size: (result(size) - result(-size)) / (2 * size) for size in (1e-4, 2e-4)}
    rounding = relative_budget(10_000) * float(direction.abs().sum()) / 1e-4
    assert np.count_nonzero(found) == 1
    assert abs(found[level]) > 100 * rounding
    assert abs(found[level] - differences[1e-4]) <= abs(differences[2e-4] - differences[1e-4]) + rounding


def test_causes_add_up_and_single_steps_are_seen(editor, ladder):
    record = record_round_trip(editor, editor.to_latents(clip()[:1]), PROMPT, STEPS, "")
    direction, _ = error_direction(record)
    whole = record.predictions_at_inversion - record.inversion_predictions
    part = np.random.default_rng(2).normal(size=whole.shape)

    def predict(latents, timestep):
        return editor.predict_noise(latents, timestep, PROMPT)

    seen = []
    split = adjoint_sweep(
        predict,
        record,
        ladder,
        direction,
        {"a": (whole, part), "b": (part, np.zeros_like(part))},
        progress=lambda *counts: seen.append(counts),
    )
    together = adjoint_sweep(predict, record, ladder, direction)["defect"]
    scale = np.abs(split["a"]) + np.abs(split["b"]) + np.abs(together)
    assert (np.abs(split["a"] + split["b"] - together) <= relative_budget(4 * whole[0].size) * scale.max()).all()
    assert seen == [(step, STEPS) for step in range(1, STEPS + 1)]


def test_sampling_back_from_a_record_is_the_record(editor, ladder):
    record = record_round_trip(editor, editor.to_latents(clip()[:2]), PROMPT, STEPS, "")
    again = sample_back(
        lambda latents, timestep: editor.predict_noise(latents, timestep, PROMPT),
        recorded_inversion(record, ladder),
        ladder,
        "",
    )
    np.testing.assert_array_equal(again.sampling, record.sampling)
    np.testing.assert_array_equal(again.predictions_at_inversion, record.predictions_at_inversion)


def test_faults_are_named(editor, ladder):
    record = record_round_trip(editor, editor.to_latents(clip()[:1]), PROMPT, STEPS, "trip")
    direction, _ = error_direction(record)
    other = noise_ladder(editor.pipeline.scheduler, 2, torch.float64)

    def predict(latents, timestep):
        return latents

    with pytest.raises(ValueError, match="trip has 4 steps and the ladder 2"):
        adjoint_sweep(predict, record, other, direction)
    with pytest.raises(ValueError, match="trip has 4 steps .* the ladder 2"):
        recorded_inversion(record, other)
    with pytest.raises(ValueError, match=r"functional has shape .*; \(1, 3, 16, 16\) is needed"):
        adjoint_sweep(predict, record, ladder, direction[:, :1])
    with pytest.raises(ValueError, match="cause 'a' has shape"):
        adjoint_sweep(predict, record, ladder, direction, {"a": (record.inversion_predictions, np.zeros((2, 1)))})
    with pytest.raises(ValueError, match="trip: the round trip has no error"):
        error_direction(dataclasses.replace(record, sampling=record.inversion))
