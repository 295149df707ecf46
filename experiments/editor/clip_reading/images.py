"""Images through Pillow, as a viewer shows them: orientation, transparency, depth, palettes, colour profiles, pages.

A picture that Pillow would silently cut to 8 bits (16 bits a channel in colour) is decoded by FFmpeg instead.
"""

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageCms

from experiments.editor.clip_reading.geometry import exif_turn, turn
from experiments.editor.clip_reading.pictures import Picture, Remarks, Source, on_white, require_pixels

SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+", b"BM")
"""How the image types that Pillow reads begin; WebP and AVIF carry theirs a few bytes later."""

_ORIENTATION = 0x0112
_BITS_PER_SAMPLE = 258
_SRGB_GAMMA = 1 / 2.2


def is_image(beginning: bytes) -> bool:
    """Whether a file that begins so is one of the image types that are read."""
    return (
        beginning.startswith(SIGNATURES)
        or (beginning[:4] == b"RIFF" and beginning[8:12] == b"WEBP")
        or (beginning[4:8] == b"ftyp" and beginning[8:12] in (b"avif", b"avis"))
    )


def open_series(files: Sequence[Path], remarks: Remarks) -> Source:
    """Several images, one picture each.

    Raises:
        ValueError: when a picture is taken that cannot be decoded, has several pages, or has too many pixels.
    """
    return Source("images", len(files), "", _series(files, remarks))


def open_pages(file: Path, remarks: Remarks) -> Source:
    """The pages of one file: a TIFF stack, an animated WebP, PNG or AVIF; one page for an ordinary image.

    Raises:
        ValueError: it cannot be decoded, or a page has too many pixels.
    """
    with _opened(file) as image:
        require_pixels(str(file), *image.size)
        # An animated PNG may carry a picture for viewers that do not animate, which the others leave out.
        first = 1 if image.info.get("default_image") else 0
        count = _count(image, file)
    return Source("pages", count - first, "", _pages(file, range(first, count), remarks))


def _series(files: Sequence[Path], remarks: Remarks) -> Iterator[Picture]:
    depth: tuple[str, Path] | None = None
    for file in files:
        with _opened(file) as image:
            require_pixels(str(file), *image.size)
            count = _count(image, file)
            if count > 1:
                raise ValueError(
                    f"{file} holds {count} pictures, and the folder other images as well; give the file alone, or one"
                    " picture a file"
                )
            values, white = _decode(image, file, 0, remarks)
        own = "8 bits" if white == 255 else "floating point" if white == 1 else "16 bits"
        depth = depth or (own, file)
        if own != depth[0]:
            raise ValueError(f"{file} has {own} a channel and {depth[1].name} {depth[0]}; give frames of one type")
        yield Picture(values, white, 1.0, None, file.name)


def _pages(file: Path, pages: range, remarks: Remarks) -> Iterator[Picture]:
    time: float | None = 0.0
    with _opened(file) as image:
        for page in pages:
            with _named(file):
                image.seek(page)
            name = file.name if len(pages) == 1 else f"page {page} of {file.name}"
            require_pixels(name, *image.size)
            values, white = _decode(image, file, page, remarks)
            yield Picture(values, white, 1.0, time, name)
            # Milliseconds that the page is shown; a TIFF's pages have none.
            shown = image.info.get("duration")
            time = None if time is None or not isinstance(shown, int | float) else time + shown / 1000


@contextmanager
def _named(file: Path) -> Iterator[None]:
    """Names the file whatever Pillow raises: its decoders raise nearly anything for a damaged one."""
    try:
        with warnings.catch_warnings():
            # Among them one of sizes above Pillow's own limit, which is larger than ours.
            warnings.simplefilter("ignore")
            yield
    except MemoryError:
        raise
    except Image.DecompressionBombError as error:
        raise ValueError(f"{file} has too many pixels ({error}); make it smaller first") from error
    except Exception as error:
        raise ValueError(f"{file} cannot be decoded as an image ({error}); replace or remove it") from error


def _opened(file: Path) -> Image.Image:
    with _named(file):
        return Image.open(file)


def _count(image: Image.Image, file: Path) -> int:
    """The number of pictures; the second of a phone's MPO is its depth map or preview, which no viewer shows."""
    with _named(file):
        return 1 if image.format == "MPO" else getattr(image, "n_frames", 1)


def _decode(image: Image.Image, file: Path, page: int, remarks: Remarks) -> tuple[np.ndarray, int]:
    """(height, width, 3) as a viewer shows it, and what white has in it."""
    raw = str(getattr(image, "tile", ""))
    with _named(file):
        image.load()
        orientation = image.getexif().get(_ORIENTATION, 1)
    if ";16" in raw and image.mode in ("RGB", "RGBA", "LA"):
        values, white = _sixteen_bits(image, file, page, remarks)
    else:
        values, white = _values(image, file, remarks)
    if orientation in range(2, 9):
        remarks.note(f"turned as EXIF orientation {orientation} asks")
        values = turn(values, *exif_turn(orientation))
    return values, white


