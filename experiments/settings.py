"""What a run of `framebound reproduce` is asked to do; every field that changes a number is in here, and nothing else
is.
"""

import dataclasses
import math
from pathlib import Path

from experiments.errors import UserError

PROFILES = ("small", "full")
MINIMUM_FRAMES = 3
MINIMUM_LEVELS = 3
MAX_SEED = 2**31 - 1


def require_text(settings: object, *names: str) -> None:
    """Refuse text that no file in UTF-8 can hold.

    Raises:
        UserError: a field, where it is not None, has bytes that are no UTF-8.
    """
    for name in names:
        value = getattr(settings, name)
        try:
            (value or "").encode("utf-8")
        except UnicodeEncodeError as error:
            raise UserError(
                f"{name} = {value!r} has a byte at {error.start} that is no UTF-8",
                remedy="write it again in a terminal that is set to UTF-8, or rename the file",
            ) from None


DECLARED_FOR = (5, 10, 10)
"""Frames, DDIM steps and adapter training steps of `editor.evidence.default_evidence`."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of one run.

    Attributes:
        profile: the preset the other values started from.
        seed: of adapter, attack and every study.
        device: torch device of the editor; the theorems always run on the CPU in float64.
        pipeline: folder or hub id of a diffusers pipeline; None is the shipped one.
        clip: shipped clip whose held-out frames are edited, unless `video` names a file.
        video: mp4, gif or folder of images to edit instead.
        source_prompt, target_prompt: captions of the clip and of the edit; None derives them from the clip.
        look: the look of the edit when `target_prompt` is None.
        num_frames: frames edited.
        frame_stride: every how many frames of the clip one is taken.
        num_steps: DDIM steps of inversion and of sampling.
        guidance_scale: of the edit; inversion and reconstruction always use 1.
        adapter_steps, learning_rate, temporal_weight: training of adapter and prompt tokens.
        round_trip_steps: numbers of steps at which the study of the round trip measures the trained UNet, beside
            `num_steps`.
        ideal_steps: the same for the exact predictors.
        subject_frames: how many of the frames the studies of the round trip look at.
        feature_levels: at how many timesteps features are captured.
        training_snapshots: at how many steps of the adapter's training, from its start to its end, features of one
            noisy clip are captured.
        study_instances: random instances per point of a study.
        descent_steps: steps of gradient descent on the adapter at each learning rate of the sweep.
        long_descent_steps: steps of the runs in which its sharpness is followed.
        sharpness_every: every how many steps the step-size rule measures the Gauss-Newton sharpness.
        token_counts: how many prompt tokens the study of tokens fits, of each kind.
        token_steps: steps of fitting them to the look.
        retrace_steps: steps of fitting them, and LoRA, to retrace an inversion.
        extra_seeds: further seeds of the random and the adversarial search of every claim.
        claims: ids to check; None is all of them.
        threads: of the networks and matrix products; None chooses (see `experiments.threads`).
    """

    profile: str = "small"
    seed: int = 0
    device: str = "cpu"
    pipeline: str | None = None
    clip: str = "carphone"
    video: str | None = None
    source_prompt: str | None = None
    target_prompt: str | None = None
    look: str = "night"
    num_frames: int = 8
    frame_stride: int = 1
    num_steps: int = 50
    guidance_scale: float = 1.0
    adapter_steps: int = 100
    learning_rate: float = 1e-3
    temporal_weight: float = 0.01
    round_trip_steps: tuple[int, ...] = (10, 20)
    ideal_steps: tuple[int, ...] = (10, 20, 50, 100, 250)
    subject_frames: int = 2
    feature_levels: int = 5
    training_snapshots: int = 5
    study_instances: int = 256
    descent_steps: int = 4
    long_descent_steps: int = 6
    sharpness_every: int = 5
    token_counts: tuple[int, ...] = (1, 2, 4, 8, 16)
    token_steps: int = 60
    retrace_steps: int = 8
    extra_seeds: int = 0
    claims: tuple[str, ...] | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.profile not in PROFILES:
            raise UserError(f"profile {self.profile!r} is unknown; the profiles are {', '.join(PROFILES)}")
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
        counts = ("frame_stride", "adapter_steps", "subject_frames", "feature_levels", "training_snapshots")
        for name in (*counts, "study_instances", "descent_steps", "long_descent_steps", "sharpness_every", "token_steps", "retrace_steps"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} = {getattr(self, name)}; at least 1 is needed")
        if not self.token_counts or min(self.token_counts) < 1:
            raise UserError(f"token_counts = {self.token_counts}; at least one number is needed, each at least 1")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise UserError(f"learning_rate = {self.learning_rate}; a finite number > 0 is needed, for example 1e-3")
        if not (math.isfinite(self.temporal_weight) and self.temporal_weight >= 0):
            raise UserError(
                f"temporal_weight = {self.temporal_weight}; a finite number >= 0 is needed, for example 0.01"
            )
        if self.video is not None and not Path(self.video).exists():
            raise UserError(
                f"video {self.video}: there is no such file or folder; give an mp4, a gif or a folder of images"
            )
        require_text(self, "source_prompt", "target_prompt", "pipeline", "video")

    @classmethod
    def preset(cls, profile: str, **overrides) -> "Settings":
        """The settings of a profile, with every override that is not None applied.

        Raises:
            ValueError: unknown profile, or a value out of its range.
        """
        if profile not in PROFILES:
            raise UserError(f"profile {profile!r} is unknown; the profiles are {', '.join(PROFILES)}")
        chosen = {name: value for name, value in overrides.items() if value is not None}
        return cls(**{"profile": profile, **_PRESETS[profile], **chosen})

    @property
    def is_declared(self) -> bool:
        """Whether the run records what the claims' tests on the network are declared for.

        That is what `pytest theory` records: the shipped pipeline and clip with few frames and steps.
        """
        shipped = self.pipeline is None and self.video is None and self.clip == type(self).clip
        return shipped and (self.num_frames, self.num_steps, self.adapter_steps) == DECLARED_FOR

    def select(self, names: tuple[str, ...]) -> dict:
        """The named fields as JSON values, for the key of a stage."""
        values = dataclasses.asdict(self)
        return {name: list(values[name]) if isinstance(values[name], tuple) else values[name] for name in names}


_PRESETS = {
    "small": {},
    "full": {
        "num_frames": 16,
        "adapter_steps": 300,
        "round_trip_steps": (10, 20, 100, 250),
        "feature_levels": 9,
        "training_snapshots": 7,
        "study_instances": 2048,
        "descent_steps": 16,
        "long_descent_steps": 100,
        "token_steps": 300,
        "retrace_steps": 60,
        "extra_seeds": 1,
    },
}
