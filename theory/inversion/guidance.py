r"""Classifier-free guidance: what the guidance scale does to the defects of an inversion and to their growth.

Statement. Invert and sample with the guided predictor e^w = w e^c + (1 - w) e^u (diffusers: e^u + w (e^c - e^u)), w >=
0. Along the guided inversion let d^c_k and d^u_k be the defects of the two predictors, h_k times what each changes
between its two evaluations, and L^c, L^u their Lipschitz constants. Then d_k = w d^c_k + (1 - w) d^u_k and

    \|E_0\| \le \sum_k \bigl(w \|d^c_k\| + |w - 1|\, \|d^u_k\|\bigr)
                \prod_{j<k} \bigl(1 + h_j (w L^c_{j+1} + |w - 1| L^u_{j+1})\bigr).

Between 0 and 1 guidance is an average, and above 1 both parts count: the defects grow like 2 w - 1 and the growth
exponent does too.

On Gaussian data, conditional variance l_c and unconditional l_u, the exact guided flow from sigma_0 to sigma_N
multiplies a state by [(l_c + s_N) / (l_c + s_0)]^(w/2) [(l_u + s_0) / (l_u + s_N)]^((w-1)/2), s = sigma^2. The round
trip can stay moderate while the latent is far from any noise the network knows: report both.

Hypotheses.
    H1  The noise levels increase from the data to the noise.
    H2  L^c_k and L^u_k are Lipschitz constants of the two predictors on a convex set that holds z_k and w_k.
    H3  One guidance scale serves both directions.
    H4  Sampling starts where the inversion ended.

A corollary of C3.any-inversion. **Attained** by e^c = b - L^c y, e^u = L^u y - b' with defects of opposite direction,
for w > 1.

In the paper: not there. Proof: paper_notes.md, section C3.guidance.
"""

from collections.abc import Sequence
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
from theory.evidence import Evidence
from theory.inversion import instances, recorded
from theory.inversion.ddim import Convention, Predictor, RoundTrip, evaluate_for_inversion, round_trip
from theory.inversion.growth import round_trip_bound, step_growth
from theory.inversion.log_concave import fitted_gaussian
from theory.inversion.round_trip import groenwall_instance
from theory.inversion.schedule import as_vector, check_noise_levels, is_traced, noise_levels, refuse_first
from theory.rounding import relative_budget

SIZES: tuple[Size, ...] = ((("num_steps", 3),),)
UNCONDITIONAL = "unconditional_"
LARGEST_SCALE = 8.0


def check_guidance_scale(scale: Any) -> None:
    """Raise ValueError unless the guidance scale is finite and at least 0."""
    if not is_traced(scale) and not (np.isfinite(scale) and scale >= 0):
        raise ValueError(f"guidance scale = {scale}; a finite number >= 0 is needed: 1 is no guidance, 7.5 is usual")


def guided_defects(conditional: Any, unconditional: Any, scale: float) -> Any:
    """What guidance can make of the defects of the two predictions at most.

        w ||d^c_k|| + |w - 1| ||d^u_k||

    Args:
        conditional, unconditional: (num_steps,) norms of the defects of each predictor on the guided inversion.
        scale: w >= 0; the guided prediction is w e^c + (1 - w) e^u.

    Returns:
        (num_steps,) float64 of the same kind; to be passed to `round_trip_bound`.

    Raises:
        ValueError: a scale negative or not finite; sizes that differ; a negative norm.

    Source: paper_notes.md, C3.guidance.
    """
    check_guidance_scale(scale)
    conditional, _ = as_vector("conditional defects", conditional)
    unconditional, _ = as_vector("unconditional defects", unconditional)
    if conditional.shape != unconditional.shape:
        raise ValueError(
            f"{conditional.shape[0]} conditional and {unconditional.shape[0]} unconditional defects were given; one of "
            "each is needed per step"
        )
    if not is_traced(conditional, unconditional):
        refuse_first("conditional defect", conditional, conditional < 0, "a norm is at least 0")
        refuse_first("unconditional defect", unconditional, unconditional < 0, "a norm is at least 0")
    return scale * conditional + abs(scale - 1) * unconditional


