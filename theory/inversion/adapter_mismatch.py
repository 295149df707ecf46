r"""Adapter mismatch: what it costs to invert without the adapter and to sample with it.

Statement. Invert with e under any convention and sample with e + delta from where the inversion ended. With d_k = h_k
(e_{k+1}(z_{k+1}) - e^_k) the defects of the inversion without the adapter,

    \|E_0\| \le \sum_k \bigl(\|d_k\| + h_k \|\delta_{k+1}(z_{k+1})\|\bigr)
                \prod_{j<k} \bigl(1 + h_j (L_{j+1} + \Lambda_{j+1})\bigr).

The adapter enters through its values on the inversion trajectory, not through their supremum, and through its Lipschitz
constant Lambda. Dropping the norms' triangle inequality, d_k + h_k delta_{k+1}(z_{k+1}) is the exact defect, in which
the adapter may cancel the inversion's own: the error is not monotone in the adapter's size.

Hypotheses.
    H1  The noise levels increase from the data to the noise.
    H2  L_k and Lambda_k are Lipschitz constants of e_k and delta_k on a convex set that holds z_k and w_k, for k = 1,
        .., N-1.
    H3  Sampling starts where the inversion ended.

A corollary of C3.any-inversion. **Attained** by e_k(y) = -L y + b_k and delta_k(y) = -Lambda y + kappa with defects and
mismatch of one direction.

In the paper: claim C3 speaks of the adapter's error; its bound is not known to us. Proof: paper_notes.md, section
C3.adapter.
"""

import itertools
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
    Tells,
    Tightness,
    Verdict,
)
from theory.evidence import Evidence
from theory.inversion import instances, recorded, round_trip
from theory.inversion.ddim import Convention, RoundTrip, recorded_round_trip
from theory.inversion.ddim import round_trip as simulate
from theory.inversion.growth import round_trip_bound, step_growth
from theory.inversion.schedule import as_vector, check_noise_levels, is_traced, refuse_first
from theory.rounding import relative_budget

ADAPTER = "adapter_"


def adapter_mismatch_bound(defects: Any, sigmas: Any, mismatch: Any, growth: Any) -> Any:
    """The round-trip error of inverting without the adapter and sampling with it.

        sum_k (defects[k] + h_k mismatch[k]) prod_{j<k} growth[j],   h_k = sigmas[k+1] - sigmas[k]

    Args:
        defects: (num_steps,) norms ||d_k|| of the inversion without the adapter; k = 0 is the step nearest the data.
        sigmas: (num_steps + 1,) increasing noise levels.
        mismatch: (num_steps,) ||delta_{k+1}(z_{k+1})||, what the adapter changes in the prediction on the inversion
            trajectory.
        growth: (num_steps,) growth factors of the sampling steps with the adapter, for example 1 + h_k (L_{k+1} +
            Lambda_{k+1}).

    Returns:
        A float64 scalar array of the same kind.

    Raises:
        ValueError: noise levels that do not increase; sizes that differ; an entry negative, NaN or infinite.

    Source: paper_notes.md, C3.adapter.
    """
    check_noise_levels(sigmas)
    sigmas, _ = as_vector("noise levels", sigmas)
    mismatch, _ = as_vector("mismatch", mismatch)
    defects, _ = as_vector("defects", defects)
    if not defects.shape == mismatch.shape == (sigmas.shape[0] - 1,):
        raise ValueError(
            f"{defects.shape[0]} defects, {mismatch.shape[0]} mismatch values and {sigmas.shape[0]} noise levels were "
            "given; N, N and N + 1 are needed"
        )
    if not is_traced(mismatch):
        refuse_first("mismatch", mismatch, mismatch < 0, "a norm is at least 0")
    return round_trip_bound(defects + (sigmas[1:] - sigmas[:-1]) * mismatch, growth)


def constant_mismatch_limit(variance: float, shift: float, sigma_min: float, sigma_max: float) -> float:
    """Reconstruction error, for ever finer steps, of a constant delta = shift on data N(mu, variance I).

        shift sqrt(variance + sigma_min^2) (asinh(sigma_max / sqrt(variance)) - asinh(sigma_min / sqrt(variance)))

    Raises:
        ValueError: a variance that is not positive; levels that do not satisfy 0 <= sigma_min < sigma_max.
    """
    if not (np.isfinite(variance) and variance > 0):
        raise ValueError(f"variance = {variance}; it must be finite and positive")
    if not 0 <= sigma_min < sigma_max < np.inf:
        raise ValueError(f"sigma_min = {sigma_min}, sigma_max = {sigma_max}; 0 <= sigma_min < sigma_max is needed")
    root = np.sqrt(variance)
    return float(
        shift * np.sqrt(variance + sigma_min**2) * (np.arcsinh(sigma_max / root) - np.arcsinh(sigma_min / root))
    )


def _adapter_tables(instance: Instance) -> Instance:
    return {name.removeprefix(ADAPTER): value for name, value in instance.items() if name.startswith(ADAPTER)}


