"""C2: gradient descent on the temporal loss, its step sizes, its limits and its landscape."""

from theory.descent.adapter import DerivativeBounds, adapter_curvature_bound, lora_derivative_bounds
from theory.descent.any_step import norm_bound, total_ascent_bound
from theory.descent.feature_descent import Descent, descend, feature_step_limit
from theory.descent.landscape import critical_values, least_critical_value
from theory.descent.local_minimum import loss_bound
from theory.descent.lora import SafeBall, safe_ball
from theory.descent.one_step import worst_change
from theory.descent.polyak import gradient_dominance, linear_loss_bound

__all__ = [
    "DerivativeBounds",
    "Descent",
    "SafeBall",
    "adapter_curvature_bound",
    "critical_values",
    "descend",
    "feature_step_limit",
    "gradient_dominance",
    "least_critical_value",
    "linear_loss_bound",
    "lora_derivative_bounds",
    "loss_bound",
    "norm_bound",
    "safe_ball",
    "total_ascent_bound",
    "worst_change",
]
