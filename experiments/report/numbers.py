"""Numbers as people read them, the same on the page, in Markdown and in the terminal."""

from typing import Any

MOST_DIGITS = 17
"""With so many significant digits two float64 that differ are written differently."""


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


def apart(first: float, second: float) -> tuple[str, str]:
    """Two numbers, with more digits than usual where without them both would read the same though they differ."""
    texts = (short_number(first), short_number(second))
    if first == second or texts[0] != texts[1]:
        return texts
    for digits in range(5, MOST_DIGITS + 1):
        texts = (f"{first:.{digits}g}", f"{second:.{digits}g}")
        if texts[0] != texts[1]:
            # Two digits more, so that the difference is a number and no rounding.
            break
    digits = min(digits + 2, MOST_DIGITS)
    return f"{first:.{digits}g}", f"{second:.{digits}g}"


def ratio_words(ratio: float | str) -> str:
    """A ratio; within a millionth of 1 as its distance from 1, which is what decides there."""
    if isinstance(ratio, str) or ratio == 1 or abs(ratio - 1) >= 1e-6:
        return short_number(ratio)
    return f"1 {'+' if ratio > 1 else '−'} {short_number(abs(ratio - 1))}"
