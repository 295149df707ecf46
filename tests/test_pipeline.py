"""The pipeline folder: what is saved comes back, diffusers reads it too, and every broken folder is named."""

import json
import shutil
import socket
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMInverseScheduler, DDIMScheduler, PNDMScheduler, UNet2DConditionModel
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file

from experiments.editor import pipeline as pipeline_module
from experiments.editor.clips import CLIPS, LOOKS, caption
from experiments.editor.pipeline import (
    Pipeline,
    build_pipeline,
    build_tokenizer,
    load_pipeline,
    require_device,
    save_pipeline,
)

UNET_WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
TEXT_WEIGHTS = "text_encoder/model.safetensors"


def small_pipeline(seed: int = 0) -> Pipeline:
    return build_pipeline(seed, block_out_channels=(8, 16, 16), text_dim=16, max_tokens=12)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipelines") / "small"
    save_pipeline(small_pipeline(), folder, card="# card\n")
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of a saved pipeline, to be broken."""
    return Path(shutil.copytree(saved, tmp_path / "pipeline"))


def assert_same_weights(left: Pipeline, right: Pipeline) -> None:
    assert left.models.keys() == right.models.keys()
    for name in left.models:
        torch.testing.assert_close(
            left.models[name].state_dict(), right.models[name].state_dict(), rtol=0, atol=0, equal_nan=False
        )


def edit_json(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_weights(path: Path, change) -> None:
    weights = load_file(path)
    change(weights)
    save_file(weights, path, {"format": "pt"})


# Build


def test_default_architecture_has_the_size_and_the_attention_that_the_studies_need():
    pipeline = build_pipeline(0)
    assert isinstance(pipeline.unet, UNet2DConditionModel)
    assert 1e6 <= pipeline.num_parameters <= 3e6
    crossed = {
        name.split(".transformer_blocks")[0].rsplit(".attentions", 1)[0]
        for name, _ in pipeline.unet.named_modules()
        if name.endswith(".attn2")
    }
    assert crossed == {"down_blocks.1", "down_blocks.2", "mid_block", "up_blocks.0", "up_blocks.1"}
    image = torch.zeros(2, 3, 32, 32)
    with torch.no_grad():
        assert pipeline.unet(image, 1, pipeline.encode_prompts(["", "a"])).sample.shape == image.shape


def test_weights_follow_from_the_seed_and_leave_the_global_random_state():
    state = torch.get_rng_state()
    first, again, other = small_pipeline(3), small_pipeline(3), small_pipeline(4)
    assert torch.equal(torch.get_rng_state(), state)
    assert_same_weights(first, again)
    assert not torch.equal(first.unet.conv_in.weight, other.unet.conv_in.weight)


@pytest.mark.parametrize("channels", [0, -8, 12])
def test_channels_that_cannot_be_grouped_are_refused(channels):
    with pytest.raises(ValueError, match=f"{channels} channels cannot be split into 8 groups; use a positive multiple"):
        build_pipeline(0, block_out_channels=(8, channels, 16))


# Tokenizer


def test_every_word_of_every_caption_is_one_token():
    tokenizer = build_tokenizer()
    for clip in CLIPS.values():
        for look in LOOKS:
            text = caption(clip.subject, look)
            pieces = tokenizer.convert_ids_to_tokens(tokenizer(text).input_ids)
            assert pieces == ["<|startoftext|>", *(f"{word}</w>" for word in text.split()), "<|endoftext|>"]


@pytest.mark.parametrize("text", ["crimson cats", "naïve", "日本", "12 bikes!", "plaintive streetcar"])
def test_words_outside_the_captions_are_spelled_and_not_lost(text):
    tokenizer = build_tokenizer(max_tokens=64)
    spelled = tokenizer(text).input_ids[1:-1]
    assert tokenizer.unk_token_id not in spelled
    # The decoder puts a space after each word, and CLIP's pattern makes words of digits and punctuation.
    assert tokenizer.decode(spelled).replace(" ", "") == text.replace(" ", "")


def test_prompt_is_padded_or_cut_to_the_encoders_length():
    pipeline = small_pipeline()
    with torch.no_grad():
        encoded = pipeline.encode_prompts(["", "a night video of a man in a car", "word " * 100])
    assert encoded.shape == (3, 12, 16)
    assert not torch.equal(encoded[0], encoded[1])


# Scheduler


@pytest.mark.parametrize("num_steps", [1, 10, 50, 200])
def test_levels_of_inversion_and_sampling_agree_and_grow(num_steps):
    config = small_pipeline().scheduler.config
    sampling, inversion = DDIMScheduler.from_config(config), DDIMInverseScheduler.from_config(config)
    sampling.set_timesteps(num_steps)
    inversion.set_timesteps(num_steps)
    assert sampling.timesteps.tolist() == inversion.timesteps.tolist()[::-1]
    assert sampling.final_alpha_cumprod == inversion.initial_alpha_cumprod
    levels = [inversion.initial_alpha_cumprod.item(), *inversion.alphas_cumprod[inversion.timesteps].tolist()]
    assert all(noisier < cleaner for cleaner, noisier in pairwise(levels))


def test_each_step_of_both_schedulers_is_the_closed_form_and_clips_nothing():
    config = small_pipeline().scheduler.config
    sampling, inversion = DDIMScheduler.from_config(config), DDIMInverseScheduler.from_config(config)
    num_steps = 20
    sampling.set_timesteps(num_steps)
    inversion.set_timesteps(num_steps)
    # Values far outside [-1, 1], which a clipping scheduler would change.
    sample, noise = torch.from_numpy(10 * np.random.default_rng(0).standard_normal((2, 1, 3, 4, 4)))
    levels = torch.tensor([inversion.initial_alpha_cumprod, *inversion.alphas_cumprod[inversion.timesteps]]).double()
    for step, timestep in enumerate(inversion.timesteps.tolist()):
        for scheduler, start, end in (
            (inversion, levels[step], levels[step + 1]),
            (sampling, levels[step + 1], levels[step]),
        ):
            # x' = sqrt(abar') (x - sqrt(1 - abar) eps) / sqrt(abar) + sqrt(1 - abar') eps
            clean = (sample - (1 - start).sqrt() * noise) / start.sqrt()
            expected = end.sqrt() * clean + (1 - end).sqrt() * noise
            stepped = scheduler.step(noise, timestep, sample).prev_sample
            # The schedulers hold abar and its roots in float32: six roundings, each scaled by the operands.
            scale = (end / start).sqrt() * (sample.abs() + noise.abs()) + noise.abs()
            assert (stepped - expected).abs().max() <= 6 * np.finfo(np.float32).eps * scale.max()


# Save and load


def test_saved_pipeline_comes_back_bit_for_bit(saved):
    built, loaded = small_pipeline(), load_pipeline(saved)
    assert_same_weights(built, loaded)
    # diffusers keeps notes of its own in a configuration, under names that begin with an underscore.
    settings = [
        {key: value for key, value in part.scheduler.config.items() if key[0] != "_"} for part in (built, loaded)
    ]
    assert settings[0] == settings[1]
    assert loaded.vae is None
    assert not any(model.training for model in loaded.models.values())
    prompts = ["a night video of a man in a car", "naïve cats"]
    with torch.no_grad():
        assert torch.equal(built.encode_prompts(prompts), loaded.encode_prompts(prompts))


def test_saving_twice_writes_the_same_bytes(saved, tmp_path):
    save_pipeline(small_pipeline(), tmp_path / "again", card="# card\n")
    files = {path.relative_to(saved) for path in saved.rglob("*") if path.is_file()}
    assert files == {path.relative_to(tmp_path / "again") for path in (tmp_path / "again").rglob("*") if path.is_file()}
    assert Path(UNET_WEIGHTS) in files
    assert all((saved / file).read_bytes() == (tmp_path / "again" / file).read_bytes() for file in files)


def test_weights_on_disk_are_safetensors_only(saved):
    suffixes = {path.suffix for path in saved.rglob("*") if path.is_file()}
    assert suffixes == {".safetensors", ".json", ".md"}


def test_diffusers_own_pipeline_samples_pixels_from_the_folder(saved):
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(saved, vae=None, safety_checker=None, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    # Without an autoencoder diffusers takes a latent pixel for 8 pixels.
    sample = pipeline("a", height=256, width=256, num_inference_steps=1, output_type="latent").images
    assert sample.shape == (1, 3, 32, 32)


def test_dtype_and_device_are_applied(saved):
    pipeline = load_pipeline(str(saved), device="cpu", dtype=torch.float64)
    assert {weight.dtype for model in pipeline.models.values() for weight in model.parameters()} == {torch.float64}


def test_local_folder_needs_no_network(saved, monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("the loader opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(pipeline_module, "snapshot_download", refuse)
    load_pipeline(saved)


def test_failed_save_leaves_the_old_pipeline_and_no_remains(folder, monkeypatch):
    other = small_pipeline(9)

    def fail(path):
        raise OSError("no space left on device")

    monkeypatch.setattr(other.scheduler, "save_pretrained", fail)
    with pytest.raises(OSError, match="no space left"):
        save_pipeline(other, folder)
    assert_same_weights(load_pipeline(folder), small_pipeline())
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_saving_over_a_pipeline_replaces_it_whole(folder):
    (folder / "left.txt").write_text("from before")
    save_pipeline(small_pipeline(9), folder)
    assert_same_weights(load_pipeline(folder), small_pipeline(9))
    assert not (folder / "left.txt").exists()
    assert not (folder / "README.md").exists()


def test_saving_over_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match=r"exists and is no pipeline folder .* choose a new folder"):
        save_pipeline(small_pipeline(), tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    pipeline = small_pipeline()
    with torch.no_grad():
        pipeline.unet.conv_out.bias[1] = torch.nan
    with pytest.raises(ValueError, match=r"conv_out.bias of the unet .* NaN or infinity; .* lower learning rate"):
        save_pipeline(pipeline, tmp_path / "new")
    assert not list(tmp_path.iterdir())


# Other people's pipelines


def latent_pipeline() -> Pipeline:
    """A pipeline of Stable Diffusion's shape: an autoencoder, a UNet of 4 latent channels, a PNDM scheduler's file."""
    small = small_pipeline()
    config = dict(small.unet.config) | {"in_channels": 4, "out_channels": 4, "sample_size": 16}
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        norm_num_groups=4,
    )
    return Pipeline(UNet2DConditionModel.from_config(config), small.text_encoder, small.tokenizer, small.scheduler, vae)


def test_stable_diffusion_folder_loads_with_its_autoencoder_and_a_ddim_scheduler(tmp_path):
    save_pipeline(latent_pipeline(), tmp_path / "latent")
    # Stable Diffusion 1.5 ships a PNDM configuration, which says nothing of clip_sample.
    shutil.rmtree(tmp_path / "latent/scheduler")
    PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
    ).save_pretrained(tmp_path / "latent/scheduler")
    pipeline = load_pipeline(tmp_path / "latent")
    assert isinstance(pipeline.vae, AutoencoderKL)
    assert isinstance(pipeline.scheduler, DDIMScheduler)
    assert pipeline.scheduler.config["clip_sample"] is False
    assert pipeline.scheduler.config["steps_offset"] == 1
    assert pipeline.scheduler.config["timestep_spacing"] == "leading"


def test_half_precision_variant_is_read_where_it_is_the_only_one(folder):
    for file in (UNET_WEIGHTS, TEXT_WEIGHTS):
        path = folder / file
        save_file({key: weight.half() for key, weight in load_file(path).items()}, path, {"format": "pt"})
        path.rename(path.with_suffix(".fp16.safetensors"))
    expected = small_pipeline().unet.conv_in.weight.half().float()
    assert torch.equal(load_pipeline(folder, dtype=torch.float32).unet.conv_in.weight, expected)


def test_hub_id_is_fetched_without_pickles(saved, monkeypatch):
    asked = {}

    def fetch(name, allow_patterns):
        asked.update(name=name, patterns=allow_patterns)
        return str(saved)

    monkeypatch.setattr(pipeline_module, "snapshot_download", fetch)
    assert_same_weights(load_pipeline("somebody/small-pipeline"), small_pipeline())
    assert asked["name"] == "somebody/small-pipeline"
    assert not any(Path(pattern).suffix in pipeline_module.PICKLED for pattern in asked["patterns"])


def test_existing_folder_wins_over_a_hub_id_of_the_same_name(saved, monkeypatch):
    monkeypatch.chdir(saved.parent.parent)
    monkeypatch.delattr(pipeline_module, "snapshot_download")
    assert_same_weights(load_pipeline(f"{saved.parent.name}/{saved.name}"), small_pipeline())


def test_hub_that_does_not_answer_is_named(monkeypatch):
    def offline(name, allow_patterns):
        raise LocalEntryNotFoundError("cannot reach the hub")

    monkeypatch.setattr(pipeline_module, "snapshot_download", offline)
    with pytest.raises(ValueError, match=r"^somebody/nothing is no folder here .*cannot reach the hub.*check the id"):
        load_pipeline("somebody/nothing")


# Faults


def truncate(folder: Path) -> None:
    content = (folder / UNET_WEIGHTS).read_bytes()
    (folder / UNET_WEIGHTS).write_bytes(content[: len(content) // 2])


def poison(folder: Path) -> None:
    edit_weights(folder / UNET_WEIGHTS, lambda weights: weights["conv_in.bias"].fill_(torch.inf))


def drop_weight(folder: Path) -> None:
    edit_weights(folder / TEXT_WEIGHTS, lambda weights: weights.pop("final_layer_norm.bias"))


def pickle_weights(folder: Path) -> None:
    (folder / UNET_WEIGHTS).rename(folder / "unet/diffusion_pytorch_model.bin")


def pickle_everything(folder: Path) -> None:
    (folder / "model_index.json").unlink()
    (folder / "model.ckpt").write_bytes(b"\x80\x04.")


FAULTS = {
    "no model_index": (
        lambda folder: (folder / "model_index.json").unlink(),
        "is no pipeline folder: it has no model_index",
    ),
    "checkpoint": (pickle_everything, r"found model.ckpt: pickled weights can run code .*save_pretrained"),
    "pickled": (pickle_weights, r"unet holds only diffusion_pytorch_model.bin: pickled .* safe_serialization=True"),
    "missing": (lambda folder: (folder / TEXT_WEIGHTS).unlink(), r"model.safetensors is missing; copy the pipeline"),
    "truncated": (truncate, r"unet.*safetensors is corrupted .*; copy the pipeline folder again"),
    "garbage": (lambda folder: (folder / TEXT_WEIGHTS).write_bytes(b"?" * 999), r"model.safetensors is corrupted"),
    "empty": (lambda folder: (folder / TEXT_WEIGHTS).write_bytes(b""), r"model.safetensors is corrupted"),
    "not finite": (poison, r"weight conv_in.bias of the unet .* holds NaN or infinity; every weight must be finite"),
    "a key too few": (drop_weight, r"text_encoder of .* has 1 missing keys, the first is final_layer_norm.bias"),
    "other shapes": (
        lambda folder: edit_json(folder / "unet/config.json", cross_attention_dim=24),
        r"cross_attention_dim = 24 and .*hidden_size = 16: .* must have one width",
    ),
    "other class": (
        lambda folder: edit_json(folder / "unet/config.json", _class_name="UNet2DModel"),
        "the unet of .* is a UNet2DModel; this editor needs a UNet2DConditionModel",
    ),
    "second conditioning": (
        lambda folder: edit_json(folder / "unet/config.json", class_embed_type="identity"),
        "class_embed_type = 'identity', a second conditioning; .* use a Stable Diffusion 1 or 2",
    ),
    "broken json": (lambda folder: (folder / "unet/config.json").write_text("{"), r"config.json is no JSON file"),
    "json list": (lambda folder: (folder / "unet/config.json").write_text("[]"), r"config.json holds a list"),
    "no scheduler": (lambda folder: shutil.rmtree(folder / "scheduler"), r"scheduler_config.json is missing; copy"),
    "no tokenizer": (lambda folder: shutil.rmtree(folder / "tokenizer"), r"tokenizer_config.json is missing; copy"),
    "broken tokenizer": (
        lambda folder: (folder / "tokenizer/tokenizer.json").write_text("{}"),
        r"the tokenizer of .* cannot be loaded .* copy the pipeline folder again",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_broken_folder_is_named_with_its_mend(folder, fault):
    load_pipeline(folder)
    breaks, message = FAULTS[fault]
    breaks(folder)
    with pytest.raises(ValueError, match=message):
        load_pipeline(folder)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere", "^nowhere is no folder; pass an existing pipeline folder or a hub id"),
        ("/nowhere/at/all", "^/nowhere/at/all is no folder; pass an existing pipeline folder or a hub id"),
        (Path("some/where"), "^some/where is no folder; pass an existing pipeline folder or a hub id"),
    ],
)
def test_path_that_is_not_there_is_named_and_not_fetched(path, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delattr(pipeline_module, "snapshot_download")
    with pytest.raises(ValueError, match=message):
        load_pipeline(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.ckpt", r"model.ckpt is pickled: pickled weights can run code"),
        ("model.safetensors", r"model.safetensors is a file, not a pipeline folder; .*from_single_file"),
    ],
)
def test_single_file_is_refused(tmp_path, name, message):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match=message):
        load_pipeline(tmp_path / name)


@pytest.mark.parametrize(
    ("device", "message"),
    [("gpu", "'gpu' is no device; pass cpu"), ("cuda:99", r"device 'cuda:99' is not there \(available: cpu")],
)
def test_device_that_is_not_there_is_answered_with_those_that_are(saved, device, message):
    with pytest.raises(ValueError, match=message):
        load_pipeline(saved, device=device)


def test_cpu_is_always_there():
    assert require_device(None) == require_device("cpu") == torch.device("cpu")
