"""A faulty module in the place of the true one: in this process for its own claim, or in a process of its own for its tests."""

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
import types
from collections.abc import Sequence
from pathlib import Path

from theory.claim import Claim

MODULE, SOURCE = "FRAMEBOUND_PLANTED_MODULE", "FRAMEBOUND_PLANTED_SOURCE"
"""Environment of a pytest run that loads `experiments.selftest.planting` as a plugin: which module is faulty, and its source file."""


def faulty_claim(module: str, source: str) -> Claim | None:
    """The CLAIM of a faulty module, which nothing else sees; None where the module states no theorem.

    Raises:
        Exception: whatever the faulty module raises when it is run; that, too, is a fault noticed.
    """
    planted = types.ModuleType(module)
    planted.__package__ = module.rpartition(".")[0]
    planted.__file__ = importlib.util.find_spec(module).origin
    exec(compile(source, planted.__file__, "exec"), planted.__dict__)  # noqa: S102, our own source with one node changed
    return planted.__dict__.get("CLAIM")


class _PlantedLoader(importlib.machinery.SourceFileLoader):
    """Loads a module from the faulty source, under the true file's name."""

    def __init__(self, name: str, path: str, source: Path) -> None:
        super().__init__(name, path)
        self.source = source

    def get_code(self, fullname: str) -> types.CodeType:
        # Not through the cached bytecode of the true file.
        return compile(self.source.read_bytes(), self.path, "exec")


class PlantedFinder(importlib.abc.MetaPathFinder):
    """Finds one module, and lets every import of it get the faulty source."""

    def __init__(self, module: str, source: Path) -> None:
        self.module, self.source = module, source

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.module:
            return None
        true = importlib.machinery.PathFinder.find_spec(fullname, path)
        return importlib.util.spec_from_file_location(fullname, true.origin, loader=_PlantedLoader(fullname, true.origin, self.source))


def pytest_load_initial_conftests() -> None:
    """Plant the fault before any test module is imported, since imports bind the names of what they import."""
    already = sys.modules.get(os.environ[MODULE])
    if already is not None:
        raise RuntimeError(f"{os.environ[MODULE]} was imported before the fault could be planted; load this plugin with -p")
    sys.meta_path.insert(0, PlantedFinder(os.environ[MODULE], Path(os.environ[SOURCE])))
