"""The audit of a pair of schedulers: every setting's effect, what is named, agreement with the editor, bad input."""

import copy

import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler, DDPMScheduler

from experiments.editor.inversion import noise_ladder
from experiments.editor.pipeline import load_pipeline
from experiments.editor.scheduler_audit import SETTINGS, STABLE_DIFFUSION, audit_schedulers, settings_table
from theory.inversion.convention import STEP_OPERATIONS
from theory.rounding import relative_budget

OPEN = 1e6
"""A round trip is called open when it misses by more than this many budgets; those below miss by some 1e8 or more."""

FINDINGS = {
    "both alike": ("T", True, []),
    "set_alpha_to_one in both": ("T", True, []),
    "trailing in both": ("T", True, []),
    "leading, 30 does not divide 1000": ("T", True, []),
    "leading, 600 does not divide 1000": ("T", True, ["num_steps"]),
    "trailing, 30 does not divide 1000": ("none", True, ["num_steps"]),
    "first step empty": ("T", True, ["steps_offset"]),
    "steps_offset beyond the stride": ("T", True, ["steps_offset"]),
    "steps_offset past the table": ("none", False, ["steps_offset"]),
    "clip_sample in both": ("none", False, ["clip_sample", "clip_sample"]),
    "clip_sample in the inverse only": ("none", False, ["clip_sample"]),
    "thresholding": ("none", False, ["thresholding"]),
    "set_alpha_to_one differs": ("none", False, ["set_alpha_to_one"]),
    "steps_offset differs": ("none", False, ["steps_offset"]),
    "spacing differs": ("none", False, ["timestep_spacing"]),
    "betas differ": ("none", False, ["beta_schedule"]),
    "linspace": ("none", False, ["timestep_spacing"]),
    "v_prediction": ("none", False, ["prediction_type"]),
    "sample": ("none", True, ["prediction_type"]),
    "sample, set_alpha_to_one": ("none", False, ["prediction_type"]),
    "zero terminal SNR, trailing": ("none", False, ["rescale_betas_zero_snr"]),
}


@pytest.fixture(scope="module")
def table():
    return settings_table()


def rounding_of_round_trip(num_steps: int) -> float:
    """Sampling exact scores of Gaussian data expands no rounding, so the roundings of all steps add up, each scaled to
    its operands.

    Operands reach sigma_N sqrt(abar) <= 1 in the latent, amplified towards the data by at most 1 / sqrt(abar_N) <= 15
    for this schedule.
    """
    return relative_budget(15 * 2 * STEP_OPERATIONS * num_steps)


@pytest.mark.parametrize("name", SETTINGS)
def test_what_each_setting_does(table, name):
    audit = table[name]
    found = (audit.convention, audit.formal_inverse, [mismatch.setting for mismatch in audit.mismatches])
    assert found == FINDINGS[name]
    closed = rounding_of_round_trip(audit.num_steps)
    if audit.fixed_point_round_trip is not None:
        if audit.formal_inverse:
            assert audit.fixed_point_round_trip <= closed < audit.naive_round_trip
        else:
            assert audit.fixed_point_round_trip > OPEN * closed
    if audit.one_step_residual is not None and audit.convention == "none":
        assert audit.one_step_residual > OPEN * relative_budget(STEP_OPERATIONS)


def test_every_pair_that_is_no_inverse_is_explained(table):
    assert all(audit.mismatches for audit in table.values() if not audit.formal_inverse or audit.convention != "T")
    for audit in table.values():
        for mismatch in audit.mismatches:
            assert all((mismatch.setting, mismatch.value, mismatch.effect, mismatch.mend))
            assert str(mismatch).startswith(f"{mismatch.setting} is {mismatch.value}: ")


def test_a_wrong_pair_can_lower_the_naive_round_trip(table):
    """So the naive round trip is no test of a pair: its own error hides the mismatch, and may cancel it."""
    right = table["both alike"].naive_round_trip
    for name in ("set_alpha_to_one differs", "spacing differs", "v_prediction"):
        assert table[name].naive_round_trip < right, name


