"""The bilateral filter across frames inside a UNet: chosen self-attention outputs, filtered by forward hooks.

The batch entries of a forward pass are the frames, so the filter runs along axis 0 and every frame's prediction then
depends on its neighbours: frames must go through the UNet together, in order.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from diffusers import UNet2DConditionModel

from experiments.editor.capture import select_layers, self_attention_layers
from theory.bilateral.filter import bilateral_filter, check_settings


def filtered_layers(unet: UNet2DConditionModel) -> list[str]:
    """The self-attentions of the first two attention blocks of the last up block that has any.

    The public code of arXiv 2501.04606 filters the first two attention blocks of the last up block of Stable Diffusion,
    which all have attention but the first.

    Raises:
        ValueError: no up block has self-attention.
    """
    # Module paths: up_blocks.<block>.attentions.<attention>.transformer_blocks.<index>.attn1
    paths = [name.split(".") for name in self_attention_layers(unet) if name.startswith("up_blocks.")]
    if not paths:
        raise ValueError("no up block of the UNet has self-attention; name the layers to filter")
    last = max(int(path[1]) for path in paths)
    blocks = sorted({int(path[3]) for path in paths if int(path[1]) == last})[:2]
    return [".".join(path) for path in paths if int(path[1]) == last and int(path[3]) in blocks]


@contextmanager
def bilateral_filtering(
    unet: UNet2DConditionModel,
    layers: str | Sequence[str] | None = None,
    *,
    sigma_range: float = 1.0,
    sigma_spatial: float = 1.0,
    kernel_size: int = 5,
    monotone: bool = False,
    num_frames: int | None = None,
) -> Iterator[list[str]]:
    """Filters the chosen self-attention outputs across frames in the forward passes of the block.

    The defaults are the settings of the public code of arXiv 2501.04606, with reflect padding (symmetric padding for
    the monotone variant). Without the block the
    UNet is the base network bit for bit. Gradients flow through the filter. Features that are captured inside the block
    (`capture.captured_features`) are the filtered ones.

    Args:
        layers: see `capture.select_layers`; None means `filtered_layers`.
        sigma_range, sigma_spatial, kernel_size, monotone: see `theory.bilateral.bilateral_filter`.
        num_frames: frames of the clip. A batch may hold several copies of it one after another, as under guidance,
            and each is filtered by itself. None means that the batch is the clip; a batch of two equal halves, which is
            what guidance makes, is then refused.

    Yields the names of the filtered layers. The hooks are gone after the block, whatever happened in it.

    Raises:
        ValueError: see `theory.bilateral.bilateral_filter`, `capture.select_layers` and `filtered_layers`; num_frames
            below 1; in a forward pass, a batch that is no multiple of num_frames (`Editor.predict_noise` with
            frames_at_once cuts the clip), or that num_frames is needed for.
    """
    check_settings(sigma_range, sigma_spatial, kernel_size, "reflect")
    if num_frames is not None and num_frames < 1:
        raise ValueError(f"num_frames = {num_frames} must be at least 1; None takes the batch as the clip")
    names = filtered_layers(unet) if layers is None else select_layers(unet, layers)

    def filtered(module, arguments, output):
        clips = output.split(num_frames or len(output))
        return torch.cat(
            [
                bilateral_filter(
                    clip,
                    sigma_range=sigma_range,
                    sigma_spatial=sigma_spatial,
                    kernel_size=kernel_size,
                    monotone=monotone,
                )
                for clip in clips
            ]
        )

    with ExitStack() as hooks:
        hooks.callback(unet.register_forward_pre_hook(_batch_check(num_frames), with_kwargs=True).remove)
        for name in names:
            hooks.callback(unet.get_submodule(name).register_forward_hook(filtered).remove)
        yield names


def _batch_check(num_frames: int | None) -> Callable[..., None]:
    def check(module, arguments, keywords):
        batch = arguments[0] if arguments else keywords["sample"]
        count = len(batch)
        if num_frames is not None and count % num_frames:
            raise ValueError(
                f"the batch holds {count} frames, no multiple of num_frames = {num_frames}; send the whole clip through"
                " the UNet at once (frames_at_once=None)"
            )
        if num_frames is None and count % 2 == 0 and torch.equal(batch[: count // 2], batch[count // 2 :]):
            raise ValueError(
                f"the batch of {count} holds the same {count // 2} frames twice, as under guidance, and the filter"
                f" would mix the copies; pass num_frames={count // 2}, or num_frames={count} for a clip that repeats"
                " itself"
            )

    return check
