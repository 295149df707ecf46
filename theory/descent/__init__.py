"""C2: gradient descent on the temporal loss, its step sizes, its limits and its landscape."""

from theory.descent.feature_descent import Descent, descend, exact_step_limit, feature_step_limit
from theory.descent.gauss_newton import GaussNewton, gauss_newton_model, gauss_newton_remainder, gauss_newton_sharpness
from theory.descent.landscape import critical_values, least_critical_value
from theory.descent.local_minimum import loss_bound
from theory.descent.polyak import gradient_dominance
from theory.descent.segment import StepCertificate, certify_step
from theory.descent.steps import MonotoneStep, Step, Warrant, check_learning_rate

__all__ = [
    "Descent",
    "GaussNewton",
    "MonotoneStep",
    "Step",
    "StepCertificate",
    "Warrant",
    "certify_step",
    "check_learning_rate",
    "critical_values",
    "descend",
    "exact_step_limit",
    "feature_step_limit",
    "gauss_newton_model",
    "gauss_newton_remainder",
    "gauss_newton_sharpness",
    "gradient_dominance",
    "least_critical_value",
    "loss_bound",
]
