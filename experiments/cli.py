"""The command `framebound`; what its exit status says is in `experiments.boundary`.

Nothing heavy is imported before a command needs it, so that --help answers at once.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from experiments import boundary, interrupts, terminal, threads
from experiments.errors import EXIT_CHECK_FAILED, UserError

if TYPE_CHECKING:
    from experiments.settings import Settings

README = Path("README.md")

app = typer.Typer(
    name="framebound",
    help="Decides the claims of a theory paper on video editing with adapters (arXiv 2504.16016).",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Seed = Annotated[int, typer.Option(help="Seed of everything that is drawn.")]
Device = Annotated[str, typer.Option(help="Torch device of the editor, for example cpu or cuda.")]
NumThreads = Annotated[
    int | None, typer.Option("--threads", help="Threads of the networks; chosen by their size by default.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


@app.command()
def reproduce(
    profile: Annotated[str, typer.Option(help="small (minutes) or full (an hour: more frames, steps, instances and seeds).")] = "small",
    out: Annotated[
        Path, typer.Option(help="Folder of the results; a second run in it reuses what is unchanged.")
    ] = Path("out"),
    figures: Annotated[Path | None, typer.Option(help="Copy figures and audit.json to this folder as well.")] = None,
    seed: Seed = 0,
    device: Device = "cpu",
    clip: Annotated[str | None, typer.Option(help="Shipped clip whose held-out frames are edited.")] = None,
    video: Annotated[
        Path | None, typer.Option(help="Edit this video (mp4, gif or a folder of images) instead.")
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="Caption of the clip.")] = None,
    edit: Annotated[str | None, typer.Option(help="Caption of the edit.")] = None,
    pipeline: Annotated[
        str | None, typer.Option(help="Folder or hub id of a diffusers pipeline instead of the shipped one.")
    ] = None,
    frames: Annotated[int | None, typer.Option(help="Number of frames.")] = None,
    steps: Annotated[int | None, typer.Option(help="Number of DDIM steps.")] = None,
    adapter_steps: Annotated[int | None, typer.Option(help="Training steps of the adapter.")] = None,
    claim: Annotated[list[str] | None, typer.Option(help="Check only this claim; may be given several times.")] = None,
    num_threads: NumThreads = None,
    as_json: AsJson = False,
) -> None:
    """Train the adapter, invert, edit, check every claim; write audit.json, figures and report.html."""
    from experiments.settings import Settings

    settings = Settings.preset(
        profile,
        seed=seed,
        device=device,
        clip=clip,
        video=None if video is None else str(video),
        source_prompt=prompt,
        target_prompt=edit,
        pipeline=pipeline,
        num_frames=frames,
        num_steps=steps,
        adapter_steps=adapter_steps,
        claims=tuple(claim) if claim else None,
        threads=num_threads,
    )
    audit = _reproduce(settings, out, figures)
    if as_json:
        terminal.print_json(audit)
    else:
        from experiments.report import table
        from experiments.report import terminal as shown

        terminal.stdout().print(shown.summary(audit, table.lacking_claims(audit)))
        terminal.say(
            f"report:  {out / 'report.html'} (also report.md, claims.csv)\naudit:   {out / 'audit.json'}\n"
            f"figures: {out / 'figures'}"
        )
    if not audit["passed"]:
        for line in audit["failures"]:
            terminal.warn(line)
        raise typer.Exit(EXIT_CHECK_FAILED)


def _reproduce(settings: "Settings", out: Path, figures: Path | None) -> dict:
    with terminal.watched() as observer:
        # The first import of torch and JAX takes longer than a second run: show that something happens.
        start = observer.stage("start", "Start")
        from experiments.reproduce import reproduce as run
        from theory.compilation import compile_for_one_use, keep_compiled_programs

        keep_compiled_programs()
        compile_for_one_use()
        start(1, 1)
        observer.progress.remove_task(observer.tasks.pop("start"))
        audit = run(settings, out, figures=figures, observer=observer)
    terminal.warn(f"{observer.made} results computed, {observer.reused} reused")
    return audit


@app.command()
def audit(
    video: Annotated[Path, typer.Option(help="The clip: mp4, gif or a folder of images.")],
    out: Annotated[
        Path, typer.Option(help="Folder of the results; a second run in it reuses what is unchanged.")
    ] = Path("audit"),
    pipeline: Annotated[
        str | None, typer.Option(help="Folder or hub id of a diffusers pipeline instead of the shipped one.")
    ] = None,
    adapter: Annotated[
        Path | None, typer.Option(help="LoRA of the UNet: safetensors of peft, diffusers, kohya or framebound.")
    ] = None,
    prompt: Annotated[str, typer.Option(help="Caption of the clip.")] = "",
    edit: Annotated[str | None, typer.Option(help="Caption of an edit to make as well.")] = None,
    steps: Annotated[int, typer.Option(help="Number of DDIM steps.")] = 50,
    layers: Annotated[
        str | None, typer.Option(help="Regular expression for the self-attentions; all of the up blocks by default.")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Yours, to compare the sharpness with.")] = None,
    frames: Annotated[int, typer.Option(help="Number of frames at most.")] = 16,
    size: Annotated[
        int | None, typer.Option(help="Side of the frames in pixels; the pipeline's own by default.")
    ] = None,
    guidance: Annotated[float, typer.Option(help="Guidance scale whose cost is measured.")] = 7.5,
    device: Device = "cpu",
    dtype: Annotated[str, typer.Option(help="float16, bfloat16, float32 or float64.")] = "float32",
    frames_at_once: Annotated[
        int, typer.Option(help="Frames in one evaluation of the UNet; less takes less memory.")
    ] = 4,
    iterations: Annotated[int, typer.Option(help="Fixed-point iterations tried at most.")] = 3,
    seed: Seed = 0,
    num_threads: NumThreads = None,
    as_json: AsJson = False,
) -> None:
    """Bounds for your own pipeline, adapter and clip; writes audit.json, figures and report.html."""
    from experiments.audit.settings import AuditSettings

    settings = AuditSettings(
        video=str(video),
        pipeline=pipeline,
        adapter=None if adapter is None else str(adapter),
        prompt=prompt,
        edit=edit,
        num_steps=steps,
        layers=layers,
        learning_rate=learning_rate,
        num_frames=frames,
        size=size,
        guidance_scale=guidance,
        device=device,
        dtype=dtype,
        frames_at_once=frames_at_once,
        fixed_point_iterations=iterations,
        seed=seed,
        threads=num_threads,
    )
    with terminal.watched() as observer:
        start = observer.stage("start", "Start")
        from experiments.audit.run import audit_pipeline

        start(1, 1)
        observer.progress.remove_task(observer.tasks.pop("start"))
        result = audit_pipeline(settings, out, observer=observer)
    terminal.warn(f"{observer.made} results computed, {observer.reused} reused")
    if as_json:
        terminal.print_json(result)
    else:
        terminal.print_answers(result)
        terminal.say(f"report: {out / 'report.html'}\naudit:  {out / 'audit.json'}")
    if not result["passed"]:
        for line in result["failures"]:
            terminal.warn(line)
        raise typer.Exit(EXIT_CHECK_FAILED)


@app.command()
def claims(
    check: Annotated[
        str | None, typer.Option(help="Climb this claim's ladder (all rungs but the real network).")
    ] = None,
    explain: Annotated[
        str | None, typer.Option(help="Print this claim's statement, hypotheses and proof, and where it is checked.")
    ] = None,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Write the JSON to this file.")] = None,
    as_json: AsJson = False,
    readme: Annotated[bool, typer.Option("--readme", help="Rewrite the table of verdicts in ./README.md.")] = False,
    audit: Annotated[Path, typer.Option(help="Where the table's numbers come from.")] = Path("figures/audit.json"),
) -> None:
    """List the claims and their verdicts, or check or explain one."""
    from experiments.report import table
    from experiments.report import terminal as shown

    if readme:
        changed = table.update_readme(README, audit)
        terminal.say(f"{README}: {'rewritten' if changed else 'unchanged'}")
        return
    if explain is not None:
        found = table.explain_claim(explain)
        _deliver(found, out, as_json, lambda: terminal.say(shown.explanation(found)))
        return
    if check is not None:
        from theory.compilation import compile_for_one_use, keep_compiled_programs

        keep_compiled_programs()
        compile_for_one_use()
        record = table.check_claim(check, seed)
        _deliver(record, out, as_json, lambda: terminal.stdout().print(shown.ladder(record)))
        if not record["passed"]:
            raise typer.Exit(EXIT_CHECK_FAILED)
        return
    rows = table.list_claims()
    _deliver(rows, out, as_json, lambda: terminal.stdout().print(shown.claims_table(rows)))


def _deliver(value: Any, out: Path | None, as_json: bool, print_text: Callable[[], None]) -> None:
    if out is not None:
        from experiments.files import write_text
        from experiments.store import canonical_json

        write_text(out, canonical_json(value))
    if as_json:
        terminal.print_json(value)
    else:
        print_text()


@app.command()
def figures(
    out: Annotated[Path, typer.Option(help="Folder of a run, or of figures.")] = Path("out"),
    as_json: AsJson = False,
) -> None:
    """Draw figures and report again from the stored JSON; nothing is computed."""
    if not out.is_dir():
        raise UserError(f"{out} is no folder; give the --out of a `framebound reproduce`, or a folder of figures")
    from experiments.report.page import write_report
    from experiments.studies.style import redraw

    is_run = (out / "figures").is_dir()
    names = redraw(out / "figures" if is_run else out)
    if is_run:
        write_report(out)
    if as_json:
        terminal.print_json(names)
    else:
        terminal.say("\n".join(names))


@app.command()
def report(
    folder: Annotated[
        Path, typer.Argument(help="Folder of a run, or any folder with audit.json and the figures it names.")
    ] = Path("out"),
    out: Annotated[Path | None, typer.Option(help="Folder to write to; FOLDER by default.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write report.html, report.md and claims.csv again from audit.json; nothing is computed.

    A figure whose PDF or PNG is missing is drawn from its JSON.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; give the --out of a `framebound reproduce`, or a folder of figures")
    if out is not None and out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; give a folder")
    from experiments.report.page import figure_folder, write_report
    from experiments.studies.style import redraw

    if not (folder / "audit.json").is_file():
        raise UserError(f"{folder} holds no audit.json; write one with `framebound reproduce --out {folder}`")
    redraw(figure_folder(folder), missing_only=True)
    written = [str(path) for path in write_report(folder, out)]
    lacking = _lacking(folder / "audit.json")
    if lacking:
        terminal.warn(f"the run in {folder} did not check {', '.join(lacking)}")
    if as_json:
        terminal.print_json(written)
    else:
        terminal.say("\n".join(written))


def _lacking(audit: Path) -> list[str]:
    """The claims that this version has and a stored run lacks; an audit of somebody's pipeline checks none and lacks none."""
    from experiments.report import table
    from experiments.report.schema import PIPELINE_AUDIT, read_results

    stored = read_results(audit, PIPELINE_AUDIT)
    return [] if stored.get("kind") == PIPELINE_AUDIT else table.lacking_claims(stored)


