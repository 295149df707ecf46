"""What a safetensors file is that was given as a LoRA and cannot be applied: its name, and what to do with it."""

import re
from collections.abc import Iterable

_KINDS = (
    # (pattern searched for in every key, what the file is, what to do)
    (
        r"motion_modules|temporal_transformer",
        "a motion LoRA or motion module of AnimateDiff, which changes a motion adapter and not this UNet",
        "it is not audited",
    ),
    (
        r"controlnet_cond_embedding|controlnet_down_blocks|^control_model\.|^lora_controlnet$",
        "a ControlNet",
        "it is not audited: the UNet is, without it",
    ),
    (r"^(ip_adapter|image_proj)\b", "an IP-Adapter", "it is not audited: the UNet is, without it"),
    (
        r"^(emb_params|string_to_param|clip_[lg]|<[^>]+>)$",
        "a textual inversion",
        "load it into the pipeline with diffusers (load_textual_inversion), save that, and give it as --pipeline",
    ),
    (
        r"^(model\.diffusion_model|first_stage_model|cond_stage_model)\.(?!.*lora)",
        "a whole checkpoint",
        "convert it with diffusers (from_single_file, save_pretrained) and give the folder as --pipeline",
    ),
    (
        r"double_blocks|single_blocks|single_transformer_blocks|joint_blocks|lora_transformer_|^transformer\."
        r"|(^|[._])blocks[._]\d+[._](self_attn|cross_attn|attn|ffn)\b|^diffusion_model\.(layers|blocks)\.",
        "a LoRA of a diffusion transformer (Flux, SD3, Wan, LTX-Video or the like)",
        "give a LoRA of this UNet",
    ),
    (r"lora_te2_|^text_encoder_2\.", "a LoRA of SDXL, which has a second text encoder", "give a LoRA of this UNet"),
    (
        r"oft_(blocks|diag|r)\b|boft_",
        "an OFT, an orthogonal transformation of the weights",
        "it is not read; give a LoRA",
    ),
    (r"ia3_l|\.on_input$", "an (IA)^3, which scales activations", "it is not read; give a LoRA"),
    (
        r"\.[ab][12]\.weight$|vera_lambda|hra_|fourierft|vblora|randlora|bone_|\.w_norm$|\.b_norm$",
        "an adapter of a kind that is not read (GLoRA, VeRA, HRA, FourierFT, trained norms or the like)",
        "give a LoRA, LoHa, LoKr, DoRA or full difference",
    ),
    (
        r"^(encoder|decoder)\.(down_blocks|up_blocks|mid_block)\.",
        "an autoencoder",
        "put it into the pipeline's vae folder",
    ),
)


def name_kind(keys: Iterable[str], unet_keys: Iterable[str]) -> str | None:
    """What a file is, by the names of its tensors: a phrase with what to do; None where nothing is recognised.

    Args:
        keys: of the file.
        unet_keys: names of the weights of the UNet.
    """
    keys = list(keys)
    own = set(unet_keys)
    if keys and 2 * sum(key.removeprefix("unet.") in own for key in keys) > len(keys):
        return (
            "a whole UNet and no adapter: put it as unet/diffusion_pytorch_model.safetensors into a copy of the"
            " pipeline's folder, and give that as --pipeline"
        )
    for pattern, what, remedy in _KINDS:
        if any(re.search(pattern, key) for key in keys):
            return f"{what}: {remedy}"
    return None
