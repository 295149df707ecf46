"""Video input and output: what comes back is what went in, to the precision the format has; bad files are named."""

import av
import numpy as np
import pytest
from PIL import Image

from experiments.editor import video
from experiments.editor.clips import load_clip, locate_clip
from experiments.files import whole_file, whole_folder
from experiments.editor.video import read_video, write_video


def moving_gradient(frames=6, height=32, width=48):
    """A bright bar that moves over a smooth gradient: order, orientation and colour channels are all visible in it."""
    clip = np.zeros((frames, height, width, 3), dtype=np.float32)
    clip[..., 0] = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    clip[..., 1] = np.linspace(1, 0, width, dtype=np.float32)
    for index in range(frames):
        clip[index, :, 6 * index : 6 * index + 6] = (1.0, 1.0, 0.25)
    return clip


def test_folder_returns_frames_within_half_an_8_bit_step(tmp_path):
    clip = moving_gradient()
    write_video(tmp_path / "frames", clip)
    returned = read_video(tmp_path / "frames")
    assert returned.dtype == np.float32 and returned.shape == clip.shape
    # Rounding to 8 bits moves a value in [0, 1] by at most 1/510; in float32 the product with 255 and the result's own
    # rounding add at most eps/2 each.
    assert np.abs(returned.astype(float) - clip).max() <= 1 / 510 + np.finfo(np.float32).eps


def test_8_bit_frames_survive_a_folder_exactly(tmp_path):
    levels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3)) / 255
    levels = levels.astype(np.float32)
    write_video(tmp_path / "frames", levels)
    np.testing.assert_array_equal(read_video(tmp_path / "frames"), levels)


def test_gif_with_few_colours_returns_exactly_and_keeps_repeated_frames(tmp_path):
    colours = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]], dtype=np.float32) / 255
    clip = colours[np.random.default_rng(1).integers(0, 5, (5, 16, 16))]
    clip[2] = clip[1]
    write_video(tmp_path / "clip.gif", clip)
    np.testing.assert_array_equal(read_video(tmp_path / "clip.gif"), clip)


@pytest.mark.parametrize("shape", [(32, 48), (33, 47)])
def test_mp4_keeps_every_frame_in_order(tmp_path, shape):
    clip = moving_gradient(6, *shape)
    write_video(tmp_path / "clip.mp4", clip)
    returned = read_video(tmp_path / "clip.mp4")
    assert returned.shape == clip.shape
    distances = np.array([[np.mean((a - b) ** 2) for b in clip] for a in returned])
    assert (distances.argmin(axis=1) == np.arange(6)).all()
    # The codec is lossy; it must still be many times nearer than the neighbouring frame.
    assert (np.diag(distances) * 10 < np.sort(distances, axis=1)[:, 1]).all()


