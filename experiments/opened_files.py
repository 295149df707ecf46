"""Which files decided a result: every loader says here which file it is about to open.

A stored result is found by the digests of the files that were named in the call. A file may lead to another that was
not named: a link, the settings beside an adapter, a list of other files. Loaders `record` each file before they open
it, and what was recorded beyond the named files is kept with the result and compared again before the result is
reused.

    with recording() as opened:
        editor = load_editor(path)      # calls record(file) for each file
    opened.digests                      # {absolute path: SHA-256, or None where there was no such file}
"""

import contextlib
import functools
import hashlib
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from experiments.errors import UserError

_SETTLED = 2 * 10**9
"""Nanoseconds after which a file's times tell whether it changed."""

_active: list["OpenedFiles"] = []


class OpenedFiles:
    """The files that were recorded, by absolute path, with their digests at that time."""

    def __init__(self) -> None:
        self.digests: dict[str, str | None] = {}

    def add(self, path: Path) -> None:
        """Take a file, a folder, or a path where there is neither."""
        self.digests[os.path.abspath(path)] = digest_of(path)

    def changed(self) -> str | None:
        """The first recorded path whose content is another one by now."""
        return first_changed(self.digests)

    def beyond(self, named: Mapping[str, str | None]) -> dict[str, str | None]:
        """What was recorded and neither named itself nor lies in a folder that was named."""
        folders = [Path(name) for name in named if os.path.isdir(name)]
        return {
            path: digest
            for path, digest in self.digests.items()
            if path not in named and not any(Path(path).is_relative_to(folder) for folder in folders)
        }


@contextlib.contextmanager
def recording() -> Iterator[OpenedFiles]:
    """Yield the list that `record` adds to for the duration of the block; blocks may be nested."""
    opened = OpenedFiles()
    _active.append(opened)
    try:
        yield opened
    finally:
        _active.remove(opened)


def record(path: str | os.PathLike[str]) -> Path:
    """Say that the file at `path` is about to be read, or that it would be if it were there.

    Args:
        path: a file, or a folder whose files are all read.

    Returns:
        The path.
    """
    path = Path(path)
    for opened in _active:
        opened.add(path)
    return path


def first_changed(digests: Mapping[str, str | None]) -> str | None:
    """The first path whose content is not what these digests say."""
    return next((path for path, digest in digests.items() if digest_of(Path(path)) != digest), None)


def digest_bytes(content: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def digest_file(path: Path) -> str:
    """SHA-256 of the content of a regular file, links followed.

    Raises:
        UserError: it is a pipe or a device, which can be read once only, or for ever.
    """
    path = Path(path)
    stat = path.stat()
    if not path.is_file():
        raise UserError(
            f"{path} is no regular file", limit="a pipe or a device cannot be read twice", remedy="copy it into a file"
        )
    times = stat.st_mtime_ns, stat.st_ctime_ns
    digest = _digest_unless_changed
    if time.time_ns() - max(times) < _SETTLED:
        # Clocks of file systems tick slowly: a file that was written a moment ago may change again within one tick.
        digest = digest.__wrapped__
    return digest(os.path.realpath(path), (stat.st_dev, stat.st_ino, stat.st_size, *times))


@functools.lru_cache(maxsize=4096)
def _digest_unless_changed(path: str, signature: tuple[int, ...]) -> str:
    """Large weights are read once a process: a file whose inode, size and times are the same is the same file."""
    with open(path, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def digest_folder(folder: Path) -> str:
    """SHA-256 over the relative names and contents of all files of a folder, links to files and folders followed.

    Raises:
        UserError: a link leads to a folder that it lies in, or a name is that of a pipe or a device.
    """
    lines = (f"{name} {digest_file(path)}" for name, path in sorted(walk(folder)))
    return digest_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))


def walk(folder: Path) -> Iterator[tuple[str, Path]]:
    """(relative name with slashes, path) of every file of a folder, links followed; a dead link is no file.

    Raises:
        UserError: a link leads to a folder that it lies in.
    """
    pending = [(Path(folder), "", {_identity(Path(folder))})]
    while pending:
        inside, prefix, above = pending.pop()
        for entry in sorted(inside.iterdir()):
            if entry.is_dir():
                if _identity(entry) in above:
                    raise UserError(f"{entry} is a link to a folder that it lies in", remedy="remove the link")
                pending.append((entry, f"{prefix}{entry.name}/", above | {_identity(entry)}))
            elif entry.exists():
                yield f"{prefix}{entry.name}", entry


def _identity(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_dev, stat.st_ino


def digest_of(path: str | os.PathLike[str]) -> str | None:
    """Digest of a file or of a folder's files; None where there is neither."""
    path = Path(path)
    if path.is_dir():
        return digest_folder(path)
    return digest_file(path) if path.exists() else None
