"""The round trip as the released tools run it, and the weights behind its uniform bound.

The tools invert on a fine ladder without guidance, keep the latents, and sample on a coarse ladder whose timesteps are
among the fine one's, guided, with the adapter on for some timesteps only: 500 steps up, 50 down at guidance 7.5, the
adapter on for timesteps in [900, 1000).
"""

import numpy as np
import torch

from experiments.editor.editor import Editor
from experiments.editor.inversion import Ladder, invert_latents, noise_ladder
from theory.evidence import OutputLayerRecord, PracticeRecord

GUIDANCE_SCALE = 7.5
ADAPTER_WINDOW = (900, 1000)
"""Timesteps at which the adapter is on: from the first, below the second."""
FINE_STEPS_PER_STEP = 10


def fine_ladder(editor: Editor, num_steps: int) -> Ladder:
    """The finest ladder of up to ten times as many steps that has all timesteps of the coarse one.

    Raises:
        ValueError: what `noise_ladder` raises for the coarse ladder itself.
    """
    coarse = noise_ladder(editor.pipeline.scheduler, num_steps, editor.dtype)
    for factor in range(FINE_STEPS_PER_STEP, 1, -1):
        try:
            fine = noise_ladder(editor.pipeline.scheduler, factor * num_steps, editor.dtype)
        except ValueError:  # the schedule has no such number of steps
            continue
        if set(coarse.timesteps.tolist()) <= set(fine.timesteps.tolist()):
            return fine
    return coarse


def record_practice(
    editor: Editor,
    latents: torch.Tensor,
    prompt: str,
    num_steps: int,
    *,
    guidance_scale: float = GUIDANCE_SCALE,
    window: tuple[int, int] = ADAPTER_WINDOW,
    frame_indices: tuple[int, ...] | None = None,
) -> PracticeRecord:
    """Invert on a fine ladder, sample on the coarse one, and take the four predictions apart on the inversion's
    latents.

    Args:
        editor: of dtype float64, with an adapter.
        latents: (frames, channels, height, width) at level 0, float64.
        num_steps: of the sampling.
        window: timesteps at which the adapter is on, [first, end).
        frame_indices: which frames of the prompt tokens' clip the latents are; None is all of them.

    Raises:
        ValueError: what `noise_ladder` and `invert_latents` raise.
    """
    fine = fine_ladder(editor, num_steps)
    coarse = noise_ladder(editor.pipeline.scheduler, num_steps, editor.dtype)
    places = {int(timestep): place for place, timestep in enumerate(fine.timesteps)}

    def predict(state: torch.Tensor, timestep: int, text: str, adapter: bool) -> torch.Tensor:
        return editor.predict_noise(state, timestep, text, adapter=adapter, frame_indices=frame_indices)

    adapter_on = np.array([window[0] <= timestep < window[1] for timestep in coarse.timesteps[1:]])
    with torch.no_grad():
        up = invert_latents(lambda state, timestep: predict(state, timestep, prompt, False), latents, fine)
        states = up.latents[[places[int(timestep)] for timestep in coarse.timesteps]]
        sampling, used, parts = [states[-1]], [], []
        for step in reversed(range(num_steps)):
            timestep = int(coarse.timesteps[step + 1])
            adapted = bool(adapter_on[step])
            silent, told = (predict(sampling[-1], timestep, text, adapted) for text in ("", prompt))
            used.append(silent + guidance_scale * (told - silent))
            sampling.append(coarse.step_down(used[-1], step, sampling[-1]))
            base = [predict(states[step + 1], timestep, text, False) for text in (prompt, "")]
            with_adapter = (
                [predict(states[step + 1], timestep, text, True) for text in (prompt, "")] if adapted else base
            )
            parts.append(base + with_adapter)
    pieces = [torch.stack(part[::-1]) for part in zip(*parts, strict=True)]
    names = ("conditional", "unconditional", "adapted_conditional", "adapted_unconditional")
    return PracticeRecord(
        label=(
            f"{fine.num_steps} steps up, {num_steps} down at guidance {guidance_scale:g}, adapter on in [{window[0]}, "
            f"{window[1]})"
        ),
        guidance_scale=guidance_scale,
        fine_alphas_cumprod=fine.alphas_cumprod,
        fine_predictions=_array(up.predictions),
        alphas_cumprod=coarse.alphas_cumprod,
        states=_array(states),
        sampling=_array(torch.stack(sampling[::-1])),
        sampling_predictions=_array(torch.stack(used[::-1])),
        adapter_on=adapter_on,
        **{name: _array(piece) for name, piece in zip(names, pieces, strict=True)},
    )


def record_output_layer(editor: Editor) -> OutputLayerRecord:
    """The weights of the UNet's last normalisation and convolution.

    Raises:
        ValueError: the UNet does not end in GroupNorm, SiLU and a 3 x 3 convolution with padding 1.
    """
    unet = editor.pipeline.unet
    norm, activation, convolution = unet.conv_norm_out, unet.conv_act, unet.conv_out
    fits = isinstance(norm, torch.nn.GroupNorm) and isinstance(activation, torch.nn.SiLU)
    if not fits or convolution.kernel_size != (3, 3) or convolution.padding != (1, 1) or convolution.stride != (1, 1):
        raise ValueError(
            f"the UNet ends in {type(norm).__name__}, {type(activation).__name__} and {convolution}; GroupNorm, SiLU "
            "and a 3 x 3 convolution with padding 1 are needed: the uniform bound is about these"
        )
    size = unet.config.sample_size
    return OutputLayerRecord(
        label="the UNet's last normalisation and convolution",
        kernel=_array(convolution.weight),
        bias=_array(convolution.bias),
        gain=_array(norm.weight),
        shift=_array(norm.bias),
        num_groups=norm.num_groups,
        frame_size=(size, size) if isinstance(size, int) else tuple(size),
    )


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().to("cpu", torch.float64).contiguous().numpy()
