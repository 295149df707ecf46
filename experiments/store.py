"""A run's store: one folder per result, named by what decided it, so that a second run reuses and a killed one resumes.

An entry's key is the SHA-256 of its ingredients in canonical JSON: the settings it reads, the digests of the files that
were named, the contents of the entries it was made from, the digest of the code it can reach, and the versions of the
libraries. Whatever changes a number changes the key. Files that were opened without having been named (see
`opened_files`) are kept with the entry, which is reused only while they are the same.

    store/<name>-<first 16 digits of the key>/
        manifest.json        key, ingredients, SHA-256 of the other files, files opened beyond those in the ingredients
        values.json          what is not an array
        arrays.safetensors   arrays
        ...                  further files of the stage, for example an adapter
"""

import ast
import contextlib
import copy
import fcntl
import functools
import json
import os
import platform
import shlex
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from experiments.errors import UserError, printable, writing
from experiments.files import make_folder, sweep, whole_folder
from experiments.opened_files import digest_bytes, digest_file, first_changed

MANIFEST, VALUES, ARRAYS = "manifest.json", "values.json", "arrays.safetensors"
LIBRARIES = (
    "array-api-compat",
    "av",
    "diffusers",
    "jax",
    "jaxlib",
    "mpmath",
    "numpy",
    "peft",
    "pillow",
    "python-flint",
    "safetensors",
    "scikit-video",
    "scipy",
    "tokenizers",
    "torch",
    "transformers",
)
"""What a stage imports, directly or through one of these, and what could move a digit of its result."""
ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("theory", "experiments")


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, no NaN or infinity and a final newline: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def digest_array(array: np.ndarray) -> str:
    """SHA-256 of dtype, shape and bytes in C order."""
    array = np.ascontiguousarray(array)
    return digest_bytes(f"{array.dtype.str}{array.shape}".encode() + array.tobytes())


