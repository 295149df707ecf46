"""Why a fault that no check notices is none: reasons, by module, function and change.

An entry says why the faulty bound is equal to the true one, or lies on its safe side by less than anything could notice. A fault without an
entry is printed as not noticed.
"""

from collections.abc import Mapping

REASONS: Mapping[tuple[str, str, str], str] = {}
