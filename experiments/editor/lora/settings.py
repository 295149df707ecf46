"""The alpha of every layer of a LoRA file, from wherever it is stated; all of it is another program's text, so checked.

in the keys            <layer>.alpha (kohya, LyCORIS)
beside the file        adapter_config.json (peft)
in the file's header   "lora_adapter_metadata" (diffusers), "ss_network_alpha" (kohya)
nowhere                alpha is taken equal to the rank, as diffusers does
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.editor.lora.names import TEXT_ENCODER, UNET
from experiments.opened_files import record

_PLAIN_NAME = re.compile(r"[\w.-]+")
_FORWARD_CHANGED = {
    # setting of peft: (values with which the layer computes W x + (alpha / rank) B A x, what another one means)
    "fan_in_fan_out": ((False, None), "transposed weights"),
    "use_qalora": ((False, None), "QA-LoRA"),
    "alora_invocation_tokens": ((None,), "an activated LoRA (aLoRA)"),
    "layer_replication": ((None,), "replicated layers"),
    "arrow_config": ((None,), "a mixture of LoRA (Arrow)"),
    "use_bdlora": ((None, False), "block-diagonal LoRA"),
}
_CHANGES_THE_WEIGHTS = ("pissa", "olora", "corda", "loftq", "lora_ga")
PEFT_TYPES = ("LORA", "LOHA", "LOKR")


@dataclass(frozen=True)
class Alphas:
    """What settings say about alpha.

    Attributes:
        source: "metadata", "adapter_config.json", "ss_network_alpha" or "nowhere".
        default: alpha of the layers without one of their own, by network; None where it is not stated.
        patterns: alpha by the end of a layer's path, by network.
        convolution: alpha of the 3 x 3 convolutions, where kohya's header states another; None else.
        by_root: the scale is alpha / sqrt(rank) (rank-stabilised LoRA) and not alpha / rank.
        dora: the settings say that the adapter is a DoRA.
        ranks: r of the layers without one of their own, and r by the end of a layer's path, by network; of peft alone.
    """

    source: str
    default: Mapping[str, float | None]
    patterns: Mapping[str, Mapping[str, float]]
    convolution: float | None = None
    by_root: Mapping[str, bool] | None = None
    dora: bool = False
    ranks: Mapping[str, tuple[float, Mapping[str, float]]] | None = None

    def of(self, part: str, layer: str, rank: int, convolves: bool) -> float | None:
        """The alpha with which alpha / rank is the layer's scale; None where none is stated."""
        default = self.convolution if convolves and self.convolution is not None else self.default.get(part)
        stated = _chosen(layer, default, self.patterns.get(part, {}))
        if stated is None:
            return None
        return stated * math.sqrt(rank) if (self.by_root or {}).get(part) else stated

    def scale_of_lokr(self, part: str, layer: str) -> float | None:
        """alpha / r of a LoKr of peft, which scales two whole factors too; None where peft did not write the file."""
        stated = _chosen(layer, self.default.get(part), self.patterns.get(part, {}))
        if stated is None or not self.ranks or part not in self.ranks:
            return None
        return stated / _chosen(layer, *self.ranks[part])


def _chosen(layer: str, default: float | None, patterns: Mapping[str, float]) -> float | None:
    """The value of the first pattern that a layer's path ends in."""
    return next((value for name, value in patterns.items() if layer == name or layer.endswith(f".{name}")), default)


def read_alphas(path: Path, metadata: Mapping[str, str]) -> Alphas:
    """Reads the settings of a LoRA file.

    Args:
        path: of the safetensors file.
        metadata: of its header.

    Raises:
        ValueError: settings that are no JSON object, of another type or out of range, or that make of the adapter
            something else than a fixed update of the weights; the message has file, key, value and limit.
    """
    # Whether it is there or not decides the scale.
    beside = record(path.with_name("adapter_config.json"))
    if metadata.get("lora_adapter_metadata") is not None:
        return _of_peft(path, "metadata", metadata["lora_adapter_metadata"])
    if beside.is_file():
        try:
            text = beside.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise ValueError(f"{beside} cannot be read ({error}); save the adapter again") from error
        return _of_peft(beside, beside.name, text)
    alpha = _stated_number(metadata.get("ss_network_alpha"))
    if alpha is not None:
        arguments = _object(metadata.get("ss_network_args"))
        return Alphas(
            "ss_network_alpha",
            {UNET: alpha, TEXT_ENCODER: alpha},
            {},
            convolution=_stated_number(arguments.get("conv_alpha")),
        )
    return Alphas("nowhere", {}, {})


