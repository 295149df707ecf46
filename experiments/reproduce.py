"""The main job: from a clip to audit.json, figures and report.html, reusing every stored result that nothing has
changed for.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import theory
from experiments import interrupts, scrambled, stages
from experiments.editor.clips import locate_clip
from experiments.editor.evidence import to_evidence
from experiments.engine import Engine, Interruptible, Observer, Progress, Silent, blamed, name_inputs
from experiments.errors import UserError
from experiments.files import make_folder, sweep, write_bytes, write_text
from experiments.opened_files import digest_file
from experiments.report import audit, outcomes
from experiments.report.page import write_report
from experiments.settings import Settings
from experiments.stages import Context
from experiments.store import Draft, Entry, Store, canonical_json, source_digest
from experiments.studies import LADDER, NAMES, Study, describe, find_study
from experiments.studies.film_strip import adapter_effect
from experiments.studies.style import STYLE_FILE, write_figure
from experiments.threads import choose_threads, limited
from theory import ladder
from theory.claim import Claim
from theory.compilation import release_compiled_programs

# These decide which computation is made, through values that are part of the key, how its result is drawn or stored, or
# what is said when it fails.
PLUMBING = (
    "experiments.engine",
    "experiments.errors",
    "experiments.files",
    "experiments.kept_state",
    "experiments.opened_files",
    "experiments.settings",
    "experiments.store",
    "experiments.studies",
    "experiments.studies.style",
)
DECIDING = ("clip", "adapter", "evidence")
"""The stages that a claim's ladder needs."""
FIGURE_SUFFIXES = (".json", ".pdf", ".png")


@dataclass(frozen=True)
class Stage:
    """One stored result: what it needs, which settings it reads, and how it is made."""

    name: str
    title: str
    needs: tuple[str, ...]
    settings: tuple[str, ...]
    make: Callable[[Context], None]
    roots: tuple[str, ...]


_NETWORK = ("device", "pipeline")
_STAGES = (
    Stage(
        "clip",
        "Read the clip",
        (),
        (*_NETWORK, "clip", "video", "source_prompt", "target_prompt", "look", "num_frames", "frame_stride"),
        stages.clip,
        ("experiments.stages",),
    ),
    Stage(
        "adapter",
        "Train the adapter",
        ("clip",),
        (*_NETWORK, "seed", "adapter_steps", "learning_rate", "temporal_weight", "training_snapshots"),
        stages.adapter,
        ("experiments.stages",),
    ),
    Stage(
        "evidence",
        "Invert and reconstruct",
        ("clip", "adapter"),
        (*_NETWORK, "num_steps", "profile"),
        stages.evidence,
        ("experiments.stages",),
    ),
    Stage(
        "edit",
        "Edit",
        ("clip", "adapter", "evidence"),
        (*_NETWORK, "num_steps", "guidance_scale"),
        stages.edit,
        ("experiments.stages",),
    ),
    Stage(
        "features",
        "Capture features",
        ("clip", "adapter", "evidence"),
        (*_NETWORK, "num_steps", "feature_levels"),
        stages.features,
        ("experiments.stages",),
    ),
)


def _study_stage(study: Study) -> Stage:
    def make(context: Context) -> None:
        context.draft.values = study.measure(context)

    return Stage(
        study.name,
        f"Study: {study.name.replace('_', ' ')}",
        study.needs,
        study.settings,
        make,
        (study.measure.__module__,),
    )


def _ladder_stage(claim: Claim) -> Stage:
    def make(context: Context) -> None:
        seed = context.settings.seed
        results = list(ladder.verify(claim, seed=seed))
        for extra in range(1, context.settings.extra_seeds + 1):
            for further in (ladder.run_property(claim, seed + extra), ladder.run_attack(claim, seed + extra)):
                results = [_merge(result, further) if result.rung == further.rung else result for result in results]
        context.draft.values = [outcomes.json_rung(claim, result) for result in results]

    return Stage(
        f"ladder-{claim.id}",
        f"Check {claim.id}",
        (),
        ("seed", "extra_seeds"),
        make,
        (audit.claim_module(claim).__name__, "theory.ladder", "experiments.report.outcomes"),
    )


