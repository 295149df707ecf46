"""The main job on a tiny network: the same bytes twice, reuse, resumption, faults that change a verdict, and what is
written where.
"""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import toy
from safetensors.numpy import load_file

from experiments import reproduce as module
from experiments import stages
from experiments.editor import build_pipeline, save_pipeline, train_adapter, write_video
from experiments.report import audit as auditing
from experiments.reproduce import reproduce
from experiments.settings import Settings
from experiments.store import Store
from theory.scramble import SCRAMBLES, UNTRAINED

# In one worker, so that the finished run is made once.
pytestmark = [pytest.mark.usefixtures("single_thread"), pytest.mark.xdist_group("reproduce")]

ANOTHER_LAYER = next(name for name in SCRAMBLES if name.startswith("features of another layer"))


class Counter(module.Silent):
    """Counts what was made and what was reused, and keeps the notes but for that on the threads."""

    def __init__(self):
        self.made, self.reused, self.notes, self.threads = [], [], [], []

    def finished(self, name, reused):
        (self.reused if reused else self.made).append(name)

    def note(self, line):
        (self.threads if line.startswith("networks run on") else self.notes).append(line)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """A pipeline with random weights, small enough that an evaluation takes milliseconds."""
    folder = tmp_path_factory.mktemp("pipeline") / "tiny"
    save_pipeline(build_pipeline(0, block_out_channels=(8, 8, 8), text_dim=16, sample_size=16), folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def cheap():
    """Checks a toy claim instead of the theorems, and leaves out the studies whose compilation takes longer than all
    tests here.
    """
    claim = toy.claim()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "chosen_claims", lambda settings: (claim,))
        patch.setattr(module, "NAMES", ("film_strip",))
        patch.setattr(auditing, "claim_module", lambda chosen: stages)
        # Somebody may commit while the tests run.
        patch.setattr(auditing, "current_commit", lambda: "0" * 40)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory, pipeline, cheap):
    """The folder of a finished run; not to be changed."""
    out = tmp_path_factory.mktemp("finished") / "out"
    reproduce(toy.settings(pipeline), out)
    return out


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of it, to work on."""
    return Path(shutil.copytree(finished, tmp_path / "copied"))


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def published(out):
    """What a run shows to people: everything but its store."""
    return {name: content for name, content in contents(out).items() if not name.startswith("store/")}


def test_same_seed_same_bytes(tmp_path, pipeline, finished):
    """A run from nothing, and with a second folder for the figures."""
    first = published(finished)
    assert {
        "audit.json",
        "report.html",
        "report.md",
        "claims.csv",
        "figures/film_strip.pdf",
        "figures/film_strip.png",
        "figures/film_strip.json",
    } <= first.keys()
    assert "figures/claim_C1.toy.pdf" in first
    audit = reproduce(toy.settings(pipeline), tmp_path / "again", figures=tmp_path / "figures")
    assert audit["passed"], audit["failures"]
    assert published(tmp_path / "again") == first
    figures = {name.removeprefix("figures/") for name in first if name.startswith("figures/")}
    assert set(contents(tmp_path / "figures")) == {"audit.json", *figures}


def test_second_run_reuses_everything(copied, pipeline, finished):
    counter = Counter()
    reproduce(toy.settings(pipeline), copied, observer=counter)
    assert counter.made == []
    assert published(copied) == published(finished)


def test_new_seed_keeps_what_does_not_depend_on_it(copied, pipeline):
    counter = Counter()
    reproduce(toy.settings(pipeline, seed=1), copied, observer=counter)
    assert "clip" in counter.reused
    assert {"adapter", "evidence", "edit", "ladder-C1.toy", "reality-C1.toy", "untrained", "scrambled-C1.toy"} <= set(counter.made)


def test_run_that_fails_in_the_middle_resumes(tmp_path, pipeline, finished, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(stages, "similarities", lambda features: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            reproduce(toy.settings(pipeline), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"store"}
    counter = Counter()
    reproduce(toy.settings(pipeline), tmp_path, observer=counter)
    assert {"clip", "adapter", "evidence"} <= set(counter.reused)
    assert "edit" in counter.made
    assert published(tmp_path) == published(finished)


def test_damaged_result_is_noted_and_made_again(copied, pipeline, finished):
    (damaged,) = (copied / "store").glob("edit-*")
    (damaged / "values.json").write_text("{}")
    counter = Counter()
    reproduce(toy.settings(pipeline), copied, observer=counter)
    assert counter.made == ["edit"]
    assert len(counter.notes) == 1 and damaged.name in counter.notes[0]
    assert published(copied) == published(finished)


def test_false_bound_fails_the_run(copied, pipeline, monkeypatch):
    """A claim that says it is proved with a bound a tenth too small must not pass."""
    monkeypatch.setattr(module, "chosen_claims", lambda settings: (toy.claim(bound=0.9, claim_id="C1.false"),))
    audit = reproduce(toy.settings(pipeline), copied)
    assert not audit["passed"]
    assert any(line.startswith("C1.false: attack:") for line in audit["failures"])
    (group,) = audit["paper_claims"]
    assert not group["passed"]
    assert "checks failed" in (copied / "report.html").read_text()


def test_scrambled_evidence_is_recorded_and_a_test_that_passes_it_fails_the_run(copied, finished, pipeline, monkeypatch):
    """An untrained network is among it. The toy's test notices evidence whose frames are permuted, and need notice no other."""
    (claim,) = json.loads((finished / "audit.json").read_text())["claims"]
    by_tells = {entry["tells"]: entry for entry in claim["comparisons"]}
    assert by_tells["identity"]["noticed"] is None
    assert by_tells["test"]["noticed"].keys() == {*SCRAMBLES, UNTRAINED}
    assert by_tells["test"]["noticed"]["frames permuted"] and not by_tells["test"]["noticed"][ANOTHER_LAYER]
    text = (finished / "report.html").read_text()
    assert "frames permuted: noticed" in text and f"{ANOTHER_LAYER}: not noticed" in text
    false_test = toy.claim(reality=(toy.FALSE_TEST,), claim_id="C1.false")
    monkeypatch.setattr(module, "chosen_claims", lambda settings: (false_test,))
    assert reproduce(toy.settings(pipeline), copied)["passed"], "on a pipeline of one's own it is a finding"
    monkeypatch.setattr(Settings, "is_declared", True)
    audit = reproduce(toy.settings(pipeline), copied)
    assert not audit["passed"]
    assert any("calls itself a test" in line for line in audit["failures"])


