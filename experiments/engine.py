"""The one run engine of `framebound reproduce` and `framebound audit`: stored results are reused or made, in order.

A result is reused when everything that decided it is the same: the digests of the files that the call names, links
followed, and of every further file that a loader opened; the settings it reads; the contents of the results it is made
from; the code; the versions of the libraries; the number of threads.
"""

import dataclasses
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import av
import torch

from experiments import interrupts
from experiments.editor.lora_files import find_lora_file
from experiments.editor.pipeline import pipeline_folder
from experiments.errors import DeviceLost, OutOfMemory, UserError, first_line, is_out_of_memory
from experiments.opened_files import digest_of, first_changed, recording
from experiments.store import Draft, Entry, Store, library_versions
from experiments.threads import Threads, kernel_choices

ADAPTER_SETTINGS = "adapter_config.json"
"""What peft writes beside an adapter; the scale of the adapter is in it."""
Progress = Callable[[int, int], None]


class Observer(Protocol):
    """Who watches a run."""

    def stage(self, name: str, title: str) -> Progress:
        """A stage begins; the result is called with (steps done, steps in all)."""

    def finished(self, name: str, reused: bool) -> None:
        """The stage is done, or was there already."""

    def note(self, line: str) -> None:
        """Something worth a line."""


class Silent:
    """Watches nothing."""

    def stage(self, name: str, title: str) -> Progress:
        return lambda done, total: None

    def finished(self, name: str, reused: bool) -> None:
        pass

    def note(self, line: str) -> None:
        pass


class Interruptible:
    """Passes everything on to an observer, and ends the run at the next step once a signal has asked for it."""

    def __init__(self, observer: Observer) -> None:
        self.observer = observer

    def stage(self, name: str, title: str) -> Progress:
        interrupts.check()
        progress = self.observer.stage(name, title)

        def checked(done: int, total: int) -> None:
            interrupts.check()
            progress(done, total)

        return checked

    def finished(self, name: str, reused: bool) -> None:
        interrupts.check()
        self.observer.finished(name, reused)

    def note(self, line: str) -> None:
        self.observer.note(line)


@dataclasses.dataclass(frozen=True)
class Inputs:
    """The files that a call names.

    Attributes:
        pipeline: folder of the pipeline; a hub id is resolved once, so that a run has one revision of it.
        revision: the commit of a hub id, None for a folder.
        digests: SHA-256 by role, "weights", "video", "adapter" and "adapter_settings"; None where there is none.
        files: the same by absolute path.
    """

    pipeline: Path
    revision: str | None
    digests: Mapping[str, str | None]
    files: Mapping[str, str | None]


def name_inputs(pipeline: str | None, video: str | Path | None, adapter: str | None = None) -> Inputs:
    """The digests of what a call names, links followed.

    Raises:
        UserError: a pipe or a device.
        ValueError: what `pipeline_folder` and `find_lora_file` raise: there is no such pipeline or adapter.
    """
    folder = pipeline_folder(pipeline)
    paths: dict[str, Path | None] = {"weights": folder, "video": None if video is None else Path(video)}
    if adapter is not None:
        file = find_lora_file(adapter)
        paths |= {"adapter": file, "adapter_settings": file.with_name(ADAPTER_SETTINGS)}
    digests = {role: None if path is None else digest_of(path) for role, path in paths.items()}
    files = {os.path.abspath(path): digests[role] for role, path in paths.items() if path is not None}
    is_hub_id = pipeline is not None and not Path(pipeline).exists()
    # The hub's cache keeps each revision in a folder that is called by its commit.
    return Inputs(folder, folder.name if is_hub_id else None, digests, files)


class Engine:
    """The stored results of one run, made or reused in order.

    Attributes:
        entries: the results so far, by name.
        versions: of Python and the libraries.
    """

    def __init__(self, store: Store, observer: Observer, inputs: Inputs, threads: Threads) -> None:
        self.store = store
        self.observer = observer
        self.inputs = inputs
        self.entries: dict[str, Entry] = {}
        self.versions = {**library_versions(), "ffmpeg": str(av.ffmpeg_version_info)}
        self._machine = {"versions": self.versions, "threads": threads.count, "kernels": kernel_choices()}

    def fetch(
        self,
        name: str,
        title: str,
        needs: tuple[str, ...],
        ingredients: Mapping[str, Any],
        make: Callable[[Draft, Path, Progress], None],
    ) -> Entry:
        """The result of one stage.

        Args:
            needs: the results that it is made from.
            ingredients: whatever else decides it.
            make: fills the draft; gets a path that survives a kill, for its state, and is to report its progress.

        Raises:
            UserError: a file changed while it was read.
            DiskError: the disk does not take the result.
        """
        key = {
            **self._machine,
            **ingredients,
            "stage": name,
            "inputs": {needed: self.entries[needed].content for needed in needs},
        }
        progress = self.observer.stage(name, title)
        scratch = self.store.folder / f"{name}-{self.store.key(key)[:16]}.state"

        def fill(draft: Draft) -> None:
            with recording() as opened:
                make(draft, scratch, progress)
            # What was read is what the key says, or the result is not kept.
            changed = opened.changed() or (first_changed(self.inputs.files) if opened.digests else None)
            if changed is not None:
                raise UserError(f"{changed} changed while it was read", remedy="run the same command again")
            # The results that it is made from are part of the key by their contents.
            draft.opened |= opened.beyond({**self.inputs.files, os.path.abspath(self.store.folder): None})

        entry, reused = self.store.fetch(name, key, fill)
        shutil.rmtree(scratch) if scratch.is_dir() else scratch.unlink(missing_ok=True)
        self.observer.finished(name, reused)
        self.entries[name] = entry
        return entry


@contextmanager
def blamed(title: str, device: str, remedies: str) -> Iterator[None]:
    """Turn the lack of memory, or of the device, into a UserError that says in which stage, and what to do.

    Raises:
        OutOfMemory, DeviceLost: see there.
    """
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise OutOfMemory(
                f"out of memory on {device} ({title.lower()})", remedy=f"{remedies}: what was computed so far is kept"
            ) from error
        if isinstance(error, torch.AcceleratorError):
            raise DeviceLost(
                f"the device {device} failed ({title.lower()}): {first_line(str(error))}",
                remedy="check it, or give --device cpu: what was computed so far is kept",
            ) from error
        raise
