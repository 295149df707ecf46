"""Steps of inversion and sampling against the closed form, trajectories on predictors with a known solution.

A closed round trip proves nothing: it closes for wrong noise levels too. So every step is held against the formula,
and the evaluation points against the stated convention.
"""

import math

import numpy as np
import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler, DDPMScheduler

from experiments.editor.inversion import check_scheduler, invert_latents, noise_ladder, sample_latents
from theory.rounding import relative_budget

SHAPE = (3, 2, 4, 5)
SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}
STABLE_DIFFUSION = {**SCHEDULE, "set_alpha_to_one": False, "steps_offset": 1}
LADDERS = [
    (STABLE_DIFFUSION, 50),
    (STABLE_DIFFUSION, 7),
    (STABLE_DIFFUSION, 1),
    (STABLE_DIFFUSION, 999),
    (SCHEDULE, 50),
    (SCHEDULE, 1000),
    ({**SCHEDULE, "timestep_spacing": "trailing"}, 50),
    ({**SCHEDULE, "timestep_spacing": "trailing", "set_alpha_to_one": False}, 8),
]


def ladder_of(options, num_steps, dtype=torch.float64):
    return noise_ladder(DDIMScheduler(**options), num_steps, dtype)


def normal(seed, shape=SHAPE, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def coefficients(ladder, level):
    """a = sqrt(abar) and b = sqrt(1 - abar) of a level, in extended precision."""
    alpha = np.longdouble(ladder.alphas_cumprod[level])
    return np.sqrt(alpha), np.sqrt(1 - alpha)


def steps_of(ladder):
    """Some levels of a long ladder, all of a short one."""
    return sorted({int(level) for level in np.linspace(0, ladder.num_steps - 1, min(ladder.num_steps, 12))})


def step_error(found, x, eps, source, target):
    """The distance of a step from its closed form, and the rounding it may have.

        target_a (x - source_b eps) / source_a + target_b eps

    On the way from x to the result there are at most 10 roundings: 1 - abar, two square roots, a product and a
    difference, a division by and a product with a root, the other product, the sum, and one to spare.
    """
    (source_a, source_b), (target_a, target_b) = source, target
    x, eps = x.numpy().astype(np.longdouble), eps.numpy().astype(np.longdouble)
    exact = target_a * (x - source_b * eps) / source_a + target_b * eps
    operands = target_a * (np.abs(x) + source_b * np.abs(eps)) / source_a + target_b * np.abs(eps)
    return np.abs(found.numpy() - exact), relative_budget(10) * operands


@pytest.mark.parametrize(("options", "num_steps"), LADDERS)
def test_each_step_is_the_closed_form(options, num_steps):
    ladder = ladder_of(options, num_steps)
    for level in steps_of(ladder):
        x, eps = normal(2 * level), normal(2 * level + 1)
        lower, upper = coefficients(ladder, level), coefficients(ladder, level + 1)
        error, budget = step_error(ladder.step_up(eps, level, x), x, eps, lower, upper)
        assert (error <= budget).all()
        error, budget = step_error(ladder.step_down(eps, level, x), x, eps, upper, lower)
        assert (error <= budget).all()


def test_the_closed_form_notices_a_level_that_is_off_by_one():
    ladder = ladder_of(STABLE_DIFFUSION, 50)
    x, eps = normal(0), normal(1)
    for level in range(1, 49):
        found = ladder.step_up(eps, level, x)
        for lower, upper in ((level - 1, level), (level, level + 2), (level - 1, level + 1)):
            error, budget = step_error(found, x, eps, coefficients(ladder, lower), coefficients(ladder, upper))
            assert (error > budget).any()


def test_the_closed_form_notices_square_roots_in_single_precision():
    single = ladder_of(STABLE_DIFFUSION, 50, torch.float32)
    x, eps = normal(0), normal(1)
    error, budget = step_error(single.step_up(eps, 25, x), x, eps, coefficients(single, 25), coefficients(single, 26))
    assert (error > budget).any()


@pytest.mark.parametrize(("options", "num_steps"), LADDERS)
def test_inversion_undoes_sampling_for_the_same_prediction(options, num_steps):
    r"""Rounding of down then up, in the units u of double precision.

    With M = |x| + b' |eps| at the upper level and c = b |eps| a' / a: the step down errs by at most u (5 M a / a' + 2
    b |eps|), which the step up multiplies by a' / a; its own rounding is at most u (5 (M + 2 c) + 2 b' |eps|).
    Together at most 12 u (M + c), to first order; the 13th covers the higher ones. Both directions round the same
    square roots, so those do not count.
    """
    ladder = ladder_of(options, num_steps)
    for level in steps_of(ladder):
        x, eps = normal(level), normal(level + 1000)
        returned = ladder.step_up(eps, level, ladder.step_down(eps, level, x))
        (lower_a, lower_b), (upper_a, upper_b) = coefficients(ladder, level), coefficients(ladder, level + 1)
        operands = x.abs().numpy() + (upper_b + lower_b * upper_a / lower_a) * eps.abs().numpy()
        assert (np.abs((returned - x).numpy()) <= relative_budget(13) * operands).all()


def test_levels_of_stable_diffusion():
    scheduler = DDIMScheduler(**STABLE_DIFFUSION)
    ladder = noise_ladder(scheduler, 50, torch.float64)
    np.testing.assert_array_equal(ladder.timesteps, [-1, *range(1, 1000, 20)])
    table = scheduler.alphas_cumprod.numpy()
    assert table.dtype == np.float32
    np.testing.assert_array_equal(ladder.alphas_cumprod, table[[0, *range(1, 1000, 20)]].astype(np.float64))


def test_level_0_is_noiseless_where_the_scheduler_says_so():
    ladder = ladder_of({**SCHEDULE, "timestep_spacing": "trailing"}, 4)
    np.testing.assert_array_equal(ladder.timesteps, [-1, 249, 499, 749, 999])
    assert ladder.alphas_cumprod[0] == 1


def test_in_single_precision_the_steps_are_those_of_diffusers_bit_for_bit():
    sampler, inverter = DDIMScheduler(**STABLE_DIFFUSION), DDIMInverseScheduler(**STABLE_DIFFUSION)
    sampler.set_timesteps(10)
    inverter.set_timesteps(10)
    ladder = ladder_of(STABLE_DIFFUSION, 10, torch.float32)
    start = normal(0, dtype=torch.float32)

    def predict(latents, timestep):
        return torch.tanh(latents + timestep / 1000)

    latents = start
    for timestep in inverter.timesteps:
        latents = inverter.step(predict(latents, int(timestep)), timestep, latents).prev_sample
    inversion = invert_latents(predict, start, ladder)
    assert torch.equal(inversion.latents[-1], latents)
    for timestep in sampler.timesteps:
        latents = sampler.step(predict(latents, int(timestep)), timestep, latents).prev_sample
    assert torch.equal(sample_latents(predict, inversion.latents[-1], ladder).latents[0], latents)


def gaussian(ladder, deviation):
    """The exact prediction for data N(0, deviation^2 I), b x / (a^2 deviation^2 + b^2), and its slopes by level."""
    alphas = ladder.alphas_cumprod
    slopes = np.sqrt(1 - alphas) / (alphas * deviation**2 + 1 - alphas)
    by_timestep = dict(zip(ladder.timesteps.tolist(), slopes.tolist(), strict=True))
    return (lambda latents, timestep: by_timestep[timestep] * latents), slopes


@pytest.mark.parametrize("deviation", [0.3, 1.0])
def test_trajectories_on_gaussian_data_are_products_of_the_step_factors(deviation):
    r"""Under the convention of diffusers a step multiplies x by a factor, with g = g_{k+1} in both directions:

    up    a_{k+1} (1 - b_k g) / a_k + b_{k+1} g        down    a_k (1 - b_{k+1} g) / a_{k+1} + b_k g
    """
    ladder = ladder_of(STABLE_DIFFUSION, 50)
    predict, slopes = gaussian(ladder, deviation)
    a, b, g = np.sqrt(ladder.alphas_cumprod), np.sqrt(1 - ladder.alphas_cumprod), slopes[1:]
    up = a[1:] * (1 - b[:-1] * g) / a[:-1] + b[1:] * g
    down = a[:-1] * (1 - b[1:] * g) / a[1:] + b[:-1] * g
    operands_up = a[1:] * (1 + b[:-1] * g) / a[:-1] + b[1:] * g
    operands_down = a[:-1] * (1 + b[1:] * g) / a[1:] + b[:-1] * g
    cancellation = max(np.max(operands_up / up), np.max(operands_down / down))
    start = normal(5)
    inversion = invert_latents(predict, start, ladder)
    sampling = sample_latents(predict, inversion.latents[-1], ladder)
    rises = np.concatenate([[1.0], np.cumprod(up)])
    falls = np.concatenate([np.cumprod(down[::-1])[::-1], [1.0]]) * rises[-1]
    for trajectory, factors in ((inversion, rises), (sampling, falls)):
        assert trajectory.latents.shape == (51, *SHAPE)
        assert trajectory.num_steps == 50
        expected = factors[:, None, None, None, None] * start.numpy()
        # Each step adds at most 16 roundings to either side, at the size of its operands.
        budget = relative_budget(math.ceil(2 * 16 * 50 * cancellation)) * np.abs(expected)
        assert (np.abs(trajectory.latents.numpy() - expected) <= budget).all()


def recording(predict):
    calls = []

    def recorded(latents, timestep):
        calls.append((latents.clone(), timestep))
        return predict(latents, timestep)

    return recorded, calls


def test_inversion_takes_the_lower_state_with_the_upper_timestep():
    ladder = ladder_of(STABLE_DIFFUSION, 5)
    predict, calls = recording(gaussian(ladder, 0.5)[0])
    inversion = invert_latents(predict, normal(6), ladder)
    assert [timestep for _, timestep in calls] == [1, 201, 401, 601, 801]
    assert torch.equal(torch.stack([latents for latents, _ in calls]), inversion.latents[:-1])
    assert torch.equal(torch.stack([predict(*call) for call in calls[:5]]), inversion.predictions)


def test_sampling_takes_the_upper_state_with_the_upper_timestep():
    ladder = ladder_of(STABLE_DIFFUSION, 5)
    predict, calls = recording(gaussian(ladder, 0.5)[0])
    start = normal(7)
    sampling = sample_latents(predict, start, ladder)
    assert [timestep for _, timestep in calls] == [801, 601, 401, 201, 1]
    assert torch.equal(torch.stack([latents for latents, _ in calls[::-1]]), sampling.latents[1:])
    assert torch.equal(sampling.latents[-1], start)
    assert torch.equal(torch.stack([predict(*call) for call in calls[:5]][::-1]), sampling.predictions)


def test_fixed_point_evaluates_the_upper_state_found_last():
    ladder = ladder_of(STABLE_DIFFUSION, 2)
    predict, calls = recording(gaussian(ladder, 0.5)[0])
    start = normal(8)
    inversion = invert_latents(predict, start, ladder, fixed_point_iterations=2)
    assert [timestep for _, timestep in calls] == [1, 1, 1, 501, 501, 501]
    upper = start
    for latents, timestep in calls[:3]:
        assert torch.equal(latents, upper)
        upper = ladder.step_up(predict(upper, timestep), 0, start)
    assert torch.equal(inversion.latents[1], upper)
    assert torch.equal(inversion.predictions[0], predict(*calls[2]))


def test_fixed_point_contracts_the_round_trip_by_the_step_constant():
    r"""On a linear predictor the iteration is x' = A x_k + B g x', so j + 1 evaluations leave the step's error at (B
    g)^j of the first.

    Round trips are compared level by level through sampling, whose factors are known, so the whole error must fall at
    least by the largest B g from one j to the next, up to rounding.
    """
    ladder = ladder_of(STABLE_DIFFUSION, 50)
    predict, slopes = gaussian(ladder, 1.0)
    a, b = np.sqrt(ladder.alphas_cumprod), np.sqrt(1 - ladder.alphas_cumprod)
    contraction = np.max((b[1:] - b[:-1] * a[1:] / a[:-1]) * slopes[1:])
    assert 0 < contraction < 1
    start = normal(9)
    errors = []
    for iterations in range(6):
        noise = invert_latents(predict, start, ladder, fixed_point_iterations=iterations).latents[-1]
        errors.append(float(torch.linalg.norm(sample_latents(predict, noise, ladder).latents[0] - start)))
    rounding = relative_budget(2 * 50 * 16) * float(torch.linalg.norm(start)) / ladder.alphas_cumprod[-1] ** 0.5
    assert errors[0] > 100 * rounding
    for before, after in zip(errors[:-1], errors[1:], strict=True):
        assert after <= contraction * before + rounding


def test_progress_counts_steps_in_both_directions():
    ladder = ladder_of(STABLE_DIFFUSION, 4)
    predict, _ = gaussian(ladder, 1.0)
    for run in (invert_latents, sample_latents):
        seen = []
        run(predict, normal(0), ladder, progress=lambda *counts, seen=seen: seen.append(counts))
        assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_latents_that_stop_being_finite_name_the_step():
    ladder = ladder_of(STABLE_DIFFUSION, 4)

    def predict(latents, timestep):
        return latents / (0.0 if timestep == 251 else 1.0)

    with pytest.raises(ValueError, match=r"inversion to level 2 \(timestep 251\)"):
        invert_latents(predict, normal(0), ladder)
    with pytest.raises(ValueError, match=r"sampling to level 1 \(from timestep 251\)"):
        sample_latents(predict, normal(0), ladder)
    with pytest.raises(ValueError, match="fixed_point_iterations = -1"):
        invert_latents(predict, normal(0), ladder, fixed_point_iterations=-1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip_sample": True}, "clip_sample = True.*must be False.*clip_sample=False"),
        ({"thresholding": True}, "thresholding = True"),
        ({"prediction_type": "v_prediction"}, "prediction_type = 'v_prediction'.*must be 'epsilon'.*predicts eps"),
        ({"prediction_type": "sample"}, "prediction_type = 'sample'"),
        ({"timestep_spacing": "linspace"}, "timestep_spacing = 'linspace'.*'leading' or 'trailing'"),
        ({"rescale_betas_zero_snr": True}, "runs from .* to 0; it must decrease strictly"),
        ({"trained_betas": [0.1, 0.0, 0.1]}, "must decrease strictly"),
        ({"trained_betas": [0.1, -0.5, 0.1]}, "must decrease strictly"),
    ],
)
def test_schedulers_without_an_inverse_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        check_scheduler(DDIMScheduler(**{**STABLE_DIFFUSION, **options}))


