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
        title=(
            "The temporal consistency loss is differentiable under bounded feature norms, and its gradient is "
            "Lipschitz"
        ),
        known_from=(
            "abstract; the loss and the hypothesis of Theorem 4.1 from a public review; public summaries name Lemma "
            "4.2 (the cosine is "
            "differentiable) and Lemma 4.3 (its gradient is Lipschitz); the paper's constant is not known to us"
        ),
        readings=(
            Reading(
                "with norms bounded below",
                "The gradient is Lipschitz on frames whose norms are at least m > 0.",
                Decision.REPAIRED,
                "with C_N / m^2, for every N >= 3 and every dimension; for d >= 2 no smaller constant will do",
                ("C1.lipschitz", "C1.hessian", "C1.upper-curvature", "C1.gradient"),
            ),
            Reading(
                "per pixel with every channel vector bounded below",
                "The same for the cosine over the channels of each of P pixels, averaged.",
                Decision.REPAIRED,
                "with C_N / (P m^2), m the least norm of a channel vector",
                ("C1.pixelwise", "C1.pixelwise-gradient", "C1.lipschitz"),
            ),
            Reading(
                "with a regularised cosine",
                "With sqrt((|F|^2 + eps^2)(|G|^2 + eps^2)) in the denominator the gradient is Lipschitz for all "
                "frames.",
                Decision.REPAIRED,
                "with Q_N / eps^2, Q_N = 8, 6, 16/(N-2) for N = 3, 4, >= 5; 8 cannot be lowered, nor 16 for all N",
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
                "The gradient is Lipschitz on frames whose norms are at most M, as the public review quotes the "
                "hypothesis.",
                Decision.FALSE,
                "in every dimension d >= 2: the quotient is 1/((N-2) r^2) for a frame of norm r, above every "
                "constant; on a line it is true",
                ("C1.stated",),
            ),
        ),
    ),
    "C2": PaperClaim(
        title=(
            "Gradient descent on it decreases it monotonically and converges to a local minimum for a suitable "
            "learning rate"
        ),
        known_from="abstract only; we read the range of the learning rate as 0 < eta < 2 / L",
        readings=(
            Reading(
                "as monotone on features",
                "On features, every step below a threshold lowers the loss or leaves it.",
                Decision.REPAIRED,
                "from every start of norms >= m if and only if eta <= 2 m^2 / C+_N (dimension d >= 2)",
                ("C2.descent", "C2.threshold", "C2.one-step"),
            ),
            Reading(
                "below the first saddle value",
                "From a loss below the least nonzero critical value descent on features reaches a minimum.",
                Decision.TRUE,
                "from L < 4/(N-2)^2 to L = 0, for every eta < 2 m^2 / C_N, at the explicit rate of C2.stated",
                ("C2.landscape", "C2.descent", "C2.stated"),
            ),
            Reading(
                "from almost every start",
                "From almost every start descent on features reaches a minimum, and that minimum is global.",
                Decision.REPAIRED,
                "for eta < m^2 / C_N, in dimension d >= 2",
                ("C2.landscape", "C2.descent"),
            ),
            Reading(
                "from every start",
                "From every start descent converges to a local minimum.",
                Decision.FALSE,
                "it can tend to a saddle or stay in the maximum L = 4 (dimension d >= 2)",
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
                "for every eta > 0 some start with B = 0, LoRA's standard, raises the loss",
                ("C2.lora", "C2.adapter"),
            ),
        ),
    ),
    "C3": PaperClaim(
        title="The DDIM inversion error of the adapter modules remains controlled",
        known_from=(
            "abstract only, and a survey that paraphrases it as an error that is bounded; no bound is known to us"
        ),
        readings=(
            Reading(
                "as bounded",
                "For UNets as they are built, with any adapter on their attention and any prompt, the error stays below a number that no training of the "
                "adapter changes.",
                Decision.TRUE,
                "2 G (sigma_N - sigma_0), G from the weights of the last normalisation and convolution; (w + |w - 1|) G under guidance w",
                ("C3.bounded",),
            ),
            Reading(
                "as first order in the step",
                "The round-trip error is at most a constant times the largest step, with an exponential in the "
                "Lipschitz constant.",
                Decision.TRUE,
                "sum_k |d_k| prod_{j<k} (1 + h_j L_{j+1}), and no smaller combination of these numbers",
                ("C3.round-trip", "C3.any-inversion", "C3.adapter"),
            ),
            Reading(
                "for the released tools' procedure, part by part",
                "With a fine unguided inversion and a guided sampling that has the adapter on for some timesteps, the error is bounded by what ladder, "
                "guidance and adapter change, each on the inversion's states.",
                Decision.TRUE,
                "the sum of the three parts, grown by the guided steps; only the ladder's part vanishes with the steps",
                ("C3.practice", "C3.guidance"),
            ),
            Reading(
                "as small for log-concave data",
                "With the exact score of log-concave data the round trip errs by no more than its steps commit "
                "together.",
                Decision.REPAIRED,
                "sum_k |d_k|",
                ("C3.log-concave",),
            ),
            Reading(
                "as small for exact scores of any data",
                "With the exact score of any data one constant times the range of levels and the steps' worst rate bounds the error.",
                Decision.FALSE,
                "two clusters of width s at distance 2 need a constant of at least 14 s^3 exp(1 / (2 s^2) - 8) under diffusers' convention, s <= 1/5",
                ("C3.clusters",),
            ),
            Reading(
                "as small for any predictor",
                "One constant times the sum of the one-step defects bounds the round-trip error of every predictor.",
                Decision.FALSE,
                "the ratio is at least ((1 + h L)^N - 1) / (N h L), which tends to (exp(L sigma_max) - 1) / (L sigma_max)",
                ("C3.stated",),
            ),
        ),
    ),
    "C4": PaperClaim(
        title="This holds with bilateral filtering across frames",
        known_from=(
            "one public summary of the extended part; the public code of the companion system filters attn1 outputs along the batch axis, with "
            "a kernel of 5 and sigma_spatial = sigma_range = 1, during the inversion alone"
        ),
        readings=(
            Reading(
                "as first order with the filter both ways",
                "With the same filter inside the predictor in inversion and sampling the round-trip error is at most a constant times the step.",
                Decision.TRUE,
                "sum_k |d_k| prod_{j<k} (1 + h_j (r + 2.0249284 p q)): the filter enters by its Lipschitz constant, the best one",
                ("C4.both-ways", "C4.lipschitz"),
            ),
            Reading(
                "as bounded with the filter in the inversion alone",
                "With the filter in the inversion alone, as the public code runs it, the round-trip error is bounded.",
                Decision.TRUE,
                "each defect grows by h P K sigma_range, K = 0.5061296, which no finer step removes; the bound is attained",
                ("C4.inversion-alone", "C4.defect"),
            ),
            Reading(
                "as a bounded change of the result",
                "Filtering inside the predictor changes the sampled frames by a bounded amount, whatever the clip and the number of steps.",
                Decision.TRUE,
                "P K sigma_range (exp(Lambda sigma_max) - 1) / Lambda, Lambda of the unfiltered predictor",
                ("C4.predictor", "C4.defect"),
            ),
            Reading(
                "as bounded with the filter on the latent",
                "With the filter applied to the latent after every step the result changes by a bounded amount, for a given number of steps.",
                Decision.TRUE,
                "K sigma_range sum_k sqrt(1 + sigma_k^2) prod_{j<k} (1 + h_j Lambda): attained, so the effect can grow with the number of steps",
                ("C4.latent",),
            ),
            Reading(
                "as non-expansive on calm clips",
                "On clips whose values stay within sigma_range in every window, the filter moves no two clips apart, in the maximum norm.",
                Decision.REPAIRED,
                "constant 1; with the monotone filter instead, for every clip and in every l_p norm",
                ("C4.stated", "C4.monotone"),
            ),
            Reading(
                "as non-expansive",
                "The filter moves no two clips apart.",
                Decision.FALSE,
                "(-sqrt 3, 0, sqrt 3) and (-3, 0, 3) in units of sigma_range: 1.2608 in every l_p norm",
                ("C4.stated", "C4.lipschitz", "C4.euclidean"),
            ),
            Reading(
                "as smoothing",
                "The filter never increases the total variation along the frames.",
                Decision.FALSE,
                "(0, 0, 4.7, 1) in units of sigma_range: 1.0157",
                ("C4.smoothing",),
            ),
            Reading(
                "as lowering the energy",
                "The filter never increases the energy of the differences of neighbouring frames.",
                Decision.FALSE,
                "(0, 0.7, 4, 4.7) in units of sigma_range: 1.1582",
                ("C4.energy",),
            ),
            Reading(
                "along the batch axis",
                "Filtering along the batch axis is filtering along the clip, up to a bounded difference where batches end or guidance joins two.",
                Decision.TRUE,
                "0.5407874 sigma_range at the two frames on either side of a cut, attained; two frames of overlap mend it",
                ("C4.chunks",),
            ),
        ),
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
