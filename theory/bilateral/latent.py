r"""The filter on the latent after every sampling step: its effect adds up with the number of steps.

Statement. Sample from one noise, with x_k replaced by B(x_k) after every step, and without. If e is Lambda_k-Lipschitz
at level k in the maximum norm, then in the variables y = x / sqrt(abar), sqrt(1/abar_k) = sqrt(1 + sigma_k^2),

    \| v_0 - w_0 \|_\infty \le K sigma_range \sum_k \sqrt{1 + sigma_k^2} \prod_{j<k} (1 + h_j Lambda_{j+1}),

in which a step's length is no factor: on a given range of noise levels the bound grows about in proportion to the
number of steps, and so can what it bounds, which attains it. For a result that settles as the steps get finer use the
residual filter (1 - a) x + a B(x) with a of the order of 1 / steps.

Hypotheses.
    H1  Lambda_k is a Lipschitz constant of e_k on a convex set that holds both trajectories, k = 1, .., N-1.
    H2  The range width is sigma_range in the latent x (in y it is sigma_range sqrt(1 + sigma_k^2)).
    H3  Both samplings start from one noise.

**Tight**: attained by predictors that restore, before every filtering, the pattern of which the filter moves one frame
by K.

In the paper: claim C4, if the filter is meant to act on the latent. Proof: paper_notes.md, section C4.latent.
"""

import jax
import jax.numpy as jnp
import numpy as np

from theory.bilateral import editing, instances
from theory.bilateral.filter import bilateral_filter
from theory.claim import Claim, Hypothesis, Instance, Outcome, Parameters, Problem, Tightness, Verdict

RATE = 1.0


def _roots(instance: Instance) -> jax.Array:
    """sqrt(1 + sigma_k^2) of the levels that are filtered, (num_steps,)."""
    return jnp.sqrt(1 + instance["sigmas"][:-1] ** 2)


def filtered_sample(instance: Instance, noise: jax.Array) -> jax.Array:
    """v_0: every step of the sampling followed by the filter on x_k = y_k / sqrt(1 + sigma_k^2)."""
    roots = _roots(instance)
    width = instance["sigma_range"] * instance["width_factor"]
    return editing.sample(
        instance, noise, after_step=lambda state, level: roots[level] * instances.filtered(state / roots[level], width)
    )


def _measured(instance: Instance):
    noise = instance["start"]
    return instances.largest(filtered_sample(instance, noise + instance["offset"]) - editing.sample(instance, noise))


def _moves(instance: Instance) -> jax.Array:
    return editing.CHANGE * instance["sigma_range"] * _roots(instance)


def _bound(instance: Instance):
    return jnp.sum(_moves(instance) * editing.growth(instance))


def _extras() -> Instance:
    return {"offset": jnp.zeros(editing.NUM_FRAMES), "width_factor": jnp.asarray(1.0)}


def _instance(parameters: Parameters, *, num_steps: int) -> Instance:
    return editing.instance(parameters, num_steps=num_steps) | _extras()


PROBLEM = Problem(
    sizes=editing.SIZES,
    draw=editing.draw,
    instance=_instance,
    measured=_measured,
    bound=_bound,
    operations=editing.operations,
)


def _restoring_features(num_steps: int, rate: float = RATE) -> np.ndarray:
    """Features with which every step ends at the extremal pattern in x.

    f_{k+1} = (v_{k+1} - pattern) / h + r v_{k+1}
    """
    sigmas = editing.STEP * np.arange(num_steps + 1.0)
    state, features = np.zeros(editing.NUM_FRAMES), np.zeros((num_steps + 1, editing.NUM_FRAMES))
    for level in reversed(range(num_steps)):
        root = np.sqrt(1 + sigmas[level] ** 2)
        features[level + 1] = (state - root * editing.PATTERN) / editing.STEP + rate * state
        state = root * bilateral_filter(editing.PATTERN, sigma_range=1.0)
    return features


def witness(*, num_steps: int) -> Instance:
    """Predictors that restore the extremal pattern before every filtering, with a rate of 1 in every frame."""
    return (
        editing.explicit_instance(num_steps, np.full(editing.NUM_FRAMES, RATE), _restoring_features(num_steps))
        | _extras()
    )


