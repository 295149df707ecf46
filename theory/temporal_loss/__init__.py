"""C1: the temporal consistency loss, its derivatives and their sharp constants."""

from theory.temporal_loss.gradient import gradient_constant
from theory.temporal_loss.hessian import hessian_constant
from theory.temporal_loss.lipschitz import lipschitz_constant
from theory.temporal_loss.loss import pixelwise_similarities, similarities, temporal_loss

__all__ = ["gradient_constant", "hessian_constant", "lipschitz_constant", "pixelwise_similarities", "similarities", "temporal_loss"]
