"""The paper's claims, reading by reading.

Nobody here has the paper's full text, so a claim is not decided as a sentence that nobody has seen, but in each of its plausible
readings, from the weakest to the strongest. Each reading is decided by named theorems.
"""

import dataclasses
import enum
from collections.abc import Mapping


class Decision(enum.StrEnum):
    """What is decided about one reading."""

    TRUE = "true"
    REPAIRED = "true after repair"  # with a hypothesis that the reading's own words do not have
    FALSE = "false"
    OPEN = "open"


@dataclasses.dataclass(frozen=True)
class Reading:
    """One plausible reading of a claim of the paper.

    Attributes:
        name: a short name, which follows the decision in a headline: "as bounded".
        text: the reading in full.
        decision: what the theorems decide.
        constant: with which constant, or the counterexample; in words and symbols.
        decided_by: ids of the claims that decide it, the deciding one first.
    """

    name: str
    text: str
    decision: Decision
    constant: str
    decided_by: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class PaperClaim:
    """One claim of the paper.

    Attributes:
        title: in our words.
        known_from: where its wording is known from.
        readings: from the weakest to the strongest.
    """

    title: str
    known_from: str
    readings: tuple[Reading, ...]

    def headline(self) -> str:
        """Which readings are true, true after repair, and false, in a line.

        Example: "true as bounded; false as small"
        """
        return headline(self.readings)


def headline(readings: tuple[Reading, ...]) -> str:
    """The readings grouped by their decision, in the order true, true after repair, false, open; "open" where there is none."""
    parts = []
    for decision in Decision:
        names = [reading.name for reading in readings if reading.decision is decision]
        if names:
            parts.append(f"{decision} {', '.join(names)}")
    return "; ".join(parts) or str(Decision.OPEN)


