"""C4: the bilateral filter across frames."""

from theory.bilateral.filter import bilateral_filter

__all__ = ["bilateral_filter"]
