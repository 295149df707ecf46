"""Cross-attention of a UNet: what its attn2 layers are given, what they return, and the weights they do it with."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from peft.tuners.lora import LoraLayer

from experiments.editor.capture import self_attention_layers
from experiments.editor.editor import Editor
from theory.evidence import CrossAttentionRecord

_COUNTS = ("num_heads", "num_shared", "num_frame")
_PARTS = tuple(field.name for field in fields(CrossAttentionRecord) if field.name not in ("label", *_COUNTS))


@dataclass(frozen=True)
class CrossAttentionCall:
    """One call of an attn2 layer.

    Attributes:
        inputs: (frames, positions, channels).
        context: (frames, tokens, width).
        outputs: (frames, positions, channels).
    """

    inputs: torch.Tensor
    context: torch.Tensor
    outputs: torch.Tensor


def cross_attention_layers(unet: UNet2DConditionModel) -> list[str]:
    """Module paths of all cross-attentions (attn2), in the order of the UNet's modules."""
    return [f"{name.removesuffix('.attn1')}.attn2" for name in self_attention_layers(unet)]


@contextmanager
def captured_cross_attention(unet: UNet2DConditionModel, layers: list[str]) -> Iterator[dict[str, CrossAttentionCall]]:
    """Captures calls of the named attn2 layers in the block; later passes replace earlier ones.

    Yields a dict that is filled by the forward pass: module path -> `CrossAttentionCall`, attached to the graph where
    gradients are on. The hooks are gone after the block.
    """
    calls: dict[str, CrossAttentionCall] = {}

    def hook(name: str):
        def remember(module, arguments, keywords, output):
            inputs = arguments[0] if arguments else keywords["hidden_states"]
            calls[name] = CrossAttentionCall(inputs, keywords["encoder_hidden_states"], output)

        return remember

    with ExitStack() as hooks:
        for name in layers:
            handle = unet.get_submodule(name).register_forward_hook(hook(name), with_kwargs=True)
            hooks.callback(handle.remove)
        yield calls


def projection_weight(module: torch.nn.Module) -> torch.Tensor:
    """The weight of a projection, with the update of its active LoRA adapters."""
    if not isinstance(module, LoraLayer):
        return module.weight
    return module.base_layer.weight + sum(module.get_delta_weight(name) for name in module.active_adapters)


def layer_weights(unet: UNet2DConditionModel, layer: str) -> dict[str, torch.Tensor]:
    """Weights of an attn2 layer by the names of `theory.evidence.CrossAttentionRecord`.

    Raises:
        ValueError: a layer with biases on queries, keys or values, which the theorems leave out.
    """
    module = unet.get_submodule(layer)
    weights = {}
    for name, part in (("query", module.to_q), ("key", module.to_k), ("value", module.to_v)):
        if part.bias is not None:
            raise ValueError(
                f"{layer}: the {name} projection has a bias; the theorems are about layers without, leave it out"
            )
        weights[f"{name}_weight"] = projection_weight(part)
    output = module.to_out[0]
    weights["output_weight"] = projection_weight(output)
    weights["output_bias"] = (
        output.bias if output.bias is not None else torch.zeros_like(weights["output_weight"][:, 0])
    )
    return weights


def cross_attention_arrays(
    editor: Editor, latents: torch.Tensor, timestep: int, prompt: str | torch.Tensor, layers: list[str]
) -> dict[str, np.ndarray]:
    """What the theorems on tokens take of the named attn2 layers, adapter on: arrays by
    "cross/<timestep>/<layer>/<part>".

    Raises:
        ValueError: what `Editor.predict_noise` and `layer_weights` raise.
    """
    unet = editor.pipeline.unet
    with torch.no_grad(), captured_cross_attention(unet, layers) as calls:
        editor.predict_noise(latents, timestep, prompt, adapter=True)
    parameters = editor.adapter_parameters()
    num_shared = len(parameters["tokens.shared"]) if "tokens.shared" in parameters else 0
    num_text = editor.encode_prompt(prompt).shape[1] if isinstance(prompt, str) else prompt.shape[1]
    arrays = {}
    for layer in layers:
        call = calls[layer]
        num_frame = call.context.shape[1] - num_text - num_shared
        tensors = {
            "inputs": call.inputs,
            "context": call.context,
            "outputs": call.outputs,
            **layer_weights(unet, layer),
        }
        counts = np.array([unet.get_submodule(layer).heads, num_shared, num_frame], dtype=np.float64)
        prefix = f"cross/{timestep}/{layer}"
        arrays |= {
            f"{prefix}/{part}": tensors[part].detach().to("cpu", torch.float64).contiguous().numpy() for part in _PARTS
        }
        arrays[f"{prefix}/counts"] = counts
    return arrays


def cross_attention_records(arrays: Mapping[str, np.ndarray]) -> Iterator[CrossAttentionRecord]:
    """The records of what `cross_attention_arrays` returned."""
    for key in arrays:
        if key.startswith("cross/") and key.endswith("/counts"):
            prefix = key.removesuffix("/counts")
            _, timestep, layer = prefix.split("/")
            yield CrossAttentionRecord(
                label=f"{layer}, timestep {timestep}, adapter on",
                **{part: arrays[f"{prefix}/{part}"] for part in _PARTS},
                **{name: int(count) for name, count in zip(_COUNTS, arrays[key], strict=True)},
            )
