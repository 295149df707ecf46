"""Which theorems of the .v files stand behind which claim, what they cover and what is left to the proof on paper."""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class FormalProof:
    """The machine-checked part of a claim.

    Attributes:
        file: the Coq file, beside this one.
        theorems: names of theorems in that file, or FILE.name for one of another file.
        covers: what the theorems say, and what of the claim they leave out.
        integers: whether their proofs also rest on Coq's 63-bit machine integers (interval arithmetic).
    """

    file: str
    theorems: tuple[str, ...]
    covers: str
    integers: bool = False

    def qualified(self) -> list[tuple[str, str]]:
        """(file without .v, name) of every theorem."""
        own = self.file.removesuffix(".v")
        return [(name.split(".")[0], name.split(".")[1]) if "." in name else (own, name) for name in self.theorems]

    @property
    def level(self) -> str:
        """One line for tables: where the proof is, and its theorems."""
        return f"machine-checked: theory/formal/{self.file}, {', '.join(self.theorems)}"


FORMAL: Mapping[str, FormalProof] = {
    "C1.stated": FormalProof(
        "BoundedNorms.v",
        ("no_lipschitz_constant", "shrinking_quotient", "no_limit_at_zero", "TemporalLoss.gradient_is_gradient"),
        "All of it: for every N >= 3, M > 0 and K two sets of frames of norm at most M break K, with the exact "
        "difference quotient, in every space of dimension 2 or more; and the loss (1 - cos a)^2 along the rays to a "
        "zero frame.",
    ),
    "C1.companion": FormalProof(
        "Companion.v",
        ("similarity_is_sign", "similarity_is_flat"),
        "That a cosine of two numbers other than 0 is 1 or -1 and has derivative 0 in every direction. Not covered: "
        "the companion's reshaping of its features, and the sum that the claim takes over them.",
    ),
    "C1.flicker": FormalProof(
        "Flicker.v",
        (
            "constant_similarity",
            "flicker_loss",
            "every_mean_without_loss",
            "consistent_clip",
            "consistent_clip_three",
            "consistent_clip_sharp",
        ),
        "Loss 0 for constant similarities and for A, B, A, B, ..; for every v in [-1, 1] a clip of mean cosine v "
        "and loss 0; and, with S = (N-1)(1 - mean cosine), L <= 2 S^2/(N-2), attained for N >= 4 and S <= 2, and "
        "L <= S^2 for N = 3. Not covered: the largest loss for S > 2.",
    ),
    "C1.gradient": FormalProof(
        "Polyak.v",
        ("gradient_bound", "gradient_bound_three", "gradient_between", "dirichlet_upper"),
        "The bound G_N / m for every N >= 4, and 2 sqrt 6 / m for three frames. Not covered: the frames that "
        "attain it for N = 3.",
    ),
    "C1.hessian": FormalProof(
        "Hessian.v",
        (
            "hessian_bound",
            "hessian_sharp",
            "orthonormal_exists",
            "TemporalLoss.loss_second_derivative",
            "Triple.key_lemma",
            "Constants.hessian_constant_enclosed",
        ),
        "The key lemma, its sum to C_N, the frames that attain it, and that the form is the second derivative of "
        "the loss along every line: the supremum of |x^T H x| over unit x and frames of norm at least m is C_N / "
        "m^2, in every space of dimension 2 or more. Not covered: that this supremum is the operator norm of the "
        "symmetric H.",
    ),
    "C1.steadiness": FormalProof(
        "Steadiness.v",
        ("steadiness", "steadiness_sharp"),
        "The inequality for all pairs of similarities, and that similarities on a ramp attain it between their ends.",
    ),
    "C1.upper-curvature": FormalProof(
        "UpperCurvature.v",
        (
            "upper_curvature",
            "weighted_triple",
            "steepest_hessian",
            "upper_curvature_three",
            "upper_curvature_four",
            "CurvatureCertificate.upper_curvature_enclosed",
        ),
        "The bound from any positive vector whose triples are balanced, and the frames that reach 2/(N-2) |D_2 "
        "z|^2 for every z: together the sharp C+_3 = 12 and C+_4 = 10, and an enclosure of the largest curvature "
        "for any N whose computed eigenvector is given, made for ten drawn N by the tests. Not covered: that the "
        "eigenvector's triples are balanced for every N.",
    ),
    "C2.stated": FormalProof(
        "Landscape.v",
        ("stays_at_maximum",),
        "The first counterexample: (e, e, -e) is a critical point and the global maximum. Not covered: the saddle "
        "and its stable manifold, the repair.",
    ),
    "C2.descent": FormalProof(
        "FeatureDescent.v",
        (
            "tangential_step",
            "norms_grow",
            "descent_for_ever",
            "descent_monotone",
            "gradients_summable",
            "feature_descent",
            "feature_descent_balanced",
            "feature_descent_three",
            "feature_descent_four",
        ),
        "Tangential steps, norms that never fall, and the decrease of every step for ever with any bound on the "
        "curvature: with C_N for every N, with the sharp C+_N for N = 3 and 4, and with what C1.upper-curvature "
        "gives for other N. Not covered: C+_N for every N at once, that it cannot be lowered (N = 3: "
        "C2.threshold), convergence of the iterates.",
    ),
    "C2.landscape": FormalProof(
        "Landscape.v",
        (
            "least_critical_value",
            "least_critical_value_attained",
            "descent_direction",
            "no_other_minimum",
            "critical_weights",
        ),
        "For every N: the least nonzero critical value 4/(N-2)^2 and that it is attained; the direction of "
        "curvature at most -8 L / sum |F_t|^2 wherever some direction is normal to all frames. Not covered: the "
        "list of the other critical values, critical points whose frames fill the space, that 8 is the best "
        "constant.",
    ),
    "C2.one-step": FormalProof(
        "OneStep.v",
        ("one_step", "one_step_attained", "one_step_sharp", "threshold"),
        "The inequality, that no smaller factor will do for any eta, and the threshold 2/L, for functions on any "
        "inner-product space whose gradient is Lipschitz along the step.",
    ),
    "C2.pl": FormalProof(
        "Polyak.v",
        ("polyak_lojasiewicz", "dirichlet_lower", "gradient_between"),
        "The inequality for every N. Not covered: the frames that attain it for N = 3, and the rates of descent "
        "that follow.",
    ),
    "C2.threshold": FormalProof(
        "Threshold.v",
        ("long_step_three", "factor_sharp", "limit_exact", "FeatureDescent.long_step"),
        "All of it for N = 3, where the limit is m^2/6; for N >= 4 the inequality, with any bound on the "
        "curvature in place of C+_N / m^2.",
    ),
    "C3.stated": FormalProof(
        "Controlled.v",
        ("refuted_S", "refuted_T", "exponential_growth"),
        "No constant serves all predictors and levels, under convention S and under convention T: one explicit "
        "predictor each, linear in the state, refutes every constant. Not covered: the repair (C3.log-concave).",
    ),
    "C3.adapter": FormalProof(
        "RoundTrip.v",
        ("adapter_defects", "round_trip"),
        "That an adapter absent from the inversion adds h_k times its prediction on the inversion's states to "
        "each defect, so that the round-trip bound applies. Not covered: the instance that attains it.",
    ),
    "C3.any-inversion": FormalProof(
        "RoundTrip.v",
        ("error_recursion", "any_inversion_gap", "any_inversion", "round_trip_attained"),
        "The exact recursion and the bound, for any states and any predictor, and the affine predictors that attain "
        "it from w_N = z_N. Not covered: attainment with a start error, and what the defects of a finer ladder are.",
    ),
    "C3.bijective": FormalProof(
        "Bijective.v",
        ("step_keeps_apart", "step_keeps_apart_sharp"),
        "The inequality ||F(y) - F(y')|| >= rho ||y - y'|| from << e(y) - e(y'), y - y' >> <= |y - y'|^2 / "
        "sigma_t, and equality for data that are one point. Not covered: that exact scores have this property, "
        "and that F is onto.",
    ),
    "C3.bounded": FormalProof(
        "Bounded.v",
        ("bounded", "bounded_then_growth", "bounded_attained"),
        "Both bounds, and predictions of norm G that attain the first. Not covered: the bound G of a network's "
        "last layers.",
    ),
    "C3.convention": FormalProof(
        "Convention.v",
        ("inverse_step", "evaluation_point", "noise_level_scale"),
        "That the scheduler's step is one Euler step in y, and at which state the network is evaluated. Not "
        "covered: the closed form on Gaussian data.",
    ),
    "C3.fixed-point": FormalProof(
        "FixedPoint.v",
        ("fixed_point_bound", "stopped_defect", "stopped_defect_bound", "fixed_point_attained"),
        "The bound, the defect of a stopped step, and equality for e(y) = L y at every iteration, with a constant that "
        "holds on any set that holds the iterates and the fixed point.",
    ),
    "C3.guidance": FormalProof(
        "Guidance.v",
        ("guidance",),
        "The bound. Not covered: the predictors that attain it, and the exact guided flow of Gaussian data.",
    ),
    "C3.log-concave": FormalProof(
        "LogConcave.v",
        ("step_contracts", "no_exponential", "log_concave_factor", "symmetric_norm"),
        "Affine predictors with a symmetric matrix, as of Gaussian data: steps contract by rho_k and the bound "
        "has no exponential. Not covered: that the exact score of log-concave data has such Jacobians, and "
        "predictors that are not affine.",
    ),
    "C3.round-trip": FormalProof(
        "RoundTrip.v",
        ("round_trip", "round_trip_uniform", "round_trip_attained"),
        "Both inequalities, and the affine predictors that attain the first. Not covered: what a step commits "
        "under convention T.",
    ),
    "C4.stated": FormalProof(
        "FilterCounterexamples.v",
        ("expansion_three", "symmetric_output", "two_frames", "expansion_two"),
        "The three frames that are driven apart by a factor between 1.26080 and 1.26082, and two frames by one "
        "between 1.2939 and 1.2941. Not covered: the repair.",
        integers=True,
    ),
    "C4.defect": FormalProof(
        "Bilateral.v",
        ("defect", "defect_attained", "maximum_principle", "translation", "scaling"),
        "The bound s/sqrt(1+s) sigma for every window, padding and positive spatial weights, s the root of s "
        "e^(s/2) = G e^(-1/2), and the clips that attain it.",
    ),
    "C4.energy": FormalProof(
        "FilterCounterexamples.v",
        ("energy_grows",),
        "The clip whose energy of differences grows by a factor between 1.15827 and 1.15829. Not covered: the repair.",
        integers=True,
    ),
    "C4.inversion-alone": FormalProof(
        "FilteredEditing.v",
        ("filter_in_inversion", "Bilateral.defect"),
        "The bound, in the maximum norm, for every window, padding and positive spatial weights. Not covered: its "
        "limit for fine steps, and what attains it.",
    ),
    "C4.latent": FormalProof(
        "FilteredEditing.v",
        ("filter_on_latent", "Bilateral.defect"),
        "The bound, in the maximum norm, for every window, padding and positive spatial weights. Not covered: "
        "what attains it.",
    ),
    "C4.lipschitz": FormalProof(
        "Bilateral.v",
        ("lipschitz_width", "maximum_principle", "keeps_constants", "translation", "scaling"),
        "That the constant does not depend on sigma_range, and the invariances. Not covered: its value.",
    ),
    "C4.predictor": FormalProof(
        "FilteredEditing.v",
        ("filter_inside", "Bilateral.defect"),
        "The bound by steps, in the maximum norm, for every window, padding and positive spatial weights. Not "
        "covered: its second form with an exponential, and what attains it.",
    ),
    "C4.smoothing": FormalProof(
        "FilterCounterexamples.v",
        ("variation_grows",),
        "The clip whose total variation grows by a factor between 1.01576 and 1.01578. Not covered: the repair "
        "for monotone clips.",
        integers=True,
    ),
    "C5.bounded-keys": FormalProof(
        "Tokens.v",
        ("bounded_keys", "vertex_lower", "hull_upper"),
        "The refutation: with the other values coinciding, every tolerance below 1 is missed once (n-1) e^-G is "
        "large enough; and the bound behind the repair.",
    ),
    "C5.chebyshev": FormalProof(
        "Tokens.v",
        ("chebyshev",),
        "The lower bound for all weights of the simplex. Not covered: that the largest of them is the Chebyshev "
        "radius.",
    ),
    "C5.frame-token": FormalProof(
        "Tokens.v",
        ("frame_token",),
        "The lower bound. Not covered: the instance that attains it.",
    ),
    "C5.hull": FormalProof(
        "Tokens.v",
        ("hull_upper", "vertex_lower", "softmax_reachable", "reachable_softmax"),
        "That the weights of a query with logits of range at most G are those with p_j <= e^G p_l; every target "
        "of the hull is reached up to phi times its largest distance from a value, and a value is missed by at "
        "least phi times its distance from the hull of the others.",
    ),
    "C5.shared": FormalProof(
        "Tokens.v",
        ("shared_output",),
        "The refutation: one output misses one of two targets by half their distance. Not covered: Jung's "
        "theorem, the repair.",
    ),
}
"""Claim id -> its machine-checked part. Claims that are not listed have none."""

WHOLE = frozenset({"C1.stated", "C1.steadiness", "C2.one-step", "C3.fixed-point", "C4.defect"})
"""Claims all of whose statement the machine-checked theorems cover; of the others `covers` says which part."""
