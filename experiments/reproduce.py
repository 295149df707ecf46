"""The main job: from a clip to audit.json, figures and report.html, reusing every stored result that nothing has
changed for.
"""

import functools
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import torch

import theory
from experiments import stages
from experiments.editor.evidence import to_evidence
from experiments.editor.pipeline import SHIPPED_WEIGHTS
from experiments.files import whole_file
from experiments.report import audit, outcomes
from experiments.report.page import write_report
from experiments.settings import Settings
from experiments.stages import Context
from experiments.store import (
    Draft,
    Entry,
    Store,
    canonical_json,
    digest_file,
    digest_folder,
    library_versions,
    source_digest,
)
from experiments.studies import LADDER, NAMES, Study, describe, find_study
from experiments.studies.style import STYLE_FILE, write_figure
from theory import ladder
from theory.claim import Claim
from theory.compilation import release_compiled_programs

# These decide which computation is made, through values that are part of the key, or how its result is drawn.
PLUMBING = ("experiments.settings", "experiments.store", "experiments.studies", "experiments.studies.style")
FIGURE_SUFFIXES = (".json", ".pdf", ".png")


class Observer(Protocol):
    """Who watches a run."""

    def stage(self, name: str, title: str) -> Callable[[int, int], None]:
        """A stage begins; the result is called with (steps done, steps in all)."""

    def finished(self, name: str, reused: bool) -> None:
        """The stage is done, or was there already."""

    def note(self, line: str) -> None:
        """Something worth a line."""


class Silent:
    """Watches nothing."""

    def stage(self, name: str, title: str) -> Callable[[int, int], None]:
        return lambda done, total: None

    def finished(self, name: str, reused: bool) -> None:
        pass

    def note(self, line: str) -> None:
        pass


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


def _reality_stage(claim: Claim) -> Stage:
    def make(context: Context) -> None:
        result = ladder.run_reality(claim, _evidence(context.inputs["evidence"]))
        context.draft.values = outcomes.json_rung(claim, result)

    return Stage(
        f"reality-{claim.id}",
        f"Check {claim.id} on the network",
        ("evidence",),
        (),
        make,
        (audit.claim_module(claim).__name__, "theory.ladder", "experiments.report.outcomes"),
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


def weights_digest(pipeline: str | None) -> str:
    """What identifies the weights: the digest of a local folder, or the hub id itself."""
    folder = SHIPPED_WEIGHTS if pipeline is None else Path(pipeline)
    return digest_folder(folder) if folder.is_dir() else str(pipeline)


class _Run:
    """The stages of one run, made or reused in order."""

    def __init__(self, settings: Settings, store: Store, observer: Observer) -> None:
        self.settings = settings
        self.store = store
        self.observer = observer
        self.entries: dict[str, Entry] = {}
        self.base = {"versions": library_versions(), "weights": weights_digest(settings.pipeline)}
        self.video = None if settings.video is None else digest_of(settings.video)

    def fetch(self, stage: Stage) -> Entry:
        ingredients = {
            "stage": stage.name,
            "settings": self.settings.select(stage.settings),
            "inputs": {name: self.entries[name].key for name in stage.needs},
            "source": source_digest(stage.roots, exclude=PLUMBING),
            **self.base,
        }
        if "video" in stage.settings:
            ingredients["video"] = self.video
        progress = self.observer.stage(stage.name, stage.title)
        scratch = self.store.folder / f"{stage.name}-{self.store.key(ingredients)[:16]}.state"

        def make(draft: Draft) -> None:
            stage.make(Context(self.settings, self.entries, draft, scratch, progress))

        entry, reused = self.store.fetch(stage.name, ingredients, make)
        scratch.unlink(missing_ok=True)
        self.observer.finished(stage.name, reused)
        release_compiled_programs()
        self.entries[stage.name] = entry
        return entry


def digest_of(path: str | Path) -> str:
    """Digest of a file, or of a folder's files."""
    path = Path(path)
    return digest_folder(path) if path.is_dir() else digest_file(path)


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
        raise ValueError(f"{out} is a file; give a folder")
    store = Store(out / "store", observer.note)
    with store.lock():
        run = _Run(settings, store, observer)
        for stage in _STAGES:
            run.fetch(stage)
        for warning in stages.similarity_warnings(run.entries["features"].values):
            observer.note(f"warning: {warning}")
        drawings = []
        for name in NAMES:
            study = find_study(name)
            drawings.append((name, describe(study, run.fetch(_study_stage(study)).values)))
        records = []
        for claim in claims:
            rungs = [*run.fetch(_ladder_stage(claim)).values, run.fetch(_reality_stage(claim)).values]
            record = audit.claim_record(claim, rungs)
            records.append({**record, "figure": f"claim_{claim.id}"})
            drawings.append((f"claim_{claim.id}", describe(find_study(LADDER), audit.figure_data(record, rungs))))
        result = audit.build_audit(
            records, [{"name": name, **content} for name, content in drawings], _describe_run(run)
        )
        _write_figures(run, drawings, out / "figures")
        _write_text(out / "audit.json", canonical_json(result))
        write_report(out)
        if figures is not None:
            _publish(out, Path(figures), [name for name, _ in drawings])
    return result


def _describe_run(run: _Run) -> dict[str, Any]:
    settings = run.settings.select(tuple(Settings.__dataclass_fields__))
    # A path says where a file lay on one machine; its name and digest say what it was.
    for name in ("video", "pipeline"):
        if settings[name] is not None and Path(settings[name]).exists():
            settings[name] = Path(settings[name]).name
    edited = run.entries["edit"].values
    return {
        "settings": settings,
        "versions": {"python": ".".join(map(str, sys.version_info[:3])), **run.base["versions"]},
        "device": run.settings.device,
        "weights": run.base["weights"],
        "clip": {**run.entries["clip"].values, "video_sha256": run.video},
        "edit": {
            name: edited[name]
            for name in ("trace_layer", "similarities", "temporal_losses", "relative_reconstruction_error", "noise_rms")
        },
        "adapter": run.entries["adapter"].values,
    }


def _write_figures(run: _Run, drawings: Sequence[tuple[str, Mapping[str, Any]]], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    progress = run.observer.stage("figures", "Draw the figures")
    all_reused = True
    for number, (name, content) in enumerate(drawings):
        # Drawing takes half a second a figure, and a second run should take seconds in all.
        ingredients = {
            "content": content,
            "source": source_digest([f"experiments.studies.{content['study']}"]),
            "style": digest_file(STYLE_FILE),
            "matplotlib": version("matplotlib"),
        }
        entry, reused = run.store.fetch(
            f"figure-{name}",
            ingredients,
            lambda draft, name=name, content=content: write_figure(draft.folder, name, content),
        )
        all_reused &= reused
        for suffix in FIGURE_SUFFIXES:
            _copy(entry.folder / f"{name}{suffix}", folder / f"{name}{suffix}")
        progress(number + 1, len(drawings))
    run.observer.finished("figures", all_reused)


def _publish(out: Path, folder: Path, names: Sequence[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        for suffix in FIGURE_SUFFIXES:
            _copy(out / "figures" / f"{name}{suffix}", folder / f"{name}{suffix}")
    _copy(out / "audit.json", folder / "audit.json")


def _copy(source: Path, target: Path) -> None:
    with whole_file(target) as temporary:
        shutil.copyfile(source, temporary)


def _write_text(path: Path, text: str) -> None:
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
