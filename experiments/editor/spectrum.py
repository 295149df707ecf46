"""The ends of the spectrum of a Hessian that is only known by its products with vectors."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch

Product = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Spectrum:
    """What a Lanczos run found.

    Attributes:
        largest, smallest: Ritz values, inside the spectrum.
        largest_error, smallest_error: an eigenvalue lies within this distance of the Ritz value.
        vector: unit Ritz vector of the largest.
        products: with the matrix.
    """

    largest: float
    smallest: float
    largest_error: float
    smallest_error: float
    vector: np.ndarray
    products: int


def lanczos(product: Product, start: np.ndarray, *, tolerance: float, both_ends: bool = False, max_products: int = 60) -> Spectrum:
    """Lanczos iteration with full reorthogonalisation, until the residual of the wanted Ritz pairs is small.

    Args:
        product: v -> H v for a symmetric H.
        start: (size,) not zero; the iteration sees the eigenvectors that it is not orthogonal to.
        tolerance: stop when ||H v - theta v|| <= tolerance * max |theta| at the largest (and, with `both_ends`, the smallest) Ritz value.
        max_products: stop here at the latest; the errors say how far it came.

    Raises:
        ValueError: a start of zeros or not finite, a tolerance not above 0, or a product that is not finite.
    """
    length = float(np.linalg.norm(start))
    if not (np.isfinite(length) and length > 0):
        raise ValueError(f"start has norm {length}; a finite vector that is not zero is needed")
    if not (np.isfinite(tolerance) and tolerance > 0):
        raise ValueError(f"tolerance = {tolerance}; a finite number above 0 is needed, for example 0.01")
    basis, diagonal, coupling = [start / length], [], []
    while True:
        image = product(basis[-1])
        if not np.isfinite(image).all():
            raise ValueError(f"product {len(basis)} with the Hessian is not finite; the network has diverged there")
        diagonal.append(float(image @ basis[-1]))
        # Twice is enough: what one pass leaves is of the size of rounding.
        for _ in range(2):
            for vector in basis:
                image = image - (vector @ image) * vector
        rest = float(np.linalg.norm(image))
        matrix = np.diag(diagonal) + np.diag(coupling, 1) + np.diag(coupling, -1)
        values, vectors = np.linalg.eigh(matrix)
        errors = rest * np.abs(vectors[-1])
        scale = float(np.max(np.abs(values)))
        wanted = max(errors[-1], errors[0]) if both_ends else errors[-1]
        finished = wanted <= tolerance * scale and len(basis) > 1
        if finished or rest <= np.finfo(np.float64).eps * scale or len(basis) in (max_products, len(start)):
            break
        coupling.append(rest)
        basis.append(image / rest)
    return Spectrum(
        largest=float(values[-1]),
        smallest=float(values[0]),
        largest_error=float(errors[-1]),
        smallest_error=float(errors[0]),
        vector=np.stack(basis, axis=1) @ vectors[:, -1],
        products=len(basis),
    )


def hessian_product(loss: torch.Tensor, parameters: Sequence[torch.Tensor]) -> Product:
    """v -> H v for the Hessian of a loss, by differentiating its gradient once more; attention must be plain.

    Raises:
        ValueError: the loss is not scalar, or does not depend on the parameters.
    """
    if loss.numel() != 1 or not loss.requires_grad:
        raise ValueError(f"the loss has shape {tuple(loss.shape)} and requires_grad {loss.requires_grad}; a scalar attached to the graph is needed")
    gradients = torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True, materialize_grads=True)
    gradient = torch.cat([value.reshape(-1) for value in gradients])

    def product(vector: np.ndarray) -> np.ndarray:
        given = torch.from_numpy(vector).to(gradient.device, gradient.dtype)
        rows = torch.autograd.grad(gradient, parameters, given, retain_graph=True, allow_unused=True, materialize_grads=True)
        return torch.cat([row.reshape(-1) for row in rows]).cpu().double().numpy()

    return product
