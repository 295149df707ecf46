"""Videos in and out: reading is `clip_reading`; mp4 and gif are written through PyAV, folders of images through Pillow.

A video is a float32 array (frames, height, width, 3), RGB in [0, 1]. Files hold 8 bits a channel, so a folder of PNG
images returns every frame within 1/510 of what was written; gif keeps 256 colours a frame and mp4 is lossy.
"""

import os
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from experiments.editor.clip_reading import read_clip
from experiments.files import whole_file, whole_folder

VIDEO_SUFFIXES = (".mp4", ".gif")
# Best first: H.264 is what browsers play, MPEG-4 part 2 is in every build of FFmpeg. crf 12 and q 2 are near the top of
# their scales: a clip of 32 x 32 pixels has no detail to spare.
MP4_ENCODERS = (
    ("libx264", {"crf": "12", "preset": "medium"}),
    ("libopenh264", {"b": "4000000"}),
    ("mpeg4", {"q": "2"}),
)
FRAME_NAME = "frame_{:05d}.png"


def read_video(
    path: str | os.PathLike[str],
    *,
    size: int | None = None,
    max_frames: int | None = None,
    min_frames: int = 1,
) -> np.ndarray:
    """The frames of `clip_reading.read_clip`, which also says what was done to get them: arguments and errors there.

    Returns:
        float32 (frames, height, width, 3), RGB in [0, 1].

    Raises:
        ValueError: what `read_clip` raises.
    """
    return read_clip(path, size=size, max_frames=max_frames, min_frames=min_frames).frames


def write_video(path: str | os.PathLike[str], frames: np.ndarray, *, frames_per_second: float = 25) -> None:
    """Encodes a video; the file or folder appears whole or not at all.

    Args:
        path: ends in .mp4 (H.264 where FFmpeg has an encoder, else MPEG-4) or .gif (a palette a frame), or
            has no suffix: then a folder of PNG images frame_00000.png, .. that replaces an earlier such folder.
        frames: (frames, height, width, 3) floating, RGB in [0, 1]; rounded to 8 bits.
        frames_per_second: ignored for folders. Gif counts in hundredths of a second: divisors of 100 are exact.

    Raises:
        ValueError: wrong shape or dtype, values that are not finite or outside [0, 1], an unknown suffix, a rate that
            is not positive, a missing parent folder, or a folder at `path` that holds anything else than such images.
    """
    path = Path(path)
    images = _to_bytes(frames)
    if not (np.isfinite(frames_per_second) and frames_per_second > 0):
        raise ValueError(f"frames_per_second = {frames_per_second} must be positive and finite; 25 is usual")
    suffix = path.suffix.lower()
    if suffix == "":
        _write_folder(path, images)
        return
    if suffix not in VIDEO_SUFFIXES:
        raise ValueError(
            f"{path}: cannot write {suffix}; end the name in .mp4 or .gif, or give no suffix for a folder of images"
        )
    # Container time bases are 32-bit fractions.
    rate = Fraction(frames_per_second).limit_denominator(65535)
    with whole_file(path) as temporary:
        if suffix == ".gif":
            _encode(temporary, "gif", "gif", {}, "pal8", rate, map(_palette_frame, images))
        else:
            # 4:2:0 halves the colour planes, which needs even sides.
            pixel_format = "yuv420p" if images.shape[1] % 2 == 0 and images.shape[2] % 2 == 0 else "yuv444p"
            encoder, options = _mp4_encoder(pixel_format, images.shape)
            rgb = (av.VideoFrame.from_ndarray(image, format="rgb24") for image in images)
            _encode(temporary, "mp4", encoder, options, pixel_format, rate, rgb)


def _to_bytes(frames: np.ndarray) -> np.ndarray:
    frames = np.asarray(frames)
    if frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise ValueError(f"frames have shape {frames.shape}; expected (frames, height, width, 3), none of them 0")
    if not np.issubdtype(frames.dtype, np.floating):
        raise ValueError(f"frames have dtype {frames.dtype}; expected floating in [0, 1] (divide 8-bit frames by 255)")
    not_finite = np.count_nonzero(~np.isfinite(frames))
    if not_finite:
        raise ValueError(f"frames hold {not_finite} values that are not finite; all must lie in [0, 1]; mend them")
    low, high = frames.min(), frames.max()
    if low < 0 or high > 1:
        raise ValueError(f"frames lie in [{low:.6g}, {high:.6g}]; expected [0, 1]; clip or rescale them first")
    return np.rint(frames * 255).astype(np.uint8)


def _write_folder(path: Path, images: np.ndarray) -> None:
    if path.is_dir():
        strangers = [entry.name for entry in path.iterdir() if not re.fullmatch(r"frame_\d+\.png", entry.name)]
        if strangers:
            raise ValueError(f"{path} holds {strangers[0]!r}, which is not a frame; give an empty or a new folder")
    with whole_folder(path) as temporary:
        for index, image in enumerate(images):
            Image.fromarray(image).save(temporary / FRAME_NAME.format(index))


def _mp4_encoder(pixel_format: str, shape: tuple[int, ...]) -> tuple[str, dict[str, str]]:
    for name, options in MP4_ENCODERS:
        try:
            codec = av.Codec(name, "w")
        except av.codec.codec.UnknownCodecError:
            continue
        if pixel_format in {supported.name for supported in codec.video_formats or ()}:
            return name, options
    raise ValueError(
        f"frames of {shape[1]} x {shape[2]} pixels need {pixel_format}, which no mp4 encoder here offers;"
        " use even sides, or write .gif"
    )


def _palette_frame(image: np.ndarray) -> av.VideoFrame:
    indexed = Image.fromarray(image).quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    colours = np.asarray(indexed.getpalette(), dtype=np.uint8).reshape(-1, 3)
    palette = np.full((256, 4), 255, dtype=np.uint8)  # alpha, red, green, blue
    palette[: len(colours), 1:] = colours
    return av.VideoFrame.from_ndarray((np.asarray(indexed), palette), format="pal8")


def _encode(
    path: Path,
    container_format: str,
    codec: str,
    options: dict[str, str],
    pixel_format: str,
    rate: Fraction,
    frames: Iterator[av.VideoFrame],
) -> None:
    with av.open(str(path), "w", format=container_format) as container:
        stream = None
        for index, frame in enumerate(frames):
            if stream is None:
                stream = container.add_stream(codec, rate=rate, options=options)
                stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, pixel_format
            frame.pts = index
            frame.time_base = 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
