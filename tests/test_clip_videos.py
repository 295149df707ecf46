"""Video files as a player shows them: turned, in square pixels, in their tags' colours; nothing else is opened."""

import os
import shutil
from fractions import Fraction

import av
import numpy as np
import pytest
from clip_files import planes, scene, write_video
from PIL import Image

from experiments.editor.clip_reading import read_clip
from experiments.editor.clip_reading.geometry import exif_turn, matrix_turn, turn
from experiments.editor.clips import load_clip, locate_clip

FRAMES = scene()


def levels(clip):
    """In steps of 8 bits."""
    return 255 * clip.frames


class TestTurns:
    @pytest.mark.parametrize(
        ("matrix", "shown"),
        [
            ((1, 0, 0, 1), FRAMES),
            ((0, 1, -1, 0), np.rot90(FRAMES, -1, (1, 2))),
            ((-1, 0, 0, -1), np.rot90(FRAMES, 2, (1, 2))),
            ((0, -1, 1, 0), np.rot90(FRAMES, 1, (1, 2))),
            ((-1, 0, 0, 1), FRAMES[:, :, ::-1]),
            ((1, 0, 0, -1), FRAMES[:, ::-1]),
            ((0, 1, 1, 0), FRAMES.swapaxes(1, 2)),
        ],
        ids=["none", "clockwise", "upside down", "anticlockwise", "mirrored", "flipped", "transposed"],
    )
    def test_the_display_matrix_is_applied(self, tmp_path, matrix, shown):
        clip = read_clip(write_video(tmp_path / "clip.mp4", FRAMES, matrix=matrix))
        np.testing.assert_array_equal(levels(clip).round(), shown)
        turned = "turned as the file's display matrix asks" in clip.notes
        assert turned == (matrix != (1, 0, 0, 1))

    def test_a_turn_by_another_angle_is_refused(self, tmp_path):
        path = write_video(tmp_path / "clip.mp4", FRAMES, matrix=(0.8, 0.6, -0.6, 0.8))
        with pytest.raises(ValueError, match="turned by no right angle"):
            read_clip(path)

    def test_a_matrix_moves_corners_where_its_formula_says(self):
        """Against (x', y') = (a x + c y, b x + d y), shifted back into the picture, for all eight matrices."""
        picture = np.arange(12).reshape(3, 4)
        for a, b, c, d in [(s, 0, 0, t) for s in (1, -1) for t in (1, -1)] + [
            (0, s, t, 0) for s in (1, -1) for t in (1, -1)
        ]:
            points = {(a * x + c * y, b * x + d * y): picture[y, x] for y in range(3) for x in range(4)}
            left, top = (min(point[axis] for point in points) for axis in (0, 1))
            turned = turn(picture, *matrix_turn(a, b, c, d))
            assert all(turned[y - top, x - left] == value for (x, y), value in points.items())
        assert {exif_turn(value) for value in range(1, 9)} == {
            matrix_turn(*m)
            for m in [
                (1, 0, 0, 1),
                (-1, 0, 0, 1),
                (-1, 0, 0, -1),
                (1, 0, 0, -1),
                (0, 1, 1, 0),
                (0, 1, -1, 0),
                (0, -1, -1, 0),
                (0, -1, 1, 0),
            ]
        }


class TestPixels:
    def test_pixels_that_are_no_squares_are_stretched(self, tmp_path):
        # 18 stored columns of aspect 2 are the 36 columns of the scene, two by two.
        stored = FRAMES[:, :, ::2]
        clip = read_clip(write_video(tmp_path / "clip.mp4", stored, aspect=Fraction(2)))
        np.testing.assert_array_equal(levels(clip).round(), stored.repeat(2, axis=2))
        assert "pixels of 2 : 1 are stretched to squares" in clip.notes and "36 x 24 pixels" in clip.notes
        square = read_clip(tmp_path / "clip.mp4", size=8).frames
        plain = read_clip(write_video(tmp_path / "plain.mp4", stored.repeat(2, axis=2)), size=8).frames
        np.testing.assert_allclose(square, plain, rtol=0, atol=1e-6)

    def test_a_turned_clip_turns_its_pixels(self, tmp_path):
        path = write_video(tmp_path / "clip.mp4", FRAMES[:, :, ::2], aspect=Fraction(2), matrix=(0, 1, -1, 0))
        clip = read_clip(path)
        # Twelve rows of eighteen columns, lying on their side: 24 columns of half a pixel's width.
        assert clip.notes[1] == "12 x 18 pixels" and clip.frames.shape[1:3] == (18, 12)

    def test_training_clips_are_read_as_the_training_read_them_where_their_pixels_are_squares(self):
        np.testing.assert_array_equal(
            read_clip(locate_clip("bikes"), size=32, max_frames=9).frames, load_clip("bikes")[:9]
        )