def test_the_clipped_step_that_is_refused_has_no_inverse():
    options = {**STABLE_DIFFUSION, "clip_sample": True}
    sampler, inverter = DDIMScheduler(**options), DDIMInverseScheduler(**options)
    sampler.set_timesteps(50)
    inverter.set_timesteps(50)
    x, eps = normal(0), normal(1)
    down = sampler.step(eps, 501, x).prev_sample
    assert torch.linalg.norm(inverter.step(eps, 501, down).prev_sample - x) > 0.1 * torch.linalg.norm(x)


def test_other_schedulers_are_refused():
    with pytest.raises(ValueError, match="DDPMScheduler.*DDIMScheduler.from_config"):
        check_scheduler(DDPMScheduler())


def test_a_table_that_the_configuration_does_not_describe_is_refused():
    scheduler = DDIMScheduler(**STABLE_DIFFUSION)
    scheduler.alphas_cumprod = scheduler.alphas_cumprod**2
    with pytest.raises(ValueError, match="not the table its configuration describes"):
        check_scheduler(scheduler)
    scheduler = DDIMScheduler(**STABLE_DIFFUSION)
    scheduler.final_alpha_cumprod = torch.tensor(1.0)
    with pytest.raises(ValueError, match="not the table its configuration describes"):
        check_scheduler(scheduler)


