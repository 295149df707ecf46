"""Monotone descent on torch models: it lowers the loss, counts its passes, and names what it cannot use."""

import numpy as np
import pytest
import torch

from experiments.editor.steps import MonotoneDescent, gauss_newton_of, named_parameters, residual_jacobian, temporal_residuals
from theory.descent import Warrant
from theory.temporal_loss import temporal_loss


def _model(seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 5)).to(dtype)
    return model, torch.randn((4, 6), generator=generator, dtype=dtype)


def test_residuals_are_the_mean_temporal_loss_of_the_layers():
    layers = [torch.randn((5, 3, 2, 2), generator=torch.Generator().manual_seed(seed), dtype=torch.float64) for seed in (0, 1)]
    expected = torch.stack([temporal_loss(layer) for layer in layers]).mean()
    assert float(torch.mean(temporal_residuals(layers) ** 2)) == pytest.approx(float(expected), rel=1e-13)


def test_gauss_newton_of_a_model_matches_its_dense_jacobian():
    model, inputs = _model()
    parameters = list(model.parameters())
    residuals = temporal_residuals([model(inputs)])
    jacobian = residual_jacobian(residuals, parameters, retain_graph=True)
    known, gradient = gauss_newton_of(residuals, parameters)
    assert jacobian.shape == (2, sum(p.numel() for p in parameters))
    assert known.sharpness == pytest.approx(float(torch.linalg.matrix_norm(jacobian, 2)) ** 2, rel=1e-12)
    loss = temporal_loss(model(inputs))
    direct = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, parameters)])
    torch.testing.assert_close(gradient, direct, rtol=1e-10, atol=1e-14)
    assert known.loss == pytest.approx(float(loss.detach()), rel=1e-12)
    assert known.squared_gradient == pytest.approx(float(direct @ direct), rel=1e-10)


@pytest.mark.parametrize("every", [1, 5])
def test_every_step_lowers_the_loss_and_says_that_it_was_checked(every):
    model, inputs = _model(1)
    descent = MonotoneDescent(dict(model.named_parameters()), residuals=lambda: temporal_residuals([model(inputs)]), sharpness_every=every)
    losses = [float(temporal_loss(model(inputs)).detach())]
    steps = [descent.step() for _ in range(20)]
    for step in steps:
        assert step.warrant in (Warrant.CHECKED, Warrant.STATIONARY)
        losses.append(step.loss)
    assert np.all(np.diff(losses) <= 0) and losses[-1] < 1e-3 * losses[0]
    assert float(temporal_loss(model(inputs)).detach()) == pytest.approx(losses[-1], rel=1e-10)
    # One forward pass at the start, and one a trial: the accepted trial's serves the next step.
    assert descent.passes.forward == 1 + sum(step.trials for step in steps)
    measured = len(range(0, 20, every))
    assert descent.passes.backward == 2 * measured + 20 - measured


def test_an_objective_needs_no_residuals_and_works_in_float32():
    model, inputs = _model(2, torch.float32)
    descent = MonotoneDescent(model.parameters(), lambda: torch.mean((model(inputs) - 1) ** 2), learning_rate=1e3)
    losses = [descent.step().loss for _ in range(30)]
    assert np.all(np.diff(losses) <= 0) and losses[-1] < 0.5 * losses[0]


def test_a_step_past_the_region_where_the_loss_is_defined_is_too_long():
    model, inputs = _model(4)

    def objective():
        if abs(float(model[0].weight.detach()[0, 0])) > 10:
            raise ValueError("frame 0 has squared norm inf")
        return torch.mean((model(inputs) - 1) ** 2)

    step = MonotoneDescent(model.parameters(), objective, learning_rate=1e6).step()
    assert step.warrant is Warrant.CHECKED and step.trials > 1


def test_parameters_are_put_back_where_the_objective_fails():
    model, inputs = _model(3)
    calls = []

    def objective():
        calls.append(0)
        if len(calls) > 1:
            raise RuntimeError("out of memory")
        return torch.mean(model(inputs) ** 2)

    before = [value.detach().clone() for value in model.parameters()]
    with pytest.raises(RuntimeError, match="out of memory"):
        MonotoneDescent(model.parameters(), objective).step()
    for value, old in zip(model.parameters(), before, strict=True):
        assert torch.equal(value, old)


def _frozen():
    model, _ = _model()
    model[2].weight.requires_grad_(False)
    return dict(model.named_parameters())


def _descent(objective, **options):
    model, inputs = _model()
    return MonotoneDescent(model.parameters(), lambda: objective(model(inputs)), **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: named_parameters(_frozen()), "2.weight does not require a gradient"),
        (lambda: named_parameters([]), "no parameters were given"),
        (lambda: named_parameters({"step": torch.tensor(1)}), "step is no floating-point tensor"),
        (lambda: _descent(lambda out: out).step(), r"the objective returned \(4, 5\); a scalar tensor is needed"),
        (lambda: _descent(lambda out: out.sum().item()).step(), "the objective returned float; a scalar"),
        (lambda: _descent(lambda out: out.detach().sum()).step(), "does not depend on the parameters"),
        (lambda: _descent(lambda out: out.sum() * torch.nan).step(), "loss = nan; a finite number is needed"),
        (lambda: _descent(torch.sum, learning_rate=0.0), "learning_rate = 0.0; a finite learning rate above 0"),
        (lambda: _descent(torch.sum, sharpness_every=0), "sharpness_every = 0"),
        (lambda: _descent(torch.sum, residuals=lambda: None), "either the objective or its residuals"),
        (lambda: temporal_residuals([]), "no features"),
        (lambda: temporal_residuals([torch.diag(torch.tensor([1.0, 0.0, 1.0]))]), "frame 1 has squared norm 0"),
        (lambda: residual_jacobian(torch.zeros(()), []), r"residuals have shape \(\)"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
