"""The command `framebound`. A user's mistake ends in one line on stderr and exit status 2, a failed check in exit
status 1.

Nothing heavy is imported before a command needs it, so that --help answers at once.
"""

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from experiments.settings import Settings

EXIT_CHECK_FAILED = 1
EXIT_MISTAKE = 2
EXIT_INTERRUPTED = 130
INTERRUPTED = "interrupted; the same command goes on where it was"
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
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def _stdout() -> Console:
    return Console(highlight=False)


def _stderr() -> Console:
    # Notes and progress must not mix with what a script reads from stdout.
    return Console(stderr=True, highlight=False)


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


class _ProgressObserver:
    """One bar per stage on stderr; stages that were there already become one line at the end."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.tasks: dict[str, TaskID] = {}
        self.reused = 0
        self.made = 0

    def stage(self, name: str, title: str) -> Callable[[int, int], None]:
        task = self.progress.add_task(title, total=None)
        self.tasks[name] = task
        return lambda done, total: self.progress.update(task, completed=done, total=total)

    def finished(self, name: str, reused: bool) -> None:
        task = self.tasks.pop(name)
        if reused:
            self.reused += 1
            self.progress.remove_task(task)
            return
        self.made += 1
        total = self.progress.tasks[self.progress.task_ids.index(task)].total or 1
        self.progress.update(task, total=total, completed=total)
        self.progress.stop_task(task)

    def note(self, line: str) -> None:
        self.progress.console.print(line, markup=False, soft_wrap=True)


@contextlib.contextmanager
def _watched() -> Iterator[_ProgressObserver]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=_stderr()) as progress:
        yield _ProgressObserver(progress)


def _number(value: Any) -> str:
    from experiments.report.numbers import short_number

    return short_number(value)


def _pair(outcome: dict | None) -> str:
    return "–" if outcome is None else f"{_number(outcome['measured'])} / {_number(outcome['bound'])}"


def _summary_table(audit: dict) -> Table:
    table = Table(title="measured / bound", title_justify="left")
    table.add_column("claim", no_wrap=True)
    for column in ("verdict", "in theory", "on the real network", "passed"):
        table.add_column(column)
    for group in audit["paper_claims"]:
        table.add_row(
            group["id"],
            group["verdict"],
            _pair(group["theory"]),
            _pair(group["network"]),
            "yes" if group["passed"] else "NO",
            style="bold",
        )
        for record in audit["claims"]:
            if record["group"] == group["id"]:
                passed = "yes" if record["passed"] else "NO"
                table.add_row(
                    f"  {record['id']}", record["verdict"], _pair(record["theory"]), _pair(record["network"]), passed
                )
        table.add_section()
    return table


@app.command()
def reproduce(
    profile: Annotated[str, typer.Option(help="small (minutes) or full (what figures/ is made of).")] = "small",
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
    )
    audit = _reproduce(settings, out, figures)
    if as_json:
        _print_json(audit)
    else:
        _stdout().print(_summary_table(audit))
        _stdout().print(
            f"report:  {out / 'report.html'} (also report.md, claims.csv)\naudit:   {out / 'audit.json'}\n"
            f"figures: {out / 'figures'}",
            soft_wrap=True,
        )
    if not audit["passed"]:
        for line in audit["failures"]:
            _stderr().print(line, markup=False, soft_wrap=True)
        raise typer.Exit(EXIT_CHECK_FAILED)


def _reproduce(settings: "Settings", out: Path, figures: Path | None) -> dict:
    with _watched() as observer:
        # The first import of torch and JAX takes longer than a second run: show that something happens.
        start = observer.stage("start", "Start")
        from experiments.reproduce import reproduce as run
        from theory.compilation import compile_for_one_use, keep_compiled_programs

        keep_compiled_programs()
        compile_for_one_use()
        start(1, 1)
        observer.progress.remove_task(observer.tasks.pop("start"))
        audit = run(settings, out, figures=figures, observer=observer)
    _stderr().print(f"{observer.made} results computed, {observer.reused} reused")
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
    )
    with _watched() as observer:
        start = observer.stage("start", "Start")
        from experiments.audit.run import audit_pipeline

        start(1, 1)
        observer.progress.remove_task(observer.tasks.pop("start"))
        result = audit_pipeline(settings, out, observer=observer)
    _stderr().print(f"{observer.made} results computed, {observer.reused} reused")
    if as_json:
        _print_json(result)
    else:
        _print_answers(result)
        _stdout().print(f"report: {out / 'report.html'}\naudit:  {out / 'audit.json'}", soft_wrap=True)
    if not result["passed"]:
        for line in result["failures"]:
            _stderr().print(line, markup=False, soft_wrap=True)
        raise typer.Exit(EXIT_CHECK_FAILED)


def _print_answers(result: dict) -> None:
    console = _stdout()
    for answer in result["answers"]:
        console.print(Text(answer["question"], style="bold"), soft_wrap=True)
        verdict = {"yes": "Yes. ", "no": "No. ", "partly": "Partly. "}.get(answer["verdict"], "")
        console.print(Text(f"  {verdict}{answer['answer']}"), soft_wrap=True)
        if answer["mend"]:
            console.print(Text(f"  To do: {answer['mend']}."), soft_wrap=True)
        table = Table(box=None, show_header=False, padding=(0, 1, 0, 4))
        for column in ("left", "right", "left"):
            table.add_column(justify=column, overflow="fold")
        for number in answer["numbers"]:
            table.add_row(Text(number["name"]), _number(number["value"]), number["kind"])
        console.print(table)
        console.print()


@app.command()
def claims(
    check: Annotated[
        str | None, typer.Option(help="Climb this claim's ladder (all rungs but the real network).")
    ] = None,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Write the JSON to this file.")] = None,
    as_json: AsJson = False,
    readme: Annotated[bool, typer.Option("--readme", help="Rewrite the table of verdicts in ./README.md.")] = False,
    audit: Annotated[Path, typer.Option(help="Where the table's numbers come from.")] = Path("figures/audit.json"),
) -> None:
    """List the claims and their verdicts, or check one."""
    from experiments.report import table

    if readme:
        changed = table.update_readme(README, audit)
        _stdout().print(f"{README}: {'rewritten' if changed else 'unchanged'}")
        return
    if check is not None:
        from theory.compilation import compile_for_one_use, keep_compiled_programs

        keep_compiled_programs()
        compile_for_one_use()
        record = table.check_claim(check, seed)
        _deliver(record, out, as_json, lambda: _stdout().print(_ladder_table(record)))
        if not record["passed"]:
            raise typer.Exit(EXIT_CHECK_FAILED)
        return
    rows = table.list_claims()
    _deliver(rows, out, as_json, lambda: _stdout().print(_claims_table(rows)))


def _deliver(value: Any, out: Path | None, as_json: bool, print_text: Callable[[], None]) -> None:
    if out is not None:
        from experiments.files import whole_file
        from experiments.store import canonical_json

        with whole_file(out) as temporary:
            temporary.write_text(canonical_json(value), encoding="utf-8")
    if as_json:
        _print_json(value)
    else:
        print_text()


def _claims_table(rows: list[dict]) -> Table:
    table = Table()
    table.add_column("claim", no_wrap=True)
    table.add_column("verdict")
    table.add_column("bound", no_wrap=True)
    table.add_column("what it says")
    table.add_column("file", overflow="fold")
    group = None
    for row in rows:
        if group not in (None, row["group"]):
            table.add_section()
        group = row["group"]
        table.add_row(row["id"], row["verdict"], row["tightness"], row["title"], row["file"])
    return table


def _ladder_table(record: dict) -> Table:
    table = Table(
        title=f"{record['id']}: {record['title']} ({record['verdict']}, {record['tightness']})", title_justify="left"
    )
    for column in ("rung", "passed", "deciding instance", "measured", "bound", "ratio", "budget"):
        table.add_column(column, justify="left" if column in ("rung", "passed", "deciding instance") else "right")
    for rung in record["rungs"]:
        worst = rung["worst"] or {}
        numbers = [_number(worst.get(name)) for name in ("measured", "bound", "ratio", "budget")]
        table.add_row(rung["rung"], "yes" if rung["passed"] else "NO", worst.get("label", "–"), *numbers)
    return table


@app.command()
def figures(
    out: Annotated[Path, typer.Option(help="Folder of a run, or of figures.")] = Path("out"),
    as_json: AsJson = False,
) -> None:
    """Draw figures and report again from the stored JSON; nothing is computed."""
    if not out.is_dir():
        raise ValueError(f"{out} is no folder; give the --out of a `framebound reproduce`, or a folder of figures")
    from experiments.report.page import write_report
    from experiments.studies.style import redraw

    is_run = (out / "figures").is_dir()
    names = redraw(out / "figures" if is_run else out)
    if is_run:
        write_report(out)
    if as_json:
        _print_json(names)
    else:
        _stdout().print("\n".join(names))


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
        raise ValueError(f"{folder} is no folder; give the --out of a `framebound reproduce`, or a folder of figures")
    if out is not None and out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; give a folder")
    from experiments.report.page import figure_folder, write_report
    from experiments.studies.style import redraw

    if not (folder / "audit.json").is_file():
        raise ValueError(f"{folder} holds no audit.json; write one with `framebound reproduce --out {folder}`")
    redraw(figure_folder(folder), missing_only=True)
    written = [str(path) for path in write_report(folder, out)]
    if as_json:
        _print_json(written)
    else:
        _stdout().print("\n".join(written), soft_wrap=True)


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

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TimeElapsedColumn(),
        console=_stderr(),
    ) as progress:
        task = progress.add_task("Start", total=None, loss="–")
        from experiments.editor import train as training

        def report(done: int, total: int, loss: float) -> None:
            progress.update(task, description="Train", completed=done, total=total, loss=f"{loss:.4f}")

        chosen = {} if steps is None else {"steps": steps}
        record = training.train(out, seed=seed, device=device, progress=report, **chosen)
    if as_json:
        _print_json(dataclasses.asdict(record))
    else:
        _stdout().print(f"{out}: {record.num_parameters} parameters, last loss {record.losses[-1]:.4f}", soft_wrap=True)


@app.command()
def bench(
    only: Annotated[list[str] | None, typer.Option(help="Run only this benchmark; may be given several times.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the JSON to this file.")] = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Measure speed; the only place where timings are recorded."""
    from experiments import bench as benchmarks

    results = benchmarks.run(only, seed=seed, note=lambda line: _stderr().print(line))
    _deliver(results, out, as_json, lambda: _stdout().print(benchmarks.as_text(results), markup=False, soft_wrap=True))


