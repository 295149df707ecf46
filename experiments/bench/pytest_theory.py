"""Wall time of the theorems' tests, without the compiled programs that an earlier run may have left."""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.bench import Benchmark, Note, timed_command

TARGET_SECONDS = 360


def measure(seed: int, note: Note) -> dict[str, Any]:
    """`pytest theory`, once from cold and once more with what the first run compiled."""
    with tempfile.TemporaryDirectory() as programs:
        results: dict[str, Any] = {"target_seconds": TARGET_SECONDS}
        for name in ("first", "again"):
            note(f"pytest theory, {name}")
            command = [sys.executable, "-m", "pytest", "-q", "theory"]
            results[name] = timed_command(command, {"JAX_COMPILATION_CACHE_DIR": programs})
        return results


def lines(results: Mapping[str, Any]) -> Sequence[str]:
    return [
        f"pytest theory, {name}: {results[name]['seconds']:.0f} s (aim: {TARGET_SECONDS}; {results[name]['last_line']})"
        for name in ("first", "again")
    ]


BENCHMARK = Benchmark("pytest-theory", measure, lines, quick=False)
