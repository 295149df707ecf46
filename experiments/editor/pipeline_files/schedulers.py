r"""Which solver a pipeline samples with, and the DDIM scheduler that the audit and the editor use in its place.

A pipeline's scheduler_config.json names a class and its settings; settings that are absent have that class's own
defaults, which differ from class to class (PNDM's set_alpha_to_one is False, DDIM's True). What becomes of them:

    DDIM, leading or trailing spacing   the same scheduler, without clipping of the predicted sample
    DDIM, linspace spacing              leading spacing: diffusers' inverse scheduler has no linspace
    another solver on the same betas    DDIM on its noise schedule, and the solver is named as not audited
    flow matching, preconditioned (EDM), without betas    refused: the network predicts something else

A network that predicts v or the sample is read as a prediction of the noise at every evaluation (x, t),

    eps = sqrt(abar_t) v + sqrt(1 - abar_t) x,      eps = (x - sqrt(abar_t) x_0) / sqrt(1 - abar_t),

which is what sampling by DDIM does with it. diffusers' inverse scheduler converts at another level, and that pair does
not undo itself (see `scheduler_audit`).
"""

import dataclasses
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
from diffusers import DDIMScheduler

from experiments.editor.pipeline_files.configs import number, switch, whole_number

PREDICTIONS = ("epsilon", "v_prediction", "sample")
_SAME_SOLVER = ("DDIMScheduler", "DDIMParallelScheduler")
_STOCHASTIC = ("Ancestral", "DDPM", "LCM", "SDE", "TCD", "UnCLIP", "RePaint")
_BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
_MOST_TIMESTEPS = 100_000


@dataclasses.dataclass(frozen=True)
class Change:
    """A setting that is not taken as it was stored: its name, what it was, what it became, and why."""

    name: str
    before: Any
    after: Any
    reason: str


@dataclasses.dataclass(frozen=True)
class StoredScheduler:
    """A pipeline's scheduler as its files describe it, and as it is used.

    Attributes:
        class_name: of the stored scheduler.
        solver: None for DDIM; else what the stored class does, which is not audited.
        prediction_type: "epsilon", "v_prediction" or "sample".
        settings: of DDIM, with the stored class's defaults where the file is silent.
        changes: what `used` has otherwise.
    """

    class_name: str
    solver: str | None
    prediction_type: str
    settings: Mapping[str, Any]
    changes: tuple[Change, ...]

    def as_stored(self) -> DDIMScheduler:
        """DDIM with every setting as it was stored."""
        return _ddim(self.settings)

    def used(self) -> DDIMScheduler:
        """DDIM as the editor uses it: it takes predictions of the noise and clips nothing."""
        changed = {change.name: change.after for change in self.changes}
        return _ddim({**self.settings, **changed, "prediction_type": "epsilon"})

    @property
    def notes(self) -> list[str]:
        """One line for everything that is not as it was stored."""
        lines = []
        if self.solver is not None:
            lines.append(
                f"not audited: the pipeline's own sampler {self.class_name}, {self.solver}; audited is DDIM on its"
                " noise schedule"
            )
        if self.prediction_type != "epsilon":
            lines.append(
                f"scheduler: the network predicts {self.prediction_type!r}, which is converted to noise at every"
                " evaluation (x_t, t), as DDIM sampling does"
            )
        lines += [
            f"scheduler: {change.name} = {change.before!r} is taken as {change.after!r}: {change.reason}"
            for change in self.changes
        ]
        return lines


def _ddim(settings: Mapping[str, Any]) -> DDIMScheduler:
    # What is stated explicitly diffusers hands on to the inverse scheduler, which warns of settings that it lacks.
    return DDIMScheduler(**{name: value for name, value in settings.items() if name != "thresholding" or value})


def interpret(config: Mapping[str, Any], path: Path) -> StoredScheduler:
    """Reads the settings of a scheduler.

    Args:
        config: the content of scheduler_config.json.
        path: of that file, for messages.

    Raises:
        ValueError: a class without a noise schedule of betas, of a preconditioned network or unknown to diffusers; a
            setting of another type or out of range; a prediction type or beta schedule that DDIM does not have.
    """
    class_name = config.get("_class_name", "DDIMScheduler")
    if not isinstance(class_name, str):
        raise ValueError(f"{path} has _class_name = {class_name!r}; the name of a scheduler class is needed")
    defaults = _defaults(class_name, path)
    stated = {**defaults, **{name: config[name] for name in config if not name.startswith("_")}}
    if stated.get("use_flow_sigmas") or stated.get("prediction_type") == "flow_prediction":
        raise ValueError(_flow(path, class_name))
    solver = None
    if class_name not in _SAME_SOLVER:
        stochastic = any(part in class_name for part in _STOCHASTIC)
        solver = (
            "which draws noise in its steps, so that no inversion undoes it"
            if stochastic
            else "another solver than DDIM"
        )
    settings = _settings(stated, path, class_name)
    return StoredScheduler(
        class_name, solver, settings["prediction_type"], settings, tuple(_changes(settings, solver is None))
    )


