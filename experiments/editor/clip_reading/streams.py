"""Video files through FFmpeg, as a player shows them: turned, in square pixels, with the colours that their tags mean.

FFmpeg is handed an open file and may open no other: its playlists (ffconcat, HLS, image patterns) and network protocols
are not among the containers that it is allowed to find in the file.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace
from av.video.stream import VideoStream

from experiments.editor.clip_reading.geometry import matrix_turn, turn
from experiments.editor.clip_reading.pictures import Picture, Remarks, Source, on_white, require_pixels

CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2",
    "matroska,webm",
    "avi",
    "gif",
    "mpegts",
    "mpeg",
    "mpegvideo",
    "flv",
    "ogg",
    "asf",
    "mxf",
    "nut",
    "dv",
    "ivf",
    "obu",
    "h264",
    "hevc",
    "m4v",
    "yuv4mpegpipe",
)
"""FFmpeg's demuxers that read one file and nothing else."""

MOST_PACKETS = 1_000_000
PLAYLISTS = (b"ffconcat version", b"#EXTM3U", b"<MPD", b"<?xml")
_HDR = {16: "PQ (SMPTE ST 2084)", 18: "HLG (ARIB STD-B67)"}
_WIDE_GAMUT = {9: "BT.2020", 11: "DCI-P3", 12: "Display P3"}
_UNSPECIFIED = 2
_MATRICES = {0, 1, 2, 4, 5, 6, 7, 9}
"""Matrix coefficients of ITU-T H.273 that FFmpeg's scaler converts: RGB, BT.709, BT.601 and kin, BT.2020."""


def open_video(path: Path, remarks: Remarks) -> Source:
    """A video file, one picture a frame.

    Raises:
        ValueError: no video in it, or a container that is not read; when a picture is taken, one that is damaged, too
            large, or of a colour space that is not known.
    """
    beginning = _beginning(path)
    if beginning.lstrip().startswith(PLAYLISTS):
        raise ValueError(f"{path} is a playlist, which names other files; give the video itself")
    with path.open("rb") as file, _container(path, file) as container:
        stream = _shown_stream(path, container, remarks)
        require_pixels(str(path), stream.codec_context.width, stream.codec_context.height)
        total = stream.frames
    if total:
        return Source("video", total, "by the file's index", _pictures(path, total, remarks))
    total = _count_packets(path)
    return Source("video", total, "by its packets", _pictures(path, None, remarks))


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(64)


def _container(path: Path, file) -> av.container.InputContainer:
    try:
        return av.open(file, options={"format_whitelist": ",".join(CONTAINERS), "protocol_whitelist": "none"})
    except (av.error.FFmpegError, OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} cannot be decoded as a video ({error}): it is damaged or of another type; give an intact mp4, mov,"
            " webm, mkv, avi or gif, an animated WebP, PNG or TIFF, or a folder of images"
        ) from error


def _shown_stream(path: Path, container: av.container.InputContainer, remarks: Remarks | None) -> VideoStream:
    """The stream that a player shows: not the cover picture, the first of several."""
    streams = [
        stream for stream in container.streams.video if not stream.disposition & av.stream.Disposition.attached_pic
    ]
    if not streams:
        raise ValueError(f"{path} holds no video stream; give a video file")
    if streams[0].codec_context is None:
        raise ValueError(f"{path} has video of a codec that this FFmpeg does not decode; convert it to H.264 first")
    if len(streams) > 1 and remarks is not None:
        remarks.warn(f"the first of {len(streams)} video streams is read")
    if any(name.lower() == "alpha_mode" and value == "1" for name, value in streams[0].metadata.items()):
        raise ValueError(
            f"{path} carries its transparency in a second layer (alpha_mode = 1), which this decoder does not read;"
            f" make images of it: ffmpeg -c:v libvpx-vp9 -i {path.name} frames/%05d.png"
        )
    return streams[0]


def _count_packets(path: Path) -> int | None:
    """The number of packets with data, which is that of the frames; None above `MOST_PACKETS` or if damaged."""
    with path.open("rb") as file, _container(path, file) as container:
        stream = _shown_stream(path, container, None)
        count = 0
        try:
            for packet in container.demux(stream):
                count += packet.size > 0
                if count > MOST_PACKETS:
                    return None
        except av.error.FFmpegError:
            return None
        return count


