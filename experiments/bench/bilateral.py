"""Time and memory of the bilateral filter: against one reading of the features, and against windows laid out in full.

Reading the array once is `np.vdot(x, x)` on the flat array in its own float32, one call of BLAS without a copy. The
filter of NumPy arrays takes one core. It goes through the array once, a block of columns that fits the cache at a time,
so that it loads every value from main memory once and stores every result once; its time is that of its arithmetic (two
exponentials a value), and is given in readings too.
"""

import statistics
import time
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments.bench import Benchmark, Note

NUM_FRAMES = 64
NUM_FEATURES = 1_000_000
NAIVE_FEATURES = 50_000
"""Laid out in full, the windows and their weights take 20 times the features' memory, 5 GB at the full size."""
ROUNDS = 5


def naive_filter(x: Any, sigma_range: float) -> Any:
    """The filter as the public code writes it: all windows of 5 side by side, then weights, then sums; reflect
    padding."""
    import numpy as np

    padded = np.pad(x, ((2, 2), (0, 0)), mode="reflect")
    windows = np.stack([padded[offset : offset + len(x)] for offset in range(5)], axis=1)
    spatial = np.exp(-(np.arange(-2, 3) ** 2) / 2).astype(x.dtype)[None, :, None]
    weights = spatial * np.exp(-((windows - x[:, None]) ** 2) / x.dtype.type(2 * sigma_range**2))
    return (weights * windows).sum(axis=1) / weights.sum(axis=1)


def _median_seconds(works: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
    """Taken in turns, so that a busy minute of the machine meets all of them."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        work()
    for _ in range(ROUNDS):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def _extra_memory(work: Callable[[], Any]) -> int:
    """Bytes at the peak beside the result."""
    tracemalloc.start()
    result = work()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak - result.nbytes


def measure(seed: int, note: Note) -> dict[str, Any]:
    """Both filters against one reading of the features, and the bilateral one against windows laid out in full."""
    import numpy as np

    from theory.bilateral import bilateral_filter

    x = np.random.default_rng(seed).standard_normal((NUM_FRAMES, NUM_FEATURES), dtype=np.float32)
    flat = x.reshape(-1)
    filters = {
        "bilateral": lambda: bilateral_filter(x, sigma_range=1.0),
        "monotone": lambda: bilateral_filter(x, sigma_range=1.0, monotone=True),
    }
    note(f"bilateral: {NUM_FRAMES} frames of {NUM_FEATURES} features")
    seconds = _median_seconds({"read": lambda: np.vdot(flat, flat), **filters})
    results: dict[str, Any] = {"read_seconds": seconds["read"]}
    for name, work in filters.items():
        results[name] = {
            "seconds": seconds[name],
            "reads": seconds[name] / seconds["read"],
            "extra_bytes": _extra_memory(work),
            "extra_over_input": _extra_memory(work) / x.nbytes,
        }
    note(f"bilateral: {NUM_FRAMES} frames of {NAIVE_FEATURES} features, against windows laid out in full")
    part = np.ascontiguousarray(x[:, :NAIVE_FEATURES])
    pair = {"ours": lambda: bilateral_filter(part, sigma_range=1.0), "naive": lambda: naive_filter(part, 1.0)}
    side_by_side = _median_seconds(pair)
    ours, naive = pair["ours"](), pair["naive"]()
    results["naive"] = {
        "features": NAIVE_FEATURES,
        "speedup": side_by_side["naive"] / side_by_side["ours"],
        "extra_over_input": _extra_memory(pair["naive"]) / part.nbytes,
        # A comparison of speeds means something only where both compute the same numbers.
        "largest_difference": float(np.max(np.abs(ours - naive))),
    }
    return results


def lines(results: Mapping[str, Any]) -> Sequence[str]:
    naive = results["naive"]
    shown = [
        f"filter, {name}: {results[name]['seconds']:.2f} s on one core, {results[name]['reads']:.1f} times a reading "
        f"of the features, in one pass; memory beside the result {results[name]['extra_bytes'] / 1e6:.2g} MB"
        for name in ("bilateral", "monotone")
    ]
    return [
        *shown,
        f"filter, bilateral: {naive['speedup']:.1f} times faster than windows laid out in full, which take "
        f"{naive['extra_over_input']:.0f} times the features' memory beside the result",
    ]


BENCHMARK = Benchmark("bilateral", measure, lines)
