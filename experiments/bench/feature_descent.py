"""Thousands of descents on features side by side, against one after the other."""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.bench import Benchmark, Note, seconds_of

RUNS = 10_000
STEPS = 2_000
NUM_FRAMES, DIMENSION = 6, 3
SINGLE_RUNS = 20
TARGET_SECONDS = 60.0


def measure(seed: int, note: Note) -> dict[str, Any]:
    """Seconds for 10,000 runs of 2,000 steps on 6 frames of dimension 3, each at half its own step limit.

    `jax.vmap(descend)` against a loop over single calls, both compiled beforehand; the first call, which compiles, is
    timed apart.
    """
    import functools
    import time

    import jax
    import numpy as np

    from theory.descent import descend, feature_step_limit

    starts = np.random.default_rng(seed).normal(size=(RUNS, NUM_FRAMES, DIMENSION))
    least = np.linalg.norm(starts, axis=-1).min(axis=1)
    step_sizes = np.array([0.5 * feature_step_limit(NUM_FRAMES, norm) for norm in least])
    batched = jax.jit(jax.vmap(functools.partial(descend, num_steps=STEPS)))
    note(f"feature_descent: {RUNS} runs of {STEPS} steps, side by side")
    start = time.perf_counter()
    losses = np.asarray(batched(starts, step_sizes).losses)
    first_call = time.perf_counter() - start
    seconds = seconds_of(lambda: jax.block_until_ready(batched(starts, step_sizes)), least_seconds=0.0)
    note(f"feature_descent: {SINGLE_RUNS} runs, one after the other")
    alone = np.stack([descend(starts[index], step_sizes[index], STEPS).losses for index in range(SINGLE_RUNS)])

    def loop() -> None:
        for index in range(SINGLE_RUNS):
            jax.block_until_ready(descend(starts[index], step_sizes[index], STEPS))

    single = seconds_of(loop) / SINGLE_RUNS
    return {
        "runs": RUNS,
        "steps": STEPS,
        "num_frames": NUM_FRAMES,
        "dimension": DIMENSION,
        "seconds": seconds,
        "first_call_seconds": first_call,
        "single_run_seconds": single,
        "speedup": single * RUNS / seconds,
        "target_seconds": TARGET_SECONDS,
        # A comparison of speeds means something only where both compute the same numbers.
        "largest_difference_of_losses": float(np.max(np.abs(alone - losses[:SINGLE_RUNS]))),
        "largest_rise_of_a_loss": float(np.max(np.diff(losses, axis=1))),
    }


def lines(results: Mapping[str, Any]) -> Sequence[str]:
    return [
        f"feature_descent: {results['runs']} runs of {results['steps']} steps (N = {results['num_frames']}, "
        f"d = {results['dimension']}) in {results['seconds']:.1f} s (aim: {results['target_seconds']:g} s), "
        f"{results['speedup']:.0f} times faster than one after the other"
    ]


BENCHMARK = Benchmark("feature_descent", measure, lines, quick=False)
