"""C3: DDIM inversion, its one-step defects and the round-trip error they cause."""

from theory.inversion.adapter_mismatch import adapter_mismatch_bound
from theory.inversion.bijective import damped_contraction, inverse_lipschitz
from theory.inversion.fixed_point import fixed_point_bound
from theory.inversion.flows import inversion_amplification, sampling_amplification
from theory.inversion.guidance import guided_defects
from theory.inversion.log_concave import log_concave_growth
from theory.inversion.mixture_tube import mixture_tube_bound
from theory.inversion.order import order_of_convergence
from theory.inversion.round_trip import round_trip_bound, step_growth
from theory.inversion.schedule import noise_levels
from theory.inversion.tube import euler_growth, tube_bound
from theory.inversion.two_layer import TwoLayer, certify_two_layer

__all__ = [
    "TwoLayer",
    "adapter_mismatch_bound",
    "certify_two_layer",
    "damped_contraction",
    "euler_growth",
    "fixed_point_bound",
    "guided_defects",
    "inverse_lipschitz",
    "inversion_amplification",
    "log_concave_growth",
    "mixture_tube_bound",
    "noise_levels",
    "order_of_convergence",
    "round_trip_bound",
    "sampling_amplification",
    "step_growth",
    "tube_bound",
]
