r"""What the released tools run: a fine inversion without guidance, a coarse guided sampling with the adapter on at some
levels only.

Statement. Let an inversion run on a fine ladder (in the tools by the base predictor e^c, without guidance and adapter),
and let the sampling run on some of its levels with

    e_k = w (e^c_k + a_k \delta^c_k) + (1 - w) (e^u_k + a_k \delta^u_k),

a_k = 1 where the adapter is on and 0 elsewhere, w >= 0, steps H_k. With z_k the inversion's states at the sampling's
levels and \bar e_k the fine predictions between two of them, averaged by their steps, the defects of C3.any-inversion
are d_k = l_k + g_k + b_k, with everything at level k + 1 and at z_{k+1},

    l_k = H_k (e^c - \bar e_k),   g_k = H_k (w - 1) (e^c - e^u),   b_k = H_k a (w \delta^c + (1 - w) \delta^u),

and so

    \|E_0\| \le \sum_k (\|l_k\| + \|g_k\| + \|b_k\|) \prod_{j<k} (1 + H_j \Lambda_{j+1}),
    \Lambda = w L^c + |w - 1| L^u + a (w \Lambda^c + |w - 1| \Lambda^u).

The finer the inversion, the smaller the first part; the two others have nothing to do with steps: they are the edit
itself.

Hypotheses.
    H1  The noise levels increase from the data to the noise.
    H2  L^c, L^u, Lambda^c, Lambda^u are Lipschitz constants of the four parts on a convex set that holds z_k and w_k.
    H3  The inversion's ladder holds the sampling's levels. What predicted on it does not matter: l_k is measured
        against what it used.
    H4  The adapter is on at the stated levels and at no others.
    H5  Sampling starts where the inversion ended.

**Attained** by predictors +-L y + b whose three parts point one way at every step, for w > 1.

In the paper: claim C3 on the procedure that its companion code runs (500 steps up, 50 down at guidance 7.5, adapter at
timesteps in [900, 1000)). Proof: paper_notes.md, section C3.practice.
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
    Plant,
    Problem,
    Size,
    Tells,
    Tightness,
    Verdict,
)
from theory.evidence import Evidence
from theory.inversion import instances, recorded
from theory.inversion.any_inversion import any_inversion_bound, sample_states
from theory.inversion.ddim import Convention, Predictor, RoundTrip, invert
from theory.inversion.growth import step_growth
from theory.inversion.round_trip import groenwall_instance

SIZES: tuple[Size, ...] = ((("num_steps", 3), ("ratio", 2)),)
"""One: four predictors on two ladders take long to compile."""

LARGEST_SCALE = 8.0
PARTS = ("conditional_", "unconditional_", "adapter_conditional_", "adapter_unconditional_")
TABLE = ("lipschitz", "blend", "linear", "inner", "shift", "offset")


def practice_bound(ladder: Any, guidance: Any, adapter: Any, growth: Any) -> Any:
    """The error that the three parts can cause at most.

        sum_k (ladder[k] + guidance[k] + adapter[k]) prod_{j<k} growth[j]

    Args:
        ladder, guidance, adapter: (num_steps,) norms of the three parts of the defects; k = 0 is the step nearest the
            data.
        growth: (num_steps,) growth factors of the sampling steps.

    Returns:
        A float64 scalar array of the same kind.

    Raises:
        ValueError: sizes that differ; an entry negative, NaN or infinite.

    Source: paper_notes.md, C3.practice.
    """
    if not len(ladder) == len(guidance) == len(adapter):
        raise ValueError(
            f"{len(ladder)} ladder, {len(guidance)} guidance and {len(adapter)} adapter parts; one of each is needed "
            "per step"
        )
    total = (
        np.add(np.add(ladder, guidance), adapter) if isinstance(ladder, list | tuple) else ladder + guidance + adapter
    )
    return any_inversion_bound(total, growth)


def _table(instance: Instance, part: str) -> Instance:
    return {name: instance[part + name] for name in TABLE}


def _coarse(instance: Instance) -> tuple[jax.Array, int]:
    """The sampling's noise levels, and how many fine steps one of its steps is."""
    ratio = (instance["sigmas"].shape[0] - 1) // instance["adapter_on"].shape[0]
    return instance["sigmas"][::ratio], ratio


def _coarse_table(instance: Instance, part: str, ratio: int) -> Instance:
    table = _table(instance, part)
    return {name: value[::ratio] for name, value in table.items()} if part == PARTS[0] else table