def library_versions(names: Iterable[str] = LIBRARIES) -> dict[str, str]:
    """Installed versions, by default of Python and of the libraries that can decide a digit."""
    found = {"python": platform.python_version()} if names is LIBRARIES else {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _module_file(name: str) -> Path | None:
    base = ROOT.joinpath(*name.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


@functools.cache
def _tree(module: str) -> ast.Module:
    return ast.parse(_module_file(module).read_text(encoding="utf-8"))


def _is_package(module: str) -> bool:
    return _module_file(module).name == "__init__.py"


def _imports(module: str) -> Iterator[tuple[str, str | None, str | None]]:
    """(module named, name taken from it or None, name it is bound to) for every import at any depth of the source."""
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None, alias.asname) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            if node.level:
                parts = module.split(".")
                origin = ".".join(
                    [*parts[: len(parts) - node.level + _is_package(module)], *([origin] if origin else [])]
                )
            yield from ((origin, alias.name, alias.asname or alias.name) for alias in node.names)


def _is_ours(module: str) -> bool:
    return module.split(".")[0] in PACKAGES and _module_file(module) is not None


def _defining_module(module: str, name: str | None) -> str:
    """Where `from module import name` finds its object, looking through packages that only pass names on."""
    if name is None:
        return module
    if _is_ours(f"{module}.{name}"):
        return f"{module}.{name}"
    if _is_package(module):
        for origin, taken, bound in _imports(module):
            if bound == name and taken is not None and _is_ours(origin) and origin != module:
                return _defining_module(origin, taken)
    return module


def _is_constant(statement: ast.stmt) -> bool:
    """A docstring, or another constant that stands alone."""
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _only_passes_names_on(module: str) -> bool:
    """Whether a package's __init__ holds nothing but its docstring, imports and __all__."""
    return all(
        isinstance(node, ast.Import | ast.ImportFrom)
        or _is_constant(node)
        or (isinstance(node, ast.Assign) and [getattr(target, "id", "") for target in node.targets] == ["__all__"])
        for node in _tree(module).body
    )


def reachable_modules(roots: Iterable[str], exclude: Iterable[str] = ()) -> tuple[str, ...]:
    """The modules of this project whose source can decide what the roots compute.

    Imports are followed in the syntax tree, at any depth of a function, to the module that defines the imported name.
    Packages on the way count when they do more than pass names on, so that a new theorem beside an old one leaves the
    old one's results alone. A module that is imported by a computed name has to be a root itself.
    """
    excluded, seen, pending = set(exclude), set(), list(roots)
    while pending:
        module = pending.pop()
        if module in seen or module in excluded:
            continue
        seen.add(module)
        pending += [_defining_module(origin, name) for origin, name, _ in _imports(module) if _is_ours(origin)]
    parents = {
        ".".join(parts[:count]) for parts in (module.split(".") for module in seen) for count in range(1, len(parts))
    }
    acting = {package for package in parents - excluded if not _only_passes_names_on(package)}
    return tuple(sorted(seen | acting))


@functools.cache
def _code_digest(module: str) -> str:
    """Digest of a module's syntax tree without its docstrings: comments, wording and layout decide no number."""
    tree = copy.deepcopy(_tree(module))
    for node in ast.walk(tree):
        if isinstance(body := getattr(node, "body", None), list):
            node.body = [statement for statement in body if not _is_constant(statement)]
    return digest_bytes(ast.dump(tree).encode())


def source_digest(roots: Iterable[str], exclude: Iterable[str] = ()) -> str:
    """SHA-256 over the code of `reachable_modules`."""
    lines = (f"{name} {_code_digest(name)}" for name in reachable_modules(roots, exclude))
    return digest_bytes("\n".join(lines).encode())


@dataclass(frozen=True, eq=False)
class Entry:
    """A finished result.

    Attributes:
        name, key: which stage, and the digest of what decided it.
        content: digest of the result itself; what is made from it depends on this.
        folder: where its files lie.
        values: JSON values.
    """

    name: str
    key: str
    content: str
    folder: Path
    values: Any

    @functools.cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays, read when first asked for."""
        path = self.folder / ARRAYS
        return load_file(path) if path.exists() else {}


@dataclass
class Draft:
    """What a stage fills in: JSON values, arrays, files written to `folder`, and files it opened that nobody named."""

    folder: Path
    values: Any = None
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    opened: dict[str, str | None] = field(default_factory=dict)


class Store:
    """Results under one folder.

    Args:
        folder: created when missing.
        note: called with one line when an entry is discarded.
    """

    def __init__(self, folder: Path, note: Callable[[str], None] = lambda line: None) -> None:
        self.folder = Path(folder)
        self.note = note

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other runs out of the folder, and clear away what a killed run left half-written.

        Raises:
            UserError: another process holds the folder; the message says which.
            DiskError: the folder cannot be written to.
        """
        make_folder(self.folder)
        path = self.folder / ".lock"
        with writing(path):
            # Not truncated before it is ours: it says who holds it.
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        with os.fdopen(handle, "r+", encoding="utf-8", errors="replace") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = printable(lock.read(500).strip()) or "another run"
                raise UserError(
                    f"{self.folder} is in use by {holder}", remedy="wait for it, or give another --out"
                ) from None
            except OSError as error:
                self.note(
                    f"{self.folder}: this file system knows no locks ({error.strerror}); run one command at a time"
                )
            with writing(path):
                lock.truncate(0)
                lock.write(_this_process())
                lock.flush()
            sweep(self.folder)
            yield

    @staticmethod
    def key(ingredients: Mapping[str, Any]) -> str:
        """The key that these ingredients give."""
        return digest_bytes(canonical_json(ingredients).encode())

    def _path(self, name: str, key: str) -> Path:
        return self.folder / f"{name}-{key[:16]}"

    def load(self, name: str, ingredients: Mapping[str, Any]) -> Entry | None:
        """The entry made from these ingredients, or None.

        One whose files are not what its manifest says is missing, and so is one made from a file that has changed.
        """
        key = self.key(ingredients)
        folder = self._path(name, key)
        if not folder.exists():
            return None
        try:
            manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            if manifest["key"] != key:
                raise ValueError("it was made from something else")
            for file, digest in manifest["files"].items():
                if digest_file(folder / file) != digest:
                    raise ValueError(f"{file} has changed")
            content = digest_bytes(canonical_json(manifest["files"]).encode())
            entry = Entry(name, key, content, folder, json.loads((folder / VALUES).read_text(encoding="utf-8")))
            entry.arrays  # noqa: B018  a file that is whole may still be no safetensors file
            changed = first_changed(manifest["opened"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
            reason = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
            self.note(f"stored result {folder.name} is damaged ({reason.splitlines()[0]}); computing it again")
            return None
        if changed is not None:
            self.note(f"stored result {folder.name} was made from another {changed}; computing it again")
            return None
        return entry

    @contextlib.contextmanager
    def write(self, name: str, ingredients: Mapping[str, Any]) -> Iterator[Draft]:
        """Yield a draft that becomes the entry when the block ends without an error, and leaves no trace otherwise.

        Raises:
            DiskError: the disk does not take it.
        """
        key = self.key(ingredients)
        make_folder(self.folder)
        with whole_folder(self._path(name, key)) as folder:
            draft = Draft(folder)
            yield draft
            (folder / VALUES).write_text(canonical_json(draft.values), encoding="utf-8")
            if draft.arrays:
                arrays = {label: np.ascontiguousarray(array) for label, array in draft.arrays.items()}
                # Through Python's own files, whose errors carry the system's number.
                (folder / ARRAYS).write_bytes(save(arrays))
            files = {
                path.relative_to(folder).as_posix(): digest_file(path)
                for path in sorted(folder.rglob("*"))
                if path.is_file()
            }
            manifest = {"key": key, "ingredients": ingredients, "files": files, "opened": draft.opened}
            (folder / MANIFEST).write_text(canonical_json(manifest), encoding="utf-8")

    def fetch(self, name: str, ingredients: Mapping[str, Any], make: Callable[[Draft], None]) -> tuple[Entry, bool]:
        """The entry, and whether it was there already; otherwise `make` fills a draft."""
        entry = self.load(name, ingredients)
        if entry is not None:
            return entry, True
        with self.write(name, ingredients) as draft:
            make(draft)
        entry = self.load(name, ingredients)
        if entry is None:
            raise UserError(
                f"{self._path(name, self.key(ingredients))} changed right after it was written",
                limit="nothing else may write there",
                remedy="check the disk, and that no other program uses the folder",
            )
        return entry, False


def _this_process() -> str:
    started = time.strftime("%Y-%m-%d %H:%M:%S")
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]) if sys.argv[0] else "python"
    return f"process {os.getpid()} on {socket.gethostname()} since {started} ({printable(command)})\n"
