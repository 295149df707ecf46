"""Speed, measured side by side in one run. Timings are recorded here and nowhere else.

One file a benchmark, with its BENCHMARK; nothing is registered anywhere.
"""

import dataclasses
import functools
import importlib
import os
import pkgutil
import platform
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments.store import ROOT, library_versions

LEAST_SECONDS = 2.0
Note = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """One comparison of speeds.

    Attributes:
        name: as `framebound bench --only` takes it.
        measure: `measure(seed, note) -> JSON values`; note is called with a line before each part.
        lines: a line for each number, from what `measure` returned.
        quick: whether it takes seconds, and so runs when no benchmark is named.
    """

    name: str
    measure: Callable[[int, Note], dict[str, Any]]
    lines: Callable[[Mapping[str, Any]], Sequence[str]]
    quick: bool = True


def seconds_of(work: Callable[[], Any], least_seconds: float = LEAST_SECONDS) -> float:
    """Seconds of one piece of work: the mean over repetitions that fill `least_seconds`, after one run that warms up."""
    work()
    repeats, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < least_seconds or not repeats:
        work()
        repeats += 1
    return elapsed / repeats


def timed_command(command: Sequence[str], environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Wall time of a command run in the project's folder, its exit status and the last line it printed."""
    start = time.perf_counter()
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, **(environment or {})}, check=False
    )
    tail = (done.stdout.strip().splitlines() or [""])[-1]
    return {
        "command": " ".join(command),
        "seconds": time.perf_counter() - start,
        "exit_status": done.returncode,
        "last_line": tail,
    }


@functools.cache
def benchmarks() -> Mapping[str, Benchmark]:
    """Every BENCHMARK of this folder, by name."""
    found = (
        importlib.import_module(f"{__name__}.{module.name}").BENCHMARK for module in pkgutil.iter_modules(__path__)
    )
    return {benchmark.name: benchmark for benchmark in found}


def run(only: Sequence[str] | None = None, *, seed: int = 0, note: Note = lambda line: None) -> dict[str, Any]:
    """Run benchmarks.

    Args:
        only: their names; None is those that take seconds.
        note: called with one line before each.

    Raises:
        ValueError: an unknown name; the message lists the names.
    """
    known = benchmarks()
    for name in only or ():
        if name not in known:
            raise ValueError(f"no benchmark is called {name!r}; there are {', '.join(known)}")
    machine = {"processor": platform.machine(), "cores": os.cpu_count(), "load": list(os.getloadavg())}
    versions = {"python": platform.python_version(), **library_versions()}
    chosen = only or [name for name, benchmark in known.items() if benchmark.quick]
    return {"machine": machine, "versions": versions, **{name: known[name].measure(seed, note) for name in chosen}}


def as_text(results: Mapping[str, Any]) -> str:
    """A line for each measurement."""
    return "\n".join(
        line for name, benchmark in benchmarks().items() if name in results for line in benchmark.lines(results[name])
    )
