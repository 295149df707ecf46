"""Gradient descent on any torch model that never raises its loss, with the step-size rule of `theory.descent`.

    descent = MonotoneDescent(editor.adapter_parameters(), residuals=lambda: temporal_residuals([features()]))
    for _ in range(100):
        step = descent.step()
        print(step.loss, step.size, step.warrant)

The objective is a closure that returns a scalar, or one that returns the residuals d of a mean of squares, as a temporal loss is; then the
exact Gauss-Newton sharpness comes with the gradient, from one backward pass a residual.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from theory.descent import GaussNewton, MonotoneStep, Step, check_learning_rate, gauss_newton_model
from theory.temporal_loss import similarities

Closure = Callable[[], torch.Tensor]


def temporal_residuals(features: Iterable[torch.Tensor]) -> torch.Tensor:
    """The differences s_{t+1} - s_t of neighbouring similarities of every layer in a row; the mean of their squares is the mean temporal loss.

    Args:
        features: of each layer (frames, ...), the same number of frames for all.

    Raises:
        ValueError: no layer, or what `theory.temporal_loss.similarities` raises: a zero frame is named.
    """
    rows = [torch.diff(similarities(values)) for values in features]
    if not rows:
        raise ValueError("no features were given; capture at least one layer")
    return torch.cat(rows)


def named_parameters(parameters: Mapping[str, torch.Tensor] | Iterable[torch.Tensor]) -> dict[str, torch.Tensor]:
    """The parameters by name, numbered where they have none, after checking that each can be trained.

    Raises:
        ValueError: none, one that is no floating-point tensor, or one that does not require a gradient; it is named.
    """
    named = parameters if isinstance(parameters, Mapping) else {f"parameter {index}": value for index, value in enumerate(parameters)}
    if not named:
        raise ValueError("no parameters were given; add an adapter, or pass the model's parameters()")
    for name, value in named.items():
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            raise ValueError(f"{name} is no floating-point tensor; pass the model's parameters()")
        if not value.requires_grad:
            raise ValueError(f"{name} does not require a gradient; call requires_grad_(True) on it, or leave it out")
    return dict(named)


def _scalar(value: torch.Tensor) -> torch.Tensor:
    if not isinstance(value, torch.Tensor) or value.numel() != 1:
        shape = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
        raise ValueError(f"the objective returned {shape}; a scalar tensor is needed: take its mean, or pass it as residuals")
    return value.reshape(())


def _flat(gradients: Sequence[torch.Tensor | None], parameters: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat(
        [torch.zeros_like(p).reshape(-1) if g is None else g.reshape(-1) for g, p in zip(gradients, parameters, strict=True)]
    )


def _gradient(value: torch.Tensor, parameters: Sequence[torch.Tensor], **options: bool) -> torch.Tensor:
    if not value.requires_grad:
        raise ValueError("the objective does not depend on the parameters; compute it with gradients on and the adapter switched on")
    return _flat(torch.autograd.grad(value, parameters, allow_unused=True, **options), parameters)


def residual_jacobian(residuals: torch.Tensor, parameters: Sequence[torch.Tensor], *, retain_graph: bool = False) -> torch.Tensor:
    """The gradients of the residuals, (M, all entries of the parameters in a row), by M backward passes.

    Raises:
        ValueError: the residuals are not a row of numbers, or do not depend on the parameters.
    """
    if residuals.ndim != 1 or not residuals.numel():
        raise ValueError(f"residuals have shape {tuple(residuals.shape)}; (M,) with M >= 1 is needed: flatten those of all layers")
    last = len(residuals) - 1
    rows = [
        _gradient(residual, parameters, retain_graph=retain_graph or index < last) for index, residual in enumerate(residuals.unbind())
    ]
    return torch.stack(rows)


def gauss_newton_of(residuals: torch.Tensor, parameters: Sequence[torch.Tensor], **options: bool) -> tuple[GaussNewton, torch.Tensor]:
    """The Gauss-Newton model of the mean of the squared residuals, and its gradient (all entries of the parameters in a row).

    M backward passes give both. Raises what `residual_jacobian` raises.
    """
    jacobian = residual_jacobian(residuals, parameters, **options)
    return gauss_newton_model(residuals, jacobian @ jacobian.T), 2 / len(residuals) * (residuals.detach() @ jacobian)


@dataclass
class Passes:
    """Passes through the model so far; a backward pass is one vector-Jacobian product."""

    forward: int = 0
    backward: int = 0

    @property
    def total(self) -> int:
        return self.forward + self.backward


class MonotoneDescent:
    """Gradient descent in place whose every step lowers the objective.

    The steps of a network are "checked": for its parameters nothing is certified unless the caller knows bounds on its derivatives and passes
    them to `theory.descent.MonotoneStep` himself. The forward pass of the accepted trial is that of the next step.

    Args:
        parameters: of the model, by name or not; each must require a gradient.
        objective: closure without randomness that returns the loss, a scalar tensor.
        residuals: instead of it, a closure that returns the residuals (M,) of a mean of squares.
        sharpness_every: with residuals, every how many steps the Gauss-Newton curvature is measured (M backward passes instead of 1); in between
            the rule goes on from its last step.
        learning_rate: tried at the first step, where no sharpness is known.

    Raises:
        ValueError: both or neither closure, sharpness_every below 1, a bad learning rate, and what `named_parameters` raises.
    """

    def __init__(
        self,
        parameters: Mapping[str, torch.Tensor] | Iterable[torch.Tensor],
        objective: Closure | None = None,
        *,
        residuals: Closure | None = None,
        sharpness_every: int = 1,
        learning_rate: float = 1.0,
    ) -> None:
        self._parameters = list(named_parameters(parameters).values())
        if (objective is None) == (residuals is None):
            raise ValueError("pass either the objective or its residuals, and not both")
        if sharpness_every < 1:
            raise ValueError(f"sharpness_every = {sharpness_every}; an integer of at least 1 is needed")
        self._closure = objective if residuals is None else residuals
        self._squares = residuals is not None
        self._every = sharpness_every
        # A dtype's rounding, a few dozen times: below it a decrease cannot be seen.
        coarsest = max(torch.finfo(value.dtype).eps for value in self._parameters)
        self._rule = MonotoneStep(first=check_learning_rate(learning_rate), resolution=64 * coarsest)
        self._values: torch.Tensor | None = None
        self._steps = 0
        self.passes = Passes()

    def step(self) -> Step:
        """Takes one step in place and says how long it was, and why the loss has not risen.

        Raises:
            ValueError: an objective that is not scalar or not finite, and what `MonotoneStep.step` and the closure raise; the parameters are as
                they were before the step.
        """
        values = self._evaluate() if self._values is None else self._values
        self._values = None
        loss, gradient, sharpness = self._differentiate(values)
        before = [value.detach().clone() for value in self._parameters]
        kept: list[torch.Tensor] = []

        def trial(size: float) -> float:
            self._move(before, gradient, size)
            try:
                kept[:] = [self._evaluate()]
            except ValueError:  # the loss is not defined there (a frame is zero or not finite): too long a step
                return math.inf
            return float(self._loss(kept[0]).detach())

        try:
            step = self._rule.step(loss, float(gradient @ gradient), trial, sharpness=sharpness)
        except BaseException:
            self._move(before, gradient, 0.0)
            raise
        if step.size == 0:
            self._move(before, gradient, 0.0)
        else:
            self._values = kept[0]
        self._steps += 1
        return step

    def _evaluate(self) -> torch.Tensor:
        self.passes.forward += 1
        with torch.enable_grad():
            values = self._closure()
        return values if self._squares else _scalar(values)

    def _loss(self, values: torch.Tensor) -> torch.Tensor:
        return torch.mean(values**2) if self._squares else values

    def _differentiate(self, values: torch.Tensor) -> tuple[float, torch.Tensor, float | None]:
        if self._squares and self._steps % self._every == 0:
            model, gradient = gauss_newton_of(values, self._parameters)
            self.passes.backward += len(values)
            return model.loss, gradient, model.sharpness
        loss = self._loss(values)
        gradient = _gradient(loss, self._parameters)
        self.passes.backward += 1
        return float(loss.detach()), gradient, None

    def _move(self, before: Sequence[torch.Tensor], gradient: torch.Tensor, size: float) -> None:
        start = 0
        with torch.no_grad():
            for parameter, value in zip(self._parameters, before, strict=True):
                part = gradient[start : start + value.numel()].reshape(value.shape)
                parameter.copy_(value - size * part if size else value)
                start += value.numel()
