"""What each measure of an edit sees, and what it cannot see."""

import math

import numpy as np
import pytest

from experiments.editor.clips import CLIPS, LOOKS, load_clip
from experiments.measurements.quality import (
    adjacent_cosine,
    brightness_spectrum,
    faulty_clips,
    flicker,
    measure_quality,
    motion_ratio,
    psnr,
    source_flow,
    ssim,
    temporal_error,
    warping_error,
)

FRAMES = 16


@pytest.fixture(scope="module", params=list(CLIPS))
def truth(request):
    return load_clip(request.param, "held_out")[:FRAMES].astype(np.float64)


def waves(num_frames: int = 6, size: int = 32, speed: float = 1.0) -> np.ndarray:
    """A pattern that moves to the right by `speed` pixels a frame."""
    rows, columns = np.mgrid[:size, :size]
    frames = [
        np.stack([0.5 + 0.2 * np.sin((columns - speed * t) / 3) + 0.2 * np.cos(rows / 4 + (columns - speed * t) / 5)] * 3, -1)
        for t in range(num_frames)
    ]
    return np.stack(frames)


def test_the_truth_is_perfect(truth):
    quality = measure_quality(truth, truth=truth, source=truth)
    assert quality.psnr == math.inf
    assert quality.ssim == pytest.approx(1, abs=1e-9)
    assert quality.temporal_error == 0
    assert quality.motion_ratio == 1


# Fault -> measures that tell it from the truth, and measures that do not (same value as the truth's, or a better one).
SEES = {
    "still": ({"motion_ratio", "psnr", "temporal_error"}, {"frame_loss", "pixel_loss", "adjacent_cosine"}),
    "two frames in turn": ({"motion_ratio", "adjacent_cosine", "temporal_error", "warping_error", "flicker"}, {"frame_loss", "pixel_loss"}),
    "ramp": ({"motion_ratio", "psnr"}, {"frame_loss", "adjacent_cosine"}),
    "shuffled": ({"motion_ratio", "adjacent_cosine", "frame_loss", "temporal_error", "warping_error"}, set()),
    "brightness pulse": ({"temporal_error", "warping_error", "flicker", "motion_ratio"}, {"frame_loss", "pixel_loss", "adjacent_cosine"}),
    "frame noise": ({"temporal_error", "warping_error", "adjacent_cosine", "motion_ratio", "ssim"}, set()),
    "constant shift": ({"psnr"}, {"temporal_error", "motion_ratio", "warping_error"}),
}


def _worse(name: str, value: float, reference: float) -> bool:
    if name in ("psnr",):
        return value < 40
    if name == "ssim":
        return value < 0.9
    if name == "motion_ratio":
        return not 0.8 < value < 1.2
    if name == "adjacent_cosine":
        return 1 - value > 1.15 * (1 - reference)
    if name == "temporal_error":
        return value > 0.005
    return value > 1.5 * reference


@pytest.mark.parametrize("fault", SEES)
def test_which_measure_sees_which_fault(truth, fault):
    seen, unseen = SEES[fault]
    reference = measure_quality(truth, truth=truth, source=truth)
    quality = measure_quality(faulty_clips(truth)[fault], truth=truth, source=truth)
    for name in sorted(seen | unseen):
        value = getattr(quality, name)
        if value is None:
            # Noise makes some pixels black, whose cosine is not defined: said, not guessed.
            assert quality.why[name]
            continue
        assert _worse(name, value, getattr(reference, name)) == (name in seen), (name, value, getattr(reference, name))


def test_closed_forms():
    truth = waves()
    shifted = truth - 0.05
    assert psnr(shifted, truth) == pytest.approx(-20 * math.log10(0.05), rel=1e-12)
    assert temporal_error(shifted, truth) == pytest.approx(0, abs=1e-15)
    odd = (np.arange(len(truth)) % 2).reshape(-1, 1, 1, 1)
    assert temporal_error(truth + 0.1 * odd, truth) == pytest.approx(0.1, rel=1e-12)
    assert motion_ratio(0.5 * truth, truth) == pytest.approx(0.5, rel=1e-12)
    assert ssim(truth, truth) == pytest.approx(1, abs=1e-12)
    assert adjacent_cosine(np.repeat(truth[:1], 4, axis=0)) == pytest.approx(1, abs=1e-12)


def test_spectrum_sums_to_the_variance_and_finds_the_frequency():
    for count in (8, 9):
        time = np.arange(count)
        brightness = 0.5 + 0.1 * np.cos(2 * np.pi * 2 * time / count)
        frames = np.broadcast_to(brightness[:, None, None, None], (count, 4, 4, 3)).copy()
        frequencies, power = brightness_spectrum(frames)
        assert power.sum() == pytest.approx(brightness.var(), rel=1e-9)
        assert frequencies[np.argmax(power)] == pytest.approx(2 / count)
    alternating = np.broadcast_to(np.array([0.4, 0.6] * 4)[:, None, None, None], (8, 4, 4, 3)).copy()
    assert flicker(alternating) == pytest.approx(1)
    assert brightness_spectrum(alternating).power.sum() == pytest.approx(0.01, rel=1e-9)


@pytest.mark.parametrize("speed", [-1.0, 0.5, 1.0])
def test_flow_finds_a_known_motion(speed):
    flow, followed = source_flow(waves(speed=speed))
    inner = (slice(None), slice(6, -6), slice(6, -6))
    assert followed[inner].mean() > 0.9
    assert np.median(flow[inner][followed[inner]][:, 0]) == pytest.approx(speed, abs=0.1)
    assert np.median(np.abs(flow[inner][followed[inner]][:, 1])) < 0.1


def test_warping_error_forgives_motion_and_not_flicker():
    moving = waves()
    odd = (np.arange(len(moving)) % 2).reshape(-1, 1, 1, 1)
    standing_still = np.mean(np.diff(moving, axis=0) ** 2)
    assert warping_error(moving, moving) < 0.1 * standing_still
    assert warping_error(moving - 0.1 * odd, moving) == pytest.approx(0.01, rel=0.3)


@pytest.mark.parametrize("look", LOOKS)
def test_the_true_edit_of_every_look_is_perfect(look):
    truth = LOOKS[look](load_clip("carphone", "held_out")[:4])
    assert psnr(truth, truth) == math.inf


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda clip: clip[:2], "2 frames and at least 3"),
        (lambda clip: clip[..., :2], "has shape"),
        (lambda clip: np.where(np.arange(clip.size).reshape(clip.shape) == 7, np.nan, clip), "values must lie in"),
        (lambda clip: clip + 1, "values must lie in"),
        (lambda clip: (255 * clip).astype(np.uint8), "dtype uint8"),
        (lambda clip: clip[:, :-1], "they must agree"),
    ],
)
def test_bad_clips_are_refused(change, message):
    clip = waves()
    with pytest.raises(ValueError, match=message):
        psnr(change(clip), clip)


def test_a_measure_that_is_not_defined_says_why():
    black = np.zeros((4, 16, 16, 3))
    quality = measure_quality(black, truth=black)
    assert quality.adjacent_cosine is None and quality.motion_ratio is None and quality.warping_error is None and quality.flicker is None
    assert set(quality.why) >= {"adjacent_cosine", "motion_ratio", "warping_error", "flicker", "frame_loss"}
    with pytest.raises(ValueError, match="stands still"):
        motion_ratio(black, black)
    with pytest.raises(ValueError, match="at least 11"):
        ssim(np.zeros((3, 8, 8, 3)), np.zeros((3, 8, 8, 3)))
