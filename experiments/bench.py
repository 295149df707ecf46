"""Speed, measured side by side in one run. Timings are recorded here and nowhere else."""

import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from experiments.store import ROOT, library_versions

TORCH_INSTANCES = 64
BATCH = 4096
LEAST_SECONDS = 2.0
TARGET = 20.0


def _rate(work: Callable[[], int]) -> dict[str, float]:
    """Instances per second of a piece of work, repeated for at least two seconds after one run that warms up."""
    work()
    count, repeats, start = 0, 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < LEAST_SECONDS or not repeats:
        count += work()
        repeats += 1
    return {"instances_per_second": count / elapsed, "instances": count, "seconds": elapsed}


def instances(seed: int, note: Callable[[str], None]) -> dict[str, Any]:
    """Instances of C1.hessian per second: the batched evaluation that the ladder uses, against a loop over single torch
    evaluations.

    Both evaluate the same inequality on the same drawn instances: the dense Hessian of the temporal loss by automatic
        differentiation, its
    norm by a symmetric eigensolver, and C_N / m^2.
    """
    import jax
    import numpy as np
    import torch

    from theory import search
    from theory.temporal_loss import hessian_constant, temporal_loss
    from theory.temporal_loss.hessian import PROBLEM

    results = {}
    for size in PROBLEM.sizes:
        note(f"instances: {dict(size)}")
        parameters = search.draw(PROBLEM, size, seed, BATCH)
        start = time.perf_counter()
        measured, bound = search.evaluate(PROBLEM, size, parameters)
        first_call = time.perf_counter() - start

        def batched(size=size, parameters=parameters) -> int:
            return len(search.evaluate(PROBLEM, size, parameters)[0])

        drawn = [
            PROBLEM.instance(jax.tree.map(lambda leaf, index=index: leaf[index], parameters), **dict(size))
            for index in range(TORCH_INSTANCES)
        ]
        inputs = [(torch.from_numpy(np.array(one["frames"])), float(one["min_norm"])) for one in drawn]

        def single(frames: torch.Tensor, min_norm: float) -> tuple[float, float]:
            hessian = torch.autograd.functional.hessian(temporal_loss, frames).reshape(frames.numel(), frames.numel())
            return float(torch.linalg.eigvalsh(hessian).abs().max()), hessian_constant(len(frames)) / min_norm**2

        def loop(inputs=inputs) -> int:
            for frames, min_norm in inputs:
                single(frames, min_norm)
            return len(inputs)

        alone = np.array([single(frames, min_norm) for frames, min_norm in inputs])
        slow, fast = _rate(loop), _rate(batched)
        results[" ".join(f"{name}={value}" for name, value in size)] = {
            "jax_batched": {**fast, "first_call_seconds": first_call, "batch": BATCH},
            "torch_loop": slow,
            "speedup": fast["instances_per_second"] / slow["instances_per_second"],
            # A comparison of speeds means something only where both compute the same numbers.
            "largest_difference_of_ratios": float(
                np.max(np.abs(alone[:, 0] / alone[:, 1] - (measured / bound)[:TORCH_INSTANCES]))
            ),
        }
    results["least_speedup"] = min(entry["speedup"] for entry in results.values())
    results["target"] = TARGET
    return results


def _timed(command: Sequence[str], environment: dict[str, str] | None = None) -> dict[str, Any]:
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


def pytest_theory(seed: int, note: Callable[[str], None]) -> dict[str, Any]:
    """Wall time of the theorems' tests; at most 360 seconds on two cores is the aim."""
    note("pytest theory")
    return {**_timed([sys.executable, "-m", "pytest", "-q", "theory"]), "target_seconds": 360}


def reproduce_small(seed: int, note: Callable[[str], None]) -> dict[str, Any]:
    """Wall time of the main job in its small form; at most 720 seconds is the aim for the first run.

    "first" starts from nothing, without the compiled programs that an earlier run may have left; "again" reuses all.
    """
    with tempfile.TemporaryDirectory() as folder:
        out, programs = Path(folder) / "out", Path(folder) / "programs"
        programs.mkdir()
        arguments = ["reproduce", "--seed", str(seed), "--out", str(out)]
        environment = {"JAX_COMPILATION_CACHE_DIR": str(programs)}
        results: dict[str, Any] = {"target_seconds": 720}
        for name in ("first", "again"):
            note(f"reproduce --profile small, {name}")
            results[name] = _timed([sys.executable, "-m", "experiments.cli", *arguments], environment)
        return results


BENCHMARKS: dict[str, Callable[[int, Callable[[str], None]], dict[str, Any]]] = {
    "instances": instances,
    "pytest-theory": pytest_theory,
    "reproduce-small": reproduce_small,
}
DEFAULT = ("instances",)


def run(
    only: Sequence[str] | None = None, *, seed: int = 0, note: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Run benchmarks.

    Args:
        only: their names; None is those that take seconds.
        note: called with one line before each.

    Raises:
        ValueError: an unknown name; the message lists the names.
    """
    for name in only or ():
        if name not in BENCHMARKS:
            raise ValueError(f"no benchmark is called {name!r}; there are {', '.join(BENCHMARKS)}")
    machine = {"processor": platform.machine(), "cores": os.cpu_count(), "load": list(os.getloadavg())}
    versions = {"python": platform.python_version(), **library_versions()}
    return {
        "machine": machine,
        "versions": versions,
        **{name: BENCHMARKS[name](seed, note) for name in only or DEFAULT},
    }


def as_text(results: dict[str, Any]) -> str:
    """A line for each measurement."""
    lines = []
    for size, entry in results.get("instances", {}).items():
        if isinstance(entry, dict):
            rates = [entry[name]["instances_per_second"] for name in ("jax_batched", "torch_loop")]
            lines.append(
                f"instances, {size}: JAX {rates[0]:.0f}/s, torch loop {rates[1]:.0f}/s, {entry['speedup']:.0f} times"
            )
    if "pytest-theory" in results:
        lines.append(
            f"pytest theory: {results['pytest-theory']['seconds']:.0f} s ({results['pytest-theory']['last_line']})"
        )
    for name, entry in results.get("reproduce-small", {}).items():
        if isinstance(entry, dict):
            lines.append(f"reproduce small, {name}: {entry['seconds']:.0f} s (exit status {entry['exit_status']})")
    return "\n".join(lines)
