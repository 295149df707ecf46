"""The command line: a user's mistake is one line and exit status 2, a failed check exit status 1, and --help imports
nothing heavy.
"""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from experiments import boundary, cli, reproduce
from experiments.editor import write_video
from experiments.settings import Settings
from experiments.store import ROOT


def complaint(capsys, *arguments):
    """The one line that a mistaken command line ends in."""
    status = cli._run([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    assert status == boundary.EXIT_MISTAKE, captured
    lines = [line for line in captured.err.splitlines() if line.strip()]
    assert "Traceback" not in captured.err
    assert lines[-1].startswith("framebound: ")
    # A progress bar may have been drawn above the line.
    assert sum(line.startswith("framebound: ") for line in lines) == 1
    return lines[-1]


@pytest.fixture
def run(capsys, tmp_path):
    """`run("--frames", 2)` gives the line that `framebound reproduce --frames 2` ends in."""
    return lambda *arguments: complaint(capsys, "reproduce", "--out", tmp_path / "out", *arguments)


@pytest.mark.parametrize(
    "command", [[], ["reproduce"], ["audit"], ["claims"], ["figures"], ["report"], ["train"], ["bench"]]
)
def test_help_is_fast(command):
    """Neither torch nor JAX, whose imports take seconds, may be needed to print a help text."""
    script = (
        "import sys; from experiments import cli\n"
        f"status = cli._run({[*command, '--help']!r})\n"
        "heavy = {'torch', 'jax', 'diffusers', 'matplotlib', 'scipy', 'numpy'} & sys.modules.keys()\n"
        "sys.exit(f'imported {heavy}' if heavy else status)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    commands = ("reproduce", "audit", "claims", "figures", "report", "train", "bench")
    for option in ("--out", "--seed", "--json") if command else commands:
        # What only draws and writes again takes no seed.
        if not (command in (["figures"], ["report"]) and option == "--seed"):
            assert option in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--profile", "medium"], ["'medium'", "small", "full"]),
        (["--seed", "-1"], ["-1", "0"]),
        (["--frames", "2"], ["num_frames = 2", "3"]),
        (["--steps", "2"], ["num_steps = 2", "3"]),
        (["--adapter-steps", "0"], ["adapter_steps = 0", "1"]),
        (["--clip", "cars"], ["'cars'", "carphone"]),
        (["--claim", "C9.none"], ["'C9.none'", "C1.hessian"]),
        (["--video", "no/such.mp4"], ["no/such.mp4"]),
        (["--pipeline", "no/such/folder"], ["no/such/folder"]),
        (["--device", "abacus"], ["abacus"]),
        (["--frames", "many"], ["many"]),
    ],
)
def test_mistakes_of_reproduce(run, arguments, words):
    line = run(*arguments)
    for word in words:
        assert word in line


def test_video_with_two_frames(run, tmp_path):
    video = tmp_path / "short.gif"
    write_video(video, np.zeros((2, 16, 16, 3), dtype=np.float32))
    line = run("--video", video)
    assert "2 frames" in line and "3" in line


def test_video_that_cannot_be_decoded(run, tmp_path):
    video = tmp_path / "noise.mp4"
    video.write_bytes(bytes(range(256)) * 8)
    assert "noise.mp4" in run("--video", video)


def test_out_is_a_file(capsys, tmp_path):
    (tmp_path / "taken").write_text("")
    assert "is a file" in complaint(capsys, "reproduce", "--out", tmp_path / "taken")


def test_out_lies_under_a_file(capsys, tmp_path):
    (tmp_path / "taken").write_text("")
    assert "taken" in complaint(capsys, "reproduce", "--out", tmp_path / "taken" / "out")


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_learning_rate_must_be_positive(rate):
    with pytest.raises(ValueError, match=r"learning_rate = .*> 0"):
        Settings(learning_rate=rate)


def test_unknown_command_and_option(capsys):
    assert "decide" in complaint(capsys, "decide")
    assert "--speed" in complaint(capsys, "reproduce", "--speed", "1")


def test_unknown_claim_lists_the_ids(capsys):
    line = complaint(capsys, "claims", "--check", "C1.none")
    assert "'C1.none'" in line and "C1.hessian" in line and "C3.round-trip" in line


def test_claims_as_json(capsys):
    assert cli._run(["claims", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"C1", "C2", "C3"} <= {row["group"] for row in rows}
    for row in rows:
        assert (ROOT / row["file"]).is_file()
        assert row["statement"] and row["latex"] and row["hypotheses"] and row["origin"]


def test_claims_as_text_and_file(capsys, tmp_path):
    assert cli._run(["claims", "--out", str(tmp_path / "claims.json")]) == 0
    text = capsys.readouterr().out
    rows = json.loads((tmp_path / "claims.json").read_text())
    assert all(row["id"] in text for row in rows)


def test_figures_without_data(capsys, tmp_path):
    assert "is no folder" in complaint(capsys, "figures", "--out", tmp_path / "none")
    assert "no figure data" in complaint(capsys, "figures", "--out", tmp_path)
    (tmp_path / "broken.json").write_text("{")
    assert "broken.json is no JSON" in complaint(capsys, "figures", "--out", tmp_path)


def test_report_without_an_audit(capsys, tmp_path):
    assert "is no folder" in complaint(capsys, "report", tmp_path / "none")
    assert "holds no audit.json" in complaint(capsys, "report", tmp_path)
    (tmp_path / "audit.json").write_text("[]")
    shutil.copy(ROOT / "figures" / "film_strip.json", tmp_path)
    shutil.copy(ROOT / "figures" / "film_strip.png", tmp_path)
    shutil.copy(ROOT / "figures" / "film_strip.pdf", tmp_path)
    assert "no audit.json that this version reads" in complaint(capsys, "report", tmp_path)
    assert "is a file" in complaint(capsys, "report", tmp_path, "--out", tmp_path / "audit.json")
    assert not list(tmp_path.glob("report*"))


def test_readme_mistakes(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "README.md is not in the current folder" in complaint(capsys, "claims", "--readme")
    (tmp_path / "README.md").write_text("no markers")
    assert "markers" in complaint(capsys, "claims", "--readme")
    (tmp_path / "audit.json").write_text("[]")
    assert "no audit.json that this version reads" in complaint(capsys, "claims", "--readme", "--audit", "audit.json")


def test_unknown_benchmark(capsys):
    assert "'sleep'" in complaint(capsys, "bench", "--only", "sleep")


def test_failed_check_is_status_1(capsys, tmp_path, monkeypatch):
    """The exit status is what a continuous-integration job reads."""
    audit = {
        "passed": False,
        "failures": ["C1.x: attack: ratio 1.2"],
        "claims": [],
        "paper_claims": [],
    }
    monkeypatch.setattr(reproduce, "reproduce", lambda *arguments, **keywords: audit)
    assert cli._run(["reproduce", "--out", str(tmp_path)]) == cli.EXIT_CHECK_FAILED
    assert "C1.x: attack: ratio 1.2" in capsys.readouterr().err
    assert cli._run(["reproduce", "--out", str(tmp_path), "--json"]) == cli.EXIT_CHECK_FAILED
    assert json.loads(capsys.readouterr().out) == audit


def test_interrupt_is_one_line(capsys, tmp_path, monkeypatch):
    def interrupt(*arguments, **keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr(reproduce, "reproduce", interrupt)
    assert cli._run(["reproduce", "--out", str(tmp_path)]) == boundary.EXIT_INTERRUPTED
    assert "goes on where it was" in capsys.readouterr().err


def test_a_defect_of_ours_is_no_mistake_of_the_user(capsys, tmp_path, monkeypatch):
    """Exit status 70, with where it happened; the traceback only where it is asked for."""

    def fail(*arguments, **keywords):
        raise ArithmeticError("not finite")

    monkeypatch.setattr(reproduce, "reproduce", fail)
    assert cli._run(["reproduce", "--out", str(tmp_path)]) == 70
    said = capsys.readouterr().err
    assert "framebound: this is a defect of framebound: ArithmeticError: not finite" in said
    assert "where:   experiments/cli.py:" in said and "report" in said and "Traceback" not in said
    monkeypatch.setenv("FRAMEBOUND_TRACEBACK", "1")
    assert cli._run(["reproduce", "--out", str(tmp_path)]) == 70
    assert "Traceback" in capsys.readouterr().err
