r"""A noise predictor small enough to be certified: two convolutions with tanh between them, trained on the real clips.

    eps(x, t) = s(t) x + conv_2(tanh(conv_1(x) + b(t))) + c(t),    s = sigma / sqrt(1 + sigma^2)

on frames of 8 x 8 pixels in [-1, 1], without a caption. s x is the best prediction on data N(0, I), so the convolutions
learn what the clips have beyond that. b and c are linear in nine bumps of asinh(sigma): the network knows its timestep
by the noise level alone, and any schedule will do. As it is a map of vectors with one hidden layer, theory's
certificate of two-layer networks applies to it; `TwoLayerPredictor.matrices` gives what that takes.

    python -m experiments.editor.two_layer FILE     trains it again, writes FILE and prints its SHA-256
"""

import hashlib
import math
import sys
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler
from safetensors.torch import load_file, save
from torch import Tensor, nn

from experiments.editor.clips import CLIPS, load_clip
from experiments.editor.pipeline import SHIPPED_WEIGHTS
from experiments.files import whole_file

FRAME_SIZE = 8
CHANNELS = 3
UNITS_PER_PIXEL = 16
WEIGHTS = Path(__file__).with_name("two_layer_weights") / "two_layer.safetensors"
WEIGHTS_SHA256 = "d354af03ee1c5fd3a3662d1f5230984557d84f0ba8a898766047950893e8d594"
"""Of the shipped file. Whoever trains it again states the new digest here, and every stored result follows."""

_KERNEL = 3
_BUMPS = 9
_LARGEST_SIGMA = 15.0
_STEPS, _BATCH, _LEARNING_RATE, _WEIGHT_DECAY = 3000, 128, 3e-3, 0.01


class TwoLayerPredictor(nn.Module):
    """The network; see the formula at the top of this file."""

    def __init__(self) -> None:
        super().__init__()
        padding = _KERNEL // 2
        self.inner = nn.Conv2d(CHANNELS, UNITS_PER_PIXEL, _KERNEL, padding=padding, bias=False)
        self.outer = nn.Conv2d(UNITS_PER_PIXEL, CHANNELS, _KERNEL, padding=padding, bias=False)
        self.bias = nn.Linear(_BUMPS, UNITS_PER_PIXEL, bias=False)
        self.offset = nn.Linear(_BUMPS, CHANNELS, bias=False)

    def forward(self, latents: Tensor, sigmas: Tensor) -> Tensor:
        """The noise in latents (frames, 3, 8, 8) at noise levels sigmas (frames,)."""
        bumps = noise_bumps(sigmas)
        skip = (sigmas / torch.sqrt(1 + sigmas**2))[:, None, None, None]
        hidden = torch.tanh(self.inner(latents) + self.bias(bumps)[:, :, None, None])
        return skip * latents + self.outer(hidden) + self.offset(bumps)[:, :, None, None]

    @torch.no_grad()
    def matrices(self, sigmas: np.ndarray) -> dict[str, np.ndarray]:
        """The network in the variables y = x sqrt(1 + sigma^2), as `theory.evidence.TwoLayerRecord` takes it.

        Args:
            sigmas: (num_steps + 1,) the noise levels of a ladder.

        Returns:
            skip, scales (num_steps + 1,); inner (units, dimension), biases (num_steps + 1, units), outer (dimension,
            units) and offsets (num_steps + 1, dimension), float64, dimension = 3 * 8 * 8 and units = 16 * 8 * 8.
        """
        weight = self.inner.weight
        pixels = FRAME_SIZE**2
        matrices = []
        for layer, channels in ((self.inner, CHANNELS), (self.outer, UNITS_PER_PIXEL)):
            # What a linear map does to each unit vector is a column of its matrix.
            identity = torch.eye(channels * pixels, dtype=weight.dtype, device=weight.device)
            columns = layer(identity.reshape(-1, channels, FRAME_SIZE, FRAME_SIZE)).flatten(1)
            matrices.append(columns.T.cpu().double().numpy())
        bumps = noise_bumps(torch.as_tensor(sigmas, dtype=weight.dtype, device=weight.device))
        scales = 1 / np.sqrt(1 + np.asarray(sigmas, dtype=np.float64) ** 2)
        return {
            "skip": np.asarray(sigmas, dtype=np.float64) * scales**2,
            "scales": scales,
            "inner": np.ascontiguousarray(matrices[0]),
            "biases": self.bias(bumps).repeat_interleave(pixels, dim=1).cpu().double().numpy(),
            "outer": np.ascontiguousarray(matrices[1]),
            "offsets": self.offset(bumps).repeat_interleave(pixels, dim=1).cpu().double().numpy(),
        }


