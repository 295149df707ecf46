"""Time and memory of the certificate of curvature: against one reading of the features, and against Lanczos.

Reading the array once through a dot product is `np.vdot(x, x)` on the flat array in its own float32: one call of BLAS,
no copy. NumPy's BLAS takes one thread for it; the certificate takes as many as there are cores, so its time is given on
one core as well.
"""

import contextlib
import os
import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from experiments.bench import Benchmark, Note

NUM_FRAMES = 64
NUM_FEATURES = 1_000_000
LANCZOS_FEATURES = 20_000
"""Lanczos holds 20 vectors of the size of the features in float64, which at the full size are 10 GB."""
LANCZOS_TOLERANCE = 1e-3
ROUNDS = 9
TIME_AIM, MEMORY_AIM, SPEEDUP_AIM = 3.0, 1.3, 50.0


def _gaussian(seed: int, num_features: int):
    import numpy as np

    return np.random.default_rng(seed).standard_normal((NUM_FRAMES, num_features), dtype=np.float32)


def _smooth(seed: int, num_features: int):
    """Waves of many phases and speeds around a mean, like a video: neighbouring frames at cosines of about 0.99."""
    import numpy as np

    rng = np.random.default_rng(seed)
    phase, speed = rng.uniform(0, 2 * np.pi, num_features), rng.uniform(0.05, 0.4, num_features)
    features = np.empty((NUM_FRAMES, num_features), dtype=np.float32)
    for frame in range(NUM_FRAMES):
        features[frame] = 1 + np.sin(speed * frame + phase)
    return features


KINDS: Mapping[str, Callable[[int, int], Any]] = {"gaussian": _gaussian, "smooth": _smooth}


def _side_by_side(works: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
    """Median seconds of each, taken in turns, so that a busy minute of the machine meets all of them."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        work()
    for _ in range(ROUNDS):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


@contextlib.contextmanager
def _one_core() -> Iterator[None]:
    """Keep this thread, and those it starts, to one of its cores; without effect where the system has no such call."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def _reading(features: Any) -> dict[str, float]:
    import numpy as np

    from theory.temporal_loss import certify_curvature

    flat = features.reshape(-1)
    works = {"dot": lambda: np.vdot(flat, flat), "certificate": lambda: certify_curvature(features)}
    all_cores = _side_by_side(works)
    with _one_core():
        one_core = _side_by_side(works)
    tracemalloc.start()
    certify_curvature(features)
    allocated = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {
        "dot_seconds": all_cores["dot"],
        "certificate_seconds": all_cores["certificate"],
        "time_ratio": all_cores["certificate"] / all_cores["dot"],
        "time_ratio_one_core": one_core["certificate"] / one_core["dot"],
        "memory_ratio": 1 + allocated / features.nbytes,
    }


def _against_lanczos(features: Any) -> dict[str, float]:
    """The largest eigenvalue by scipy's Lanczos on compiled Hessian-vector products, and the certificate, of the same
    features."""
    import numpy as np

    from theory.temporal_loss import certify_curvature
    from theory.temporal_loss.instances import lanczos_extremes

    wide = features.astype(np.float64)
    lanczos_extremes(wide, tolerance=0.5, ends=("upper",))  # compiles the product
    start = time.perf_counter()
    found = lanczos_extremes(wide, tolerance=LANCZOS_TOLERANCE, ends=("upper",))
    lanczos_seconds = time.perf_counter() - start
    certificate_seconds = _side_by_side({"certificate": lambda: certify_curvature(features)})["certificate"]
    return {
        "lanczos_seconds": lanczos_seconds,
        "products": found.products,
        "certificate_seconds": certificate_seconds,
        "speedup": lanczos_seconds / certificate_seconds,
        # A comparison of speeds means something only where both bound the same number.
        "certificate_over_lanczos": certify_curvature(features).upper / found.upper,
    }


def measure(seed: int, note: Note) -> dict[str, Any]:
    """Both comparisons for features whose neighbouring frames differ much, and for features like a video's."""
    results: dict[str, Any] = {}
    for kind, make in KINDS.items():
        note(f"certificate: {kind}, {NUM_FRAMES} frames of {NUM_FEATURES} features")
        results[kind] = {"reading": _reading(make(seed, NUM_FEATURES))}
        note(f"certificate: {kind}, {NUM_FRAMES} frames of {LANCZOS_FEATURES} features, against Lanczos")
        results[kind]["lanczos"] = _against_lanczos(make(seed, LANCZOS_FEATURES))
    return results


def lines(results: Mapping[str, Any]) -> Sequence[str]:
    shown = []
    for kind, entry in results.items():
        reading, lanczos = entry["reading"], entry["lanczos"]
        shown += [
            f"certificate, {kind}: {1e3 * reading['certificate_seconds']:.1f} ms, {reading['time_ratio']:.1f} times a "
            "dot product "
            f"(on one core {reading['time_ratio_one_core']:.1f}; aim: {TIME_AIM:g}), {reading['memory_ratio']:.2f} "
            "times the input's memory "
            f"(aim: {MEMORY_AIM:g})",
            f"certificate, {kind}: {lanczos['speedup']:.0f} times faster than Lanczos (aim: {SPEEDUP_AIM:g}; "
            f"{lanczos['products']} products, "
            f"{lanczos['lanczos_seconds']:.1f} s), and {lanczos['certificate_over_lanczos']:.3f} times its eigenvalue",
        ]
    return shown


BENCHMARK = Benchmark("certificate", measure, lines)
