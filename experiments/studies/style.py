"""Figures that are the same bytes at every run: the style file, the colours, and saving without dates."""

import contextlib
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.errors import reading
from experiments.files import sweep, write_bytes, write_text
from experiments.report.schema import read_figure
from experiments.store import canonical_json
from experiments.studies import find_study

STYLE_FILE = Path(__file__).with_name("framebound.mplstyle")

# Okabe and Ito, Color Universal Design (2008): distinguishable with every common form of colour blindness.
BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, BLACK, GREY = "#CC79A7", "#56B4E9", "#000000", "#767676"
BOUND = VERMILLION
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")

# A file that carries its date of creation differs between two runs.
_METADATA = {
    ".pdf": {"CreationDate": None, "Creator": "framebound", "Producer": None},
    ".png": {"Software": "framebound"},
}


@contextlib.contextmanager
def house_style() -> Iterator[None]:
    """The project's matplotlib style, over matplotlib's own defaults and not over the user's."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.style.use(STYLE_FILE)
        yield


def plain_number(value: float, digits: int = 3) -> str:
    """A number for a label: plain where that is short, as a power of ten otherwise."""
    if value == 0 or not np.isfinite(value):
        return f"{value:g}"
    exponent = int(np.floor(np.log10(abs(value))))
    if -3 <= exponent < 5:
        return f"{value:.{digits}g}" if exponent < digits else f"{value:.0f}"
    mantissa = value / 10.0**exponent
    return rf"${mantissa:.2g}\times10^{{{exponent}}}$"


def spread(count: int) -> np.ndarray:
    """Offsets in [-1/2, 1/2] that keep overlapping points apart: the golden-ratio sequence, the same at every run."""
    return (np.arange(count) * 0.6180339887498949) % 1.0 - 0.5


def bound_line(axes: Axes, **position: float) -> None:
    """A dashed line where the bound is, `x=` or `y=`."""
    for name, value in position.items():
        (axes.axvline if name == "x" else axes.axhline)(value, color=BOUND, linestyle="--", linewidth=1.4, zorder=1.5)


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write NAME.pdf and NAME.png."""
    for suffix, metadata in _METADATA.items():
        # In memory first: on a full disk the PDF writer hides the system's error behind one of its own.
        drawn = io.BytesIO()
        figure.savefig(drawn, format=suffix[1:], metadata=metadata)
        write_bytes(folder / f"{name}{suffix}", drawn.getvalue())


def write_figure(folder: Path, name: str, content: Mapping[str, Any]) -> None:
    """Draw a figure from what `describe` returned, and write NAME.json, NAME.pdf and NAME.png."""
    # Through JSON and back, so that a figure redrawn from its file is the same figure.
    text = canonical_json(content)
    data = json.loads(text)["data"]
    with house_style():
        save(find_study(content["study"]).draw(data), folder, name)
    write_text(folder / f"{name}.json", text)


def redraw(folder: Path, *, missing_only: bool = False) -> list[str]:
    """Draw every figure of a folder again from its JSON.

    Args:
        missing_only: leave alone the figures whose PDF and PNG are there.

    Returns:
        The names of the figures that were drawn.

    Raises:
        ValueError: the folder holds no figure's JSON, or a file that is not one.
    """
    sweep(folder)
    drawn, found = [], False
    for path in sorted(folder.glob("*.json")):
        content = read_figure(path)
        if content is None:
            continue
        found = True
        if missing_only and all((folder / f"{path.stem}{suffix}").is_file() for suffix in _METADATA):
            continue
        with reading(f"{path}, as the data of a figure,", "write it again with `framebound reproduce`"):
            write_figure(folder, path.stem, content)
        drawn.append(path.stem)
    if not found:
        raise ValueError(f"{folder} holds no figure data (NAME.json); write some with `framebound reproduce` first")
    return drawn
