"""LoRA files of other programs: the key formats of peft, diffusers and kohya, read into one form and put into a UNet.

A LoRA of a layer W adds (alpha / rank) B A. The files differ in how they name the layer, A and B:

    peft        base_model.model.<layer>.lora_A.weight                  alpha in adapter_config.json beside the file
    diffusers   unet.<layer>.lora_A.weight, with or without "unet.",    alpha in the metadata "lora_adapter_metadata"
                unet.<layer>.lora.down.weight
                unet.<attention>.processor.to_q_lora.down.weight        alpha equal to the rank
    kohya       lora_unet_<layer, dots as underscores>.lora_down.weight alpha in <layer>.alpha

Where no alpha is stated it equals the rank, as diffusers takes it. Only safetensors are read.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig
from safetensors import SafetensorError, safe_open

from experiments.editor.adapters import ADAPTER_NAME, lora_layers, set_lora_enabled
from experiments.editor.pipeline import PICKLED
from experiments.opened_files import record

FILE_NAMES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")
"""What diffusers and peft call the file in a folder of theirs."""

_PREFIXES = ("base_model.model.", "unet.")
_KOHYA = "lora_unet_"
_TEXT_ENCODER = ("text_encoder", "lora_te")
_FACTORS = (
    # (pattern of the end of a key, what it is replaced by in the module path)
    (re.compile(r"\.processor\.(?P<layer>to_[qkv])_lora\.(?P<factor>down|up)\.weight$"), r".\g<layer>"),
    (re.compile(r"\.processor\.to_out_lora\.(?P<factor>down|up)\.weight$"), ".to_out.0"),
    (re.compile(r"\.lora_(?P<factor>A|B)(\.\w+)?\.weight$"), ""),
    (re.compile(r"\.lora(_linear_layer)?\.(?P<factor>down|up)\.weight$"), ""),
    (re.compile(r"\.lora_(?P<factor>down|up)\.weight$"), ""),
    (re.compile(r"\.(?P<factor>alpha)$"), ""),
)
_FACTOR_NAMES = {"A": "down", "down": "down", "B": "up", "up": "up", "alpha": "alpha"}


@dataclass(frozen=True)
class LoraUpdate:
    """The update (alpha / rank) up down of one layer; down is (rank, in, ..), up (out, rank, ..)."""

    down: torch.Tensor
    up: torch.Tensor
    alpha: float

    @property
    def rank(self) -> int:
        """The number of rows of down."""
        return len(self.down)


@dataclass(frozen=True)
class LoraFile:
    """What a LoRA file holds for a UNet.

    Attributes:
        updates: by module path, in the order of the UNet's modules.
        alpha_source: where the alphas were stated: "keys", "metadata", "adapter_config.json" or "nowhere".
        ignored: how many weights belong to a text encoder, which this program leaves as it is.
    """

    updates: Mapping[str, LoraUpdate]
    alpha_source: str
    ignored: int

    @property
    def ranks(self) -> list[int]:
        """The ranks that occur, in order."""
        return sorted({update.rank for update in self.updates.values()})


def find_lora_file(path: str | os.PathLike[str]) -> Path:
    """The safetensors file of an adapter, which may be given by its folder.

    Raises:
        ValueError: nothing there, a folder without such a file, or pickled weights; the message has the command that
            converts them.
    """
    path = Path(path)
    if path.is_dir():
        for name in FILE_NAMES:
            if (path / name).is_file():
                return path / name
        pickled = sorted(entry for entry in path.iterdir() if entry.suffix in PICKLED)
        if not pickled:
            raise ValueError(f"{path} holds none of {', '.join(FILE_NAMES)}; give the LoRA file itself")
        path = pickled[0]
    if path.suffix in PICKLED:
        raise ValueError(
            f"{path} is pickled; pickled weights can run code and are not read: convert them with"
            f" python -c \"import torch; from safetensors.torch import save_file; save_file({{name: value.contiguous()"
            f" for name, value in torch.load('{path.name}', weights_only=True).items()}},"
            f" '{path.with_suffix('.safetensors').name}')\""
        )
    if not path.is_file():
        raise ValueError(f"{path}: no such file; give a file that save_adapter, peft or diffusers wrote")
    return path


def holds_lora(names: Any) -> bool:
    """Whether any of the names of a file's tensors is a LoRA factor's."""
    return any(pattern.search(name) for name in names for pattern, _ in _FACTORS[:-1])


def read_lora_file(path: str | os.PathLike[str], unet: UNet2DConditionModel) -> LoraFile:
    """Reads a LoRA file and matches it with the layers of a UNet; the UNet is not changed.

    Args:
        path: a safetensors file, or a folder of peft or diffusers with one.
        unet: without an adapter.

    Raises:
        ValueError: see `find_lora_file`; no safetensors file, no LoRA weights in it, a weight that is not finite, a
            variant of LoRA that is no (alpha / rank) B A, or weights that do not fit the UNet: the message says how
            many do and names the first that does not, in the order of the file's names.
    """
    path = record(find_lora_file(path))
    try:
        with safe_open(path, framework="pt") as content:
            metadata = content.metadata() or {}
            tensors = {name: content.get_tensor(name) for name in sorted(content.keys())}  # noqa: SIM118, no mapping
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is no intact safetensors file ({error}); copy or save it again") from error
    if not holds_lora(tensors):
        raise ValueError(f"{path} is no framebound adapter and holds no LoRA weights; give a LoRA file")
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{path}: {name} holds values that are not finite; train again with a lower learning rate")
    modules = {name: module for name, module in unet.named_modules() if _adaptable(module)}
    parts, ignored = _matched(path, tensors, modules)
    settings, source = _settings(path, metadata)
    updates = {}
    for module in (name for name in modules if name in parts):
        found = parts[module]
        rank = len(found["down"])
        if "alpha" in found:
            alpha = float(found["alpha"])
        else:
            alpha = _stated_alpha(settings, module, rank)
        if not 0 < abs(alpha) < float("inf"):
            raise ValueError(f"{path}: the alpha of {module} is {alpha}; a finite number other than 0 is needed")
        updates[module] = LoraUpdate(found["down"], found["up"], alpha)
    if any("alpha" in found for found in parts.values()):
        source = "keys"
    return LoraFile(updates, source, ignored)


def apply_lora_file(unet: UNet2DConditionModel, file: LoraFile, dtype: torch.dtype) -> None:
    """Puts the updates into the UNet as its adapter, unmerged and switched off.

    Raises:
        ValueError: the UNet has an adapter already.
    """
    if lora_layers(unet):
        raise ValueError("the UNet has a LoRA adapter already; remove it first (Editor.remove_adapter)")
    # peft reads the keys of these patterns as regular expressions.
    config = LoraConfig(
        r=1,
        lora_alpha=1,
        lora_dropout=0.0,
        bias="none",
        target_modules=list(file.updates),
        rank_pattern={re.escape(name): update.rank for name, update in file.updates.items()},
        alpha_pattern={re.escape(name): update.alpha for name, update in file.updates.items()},
        init_lora_weights=False,
    )
    with torch.random.fork_rng(devices=[]):
        unet.add_adapter(config, adapter_name=ADAPTER_NAME)
    layers = lora_layers(unet)
    with torch.no_grad():
        for name, update in file.updates.items():
            down, up = layers[name].lora_A[ADAPTER_NAME].to(dtype), layers[name].lora_B[ADAPTER_NAME].to(dtype)
            down.weight.copy_(update.down)
            up.weight.copy_(update.up)
    set_lora_enabled(unet, False)


def _adaptable(module: torch.nn.Module) -> bool:
    return isinstance(module, torch.nn.Linear | torch.nn.Conv2d)


def _matched(
    path: Path, tensors: Mapping[str, torch.Tensor], modules: Mapping[str, torch.nn.Module]
) -> tuple[dict[str, dict[str, torch.Tensor]], int]:
    """Module path -> "down", "up" and perhaps "alpha", and how many weights were left to the text encoder."""
    by_underscores = {name.replace(".", "_"): name for name in modules}
    parts: dict[str, dict[str, torch.Tensor]] = {}
    first_stranger, matched, ignored = None, 0, 0
    for key, tensor in tensors.items():
        if key.startswith(_TEXT_ENCODER):
            ignored += 1
            continue
        name, factor = _parse(key, by_underscores)
        reason = None
        if factor is None:
            reason = "is no weight of a plain LoRA"
        elif name not in modules:
            reason = "names a layer that this UNet does not have"
        else:
            fitting = tensor if factor == "alpha" else _fitting(tensor, factor, modules[name])
            if fitting is None:
                weight = tuple(modules[name].weight.shape)
                reason = f"is {tuple(tensor.shape)}, which does not fit the layer's weight {weight}"
            else:
                parts.setdefault(name, {})[factor] = fitting
                matched += 1
        first_stranger = first_stranger or (reason and (key, reason))
    if first_stranger is None:
        first_stranger = next(
            (
                (name, f"has {' and '.join(sorted(found))} and not both factors of one rank")
                for name, found in parts.items()
                if not {"down", "up"} <= found.keys() or len(found["down"]) != found["up"].shape[1]
            ),
            None,
        )
    if first_stranger is not None:
        raise ValueError(
            f"{path}: {matched} of {len(tensors) - ignored} LoRA weights match the UNet, and the first that does not,"
            f" {first_stranger[0]}, {first_stranger[1]}; load it into the pipeline it was trained on"
        )
    if not parts:
        raise ValueError(
            f"{path}: 0 of {len(tensors)} LoRA weights are the UNet's, the first, {next(iter(tensors))}, belongs to a"
            " text encoder; give a LoRA of the UNet"
        )
    return parts, ignored


def _parse(key: str, by_underscores: Mapping[str, str]) -> tuple[str, str | None]:
    """The module path that a key names and which factor it is; None where it is no factor."""
    for pattern, replacement in _FACTORS:
        match = pattern.search(key)
        if match:
            name = key[: match.start()] + match.expand(replacement)
            break
    else:
        return key, None
    if name.startswith(_KOHYA):
        name = by_underscores.get(name.removeprefix(_KOHYA), name)
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name, _FACTOR_NAMES[match["factor"]]


def _fitting(tensor: torch.Tensor, factor: str, module: torch.nn.Module) -> torch.Tensor | None:
    """The factor in the shape that peft gives it, or None where the layer's weight has another."""
    weight = module.weight
    if isinstance(module, torch.nn.Linear):
        if tensor.ndim == 4 and tuple(tensor.shape[2:]) == (1, 1):
            tensor = tensor.flatten(1)  # a projection that was a 1 x 1 convolution in another version
        expected = (None, weight.shape[1]) if factor == "down" else (weight.shape[0], None)
    else:
        if tensor.ndim == 2:
            tensor = tensor[:, :, None, None]
        # Grouped convolutions, whose factors have other shapes, do not occur in this UNet.
        expected = (None, *weight.shape[1:]) if factor == "down" else (weight.shape[0], None, 1, 1)
    fits = tensor.ndim == len(expected) and all(
        wanted is None or found == wanted for found, wanted in zip(tensor.shape, expected, strict=True)
    )
    return tensor if fits and 0 not in tensor.shape else None