def test_no_untrained_network_is_recorded_where_nothing_is_tested(copied, pipeline, monkeypatch):
    monkeypatch.setattr(module, "chosen_claims", lambda settings: (toy.claim(reality=(toy.IDENTITY,)),))
    shutil.rmtree(next((copied / "store").glob("untrained-*")))
    counter = Counter()
    reproduce(toy.settings(pipeline), copied, observer=counter)
    assert not {"untrained", "scrambled-C1.toy"} & {*counter.made, *counter.reused}


def test_whether_the_adapter_helped_is_said(finished):
    audit = json.loads((finished / "audit.json").read_text())
    assert audit["adapter_effect"].startswith(("Yes, by all three measures", "No, as "))
    assert "Did the adapter help on this clip?" in (finished / "report.html").read_text()


def test_audit_holds_what_a_referee_asks_for(finished, pipeline):
    text = (finished / "audit.json").read_text()
    audit = json.loads(text)
    assert {"versions", "device", "commit", "settings", "weights", "clip"} <= audit.keys()
    assert {"numpy", "scipy", "jax", "torch", "diffusers", "peft", "python"} <= audit["versions"].keys()
    (claim,) = audit["claims"]
    assert [rung["rung"] for rung in claim["rungs"]] == [
        "witness",
        "property",
        "attack",
        "necessity",
        "power",
        "reality",
    ]
    for rung in claim["rungs"][:-1]:
        assert {"label", "measured", "bound", "ratio", "budget", "seed", "witness"} <= rung["worst"].keys()
    (group,) = audit["paper_claims"]
    assert claim["theory"]["ratio"] == pytest.approx(1) and claim["network"]["tells"] == "test" and claim["elsewhere"] is None
    # One statement of a toy decides nothing of the paper.
    assert group["id"] == "C1" and group["verdict"] is None and group["checked"] == 0
    # No path of the machine it ran on.
    assert str(finished) not in text and str(pipeline) not in text


