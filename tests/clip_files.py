"""Small clips of the kinds that people have, written for the tests of the readers; every one is the same scene."""

import struct
import zlib

import av
import numpy as np
from av.video.frame import VideoFrame
from PIL import Image

WEIGHTS = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}


def scene(count=4, height=24, width=36):
    """uint8 (frames, height, width, 3): a red corner and a moving bar, so that order, turn and colour can be told."""
    frames = np.empty((count, height, width, 3), dtype=np.uint8)
    frames[:] = (30, 90, 150)
    frames[:, : height // 3, : width // 4] = (220, 40, 20)
    for index in range(count):
        frames[index, height // 2 : height // 2 + 4, 2 + 4 * index : 6 + 4 * index] = (240, 230, 60)
    return frames


def write_images(folder, frames, name="frame_{:03d}.png", **options):
    """One image a frame; returns the folder."""
    folder.mkdir(exist_ok=True)
    for index, frame in enumerate(frames):
        image = frame if isinstance(frame, Image.Image) else Image.fromarray(np.ascontiguousarray(frame))
        image.save(folder / name.format(index), **options)
    return folder


def planes(frame, matrix, bits=8):
    """RGB of 8 bits -> (3, height, width) of the standard's own formula in limited range, 4:4:4."""
    red, blue = WEIGHTS[matrix]
    r, g, b = np.moveaxis(frame / 255, -1, 0)
    y = red * r + (1 - red - blue) * g + blue * b
    u, v = (b - y) / (2 - 2 * blue), (r - y) / (2 - 2 * red)
    step = 2 ** (bits - 8)
    levels = np.stack([16 * step + 219 * step * y, 128 * step + 224 * step * u, 128 * step + 224 * step * v])
    return np.rint(levels).astype(np.uint8 if bits == 8 else np.uint16)


def write_video(
    path,
    frames,
    codec="libx264rgb",
    pixel_format="rgb24",
    *,
    rate=8,
    times=None,
    matrix=None,
    aspect=None,
    tags=(),
    options=None,
    metadata=(),
    ready=None,
):
    """Encodes frames without loss.

    Args:
        times: of the frames, in units of 1 / rate; None is 0, 1, 2, ..
        matrix: (a, b, c, d) of the display matrix.
        aspect: width over height of a pixel, a Fraction.
        tags: attributes of codec context and frames, such as color_trc.
        ready: format in which `frames` are given, planes and all.
    """
    lossless = {"libx264": {"crf": "0"}, "libx264rgb": {"crf": "0"}, "libvpx-vp9": {"lossless": "1"}}
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=rate, options=options or lossless.get(codec, {}))
        first = to_frame(frames[0], ready)
        stream.width, stream.height, stream.pix_fmt = first.width, first.height, pixel_format
        if times is not None:
            stream.codec_context.time_base = stream.time_base = 1 / stream.average_rate
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        for name, value in dict(tags).items():
            setattr(stream.codec_context, name, value)
        for name, value in dict(metadata).items():
            stream.metadata[name] = value
        if matrix is not None:
            a, b, c, d = (int(round(65536 * value)) for value in matrix)
            stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
        for index, frame in enumerate(frames):
            picture = to_frame(frame, ready)
            for name, value in dict(tags).items():
                setattr(picture, name, value)
            picture.pts = index if times is None else times[index]
            picture.time_base = 1 / stream.average_rate
            out.mux(stream.encode(picture))
        out.mux(stream.encode())
    return path


def to_frame(values, ready):
    if ready is None:
        layout = {3: "rgb24", 4: "rgba"}[values.shape[2]]
        return VideoFrame.from_ndarray(np.ascontiguousarray(values), format=layout)
    if values.dtype == np.uint8:
        return VideoFrame.from_ndarray(np.ascontiguousarray(values), format=ready)
    frame = VideoFrame(values.shape[2], values.shape[1], ready)
    for plane, level in zip(frame.planes, values, strict=True):
        rows = np.zeros((plane.height, plane.line_size // 2), "<u2")
        rows[:, : level.shape[1]] = level
        plane.update(rows)
    return frame


def png_header(path, width, height):
    """A PNG that states a size and holds next to nothing."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )


def sixteen_bit_png(path, values):
    """A PNG of 16 bits a channel, which Pillow does not write in colour; values (height, width, channels)."""
    height, width, channels = values.shape

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    rows = b"".join(b"\x00" + row.astype(">u2").tobytes() for row in values)
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
