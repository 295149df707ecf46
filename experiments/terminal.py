"""What the command line shows: progress, notes and tables, as plain text that no terminal obeys."""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from experiments import interrupts
from experiments.errors import printable


def stdout() -> Console:
    """Where results go. Square brackets in names and captions are no markup."""
    return Console(highlight=False, markup=False, emoji=False)


def stderr() -> Console:
    """Where notes and progress go, so that they do not mix with what a script reads."""
    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def plain(text: Any) -> Text:
    """Text, of a foreign file perhaps, line by line; what a terminal would obey is shown as an escape."""
    return Text("\n".join(printable(line) for line in str(text).split("\n")))


def say(text: Any) -> None:
    """Print lines on stdout, broken nowhere."""
    stdout().print(plain(text), soft_wrap=True)


def warn(text: Any) -> None:
    """Print lines on stderr, broken nowhere."""
    stderr().print(plain(text), soft_wrap=True)


def print_json(value: Any) -> None:
    """JSON on stdout, in ASCII: every terminal and every script takes it."""
    sys.stdout.write(json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


class ProgressObserver:
    """One bar per stage on stderr; stages that were there already become one line at the end."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.tasks: dict[str, TaskID] = {}
        self.reused = 0
        self.made = 0

    def stage(self, name: str, title: str) -> Callable[[int, int], None]:
        task = self.progress.add_task(printable(title), total=None)
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
        self.progress.console.print(plain(line), soft_wrap=True)


@contextlib.contextmanager
def watched() -> Iterator[ProgressObserver]:
    """Show progress on stderr while the block runs."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=stderr()) as progress:
        yield ProgressObserver(progress)


@contextlib.contextmanager
def watched_training() -> Iterator[Callable[[int, int, float], None]]:
    """Show a training on stderr while the block runs: the function takes steps done, steps in all and the loss."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}", markup=False),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=stderr()) as progress:
        task = progress.add_task("Start", total=None, loss="–")

        def report(done: int, total: int, loss: float) -> None:
            interrupts.check()
            progress.update(task, description="Train", completed=done, total=total, loss=f"{loss:.4f}")

        yield report


def _number(value: Any) -> str:
    from experiments.report.numbers import short_number

    return short_number(value)


def _pair(outcome: dict | None) -> str:
    return "–" if outcome is None else f"{_number(outcome['measured'])} / {_number(outcome['bound'])}"


def summary_table(audit: dict) -> Table:
    """Verdict and numbers of every claim of a run."""
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


def print_answers(result: dict) -> None:
    """What an audit answers, with the numbers behind it."""
    console = stdout()
    for answer in result["answers"]:
        console.print(Text(printable(answer["question"]), style="bold"), soft_wrap=True)
        verdict = {"yes": "Yes. ", "no": "No. ", "partly": "Partly. "}.get(answer["verdict"], "")
        console.print(plain(f"  {verdict}{answer['answer']}"), soft_wrap=True)
        if answer["mend"]:
            console.print(plain(f"  To do: {answer['mend']}."), soft_wrap=True)
        table = Table(box=None, show_header=False, padding=(0, 1, 0, 4))
        for column in ("left", "right", "left"):
            table.add_column(justify=column, overflow="fold")
        for number in answer["numbers"]:
            table.add_row(plain(number["name"]), plain(_number(number["value"])), plain(number["kind"]))
        console.print(table)
        console.print()


def claims_table(rows: list[dict]) -> Table:
    """What every claim says, and where it is checked."""
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


def ladder_table(record: dict) -> Table:
    """The rungs of one claim."""
    table = Table(
        title=f"{record['id']}: {record['title']} ({record['verdict']}, {record['tightness']})", title_justify="left"
    )
    for column in ("rung", "passed", "deciding instance", "measured", "bound", "ratio", "budget"):
        table.add_column(column, justify="left" if column in ("rung", "passed", "deciding instance") else "right")
    for rung in record["rungs"]:
        worst = rung["worst"] or {}
        numbers = [_number(worst.get(name)) for name in ("measured", "bound", "ratio", "budget")]
        table.add_row(rung["rung"], "yes" if rung["passed"] else "NO", plain(worst.get("label", "–")), *numbers)
    return table