def test_a_closed_round_trip_does_not_show_the_levels(table):
    """Nor is the fixed-point round trip a test of the levels: only the single step against its closed form is."""
    trailing = table["trailing, 30 does not divide 1000"]
    assert trailing.formal_inverse and trailing.convention == "none"


@pytest.mark.parametrize("name", [name for name, (_, forward, inverse) in SETTINGS.items() if forward == inverse])
def test_the_editor_accepts_the_schedulers_the_audit_finds_nothing_against(table, name):
    num_steps, changes, _ = SETTINGS[name]
    scheduler = DDIMScheduler(**{**STABLE_DIFFUSION, **changes})
    if table[name].mismatches:
        with pytest.raises(ValueError):
            noise_ladder(scheduler, num_steps)
    else:
        assert noise_ladder(scheduler, num_steps).num_steps == num_steps


def test_the_editor_refuses_an_offset_that_misses_the_clean_level():
    with pytest.raises(ValueError, match=r"steps_offset = 40 with num_steps = 30 must lie below the stride, 33"):
        noise_ladder(DDIMScheduler(**{**STABLE_DIFFUSION, "steps_offset": 40}), 30)


def test_the_shipped_pipeline_passes():
    audit = audit_schedulers(load_pipeline().scheduler, num_steps=50)
    assert (audit.convention, audit.formal_inverse, audit.mismatches) == ("T", True, ())


def test_diffusers_defaults_are_caught():
    """clip_sample defaults to True; an inverse scheduler made of the sampling scheduler's configuration inherits it."""
    audit = audit_schedulers(DDIMScheduler(), num_steps=20)
    assert not audit.formal_inverse
    assert [mismatch.setting for mismatch in audit.mismatches] == ["clip_sample", "clip_sample"]


def test_schedulers_are_left_as_they_are():
    forward, inverse = DDIMScheduler(**STABLE_DIFFUSION), DDIMInverseScheduler(**STABLE_DIFFUSION)
    before = copy.deepcopy((forward.__dict__, inverse.__dict__))
    audits = [audit_schedulers(*pair, 10) for pair in ((forward, inverse), (forward, None))]
    for scheduler, saved in zip((forward, inverse), before):
        assert torch.equal(scheduler.alphas_cumprod, saved["alphas_cumprod"])
        assert scheduler.alphas_cumprod.dtype == torch.float32
        assert torch.equal(scheduler.timesteps, saved["timesteps"])
        assert scheduler.num_inference_steps is None
    assert audits == [audit_schedulers(STABLE_DIFFUSION, STABLE_DIFFUSION, 10)] * 2


def test_a_table_that_no_setting_explains_is_named():
    forward = DDIMScheduler(**STABLE_DIFFUSION)
    forward.alphas_cumprod = forward.alphas_cumprod**1.01
    audit = audit_schedulers(forward, DDIMInverseScheduler(**STABLE_DIFFUSION), 10)
    assert not audit.formal_inverse
    assert [mismatch.setting for mismatch in audit.mismatches] == ["alphas_cumprod"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((DDPMScheduler(),), "is a DDPMScheduler; a DDIMScheduler is needed"),
        ((STABLE_DIFFUSION, DDIMScheduler()), "is a DDIMScheduler; a DDIMInverseScheduler is needed"),
        ((STABLE_DIFFUSION, {"set_alpha_to_zero": True}), "set_alpha_to_zero = True, which DDIMInverseScheduler"),
        ((STABLE_DIFFUSION, None, 0), "num_steps = 0 must be an integer from 1 to 1000"),
        ((STABLE_DIFFUSION, None, 1001), "num_steps = 1001 must be"),
        ((STABLE_DIFFUSION, None, 2.5), "num_steps = 2.5 must be"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        audit_schedulers(*arguments)
