"""Every LoRA format that diffusers loads gives the network that diffusers makes of it: both are run side by side."""

import json
import math

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft import LoHaConfig, LoKrConfig, LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from tiny_pipelines import clip, stable_diffusion_pipeline

from experiments.editor.editor import Editor
from experiments.editor.lora.names import Names

pytestmark = [pytest.mark.usefixtures("single_thread"), pytest.mark.filterwarnings("ignore")]

RANK, ALPHA = 3, 6.0
UNET_LAYERS = (
    "to_q",
    "to_k",
    "to_out.0",
    "ff.net.2",
    "proj_in",
    "conv1",
    "conv2",
    "time_emb_proj",
    "downsamplers.0.conv",
)
TEXT_LAYERS = ("q_proj", "out_proj", "fc1")


def layers(model, ends):
    return {name: module for name, module in model.named_modules() if name.endswith(ends) and hasattr(module, "weight")}


def factors(model, ends, rank=RANK, seed=1, ranks=None):
    """Layer -> (down, up), large enough for a wrong scale to show."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for index, (name, module) in enumerate(layers(model, ends).items()):
        r = rank if ranks is None else ranks[index % len(ranks)]
        out, *inner = module.weight.shape
        ones = [1] * (len(inner) - 1)
        found[name] = (
            0.2 * torch.randn(r, *inner, generator=generator),
            0.2 * torch.randn(out, r, *ones, generator=generator),
        )
    return found


def kohya(pairs, alpha, prefix="lora_unet_", rename=lambda name: name):
    tensors = {}
    for name, (down, up) in pairs.items():
        stem = prefix + rename(name).replace(".", "_")
        tensors |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}
        if alpha is not None:
            tensors[f"{stem}.alpha"] = torch.tensor(float(alpha))
    return tensors


def peft(pairs, prefix="unet."):
    return {
        f"{prefix}{name}.lora_{x}.weight": t for name, pair in pairs.items() for x, t in zip("AB", pair, strict=True)
    }


def dotted(pairs, infix, prefix="unet."):
    return {
        f"{prefix}{name}.{infix}.{x}.weight": t
        for name, pair in pairs.items()
        for x, t in zip(("down", "up"), pair, strict=True)
    }


def processors(pairs):
    tensors = {}
    for name, pair in pairs.items():
        attention, layer = name.rsplit(".to_", 1)
        for x, t in zip(("down", "up"), pair, strict=True):
            tensors[f"unet.{attention}.processor.to_{layer.removesuffix('.0')}_lora.{x}.weight"] = t
    return tensors


def original_names(unet):
    """diffusers' path -> the original UNet's."""
    known = Names(unet, None)._unet
    return {
        path: name for name, path in known.items() if name.startswith(("input", "middle", "output")) and "." in name
    }


def header(**settings):
    return {"lora_adapter_metadata": json.dumps(settings)}


def magnitudes(unet, pairs, seed=4):
    generator = torch.Generator().manual_seed(seed)
    return {
        f"unet.{name}.lora_magnitude_vector": (
            0.5
            + torch.rand(1, len(up), 1, 1, generator=generator)[
                (slice(None),) * 2 if down.ndim == 4 else (0, slice(None), 0, 0)
            ]
        )
        for name, (down, up) in pairs.items()
    }


ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
CASES = {
    # name: (unet, text encoder) -> (tensors, metadata)
    "kohya with alphas": lambda u, t: (kohya(factors(u, UNET_LAYERS), ALPHA), None),
    "kohya without alphas": lambda u, t: (kohya(factors(u, UNET_LAYERS), None), None),
    "kohya, mixed ranks": lambda u, t: (kohya(factors(u, ATTENTION, ranks=(2, 5)), ALPHA), None),
    "kohya, names of the original UNet": lambda u, t: (
        kohya(
            {name: pair for name, pair in factors(u, UNET_LAYERS).items() if name in original_names(u)},
            ALPHA,
            rename=original_names(u).__getitem__,
        ),
        None,
    ),
    "kohya with the text encoder": lambda u, t: (
        {
            **kohya(factors(u, ATTENTION), ALPHA),
            **kohya(factors(t, TEXT_LAYERS, seed=2), 1.5, "lora_te_", "text_model.{}".format),
        },
        None,
    ),
    "diffusers": lambda u, t: (peft(factors(u, UNET_LAYERS)), None),
    "diffusers, mixed ranks": lambda u, t: (peft(factors(u, ATTENTION, ranks=(2, 5, 2))), None),
    "diffusers with the text encoder": lambda u, t: (
        {**peft(factors(u, ATTENTION)), **peft(factors(t, TEXT_LAYERS, seed=2), "text_encoder.text_model.")},
        None,
    ),
    "older text encoder keys": lambda u, t: (
        {
            **dotted(factors(u, ATTENTION), "lora"),
            **dotted(factors(t, ("q_proj", "v_proj"), seed=2), "lora_linear_layer", "text_encoder.text_model."),
        },
        None,
    ),
    "lora.down": lambda u, t: (dotted(factors(u, UNET_LAYERS), "lora"), None),
    "attention processors": lambda u, t: (processors(factors(u, ATTENTION)), None),
    "alpha in the header": lambda u, t: (
        peft(factors(u, ATTENTION)),
        header(**{"unet.r": RANK, "unet.lora_alpha": ALPHA, "unet.target_modules": list(ATTENTION)}),
    ),
    "alphas of layers in the header": lambda u, t: (
        peft(factors(u, ATTENTION)),
        header(
            **{
                "unet.r": RANK,
                "unet.lora_alpha": ALPHA,
                "unet.target_modules": list(ATTENTION),
                "unet.alpha_pattern": {
                    "attn2.to_k": 1.5,
                    "^down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q": 9,
                },
            }
        ),
    ),
    "rank-stabilised": lambda u, t: (
        peft(factors(u, ATTENTION)),
        header(
            **{
                "unet.r": RANK,
                "unet.lora_alpha": ALPHA,
                "unet.target_modules": list(ATTENTION),
                "unet.use_rslora": True,
            }
        ),
    ),
    "bias": lambda u, t: (
        {
            **peft(factors(u, ("ff.net.2",))),
            **{
                f"unet.{name}.lora_B.bias": 0.3 * torch.arange(len(m.weight))
                for name, m in layers(u, "ff.net.2").items()
            },
        },
        None,
    ),
    "DoRA of peft": lambda u, t: (
        {**peft(factors(u, (*ATTENTION, "conv1"))), **magnitudes(u, factors(u, (*ATTENTION, "conv1")))},
        None,
    ),
    "bfloat16": lambda u, t: ({k: v.bfloat16() for k, v in peft(factors(u, ATTENTION)).items()}, None),
    "float8": lambda u, t: ({k: v.to(torch.float8_e4m3fn) for k, v in peft(factors(u, ATTENTION)).items()}, None),
}


def evaluate(unet, text_encoder, tokens, latents):
    with torch.no_grad():
        context = text_encoder(tokens).last_hidden_state
        return unet(latents, 300, encoder_hidden_states=context.expand(len(latents), -1, -1)).sample, context


def of_diffusers(path, tokens, latents, load=None):
    parts = stable_diffusion_pipeline()
    pipe = StableDiffusionPipeline(
        vae=parts.vae,
        text_encoder=parts.text_encoder.double(),
        tokenizer=parts.tokenizer,
        unet=parts.unet.double(),
        scheduler=parts.scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    if load is None:
        pipe.load_lora_weights(str(path), unet_config=pipe.unet.config)
    else:
        load(pipe)
    # float32 factors of a float64 network would be rounded in every product.
    pipe.unet.double(), pipe.text_encoder.double()
    return evaluate(pipe.unet, pipe.text_encoder, tokens, latents)


@pytest.mark.parametrize("case", CASES)
def test_the_network_is_that_of_diffusers(case, tmp_path):
    editor = Editor(stable_diffusion_pipeline(), dtype=torch.float64)
    latents = editor.to_latents(clip(2, 16))
    tokens = editor.pipeline.tokenizer("a", padding="max_length", max_length=16, return_tensors="pt").input_ids
    tensors, metadata = CASES[case](editor.pipeline.unet, editor.pipeline.text_encoder)
    path = tmp_path / "pytorch_lora_weights.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata=metadata)
    base, base_context = evaluate(editor.pipeline.unet, editor.pipeline.text_encoder, tokens, latents)
    theirs, their_context = of_diffusers(path, tokens, latents)
    editor.load_adapter(path)
    with editor.adapters(True):
        ours, our_context = evaluate(editor.pipeline.unet, editor.pipeline.text_encoder, tokens, latents)
    # Rounding of a network of some fifty layers whose values stay below 100.
    assert (ours - theirs).abs().max() < 1e-11 and (our_context - their_context).abs().max() < 1e-12
    # Without the adapter, or with half of its update, the two would differ by far more.
    assert (theirs - base).abs().max() > 1e-3
    assert ("text encoder" in case or "older" in case) == bool((their_context - base_context).abs().max() > 1e-3)
    with editor.adapters(False):
        off, off_context = evaluate(editor.pipeline.unet, editor.pipeline.text_encoder, tokens, latents)
    assert torch.equal(off, base) and torch.equal(off_context, base_context), "off is the base network bit for bit"


def test_a_file_that_diffusers_wrote_itself(tmp_path):
    """With all of peft's settings in its header, most of them at their defaults."""
    editor = Editor(stable_diffusion_pipeline(), dtype=torch.float64)
    latents = editor.to_latents(clip(2, 16))
    tokens = editor.pipeline.tokenizer("a", padding="max_length", max_length=16, return_tensors="pt").input_ids
    writer = stable_diffusion_pipeline()
    ends = list(ATTENTION)
    config = LoraConfig(r=3, lora_alpha=7, target_modules=ends, init_lora_weights=False, rank_pattern={"attn2.to_k": 2})
    torch.manual_seed(0)
    writer.unet.add_adapter(config)
    StableDiffusionPipeline.save_lora_weights(
        tmp_path,
        unet_lora_layers=get_peft_model_state_dict(writer.unet),
        unet_lora_adapter_metadata={**config.to_dict(), "target_modules": ends},
    )
    theirs, _ = of_diffusers(tmp_path / "pytorch_lora_weights.safetensors", tokens, latents)
    editor.load_adapter(tmp_path)
    with editor.adapters(True):
        ours, _ = evaluate(editor.pipeline.unet, editor.pipeline.text_encoder, tokens, latents)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-11)
    assert editor.lora_file.alpha_source == "metadata" and editor.lora_file.ranks == [2, 3]


