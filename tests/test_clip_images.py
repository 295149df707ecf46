"""Images as a viewer shows them: turned, on white, of any depth, in sRGB; stacks and animations are clips as well."""

import io

import av
import numpy as np
import pytest
from clip_files import scene, sixteen_bit_png, write_images
from PIL import Image, ImageCms, ImageOps

from experiments.editor.clip_reading import read_clip

FRAME = scene(1)[0]


def one(path, image, **options):
    """Three copies of an image, which is the shortest clip; returns the first frame that is read, and what was said."""
    write_images(path / "clip", [image] * 3, **options)
    clip = read_clip(path / "clip", min_frames=3)
    return clip.frames[0], clip


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["{}.jpg", "{}.png", "{}.tif", "{}.webp"])
def test_every_exif_orientation_is_turned_as_pillow_turns_it(tmp_path, orientation, name):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {".jpg": {"quality": 98, "subsampling": 0}, ".webp": {"lossless": True}}.get(name[2:], {})
    shown, clip = one(tmp_path, Image.fromarray(FRAME), name=name, exif=exif, **options)
    with Image.open(tmp_path / "clip" / name.format(0)) as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored).convert("RGB"))
    np.testing.assert_array_equal(shown, (expected / 255).astype(np.float32))
    assert shown.shape[:2] == ((24, 36) if orientation < 5 else (36, 24))
    # Pillow itself turns a TIFF when it loads it.
    assert (orientation == 1 or name == "{}.tif") or f"EXIF orientation {orientation}" in " ".join(clip.notes)


def transparent(mode):
    """An image whose right half is transparent and has noise as its hidden colours, and what it shows on white."""
    hidden = np.random.default_rng(0).integers(0, 256, FRAME.shape, dtype=np.uint8)
    alpha = np.full(FRAME.shape[:2], 255, dtype=np.uint8)
    alpha[:, 18:], alpha[:4] = 0, 128
    stored = np.where(alpha[..., None] == 0, hidden, FRAME)
    image = Image.fromarray(np.dstack([stored, alpha]), "RGBA")
    if mode == "LA":
        image = image.convert("LA")
        stored = np.repeat(np.asarray(image)[..., :1], 3, axis=2)
    weight = alpha[..., None] / 255
    return image, (stored * weight + 255 * (1 - weight)) / 255


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_on_white_and_said(tmp_path, mode):
    image, expected = transparent(mode)
    shown, clip = one(tmp_path, image)
    np.testing.assert_allclose(shown, expected, rtol=0, atol=1e-6)
    assert "transparent pixels are laid on white, as browsers show them" in clip.notes


def test_an_opaque_alpha_channel_changes_nothing_and_says_nothing(tmp_path):
    opaque = np.dstack([FRAME, np.full(FRAME.shape[:2], 255, np.uint8)])
    shown, clip = one(tmp_path, Image.fromarray(opaque, "RGBA"))
    np.testing.assert_array_equal(shown, (FRAME / 255).astype(np.float32))
    assert not any("white" in note for note in clip.notes)


def test_palettes_with_and_without_a_transparent_colour(tmp_path):
    indices = np.zeros((24, 36), np.uint8)
    indices[5:10, 5:10] = 1
    image = Image.fromarray(indices, "P")
    image.putpalette([255, 0, 255, 20, 200, 40])
    (tmp_path / "a").mkdir()
    shown, _ = one(tmp_path / "a", image)
    assert np.allclose(shown[0, 0], (1, 0, 1)) and np.allclose(shown[6, 6], np.array([20, 200, 40]) / 255)
    (tmp_path / "b").mkdir()
    shown, _ = one(tmp_path / "b", image, transparency=0)
    assert np.allclose(shown[0, 0], 1) and np.allclose(shown[6, 6], np.array([20, 200, 40]) / 255)


RAMP = np.linspace(0, 65535, 24 * 36).astype(np.uint16).reshape(24, 36)