@pytest.mark.parametrize(
    ("options", "num_steps", "message"),
    [
        (STABLE_DIFFUSION, 0, "num_steps = 0 must be an integer from 1 to 1000"),
        (STABLE_DIFFUSION, 1001, "num_steps = 1001"),
        (STABLE_DIFFUSION, 2.5, "num_steps = 2.5"),
        (STABLE_DIFFUSION, True, "num_steps = True"),
        (STABLE_DIFFUSION, 1000, "needs timestep 1000, past the last, 999"),
        (STABLE_DIFFUSION, 600, "strides of 1 and ends at timestep 600 of 1000.*use 500 steps"),
        ({**SCHEDULE, "timestep_spacing": "trailing"}, 30, "does not divide the 1000 training steps.*use 25 steps"),
        ({**SCHEDULE, "set_alpha_to_one": False}, 50, "levels 0 and 1 have alphas_cumprod.*use steps_offset=1"),
    ],
)
def test_ladders_that_are_none_are_refused(options, num_steps, message):
    with pytest.raises(ValueError, match=message):
        noise_ladder(DDIMScheduler(**options), num_steps)


def test_the_trailing_ladder_that_is_refused_leaves_the_levels_it_evaluates():
    """Why a round trip is no test: diffusers' pair closes it although it steps to levels where nothing is evaluated."""
    options = {**SCHEDULE, "timestep_spacing": "trailing"}
    sampler, inverter = DDIMScheduler(**options), DDIMInverseScheduler(**options)
    sampler.set_timesteps(30)
    inverter.set_timesteps(30)
    reached = sampler.timesteps - 1000 // 30
    assert not torch.isin(reached[:-1], sampler.timesteps).all()
    x, eps = normal(0), normal(1)
    for timestep in sampler.timesteps[:-1].tolist():
        returned = inverter.step(eps, timestep, sampler.step(eps, timestep, x).prev_sample).prev_sample
        upper, lower = (float(sampler.alphas_cumprod[index]) for index in (timestep, timestep - 1000 // 30))
        operands = x.abs() + (math.sqrt(1 - upper) + math.sqrt((1 - lower) * upper / lower)) * eps.abs()
        # 13 as in the test above; 1 for the roots, which are taken here in double and there in single precision.
        assert ((returned - x).abs() <= relative_budget(14) * operands).all()