def _simulate(instance: Instance) -> RoundTrip:
    base, adapter = instances.predictor(instance), instances.predictor(_adapter_tables(instance))
    return simulate(
        base,
        instance["sigmas"],
        instance["start"],
        instance["convention"],
        sampling_predict=lambda state, level: base(state, level) + adapter(state, level),
        start_offset=instance["start_offset"],
    )


def measure(instance: Instance):
    """||E_0|| of an instance."""
    return instances.norms(_simulate(instance).errors[0])


def _bound_of(instance: Instance, level_shift: int = 0, mismatch_weight=None, growth=None, combine=None):
    trip, tables = _simulate(instance), _adapter_tables(instance)
    sigmas = instance["sigmas"]
    levels = jnp.arange(1, sigmas.shape[0])
    at_inversion = jax.vmap(instances.predictor(tables))(trip.inversion[1:], levels - level_shift)
    base_defects = trip.steps[:, None] * (
        jax.vmap(instances.predictor(instance))(trip.inversion[1:], levels) - trip.inversion_predictions
    )
    total = instance["lipschitz"] + tables["lipschitz"]
    constants = instances.table_constants(instance) + instances.table_constants(tables)
    roundings = instances.rounding_defects(trip, total[1:], constants[1:])
    growth = step_growth(sigmas, total) if growth is None else growth
    weight = 1.0 if mismatch_weight is None else mismatch_weight(trip)
    defects, mismatch = instances.norms(base_defects), weight * instances.norms(at_inversion)
    if combine is not None:
        return round_trip_bound(combine(defects, jnp.diff(sigmas) * mismatch) + roundings, growth)
    return adapter_mismatch_bound(defects + roundings, sigmas, mismatch, growth)


def _draw(key: jax.Array, *, num_steps: int) -> Parameters:
    base_key, adapter_key = jax.random.split(key)
    return instances.draw(base_key, num_steps=num_steps) | {
        "adapter": instances.draw_tables(adapter_key, num_steps=num_steps)
    }


def _instance(parameters: Parameters, *, num_steps: int) -> Instance:
    adapter = instances.tables(parameters["adapter"])
    return instances.instance(parameters, num_steps=num_steps) | {
        ADAPTER + name: value for name, value in adapter.items()
    }


PROBLEM = Problem(
    sizes=instances.SIZES,
    draw=_draw,
    instance=_instance,
    measured=measure,
    bound=_bound_of,
    operations=instances.operations,
)


def witness(*, num_steps: int) -> Instance:
    """The predictor for which Groenwall is an equality, and an adapter of the same kind: delta(y) = 5 - y / 2."""
    base = round_trip.groenwall_instance(num_steps)
    levels = num_steps + 1
    shift = 5.0  # keeps delta positive on the inversion, whose states stay below 2
    adapter = {
        "lipschitz": jnp.full(levels, 0.5),
        "blend": base["blend"],
        "linear": base["linear"],
        "inner": base["inner"],
        "shift": base["shift"],
        "offset": jnp.full((levels, 1), shift) * jnp.asarray([[1.0, 0.0]]),
    }
    return base | {ADAPTER + name: value for name, value in adapter.items()}


def witness_parameters(*, num_steps: int) -> Parameters:
    """Parameters from which the family makes the witness."""
    instance = witness(num_steps=num_steps)
    adapter = instances.table_parameters(_adapter_tables(instance))
    return instances.parameters_of(instance, Convention.S) | {"adapter": adapter}


def _broken(label: str, change) -> Outcome:
    size = instances.SIZES[1]
    return PROBLEM.outcome(change(dict(witness(**dict(size)))), size, label)


def _falling_levels() -> Outcome:
    """A slight adapter on a predictor +L y, whose sampling steps expand when the noise level rises on the way."""

    def change(instance):
        levels = instance["sigmas"].shape[0]
        instance["sigmas"] = jnp.linspace(2.0, 1.0, levels)
        for name in ("linear", ADAPTER + "linear"):
            instance[name] = -instance[name]
        instance["offset"] = jnp.linspace(0.0, 1.0, levels)[:, None] * jnp.asarray([[1.0, 0.0]])
        instance[ADAPTER + "lipschitz"] = instance[ADAPTER + "lipschitz"] / 100
        instance[ADAPTER + "offset"] = jnp.zeros((levels, instances.DIMENSION))
        return instance

    return _broken("noise levels that decrease", change)


def _understated_adapter() -> Outcome:
    def change(instance):
        # The adapter keeps its slope -1/2: the constant halves where the matrix doubles.
        instance[ADAPTER + "lipschitz"] = instance[ADAPTER + "lipschitz"] / 2
        instance[ADAPTER + "linear"] = instance[ADAPTER + "linear"] * 2
        return instance

    return _broken("Lipschitz constant of the adapter understated by half", change)


def _other_start() -> Outcome:
    return _broken("sampling starts elsewhere", lambda instance: instance | {"start_offset": jnp.asarray([-1.0, 0.0])})


