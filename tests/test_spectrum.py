"""Lanczos against a dense eigensolver, and Hessian products against the dense Hessian."""

import numpy as np
import pytest
import torch

from experiments.editor.spectrum import hessian_product, lanczos


def _symmetric(size, seed):
    matrix = np.random.default_rng(seed).normal(size=(size, size))
    return matrix + matrix.T


@pytest.mark.parametrize("seed", range(3))
def test_ends_of_a_dense_matrix_lie_within_their_errors(seed):
    matrix, values = _symmetric(40, seed), np.linalg.eigvalsh(_symmetric(40, seed))
    found = lanczos(lambda v: matrix @ v, np.random.default_rng(seed).normal(size=40), tolerance=1e-6, both_ends=True)
    # An eigenvalue is nearby; that it is the extreme one is what a random start makes almost sure.
    for ritz, error, value in ((found.largest, found.largest_error, values[-1]), (found.smallest, found.smallest_error, values[0])):
        assert abs(ritz - value) <= error + 1e-12 * abs(value)
    assert np.linalg.norm(matrix @ found.vector - found.largest * found.vector) <= found.largest_error + 1e-10
    assert found.products <= 40


def test_low_rank_ends_when_the_space_is_exhausted():
    row = np.arange(1.0, 8.0)
    found = lanczos(lambda v: row * (row @ v), np.ones(7), tolerance=1e-15)
    assert found.largest == pytest.approx(row @ row, rel=1e-12) and found.products <= 3


def test_hessian_products_are_those_of_the_dense_hessian():
    point = torch.linspace(-1, 1, 5, dtype=torch.float64, requires_grad=True)
    function = lambda x: torch.sum(x**4) + torch.prod(x + 2)  # noqa: E731
    dense = torch.autograd.functional.hessian(function, point.detach()).numpy()
    product = hessian_product(function(point), [point])
    np.testing.assert_allclose(np.stack([product(row) for row in np.eye(5)]), dense, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lanczos(lambda v: v, np.zeros(3), tolerance=0.1), "start has norm 0.0"),
        (lambda: lanczos(lambda v: v, np.ones(3), tolerance=0.0), "tolerance = 0.0"),
        (lambda: lanczos(lambda v: v * np.nan, np.ones(3), tolerance=0.1), "product 1 with the Hessian is not finite"),
        (lambda: hessian_product(torch.zeros(2, requires_grad=True), []), r"the loss has shape \(2,\)"),
        (lambda: hessian_product(torch.zeros(()), []), "requires_grad False"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
