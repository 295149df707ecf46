"""Whose fault an error is: what ends in exit status 2, in 74, and in 70; and files that are whole or not there."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import boundary, cli, errors, files
from experiments.errors import DiskError, UserError, is_mistake, printable, reading, writing
from experiments.files import PART, sweep, whole_file, whole_folder, write_bytes
from experiments.report import audit
from experiments.store import ROOT


def status(capsys, work):
    """Exit status of a command that does this, and the lines on stderr."""
    code = boundary.run(work, ["reproduce"])
    return code, capsys.readouterr().err.splitlines()


def fail(error):
    def work():
        raise error

    return work


def library_error():
    return [][0]


class TestBoundary:
    def test_mistake(self, capsys):
        code, lines = status(
            capsys, fail(UserError("size = 0", limit="at least 1 is needed", remedy="give a larger one"))
        )
        assert (code, lines) == (2, ["framebound: size = 0; at least 1 is needed; give a larger one"])

    def test_value_error_of_a_theorem_is_a_mistake(self, capsys):
        from theory.descent import feature_step_limit

        code, (line,) = status(capsys, lambda: feature_step_limit(8, -1.0))
        assert code == 2 and "-1.0" in line

    @pytest.mark.parametrize(
        "work",
        [
            lambda: int("x"),
            lambda: list(zip([1], [], strict=True)),
            lambda: b"\xff".decode(),
            library_error,
            lambda: {}["x"],
            fail(RuntimeError("odd")),
            fail(RecursionError()),
        ],
    )
    def test_everything_else_is_a_defect(self, capsys, work):
        """A ValueError of a library or of a builtin is none of the user's making."""
        code, lines = status(capsys, work)
        assert code == 70
        assert lines[0].startswith("framebound: this is a defect of framebound: ")
        assert any(line.startswith("  where:   tests/test_errors.py:") or "where:" in line for line in lines)
        assert any("command: framebound reproduce" in line for line in lines) and any(
            "report" in line for line in lines
        )

    def test_value_error_in_our_own_code_is_a_mistake_only_where_it_is_raised(self):
        """The same line of experiments/ may hold both."""
        for source, mine in (("raise ValueError('limit')", True), ("int('x')", False)):
            code = compile(source, str(ROOT / "experiments" / "made_up.py"), "exec")
            with pytest.raises(ValueError) as caught:  # noqa: PT011  the text is not the point
                exec(code)
            assert is_mistake(caught.value) is mine

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO])
    def test_disk(self, capsys, number, tmp_path):
        def work():
            with writing(tmp_path / "a"):
                raise OSError(number, os.strerror(number))

        code, (line,) = status(capsys, work)
        assert (
            code == 74
            and os.strerror(number) in line
            and str(tmp_path / "a") in line
            and "what was finished is kept" in line
        )

    def test_disk_behind_a_library(self, tmp_path):
        """A library in Rust has the number in its text only; another one raises while it handles the error."""
        with pytest.raises(DiskError, match="No space left on device"), writing(tmp_path):
            raise RuntimeError("I/O error: No space left on device (os error 28)")
        with pytest.raises(DiskError, match="Read-only"), writing(tmp_path):
            try:
                raise OSError(errno.EROFS, "Read-only file system")
            except OSError:
                None.close()

    def test_denied(self, tmp_path):
        """Where we write it is the disk's, where we read the user's."""
        with pytest.raises(DiskError, match="Permission denied"), writing(tmp_path / "a"):
            raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / ".a.part"))
        with pytest.raises(PermissionError), writing(tmp_path / "a"):
            raise PermissionError(errno.EACCES, "Permission denied", "/elsewhere/input")

    @pytest.mark.parametrize("name", [b"no such", b"\xff\x1b[2J"])
    def test_path_that_is_not_there(self, capsys, name):
        code, (line,) = status(capsys, lambda: open(name))
        assert code == 2 and "No such file" in line and "\x1b" not in line

    def test_out_of_memory(self, capsys):
        code, (line,) = status(capsys, fail(MemoryError()))
        assert code == 2 and "out of memory" in line

    def test_closed_pipe(self):
        """`framebound claims --json | head` is no failure of ours."""
        line = f"{sys.executable} -m experiments.cli claims --json | head -c 10; exit ${{PIPESTATUS[0]}}"
        done = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode in (0, 141) and "Traceback" not in done.stderr and "Exception ignored" not in done.stderr

    def test_stdout_that_is_full(self):
        line = f"{sys.executable} -m experiments.cli claims --json > /dev/full"
        done = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 74, done
        assert done.stderr.startswith("framebound: the output cannot be written (No space left on device)")
        assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr

    def test_without_a_home(self, tmp_path, monkeypatch):
        """A user whom the system does not know, in a bare environment."""
        from theory.compilation import keep_compiled_programs

        def unknown():
            raise RuntimeError("Could not determine home directory.")

        for name in ("HOME", "XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(Path, "home", unknown)
        assert keep_compiled_programs() is None

    def test_without_letters(self):
        """A terminal that knows ASCII only."""
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
        done = subprocess.run(
            [sys.executable, "-m", "experiments.cli", "claims"],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr


class TestReading:
    def test_error_of_a_library_names_the_file(self):
        with pytest.raises(UserError, match=r"the clip a\.mp4 cannot be read \(IndexError: list index .*give another"):
            with reading("the clip a.mp4", "give another"):
                library_error()

    @pytest.mark.parametrize(
        "error", [UserError("mine"), DiskError("a", "full"), MemoryError(), FileNotFoundError(2, "no", "x")]
    )
    def test_what_says_whose_fault_it_is_passes(self, error):
        with pytest.raises(type(error)) as caught, reading("a", "b"):
            raise error
        assert caught.value is error

    def test_where_an_error_is_not_the_files(self):
        with pytest.raises(KeyboardInterrupt), reading("a", "b"):
            raise KeyboardInterrupt


class TestFiles:
    def test_failure_leaves_the_old_file(self, tmp_path):
        (tmp_path / "a").write_text("old")
        with pytest.raises(ZeroDivisionError), whole_file(tmp_path / "a") as temporary:
            temporary.write_text("half")
            1 / 0
        assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "old")]

    def test_disk_that_fills_while_a_file_is_written(self, tmp_path, monkeypatch):
        (tmp_path / "a").write_text("old")

        def full(handle):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(files.os, "fsync", full)
        with pytest.raises(DiskError):
            write_bytes(tmp_path / "a", b"new")
        assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "old")]

    def test_sweep_leaves_alone_what_is_being_written(self, tmp_path):
        (tmp_path / f".old.x{PART}").write_text("left by a killed run")
        (tmp_path / f".old.y{PART}").mkdir()
        (tmp_path / f".old.y{PART}" / "new").write_text("and this")
        (tmp_path / ".hidden.part").write_text("a user's own")
        with whole_file(tmp_path / "a") as temporary, whole_folder(tmp_path / "b") as new:
            assert sweep(tmp_path) == [f".old.x{PART}", f".old.y{PART}"]
            temporary.write_text("a")
            (new / "c").write_text("c")
        assert {path.name for path in tmp_path.iterdir()} == {"a", "b", ".hidden.part"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain – ö", "plain – ö"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("a\nb", r"a\nb"),
        ("\x9b2J", r"\x9b2J"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\udcff", r"\udcff"),
    ],
)
def test_what_a_terminal_would_obey_is_shown(text, shown):
    assert printable(text) == shown


