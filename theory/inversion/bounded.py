r"""Networks whose output is normalised: a round-trip error bounded by the range of noise levels alone, whatever the
adapter.

Statement. Let every prediction of the inversion and of the sampling have norm at most G. Then for N steps of any size,
under any convention, with any adapter, prompt and step size,

    \|E_0\| \le 2 G (\sigma_N - \sigma_0),

and, where one changes over at level m to the growth of C3.any-inversion, for every m

    \|E_0\| \le 2 G (\sigma_N - \sigma_m) \prod_{j<m} (1 + h_j L_{j+1})
                + \sum_{k<m} \|d_k\| \prod_{j<k} (1 + h_j L_{j+1}).

UNets of diffusers end in conv(SiLU(GroupNorm(.))), layers that neither a LoRA on attention nor prompt tokens touch:
such a G exists for all inputs, timesteps, prompts and adapters at once and is computed from these weights
(output_layer.py). Under guidance w it is (w + |w - 1|) G.

Hypotheses.
    H1  The noise levels increase from the data to the noise.
    H2  No prediction of either direction has a norm above G.
    H3  Sampling starts where the inversion ended.
    H4  L_k is a Lipschitz constant of the sampling predictor at level k on a convex set that holds z_k and w_k, k = 1,
        .., m.

**Attained** among predictors of norm G, by one that turns round between the two trajectories. Among networks of this
architecture it is an upper bound.

In the paper: claim C3, in the reading "the error stays bounded". Proof: paper_notes.md, section C3.bounded.
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
from theory.inversion.ddim import Convention, Predictor, RoundTrip, round_trip
from theory.inversion.growth import step_growth
from theory.inversion.output_layer import guided_output_bound, output_bound
from theory.inversion.schedule import as_vector, check_noise_levels, is_traced, noise_levels, refuse_first
from theory.rounding import relative_budget

SIZES: tuple[Size, ...] = instances.SIZES


def uniform_error_bound(sigmas: Any, output: float, inversion_output: float | None = None) -> float:
    """The largest round-trip error of predictions of bounded norm, whatever they are.

        (G + G') (sigma_N - sigma_0)

    Args:
        sigmas: (num_steps + 1,) increasing noise levels.
        output: G, of the predictions of the sampling.
        inversion_output: G' of the inversion; None means G.

    Raises:
        ValueError: noise levels that do not increase; a bound negative, NaN or infinite.

    Source: paper_notes.md, C3.bounded.
    """
    check_noise_levels(sigmas)
    outputs = (output, output if inversion_output is None else inversion_output)
    for value in outputs:
        if not (np.isfinite(value) and value >= 0):
            raise ValueError(f"output bound = {value}; a finite norm >= 0 is needed")
    return sum(outputs) * float(sigmas[-1] - sigmas[0]) * (1 + relative_budget(8))


def hybrid_bounds(sigmas: Any, defects: Any, growth: Any, output: Any) -> Any:
    """The bound for every level at which one may change over from the bounded outputs to the growth of errors.

        2 G (sigma_N - sigma_m) prod_{j<m} growth[j] + sum_{k<m} defects[k] prod_{j<k} growth[j],   m = 0, .., N

    Args:
        sigmas: (num_steps + 1,) increasing noise levels.
        defects: (num_steps,) norms ||d_k||; k = 0 is the step nearest the data.
        growth: (num_steps,) growth factors of the sampling steps, at least 0.
        output: G >= 0.

    Returns:
        (num_steps + 1,) float64 of the same kind; the least of them is the bound.

    Raises:
        ValueError: noise levels that do not increase; sizes that differ; an entry negative, NaN or infinite.

    Source: paper_notes.md, C3.bounded.
    """
    check_noise_levels(sigmas)
    sigmas, _ = as_vector("noise levels", sigmas)
    defects, xp = as_vector("defects", defects)
    growth, _ = as_vector("growth", growth)
    if not defects.shape == growth.shape == (sigmas.shape[0] - 1,):
        raise ValueError(
            f"{sigmas.shape[0]} noise levels, {defects.shape[0]} defects and {growth.shape[0]} growth factors; N + 1, "
            "N and N are needed"
        )
    if not is_traced(defects, growth):
        refuse_first("defect", defects, defects < 0, "a norm is at least 0")
        refuse_first("growth", growth, growth < 0, "a factor is at least 0")
    if not is_traced(output) and not (np.isfinite(float(output)) and float(output) >= 0):
        raise ValueError(f"output bound = {output}; a finite norm >= 0 is needed")
    products = xp.concat([xp.ones_like(growth[:1]), xp.cumulative_prod(growth)])
    sums = xp.concat([xp.zeros_like(growth[:1]), xp.cumulative_sum(defects * products[:-1])])
    return 2 * output * (sigmas[-1] - sigmas) * products + sums


def _predictor(instance: Instance, factor: Any = 1.0) -> Predictor:
    """e_k(y) = G s_k (cos theta, sin theta), theta = a_k <q_k, y> + p_k: a vector of length at most G that turns with
    the state."""

    def predict(state: jax.Array, level: jax.Array) -> jax.Array:
        angle = instance["turning"][level] * (instance["axis"][level] @ state) + instance["phase"][level]
        length = factor * instance["length"] * instance["share"][level]
        return length * jnp.stack([jnp.cos(angle), jnp.sin(angle)])

    return predict


def _simulate(instance: Instance) -> RoundTrip:
    return round_trip(
        _predictor(instance),
        instance["sigmas"],
        instance["start"],
        instance["convention"],
        sampling_predict=_predictor(instance, instance["sampling_factor"]),
        start_offset=instance["start_offset"],
    )


def measure(instance: Instance):
    """||E_0|| of an instance."""
    return instances.norms(_simulate(instance).errors[0])


def _lipschitz(instance: Instance) -> jax.Array:
    return instance["length"] * instance["share"] * jnp.abs(instance["turning"])


def _bounds(instance: Instance, output_weight: float = 1.0, keep_defects: bool = True):
    trip, sigmas = _simulate(instance), instance["sigmas"]
    lipschitz = _lipschitz(instance) * instance["stated_slope"]
    # An angle is rounded at the size of its two terms, which the length passes on.
    constants = instance["length"] * (1 + jnp.abs(instance["phase"]))
    roundings = instances.rounding_defects(trip, lipschitz[1:], constants[1:])
    defects = (instances.norms(trip.defects) if keep_defects else 0.0) + roundings
    bounds = hybrid_bounds(sigmas, defects, step_growth(sigmas, lipschitz), output_weight * instance["length"])
    return bounds + jnp.sum(roundings)


def _bound(instance: Instance):
    return jnp.min(_bounds(instance))


def _draw(key: jax.Array, *, num_steps: int) -> Parameters:
    keys = jax.random.split(key, 8)
    levels = num_steps + 1
    spread = 10.0 ** jax.random.uniform(keys[0], minval=-3.0, maxval=0.5)
    return {
        "first_level": jax.random.normal(keys[1]),
        "increments": jax.random.normal(keys[2], (num_steps,)),
        "start": jax.random.normal(keys[3], (instances.DIMENSION,)),
        "convention": instances.draw_convention(keys[4]),
        "log_length": jax.random.normal(keys[5]),
        "share": spread * jax.random.normal(keys[6], (levels,)),
        "turning": jax.random.normal(keys[7], (levels,)),
        "axis": spread * jax.random.normal(keys[0], (levels,)),
        "phase": 2 * jax.random.normal(keys[5], (levels,)),
    }


def _instance(parameters: Parameters, *, num_steps: int) -> Instance:
    return {
        "sigmas": instances.increasing_levels(parameters["first_level"], parameters["increments"]),
        "start": parameters["start"],
        "convention": instances.convention(parameters["convention"]),
        "start_offset": jnp.zeros(instances.DIMENSION),
        "length": instances.bounded_exp(parameters["log_length"], 2.0),
        "share": jnp.cos(parameters["share"]) ** 2,
        "turning": parameters["turning"],
        "axis": instances.rotations(parameters["axis"])[:, :, 0],
        "phase": parameters["phase"],
        "sampling_factor": jnp.asarray(1.0),
        "stated_slope": jnp.asarray(1.0),
    }


def _operations(*, num_steps: int) -> int:
    """Roundings in units of the witness's error 4, steps of 2 / N: states of at most 4, predictions of 1, slopes of at
    most pi N / 4 and phases of at most pi N / 2, which the growth of N / 2 steps of a factor of at most 3 passes on;
    the sum over the steps doubles it."""
    return instances.OPERATIONS_PER_STEP * 16 * num_steps**2 * 3 ** (num_steps // 2)


PROBLEM = Problem(sizes=SIZES, draw=_draw, instance=_instance, measured=measure, bound=_bound, operations=_operations)


def turning_instance(sigmas: Any) -> Instance:
    """Under convention S a predictor of norm 1 that pushes the inversion one way along every step, and the sampling the
    same way back.

    z_{k+1} = z_k + |h_k| and w_k = w_{k+1} + |h_k|: the angle is that of sign(h_k) at z_k, and that of -sign(h_k) at
    w_{k+1}.
    """
    sigmas = np.asarray(sigmas, dtype=np.float64)
    steps = np.diff(sigmas)
    up = np.concatenate([[0.0], np.cumsum(np.abs(steps))])
    down = 2 * up[-1] - up
    going, coming = np.where(steps > 0, 0.0, np.pi), np.where(steps > 0, np.pi, 0.0)
    # Level 0 is left upwards only, level N downwards only.
    turning = np.zeros(len(sigmas))
    turning[1:-1] = (coming[:-1] - going[1:]) / (down - up)[1:-1]
    phase = np.concatenate([going, coming[-1:]]) - turning * up
    levels = len(sigmas)
    return {
        "sigmas": jnp.asarray(sigmas),
        "start": jnp.zeros(instances.DIMENSION),
        "convention": jnp.asarray(int(Convention.S)),
        "start_offset": jnp.zeros(instances.DIMENSION),
        "length": jnp.asarray(1.0),
        "share": jnp.ones(levels),
        "turning": jnp.asarray(turning),
        "axis": jnp.tile(jnp.asarray([1.0, 0.0]), (levels, 1)),
        "phase": jnp.asarray(phase),
        "sampling_factor": jnp.asarray(1.0),
        "stated_slope": jnp.asarray(1.0),
    }


def witness(*, num_steps: int) -> Instance:
    """That predictor on uniform steps of [0, 2]."""
    return turning_instance(np.linspace(0.0, 2.0, num_steps + 1))


def witness_parameters(*, num_steps: int) -> Parameters:
    """Parameters from which the family makes the witness."""
    instance = witness(num_steps=num_steps)
    return {
        **instances.level_parameters(instance["sigmas"]),
        "start": instance["start"],
        "convention": instances.convention_parameter(Convention.S),
        "log_length": jnp.asarray(0.0),
        "share": jnp.zeros(num_steps + 1),
        "turning": instance["turning"],
        "axis": jnp.zeros(num_steps + 1),
        "phase": instance["phase"],
    }


def _broken(label: str, instance: Instance | None = None, **changes: Any) -> Outcome:
    size = SIZES[0]
    chosen = dict(witness(**dict(size)) if instance is None else instance)
    return PROBLEM.outcome(chosen | {name: jnp.asarray(value) for name, value in changes.items()}, size, label)


def _roots(instance: Instance):
    return 2 * instance["length"] * jnp.sqrt(jnp.sum(jnp.diff(instance["sigmas"]) ** 2))


def _in_the_latent(instance: Instance):
    sigmas = instance["sigmas"]
    return 2 * instance["length"] * (jnp.arcsinh(sigmas[-1]) - jnp.arcsinh(sigmas[0]))


def _per_frame(record, name: str) -> np.ndarray:
    values = np.asarray(getattr(record, name), dtype=np.float64)
    return np.linalg.norm(values.reshape(*values.shape[:2], -1), axis=2)


def _one_layer(evidence: Evidence) -> float:
    if not evidence.output_layers:
        raise ValueError(
            "0 records of the last layers; 1 is needed: the pipeline's UNet must end in GroupNorm, SiLU and a 3 x 3 "
            "convolution"
        )
    return output_bound(evidence.output_layers[0])


def _outputs(evidence: Evidence) -> Sequence[Outcome]:
    limit = _one_layer(evidence)
    found = []
    for record in evidence.round_trips:
        names = ("inversion_predictions", "sampling_predictions", "predictions_at_inversion")
        largest = max(float(_per_frame(record, name).max()) for name in names)
        found.append(Outcome(record.label, largest, limit, relative_budget(record.inversion[0, 0].size)))
    return found


def _errors(evidence: Evidence) -> Sequence[Outcome]:
    limit = _one_layer(evidence)
    found = []
    for record in evidence.round_trips:
        sigmas = noise_levels(np.asarray(record.alphas_cumprod, dtype=np.float64))
        errors = np.linalg.norm(
            (record.sampling[0] - record.inversion[0]).reshape(record.inversion.shape[1], -1), axis=1
        )
        worst = float(errors.max() * np.sqrt(1 + sigmas[0] ** 2))
        found.append(
            Outcome(
                record.label, worst, uniform_error_bound(sigmas, limit), relative_budget(record.inversion[0, 0].size)
            )
        )
    for record in evidence.practice:
        parts = recorded.practice_parts(record)
        error = float(np.linalg.norm(parts.sampling[0] - parts.states[0]))
        bound = uniform_error_bound(parts.sigmas, guided_output_bound(limit, record.guidance_scale), limit)
        found.append(Outcome(record.label, error, bound, relative_budget(parts.states.shape[1])))
    return found


CLAIM = Claim(
    id="C3.bounded",
    title="The round-trip error of networks with a normalised output is bounded by the range of noise levels",
    statement=(
        "If no prediction has a norm above G, as in every UNet that ends in a convolution of a SiLU of a GroupNorm, "
        "with any adapter on its attention, the round-trip error is at most 2 G times the range of noise levels, for "
        "any number of steps; and the growth of errors may take over at any level where it promises less."
    ),
    latex=(
        r"\|E_0\| \le \min_m\ 2G(\sigma_N - \sigma_m) \prod_{j<m}(1 + h_jL_{j+1}) + "
        r"\sum_{k<m}\|d_k\|\prod_{j<k}(1 + h_jL_{j+1})"
        r"\ \le\ 2G(\sigma_N - \sigma_0)"
    ),
    hypotheses=(
        Hypothesis("H1", "The noise levels increase from the data to the noise."),
        Hypothesis("H2", "No prediction of the inversion or of the sampling has a norm above G."),
        Hypothesis("H3", "Sampling starts where the inversion ended."),
        Hypothesis(
            "H4",
            "Below the level of the change, L_k is a Lipschitz constant on a convex set that holds both trajectories' "
            "states.",
        ),
    ),
    verdict=Verdict.PROVED,
    tightness=Tightness.ATTAINED,
    sharpness=(
        "attained among all predictors of norm G; for networks of the architecture, whose G is an upper bound, it is "
        "an upper bound"
    ),
    origin="claim C3 in its weakest reading, that the error stays bounded; the paper's bound is not known to us",
    measured_in_words="norm of the round-trip error in the variables y = x / sqrt(alphas_cumprod)",
    bound_in_words=(
        "the least, over the levels of the change, of bounded outputs above it and grown defects below it, in the "
        "same variables"
    ),
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    necessity={
        "H1": lambda: PROBLEM.outcome(turning_instance([0.0, 2.0, 1.0, 1.5]), SIZES[0], "a level that decreases"),
        "H2": lambda: _broken("sampling predictions of twice the stated norm", sampling_factor=2.0),
        "H3": lambda: _broken("sampling starts elsewhere", start_offset=[10.0, 0.0]),
        "H4": lambda: _broken("Lipschitz constants stated as 0", stated_slope=0.0),
    },
    planted={
        "G for 2 G": lambda instance: jnp.min(_bounds(instance, output_weight=0.5)),
        "root of the sum of squared steps for the range": _roots,
        "the range of asinh(sigma), as in the latent": _in_the_latent,
        "the last steps without their defects": lambda instance: jnp.min(_bounds(instance, keep_defects=False)),
        "the longest step for the range": lambda instance: (
            2 * instance["length"] * jnp.max(jnp.diff(instance["sigmas"]))
        ),
    },
    reality=(
        Comparison(
            question=(
                "Largest recorded norm of a prediction of one frame, against G computed from the weights of the last "
                "layers"
            ),
            origin=Origin.NETWORK,
            tells=Tells.IMPLIED,
            compare=_outputs,
            because="the lemma on conv(SiLU(GroupNorm)): no input, timestep, prompt or adapter can exceed G",
        ),
        Comparison(
            question="Largest round-trip error of one frame, against the output bounds times the range of noise levels",
            origin=Origin.NETWORK,
            tells=Tells.IMPLIED,
            compare=_errors,
            because="the theorem, whose G is computed from the weights of the last layers",
        ),
    ),
    relies_on=("C3.any-inversion",),
    lemmas=("weak Lagrangian duality", "a convolution with zero padding is a compression of one on a torus"),
    floor=0.9,
    floor_reason=(
        "attained by a predictor that turns half round between two trajectories that start at one point; the ascent "
        "finds the turns gradually"
    ),
)