def _settings(path: Path, metadata: Mapping[str, str]) -> tuple[dict[str, Any], str]:
    """peft's settings of the UNet's adapter, and where they were found."""
    stated = metadata.get("lora_adapter_metadata")
    beside = record(path.with_name("adapter_config.json"))
    if stated is not None:
        source, text = "metadata", stated
    elif beside.is_file():
        source, text = beside.name, beside.read_text(encoding="utf-8")
    else:
        return {}, "nowhere"
    try:
        settings = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path}: its settings ({source}) are no JSON ({error}); save it again") from None
    if not isinstance(settings, dict):
        found = type(settings).__name__
        raise ValueError(f"{path}: its settings ({source}) are a {found}, not an object; save it again")
    settings = {name.removeprefix("unet."): value for name, value in settings.items()}
    if settings.get("use_dora"):
        raise ValueError(f"{path} is a DoRA (use_dora), which is no (alpha / rank) B A; give a plain LoRA")
    return (settings, source) if settings.get("lora_alpha") is not None else ({}, "nowhere")


def _stated_alpha(settings: Mapping[str, Any], module: str, rank: int) -> float:
    """The alpha with which alpha / rank is the layer's scale."""
    if not settings:
        return float(rank)
    patterns = settings.get("alpha_pattern") or {}
    chosen = next((key for key in patterns if re.match(rf"(.*\.)?({key})$", module)), None)
    alpha = float(settings["lora_alpha"] if chosen is None else patterns[chosen])
    return alpha * rank**0.5 if settings.get("use_rslora") else alpha
