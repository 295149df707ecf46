"""Which pipeline a folder holds, by the class in its model_index.json, and which of its parts the audit leaves out."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.editor.pipeline_files.configs import read_json

USED = ("unet", "text_encoder", "tokenizer", "scheduler", "vae")
"""The parts of a Stable Diffusion pipeline that the editor loads."""

TAKEN = "audited are Stable Diffusion 1 and 2: a UNet2DConditionModel with one CLIP text encoder"
_DENOISERS = ("transformer", "unet", "prior", "decoder")
_KINDS = (
    # (pattern of the class, what it is, what to give instead)
    (r"StableDiffusionXL", "two text encoders and time ids condition its UNet", ""),
    (
        r"AnimateDiff",
        "motion modules join its frames",
        "give the Stable Diffusion folder that the motion adapter was put on; it is then audited without the adapter",
    ),
    (r"TextToVideo|VideoToVideo|I2VGen|StableVideoDiffusion", "its UNet takes all frames as one sample", ""),
    (r"^(DDPM|DDIM|PNDM|ScoreSdeVe|KarrasVe|ConsistencyModel|DiT)", "it is unconditional: it has no text encoder", ""),
    (
        r"LatentConsistencyModel",
        "its UNet takes a guidance embedding and its solver draws noise",
        "give the Stable Diffusion folder that it was distilled from",
    ),
    (
        r"Flux|StableDiffusion3|SD3|Wan|LTX|HunyuanVideo|Mochi|Sana|Lumina|Qwen|AuraFlow|ZImage|HiDream|Chroma|Cosmos",
        "it is a transformer trained by flow matching: it predicts a velocity, and its noise levels are not DDIM's",
        "",
    ),
    (r"CogVideoX|PixArt|Hunyuan|Allegro|Latte|CogView|EasyAnimate", "it is a transformer over joint tokens", ""),
)


@dataclass(frozen=True)
class Folder:
    """What model_index.json says.

    Attributes:
        class_name: of the pipeline.
        has_autoencoder: whether a vae stands between pixels and latents.
        notes: the parts that are not used, one line each.
    """

    class_name: str
    has_autoencoder: bool
    notes: tuple[str, ...]


def read_index(folder: Path) -> Folder:
    """Reads model_index.json and refuses, by name, a pipeline of a kind that the editor does not drive.

    Raises:
        ValueError: no such file, an entry that is no [library, class], or a pipeline whose network is no
            UNet2DConditionModel driven by one text encoder; the message says what it is and what to give instead.
    """
    path = folder / "model_index.json"
    index = read_json(path)
    class_name = index.get("_class_name", "StableDiffusionPipeline")
    if not isinstance(class_name, str):
        raise ValueError(f"{path} has _class_name = {class_name!r}; the name of a pipeline class is needed")
    parts = _parts(index, path)
    denoiser = next((name for name in _DENOISERS if name in parts), None)
    if denoiser != "unet" or parts["unet"] != "UNet2DConditionModel" or "text_encoder" not in parts:
        _refuse(folder, class_name, parts, denoiser)
    if "text_encoder_2" in parts or re.search(r"LatentConsistencyModel|StableDiffusionXL", class_name):
        _refuse(folder, class_name, parts, denoiser)
    notes = [
        f"not audited: {name} ({found}){'' if name != 'controlnet' else ': audited is the UNet without it'}"
        for name, found in parts.items()
        if name not in USED
    ]
    return Folder(class_name, "vae" in parts, tuple(notes))


def _parts(index: Mapping[str, Any], path: Path) -> dict[str, str]:
    """Name -> class of the parts that are there."""
    parts = {}
    for name, entry in index.items():
        if name.startswith("_") or not isinstance(entry, list | tuple):
            # Options such as requires_safety_checker; a part must be a pair.
            if name in USED and entry is not None:
                raise ValueError(f"{path} has {name} = {entry!r}; a pair [library, class] is needed: copy it again")
            continue
        if name in USED and (len(entry) != 2 or not all(part is None or isinstance(part, str) for part in entry)):
            raise ValueError(f"{path} has {name} = {entry!r}; a pair [library, class] is needed: copy it again")
        classes = [part for part in entry[1:] if isinstance(part, str)]
        if classes:
            parts[name] = ", ".join(classes)
        elif any(isinstance(part, list) for part in entry):
            parts[name] = "several"  # several ControlNets are a list of pairs
    return parts


def _refuse(folder: Path, class_name: str, parts: Mapping[str, str], denoiser: str | None) -> None:
    kind, instead = next(
        ((what, instead) for pattern, what, instead in _KINDS if re.search(pattern, class_name)),
        ("it is another kind of pipeline", ""),
    )
    network = f" on the network {parts[denoiser]}" if denoiser else " without a denoising network that is known"
    raise ValueError(
        f"{folder} holds the pipeline class {class_name}{network}: {kind}. Nothing is wrong with the folder, but"
        f" {TAKEN}; {instead or 'give such a pipeline'}"
    )
