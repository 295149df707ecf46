"""The audit: from somebody's pipeline, adapter and clip to audit.json, report.html and figures, reusing every stored
result that nothing has changed for.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from experiments import interrupts
from experiments.audit import answers, editing, measure
from experiments.audit.measure import Context
from experiments.audit.measure_sharpness import sharpness
from experiments.audit.settings import AuditSettings
from experiments.editor.editor import Editor
from experiments.engine import Engine, Interruptible, Observer, Progress, Silent, blamed, name_inputs
from experiments.errors import UserError, reading
from experiments.files import make_folder, sweep, write_bytes, write_text
from experiments.opened_files import OpenedFiles, recording
from experiments.report.audit import current_commit
from experiments.report.page import write_report
from experiments.report.schema import PIPELINE_AUDIT
from experiments.reproduce import PLUMBING as REPRODUCE_PLUMBING
from experiments.store import Draft, Entry, Store, canonical_json, library_versions, source_digest
from experiments.studies import AUDIT_FIGURES, describe, find_study
from experiments.studies.film_strip import adapter_effect
from experiments.studies.style import write_figure
from experiments.threads import choose_threads, limited

FORMAT = 1
FILM_STRIP = "film_strip"

PLUMBING = (*REPRODUCE_PLUMBING, "experiments.audit.settings")
CLIP_REMEDY = "give an mp4, a gif or a folder of images"
_NETWORK = ("device", "dtype", "frames_at_once")
_SAMPLING = (*_NETWORK, "prompt", "num_steps")


@dataclass(frozen=True)
class Stage:
    """One stored result: what it needs, which settings it reads, and how it is made."""

    name: str
    title: str
    needs: tuple[str, ...]
    settings: tuple[str, ...]
    make: Callable[[Context], None]


def stages(settings: AuditSettings) -> Iterator[Stage]:
    """The stages of an audit in order, but for the fixed-point iterations, which go on while they help."""
    adapted = settings.adapter is not None
    # Whatever a later stage would refuse is refused before anything long begins.
    checked = (*_SAMPLING, "edit", "layers", "num_frames", "size")
    yield Stage(
        "check", "Check what was asked for", (), checked, lambda context: measure.check(settings, context.editor)
    )
    yield Stage("clip", "Read the clip", (), (*_NETWORK, "num_frames", "size"), measure.clip)
    yield Stage("schedulers", "Check the schedulers", (), ("num_steps",), measure.schedulers)
    main = "inversion_on" if adapted else "inversion_off"
    for name, adapter in (("inversion_off", False), ("inversion_on", True)) if adapted else (("inversion_off", False),):
        title = "Invert with the adapter" if adapter else "Invert"
        yield Stage(name, title, ("clip",), _SAMPLING, functools.partial(measure.inversion, adapter=adapter))
    trip = functools.partial(measure.round_trip, inversion=main, adapter=adapted)
    yield Stage("round_trip", "Sample back", ("clip", main), _SAMPLING, trip)
    if adapted:
        off = functools.partial(measure.round_trip, inversion="inversion_off", adapter=False)
        yield Stage("round_trip_off", "Sample back without the adapter", ("clip", "inversion_off"), _SAMPLING, off)
        mismatch = functools.partial(measure.round_trip, inversion="inversion_off", adapter=True, base="round_trip_off")
        needs = ("clip", "inversion_off", "round_trip_off")
        yield Stage("round_trip_mismatch", "Sample with the adapter, inverted without", needs, _SAMPLING, mismatch)
    if settings.prompt != "" and settings.guidance_scale != 1:
        guided = functools.partial(measure.round_trip, inversion=main, adapter=adapted, guided=True, base="round_trip")
        needs = ("clip", main, "round_trip")
        yield Stage("round_trip_guided", "Sample back with guidance", needs, (*_SAMPLING, "guidance_scale"), guided)
    if settings.edit is not None:
        asked = (*_SAMPLING, "edit", "guidance_scale", "layers")
        looked = (*_SAMPLING, "layers")
        yield Stage("source_trace", "Look at the clip's features", ("clip",), looked, editing.source_trace)
        make = functools.partial(editing.edit, inversion=main, adapter=adapted)
        yield Stage("edit", "Edit", ("clip", main), asked, make)
        if adapted:
            without = functools.partial(editing.edit, inversion="inversion_off", adapter=False)
            yield Stage("edit_off", "Edit without the adapter", ("clip", "inversion_off"), asked, without)
    make = functools.partial(measure.features, inversion=main, adapter=adapted)
    yield Stage("features", "Capture features", ("clip", main), (*_SAMPLING, "layers"), make)
    make = functools.partial(sharpness, inversion=main)
    yield Stage("sharpness", "Measure the sharpness", ("clip", main), (*_SAMPLING, "layers", "seed"), make)


def _fixed_point_stage(settings: AuditSettings, count: int) -> Stage:
    make = functools.partial(measure.fixed_point, iterations=count, adapter=settings.adapter is not None)
    title = f"Iterate to the fixed point, {count} {'time' if count == 1 else 'times'}"
    return Stage(f"fixed_point_{count}", title, ("clip",), _SAMPLING, make)


class _Run:
    """The stages of one audit, made or reused in order."""

    def __init__(self, settings: AuditSettings, store: Store, observer: Observer) -> None:
        self.asked = settings
        self.inputs = name_inputs(settings.pipeline, settings.video, settings.adapter)
        self.threads = choose_threads(self.inputs.pipeline, settings.threads)
        self.engine = Engine(store, Interruptible(observer), self.inputs, self.threads)
        self.entries = self.engine.entries
        # What a hub id stood for when the run began.
        self.settings = dataclasses.replace(settings, pipeline=str(self.inputs.pipeline))
        self._source = source_digest(["experiments.audit.measure_sharpness", "experiments.audit.editing"], exclude=PLUMBING)
        self._loaded = OpenedFiles()

    @functools.cached_property
    def editor(self) -> Editor:
        given = f"the pipeline {self.asked.pipeline or 'of framebound'}"
        if self.asked.adapter is not None:
            given += f" with the adapter {self.asked.adapter}"
        with recording() as opened, reading(given, "copy the files again"):
            editor = measure.load(self.settings)
        self._loaded = opened
        return editor

    def fetch(self, stage: Stage) -> Entry:
        ingredients = {
            "settings": self.settings.select(stage.settings),
            "source": self._source,
            "files": dict(self.inputs.digests),
        }

        def make(draft: Draft, scratch: Path, progress: Progress) -> None:
            inputs = {name: self.entries[name] for name in stage.needs}
            with memory_named(stage.title, self.settings):
                stage.make(Context(self.settings, lambda: self.editor, inputs, draft, progress, scratch))
            # The editor is loaded once, in whichever stage comes first, and decides them all.
            draft.opened |= self._loaded.beyond(self.inputs.files)

        entry = self.engine.fetch(stage.name, stage.title, stage.needs, ingredients, make)
        for line in measure.lines(entry.values):
            self.engine.observer.note(line)
        return entry


def memory_named(title: str, settings: AuditSettings) -> AbstractContextManager[None]:
    """Turns running out of memory into a UserError that says in which stage, and what to do."""
    smaller = []
    if settings.frames_at_once > 1:
        smaller.append("--frames-at-once 1")
    if settings.dtype in ("float32", "float64"):
        smaller.append("--dtype float16" if settings.device != "cpu" else "--dtype bfloat16")
    smaller += ["a smaller --size", "fewer --frames"]
    detail = f"{title}; {settings.frames_at_once} frames at once, dtype {settings.dtype}"
    return blamed(detail, settings.device, f"try {', '.join(smaller)}")


def audit_pipeline(settings: AuditSettings, out: Path, *, observer: Observer | None = None) -> dict[str, Any]:
    """Run an audit.

    Args:
        out: folder of the results; created when missing. A run in the same folder reuses what is unchanged, and one
            that was killed goes on where it was.
        observer: told about progress; None is silent.

    Returns:
        The content of audit.json.

    Raises:
        ValueError: what the settings ask for is not there or cannot be read, the memory does not suffice, or another
            run uses the folder. Then `out` is as it was, but for stored results that are whole.
    """
    observer = observer or Silent()
    if settings.device == "cpu":
        # Refuses, instead of silently taking, a kernel that sums in an order that depends on the threads' timing.
        torch.use_deterministic_algorithms(True)
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file", remedy="give a folder")
    store = Store(out / "store", observer.note)
    run = _Run(settings, store, observer)
    with limited(run.threads.count):
        if not store.folder.exists():
            # A mistake in the call must not leave a folder behind.
            _refuse_early(run)
        with store.lock():
            observer.note(f"networks run on {run.threads}")
            sweep(out)
            for stage in stages(settings):
                run.fetch(stage)
            for count in range(1, settings.fixed_point_iterations + 1):
                before = run.entries["round_trip" if count == 1 else f"fixed_point_{count - 1}"]
                if before.values["pixel_error"]["largest"] <= answers.INVISIBLE:
                    break
                run.fetch(_fixed_point_stage(settings, count))
            result = _write(run, out)
    interrupts.check()
    return result


def _refuse_early(run: _Run) -> None:
    observer = run.engine.observer
    progress = observer.stage("load", "Load the pipeline")
    with memory_named("Load the pipeline", run.settings), reading(f"the clip {run.asked.video}", CLIP_REMEDY):
        measure.check(run.settings, run.editor)
    progress(1, 1)
    observer.finished("load", False)


def _write(run: _Run, out: Path) -> dict[str, Any]:
    """Figures, audit.json, report and the edit; the content of audit.json."""
    values = {name: entry.values for name, entry in run.entries.items()}
    drawings = [
        (name, describe(find_study(name), data)) for name, data in zip(AUDIT_FIGURES, _figure_data(values), strict=True)
    ]
    if "edit" in run.entries:
        data = editing.strip_data(Path(run.asked.video).resolve().name, run.settings, run.entries)
        drawings.append((FILM_STRIP, describe(find_study(FILM_STRIP), data)))
        values["film_strip"] = {"adapter_effect": adapter_effect(data)}
    # As it will be read: lists for tuples.
    result = json.loads(canonical_json(_build(run, values, drawings)))
    sweep(make_folder(out / "figures"))
    for name, content in drawings:
        write_figure(out / "figures", name, content)
    if "edit" in run.entries:
        write_bytes(out / measure.EDIT_FILE, (run.entries["edit"].folder / measure.EDIT_FILE).read_bytes())
    write_text(out / "audit.json", canonical_json(result))
    write_report(out)
    return result


def _figure_data(values: Mapping[str, Any]) -> tuple[dict, dict]:
    """What the two figures are drawn from, in the order of AUDIT_FIGURES."""
    features = {
        "group": "C1",
        "records": [
            {
                "layer": record["layer"],
                "timestep": record["timestep"],
                "proved": record["proved_step"],
                "certified": 2 / record["certificate"]["upper"] if record["certificate"]["upper"] > 0 else None,
            }
            for record in values["features"]
            if not record["problem"]
        ],
    }
    trip = values["round_trip"]
    names = {"round_trip": "plain", "round_trip_mismatch": "adapter in\nsampling only", "round_trip_guided": "guidance"}
    fixed = [trip] + [
        values[f"fixed_point_{count}"] for count in range(1, len(values)) if f"fixed_point_{count}" in values
    ]
    trips = {
        "group": "C3",
        "error": trip["error"],
        "contributions": trip["contributions"],
        "trips": [
            {"name": label, "error": values[name]["error"], "bound": values[name]["bound"]}
            for name, label in names.items()
            if name in values
        ],
        "largest_pixel_errors": [row["pixel_error"]["largest"] for row in fixed],
    }
    return features, trips


def _build(run: _Run, values: Mapping[str, Any], drawings: list[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    settings = run.asked.select(tuple(AuditSettings.__dataclass_fields__))
    # A path says where a file lay on one machine; its name and digest say what it was.
    for name in ("video", "pipeline", "adapter"):
        if settings[name] is not None and Path(settings[name]).exists():
            settings[name] = Path(settings[name]).resolve().name
    found = answers.failures(values)
    return {
        "format": FORMAT,
        "kind": PIPELINE_AUDIT,
        **library_versions(("framebound",)),
        "commit": current_commit(),
        "settings": settings,
        "versions": run.engine.versions,
        "threads": run.threads.count,
        "digests": dict(run.inputs.digests),
        "revision": run.inputs.revision,
        "clip": values["clip"],
        "kinds": answers.KINDS,
        "answers": answers.answer_all(run.asked, values),
        "passed": not found,
        "failures": found,
        "figures": [
            {name: content[name] for name in ("caption", "alt")} | {"name": figure} for figure, content in drawings
        ],
        "measured": {name: value for name, value in values.items() if name != "clip"},
    }
