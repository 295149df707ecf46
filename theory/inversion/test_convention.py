"""diffusers' own schedulers against the closed form, one step at a time.

What a pair of schedulers does over a round trip, setting by setting, is measured in tests/test_scheduler_audit.py.
"""

import dataclasses

import numpy as np
import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler

from theory.inversion.convention import CLAIM, STEP_OPERATIONS, gaussian_step, scheduler_step
from theory.inversion.ddim import Convention
from theory.inversion.schedule import noise_levels
from theory.rounding import relative_budget

BASE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "prediction_type": "epsilon",
    "timestep_spacing": "leading",
}
MEAN, VARIANCES = np.array([0.3, -1.0, 0.0, 2.0]), np.array([0.04, 0.25, 1.0, 4.0])
BREAKS = 1e6
"""A step is called another one when it misses by more than this many budgets; those below miss by some 1e8 or more."""


def make(scheduler_class, num_steps: int, **changes):
    """A scheduler on float64 tables: diffusers keeps its schedule in float32, whose values are promoted exactly."""
    scheduler = scheduler_class(**BASE | changes)
    scheduler.set_timesteps(num_steps)
    for name in ("alphas_cumprod", "initial_alpha_cumprod", "final_alpha_cumprod"):
        if hasattr(scheduler, name):
            setattr(scheduler, name, getattr(scheduler, name).double())
    return scheduler


def predict(latent: torch.Tensor, alphas_cumprod: float, prediction_type: str = "epsilon") -> torch.Tensor:
    """The exact network for data N(MEAN, diag(VARIANCES)), of any prediction type."""
    mean, variances = torch.from_numpy(MEAN), torch.from_numpy(VARIANCES)
    noise = 1 - alphas_cumprod
    eps = noise**0.5 * (latent - alphas_cumprod**0.5 * mean) / (alphas_cumprod * variances + noise)
    if prediction_type == "epsilon":
        return eps
    clean = (latent - noise**0.5 * eps) / alphas_cumprod**0.5
    return clean if prediction_type == "sample" else alphas_cumprod**0.5 * eps - noise**0.5 * clean


def lower_levels(inverse, num_steps: int) -> np.ndarray:
    """alphas_cumprod at the level each inverse step leaves from: diffusers goes to t from t - num_train_timesteps //
    N."""
    lower = inverse.timesteps.numpy() - inverse.config.num_train_timesteps // num_steps
    table = inverse.alphas_cumprod.numpy()
    return np.where(lower >= 0, table[lower], float(inverse.initial_alpha_cumprod))


def deviations(inverse, num_steps: int, convention: Convention, seed: int = 0) -> np.ndarray:
    """|scheduler's step - closed form| at every step, in units of the rounding of its operands.

    The network is called as diffusers' pipelines call it, with the current latent and the timestep of the loop.
    """
    table = inverse.alphas_cumprod.numpy()
    lower = lower_levels(inverse, num_steps)
    generator = np.random.default_rng(seed)
    ratios = []
    for timestep, abar_from in zip(inverse.timesteps.tolist(), lower):
        abar_to = table[timestep]
        latent = torch.from_numpy(generator.normal(size=4))
        output = predict(latent, abar_to, inverse.config.prediction_type)
        stepped = inverse.step(output, timestep, latent).prev_sample.numpy()
        sigma_from, sigma_to = ((1 - abar) ** 0.5 / abar**0.5 for abar in (abar_from, abar_to))
        state = latent.numpy() / abar_from**0.5
        expected = abar_to**0.5 * gaussian_step(state, MEAN, VARIANCES, sigma_from, sigma_to, convention)
        eps = predict(latent, abar_to).numpy()
        # Rounding of eps itself: its numerator cancels where the latent meets the mean.
        scale = (1 - abar_to) ** 0.5 * (np.abs(latent.numpy()) + np.abs(MEAN)) / (abar_to * VARIANCES + 1 - abar_to)
        operands = abar_to**0.5 * (np.abs(state) + (sigma_from + sigma_to) * (np.abs(eps) + scale))
        ratios.append(np.max(np.abs(stepped - expected) / operands) / relative_budget(STEP_OPERATIONS))
    return np.array(ratios)


SETTINGS = {
    "Stable Diffusion": {},
    "to one": {"set_alpha_to_one": True, "steps_offset": 0},
    "to one, offset 1": {"set_alpha_to_one": True},
    "trailing": {"timestep_spacing": "trailing"},
    "trailing, to one": {"timestep_spacing": "trailing", "set_alpha_to_one": True},
    "linear betas": {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02},
    "cosine betas": {"beta_schedule": "squaredcos_cap_v2"},
}


@pytest.mark.parametrize("num_steps", [10, 50, 250])
@pytest.mark.parametrize("changes", SETTINGS.values(), ids=SETTINGS)
def test_every_step_of_the_inverse_scheduler_is_convention_t(num_steps, changes):
    inverse = make(DDIMInverseScheduler, num_steps, **changes)
    assert deviations(inverse, num_steps, Convention.T).max() <= 1
    for other in (Convention.S, Convention.Y):
        assert deviations(inverse, num_steps, other).max() > BREAKS


