"""Adapter training: the objective against its formula, one step against gradient descent, restarts, and faults."""

import numpy as np
import pytest
import torch
from tiny_pipelines import adapted_editor, clip, pixel_pipeline

from experiments.editor import objective
from experiments.editor.capture import captured_features
from experiments.editor.editor import Editor
from experiments.editor.objective import train_adapter
from theory.rounding import relative_budget
from theory.temporal_loss import temporal_loss

pytestmark = pytest.mark.usefixtures("single_thread")

PROMPT = "a plain video of a man in a car"


def copied(editor):
    return {name: value.detach().clone() for name, value in editor.adapter_parameters().items()}


def train(editor, frames=None, **keywords):
    frames = clip() if frames is None else frames
    return train_adapter(editor, frames, PROMPT, **{"steps": 2, "learning_rate": 1e-3, **keywords})


def recorded_calls(editor, monkeypatch):
    """The arguments of every prediction that the training makes."""
    calls, predict = [], editor.predict_noise

    def recorded(latents, timestep, prompt, **keywords):
        calls.append((latents.detach().clone(), timestep, prompt, keywords))
        return predict(latents, timestep, prompt, **keywords)

    monkeypatch.setattr(editor, "predict_noise", recorded)
    return calls


def test_a_step_of_sgd_is_gradient_descent_on_the_stated_objective(monkeypatch):
    """The noise is recovered from the noisy latents; loss and gradient are computed again here from the formula."""
    editor, reference = adapted_editor(), adapted_editor()
    calls = recorded_calls(editor, monkeypatch)
    start = copied(editor)
    training = train(editor, steps=1, learning_rate=0.5, optimizer="sgd", temporal_weight=0.25, window=3, seed=7)
    ((noisy, timestep, prompt, keywords),) = calls
    assert prompt == PROMPT
    assert keywords["adapter"] is True
    window = list(keywords["frame_indices"])
    assert window == list(range(window[0], window[0] + 3))
    alpha = editor.alphas_cumprod[timestep]
    latents = reference.to_latents(clip())[window]
    noise = ((noisy - np.sqrt(alpha) * latents) / np.sqrt(1 - alpha)).float().double()  # drawn in single precision
    noisy = np.sqrt(alpha) * latents + np.sqrt(1 - alpha) * noise
    with captured_features(reference.pipeline.unet) as features:
        eps = reference.predict_noise(noisy, timestep, PROMPT, adapter=True, frame_indices=window)
    noise_loss = ((eps - noise) ** 2).sum() / noise.numel()
    temporal = sum(temporal_loss(values) for values in features.values()) / 4
    total = noise_loss + 0.25 * temporal
    assert training.layers == tuple(features)
    for found, expected in (
        (training.total, total),
        (training.noise, noise_loss),
        (training.temporal, temporal),
    ):
        assert found.shape == (1,)
        assert found.dtype == np.float64
        # Means of a few thousand squares, summed in another order.
        value = float(expected.detach())
        assert abs(found[0] - value) <= relative_budget(4 * noise.numel()) * value
    parameters = reference.adapter_parameters()
    gradients = torch.autograd.grad(total, list(parameters.values()))
    scale = max(float(gradient.abs().max()) for gradient in gradients)
    assert scale > 0
    for (name, after), gradient in zip(copied(editor).items(), gradients, strict=True):
        error = (after - (start[name] - 0.5 * gradient)).abs().max()
        assert error <= relative_budget(4 * noise.numel()) * max(scale, float(start[name].abs().max()))


def test_the_drawn_noise_is_standard_normal_and_the_draws_cover_windows_and_timesteps(monkeypatch):
    editor = adapted_editor()
    calls = recorded_calls(editor, monkeypatch)
    train(editor, steps=12, window=3)
    latents = editor.to_latents(clip())
    starts, timesteps, noises = set(), set(), []
    for noisy, timestep, _, keywords in calls:
        indices = list(keywords["frame_indices"])
        starts.add(indices[0])
        timesteps.add(timestep)
        alpha = editor.alphas_cumprod[timestep]
        noises.append(((noisy - np.sqrt(alpha) * latents[indices]) / np.sqrt(1 - alpha)).numpy())
    assert starts == {0, 1}
    assert len(timesteps) == 12
    noise = np.stack(noises)
    # Five standard errors of the mean and of the variance of n standard normal numbers.
    assert abs(noise.mean()) < 5 / np.sqrt(noise.size)
    assert abs(noise.var() - 1) < 5 * np.sqrt(2 / noise.size)