def _reality_stage(claim: Claim, tests_bind: bool) -> Stage:
    def make(context: Context) -> None:
        evidence = _evidence(context.inputs["evidence"])
        result = ladder.run_reality(claim, evidence, tests_bind=tests_bind)
        context.draft.values = outcomes.json_rung(claim, result)

    return Stage(
        f"reality-{claim.id}",
        f"Check {claim.id} on the network",
        ("evidence",),
        ("clip", "video"),
        make,
        (audit.claim_module(claim).__name__, "theory.ladder", "experiments.report.outcomes"),
    )


_UNTRAINED = Stage(
    "untrained",
    "Record an untrained network",
    ("clip", "adapter"),
    (*_NETWORK, "seed", "num_steps"),
    scrambled.untrained,
    ("experiments.scrambled",),
)


def _scrambled_stage(claim: Claim) -> Stage:
    def make(context: Context) -> None:
        context.draft.values = scrambled.what_is_noticed(claim, context)

    return Stage(
        f"scrambled-{claim.id}",
        f"Put {claim.id} to scrambled evidence",
        ("evidence", "untrained"),
        (),
        make,
        (audit.claim_module(claim).__name__, "theory.ladder", "experiments.scrambled"),
    )


@functools.lru_cache(maxsize=1)
def _evidence(entry: Entry):
    return to_evidence(entry.arrays)


def _merge(first: ladder.RungResult, second: ladder.RungResult) -> ladder.RungResult:
    """The same rung climbed with another seed: it passes if both do."""
    return ladder.RungResult(
        first.rung,
        first.passed and second.passed,
        (*first.outcomes, *second.outcomes),
        (*first.failures, *second.failures),
        # Figures show one seed's batch; the outcomes above carry the worst of every seed.
        first.ratios,
    )


class _Run:
    """The stages of one run, made or reused in order."""

    def __init__(self, settings: Settings, store: Store, observer: Observer) -> None:
        self.asked = settings
        self.observer = observer
        clip = settings.video if settings.video is not None else locate_clip(settings.clip)
        inputs = name_inputs(settings.pipeline, clip)
        self.threads = choose_threads(inputs.pipeline, settings.threads)
        self.inputs = inputs
        self.engine = Engine(store, Interruptible(observer), inputs, self.threads)
        self.entries = self.engine.entries
        # What a hub id stood for when the run began.
        self.settings = dataclasses.replace(settings, pipeline=str(inputs.pipeline))

    def fetch(self, stage: Stage) -> Entry:
        values = self.settings.select(tuple(name for name in stage.settings if name != "pipeline"))
        ingredients: dict[str, Any] = {"source": source_digest(stage.roots, exclude=PLUMBING)}
        if "pipeline" in stage.settings:
            ingredients["weights"] = self.inputs.digests["weights"]
        if "video" in stage.settings:
            ingredients["video"] = self.inputs.digests["video"]
            values["video"] = self.asked.video and Path(self.asked.video).name
        if "clip" in stage.settings:
            values["is_declared"] = self.asked.is_declared
        ingredients["settings"] = values

        def make(draft: Draft, scratch: Path, progress: Progress) -> None:
            with blamed(stage.title, self.settings.device, "try fewer --frames"):
                stage.make(Context(self.settings, self.entries, draft, scratch, progress))

        entry = self.engine.fetch(stage.name, stage.title, stage.needs, ingredients, make)
        release_compiled_programs()
        return entry


def chosen_claims(settings: Settings) -> tuple[Claim, ...]:
    """The claims to check.

    Raises:
        ValueError: an unknown id; the message lists the ids that exist.
    """
    if settings.claims is None:
        return theory.CLAIMS
    return tuple(theory.find_claim(claim_id) for claim_id in settings.claims)


def reproduce(
    settings: Settings, out: Path, *, figures: Path | None = None, observer: Observer | None = None
) -> dict[str, Any]:
    """Run the main job.

    Args:
        out: folder of the results; created when missing. A run in the same folder reuses what is unchanged.
        figures: a second folder that figures and audit.json are copied to.
        observer: told about progress; None is silent.

    Returns:
        The content of audit.json, whose "passed" is whether every rung of every claim supports its verdict.

    Raises:
        ValueError: what the settings ask for is not there, cannot be read, or another run uses the folder.
    """
    observer = observer or Silent()
    if settings.device == "cpu":
        # Refuses, instead of silently taking, a kernel that sums in an order that depends on the threads' timing.
        torch.use_deterministic_algorithms(True)
    claims = chosen_claims(settings)
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file", remedy="give a folder")
    store = Store(out / "store", observer.note)
    # What the call names is looked at before anything is written.
    run = _Run(settings, store, observer)
    with store.lock():
        observer.note(f"networks run on {run.threads}")
        sweep(out)
        with limited(run.threads.count):
            result = _results(run, claims, out)
        write_text(out / "audit.json", canonical_json(result))
        write_report(out)
        if figures is not None:
            _publish(out, Path(figures), [figure["name"] for figure in result["figures"]])
    interrupts.check()
    return result


