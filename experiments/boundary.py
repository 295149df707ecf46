"""The one boundary at which errors become an exit status.

    0    every check supports its verdict        2    a mistake in the call or in a file that was given
    1    a check does not                        70   a defect of framebound        74   the disk does not take a file
    130, 143, 129   interrupted by Ctrl-C, SIGTERM, SIGHUP

Each but 0 and 1 comes with one line on stderr that begins with "framebound: "; a defect with a few more.
"""

import contextlib
import errno
import os
import platform
import shlex
import sys
import traceback
from collections.abc import Callable

from experiments import interrupts
from experiments.errors import (
    EXIT_DEFECT,
    EXIT_DISK,
    EXIT_MISTAKE,
    SHOW_TRACEBACK,
    DiskError,
    first_line,
    is_mistake,
    is_out_of_memory,
    is_refusal_of_a_disk,
    printable,
    where,
)

EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141
"""What a shell reports where the reader of a pipe has gone: 128 and SIGPIPE."""
INTERRUPTED = "interrupted"
GOES_ON = ("audit", "reproduce", "train")
"""The commands that go on where they were."""
# What the system says about a path that somebody typed.
_PATH_ERRNOS = {
    errno.EACCES,
    errno.EEXIST,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EPERM,
    errno.ENXIO,
}


def run(command: Callable[[], int | None], arguments: list[str]) -> int:
    """Run a command and turn whatever comes out of it into an exit status and a line on stderr.

    Args:
        command: returns its exit status, None for 0.
        arguments: of the command line, for the messages.
    """
    line = f"framebound {shlex.join(arguments)}"
    try:
        status = command()
        sys.stdout.flush()
        # typer turns an interrupt into this status, without a word.
        if status == EXIT_INTERRUPTED or interrupts.received() is not None:
            return _interrupted(arguments)
        return status or 0
    except KeyboardInterrupt:
        return _interrupted(arguments)
    except BrokenPipeError:
        _forget_output()
        return EXIT_BROKEN_PIPE
    except Exception as error:
        if interrupts.received() is not None:
            # Whatever a library made of the interrupt.
            return _interrupted(arguments)
        if os.environ.get(SHOW_TRACEBACK):
            traceback.print_exc()
        return _status(error, line)


def _interrupted(arguments: list[str]) -> int:
    number = interrupts.received()
    goes_on = "; the same command goes on where it was" if arguments[:1] and arguments[0] in GOES_ON else ""
    return _complain(INTERRUPTED + goes_on, EXIT_INTERRUPTED if number is None else interrupts.exit_status(number))


def _status(error: Exception, command: str) -> int:
    """Say whose fault an error is; the exit status."""
    # Usage errors of the command-line parser, whose classes typer does not export.
    status, message = getattr(error, "exit_code", None), getattr(error, "format_message", None)
    if status is not None:
        if not message:
            return status
        # The parser names the option and the limit, and not always the value.
        return _complain(f"{message()} (in: {command})", status)
    if isinstance(error, DiskError):
        return _complain(str(error), EXIT_DISK)
    if is_refusal_of_a_disk(error):
        # Whatever is written to files says which; what is left is the output.
        _forget_output()
        return _complain(str(DiskError("the output", os.strerror(error.errno), error.errno)), EXIT_DISK)
    if is_mistake(error):
        return _complain(str(error), EXIT_MISTAKE)
    if is_out_of_memory(error):
        return _complain("out of memory; close other programs, or ask for less: see --help", EXIT_MISTAKE)
    if isinstance(error, OSError) and error.errno in _PATH_ERRNOS and error.filename is not None:
        name = os.fsdecode(error.filename)
        return _complain(f"{name}: {error.strerror}; check the path and its permissions", EXIT_MISTAKE)
    return _defect(error, command)


def _forget_output() -> None:
    """Send what is left of the output nowhere: Python flushes it once more when it ends."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _defect(error: Exception, command: str) -> int:
    from experiments.store import library_versions

    versions = library_versions(("framebound", "torch", "jax", "numpy"))
    named = ", ".join(f"{name} {number}" for name, number in versions.items())
    _complain(f"this is a defect of framebound: {type(error).__name__}: {first_line(str(error))}", EXIT_DEFECT)
    for line in (
        f"where:   {where(error)}",
        f"command: {command}",
        f"with:    {named}, Python {platform.python_version()}",
        f"Please report these lines where you got framebound from; the same command with {SHOW_TRACEBACK}=1 before it "
        "shows more.",
    ):
        sys.stderr.write(f"  {printable(line)}\n")
    return EXIT_DEFECT


def _complain(line: str, status: int) -> int:
    sys.stderr.write(f"framebound: {printable(' '.join(line.split()))}\n")
    return status
