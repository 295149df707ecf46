r"""Which layer a key of a LoRA file names, and which factor of the layer's update it holds.

A key is a prefix for the network, the path of the layer, and the name of the factor:

    peft        base_model.model.<layer>.lora_A.weight
    diffusers   unet.<layer>.lora_A.weight, with or without "unet.",    unet.<layer>.lora.down.weight
                unet.<attention>.processor.to_q_lora.down.weight
                text_encoder.<layer>.lora_linear_layer.down.weight
    kohya       lora_unet_<layer, dots as underscores>.lora_down.weight, lora_te_<layer of the text encoder>..
    ComfyUI     diffusion_model.<layer>.lora_up.weight

and the layer is called as in diffusers' UNet or as in the original one (SGM, LDM: input_blocks, middle_block,
output_blocks), whose names are computed here from diffusers'.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import torch

UNET, TEXT_ENCODER = "unet", "text_encoder"

_UNET_PREFIXES = (
    "base_model.model.unet.",
    "base_model.model.",
    "model.diffusion_model.",
    "diffusion_model.",
    "unet.",
    "lora_unet_",
    "lycoris_unet_",
    "lycoris_",
)
_TEXT_PREFIXES = ("text_encoder.", "lora_te1_", "lora_te_", "lycoris_te_")
_SECOND_TEXT_ENCODER = ("text_encoder_2.", "lora_te2_")
_FACTORS = (
    # (pattern of the end of a key, its replacement in the path, name of the factor or None for the pattern's own)
    (re.compile(r"\.processor\.(?P<layer>to_[qkv])_lora\.(?P<factor>down|up)\.weight$"), r".\g<layer>", None),
    (re.compile(r"\.processor\.to_out_lora\.(?P<factor>down|up)\.weight$"), ".to_out.0", None),
    (re.compile(r"\.to_(?P<layer>[qkv]|out)_lora\.(?P<factor>down|up)\.weight$"), r".\g<layer>_proj", None),
    (re.compile(r"\.lora_(?P<factor>A|B)(\.(?P<adapter>\w+))?\.weight$"), "", None),
    (re.compile(r"\.lora_B(\.(?P<adapter>\w+))?\.bias$"), "", "bias"),
    (re.compile(r"\.lora(_linear_layer)?\.(?P<factor>down|up)\.weight$"), "", None),
    (re.compile(r"\.lora_(?P<factor>down|up|mid)\.weight$"), "", None),
    (re.compile(r"\.lora_magnitude_vector(\.(?P<adapter>(?!weight$)\w+))?(\.weight)?$"), "", "magnitude"),
    (re.compile(r"\.(?P<factor>(hada_(w[12]_[ab]|t[12])|lokr_(w[12](_[ab])?|t2)))(\.(?P<adapter>\w+))?$"), "", None),
    (re.compile(r"\.(?P<factor>dora_scale|diff_b|diff|scalar)$"), "", None),
    (re.compile(r"\.(?P<factor>alpha)$"), "", None),
)
_FACTOR_NAMES = {"A": "down", "B": "up"}
_NOT_ALONE = ("alpha", "scalar")


@dataclass(frozen=True)
class Named:
    """What a key names.

    Attributes:
        part: UNET or TEXT_ENCODER; None where the layer is in neither.
        layer: its path in diffusers' model, or as the key has it where it is in neither.
        factor: "down", "up", "mid", "bias", "alpha", ..; None where the key is no factor of an update.
        adapter: the name of the adapter, where peft put it into the key.
    """

    part: str | None
    layer: str
    factor: str | None
    adapter: str | None = None


class Names:
    """The names under which files know the layers of a UNet and its text encoder."""

    def __init__(self, unet: torch.nn.Module, text_encoder: torch.nn.Module | None) -> None:
        self._unet = _with_underscores(
            {**_original_names(unet, _layers(unet)), **{path: path for path in _layers(unet)}}
        )
        text = [] if text_encoder is None else _layers(text_encoder)
        # Transformers before version 5 had the encoder's layers below "text_model.".
        self._text = _with_underscores({prefix + path: path for path in text for prefix in ("", "text_model.")})

    def find(self, key: str) -> Named:
        """What a key names."""
        for pattern, replacement, factor in _FACTORS:
            match = pattern.search(key)
            if match:
                break
        else:
            return Named(None, key, None)
        name = key[: match.start()] + match.expand(replacement)
        groups = match.groupdict()
        factor = factor or _FACTOR_NAMES.get(groups["factor"], groups["factor"])
        adapter = groups.get("adapter")
        for part, prefixes, known in (
            (TEXT_ENCODER, _TEXT_PREFIXES, self._text),
            (UNET, ("", *_UNET_PREFIXES), self._unet),
            (TEXT_ENCODER, ("base_model.model.",), self._text),
        ):
            for prefix in prefixes:
                if name.startswith(prefix) and name.removeprefix(prefix) in known:
                    return Named(part, known[name.removeprefix(prefix)], factor, adapter)
        return Named(None, name, factor, adapter)


def is_factor(key: str) -> bool:
    """Whether a key ends like a factor that only files of updates have."""
    return any(
        (match := pattern.search(key)) and (factor or match.groupdict().get("factor")) not in _NOT_ALONE
        for pattern, _, factor in _FACTORS
    )


def belongs_to_text_encoder(key: str) -> bool:
    """Whether a key is of the text encoder by its prefix, known layer or not."""
    return key.startswith(_TEXT_PREFIXES)


def belongs_to_second_text_encoder(key: str) -> bool:
    """Whether a key is of the second text encoder, which SDXL has."""
    return key.startswith(_SECOND_TEXT_ENCODER)


def _layers(model: torch.nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)]


def _with_underscores(names: dict[str, str]) -> dict[str, str]:
    return {**{name.replace(".", "_"): path for name, path in names.items()}, **names}


_RESNET = (
    ("conv1", "in_layers.2"),
    ("conv2", "out_layers.3"),
    ("time_emb_proj", "emb_layers.1"),
    ("conv_shortcut", "skip_connection"),
)
_OUTSIDE = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
}


def _original_names(unet: torch.nn.Module, layers: Iterable[str]) -> dict[str, str]:
    """Name in the original UNet -> path in diffusers'; empty where the blocks have different numbers of layers."""
    depth = getattr(unet, "config", {}).get("layers_per_block")
    if not isinstance(depth, int):
        return {}
    layers = list(layers)
    with_attention = {path.split(".")[1] for path in layers if re.match(r"up_blocks\.\d+\.attentions\.", path)}
    found = {}
    for path in layers:
        name = _OUTSIDE.get(path) or _original_name(path, depth, with_attention)
        if name is not None:
            found[name] = path
    return found