def test_long_names_are_written(tmp_path):
    write_bytes(tmp_path / ("x" * 250), b"a")
    with whole_folder(tmp_path / ("y" * 250)):
        pass
    assert {len(path.name) for path in tmp_path.iterdir()} == {250}


def test_git_is_asked_without_its_lock(monkeypatch):
    """A commit that somebody makes at the same time must not find the repository locked by us."""
    asked = []

    def run(command, **options):
        asked.append(options["env"]["GIT_OPTIONAL_LOCKS"])
        raise OSError("no git")

    monkeypatch.setattr(audit.subprocess, "run", run)
    assert audit.current_commit() is None and asked == ["0"]


def test_exit_statuses_are_those_of_sysexits():
    assert (errors.EXIT_DEFECT, errors.EXIT_DISK) == (os.EX_SOFTWARE, os.EX_IOERR)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["reproduce", "--prompt", "a \udcff video"], ["source_prompt", "no UTF-8"]),
        (["reproduce", "--threads", "0"], ["--threads = 0", "1 to 1024"]),
        (
            ["reproduce", "--edit", "a sepia video of a grey wolf"],
            ["15 tokens", "takes 12", "grey 4, wolf 4", "shorten it"],
        ),
        (["report", "run[/red]"], ["run[/red] is no folder"]),
        (["report", "\x1b[2Jrun"], [r"\x1b[2Jrun is no folder"]),
        (["reproduce", "--pipeline", "no/\x1b[31msuch"], [r"no/\x1b[31msuch is no folder"]),
    ],
)
def test_odd_words_on_the_command_line(capsys, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert cli._run(arguments) == 2
    said = capsys.readouterr().err
    assert all(word in said for word in words), said
    assert "\x1b" not in said.replace("\x1b[?25l", "").replace("\x1b[?25h", "") and "Traceback" not in said
    # The training, which takes minutes, has not begun.
    assert not list(tmp_path.glob("out/store/adapter-*"))
