"""Self-attention features of a UNet: the outputs of attn1 in its transformer blocks, taken by forward hooks."""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from diffusers import Transformer2DModel, UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock

DEFAULT_LAYERS = r"^up_blocks\."


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
    names = select_layers(unet, layers)
    features: dict[str, torch.Tensor] = {}
    sizes: dict[str, tuple[int, int]] = {}
    with ExitStack() as hooks:
        for name in names:
            enclosing = _enclosing_transformer(unet, name)
            if enclosing is not None:
                hook = enclosing.register_forward_pre_hook(_size_hook(name, sizes), with_kwargs=True)
                hooks.callback(hook.remove)
            hook = unet.get_submodule(name).register_forward_hook(_feature_hook(name, sizes, features))
            hooks.callback(hook.remove)
        yield features


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


def _feature_hook(
    name: str, sizes: dict[str, tuple[int, int]], features: dict[str, torch.Tensor]
) -> Callable[..., None]:
    def remember_output(module, arguments, output):
        height, width = sizes[name] if name in sizes else _square(name, output.shape[1])
        if height * width != output.shape[1]:
            raise ValueError(
                f"{name} returned {output.shape[1]} tokens for a {height} x {width} image; only self-attention with one"
                " token a pixel can be laid out as an image: leave this layer out"
            )
        # Tokens run row by row: (batch, height * width, channels) -> (batch, channels, height, width).
        features[name] = output.transpose(1, 2).unflatten(2, (height, width))

    return remember_output


def _square(name: str, tokens: int) -> tuple[int, int]:
    side = math.isqrt(tokens)
    if side * side != tokens:
        raise ValueError(f"{name} returned {tokens} tokens, which is no square image; leave this layer out")
    return side, side
