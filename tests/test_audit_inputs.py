"""What `framebound audit` says about what it was given: on the terminal, in the answers and in the report."""

import json
import os

import pytest
import torch
from clip_files import scene, write_images
from diffusers import EulerDiscreteScheduler
from safetensors.torch import save_file
from test_cli import complaint
from tiny_pipelines import stable_diffusion_pipeline

from experiments.audit import AuditSettings, audit_pipeline
from experiments.editor.editor import Editor
from experiments.editor.pipeline import save_pipeline

pytestmark = pytest.mark.usefixtures("single_thread")


class Listener:
    """Keeps the lines on what was read; the one on the number of threads is the machine's."""

    def __init__(self):
        self.lines = []

    def stage(self, name, title):
        return lambda done, total: None

    def finished(self, name, reused):
        pass

    def note(self, line):
        if not line.startswith("networks run on"):
            self.lines.append(line)


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A pipeline, clips and adapters of it."""
    folder = tmp_path_factory.mktemp("given")
    pipeline = stable_diffusion_pipeline()
    save_pipeline(pipeline, folder / "pipeline")
    save_pipeline(pipeline, folder / "euler")
    EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
    ).save_pretrained(folder / "euler" / "scheduler")
    index = json.loads((folder / "euler" / "model_index.json").read_text())
    index |= {"controlnet": ["diffusers", "ControlNetModel"]}
    (folder / "euler" / "model_index.json").write_text(json.dumps(index))
    write_images(folder / "moving", scene(6, 32, 48))
    write_images(folder / "still", scene(1, 32, 48).repeat(4, axis=0))
    write_images(folder / "doubled", scene(3, 32, 48).repeat(2, axis=0))
    editor = Editor(pipeline)
    editor.add_adapter(rank=2, alpha=2, seed=1)
    generator = torch.Generator().manual_seed(0)
    plain = {
        name: (
            parameter.detach().clone() if "lora_A" in name else 0.1 * torch.randn(parameter.shape, generator=generator)
        )
        for name, parameter in editor.adapter_parameters().items()
    }
    adapters = {
        "plain": plain,
        "zero": {name: tensor * ("lora_A" in name) for name, tensor in plain.items()},
        "huge": {name: 30 * tensor for name, tensor in plain.items()},
        "full": {
            f"{name.removesuffix('.lora_B.weight')}.diff": tensor @ plain[name.replace("lora_B", "lora_A")]
            for name, tensor in plain.items()
            if "lora_B" in name
        },
    }
    for name, tensors in adapters.items():
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / f"{name}.safetensors")
    editor.remove_adapter()
    return folder


@pytest.fixture(scope="module")
def run(given, tmp_path_factory):
    """`run(clip, pipeline, adapter)`: the lines shown, the answers by id, the report, and how to run it again."""
    done = {}

    def audit(clip, pipeline="pipeline", adapter=None):
        if (clip, pipeline, adapter) not in done:
            out = tmp_path_factory.mktemp("out") / "audit"
            settings = AuditSettings(
                video=str(given / clip),
                pipeline=str(given / pipeline),
                adapter=None if adapter is None else str(given / f"{adapter}.safetensors"),
                num_steps=3,
                num_frames=4,
                fixed_point_iterations=0,
            )
            listener = Listener()
            found = audit_pipeline(settings, out, observer=listener)
            answers = {answer["id"]: answer for answer in found["answers"]}
            done[clip, pipeline, adapter] = listener.lines, answers, (out / "report.html").read_text(), (settings, out)
        return done[clip, pipeline, adapter]

    return audit


def test_what_was_taken_and_how_is_said_and_reported(run):
    lines, answers, report, _ = run("moving", adapter="plain")
    clip = "the first 4 of 6 frames, frame_000.png to frame_003.png, 48 x 32 pixels, cropped to the central 32 x 32"
    assert lines[-2] == f"clip: {clip}"
    assert lines[0].startswith("adapter: 32 layers of LoRA in the UNet; alpha from nowhere")
    assert "||update||" in lines[1] and "times ||W||" in lines[1] and "ranks 2" in lines[1]
    assert lines[-1].startswith("warning: no alpha is stated in the file or beside it")
    assert clip in report and "no alpha is stated" in report
    assert answers["well-posed"]["verdict"] == "yes"


def test_names_of_files_reach_terminal_and_report_as_plain_text(given, tmp_path):
    folder = tmp_path / "clip"
    write_images(folder, scene(4, 32, 32), "[red]f{}\x1b[31m[_red].png")
    (folder / "\x07[bold].txt").write_text("no image")
    listener = Listener()
    settings = AuditSettings(
        video=str(folder), pipeline=str(given / "pipeline"), num_steps=3, num_frames=3, fixed_point_iterations=0
    )
    found = audit_pipeline(settings, tmp_path / "out", observer=listener)
    assert any("[red]f0?[31m[_red].png" in line and "?[bold].txt" in line for line in listener.lines)
    assert found["clip"]["notes"] == listener.lines
    assert "\x1b" not in (tmp_path / "out" / "report.html").read_text()


def test_a_run_that_reuses_everything_says_it_again(run):
    lines, _, _, (settings, out) = run("moving", adapter="plain")
    listener = Listener()
    audit_pipeline(settings, out, observer=listener)
    assert listener.lines == lines


def test_a_still_clip_has_no_safe_step(run):
    lines, answers, _, _ = run("still")
    assert any(line.startswith("warning: the clip is still") for line in lines)
    for name in ("well-posed", "step-size", "adapter-step"):
        assert "The clip is still" in answers[name]["answer"]
    assert not answers["step-size"]["numbers"] and not answers["adapter-step"]["numbers"]


def test_repeated_frames_are_a_finding_of_the_first_question(run):
    _, answers, _, _ = run("doubled")
    assert answers["well-posed"]["verdict"] == "partly"
    assert "2 of 3 neighbouring pairs of frames are equal" in answers["well-posed"]["answer"]
    assert any("frames 0 and 1, 2 and 3" in line for line in answers["well-posed"]["details"])


def test_another_sampler_and_what_is_left_out_are_said(run):
    lines, answers, report, _ = run("moving", "euler")
    assert lines[0] == "not audited: controlnet (ControlNetModel): audited is the UNet without it"
    assert lines[1].startswith(
        "not audited: the pipeline's own sampler EulerDiscreteScheduler, another solver than DDIM"
    )
    schedulers = answers["schedulers"]
    assert schedulers["verdict"] == "partly" and "samples with EulerDiscreteScheduler" in schedulers["answer"]
    # An Euler scheduler clips nothing, whatever DDIM's default is.
    assert "clip" not in json.dumps(schedulers)
    assert "controlnet (ControlNetModel)" in report


@pytest.mark.parametrize(
    ("adapter", "said"),
    [
        ("zero", "warning: the adapter changes nothing: its update is zero in every layer"),
        ("huge", "warning: the adapter's update is larger than the weights that it updates"),
    ],
)
def test_the_size_of_the_update_is_weighed(run, adapter, said):
    assert any(line.startswith(said) for line in run("moving", adapter=adapter)[0])


def test_the_learning_rate_of_other_parameters_is_not_answered(run):
    lines, answers, report, _ = run("moving", adapter="full")
    assert any(line.startswith("not audited: the learning rate of the adapter") for line in lines)
    assert answers["adapter-step"]["answer"].startswith("Not answered. The adapter holds full difference")
    assert "Not measured. The adapter holds full difference" in report
    # The network is that of the LoRA with the same update.
    full, plain = (run("moving", adapter=name)[1]["round-trip"]["numbers"] for name in ("full", "plain"))
    for ours, theirs in zip(full, plain, strict=True):
        assert ours["name"] == theirs["name"]
        assert ours["value"] == pytest.approx(theirs["value"], rel=1e-2, abs=1e-6)


@pytest.fixture
def refuse(capsys, given, tmp_path):
    """`refuse(..)`: the one line that the command ends in; nothing may be left behind."""

    def run_it(video, *arguments):
        line = complaint(capsys, "audit", "--video", video, "--out", tmp_path / "out", "--steps", "3", *arguments)
        assert not (tmp_path / "out").exists()
        return line

    return run_it


class TestRefusals:
    def test_a_pipe_does_not_hang(self, refuse, given, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        assert "is a pipe or a device" in refuse(tmp_path / "pipe")
        assert "is a pipe or a device" in refuse(given / "moving", "--adapter", tmp_path / "pipe")

    def test_the_clip_is_opened_before_the_pipeline_is_loaded(self, refuse, given, tmp_path, monkeypatch):
        monkeypatch.setattr("experiments.audit.inputs.load_editor", lambda *a, **k: pytest.fail("loaded before"))
        (tmp_path / "clip.mp4").write_bytes(b"no video")
        assert "clip.mp4 cannot be decoded" in refuse(tmp_path / "clip.mp4", "--pipeline", given / "pipeline")

    def test_an_evaluation_that_fails_ends_in_one_line(self, refuse, given, monkeypatch):
        """Shapes that no setting tells of are found by one evaluation, before anything is written."""

        def fail(*arguments, **keywords):
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied (16x24 and 32x24)")

        monkeypatch.setattr(Editor, "predict_noise", fail)
        line = refuse(given / "moving", "--pipeline", given / "pipeline")
        assert (
            "the pipeline cannot be evaluated on a frame of 32 x 32 pixels" in line and "mat1 and mat2 shapes" in line
        )
