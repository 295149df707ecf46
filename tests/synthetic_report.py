"""A report on every claim as it would come out if all passed, without climbing a ladder or running a network."""

import dataclasses
import json
from pathlib import Path

import numpy as np

from experiments.report import audit as auditing
from experiments.report import outcomes
from experiments.studies import LADDER, describe, find_study
from experiments.studies.style import write_figure
from theory.claim import Expected, Outcome, Tells
from theory.ladder import Rung, RungResult

EVIL = '<script>alert("x")</script>'
RUN = {
    "settings": {"profile": "small", "seed": 0},
    "versions": {"python": "3"},
    "device": "cpu",
    "weights": "0" * 64,
    "clip": {"name": EVIL, "shape": [3, 16, 16, 3], "sha256": "0" * 64, "source_prompt": "a", "target_prompt": "b"},
    "adapter_effect": "A sentence.",
}
STRIP = {
    "groups": ["C1", "C2", "C3"],
    "caption": "strip",
    "alt": "strip",
    "numbers": [{"name": "norm", "value": 0.25, "kind": "measured", "group": "C1"}],
}


def outcome(label, ratio):
    return Outcome(label, ratio, 1.0, 1e-15, seed=3, witness={"frames": np.eye(2), "large": np.zeros(100)})


def evidence_of(comparison):
    """What a comparison that comes out as declared returns."""
    found = outcome(f"{comparison.origin} {EVIL}", 2.0 if comparison.expected is Expected.VIOLATED else 0.1)
    stamp = {name: getattr(comparison, name) for name in ("question", "origin", "tells", "expected")}
    return dataclasses.replace(found, **stamp)


def rungs(claim):
    """A ladder as it would come out for a claim that passes."""
    ratios = {outcomes.BELOW: 0.5, outcomes.ABOVE: 2.0}
    found = []
    for rung in Rung:
        if rung is Rung.REALITY:
            reached = tuple(map(evidence_of, claim.reality))
        else:
            reached = (outcome(f"{rung} {EVIL}", ratios[outcomes.expected_side(claim, rung)]),)
        found.append(outcomes.json_rung(claim, RungResult(rung, True, reached)))
    return found


def noticed(claim):
    """Scrambled evidence as every test of the claim would notice it."""
    return [
        {
            "question": entry.question,
            "origin": str(entry.origin),
            "noticed": {"white noise": True, "frames permuted": False},
        }
        for entry in claim.reality
        if entry.tells is Tells.TEST
    ]


def build(claims, studies=(), **run):
    """audit.json's content, and name and content of every claim's figure.

    Args:
        studies: name and content of every study's figure; by default a film strip without a picture of its own.
    """
    records, drawings = [], []
    for claim in claims:
        climbed = rungs(claim)
        records.append({**auditing.claim_record(claim, climbed, noticed(claim)), "figure": f"claim_{claim.id}"})
        drawings.append((f"claim_{claim.id}", describe(find_study(LADDER), auditing.figure_data(records[-1], climbed))))
    figures = [
        *(studies or [{"name": "film_strip", **STRIP}]),
        *({"name": name, **content} for name, content in drawings),
    ]
    return auditing.build_audit(records, figures, {**RUN, **run}), drawings


def write(folder: Path, claims, studies=(), **run):
    """A folder with audit.json and figures; one drawing stands for all."""
    result, drawings = build(claims, studies, **run)
    (folder / "figures").mkdir(parents=True)
    write_figure(folder / "figures", *drawings[0])
    picture = (folder / "figures" / f"{drawings[0][0]}.png").read_bytes()
    for figure in result["figures"]:
        (folder / "figures" / f"{figure['name']}.png").write_bytes(picture)
    (folder / "audit.json").write_text(json.dumps(result))
    return result
