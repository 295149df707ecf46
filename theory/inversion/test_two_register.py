"""Two-register schemes: exact with both states and not with one, cost, amplification of rounding, order, bad input."""

import numpy as np
import pytest

from theory.inversion.order import order_of_convergence, training_levels
from theory.inversion.two_register import (
    EVALUATIONS_PER_STEP,
    Scheme,
    edict_invert,
    edict_sample,
    rounding_amplification,
    two_step_invert,
    two_step_sample,
    two_step_weights,
)
from theory.rounding import relative_budget

START = np.array([0.3, -0.8])
STEP_ROUNDINGS = 40
"""As in instances.OPERATIONS_PER_STEP: a step and the predictions in it."""


def bent(sigmas):
    """A predictor that no theorem covers: bent, and expanding in places. Slope at most 3 / 2."""
    return lambda state, level: np.sin(3 * state[::-1]) / 2 + sigmas[level] * np.cos(state)


def counted(predict):
    calls = []

    def counting(state, level):
        calls.append(level)
        return predict(state, level)

    return counting, calls


def invert(scheme, predict, sigmas, mixing=0.93, gamma=1.0):
    """From START; the second register is a copy (EDICT), or a step of DDIM inversion (the others)."""
    if scheme is Scheme.EDICT:
        return edict_invert(predict, sigmas, START, START, mixing)
    above = START + (sigmas[1] - sigmas[0]) * predict(START, 1)
    return two_step_invert(predict, sigmas, START, above, two_step_weights(sigmas, scheme, gamma))


def sample(scheme, predict, sigmas, registers, mixing=0.93, gamma=1.0):
    if scheme is Scheme.EDICT:
        return edict_sample(predict, sigmas, *registers, mixing)[0]
    below, top = registers
    return two_step_sample(predict, sigmas, top, below, two_step_weights(sigmas, scheme, gamma))[1]


@pytest.mark.parametrize("scheme", list(Scheme))
@pytest.mark.parametrize("num_steps", [2, 10])
def test_exact_with_both_registers(scheme, num_steps):
    """To the roundings of both passes, enlarged by the scheme's own amplification and by the predictor's slope."""
    sigmas = np.linspace(0.1, 1.0, num_steps + 1) ** 1.5
    predict = bent(sigmas)
    registers = invert(scheme, predict, sigmas)
    error = np.linalg.norm(sample(scheme, predict, sigmas, registers) - START)
    slopes = np.prod(1 + 2 * np.diff(sigmas) * 2.5) ** 2
    conditioning = rounding_amplification(sigmas, scheme) * slopes * np.linalg.norm(registers)
    assert error <= relative_budget(STEP_ROUNDINGS * 2 * num_steps) * conditioning


@pytest.mark.parametrize("scheme", list(Scheme))
def test_not_exact_with_one_register(scheme):
    """Whoever keeps the last state only, and starts the sampling as from noise, loses the exactness."""
    sigmas = np.linspace(0.1, 1.0, 11)
    predict = bent(sigmas)
    registers = invert(scheme, predict, sigmas)
    if scheme is Scheme.EDICT:
        alone = (registers[0], registers[0])
    else:
        top = registers[1]
        alone = (top - (sigmas[-1] - sigmas[-2]) * predict(top, 10), top)
    assert np.linalg.norm(sample(scheme, predict, sigmas, alone) - START) > 1e-3


@pytest.mark.parametrize("scheme", list(Scheme))
def test_cost(scheme):
    sigmas = np.linspace(0.1, 1.0, 9)
    predict, calls = counted(bent(sigmas))
    registers = invert(scheme, predict, sigmas)
    assert len(calls) == 8 * EVALUATIONS_PER_STEP[scheme]
    calls.clear()
    sample(scheme, predict, sigmas, registers)
    # The first step of a two-step method is one of DDIM's, which the kept register replaces.
    assert len(calls) == (8 if scheme is Scheme.EDICT else 7) * EVALUATIONS_PER_STEP[scheme]


def test_edict_amplifies_rounding_by_its_mixing():
    """Two registers off in the proportion 1 : -p, with no network: p^(-2 N) exactly; 1418 for p = .93 and 50 steps."""
    sigmas, p = np.linspace(0.0, 1.0, 51), 0.93

    def still(state, level):
        return np.zeros_like(state)

    x, y = edict_invert(still, sigmas, START + 1e-3, START - p * 1e-3, p)
    grown = rounding_amplification(sigmas, Scheme.EDICT, mixing=p)
    assert round(grown) == 1418
    np.testing.assert_allclose(x - START, 1e-3 * grown, rtol=relative_budget(8 * 50 * 1000))
    np.testing.assert_allclose(y - START, -p * 1e-3 * grown, rtol=relative_budget(8 * 50 * 1000))
    # Registers that are off alike are not amplified at all.
    x, y = edict_invert(still, sigmas, START + 1e-3, START + 1e-3, p)
    np.testing.assert_allclose(np.stack([x, y]), np.stack([START + 1e-3] * 2), rtol=relative_budget(8 * 50) * grown)