def _results(run: _Run, claims: Sequence[Claim], out: Path) -> dict[str, Any]:
    """Every stage that is asked for, and the figures; the content of audit.json."""
    # A claim is decided by its ladder and the evidence; edit, features and studies illustrate the whole.
    is_whole = run.settings.claims is None
    for stage in _STAGES:
        if is_whole or stage.name in DECIDING:
            run.fetch(stage)
    drawings = []
    if is_whole:
        for warning in stages.similarity_warnings(run.entries["features"].values):
            run.observer.note(f"warning: {warning}")
        for name in NAMES:
            study = find_study(name)
            drawings.append((name, describe(study, run.fetch(_study_stage(study)).values)))
    records = []
    if any(map(scrambled.has_test, claims)):
        run.fetch(_UNTRAINED)
    for claim in claims:
        rungs = [*run.fetch(_ladder_stage(claim)).values, run.fetch(_reality_stage(claim, run.asked.is_declared)).values]
        noticed = run.fetch(_scrambled_stage(claim)).values if scrambled.has_test(claim) else None
        record = audit.claim_record(claim, rungs, noticed, tests_bind=run.asked.is_declared)
        records.append({**record, "figure": f"claim_{claim.id}"})
        drawings.append((f"claim_{claim.id}", describe(find_study(LADDER), audit.figure_data(record, rungs))))
    _write_figures(run, drawings, out / "figures")
    return audit.build_audit(records, [{"name": name, **content} for name, content in drawings], _describe_run(run))


def _describe_run(run: _Run) -> dict[str, Any]:
    settings = run.asked.select(tuple(Settings.__dataclass_fields__))
    # A path says where a file lay on one machine; its name and digest say what it was.
    for name in ("video", "pipeline"):
        if settings[name] is not None and Path(settings[name]).exists():
            settings[name] = Path(settings[name]).name
    edited = run.entries["edit"].values if "edit" in run.entries else None
    shown = ("trace_layer", "similarities", "temporal_losses", "relative_reconstruction_error", "noise_rms")
    return {
        "settings": settings,
        "versions": run.engine.versions,
        "threads": run.threads.count,
        "device": run.settings.device,
        "weights": run.inputs.digests["weights"],
        "revision": run.inputs.revision,
        "clip": {**run.entries["clip"].values, "video_sha256": run.inputs.digests["video"]},
        "edit": None if edited is None else {name: edited[name] for name in shown},
        "adapter": run.entries["adapter"].values,
        # A run of single claims makes no film strip.
        "adapter_effect": adapter_effect(run.entries["film_strip"].values) if "film_strip" in run.entries else None,
    }


def _write_figures(run: _Run, drawings: Sequence[tuple[str, Mapping[str, Any]]], folder: Path) -> None:
    make_folder(folder)
    sweep(folder)
    observer = run.engine.observer
    progress = observer.stage("figures", "Draw the figures")
    all_reused = True
    for number, (name, content) in enumerate(drawings):
        # Drawing takes half a second a figure, and a second run should take seconds in all.
        ingredients = {
            "content": content,
            "source": source_digest([f"experiments.studies.{content['study']}"]),
            "style": digest_file(STYLE_FILE),
            "matplotlib": version("matplotlib"),
        }
        entry, reused = run.engine.store.fetch(
            f"figure-{name}",
            ingredients,
            lambda draft, name=name, content=content: write_figure(draft.folder, name, content),
        )
        all_reused &= reused
        for suffix in FIGURE_SUFFIXES:
            _copy(entry.folder / f"{name}{suffix}", folder / f"{name}{suffix}")
        progress(number + 1, len(drawings))
    observer.finished("figures", all_reused)


def _publish(out: Path, folder: Path, names: Sequence[str]) -> None:
    make_folder(folder)
    sweep(folder)
    for name in names:
        for suffix in FIGURE_SUFFIXES:
            _copy(out / "figures" / f"{name}{suffix}", folder / f"{name}{suffix}")
    _copy(out / "audit.json", folder / "audit.json")


def _copy(source: Path, target: Path) -> None:
    write_bytes(target, source.read_bytes())