def test_training_lowers_the_objective(monkeypatch):
    """On draws that training has not seen; the pipeline itself stays as it was."""
    editor = adapted_editor(torch.float32)
    base = {name: value.clone() for name, value in editor.pipeline.unet.state_dict().items() if "lora" not in name}
    before = np.mean(train(adapted_editor(torch.float32), steps=8, learning_rate=1e-12, seed=99).total)
    train(editor, steps=40, learning_rate=2e-2)
    after = np.mean(train(editor, steps=8, learning_rate=1e-12, seed=99).total)
    assert after < before
    state = editor.pipeline.unet.state_dict()
    assert all(torch.equal(state[name], value) for name, value in base.items())


def test_equal_arguments_give_equal_bytes_and_other_seeds_other_ones():
    editors = [adapted_editor(torch.float32) for _ in range(3)]
    records = [train(editor, seed=seed) for editor, seed in zip(editors, (0, 0, 1), strict=True)]
    first, again, other = (copied(editor) for editor in editors)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    np.testing.assert_array_equal(records[0].total, records[1].total)
    assert records[0].total[0] != records[2].total[0]


def test_the_global_generator_neither_matters_nor_moves():
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = train(adapted_editor(torch.float32)).total
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    np.testing.assert_array_equal(train(adapted_editor(torch.float32)).total, first)


def test_the_temporal_weight_and_the_layers_count():
    plain = train(adapted_editor(), steps=1, temporal_weight=0.0)
    weighted = train(adapted_editor(), steps=1, temporal_weight=2.0, layers="mid_block")
    assert plain.total[0] == plain.noise[0]
    assert weighted.total[0] == weighted.noise[0] + 2 * weighted.temporal[0]
    assert weighted.layers == ("mid_block.attentions.0.transformer_blocks.0.attn1",)
    assert plain.temporal[0] != weighted.temporal[0]
    pixelwise = train(adapted_editor(), steps=1, temporal_weight=0.0, similarity="pixel")
    assert pixelwise.temporal[0] != plain.temporal[0]


@pytest.mark.parametrize("part", ["lora", "tokens"])
def test_either_part_alone_trains(part):
    editor = Editor(pixel_pipeline())
    if part == "lora":
        editor.add_adapter()
    else:
        editor.add_prompt_tokens()
    before = copied(editor)
    train(editor)
    after = copied(editor)
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    # After one step A has a gradient too, since B is no longer zero.
    assert set(moved) == set(before)


def test_half_precision_pipelines_train():
    editor = adapted_editor(torch.bfloat16)
    training = train(editor)
    assert np.isfinite(training.total).all()
    assert training.temporal.min() > 0


def test_progress_is_reported():
    seen = []
    training = train(adapted_editor(torch.float32), steps=3, progress=lambda *report: seen.append(report))
    assert seen == [(1, 3, training.total[0]), (2, 3, training.total[1]), (3, 3, training.total[2])]


