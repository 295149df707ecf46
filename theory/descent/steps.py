"""Step sizes that keep a temporal loss monotone, for any training loop: plain numbers in, a step and its warrant out.

A step theta - eta g of gradient descent is "certified" where somebody can promise a bound kappa(eta) on the curvature along it: then

    L(theta - eta g) <= L(theta) - eta (1 - eta kappa(eta) / 2) ||g||^2

before it is taken, and no loss has to be evaluated. On features the bound is `certify_step(features).curvature`; for the parameters of a
network it needs bounds on the network's own derivatives (C2.gauss-newton), which are rarely known. Elsewhere a step is "checked": it is
tried, from 1 / sharpness, and shortened until the loss has fallen by ARMIJO eta ||g||^2. Every step says which of the two it was.

    rule = MonotoneStep()
    step = rule.step(loss, squared_gradient, trial, sharpness=sharpness)    # trial(eta) = loss after a step of eta
    print(step.size, step.warrant, step.loss)

Source: paper_notes.md, C2.descent and C2.segment.
"""

import dataclasses
import enum
import math
from collections.abc import Callable
from typing import Any

from theory.rounding import UNIT_ROUNDOFF

ARMIJO = 0.1
"""Share of eta ||g||^2 that a checked step must gain. Below 1/2 every eta < 2 (1 - ARMIJO) / curvature passes."""
LEAST_SHRINK, MOST_SHRINK = 0.5, 0.1
"""A refused step is multiplied by a number between these."""
MAX_TRIALS = 40
"""More than enough to shorten a step by the range of float32: past it the loss does not fall along its gradient."""


class Warrant(enum.StrEnum):
    """Why a step does not raise the loss."""

    CERTIFIED = "certified"  # proved before it was taken
    CHECKED = "checked"  # the loss was evaluated after it, and had fallen
    STATIONARY = "stationary"  # the gradient is zero, or so small that the loss cannot show a decrease; the step is 0


@dataclasses.dataclass(frozen=True)
class Step:
    """One step that was chosen.

    Attributes:
        size: eta; 0 where the loss is stationary to rounding.
        warrant: see `Warrant`.
        loss: after the step, where it was evaluated; of a certified step the value it is proved not to exceed, rounded up, if the loss and
            the squared gradient that were passed in are not above and not below the true ones in turn.
        curvature: kappa(eta) of a certified step; of a checked one the curvature that it saw, 2 (L1 - L0 + eta ||g||^2) / (eta^2 ||g||^2).
        trials: losses that were evaluated.
    """

    size: float
    warrant: Warrant
    loss: float
    curvature: float
    trials: int


def check_learning_rate(learning_rate: Any, name: str = "learning_rate") -> float:
    """The learning rate as a Python float.

    Raises:
        ValueError: not one finite number above 0.
    """
    try:
        value = float(learning_rate)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{name} = {learning_rate!r}; one number is needed") from None
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} = {value}; a finite learning rate above 0 is needed, 1 / sharpness is a good one")
    return value


def _number(value: Any, name: str, mend: str) -> float:
    value = value.detach() if hasattr(value, "detach") else value
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError):
        shape = tuple(getattr(value, "shape", ()))
        raise ValueError(f"{name} has shape {shape}; one number is needed: {mend}") from None
    if not math.isfinite(number):
        raise ValueError(f"{name} = {number}; a finite number is needed: {mend}")
    return number


