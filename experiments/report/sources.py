"""The files that the page shows, so that a link to a theorem or a test leads somewhere without a network."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import theory
from experiments.report.audit import describe_claim
from experiments.store import ROOT

LADDER_TEST = "theory/test_ladder.py"
LADDER = "theory/ladder.py"


def formal_files(formal: str) -> list[str]:
    """The files of machine-checked proofs that a claim names."""
    return re.findall(r"theory/formal/\w+\.v\b", formal)


def named_files(record: Mapping[str, Any]) -> list[str]:
    """The files that a claim names: its theorem, its own test, and its machine-checked proof."""
    return [*(record[name] for name in ("file", "own_test") if record[name]), *formal_files(record["formal"])]


def known_files() -> frozenset[str]:
    """The files of theorems and their tests that this version has; a stored run may name no other."""
    described = [describe_claim(claim) for claim in theory.CLAIMS]
    own = {name for record in described for name in named_files(record)}
    return frozenset({*own, LADDER_TEST, LADDER})


def listings(records: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The text of every file that some claims name, by its path; of those only that this version has.

    A path in an audit.json from somebody else is never opened: it is looked up among the files of the theorems.
    """
    wanted = {name for record in records for name in named_files(record)}
    wanted |= {LADDER_TEST, LADDER}
    shown = sorted(wanted & known_files())
    return {name: (ROOT / name).read_text(encoding="utf-8") for name in shown if (ROOT / name).is_file()}
