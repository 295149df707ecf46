"""Self-attention features of a UNet: the outputs of attn1 in its transformer blocks, taken by forward hooks.

Either whole (`captured_features`), or reduced as they come (`reduced_features`) to what the temporal loss, its gradient
in the similarities and the curvature certificate depend on, so that a long clip's features are never all held.
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from diffusers import Transformer2DModel, UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock

from theory.temporal_loss.gram import BandedGram, GramStream

DEFAULT_LAYERS = r"^up_blocks\."

_Receive = Callable[[str, torch.Tensor], None]


def self_attention_layers(unet: UNet2DConditionModel) -> list[str]:
    """Module paths of all self-attentions (attn1 of a BasicTransformerBlock), in the order of the UNet's modules."""
    return [f"{name}.attn1" for name, module in unet.named_modules() if isinstance(module, BasicTransformerBlock)]


def select_layers(unet: UNet2DConditionModel, layers: str | Sequence[str] | None = None) -> list[str]:
    """The chosen self-attentions.

    Args:
        layers: module paths, or one regular expression that is searched for in the module paths; None means all
            self-attentions of the up blocks, as in the public code of arXiv 2501.04606.

    Raises:
        ValueError: a path that is no self-attention, an expression that finds none or does not compile, an empty list.
    """
    available = self_attention_layers(unet)
    if layers is None or isinstance(layers, str):
        pattern = DEFAULT_LAYERS if layers is None else layers
        try:
            chosen = [name for name in available if re.search(pattern, name)]
        except re.error as error:
            raise ValueError(
                f"layers = {layers!r} is no regular expression ({error}); mend it or list names"
            ) from error
        if not chosen:
            raise ValueError(f"layers = {pattern!r} matches no self-attention; there are: {', '.join(available)}")
        return chosen
    chosen = list(layers)
    if not chosen:
        raise ValueError(f"layers is empty; choose from: {', '.join(available)}")
    for name in chosen:
        if name not in available:
            raise ValueError(f"layers holds {name!r}, which is no self-attention; there are: {', '.join(available)}")
    return chosen


@contextmanager
def captured_features(
    unet: UNet2DConditionModel, layers: str | Sequence[str] | None = None
) -> Iterator[dict[str, torch.Tensor]]:
    """Captures the chosen self-attention outputs of the forward passes in the block; later passes replace earlier ones.

    Yields a dict that is filled by the forward pass: module path -> (batch, channels, height, width), of the UNet's
    dtype, attached to the graph where gradients are on. The hooks are gone after the block, whatever happened in it.

    Raises:
        ValueError: see `select_layers`.
    """
    features: dict[str, torch.Tensor] = {}
    with _hooked(unet, select_layers(unet, layers), features.__setitem__):
        yield features


class ReducedFeatures:
    """One layer's features, reduced frame by frame. Three frames are held, and for each pixel two numbers a frame.

    Attributes:
        shape: (channels, height, width) of a frame; None before the first.
    """

    def __init__(self) -> None:
        self.shape: tuple[int, int, int] | None = None
        self._stream = GramStream()
        self._pixel_norms: list[np.ndarray] = []
        self._pixel_similarities: list[np.ndarray] = []
        self._last: torch.Tensor | None = None

    def add(self, frames: torch.Tensor) -> None:
        """Take the next frames, (frames, channels, height, width)."""
        self.shape = tuple(frames.shape[1:])
        for frame in frames.detach():
            # Inner products of half-precision entries overflow long before they matter.
            wide = frame if frame.dtype in (torch.float32, torch.float64) else frame.float()
            norms = torch.linalg.vector_norm(wide, dim=0)
            self._stream.add(frame)
            self._pixel_norms.append(norms.cpu().numpy().astype(np.float64))
            # Dividing first keeps the product in range; a dead pixel has no direction and gives NaN.
            directions = wide / norms
            if self._last is not None:
                self._pixel_similarities.append(torch.sum(self._last * directions, dim=0).cpu().numpy())
            self._last = directions

    @property
    def num_frames(self) -> int:
        """How many frames have been taken."""
        return len(self._pixel_norms)

    @property
    def norms(self) -> np.ndarray:
        """(frames,) float64: ||F_t||."""
        return np.sqrt(self._stream.squared_norms)

    @property
    def similarities(self) -> np.ndarray:
        """(frames - 1,) float64: s_t, NaN beside a frame of zeros."""
        norms = self.norms
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(self._stream.neighbours) / (norms[:-1] * norms[1:])

    @property
    def pixel_norms(self) -> np.ndarray:
        """(frames, height, width) float64: the norm of every pixel's channel vector."""
        return np.stack(self._pixel_norms)

    @property
    def pixel_similarities(self) -> np.ndarray:
        """(frames - 1, height, width): cosines over the channels, in the features' precision; NaN at dead pixels."""
        return np.stack(self._pixel_similarities)

    def gram(self) -> BandedGram:
        """The inner products, for `theory.temporal_loss.certificate.certify_gram`.

        Raises:
            ValueError: fewer than 3 frames, or a frame that is zero or not finite; the message names it.
        """
        return self._stream.gram()


