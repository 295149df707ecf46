"""C3: DDIM inversion, its one-step defects and the round-trip error they cause."""

from theory.inversion.round_trip import round_trip_bound
from theory.inversion.schedule import noise_levels

__all__ = ["noise_levels", "round_trip_bound"]
