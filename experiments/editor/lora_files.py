"""LoRA files of other programs, read into one form and put into a UNet and its text encoder.

Read are the key formats of peft, diffusers, kohya and LyCORIS (see `lora.names`) and the updates that diffusers, kohya
and LyCORIS make of them (see `lora.updates`). Where diffusers loads a file too, the update is that of diffusers; what
it drops or reads otherwise is said in `LoraFile.warnings`. Only safetensors are read.
"""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from diffusers.utils.peft_utils import recurse_remove_peft_layers
from peft import LoraConfig, inject_adapter_in_model
from safetensors import SafetensorError, safe_open

from experiments.editor.adapters import ADAPTER_NAME, lora_layers, set_lora_enabled
from experiments.editor.lora import names as key_names
from experiments.editor.lora.kinds import name_kind
from experiments.editor.lora.names import TEXT_ENCODER, UNET, Names
from experiments.editor.lora.settings import Alphas, read_alphas
from experiments.editor.lora.updates import LoraUpdate, compose, misfits, stored_rank
from experiments.editor.pipeline import PICKLED
from experiments.opened_files import record

__all__ = ["LoraFile", "LoraUpdate", "apply_lora_file", "find_lora_file", "read_lora_file", "remove_text_lora"]

FILE_NAMES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")
"""What diffusers and peft call the file in a folder of theirs."""


@dataclass(frozen=True)
class LoraFile:
    """What a LoRA file holds for a pipeline.

    Attributes:
        updates: of the UNet, by module path, in the order of its modules.
        alpha_source: where the alphas were stated: "keys", "metadata", "adapter_config.json", "ss_network_alpha" or
            "nowhere".
        text_updates: of the text encoder, likewise.
        notes: what was read, a line each.
        warnings: what may differ from what the user's program makes of the file.
    """

    updates: Mapping[str, LoraUpdate]
    alpha_source: str
    text_updates: Mapping[str, LoraUpdate] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def ranks(self) -> list[int]:
        """The ranks that occur in the UNet, in order; those of composed updates are full."""
        return sorted({update.rank for update in self.updates.values()})

    @property
    def composed(self) -> str | None:
        """Which updates are no LoRA and were put in as one matrix each, None where all are LoRA."""
        kinds = sorted({update.kind for update in self.updates.values()} - {"LoRA"})
        return f"The adapter holds {' and '.join(kinds)}, put in as the update of each layer" if kinds else None


def find_lora_file(path: str | os.PathLike[str]) -> Path:
    """The safetensors file of an adapter, which may be given by its folder.

    Raises:
        ValueError: nothing there, a folder without such a file or with two, or pickled weights; the message has the
            command that converts them.
    """
    path = Path(path)
    if path.is_dir():
        found = [path / name for name in FILE_NAMES if (path / name).is_file()]
        if len(found) > 1:
            raise ValueError(f"{path} holds both {' and '.join(FILE_NAMES)}; give one of the files")
        if found:
            return found[0]
        pickled = sorted(entry for entry in path.iterdir() if entry.suffix in PICKLED)
        if not pickled:
            raise ValueError(f"{path} holds none of {', '.join(FILE_NAMES)}; give the LoRA file itself")
        path = pickled[0]
    if path.suffix in PICKLED:
        raise ValueError(
            f"{path} is pickled; pickled weights can run code and are not read: convert them with"
            f' python -c "import torch; from safetensors.torch import save_file; save_file({{name: value.contiguous()'
            f" for name, value in torch.load('{path}', weights_only=True).items()}},"
            f" '{path.with_suffix('.safetensors')}')\""
        )
    if not path.is_file():
        raise ValueError(f"{path}: no such file; give a file that save_adapter, peft or diffusers wrote")
    return path


