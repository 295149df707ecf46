"""Run Coq on the proofs: compile them, kept between runs by their content, and list the axioms that they rest on."""

import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SOURCES = Path(__file__).parent
LOGICAL_NAME = "framebound"
INSTALL = "apt-get install coq libcoq-interval libcoq-coquelicot"
TIME_LIMIT = 600
"""Seconds for one file; the slowest takes 6 on an idle core."""

CLASSICAL_REALS = frozenset(
    {
        "ClassicalDedekindReals.sig_not_dec",
        "ClassicalDedekindReals.sig_forall_dec",
        "FunctionalExtensionality.functional_extensionality_dep",
        "Classical_Prop.classic",
    }
)
"""The axioms of the real numbers of Coq's standard library: two forms of excluded middle, excluded middle itself, and
that functions with equal values are equal."""

MACHINE_INTEGERS = re.compile(r"(PrimInt63|Uint63)\.\w+")
"""Coq's 63-bit integers and their specification, which interval arithmetic and evaluated certificates use."""

FORBIDDEN = re.compile(
    r"\b(Admitted|admit|give_up|Axioms?|Parameters?|Conjectures?|Abort|bypass_check|Guard\s+Checking"
    r"|Positivity\s+Checking|Universe\s+Checking|Add\s+LoadPath|Add\s+ML\s+Path|Declare\s+ML\s+Module|Load)\b"
)


class ProofError(Exception):
    """Coq refused a file, or a proof rests on something that is not allowed."""


def unavailable() -> str | None:
    """Why the proofs cannot be checked here, with the remedy; None where they can."""
    if shutil.which("coqc") is None:
        return f"coqc is not installed: {INSTALL}"
    probe = "From Coquelicot Require Import Rcomplements.\nFrom Interval Require Import Tactic.\n"
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "Probe.v").write_text(probe, encoding="utf-8")
        if _coqc("Probe.v", Path(folder)).returncode:
            return f"Coq's libraries Coquelicot and Interval are not installed: {INSTALL}"
    return None


def _coqc(file: str, folder: Path) -> subprocess.CompletedProcess:
    command = ["coqc", "-q", "-w", "-ambiguous-paths", "-Q", str(folder), LOGICAL_NAME, file]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIME_LIMIT, check=False)


@functools.cache
def _coq_version() -> str:
    return subprocess.run(["coqc", "--version"], capture_output=True, text=True, check=True).stdout


def without_comments(source: str) -> str:
    """Coq source without its comments, which nest."""
    kept, depth = [], 0
    for part in re.split(r"(\(\*|\*\))", source):
        if part == "(*":
            depth += 1
        elif part == "*)" and depth:
            depth -= 1
        elif not depth:
            kept.append(part)
    return "".join(kept)


def forbidden_words(source: str) -> list[str]:
    """Commands in Coq source that assume something without proof, or switch a check of Coq off."""
    return [match.group(0) for match in FORBIDDEN.finditer(without_comments(source))]


def requirements(source: str) -> list[str]:
    """The files of this folder that a source imports."""
    imports = re.findall(
        rf"From\s+{LOGICAL_NAME}\s+Require\s+(?:Import\s+|Export\s+)?([\w\s]+)\.", without_comments(source)
    )
    return [name for names in imports for name in names.split()]


def in_order(sources: Mapping[str, str]) -> list[list[str]]:
    """The names of the sources in groups, each of which needs earlier groups only.

    Raises:
        ProofError: an import of something that is not there, or a circle.
    """
    needs = {name: requirements(source) for name, source in sources.items()}
    for name, required in needs.items():
        missing = [other for other in required if other not in sources]
        if missing:
            raise ProofError(f"{name}.v imports {', '.join(missing)}, which is not among {', '.join(sorted(sources))}")
    groups: list[list[str]] = []
    placed: set[str] = set()
    while len(placed) < len(sources):
        ready = sorted(name for name in sources if name not in placed and placed.issuperset(needs[name]))
        if not ready:
            raise ProofError(f"{', '.join(sorted(set(sources) - placed))} import each other in a circle")
        groups.append(ready)
        placed.update(ready)
    return groups


def read_sources(folder: Path = SOURCES) -> dict[str, str]:
    """File name without .v -> content, of every Coq file in the folder."""
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.v"))}