def _parts(instance: Instance, ratio: int) -> Predictor:
    """The four parts at once, (4, dimension)."""
    tables = [_coarse_table(instance, part, ratio) for part in PARTS]
    together = {name: jnp.stack([table[name] for table in tables]) for name in TABLE}
    return lambda state, level: jax.vmap(lambda table: instances.predictor(table)(state, level))(together)


def _weights(scale: jax.Array, on: jax.Array) -> jax.Array:
    """Of the four parts in the guided prediction, (.., 4)."""
    return jnp.stack(
        [scale * jnp.ones_like(on), (1 - scale) * jnp.ones_like(on), scale * on, (1 - scale) * on], axis=-1
    )


def _simulate(instance: Instance) -> tuple[RoundTrip, jax.Array, jax.Array]:
    """The sampling with the inversion's states, the average fine predictions and the four parts at the states."""
    sigmas, ratio = _coarse(instance)
    base = instances.predictor(_table(instance, PARTS[0]))
    fine, predictions = invert(base, instance["sigmas"], instance["start"], instance["convention"])
    states, parts = fine[::ratio], _parts(instance, ratio)
    weights = _weights(instance["scale"], instance["sampled_adapter_on"])

    def guided(state: jax.Array, level: jax.Array) -> jax.Array:
        return weights[level - 1] @ parts(state, level)

    trip = sample_states(guided, sigmas, states, instance["start_offset"])
    moves = (jnp.diff(instance["sigmas"])[:, None] * predictions).reshape(len(weights), ratio, -1)
    means = moves.sum(axis=1) / trip.steps[:, None]
    at_states = jax.vmap(parts)(states[1:], jnp.arange(1, len(sigmas)))
    return trip._replace(inversion_predictions=means), jnp.asarray(means), at_states


def measure(instance: Instance):
    """||E_0|| of an instance."""
    return instances.norms(_simulate(instance)[0].errors[0])


