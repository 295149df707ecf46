"""Runs command lines of framebound in forks of one process that has imported everything, so that a run costs no start.

Lines of JSON come in on stdin and go out on stdout. {"argv": [..], "signal": 9, "after": 1.5, "toy": true} runs a
command line, sends it a signal after so many seconds, and answers {"status": .., "seconds": .., "out": .., "err":
..}, where a negative status is the number of the signal that ended it. {"shell": ".."} runs a command of the shell.
{"read": "clip", "path": ".."} reads a file as the commands do, within 4 GB and a minute of the processor; the kinds
are in READERS.
"""

import contextlib
import dataclasses
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

TESTS = Path(__file__).resolve().parent


class RunServer:
    """The other end: start it, ask it, and close it.

    Args:
        prefix: a command that it is started by, for example one that gives it mounts of its own.
    """

    def __init__(self, prefix=()):
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]),
            "OMP_NUM_THREADS": "1",
        }
        self.process = subprocess.Popen(
            [*prefix, sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=TESTS.parent,
        )

    def ask(self, **request):
        """The answer to a request."""
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"the server ended with status {self.process.wait()}"
        return json.loads(line)

    def run(self, *argv, **request):
        """What became of a command line."""
        return self.ask(argv=[str(argument) for argument in argv], **request)

    def shell(self, command):
        """A command of the shell, which has to succeed."""
        answer = self.ask(shell=command)
        assert answer["status"] == 0, answer["err"]

    def close(self):
        """End the server."""
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self.process.stdout.close()


def _small_reproduce():
    """A toy claim instead of the theorems, one study, the fewest frames and steps; as in test_reproduce."""
    import toy
    from experiments import reproduce, settings, stages
    from experiments.report import audit

    claim = toy.claim()
    reproduce.chosen_claims = lambda asked: (claim,)
    reproduce.NAMES = ("film_strip",)
    audit.claim_module = lambda chosen: stages
    smallest = dataclasses.asdict(toy.settings("none"))
    settings.Settings.preset = classmethod(
        lambda cls, profile, **asked: cls(
            **{**smallest, **{name: value for name, value in asked.items() if value is not None}}
        )
    )


def _read_pipeline(path, request):
    """Load it and predict once: what does not fit together shows in the first evaluation."""
    import torch
    from experiments import stages
    from experiments.errors import reading
    from experiments.settings import Settings

    editor = stages._load(Settings(pipeline=str(path)), torch.float32)
    with reading(f"the pipeline {path}", "copy it again"):
        size = editor.frame_size
        editor.encode_prompt("a video")
        if size <= 64:
            latents = torch.zeros(1, editor.pipeline.unet.config.in_channels, size, size)
            editor.predict_noise(latents, 1, "a video")


def _read_adapter(path, request):
    from experiments.audit import AuditSettings
    from experiments.audit.run import _Run
    from experiments.engine import Silent
    from experiments.store import Store

    asked = AuditSettings(video=request["clip"], pipeline=request["pipeline"], adapter=str(path))
    _Run(asked, Store(path.parent / "store"), Silent()).editor  # noqa: B018  reading it loads the adapter


def _read_clip(path, request):
    from experiments import stages
    from experiments.settings import Settings

    stages._clip_frames(Settings(video=str(path)), 16)


def _read_results(path, request):
    from experiments.report.page import write_report

    write_report(path.parent, path.parent / "written")


def _read_figure(path, request):
    from experiments.studies.style import redraw

    redraw(path.parent)


def _write_video(path, request):
    import numpy as np
    from experiments.editor import write_video

    write_video(path, np.random.default_rng(0).random((4, 64, 64, 3)).astype(np.float32))


READERS = {
    "video that is written": _write_video,
    "pipeline": _read_pipeline,
    "adapter": _read_adapter,
    "clip": _read_clip,
    "results": _read_results,
    "figure": _read_figure,
}


def _child(request, out, err):
    os.dup2(out.fileno(), 1)
    os.dup2(err.fileno(), 2)
    sys.argv = ["framebound", *request.get("argv", ())]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    if request.get("largest_file"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["largest_file"], request["largest_file"]))
    status = 99
    try:
        if "read" in request:
            from experiments import boundary

            resource.setrlimit(resource.RLIMIT_DATA, (4 * 2**30, 4 * 2**30))
            # Of the processor: a busy machine is no fault of the reader's.
            resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
            raise SystemExit(boundary.run(lambda: READERS[request["read"]](Path(request["path"]), request), ["fuzz"]))
        from experiments import cli

        # Somebody may commit while the tests run.
        from experiments.audit import run
        from experiments.report import audit

        run.current_commit = audit.current_commit = lambda: "0" * 40
        if request.get("toy"):
            _small_reproduce()
        cli.main()
    except SystemExit as error:
        status = error.code or 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _run(request):
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        start = time.monotonic()
        child = os.fork()
        if child == 0:
            _child(request, out, err)
        sent = False
        while True:
            ended, status = os.waitpid(child, os.WNOHANG)
            passed = time.monotonic() - start
            if ended:
                break
            if request.get("after") is not None and passed >= request["after"] and not sent:
                os.kill(child, request["signal"])
                sent = True
            if passed > request.get("limit", 300):
                os.kill(child, signal.SIGKILL)
            time.sleep(0.003)
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read())
        code = os.waitstatus_to_exitcode(status)
        return {"status": code, "seconds": passed, "out": texts[0], "err": texts[1], "sent": sent}


def _serve():
    warnings.simplefilter("ignore")
    import experiments.audit.run
    import experiments.reproduce  # noqa: F401

    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        request = json.loads(line)
        if "shell" in request:
            done = subprocess.run(request["shell"], shell=True, capture_output=True, text=True, check=False)
            answer = {"status": done.returncode, "out": done.stdout, "err": done.stderr}
        else:
            answer = _run(request)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    _serve()
