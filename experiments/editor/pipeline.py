"""A text-to-image diffusion pipeline in diffusers' folder format: build, save, load.

The shipped pipeline (the folder weights/ beside this file) works on pixels: a UNet2DConditionModel of 32 x 32 RGB
images with cross-attention at 16 x 16 and 8 x 8, a small CLIP text encoder, and the noise schedule of Stable Diffusion.
The same loader takes a Stable Diffusion folder or hub id, whose autoencoder then stands between pixels and latents.

Images and latents are (batch, channels, height, width); pixels are in [-1, 1]. The UNet predicts the noise eps of

    x_t = sqrt(alphas_cumprod[t]) x_0 + sqrt(1 - alphas_cumprod[t]) eps.

Weights are safetensors only; pickled weights are refused. Nothing is fetched unless the caller passes a hub id.
"""

import json
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import diffusers
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from experiments.editor.pipeline_files.configs import read_json, require_fitting_parts
from experiments.editor.pipeline_files.families import read_index
from experiments.editor.pipeline_files.schedulers import StoredScheduler, interpret
from experiments.editor.tokenizer import build_tokenizer
from experiments.files import whole_folder
from experiments.opened_files import record

SCHEDULER_CONFIG = Path("scheduler", "scheduler_config.json")
SHIPPED_WEIGHTS = Path(__file__).parent / "weights"
CONVERSION_ADVICE = (
    "pickled weights can run code and are not read; if you trust them, convert {what} with "
    "python -c \"from diffusers import {cls} as P; P.{method}('{old}').save_pretrained('{new}', safe_serialization=True)\""
)

_Model = TypeVar("_Model", bound=torch.nn.Module)
_TOKENIZER_LOCK = threading.Lock()
PICKLED = {".bin", ".ckpt", ".pt", ".pth", ".pkl"}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_COMPONENTS = {
    "unet": ("diffusers", "UNet2DConditionModel"),
    "text_encoder": ("transformers", "CLIPTextModel"),
    "tokenizer": ("transformers", "CLIPTokenizer"),
    "scheduler": ("diffusers", "DDIMScheduler"),
    "vae": ("diffusers", "AutoencoderKL"),
}
_WEIGHTS_NAME = {
    "unet": "diffusion_pytorch_model",
    "text_encoder": "model",
    "vae": "diffusion_pytorch_model",
}


@dataclass
class Pipeline:
    """The parts of a diffusion pipeline.

    Attributes:
        vae: None where the UNet works on pixels in [-1, 1].
        prediction_type: what the UNet predicts, "epsilon", "v_prediction" or "sample"; the scheduler is always given
            noise, which `Editor.predict_noise` converts it to.
        notes: what was changed on loading, and which parts of the folder are not used; a line each.
    """

    unet: UNet2DConditionModel
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    scheduler: DDIMScheduler
    vae: AutoencoderKL | None = None
    prediction_type: str = "epsilon"
    notes: tuple[str, ...] = ()

    @property
    def models(self) -> dict[str, torch.nn.Module]:
        """The components that carry weights, by name."""
        models = {"unet": self.unet, "text_encoder": self.text_encoder, "vae": self.vae}
        return {name: model for name, model in models.items() if model is not None}

    @property
    def num_parameters(self) -> int:
        """The number of weights of all components together."""
        return sum(weight.numel() for model in self.models.values() for weight in model.parameters())

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> Self:
        """Move every model to a device and a floating dtype, in place, and return the pipeline."""
        # diffusers warns about a dtype that is passed as None.
        target = {name: value for name, value in (("device", device), ("dtype", dtype)) if value is not None}
        for model in self.models.values():
            # diffusers' own method warns about parts kept in float32 even where there are none, as here.
            torch.nn.Module.to(model, **target)
        return self

    def encode_prompts(self, prompts: Sequence[str]) -> torch.Tensor:
        """The text encoder's last hidden states (prompts, tokens, dim), each prompt padded or cut to the same tokens.

        As in Stable Diffusion the padding is not masked. Gradients flow to the text encoder where they are enabled.
        """
        return self.text_encoder(self.tokens(prompts).to(self.text_encoder.device)).last_hidden_state

    def tokens(self, prompts: Sequence[str]) -> torch.Tensor:
        """The numbers of the prompts' tokens, (prompts, tokens), padded or cut as `encode_prompts` encodes them."""
        # A tokenizer that is asked by two threads at once raises "Already borrowed".
        with _TOKENIZER_LOCK:
            return self.tokenizer(
                list(prompts),
                padding="max_length",
                max_length=self.tokenizer.model_max_length,
                truncation=True,
                return_tensors="pt",
            ).input_ids


