"""C3: DDIM inversion, its one-step defects and the round-trip error they cause."""

from theory.inversion.adapter_mismatch import adapter_mismatch_bound
from theory.inversion.fixed_point import fixed_point_bound
from theory.inversion.log_concave import log_concave_growth
from theory.inversion.round_trip import round_trip_bound, step_growth
from theory.inversion.schedule import noise_levels
from theory.inversion.two_layer import TwoLayer, certify_two_layer

__all__ = [
    "TwoLayer",
    "adapter_mismatch_bound",
    "certify_two_layer",
    "fixed_point_bound",
    "log_concave_growth",
    "noise_levels",
    "round_trip_bound",
    "step_growth",
]
