"""audit.json: every claim with its verdict and the numbers behind it, theory and recorded evidence side by side.

It holds no timings and no dates, so two runs with one seed on one machine write the same bytes.
"""

import math
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from experiments.report.outcomes import json_number
from experiments.report.schema import RESULTS_FORMAT
from experiments.store import ROOT, library_versions
from theory.claim import Claim, Origin, Tells, Verdict
from theory.ladder import Rung
from theory.readings import PAPER, Reading, headline

TELLING = (Tells.TEST, Tells.IMPLIED)
"""What counts as evidence, the most telling first; an identity, which any numbers satisfy, counts for nothing."""
QUOTED = ("label", "measured", "bound", "ratio", "budget")
"""What is quoted of an outcome."""
NETWORK, ELSEWHERE = (Origin.NETWORK,), (Origin.CLIP, Origin.CONSTRUCTED)


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
        "sharpness": claim.sharpness,
        "measured_in_words": claim.measured_in_words,
        "bound_in_words": claim.bound_in_words,
        "origin": claim.origin,
        "assurance": str(claim.assurance),
        "formal": claim.formal,
        "enclosure": claim.enclosure,
        "relies_on": list(claim.relies_on),
        "lemmas": list(claim.lemmas),
        "definitional": dict(claim.definitional),
        "no_network": claim.no_network,
        "file": file.as_posix(),
        "test": f'pytest theory/test_ladder.py -k "{claim.id}"',
        "own_test": own_test.as_posix() if (ROOT / own_test).exists() else None,
    }


def _rung(record: Mapping[str, Any], rung: Rung) -> Mapping[str, Any] | None:
    return next((entry for entry in record["rungs"] if entry["rung"] == rung), None)


def worst_number(record: Mapping[str, Any], rungs: Sequence[Rung]) -> dict[str, Any] | None:
    """The deciding outcome with the largest ratio among some rungs, without its witness."""
    found = [entry["worst"] for entry in (_rung(record, rung) for rung in rungs) if entry and entry["worst"]]
    if not found:
        return None
    chosen = max(found, key=lambda outcome: float(outcome["ratio"]))
    return {name: chosen[name] for name in QUOTED}


def evidence_number(comparisons: Sequence[Mapping[str, Any]], origins: Sequence[Origin]) -> dict[str, Any] | None:
    """The comparison that is quoted of those on evidence of some origins; None where none can tell anything.

    Tests before what is implied, and among those the largest ratio.
    """
    for tells in TELLING:
        found = [entry for entry in comparisons if entry["origin"] in origins and entry["tells"] == tells]
        if found:
            chosen = max(found, key=lambda entry: float(entry["worst"]["ratio"]))
            words = {name: chosen[name] for name in ("question", "origin", "tells", "expected", "passed")}
            return words | {name: chosen["worst"][name] for name in QUOTED}
    return None


def _with_noticed(
    comparisons: Sequence[Mapping[str, Any]], noticed: Sequence[Mapping[str, Any]] | None
) -> list[dict[str, Any]]:
    """The comparisons, each test with the scrambled evidence that it noticed; None where that was not recorded."""
    known = {(entry["question"], entry["origin"]): entry["noticed"] for entry in noticed or ()}
    return [{**entry, "noticed": known.get((entry["question"], entry["origin"]))} for entry in comparisons]


def claim_record(
    claim: Claim,
    rungs: Sequence[Mapping[str, Any]],
    noticed: Sequence[Mapping[str, Any]] | None = None,
    *,
    tests_bind: bool = True,
) -> dict[str, Any]:
    """A claim with the rungs that were climbed.

    Args:
        noticed: for each comparison that calls itself a test, on which scrambled evidence it came out otherwise
            (`question`, `origin`, `noticed`: name -> bool); None where no scrambled evidence was recorded.
        tests_bind: whether a test that notices nothing fails the claim; see `ladder.run_reality`.
    """
    reality = next((rung for rung in rungs if rung["rung"] == Rung.REALITY), None)
    comparisons = _with_noticed(reality["comparisons"] if reality else (), noticed)
    unnoticed = [
        f"{Rung.REALITY}: {entry['question']} calls itself a test, and comes out as declared on every scrambled "
        "evidence"
        for entry in comparisons
        if tests_bind and entry["tells"] == Tells.TEST and entry["noticed"] is not None and not any(entry["noticed"].values())
    ]
    failures = [f"{rung['rung']}: {line}" for rung in rungs for line in rung["failures"]] + unnoticed
    dropped = ("ratios", "comparisons")
    record = {
        **describe_claim(claim),
        "passed": all(rung["passed"] for rung in rungs) and not unnoticed,
        "failures": failures,
        "rungs": [{name: value for name, value in rung.items() if name not in dropped} for rung in rungs],
        "comparisons": None if reality is None else comparisons,
        "network": evidence_number(comparisons, NETWORK),
        "elsewhere": evidence_number(comparisons, ELSEWHERE),
    }
    # One number refutes one constant; a statement that some constant exists is refuted by a family, and its least
    # ratio counts.
    refuted = claim.verdict is Verdict.REFUTED
    record["theory"] = worst_number(record, (Rung.PROPERTY,) if refuted else (Rung.WITNESS, Rung.ATTACK))
    return record


