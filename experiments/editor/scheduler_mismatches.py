"""The settings of a pair of DDIM schedulers that stand against the theorems on DDIM inversion, each with its mend."""

import dataclasses
from typing import Any

import numpy as np
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler

from experiments.editor.inversion import nearest_divisor

BETA_SETTINGS = (
    "num_train_timesteps",
    "beta_schedule",
    "beta_start",
    "beta_end",
    "trained_betas",
    "rescale_betas_zero_snr",
)


@dataclasses.dataclass(frozen=True)
class Mismatch:
    """One setting under which the pair is not what the theorems on DDIM inversion speak of.

    Attributes:
        setting: its name in diffusers, or "num_steps", or "alphas_cumprod" for a table that no setting explains.
        value: what it is, of both schedulers where they differ.
        effect: what it does to the round trip.
        mend: what to do about it.
    """

    setting: str
    value: str
    effect: str
    mend: str

    def __str__(self) -> str:
        return f"{self.setting} is {self.value}: {self.effect}; {self.mend}"


def setting_mismatches(forward: DDIMScheduler, inverse: DDIMInverseScheduler) -> tuple[Mismatch, ...]:
    """What the two configurations and their tables say, whatever the number of steps."""
    found = []
    for name, scheduler in (("sampling", forward), ("inverse", inverse)):
        if scheduler.config.clip_sample:
            found.append(
                Mismatch(
                    "clip_sample",
                    f"True in the {name} scheduler",
                    "a clipped step has no inverse, and the round trip errs by order 1 with and without fixed point",
                    "set clip_sample=False",
                )
            )
    if forward.config.thresholding:
        found.append(
            Mismatch(
                "thresholding",
                "True in the sampling scheduler",
                "it clips the predicted sample to a quantile, and the inverse scheduler does not",
                "set thresholding=False",
            )
        )
    pair = (forward.config.prediction_type, inverse.config.prediction_type)
    if pair != ("epsilon", "epsilon"):
        found.append(
            Mismatch(
                "prediction_type",
                repr(pair[0]) if pair[0] == pair[1] else f"{pair[0]!r} in sampling and {pair[1]!r} in the inverse",
                "the inverse scheduler converts the output to noise at the lower level, the network made it at the "
                "upper one: not convention T, and v_prediction is not undone even at the fixed point",
                "convert the output to noise at (x_t, t) and pass it to schedulers with prediction_type='epsilon'",
            )
        )
    for name, effect in (
        (
            "set_alpha_to_one",
            "the two disagree on the noise of the clean level: the first step is not undone, though the naive round "
            "trip may come out smaller",
        ),
        ("steps_offset", "the two step between different levels, and no step is undone"),
        ("timestep_spacing", "the two step between different levels, and no step is undone"),
    ):
        ours, theirs = forward.config[name], inverse.config[name]
        if ours != theirs and (name != "steps_offset" or inverse.config.timestep_spacing == "leading"):
            found.append(
                Mismatch(
                    name, f"{ours!r} in sampling and {theirs!r} in the inverse", effect, f"give both {name}={ours!r}"
                )
            )
    if "linspace" in (forward.config.timestep_spacing, inverse.config.timestep_spacing):
        found.append(
            Mismatch(
                "timestep_spacing",
                "'linspace'",
                "the inverse scheduler has no such spacing",
                "use 'leading' or 'trailing' in both",
            )
        )
    return tuple(found) + _table_mismatches(forward, inverse)


def _table_mismatches(forward: DDIMScheduler, inverse: DDIMInverseScheduler) -> tuple[Mismatch, ...]:
    effect = "the two have different noise levels, and no step is undone"
    found = []
    if not torch.equal(forward.alphas_cumprod, inverse.alphas_cumprod):
        for name in BETA_SETTINGS:
            ours, theirs = forward.config.get(name), inverse.config.get(name)
            if not np.array_equal(ours, theirs):
                value = f"{_short(ours)} in sampling and {_short(theirs)} in the inverse"
                found.append(Mismatch(name, value, effect, f"give both the sampling scheduler's {name}"))
        if not found:
            found.append(
                Mismatch(
                    "alphas_cumprod",
                    "another table than the configuration describes",
                    effect,
                    "pass the table to both as trained_betas in the configuration",
                )
            )
    clean, noisiest = float(forward.alphas_cumprod[0]), float(forward.alphas_cumprod[-1])
    if not bool(torch.all((forward.alphas_cumprod > 0) & (forward.alphas_cumprod <= 1))):
        found.append(
            Mismatch(
                "rescale_betas_zero_snr" if forward.config.rescale_betas_zero_snr else "alphas_cumprod",
                f"a table from {clean:.6g} to {noisiest:.6g}",
                "alphas_cumprod must lie in (0, 1]: at 0 the data are gone, and the noise prediction has no step",
                "choose a schedule that ends above 0",
            )
        )
    elif not bool(torch.all(forward.alphas_cumprod[1:] < forward.alphas_cumprod[:-1])):
        found.append(
            Mismatch(
                "alphas_cumprod",
                f"a table from {clean:.6g} to {noisiest:.6g} that does not decrease throughout",
                "noise levels must increase from the data to the noise",
                "choose another noise schedule",
            )
        )
    return tuple(found)


PAST_THE_TABLE = "it needs a timestep past the last of the noise schedule"


def step_mismatches(
    forward: DDIMScheduler, inverse: DDIMInverseScheduler, num_steps: int
) -> tuple[Mismatch, ...]:
    """What the levels of a number of steps say; both schedulers are set to it."""
    training_steps = forward.config.num_train_timesteps
    stride = training_steps // num_steps
    spacing, offset = forward.config.timestep_spacing, forward.config.steps_offset
    upper = forward.timesteps.numpy()[::-1]
    fewer = f"use {nearest_divisor(training_steps, num_steps)} steps"
    for scheduler in (forward, inverse):
        last = int(scheduler.timesteps.max())
        if last >= scheduler.config.num_train_timesteps:
            where = f"{scheduler.config.steps_offset} with {num_steps} steps, timestep {last}"
            return (Mismatch("steps_offset", where, PAST_THE_TABLE, "use fewer steps or a smaller steps_offset"),)
    found = []
    if not np.all(np.diff(upper) == stride):
        found.append(
            Mismatch(
                "num_steps",
                f"{num_steps}, which does not divide {training_steps} under 'trailing' spacing",
                "steps start at levels where none ended and that the network never sees, though the round trip closes",
                fewer,
            )
        )
    elif 10 * stride * num_steps < 9 * training_steps:
        found.append(
            Mismatch(
                "num_steps",
                f"{num_steps}, which makes strides of {stride} and ends at timestep {upper[-1]} of {training_steps}",
                "the inversion ends where the data are not yet noise",
                fewer,
            )
        )
    reached = forward.alphas_cumprod[max(offset - stride, 0)]
    if spacing == "leading" and offset >= stride and reached != forward.final_alpha_cumprod:
        found.append(
            Mismatch(
                "steps_offset",
                f"{offset} with a stride of {stride}",
                f"the last sampling step ends at timestep {offset - stride} and not at the clean level",
                f"use a steps_offset below {stride}",
            )
        )
    if spacing == "leading" and offset == 0 and not forward.config.set_alpha_to_one:
        found.append(
            Mismatch(
                "steps_offset",
                "0 with set_alpha_to_one=False",
                "the first step goes from timestep 0 to timestep 0: it is empty, and the noise levels do not increase",
                "use steps_offset=1",
            )
        )
    return tuple(found)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:36]} .."
