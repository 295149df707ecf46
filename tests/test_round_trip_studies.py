"""The studies of the round trip on a tiny network: consistent with themselves, and exact where they can be."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import toy
from tiny_pipelines import pixel_pipeline

from experiments import reproduce as module
from experiments import stages
from experiments.editor import CLIPS, Editor, build_pipeline, caption, load_clip, load_editor, save_pipeline
from experiments.editor.attribution import adjoint_sweep, error_direction
from experiments.editor.bilateral import bilateral_filtering
from experiments.editor.evidence import record_trip
from experiments.editor.inversion import noise_ladder
from experiments.report import audit as auditing
from experiments.studies import certified
from experiments.studies.subjects import (
    GRAIN,
    as_network,
    clip_predictors,
    fitted_gaussian,
    frame_coordinates,
    untrained,
)
from theory.inversion import noise_levels
from theory.rounding import relative_budget

pytestmark = [pytest.mark.usefixtures("single_thread"), pytest.mark.xdist_group("round_trip_studies")]

STUDIES = ("round_trip", "hypotheses", "attribution", "reconstruction", "certified")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny pipeline on disk."""
    folder = tmp_path_factory.mktemp("pipeline") / "tiny"
    save_pipeline(build_pipeline(0, block_out_channels=(8, 8, 8), text_dim=16, sample_size=16), folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory, folder):
    """What the studies measured in one run of the main job."""
    claim = toy.claim()
    out = tmp_path_factory.mktemp("run") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "chosen_claims", lambda settings: (claim,))
        patch.setattr(module, "NAMES", ("film_strip", *STUDIES))
        patch.setattr(auditing, "claim_module", lambda chosen: stages)
        patch.setattr(certified, "STEPS", (2, 5))
        patch.setattr(certified, "RADIUS_STEPS", 5)
        patch.setattr(certified, "RADII", (1e-6, 1.0))
        module.reproduce(toy.settings(folder), out)
    for name in STUDIES:
        assert all((out / "figures" / f"{name}{suffix}").is_file() for suffix in (".pdf", ".png"))
    return {name: json.loads((out / "figures" / f"{name}.json").read_text())["data"] for name in STUDIES}


def test_bounds_lie_above_errors_for_every_subject(data):
    trips = data["round_trip"]
    rows = [row for rows in (*trips["network"].values(), *trips["ideal"].values()) for row in rows]
    assert len(rows) == 2 + 2 + 2 + 2 * 2
    for row in rows:
        budget = relative_budget(4000 * row["steps"])
        assert row["error"] <= row["path_bound"] * (1 + budget) + budget
        assert row["path_bound"] <= row["bound"] * (1 + budget) + budget
    for row in trips["ideal"]["Gaussian"]:
        assert row["error"] <= row["certified"]
    for row in data["certified"]["rows"]:
        assert row["error"] <= row["around_first_order"]
        assert row["error"] <= row["ball"]
    for row in data["certified"]["radii"]:
        assert row["found"] <= min(row["around_first_order"], row["ball"])


def test_hypotheses_are_shown_at_every_level(data):
    found = data["hypotheses"]
    rows = found["networks"]["adapter off"]
    assert [row["level"] for row in rows] == list(range(1, found["num_steps"] + 1))
    for row in rows:
        assert 0 < row["ratio"] < 1 and row["squeezed"] <= row["stretched"]
        assert max(abs(row["falling"]), abs(row["rising"])) <= row["steepest"] * (1 + 1e-9)
        # The error starts at the last level, so that level has nothing to grow.
        assert ("growth" in row) == (row["level"] < found["num_steps"])
    assert {entry["steps"] for entry in found["order"]} >= {found["num_steps"], 2 * found["num_steps"]}
    (practice,) = found["practice"]
    assert practice["error"] > 0 and practice["ladder"] > 0 and practice["guidance"] > 0


