"""A run's store: one folder per result, named by what decided it, so that a second run reuses and a killed one resumes.

An entry's key is the SHA-256 of its ingredients in canonical JSON: the settings it reads, the keys of the entries it
was made from, the digest of the code it can reach, and the versions of the libraries. Whatever changes a number
changes the key.

    store/<name>-<first 16 digits of the key>/
        manifest.json        key, ingredients, SHA-256 of the other files
        values.json          what is not an array
        arrays.safetensors   arrays
        ...                  further files of the stage, for example an adapter
"""

import ast
import contextlib
import copy
import fcntl
import functools
import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from experiments.files import whole_folder

MANIFEST, VALUES, ARRAYS = "manifest.json", "values.json", "arrays.safetensors"
LIBRARIES = ("numpy", "scipy", "jax", "torch", "diffusers", "peft")
ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("theory", "experiments")


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, no NaN or infinity and a final newline: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def digest_bytes(content: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def digest_array(array: np.ndarray) -> str:
    """SHA-256 of dtype, shape and bytes in C order."""
    array = np.ascontiguousarray(array)
    return digest_bytes(f"{array.dtype.str}{array.shape}".encode() + array.tobytes())


def digest_file(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def digest_folder(folder: Path) -> str:
    """SHA-256 over the relative names and contents of all files of a folder."""
    lines = (
        f"{path.relative_to(folder).as_posix()} {digest_file(path)}"
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    )
    return digest_bytes("\n".join(lines).encode())


def library_versions(names: Iterable[str] = LIBRARIES) -> dict[str, str]:
    """Installed versions, by default of the libraries whose kernels decide the last digits."""
    found = {}
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
        folder: where its files lie.
        values: JSON values.
    """

    name: str
    key: str
    folder: Path
    values: Any

    @functools.cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays, read when first asked for."""
        path = self.folder / ARRAYS
        return load_file(path) if path.exists() else {}


@dataclass
class Draft:
    """What a stage fills in: JSON values, arrays, and files written to `folder`."""

    folder: Path
    values: Any = None
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


class Store:
    """Results under one folder.

    Args:
        folder: created when missing.
        note: called with one line when a corrupt entry is discarded.
    """

    def __init__(self, folder: Path, note: Callable[[str], None] = lambda line: None) -> None:
        self.folder = Path(folder)
        self.note = note

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other runs out of the folder, and clear away what a killed run left half-written.

        Raises:
            ValueError: another process holds the folder.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(
                    f"{self.folder} is in use by another run; wait for it, or give another --out"
                ) from None
            for leftover in self.folder.glob(".*.part"):
                # A stage keeps its state in a file, which a kill may have left half-written as well.
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
            yield

    @staticmethod
    def key(ingredients: Mapping[str, Any]) -> str:
        """The key that these ingredients give."""
        return digest_bytes(canonical_json(ingredients).encode())

    def _path(self, name: str, key: str) -> Path:
        return self.folder / f"{name}-{key[:16]}"

    def load(self, name: str, ingredients: Mapping[str, Any]) -> Entry | None:
        """The entry made from these ingredients, or None; one whose files are not what its manifest says is missing."""
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
            entry = Entry(name, key, folder, json.loads((folder / VALUES).read_text(encoding="utf-8")))
            entry.arrays  # noqa: B018  a file that is whole may still be no safetensors file
            return entry
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
            reason = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
            self.note(f"stored result {folder.name} is damaged ({reason.splitlines()[0]}); computing it again")
            return None

    @contextlib.contextmanager
    def write(self, name: str, ingredients: Mapping[str, Any]) -> Iterator[Draft]:
        """Yield a draft that becomes the entry when the block ends without an error, and leaves no trace otherwise."""
        key = self.key(ingredients)
        self.folder.mkdir(parents=True, exist_ok=True)
        with whole_folder(self._path(name, key)) as folder:
            draft = Draft(folder)
            yield draft
            (folder / VALUES).write_text(canonical_json(draft.values), encoding="utf-8")
            if draft.arrays:
                save_file(
                    {label: np.ascontiguousarray(array) for label, array in draft.arrays.items()}, folder / ARRAYS
                )
            files = {
                path.relative_to(folder).as_posix(): digest_file(path)
                for path in sorted(folder.rglob("*"))
                if path.is_file()
            }
            manifest = {"key": key, "ingredients": ingredients, "files": files}
            (folder / MANIFEST).write_text(canonical_json(manifest), encoding="utf-8")

    def fetch(self, name: str, ingredients: Mapping[str, Any], make: Callable[[Draft], None]) -> tuple[Entry, bool]:
        """The entry, and whether it was there already; otherwise `make` fills a draft."""
        entry = self.load(name, ingredients)
        if entry is not None:
            return entry, True
        with self.write(name, ingredients) as draft:
            make(draft)
        return self.load(name, ingredients), False