@pytest.mark.parametrize(("scheme", "gamma"), [(Scheme.BDIA, 1.0), (Scheme.BDIA, 0.96), (Scheme.O_BELM, 1.0)])
def test_two_step_methods_amplify_the_difference_of_their_registers(scheme, gamma):
    sigmas = training_levels(50)
    weights = two_step_weights(sigmas, scheme, gamma)
    lower, upper = two_step_invert(lambda state, level: np.zeros_like(state), sigmas, START, START + 1e-3, weights)
    grown = rounding_amplification(sigmas, scheme, gamma=gamma)
    np.testing.assert_allclose(np.abs(upper - lower), 1e-3 * grown, rtol=relative_budget(8 * 50 * 1000))
    steps = np.diff(sigmas)
    expected = {
        Scheme.O_BELM: (steps[-1] / steps[0]) ** 2,
        Scheme.BDIA: gamma ** (1 - len(steps))
        * np.sqrt((1 + sigmas[-1] ** 2) * (1 + sigmas[-2] ** 2) / ((1 + sigmas[0] ** 2) * (1 + sigmas[1] ** 2))),
    }
    np.testing.assert_allclose(grown, expected[scheme], rtol=relative_budget(8 * 50))
    assert grown > 100


def test_bdia_on_latents():
    """The weight on y is gamma on latents: x_{i-1} = gamma (x_{i+1} - up) + down, from the DDIM steps of one eps."""
    sigmas, gamma, eps = np.array([0.2, 0.7, 1.9]), 0.9, np.array([0.4, -0.3])
    roots = 1 / np.sqrt(1 + sigmas**2)
    top, state = np.array([1.0, 2.0]), np.array([0.5, -0.2])
    _, lower = two_step_sample(lambda y, level: eps, sigmas, top, state, two_step_weights(sigmas, Scheme.BDIA, gamma))
    up, down = (roots[level] * (state + (sigmas[level] - sigmas[1]) * eps) for level in (2, 0))
    np.testing.assert_allclose(roots[0] * lower, gamma * (roots[2] * top - up) + down, rtol=relative_budget(60))


def test_o_belm_is_exact_on_quadratics_and_bdia_is_not():
    """y = sigma^2 has e = 2 sigma: only one weight makes the explicit two-step formula exact on it."""
    sigmas = np.array([0.2, 0.7, 1.9])

    def miss(scheme):
        weights = two_step_weights(sigmas, scheme)
        truth = sigmas[:, None] ** 2
        return two_step_sample(lambda y, k: 2 * sigmas[k : k + 1], sigmas, truth[2], truth[1], weights)[1] - truth[0]

    assert abs(miss(Scheme.O_BELM)[0]) <= relative_budget(40) * 4
    assert abs(miss(Scheme.BDIA)[0]) > 0.1


def test_o_belm_samples_at_second_order_where_ddim_has_first():
    """Data N(0, 1 / 4) from an exact pair of registers, against the closed-form flow."""
    counts, errors = (20, 40, 80, 160), {"O-BELM": [], "DDIM": []}
    for count in counts:
        sigmas = np.linspace(0.1, 2.0, count + 1)
        flow = np.sqrt((0.25 + sigmas**2) / (0.25 + sigmas[0] ** 2))

        def predict(state, level, sigmas=sigmas):
            return sigmas[level] / (0.25 + sigmas[level] ** 2) * state

        weights = two_step_weights(sigmas, Scheme.O_BELM)
        lower = two_step_sample(predict, sigmas, flow[-1:], flow[-2:-1], weights)[1]
        errors["O-BELM"].append(abs(lower[0] - 1))
        state = flow[-1:]
        for level in reversed(range(count)):
            state = state - (sigmas[level + 1] - sigmas[level]) * predict(state, level + 1)
        errors["DDIM"].append(abs(state[0] - 1))
    assert -2.2 < order_of_convergence(counts, errors["O-BELM"]).slope < -1.8
    assert -1.1 < order_of_convergence(counts, errors["DDIM"]).slope < -0.9


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: two_step_weights([0.0, 1.0], Scheme.BDIA), "2 noise levels were given; .* at least 3"),
        (lambda: two_step_weights([0.0, 1.0, 0.5], Scheme.BDIA), "step 1 is -0.5; noise levels must increase"),
        (lambda: two_step_weights([0.0, 1.0, 2.0], Scheme.BDIA, 0.0), r"gamma = 0.0; it must lie in \(0, 1\]"),
        (lambda: two_step_weights([0.0, 1.0, 2.0], Scheme.EDICT), "EDICT is no two-step method"),
        (lambda: edict_sample(None, [0.0, 1.0], START, START, 0.4), r"mixing p = 0.4; it must lie in \[0.5, 1\]"),
        (lambda: edict_invert(None, [1.0, 0.0], START, START), "step 0 is -1; noise levels must increase"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
