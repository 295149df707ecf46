r"""What a small temporal loss does not say: a clip may flicker as much as it likes, and have a loss of zero.

Statement. Let V = (s_1 + .. + s_{N-1}) / (N-1) be the mean similarity of neighbouring frames, what benchmarks report as the consistency of a clip.

(a) For every N >= 3, d >= 2 and v in [-1, 1] there are N frames in R^d with V = v and L = 0, among them A, B, A, B, .. with <A, B> = v: the
    clip flickers between two pictures that differ as much as one likes.
(b) The other way the mean does bound the loss. With S = (N-1)(1-V) in [0, 2(N-1)], k = floor(S/2) and f = S - 2k,

        L \le \frac{1}{N-2} E_{N-1}(S),   E_n(S) = \max \sum_{t=1}^{n-1} (x_{t+1} - x_t)^2

    over the arrangements x of k numbers 2, one f and zeros in n places: bad pairs alternate with good ones. For S <= 2 floor((N-2)/2),
    where they fit, E = 8 k + 2 f^2; in particular L <= 2 S^2 / (N-2) for N >= 4 and S <= 2. For N = 3, E = S^2 up to S = 2.

So consistency implies a small loss, and a small loss implies no consistency.

Hypotheses.
    H1  There are N >= 3 frames.
    H2  No frame is zero.

**Attained**: (b) at every N and S, in dimension d >= 2.

In the paper: not there. Proof: paper_notes.md, section C1.flicker.
"""

import math
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
from theory.temporal_loss import instances, recorded
from theory.temporal_loss.hessian import check_num_frames
from theory.temporal_loss.loss import similarities, temporal_loss
from theory.temporal_loss.steadiness import frames_with

SIZES: tuple[Size, ...] = tuple((("num_frames", num_frames), ("dimension", dimension)) for num_frames, dimension in ((3, 2), (4, 3), (6, 2)))


def flickering_frames(num_frames: int, mean_similarity: float, dimension: int = 2) -> np.ndarray:
    """Two pictures in turn, A, B, A, B, ..: every similarity is v, and the temporal loss is 0 whatever v is.

    Args:
        num_frames: N.
        mean_similarity: v in [-1, 1].

    Returns:
        (num_frames, dimension) float64, unit frames.

    Source: paper_notes.md, C1.flicker.

    Raises:
        ValueError: fewer than 3 frames, dimension < 2, or v outside [-1, 1].
    """
    check_num_frames(num_frames)
    if dimension < 2:
        raise ValueError(f"dimension = {dimension}; at least 2 is needed: on a line a similarity is 1 or -1")
    if not -1 <= mean_similarity <= 1:
        raise ValueError(f"mean_similarity = {mean_similarity}; a number in [-1, 1] is needed")
    frames = np.zeros((num_frames, dimension))
    frames[::2, 0] = 1.0
    frames[1::2, 0], frames[1::2, 1] = mean_similarity, math.sqrt((1 - mean_similarity) * (1 + mean_similarity))
    return frames


def _most_alternating(xp: Any, num_pairs: int, twos: int, rest: Any) -> Any:
    """The largest sum of squared differences of neighbours over the arrangements of `twos` numbers 2, one `rest` and zeros.

    By dynamic programming along the places; `rest` may be traced. A state is (last entry, numbers 2 so far, whether the rest is placed).
    """
    values = {"zero": 0.0, "two": 2.0, "rest": rest}
    states: dict[tuple[str, int, bool], Any] = {(name, int(name == "two"), name == "rest"): 0.0 for name in values}
    for _ in range(num_pairs - 1):
        following: dict[tuple[str, int, bool], Any] = {}
        for (last, count, placed), total in states.items():
            for name, value in values.items():
                if (name == "rest" and placed) or (name == "two" and count == twos):
                    continue
                key = (name, count + (name == "two"), placed or name == "rest")
                candidate = total + (value - values[last]) ** 2
                following[key] = xp.maximum(following[key], candidate) if key in following else candidate
        states = following
    totals = [total for (_, count, placed), total in states.items() if count == twos and placed]
    best = totals[0]
    for total in totals[1:]:
        best = xp.maximum(best, total)
    return best


