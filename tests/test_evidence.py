"""The record for the theorems: every array is what its key says, and the identities of a round trip hold in it."""

import numpy as np
import pytest
import torch
from tiny_pipelines import adapted_editor, clip, pixel_pipeline

from experiments.editor.editor import Editor
from experiments.editor.evidence import TRAINING_STEPS, TWO_LAYER_FRAMES, default_evidence, gather, record_round_trip, to_evidence
from theory.rounding import relative_budget

pytestmark = pytest.mark.usefixtures("single_thread")

PROMPT = "a plain video of a man in a car"
STEPS = 3
TRAININGS = (
    ("temporal", TRAINING_STEPS), ("published", TRAINING_STEPS), ("long", 1), ("long", 1), ("scaled", 1), ("scaled", 1),
)  # fmt: skip
LAYER = "up_blocks.1.attentions.1.transformer_blocks.0.attn1"


@pytest.fixture(scope="module")
def editor():
    return adapted_editor()


@pytest.fixture(scope="module")
def arrays(editor):
    return gather(editor, clip(), PROMPT, num_steps=STEPS, num_levels=2, layers=[LAYER])


def test_keys_shapes_and_dtypes(arrays):
    shapes = {name: values.shape for name, values in arrays.items()}
    latents = clip().transpose(0, 3, 1, 2).shape
    expected = {"alphas_cumprod": (STEPS + 1,), "timesteps": (STEPS + 1,)}
    expected |= {f"features/{on}/{timestep}/{LAYER}": (4, 8, 8, 8) for on in ("off", "on") for timestep in (1, 667)}
    adapter = {"inputs": (4, 8, 64), "outputs": (4, 8, 64), "down": (2, 8), "up": (8, 2), "factor": (1,)}
    expected |= {f"adapter/1/{LAYER}/{part}": shape for part, shape in adapter.items()}
    cross = {"inputs": (4, 64, 8), "context": (4, 20, 16), "outputs": (4, 64, 8), "counts": (3,)}
    cross |= {"query_weight": (8, 8), "key_weight": (8, 16), "value_weight": (8, 16)}
    cross |= {"output_weight": (8, 8), "output_bias": (8,)}
    beside = LAYER.replace("attn1", "attn2")
    expected |= {f"cross/1/{beside}/{part}": shape for part, shape in cross.items()}
    for name in ("off", "on", "sampling_only"):
        expected |= {f"round_trip/{name}/{part}": (STEPS + 1, *latents) for part in ("inversion", "sampling")}
        for part in ("inversion_predictions", "sampling_predictions", "predictions_at_inversion"):
            expected[f"round_trip/{name}/{part}"] = (STEPS, *latents)
    small, levels, units, dimension = (TWO_LAYER_FRAMES, 3, 8, 8), STEPS + 1, 16 * 64, 3 * 64
    expected |= {f"two_layer/{part}": (levels, *small) for part in ("inversion", "sampling")}
    for part in ("inversion_predictions", "sampling_predictions", "predictions_at_inversion"):
        expected[f"two_layer/{part}"] = (STEPS, *small)
    expected |= {f"two_layer/{part}": (levels,) for part in ("skip", "scales")}
    expected |= {"two_layer/inner": (units, dimension), "two_layer/outer": (dimension, units)}
    expected |= {"two_layer/biases": (levels, units), "two_layer/offsets": (levels, dimension)}
    for number, (kind, steps) in enumerate(TRAININGS):
        prefix = f"training/{number}/{kind}"
        expected |= {f"{prefix}/{part}": (steps + 1,) for part in ("objectives", "noise_losses", "temporal_losses")}
        expected |= {f"{prefix}/{part}": (steps,) for part in ("squared_gradients", "curvatures")}
        expected |= {f"{prefix}/numbers": (5,), f"{prefix}/features/0/{LAYER}": (steps + 1, 4, 8, 8, 8)}
    expected["training/0/temporal/similarity_gram"] = (3, 3)
    values = int(np.prod(latents[1:]))
    for name, levels in (("off", (1, 2, 3)), ("on", (1, 2, 3)), ("sampling_only", (1, 2, 3))):
        for level in levels:
            vectors = {"state": (values,), "error": (values,), "half_error_change": (values,)}
            vectors |= {"displacements": (5, values), "changes": (5, values), "alphas_cumprod": (2,), "increments": (4,)}
            expected |= {f"hypothesis/{name}/{level}/{part}": shape for part, shape in vectors.items()}
    one, fine = (1, *latents[1:]), 27
    for part in ("states", "sampling"):
        expected[f"practice/{part}"] = (STEPS + 1, *one)
    for part in ("sampling_predictions", "conditional", "unconditional", "adapted_conditional", "adapted_unconditional"):
        expected[f"practice/{part}"] = (STEPS, *one)
    expected |= {"practice/fine_alphas_cumprod": (fine + 1,), "practice/fine_predictions": (fine, *one)}
    expected |= {"practice/alphas_cumprod": (STEPS + 1,), "practice/adapter_on": (STEPS,), "practice/guidance_scale": (1,)}
    expected |= {"output_layer/kernel": (3, 8, 3, 3), "output_layer/bias": (3,), "output_layer/gain": (8,)}
    expected |= {"output_layer/shift": (8,), "output_layer/num_groups": (1,), "output_layer/frame_size": (2,)}
    for steps in (2, 6):
        expected |= {f"refined/{steps}/{part}": (steps + 1, *one) for part in ("inversion", "sampling")}
        for part in ("inversion_predictions", "sampling_predictions", "predictions_at_inversion"):
            expected[f"refined/{steps}/{part}"] = (steps, *one)
        expected[f"refined/{steps}/alphas_cumprod"] = (steps + 1,)
    assert shapes == expected
    assert {values.dtype for name, values in arrays.items() if name != "timesteps"} == {np.dtype(np.float64)}
    np.testing.assert_array_equal(arrays["timesteps"], [-1, 1, 334, 667])