def cache_folder() -> Path:
    """Where compiled proofs are kept: framebound/formal in $XDG_CACHE_HOME or ~/.cache. Removing it is always safe."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "framebound" / "formal"


def _keys(sources: Mapping[str, str], groups: Iterable[Iterable[str]]) -> dict[str, str]:
    """A digest of each file with everything that it imports, and Coq's version."""
    keys: dict[str, str] = {}
    for group in groups:
        for name in group:
            parts = [_coq_version(), name, sources[name], *(keys[other] for other in requirements(sources[name]))]
            keys[name] = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
    return keys


def _compile_one(name: str, build: Path, kept: Path) -> None:
    if kept.exists():
        shutil.copyfile(kept, build / f"{name}.vo")
        return
    result = _coqc(f"{name}.v", build)
    if result.returncode:
        raise ProofError(f"Coq refuses {name}.v:\n{result.stdout}{result.stderr}")
    kept.parent.mkdir(parents=True, exist_ok=True)
    # Under a name of its own first: another process may be writing the same file.
    with tempfile.NamedTemporaryFile(dir=kept.parent, delete=False) as temporary:
        temporary.write((build / f"{name}.vo").read_bytes())
    os.replace(temporary.name, kept)


def compile_proofs(build: Path, sources: Mapping[str, str] | None = None, cache: Path | None = None) -> None:
    """Compile sources into a folder, files that do not depend on each other two at a time.

    Args:
        build: an empty folder, which receives the sources and what Coq makes of them.
        sources: file name without .v -> content; None is this package's own.
        cache: where compiled files are kept by their content; None is `cache_folder`.

    Raises:
        ProofError: a forbidden command, or a file that Coq refuses; the message shows which and Coq's own words.
    """
    sources = read_sources() if sources is None else sources
    cache = cache_folder() if cache is None else cache
    for name, source in sources.items():
        words = forbidden_words(source)
        if words:
            raise ProofError(
                f"{name}.v holds {', '.join(sorted(set(words)))}: nothing may be assumed, and no check switched off"
            )
        (build / f"{name}.v").write_text(source, encoding="utf-8")
    groups = in_order(sources)
    keys = _keys(sources, groups)
    with ThreadPoolExecutor(2) as pool:
        for group in groups:
            list(pool.map(lambda name: _compile_one(name, build, cache / f"{name}-{keys[name]}.vo"), group))


def run_query(build: Path, query: str) -> str:
    """What Coq prints on a file of commands that may import the compiled proofs.

    Raises:
        ProofError: Coq refuses the commands.
    """
    with tempfile.NamedTemporaryFile(
        "w", suffix=".v", prefix="Query", dir=build, delete=False, encoding="utf-8"
    ) as file:
        file.write(query)
    result = _coqc(Path(file.name).name, build)
    if result.returncode:
        raise ProofError(f"Coq refuses\n{query[:2000]}\n{result.stdout}{result.stderr}")
    return result.stdout


def axioms(build: Path, theorems: Iterable[tuple[str, str]]) -> frozenset[str]:
    """The axioms that theorems (file, name) rest on, all of them together, as Coq's `Print Assumptions` lists them.

    Together, because Coq walks through the whole library behind a theorem to list them, which takes a second for each.

    Raises:
        ProofError: a theorem that does not exist, or output that is not understood.
    """
    names = sorted({f"{file}.{name}" for file, name in theorems})
    files = sorted({name.split(".")[0] for name in names})
    terms = ", ".join(f"@{name}" for name in names)
    query = f"From {LOGICAL_NAME} Require {' '.join(files)}.\nDefinition together := ({terms}, tt).\n"
    query += "Print Assumptions together.\n"
    output = run_query(build, query)
    if output.strip() == "Closed under the global context":
        return frozenset()
    heading, separator, listed = output.partition("Axioms:\n")
    if heading.strip() or not separator:
        raise ProofError(f"Coq's list of axioms is not understood: {output[:200]!r}")
    return axiom_names(listed)


def axiom_names(listed: str) -> frozenset[str]:
    """The names in a list of axioms: each starts a line, alone or before its type, whose further lines are indented."""
    return frozenset(re.findall(r"^([\w.']+)", listed, flags=re.MULTILINE))


def not_allowed(names: Iterable[str], *, integers: bool = False) -> list[str]:
    """Axioms beyond those of the classical reals and, where `integers` says so, of Coq's machine integers."""
    return sorted(
        name for name in names if name not in CLASSICAL_REALS and not (integers and MACHINE_INTEGERS.fullmatch(name))
    )
