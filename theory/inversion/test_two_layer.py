"""What is special to C3.two-layer: its norms are bounds in exact arithmetic, B1's constant is one, and the tube holds
for starts that were chosen to leave it."""

import flint
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from theory.inversion import certify_two_layer, two_layer
from theory.inversion.ddim import sample
from theory.inversion.two_layer_certificate import TANH_CURVATURE, TwoLayer, network_predictor, norm_bound
from theory.rounding import relative_budget


def small_network(seed: int, *, levels: int = 5, units: int = 6, dimension: int = 4, strength: float = 0.3) -> TwoLayer:
    generator = np.random.default_rng(seed)
    return TwoLayer(
        skip=generator.uniform(0, 0.5, levels),
        inner=generator.normal(size=(units, dimension)),
        scales=1 / np.sqrt(1 + np.linspace(0, 2, levels) ** 2),
        biases=generator.normal(size=(levels, units)),
        outer=strength * generator.normal(size=(dimension, units)),
        offsets=generator.normal(size=(levels, dimension)),
    )


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (3, 7), (24, 24)])
def test_norm_bound_is_a_bound_in_ball_arithmetic(shape):
    """bound^2 I - A^T A is positive definite, decided by an LDL^T elimination in balls of 128 bits; and it is sharp."""
    matrix = np.random.default_rng(3).normal(size=shape)
    bound = norm_bound(matrix)
    before, flint.ctx.prec = flint.ctx.prec, 128
    try:
        exact = flint.arb_mat([[flint.arb(float(entry)) for entry in row] for row in matrix])
        gram = exact.transpose() * exact
        size = gram.nrows()
        rest = [[flint.arb(bound) ** 2 * (i == j) - gram[i, j] for j in range(size)] for i in range(size)]
        for pivot in range(size):
            assert rest[pivot][pivot] > 0
            for i in range(pivot + 1, size):
                factor = rest[i][pivot] / rest[pivot][pivot]
                for j in range(pivot, size):
                    rest[i][j] -= factor * rest[pivot][j]
    finally:
        flint.ctx.prec = before
    assert bound <= np.linalg.norm(matrix, 2) * (1 + relative_budget(2000 * max(shape)))


def test_norm_bound_does_not_trust_the_decomposition(monkeypatch):
    """A wrong decomposition gives a larger bound or an error, never one below the norm."""
    matrix = np.diag([3.0, 2.0, 1.0])
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    monkeypatch.setattr(np.linalg, "svd", lambda *_, **__: (None, None, turn))
    assert norm_bound(matrix) >= 3
    monkeypatch.setattr(np.linalg, "svd", lambda *_, **__: (None, None, 0.5 * turn))
    with pytest.raises(ValueError, match="deviate from orthogonal by .*; less than 0.5 is needed"):
        norm_bound(matrix)


def test_curvature_constant_is_that_of_tanh():
    arguments = np.linspace(-4, 4, 100001)
    second = 2 * np.tanh(arguments) * (1 - np.tanh(arguments) ** 2)
    assert np.abs(second).max() <= TANH_CURVATURE * (1 + relative_budget(16))
    at = np.arctanh(1 / np.sqrt(3))
    np.testing.assert_allclose(2 * np.tanh(at) * (1 - np.tanh(at) ** 2), TANH_CURVATURE, rtol=relative_budget(64))


def test_jacobian_changes_by_at_most_b1s_constant():
    network = small_network(1)
    predict = network_predictor(TwoLayer(*map(jnp.asarray, network)))
    level, generator = 2, np.random.default_rng(5)
    inner = network.scales[level] * network.inner
    lipschitz = (
        TANH_CURVATURE
        * np.linalg.norm(network.outer, 2)
        * np.linalg.norm(inner, 2)
        * np.linalg.norm(inner, axis=1).max()
    )
    jacobian = jax.jit(jax.jacfwd(lambda y: predict(y, level)))
    for _ in range(50):
        first, second = generator.normal(size=(2, 4))
        change = np.linalg.norm(np.asarray(jacobian(first) - jacobian(second)), 2)
        assert change <= lipschitz * np.linalg.norm(first - second)


