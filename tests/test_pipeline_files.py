"""Pipeline folders of other people: what is taken is what their own tools load; what is not is named beforehand."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from safetensors.torch import load_file
from tiny_pipelines import clip, stable_diffusion_pipeline

from experiments.editor.editor import Editor, load_editor
from experiments.editor.inversion import noise_ladder
from experiments.editor.pipeline import load_pipeline, read_scheduler, save_pipeline
from experiments.editor.pipeline_files.configs import require_fitting_parts

pytestmark = pytest.mark.usefixtures("single_thread")

SCHEDULE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
DDIM = {**SCHEDULE, "steps_offset": 1, "set_alpha_to_one": False, "clip_sample": False}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipelines") / "saved"
    save_pipeline(stable_diffusion_pipeline(), folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "pipeline")


def edit(file, **changes):
    content = json.loads(file.read_text())
    file.write_text(json.dumps({name: value for name, value in (content | changes).items() if value != "REMOVED"}))


def index(**changes):
    return lambda folder: edit(folder / "model_index.json", **changes)


def unet(**changes):
    return lambda folder: edit(folder / "unet" / "config.json", **changes)


def vae(**changes):
    return lambda folder: edit(folder / "vae" / "config.json", **changes)


def scheduler(**changes):
    return lambda folder: edit(folder / "scheduler" / "scheduler_config.json", **changes)


def another(class_name, **settings):
    """A scheduler of another class, its file silent about everything but `settings`."""
    content = json.dumps({"_class_name": class_name, **settings})
    return lambda folder: (folder / "scheduler" / "scheduler_config.json").write_text(content)


def transformer(class_name, network):
    return index(_class_name=class_name, unet="REMOVED", transformer=["diffusers", network])


REFUSED = {
    # case: (what makes the folder, what the message says)
    "Flux": (
        transformer("FluxPipeline", "FluxTransformer2DModel"),
        "FluxPipeline on .* FluxTransformer2DModel: .*velocity",
    ),
    "SD3": (
        transformer("StableDiffusion3Pipeline", "SD3Transformer2DModel"),
        "StableDiffusion3Pipeline on .* velocity",
    ),
    "Wan": (transformer("WanPipeline", "WanTransformer3DModel"), "WanPipeline on .*WanTransformer3DModel"),
    "CogVideoX": (
        transformer("CogVideoXPipeline", "CogVideoXTransformer3DModel"),
        "CogVideoXPipeline on .*joint tokens",
    ),
    "an unknown class": (transformer("MyPipeline", "MyNet"), "MyPipeline on the network MyNet: it is another kind"),
    "AnimateDiff": (
        index(_class_name="AnimateDiffPipeline", unet=["diffusers", "UNetMotionModel"]),
        "UNetMotionModel: motion modules join its frames.* give the Stable Diffusion folder that the motion adapter",
    ),
    "text to video": (
        index(_class_name="TextToVideoSDPipeline", unet=["diffusers", "UNet3DConditionModel"]),
        "UNet3DConditionModel: its UNet takes all frames as one sample",
    ),
    "unconditional": (
        index(_class_name="DDPMPipeline", unet=["diffusers", "UNet2DModel"], text_encoder="REMOVED"),
        "DDPMPipeline on .*UNet2DModel: it is unconditional",
    ),
    "SDXL": (
        index(_class_name="StableDiffusionXLPipeline", text_encoder_2=["transformers", "CLIPTextModelWithProjection"]),
        "two text encoders and time ids",
    ),
    "LCM by its class": (index(_class_name="LatentConsistencyModelPipeline"), "guidance embedding"),
    "LCM by its UNet": (
        unet(time_cond_proj_dim=32),
        "unet/config.json has time_cond_proj_dim = 32: .* a guidance embedding",
    ),
    "class labels": (unet(num_class_embeds=7), "has num_class_embeds = 7: the UNet takes class labels"),
    "class embedding": (unet(class_embed_type="timestep"), "has class_embed_type = 'timestep', a second conditioning"),
    "IP-Adapter": (unet(encoder_hid_dim_type="ip_image_proj"), "has encoder_hid_dim_type = 'ip_image_proj'"),
    "time ids": (unet(addition_embed_type="text_time"), "has addition_embed_type = 'text_time'"),
    "inpainting": (unet(in_channels=9), "in_channels = 9 .*latents of 4: .*a mask as well"),
    "instructions": (unet(in_channels=8), "in_channels = 8 .*InstructPix2Pix"),
    "depth": (unet(in_channels=5), "in_channels = 5 .*depth map"),
    "learned variance": (unet(out_channels=8), r"out_channels = 8 \(a learned variance beside the noise\)"),
    "another VAE": (vae(latent_channels=16), "in_channels = 4 and .* makes latents of 16: .* not of one model"),
    "another text encoder": (unet(cross_attention_dim=32), "cross_attention_dim = 32 and .* hidden_size = 16"),
    "a width a block": (unet(cross_attention_dim=[16, 24]), "cross_attention_dim = 24 and .* hidden_size = 16"),
    "a width that is none": (unet(cross_attention_dim="wide"), "cross_attention_dim = 'wide'; an integer"),
    "no size": (unet(sample_size=0), "sample_size = 0; an integer above 0, a pair of them, or null"),
    "three sizes": (unet(sample_size=[8, 8, 8]), r"sample_size = \[8, 8, 8\]"),
    "quantised": (unet(quantization_config={"quant_method": "bitsandbytes"}), "quantised weights are not read"),
    "a VAE scale of 0": (vae(scaling_factor=0), "scaling_factor = 0, by which latents are divided"),
    "a VAE scale of text": (vae(scaling_factor="0.18"), "scaling_factor = '0.18'; a finite number"),
    "a small VAE": (vae(_class_name="AutoencoderTiny"), "AutoencoderTiny; this editor needs a AutoencoderKL: put that"),
    "an index entry that is no pair": (index(vae=5), r"model_index.json has vae = 5; a pair \[library, class\]"),
    "a class that is no name": (index(_class_name=["a"]), r"_class_name = \['a'\]; the name of a pipeline class"),
    "200000 brackets": (
        lambda folder: (folder / "model_index.json").write_text("[" * 200000),
        "model_index.json is no JSON file",
    ),
    "flow matching": (
        another("FlowMatchEulerDiscreteScheduler", shift=3.0),
        "FlowMatchEulerDiscreteScheduler: flow matching",
    ),
    "flow sigmas": (
        another("DPMSolverMultistepScheduler", **SCHEDULE, use_flow_sigmas=True, prediction_type="flow_prediction"),
        "DPMSolverMultistepScheduler: flow matching",
    ),
    "preconditioned": (another("EDMEulerScheduler"), "EDMEulerScheduler': its network is preconditioned"),
    "an unknown scheduler": (
        scheduler(_class_name="MyScheduler"),
        "'MyScheduler', a scheduler that diffusers .* does not know",
    ),
    "another class of diffusers": (
        scheduler(_class_name="AutoencoderKL"),
        "'AutoencoderKL', a scheduler that diffusers",
    ),
    "a schedule of DDPM": (
        scheduler(beta_schedule="sigmoid"),
        "beta_schedule = 'sigmoid', which DDIMScheduler does not have",
    ),
    "a number that is text": (scheduler(beta_end="0.012"), "beta_end = '0.012'; a finite number"),
    "an infinite number": (scheduler(beta_end=float("inf")), "beta_end = inf; a finite number"),
    "timesteps without end": (scheduler(num_train_timesteps=10**6), "num_train_timesteps = 1000000; at most 100000"),
    "no timesteps": (scheduler(num_train_timesteps=0), "num_train_timesteps = 0; an integer from 1"),
    "too few betas": (scheduler(trained_betas=[0.1, 0.2]), "trained_betas = 2 of them; a list of 1000"),
    "a switch that is a number": (scheduler(clip_sample=1), "clip_sample = 1; true or false"),
    "an unknown prediction": (scheduler(prediction_type="score"), "prediction_type = 'score'; one of epsilon"),
    "an unknown spacing": (
        scheduler(timestep_spacing="log"),
        "timestep_spacing = 'log'; leading, trailing or linspace",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_driven_is_named_before_weights_are_read(folder, case, monkeypatch):
    make, message = REFUSED[case]
    make(folder)
    if case != "a small VAE":
        # That one is found when the part is loaded, by the class in its own configuration.
        monkeypatch.setattr(
            "experiments.editor.pipeline._load_model", lambda *arguments: pytest.fail("weights were read before")
        )
    with pytest.raises(ValueError, match=message):
        load_pipeline(folder)


NOTED = {
    # case: (what makes the folder, what is said on loading)
    "nothing": (lambda folder: None, []),
    "ControlNet": (
        index(_class_name="StableDiffusionControlNetPipeline", controlnet=["diffusers", "ControlNetModel"]),
        ["not audited: controlnet (ControlNetModel): audited is the UNet without it"],
    ),
    "two ControlNets": (
        index(controlnet=[["diffusers", "ControlNetModel"], ["diffusers", "ControlNetModel"]]),
        ["not audited: controlnet (several): audited is the UNet without it"],
    ),
    "safety checker": (
        index(safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"]),
        ["not audited: safety_checker (StableDiffusionSafetyChecker)"],
    ),
    "clipping": (
        scheduler(clip_sample=True),
        [
            "scheduler: clip_sample = True is taken as False: a clipped step has no inverse (a StableDiffusionPipeline"
            " of diffusers changes it as well)"
        ],
    ),
    "linspace": (
        scheduler(timestep_spacing="linspace"),
        [
            "scheduler: timestep_spacing = 'linspace' is taken as 'leading': diffusers' inverse scheduler has no such"
            " spacing, so these are not the timesteps that the pipeline samples"
        ],
    ),
    "trailing": (scheduler(timestep_spacing="trailing"), []),
    "v-prediction": (
        scheduler(prediction_type="v_prediction"),
        [
            "scheduler: the network predicts 'v_prediction', which is converted to noise at every evaluation (x_t, t),"
            " as DDIM sampling does"
        ],
    ),
    "Euler": (
        another("EulerDiscreteScheduler", **SCHEDULE, timestep_spacing="leading", steps_offset=1),
        [
            "not audited: the pipeline's own sampler EulerDiscreteScheduler, another solver than DDIM; audited is DDIM"
            " on its noise schedule"
        ],
    ),
    "Euler ancestral": (
        another("EulerAncestralDiscreteScheduler", **SCHEDULE, timestep_spacing="leading", steps_offset=1),
        [
            "not audited: the pipeline's own sampler EulerAncestralDiscreteScheduler, which draws noise in its steps,"
            " so that no inversion undoes it; audited is DDIM on its noise schedule"
        ],
    ),
    "LCM's scheduler on an ordinary UNet": (
        another("LCMScheduler", **DDIM),
        [
            "not audited: the pipeline's own sampler LCMScheduler, which draws noise in its steps, so that no inversion"
            " undoes it; audited is DDIM on its noise schedule"
        ],
    ),
}


@pytest.mark.parametrize("case", NOTED)
def test_everything_that_is_not_as_stored_is_said(folder, case):
    make, said = NOTED[case]
    make(folder)
    assert list(load_pipeline(folder).notes) == said


def test_boxes_of_gligen_are_said_to_be_left_out(folder):
    unet(attention_type="gated")(folder)
    said = require_fitting_parts(folder, has_autoencoder=True)
    assert said == ["not audited: GLIGEN's grounding (attention_type 'gated'): audited is the UNet without boxes"]


def test_a_silent_setting_is_that_of_its_own_class(folder):
    """PNDM does not set alpha to one unless told to, DDIM does; the Euler solver ends at noise 0."""
    another("PNDMScheduler", **SCHEDULE, skip_prk_steps=True, steps_offset=1)(folder)
    scheduler(set_alpha_to_one="REMOVED")(folder)
    assert read_scheduler(folder).used().config.set_alpha_to_one is False
    another("EulerDiscreteScheduler", **SCHEDULE)(folder)
    assert read_scheduler(folder).used().config.set_alpha_to_one is True
    another("DPMSolverMultistepScheduler", **SCHEDULE, final_sigmas_type="sigma_min")(folder)
    assert read_scheduler(folder).used().config.set_alpha_to_one is False
    assert read_scheduler(folder).used().config.clip_sample is False


def test_the_levels_are_those_that_the_pipeline_samples(folder):
    scheduler(timestep_spacing="trailing")(folder)
    ladder = noise_ladder(load_pipeline(folder).scheduler, 10)
    own = DDIMScheduler(**DDIM, timestep_spacing="trailing")
    own.set_timesteps(10)
    assert ladder.timesteps[1:].tolist() == own.timesteps.tolist()[::-1] == list(range(99, 1000, 100))


@pytest.mark.parametrize(("size", "side"), [(8, 32), ([8, 8], 32), ([8, 16], 32), ([16], 64)])
def test_the_side_of_frames_is_that_of_the_training(folder, size, side):
    unet(sample_size=size)(folder)
    assert load_editor(folder).frame_size == side


def test_without_a_stated_side_it_is_asked_for(folder):
    unet(sample_size=None)(folder)
    editor = load_editor(folder)
    with pytest.raises(ValueError, match=r"sample_size = null, .* give it \(--size\)"):
        editor.frame_size


@pytest.mark.parametrize("length", ["REMOVED", 10**9, 10**30])
def test_prompts_are_as_long_as_the_text_encoder_takes(folder, length):
    edit(folder / "tokenizer" / "tokenizer_config.json", model_max_length=length)
    editor = load_editor(folder)
    assert editor.encode_prompt("a cat").shape[1] == 16
    assert any("padded to the text encoder's 16 tokens" in note for note in editor.pipeline.notes)


def test_a_token_without_an_embedding_is_named():
    pipeline = stable_diffusion_pipeline()
    pipeline.tokenizer.add_tokens(["<my-cat>"])
    editor = Editor(pipeline)
    assert editor.encode_prompt("a dog").isfinite().all()
    with pytest.raises(ValueError, match=r"has the token '<my-cat>', number \d+, and the text encoder embeds \d+"):
        editor.encode_prompt("a <my-cat>")


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_sampling_is_that_of_diffusers_own_pipeline(prediction, guidance, tmp_path):
    """Conversion to noise at (x_t, t): the same latents, through diffusers' StableDiffusionPipeline and the editor."""
    parts = stable_diffusion_pipeline()
    own = DDIMScheduler.from_config(parts.scheduler.config, prediction_type=prediction)
    pipe = StableDiffusionPipeline(
        vae=parts.vae,
        text_encoder=parts.text_encoder,
        tokenizer=parts.tokenizer,
        unet=parts.unet,
        scheduler=own,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.save_pretrained(tmp_path / "pipeline")
    pipe.set_progress_bar_config(disable=True)
    start = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    theirs = pipe(
        ["a cat"] * 2,
        latents=start.clone(),
        num_inference_steps=5,
        guidance_scale=guidance,
        output_type="latent",
    ).images
    editor = load_editor(tmp_path / "pipeline")
    assert editor.pipeline.prediction_type == prediction
    ours = editor.sample(start, "a cat", num_steps=5, guidance_scale=guidance).latents[0]
    # float32: five steps whose operands are latents of this size and, in the last step, x_0 = x / sqrt(abar).
    assert (ours - theirs).abs().max() <= 2e-4 * theirs.abs().max()
    wrong = load_editor(tmp_path / "pipeline")
    wrong.pipeline.prediction_type = "epsilon" if prediction != "epsilon" else "v_prediction"
    assert (wrong.sample(start, "a cat", num_steps=5, guidance_scale=guidance).latents[0] - theirs).abs().max() > 0.1


@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
@pytest.mark.parametrize("timestep", [1, 500, 999])
def test_what_the_network_predicts_and_the_noise_make_the_same_clean_sample(prediction, timestep):
    """x_0 = (x - sqrt(1 - abar) eps) / sqrt(abar) from the converted noise is the x_0 that the output itself states."""
    pipeline = stable_diffusion_pipeline()
    pipeline.prediction_type = prediction
    editor = Editor(pipeline, dtype=torch.float64)
    latents = editor.to_latents(clip(2, 32))
    eps = editor.predict_noise(latents, timestep, "a")
    pipeline.prediction_type = "epsilon"
    output = editor.predict_noise(latents, timestep, "a")
    abar = float(editor.alphas_cumprod[timestep])
    stated = output if prediction == "sample" else abar**0.5 * latents - (1 - abar) ** 0.5 * output
    clean = (latents - (1 - abar) ** 0.5 * eps) / abar**0.5
    scale = (latents.abs() + output.abs()).max() / abar**0.5
    assert (clean - stated).abs().max() <= 16 * torch.finfo(torch.float64).eps * scale / (1 - abar) ** 0.5


def test_a_pipeline_is_saved_with_what_its_network_predicts(tmp_path):
    pipeline = stable_diffusion_pipeline()
    pipeline.prediction_type = "v_prediction"
    save_pipeline(pipeline, tmp_path / "saved")
    assert load_pipeline(tmp_path / "saved").prediction_type == "v_prediction"


def test_the_printed_command_converts_pickled_weights(folder):
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(ValueError, match="pickled weights can run code") as caught:
        load_pipeline(folder)
    program = str(caught.value).split('python -c "')[1].split('"')[0]
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, timeout=300)
    assert load_pipeline(folder.with_name("pipeline_safetensors")).num_parameters > 0