def build_pipeline(
    seed: int,
    *,
    block_out_channels: Sequence[int] = (32, 48, 64),
    text_dim: int = 64,
    max_tokens: int = 12,
    sample_size: int = 32,
) -> Pipeline:
    """The shipped architecture with random float32 weights drawn from the seed, in evaluation mode on the CPU.

    block_out_channels are the UNet's channels at full, half and quarter resolution, multiples of 8; text_dim is the
    width of the text encoder and of the cross-attention; max_tokens is the length of every encoded prompt. The global
    random state of torch is left as it was. Raises ValueError if a number of channels is not a positive multiple of 8.
    """
    for channels in (*block_out_channels, text_dim):
        if channels < 8 or channels % 8:
            raise ValueError(f"{channels} channels cannot be split into 8 groups; use a positive multiple of 8")
    tokenizer = build_tokenizer(max_tokens)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            sample_size=sample_size,
            in_channels=3,
            out_channels=3,
            layers_per_block=1,
            block_out_channels=tuple(block_out_channels),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            mid_block_type="UNetMidBlock2DCrossAttn",
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=text_dim,
            # For this class diffusers reads attention_head_dim as the number of heads.
            attention_head_dim=2,
            norm_num_groups=8,
            # The caption also enters with the timestep: through cross-attention alone a short training learns the mean
            # colour of a look too slowly.
            addition_embed_type="text",
            addition_embed_type_num_heads=2,
        )
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=text_dim,
                intermediate_size=2 * text_dim,
                projection_dim=text_dim,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=max_tokens,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
    scheduler = DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="epsilon",
        timestep_spacing="leading",
        clip_sample=False,
        # Level 0 of an inversion is alphas_cumprod[0], and the offset makes level 1 a larger noise: with offset 0 the
        # first two levels would coincide and one step would be lost.
        set_alpha_to_one=False,
        steps_offset=1,
    )
    return Pipeline(unet.eval(), text_encoder.eval(), tokenizer, scheduler)


def require_free(folder: Path) -> None:
    """ValueError unless a pipeline can be written to folder: it is new, empty, or holds a pipeline to be replaced."""
    if folder.exists() and not (folder.is_dir() and (_is_pipeline(folder) or not any(folder.iterdir()))):
        raise ValueError(f"{folder} exists and is no pipeline folder (no model_index.json); choose a new folder")


