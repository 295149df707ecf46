"""README keeps its word: the table of verdicts is the generated one, every snippet runs and prints what it says, every
command line is understood, and every link leads to a file.
"""

import dataclasses
import decimal
import os
import re
import shlex
import subprocess
import sys

import pytest
import typer

from experiments import cli
from experiments.report import page, table
from experiments.store import ROOT
from theory.claim import Claim

README = (ROOT / "README.md").read_text(encoding="utf-8")

# A snippet, and what it prints where a block of text follows with nothing but blank lines between.
SNIPPET = re.compile(r"^```python\n(.*?)^```\n(?:\s*^```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


def snippets(text):
    """(line number, code, expected output or None) of every Python block, in order."""
    return [
        (text.count("\n", 0, match.start()) + 1, match.group(1), match.group(2)) for match in SNIPPET.finditer(text)
    ]


def same_number(expected, printed):
    """Whether two numbers agree to the printed digits, the last of which may differ by one.

    Kernels of another processor sum in another order, which moves a result by rounding errors and may turn the last
    printed digit, never another. Whole numbers are counts, which rounding does not touch: they have to be equal.
    """
    if expected == printed:
        return True
    if all(re.fullmatch(r"[-+]?\d+", text) for text in (expected, printed)):
        return False
    pair = [decimal.Decimal(text) for text in (expected, printed)]
    digits = [(len(number.as_tuple().digits), number.as_tuple().exponent) for number in pair]
    # Equally many significant digits (0.999 and 1.00) or equally many places (0.099 and 0.100).
    if digits[0][0] != digits[1][0] and digits[0][1] != digits[1][1]:
        return False
    return abs(pair[0] - pair[1]) <= decimal.Decimal(1).scaleb(max(exponent for _, exponent in digits))


def same_output(expected, printed):
    """Whether the words are equal and the numbers agree."""
    words = [NUMBER.split(text.strip()) for text in (expected, printed)]
    numbers = [NUMBER.findall(text.strip()) for text in (expected, printed)]
    return words[0] == words[1] and all(map(same_number, *numbers))


def commands(text):
    """The command lines of `framebound` in the blocks of shell, as lists of words."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in re.split(r"\n|&&", block)]
    words = [shlex.split(line, comments=True) for line in lines]
    return [line for line in words if line and line[0].rpartition("/")[2] == "framebound"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the snippets run, one after the other."""
    return tmp_path_factory.mktemp("readme")


# In one worker, so that they run in the order in which they are read.
@pytest.mark.xdist_group("readme")
@pytest.mark.parametrize(
    ("code", "expected"), [pytest.param(code, text, id=f"line-{line}") for line, code, text in snippets(README)]
)
def test_snippet_runs_and_prints_what_it_says(folder, code, expected):
    """In a process of its own, as a reader runs it: nothing that another test imported or switched on helps it."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    if expected is not None:
        assert same_output(expected, done.stdout), f"README says\n{expected}\nand the snippet prints\n{done.stdout}"


def test_every_snippet_is_found():
    assert len(snippets(README)) == README.count("```python") > 0
    assert any(expected for _, _, expected in snippets(README))


@pytest.mark.parametrize("words", commands(README), ids=" ".join)
def test_command_line_is_understood(words):
    """Its options exist and take such values; nothing is run."""
    group = typer.main.get_command(cli.app)
    group.commands[words[1]].make_context(words[1], words[2:])


def test_every_command_is_shown():
    shown = {words[1] for words in commands(README)}
    assert shown == set(typer.main.get_command(cli.app).commands)


def test_links_lead_to_files():
    links = re.findall(r"\]\(([^)\s]+)\)", README)
    files = [link.partition("#")[0] for link in links if not link.startswith(("http", "#"))]
    assert files and [name for name in files if not (ROOT / name).exists()] == []
    titles = re.findall("^#+ (.*)$", README, re.MULTILINE)
    headings = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
    assert [link for link in links if link.startswith("#") and link[1:] not in headings] == []


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        ("loss 0.1234", "loss 0.1234", True),
        ("loss 0.1234", "loss 0.1235", True),
        ("loss 0.1234", "loss 0.1236", False),
        ("loss 0.1234", "gain 0.1234", False),
        ("loss 0.1234", "loss 0.12", False),
        ("0.999", "1.00", True),
        ("0.100", "0.099", True),
        ("1.00", "0.9", False),
        ("2.5e-05", "2.6e-05", True),
        ("2.5e-05", "2.5e-04", False),
        ("-0.5", "0.5", False),
        ("8 frames", "9 frames", False),
        ("8 frames", "8.0 frames", False),
        ("1 2", "1", False),
        ("inf", "nan", False),
        ("text\n", "text", True),
    ],
)
def test_rule_of_the_last_digit(expected, printed, same):
    assert same_output(expected, printed) == same


def test_snippet_is_paired_with_the_text_that_follows_it():
    text = "a\n```python\nprint(1)\n```\n\n```text\n1\n```\n\n```python\nx = 1\n```\nwords\n\n```text\n2\n```\n"
    assert snippets(text) == [(2, "print(1)\n", "1\n"), (10, "x = 1\n", None)]


def stored_run():
    """The run in figures/; None where another version wrote it, whose numbers this one does not quote."""
    try:
        return table.read_audit(ROOT / "figures" / "audit.json")
    except ValueError as error:
        assert "this version reads format" in str(error), error
        return None


def test_table_of_verdicts_is_up_to_date():
    assert table.readme_with_table(README, stored_run()) == README, "README.md is out of date; run: framebound claims --readme"


def test_stored_run_can_be_reported(tmp_path):
    """With its own figures; and it holds every claim of this version."""
    audit = stored_run()
    if audit is None:
        pytest.skip("figures/audit.json is of another version; run: framebound reproduce --figures figures")
    assert page.write_report(ROOT / "figures", tmp_path)[0].is_file()
    assert table.lacking_claims(audit) == []


def test_every_field_that_readme_explains_exists():
    section = README.split("## Add a theorem")[1].split("\n## ")[0]
    names = re.findall(r"`(\w+)`", " ".join(line.split(" | ")[0] for line in section.splitlines() if line.startswith("| `")))
    known = {field.name for field in dataclasses.fields(Claim)}
    assert {"necessity", "floor", "problem"} <= set(names) - {"experiments", "theory"}
    assert set(names) - {"theory", "experiments", "tests", "figures"} <= known


def test_table_replaces_what_stood_between_the_markers(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{table.BEGIN}\nwhat stood here\n{table.END}\nafter\n")
    assert table.update_readme(readme, tmp_path / "none.json")
    text = readme.read_text()
    assert (
        text.startswith("before\n")
        and text.endswith("\nafter\n")
        and "what stood here" not in text
        and "C1.hessian" in text
    )
    assert not table.update_readme(readme, tmp_path / "none.json")
