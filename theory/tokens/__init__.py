"""C5: shared and frame-specific tokens in cross-attention: what they can reach, at which error, and how smoothly."""

from theory.tokens.alignment import alignment_error
from theory.tokens.attention import attend
from theory.tokens.chebyshev import chebyshev_radius
from theory.tokens.distinct import tokens_for_distinct_queries
from theory.tokens.frame_token import overshoot_error
from theory.tokens.hull import sufficient_logit_range, vertex_error_bounds
from theory.tokens.linear import linear_residual
from theory.tokens.rank import rank_error, tokens_for_independent_queries
from theory.tokens.sensitivity import Sensitivity, attention_sensitivity
from theory.tokens.separation import separation_bound
from theory.tokens.temporal import temporal_bound

__all__ = [
    "Sensitivity",
    "alignment_error",
    "attend",
    "attention_sensitivity",
    "chebyshev_radius",
    "linear_residual",
    "overshoot_error",
    "rank_error",
    "separation_bound",
    "sufficient_logit_range",
    "temporal_bound",
    "tokens_for_distinct_queries",
    "tokens_for_independent_queries",
    "vertex_error_bounds",
]
