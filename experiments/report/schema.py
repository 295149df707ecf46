"""What an audit.json and a figure's JSON have to look like before anything is made of them.

Fields that no report shows are not described, and may hold anything.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from experiments.errors import UserError
from experiments.foreign_json import read_json, require

Name = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9_.-]{0,100}\Z")]
"""A file's stem: no separators, so it lies inside the folder that it is looked for in."""
ClaimId = Annotated[str, msgspec.Meta(pattern=r"\A[A-Z][0-9]{1,2}(\.[A-Za-z0-9-]{1,60})?\Z")]
Latex = Annotated[str, msgspec.Meta(max_length=2000)]
Finite = Annotated[float, msgspec.Meta(ge=-1.7e308, le=1.7e308)]
Ratio = Finite | Literal["infinity"]
PIPELINE_AUDIT = "pipeline audit"
"""What the `kind` of an audit's results is; those of the claims have none."""
RESULTS_FORMAT = 2
"""Of the audit.json of `framebound reproduce`; another number means that another version wrote it."""
_AGAIN = "write it again with `framebound reproduce`, or `framebound audit` for an audit"


class Outcome(msgspec.Struct):
    label: str
    measured: Finite
    bound: Finite
    ratio: Ratio


class Worst(Outcome):
    budget: Finite
    seed: int | None
    witness: dict[str, Any]


class Rung(msgspec.Struct):
    rung: str
    passed: bool
    expected: Literal["below", "above", "declared"]
    requires: str
    worst: Worst | None
    outcomes: list[Outcome]


class Hypothesis(msgspec.Struct):
    id: str
    text: str


Stamp = Literal["network", "clip", "constructed"]
Telling = Literal["identity", "implied", "test"]
Declared = Literal["holds", "violated"]


class Evidence(Outcome):
    question: str
    origin: Stamp
    tells: Telling
    expected: Declared
    passed: bool


class Asked(msgspec.Struct):
    question: str
    origin: Stamp
    tells: Telling
    expected: Declared
    because: str
    passed: bool
    broken: int
    worst: Outcome
    outcomes: list[Outcome]
    noticed: dict[str, bool] | None


class Claim(msgspec.Struct):
    id: ClaimId
    group: ClaimId
    title: str
    statement: str
    latex: Latex
    hypotheses: list[Hypothesis]
    verdict: str | None
    tightness: str
    sharpness: str
    measured_in_words: str
    bound_in_words: str
    origin: str
    assurance: str
    formal: str
    enclosure: str
    relies_on: list[ClaimId]
    lemmas: list[str]
    definitional: dict[str, str]
    no_network: str
    file: str
    test: str
    own_test: str | None
    passed: bool
    failures: list[str]
    rungs: list[Rung]
    comparisons: list[Asked] | None
    theory: Outcome | None
    network: Evidence | None
    elsewhere: Evidence | None
    figure: Name


class Number(msgspec.Struct):
    name: str
    value: Finite | int | str | None
    kind: str


class ReadingRecord(msgspec.Struct):
    name: str
    text: str
    decision: str
    constant: str
    decided_by: list[ClaimId]
    checked: list[ClaimId]
    complete: bool
    passed: bool


class Tally(msgspec.Struct):
    asked: int
    passed: int


class Group(msgspec.Struct):
    id: ClaimId
    title: str
    known_from: str
    verdict: str | None
    checked: int
    needed: int
    missing: list[ClaimId]
    passed: bool
    claims: list[ClaimId]
    readings: list[ReadingRecord]
    network: dict[str, Tally]
    numbers: list[Number]


class Figure(msgspec.Struct):
    name: Name
    caption: str
    alt: str


class GroupedFigure(Figure):
    groups: Annotated[list[str], msgspec.Meta(min_length=1)]


class Clip(msgspec.Struct):
    shape: Annotated[list[int], msgspec.Meta(min_length=4, max_length=4)]
    sha256: str