@pytest.mark.parametrize(
    ("name", "in_inversion", "in_sampling"), [("off", False, False), ("on", True, True), ("sampling_only", False, True)]
)
def test_predictions_are_those_of_the_network_at_the_stated_points(editor, arrays, name, in_inversion, in_sampling):
    trip = {key.rsplit("/", 1)[1]: values for key, values in arrays.items() if key.startswith(f"round_trip/{name}/")}
    for k in range(STEPS):
        for part, latents, on in (
            ("inversion_predictions", trip["inversion"][k], in_inversion),
            ("sampling_predictions", trip["sampling"][k + 1], in_sampling),
            ("predictions_at_inversion", trip["inversion"][k + 1], in_sampling),
        ):
            with torch.no_grad():
                expected = editor.predict_noise(
                    torch.from_numpy(latents), int(arrays["timesteps"][k + 1]), PROMPT, adapter=on
                )
            np.testing.assert_array_equal(trip[part][k], expected.numpy())


@pytest.mark.parametrize("name", ["off", "on", "sampling_only"])
def test_errors_follow_from_defects_and_two_point_growth(arrays, name):
    r"""E_k = E_{k+1} - h_k [e_{k+1}(w_{k+1}) - e_{k+1}(z_{k+1})] - d_k, with y = x / sqrt(abar): exact but for the
    steps' rounding.

    Each side of a step has some ten roundings at the size of |y| + sigma |eps| of its operands.
    """
    trip = {key.rsplit("/", 1)[1]: values for key, values in arrays.items() if key.startswith(f"round_trip/{name}/")}
    alphas = arrays["alphas_cumprod"]
    sigmas, roots = np.sqrt((1 - alphas) / alphas), np.sqrt(alphas).reshape(-1, 1, 1, 1, 1)
    z, w = trip["inversion"] / roots, trip["sampling"] / roots
    errors = w - z
    assert not errors[-1].any()
    at_inversion, used = trip["predictions_at_inversion"], trip["inversion_predictions"]
    for k in range(STEPS):
        h = sigmas[k + 1] - sigmas[k]
        defect = h * (at_inversion[k] - used[k])
        assert np.linalg.norm(defect) > 0
        change = h * (trip["sampling_predictions"][k] - at_inversion[k])
        residual = np.abs(errors[k] - (errors[k + 1] - change - defect))
        largest = sigmas[k + 1] * (np.abs(at_inversion[k]) + np.abs(used[k]) + np.abs(trip["sampling_predictions"][k]))
        operands = np.abs(z[k]) + np.abs(z[k + 1]) + np.abs(w[k]) + np.abs(w[k + 1]) + largest
        assert (residual <= relative_budget(24) * operands).all()


def test_features_are_those_at_the_inversion(editor, arrays):
    for name, on in (("off", False), ("on", True)):
        for level, timestep in ((1, 1), (3, 667)):
            latents = torch.from_numpy(arrays[f"round_trip/{name}/inversion"][level])
            with torch.no_grad():
                expected = editor.features(latents, timestep, PROMPT, adapter=on, layers=[LAYER])[LAYER]
            np.testing.assert_array_equal(arrays[f"features/{name}/{timestep}/{LAYER}"], expected.numpy())


