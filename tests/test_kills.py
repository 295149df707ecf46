"""Runs that are killed, interrupted, or find the disk full.

What is there afterwards is whole, and a further run ends with the bytes of one that was left alone.
"""

import json
import os
import random
import re
import shutil
import signal
import subprocess

import numpy as np
import pytest
import torch
from run_server import RunServer
from safetensors.torch import save_file
from tiny_pipelines import adapted_editor, clip, stable_diffusion_pipeline

from experiments import interrupts
from experiments.editor import adapter_curvature, build_pipeline, safe_step, save_pipeline, write_video
from experiments.editor import sharpness as sharpness_module
from experiments.engine import Engine, Inputs, Silent
from experiments.kept_state import KeptState
from experiments.store import Store
from experiments.threads import Threads

pytestmark = [pytest.mark.usefixtures("single_thread"), pytest.mark.xdist_group("kills")]

FULL = os.environ.get("FRAMEBOUND_PROFILE") == "full"
KILLS = 20 if FULL else 2
SIZES = (40, 200, 400, 600, 800, 1000, 1200, 1400, 1700, 2000) if FULL else (40, 600)
"""Of the disk in KB; what an audit writes here needs 1.5 MB."""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """The smallest pipelines of both commands, and a clip."""
    folder = tmp_path_factory.mktemp("kills")
    save_pipeline(stable_diffusion_pipeline(), folder / "latent")
    save_pipeline(build_pipeline(0, block_out_channels=(8, 8, 8), text_dim=16, sample_size=16), folder / "pixel")
    write_video(folder / "clip", clip(4, 32))
    return folder


@pytest.fixture(scope="module")
def server():
    """Runs command lines quickly."""
    server = RunServer()
    yield server
    server.close()


def command(inputs, name, out):
    """The smallest command line of `audit` and of `reproduce`, as arguments and options of the server."""
    if name == "reproduce":
        return ["reproduce", "--pipeline", inputs / "pixel", "--out", out], {"toy": True}
    asked = [
        "--video",
        inputs / "clip",
        "--pipeline",
        inputs / "latent",
        "--steps",
        4,
        "--frames",
        4,
        "--layers",
        "up_blocks.1",
    ]
    return ["audit", *asked, "--iterations", 1, "--out", out], {}


def published(out):
    """What a run shows to people: everything but its store."""
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and "store" not in path.relative_to(out).parts
    }


def leftovers(out):
    return [path.name for path in out.rglob(".*.part")]


@pytest.fixture(scope="module")
def undisturbed(inputs, server, tmp_path_factory):
    """What a run writes that nothing disturbs, and how long it takes, by command."""
    found = {}
    for name in ("audit", "reproduce"):
        out = tmp_path_factory.mktemp("undisturbed") / name
        argv, options = command(inputs, name, out)
        done = server.run(*argv, **options)
        assert done["status"] == 0, done["err"]
        found[name] = (published(out), done["seconds"])
    return found


@pytest.mark.parametrize("name", ["audit", "reproduce"])
def test_killed_at_random_moments(inputs, server, undisturbed, tmp_path, name):
    whole, seconds = undisturbed[name]
    draw = random.Random(name)
    for number in range(KILLS):
        out = tmp_path / str(number)
        argv, options = command(inputs, name, out)
        done = server.run(*argv, **options, signal=signal.SIGKILL, after=draw.uniform(0, seconds))
        assert done["status"] in (0, -signal.SIGKILL)
        if out.is_dir():
            # Whatever is there is whole, and nobody sees half of a file.
            for path in out.glob("*.json"):
                json.loads(path.read_text())
            assert {path for path in published(out) if not path.endswith(".part")} <= set(whole)
        done = server.run(*argv, **options)
        assert done["status"] == 0, done["err"]
        assert published(out) == whole and leftovers(out) == []
        shutil.rmtree(out)


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
    ids=lambda value: str(value),
)
def test_signals_end_a_run_with_one_line(inputs, server, undisturbed, tmp_path, number, status):
    whole, seconds = undisturbed["audit"]
    out = tmp_path / "out"
    argv, options = command(inputs, "audit", out)
    done = server.run(*argv, **options, signal=number, after=seconds / 2)
    assert done["sent"] and done["status"] == status, done
    said = [line for line in done["err"].splitlines() if line.startswith("framebound: ")]
    assert said == ["framebound: interrupted; the same command goes on where it was"]
    assert "Traceback" not in done["err"] and leftovers(out) == []
    done = server.run(*argv, **options)
    assert done["status"] == 0 and published(out) == whole