def test_16_bit_grey_is_divided_by_65535(tmp_path):
    for name in ("{}.png", "{}.tif"):
        folder = tmp_path / name[3:]
        folder.mkdir()
        shown, clip = one(folder, Image.fromarray(RAMP), name=name)
        np.testing.assert_array_equal(shown, (np.repeat(RAMP[..., None], 3, 2) / 65535).astype(np.float32))
        assert "16 bits a channel: divided by 65535" in clip.notes


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bit_png_of_any_kind_keeps_its_depth(tmp_path, channels):
    values = np.random.default_rng(1).integers(0, 65536, (24, 36, channels))
    (tmp_path / "clip").mkdir()
    for index in range(3):
        sixteen_bit_png(tmp_path / "clip" / f"{index}.png", values)
    shown = read_clip(tmp_path / "clip").frames[0]
    colour = values[..., :3] if channels > 2 else np.repeat(values[..., :1], 3, axis=2)
    weight = values[..., -1:] / 65535 if channels in (2, 4) else 1
    expected = (colour * weight + 65535 * (1 - weight)) / 65535
    np.testing.assert_allclose(shown, expected, rtol=0, atol=2e-7)


def test_a_16_bit_png_can_be_turned_too(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    shown, _ = one(tmp_path, Image.fromarray(RAMP), exif=exif)
    np.testing.assert_array_equal(shown[..., 0], (np.rot90(RAMP, -1) / 65535).astype(np.float32))


class TestFloatingPoint:
    def test_values_from_0_to_1_are_taken_as_they_are(self, tmp_path):
        values = np.linspace(0, 1, 24 * 36, dtype=np.float32).reshape(24, 36)
        shown, clip = one(tmp_path, Image.fromarray(values), name="{}.tif")
        np.testing.assert_array_equal(shown[..., 1], values)
        assert any("floating point" in note for note in clip.notes)

    @pytest.mark.parametrize(
        ("value", "found"), [(255.0, "from 0 to 255"), (-0.5, "from -0.5 to 0"), (np.nan, "not finite")]
    )
    def test_other_values_are_refused_with_their_range(self, tmp_path, value, found):
        values = np.zeros((24, 36), np.float32)
        values[3, 3] = value
        with pytest.raises(ValueError, match=found):
            one(tmp_path, Image.fromarray(values), name="{}.tif")

    def test_32_bit_integers_have_no_white(self, tmp_path):
        with pytest.raises(ValueError, match="32-bit integers, for which no white is defined"):
            one(tmp_path, Image.fromarray(np.full((24, 36), 70000, np.int32)), name="{}.tif")


@pytest.mark.parametrize("mode", ["1", "L", "CMYK", "YCbCr"])
def test_other_colour_models_are_those_of_pillow(tmp_path, mode):
    image = Image.fromarray(FRAME).convert(mode)
    shown, _ = one(tmp_path, image, name="{}.tif" if mode in ("1", "L") else "{}.jpg")
    with Image.open(tmp_path / "clip" / ("0.tif" if mode in ("1", "L") else "0.jpg")) as stored:
        np.testing.assert_array_equal(shown, (np.asarray(stored.convert("RGB")) / 255).astype(np.float32))


class TestColourProfiles:
    def test_an_embedded_profile_is_applied(self, tmp_path):
        linear = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ"))
        lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
        assert linear.profile.xcolor_space.strip() == "XYZ" and lab.profile.xcolor_space.strip() == "Lab"
        shown, clip = one(tmp_path, Image.fromarray(FRAME), icc_profile=swapped_primaries())
        assert any("converted from the colour profile" in note for note in clip.notes), clip.notes
        assert np.abs(shown - FRAME / 255).max() > 0.05

    def test_srgb_is_left_alone(self, tmp_path):
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        shown, clip = one(tmp_path, Image.fromarray(FRAME), icc_profile=profile)
        np.testing.assert_array_equal(shown, (FRAME / 255).astype(np.float32))
        assert not any("profile" in note for note in clip.notes)

    def test_a_broken_profile_is_a_warning(self, tmp_path):
        shown, clip = one(tmp_path, Image.fromarray(FRAME), icc_profile=b"no profile" * 20)
        np.testing.assert_array_equal(shown, (FRAME / 255).astype(np.float32))
        assert any("cannot be applied" in warning for warning in clip.warnings)


def swapped_primaries():
    """sRGB's profile under another name and with red and blue exchanged: as good as a wide-gamut profile."""
    content = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    content = content.replace(b"s\x00R\x00G\x00B", b"t\x00e\x00s\x00t").replace(b"sRGB", b"test")
    content = content.replace(b"\x00s\x00R\x00G\x00B", b"\x00t\x00e\x00s\x00t")
    return bytes(content.replace(b"rXYZ", b"?XYZ", 1).replace(b"bXYZ", b"rXYZ", 1).replace(b"?XYZ", b"bXYZ", 1))


ANIMATED = {
    # suffix: how it is saved
    "tif": {},
    "webp": {"lossless": True, "duration": 40},
    "png": {"duration": 40},
    "gif": {"duration": 40},
}


@pytest.mark.parametrize(
    ("suffix", "in_a_folder"), [(s, f) for s in ANIMATED for f in (False, True) if (s, f) != ("gif", True)]
)
def test_a_stack_or_animation_is_a_clip(tmp_path, suffix, in_a_folder):
    pages = [Image.fromarray(frame) for frame in scene(5)]
    path = tmp_path / f"clip.{suffix}"
    pages[0].save(path, save_all=True, append_images=pages[1:], **ANIMATED[suffix])
    clip = read_clip(tmp_path if in_a_folder else path, max_frames=4)
    np.testing.assert_array_equal(clip.frames, (scene(4) / 255).astype(np.float32))
    assert clip.notes[0].startswith("the first 4 of 5 frames"), clip.notes


def test_the_still_of_an_animated_png_is_no_frame(tmp_path):
    still, *pages = [Image.fromarray(frame) for frame in scene(5)]
    still.save(tmp_path / "clip.png", save_all=True, append_images=pages, default_image=True, duration=40)
    clip = read_clip(tmp_path / "clip.png")
    np.testing.assert_array_equal(clip.frames, (scene(5)[1:] / 255).astype(np.float32))


def test_a_tiff_of_16_bits_in_colour_keeps_its_depth(tmp_path):
    values = np.random.default_rng(2).integers(0, 65536, (24, 36, 3), dtype=np.uint16)
    for index in range(3):
        with av.open(str(tmp_path / f"{index}.tif"), "w", format="image2", options={"update": "1"}) as out:
            stream = out.add_stream("tiff", rate=1)
            stream.width, stream.height, stream.pix_fmt = 36, 24, "rgb48le"
            out.mux(stream.encode(av.VideoFrame.from_ndarray(values, format="rgb48le")))
            out.mux(stream.encode())
    clip = read_clip(tmp_path)
    np.testing.assert_allclose(clip.frames[0], values / 65535, rtol=0, atol=2e-7)


def test_an_image_alone_is_one_frame(tmp_path):
    Image.fromarray(FRAME).save(tmp_path / "0.png")
    for path in (tmp_path, tmp_path / "0.png"):
        with pytest.raises(ValueError, match="has 1 frames and at least 3 are needed"):
            read_clip(path, min_frames=3)


def test_pages_of_two_sizes_are_refused_by_page(tmp_path):
    Image.new("L", (36, 24)).save(tmp_path / "a.tif", save_all=True, append_images=[Image.new("L", (12, 8))] * 2)
    with pytest.raises(ValueError, match="page 1 of a.tif is 12 x 8 pixels and page 0 of a.tif 36 x 24"):
        read_clip(tmp_path / "a.tif", size=8)


def test_the_second_picture_of_a_phones_jpeg_is_not_shown(tmp_path):
    content = io.BytesIO()
    first, preview = Image.fromarray(FRAME), Image.new("RGB", (12, 8))
    first.save(content, format="MPO", save_all=True, append_images=[preview], quality=98, subsampling=0)
    for index in range(3):
        (tmp_path / f"{index}.jpg").write_bytes(content.getvalue())
    clip = read_clip(tmp_path)
    assert clip.frames.shape == (3, 24, 36, 3)
