"""The state of a long measurement, kept piece by piece, so that a run that is killed goes on from its last piece."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from experiments.files import make_folder, sweep, write_bytes

SUFFIX = ".safetensors"


class KeptState:
    """Named pieces of arrays in a folder, each written whole or not at all.

    Args:
        folder: of one measurement: its name has to change with whatever decides the pieces. None keeps nothing.
        prefix: goes before every name.
    """

    def __init__(self, folder: Path | None, prefix: str = "") -> None:
        self.folder, self.prefix = folder, prefix
        if folder is not None and folder.is_dir():
            sweep(folder)

    def part(self, prefix: str) -> "KeptState":
        """The pieces whose names begin with a further prefix."""
        return KeptState(self.folder, f"{self.prefix}{prefix}")

    def get(self, name: str) -> dict[str, np.ndarray] | None:
        """A piece, bit by bit what was kept; None where there is none, or where it is damaged."""
        if self.folder is None:
            return None
        try:
            return load_file(self._path(name))
        except (OSError, SafetensorError):
            return None

    def put(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep a piece.

        Raises:
            DiskError: the disk does not take it.
        """
        if self.folder is not None:
            make_folder(self.folder)
            write_bytes(self._path(name), save({key: np.ascontiguousarray(array) for key, array in arrays.items()}))

    def drop(self, name: str) -> None:
        """Forget a piece that is not needed any more."""
        if self.folder is not None:
            self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self.folder / f"{self.prefix}{name}{SUFFIX}"


NOTHING = KeptState(None)
"""Keeps nothing."""