def test_no_interrupt_is_lost(inputs, server, undisturbed, tmp_path):
    """Late ones too: while figures are drawn and the report is written. One that comes in time never ends well."""
    _, seconds = undisturbed["audit"]
    for number in range(8 if FULL else 2):
        out = tmp_path / str(number)
        argv, options = command(inputs, "audit", out)
        done = server.run(*argv, **options, signal=signal.SIGINT, after=seconds * (0.6 + 0.05 * number))
        # Status 0 only if the run was over before; a signal after its last check ends the process by itself.
        assert done["status"] in ((130, -signal.SIGINT) if done["sent"] else (0,)), done
        assert "Traceback" not in done["err"] and "Exception ignored" not in done["err"]


class TestInterrupts:
    @pytest.fixture(autouse=True)
    def handlers(self):
        """The signals' handlers as they were."""
        before = {number: signal.getsignal(number) for number in interrupts.SIGNALS}
        yield
        for number, handler in before.items():
            signal.signal(number, handler)
        interrupts._received.clear()

    def test_interrupt_that_a_library_swallows(self, tmp_path):
        """The stage goes on until it reports progress, and no further."""
        engine = Engine(Store(tmp_path), Silent(), Inputs(tmp_path, None, {}, {}), Threads(1, "a test"))
        from experiments.engine import Interruptible

        engine.observer = Interruptible(Silent())
        reached = []

        def make(draft, scratch, progress):
            try:
                signal.raise_signal(signal.SIGTERM)
            except BaseException:
                reached.append("swallowed")
            progress(1, 2)
            reached.append("went on")

        with interrupts.listening(), pytest.raises(interrupts.Interrupted) as caught:
            engine.fetch("a", "A", (), {}, make)
        assert reached == ["swallowed"] and caught.value.number == signal.SIGTERM
        assert list(tmp_path.iterdir()) == []

    def test_ignored_signals_stay_ignored(self):
        """As under nohup."""
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with interrupts.listening():
            signal.raise_signal(signal.SIGHUP)
        assert interrupts.received() is None


class TestSharpness:
    """The longest measurement of an audit."""

    def measure(self, folder, evaluations=None):
        """Curvature and safe step; a kill after so many evaluations of the UNet."""
        editor = adapted_editor()
        latents = editor.to_latents(clip())
        done = 0
        predict = editor.predict_noise

        def counted(*arguments, **keywords):
            nonlocal done
            if done == evaluations:
                raise KeyboardInterrupt
            done += 1
            return predict(*arguments, **keywords)

        editor.predict_noise = counted
        state = KeptState(folder)
        try:
            found = adapter_curvature(editor, latents, 501, "", state=state)
            return found, safe_step(editor, latents, 501, "", found, state=state), done
        except KeyboardInterrupt:
            return None, None, done

    def test_every_kill_makes_progress(self, tmp_path):
        alone, step, evaluations = self.measure(None)
        kills, total = 0, 0
        while True:
            found, found_step, done = self.measure(tmp_path / "state", evaluations=3)
            total += done
            if found is not None:
                break
            kills += 1
            assert kills < evaluations
        # A kill costs the evaluations of the piece that it fell into, and those that give a pair its first frame.
        assert kills >= 3 and total <= evaluations + 3 * kills
        assert found.model == alone.model and found_step == step
        for name, value in alone.gradient.items():
            assert torch.equal(found.gradient[name], value)

    def test_damaged_piece_is_measured_again(self, tmp_path):
        alone, _, evaluations = self.measure(tmp_path / "state")
        pieces = sorted((tmp_path / "state").iterdir())
        assert len(pieces) > 4
        for path in pieces:
            path.write_bytes(path.read_bytes()[:-9])
        found, _, again = self.measure(tmp_path / "state")
        assert found.model == alone.model and again == evaluations
        for path in pieces:
            save_file({"loss": torch.zeros(2), "rows": torch.zeros(1), "similarities": torch.zeros(1)}, path)
        found, _, again = self.measure(tmp_path / "state")
        assert found.model == alone.model and again == evaluations

    def test_nothing_is_kept_without_a_folder(self):
        assert KeptState(None).get("a") is None
        KeptState(None).put("a", {"a": np.zeros(1)})
        assert sharpness_module.NOTHING.folder is None