@contextmanager
def reduced_features(
    unet: UNet2DConditionModel, layers: str | Sequence[str] | None = None
) -> Iterator[dict[str, ReducedFeatures]]:
    """Reduces the chosen self-attention outputs of the forward passes in the block as they come.

    The batch entries of one pass, and of one pass after another, are consecutive frames. What is held at any time is
    what one pass itself computes and three frames of each layer.

    Yields a dict that is filled by the forward passes: module path -> `ReducedFeatures`. The hooks are gone after the
    block, whatever happened in it.

    Raises:
        ValueError: see `select_layers`.
    """
    names = select_layers(unet, layers)
    reduced = {name: ReducedFeatures() for name in names}
    with _hooked(unet, names, lambda name, features: reduced[name].add(features)):
        yield reduced


@contextmanager
def _hooked(unet: UNet2DConditionModel, names: Sequence[str], receive: _Receive) -> Iterator[None]:
    """Hands the outputs of the named layers to `receive`, laid out as images."""
    sizes: dict[str, tuple[int, int]] = {}
    with ExitStack() as hooks:
        for name in names:
            enclosing = _enclosing_transformer(unet, name)
            if enclosing is not None:
                hook = enclosing.register_forward_pre_hook(_size_hook(name, sizes), with_kwargs=True)
                hooks.callback(hook.remove)
            hook = unet.get_submodule(name).register_forward_hook(_feature_hook(name, sizes, receive))
            hooks.callback(hook.remove)
        yield


def _enclosing_transformer(unet: UNet2DConditionModel, name: str) -> Transformer2DModel | None:
    path = name.split(".")
    for length in range(len(path) - 1, 0, -1):
        module = unet.get_submodule(".".join(path[:length]))
        if isinstance(module, Transformer2DModel):
            return module
    return None


def _size_hook(name: str, sizes: dict[str, tuple[int, int]]) -> Callable[..., None]:
    def remember_size(module, arguments, keywords):
        hidden_states = arguments[0] if arguments else keywords["hidden_states"]
        sizes[name] = tuple(hidden_states.shape[-2:])

    return remember_size


def _feature_hook(name: str, sizes: dict[str, tuple[int, int]], receive: _Receive) -> Callable[..., None]:
    def remember_output(module, arguments, output):
        height, width = sizes[name] if name in sizes else _square(name, output.shape[1])
        if height * width != output.shape[1]:
            raise ValueError(
                f"{name} returned {output.shape[1]} tokens for a {height} x {width} image; only self-attention with one"
                " token a pixel can be laid out as an image: leave this layer out"
            )
        # Tokens run row by row: (batch, height * width, channels) -> (batch, channels, height, width).
        receive(name, output.transpose(1, 2).unflatten(2, (height, width)))

    return remember_output


def _square(name: str, tokens: int) -> tuple[int, int]:
    side = math.isqrt(tokens)
    if side * side != tokens:
        raise ValueError(f"{name} returned {tokens} tokens, which is no square image; leave this layer out")
    return side, side
