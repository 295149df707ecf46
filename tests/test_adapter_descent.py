"""The study of descent on the adapter, on a pipeline with random weights: divergence is a result, and its words follow from its data."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from experiments.editor.pipeline import build_pipeline, save_pipeline
from experiments.editor import load_editor
from experiments.stages import ADAPTER_FILE
from experiments.studies import adapter_descent, describe
from experiments.studies.style import write_figure
from tests import toy

pytestmark = [pytest.mark.usefixtures("single_thread"), pytest.mark.xdist_group("adapter_descent")]


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    folder = tmp_path_factory.mktemp("descent")
    save_pipeline(build_pipeline(0, block_out_channels=(8, 8, 8), text_dim=16, sample_size=16), folder / "tiny")
    editor = load_editor(folder / "tiny")
    editor.add_adapter()
    editor.add_prompt_tokens()
    with torch.no_grad():
        for parameter in editor.adapter_parameters().values():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    editor.save_adapter(folder / ADAPTER_FILE)
    frames = np.random.default_rng(0).random((3, 16, 16, 3))
    clip = SimpleNamespace(arrays={"frames": frames}, values={"source_prompt": "a plain video of a man in a car"})
    adapter = SimpleNamespace(folder=folder, values={"layers": ["up_blocks.1.attentions.1.transformer_blocks.0.attn1"]})
    return SimpleNamespace(
        settings=toy.settings(folder / "tiny"), inputs={"clip": clip, "adapter": adapter}, progress=lambda done, total: None
    )


@pytest.fixture(scope="module")
def network(context):
    return adapter_descent._Network(context)


def test_whole_study_and_its_figure(context, tmp_path):
    seen = []
    context.progress = lambda done, total: seen.append((done, total))
    data = adapter_descent.measure(context)
    assert seen[-1][0] == seen[-1][1] == len(seen)
    content = describe(adapter_descent.STUDY, json.loads(json.dumps(data)))
    write_figure(tmp_path, "adapter_descent", content)
    assert (tmp_path / "adapter_descent.png").stat().st_size > 10_000
    # Every run and both rules start where the adapter was.
    starts = {run["losses"][0] for run in data["sweeps"]["temporal"]["runs"]}
    assert len(starts) == 1 and data["gauss_newton"]["loss"] == pytest.approx(starts.pop(), rel=1e-9)
    assert set(data["rules"]["rule"]["warrants"]) <= {"checked", "stationary"}
    for rule in data["rules"].values():
        assert rule["losses"][0] <= data["gauss_newton"]["loss"] * (1 + 1e-9)
    # A step below 2 over the curvature it sees falls: the sign of the change is that of eta kappa - 2.
    for sweep in data["sweeps"].values():
        for run in sweep["runs"]:
            for index, curvature in enumerate(run["curvatures"]):
                assert (index in run["rises"]) == (run["step_size"] * curvature > 2)


def test_rules_do_not_move_the_start_of_other_runs(network):
    before = network.start.clone()
    adapter_descent._ruled(network, 6, residuals=network.residuals)
    assert torch.equal(network.start, before) and not torch.equal(network.where(), before)


def test_divergence_is_recorded(network):
    """No crash where features overflow: the step and the learning rate are the result."""
    run = adapter_descent._fixed(network, network.full, 1e200, 4)
    assert run["diverged"]["step_size"] == 1e200 and run["diverged"]["step"] >= 1
    assert run["first_rise"] is not None and np.isfinite(run["losses"]).all()
