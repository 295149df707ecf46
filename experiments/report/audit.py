"""audit.json: every claim with its verdict and the numbers behind it, theory and real network side by side.

It holds no timings and no dates, so two runs with one seed on one machine write the same bytes.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import theory
from experiments.store import ROOT, library_versions
from theory.claim import Claim, Tightness, Verdict
from theory.ladder import Rung

FORMAT = 1
TIGHTNESS_ORDER = (Tightness.ATTAINED, Tightness.APPROACHED, Tightness.IDENTITY, Tightness.UPPER, Tightness.LOWER)
"""Which theorem speaks for its group first."""
STATED = ".stated"
"""How the id of the paper's own statement ends."""


def claim_module(claim: Claim) -> ModuleType:
    """The theorem's module, the one whose CLAIM this is."""
    for name, module in sorted(sys.modules.items()):
        # A test that imports the CLAIM has it too, and test_tube comes before tube.
        is_test = name.rpartition(".")[2].startswith("test_")
        if name.startswith("theory.") and not is_test and getattr(module, "CLAIM", None) is claim:
            return module
    raise ValueError(f"{claim.id} is no theorem's CLAIM; find it through theory.find_claim")


def describe_claim(claim: Claim) -> dict[str, Any]:
    """What a claim says and where it is checked; nothing measured."""
    file = Path(claim_module(claim).__file__).relative_to(ROOT)
    own_test = file.with_name(f"test_{file.name}")
    return {
        "id": claim.id,
        "group": claim.group,
        "title": claim.title,
        "statement": claim.statement,
        "latex": claim.latex,
        "hypotheses": [{"id": hypothesis.id, "text": hypothesis.text} for hypothesis in claim.hypotheses],
        "verdict": str(claim.verdict),
        "tightness": str(claim.tightness),
        "origin": claim.origin,
        "file": file.as_posix(),
        "test": f'pytest theory/test_ladder.py -k "{claim.id}"',
        "own_test": own_test.as_posix() if (ROOT / own_test).exists() else None,
    }


def group_verdict(verdicts: Sequence[str]) -> str:
    """The verdict on one of the paper's claims, from those of the theorems that decide it."""
    repaired = [verdict for verdict in verdicts if verdict != Verdict.REFUTED]
    if not verdicts:
        return "open"
    if not repaired:
        return str(Verdict.REFUTED)
    if len(repaired) < len(verdicts):
        return "refuted as stated, proved after repair"
    return str(Verdict.REPAIRED) if Verdict.REPAIRED in verdicts else str(Verdict.PROVED)


def _rung(record: Mapping[str, Any], rung: Rung) -> Mapping[str, Any] | None:
    return next((entry for entry in record["rungs"] if entry["rung"] == rung), None)


def worst_number(record: Mapping[str, Any], rungs: Sequence[Rung]) -> dict[str, Any] | None:
    """The deciding outcome with the largest ratio among some rungs, without its witness."""
    found = [entry["worst"] for entry in (_rung(record, rung) for rung in rungs) if entry and entry["worst"]]
    if not found:
        return None
    chosen = max(found, key=lambda outcome: float(outcome["ratio"]))
    return {name: chosen[name] for name in ("label", "measured", "bound", "ratio")}


def _headline(members: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The true theorem that speaks for a group: sharp before not sharp, a repair of the paper before an addition."""
    true = [record for record in members if record["verdict"] != Verdict.REFUTED]
    rank = {tightness: place for place, tightness in enumerate(TIGHTNESS_ORDER)}
    return min(
        true,
        key=lambda record: (record["verdict"] != Verdict.REPAIRED, rank[Tightness(record["tightness"])]),
        default=None,
    )


def group_record(
    group: str, members: Sequence[Mapping[str, Any]], numbers: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """One of the paper's claims: its verdict, its headline theorem's numbers, and the numbers of the studies."""
    headline = _headline(members)
    # The paper's own statement before the variants of it that fail as well.
    refuted = sorted(
        (record for record in members if record["verdict"] == Verdict.REFUTED),
        key=lambda record: record["id"] != f"{group}{STATED}",
    )
    return {
        "id": group,
        "title": theory.PAPER_CLAIMS[group],
        "verdict": group_verdict([record["verdict"] for record in members]),
        "passed": all(record["passed"] for record in members),
        "claims": [record["id"] for record in members],
        "headline": headline and headline["id"],
        "theory": headline and headline["theory"],
        "network": headline and headline["network"],
        "counterexample": {"id": refuted[0]["id"], **refuted[0]["theory"]}
        if refuted and refuted[0]["theory"]
        else None,
        "numbers": [dict(number) for number in numbers if number["group"] == group],
    }


def claim_record(claim: Claim, rungs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A claim with the rungs that were climbed."""
    record = {
        **describe_claim(claim),
        "passed": all(rung["passed"] for rung in rungs),
        "failures": [f"{rung['rung']}: {line}" for rung in rungs for line in rung["failures"]],
        "rungs": [{name: value for name, value in rung.items() if name != "ratios"} for rung in rungs],
    }
    # The explicit counterexample says more than the largest ratio that a search drove to infinity.
    refuted = claim.verdict is Verdict.REFUTED
    record["theory"] = worst_number(record, (Rung.WITNESS,) if refuted else (Rung.WITNESS, Rung.ATTACK))
    record["network"] = worst_number(record, (Rung.REALITY,))
    return record


def figure_data(record: Mapping[str, Any], rungs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the claim's figure is drawn from."""
    return {
        "id": record["id"],
        "group": record["group"],
        "title": record["title"],
        "statement": record["statement"],
        "verdict": record["verdict"],
        "tightness": record["tightness"],
        "rows": [
            {
                "rung": rung["rung"],
                "expected": rung["expected"],
                "ratios": rung["ratios"],
                "worst": rung["worst"]["ratio"],
            }
            for rung in rungs
            if rung["worst"] is not None
        ],
    }


def current_commit() -> str | None:
    """The commit of the checkout that this code lies in, with "+" if it has changes; None outside a checkout."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
            # To look must not take the lock that somebody's commit needs.
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
        return done.stdout.strip()

    try:
        # A package installed inside somebody else's checkout is not at that checkout's commit.
        if Path(git("rev-parse", "--show-toplevel")).resolve() != ROOT:
            return None
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--", "theory", "experiments") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def build_audit(
    records: Sequence[Mapping[str, Any]], figures: Sequence[Mapping[str, Any]], run: Mapping[str, Any]
) -> dict[str, Any]:
    """The content of audit.json.

    Args:
        records: from `claim_record`.
        figures: name, groups, caption, alt and numbers of every figure.
        run: settings, versions, device, clip and whatever else describes the run.
    """
    numbers = [number for figure in figures for number in figure["numbers"]]
    groups = [group for group in theory.PAPER_CLAIMS if any(record["group"] == group for record in records)]
    return {
        "format": FORMAT,
        **library_versions(("framebound",)),
        "commit": current_commit(),
        **run,
        "passed": all(record["passed"] for record in records),
        "failures": [f"{record['id']}: {line}" for record in records for line in record["failures"]],
        "paper_claims": [
            group_record(group, [record for record in records if record["group"] == group], numbers) for group in groups
        ],
        "claims": list(records),
        "figures": [{name: figure[name] for name in ("name", "groups", "caption", "alt")} for figure in figures],
    }