def test_adapter_record_is_the_projection_that_gives_the_features(editor, arrays):
    (record,) = to_evidence(arrays).adapters
    assert record.label == f"LoRA of {LAYER}.to_out.0, timestep 1"
    np.testing.assert_array_equal(record.outputs.reshape(4, 8, 8, 8), arrays[f"features/on/1/{LAYER}"])
    base = editor.pipeline.unet.get_submodule(f"{LAYER}.to_out.0").base_layer
    weight, bias = base.weight.detach().numpy(), base.bias.detach().numpy()[None, :, None]
    update = record.factor * record.up @ record.down
    assert np.any(update), "the adapter does nothing, so nothing was compared"
    rebuilt = (weight + update) @ record.inputs + bias
    # Products over 8 inputs, the rank 2 and the sums, at the size of the operands.
    operands = (np.abs(weight) + np.abs(record.factor * record.up) @ np.abs(record.down)) @ np.abs(record.inputs)
    assert np.all(np.abs(rebuilt - record.outputs) <= relative_budget(32) * (operands + np.abs(bias)))


def test_no_adapter_record_without_lora():
    editor = Editor(pixel_pipeline(), dtype=torch.float64)
    editor.add_prompt_tokens(seed=0)
    recorded = gather(editor, clip(), PROMPT, num_steps=1, num_levels=1, layers=[LAYER])
    assert not any(key.startswith("adapter/") for key in recorded)
    assert to_evidence(recorded).adapters == ()


def test_to_evidence_keeps_every_array(arrays):
    evidence = to_evidence(arrays)
    assert [trip.label for trip in evidence.round_trips] == [
        "adapter off, 3 steps",
        "adapter on, 3 steps",
        "adapter in sampling only, 3 steps",
    ]
    for trip, name in zip(evidence.round_trips, ("off", "on", "sampling_only"), strict=True):
        assert trip.predictions_at_inversion is arrays[f"round_trip/{name}/predictions_at_inversion"]
        assert trip.sampling is arrays[f"round_trip/{name}/sampling"]
        assert trip.alphas_cumprod is arrays["alphas_cumprod"]
    (small,) = evidence.two_layer_trips
    assert small.trip.sampling is arrays["two_layer/sampling"]
    assert small.outer is arrays["two_layer/outer"]
    assert [record.label for record in evidence.features] == [
        f"{LAYER}, timestep {timestep}, adapter {on}" for on in ("off", "on") for timestep in (1, 667)
    ]
    assert evidence.features[0].values is arrays[f"features/off/1/{LAYER}"]


def test_progress_counts_every_evaluation(editor):
    seen = []
    gather(editor, clip(), PROMPT, num_steps=1, num_levels=1, layers=[LAYER], progress=lambda *c: seen.append(c))
    assert seen == [(index, 17) for index in range(1, 18)]
    seen.clear()
    record_round_trip(editor, editor.to_latents(clip()), PROMPT, 2, "", progress=lambda *c: seen.append(c))
    assert seen == [(index, 6) for index in range(1, 7)]


def test_default_evidence_leaves_the_editor_as_it_was():
    editor = Editor(pixel_pipeline(), dtype=torch.float64)
    evidence = default_evidence(editor, num_frames=3, num_steps=2, adapter_steps=1)
    assert not editor.has_adapter
    assert len(evidence.round_trips) == 3
    assert all(trip.inversion.shape == (3, 3, 3, 16, 16) for trip in evidence.round_trips)
    off, on, mixed = evidence.round_trips
    assert not np.array_equal(off.sampling, on.sampling)
    np.testing.assert_array_equal(off.inversion, mixed.inversion)
    again = default_evidence(editor, num_frames=3, num_steps=2, adapter_steps=1)
    np.testing.assert_array_equal(again.round_trips[1].sampling, on.sampling)


def test_default_evidence_takes_the_adapter_that_is_there():
    editor = adapted_editor()
    before = {name: value.detach().clone() for name, value in editor.adapter_parameters().items()}
    default_evidence(editor, num_frames=3, num_steps=1)
    after = editor.adapter_parameters()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_faults_are_named():
    single = adapted_editor(torch.float32)
    with pytest.raises(ValueError, match="dtype torch.float32.*load it with torch.float64"):
        gather(single, clip(), PROMPT)
    with pytest.raises(ValueError, match="dtype torch.float32"):
        default_evidence(single)
    bare = Editor(pixel_pipeline(), dtype=torch.float64)
    with pytest.raises(ValueError, match="no adapter to compare with"):
        gather(bare, clip(), PROMPT)
    with pytest.raises(ValueError, match="num_levels = 4 must lie in 1 .. num_steps = 3"):
        gather(adapted_editor(), clip(), PROMPT, num_steps=3, num_levels=4)
