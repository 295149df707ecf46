"""Pairs of states and the practice of the released tools: what is recorded is what the network says at the stated
states."""

import dataclasses

import numpy as np
import pytest
import torch
from tiny_pipelines import adapted_editor, clip

from experiments.editor.evidence import record_round_trip
from experiments.editor.hypotheses import PAIR_DISTANCE, measure_hypotheses
from experiments.editor.inversion import noise_ladder
from experiments.editor.practice import fine_ladder, record_output_layer, record_practice
from theory.evidence import RoundTripRecord
from theory.inversion import noise_levels
from theory.inversion.output_layer import output_bound
from theory.inversion.recorded import practice_parts, quotients

pytestmark = pytest.mark.usefixtures("single_thread")

PROMPT = "a plain video of a man in a car"
STEPS = 4


@pytest.fixture(scope="module")
def editor():
    editor = adapted_editor()
    if editor.has_prompt_tokens:
        editor.set_frames(clip())
    return editor


@pytest.fixture(scope="module")
def latents(editor):
    return editor.to_latents(clip())


@pytest.fixture(scope="module")
def trip(editor, latents):
    return record_round_trip(editor, latents, PROMPT, STEPS, "off")


def _linear(slopes: np.ndarray, abar: float):
    """The predictor whose Jacobian in y is diagonal, as the network would be called."""
    scale = torch.from_numpy(slopes / np.sqrt(abar))

    def predict(latents: torch.Tensor, timestep: int) -> torch.Tensor:
        return (latents.reshape(-1) * scale).reshape(latents.shape)

    return predict


def test_extremes_of_a_linear_predictor_are_its_own():
    """Eigenvalues from -1 to 2, of which the Krylov space of full dimension finds the ends and the squeezed
    direction."""
    slopes = np.linspace(-1.0, 2.0, 12)
    abar = np.array([0.9, 0.5])
    step = float(np.diff(noise_levels(abar))[0])
    state = np.random.default_rng(1).standard_normal((2, 1, 3, 2, 2))
    here = _linear(slopes, abar[1])(torch.from_numpy(state[1]), 1).numpy()[None]
    trip = RoundTripRecord("linear", abar, state, state, here, here, here)
    record = measure_hypotheses(_linear(slopes, abar[1]), trip, np.array([-1, 1]), 1, directions=12)
    found = quotients(record)
    assert found.ratio == pytest.approx(float(np.divide(*noise_levels(abar))))
    assert found.stretched == pytest.approx(1 + step, rel=1e-6)
    assert found.squeezed == pytest.approx(np.abs(1 - step * slopes).min(), rel=1e-6)
    assert found.steepest == pytest.approx(2 * step, rel=1e-6)
    assert (found.falling, found.rising) == pytest.approx((-step, 2 * step), rel=1e-6)


def test_pairs_are_evaluations_of_the_network(editor, trip):
    ladder = noise_ladder(editor.pipeline.scheduler, STEPS, torch.float64)

    def predict(state, timestep):
        return editor.predict_noise(state, timestep, PROMPT, frame_indices=(0,))

    record = measure_hypotheses(predict, trip, ladder.timesteps, 2, directions=4, iterations=3)
    scale = np.sqrt(1 + noise_levels(record.alphas_cumprod)[1] ** 2)
    for displacement, change in zip(record.displacements, record.changes, strict=True):
        assert np.linalg.norm(displacement) == pytest.approx(PAIR_DISTANCE * np.linalg.norm(record.state))
        with torch.no_grad():
            states = [
                torch.from_numpy((record.state + move) / scale).reshape(trip.inversion[0, :1].shape)
                for move in (displacement, 0.0)
            ]
            there, here = (predict(state, int(ladder.timesteps[2])).numpy().ravel() for state in states)
        np.testing.assert_allclose(change, there - here, atol=1e-12 * np.abs(here).max())
    # The first two increments are those of the recorded inversion: y^(1) is its own state, and the next step's
    # prediction is recorded.
    step = np.diff(noise_levels(record.alphas_cumprod))[0]
    defect = step * (trip.predictions_at_inversion[1, 0] - trip.inversion_predictions[1, 0])
    assert record.increments[1] == pytest.approx(np.linalg.norm(defect))


def test_practice_is_its_own_ladder_guidance_and_window(editor, latents):
    record = record_practice(
        editor, latents[:1], PROMPT, STEPS, guidance_scale=3.0, window=(500, 1000), frame_indices=(0,)
    )
    coarse = noise_ladder(editor.pipeline.scheduler, STEPS, torch.float64)
    np.testing.assert_array_equal(record.adapter_on, coarse.timesteps[1:] >= 500)
    parts = practice_parts(record)
    defects = parts.states[:-1] - parts.states[1:] + np.diff(parts.sigmas)[:, None] * parts.predictions_at_states
    np.testing.assert_allclose(parts.ladder + parts.guidance + parts.adapter, defects, atol=1e-11)
    assert not parts.adapter[~record.adapter_on].any()
    with torch.no_grad():
        timestep = int(coarse.timesteps[STEPS])
        guided = editor.predict_noise(
            torch.from_numpy(record.states[STEPS]),
            timestep,
            PROMPT,
            adapter=True,
            guidance_scale=3.0,
            frame_indices=(0,),
        )
    np.testing.assert_allclose(record.sampling_predictions[-1], guided.numpy(), atol=1e-12)


def test_the_fine_ladder_holds_the_coarse_one(editor):
    for steps in (2, 3, 7, 10):
        coarse = noise_ladder(editor.pipeline.scheduler, steps, torch.float64)
        fine = fine_ladder(editor, steps)
        assert set(coarse.timesteps) <= set(fine.timesteps)
    assert fine.num_steps == 100


def test_no_input_exceeds_the_output_bound(editor, latents):
    limit = output_bound(record_output_layer(editor))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for strength in (1e-3, 1.0, 1e3):
            noise = strength * torch.randn(latents.shape, generator=generator, dtype=torch.float64)
            eps = editor.predict_noise(noise, 501, PROMPT, adapter=True)
            assert float(eps.flatten(1).norm(dim=1).max()) <= limit


def test_faults_are_named(editor, trip):
    with pytest.raises(ValueError, match="level = 5; the trip has the levels 1 to 4"):
        measure_hypotheses(lambda state, timestep: state, trip, np.arange(5), 5)
    with pytest.raises(ValueError, match="directions = 1, iterations = 4; at least 2 and 1"):
        measure_hypotheses(lambda state, timestep: state, trip, np.arange(5), 1, directions=1)
    layer = record_output_layer(editor)
    with pytest.raises(ValueError, match="3 groups; they do not fit"):
        output_bound(dataclasses.replace(layer, num_groups=3))
    editor.pipeline.unet.conv_act = torch.nn.ReLU()
    try:
        with pytest.raises(ValueError, match="ends in GroupNorm, ReLU"):
            record_output_layer(editor)
    finally:
        editor.pipeline.unet.conv_act = torch.nn.SiLU()