class PromptedClip(Clip):
    name: str
    source_prompt: str
    target_prompt: str


class Profile(msgspec.Struct):
    profile: str
    seed: int


class Results(msgspec.Struct):
    """audit.json of `framebound reproduce`."""

    settings: Profile
    device: str
    weights: str
    clip: PromptedClip
    commit: str | None
    versions: dict[str, str]
    passed: bool
    failures: list[str]
    paper_claims: list[Group]
    claims: list[Claim]
    figures: list[GroupedFigure]


class Answer(msgspec.Struct):
    id: Name
    question: str
    answer: str
    verdict: str | None
    mend: str | None
    numbers: list[Number]
    details: list[str]
    claims: list[str]


class Pixels(msgspec.Struct):
    dead: int
    count: int


class Certificate(msgspec.Struct):
    upper: Finite


class Features(msgspec.Struct):
    layer: str
    timestep: int
    problem: str | None
    norms: list[Finite | None]
    similarities: list[Finite | None]
    loss: Finite | None
    proved_step: Finite | None
    certificate: Certificate | None
    pixels: Pixels


class Level(msgspec.Struct):
    timestep: int
    loss: Finite
    sharpness: Finite
    along_gradient: Finite
    largest_safe_step: Finite
    smallest_unsafe_step: Finite | None


class Sharpness(msgspec.Struct):
    parameters: int
    fresh: bool
    levels: list[Level]


class Measured(msgspec.Struct):
    features: list[Features]
    sharpness: Sharpness


class LoadedAdapter(msgspec.Struct):
    parameters: int
    layers: int


class AuditedClip(Clip):
    unet_parameters: int
    adapter: LoadedAdapter | None


class AuditSettings(msgspec.Struct):
    video: str
    prompt: str
    num_steps: int
    dtype: str
    device: str


class PipelineAudit(msgspec.Struct):
    """audit.json of `framebound audit`."""

    settings: AuditSettings
    clip: AuditedClip
    commit: str | None
    versions: dict[str, str]
    digests: dict[str, str | None]
    kinds: dict[str, str]
    answers: list[Answer]
    passed: bool
    failures: list[str]
    figures: list[Figure]
    measured: Measured


class FigureData(msgspec.Struct):
    """NAME.json beside a figure."""

    study: Name
    groups: list[str]
    caption: str
    alt: str
    numbers: list[Number]
    data: dict[str, Any]


def read_results(path: Path, kind_of_audit: str) -> dict[str, Any]:
    """An audit.json, of either kind.

    Args:
        path: the file.
        kind_of_audit: what its "kind" says where `framebound audit` wrote it.

    Raises:
        UserError: it is no JSON, or none of the two.
    """
    content = read_json(path, _AGAIN)
    if not isinstance(content, dict):
        return require(content, Results, path, f"this is no audit.json that this version reads: {_AGAIN}")
    kind = PipelineAudit if content.get("kind") == kind_of_audit else Results
    # Of another version every field would be wrong; the format says it in one word.
    if kind is Results and "format" in content and content["format"] != RESULTS_FORMAT:
        raise UserError(
            f"{path} has format {repr(content['format'])[:20]}",
            limit=f"this version reads format {RESULTS_FORMAT}",
            remedy="write it again with `framebound reproduce`",
        )
    return require(content, kind, path, f"this is no audit.json that this version reads: {_AGAIN}")


def read_figure(path: Path) -> dict[str, Any] | None:
    """The data of a figure, or None where a JSON file is something else.

    Raises:
        UserError: it is no JSON, or says that it is a figure and lacks something.
    """
    content = read_json(path, "remove it, or write it again with `framebound reproduce`")
    if not isinstance(content, dict) or "study" not in content:
        return None
    return require(content, FigureData, path, "write it again with `framebound reproduce`")


def is_plain_name(name: str) -> bool:
    """Whether a name can be that of a figure."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,100}", name) is not None
