"""Theorems on the temporal loss, gradient descent on it, and DDIM inversion, each with the instances that attain or refute it.

`CLAIMS` lists every claim; `find_claim` looks one up. Importing the package switches JAX to 64-bit floats, without which no bound could be
compared.
"""

import functools
import importlib
import pkgutil

import jax

jax.config.update("jax_enable_x64", True)

PAPER_CLAIMS = {
    "C1": "The temporal consistency loss is differentiable under bounded feature norms, and its gradient is Lipschitz",
    "C2": "Gradient descent on it decreases it monotonically and converges to a local minimum for a suitable learning rate",
    "C3": "The DDIM inversion error of the adapter modules remains controlled",
    "C4": "This holds with bilateral filtering across frames",
    "C5": "Shared and frame-specific prompt tokens give near-perfect alignment",
}
"""What the paper (arXiv 2504.16016) claims, in our words; paper_notes.md says how sure we are of its own wording."""

FOLDERS = ("temporal_loss", "descent", "inversion", "bilateral", "tokens")


@functools.cache
def _discover() -> tuple:
    """Every CLAIM of every theorem file, in the order of FOLDERS and then of the files' own ORDER within a folder."""
    found = []
    for folder in FOLDERS:
        if importlib.util.find_spec(f"theory.{folder}") is None:
            continue
        package = importlib.import_module(f"theory.{folder}")
        for module in pkgutil.iter_modules(package.__path__):
            if module.name.startswith(("test_", "conftest")):
                continue
            claim = getattr(importlib.import_module(f"theory.{folder}.{module.name}"), "CLAIM", None)
            if claim is not None:
                found.append(claim)
    # Refuted statements first in their group: they are the paper's own words, the rest repairs and sharpens them.
    return tuple(sorted(found, key=lambda claim: (claim.group, claim.verdict != "refuted", claim.id)))


def find_claim(claim_id: str):
    """The claim with this id.

    Raises:
        ValueError: if there is none; the message lists the ids that exist.
    """
    for claim in _discover():
        if claim.id == claim_id:
            return claim
    raise ValueError(f"no claim is called {claim_id!r}; there are {', '.join(claim.id for claim in _discover())}")


def __getattr__(name: str):
    # Listing the claims imports every theorem; somebody who wants one function should not pay for that.
    if name == "CLAIMS":
        return _discover()
    raise AttributeError(f"module 'theory' has no attribute {name!r}")
