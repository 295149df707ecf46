"""C1: the temporal consistency loss, its derivatives and their sharp constants."""

from theory.temporal_loss.hessian import hessian_constant
from theory.temporal_loss.loss import pixelwise_similarities, similarities, temporal_loss

__all__ = ["hessian_constant", "pixelwise_similarities", "similarities", "temporal_loss"]