class TestColours:
    @pytest.mark.parametrize(("matrix", "tag"), [("bt601", 5), ("bt709", 1), ("bt2020", 9)])
    def test_the_stated_matrix_is_used(self, tmp_path, matrix, tag):
        ready = [planes(frame, matrix) for frame in FRAMES]
        path = write_video(
            tmp_path / "clip.mp4",
            ready,
            "libx264",
            "yuv444p",
            ready="yuv444p",
            tags={"colorspace": tag, "color_range": 1},
        )
        assert np.abs(levels(read_clip(path)) - FRAMES).max() <= 2

    @pytest.mark.parametrize(
        ("size", "matrix"),
        [((480, 640), "bt601"), ((576, 720), "bt601"), ((720, 1280), "bt709"), ((1080, 608), "bt709")],
    )
    def test_without_a_stated_matrix_hd_is_bt709(self, tmp_path, size, matrix):
        frames = [np.full((*size, 3), (200, 60, 20), np.uint8)] * 2
        path = write_video(
            tmp_path / "clip.mp4", [planes(f, matrix) for f in frames], "libx264", "yuv444p", ready="yuv444p"
        )
        clip = read_clip(path, size=8)
        assert np.abs(levels(clip) - (200, 60, 20)).max() <= 2
        assert any("BT.709 is taken" in note for note in clip.notes) == (matrix == "bt709")

    def test_ten_bits_keep_their_depth(self, tmp_path):
        ramp = np.zeros((3, 8, 64), np.uint16)
        ramp[0] = 64 + np.arange(64) * 2  # steps of half a level of 8 bits
        ramp[1:] = 512
        path = write_video(
            tmp_path / "clip.mkv", [ramp] * 3, "ffv1", "yuv444p10le", ready="yuv444p10le", tags={"color_range": 1}
        )
        clip = read_clip(path)
        assert len(np.unique(clip.frames[0, 0, :, 0])) == 64 and "10 bits a channel" in clip.notes

    @pytest.mark.parametrize(
        ("tags", "said"),
        [
            ({"colorspace": 9, "color_primaries": 9, "color_trc": 18}, "HDR video, HLG"),
            ({"colorspace": 9, "color_primaries": 9, "color_trc": 16}, "HDR video, PQ"),
            ({"colorspace": 9, "color_primaries": 9, "color_trc": 14}, "tagged BT.2020"),
            ({"colorspace": 1, "color_primaries": 12, "color_trc": 1}, "tagged Display P3"),
            ({"colorspace": 1, "color_primaries": 1, "color_trc": 8}, "linear light"),
        ],
    )
    def test_hdr_and_wide_colours_are_named(self, tmp_path, tags, said):
        frames = [planes(frame, "bt2020", 10) for frame in FRAMES]
        path = write_video(tmp_path / "clip.mkv", frames, "ffv1", "yuv444p10le", ready="yuv444p10le", tags=tags)
        assert any(said in warning for warning in read_clip(path).warnings)

    def test_ordinary_colours_are_not_warned_of(self, tmp_path):
        path = write_video(
            tmp_path / "clip.mp4",
            [planes(frame, "bt709") for frame in FRAMES],
            "libx264",
            "yuv444p",
            ready="yuv444p",
            tags={"colorspace": 1, "color_primaries": 1, "color_trc": 1, "color_range": 1},
        )
        assert read_clip(path).warnings == ()

    @pytest.mark.parametrize("codec", ["qtrle", "png"])
    def test_transparency_is_laid_on_white(self, tmp_path, codec):
        frames = np.concatenate([FRAMES, np.full((4, 24, 36, 1), 255, np.uint8)], axis=3)
        frames[:, :, 18:, 3] = 0
        pixel_format = "argb" if codec == "qtrle" else "rgba"
        clip = read_clip(write_video(tmp_path / "clip.mov", frames, codec, pixel_format))
        np.testing.assert_array_equal(levels(clip)[:, :, :18].round(), FRAMES[:, :, :18])
        np.testing.assert_array_equal(clip.frames[:, :, 18:], 1)
        assert "transparent pixels are laid on white, as browsers show them" in clip.notes

    def test_transparency_in_a_second_layer_is_refused_with_the_command(self, tmp_path):
        path = write_video(
            tmp_path / "clip.webm",
            [planes(f, "bt709") for f in FRAMES],
            "libvpx-vp9",
            "yuv444p",
            ready="yuv444p",
            metadata={"alpha_mode": "1"},
        )
        with pytest.raises(ValueError, match=r"alpha_mode = 1.*ffmpeg -c:v libvpx-vp9 -i clip.webm frames/%05d.png"):
            read_clip(path)


