"""LoRA adapters on the attention projections of a UNet, by peft: added, switched, measured, removed; never merged.

An adapted projection computes W x + (alpha / rank) B A x. Merging W + (alpha / rank) B A would round the sum once and
for all (3e-7 in float32), so the base weights are left alone and "off" is the base network bit for bit.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig
from peft.tuners.lora import LoraLayer

TARGET_MODULES = ("to_q", "to_k", "to_v", "to_out.0")
ADAPTER_NAME = "default"


def add_lora(unet: UNet2DConditionModel, *, rank: int, alpha: float, seed: int, dtype: torch.dtype) -> None:
    """Adds LoRA to to_q, to_k, to_v and to_out.0 of every attention, in place and switched off.

    A is uniform in +-1/sqrt(in_features), drawn in float32 on the CPU, so a seed means the same adapter in every
    dtype and on every device; B is zero, so the update is zero until it is trained. The base weights are frozen.

    Raises:
        ValueError: the UNet has an adapter already, rank below 1, or alpha not positive and finite.
    """
    if lora_layers(unet):
        raise ValueError("the UNet has a LoRA adapter already; remove it first (Editor.remove_adapter)")
    if rank < 1:
        raise ValueError(f"rank = {rank} must be at least 1; the published rank is 4")
    if not 0 < alpha < float("inf"):
        raise ValueError(f"alpha = {alpha} must be positive and finite; the published alpha is 4")
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=0.0,
        bias="none",
        target_modules=list(TARGET_MODULES),
        init_lora_weights=False,
    )
    # peft draws its own start from the global generator; it is overwritten below and must leave no trace there.
    with torch.random.fork_rng(devices=[]):
        unet.add_adapter(config, adapter_name=ADAPTER_NAME)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, layer in sorted(lora_layers(unet).items()):
            down, up = layer.lora_A[ADAPTER_NAME].to(dtype), layer.lora_B[ADAPTER_NAME].to(dtype)
            limit = down.in_features**-0.5
            down.weight.copy_(torch.rand(down.weight.shape, generator=generator) * (2 * limit) - limit)
            up.weight.zero_()
    set_lora_enabled(unet, False)


def remove_lora(unet: UNet2DConditionModel) -> None:
    """Takes every LoRA layer out again; the UNet is the base network again. Nothing happens where there is none."""
    if lora_layers(unet):
        unet.unload_lora()


def lora_layers(unet: torch.nn.Module) -> dict[str, LoraLayer]:
    """The adapted layers by module path, in the order of the UNet's modules."""
    return {name: module for name, module in unet.named_modules() if isinstance(module, LoraLayer)}


def lora_parameters(unet: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The LoRA weights by diffusers' names: "unet.<module path>.lora_A.weight" (rank, in) and lora_B (out, rank)."""
    return {
        f"unet.{name}.{part}.weight": getattr(layer, part)[ADAPTER_NAME].weight
        for name, layer in lora_layers(unet).items()
        for part in ("lora_A", "lora_B")
    }


def set_lora_enabled(unet: torch.nn.Module, enabled: bool) -> None:
    """Switches every LoRA layer on or off and leaves the parameters trainable.

    peft's own switch also clears requires_grad, after which a loss computed while the adapter was on can no longer be
    differentiated with respect to it.
    """
    for layer in lora_layers(unet).values():
        layer.enable_adapters(enabled)
    for parameter in lora_parameters(unet).values():
        parameter.requires_grad_(True)


@contextmanager
def lora_enabled(unet: torch.nn.Module, enabled: bool) -> Iterator[None]:
    """Switches LoRA for the block and back to what it was before, whatever happens in the block."""
    before = lora_is_enabled(unet)
    set_lora_enabled(unet, enabled)
    try:
        yield
    finally:
        set_lora_enabled(unet, before)


def lora_is_enabled(unet: torch.nn.Module) -> bool:
    """Whether the LoRA layers take part in a forward pass; False where there are none."""
    return any(not layer.disable_adapters for layer in lora_layers(unet).values())


def lora_update_norms(unet: torch.nn.Module) -> dict[str, float]:
    """Frobenius norm of the update (alpha / rank) B A of each adapted layer, by module path; formed in float64."""
    norms = {}
    with torch.no_grad():
        for name, layer in lora_layers(unet).items():
            norms[name] = float(torch.linalg.norm(layer.get_delta_weight(ADAPTER_NAME).to("cpu", torch.float64)))
    return norms


def adapted_weight_norms(unet: torch.nn.Module) -> dict[str, float]:
    """Frobenius norm of the frozen weight of each adapted layer, by module path; formed in float64."""
    return {
        name: float(torch.linalg.norm(layer.get_base_layer().weight.detach().to("cpu", torch.float64)))
        for name, layer in lora_layers(unet).items()
    }