def reading_record(reading: Reading, records: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """One reading of a claim of the paper, and whether this run checked everything that decides it."""
    checked = [name for name in reading.decided_by if name in records]
    return {
        "name": reading.name,
        "text": reading.text,
        "decision": str(reading.decision),
        "constant": reading.constant,
        "decided_by": list(reading.decided_by),
        "checked": checked,
        "complete": len(checked) == len(reading.decided_by),
        "passed": all(records[name]["passed"] for name in checked),
    }


def deciding_claims(readings: Sequence[Reading]) -> list[str]:
    """Ids of the theorems that decide some of the readings, each once."""
    return list(dict.fromkeys(name for reading in readings for name in reading.decided_by))


def group_record(
    group: str, records: Mapping[str, Mapping[str, Any]], numbers: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """One of the paper's claims, reading by reading, and the numbers of the studies.

    Its verdict is the headline of its readings if the run checked every theorem that decides one, and None otherwise.

    Args:
        records: of the run's claims, by id.
        numbers: of every study; those of this group are taken.
    """
    paper = PAPER[group]
    members = [record for record in records.values() if record["group"] == group]
    needed = deciding_claims(paper.readings)
    checked = [name for name in needed if name in records]
    comparisons = [entry for record in members for entry in record["comparisons"] or ()]
    on_network = [entry for entry in comparisons if entry["origin"] in NETWORK and entry["tells"] in TELLING]
    return {
        "id": group,
        "title": paper.title,
        "known_from": paper.known_from,
        "verdict": headline(paper.readings) if len(checked) == len(needed) else None,
        "checked": len(checked),
        "needed": len(needed),
        "missing": [name for name in needed if name not in records],
        "passed": all(record["passed"] for record in members),
        "claims": [record["id"] for record in members],
        "readings": [reading_record(reading, records) for reading in paper.readings],
        "network": {
            str(tells): {
                "asked": sum(entry["tells"] == tells for entry in on_network),
                "passed": sum(entry["tells"] == tells and entry["passed"] for entry in on_network),
            }
            for tells in TELLING
        },
        "numbers": [dict(number) for number in numbers if number["group"] == group],
    }


def figure_data(record: Mapping[str, Any], rungs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the claim's figure is drawn from: a row for each rung, and for each kind of evidence."""
    rows = [
        {"rung": rung["rung"], "expected": rung["expected"], "ratios": rung["ratios"], "worst": rung["worst"]["ratio"]}
        for rung in rungs
        if rung["worst"] is not None
    ]
    kinds: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for entry in record["comparisons"] or ():
        kinds.setdefault((entry["origin"], entry["tells"], entry["expected"]), []).append(entry)
    for (origin, tells, expected), entries in kinds.items():
        ratios = sorted(float(outcome["ratio"]) for entry in entries for outcome in entry["outcomes"])
        rows.append(
            {
                "rung": str(Rung.REALITY),
                "origin": origin,
                "tells": tells,
                "expected": expected,
                "ratios": [ratio for ratio in ratios if math.isfinite(ratio)],
                "worst": json_number(ratios[-1]),
            }
        )
    names = ("id", "group", "title", "statement", "verdict", "tightness")
    return {**{name: record[name] for name in names}, "rows": rows}


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
    by_id = {record["id"]: record for record in records}
    groups = [group for group in PAPER if any(record["group"] == group for record in records)]
    return {
        "format": RESULTS_FORMAT,
        **library_versions(("framebound",)),
        "commit": current_commit(),
        **run,
        "passed": all(record["passed"] for record in records),
        "failures": [f"{record['id']}: {line}" for record in records for line in record["failures"]],
        "paper_claims": [group_record(group, by_id, numbers) for group in groups],
        "claims": list(records),
        "figures": [{name: figure[name] for name in ("name", "groups", "caption", "alt")} for figure in figures],
    }
