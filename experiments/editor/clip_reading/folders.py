"""Which images of a folder are the clip: one series of numbered files, in the order of their numbers.

A folder that people have holds more than frames: masks, thumbnails, a second take, files of the operating system. A
guess among them gives a clip that nobody has seen, so anything but one series is refused with the names.
"""

import re
from dataclasses import dataclass
from pathlib import Path

TYPES = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".bmp": "BMP",
    ".webp": "WebP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".avif": "AVIF",
}
"""Suffixes of the images that are read, and the type that each is."""

_NUMBER = re.compile(r"(\d+)")
_SHOWN = 3


@dataclass(frozen=True)
class Series:
    """The images of a clip.

    Attributes:
        files: in order.
        notes: what was left out, and how the numbers run where they are not consecutive.
    """

    files: tuple[Path, ...]
    notes: tuple[str, ...]


def find_series(folder: Path) -> Series:
    """The one series of images in a folder, in the order of their numbers: 2.png comes before 10.png.

    Hidden files (names that begin with a dot, among them the ._ files that a Mac leaves on foreign disks) and files
    that are no images are left out, and said.

    Raises:
        ValueError: no images; images of two types; names of two patterns, without numbers, with equal numbers, or with
            numbers missing between them. The message names the files.
    """
    entries = sorted(folder.iterdir())
    hidden = [entry for entry in entries if entry.name.startswith(".")]
    visible = [entry for entry in entries if not entry.name.startswith(".")]
    images = [entry for entry in visible if entry.suffix.lower() in TYPES]
    others = [entry for entry in visible if entry.suffix.lower() not in TYPES]
    if not images:
        found = f" (it holds {_listed(others)})" if others else ""
        raise ValueError(f"{folder} holds no images{found}; the names must end in one of {', '.join(TYPES)}")
    for image in images:
        if not image.is_file():
            raise ValueError(f"{image} is no regular file; a folder of frames holds image files alone")
    notes = []
    if hidden:
        notes.append(f"left out {len(hidden)} hidden {_files(len(hidden))} ({_listed(hidden)})")
    if others:
        notes.append(f"left out {len(others)} {_files(len(others))} that are no images ({_listed(others)})")
    _require_one_type(folder, images)
    if len(images) == 1:
        return Series(tuple(images), tuple(notes))
    ordered, stride = _ordered(folder, images)
    if stride > 1:
        notes.append(f"the names count in steps of {stride}")
    return Series(tuple(ordered), tuple(notes))


def _require_one_type(folder: Path, images: list[Path]) -> None:
    by_type: dict[str, list[Path]] = {}
    for image in images:
        by_type.setdefault(TYPES[image.suffix.lower()], []).append(image)
    if len(by_type) > 1:
        found = " and ".join(f"{len(files)} {name} ({_listed(files)})" for name, files in by_type.items())
        raise ValueError(f"{folder} holds images of {len(by_type)} types: {found}; keep one type in a folder")


def _ordered(folder: Path, images: list[Path]) -> tuple[list[Path], int]:
    """The images in the order of their numbers, and the step from one number to the next."""
    patterns: dict[str, list[Path]] = {}
    for image in images:
        patterns.setdefault(_NUMBER.sub("#", image.stem), []).append(image)
    if len(patterns) > 1:
        found = " and ".join(f"{len(files)} named {name} ({_listed(files)})" for name, files in patterns.items())
        shown = found if len(patterns) <= _SHOWN else f"{len(patterns)} patterns of names ({_listed(images)})"
        raise ValueError(
            f"{folder} holds more than one series of images: {shown}; keep one series in a folder, its frames numbered"
        )
    numbers = {image: tuple(int(digits) for digits in _NUMBER.findall(image.stem)) for image in images}
    ordered = sorted(images, key=lambda image: numbers[image])
    for before, after in zip(ordered, ordered[1:], strict=False):
        if numbers[before] == numbers[after]:
            raise ValueError(
                f"{folder}: {before.name} and {after.name} have the same number; keep one series in a folder"
            )
    varying = [place for place in range(len(numbers[ordered[0]])) if len({row[place] for row in numbers.values()}) > 1]
    if len(varying) > 1:
        _require_growing(folder, ordered, [numbers[image] for image in ordered], varying)
        return ordered, 1
    counted = [numbers[image][varying[0]] for image in ordered]
    stride = min(after - before for before, after in zip(counted, counted[1:], strict=False))
    gaps = [place for place in range(len(counted) - 1) if counted[place + 1] - counted[place] != stride]
    if gaps:
        named = ", ".join(f"between {ordered[place].name} and {ordered[place + 1].name}" for place in gaps[:_SHOWN])
        raise ValueError(
            f"{folder}: numbers are missing in {len(gaps)} {'place' if len(gaps) == 1 else 'places'}, {named}; the"
            " frames on both sides are no neighbours in time: give a folder without gaps"
        )
    return ordered, stride


def _require_growing(folder: Path, ordered: list[Path], rows: list[tuple[int, ...]], varying: list[int]) -> None:
    """Several numbers may vary together, as frame and time stamp do, but not start again: that is a second series."""
    for place in varying:
        for index in range(len(rows) - 1):
            if rows[index + 1][place] < rows[index][place]:
                raise ValueError(
                    f"{folder} holds more than one series of images: after {ordered[index].name} the numbers start"
                    f" again with {ordered[index + 1].name}; keep one series in a folder"
                )


def _files(count: int) -> str:
    return "file" if count == 1 else "files"


def _listed(entries: list[Path]) -> str:
    names = ", ".join(entry.name for entry in entries[:_SHOWN])
    return names if len(entries) <= _SHOWN else f"{names}, .."
