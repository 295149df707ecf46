"""Numbers as people read them, the same on the page, in Markdown and in the terminal."""

from typing import Any


def short_number(value: Any) -> str:
    """A number as a person reads it; words pass through."""
    if value is None:
        return "–"
    if isinstance(value, str):
        return "∞" if value == "infinity" else value
    if isinstance(value, bool | int):
        return str(value)
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        # Near the bound the digits that matter are those of the distance to it.
        if 0.98 < value < 1.02:
            return f"{value:.6f}"
        return f"{value:.4g}" if abs(value) < 9999.5 else f"{value:.0f}"
    mantissa, exponent = f"{value:.2e}".split("e")
    digits = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{mantissa}\u2009×\u200910{digits}"