def main() -> None:
    """Entry point of the command."""
    # The hub and the transformers library print advice about themselves, and bars that would tear ours.
    for library in ("TRANSFORMERS", "DIFFUSERS"):
        os.environ.setdefault(f"{library}_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # Left alone, the matrix library chooses threads and code paths by load and alignment, and equal seeds give unequal bytes.
    os.environ.setdefault("MKL_DYNAMIC", "FALSE")
    os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
    sys.exit(_run(sys.argv[1:]))


def _run(arguments: list[str]) -> int:
    """Exit status of a command line."""
    try:
        status = app(arguments, standalone_mode=False)
        # typer turns an interrupt into this status, without a word.
        return _complain(INTERRUPTED, status) if status == EXIT_INTERRUPTED else status or 0
    except (ValueError, OSError) as error:
        if os.environ.get("FRAMEBOUND_TRACEBACK"):
            raise
        return _complain(_one_line(error), EXIT_MISTAKE)
    except Exception as error:
        # Usage errors of the command-line parser, whose classes typer does not export.
        status, message = getattr(error, "exit_code", None), getattr(error, "format_message", None)
        if status is None:
            raise
        if not message:
            return status
        # The parser names the option and the limit, and not always the value.
        return _complain(f"{' '.join(message().split())} (in: framebound {' '.join(arguments)})", status)


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}; check the path and its permissions"
    return " ".join(str(error).split())


def _complain(line: str, status: int) -> int:
    sys.stderr.write(f"framebound: {line}\n")
    return status


if __name__ == "__main__":
    main()
