r"""Bound B1 as a theorem about a trained network: the sampling trajectory of a two-layer predictor, enclosed from the
inversion alone.

Statement. Let the predictor that samples be, at every level,

    e_k(y) = s_k y + V \varphi(U_k y + b_k) + c_k,    U_k = a_k U,    0 \le \varphi' \le 1,  |\varphi''| \le \kappa,

let z be the inversion with defects d_k, A_k = I - h_k J_{k+1}(z_{k+1}) with J = s I + V diag(phi'(p)) U the Jacobian at
p = U z + b, g_k = ||A_k||, c_i = max(phi'(p_i), 1 - phi'(p_i)), and ||w_N - z_N|| \le r_N. Then ||E_k|| \le min(r_k,
||\hat E_k|| + \rho_k) with the ball around the inversion

    r_k = g_k r_{k+1} + |h_k| \min(\tfrac12 M_{k+1} r_{k+1}, \Lambda_{k+1}) r_{k+1} + \|d_k\|,
    M = \kappa \|V\| \|U\| \max_i \|u_i\|,   \Lambda = \|V\| \|U\| \max_i c_i

(u_i the rows of U: this is B1, and M is a Lipschitz constant of J), and the ball around the first-order error

    \hat E_k = A_k \hat E_{k+1} - d_k,   \hat E_N = 0,   \rho_N = r_N,
    \rho_k = g_k \rho_{k+1} + |h_k| \|V\| \min\bigl(\|(\min(\tfrac\kappa2 q_i^2, c_i q_i))_i\|,
                                               \min(\tfrac\kappa2 \max_i q_i, \max_i c_i) \, q\bigr),
    q_i = |u_i \cdot \hat E_{k+1}| + \|u_i\| \rho_{k+1},   q = \|U \hat E_{k+1}\| + \|U\| \rho_{k+1}.

Neither needs the sampling trajectory, a Lipschitz constant of the predictor, or levels that increase. The second keeps
the direction of the error, so that only what the curvature can change has a radius.

Hypotheses.
    H1  The predictor that samples is this network, with these weights, at levels 1, .., N.
    H2  0 <= phi' <= 1 and |phi''| <= kappa; for tanh kappa = 4 / (3 sqrt 3).
    H3  ||w_N - z_N|| <= r_N; 0 where sampling starts where the inversion ended.

**Attained** only where no network is left (V = 0), whatever the direction of the defects. With hidden units it is an
upper bound.

Not in the paper. Proof: paper_notes.md, section C3.two-layer.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from theory.claim import (
    Claim,
    Comparison,
    Hypothesis,
    Instance,
    Origin,
    Outcome,
    Parameters,
    Problem,
    Size,
    Tells,
    Tightness,
    Verdict,
)
from theory.evidence import Evidence, TwoLayerRecord
from theory.inversion import instances
from theory.inversion.ddim import Convention, RoundTrip, recorded_round_trip
from theory.inversion.ddim import round_trip as simulate
from theory.inversion.round_trip import groenwall_instance
from theory.inversion.two_layer_certificate import (
    SMALLEST,
    TANH_CURVATURE,
    Tube,
    TwoLayer,
    certify_two_layer,
    each_at_once,
    fold_at_once,
    frobenius,
    linearise,
    network_predictor,
    planar_norm,
    prediction_rounding,
    widen,
)
from theory.rounding import relative_budget

ASSUMPTIONS = 4
"""How often assumed radii are enlarged before a recorded certificate is given up."""
UNITS = 3
SIZES: tuple[Size, ...] = ((("num_steps", 4),),)


def _network(instance: Instance) -> TwoLayer:
    return TwoLayer(*(instance[name] for name in TwoLayer._fields))


def _simulate(instance: Instance) -> RoundTrip:
    network = _network(instance)
    sampled = network._replace(outer=instance["outer_factor"] * network.outer)
    return simulate(
        network_predictor(sampled, instance["sharpness"]),
        instance["sigmas"],
        instance["start"],
        instance["convention"],
        start_offset=instance["start_offset"],
    )


def measure(instance: Instance):
    """||E_0|| of an instance."""
    return instances.norms(_simulate(instance).errors[0])


def _slack(trip: RoundTrip, network: TwoLayer) -> jax.Array:
    sensitivity = abs(network.skip) + abs(network.scales) * frobenius(network.inner) * frobenius(network.outer)
    constants = frobenius(network.outer) * instances.norms(network.biases) + instances.norms(network.offsets)
    return instances.rounding_defects(trip, sensitivity[1:], constants[1:])


def _tube_of(instance: Instance, **changes: Any) -> Tube:
    trip, network = _simulate(instance), _network(instance)
    linearised = linearise(jnp, each_at_once, planar_norm, network, trip.steps, trip.inversion, instance["sharpness"])
    slack = _slack(trip, network)
    return widen(
        jnp, fold_at_once, network, linearised, trip.steps, trip.defects, slack, instance["start_radius"], **changes
    )


def _bound(instance: Instance):
    return _tube_of(instance).radii[0]


def _draw(key: jax.Array, *, num_steps: int) -> Parameters:
    keys = jax.random.split(key, 10)
    levels, dimension = num_steps + 1, instances.DIMENSION
    spread = 10.0 ** jax.random.uniform(keys[0], (2,), minval=-3.0, maxval=0.5)
    return {
        "first_level": jax.random.normal(keys[1]),
        "increments": jax.random.normal(keys[2], (num_steps,)),
        "start": jax.random.normal(keys[3], (dimension,)),
        "convention": instances.draw_convention(keys[4]),
        "skip": jax.random.normal(keys[5], (levels,)),
        "inner": jax.random.normal(keys[6], (UNITS, dimension)),
        "biases": jax.random.normal(keys[7], (levels, UNITS)),
        "outer": spread[0] * jax.random.normal(keys[8], (dimension, UNITS)),
        "offsets": jax.random.normal(keys[9], (levels, dimension)),
        "start_offset": spread[1] * jax.random.normal(keys[0], (dimension,)),
    }


def _instance(parameters: Parameters, *, num_steps: int) -> Instance:
    """Levels that increase, and a network whose slopes are those of a predictor that samples: below about 3."""
    return {
        "sigmas": instances.increasing_levels(parameters["first_level"], parameters["increments"]),
        "start": parameters["start"],
        "convention": instances.convention(parameters["convention"]),
        "start_offset": parameters["start_offset"],
        # The smallest number that does for an offset of zero, where a norm has no gradient.
        "start_radius": jnp.sqrt(jnp.sum(parameters["start_offset"] ** 2) + SMALLEST),
        "skip": 3 * jnp.tanh(parameters["skip"] / 3),
        "inner": parameters["inner"],
        "scales": jnp.ones(num_steps + 1),
        "biases": parameters["biases"],
        "outer": parameters["outer"],
        "offsets": parameters["offsets"],
        "outer_factor": jnp.asarray(1.0),
        "sharpness": jnp.asarray(1.0),
    }


PROBLEM = Problem(
    sizes=SIZES,
    draw=_draw,
    instance=_instance,
    measured=measure,
    bound=_bound,
    operations=instances.operations,
)


def witness(*, num_steps: int) -> Instance:
    """The predictor for which Groenwall is an equality: a network without curvature."""
    groenwall = groenwall_instance(num_steps)
    levels = num_steps + 1
    return {
        **{name: groenwall[name] for name in ("sigmas", "start", "convention", "start_offset")},
        "start_radius": jnp.asarray(SMALLEST**0.5),
        "skip": -groenwall["lipschitz"],
        "inner": jnp.asarray([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]),
        "scales": jnp.ones(levels),
        "biases": jnp.zeros((levels, UNITS)),
        "outer": jnp.zeros((instances.DIMENSION, UNITS)),
        "offsets": groenwall["offset"],
        "outer_factor": jnp.asarray(1.0),
        "sharpness": jnp.asarray(1.0),
    }


def witness_parameters(*, num_steps: int) -> Parameters:
    """Parameters from which the family makes the witness."""
    instance = witness(num_steps=num_steps)
    return {
        **instances.level_parameters(instance["sigmas"]),
        "start": instance["start"],
        "convention": instances.convention_parameter(Convention.S),
        "skip": 3 * jnp.arctanh(instance["skip"] / 3),
        **{name: instance[name] for name in ("inner", "biases", "outer", "offsets", "start_offset")},
    }


def _bent(**changes: Any) -> Instance:
    """One unit on a line, at the argument where tanh bends most, and a small defect."""
    size = SIZES[0]
    instance = dict(witness(**dict(size)))
    levels = size[0][1] + 1
    instance |= {
        "skip": jnp.zeros(levels),
        "biases": jnp.full((levels, UNITS), np.arctanh(1 / np.sqrt(3))) * jnp.asarray([[1.0, 0.0, 0.0]]),
        "outer": jnp.zeros((instances.DIMENSION, UNITS)).at[0, 0].set(-0.5),
        "offsets": jnp.linspace(0.0, 1.0, levels)[:, None] * jnp.asarray([[0.1, 0.0]]),
    }
    return instance | {name: jnp.asarray(value) for name, value in changes.items()}


def _other_weights() -> Outcome:
    return PROBLEM.outcome(_bent(outer_factor=2.0), SIZES[0], "the sampler's outer weights are twice as large")


def _sharper_activation() -> Outcome:
    instance = _bent(sharpness=8.0, biases=_bent()["biases"] / 8)
    return PROBLEM.outcome(instance, SIZES[0], "tanh(8 p) / 8, which bends 8 times as much")


def _other_start() -> Outcome:
    return PROBLEM.outcome(_bent(start_offset=[0.5, 0.0]), SIZES[0], "sampling starts 0.5 away, r_N = 0")


def _first_order_only(instance: Instance):
    return instances.norms(_tube_of(instance).first_order[0])


def _trip_of_frame(trip: RoundTrip, frame: int, num_frames: int) -> RoundTrip:
    return RoundTrip(trip.sigmas, *(part.reshape(len(part), num_frames, -1)[:, frame] for part in trip[1:]))


def _recorded_slack(network: TwoLayer, trip: RoundTrip, radii: np.ndarray) -> np.ndarray:
    """How far a recorded step up and down together may lie from the exact ones, (N,), if the sampling stays within
    these radii.

    Of the recorded sampling nothing is used: a state of it is at most its radius further out than the inversion's, and
        a prediction there at most the
    Lipschitz constant times that radius larger.
    """
    sizes = instances.norms(trip.inversion)
    steepness = abs(network.skip) + abs(network.scales) * frobenius(network.inner) * frobenius(network.outer)
    used, at_inversion = instances.norms(trip.inversion_predictions), instances.norms(trip.predictions_at_inversion)
    sampled = at_inversion + steepness[1:] * radii[1:]
    # As `round_trip.recorded_roundings`: a scheduler's step goes through the latent, with operands sigma eps.
    states = 2 * (sizes[1:] + sizes[:-1]) + radii[1:] + radii[:-1]
    steps = relative_budget(instances.OPERATIONS_PER_STEP) * (
        states + (trip.sigmas[:-1] + trip.sigmas[1:]) * (used + sampled + at_inversion)
    )
    return steps + 2 * np.abs(trip.steps) * prediction_rounding(network, sizes + radii)[1:]


def _certify_recorded(network: TwoLayer, trip: RoundTrip, start_radii: Sequence[float]) -> tuple[Tube, ...]:
    """The certificate of a recorded trip, from its inversion alone.

    The slack needs radii and the radii need slack: radii are assumed, and it is checked that those which follow are no
        larger. By induction from the
    noise end down the assumption then holds, since the slack of a step uses the radii of its own two levels and the
    recursion only adds to them.

    Raises:
        ValueError: the radii that follow exceed the assumed ones even when these are enlarged.
    """
    largest = max(start_radii)
    assumed = np.full(len(trip.sigmas), largest)
    for _ in range(ASSUMPTIONS):
        slack = _recorded_slack(network, trip, assumed)
        tubes = certify_two_layer(
            network, trip.sigmas, trip.inversion, trip.defects, slack=slack, start_radii=start_radii
        )
        found = np.max([tube.radii for tube in tubes], axis=0)
        if (found <= assumed).all():
            return tubes
        assumed = np.maximum(assumed, 2 * found)
    raise ValueError(
        f"the tube of radius {found.max():.3g} does not close on itself after {ASSUMPTIONS} assumptions; its rounding "
        f"slack is {slack.max():.3g}: take shorter steps"
    )


def recorded_tubes(
    record: TwoLayerRecord, *, start_radii: Sequence[float] = (0.0,)
) -> Iterator[tuple[RoundTrip, tuple[Tube, ...]]]:
    """Of every frame of a recorded round trip the frame's own round trip, and its certificate for each radius.

    The network sees each frame by itself. The certificate uses the recorded inversion, the weights and the rounding of
    both directions' steps and predictions, which it bounds from the inversion; of the recorded sampling it uses
    nothing.
    """
    network = TwoLayer(record.skip, record.inner, record.scales, record.biases, record.outer, record.offsets)
    whole = recorded_round_trip(record.trip)
    num_frames = record.trip.inversion.shape[1]
    for frame in range(num_frames):
        trip = _trip_of_frame(whole, frame, num_frames)
        yield trip, _certify_recorded(network, trip, start_radii)


def _reality(evidence: Evidence) -> Sequence[Outcome]:
    outcomes = []
    for record in evidence.two_layer_trips:
        for frame, (trip, (tube,)) in enumerate(recorded_tubes(record)):
            outcomes.append(
                Outcome(
                    f"{record.trip.label}, frame {frame}",
                    float(np.linalg.norm(trip.errors[0])),
                    float(tube.radii[0]),
                    relative_budget(trip.errors.shape[1] + instances.OPERATIONS_PER_STEP),
                )
            )
    return outcomes


CLAIM = Claim(
    id="C3.two-layer",
    title="Certified round-trip error of a trained two-layer network",
    statement=(
        "For a noise predictor with one hidden layer of smooth units the whole sampling trajectory lies in an explicit "
        "tube around the inversion, computed from the inversion, the weights and their rounding alone; so does the "
        "round-trip error."
    ),
    latex=(
        r"\|E_0\| \le \|\hat E_0\| + \rho_0,\quad \rho_k \le g_k \rho_{k+1} + h_k \|V\| \, \bigl\|\tfrac{\kappa}{2} "
        r"q^2\bigr\|,\quad q = |U \hat E_{k+1}| + \rho_{k+1} (\|u_i\|)_i"
    ),
    hypotheses=(
        Hypothesis("H1", "The predictor that samples is this network, with these weights."),
        Hypothesis("H2", "The activation's slope lies in [0, 1], and its second derivative is at most kappa."),
        Hypothesis("H3", "Sampling starts within r_N of where the inversion ended."),
    ),
    verdict=Verdict.PROVED,
    tightness=Tightness.ATTAINED,
    sharpness=(
        "attained only without hidden units (V = 0), that is, by no network; with them it is an upper bound, whose "
        "gap the report's study shows"
    ),
    origin="not in the paper",
    measured_in_words="norm of the round-trip error in the variables y = x / sqrt(alphas_cumprod)",
    bound_in_words="smaller of the two radii at the data's level, in the same variables",
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    necessity={"H1": _other_weights, "H2": _sharper_activation, "H3": _other_start},
    planted={
        "the first-order error for a bound": _first_order_only,
        "half the curvature of tanh": lambda instance: _tube_of(instance, curvature=TANH_CURVATURE / 2).radii[0],
        "the sum of the defects without growth": lambda instance: instances.norms(
            jnp.sum(_simulate(instance).defects, axis=0)
        ),
        "growth of the step below": lambda instance: _tube_of(instance, growth_shift=1).radii[0],
    },
    no_network=(
        "It is about networks with one hidden layer, and the UNet has many; the trained network that it is checked on "
        "is another one."
    ),
    reality=(
        Comparison(
            question=(
                "Round-trip error of each recorded frame of the trained two-layer network against its certificate, "
                "from the inversion, the weights and rounding alone"
            ),
            origin=Origin.CONSTRUCTED,
            tells=Tells.IMPLIED,
            compare=_reality,
            because="the theorem, whose network and weights these are",
        ),
    ),
    relies_on=("C3.any-inversion",),
    lemmas=("Taylor's formula", "mean value theorem"),
    floor=0.99,
    floor_reason="attained without curvature; ascent takes it out gradually, and aligns start and defects",
)