@pytest.mark.parametrize("radius", [0.0, 0.01, 0.3, 3.0, 100.0])
def test_no_start_in_the_ball_leaves_the_tube(radius):
    """Starts on the sphere, some of them pushed by ascent to where the error ends largest; every level is checked."""
    network = small_network(2)
    traced = TwoLayer(*map(jnp.asarray, network))
    predict = network_predictor(traced)
    sigmas = jnp.linspace(0.0, 2.0, 5)
    instance = {name: getattr(traced, name) for name in TwoLayer._fields} | {
        "sigmas": sigmas,
        "start": jnp.asarray([1.0, -0.5, 0.2, 2.0]),
        "convention": jnp.asarray(1),
        "start_offset": jnp.zeros(4),
        "outer_factor": jnp.asarray(1.0),
        "sharpness": jnp.asarray(1.0),
    }
    trip = two_layer._simulate(instance)
    slack = np.asarray(two_layer._slack(trip, traced))
    # Starts are rounded where they are added to z_N.
    rounded = radius + relative_budget(16) * float(jnp.linalg.norm(jnp.abs(trip.inversion[-1])) + radius)
    (tube,) = certify_two_layer(network, sigmas, trip.inversion, trip.defects, slack=slack, start_radii=[rounded])

    def errors(direction):
        moved = radius * direction / jnp.linalg.norm(direction)
        return sample(predict, sigmas, trip.inversion[-1] + moved)[0] - trip.inversion

    directions = jnp.asarray(np.random.default_rng(7).normal(size=(32, 4)))
    ascend = jax.jit(jax.vmap(jax.grad(lambda direction: jnp.sum(errors(direction)[0] ** 2))))
    for _ in range(20 if radius else 0):
        gradient = ascend(directions)
        directions = directions / jnp.linalg.norm(directions, axis=1, keepdims=True)
        directions = directions + 0.5 * gradient / jnp.linalg.norm(gradient, axis=1, keepdims=True)
    found = np.asarray(jax.jit(jax.vmap(errors))(directions))
    sizes = np.linalg.norm(found, axis=2)
    budget = relative_budget(64)
    assert (sizes <= tube.ball * (1 + budget)).all()
    assert (np.linalg.norm(found - tube.first_order, axis=2) <= tube.deviation * (1 + budget)).all()
    assert (sizes <= tube.radii * (1 + budget)).all()


def test_tube_is_finite_however_wide_it_starts():
    """Slopes lie in [0, 1], so a wide ball grows as with a global Lipschitz constant and no faster."""
    network = small_network(3)
    generator = np.random.default_rng(1)
    sigmas, states, defects = np.linspace(0, 2, 5), generator.normal(size=(5, 4)), 0.01 * generator.normal(size=(4, 4))
    (wide,) = certify_two_layer(network, sigmas, states, defects, start_radii=[1e12])
    factor = 1 + 0.5 * (0.5 + 2 * np.linalg.norm(network.outer, 2) * np.linalg.norm(network.inner, 2))
    assert wide.ball[0] <= 1e12 * factor**4


def test_faults_are_named():
    network, sigmas = small_network(0), np.linspace(0, 2, 5)
    states, defects = np.zeros((5, 4)), np.zeros((4, 4))
    with pytest.raises(ValueError, match=r"defects has shape \(3, 4\); \(4, 4\) is needed for 4 steps"):
        certify_two_layer(network, sigmas, states, defects[1:])
    with pytest.raises(ValueError, match=r"biases has shape \(4, 6\); \(5, 6\) is needed"):
        certify_two_layer(network._replace(biases=network.biases[1:]), sigmas, states, defects)
    with pytest.raises(ValueError, match=r"inner has shape \(4,\); \(units, dimension\) is needed"):
        certify_two_layer(network._replace(inner=network.inner[0]), sigmas, states, defects)
    with pytest.raises(ValueError, match=r"start_radii = \[-1.0\].*finite values >= 0"):
        certify_two_layer(network, sigmas, states, defects, start_radii=[-1.0])
    with pytest.raises(ValueError, match="inversion holds 20 values that are not finite"):
        certify_two_layer(network, sigmas, states * np.nan, defects)
    with pytest.raises(ValueError, match=r"the matrix has shape \(3,\)"):
        norm_bound(np.ones(3))
