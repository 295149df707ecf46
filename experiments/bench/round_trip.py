"""What estimates of the round-trip error cost: evaluations of the network, time and memory, as shares of a sampling."""

import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments.bench import Benchmark, Note, seconds_of

STEPS = (10, 20)
FRAMES = 1
SWEEP_AIM = 3.0


class _Counted:
    """A predictor that counts its evaluations."""

    def __init__(self, predict: Callable) -> None:
        self.predict, self.count = predict, 0

    def __call__(self, latents, timestep):
        self.count += 1
        return self.predict(latents, timestep)


def _peak(work: Callable[[], Any]) -> int:
    """Bytes that NumPy and Python hold at most during the work beyond what they held before.

    torch's own memory is not seen; what an adjoint sweep keeps between its steps would be, as its arrays are NumPy's.
    """
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def measure(seed: int, note: Note) -> dict[str, Any]:
    """Evaluations and time of the a-posteriori defects and of one adjoint sweep, over those of one sampling pass.

    Under convention T the defects need eps at (x_{k+1}, t_{k+1}) of the inversion, one evaluation a step beyond the
    round trip. Under S the inversion evaluates at (x_k, t_k): the defect of step k is the inversion's own next
    prediction less the last, and for the last step the sampling's first, so nothing is evaluated.
    """
    import torch

    from experiments.editor import CLIPS, caption, load_clip, load_editor
    from experiments.editor.attribution import adjoint_sweep, error_direction
    from experiments.editor.evidence import record_trip
    from experiments.editor.inversion import invert_latents, noise_ladder, sample_latents

    editor = load_editor(dtype=torch.float64)
    prompt = caption(CLIPS["carphone"].subject, "plain")
    latents = editor.to_latents(load_clip("carphone", "held_out", editor.frame_size)[:FRAMES])
    results = {}
    for steps in STEPS:
        note(f"round_trip: {steps} steps")
        ladder = noise_ladder(editor.pipeline.scheduler, steps, torch.float64)
        counted = _Counted(lambda x, timestep: editor.predict_noise(x, timestep, prompt))
        with torch.no_grad():
            noise = invert_latents(counted, latents, ladder).latents[-1]
            sample_latents(counted, noise, ladder)
        round_trip_t, counted.count = counted.count, 0
        record = record_trip(counted, latents, ladder, "bench")
        with_defects_t, counted.count = counted.count, 0
        _under_s(counted, latents, ladder)
        with_defects_s = counted.count
        direction, _ = error_direction(record)

        def sampling(noise=noise, ladder=ladder) -> None:
            with torch.no_grad():
                sample_latents(counted, noise, ladder)

        def sweep(record=record, ladder=ladder, direction=direction) -> None:
            adjoint_sweep(counted, record, ladder, direction)

        sampling_seconds, sweep_seconds = seconds_of(sampling), seconds_of(sweep)
        results[str(steps)] = {
            "evaluations": {
                "round_trip": round_trip_t,
                "a_posteriori_T": with_defects_t - round_trip_t,
                "a_posteriori_S": with_defects_s - 2 * steps,
            },
            "sampling_seconds": sampling_seconds,
            "sweep_seconds": sweep_seconds,
            "sweep_over_sampling": sweep_seconds / sampling_seconds,
            "sweep_peak_bytes": _peak(sweep),
            "stored_bytes": int(record.inversion.nbytes),
        }
    first, last = (results[str(steps)] for steps in (STEPS[0], STEPS[-1]))
    results["sweep_memory_growth"] = last["sweep_peak_bytes"] / first["sweep_peak_bytes"]
    results["aim"] = SWEEP_AIM
    return results


def _under_s(predict, latents, ladder):
    """A round trip under convention S, and its defects from what it evaluated, (num_steps, ...)."""
    import numpy as np
    import torch

    from theory.inversion import noise_levels

    sigmas = noise_levels(ladder.alphas_cumprod)
    used, states = [], [latents]
    with torch.no_grad():
        for level in range(ladder.num_steps):
            # Level 0 has no timestep of its own where its alpha is 1; its neighbour's is the nearest.
            used.append(predict(states[-1], int(ladder.timesteps[max(level, 1)])))
            states.append(ladder.step_up(used[-1], level, states[-1]))
        state = states[-1]
        for level in reversed(range(ladder.num_steps)):
            noise = predict(state, int(ladder.timesteps[level + 1]))
            if level == ladder.num_steps - 1:
                used.append(noise)
            state = ladder.step_down(noise, level, state)
    predictions = torch.stack(used).numpy()
    steps = np.diff(sigmas).reshape(-1, *([1] * latents.ndim))
    return steps * (predictions[1:] - predictions[:-1])


def lines(results: Mapping[str, Any]) -> Sequence[str]:
    found = []
    for steps, entry in results.items():
        if not isinstance(entry, dict):
            continue
        counts = entry["evaluations"]
        found.append(
            f"round_trip, {steps} steps: a-posteriori defects {counts['a_posteriori_T']} further evaluations under T, "
            f"{counts['a_posteriori_S']} under S; adjoint sweep {entry['sweep_over_sampling']:.2f} times a sampling "
            f"(aim: at most {results['aim']:g})"
        )
    found.append(
        f"round_trip: memory of a sweep beyond the stored latents, {STEPS[-1]} over {STEPS[0]} steps: "
        f"{results['sweep_memory_growth']:.2f}"
    )
    return found


BENCHMARK = Benchmark("round_trip", measure, lines)