def _alternation(xp: Any, num_pairs: int, defect: Any) -> Any:
    """E_n(S), n = num_pairs, 0 <= S <= 2 n; NumPy or traced JAX."""
    twos = xp.clip(xp.floor(defect / 2), 0, num_pairs - 1)
    rest = xp.clip(defect - 2 * twos, 0.0, 2.0)
    choices = xp.stack([xp.asarray(_most_alternating(xp, num_pairs, count, rest)) for count in range(num_pairs)])
    return choices[xp.asarray(twos, dtype=int)] if xp is np else jnp.take(choices, twos.astype(int))


def largest_loss(num_frames: int, mean_similarity: float) -> float:
    """The largest temporal loss that N frames with this mean similarity of neighbours can have.

        E_{N-1}((N-1)(1-V)) / (N-2)

    Args:
        num_frames: N.
        mean_similarity: V in [-1, 1].

    Source: paper_notes.md, C1.flicker. O(N^3) operations.

    Raises:
        ValueError: fewer than 3 frames; a mean outside [-1, 1].
    """
    check_num_frames(num_frames)
    if not -1 <= mean_similarity <= 1:
        raise ValueError(f"mean_similarity = {mean_similarity}; a number in [-1, 1] is needed")
    pairs = num_frames - 1
    return float(_alternation(np, pairs, np.asarray(pairs * (1 - mean_similarity)))) / (num_frames - 2)


def _draw(key: jax.Array, *, num_frames: int, dimension: int) -> Parameters:
    frames_key, similarity_key = jax.random.split(key)
    drawn = instances.draw(frames_key, num_frames=num_frames, dimension=dimension)
    return {"excess": drawn["excess"], "similarities": 1.5 * jax.random.normal(similarity_key, (num_frames - 1,))}


def _instance(parameters: Parameters, *, num_frames: int, dimension: int) -> Instance:
    """Frames of norms of at least 1 with free similarities; where these differ by less than 1/16 the last pair is made opposite."""
    cosines = jnp.sin(parameters["similarities"])
    flat = jnp.max(cosines) - jnp.min(cosines) < 1 / 16
    cosines = cosines.at[-1].multiply(jnp.where(flat & (jnp.abs(cosines[-1]) > 0.5), -1.0, 1.0))
    cosines = cosines.at[-1].add(jnp.where(flat & (jnp.abs(cosines[-1]) <= 0.5), 0.25, 0.0))
    return {"frames": (1 + parameters["excess"] ** 2)[:, None] * frames_with(cosines, dimension)}


def _operations(*, num_frames: int, dimension: int) -> int:
    """Roundings of the cosines, of size 1, at the size of the loss, at least (1/16)^2 / (N-2)^2 for similarities that differ by 1/16.

    By C1.steadiness (N-2)^2 L >= (max s - min s)^2. The bound's S carries the same roundings, and E has slope at most 8 in it.
    """
    return 8 * 256 * (num_frames - 2) ** 2 * 8 * (dimension + 2) * num_frames


def _defect(instance: Instance) -> jax.Array:
    """S = sum of 1 - s_t."""
    return jnp.sum(1 - similarities(instance["frames"]))


def _bound(instance: Instance):
    pairs = instance["frames"].shape[0] - 1
    return _alternation(jnp, pairs, _defect(instance)) / (pairs - 1)


PROBLEM = Problem(
    sizes=SIZES,
    draw=_draw,
    instance=_instance,
    measured=lambda instance: temporal_loss(instance["frames"]),
    bound=_bound,
    operations=_operations,
)


def _worst_similarities(num_frames: int) -> jax.Array:
    """One pair of similarity 0 and one of -1 if they fit between good ones, or else one of -1/2 beside a good one."""
    worst = {3: (-0.5, 1.0), 4: (1.0, -0.5, 1.0), 6: (1.0, -1.0, 1.0, 0.0, 1.0)}
    return jnp.asarray(worst[num_frames])


def witness(*, num_frames: int, dimension: int) -> Instance:
    """Bad pairs between good ones; unit frames."""
    return {"frames": frames_with(_worst_similarities(num_frames), dimension)}


def witness_parameters(*, num_frames: int, dimension: int) -> Parameters:
    return {"excess": jnp.zeros(num_frames), "similarities": jnp.arcsin(_worst_similarities(num_frames))}


def _reality(evidence: Evidence) -> Sequence[Outcome]:
    outcomes = []
    for label, size, recorded_frames in instances.frame_instances(evidence):
        outcomes.append(PROBLEM.outcome({"frames": recorded_frames["frames"]}, size, label))
    return outcomes


