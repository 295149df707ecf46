"""Folders of images: one series in the order of its numbers is a clip, anything else is refused with the names."""

import os
import shutil

import numpy as np
import pytest
from clip_files import png_header, scene, sixteen_bit_png, write_images
from PIL import Image

from experiments.editor.clip_reading import read_clip
from experiments.editor.clip_reading.folders import find_series


def numbered(names):
    """Makes a folder of one-pixel images whose red tells which place in `names` the file has."""

    def make(folder):
        for place, name in enumerate(names):
            Image.new("RGB", (1, 1), (place, 0, 0)).save(folder / name)

    return make


def beside(files):
    """Frames 1 to 4 and other files beside them."""

    def make(folder):
        write_images(folder, scene())
        for name, content in files.items():
            (folder / name).write_bytes(content)

    return make


ORDERED = {
    # case: (names in the order of the clip, what the notes say)
    "numbers without zeros in front": ([f"{number}.png" for number in range(1, 13)], None),
    "numbers with zeros in front": ([f"{number:02d}.png" for number in range(1, 13)], None),
    "ffmpeg's out%d": ([f"out{number}.jpg" for number in range(8, 14)], None),
    "every fifth frame": ([f"f{number:04d}.png" for number in range(0, 30, 5)], "the names count in steps of 5"),
    "a constant number in front": ([f"shot7_{number}.png" for number in (9, 10, 11)], None),
    "frame and time stamp": ([f"{k:03d}_{1699999990 + 7 * k}.png" for k in range(9, 13)], None),
    "a date and a time": (["2024-01-02_235958.png", "2024-01-02_235959.png", "2024-01-03_235959.png"], None),
    "capital suffixes": (["a1.PNG", "a2.png", "a3.PNG"], None),
    "jpg and jpeg are one type": (["a1.jpg", "a2.jpeg", "a3.JPG"], None),
}

REFUSED = {
    # case: (what makes the folder, what the message says)
    "masks beside frames": (
        numbered([f"frame_{k}.png" for k in range(4)] + [f"frame_{k}_mask.png" for k in range(4)]),
        r"more than one series of images: 4 named frame_# \(frame_0.png, .*\) and 4 named frame_#_mask",
    ),
    "masks of another prefix": (
        numbered([f"frame_{k}.png" for k in range(3)] + [f"mask_{k}.png" for k in range(3)]),
        r"3 named frame_# .* and 3 named mask_#",
    ),
    "a stray thumbnail": (numbered(["f0.png", "f1.png", "f1_thumb.png"]), r"1 named f#_thumb \(f1_thumb.png\)"),
    "two takes": (
        numbered([f"take{take}_{k}.png" for take in (1, 2) for k in range(3)]),
        "after take1_2.png the numbers start again with take2_0.png",
    ),
    "a missing number": (
        numbered([f"{k}.png" for k in (1, 2, 4, 5)]),
        "numbers are missing in 1 place, between 2.png and 4.png",
    ),
    "two missing numbers": (
        numbered([f"{k}.png" for k in (1, 2, 4, 5, 7)]),
        "missing in 2 places, between 2.png and 4",
    ),
    "one number twice": (numbered(["1.png", "01.png", "2.png"]), "01.png and 1.png have the same number"),
    "no numbers": (numbered(["first.png", "second.png", "third.png"]), "3 patterns|first.png.*second.png.*third.png"),
    "png and jpg": (numbered(["1.png", "2.png", "3.jpg"]), r"2 types: 2 PNG \(1.png, 2.png\) and 1 JPEG \(3.jpg\)"),
    "nothing": (lambda folder: None, "holds no images; the names must end in"),
    "a video": (lambda folder: (folder / "clip.mp4").write_bytes(b"x"), r"no images \(it holds clip.mp4\)"),
    "a folder named like an image": (lambda folder: (folder / "1.png").mkdir(), "1.png is no regular file"),
    "a pipe named like an image": (lambda folder: os.mkfifo(folder / "1.png"), "1.png is no regular file"),
    "an image of another size": (
        lambda folder: (write_images(folder, scene()), Image.new("RGB", (9, 24)).save(folder / "frame_002.png")),
        "frame_002.png is 9 x 24 pixels and frame_000.png 36 x 24 pixels",
    ),
    "an image that is none": (
        beside({"frame_002.png": b"\x89PNG\r\n\x1a\n" + bytes(20)}),
        "frame_002.png cannot be decoded",
    ),
    "a picture of several pages among others": (
        lambda folder: (
            write_images(folder, scene(), "f{}.tif"),
            Image.new("L", (36, 24)).save(folder / "f2.tif", save_all=True, append_images=[Image.new("L", (36, 24))]),
        ),
        "f2.tif holds 2 pictures, and the folder other images as well",
    ),
    "16 bits among 8": (
        lambda folder: (write_images(folder, scene()), sixteen_bit_png(folder / "frame_002.png", np.ones((24, 36, 3)))),
        "frame_002.png has 16 bits a channel and frame_000.png 8 bits",
    ),
    "a header of 49 million pixels": (
        lambda folder: [png_header(folder / f"{k}.png", 7000, 7000) for k in range(3)],
        "0.png is 7000 x 7000 pixels, and at most 36000000",
    ),
    "a header of 177 million pixels": (
        lambda folder: [png_header(folder / f"{k}.png", 13300, 13300) for k in range(3)],
        "0.png is 13300 x 13300 pixels, and at most 36000000",
    ),
    "a header beyond all limits": (
        lambda folder: [png_header(folder / f"{k}.png", 2**31 - 1, 2**31 - 1) for k in range(3)],
        "0.png has too many pixels",
    ),
}


