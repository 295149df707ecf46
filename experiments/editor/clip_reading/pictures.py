"""What every reader of clips gives: pictures in order, and remarks about what was done to them."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

MAX_PIXELS = 36_000_000
"""Of one picture, read off its header: more than 8K video (7680 x 4320). A square one takes about 1 GB on the way."""


@dataclass(frozen=True)
class Picture:
    """One picture as it is shown, up to the shape of its pixels.

    Attributes:
        values: (height, width, 3), integers or floats; `white` is what white has.
        white: see values.
        aspect: width of a pixel over its height.
        time: seconds from the start of the clip, None where the files do not say.
        name: what an error message calls it.
    """

    values: np.ndarray
    white: int
    aspect: float
    time: float | None
    name: str


@dataclass
class Remarks:
    """What a reader says about a clip, each thing once.

    Attributes:
        notes: what was done: turned, cropped, left out.
        warnings: what makes the frames differ from what the user's player shows, or doubtful.
    """

    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Adds a note unless it is there."""
        if text not in self.notes:
            self.notes.append(text)

    def warn(self, text: str) -> None:
        """Adds a warning unless it is there."""
        if text not in self.warnings:
            self.warnings.append(text)


@dataclass(frozen=True)
class Source:
    """A clip that has been opened but not decoded.

    Attributes:
        kind: "images", "pages" or "video", for messages.
        total: number of pictures in all, None where only decoding everything would tell.
        total_source: how `total` is known, for example "by the file's index"; "" where it was counted.
        pictures: yields them in order, decoded one at a time.
    """

    kind: str
    total: int | None
    total_source: str
    pictures: Iterator[Picture]


def require_pixels(name: str, width: int, height: int) -> None:
    """ValueError for a picture with more pixels than `MAX_PIXELS` or none, before anything is decoded."""
    if width < 1 or height < 1:
        raise ValueError(f"{name} is {width} x {height} pixels; at least 1 x 1 is needed")
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"{name} is {width} x {height} pixels, and at most {MAX_PIXELS} in all are read (8K video has 33 million);"
            " make it smaller first"
        )


def on_white(values: np.ndarray, white: int) -> np.ndarray:
    """(height, width, 4) with alpha last, laid on white as browsers show it: colour alpha + white (1 - alpha).

    Returns:
        float64 (height, width, 3), white still being `white`; the colours themselves where alpha is `white` throughout.
    """
    alpha = values[..., 3:]
    if (alpha == white).all():
        return values[..., :3]
    opacity = alpha / white
    return values[..., :3] * opacity + white * (1 - opacity)