class TestTime:
    def test_k_of_n_frames_is_said(self, tmp_path):
        path = write_video(tmp_path / "clip.mp4", scene(6))
        assert read_clip(path, max_frames=4).notes[0] == "the first 4 of 6 frames (by the file's index)"
        assert read_clip(path).notes[0] == "all 6 frames"
        # Matroska has no count; its packets have.
        path = write_video(tmp_path / "clip.mkv", scene(6), "ffv1", "bgr0")
        assert read_clip(path, max_frames=4).notes[0] == "the first 4 of 6 frames (by its packets)"

    @pytest.mark.parametrize("suffix", ["mp4", "mkv"])
    def test_a_gap_in_time_is_named(self, tmp_path, suffix):
        codec = () if suffix == "mp4" else ("ffv1", "bgr0")
        path = write_video(tmp_path / f"clip.{suffix}", scene(6), *codec, times=[0, 1, 2, 6, 7, 8])
        clip = read_clip(path)
        assert clip.uneven == ((2, pytest.approx(0.5, abs=1e-3)),)
        assert any("not evenly spaced in time (0.5 s after frame 2" in warning for warning in clip.warnings)

    def test_rounding_to_milliseconds_is_no_gap(self, tmp_path):
        path = write_video(tmp_path / "clip.mkv", scene(6), "ffv1", "bgr0", rate=30)
        assert read_clip(path).uneven == ()

    def test_2000_frames_are_read_one_at_a_time(self, tmp_path, monkeypatch):
        from experiments.editor.clip_reading import streams

        held, most = set(), 0
        real = streams._picture

        def watched(frame, *arguments):
            nonlocal most
            picture = real(frame, *arguments)
            held.add(id(picture.values))
            most = max(most, sum(1 for _ in held))
            held.clear()
            return picture

        monkeypatch.setattr(streams, "_picture", watched)
        frames = np.zeros((2000, 16, 16, 3), np.uint8)
        frames[:, 0, 0, 0] = np.arange(2000) % 251
        clip = read_clip(write_video(tmp_path / "clip.mp4", frames), size=4)
        assert clip.frames.shape == (2000, 4, 4, 3) and clip.notes[0] == "all 2000 frames" and most == 1