@pytest.mark.parametrize(
    ("config", "options"),
    [
        (LoHaConfig, {"r": 2, "alpha": 5}),
        (LoHaConfig, {"r": 2, "alpha": 5, "use_effective_conv2d": True}),
        (LoKrConfig, {"r": 2, "alpha": 5}),
        (LoKrConfig, {"r": 2, "alpha": 5, "decompose_both": True}),
        (LoKrConfig, {"r": 2, "alpha": 5, "use_effective_conv2d": True}),
    ],
)
def test_loha_and_lokr_are_those_of_peft(tmp_path, config, options):
    editor = Editor(stable_diffusion_pipeline(), dtype=torch.float64)
    latents = editor.to_latents(clip(2, 16))
    context = editor.encode_prompt("a").expand(2, -1, -1)
    theirs_unet = stable_diffusion_pipeline().unet
    torch.manual_seed(0)
    wrapped = get_peft_model(theirs_unet, config(target_modules=["to_q", "ff.net.2", "conv1"], **options))
    with torch.no_grad():
        for name, weight in wrapped.named_parameters():
            if "hada" in name or "lokr" in name:
                weight.copy_(0.4 * torch.randn(weight.shape))
    wrapped.save_pretrained(tmp_path)
    wrapped.double()
    with torch.no_grad():
        theirs = theirs_unet(latents, 300, encoder_hidden_states=context).sample
    before = editor.predict_noise(latents, 300, "a")
    editor.load_adapter(tmp_path)
    ours = editor.predict_noise(latents, 300, "a", adapter=True).detach()
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-11)
    assert (before - theirs).abs().max() > 1e-3
    assert editor.lora_file.composed and editor.lora_file.alpha_source == "adapter_config.json"


