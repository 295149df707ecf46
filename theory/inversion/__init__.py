"""C3: DDIM inversion, its one-step defects and the round-trip error they cause."""

from theory.inversion.adapter_mismatch import adapter_mismatch_bound
from theory.inversion.any_inversion import any_inversion_bound, defects_of_states, mean_predictions
from theory.inversion.bijective import damped_contraction, inverse_lipschitz
from theory.inversion.bounded import hybrid_bounds, uniform_error_bound
from theory.inversion.clusters import cluster_lower_bound
from theory.inversion.fixed_point import fixed_point_bound
from theory.inversion.flows import inversion_amplification, sampling_amplification
from theory.inversion.growth import round_trip_bound, step_growth
from theory.inversion.guidance import guided_defects
from theory.inversion.log_concave import log_concave_growth
from theory.inversion.mixture_tube import mixture_tube_bound
from theory.inversion.order import order_of_convergence
from theory.inversion.output_layer import guided_output_bound, output_bound
from theory.inversion.practice import practice_bound
from theory.inversion.schedule import noise_levels
from theory.inversion.tube import euler_growth, tube_bound
from theory.inversion.two_layer_certificate import TwoLayer, certify_two_layer

__all__ = [
    "TwoLayer",
    "adapter_mismatch_bound",
    "any_inversion_bound",
    "certify_two_layer",
    "cluster_lower_bound",
    "damped_contraction",
    "defects_of_states",
    "euler_growth",
    "fixed_point_bound",
    "guided_defects",
    "guided_output_bound",
    "hybrid_bounds",
    "inverse_lipschitz",
    "inversion_amplification",
    "log_concave_growth",
    "mean_predictions",
    "mixture_tube_bound",
    "noise_levels",
    "order_of_convergence",
    "output_bound",
    "practice_bound",
    "round_trip_bound",
    "sampling_amplification",
    "step_growth",
    "tube_bound",
    "uniform_error_bound",
]