def noise_bumps(sigmas: Tensor) -> Tensor:
    """Nine Gaussian bumps, evenly spread on asinh(sigma) from 0 to beyond the last training step; (..., 9)."""
    places = torch.linspace(0, 1, _BUMPS, dtype=sigmas.dtype, device=sigmas.device)
    at = torch.asinh(sigmas)[..., None] / math.asinh(_LARGEST_SIGMA)
    return torch.exp(-((at - places) ** 2) * (_BUMPS - 1) ** 2 / 2)


def train_two_layer(*, seed: int = 0, steps: int = _STEPS) -> TwoLayerPredictor:
    """Train the network on the clips' training frames; half a minute on one core.

    Minimised is the mean square of the noise's error, timesteps uniform over the schedule of the shipped pipeline, by
    AdamW with a rate that falls as a cosine. One thread, so that equal seeds give equal bytes on one machine.

    Raises:
        ValueError: steps below 1; a clip that cannot be read.
    """
    if steps < 1:
        raise ValueError(f"steps = {steps}; at least 1 is needed, {_STEPS} made the shipped network")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            predictor = TwoLayerPredictor()
        nn.init.zeros_(predictor.outer.weight)
        frames = two_layer_latents(np.concatenate([load_clip(name, "train", FRAME_SIZE) for name in CLIPS]))
        generator = torch.Generator().manual_seed(seed)
        optimizer = torch.optim.AdamW(predictor.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            loss = noise_error(predictor, frames.float(), generator, _BATCH).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    finally:
        torch.set_num_threads(threads)
    return predictor.requires_grad_(False)


def noise_error(predictor: TwoLayerPredictor, frames: Tensor, generator: torch.Generator, count: int) -> Tensor:
    """The predicted noise minus the noise on `count` drawn frames, timesteps and noises, (count, 3, 8, 8)."""
    table = DDIMScheduler.from_pretrained(SHIPPED_WEIGHTS / "scheduler").alphas_cumprod
    drawn = torch.randint(len(frames), (count,), generator=generator)
    alphas = table[torch.randint(len(table), (count,), generator=generator)].to(frames.dtype)
    noise = torch.randn((count, *frames.shape[1:]), generator=generator, dtype=frames.dtype)
    signal, spread = alphas.sqrt()[:, None, None, None], (1 - alphas).sqrt()[:, None, None, None]
    return predictor(signal * frames[drawn] + spread * noise, ((1 - alphas) / alphas).sqrt()) - noise


def two_layer_latents(frames: np.ndarray) -> Tensor:
    """Frames (frames, 8, 8, 3) in [0, 1] as the network takes them: float64 (frames, 3, 8, 8) in [-1, 1]."""
    if frames.ndim != 4 or frames.shape[1:] != (FRAME_SIZE, FRAME_SIZE, CHANNELS):
        raise ValueError(
            f"frames have shape {frames.shape}; (frames, {FRAME_SIZE}, {FRAME_SIZE}, {CHANNELS}) is needed: "
            "clips.resize_area makes them"
        )
    return torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 3, 1, 2), dtype=np.float64)) * 2 - 1


def weights_file(predictor: TwoLayerPredictor) -> bytes:
    """The weights as a safetensors file."""
    return save({name: value.detach().float().contiguous() for name, value in predictor.state_dict().items()})


def save_two_layer(predictor: TwoLayerPredictor, path: Path = WEIGHTS) -> str:
    """Write the weights, whole or not at all, and return the file's SHA-256."""
    content = weights_file(predictor)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary:
        temporary.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def load_two_layer() -> TwoLayerPredictor:
    """The shipped network, in float64.

    Raises:
        ValueError: the file is missing or not the one whose digest is stated above.
    """
    if not WEIGHTS.is_file():
        raise ValueError(f"{WEIGHTS}: no such file; install the package again, or train it (train_two_layer)")
    found = hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()
    if found != WEIGHTS_SHA256:
        raise ValueError(f"{WEIGHTS} has SHA-256 {found}; {WEIGHTS_SHA256} is expected: restore the shipped file")
    predictor = TwoLayerPredictor()
    predictor.load_state_dict(load_file(WEIGHTS))
    return predictor.double().requires_grad_(False).eval()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("one argument is needed: the file that the weights are written to")
    print(save_two_layer(train_two_layer(), Path(sys.argv[1])))