def save_pipeline(pipeline: Pipeline, folder: str | Path, *, card: str | None = None) -> None:
    """Write a pipeline as a diffusers folder, with card as its README.md; the folder appears whole or not at all.

    An existing pipeline folder is replaced. Raises ValueError if the path holds anything else, or if a weight is not
    finite.
    """
    folder = Path(folder)
    require_free(folder)
    for name, model in pipeline.models.items():
        _require_finite(name, model, folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with whole_folder(folder) as written, _without_progress_bars():
        for name, model in pipeline.models.items():
            model.save_pretrained(written / name, safe_serialization=True)
        pipeline.tokenizer.save_pretrained(written / "tokenizer")
        scheduler = pipeline.scheduler
        if pipeline.prediction_type != "epsilon":
            scheduler = DDIMScheduler.from_config(scheduler.config, prediction_type=pipeline.prediction_type)
        scheduler.save_pretrained(written / "scheduler")
        (written / "model_index.json").write_text(json.dumps(_model_index(pipeline), indent=2) + "\n", encoding="utf-8")
        if card is not None:
            (written / "README.md").write_text(card, encoding="utf-8")


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    """transformers draws a bar for every file, which would tear the caller's own progress display."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def _model_index(pipeline: Pipeline) -> dict[str, Any]:
    """model_index.json as diffusers reads it; without an autoencoder its images are output_type="latent"."""
    index: dict[str, Any] = {"_class_name": "StableDiffusionPipeline", "_diffusers_version": diffusers.__version__}
    for name, origin in _COMPONENTS.items():
        index[name] = list(origin) if getattr(pipeline, name) is not None else [None, None]
    index |= {name: [None, None] for name in ("safety_checker", "feature_extractor", "image_encoder")}
    return index | {"requires_safety_checker": False}


def load_pipeline(
    path_or_id: str | Path | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> Pipeline:
    """Load a pipeline in evaluation mode: the shipped one (None), a diffusers folder, or a hub id "owner/name".

    A folder is read without the network. The scheduler is taken as DDIM without clipping of the predicted sample, since
    a clipped step has no inverse; `Pipeline.notes` says what else was changed and what is not used. device defaults to
    the CPU, dtype to that of the files.

    Raises ValueError if the path is no pipeline or one of another kind, its parts do not fit each other, its UNet needs
    more than latents, a timestep and a prompt, weights are missing, corrupted, not finite or pickled, its scheduler has
    no schedule of betas, or the device is not there.
    """
    target = require_device(device)
    folder = record(_resolve(path_or_id))
    if not _is_pipeline(folder):
        found = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLED)
        advice = f" (found {found[0]}: {_advice(folder / found[0])})" if found else ""
        raise ValueError(f"{folder} is no pipeline folder: it has no model_index.json{advice}; pass a diffusers folder")
    index = read_index(folder)
    left_out = require_fitting_parts(folder, index.has_autoencoder)
    stored = interpret(read_json(folder / SCHEDULER_CONFIG), folder / SCHEDULER_CONFIG)
    pipeline = Pipeline(
        unet=_load_model(folder, "unet", UNet2DConditionModel),
        text_encoder=_load_model(folder, "text_encoder", CLIPTextModel),
        tokenizer=_load_tokenizer(folder),
        scheduler=stored.used(),
        vae=_load_model(folder, "vae", AutoencoderKL) if index.has_autoencoder else None,
        prediction_type=stored.prediction_type,
        notes=(*index.notes, *left_out, *stored.notes),
    )
    _bound_prompts(pipeline, folder)
    pipeline.to(target, dtype)
    for model in pipeline.models.values():
        model.eval()
    return pipeline


def _bound_prompts(pipeline: Pipeline, folder: Path) -> None:
    """Gives prompts the length that the text encoder has, where the tokenizer states none or a longer one."""
    positions = int(pipeline.text_encoder.config.max_position_embeddings)
    stated = pipeline.tokenizer.model_max_length
    if not isinstance(stated, int | float):
        raise ValueError(
            f"{folder / 'tokenizer' / 'tokenizer_config.json'} has model_max_length = {stated!r}; an integer is needed"
        )
    if not 1 <= stated <= positions:
        shown = "no length" if stated > 1e15 else f"model_max_length = {stated}"
        pipeline.notes += (
            f"tokenizer: {folder / 'tokenizer' / 'tokenizer_config.json'} states {shown}; prompts are padded to the text"
            f" encoder's {positions} tokens",
        )
        pipeline.tokenizer.model_max_length = positions


def require_device(device: str | torch.device | None) -> torch.device:
    """The device as torch.device, the CPU for None; ValueError if the name is wrong or the device is not there."""
    mend = "pass cpu or a device that torch lists as available"
    try:
        target = torch.device("cpu" if device is None else device)
    except RuntimeError:
        raise ValueError(f"{device!r} is no device; {mend}") from None
    if target.type == "cpu":
        return target
    available = torch.accelerator.current_accelerator(check_available=True)
    count = torch.accelerator.device_count() if available is not None else 0
    if available is None or target.type != available.type or (target.index or 0) >= count:
        names = ", ".join(["cpu", *(f"{available}:{number}" for number in range(count))])
        raise ValueError(f"the device {str(target)!r} is not there (available: {names}); {mend}")
    return target


def _resolve(path_or_id: str | Path | None) -> Path:
    """The local folder of a pipeline; only a hub id that is no existing path is fetched."""
    if path_or_id is None:
        return SHIPPED_WEIGHTS
    path = Path(path_or_id)
    if path.is_dir():
        return path
    if path.exists():
        if path.suffix in PICKLED:
            raise ValueError(f"{path} is pickled: {_advice(path)}")
        raise ValueError(
            f"{path} is a file, not a pipeline folder; a single checkpoint of Stable Diffusion is made one (diffusers fetches"
            f" its settings from the hub once) with python -c \"from diffusers import StableDiffusionPipeline as P;"
            f" P.from_single_file({str(path)!r}).save_pretrained({str(path.with_suffix(''))!r})\""
        )
    if not isinstance(path_or_id, str) or not _HUB_ID.fullmatch(path_or_id):
        raise ValueError(f"{path_or_id} is no folder; pass an existing pipeline folder or a hub id owner/name")
    wanted = ["model_index.json", "*/*.json", "tokenizer/*.txt"]
    wanted += [
        f"{name}/{weights}{shard}.safetensors" for name, weights in _WEIGHTS_NAME.items() for shard in ("", "-0*")
    ]
    try:
        return Path(snapshot_download(path_or_id, allow_patterns=wanted))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"{path_or_id} is no folder here and cannot be fetched as a hub id ({reason}); "
            "pass an existing pipeline folder, or check the id and the network"
        ) from error


def _is_pipeline(folder: Path) -> bool:
    return (folder / "model_index.json").is_file()


def _advice(path: Path) -> str:
    """The command that converts pickled weights, a folder or a single checkpoint."""
    if path.is_dir():
        return CONVERSION_ADVICE.format(
            what="the folder", cls="DiffusionPipeline", method="from_pretrained", old=path, new=f"{path}_safetensors"
        )
    return CONVERSION_ADVICE.format(
        what="the checkpoint",
        cls="StableDiffusionPipeline",
        method="from_single_file",
        old=path,
        new=path.with_suffix(""),
    )


def _load_model(folder: Path, name: str, model_class: type[_Model]) -> _Model:
    config = read_json(folder / name / "config.json")
    stated = config.get("_class_name") or config.get("architectures") or model_class.__name__
    stated = stated[0] if isinstance(stated, list) and len(stated) == 1 else stated
    if stated != model_class.__name__:
        raise ValueError(
            f"the {name} of {folder} is a {stated}; this editor needs a {model_class.__name__}: put that of the same model"
            f" into {folder / name}"
        )
    variant = _weights_variant(folder / name, _WEIGHTS_NAME[name])
    try:
        with _without_progress_bars():
            model, report = model_class.from_pretrained(
                folder / name, use_safetensors=True, local_files_only=True, variant=variant, output_loading_info=True
            )
    except MemoryError:
        raise
    # A configuration with values of other types makes the builders raise nearly anything.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"the {name} of {folder} cannot be loaded ({reason}); copy the pipeline folder again"
        ) from error
    for fault in ("missing_keys", "mismatched_keys"):
        if keys := sorted(map(str, report.get(fault, ()))):
            raise ValueError(
                f"the {name} of {folder} has {len(keys)} {fault.replace('_', ' ')}, the first is {keys[0]}; "
                "its weights do not belong to its config.json: copy the pipeline folder again"
            )
    _require_finite(name, model, folder)
    return model


def _weights_variant(folder: Path, stem: str) -> str | None:
    """None, or "fp16" where only half precision is stored; ValueError if there is no readable safetensors file."""
    for variant in (None, "fp16"):
        suffix = f".{variant}" if variant else ""
        files = sorted(folder.glob(f"{stem}{suffix}.safetensors")) or sorted(
            folder.glob(f"{stem}{suffix}-0*.safetensors")
        )
        for file in files:
            try:
                with safe_open(file, framework="pt"):
                    pass
            except (SafetensorError, OSError) as error:
                raise ValueError(f"{file} is corrupted ({error}); copy the pipeline folder again") from error
        if files:
            return variant
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLED)
    if pickled:
        raise ValueError(f"{folder} holds only {pickled[0]}: {_advice(folder.parent)}")
    raise ValueError(f"{folder / stem}.safetensors is missing; copy the pipeline folder again")


def _require_finite(name: str, model: torch.nn.Module, folder: Path) -> None:
    for key, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            raise ValueError(
                f"the weight {key} of the {name} of {folder} holds NaN or infinity; every weight must be finite: "
                "train again with a lower learning rate, or copy the pipeline folder again"
            )


def _load_tokenizer(folder: Path) -> CLIPTokenizer:
    read_json(folder / "tokenizer" / "tokenizer_config.json")
    try:
        return CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    # tokenizers raises bare Exception for a file it cannot parse.
    except Exception as error:
        raise ValueError(
            f"the tokenizer of {folder} cannot be loaded ({error}); copy the pipeline folder again"
        ) from error


def pipeline_folder(path_or_id: str | Path | None = None) -> Path:
    """The local folder of a pipeline: the shipped one (None), the folder itself, or the snapshot of a hub id.

    Raises:
        ValueError: it is no folder, or a hub id that cannot be fetched.
    """
    return _resolve(path_or_id)


def read_scheduler(path_or_id: str | Path | None = None) -> StoredScheduler:
    """The scheduler as the pipeline's files have it, and what `load_pipeline` makes of it.

    Raises:
        ValueError: see `load_pipeline`.
    """
    path = record(_resolve(path_or_id) / SCHEDULER_CONFIG)
    return interpret(read_json(path), path)
