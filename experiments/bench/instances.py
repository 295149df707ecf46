"""Instances of an inequality per second: the ladder's batched evaluation against a loop over single ones."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments.bench import Benchmark, Note, seconds_of

TORCH_INSTANCES = 64
BATCH = 4096
TARGET = 20.0


def _rate(work: Callable[[], Any], count: int) -> dict[str, float]:
    seconds = seconds_of(work)
    return {"instances_per_second": count / seconds, "instances": count, "seconds": seconds}


def measure(seed: int, note: Note) -> dict[str, Any]:
    """Instances of C1.hessian per second: the batched evaluation that the ladder uses, against a loop over single torch
    evaluations.

    Both evaluate the same inequality on the same drawn instances: the dense Hessian of the temporal loss by automatic
    differentiation, its norm by a symmetric eigensolver, and C_N / m^2.
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

        def batched(size=size, parameters=parameters) -> None:
            search.evaluate(PROBLEM, size, parameters)

        drawn = [
            PROBLEM.instance(jax.tree.map(lambda leaf, index=index: leaf[index], parameters), **dict(size))
            for index in range(TORCH_INSTANCES)
        ]
        inputs = [(torch.from_numpy(np.array(one["frames"])), float(one["min_norm"])) for one in drawn]

        def single(frames: torch.Tensor, min_norm: float) -> tuple[float, float]:
            hessian = torch.autograd.functional.hessian(temporal_loss, frames).reshape(frames.numel(), frames.numel())
            return float(torch.linalg.eigvalsh(hessian).abs().max()), hessian_constant(len(frames)) / min_norm**2

        def loop(inputs=inputs) -> None:
            for frames, min_norm in inputs:
                single(frames, min_norm)

        alone = np.array([single(frames, min_norm) for frames, min_norm in inputs])
        slow, fast = _rate(loop, TORCH_INSTANCES), _rate(batched, BATCH)
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


def lines(results: Mapping[str, Any]) -> Sequence[str]:
    return [
        f"instances, {size}: JAX {entry['jax_batched']['instances_per_second']:.0f}/s, torch loop "
        f"{entry['torch_loop']['instances_per_second']:.0f}/s, {entry['speedup']:.0f} times (aim: {TARGET:g})"
        for size, entry in results.items()
        if isinstance(entry, dict)
    ]


BENCHMARK = Benchmark("instances", measure, lines)