def test_features_follow_the_training(finished):
    """Snapshots of the adapter from its start, where LoRA changes nothing, to its end, and features of the same noisy
    clip at each."""
    (trained,), (captured,) = ((finished / "store").glob(f"{name}-*") for name in ("adapter", "features"))
    files = sorted(path.name for path in trained.glob("adapter.safetensors*"))
    assert files == ["adapter.safetensors", *(f"adapter.safetensors.step{step:05d}" for step in range(3))]
    assert (trained / files[-1]).read_bytes() == (trained / files[0]).read_bytes()
    start = load_file(trained / files[1])
    assert all(not np.any(values) for name, values in start.items() if "lora_B" in name)
    records = json.loads((captured / "values.json").read_text())
    assert sorted({record["training_step"] for record in records} - {None}) == [0, 1, 2]
    assert all(record["warning"] is None for record in records)
    arrays = load_file(captured / "arrays.safetensors")
    assert {name for record in records for name in (record["array"], record["pixels"]) if name} == set(arrays)
    assert len({record["timestep"] for record in records if record["training_step"] is not None}) == 1
    # Nothing is left of the training's own files.
    assert not list((finished / "store").glob("*.state*"))


def test_killed_training_keeps_the_snapshots_of_steps_it_will_not_take_again(tmp_path, pipeline, finished, monkeypatch):
    def killed(*arguments, progress, **options):
        def stop(done, total, loss):
            progress(done, total, loss)
            1 / (done - 1)

        return train_adapter(*arguments, progress=stop, checkpoint_seconds=0, **options)

    with monkeypatch.context() as broken:
        broken.setattr(stages, "train_adapter", killed)
        with pytest.raises(ZeroDivisionError):
            reproduce(toy.settings(pipeline), tmp_path)
    (tmp_path / "store" / ".half-written.part").touch()
    reproduce(toy.settings(pipeline), tmp_path)
    assert published(tmp_path) == published(finished)
    snapshots = [sorted((out / "store").glob("adapter-*/adapter.safetensors.step*")) for out in (tmp_path, finished)]
    assert [path.read_bytes() for path in snapshots[0]] == [path.read_bytes() for path in snapshots[1]]
    assert [path.name for path in snapshots[0]] == [path.name for path in snapshots[1]] and len(snapshots[0]) == 3


def test_one_claim_runs_only_what_it_needs(tmp_path, pipeline, finished):
    """Clip, adapter and evidence for the rung on the network, and the claim's own ladder; no edit, no study."""
    counter = Counter()
    audit = reproduce(toy.settings(pipeline, claims=("C1.toy",)), tmp_path, observer=counter)
    checks = ["ladder-C1.toy", "reality-C1.toy", "scrambled-C1.toy"]
    assert counter.made == ["clip", "adapter", "evidence", "untrained", *checks, "figures"]
    assert audit["passed"] and audit["edit"] is None
    assert [figure["name"] for figure in audit["figures"]] == ["claim_C1.toy"]
    page = (tmp_path / "report.html").read_text()
    assert "The editor at work" not in page and "C1.toy" in page
    # The numbers are those of the whole run, which finds them in the store.
    whole = json.loads((finished / "audit.json").read_text())
    assert audit["claims"] == whole["claims"]
    again = Counter()
    reproduce(toy.settings(pipeline), tmp_path, observer=again)
    assert set(again.made) == {"edit", "features", "film_strip", "figures"}
    assert published(tmp_path) == published(finished)