class MonotoneStep:
    """A step-size rule that never raises the loss. It remembers the last step, so use one rule a run.

    Args:
        first: the step tried first where neither a sharpness nor an earlier step is known; a bad guess costs trials.
        growth: how much longer than the last accepted step the next is tried where no sharpness is given, at least 1.
        resolution: relative rounding of the loss, a few dozen roundings of its dtype: 2^-46 suits float64, 2^-17 float32. Promised decreases
            below that share of the loss cannot be seen.

    Raises:
        ValueError: first not a finite number above 0; growth below 1 or not finite; resolution not in [0, 1).
    """

    def __init__(self, *, first: float = 1.0, growth: float = 1.5, resolution: float = 2.0**-46) -> None:
        self._next = check_learning_rate(first, "first")
        if not 0 <= resolution < 1:
            raise ValueError(f"resolution = {resolution}; a number in [0, 1) is needed: the relative rounding of the loss, 2^-46 in float64")
        self._resolution = resolution
        if not (math.isfinite(growth) and growth >= 1):
            raise ValueError(f"growth = {growth}; a finite number of at least 1 is needed, for example 1.5")
        self._growth = growth

    def step(
        self,
        loss: Any,
        squared_gradient: Any,
        trial: Callable[[float], Any] | None = None,
        *,
        sharpness: Any = None,
        curvature: Callable[[float], float] | None = None,
        proposal: Any = None,
    ) -> Step:
        """Choose the next step.

        Args:
            loss, squared_gradient: L(theta) and ||g||^2, one number each. A certified step is proved for an upper end of the one and a lower
                end of the other: pass `certify_step(features).squared_gradient_lower`.
            trial: eta -> L(theta - eta g); a value that is not finite counts as a rise. Not needed where the step can be certified.
            sharpness: an estimate of lambda_max, such as `gauss_newton_model(..).sharpness`; the first trial is its inverse.
            curvature: eta -> a proved bound on lambda_max along the whole segment, not decreasing in eta, such as
                `certify_step(features).curvature`. It makes the step certified.
            proposal: the step to try first instead of the rule's own choice; a certified step takes it as it is where it is proved to descend.

        Raises:
            ValueError: a loss or squared gradient that is no finite number, a negative squared gradient, a proposal that is not a finite
                number above 0, a sharpness that is negative or not finite, neither `trial` nor `curvature`, or a loss that does not fall
                along its own gradient (`trial` and the gradient belong to different functions, or the gradient is all rounding).
        """
        loss = _number(loss, "loss", "the objective must be scalar and the parameters finite")
        squared = _number(squared_gradient, "squared_gradient", "sum the squares of all entries")
        if squared < 0:
            raise ValueError(f"squared_gradient = {squared}; a number of at least 0 is needed: sum the squares of all entries")
        if trial is None and curvature is None:
            raise ValueError("neither trial nor curvature was given; a step can be checked by the one or certified by the other")
        proposal = None if proposal is None else check_learning_rate(proposal, "proposal")
        if squared == 0:
            return Step(0.0, Warrant.STATIONARY, loss, 0.0, 0)
        size = self._first_trial(sharpness, proposal)
        if curvature is not None:
            return self._certified(squared, loss, curvature, size, keep=proposal is not None)
        return self._checked(loss, squared, trial, size)

    def _first_trial(self, sharpness: Any, proposal: float | None) -> float:
        if proposal is not None:
            return proposal
        if sharpness is None:
            return self._next
        value = _number(sharpness, "sharpness", "measure it at these parameters")
        if value < 0:
            raise ValueError(f"sharpness = {value}; a number of at least 0 is needed")
        return 1 / value if value > 0 and math.isfinite(1 / value) else self._next

    def _certified(self, squared: float, loss: float, curvature: Callable[[float], float], size: float, keep: bool) -> Step:
        bound = _bound(curvature, size)
        if not keep or size * bound >= 2:
            # The longest step whose guaranteed decrease is at least eta ||g||^2 / 2. kappa does not increase as the step shrinks, so 1 / kappa
            # of a longer step is one; from there it is doubled, and then bisected.
            size = min(size, 1 / bound) if bound > 0 else size
            for _ in range(MAX_TRIALS):
                if 2 * size * _bound(curvature, 2 * size) > 1:
                    break
                size *= 2
            low, high = size, 2 * size
            for _ in range(8):
                size = (low + high) / 2
                low, high = (size, high) if size * _bound(curvature, size) <= 1 else (low, size)
            size, bound = low, _bound(curvature, low)
        self._next = size
        # Six roundings, each at the size of one of the terms.
        decrease = size * (1 - size * bound / 2) * squared
        after = loss - decrease + 8 * UNIT_ROUNDOFF * (abs(loss) + size * (1 + size * bound) * squared)
        return Step(size, Warrant.CERTIFIED, after, bound, 0)

    def _checked(self, loss: float, squared: float, trial: Callable[[float], Any], size: float) -> Step:
        for trials in range(1, MAX_TRIALS + 1):
            after = float(trial(size))
            seen = 2 * (after - loss + size * squared) / (size**2 * squared)
            if after < loss and after <= loss - ARMIJO * size * squared:
                # A step that met little curvature may be followed by a longer one, never by more than `growth` times.
                self._next = size * (self._growth if seen * size <= 1 else 1.0)
                return Step(size, Warrant.CHECKED, after, seen, trials)
            if size * squared <= self._resolution * abs(loss):
                return Step(0.0, Warrant.STATIONARY, loss, 0.0, trials)
            # The minimum of the parabola through L, the slope and the trial, within limits.
            target = 1 / (seen * size) if math.isfinite(seen) and seen > 0 else MOST_SHRINK
            size *= min(max(target, MOST_SHRINK), LEAST_SHRINK)
        raise ValueError(
            f"{MAX_TRIALS} trials down to a step of {size:.3g} did not lower the loss {loss:.6g} with squared gradient {squared:.3g}: check that "
            "`trial` evaluates the function that the gradient is of, without randomness"
        )


def _bound(curvature: Callable[[float], float], size: float) -> float:
    value = float(curvature(size))
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"curvature({size:.3g}) = {value}; a finite bound of at least 0 is needed")
    return value
