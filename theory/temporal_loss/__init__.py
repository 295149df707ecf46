"""C1: the temporal consistency loss, its derivatives and their sharp constants."""

from theory.temporal_loss.bounds import FeatureBounds, feature_bounds
from theory.temporal_loss.certificate import certify_curvature
from theory.temporal_loss.companion import degenerate_similarities, similarity_warning
from theory.temporal_loss.flicker import flickering_frames, largest_loss
from theory.temporal_loss.gradient import LargestGradient, gradient_constant, largest_gradient
from theory.temporal_loss.hessian import hessian_constant
from theory.temporal_loss.lipschitz import lipschitz_constant
from theory.temporal_loss.loss import pixelwise_similarities, similarities, temporal_loss
from theory.temporal_loss.pixel_certificate import PixelCertificates, certify_pixels
from theory.temporal_loss.pixelwise import dead_pixels
from theory.temporal_loss.regularised import regularised_constant, regularised_lower_constant
from theory.temporal_loss.steadiness import largest_drift
from theory.temporal_loss.upper_curvature import upper_curvature_constant

__all__ = [
    "FeatureBounds",
    "LargestGradient",
    "PixelCertificates",
    "certify_curvature",
    "certify_pixels",
    "dead_pixels",
    "degenerate_similarities",
    "feature_bounds",
    "flickering_frames",
    "gradient_constant",
    "hessian_constant",
    "largest_drift",
    "largest_gradient",
    "largest_loss",
    "lipschitz_constant",
    "pixelwise_similarities",
    "regularised_constant",
    "regularised_lower_constant",
    "similarities",
    "similarity_warning",
    "temporal_loss",
    "upper_curvature_constant",
]