def _original_name(path: str, depth: int, with_attention: set[str]) -> str | None:
    match = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.+)", path)
    if match:
        side, block, kind, place, rest = match.groups()
        number = int(block) * (depth + 1) + int(place) + (1 if side == "down" else 0)
        blocks = "input_blocks" if side == "down" else "output_blocks"
        return f"{blocks}.{number}.{'0' if kind == 'resnets' else '1'}.{_inside(kind, rest)}"
    match = re.fullmatch(r"down_blocks\.(\d+)\.downsamplers\.0\.conv", path)
    if match:
        return f"input_blocks.{(int(match[1]) + 1) * (depth + 1)}.0.op"
    match = re.fullmatch(r"up_blocks\.(\d+)\.upsamplers\.0\.conv", path)
    if match:
        last = int(match[1]) * (depth + 1) + depth
        return f"output_blocks.{last}.{'2' if match[1] in with_attention else '1'}.conv"
    match = re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)", path)
    if match:
        kind, place, rest = match.groups()
        return f"middle_block.{2 * int(place) + (kind == 'attentions')}.{_inside(kind, rest)}"
    return None


def _inside(kind: str, rest: str) -> str:
    if kind == "resnets":
        for ours, theirs in _RESNET:
            if rest == ours:
                return theirs
    return rest
