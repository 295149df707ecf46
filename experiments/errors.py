"""Whose fault an error is: the user's, the disk's, or ours.

The command line turns a `UserError` into one line and exit status 2 and a `DiskError` into one line and exit status 74.
Anything else is a defect of this program and ends with exit status 70. The theorems in theory/ do not know of this
package and raise plain ValueErrors for arguments outside their hypotheses; `is_mistake` takes a ValueError that a raise
statement of this project made for a UserError as well, and no ValueError of a library.
"""

import contextlib
import dis
import errno
import os
import re
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

EXIT_CHECK_FAILED = 1
EXIT_MISTAKE = 2
EXIT_DEFECT = 70
EXIT_DISK = 74
"""70 and 74 are EX_SOFTWARE and EX_IOERR of sysexits.h."""

SHOW_TRACEBACK = "FRAMEBOUND_TRACEBACK"
"""Environment variable that makes the command line show where an error was raised."""

_OURS = tuple(Path(__file__).resolve().parent.parent / folder for folder in ("theory", "experiments"))
# Quota, read-only, device and size limits: what a disk says when it does not take what is written.
_DISK_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG, errno.ESTALE}
_DENIED = {errno.EACCES, errno.EPERM}
# Of libraries that are written in Rust, whose exceptions carry the system's error as text only.
_RUST_ERRNO = re.compile(r"\(os error (\d+)\)")
_DISK_REMEDY = "free some space or give another folder, and run the same command again: what was finished is kept"


class UserError(ValueError):
    """A mistake in the call, or in a file that was given.

    Args:
        problem: what was found, with the file and the value.
        limit: what is allowed.
        remedy: what to do.
    """

    def __init__(self, problem: str, *, limit: str = "", remedy: str = "") -> None:
        self.problem, self.limit, self.remedy = problem, limit, remedy
        super().__init__("; ".join(part for part in (problem, limit, remedy) if part))


class OutOfMemory(UserError):
    """The memory of the machine or of the device does not suffice for what was asked."""


class DeviceLost(UserError):
    """The device that was asked for is gone, or failed."""


class DiskError(Exception):
    """A file could not be written: the disk is full, read-only or failing.

    Args:
        path: what was being written.
        reason: in the system's words.
        number: the system's error number, None where a library kept it to itself.
    """

    def __init__(self, path: str | os.PathLike[str], reason: str, number: int | None = None) -> None:
        self.path, self.reason, self.number = Path(path), reason, number
        super().__init__(f"{path} cannot be written ({reason}); {_DISK_REMEDY}")


def is_mistake(error: BaseException) -> bool:
    """Whether an error is a `UserError`, or a ValueError that a raise statement of theory/ or experiments/ made."""
    if isinstance(error, UserError):
        return True
    return isinstance(error, ValueError) and _raised_here(error.__traceback__)


def _raised_here(traceback: TracebackType | None) -> bool:
    frame = _innermost(traceback)
    if frame is None:
        return False
    code = frame.tb_frame.f_code
    # int("x") in our code raises in the same frame, and is a defect: only the instruction tells the two apart.
    return _is_ours(code.co_filename) and dis.opname[code.co_code[frame.tb_lasti]] == "RAISE_VARARGS"


def _innermost(traceback: TracebackType | None) -> TracebackType | None:
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback


def _is_ours(file: str) -> bool:
    # The theorems may be another copy than the one beside this package.
    theorems = getattr(sys.modules.get("theory"), "__file__", None)
    folders = _OURS if theorems is None else (*_OURS, Path(theorems).parent)
    return any(Path(file).is_relative_to(folder) for folder in folders)


def where(error: BaseException) -> str:
    """File, line and function of this project that an error passed through last, or of whoever raised it."""
    found, traceback = None, error.__traceback__
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if found is None or _is_ours(code.co_filename) or not _is_ours(found[0]):
            found = (code.co_filename, traceback.tb_lineno, code.co_name)
        traceback = traceback.tb_next
    if found is None:
        return "an unknown place"
    file = Path(found[0])
    root = _OURS[0].parent
    shown = file.relative_to(root) if file.is_relative_to(root) else file
    return f"{shown}:{found[1]} in {found[2]}"


@contextlib.contextmanager
def reading(what: str, remedy: str) -> Iterator[None]:
    """Turn whatever is raised over a file that nobody can make sense of into a `UserError` that names it.

    Args:
        what: the file, and what it was taken for.
        remedy: what to do about it.

    Raises:
        UserError: for every Exception but those that already say whose fault they are, and those of memory and disk.
    """
    try:
        yield
    except Exception as error:
        # Where the system names the file and the reason, nothing has to be added.
        told = isinstance(error, OSError) and error.errno is not None and error.filename is not None
        if told or isinstance(error, DiskError) or is_mistake(error) or is_out_of_memory(error):
            raise
        reason = f"{type(error).__name__}: {first_line(str(error))}"
        raise UserError(
            f"{what} cannot be read ({reason}, at {where(error)})",
            remedy=f"{remedy}; if other programs read it, this is a defect of framebound: report it with the output"
            f" under {SHOW_TRACEBACK}=1",
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is no memory left; torch has no class for it on the CPU."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and "allocate memory" in str(error))
    )


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn what the system says when it does not take a file into a `DiskError`.

    Args:
        path: what is written; temporary files lie beside it.

    Raises:
        DiskError: the disk is full, read-only or failing, or the folder may not be written to.
    """
    path = Path(path)
    try:
        yield
    except Exception as error:
        number = None if isinstance(error, DiskError) or is_mistake(error) else _refused(error, path)
        if number is None:
            raise
        raise DiskError(path, os.strerror(number), number) from error


def is_refusal_of_a_disk(error: BaseException) -> bool:
    """Whether the system says that a disk is full, read-only or failing."""
    return isinstance(error, OSError) and error.errno in _DISK_ERRNOS


def _refused(error: BaseException | None, path: Path) -> int | None:
    """The error number of a refused write behind an error, however many handlers it went through; None without one."""
    while error is not None:
        number = error.errno if isinstance(error, OSError) else None
        if number is None and (match := _RUST_ERRNO.search(str(error))):
            number = int(match[1])
        if number in _DISK_ERRNOS:
            return number
        # An input that may not be read is the user's business, not the disk's.
        if number in _DENIED and _lies_at(getattr(error, "filename", None), path):
            return number
        error = error.__cause__ or error.__context__
    return None


def _lies_at(name: object, path: Path) -> bool:
    if not isinstance(name, str | bytes | os.PathLike):
        return False
    named = Path(os.path.abspath(os.fsdecode(name)))
    return named == path.absolute() or named.is_relative_to(path.absolute().parent)


def first_line(text: str) -> str:
    """The first line of a text that is not empty, or a word that says there is none."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "no reason given")


# Categories of Unicode that a terminal or a page obeys instead of showing: controls, formats, halves of surrogates.
_OBEYED = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def printable(text: str) -> str:
    """A text in which whatever a terminal would obey instead of showing is written as an escape, on one line."""
    return "".join(
        letter if unicodedata.category(letter) not in _OBEYED else letter.encode("unicode_escape").decode("ascii")
        for letter in text
    )
