"""C5: shared and frame-specific tokens in cross-attention: what they can reach, at which error, and how smoothly."""

from theory.tokens.alignment import alignment_error
from theory.tokens.attention import attend

__all__ = ["alignment_error", "attend"]