@pytest.mark.parametrize("case", ORDERED)
def test_a_series_comes_in_the_order_of_its_numbers(tmp_path, case):
    names, said = ORDERED[case]
    for name in reversed(names):
        Image.new("RGB", (1, 1), (0, 0, 0)).save(tmp_path / name)
    series = find_series(tmp_path)
    assert [file.name for file in series.files] == names
    assert list(series.notes) == ([] if said is None else [said])


@pytest.mark.parametrize("case", REFUSED)
def test_anything_but_one_series_is_refused_with_the_names(tmp_path, case):
    make, message = REFUSED[case]
    make(tmp_path)
    with pytest.raises(ValueError, match=message):
        read_clip(tmp_path, size=8)


def test_the_frames_are_those_of_the_files_and_what_was_left_out_is_said(tmp_path):
    folder = write_images(tmp_path / "clip", scene(6))
    for index in range(6):
        (folder / f"._frame_{index:03d}.png").write_bytes(b"\x00\x05\x16\x07" + bytes(60))
    (folder / "notes.txt").write_text("no image")
    (folder / "more").mkdir()
    clip = read_clip(folder, max_frames=4)
    np.testing.assert_array_equal(clip.frames, (scene(4) / 255).astype(np.float32))
    assert clip.notes[0] == "the first 4 of 6 frames, frame_000.png to frame_003.png"
    assert clip.notes[1] == "36 x 24 pixels"
    said = " ".join(clip.notes)
    assert "left out 6 hidden files (._frame_000.png, ._frame_001.png, ._frame_002.png, ..)" in said
    assert "left out 2 files that are no images (more, notes.txt)" in said
    assert clip.warnings == () and clip.equal == ()


def test_cropping_and_averaging_are_said(tmp_path):
    folder = write_images(tmp_path / "clip", scene())
    assert (
        read_clip(folder, size=8).notes[1] == "36 x 24 pixels, cropped to the central 24 x 24, averaged down to 8 x 8"
    )
    assert read_clip(folder, size=24).notes[1] == "36 x 24 pixels, cropped to the central 24 x 24"
    assert read_clip(folder, size=48).notes[1].endswith("enlarged to 48 x 48")


class TestNeighbours:
    def test_repeated_frames_are_named(self, tmp_path):
        doubled = scene(4).repeat(2, axis=0)
        clip = read_clip(write_images(tmp_path / "clip", doubled), max_frames=6)
        assert clip.equal == (0, 2, 4) and not clip.still
        assert "3 of 5 neighbouring pairs of frames are equal" in clip.warnings[0]
        assert "frames 0 and 1, 2 and 3, 4 and 5" in clip.warnings[0]

    def test_one_level_in_one_pixel_is_no_repetition(self, tmp_path):
        frames = scene(1).repeat(3, axis=0)
        frames[1, 5, 5, 0] += 1
        assert read_clip(write_images(tmp_path / "clip", frames)).equal == ()

    def test_a_still_clip_is_called_still(self, tmp_path):
        clip = read_clip(write_images(tmp_path / "clip", scene(1).repeat(4, axis=0)))
        assert clip.still and "the clip is still" in clip.warnings[0]
        assert not read_clip(write_images(tmp_path / "moving", scene(4))).still


def test_frames_that_would_not_fit_are_refused_before_they_are_decoded(tmp_path):
    folder = tmp_path / "clip"
    folder.mkdir()
    Image.new("L", (3000, 3000)).save(folder / "0.png")
    for index in range(1, 60):
        shutil.copy(folder / "0.png", folder / f"{index}.png")
    with pytest.raises(ValueError, match=r"60 frames of 3000 x 3000 pixels need 6.0 GiB, and 2 are taken at most"):
        read_clip(folder)
    assert read_clip(folder, size=4, max_frames=3).frames.shape == (3, 4, 4, 3)