def _growth_without_adapter(instance: Instance):
    return _bound_of(instance, growth=step_growth(instance["sigmas"], instance["lipschitz"]))


def mismatched_pairs(evidence: Evidence) -> Iterator[tuple[str, RoundTrip, RoundTrip]]:
    """Records of one inversion sampled by two networks, e and e + delta, in both orders: (label, by e, by e + delta).

    The statement holds whichever of the two is called e, so nothing has to be known about which one inverted.
    """
    trips = [(record.label, recorded_round_trip(record)) for record in evidence.round_trips]
    for (base_label, base), (label, other) in itertools.permutations(trips, 2):
        if np.array_equal(base.sigmas, other.sigmas) and np.array_equal(base.inversion, other.inversion):
            yield f"{label}, against {base_label}", base, other


def _both_orders(evidence: Evidence) -> Sequence[Outcome]:
    outcomes = []
    for label, base, mismatched in mismatched_pairs(evidence):
        roundings = round_trip.recorded_roundings(mismatched)
        bound = adapter_mismatch_bound(
            np.linalg.norm(base.defects, axis=1) + roundings,
            mismatched.sigmas,
            np.linalg.norm(mismatched.predictions_at_inversion - base.predictions_at_inversion, axis=1),
            round_trip.two_point_growth(mismatched),
        )
        outcomes.append(
            Outcome(
                label,
                float(np.linalg.norm(mismatched.errors[0])),
                float(bound),
                relative_budget(instances.operations(num_steps=len(roundings))),
            )
        )
    return outcomes


def _growth_with_adapter(evidence: Evidence) -> Sequence[Outcome]:
    stretches = recorded.stretches_without_adapter(evidence)
    outcomes = []
    for record in evidence.round_trips[1:]:
        trip = recorded.first_frame(record)
        for step in range(len(trip.sigmas) - 1):
            growth = recorded.growth_of_error(trip, step)
            if growth is not None and step + 1 in stretches:
                label = f"{record.label}, level {step + 1}"
                outcomes.append(
                    Outcome(label, growth, stretches[step + 1], recorded.recorded_budget(trip.errors.shape[1]))
                )
    return outcomes


CLAIM = Claim(
    id="C3.adapter",
    title="Round-trip error of sampling with an adapter that the inversion did not have",
    statement=(
        "Inverting without the adapter and sampling with it adds to each defect the step times the adapter's change of "
        "the prediction, taken on the inversion trajectory only; the sampling steps grow errors by the Lipschitz "
        "constant of both."
    ),
    latex=(
        r"\|E_0\| \le \sum_k \bigl(\|d_k\| + h_k \|\delta_{k+1}(z_{k+1})\|\bigr) "
        r"\prod_{j<k} \bigl(1 + h_j (L_{j+1} + \Lambda_{j+1})\bigr)"
    ),
    hypotheses=(
        Hypothesis("H1", "The noise levels increase from the data to the noise."),
        Hypothesis(
            "H2",
            "L_k and Lambda_k are Lipschitz constants of predictor and adapter on a convex set that holds both states "
            "of level k.",
        ),
        Hypothesis("H3", "Sampling starts where the inversion ended."),
    ),
    verdict=Verdict.PROVED,
    tightness=Tightness.ATTAINED,
    origin="claim C3, which speaks of the adapter's error; the paper's bound is not known to us",
    measured_in_words=(
        "norm of the round-trip error in the variables y = x / sqrt(alphas_cumprod), sampling with the adapter"
    ),
    bound_in_words=(
        "defects without the adapter and steps times its change of the prediction, grown by the adapted steps below, "
        "in the same variables"
    ),
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    necessity={"H1": _falling_levels, "H2": _understated_adapter, "H3": _other_start},
    planted={
        "growth without the adapter": _growth_without_adapter,
        "the adapter at the lower level": lambda instance: _bound_of(instance, level_shift=1),
        "the larger of defect and mismatch": lambda instance: _bound_of(instance, combine=jnp.maximum),
        "root of the sum of their squares": lambda instance: _bound_of(instance, combine=jnp.hypot),
        "the adapter's output times h^2": lambda instance: _bound_of(instance, mismatch_weight=lambda trip: trip.steps),
    },
    reality=(
        Comparison(
            question=(
                "Growth of the recorded error in each sampling step WITH the adapter, first frame, against the "
                "largest stretch of pairs of states sought at the same level WITHOUT it: what is measured on the base "
                "network has to hold for the adapted one"
            ),
            origin=Origin.NETWORK,
            tells=Tells.TEST,
            compare=_growth_with_adapter,
        ),
        Comparison(
            question=(
                "Round-trip error of all frames against defects and mismatch apart, with the growth read off the same "
                "two trajectories, either network being called e"
            ),
            origin=Origin.NETWORK,
            tells=Tells.IDENTITY,
            compare=_both_orders,
        ),
    ),
    relies_on=("C3.any-inversion",),
    floor=0.99,
    floor_reason=(
        "attained where all defects and the adapter's outputs point one way; ascent turns them there gradually"
    ),
)