def read_lora_file(
    path: str | os.PathLike[str], unet: UNet2DConditionModel, text_encoder: torch.nn.Module | None = None
) -> LoraFile:
    """Reads a LoRA file and matches it with the layers of a pipeline, which is not changed.

    Args:
        path: a safetensors file, or a folder of peft or diffusers with one.
        unet, text_encoder: without an adapter; without a text encoder, weights of one are left out with a warning.

    Raises:
        ValueError: see `find_lora_file`; no safetensors file, nothing in it that can be applied (the message says what
            it is), a weight that is not finite, two adapters, or weights that do not fit: the message says how many do
            and names the first that does not, in the order of the file's names.
    """
    path = record(find_lora_file(path))
    metadata, tensors = _read(path)
    kind = name_kind(tensors, unet.state_dict().keys())
    if not any(map(key_names.is_factor, tensors)):
        reason = f"is {kind}" if kind else "is no framebound adapter and holds no LoRA weights; give a LoRA file"
        raise ValueError(f"{path} {reason}")
    tensors = {name: _as_float(path, name, tensor) for name, tensor in tensors.items()}
    models = {UNET: unet, TEXT_ENCODER: text_encoder}
    modules = {part: {} if model is None else dict(model.named_modules()) for part, model in models.items()}
    found = _matched(tensors, Names(unet, text_encoder), modules, path)
    _require_all(path, found, kind)
    alphas = read_alphas(path, metadata)
    updates: dict[str, dict[str, LoraUpdate]] = {UNET: {}, TEXT_ENCODER: {}}
    without = 0
    for part, known in modules.items():
        for layer in (name for name in known if (part, name) in found.parts):
            update, alpha_known = _composed(path, found, alphas, part, layer, known[layer])
            updates[part][layer] = update
            without += not alpha_known
    in_keys = any("alpha" in factors for factors in found.parts.values())
    file = LoraFile(updates[UNET], "keys" if in_keys else alphas.source, updates[TEXT_ENCODER])
    notes, warnings = _remarks(file, found, alphas, without)
    return LoraFile(file.updates, file.alpha_source, file.text_updates, tuple(notes), tuple(warnings))


def apply_lora_file(
    unet: UNet2DConditionModel, file: LoraFile, dtype: torch.dtype, text_encoder: torch.nn.Module | None = None
) -> None:
    """Puts the updates into UNet and text encoder as their adapter, unmerged and switched off.

    Raises:
        ValueError: the UNet has an adapter already.
    """
    if lora_layers(unet):
        raise ValueError("the UNet has a LoRA adapter already; remove it first (Editor.remove_adapter)")
    with torch.random.fork_rng(devices=[]):
        unet.add_adapter(_config(file.updates), adapter_name=ADAPTER_NAME)
        if text_encoder is not None and file.text_updates:
            inject_adapter_in_model(_config(file.text_updates), text_encoder, adapter_name=ADAPTER_NAME)
    for model, updates in ((unet, file.updates), (text_encoder, file.text_updates)):
        if model is None or not updates:
            continue
        layers = lora_layers(model)
        with torch.no_grad():
            for name, update in updates.items():
                down, up = layers[name].lora_A[ADAPTER_NAME].to(dtype), layers[name].lora_B[ADAPTER_NAME].to(dtype)
                down.weight.copy_(update.down)
                up.weight.copy_(update.up)
                if update.bias is not None:
                    # peft scales the bias with the rest.
                    bias = update.bias / (update.alpha / update.rank)
                    up.bias = torch.nn.Parameter(bias.to(up.weight.device, dtype), requires_grad=False)
        set_lora_enabled(model, False)


def remove_text_lora(text_encoder: torch.nn.Module) -> None:
    """Takes the LoRA layers out of a text encoder again; nothing happens where there are none."""
    if lora_layers(text_encoder):
        recurse_remove_peft_layers(text_encoder)
        if hasattr(text_encoder, "peft_config"):
            del text_encoder.peft_config


def _config(updates: Mapping[str, LoraUpdate]) -> LoraConfig:
    # peft reads the keys of these patterns as regular expressions.
    return LoraConfig(
        r=1,
        lora_alpha=1,
        lora_dropout=0.0,
        bias="none",
        target_modules=list(updates),
        rank_pattern={f"^{re.escape(name)}": update.rank for name, update in updates.items()},
        alpha_pattern={f"^{re.escape(name)}": update.alpha for name, update in updates.items()},
        init_lora_weights=False,
    )