def witness_parameters(*, num_steps: int) -> Parameters:
    return editing.explicit_parameters(num_steps, np.full(editing.NUM_FRAMES, RATE), _restoring_features(num_steps))


def _changed(label: str, whole: Instance, **changes) -> Outcome:
    """An instance evaluated with some entries changed, against the bound of the unchanged one."""
    size = editing.SIZES[1]
    return Outcome(
        label,
        float(_measured(whole | changes)),
        float(_bound(whole)),
        PROBLEM.budget(size),
        witness={name: np.asarray(value) for name, value in (whole | changes).items()},
    )


def _steeper() -> Outcome:
    """Rates of 1 where the constant says 1/2."""
    whole = witness(num_steps=4)
    small = whole | {"rates": whole["rates"] / 2}
    return _changed("rates twice the Lipschitz constant", small, rates=whole["rates"])


def _wider() -> Outcome:
    """The pattern of a filter that is twice as wide as it says."""
    whole = witness(num_steps=4)
    return _changed(
        "a range width twice as large", whole, features=2 * whole["features"], width_factor=jnp.asarray(2.0)
    )


def _apart() -> Outcome:
    whole = witness(num_steps=4)
    moved = jnp.full(editing.NUM_FRAMES, 0.5)
    # The filter shifts with the frames, so that another noise leaves every pattern as it was.
    return _changed("another noise for the filtered sampling", whole, offset=moved)


CLAIM = Claim(
    id="C4.latent",
    title="A filter on the latent after every step adds up with the number of steps",
    statement=(
        "Filtering the latent after every step moves the result of sampling by at most K sigma_range sum_k sqrt(1 + "
        "sigma_k^2) prod_{j<k} (1 + h_j Lambda_{j+1}) in the maximum norm; no smaller constant will do, so the effect "
        "can grow with the number of steps."
    ),
    latex=r"\|v_0 - w_0\|_\infty \le K \sigma_r \sum_k \sqrt{1 + \sigma_k^2} \prod_{j<k} (1 + h_j \Lambda_{j+1})",
    hypotheses=(
        Hypothesis(
            "H1",
            "Lambda_k is a Lipschitz constant of e_k on a convex set that holds both trajectories, k = 1, .., N-1.",
        ),
        Hypothesis("H2", "The range width is sigma_range in the latent x."),
        Hypothesis("H3", "Both samplings start from one noise."),
    ),
    verdict=Verdict.PROVED,
    tightness=Tightness.ATTAINED,
    origin="claim C4, if the filter is meant to act on the latent",
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    measured_in_words=(
        "the largest difference between the samples with and without filtered latents, in the variable y = x / "
        "sqrt(abar)"
    ),
    bound_in_words=(
        "K sigma_range times the sum over the steps of sqrt(1/abar) times the growth of the later steps, in the same "
        "units"
    ),
    necessity={"H1": _steeper, "H2": _wider, "H3": _apart},
    planted={
        "one filtering for all": lambda instance: jnp.max(_moves(instance) * editing.growth(instance)),
        "steps' lengths for their number": lambda instance: jnp.sum(
            editing.steps(instance) * _moves(instance) * editing.growth(instance)
        ),
        "the width in y": lambda instance: jnp.sum(editing.CHANGE * instance["sigma_range"] * editing.growth(instance)),
        "without growth": lambda instance: jnp.sum(_moves(instance)),
        "root of the sum of squares": lambda instance: jnp.sqrt(
            jnp.sum((_moves(instance) * editing.growth(instance)) ** 2)
        ),
    },
    no_network=(
        "The Lipschitz constant of a UNet in the maximum norm is not known, so the bound cannot be evaluated, and "
        "neither the editor nor the public code filters the latent."
    ),
    relies_on=("C4.defect",),
    lemmas=("discrete Groenwall inequality",),
    floor=0.98,
    floor_reason=(
        "the supremum is attained, but at kinks of the maximum norm, which gradient ascent approaches and does not hit"
    ),
)
