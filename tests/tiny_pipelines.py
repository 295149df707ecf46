"""Pipelines with random weights, small enough that a test evaluates them hundreds of times in seconds."""

from functools import cache

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from experiments.editor.editor import Editor
from experiments.editor.pipeline import Pipeline, build_pipeline, build_tokenizer

SIZE = 16


def pixel_pipeline(seed: int = 0) -> Pipeline:
    """The shipped architecture at its smallest: 16 x 16 RGB, two resolutions with attention, 16 text channels."""
    pipeline = build_pipeline(seed, block_out_channels=(8, 8, 16), text_dim=16, max_tokens=16, sample_size=SIZE)
    _sharpen(pipeline, seed)
    return pipeline


def stable_diffusion_pipeline(seed: int = 0) -> Pipeline:
    """The parts of Stable Diffusion 1, tiny: an autoencoder that halves twice, a CLIP text encoder, a latent UNet."""
    tokenizer = build_tokenizer(16)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = AutoencoderKL(
            block_out_channels=(8, 8, 8),
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            latent_channels=4,
            norm_num_groups=4,
            scaling_factor=0.18215,
        )
        unet = UNet2DConditionModel(
            sample_size=8,
            in_channels=4,
            out_channels=4,
            layers_per_block=1,
            block_out_channels=(8, 16),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=16,
            attention_head_dim=2,
            norm_num_groups=4,
        )
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=16,
                intermediate_size=32,
                projection_dim=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                max_position_embeddings=16,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    pipeline = Pipeline(unet.eval(), text_encoder.eval(), tokenizer, scheduler, vae.eval())
    _sharpen(pipeline, seed)
    return pipeline


def _sharpen(pipeline: Pipeline, seed: int) -> None:
    """Makes prompts matter: an untrained CLIP encoder returns nearly the same vectors for every text."""
    generator = torch.Generator().manual_seed(seed)
    embedding = pipeline.text_encoder.get_input_embeddings().weight
    with torch.no_grad():
        embedding.copy_(torch.randn(embedding.shape, generator=generator))


@cache
def clip(num_frames: int = 4, size: int = SIZE) -> np.ndarray:
    """float32 (frames, size, size, 3) in [0, 1]: a smooth gradient with a bar that moves one pixel a frame."""
    frames = np.empty((num_frames, size, size, 3), dtype=np.float32)
    frames[..., 0] = np.linspace(0.1, 0.9, size)[:, None]
    frames[..., 1] = np.linspace(0.8, 0.2, size)
    frames[..., 2] = 0.5
    for index in range(num_frames):
        frames[index, :, (2 + index) % size] = (0.9, 0.9, 0.1)
    return frames


def adapted_editor(dtype: torch.dtype = torch.float64, *, update: float = 0.05, **keywords) -> Editor:
    """An editor with LoRA whose update is not zero and prompt tokens, its frames set to `clip()`."""
    editor = Editor(pixel_pipeline(), dtype=dtype, **keywords)
    editor.add_adapter(rank=2, alpha=2, seed=1)
    editor.add_prompt_tokens(num_shared=2, seed=2)
    editor.set_frames(clip())
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in editor.adapter_parameters().items():
            if name.endswith("lora_B.weight"):
                parameter.copy_(update * torch.randn(parameter.shape, generator=generator))
    return editor