def _read(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    try:
        with safe_open(path, framework="pt") as content:
            metadata = content.metadata() or {}
            return metadata, {name: content.get_tensor(name) for name in sorted(content.keys())}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is no intact safetensors file ({error}); copy or save it again") from error


def _as_float(path: Path, name: str, tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in at least float32: eight-bit floats have no arithmetic of their own."""
    if not tensor.is_floating_point() and not (name.endswith(".alpha") and not tensor.is_complex()):
        raise ValueError(f"{path}: {name} has dtype {tensor.dtype}; floating-point weights are needed: save it as such")
    wide = tensor if tensor.dtype == torch.float64 else tensor.to(torch.float32)
    if not torch.isfinite(wide).all():
        raise ValueError(f"{path}: {name} holds values that are not finite; train again with a lower learning rate")
    return wide


@dataclass
class _Found:
    """A file's weights by what they are.

    Attributes:
        parts: (network, module path) -> factors by name.
        keys: the same -> the file's names of the factors.
        strangers: (name, reason) of the weights that do not fit, in the order of names.
        matched: how many fit.
        ignored: how many belong to a text encoder that is not there.
    """

    parts: dict[tuple[str, str], dict[str, torch.Tensor]] = field(default_factory=dict)
    keys: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)
    strangers: list[tuple[str, str]] = field(default_factory=list)
    matched: int = 0
    ignored: int = 0

    @property
    def total(self) -> int:
        """How many weights the file holds for networks that are there."""
        return self.matched + len(self.strangers)


def _matched(
    tensors: Mapping[str, torch.Tensor], names: Names, modules: Mapping[str, Mapping[str, torch.nn.Module]], path: Path
) -> _Found:
    found = _Found()
    adapters: set[str] = set()
    for key, tensor in tensors.items():
        named = names.find(key)
        if named.part is None:
            if not modules[TEXT_ENCODER] and key_names.belongs_to_text_encoder(key):
                found.ignored += 1
            else:
                found.strangers.append((key, _why_unknown(key, named.factor)))
            continue
        if named.adapter is not None:
            adapters.add(named.adapter)
        place = (named.part, named.layer)
        factors, keys = found.parts.setdefault(place, {}), found.keys.setdefault(place, {})
        if named.factor in factors and len(adapters) < 2:
            raise ValueError(
                f"{path}: {keys[named.factor]} and {key} both state {named.factor} of {named.layer}; give one adapter a"
                " file"
            )
        factors[named.factor], keys[named.factor] = tensor, key
        found.matched += 1
    if len(adapters) > 1:
        raise ValueError(
            f"{path} holds {len(adapters)} adapters, {', '.join(sorted(adapters))}; give one adapter a file"
        )
    misshapen = [
        (found.keys[place][name], reason)
        for place, factors in found.parts.items()
        for name, reason in misfits(factors, modules[place[0]][place[1]])
    ]
    found.matched -= len(misshapen)
    found.strangers = sorted(found.strangers + misshapen)
    return found


def _why_unknown(key: str, factor: str | None) -> str:
    if factor is None:
        return "is no factor of an update that is read"
    if key_names.belongs_to_second_text_encoder(key):
        return "names a layer of a second text encoder, which this pipeline does not have"
    if key_names.belongs_to_text_encoder(key):
        return "names a layer that the text encoder does not have"
    return "names a layer that this UNet does not have"


def _require_all(path: Path, found: _Found, kind: str | None) -> None:
    """ValueError unless every weight fits, and some are the UNet's."""
    keys = [key for known in found.keys.values() for key in known.values()] + [key for key, _ in found.strangers]
    no_unet = not found.strangers and not any(part == UNET for part, _ in found.parts)
    if no_unet or all(map(key_names.belongs_to_text_encoder, keys)):
        raise ValueError(
            f"{path}: 0 of {found.total + found.ignored} LoRA weights are the UNet's, the first,"
            f" {min(keys, default='all')}, belongs to a text encoder; give a LoRA of the UNet"
        )
    if found.strangers:
        hint = f"the file looks like {kind}" if kind else "load it into the pipeline it was trained on"
        key, reason = found.strangers[0]
        raise ValueError(
            f"{path}: {found.matched} of {found.total} LoRA weights match the pipeline, and the first that does not,"
            f" {key}, {reason}; {hint}"
        )


def _composed(
    path: Path, found: _Found, alphas: Alphas, part: str, layer: str, module: torch.nn.Module
) -> tuple[LoraUpdate, bool]:
    """The update of a layer, and whether its alpha is known or not needed."""
    parts = found.parts[part, layer]
    rank = stored_rank(parts)
    convolves = isinstance(module, torch.nn.Conv2d) and module.kernel_size != (1, 1)
    alpha = None
    if "alpha" in parts:
        if parts["alpha"].numel() != 1:
            raise ValueError(f"{path}: the alpha of {layer} has {parts['alpha'].numel()} values; one is needed")
        alpha = float(parts["alpha"])
    elif rank:
        alpha = alphas.of(part, layer, rank, convolves)
    if alpha is not None and not 0 < abs(alpha) < float("inf"):
        raise ValueError(f"{path}: the alpha of {layer} is {alpha}; a finite number other than 0 is needed")
    if alphas.dora and {"down", "up"} <= parts.keys() and not {"magnitude", "dora_scale"} & parts.keys():
        raise ValueError(f"{path} says that it is a DoRA (use_dora), and {layer} has no magnitude; save it again")
    try:
        lokr_scale = None if "alpha" in parts else alphas.scale_of_lokr(part, layer)
        return compose(parts, alpha, module, lokr_scale=lokr_scale), alpha is not None or rank is None
    except ValueError as error:
        name = f"{layer} of the {'UNet' if part == UNET else 'text encoder'}"
        raise ValueError(
            f"{path}: {found.matched} of {found.total} LoRA weights match the pipeline by name, and the first layer"
            f" that cannot be put together, {name}, {error}; load it into the pipeline it was trained on, or save it"
            " again"
        ) from error


def _remarks(file: LoraFile, found: _Found, alphas: Alphas, without: int) -> tuple[list[str], list[str]]:
    count = len(file.updates) + len(file.text_updates)
    notes = [f"adapter: {_listed(file.updates.values())} in the UNet"]
    if file.text_updates:
        notes[0] += f", {_listed(file.text_updates.values())} in the text encoder, applied"
    notes[0] += f"; alpha from {_SOURCES[file.alpha_source]}"
    warnings = []
    if found.ignored:
        warnings.append(f"{found.ignored} weights of the text encoder were left out: only the UNet's are applied")
    if without == count:
        warnings.append(
            "no alpha is stated in the file or beside it: it is taken equal to the rank, as diffusers does; an adapter"
            " trained with another has an update that is alpha / rank times this one"
        )
    elif without:
        warnings.append(f"{without} of {count} layers have no alpha: theirs is taken equal to the rank")
    if file.alpha_source == "ss_network_alpha":
        alpha = alphas.default[UNET]
        warnings.append(
            f"the layers have no alpha of their own; alpha = {alpha:g} is read from ss_network_alpha in the file's"
            " header, which diffusers does not read: it takes alpha = rank"
        )
    if any("dora_scale" in factors for factors in found.parts.values()):
        warnings.append("dora_scale is applied as LyCORIS does; diffusers drops it and loads a plain LoRA")
    if file.composed:
        notes.append(f"not audited: the learning rate of the adapter. {file.composed}")
    return notes, warnings


_SOURCES = {
    "keys": "the file's keys",
    "metadata": "the file's header",
    "adapter_config.json": "adapter_config.json",
    "ss_network_alpha": "ss_network_alpha in the header",
    "nowhere": "nowhere (taken equal to the rank)",
}


def _listed(updates: Iterable[LoraUpdate]) -> str:
    counts: dict[str, int] = {}
    for update in updates:
        counts[update.kind] = counts.get(update.kind, 0) + 1
    return ", ".join(f"{count} layers of {kind}" for kind, count in sorted(counts.items()))
