"""C3: DDIM inversion, its one-step defects and the round-trip error they cause."""

from theory.inversion.adapter_mismatch import adapter_mismatch_bound
from theory.inversion.fixed_point import fixed_point_bound
from theory.inversion.log_concave import log_concave_growth
from theory.inversion.round_trip import round_trip_bound, step_growth
from theory.inversion.schedule import noise_levels

__all__ = [
    "adapter_mismatch_bound",
    "fixed_point_bound",
    "log_concave_growth",
    "noise_levels",
    "round_trip_bound",
    "step_growth",
]
