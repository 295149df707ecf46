"""Reading a clip: the frames as a viewer shows them, and what was done to get them."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.editor.clip_reading.folders import find_series
from experiments.editor.clip_reading.geometry import fit, whole
from experiments.editor.clip_reading.images import is_image, open_pages, open_series
from experiments.editor.clip_reading.neighbours import describe_neighbours
from experiments.editor.clip_reading.pictures import Picture, Remarks, Source
from experiments.editor.clip_reading.streams import open_video
from experiments.opened_files import record

MAX_BYTES = 2 << 30
"""Of all frames together, as float32."""


@dataclass(frozen=True)
class Clip:
    """The frames of a clip.

    Attributes:
        frames: float32 (frames, height, width, 3), RGB in [0, 1].
        notes: what was taken and what was done to it, in sentences without a full stop.
        warnings: what makes the frames differ from what the user's player shows, or doubtful as a clip.
        equal: indices k of frames that nowhere differ by more than half a step of 8 bits from frame k + 1.
        uneven: (k, seconds) where more time passes from frame k to k + 1 than between most neighbours, or less.
    """

    frames: np.ndarray
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    equal: tuple[int, ...]
    uneven: tuple[tuple[int, float], ...]

    @property
    def still(self) -> bool:
        """Whether all neighbours are equal: nothing moves."""
        return len(self.frames) > 1 and len(self.equal) == len(self.frames) - 1


def read_clip(
    path: str | os.PathLike[str], *, size: int | None = None, max_frames: int | None = None, min_frames: int = 1
) -> Clip:
    """Decodes a clip, one frame at a time.

    Args:
        path: a video file that FFmpeg decodes (mp4, mov, webm, gif, ..), an animated WebP, PNG or AVIF, a TIFF stack,
            or a folder with one series of images (see `folders.find_series`).
        size: crop every frame, as it is shown, to its central square and average it down to size x size, as
            `clips.resize_area` does; None keeps the frames as they are, in square pixels.
        max_frames: stop after this many frames.
        min_frames: fewer frames than this are an error; a temporal loss needs 3.

    Raises:
        ValueError: nothing at `path`, a pipe or device, a clip that cannot be decoded, is too large, has fewer than
            `min_frames` frames or frames of two sizes, or an argument out of range.
    """
    path = Path(path)
    _require_arguments(size, max_frames, min_frames)
    remarks = Remarks()
    source = open_clip(path, remarks)
    frames: list[np.ndarray] = []
    times: list[float | None] = []
    first: Picture | None = None
    last = ""
    for picture in source.pictures:
        if first is None:
            first = picture
            _require_memory(path, picture, size, source.total, max_frames)
        elif _shown_size(picture) != _shown_size(first):
            raise ValueError(
                f"{path}: {picture.name} is {_size_text(picture)} and {first.name} {_size_text(first)}; frames of one"
                " clip have one size: remove it, or bring them to one size"
            )
        shown = (
            whole(picture.values, picture.white, picture.aspect)
            if size is None
            else fit(picture.values, picture.white, picture.aspect, size)
        )
        frames.append(shown)
        times.append(picture.time)
        last = picture.name
        if len(frames) == max_frames:
            break
    if len(frames) < min_frames or first is None:
        found = "".join(f" ({text})" for text in remarks.warnings)
        raise ValueError(
            f"{path} has {len(frames)} frames and at least {min_frames} are needed{found}; give a longer video"
        )
    notes = [_count_text(source, len(frames), first.name, last), _size_note(first, size), *remarks.notes]
    equal, uneven, found = describe_neighbours(frames, times)
    return Clip(np.stack(frames), tuple(notes), (*remarks.warnings, *found), equal, uneven)


def open_clip(path: Path, remarks: Remarks) -> Source:
    """Opens a clip without decoding it.

    Raises:
        ValueError: see `read_clip`.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: no such file or folder ({error}); give a video file or a folder of images") from None
    if stat.S_ISDIR(mode):
        record(path)
        series = find_series(path)
        for text in series.notes:
            remarks.note(text)
        if len(series.files) == 1:
            return open_pages(series.files[0], remarks)
        return open_series(series.files, remarks)
    if not stat.S_ISREG(mode):
        raise ValueError(f"{path} is a pipe or a device, which may never end; give a file or a folder of images")
    record(path)
    with path.open("rb") as file:
        beginning = file.read(16)
    return open_pages(path, remarks) if is_image(beginning) else open_video(path, remarks)


def _require_arguments(size: int | None, max_frames: int | None, min_frames: int) -> None:
    if size is not None and size < 1:
        raise ValueError(f"size = {size} must be at least 1 pixel")
    if min_frames < 1:
        raise ValueError(f"min_frames = {min_frames} must be at least 1")
    if max_frames is not None and max_frames < min_frames:
        raise ValueError(f"max_frames = {max_frames} must be at least min_frames = {min_frames}")


def _require_memory(path: Path, picture: Picture, size: int | None, total: int | None, max_frames: int | None) -> None:
    """Refuses a clip whose frames would not fit, before the second one is decoded."""
    known = [count for count in (total, max_frames) if count is not None]
    if not known:
        return
    width, height = (size, size) if size is not None else _shown_size(picture)
    need = min(known) * width * height * 3 * np.dtype(np.float32).itemsize
    if need > MAX_BYTES:
        raise ValueError(
            f"{path}: {min(known)} frames of {width} x {height} pixels need {need / 2**30:.1f} GiB, and"
            f" {MAX_BYTES >> 30} are taken at most; take fewer frames or a smaller size"
        )


def _shown_size(picture: Picture) -> tuple[int, int]:
    height, width = picture.values.shape[:2]
    return max(1, round(width * picture.aspect)), height


def _size_text(picture: Picture) -> str:
    width, height = _shown_size(picture)
    return f"{width} x {height} pixels"


def _size_note(picture: Picture, size: int | None) -> str:
    width, height = _shown_size(picture)
    text = f"{width} x {height} pixels"
    if size is None:
        return text
    side = min(width, height)
    if width != height:
        text += f", cropped to the central {side} x {side}"
    if side != size:
        text += f", {'averaged down' if side > size else 'enlarged'} to {size} x {size}"
    return text


def _count_text(source: Source, taken: int, first: str, last: str) -> str:
    if source.kind == "video":
        which = ""
    else:
        which = f", {first} to {last}"
    if source.total is None:
        return f"the first {taken} frames{which}"
    how = f" ({source.total_source})" if source.total_source else ""
    if taken >= source.total:
        return f"all {taken} frames{which}"
    return f"the first {taken} of {source.total} frames{how}{which}"
