"""Settings of a pipeline's networks: types and ranges, and whether they fit each other; the message names file and key.

diffusers builds a network from nearly any settings and fails, or silently computes something else, when it is called.
"""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

PIXEL_CHANNELS = 3
LARGEST = 1 << 20
"""No width, number of channels or side of a network that is read here comes near it."""
MOST_LAYERS = 1000
_COPY = "copy the pipeline folder again"
_OTHER_INPUTS = {
    9: "the image to be kept and a mask as well (inpainting)",
    8: "an image to be changed as well (InstructPix2Pix)",
    7: "a small image as well (an upscaler)",
    5: "a depth map as well (depth to image)",
}
_SECOND_CONDITIONING = {
    # option: value that needs nothing but the prompt's own tokens
    "addition_embed_type": "text",
    "class_embed_type": None,
    "encoder_hid_dim_type": None,
}


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        ValueError: it is missing, no JSON, too deeply nested, or no object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path} is missing; {_COPY}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON file ({error}); {_COPY}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, not an object; {_COPY}")
    return content


def whole_number(config: Mapping[str, Any], key: str, path: Path, default: int | None = None, least: int = 1) -> int:
    """An integer of a configuration, from `least` to `LARGEST`.

    Raises:
        ValueError: it is missing and has no default, of another type, or out of range.
    """
    value = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= LARGEST:
        raise ValueError(f"{path} has {key} = {value!r}; an integer from {least} to {LARGEST} is needed: {_COPY}")
    return value


def number(config: Mapping[str, Any], key: str, path: Path, default: float) -> float:
    """A finite number of a configuration.

    Raises:
        ValueError: it is of another type, or not finite.
    """
    value = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{path} has {key} = {value!r}; a finite number is needed: {_COPY}")
    return float(value)


def switch(config: Mapping[str, Any], key: str, path: Path, default: bool) -> bool:
    """A boolean of a configuration.

    Raises:
        ValueError: it is of another type.
    """
    value = config.get(key, default)
    if not isinstance(value, bool):
        raise ValueError(f"{path} has {key} = {value!r}; true or false is needed: {_COPY}")
    return value


def require_fitting_parts(folder: Path, has_autoencoder: bool) -> list[str]:
    """Checks that UNet, text encoder and autoencoder of a Stable Diffusion folder fit each other.

    Returns:
        What is not audited though the UNet's settings mention it.

    Raises:
        ValueError: a setting of another type; a UNet that needs more than latents, a timestep and a prompt; widths or
            channels that differ between two parts.
    """
    path = folder / "unet" / "config.json"
    unet = read_json(path)
    if unet.get("quantization_config") is not None:
        raise ValueError(
            f"{path} has a quantization_config: quantised weights are not read; give the pipeline with ordinary weights"
        )
    _require_prompt_alone(unet, path)
    channels = whole_number(unet, "in_channels", path, 4)
    _require_channels(unet, path, channels, _latent_channels(folder, has_autoencoder))
    _require_text_width(unet, path, folder)
    _require_sample_size(unet, path)
    _require_bounded(unet, path, ("layers_per_block", "transformer_layers_per_block"), MOST_LAYERS)
    _require_bounded(unet, path, ("block_out_channels", "attention_head_dim", "norm_num_groups"), LARGEST)
    text_path = folder / "text_encoder" / "config.json"
    text = read_json(text_path)
    _require_bounded(text, text_path, ("num_hidden_layers", "num_attention_heads"), MOST_LAYERS)
    _require_bounded(text, text_path, ("vocab_size", "intermediate_size", "max_position_embeddings"), LARGEST)
    if unet.get("attention_type") in ("gated", "gated-text-image"):
        return ["not audited: GLIGEN's grounding (attention_type 'gated'): audited is the UNet without boxes"]
    return []


