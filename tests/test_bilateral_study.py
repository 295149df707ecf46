"""The study of the filters on a tiny pipeline: what it records obeys the theorems, and the figure's words follow the
data."""

import json
from types import SimpleNamespace

import pytest
from tiny_pipelines import clip

from experiments.editor.pipeline import build_pipeline, save_pipeline
from experiments.settings import Settings
from experiments.stages import Context
from experiments.studies import bilateral, describe
from experiments.studies.style import write_figure

pytestmark = pytest.mark.usefixtures("single_thread")


def measured(folder, **changes):
    inputs = {
        "clip": SimpleNamespace(
            values={"name": "clip", "source_prompt": "a plain video", "target_prompt": "a night video"},
            arrays={"frames": clip(6)},
        )
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bilateral, "STEPS", 2)
        seen = []
        settings = Settings.preset("small", pipeline=str(folder), **changes)
        data = bilateral.measure(Context(settings, inputs, None, None, lambda done, total: seen.append((done, total))))
    assert [done for done, _ in seen] == list(range(1, seen[0][1] + 1))
    return json.loads(json.dumps(data))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline") / "tiny"
    save_pipeline(build_pipeline(0, block_out_channels=(8, 8, 8), text_dim=16, sample_size=16), folder)
    return folder


@pytest.fixture(scope="module")
def data(folder):
    return measured(folder)


def test_effects_lie_under_their_bounds(data):
    assert data["variants"]["none"]["effect"] is None
    for name in bilateral.VARIANTS[1:]:
        effect = data["variants"][name]["effect"]
        assert 0 < effect["change"] <= effect["change_bound"]
        if name.startswith("bilateral"):
            assert 0 < effect["cut"] <= effect["cut_bound"]


def test_filters_move_the_round_trip_and_nothing_else_does(data):
    assert data["variants"]["none"]["moved"]["both_ways"] == 0
    for name in bilateral.VARIANTS[1:]:
        assert all(moved > 0 for moved in data["variants"][name]["moved"].values())
    assert 0 < data["sigmas"]["narrow"] <= data["feature_range"]["half"] <= data["feature_range"]["all"]


def test_figure_and_words(data, tmp_path):
    content = describe(bilateral.STUDY, data)
    write_figure(tmp_path, "bilateral", content)
    assert all((tmp_path / f"bilateral{suffix}").stat().st_size > 1000 for suffix in (".pdf", ".png"))
    assert "2 steps" in content["caption"] and "6 held-out frames" in content["caption"]
    kinds = {number["name"]: number["kind"] for number in content["numbers"]}
    assert kinds["Lipschitz constant of the filter in the maximum norm"] == "proved"
    assert kinds["largest change of a feature at most, bilateral, 1"] == "proved"


def test_without_a_known_look_no_distance_from_it_is_claimed(folder):
    found = measured(folder, target_prompt="something else")
    assert all(entry["edit_error"] is None for entry in found["variants"].values())
    assert "true_look" not in found["pictures"]
    words = [number["name"] for number in describe(bilateral.STUDY, found)["numbers"]]
    assert not any("true look" in name for name in words)