def _three_parts(
    instance: Instance, means: jax.Array, at_states: jax.Array, steps: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    scale, on = instance["scale"], instance["adapter_on"][:, None]
    conditional, unconditional, adapter, adapter_unconditional = (at_states[:, index] for index in range(4))
    lengths = jnp.abs(steps)[:, None]
    return (
        instances.norms(lengths * (conditional - means)),
        instances.norms(lengths * (scale - 1) * (conditional - unconditional)),
        instances.norms(lengths * on * (scale * adapter + (1 - scale) * adapter_unconditional)),
    )


def _bound(
    instance: Instance,
    combine=lambda ladder, guidance, adapter: ladder + guidance + adapter,
    without: tuple[int, ...] = (),
):
    trip, means, at_states = _simulate(instance)
    ratio = _coarse(instance)[1]
    tables = [_coarse_table(instance, part, ratio) for part in PARTS]
    weights = jnp.abs(_weights(instance["scale"], instance["adapter_on"]))
    kept = weights * jnp.asarray([[float(index not in without) for index in range(4)]])

    def combined(values: Sequence[jax.Array], factors: jax.Array) -> jax.Array:
        upper = jnp.stack([value[1:] for value in values], axis=-1)
        return jnp.concatenate([jnp.zeros(1), jnp.sum(factors * upper, axis=-1)])

    lipschitz = combined([table["lipschitz"] for table in tables], kept)
    constants = combined([instances.table_constants(table) for table in tables], weights)
    sensitivity = combined([table["lipschitz"] for table in tables], weights)
    # Four predictions are rounded apart, and the fine steps between two levels as often as there are of them.
    roundings = 4 * ratio * instances.rounding_defects(trip, sensitivity[1:], constants[1:])
    parts = combine(*_three_parts(instance, means, at_states, trip.steps))
    return any_inversion_bound(parts + roundings, step_growth(trip.sigmas, lipschitz))


def _draw(key: jax.Array, *, num_steps: int, ratio: int) -> Parameters:
    keys = jax.random.split(key, 7)
    return {
        **instances.draw(keys[0], num_steps=num_steps * ratio),
        **{
            part: instances.draw_tables(part_key, num_steps=num_steps)
            for part, part_key in zip(PARTS[1:], keys[1:4], strict=True)
        },
        "scale": jax.random.normal(keys[4]),
        "window": jax.random.normal(keys[5], (num_steps,)),
    }


def _instance(parameters: Parameters, *, num_steps: int, ratio: int) -> Instance:
    """Turned by half a circle, the parts that guidance subtracts are near +L y, where the growth is largest, as often
    as far from it."""
    drawn = instances.instance(
        {name: parameters[name] for name in ("first_level", "increments", "start", "convention", "tables")},
        num_steps=num_steps * ratio,
    )
    tables = {PARTS[0] + name: drawn[name] for name in TABLE}
    for part in PARTS[1:]:
        own = parameters[part]
        turned = own if part == PARTS[2] else {**own, "angles": own["angles"] + jnp.pi}
        tables |= {part + name: value for name, value in instances.tables(turned).items()}
    on = jnp.where(parameters["window"] > 0, 1.0, 0.0)
    return {
        **{name: drawn[name] for name in ("sigmas", "start", "convention", "start_offset")},
        **tables,
        "scale": LARGEST_SCALE * jnp.sin(parameters["scale"]) ** 2,
        "adapter_on": on,
        "sampled_adapter_on": on,
    }


def _operations(*, num_steps: int, ratio: int) -> int:
    """Roundings of the fine round trip, of four predictions, which the bound adds once more."""
    return 8 * instances.operations(num_steps=num_steps * ratio)


PROBLEM = Problem(sizes=SIZES, draw=_draw, instance=_instance, measured=measure, bound=_bound, operations=_operations)


def witness(*, num_steps: int, ratio: int) -> Instance:
    """The predictor of C3.round-trip's witness on the fine ladder, its opposite without the caption, the adapter
    likewise, at scale 3."""
    fine = groenwall_instance(num_steps * ratio, lipschitz=0.25)
    coarse = {name: fine[name][::ratio] for name in TABLE}
    axis = jnp.asarray([1.0, 0.0])
    opposite = coarse | {"linear": -coarse["linear"], "offset": jnp.tile(-2 * axis, (num_steps + 1, 1))}
    adapter = coarse | {"offset": jnp.tile(2 * axis, (num_steps + 1, 1))}
    tables = (({name: fine[name] for name in TABLE}), opposite, adapter, opposite)
    on = (jnp.arange(num_steps) >= num_steps // 2).astype(jnp.float64)
    return {
        **{name: fine[name] for name in ("sigmas", "start", "convention", "start_offset")},
        **{part + name: table[name] for part, table in zip(PARTS, tables, strict=True) for name in TABLE},
        "scale": jnp.asarray(3.0),
        "adapter_on": on,
        "sampled_adapter_on": on,
    }


def witness_parameters(*, num_steps: int, ratio: int) -> Parameters:
    """Parameters from which the family makes the witness."""
    instance = witness(num_steps=num_steps, ratio=ratio)
    own = {part: instances.table_parameters(_table(instance, part)) for part in PARTS}
    for part in (PARTS[1], PARTS[3]):
        own[part]["angles"] = own[part]["angles"] - jnp.pi
    fine = {name: instance[name] for name in ("sigmas", "start")} | _table(instance, PARTS[0])
    return {
        **instances.parameters_of(fine, Convention.S),
        **{part: own[part] for part in PARTS[1:]},
        "scale": jnp.arcsin(jnp.sqrt(instance["scale"] / LARGEST_SCALE)),
        "window": 2 * instance["adapter_on"] - 1,
    }


def _broken(label: str, change) -> Outcome:
    size = SIZES[0]
    return PROBLEM.outcome(change(dict(witness(**dict(size)))), size, label)


def _falling_levels() -> Outcome:
    """Predictors of the other sign, whose guided sampling expands when the noise level rises on the way."""

    def change(instance):
        instance["sigmas"] = jnp.linspace(2.0, 1.0, instance["sigmas"].shape[0])
        for part in PARTS:
            instance[part + "linear"] = -instance[part + "linear"]
        return instance

    return _broken("noise levels that decrease", change)


def _understated_constant() -> Outcome:
    def change(instance):
        # The adapter keeps its slope: the constant halves where the matrix doubles.
        for part in (PARTS[1], PARTS[3]):
            instance[part + "lipschitz"] = instance[part + "lipschitz"] / 2
            instance[part + "linear"] = instance[part + "linear"] * 2
        return instance

    return _broken("Lipschitz constants without the caption understated by half", change)


def _other_window() -> Outcome:
    return _broken(
        "the adapter is on at every level",
        lambda instance: instance | {"sampled_adapter_on": jnp.ones_like(instance["adapter_on"])},
    )


def _other_start() -> Outcome:
    return _broken("sampling starts elsewhere", lambda instance: instance | {"start_offset": jnp.asarray([-9.0, 0.0])})


def _vector_sum(ladder: jax.Array, guidance: jax.Array, adapter: jax.Array) -> jax.Array:
    return jnp.sqrt(ladder**2 + guidance**2 + adapter**2)


def _growth(evidence: Evidence) -> Sequence[Outcome]:
    stretches = recorded.stretches_without_adapter(evidence)
    outcomes = []
    for record in evidence.practice:
        trip = recorded.practice_parts(record).trip
        for step in range(len(trip.sigmas) - 1):
            growth = recorded.growth_of_error(trip, step)
            if growth is not None and step + 1 in stretches:
                budget = recorded.recorded_budget(trip.errors.shape[1])
                outcomes.append(Outcome(f"{record.label}, level {step + 1}", growth, stretches[step + 1], budget))
    return outcomes


def _recorded_bound(evidence: Evidence) -> Sequence[Outcome]:
    outcomes = []
    for record in evidence.practice:
        parts = recorded.practice_parts(record)
        trip = parts.trip
        growths = [recorded.growth_of_error(trip, step) for step in range(len(trip.sigmas) - 1)]
        growth = np.array([1.0 if value is None else value for value in growths])
        states, used = instances.operands(trip)
        roundings = recorded.relative_budget(instances.OPERATIONS_PER_STEP * len(record.fine_predictions)) * (
            states + (trip.sigmas[:-1] + trip.sigmas[1:]) * used
        )
        norms = (instances.norms(part) for part in (parts.ladder + 0.0, parts.guidance, parts.adapter))
        ladder, guidance, adapter = norms
        bound = float(practice_bound(ladder + roundings, guidance, adapter, growth))
        error = float(np.linalg.norm(trip.errors[0]))
        outcomes.append(Outcome(record.label, error, bound, recorded.recorded_budget(trip.errors.shape[1])))
    return outcomes


CLAIM = Claim(
    id="C3.practice",
    title="What ladder, guidance and adapter each contribute to the error of the released tools",
    statement=(
        "With a fine unguided inversion and a coarse guided sampling that has the adapter on at some levels only, "
        "each step's defect is the sum of what the ladder, the guidance and the adapter change in the prediction at "
        "the inversion's own states; the error is at most the sum of their sizes, grown by the guided sampling steps "
        "still to come."
    ),
    latex=(
        r"\|E_0\| \le \sum_k \bigl(\|H_k(e^c - \bar e_k)\| + \|H_k(w-1)(e^c - e^u)\| "
        r"+ \|H_k a(w\delta^c + (1-w)\delta^u)\|\bigr) "
        r"\prod_{j<k}(1 + H_j\Lambda_{j+1})"
    ),
    hypotheses=(
        Hypothesis("H1", "The noise levels increase from the data to the noise."),
        Hypothesis(
            "H2",
            "The constants are Lipschitz constants of the four parts on a convex set that holds both states of a "
            "level.",
        ),
        Hypothesis("H3", "The inversion's ladder holds the sampling's levels."),
        Hypothesis("H4", "The adapter is on at the stated levels and at no others."),
        Hypothesis("H5", "Sampling starts where the inversion ended."),
    ),
    verdict=Verdict.PROVED,
    tightness=Tightness.ATTAINED,
    origin="claim C3 on the procedure that the companion code runs; the paper's bound is not known to us",
    measured_in_words="norm of the error of the returned state, in the variables y = x / sqrt(alphas_cumprod)",
    bound_in_words=(
        "norms of the ladder's, the guidance's and the adapter's part of every defect, grown by the steps below, in "
        "the same variables"
    ),
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    necessity={"H1": _falling_levels, "H2": _understated_constant, "H4": _other_window, "H5": _other_start},
    definitional={
        "H3": "at a level that the inversion's ladder has not there is no state of the inversion to compare with"
    },
    planted={
        "root of the sum of squares of the three parts": lambda instance: _bound(instance, combine=_vector_sum),
        "without the ladder's part": lambda instance: _bound(
            instance, combine=lambda ladder, guidance, adapter: guidance + adapter
        ),
        "the largest part for the sum": lambda instance: _bound(
            instance, combine=lambda *parts: jnp.max(jnp.stack(parts), axis=0)
        ),
        "growth without the adapter's constants": Plant(lambda instance: _bound(instance, without=(2, 3))),
        "growth of the condition alone": lambda instance: _bound(instance, without=(1, 3)),
    },
    reality=(
        Comparison(
            question=(
                "Growth of the recorded error in each guided sampling step, first frame, against the largest stretch "
                "of pairs of states sought at the same level of the unguided network without adapter"
            ),
            origin=Origin.NETWORK,
            tells=Tells.TEST,
            compare=_growth,
        ),
        Comparison(
            question=(
                "Error of the returned frame, against the three parts with the growth read off the same two "
                "trajectories"
            ),
            origin=Origin.NETWORK,
            tells=Tells.IDENTITY,
            compare=_recorded_bound,
        ),
    ),
    relies_on=("C3.any-inversion",),
    floor=0.97,
    floor_reason=(
        "attained where the three parts of every step point one way; the ascent turns four predictors there gradually"
    ),
)