class Interruption(Exception):
    pass


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_an_interrupted_run_ends_in_the_same_bytes(tmp_path, optimizer):
    whole = adapted_editor(torch.float32)
    expected = train(whole, steps=4, optimizer=optimizer)

    def interrupt(done, steps, loss):
        if done == 2:
            raise Interruption

    checkpoint = tmp_path / "state.safetensors"
    with pytest.raises(Interruption):
        train(
            adapted_editor(torch.float32),
            steps=4,
            optimizer=optimizer,
            checkpoint=checkpoint,
            checkpoint_seconds=0,
            progress=interrupt,
        )
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.safetensors"]
    resumed, seen = adapted_editor(torch.float32), []
    training = train(
        resumed, steps=4, optimizer=optimizer, checkpoint=checkpoint, progress=lambda *report: seen.append(report[:2])
    )
    assert seen == [(3, 4), (4, 4)]
    np.testing.assert_array_equal(training.total, expected.total)
    np.testing.assert_array_equal(training.temporal, expected.temporal)
    ours, theirs = copied(resumed), copied(whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    checkpoint = tmp_path / "state.safetensors"

    def interrupt(done, steps, loss):
        if done == 2:
            raise Interruption

    with pytest.raises(Interruption):
        train(adapted_editor(torch.float32), checkpoint=checkpoint, checkpoint_seconds=0, progress=interrupt)
    for other in ({"seed": 1}, {"learning_rate": 2e-3}, {"layers": "mid_block"}, {"frames": clip()[::-1].copy()}):
        with pytest.raises(ValueError, match="belongs to another run; remove it"):
            train(adapted_editor(torch.float32), checkpoint=checkpoint, **other)
    with pytest.raises(ValueError, match="belongs to another run"):
        train(adapted_editor(torch.float32, update=0.1), checkpoint=checkpoint)
    with pytest.raises(ValueError, match=r"is at step 2, past steps = 1; remove it"):
        train(adapted_editor(torch.float32), checkpoint=checkpoint, steps=1)
    checkpoint.write_bytes(checkpoint.read_bytes()[:-5])
    with pytest.raises(ValueError, match=r"state.safetensors is corrupted .* remove it to start again"):
        train(adapted_editor(torch.float32), checkpoint=checkpoint)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "steps = 0 must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate = 0.0 must be positive"),
        ({"learning_rate": -1.0}, "learning_rate = -1.0"),
        ({"learning_rate": float("nan")}, "learning_rate = nan"),
        ({"temporal_weight": -0.1}, "temporal_weight = -0.1 must be at least 0"),
        ({"temporal_weight": float("inf")}, "temporal_weight = inf"),
        ({"seed": -1}, "seed = -1"),
        ({"window": 2}, "window = 2 must be at least 3"),
        ({"optimizer": "adam"}, "optimizer = 'adam' must be 'adamw' or 'sgd'"),
        ({"similarity": "patch"}, "similarity = 'patch' must be 'frame' or 'pixel'"),
        ({"layers": "nowhere"}, "matches no self-attention"),
        ({"frames": clip(2)}, "2 frames were given and the temporal loss needs 3"),
        ({"frames": np.full((3, 16, 16, 3), np.nan)}, "2304 values that are not finite"),
        ({"checkpoint_seconds": -1.0}, "checkpoint_seconds = -1.0 must be at least 0"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    editor = adapted_editor()
    before = copied(editor)
    with pytest.raises(ValueError, match=message):
        train(editor, **arguments)
    after = copied(editor)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_an_editor_without_adapter():
    with pytest.raises(ValueError, match="no adapter to train; call add_adapter"):
        train(Editor(pixel_pipeline()))


def test_a_rate_that_diverges_names_the_step():
    editor = adapted_editor(torch.float32)
    with pytest.raises(ValueError, match=r"step [1-9]\d*: .*lower the learning rate \(it is 1e\+30\)"):
        train(editor, steps=6, learning_rate=1e30, optimizer="sgd")


def test_a_frame_of_zero_features_names_step_and_frame(monkeypatch):
    editor = adapted_editor()
    layer = editor.pipeline.unet.get_submodule("up_blocks.1.attentions.0.transformer_blocks.0.attn1")

    def silence(module, arguments, output):
        output = output.clone()
        output[1] = 0
        return output

    handle = layer.register_forward_hook(silence)
    before = copied(editor)
    with pytest.raises(ValueError, match="step 0: the features have no temporal loss: frame 1 has squared norm 0"):
        train(editor)
    handle.remove()
    after = copied(editor)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_noise_is_the_same_in_every_dtype(monkeypatch):
    editors = [adapted_editor(dtype) for dtype in (torch.float32, torch.float64)]
    draws = []
    for editor in editors:
        settings = objective._Settings(PROMPT, 1e-3, 0.01, 3, 3, "sgd", "frame", (), "")
        draws.append(objective._draw(editor, editor.to_latents(clip()).shape, settings, 5))
    assert draws[0][:2] == draws[1][:2]
    assert torch.equal(draws[0][2], draws[1][2])