LEAST_CONTRAST = 1.25
"""How much farther apart (in 1 - cosine) than neighbours the frames three apart are asked to be; of a flickering clip it is 1 or less."""


def _no_flicker(evidence: Evidence) -> Sequence[Outcome]:
    """The median, over layers, levels and adapter off and on, of 1 - cosine of frames three apart over that of neighbours.

    Two apart, where there are but three frames. Of frames that are all equal it is 1.
    """
    ratios = []
    for record in evidence.features:
        frames = np.reshape(record.values, (len(record.values), -1))
        units = frames / np.linalg.norm(frames, axis=1, keepdims=True)
        gap = min(3, len(frames) - 1)
        near, far = (float(np.mean(np.sum((units[step:] - units[:-step]) ** 2, axis=1))) / 2 for step in (1, gap))
        ratios.append(far / near if near > 0 else 1.0)
    return [recorded.compared("median over all recorded features", LEAST_CONTRAST, float(np.median(ratios)), ratios=np.asarray(ratios))]


def _square_of_the_defect(factor: float):
    def bound(instance: Instance):
        return factor * _defect(instance) ** 2 / (instance["frames"].shape[0] - 2)

    return bound


CLAIM = Claim(
    id="C1.flicker",
    title="A clip may flicker and have no temporal loss; the mean similarity bounds the loss, and not the other way",
    statement=(
        "For every v in [-1, 1] there are N frames in any dimension d >= 2 whose neighbours have the mean similarity "
        "v and whose temporal loss is 0, "
        "two pictures in turn among them. The other way the loss is at most E(S) / (N - 2), S = (N - 1)(1 - V), V the "
        "mean: the sum for bad pairs that "
        "alternate with good ones; it is attained at every N and V."
    ),
    latex=(
        r"L(F) \le \frac{E_{N-1}(S)}{N-2},\quad S=(N-1)(1-V),\quad E=8k+2f^2\ \text{for}\ S=2k+f\le 2\lfloor (N-2)/2\rfloor;"
        r"\qquad \forall v\ \exists F:\ V(F)=v,\ L(F)=0"
    ),
    hypotheses=(
        Hypothesis("H1", "There are N >= 3 frames."),
        Hypothesis("H2", "No frame is zero."),
    ),
    verdict=Verdict.PROVED,
    tightness=Tightness.ATTAINED,
    origin="not in the paper; it says what the loss does not ask for",
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    measured_in_words="temporal loss (dimensionless, between 0 and 4)",
    bound_in_words=(
        "the largest temporal loss that any frames with the same mean similarity of neighbours have (dimensionless)"
    ),
    sharpness="attained at every N and every mean similarity, in dimension d >= 2",
    definitional={
        "H1": "with fewer than three frames the loss is an empty mean, 0/0, and has no value",
        "H2": "a zero frame has no similarity",
    },
    planted={
        "the square without its factor 2 (a bad pair at an end for one inside)": Plant(
            _square_of_the_defect(1.0), lambda num_frames, **_: num_frames > 3, "three frames have no pair inside, and S^2 is right there up to S = 2"
        ),
        "half the square": _square_of_the_defect(0.5),
        "bad pairs side by side": lambda instance: 2 * 2.0 * _defect(instance) / (instance["frames"].shape[0] - 2) / 4,
        "the variance of the similarities for the sum over neighbours": lambda instance: jnp.var(similarities(instance["frames"])),
        "divisor N - 1 for N - 2": lambda instance: (
            _bound(instance) * (instance["frames"].shape[0] - 2) / (instance["frames"].shape[0] - 1)
        ),
    },
    reality=(
        Comparison(
            question=(
                "Is the temporal loss at the UNet's features at most the largest that their mean similarity allows?"
            ),
            origin=Origin.NETWORK,
            tells=Tells.IMPLIED,
            compare=_reality,
            because="C1.flicker, which asks nothing but frames that are not zero",
        ),
        Comparison(
            question=(
                "Are frames three apart farther from each other than neighbours, in 1 - cosine, by a factor of 1.25 in the median over the UNet's "
                "features, so that their small loss is steadiness and not flicker?"
            ),
            origin=Origin.NETWORK,
            tells=Tells.TEST,
            compare=_no_flicker,
        ),
    ),
    lemmas=("a convex function on a polytope is largest at a vertex",),
    floor=0.999,
    floor_reason="attained at the boundary of the square of similarities, which the search's sine reaches",
)
