"""The studies: one file per figure, with the measurement and the drawing of it side by side.

A study measures once and returns JSON data; the figure, its caption and its numbers are functions of that data alone,
so a figure can be redrawn from the JSON that is written beside it.
"""

import dataclasses
import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from experiments.stages import Context

Data = dict[str, Any]
NAMES = (
    "film_strip",
    "curvature",
    "descent",
    "adapter_descent",
    "round_trip",
    "hypotheses",
    "attribution",
    "reconstruction",
    "certified",
    "bilateral",
    "tokens",
)
LADDER = "ladder"
AUDIT_FIGURES = ("audit_step_sizes", "audit_round_trip")
"""Drawn from what `framebound audit` measured; no part of `framebound reproduce`."""


@dataclasses.dataclass(frozen=True)
class Number:
    """A number worth quoting beside the theorems.

    Attributes:
        name: what it is, with its unit if it has one.
        value: the number, or a word.
        kind: "proved", "certified" (for this input), "estimated" or "measured".
        group: the paper's claim it belongs to, "C1" to "C5".
    """

    name: str
    value: float | int | str
    kind: str
    group: str


@dataclasses.dataclass(frozen=True)
class Study:
    """One figure and the data behind it.

    Attributes:
        name: file stem of the figure.
        groups: the paper's claims it illustrates.
        needs: stages whose results it reads.
        settings: fields of Settings it reads.
        measure: the measurement; returns JSON data.
        draw, caption, alt, numbers: functions of that data.
    """

    name: str
    groups: tuple[str, ...]
    needs: tuple[str, ...]
    settings: tuple[str, ...]
    measure: "Callable[[Context], Data]"
    draw: "Callable[[Data], Figure]"
    caption: Callable[[Data], str]
    alt: Callable[[Data], str]
    numbers: Callable[[Data], Sequence[Number]] = lambda data: ()


def find_study(name: str) -> Study:
    """The study of this name, imported when asked for.

    Raises:
        ValueError: there is none; the message lists the names.
    """
    known = (*NAMES, LADDER, *AUDIT_FIGURES)
    if name not in known:
        raise ValueError(f"no study is called {name!r}; there are {', '.join(known)}")
    return importlib.import_module(f"experiments.studies.{name}").STUDY


def describe(study: Study, data: Data) -> Mapping[str, Any]:
    """Everything about a figure that its JSON file carries: the data, and the words that go with it."""
    return {
        "study": study.name,
        "groups": list(study.groups) or [data["group"]],
        "caption": study.caption(data),
        "alt": study.alt(data),
        "numbers": [dataclasses.asdict(number) for number in study.numbers(data)],
        "data": data,
    }