def _may_mount():
    if shutil.which("unshare") is None:
        return False
    probe = "mount -t tmpfs -o size=64k tmpfs /mnt"
    return subprocess.run(["unshare", "-rm", "sh", "-c", probe], capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="module")
def mounting():
    """A server that may mount file systems of its own."""
    if not _may_mount():
        pytest.skip("this system lets nobody mount a small disk (unshare -rm); test_files.py fills one by other means")
    server = RunServer(("unshare", "-rm"))
    yield server
    server.close()


class TestDisk:
    def test_disk_full(self, inputs, mounting, undisturbed, tmp_path):
        """Whole files or none, one line and status 74; with a larger disk the same command goes on."""
        whole, _ = undisturbed["audit"]
        disk = tmp_path / "disk"
        disk.mkdir()
        full = 0
        for size in SIZES:
            mounting.shell(f"mount -t tmpfs -o size={size}k tmpfs {disk}")
            argv, options = command(inputs, "audit", disk / "out")
            done = mounting.run(*argv, **options)
            assert done["status"] in (0, 74), done
            if done["status"] == 74:
                full += 1
                said = [line for line in done["err"].splitlines() if line.startswith("framebound: ")]
                assert len(said) == 1 and "No space left on device" in said[0] and str(disk) in said[0], said
                assert "Traceback" not in done["err"]
                listing = mounting.ask(shell=f"find {disk} -name '*.part' ! -path '*/.*' ; cat {disk}/out/audit.json")
                assert "part" not in listing["out"] and (not listing["out"] or json.loads(listing["out"]))
            mounting.shell(f"mount -o remount,size=40m {disk}")
            done = mounting.run(*argv, **options)
            assert done["status"] == 0, done
            copy = tmp_path / f"copy{size}"
            mounting.shell(f"cp -r {disk}/out {copy} && umount {disk}")
            assert published(copy) == whole and leftovers(copy) == []
        assert full >= min(2, len(SIZES))

    @pytest.mark.parametrize("name", ["audit", "reproduce"])
    def test_read_only(self, inputs, mounting, tmp_path, name):
        disk = tmp_path / "disk"
        disk.mkdir()
        mounting.shell(f"mount -t tmpfs -o size=1m,ro tmpfs {disk}")
        argv, options = command(inputs, name, disk / "out")
        done = mounting.run(*argv, **options)
        mounting.shell(f"umount {disk}")
        assert done["status"] == 74 and "Read-only file system" in done["err"], done

    @pytest.mark.parametrize("largest", [6000, 30_000] if FULL else [6000])
    def test_file_that_may_not_grow(self, inputs, server, tmp_path, largest):
        """The limit on a file's size stops the same writes where nothing can be mounted."""
        argv, options = command(inputs, "audit", tmp_path / "out")
        done = server.run(*argv, **options, largest_file=largest)
        assert done["status"] == 74, done
        assert re.search(r"framebound: .* cannot be written \(File too large\)", done["err"])
        assert leftovers(tmp_path) == []


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "folder"])
def test_video_for_which_there_is_no_room(server, tmp_path, name):
    done = server.ask(read="video that is written", path=str(tmp_path / name), largest_file=1000)
    assert done["status"] == 74 and "File too large" in done["err"], done
    assert list(tmp_path.iterdir()) == []


def test_two_runs_into_one_folder(inputs, server, tmp_path):
    """The second is told who holds it."""
    argv, options = command(inputs, "audit", tmp_path / "out")
    with Store(tmp_path / "out" / "store").lock():
        done = server.run(*argv, **options)
    assert done["status"] == 2
    assert (
        f"is in use by process {os.getpid()} on " in done["err"] and "wait for it, or give another --out" in done["err"]
    )


def test_a_colon_in_a_name(inputs, server, tmp_path):
    """FFmpeg takes what stands before a colon for a protocol."""
    write_video(tmp_path / "a:b.mp4", clip(4, 32))
    done = server.run(
        "audit", "--video", "a:b.mp4", "--pipeline", inputs / "latent", "--steps", 4, "--out", tmp_path / "out", limit=1
    )
    # Relative to the working directory of the server, where it does not lie.
    assert done["status"] == 2
    from experiments.editor import read_video

    assert len(read_video(tmp_path / "a:b.mp4")) == 4