def _stated_number(value: Any) -> float | None:
    """A number that kohya wrote as text ("None" and "Dynamic" occur); None where it is none or cannot be an alpha."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if 0 < abs(number) < math.inf else None


def _object(text: str | None) -> dict[str, Any]:
    try:
        content = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _of_peft(path: Path, source: str, text: str) -> Alphas:
    try:
        settings = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: its settings ({source}) are no JSON ({error}); save it again") from None
    if not isinstance(settings, dict):
        found = type(settings).__name__
        raise ValueError(f"{path}: its settings ({source}) are a {found}, not an object; save it again")
    # diffusers puts the settings of both networks side by side, under their names.
    text_settings = {
        name.removeprefix("text_encoder."): value
        for name, value in settings.items()
        if name.startswith("text_encoder.")
    }
    unet_settings = {
        name.removeprefix("unet."): value for name, value in settings.items() if not name.startswith("text_encoder.")
    }
    default, patterns, ranks, by_root, dora = {}, {}, {}, {}, False
    for part, stated in ((UNET, unet_settings), (TEXT_ENCODER, text_settings or unet_settings)):
        _require_plain(path, source, stated)
        default[part] = _alpha(path, source, "lora_alpha", stated.get("lora_alpha", stated.get("alpha")))
        patterns[part] = _patterns(path, source, "alpha_pattern", stated)
        rank = _alpha(path, source, "r", stated.get("r"))
        if rank is not None:
            ranks[part] = rank, _patterns(path, source, "rank_pattern", stated)
        by_root[part] = _switch(path, source, stated, "use_rslora")
        dora = dora or _switch(path, source, stated, "use_dora")
    if default[UNET] is None and default[TEXT_ENCODER] is None:
        source = "nowhere"
    return Alphas(source, default, patterns, None, by_root, dora, ranks)


def _require_plain(path: Path, source: str, settings: Mapping[str, Any]) -> None:
    kind = settings.get("peft_type")
    if kind is not None and str(kind).rsplit(".", 1)[-1].upper() not in PEFT_TYPES:
        raise ValueError(f"{path}: its settings ({source}) have peft_type = {kind!r}; read are {', '.join(PEFT_TYPES)}")
    for name, (harmless, meaning) in _FORWARD_CHANGED.items():
        if name in settings and settings[name] not in harmless:
            raise ValueError(
                f"{path}: its settings ({source}) have {name} = {settings[name]!r}, {meaning}, which is no fixed update"
                " of the weights and is not read; give a plain LoRA"
            )
    start = settings.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_CHANGES_THE_WEIGHTS):
        raise ValueError(
            f"{path}: its settings ({source}) have init_lora_weights = {start!r}, with which training changed the base"
            " weights too; convert it with peft (save_pretrained(.., path_initial_model_for_weight_conversion=..))"
        )


def _switch(path: Path, source: str, settings: Mapping[str, Any], name: str) -> bool:
    value = settings.get(name)
    if value is not None and not isinstance(value, bool):
        raise ValueError(
            f"{path}: its settings ({source}) have {name} = {value!r}; true or false is needed: save it again"
        )
    return bool(value)


def _alpha(path: Path, source: str, name: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < abs(value) < math.inf:
        raise ValueError(
            f"{path}: its settings ({source}) have {name} = {value!r}; a finite number other than 0 is needed: save it"
            " again"
        )
    return float(value)


def _patterns(path: Path, source: str, kind: str, settings: Mapping[str, Any]) -> dict[str, float]:
    """Layers' names -> alpha or rank. As regular expressions, which peft takes them for, they could run for ever."""
    stated = settings.get(kind)
    if stated is None:
        return {}
    if not isinstance(stated, dict):
        raise ValueError(f"{path}: its settings ({source}) have {kind} = {stated!r}; an object is needed")
    found = {}
    for key, value in stated.items():
        name = key.removeprefix("^").removesuffix("$").replace("\\.", ".")
        if not _PLAIN_NAME.fullmatch(name):
            raise ValueError(
                f"{path}: its settings ({source}) have the {kind} {key!r}, a regular expression; only names of layers"
                " are read: save the adapter again with those"
            )
        found[name] = _alpha(path, source, f"{kind}[{key!r}]", value)
    return found
