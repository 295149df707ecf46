r"""The filter inside the noise predictor: how far it moves the result of sampling.

Statement. Sample from one noise with a predictor e, and with e^B, which filters its features across frames. If e is
Lambda_k-Lipschitz at level k and the map from the features to the prediction is P_k-Lipschitz, in the maximum norm,
then

    \| w^B_0 - w_0 \|_\infty \le K sigma_range \sum_k h_k P_{k+1} \prod_{j<k} (1 + h_j Lambda_{j+1})
                             \le P K sigma_range (e^{Lambda (sigma_N - sigma_0)} - 1) / Lambda,

K = 0.5061296 (C4.defect) and Lambda the constant of the UNFILTERED predictor: the bound is free of the number of steps
and of the clip, and vanishes with sigma_range. A filter that can expand (C4.lipschitz) does not enter it.

Hypotheses.
    H1  Lambda_k is a Lipschitz constant of e_k on a convex set that holds both trajectories, k = 1, .., N-1.
    H2  P_k is a Lipschitz constant of the way from the features to the prediction.
    H3  Both samplings start from one noise.

**Tight**: attained where the features keep the pattern of which the filter moves one frame by K sigma_range, and the
error grows in that frame by 1 + h Lambda at every step.

In the paper: claim C4. Proof: paper_notes.md, section C4.predictor.
"""

import jax.numpy as jnp
import numpy as np

from theory.bilateral import editing, instances
from theory.claim import Claim, Hypothesis, Instance, Outcome, Parameters, Problem, Tightness, Verdict

RATE = 1.0


def _measured(instance: Instance):
    noise = instance["start"]
    return instances.largest(
        editing.sample(instance, noise + instance["offset"], filtered=True) - editing.sample(instance, noise)
    )


def _instance(parameters: Parameters, *, num_steps: int) -> Instance:
    return editing.instance(parameters, num_steps=num_steps) | {"offset": jnp.zeros(editing.NUM_FRAMES)}


def _bound(instance: Instance):
    return jnp.sum(editing.filter_moves(instance) * editing.growth(instance))


PROBLEM = Problem(
    sizes=editing.SIZES,
    draw=editing.draw,
    instance=_instance,
    measured=_measured,
    bound=_bound,
    operations=editing.operations,
)


def witness(*, num_steps: int) -> Instance:
    """The same extremal features at every level, and a rate of 1 in every frame."""
    return editing.explicit_instance(num_steps, np.full(editing.NUM_FRAMES, RATE), editing.PATTERN) | {
        "offset": jnp.zeros(editing.NUM_FRAMES)
    }


def witness_parameters(*, num_steps: int) -> Parameters:
    return editing.explicit_parameters(num_steps, np.full(editing.NUM_FRAMES, RATE), editing.PATTERN)


def _changed(label: str, **changes) -> Outcome:
    """The witness evaluated with some entries changed, against the bound of the unchanged one."""
    size = editing.SIZES[1]
    whole = witness(**dict(size))
    return Outcome(
        label,
        float(_measured(whole | changes)),
        float(_bound(whole)),
        PROBLEM.budget(size),
        witness={name: np.asarray(value) for name, value in (whole | changes).items()},
    )


def _steeper() -> Outcome:
    return _changed("rates twice the Lipschitz constant", rates=2 * RATE * jnp.ones((5, editing.NUM_FRAMES)))


def _louder() -> Outcome:
    return _changed("features read twice as loudly as P says", post=2 * jnp.ones(5))


def _apart() -> Outcome:
    return _changed("another noise for the filtered sampling", offset=jnp.full(editing.NUM_FRAMES, 0.5))


CLAIM = Claim(
    id="C4.predictor",
    title="How far a filter inside the predictor moves the result of sampling",
    statement=(
        "Filtering features inside the noise predictor moves the result of sampling by at most K sigma_range sum_k "
        "h_k P_{k+1} prod_{j<k} (1 + h_j Lambda_{j+1}) in the maximum norm, with Lambda of the unfiltered predictor; "
        "K = 0.5061296."
    ),
    latex=r"\|w^B_0 - w_0\|_\infty \le K \sigma_r \sum_k h_k P_{k+1} \prod_{j<k} (1 + h_j \Lambda_{j+1})",
    hypotheses=(
        Hypothesis(
            "H1",
            "Lambda_k is a Lipschitz constant of e_k on a convex set that holds both trajectories, k = 1, .., N-1.",
        ),
        Hypothesis("H2", "P_k is a Lipschitz constant of the way from the features to the prediction."),
        Hypothesis("H3", "Both samplings start from one noise."),
    ),
    verdict=Verdict.PROVED,
    tightness=Tightness.ATTAINED,
    origin="claim C4, whose bound is not known to us",
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    measured_in_words=(
        "the largest difference between the samples with and without the filter, in the variable y = x / sqrt(abar)"
    ),
    bound_in_words=(
        "K sigma_range times the sum over the steps of h P times the growth of the later steps, in the same units"
    ),
    necessity={"H1": _steeper, "H2": _louder, "H3": _apart},
    planted={
        "without growth": lambda instance: jnp.sum(editing.filter_moves(instance)),
        "the largest step for their sum": lambda instance: jnp.max(
            editing.filter_moves(instance) * editing.growth(instance)
        ),
        "growth of the step itself left out of later ones": lambda instance: jnp.sum(
            editing.filter_moves(instance) * jnp.concatenate([jnp.ones(1), editing.growth(instance)[:-1]])
        ),
        "root of the sum of squares": lambda instance: jnp.sqrt(
            jnp.sum((editing.filter_moves(instance) * editing.growth(instance)) ** 2)
        ),
        "steps counted from the noise end": lambda instance: (
            jnp.sum(editing.filter_moves(instance) * editing.growth(instance)) / editing.growth(instance)[-1]
        ),
    },
    no_network=(
        "The Lipschitz constants of a UNet in the maximum norm, Lambda and P, are not known, so the bound cannot be "
        "evaluated; the study of the filter measures the deviation itself."
    ),
    relies_on=("C4.defect",),
    lemmas=("discrete Groenwall inequality",),
    floor=0.98,
    floor_reason=(
        "the supremum is attained, but at kinks of the maximum norm, which gradient ascent approaches and does not hit"
    ),
)