@pytest.mark.parametrize("num_steps", [10, 50])
def test_sampling_scheduler_steps_back_along_the_same_line(num_steps):
    forward = make(DDIMScheduler, num_steps)
    table = forward.alphas_cumprod.numpy()
    generator = np.random.default_rng(1)
    for timestep in forward.timesteps.tolist():
        lower = timestep - 1000 // num_steps
        abar_to = table[lower] if lower >= 0 else float(forward.final_alpha_cumprod)
        latent, eps = generator.normal(size=(2, 4))
        stepped = forward.step(torch.from_numpy(eps), timestep, torch.from_numpy(latent), eta=0.0).prev_sample.numpy()
        sigma_from, sigma_to = noise_levels([abar_to, table[timestep]])[::-1]
        operands = abar_to**0.5 * (np.abs(latent) / table[timestep] ** 0.5 + (sigma_from + sigma_to) * np.abs(eps))
        expected = abar_to**0.5 * (latent / table[timestep] ** 0.5 + (sigma_to - sigma_from) * eps)
        assert (np.abs(stepped - expected) <= relative_budget(STEP_OPERATIONS) * operands).all()
        ours = scheduler_step(latent, eps, table[timestep], abar_to)
        assert (np.abs(stepped - ours) <= relative_budget(STEP_OPERATIONS) * operands).all()


def test_own_tables_in_float32_agree_to_float32_rounding():
    """As shipped, without promotion: the roots of the schedule are then taken in float32."""
    inverse = DDIMInverseScheduler(**BASE)
    inverse.set_timesteps(50)
    ratios = deviations(inverse, 50, Convention.T) * relative_budget(STEP_OPERATIONS)
    assert ratios.max() <= relative_budget(STEP_OPERATIONS, unit_roundoff=2.0**-24)


def test_trailing_closes_but_steps_between_levels_it_never_evaluates():
    """Where N does not divide 1000 the round trip reads rounding, yet a step does not start where the last one
    ended."""
    inverse = make(DDIMInverseScheduler, 30, timestep_spacing="trailing")
    upper = inverse.alphas_cumprod.numpy()[inverse.timesteps.numpy()]
    assert (lower_levels(inverse, 30)[1:] != upper[:-1]).any()
    whole = make(DDIMInverseScheduler, 50, timestep_spacing="trailing")
    np.testing.assert_array_equal(
        lower_levels(whole, 50)[1:], whole.alphas_cumprod.numpy()[whole.timesteps.numpy()][:-1]
    )


def test_leading_with_a_remainder_ends_below_the_top():
    inverse = make(DDIMInverseScheduler, 600)
    assert int(inverse.timesteps[-1]) == 600
    np.testing.assert_array_equal(np.diff(inverse.timesteps.numpy()), 1)


def test_empty_first_step_has_no_noise_levels():
    inverse = make(DDIMInverseScheduler, 50, steps_offset=0)
    levels = np.concatenate([lower_levels(inverse, 50)[:1], inverse.alphas_cumprod.numpy()[inverse.timesteps.numpy()]])
    with pytest.raises(ValueError, match="alphas_cumprod at step 1 .* must be smaller"):
        noise_levels(levels)


@pytest.mark.parametrize(
    "changes", [{"clip_sample": True}, {"prediction_type": "v_prediction"}], ids=["clip_sample", "v_prediction"]
)
def test_settings_that_are_not_the_closed_form(changes):
    assert deviations(make(DDIMInverseScheduler, 50, **changes), 50, Convention.T).max() > BREAKS


def test_sample_prediction_with_alpha_one_is_not_a_number():
    inverse = make(DDIMInverseScheduler, 50, prediction_type="sample", set_alpha_to_one=True, steps_offset=0)
    latent = torch.ones(4, dtype=torch.float64)
    clean = predict(latent, float(inverse.alphas_cumprod[0]), "sample")
    # At alpha 1 the noise is (x - x_0) / 0: infinite for a network that does not return its input, NaN for one that
    # does.
    assert not torch.isfinite(inverse.step(clean, 0, latent).prev_sample).any()
    assert torch.isnan(inverse.step(latent, 0, latent).prev_sample).all()


def test_linspace_is_refused_by_the_inverse_scheduler():
    with pytest.raises(ValueError, match="linspace is not supported"):
        make(DDIMInverseScheduler, 50, timestep_spacing="linspace")


def test_recorded_steps_pass(recorded, untested_reality):
    result = untested_reality(CLAIM, recorded)
    assert result.passed, result.failures


def test_a_record_on_another_schedule_is_rejected(recorded, untested_reality):
    record = recorded.round_trips[0]
    wrong = dataclasses.replace(record, alphas_cumprod=record.alphas_cumprod**1.001)
    assert not untested_reality(CLAIM, dataclasses.replace(recorded, round_trips=(wrong,))).passed
