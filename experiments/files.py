"""Files that are written whole or not at all."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from experiments.errors import UserError, writing

PART = ".framebound.part"
"""How the names of half-written files and folders end; they begin with a dot, and nobody else's do both."""


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path beside `path`, which becomes `path` only when the block ends without an error.

    The temporary lies in the same folder because os.replace is atomic within one file system only. It is locked while
    it is written, so that `sweep` tells one that a killed process left from one that is in use.

    Raises:
        UserError: the folder of `path` does not exist, or `path` is a folder.
        DiskError: the disk does not take it; whatever was at `path` is as it was.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise UserError(f"{path}: the folder {path.parent} does not exist", remedy="create it first")
    if path.is_dir():
        raise UserError(f"{path} is a folder", remedy="give the name of a file")
    with writing(path), contextlib.ExitStack() as stack:
        handle, temporary = _locked_temporary(path)
        stack.callback(os.close, handle)
        stack.callback(_discard, temporary)
        yield temporary
        # mkstemp makes files private to the user; the finished file gets the permissions any new file gets.
        temporary.chmod(0o666 & ~_umask())
        # Some file systems find out here that they are full.
        with temporary.open("rb") as content:
            os.fsync(content.fileno())
        os.replace(temporary, path)


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file, whole or not at all.

    Raises:
        UserError, DiskError: see `whole_file`.
    """
    with whole_file(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file in UTF-8, whole or not at all.

    Raises:
        UserError, DiskError: see `whole_file`.
    """
    write_bytes(path, text.encode("utf-8"))


@contextlib.contextmanager
def whole_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Like `whole_file` for a folder. An existing folder at `path` is replaced, after the new one is complete.

    Raises:
        UserError: the parent of `path` does not exist, or `path` is a file.
        DiskError: the disk does not take it; whatever was at `path` is as it was.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise UserError(f"{path}: the folder {path.parent} does not exist", remedy="create it first")
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file", remedy="give the name of a folder")
    with writing(path), contextlib.ExitStack() as stack:
        # Both the new folder and the old one set aside live in here, so that one removal clears up after any failure.
        workplace = Path(tempfile.mkdtemp(prefix=_prefix(path), suffix=PART, dir=path.parent))
        stack.callback(shutil.rmtree, workplace, ignore_errors=True)
        handle = os.open(workplace, os.O_RDONLY)
        stack.callback(os.close, handle)
        _hold(handle)
        new, old = workplace / "new", workplace / "old"
        new.mkdir()
        yield new
        if path.exists():
            os.replace(path, old)
        try:
            os.replace(new, path)
        except OSError:
            if old.exists():
                os.replace(old, path)
            raise


def make_folder(path: str | os.PathLike[str]) -> Path:
    """A folder with its parents, created where it is missing.

    Raises:
        UserError: a file is in its way.
        DiskError: the disk does not take it.
    """
    path = Path(path)
    with writing(path):
        try:
            path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise UserError(f"{error.filename or path} is a file", remedy="give a folder") from None
    return path


def sweep(folder: str | os.PathLike[str]) -> list[str]:
    """Remove what killed processes left half-written in a folder; what another process is writing stays.

    Returns:
        The names that were removed.
    """
    removed = []
    for leftover in sorted(Path(folder).glob(f".*{PART}")):
        try:
            handle = os.open(leftover, os.O_RDONLY)
        except OSError:
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)
            removed.append(leftover.name)
        except OSError:
            continue
        finally:
            os.close(handle)
    return removed


def _locked_temporary(path: Path) -> tuple[int, Path]:
    while True:
        handle, name = tempfile.mkstemp(prefix=_prefix(path), suffix=PART, dir=path.parent)
        _hold(handle)
        # Between the two calls a sweep may have taken it for a leftover.
        if os.path.exists(name):
            return handle, Path(name)
        os.close(handle)


def _prefix(path: Path) -> str:
    # A name may have 255 bytes, and the temporary's is longer.
    return f".{path.name[:40]}."


def _hold(handle: int) -> None:
    # Some network file systems know no locks; then nothing is swept there.
    with contextlib.suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX)


def _discard(temporary: Path) -> None:
    # On a disk that turned read-only nothing can be removed, and the error that matters is on its way already.
    with contextlib.suppress(OSError):
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