def gaussian_guidance_amplification(
    conditional_variance: float, unconditional_variance: float, sigma_from: float, sigma_to: float, scale: float
) -> float:
    """What the exact guided inversion multiplies a state by, on centred Gaussian data of two variances.

        ((l_c + sigma_to^2) / (l_c + sigma_from^2))^(w/2) ((l_u + sigma_from^2) / (l_u + sigma_to^2))^((w-1)/2)

    Raises:
        ValueError: a variance not positive; levels that do not satisfy 0 <= sigma_from < sigma_to; a scale negative or
            not finite.
    """
    check_guidance_scale(scale)
    check_noise_levels([sigma_from, sigma_to])
    variances = {"conditional_variance": conditional_variance, "unconditional_variance": unconditional_variance}
    for name, value in variances.items():
        if not (np.isfinite(value) and value > 0):
            raise ValueError(f"{name} = {value}; it must be finite and positive")
    conditional, unconditional = (
        (variance + sigma_to**2) / (variance + sigma_from**2) for variance in variances.values()
    )
    return float(conditional ** (scale / 2) * unconditional ** ((1 - scale) / 2))


def _unconditional(instance: Instance) -> Instance:
    return {
        name.removeprefix(UNCONDITIONAL): value for name, value in instance.items() if name.startswith(UNCONDITIONAL)
    }


def _parts(instance: Instance) -> Predictor:
    """Both predictions at once, (2, dimension), the conditional first."""
    pair = {name: jnp.stack([instance[name], other]) for name, other in _unconditional(instance).items()}
    return lambda state, level: jax.vmap(lambda table: instances.predictor(table)(state, level))(pair)


def _simulate(instance: Instance) -> RoundTrip:
    parts = _parts(instance)

    def guided(scale):
        return lambda state, level: jnp.stack([scale, 1 - scale]) @ parts(state, level)

    return round_trip(
        guided(instance["scale"]),
        instance["sigmas"],
        instance["start"],
        instance["convention"],
        sampling_predict=guided(instance["sampling_scale"]),
        start_offset=instance["start_offset"],
    )


def measure(instance: Instance):
    """||E_0|| of an instance."""
    return instances.norms(_simulate(instance).errors[0])


def part_defects(predict: Predictor, trip: RoundTrip, convention: jax.Array | Convention) -> jax.Array:
    """||h_k (e_{k+1}(z_{k+1}) - e^_k)|| of one predictor, or of several at once, along a guided inversion.

    Args:
        predict: (dimension,) and a level to (.., dimension).
        trip: whose `sigmas` and `inversion` are used.

    Returns:
        (N, ..).
    """
    steps = jnp.arange(trip.sigmas.shape[0] - 1)
    used = jax.vmap(lambda state, step: evaluate_for_inversion(predict, trip.sigmas, state, step, convention))(
        trip.inversion[:-1], steps
    )
    changes = jax.vmap(predict)(trip.inversion[1:], steps + 1) - used
    return jnp.abs(trip.steps).reshape(-1, *[1] * (changes.ndim - 2)) * instances.norms(changes)


def _bound(
    instance: Instance,
    unconditional_weight=lambda scale: abs(scale - 1),
    growth_of_condition: bool = False,
    combine=lambda parts: parts.sum(axis=-1),
):
    trip, other, scale = _simulate(instance), _unconditional(instance), instance["scale"]
    weight = unconditional_weight(scale)
    defects = combine(
        part_defects(_parts(instance), trip, instance["convention"]) * jnp.stack([scale, weight])[None, :]
    )
    lipschitz = scale * instance["lipschitz"] + abs(scale - 1) * other["lipschitz"]
    constants = scale * instances.table_constants(instance) + abs(scale - 1) * instances.table_constants(other)
    # The two predictions are rounded apart, in the steps and in the defects, and do not cancel.
    roundings = 2 * instances.rounding_defects(trip, lipschitz[1:], constants[1:])
    growth = step_growth(instance["sigmas"], instance["lipschitz"] * scale if growth_of_condition else lipschitz)
    return round_trip_bound(defects + roundings, growth)


def _draw(key: jax.Array, *, num_steps: int) -> Parameters:
    keys = jax.random.split(key, 3)
    return instances.draw(keys[0], num_steps=num_steps) | {
        "unconditional": instances.draw_tables(keys[1], num_steps=num_steps),
        "scale": jax.random.normal(keys[2]),
    }


