"""What a run of `framebound audit` is asked to do; every field that changes a number is in here."""

import dataclasses
import math
from pathlib import Path

from experiments.errors import UserError
from experiments.settings import MAX_SEED, MINIMUM_FRAMES, MINIMUM_LEVELS, require_text

DTYPES = ("float16", "bfloat16", "float32", "float64")


@dataclasses.dataclass(frozen=True)
class AuditSettings:
    """Settings of one audit.

    Attributes:
        video: a file that FFmpeg decodes, an animated image, or a folder with one series of images.
        pipeline: folder or hub id of a diffusers pipeline; None is the shipped one.
        adapter: LoRA file, or a folder with one; None audits the pipeline alone, and a fresh adapter's sharpness.
        prompt: caption of the clip; "" is the unconditional prompt.
        edit: caption of an edit to make as well; None makes none.
        num_steps: DDIM steps of inversion and of sampling.
        layers: regular expression searched for in the paths of the self-attentions; None is all of the up blocks.
        learning_rate: the user's, to compare the sharpness with; None compares with none.
        num_frames: at most so many frames of the clip.
        size: side in pixels that the frames are cropped and resized to; None is that of the pipeline's training.
        guidance_scale: of the edit, and of the sampling whose round trip shows what guidance costs.
        device, dtype: of the networks; bounds are evaluated in float64 on the CPU.
        frames_at_once: how many frames go through the UNet in one evaluation.
        fixed_point_iterations: how many are tried at most.
        seed: of the fresh adapter where none was given.
        threads: of the networks and matrix products; None chooses (see `experiments.threads`).
    """

    video: str
    pipeline: str | None = None
    adapter: str | None = None
    prompt: str = ""
    edit: str | None = None
    num_steps: int = 50
    layers: str | None = None
    learning_rate: float | None = None
    num_frames: int = 16
    size: int | None = None
    guidance_scale: float = 7.5
    device: str = "cpu"
    dtype: str = "float32"
    frames_at_once: int = 4
    fixed_point_iterations: int = 3
    seed: int = 0
    threads: int | None = None

    def __post_init__(self) -> None:
        if not Path(self.video).exists():
            raise UserError(
                f"video {self.video}: there is no such file or folder; give an mp4, a gif or a folder of images"
            )
        if not (Path(self.video).is_file() or Path(self.video).is_dir()):
            raise ValueError(f"video {self.video} is a pipe or a device, which may never end; give a file or a folder")
        if self.adapter is not None and not Path(self.adapter).exists():
            raise UserError(f"adapter {self.adapter}: there is no such file; give a LoRA's safetensors file")
        if self.adapter is not None and not (Path(self.adapter).is_file() or Path(self.adapter).is_dir()):
            raise UserError(f"adapter {self.adapter} is a pipe or a device, which may never end; give a file")
        require_text(self, "prompt", "edit", "pipeline", "video", "adapter", "layers")
        if self.dtype not in DTYPES:
            raise UserError(f"dtype {self.dtype!r} is unknown; one of {', '.join(DTYPES)} is needed")
        if not 0 <= self.seed <= MAX_SEED:
            raise UserError(f"seed = {self.seed}; an integer in [0, {MAX_SEED}] is needed")
        if self.num_frames < MINIMUM_FRAMES:
            raise UserError(
                f"num_frames = {self.num_frames}; at least {MINIMUM_FRAMES} are needed: the loss compares "
                "neighbouring pairs"
            )
        if self.num_steps < MINIMUM_LEVELS:
            raise UserError(
                f"num_steps = {self.num_steps}; at least {MINIMUM_LEVELS} are needed: features are taken at three "
                "noise levels"
            )
        for name in ("frames_at_once", "size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} = {value}; at least 1 is needed")
        if self.fixed_point_iterations < 0:
            raise UserError(f"fixed_point_iterations = {self.fixed_point_iterations}; at least 0 is needed")
        if self.learning_rate is not None and not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise UserError(
                f"learning_rate = {self.learning_rate}; a finite number > 0 is needed, for example 1e-4"
            )
        if not math.isfinite(self.guidance_scale):
            raise UserError(f"guidance_scale = {self.guidance_scale} must be finite; 1 is without guidance")

    def select(self, names: tuple[str, ...]) -> dict:
        """The named fields as JSON values, for the key of a stored result."""
        values = dataclasses.asdict(self)
        return {name: values[name] for name in names}
