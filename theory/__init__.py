"""Theorems on the temporal loss, gradient descent on it, and DDIM inversion, each with the instances that attain or refute it.

`CLAIMS` lists every claim; `find_claim` looks one up. Importing the package switches JAX to 64-bit floats, without which no bound could be
compared.
"""

import functools
import importlib
import pathlib
import pkgutil
import re
import traceback

import jax

from theory.formal.index import FORMAL
from theory.readings import PAPER, Decision

jax.config.update("jax_enable_x64", True)

PAPER_CLAIMS = {group: claim.title for group, claim in PAPER.items()}
"""What the paper (arXiv 2504.16016) claims, in our words; theory/readings.py decides each reading by reading."""

FOLDERS = ("temporal_loss", "descent", "inversion", "bilateral", "tokens")


@functools.cache
def _discover() -> tuple:
    """Every CLAIM of every theorem file, in the order of FOLDERS and then of the files' own ORDER within a folder."""
    found = []
    for folder in FOLDERS:
        if importlib.util.find_spec(f"theory.{folder}") is None:
            continue
        package = _loaded(f"theory.{folder}")
        for module in pkgutil.iter_modules(package.__path__):
            if module.name.startswith(("test_", "conftest")):
                continue
            claim = getattr(_loaded(f"theory.{folder}.{module.name}"), "CLAIM", None)
            if claim is not None:
                found.append(claim)
    check_references(found)
    # Refuted statements first in their group: they are the paper's own words, the rest repairs and sharpens them.
    return tuple(sorted(found, key=lambda claim: (claim.group, claim.verdict != "refuted", claim.id)))


REQUIRED = {
    "operations": "size -> floating-point operations on the longest chain, from which the rounding budget is derived",
    "sizes": "the sizes at which the family is searched",
    "draw": "key, size -> the parameters of a random instance",
    "instance": "parameters, size -> an instance that satisfies every hypothesis",
    "measured": "instance -> the left side of the inequality",
    "bound": "instance -> its right side",
    "hypotheses": "what the statement assumes, numbered",
    "tightness": "whether the bound is attained, approached, an identity, upper or lower",
    "verdict": "proved, proved after repair or refuted",
    "witnesses": "size -> the extremal instance, or the counterexample",
    "problem": "the family and both sides of the inequality",
    "latex": "the statement in mathematics",
    "origin": "where the paper has it",
}
"""What a theorem's file cannot leave out, for the line that names what is missing."""


def _loaded(name: str):
    """A theorem's module, or the package of a folder, which imports some of its theorems.

    Raises:
        ValueError: a CLAIM lacks a field or has one too many; the message is one line that says where, which, and what it means.
    """
    try:
        return importlib.import_module(name)
    except TypeError as error:
        if not re.match(r"(Claim|Problem|Hypothesis|Comparison|Plant)\.__init__\(\) ", str(error)):
            raise
        # The call that lacks an argument is the innermost one.
        file = pathlib.Path(traceback.extract_tb(error.__traceback__)[-1].filename)
        missing = [field for field in re.findall(r"'(\w+)'", str(error)) if field in REQUIRED]
        meaning = "; ".join(f"{field}: {REQUIRED[field]}" for field in missing)
        raise ValueError(
            f"theory/{file.parent.name}/{file.name}: {error}{f' ({meaning})' if meaning else ''}; README says under \"Add a theorem\" "
            "what a claim consists of"
        ) from error


def check_references(claims) -> None:
    """Check what claims and readings say of each other.

    Raises:
        ValueError: two claims of one id; a claim that relies on one that does not exist, or in a circle; a reading decided by a claim that
            does not exist, or by claims whose verdicts do not support the decision.
    """
    known = {}
    for claim in claims:
        if claim.id in known:
            raise ValueError(f"{claim.id}: two theorems have this id; rename one")
        known[claim.id] = claim

    for name in FORMAL:
        if name not in known:
            raise ValueError(f"{name}: theory/formal/index.py names a machine-checked proof of it, and there is no such claim")

    def climb(claim, above: tuple[str, ...]) -> None:
        for name in claim.relies_on:
            if name not in known:
                raise ValueError(f"{claim.id}: it relies on {name!r}, which does not exist; there are {', '.join(known)}")
            if name in (*above, claim.id):
                raise ValueError(f"{claim.id}: it relies on itself, through {' -> '.join((*above, claim.id, name))}")
            climb(known[name], (*above, claim.id))

    for claim in claims:
        climb(claim, ())
    for group, paper in PAPER.items():
        for reading in paper.readings:
            for name in reading.decided_by:
                if name not in known:
                    raise ValueError(f"{group}, reading {reading.name!r}: decided by {name!r}, which does not exist")
            if reading.decision is Decision.OPEN or not reading.decided_by:
                continue
            refuted = known[reading.decided_by[0]].verdict == "refuted"
            # A refuted claim carries its repaired statement, which it proves; so it can decide that reading as well.
            if reading.decision is Decision.FALSE and not refuted or reading.decision is Decision.TRUE and refuted:
                raise ValueError(
                    f"{group}, reading {reading.name!r} is {reading.decision}, but {reading.decided_by[0]} is "
                    f"{known[reading.decided_by[0]].verdict}"
                )


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