def test_prompts_are_checked_before_the_training(tmp_path, pipeline):
    counter = Counter()
    with pytest.raises(ValueError, match=r"has 1\d tokens and the text encoder takes 12; 2 are start .* wolf 4"):
        reproduce(toy.settings(pipeline, target_prompt="a sepia video of a grey wolf"), tmp_path, observer=counter)
    assert counter.made == []


def test_number_of_threads_is_said(tmp_path, pipeline, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS")
    counter = Counter()
    audit = reproduce(toy.settings(pipeline, claims=("C1.toy",)), tmp_path, observer=counter)
    (said,) = counter.threads
    assert re.fullmatch(r"networks run on 1 thread \(a UNet of [\d,]+ parameters is faster on one\)", said)
    assert audit["threads"] == 1


def test_warns_where_every_similarity_is_one(tmp_path, pipeline):
    """Of a still picture every frame is the same: the temporal loss of every layer is 0 whatever the adapter does."""
    write_video(tmp_path / "still", np.repeat(np.random.default_rng(0).random((1, 16, 16, 3)).astype(np.float32), 3, axis=0))
    counter = Counter()
    reproduce(toy.settings(pipeline, video=str(tmp_path / "still")), tmp_path / "out", observer=counter)
    assert counter.notes and all(note.startswith("warning: ") for note in counter.notes)
    assert "frame by frame all 2 similarities are +1 or -1, so the temporal loss has no gradient" in counter.notes[0]


def test_video_of_ones_own(tmp_path, pipeline):
    frames = np.random.default_rng(0).random((5, 24, 40, 3)).astype(np.float32)
    write_video(tmp_path / "mine", frames)
    audit = reproduce(toy.settings(pipeline, video=str(tmp_path / "mine"), num_frames=4), tmp_path / "out")
    assert audit["clip"]["name"] == "mine"
    assert audit["clip"]["shape"] == [4, 16, 16, 3]


def test_other_video_of_the_same_name_is_another_run(tmp_path, pipeline):
    """The key of a stage holds what a file contains, not what it is called."""
    seen = []
    for step in (1, -1):
        write_video(tmp_path / "mine", np.random.default_rng(0).random((3, 16, 16, 3)).astype(np.float32)[::step])
        run = module._Run(
            toy.settings(pipeline, video=str(tmp_path / "mine")), Store(tmp_path / "store"), module.Silent()
        )
        seen.append(run.fetch(module._STAGES[0]).values["sha256"])
    assert seen[0] != seen[1]


def test_a_test_on_another_network_is_a_finding_and_no_failure():
    """The claims' tests are declared for the shipped network; what the theorem implies has to hold on every one."""
    from theory import ladder
    from theory.claim import Comparison, Origin, Outcome, Tells

    def claim_with(tells):
        found = Comparison("?", Origin.NETWORK, tells, lambda evidence: [Outcome("a layer", 2.0, 1.0, 0.0)], because="it is so")
        return dataclasses.replace(toy.claim(), reality=(found,))

    for tells, strict, lenient in ((Tells.TEST, False, True), (Tells.IMPLIED, False, False)):
        assert ladder.run_reality(claim_with(tells), None).passed is strict
        result = ladder.run_reality(claim_with(tells), None, tests_bind=False)
        assert result.passed is lenient
        assert not result.outcomes[0].holds


def test_tests_are_declared_for_what_the_theorems_tests_record():
    import inspect

    from experiments.editor.evidence import default_evidence
    from experiments.settings import DECLARED_FOR

    defaults = {name: parameter.default for name, parameter in inspect.signature(default_evidence).parameters.items()}
    assert DECLARED_FOR == (defaults["num_frames"], defaults["num_steps"], defaults["adapter_steps"])
    assert defaults["clip"] == Settings.clip
    frames, steps, adapter_steps = DECLARED_FOR
    declared = Settings.preset("small", num_frames=frames, num_steps=steps, adapter_steps=adapter_steps)
    assert declared.is_declared
    assert not dataclasses.replace(declared, num_steps=steps + 1).is_declared
    assert not dataclasses.replace(declared, clip="bikes").is_declared
