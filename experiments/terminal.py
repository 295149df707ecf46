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