def _instance(parameters: Parameters, *, num_steps: int) -> Instance:
    # Turned by half a circle, the unconditional tables are near +L y, which guidance above 1 subtracts.
    tables = parameters["unconditional"]
    other = instances.tables({**tables, "angles": tables["angles"] + jnp.pi})
    scale = LARGEST_SCALE * jnp.sin(parameters["scale"]) ** 2
    return instances.instance(parameters, num_steps=num_steps) | {
        "scale": scale,
        "sampling_scale": scale,
        **{UNCONDITIONAL + name: value for name, value in other.items()},
    }


PROBLEM = Problem(
    sizes=SIZES,
    draw=_draw,
    instance=_instance,
    measured=measure,
    bound=_bound,
    # Two predictors in place of one, whose roundings the bound adds twice; the witness's error is larger than the one
    # of the condition alone.
    operations=lambda *, num_steps: 4 * instances.operations(num_steps=num_steps),
)


def witness(*, num_steps: int) -> Instance:
    """The predictor for which Groenwall is an equality as the condition, its negative without it, at scale 3."""
    condition = groenwall_instance(num_steps, lipschitz=0.25)
    tables = ("lipschitz", "blend", "linear", "inner", "shift", "offset")
    signs = {"linear": -1.0, "offset": -1.0}
    return condition | {
        "scale": jnp.asarray(3.0),
        "sampling_scale": jnp.asarray(3.0),
        **{UNCONDITIONAL + name: signs.get(name, 1.0) * condition[name] for name in tables},
    }


def witness_parameters(*, num_steps: int) -> Parameters:
    """Parameters from which the family makes the witness."""
    instance = witness(num_steps=num_steps)
    other = instances.table_parameters(_unconditional(instance))
    # The family turns the unconditional tables by half a circle.
    return instances.parameters_of(instance, Convention.S) | {
        "unconditional": other | {"angles": other["angles"] - jnp.pi},
        "scale": jnp.arcsin(jnp.sqrt(instance["scale"] / LARGEST_SCALE)),
    }


def _broken(label: str, change) -> Outcome:
    size = SIZES[0]
    return PROBLEM.outcome(change(dict(witness(**dict(size)))), size, label)


def _falling_levels() -> Outcome:
    """Two predictors +L y and -L y, whose guided sampling expands when the noise level rises on the way."""

    def change(instance):
        levels = instance["sigmas"].shape[0]
        instance["sigmas"] = jnp.linspace(2.0, 1.0, levels)
        offset = jnp.linspace(0.0, 1.0, levels)[:, None] * jnp.asarray([[1.0, 0.0]])
        for prefix, sign in (("", 1.0), (UNCONDITIONAL, -1.0)):
            instance[prefix + "linear"] = -instance[prefix + "linear"]
            instance[prefix + "offset"] = sign * offset
        return instance

    return _broken("noise levels that decrease", change)


def _understated_constant() -> Outcome:
    def change(instance):
        # The unconditional predictor keeps its slope: the constant halves where the matrix doubles.
        instance[UNCONDITIONAL + "lipschitz"] = instance[UNCONDITIONAL + "lipschitz"] / 2
        instance[UNCONDITIONAL + "linear"] = instance[UNCONDITIONAL + "linear"] * 2
        return instance

    return _broken("Lipschitz constant of the unconditional predictor understated by half", change)


def _other_scale() -> Outcome:
    return _broken("sampling at twice the scale", lambda instance: instance | {"sampling_scale": jnp.asarray(6.0)})


def _other_start() -> Outcome:
    return _broken("sampling starts elsewhere", lambda instance: instance | {"start_offset": jnp.asarray([-9.0, 0.0])})


def _with_fitted_gaussians(evidence: Evidence) -> Sequence[Outcome]:
    """The real clip on the real schedule at scale 7.5, with the exact predictors of two Gaussians about its mean frame,
    of the widest pixel's variance and of a quarter of it as the condition. The recorded network was not guided."""
    outcomes = []
    scale = 7.5
    for record in evidence.round_trips:
        sigmas = noise_levels(np.asarray(record.alphas_cumprod, dtype=np.float64))
        states, mean, variances = fitted_gaussian(record)
        levels, centre = jnp.asarray(sigmas), jnp.asarray(mean)

        def part(variance, levels=levels, centre=centre):
            spread = jnp.asarray(variance)
            return lambda state, level: levels[level] / (spread + levels[level] ** 2) * (state - centre)

        condition, other = part(variances.max() / 4), part(variances.max())

        def guided(state, level, condition=condition, other=other):
            return scale * condition(state, level) + (1 - scale) * other(state, level)

        trip = round_trip(guided, levels, jnp.asarray(states[0]), Convention.T)
        norms = [np.asarray(part_defects(predict, trip, Convention.T)) for predict in (condition, other)]
        lipschitz = sigmas * (scale / (variances.max() / 4 + sigmas**2) + (scale - 1) / (variances.max() + sigmas**2))
        roundings = np.asarray(
            2 * instances.rounding_defects(trip, lipschitz[1:], lipschitz[1:] * np.linalg.norm(mean))
        )
        outcomes.append(
            Outcome(
                f"{record.label}: Gaussians fitted to its frames, guidance {scale}",
                float(instances.norms(trip.errors[0])),
                float(round_trip_bound(guided_defects(*norms, scale) + roundings, step_growth(sigmas, lipschitz))),
                relative_budget(instances.OPERATIONS_PER_STEP * (len(sigmas) + states[0].size)),
            )
        )
    return outcomes