@app.command()
def train(
    out: Annotated[Path, typer.Option(help="Folder to write the pipeline to.")] = Path("weights"),
    seed: Seed = 0,
    steps: Annotated[
        int | None, typer.Option(help="Training steps; as many as the shipped pipeline had by default.")
    ] = None,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Train the shipped pipeline again; a run that was killed goes on where it was."""
    import dataclasses

    with terminal.watched_training() as report:
        from experiments.editor import train as training

        chosen = {} if steps is None else {"steps": steps}
        record = training.train(out, seed=seed, device=device, progress=report, **chosen)
    if as_json:
        terminal.print_json(dataclasses.asdict(record))
    else:
        terminal.say(f"{out}: {record.num_parameters} parameters, last loss {record.losses[-1]:.4f}")


@app.command()
def bench(
    only: Annotated[list[str] | None, typer.Option(help="Run only this benchmark; may be given several times.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the JSON to this file.")] = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Measure speed; the only place where timings are recorded."""
    from experiments import bench as benchmarks

    results = benchmarks.run(only, seed=seed, note=terminal.warn)
    _deliver(results, out, as_json, lambda: terminal.say(benchmarks.as_text(results)))


def main() -> None:
    """Entry point of the command."""
    # The hub and the transformers library print advice about themselves, and bars that would tear ours.
    for library in ("TRANSFORMERS", "DIFFUSERS"):
        os.environ.setdefault(f"{library}_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # Left alone, the matrix library chooses threads and code paths by load and alignment, and equal seeds give unequal
    # bytes.
    os.environ.setdefault("MKL_DYNAMIC", "FALSE")
    os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
    threads.wait_passively()
    for stream in (sys.stdout, sys.stderr):
        # A terminal that is not set to UTF-8 shows an escape where it has no letter.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    with interrupts.listening():
        status = _run(sys.argv[1:])
    sys.exit(status)


def _run(arguments: list[str]) -> int:
    """Exit status of a command line."""
    return boundary.run(lambda: app(arguments, standalone_mode=False), arguments)


if __name__ == "__main__":
    main()
