"""Files that are written whole or not at all."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path beside `path`, which becomes `path` only when the block ends without an error.

    The temporary lies in the same folder because os.replace is atomic within one file system only.

    Raises:
        ValueError: the folder of `path` does not exist, or `path` is a folder.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise ValueError(f"{path}: the folder {path.parent} does not exist; create it first")
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give the name of a file")
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files private to the user; the finished file gets the permissions any new file gets.
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Like `whole_file` for a folder. An existing folder at `path` is replaced, after the new one is complete.

    Raises:
        ValueError: the parent of `path` does not exist, or `path` is a file.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise ValueError(f"{path}: the folder {path.parent} does not exist; create it first")
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file; give the name of a folder")
    # Both the new folder and the old one set aside live in here, so that one removal clears up after any failure.
    workplace = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
    new, old = workplace / "new", workplace / "old"
    new.mkdir()
    try:
        yield new
        if path.exists():
            os.replace(path, old)
        try:
            os.replace(new, path)
        except OSError:
            if old.exists():
                os.replace(old, path)
            raise
    finally:
        shutil.rmtree(workplace)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