def _guided_growth(evidence: Evidence) -> Sequence[Outcome]:
    outcomes = []
    for record in evidence.practice:
        trip = recorded.practice_parts(record).trip
        for step in range(len(trip.sigmas) - 1):
            growth = recorded.growth_of_error(trip, step)
            if growth is not None:
                budget = recorded.recorded_budget(trip.errors.shape[1])
                outcomes.append(Outcome(f"{record.label}, level {step + 1}", growth, 1.0, budget))
    return outcomes


CLAIM = Claim(
    id="C3.guidance",
    title="What the guidance scale does to the round trip",
    statement=(
        "Under classifier-free guidance of scale w each defect is at most w times the conditional and |w - 1| times "
        "the unconditional one, and sampling grows errors by the same combination of the two Lipschitz constants."
    ),
    latex=(
        r"\|E_0\| \le \sum_k \bigl(w\|d^c_k\| + |w-1|\,\|d^u_k\|\bigr) "
        r"\prod_{j<k} \bigl(1 + h_j (w L^c_{j+1} + |w-1| L^u_{j+1})\bigr)"
    ),
    hypotheses=(
        Hypothesis("H1", "The noise levels increase from the data to the noise."),
        Hypothesis(
            "H2",
            "L^c_k and L^u_k are Lipschitz constants of the two predictors on a convex set that holds both states of "
            "level k.",
        ),
        Hypothesis("H3", "One guidance scale serves both directions."),
        Hypothesis("H4", "Sampling starts where the inversion ended."),
    ),
    verdict=Verdict.PROVED,
    tightness=Tightness.ATTAINED,
    origin="not in the paper",
    measured_in_words="norm of the guided round-trip error in the variables y = x / sqrt(alphas_cumprod)",
    bound_in_words=(
        "defects of the two predictions weighted by w and |w - 1|, grown by their Lipschitz constants weighted alike, "
        "same variables"
    ),
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    necessity={"H1": _falling_levels, "H2": _understated_constant, "H3": _other_scale, "H4": _other_start},
    planted={
        "without the unconditional part": lambda instance: _bound(instance, unconditional_weight=lambda w: 0 * w),
        "w - 1 without its absolute value": lambda instance: jnp.maximum(
            _bound(instance, unconditional_weight=lambda w: w - 1), 0.0
        ),
        "the larger of the two parts": lambda instance: _bound(instance, combine=lambda parts: parts.max(axis=-1)),
        "root of the sum of their squares": lambda instance: _bound(instance, combine=instances.norms),
        "growth of the condition alone": lambda instance: _bound(instance, growth_of_condition=True),
    },
    reality=(
        Comparison(
            question=(
                "No guided sampling step of the network grows the recorded error, first frame, although the theorem "
                "allows growth by 1 + h (w L + |w - 1| L): growth of each step against 1"
            ),
            origin=Origin.NETWORK,
            tells=Tells.TEST,
            compare=_guided_growth,
        ),
        Comparison(
            question=(
                "The clip on its schedule at scale 7.5 with the exact scores of two Gaussians about its mean frame, "
                "of the widest pixel's variance and of a quarter of it as the condition: round-trip error against the "
                "bound"
            ),
            origin=Origin.CLIP,
            tells=Tells.IMPLIED,
            compare=_with_fitted_gaussians,
            because="the theorem, since both predictors are linear and their Lipschitz constants are known",
        ),
    ),
    relies_on=("C3.any-inversion",),
    floor=0.99,
    floor_reason="attained where the two predictors' defects are opposite at every step; ascent turns them gradually",
)
