"""The main job on a tiny network: the same bytes twice, reuse, resumption, faults that change a verdict, and what is written where."""

import json

import numpy as np
import pytest
import toy

from experiments import reproduce as module
from experiments import stages
from experiments.editor import build_pipeline, save_pipeline, write_video
from experiments.report import audit as auditing
from experiments.reproduce import reproduce


class Counter(module.Silent):
    """Counts what was made and what was reused."""

    def __init__(self):
        self.made, self.reused, self.notes = [], [], []

    def finished(self, name, reused):
        (self.reused if reused else self.made).append(name)

    def note(self, line):
        self.notes.append(line)


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory):
    """A pipeline with random weights, small enough that an evaluation takes milliseconds."""
    folder = tmp_path_factory.mktemp("pipeline") / "tiny"
    save_pipeline(build_pipeline(0, block_out_channels=(8, 8, 8), text_dim=16, sample_size=16), folder)
    return folder


@pytest.fixture
def one_claim(monkeypatch):
    """Checks a toy claim instead of the theorems, and leaves out the studies whose compilation takes longer than all tests here."""

    def use(claim):
        monkeypatch.setattr(module, "chosen_claims", lambda settings: (claim,))
        monkeypatch.setattr(auditing, "claim_module", lambda chosen: stages)

    monkeypatch.setattr(module, "NAMES", ("film_strip", "round_trip"))
    use(toy.claim())
    return use


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def published(out):
    """What a run shows to people: everything but its store."""
    return {name: content for name, content in contents(out).items() if not name.startswith("store/")}


def test_same_seed_same_bytes_and_reuse(tmp_path, pipeline, one_claim):
    settings = toy.settings(pipeline)
    audit = reproduce(settings, tmp_path / "a", figures=tmp_path / "figures")
    assert audit["passed"], audit["failures"]
    first = published(tmp_path / "a")
    assert {"audit.json", "report.html", "figures/film_strip.pdf", "figures/film_strip.png", "figures/film_strip.json"} <= first.keys()
    assert {"figures/claim_C1.toy.pdf", "figures/round_trip.pdf"} <= first.keys()
    assert set(contents(tmp_path / "figures")) == {"audit.json", *(name.removeprefix("figures/") for name in first if name.startswith("figures/"))}

    reproduce(settings, tmp_path / "b")
    assert published(tmp_path / "b") == first

    again = Counter()
    reproduce(settings, tmp_path / "a", observer=again)
    assert again.made == []
    assert published(tmp_path / "a") == first


def test_new_seed_keeps_what_does_not_depend_on_it(tmp_path, pipeline, one_claim):
    reproduce(toy.settings(pipeline), tmp_path)
    counter = Counter()
    reproduce(toy.settings(pipeline, seed=1), tmp_path, observer=counter)
    assert "clip" in counter.reused
    assert {"adapter", "evidence", "edit", "ladder-C1.toy", "reality-C1.toy"} <= set(counter.made)


def test_run_that_fails_in_the_middle_resumes(tmp_path, pipeline, one_claim, monkeypatch):
    settings = toy.settings(pipeline)
    with monkeypatch.context() as broken:
        broken.setattr(stages, "similarities", lambda features: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            reproduce(settings, tmp_path)
    assert not (tmp_path / "audit.json").exists()
    counter = Counter()
    reproduce(settings, tmp_path, observer=counter)
    assert {"clip", "adapter", "evidence"} <= set(counter.reused)
    assert "edit" in counter.made


def test_damaged_result_is_noted_and_made_again(tmp_path, pipeline, one_claim):
    settings = toy.settings(pipeline)
    reproduce(settings, tmp_path)
    before = published(tmp_path)
    (damaged,) = (tmp_path / "store").glob("edit-*")
    (damaged / "values.json").write_text("{}")
    counter = Counter()
    reproduce(settings, tmp_path, observer=counter)
    assert counter.made == ["edit"]
    assert len(counter.notes) == 1 and damaged.name in counter.notes[0]
    assert published(tmp_path) == before


def test_false_bound_fails_the_run(tmp_path, pipeline, one_claim):
    """A claim that says it is proved with a bound a tenth too small must not pass."""
    one_claim(toy.claim(bound=0.9))
    audit = reproduce(toy.settings(pipeline), tmp_path)
    assert not audit["passed"]
    assert any(line.startswith("C1.toy: attack:") for line in audit["failures"])
    (group,) = audit["paper_claims"]
    assert not group["passed"]
    assert "checks failed" in (tmp_path / "report.html").read_text()


def test_audit_holds_what_a_referee_asks_for(tmp_path, pipeline, one_claim):
    audit = json.loads((reproduce(toy.settings(pipeline), tmp_path) and tmp_path / "audit.json").read_text())
    assert {"versions", "device", "commit", "settings", "weights", "clip"} <= audit.keys()
    assert {"numpy", "scipy", "jax", "torch", "diffusers", "peft", "python"} <= audit["versions"].keys()
    (claim,) = audit["claims"]
    assert [rung["rung"] for rung in claim["rungs"]] == ["witness", "property", "attack", "necessity", "power", "reality"]
    for rung in claim["rungs"]:
        assert {"label", "measured", "bound", "ratio", "budget", "seed", "witness"} <= rung["worst"].keys()
    (group,) = audit["paper_claims"]
    assert group["id"] == "C1" and group["theory"]["ratio"] == pytest.approx(1) and group["network"]["ratio"] == 0.5
    # No path of the machine it ran on, and nothing that changes from run to run.
    assert str(tmp_path) not in (tmp_path / "audit.json").read_text()
    assert str(pipeline) not in (tmp_path / "audit.json").read_text()


def test_video_of_ones_own(tmp_path, pipeline, one_claim):
    frames = np.random.default_rng(0).random((5, 24, 40, 3)).astype(np.float32)
    write_video(tmp_path / "mine", frames)
    audit = reproduce(toy.settings(pipeline, video=str(tmp_path / "mine"), num_frames=4), tmp_path / "out")
    assert audit["clip"]["name"] == "mine"
    assert audit["clip"]["shape"] == [4, 16, 16, 3]


def test_other_video_of_the_same_name_is_another_run(tmp_path, pipeline, one_claim):
    frames = np.random.default_rng(0).random((3, 16, 16, 3)).astype(np.float32)
    write_video(tmp_path / "mine", frames)
    settings = toy.settings(pipeline, video=str(tmp_path / "mine"))
    first = reproduce(settings, tmp_path / "out")
    write_video(tmp_path / "mine", frames[::-1])
    assert reproduce(settings, tmp_path / "out")["clip"]["sha256"] != first["clip"]["sha256"]