class TestFiles:
    def test_several_streams_and_a_cover_picture(self, tmp_path):
        with av.open(str(tmp_path / "two.mkv"), "w") as out:
            streams = [out.add_stream("ffv1", rate=8) for _ in range(2)]
            for stream in streams:
                stream.width, stream.height, stream.pix_fmt = 36, 24, "bgr0"
            for stream, frames in zip(streams, (FRAMES, FRAMES[:, ::-1]), strict=True):
                for index, frame in enumerate(frames):
                    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
                    picture.pts = index
                    out.mux(stream.encode(picture))
                out.mux(stream.encode())
        clip = read_clip(tmp_path / "two.mkv")
        np.testing.assert_array_equal(levels(clip).round(), FRAMES)
        assert any("first of 2 video streams" in warning for warning in clip.warnings)

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("list.mp4", "ffconcat version 1.0\nfile {clip}\n"),
            ("list.txt", "ffconcat version 1.0\nfile {clip}\n"),
            ("list.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:1,\n{clip}\n#EXT-X-ENDLIST\n"),
            ("list.mp4", "#EXTM3U\nhttp://127.0.0.1:9/clip.ts\n"),
            ("list.mpd", "<?xml version='1.0'?><MPD></MPD>"),
        ],
    )
    def test_playlists_are_refused(self, tmp_path, name, content):
        clip = write_video(tmp_path / "clip.mp4", FRAMES)
        (tmp_path / name).write_text(content.format(clip=clip))
        with pytest.raises(ValueError, match=f"{name} is a playlist"):
            read_clip(tmp_path / name)

    def test_ffmpeg_may_find_no_container_that_names_other_files(self, tmp_path, monkeypatch):
        """Without the look at the first bytes, FFmpeg's own list of containers refuses the same."""
        from experiments.editor.clip_reading import streams

        clip = write_video(tmp_path / "clip.mp4", FRAMES)
        (tmp_path / "list.mp4").write_text(f"ffconcat version 1.0\nfile {clip.name}\n")
        monkeypatch.setattr(streams, "PLAYLISTS", (b"nothing begins like this",))
        with pytest.raises(ValueError, match="cannot be decoded as a video"):
            read_clip(tmp_path / "list.mp4")

    def test_pipes_and_devices_are_refused_at_once(self, tmp_path):
        os.mkfifo(tmp_path / "pipe.mp4")
        for path in (tmp_path / "pipe.mp4", "/dev/zero"):
            with pytest.raises(ValueError, match="is a pipe or a device, which may never end"):
                read_clip(path)

    @pytest.mark.parametrize("name", ["a:b.mp4", "http:clip.mp4", "concat:x|y.mp4", "%03d.mp4", "zwölf.mp4", "-i.mp4"])
    def test_a_name_is_a_name_and_nothing_else(self, tmp_path, name):
        shutil.copy(write_video(tmp_path / "clip.mp4", FRAMES), tmp_path / name)
        np.testing.assert_array_equal(levels(read_clip(tmp_path / name)).round(), FRAMES)

    def test_a_cut_off_file_is_named(self, tmp_path):
        path = write_video(tmp_path / "clip.mkv", scene(20), "ffv1", "bgr0")
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(ValueError, match="clip.mkv.*(cut off|damaged)"):
            read_clip(path, min_frames=19)

    @pytest.mark.parametrize("content", [b"", b"\x00" * 99, b"text"])
    def test_a_file_that_is_no_video_is_named(self, tmp_path, content):
        (tmp_path / "clip.mp4").write_bytes(content)
        with pytest.raises(ValueError, match=r"clip.mp4 (cannot be decoded|holds no)"):
            read_clip(tmp_path / "clip.mp4")

    def test_a_frame_of_another_size_in_mid_stream_is_named(self, tmp_path):
        pieces = []
        for size in ((24, 36), (48, 72)):
            piece = write_video(
                tmp_path / "piece.ts",
                [planes(f, "bt709") for f in scene(3, *size)],
                "libx264",
                "yuv444p",
                ready="yuv444p",
            )
            pieces.append(piece.read_bytes())
        (tmp_path / "clip.ts").write_bytes(b"".join(pieces))
        with pytest.raises(ValueError, match=r"frame 3 of clip.ts is 72 x 48 pixels and frame 0 of clip.ts 36 x 24"):
            read_clip(tmp_path / "clip.ts")

    def test_an_image_that_is_called_a_video_is_read_as_what_it_is(self, tmp_path):
        pages = [Image.fromarray(frame) for frame in FRAMES]
        pages[0].save(tmp_path / "clip.webp", save_all=True, append_images=pages[1:], lossless=True)
        (tmp_path / "clip.webp").rename(tmp_path / "clip.mp4")
        np.testing.assert_array_equal(levels(read_clip(tmp_path / "clip.mp4")).round(), FRAMES)
