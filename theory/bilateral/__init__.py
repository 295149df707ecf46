"""C4: the bilateral filter across frames."""

from theory.bilateral.chunks import chunked_difference_bound, chunked_filter
from theory.bilateral.constants import defect_bound, lipschitz_constant
from theory.bilateral.euclidean import euclidean_bound
from theory.bilateral.filter import bilateral_filter

__all__ = [
    "bilateral_filter",
    "chunked_difference_bound",
    "chunked_filter",
    "defect_bound",
    "euclidean_bound",
    "lipschitz_constant",
]