def test_attribution_splits_the_same_inversion(data):
    trips = data["attribution"]["trips"]
    assert list(map(len, (trips["off"]["contributions"], trips["guided"]["contributions"]))) == [1, 2]
    shown = next(row for row in data["round_trip"]["network"]["off"] if row["steps"] == data["attribution"]["steps"])
    assert trips["off"]["error"] == pytest.approx(shown["error"], rel=relative_budget(10_000))
    total = sum(trips["off"]["contributions"]["discretisation"])
    assert total == pytest.approx(shown["estimate"], rel=relative_budget(100_000))


def test_attribution_to_the_filter(data, folder):
    """Three frames, inverted without the filter and sampled with it, all in one batch: from the clip itself again."""
    found = data["attribution"]["trips"]["filtered"]
    assert set(found["contributions"]) == {"discretisation", "filter"}
    assert (data["attribution"]["num_frames"], data["attribution"]["filter_frames"]) == (2, 3)
    editor = load_editor(folder, dtype=torch.float64)
    ladder = noise_ladder(editor.pipeline.scheduler, data["attribution"]["steps"], torch.float64)
    prompt = caption(CLIPS["carphone"].subject, "plain")

    def plain(latents, timestep):
        return editor.predict_noise(latents, timestep, prompt)

    def filtered(latents, timestep):
        with bilateral_filtering(editor.pipeline.unet):
            return plain(latents, timestep)

    latents = editor.to_latents(load_clip("carphone", "held_out", editor.frame_size)[:3])
    trip = record_trip(filtered, latents, ladder, "", invert=plain)
    direction, size = error_direction(trip)
    scale = np.linalg.norm(trip.inversion[0]) / np.sqrt(trip.alphas_cumprod[0])
    assert found["error"] == pytest.approx(size / scale, rel=relative_budget(100_000))
    whole = adjoint_sweep(filtered, trip, ladder, direction)["defect"] / scale
    parts = np.sum(list(found["contributions"].values()), axis=0)
    largest = max(np.abs(values).max() for values in map(np.asarray, found["contributions"].values()))
    budget = relative_budget(1_000_000) * largest
    np.testing.assert_allclose(parts, whole, rtol=0, atol=budget)
    # A filter that does nothing, or is on in the inversion too, would leave nothing to it.
    assert max(map(abs, found["contributions"]["filter"])) > 1000 * budget


def test_recorded_reconstructions_are_reused(data):
    errors = data["reconstruction"]["errors"]
    assert errors["off"]["latent"] != errors["on"]["latent"]
    assert set(errors) == {"off", "on", "sampling_only", "fixed_point"}


def test_exact_predictors_go_through_the_schedulers():
    """One step of the inversion against the closed form of a Gaussian, in the coordinates of the frames."""
    latents = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 3, 4, 4)))
    coordinates = frame_coordinates(latents)
    flat = latents.flatten(1).numpy()
    np.testing.assert_allclose(
        coordinates @ coordinates.T, flat @ flat.T, atol=relative_budget(1000) * np.linalg.norm(flat) ** 2
    )
    mean, covariance = fitted_gaussian(coordinates)
    ladder = noise_ladder(Editor(pixel_pipeline()).pipeline.scheduler, 5, torch.float64)
    predict = as_network(clip_predictors(coordinates)["Gaussian"], ladder)
    trip = record_trip(predict, torch.from_numpy(coordinates), ladder, "")
    sigmas = noise_levels(ladder.alphas_cumprod)
    at = coordinates * np.sqrt(1 + sigmas[1] ** 2)
    expected = sigmas[1] * np.linalg.solve(covariance + sigmas[1] ** 2 * np.eye(3), (at - mean).T).T
    slack = relative_budget(1000) * np.abs(at).max() / GRAIN
    np.testing.assert_allclose(trip.inversion_predictions[0], expected, atol=slack)


def test_mixture_of_one_frame_is_a_gaussian():
    coordinates = np.array([[1.0]])
    both = clip_predictors(coordinates)
    y = jnp.asarray([0.3])
    np.testing.assert_allclose(both["Gaussian"](y, 0.7), both["mixture"](y, 0.7), rtol=relative_budget(100))


def test_untrained_network_is_drawn_from_its_seed():
    editor = Editor(pixel_pipeline(), dtype=torch.float64)
    latents = torch.zeros(1, 3, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        first, again, other = (untrained(editor, "a cat", seed)(latents, 10) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