def _require_bounded(config: Mapping[str, Any], path: Path, keys: Iterable[str], most: int) -> None:
    """Integers, or lists of them, from 1 to `most`, where they are stated: a network is built before it is checked."""
    for key in keys:
        stated = config.get(key)
        for value in stated if isinstance(stated, list) else [stated]:
            if value is None or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most):
                continue
            raise ValueError(f"{path} has {key} = {stated!r}; integers from 1 to {most} are needed: {_COPY}")


def _require_prompt_alone(unet: Mapping[str, Any], path: Path) -> None:
    for option, harmless in _SECOND_CONDITIONING.items():
        value = unet.get(option)
        if value is not None and value != harmless:
            raise ValueError(
                f"{path} has {option} = {value!r}, a second conditioning; this editor drives a UNet by timestep and"
                " prompt alone: use a Stable Diffusion 1 or 2 pipeline"
            )
    for option, what in (
        ("time_cond_proj_dim", "a guidance embedding, as latent consistency models (LCM) have it"),
        ("num_class_embeds", "class labels, as upscalers have them"),
        ("encoder_hid_dim", "a projection of another text encoder's states"),
    ):
        if unet.get(option) is not None:
            raise ValueError(
                f"{path} has {option} = {unet[option]!r}: the UNet takes {what}, which its own pipeline always gives it"
                " and this editor does not; use a Stable Diffusion 1 or 2 pipeline"
            )


def _latent_channels(folder: Path, has_autoencoder: bool) -> int:
    if not has_autoencoder:
        return PIXEL_CHANNELS
    path = folder / "vae" / "config.json"
    vae = read_json(path)
    number(vae, "scaling_factor", path, 0.18215)
    if vae.get("scaling_factor", 1) == 0:
        raise ValueError(f"{path} has scaling_factor = 0, by which latents are divided; {_COPY}")
    if vae.get("shift_factor") is not None:
        number(vae, "shift_factor", path, 0.0)
    return whole_number(vae, "latent_channels", path, 4)


def _require_channels(unet: Mapping[str, Any], path: Path, channels: int, latents: int) -> None:
    if channels != latents:
        more = _OTHER_INPUTS.get(channels, "something else than latents") if channels > latents else "others"
        source = "pixels have" if latents == PIXEL_CHANNELS else "the autoencoder (vae/config.json) makes latents of"
        what = (
            f"the UNet takes {channels} channels, {more}"
            if channels > latents
            else "UNet and autoencoder are not of one model"
        )
        raise ValueError(
            f"{path} has in_channels = {channels} and {source} {latents}: {what}; this editor gives a UNet its latents"
            " alone: use a text-to-image pipeline of Stable Diffusion 1 or 2"
        )
    outputs = whole_number(unet, "out_channels", path, 4)
    if outputs != channels:
        learned = " (a learned variance beside the noise)" if outputs == 2 * channels else ""
        raise ValueError(
            f"{path} has out_channels = {outputs}{learned} and in_channels = {channels}; a UNet that predicts the noise"
            " alone is needed"
        )


def _require_text_width(unet: Mapping[str, Any], path: Path, folder: Path) -> None:
    text_path = folder / "text_encoder" / "config.json"
    width = whole_number(read_json(text_path), "hidden_size", text_path, 512)
    stated = unet.get("cross_attention_dim", 1280)
    for value in stated if isinstance(stated, list) else [stated]:
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{path} has cross_attention_dim = {stated!r}; an integer above 0 is needed: {_COPY}")
        if value != width:
            raise ValueError(
                f"{path} has cross_attention_dim = {value} and {text_path} hidden_size = {width}: the UNet's"
                " cross-attention and the text encoder must have one width, so the two are not of one model; put both"
                " from the same one"
            )


def _require_sample_size(unet: Mapping[str, Any], path: Path) -> None:
    value = unet.get("sample_size")
    sides = value if isinstance(value, list) else [value]
    if value is not None and not (
        1 <= len(sides) <= 2
        and all(isinstance(side, int) and not isinstance(side, bool) and 1 <= side <= LARGEST for side in sides)
    ):
        raise ValueError(f"{path} has sample_size = {value!r}; an integer above 0, a pair of them, or null is needed")