def _defaults(class_name: str, path: Path) -> dict[str, Any]:
    """Settings and defaults of a scheduler class of diffusers that has betas."""
    if class_name.startswith("FlowMatch"):
        raise ValueError(_flow(path, class_name))
    known = getattr(diffusers, class_name, None)
    if not (inspect.isclass(known) and issubclass(known, diffusers.SchedulerMixin)):
        raise ValueError(
            f"{path} has _class_name = {class_name!r}, a scheduler that diffusers {diffusers.__version__} does not"
            " know; its noise schedule cannot be read"
        )
    parameters = inspect.signature(known.__init__).parameters
    if "EDM" in class_name or "beta_schedule" not in parameters or "sigma_data" in parameters:
        raise ValueError(
            f"{path} has _class_name = {class_name!r}: its network is preconditioned or its noise levels are no betas,"
            " and this editor is about networks that predict eps, v or the sample on a schedule of betas; use a Stable"
            " Diffusion 1 or 2 pipeline"
        )
    return {
        name: parameter.default
        for name, parameter in parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }


def _flow(path: Path, class_name: str) -> str:
    return (
        f"{path} is a {class_name}: flow matching. The network predicts a velocity and there are no betas, so neither"
        " DDIM nor its inversion is defined for it; use a pipeline whose UNet predicts eps or v"
    )


def _settings(stated: Mapping[str, Any], path: Path, class_name: str) -> dict[str, Any]:
    """The settings of DDIMScheduler, checked."""
    prediction = stated.get("prediction_type", "epsilon")
    if prediction not in PREDICTIONS:
        raise ValueError(f"{path} has prediction_type = {prediction!r}; one of {', '.join(PREDICTIONS)} is needed")
    beta_schedule, trained = stated.get("beta_schedule", "linear"), stated.get("trained_betas")
    if trained is None and beta_schedule not in _BETA_SCHEDULES:
        raise ValueError(
            f"{path} has beta_schedule = {beta_schedule!r}, which DDIMScheduler does not have; it has"
            f" {', '.join(_BETA_SCHEDULES)}: give the table itself as trained_betas"
        )
    steps = whole_number(stated, "num_train_timesteps", path, 1000)
    if steps > _MOST_TIMESTEPS:
        raise ValueError(
            f"{path} has num_train_timesteps = {steps}; at most {_MOST_TIMESTEPS} are read, 1000 are usual"
        )
    if trained is not None:
        if not isinstance(trained, list) or len(trained) != steps:
            found = f"{len(trained)} of them" if isinstance(trained, list) else repr(trained)
            raise ValueError(f"{path} has trained_betas = {found}; a list of {steps} numbers is needed")
        for place in range(steps):
            number({"trained_betas": trained[place]}, "trained_betas", path, 0.0)
    if stated.get("timestep_spacing", "leading") not in ("leading", "trailing", "linspace"):
        spacing = stated["timestep_spacing"]
        raise ValueError(f"{path} has timestep_spacing = {spacing!r}; leading, trailing or linspace is needed")
    # Without the setting, a solver's last step goes to noise 0, unless it says that it stops at the least level.
    to_one = stated.get("final_sigmas_type", "zero") != "sigma_min" if class_name not in _SAME_SOLVER else True
    return {
        "num_train_timesteps": steps,
        "beta_start": number(stated, "beta_start", path, 0.0001),
        "beta_end": number(stated, "beta_end", path, 0.02),
        "beta_schedule": beta_schedule,
        "trained_betas": trained,
        "clip_sample": switch(stated, "clip_sample", path, False),
        "set_alpha_to_one": switch(stated, "set_alpha_to_one", path, to_one),
        "steps_offset": whole_number(stated, "steps_offset", path, 0, least=0),
        "prediction_type": prediction,
        "thresholding": switch(stated, "thresholding", path, False),
        "timestep_spacing": stated.get("timestep_spacing", "leading"),
        "rescale_betas_zero_snr": switch(stated, "rescale_betas_zero_snr", path, False),
    }


def _changes(settings: Mapping[str, Any], is_ddim: bool) -> list[Change]:
    found = []
    for name in ("clip_sample", "thresholding"):
        if settings[name]:
            reason = "a clipped step has no inverse" + (
                " (a StableDiffusionPipeline of diffusers changes it as well)"
                if name == "clip_sample" and is_ddim
                else ""
            )
            found.append(Change(name, True, False, reason))
    if settings["timestep_spacing"] == "linspace":
        reason = (
            "diffusers' inverse scheduler has no such spacing, so these are not the timesteps that the pipeline samples"
        )
        found.append(Change("timestep_spacing", "linspace", "leading", reason))
    return found