def _pictures(path: Path, total: int | None, remarks: Remarks) -> Iterator[Picture]:
    with path.open("rb") as file, _container(path, file) as container:
        stream = _shown_stream(path, container, remarks)
        aspect = _pixel_aspect(stream)
        shown, last = 0, 0.0
        # Seconds that the header promises, and that a frame lasts.
        promised = (container.duration or 0) / av.time_base
        lasting = float(1 / stream.average_rate) if stream.average_rate else 0.0
        try:
            for frame in container.decode(stream):
                name = f"frame {shown} of {path.name}"
                require_pixels(name, frame.width, frame.height)
                if frame.is_corrupt:
                    raise ValueError(f"{name} is damaged; copy the file again, or cut it before that frame")
                yield _picture(frame, aspect, name, remarks)
                shown, last = shown + 1, frame.time or 0.0
        except av.error.FFmpegError as error:
            raise ValueError(
                f"{path} cannot be decoded as a video after {shown} frames ({error}): it is damaged or cut off; give an"
                " intact file, or a folder of images"
            ) from error
    if total is not None and shown < total:
        remarks.warn(f"{shown} of the {total} frames in the file's index can be shown; the file may be cut off")
    elif last + 2 * lasting < 0.9 * promised:
        remarks.warn(f"the frames end after {last:.3g} of {promised:.3g} seconds; the file may be cut off")


def _pixel_aspect(stream: VideoStream) -> float:
    """Width over height of a stored pixel; the container's word counts before the codec's."""
    for stated in (stream.sample_aspect_ratio, stream.codec_context.sample_aspect_ratio):
        if stated:
            return float(stated)
    return 1.0


def _picture(frame: VideoFrame, aspect: float, name: str, remarks: Remarks) -> Picture:
    matrix = _matrix(frame, name, remarks)
    bits = max(component.bits for component in frame.format.components)
    has_alpha = frame.format.name == "pal8" or any(component.is_alpha for component in frame.format.components)
    wide = bits > 8 and frame.format.name != "pal8"
    if frame.format.name.endswith(("f32le", "f32be", "f16le", "f16be")):
        raise ValueError(
            f"{name} has floating-point pixels ({frame.format.name}), whose white no tag states; convert it"
        )
    layout = ("rgba" if has_alpha else "rgb") + (
        ("64le" if has_alpha else "48le") if wide else ("" if has_alpha else "24")
    )
    values = frame.to_ndarray(format=layout, src_colorspace=matrix)
    white = 65535 if wide else 255
    if wide:
        remarks.note(f"{bits} bits a channel")
    if has_alpha:
        if (values[..., 3] != white).any():
            remarks.note("transparent pixels are laid on white, as browsers show them")
        values = on_white(values, white)
    if frame.interlaced_frame:
        remarks.warn(
            "the frames are interlaced and are taken as they are: deinterlace the video first (ffmpeg -vf bwdif)"
        )
    if aspect != 1:
        remarks.note(f"pixels of {aspect:.4g} : 1 are stretched to squares")
    matrix_data = frame.side_data.get("DISPLAYMATRIX")
    if matrix_data is not None:
        values, aspect = _turned(values, aspect, bytes(matrix_data), name, remarks)
    return Picture(values, white, aspect, frame.time, name)


def _matrix(frame: VideoFrame, name: str, remarks: Remarks) -> Colorspace | None:
    """The matrix to convert with where the tag does not say it; None leaves it to the tag. Odd colours are named."""
    stated, transfer, primaries = int(frame.colorspace), int(frame.color_trc), int(frame.color_primaries)
    if stated not in _MATRICES:
        raise ValueError(
            f"{name} has matrix coefficients {stated} (ITU-T H.273), which are not converted; make an ordinary video of"
            " it first"
        )
    if transfer in _HDR:
        remarks.warn(
            f"this is HDR video, {_HDR[transfer]}: its values are taken without tone mapping, and a player shows other"
            " colours; convert it to SDR first"
        )
    elif primaries in _WIDE_GAMUT:
        remarks.warn(
            f"the colours are tagged {_WIDE_GAMUT[primaries]} and are taken as if they were BT.709; a player shows them"
            " more saturated"
        )
    elif transfer == 8:
        remarks.warn("the video is tagged as linear light and is taken as it is; a player shows it brighter")
    if (
        stated != _UNSPECIFIED
        or frame.format.is_rgb
        or frame.format.name in ("gray", "gray10le", "gray12le", "gray16le")
    ):
        return None
    if frame.width >= 1280 or frame.height > 576:
        remarks.note("no colour matrix is stated: BT.709 is taken, as players do for HD")
        return Colorspace.ITU709
    return None


def _turned(values: np.ndarray, aspect: float, matrix: bytes, name: str, remarks: Remarks) -> tuple[np.ndarray, float]:
    # a b u, c d v, x y w: 16.16 fixed point, of which u, v, w play no part in a turn (ISO 14496-12, 8.3.2).
    a, b, _, c, d, *_ = struct.unpack("=9i", matrix)
    how = matrix_turn(a, b, c, d)
    if how is None:
        raise ValueError(f"{name} is to be shown turned by no right angle; turn it for good first (ffmpeg -i does)")
    if how != (False, False, False):
        remarks.note("turned as the file's display matrix asks")
    # Exchanging rows and columns lays the pixel on its side.
    return turn(values, *how), 1 / aspect if how[0] else aspect
