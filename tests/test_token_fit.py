"""Fitting prompt tokens: the layers' formula is the network's, the proved bound lies below, and the study holds
together."""

import dataclasses
import types

import numpy as np
import pytest
import torch
from tiny_pipelines import pixel_pipeline

from experiments.editor.cross_attention import (
    captured_cross_attention,
    cross_attention_arrays,
    cross_attention_layers,
    cross_attention_records,
    layer_weights,
)
from experiments.editor.editor import Editor, load_editor
from experiments.editor.token_fit import (
    FreeTokens,
    fit,
    frozen_layers,
    least_errors,
    look_loss,
    relative_errors,
    retrace,
    sampled_sensitivity,
)
from experiments.settings import Settings
from experiments.studies import describe, tokens
from experiments.studies.style import write_figure
from theory.rounding import relative_budget
from theory.tokens import attend

pytestmark = pytest.mark.usefixtures("single_thread")

SOURCE, TARGET = "a plain video", "a night video of a man"


@pytest.fixture(scope="module")
def editor():
    return Editor(pixel_pipeline(), dtype=torch.float64)


@pytest.fixture(scope="module")
def latents(editor):
    generator = torch.Generator().manual_seed(0)
    return torch.randn((3, 3, 16, 16), generator=generator, dtype=torch.float64)


@pytest.fixture(scope="module")
def layers(editor, latents):
    return frozen_layers(editor, latents, 100, SOURCE, TARGET)


def make(mode: str, count: int, dim: int) -> FreeTokens:
    return tokens._tokens(mode, count, 3, dim, 0)


def test_record_gives_the_layers_output_with_lora_and_prompt_tokens():
    editor = Editor(pixel_pipeline(), dtype=torch.float64)
    editor.add_adapter(seed=0)
    editor.add_prompt_tokens(num_shared=2, seed=0)
    with torch.no_grad():
        for name, parameter in editor.adapter_parameters().items():
            if "lora_B" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(1))
    frames = np.random.default_rng(0).uniform(size=(3, 16, 16, 3))
    editor.set_frames(frames)
    names = cross_attention_layers(editor.pipeline.unet)
    (first, *_) = records = list(
        cross_attention_records(cross_attention_arrays(editor, editor.to_latents(frames), 100, SOURCE, names))
    )
    assert len(records) == len(names)
    assert first.num_shared == 2 and first.num_frame == 2
    assert first.context.shape[1] == 4 + editor.encode_prompt(SOURCE).shape[1]
    for record in records:
        queries, keys, values = record.heads()
        heads = np.stack([attend(queries[:, h], keys[:, h], values[:, h]) for h in range(record.num_heads)], axis=1)
        size = np.abs(values).max() * np.abs(record.output_weight).sum(axis=1).max() + np.abs(record.output_bias).max()
        budget = relative_budget(4096) * size * (1 + np.abs(queries).max() * np.abs(keys).max() * keys.shape[-1])
        np.testing.assert_allclose(record.project(heads), record.outputs, rtol=0, atol=budget)


def test_hooks_are_gone_after_the_block(editor, latents):
    names = cross_attention_layers(editor.pipeline.unet)
    with captured_cross_attention(editor.pipeline.unet, names) as calls:
        pass
    with torch.no_grad():
        editor.predict_noise(latents, 100, SOURCE)
    assert calls == {}


def test_a_layer_with_biases_is_refused(editor):
    (name, *_) = cross_attention_layers(editor.pipeline.unet)
    key = editor.pipeline.unet.get_submodule(name).to_k
    key.bias = torch.nn.Parameter(torch.zeros(key.out_features, dtype=torch.float64))
    try:
        with pytest.raises(ValueError, match="key projection has a bias"):
            layer_weights(editor.pipeline.unet, name)
    finally:
        key.bias = None


def test_fitting_lowers_the_loss_and_stays_above_the_proved_bound(editor, layers):
    text = editor.encode_prompt(SOURCE)
    single = [layer.to(torch.float32) for layer in layers]
    for mode, (shared, own) in tokens.MODES.items():
        fitted = make(mode, 2, text.shape[2])
        made = fit(fitted, look_loss(single, text.float()), steps=30, learning_rate=0.1)
        again = fit(make(mode, 2, text.shape[2]), look_loss(single, text.float()), steps=30, learning_rate=0.1)
        np.testing.assert_array_equal(made.losses, again.losses)
        assert made.losses[-1] < made.losses[0]
        errors = relative_errors(layers, fitted, text)
        bounds = least_errors(layers, 2 * (shared + own), per_frame=own > 0)
        assert all(error >= bound for error, bound in zip(errors, bounds, strict=True))


def test_no_tokens_leave_everything_and_the_bound_is_not_void():
    """On the shipped network, whose heads are wider than the tiny one's text is long."""
    editor = load_editor(dtype=torch.float64)
    latents = torch.randn((2, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    layers, text = frozen_layers(editor, latents, 100, SOURCE, TARGET), editor.encode_prompt(SOURCE)
    none = FreeTokens(num_shared=0, num_own=0, num_frames=2, dim=text.shape[2], seed=0)
    np.testing.assert_allclose(relative_errors(layers, none, text), 1.0, rtol=relative_budget(10**4))
    shared, own = (least_errors(layers, 1, per_frame=per_frame) for per_frame in (False, True))
    assert min(shared) > 1e-3
    # The slack of the rank's rounding is taken off once a head for all frames, and once a head and frame.
    assert all(mine <= all_frames + relative_budget(10**5) for mine, all_frames in zip(own, shared, strict=True))


def test_a_loss_that_is_not_finite_is_refused(editor):
    with pytest.raises(ValueError, match="step 0"):
        fit(make("shared", 1, 4), lambda current, step: current.shared.sum() * float("nan"), steps=2, learning_rate=0.1)


def test_retrace_starts_from_the_inversions_own_defects(editor, latents):
    goal = retrace(editor, latents, SOURCE, 3)
    with torch.no_grad():
        losses = [
            float(goal.loss(lambda x, timestep: editor.predict_noise(x, timestep, SOURCE), step)) for step in range(3)
        ]
    np.testing.assert_array_equal(losses, 1.0)


def test_sampled_sensitivity_is_below_the_certified(editor, latents):
    for entry in sampled_sensitivity(editor, latents, 100, SOURCE, positions=3, iterations=3):
        for part in ("inputs", "tokens"):
            assert 0 < entry["sampled"][part] <= entry["certified"][part]


def test_study(tmp_path, monkeypatch):
    monkeypatch.setattr(tokens, "load_editor", lambda path, device, dtype: Editor(pixel_pipeline(), dtype=dtype))
    frames = np.random.default_rng(0).uniform(size=(3, 16, 16, 3))
    values = {"name": "noise", "source_prompt": SOURCE, "target_prompt": TARGET}
    settings = dataclasses.replace(Settings(), token_counts=(1, 2), token_steps=2, retrace_steps=2)
    seen = []
    context = types.SimpleNamespace(
        settings=settings,
        inputs={"clip": types.SimpleNamespace(values=values, arrays={"frames": frames})},
        progress=lambda done, total: seen.append((done, total)),
    )
    first = tokens.measure(context)
    assert seen == [(index, 14) for index in range(1, 15)]
    content = describe(tokens.STUDY, first)
    assert "noise" in content["caption"] and len(content["numbers"]) > 8
    write_figure(tmp_path, "tokens", content)
    assert (tmp_path / "tokens.png").stat().st_size > 10_000