PAPER: Mapping[str, PaperClaim] = {
    "C1": PaperClaim(
        title="The temporal consistency loss is differentiable under bounded feature norms, and its gradient is Lipschitz",
        known_from=(
            "abstract; the loss and the hypothesis of Theorem 4.1 from a public review; public summaries name Lemma 4.2 (the cosine is "
            "differentiable) and Lemma 4.3 (its gradient is Lipschitz); the paper's constant is not known to us"
        ),
        readings=(
            Reading(
                "with norms bounded below",
                "The gradient is Lipschitz on frames whose norms are at least m > 0.",
                Decision.REPAIRED,
                "the sharp constant is C_N / m^2, for every N >= 3 and every dimension",
                ("C1.lipschitz", "C1.hessian", "C1.upper-curvature"),
            ),
            Reading(
                "per pixel with every channel vector bounded below",
                "The same for the cosine over the channels of each of P pixels, averaged.",
                Decision.REPAIRED,
                "C_N / (P m^2), m the least norm of a channel vector",
                ("C1.pixelwise",),
            ),
            Reading(
                "with a regularised cosine",
                "With sqrt((|F|^2 + eps^2)(|G|^2 + eps^2)) in the denominator the gradient is Lipschitz for all frames.",
                Decision.REPAIRED,
                "Q_N / eps^2",
                ("C1.regularised",),
            ),
            Reading(
                "with a clamped cosine",
                "With norms replaced by max(|F|, eps), as frameworks do, the gradient is Lipschitz for all frames.",
                Decision.FALSE,
                "the gradient jumps at |F| = eps",
                ("C1.clamped",),
            ),
            Reading(
                "with norms bounded above alone",
                "The gradient is Lipschitz on frames whose norms are at most M, as the public review quotes the hypothesis.",
                Decision.FALSE,
                "the quotient is 1/((N-2) r^2) for a frame of norm r, above every constant",
                ("C1.stated",),
            ),
        ),
    ),
    "C2": PaperClaim(
        title="Gradient descent on it decreases it monotonically and converges to a local minimum for a suitable learning rate",
        known_from="abstract only; we read the range of the learning rate as 0 < eta < 2 / L",
        readings=(
            Reading(
                "as monotone on features",
                "On features, every step below a threshold lowers the loss or leaves it.",
                Decision.REPAIRED,
                "if and only if eta <= 2 m^2 / C+_N, m the least norm at the start",
                ("C2.descent", "C2.threshold", "C2.one-step"),
            ),
            Reading(
                "below the first saddle value",
                "From a loss below the least nonzero critical value descent on features reaches a minimum.",
                Decision.TRUE,
                "from L < 4/(N-2)^2 to L = 0, for every eta < 2 m^2 / C_N",
                ("C2.landscape", "C2.descent"),
            ),
            Reading(
                "from almost every start",
                "From almost every start descent on features reaches a minimum, and that minimum is global.",
                Decision.REPAIRED,
                "for eta < m^2 / C_N",
                ("C2.stated", "C2.landscape"),
            ),
            Reading(
                "from every start",
                "From every start descent converges to a local minimum.",
                Decision.FALSE,
                "it can end in a saddle or stay in the maximum L = 4",
                ("C2.stated",),
            ),
            Reading(
                "for adapters with a rate that knows where they are",
                "On an adapter's parameters, descent is monotone while the parameters stay in a ball.",
                Decision.REPAIRED,
                "eta <= 1 / ((C_N/m^2) J^2 + (G_N/m) H) with J, H, m of that ball",
                ("C2.adapter",),
            ),
            Reading(
                "for adapters with one rate",
                "On an adapter's parameters one learning rate serves every start.",
                Decision.FALSE,
                "LoRA from the standard initialisation raises the loss for every eta > 0",
                ("C2.lora",),
            ),
        ),
    ),
    "C3": PaperClaim(
        title="The DDIM inversion error of the adapter modules remains controlled",
        known_from="abstract only, and a survey that paraphrases it as an error that is bounded; no bound is known to us",
        readings=(
            Reading(
                "as first order in the step",
                "The round-trip error is at most a constant times the largest step, with an exponential in the Lipschitz constant.",
                Decision.TRUE,
                "sum_k |d_k| prod_{j<k} (1 + h_j L_{j+1}), and no smaller combination of these numbers",
                ("C3.round-trip", "C3.adapter"),
            ),
            Reading(
                "as small for log-concave data",
                "With the exact score of log-concave data the round trip errs by no more than its steps commit together.",
                Decision.REPAIRED,
                "sum_k |d_k|",
                ("C3.log-concave",),
            ),
            Reading(
                "as small for any predictor",
                "One constant times the sum of the one-step defects bounds the round-trip error of every predictor.",
                Decision.FALSE,
                "the ratio tends to (exp(L sigma_max) - 1) / (L sigma_max)",
                ("C3.stated",),
            ),
        ),
    ),
    "C4": PaperClaim(
        title="This holds with bilateral filtering across frames",
        known_from="one public summary of the extended part",
        readings=(),
    ),
    "C5": PaperClaim(
        title="Shared and frame-specific prompt tokens give near-perfect alignment",
        known_from="one public summary of the extended part, where the tokens are called shared and unshared",
        readings=(
            Reading(
                "for one query with unbounded logits",
                "One query is aligned to any target in the convex hull of the tokens' values, to within any error.",
                Decision.TRUE,
                "a logit range of log((n-1) R / e) suffices for an error of e, R the diameter of the n values",
                ("C5.hull", "C5.alignment"),
            ),
            Reading(
                "for distinct queries with a token each",
                "p pairwise distinct queries are aligned exactly by p tokens whose keys and values are free.",
                Decision.TRUE,
                "V = P^-1 T with det P > 0 in closed form; r + 1 tokens suffice for independent queries whose targets have affine rank r",
                ("C5.distinct", "C5.rank"),
            ),
            Reading(
                "as smooth in time",
                "Where the frame-specific tokens change little from a frame to the next, so do the outputs.",
                Decision.TRUE,
                "m b + c(m) R_v |q| a / sqrt(d) for changes a of the keys and b of the values and an attention mass m; c(m) <= 1/2",
                ("C5.temporal", "C5.separation", "C5.sensitivity"),
            ),
            Reading(
                "with one frame-specific token per frame",
                "A frame's own token aligns one query of that frame exactly, whatever the shared tokens are.",
                Decision.REPAIRED,
                "if its value overshoots the target by n e^-G times the distance of the target from the mean of the n others; a value at the "
                "target leaves (n e^-G)/(1 + n e^-G) times their distance from it",
                ("C5.frame-token",),
            ),
            Reading(
                "with frame tokens linear in features",
                "Frame tokens that are one linear map of the frames' features take any values.",
                Decision.REPAIRED,
                "up to the residual of the regression of the wanted values on features and constant, which is 0 where the features are affinely "
                "independent",
                ("C5.linear",),
            ),
            Reading(
                "with bounded keys",
                "With keys of bounded norm, enough tokens align one query to within any error.",
                Decision.FALSE,
                "the error of a value away from the others is at least phi(n) times its distance from their hull, phi(n) growing to 1",
                ("C5.bounded-keys",),
            ),
            Reading(
                "with shared tokens alone",
                "Tokens that all frames share align every frame, whatever the frames' targets.",
                Decision.FALSE,
                "where the frames' queries agree the worst frame errs by the Chebyshev radius of its targets, at least half their diameter",
                ("C5.shared", "C5.chebyshev", "C5.separation"),
            ),
        ),
    ),
}
"""What the paper (arXiv 2504.16016) claims, in our words; paper_notes.md says how sure we are of its own wording."""