def test_lokr_of_diffusers_is_that_of_its_loader(tmp_path):
    editor = Editor(stable_diffusion_pipeline(), dtype=torch.float64)
    latents = editor.to_latents(clip(2, 16))
    tokens = editor.pipeline.tokenizer("a", padding="max_length", max_length=16, return_tensors="pt").input_ids
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name, module in layers(editor.pipeline.unet, ("to_q", "to_v")).items():
        out, into = module.weight.shape
        tensors |= {
            f"unet.{name}.lokr_w1": torch.randn(2, 2, generator=generator),
            f"unet.{name}.lokr_w2": 0.3 * torch.randn(out // 2, into // 2, generator=generator),
        }
    save_file(tensors, tmp_path / "lokr.safetensors")
    theirs, _ = of_diffusers(
        None,
        tokens,
        latents,
        lambda pipe: pipe.unet.load_lora_adapter(load_file(tmp_path / "lokr.safetensors"), prefix="unet"),
    )
    editor.load_adapter(tmp_path / "lokr.safetensors")
    with editor.adapters(True):
        ours, _ = evaluate(editor.pipeline.unet, editor.pipeline.text_encoder, tokens, latents)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-11)


def test_an_update_of_half_the_size_is_another_network(tmp_path):
    """The comparison above can fail: alpha divided by two moves the network by more than a million times its budget."""
    editor = Editor(stable_diffusion_pipeline(), dtype=torch.float64)
    latents = editor.to_latents(clip(2, 16))
    predictions = []
    for alpha in (ALPHA, ALPHA / 2):
        save_file(kohya(factors(editor.pipeline.unet, UNET_LAYERS), alpha), tmp_path / "lora.safetensors")
        editor.load_adapter(tmp_path / "lora.safetensors")
        predictions.append(editor.predict_noise(latents, 300, "a", adapter=True).detach())
        editor.remove_adapter()
    assert (predictions[0] - predictions[1]).abs().max() > 1e-5
    assert math.isfinite(float(predictions[0].abs().max()))