def test_mp4_falls_back_to_mpeg4_without_h264(tmp_path, monkeypatch):
    monkeypatch.setattr(video, "MP4_ENCODERS", (("no_such_encoder", {}), ("mpeg4", {"q": "2"})))
    write_video(tmp_path / "clip.mp4", moving_gradient(4))
    with av.open(str(tmp_path / "clip.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "mpeg4"
    assert len(read_video(tmp_path / "clip.mp4")) == 4


def test_no_encoder_for_odd_sides_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(video, "MP4_ENCODERS", (("mpeg4", {"q": "2"}),))
    with pytest.raises(ValueError, match="33 x 47 pixels need yuv444p"):
        write_video(tmp_path / "clip.mp4", moving_gradient(2, 33, 47))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("rate", [10, 25, 29.97])
def test_mp4_carries_the_frame_rate(tmp_path, rate):
    write_video(tmp_path / "clip.mp4", moving_gradient(4), frames_per_second=rate)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        assert float(container.streams.video[0].average_rate) == pytest.approx(rate, rel=1e-4)


def test_size_crops_about_the_centre_and_shrinks(tmp_path):
    clip = np.zeros((3, 16, 32, 3), dtype=np.float32)
    clip[:, :, :8] = 1.0  # outside the central square
    clip[:, :, 8:16, 2] = 1.0
    write_video(tmp_path / "frames", clip)
    square = read_video(tmp_path / "frames", size=4)
    assert square.shape == (3, 4, 4, 3)
    assert square[..., :2].max() == 0
    np.testing.assert_array_equal(square[:, :, :2, 2], 1)
    np.testing.assert_array_equal(square[:, :, 2:, 2], 0)


def test_a_file_is_read_as_the_training_clips_are():
    np.testing.assert_array_equal(read_video(locate_clip("bikes"), size=32), load_clip("bikes", "all"))


def test_max_frames_takes_the_first(tmp_path):
    clip = moving_gradient()
    write_video(tmp_path / "frames", clip)
    np.testing.assert_array_equal(read_video(tmp_path / "frames", max_frames=2), read_video(tmp_path / "frames")[:2])


def test_images_of_a_folder_come_in_the_order_of_their_numbers_and_in_rgb(tmp_path):
    for name, colour in (("2.png", (0, 255, 0)), ("1.png", (255, 0, 0)), ("10.PNG", (0, 0, 255))):
        Image.new("RGB", (4, 4), colour).save(tmp_path / name, format="png")
    for number in range(3, 10):
        Image.new("L", (4, 4), 51).save(tmp_path / f"{number}.png")
    (tmp_path / "notes.txt").write_text("not an image")
    returned = read_video(tmp_path)
    expected = np.array([[1, 0, 0], [0, 1, 0], *[[0.2, 0.2, 0.2]] * 7, [0, 0, 1]], dtype=np.float32)
    np.testing.assert_array_equal(returned[:, 0, 0], expected)


@pytest.mark.parametrize("name", ["broken.mp4", "broken.gif", "broken.avi", "truncated.mp4", "empty.mp4"])
def test_undecodable_video_is_named(tmp_path, name):
    content = np.random.default_rng(2).bytes(4096)
    if name.startswith("truncated"):
        write_video(tmp_path / "whole.mp4", moving_gradient())
        content = (tmp_path / "whole.mp4").read_bytes()[:600]
    (tmp_path / name).write_bytes(b"" if name.startswith("empty") else content)
    with pytest.raises(ValueError, match=name):
        read_video(tmp_path / name)


def test_sound_without_pictures_is_no_video(tmp_path):
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(ValueError, match="no video stream"):
        read_video(tmp_path / "sound.mp4")


def test_too_few_frames_are_named(tmp_path):
    write_video(tmp_path / "short.gif", moving_gradient(2))
    with pytest.raises(ValueError, match="short.gif has 2 frames and at least 3"):
        read_video(tmp_path / "short.gif", min_frames=3)


def test_missing_path_empty_folder_and_broken_image_are_named(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        read_video(tmp_path / "absent.mp4")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no images"):
        read_video(tmp_path / "empty")
    write_video(tmp_path / "frames", moving_gradient(3))
    (tmp_path / "frames" / "frame_00001.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(20))
    with pytest.raises(ValueError, match="frame_00001.png cannot be decoded"):
        read_video(tmp_path / "frames")


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"size": 0}, "size = 0"),
        ({"min_frames": 0}, "min_frames = 0"),
        ({"max_frames": 0}, "max_frames = 0"),
        ({"max_frames": 2, "min_frames": 3}, "max_frames = 2"),
    ],
)
def test_reading_arguments_out_of_range(tmp_path, keywords, message):
    write_video(tmp_path / "frames", moving_gradient(3))
    with pytest.raises(ValueError, match=message):
        read_video(tmp_path / "frames", **keywords)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((3, 4, 4)), r"shape \(3, 4, 4\)"),
        (np.zeros((3, 4, 4, 4)), r"shape \(3, 4, 4, 4\)"),
        (np.zeros((0, 4, 4, 3)), "none of them 0"),
        (np.zeros((3, 4, 4, 3), dtype=np.uint8), "dtype uint8"),
        (np.full((3, 4, 4, 3), np.nan), "144 values that are not finite"),
        (np.full((3, 4, 4, 3), 1.5), r"lie in \[1.5, 1.5\]"),
        (np.full((3, 4, 4, 3), -0.25), r"lie in \[-0.25, -0.25\]"),
    ],
)
@pytest.mark.parametrize("name", ["out.mp4", "out.gif", "out"])
def test_bad_frames_write_nothing(tmp_path, frames, message, name):
    with pytest.raises(ValueError, match=message):
        write_video(tmp_path / name, frames)
    assert list(tmp_path.iterdir()) == []


def test_bad_targets_are_named(tmp_path):
    clip = moving_gradient(3)
    with pytest.raises(ValueError, match="cannot write .txt"):
        write_video(tmp_path / "out.txt", clip)
    with pytest.raises(ValueError, match="does not exist"):
        write_video(tmp_path / "absent" / "out.mp4", clip)
    with pytest.raises(ValueError, match="frames_per_second = 0"):
        write_video(tmp_path / "out.mp4", clip, frames_per_second=0)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="thesis.tex"):
        write_video(tmp_path / "mine", clip)
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "years of work"


def test_an_earlier_folder_of_frames_is_replaced_whole(tmp_path):
    write_video(tmp_path / "frames", moving_gradient(6))
    write_video(tmp_path / "frames", moving_gradient(2))
    assert len(read_video(tmp_path / "frames")) == 2
    assert [entry.name for entry in tmp_path.iterdir()] == ["frames"]


@pytest.mark.parametrize("writer", [whole_file, whole_folder])
def test_a_failure_while_writing_leaves_the_earlier_output(tmp_path, writer):
    target = tmp_path / "target"
    content = target if writer is whole_file else target / "content"
    with writer(target) as temporary:
        (temporary if writer is whole_file else temporary / "content").write_text("first")
    with pytest.raises(RuntimeError, match="interrupted"):
        with writer(target) as temporary:
            (temporary if writer is whole_file else temporary / "content").write_text("half of the sec")
            raise RuntimeError("interrupted")
    assert content.read_text() == "first"
    assert [entry.name for entry in tmp_path.iterdir()] == ["target"]
