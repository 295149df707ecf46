r"""How good an edited clip is: against the true edit where it is known, and by itself where it is not.

A look is a known map of colours, so the true edit of every frame is known, and says more than any measure of smoothness: a clip that stands
still is perfectly smooth. Notation: x_1 .. x_N the frames of the edit, y_1 .. y_N those of the truth, p_1 .. p_N those of the source, all
with values in [0, 1]; mean is over frames, pixels and channels alike.

Against the truth
    psnr             -10 log10 mean (x - y)^2, in dB
    ssim             structural similarity, Gaussian window of 11 x 11 pixels with standard deviation 1.5 (Wang et al. 2004)
    temporal_error   root of mean ((x_{t+1} - y_{t+1}) - (x_t - y_t))^2: what of the edit's error changes from frame to frame
    motion_ratio     root mean square of x_{t+1} - x_t over that of y_{t+1} - y_t: below 1 the edit moves less than the truth
Without the truth
    adjacent_cosine  mean of the cosines of neighbouring frames, which V2VBench and others report, on embeddings, as clip consistency
    frame_loss, pixel_loss   the temporal loss of this project, cosines of whole frames and of the channels of a pixel
    warping_error    mean squared difference between a frame and its successor brought back by the source's motion, over the pixels
                     that can be followed (Lai et al. 2018)
    flicker          share of the power of the mean brightness over time that lies above a quarter cycle a frame

No measure sees every fault. `faulty_clips` makes clips with one fault each, and `tests/test_quality.py` says which measure sees which.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from theory.temporal_loss import similarities, temporal_loss

MINIMUM_FRAMES = 3
SMALLEST_SSIM_SIDE = 11
FLOW_SIDE = 128
"""Frames are enlarged to this many pixels a side for the optical flow, whose patches are 8 pixels wide."""
FOLLOWED_WITHIN = 0.5
"""A pixel counts as followed if the flow forth and back returns to it within this many pixels of the original frame."""
UPPER_FREQUENCIES = 0.25


@dataclass(frozen=True)
class Quality:
    """The measures of one edited clip; None where a measure is not defined on it (see `why`).

    Attributes:
        psnr: dB; infinite where edit and truth agree in every value.
        ssim: 1 for equal clips.
        temporal_error: in units of a pixel's range [0, 1].
        motion_ratio, adjacent_cosine: pure numbers.
        frame_loss, pixel_loss: pure numbers, 0 for a clip whose similarities do not change.
        warping_error: squared units of a pixel's range.
        flicker: share in [0, 1].
        why: name of a measure that is None -> the reason.
    """

    psnr: float | None
    ssim: float | None
    temporal_error: float | None
    motion_ratio: float | None
    adjacent_cosine: float | None
    frame_loss: float | None
    pixel_loss: float | None
    warping_error: float | None
    flicker: float | None
    why: Mapping[str, str]


class Spectrum(NamedTuple):
    """Power of a signal over time, without its mean.

    Attributes:
        frequencies: (num_frames // 2,) cycles a frame, above 0 and up to one half.
        power: of each, in squared units of the signal; their sum is its variance over the frames.
    """

    frequencies: np.ndarray
    power: np.ndarray


def check_clip(frames: np.ndarray, name: str = "the clip") -> np.ndarray:
    """The frames as float64.

    Args:
        frames: (frames, height, width, 3) floating in [0, 1].

    Raises:
        ValueError: another shape, fewer than 3 frames, an integer dtype, or a value that is not finite or outside [0, 1].
    """
    frames = np.asarray(frames)
    if frames.ndim != 4 or frames.shape[-1] != 3 or not frames.size:
        raise ValueError(f"{name} has shape {frames.shape}; (frames, height, width, 3) is needed, none of them 0")
    if len(frames) < MINIMUM_FRAMES:
        raise ValueError(f"{name} has {len(frames)} frames and at least {MINIMUM_FRAMES} are needed; give a longer clip")
    if not np.issubdtype(frames.dtype, np.floating):
        raise ValueError(f"{name} has dtype {frames.dtype}; floating values in [0, 1] are needed: divide by the largest value of the type")
    frames = frames.astype(np.float64)
    wrong = ~((frames >= 0) & (frames <= 1))
    if wrong.any():
        index = tuple(int(part) for part in np.argwhere(wrong)[0])
        raise ValueError(f"{name} holds {frames[index]} at {index}; values must lie in [0, 1]: clip them or divide by their range")
    return frames


def _pair(frames: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    frames, truth = check_clip(frames, "the edit"), check_clip(truth, "the truth")
    if frames.shape != truth.shape:
        raise ValueError(f"the edit has shape {frames.shape}, the truth {truth.shape}; they must agree")
    return frames, truth


def psnr(frames: np.ndarray, truth: np.ndarray) -> float:
    """Peak signal-to-noise ratio of the whole clip in dB, -10 log10 mean (x - y)^2; infinite for equal clips.

    Args:
        frames, truth: (frames, height, width, 3) floating in [0, 1].

    Raises:
        ValueError: what `check_clip` raises; shapes that differ.
    """
    frames, truth = _pair(frames, truth)
    error = float(np.mean((frames - truth) ** 2))
    return math.inf if error == 0 else -10 * math.log10(error)


def ssim(frames: np.ndarray, truth: np.ndarray) -> float:
    """Mean structural similarity of the frames, by torchmetrics with its defaults (Gaussian window, standard deviation 1.5).

    Args:
        frames, truth: (frames, height, width, 3) floating in [0, 1], at least 11 pixels a side.

    Raises:
        ValueError: what `check_clip` raises; shapes that differ; frames smaller than the window.
    """
    frames, truth = _pair(frames, truth)
    if min(frames.shape[1:3]) < SMALLEST_SSIM_SIDE:
        raise ValueError(
            f"frames have {frames.shape[1]} x {frames.shape[2]} pixels; SSIM's window needs at least {SMALLEST_SSIM_SIDE} a side"
        )
    first, second = (torch.from_numpy(np.moveaxis(clip, -1, 1).copy()) for clip in (frames, truth))
    return float(structural_similarity_index_measure(first, second, data_range=1.0))


def temporal_error(frames: np.ndarray, truth: np.ndarray) -> float:
    """Root of mean ((x_{t+1} - y_{t+1}) - (x_t - y_t))^2; 0 where the edit's error is the same in every frame.

    Args:
        frames, truth: (frames, height, width, 3) floating in [0, 1].

    Raises:
        ValueError: what `check_clip` raises; shapes that differ.
    """
    frames, truth = _pair(frames, truth)
    return float(np.sqrt(np.mean(np.diff(frames - truth, axis=0) ** 2)))


def motion_ratio(frames: np.ndarray, truth: np.ndarray) -> float:
    """Root mean square of the edit's frame differences over that of the truth's.

    Args:
        frames, truth: (frames, height, width, 3) floating in [0, 1].

    Raises:
        ValueError: what `check_clip` raises; shapes that differ; a truth that stands still.
    """
    frames, truth = _pair(frames, truth)
    moved = float(np.sqrt(np.mean(np.diff(truth, axis=0) ** 2)))
    if moved == 0:
        raise ValueError("the truth stands still, so there is no motion to compare with; give a clip that moves")
    return float(np.sqrt(np.mean(np.diff(frames, axis=0) ** 2))) / moved


def adjacent_cosine(frames: np.ndarray) -> float:
    """Mean of the cosines of neighbouring frames, each frame one vector of pixels.

    Raises:
        ValueError: what `check_clip` raises; a black frame, whose cosine is not defined.
    """
    return float(np.mean(similarities(check_clip(frames))))


def _enlarged(frames: np.ndarray) -> tuple[np.ndarray, float]:
    """Grey frames of at least FLOW_SIDE pixels a side, uint8, and the factor they were enlarged by."""
    factor = max(1.0, FLOW_SIDE / min(frames.shape[1:3]))
    # Rec. 601 luma, which OpenCV's own conversion takes.
    grey = np.round(255 * frames @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    resized = [cv2.resize(frame, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC) for frame in grey]
    return np.stack(resized), factor


def source_flow(source: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Motion of a clip by OpenCV's dense inverse search flow, and the pixels that it can follow.

    Args:
        source: (frames, height, width, 3) floating in [0, 1].

    Returns:
        flow: (frames - 1, height, width, 2) float64, in pixels: what is at (row, column) of frame t is at
            (row + flow[.., 1], column + flow[.., 0]) of frame t + 1.
        followed: (frames - 1, height, width) bool, where flow forth and back returns within half a pixel inside the frame.

    Raises:
        ValueError: what `check_clip` raises.
    """
    source = check_clip(source, "the source")
    height, width = source.shape[1:3]
    grey, factor = _enlarged(source)
    estimator = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)

    def estimate(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        flow = estimator.calc(first, second, None)
        return cv2.resize(flow, (width, height), interpolation=cv2.INTER_AREA) / factor

    flows, followed = [], []
    for first, second in zip(grey[:-1], grey[1:], strict=True):
        forth, back = estimate(first, second), estimate(second, first)
        there = columns + forth[..., 0], rows + forth[..., 1]
        returned = forth + cv2.remap(back, *there, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        inside = (there[0] >= 0) & (there[0] <= width - 1) & (there[1] >= 0) & (there[1] <= height - 1)
        flows.append(forth)
        followed.append(inside & (np.linalg.norm(returned, axis=-1) <= FOLLOWED_WITHIN))
    return np.stack(flows).astype(np.float64), np.stack(followed)


def warping_error(frames: np.ndarray, source: np.ndarray) -> float:
    """Mean squared difference of each frame and its successor brought back by the source's motion, over the pixels followed.

        mean over t and followed pixels of (x_t(p) - x_{t+1}(p + flow_t(p)))^2

    Args:
        frames, source: (frames, height, width, 3) floating in [0, 1].

    Raises:
        ValueError: what `check_clip` raises; shapes that differ; a source none of whose pixels can be followed.

    Source: Lai et al., Learning Blind Video Temporal Consistency, 2018, equation 5, with flow by dense inverse search in place of FlowNet2.
    """
    frames, source = check_clip(frames, "the edit"), check_clip(source, "the source")
    if frames.shape != source.shape:
        raise ValueError(f"the edit has shape {frames.shape}, the source {source.shape}; they must agree")
    flow, followed = source_flow(source)
    if not followed.any():
        raise ValueError("no pixel of the source can be followed from one frame to the next; give a clip with less motion")
    rows, columns = np.mgrid[: frames.shape[1], : frames.shape[2]].astype(np.float32)
    squared = 0.0
    for first, second, move, mask in zip(frames[:-1], frames[1:], flow.astype(np.float32), followed, strict=True):
        brought = cv2.remap(second, columns + move[..., 0], rows + move[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        squared += float(np.sum((first - brought)[mask] ** 2))
    return squared / (3 * int(followed.sum()))


def brightness_spectrum(frames: np.ndarray) -> Spectrum:
    """One-sided power spectrum of the mean brightness over time, without its mean.

    With b_t the mean of frame t and B the discrete Fourier transform of b - mean b, the power at k cycles in N frames is 2 |B_k|^2 / N^2,
    and |B_k|^2 / N^2 at one half cycle a frame, so that the powers sum to the variance of b (Parseval).

    Raises:
        ValueError: what `check_clip` raises.
    """
    frames = check_clip(frames)
    brightness = frames.mean(axis=(1, 2, 3))
    count = len(brightness)
    power = 2 * np.abs(np.fft.rfft(brightness - brightness.mean())[1:]) ** 2 / count**2
    if count % 2 == 0:
        power[-1] /= 2
    return Spectrum(np.fft.rfftfreq(count)[1:], power)


def flicker(frames: np.ndarray) -> float:
    """Share of the brightness spectrum's power above a quarter cycle a frame.

    Raises:
        ValueError: what `check_clip` raises; a clip of constant brightness, which has no spectrum.
    """
    frequencies, power = brightness_spectrum(frames)
    total = float(power.sum())
    # The mean of values in [0, 1] is known to a few units in the last place; a variance below that is rounding.
    if total <= (4 * np.finfo(np.float64).eps) ** 2:
        raise ValueError("the brightness of the clip does not change, so it has no spectrum")
    return float(power[frequencies > UPPER_FREQUENCIES].sum()) / total


def measure_quality(frames: np.ndarray, *, truth: np.ndarray | None = None, source: np.ndarray | None = None) -> Quality:
    """All measures that the clips given allow.

    Args:
        frames: (frames, height, width, 3) floating in [0, 1], the edit.
        truth: of the same shape, the true edit; None leaves the measures against it out.
        source: of the same shape, the clip that was edited; None leaves the warping error out.

    Raises:
        ValueError: what `check_clip` raises; shapes that differ.
    """
    frames = check_clip(frames, "the edit")
    for name, other in (("truth", truth), ("source", source)):
        if other is not None and check_clip(other, f"the {name}").shape != frames.shape:
            raise ValueError(f"the edit has shape {frames.shape}, the {name} {np.shape(other)}; they must agree")
    why: dict[str, str] = {}

    def value(name: str, needs: np.ndarray | None, needed: str, measure, *arguments) -> float | None:
        if needed and needs is None:
            why[name] = f"the {needed} is not known"
            return None
        try:
            return float(measure(*arguments))
        except ValueError as error:
            why[name] = str(error)
            return None

    channels_first = np.moveaxis(frames, -1, 1)
    return Quality(
        psnr=value("psnr", truth, "truth", psnr, frames, truth),
        ssim=value("ssim", truth, "truth", ssim, frames, truth),
        temporal_error=value("temporal_error", truth, "truth", temporal_error, frames, truth),
        motion_ratio=value("motion_ratio", truth, "truth", motion_ratio, frames, truth),
        adjacent_cosine=value("adjacent_cosine", None, "", adjacent_cosine, frames),
        frame_loss=value("frame_loss", None, "", temporal_loss, channels_first),
        pixel_loss=value("pixel_loss", None, "", lambda clip: temporal_loss(clip, similarity="pixel"), channels_first),
        warping_error=value("warping_error", source, "source", warping_error, frames, source),
        flicker=value("flicker", None, "", flicker, frames),
        why=why,
    )


def faulty_clips(truth: np.ndarray) -> dict[str, np.ndarray]:
    """Clips with one fault each, made of a true one, to show what each measure sees and what it does not.

    Args:
        truth: (frames, height, width, 3) floating in [0, 1].

    Returns:
        "still": its first frame throughout; "two frames in turn": A, B, A, B, ..; "ramp": its first frame blended into its last one;
        "shuffled": its frames in another order; "brightness pulse": every second frame darker by a tenth of its values; "frame noise": fresh
        noise of standard deviation 0.05 on every frame; "constant shift": 0.05 darker throughout, the same in every frame.

    Raises:
        ValueError: what `check_clip` raises.
    """
    truth = check_clip(truth, "the truth")
    count = len(truth)
    share = np.linspace(0, 1, count).reshape(-1, 1, 1, 1)
    odd = (np.arange(count) % 2).reshape(-1, 1, 1, 1)
    noise = np.random.default_rng(0).normal(scale=0.05, size=truth.shape)
    return {
        "still": np.repeat(truth[:1], count, axis=0),
        "two frames in turn": truth[(np.arange(count) % 2) * (count - 1)],
        "ramp": (1 - share) * truth[:1] + share * truth[-1:],
        "shuffled": np.concatenate([truth[1::2], truth[::2]]),
        "brightness pulse": truth * (1 - 0.1 * odd),
        "frame noise": np.clip(truth + noise, 0, 1),
        "constant shift": np.clip(truth - 0.05, 0, 1),
    }
