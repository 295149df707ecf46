"""Wall time of the main job in its small form, without the compiled programs that an earlier run may have left."""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.bench import Benchmark, Note, timed_command

TARGET_SECONDS = 720


def measure(seed: int, note: Note) -> dict[str, Any]:
    """`framebound reproduce`: "first" starts from nothing, "again" reuses all."""
    with tempfile.TemporaryDirectory() as folder:
        programs = Path(folder) / "programs"
        programs.mkdir()
        arguments = ["reproduce", "--seed", str(seed), "--out", str(Path(folder) / "out")]
        results: dict[str, Any] = {"target_seconds": TARGET_SECONDS}
        for name in ("first", "again"):
            note(f"reproduce --profile small, {name}")
            command = [sys.executable, "-m", "experiments.cli", *arguments]
            results[name] = timed_command(command, {"JAX_COMPILATION_CACHE_DIR": str(programs)})
        return results


def lines(results: Mapping[str, Any]) -> Sequence[str]:
    return [
        f"reproduce small, {name}: {results[name]['seconds']:.0f} s (aim: {TARGET_SECONDS}; exit status "
        f"{results[name]['exit_status']})"
        for name in ("first", "again")
    ]


BENCHMARK = Benchmark("reproduce-small", measure, lines, quick=False)