def _values(image: Image.Image, file: Path, remarks: Remarks) -> tuple[np.ndarray, int]:
    if image.mode.startswith("I;16"):
        bits = _stated_bits(image)
        remarks.note(f"{bits} bits a channel: divided by {2**bits - 1}")
        values = np.asarray(image).astype(np.uint16)
        if image.info.get("transparency") is not None or (getattr(image, "tag_v2", {}).get(262) == 0):
            raise ValueError(f"{file} is 16-bit grey with transparency or with white at 0; convert it to plain grey")
        return np.repeat(values[..., None], 3, axis=2), 2**bits - 1
    if image.mode == "F":
        values = np.asarray(image, dtype=np.float64)
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        if not np.isfinite(values).all() or low < 0 or high > 1:
            raise ValueError(
                f"{file} holds floating-point values from {low:.6g} to {high:.6g}"
                f" ({np.count_nonzero(~np.isfinite(values))} not finite); no viewer agrees on their white: rescale them"
                " to [0, 1]"
            )
        remarks.note("floating point: taken as they are, 1 being white")
        return np.repeat(values[..., None], 3, axis=2), 1
    if image.mode == "I":
        raise ValueError(f"{file} holds 32-bit integers, for which no white is defined; save it with 16 bits a channel")
    if image.mode not in ("1", "L", "P", "RGB", "CMYK", "YCbCr", "HSV", "LA", "PA", "RGBA", "RGBX", "La", "RGBa"):
        raise ValueError(f"{file} has Pillow's mode {image.mode}, which is not read; save it as RGB")
    image = _in_srgb(image, file, remarks)
    transparent = image.has_transparency_data or image.mode in ("La", "RGBa")
    with _named(file):
        values = np.asarray(image.convert("RGBA" if transparent else "RGB"))
    return (_laid_on_white(values, 255, remarks) if transparent else values), 255


def _stated_bits(image: Image.Image) -> int:
    """16, or what a TIFF says: 12 bits occur in microscopy."""
    stated = int(getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (16,))[0])
    return stated if 8 < stated <= 16 else 16


def _laid_on_white(values: np.ndarray, white: int, remarks: Remarks) -> np.ndarray:
    if (values[..., 3] != white).any():
        remarks.note("transparent pixels are laid on white, as browsers show them")
    return on_white(values, white)


def _sixteen_bits(image: Image.Image, file: Path, page: int, remarks: Remarks) -> tuple[np.ndarray, int]:
    """Colour of 16 bits a channel, of which Pillow keeps 8."""
    demuxer = {"PNG": "png_pipe", "TIFF": "tiff_pipe"}.get(image.format or "")
    if demuxer is None or page or getattr(image, "n_frames", 1) > 1:
        remarks.note("16 bits a channel in colour: the upper 8 were read")
        return _values(image, file, remarks)
    try:
        with av.open(io.BytesIO(file.read_bytes()), format=demuxer) as container:
            values = next(container.decode(video=0)).to_ndarray(format="rgba64le")
    except (av.error.FFmpegError, StopIteration) as error:
        raise ValueError(f"{file} cannot be decoded as an image ({error}); replace or remove it") from error
    if image.info.get("icc_profile") and not _is_srgb(image.info["icc_profile"]):
        remarks.warn("the colour profile of images with 16 bits a channel is not applied; convert them to sRGB")
    remarks.note("16 bits a channel: divided by 65535")
    return _laid_on_white(values, 65535, remarks), 65535


def _in_srgb(image: Image.Image, file: Path, remarks: Remarks) -> Image.Image:
    """The image with its embedded colour profile applied, as viewers with colour management do."""
    profile = image.info.get("icc_profile")
    gamma = image.info.get("gamma")
    if not profile:
        if gamma and not image.info.get("srgb") and abs(gamma / _SRGB_GAMMA - 1) > 0.05:
            remarks.warn(
                f"{file.name} states a gamma of {gamma:.4g}, which is not applied (most viewers ignore it); convert it"
                " to sRGB"
            )
        return image
    if _is_srgb(profile) or image.mode not in ("RGB", "RGBA", "CMYK", "L"):
        return image
    try:
        embedded = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        name = ImageCms.getProfileDescription(embedded).strip()
        if image.mode == "L":
            # Grey profiles are gamma 2.2 or sRGB's curve in all but name.
            return image
        mode = "RGBA" if image.mode == "RGBA" else "RGB"
        converted = ImageCms.profileToProfile(image, embedded, ImageCms.createProfile("sRGB"), outputMode=mode)
    except (ImageCms.PyCMSError, OSError) as error:
        remarks.warn(f"the colour profile of {file.name} cannot be applied ({error}); convert it to sRGB")
        return image
    remarks.note(f"converted from the colour profile {name!r} to sRGB")
    return converted


def _is_srgb(profile: bytes) -> bool:
    try:
        return "srgb" in ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile))).lower()
    except (ImageCms.PyCMSError, OSError):
        return False
