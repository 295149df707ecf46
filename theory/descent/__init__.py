"""C2: gradient descent on the temporal loss, its step sizes, its limits and its landscape."""

from theory.descent.adapter import DerivativeBounds, adapter_curvature_bound, lora_derivative_bounds
from theory.descent.any_step import norm_bound, total_ascent_bound
from theory.descent.feature_descent import Descent, descend, exact_step_limit, feature_step_limit
from theory.descent.gauss_newton import GaussNewton, gauss_newton_model, gauss_newton_sharpness
from theory.descent.landscape import critical_values, least_critical_value
from theory.descent.local_minimum import loss_bound
from theory.descent.lora import SafeBall, safe_ball
from theory.descent.mean_similarity import falling_frames, mean_cannot_fall
from theory.descent.one_step import worst_change
from theory.descent.polyak import gradient_dominance, linear_loss_bound
from theory.descent.remainder import gauss_newton_remainder
from theory.descent.segment import StepCertificate, certify_step
from theory.descent.steps import MonotoneStep, Step, Warrant, check_learning_rate

__all__ = [
    "DerivativeBounds",
    "Descent",
    "GaussNewton",
    "MonotoneStep",
    "SafeBall",
    "Step",
    "StepCertificate",
    "Warrant",
    "adapter_curvature_bound",
    "certify_step",
    "check_learning_rate",
    "critical_values",
    "descend",
    "exact_step_limit",
    "falling_frames",
    "feature_step_limit",
    "gauss_newton_model",
    "gauss_newton_remainder",
    "gauss_newton_sharpness",
    "gradient_dominance",
    "least_critical_value",
    "linear_loss_bound",
    "lora_derivative_bounds",
    "loss_bound",
    "mean_cannot_fall",
    "norm_bound",
    "safe_ball",
    "total_ascent_bound",
    "worst_change",
]
