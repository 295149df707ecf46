"""Foreign results and names: nothing of them is obeyed by a page, a spreadsheet, Markdown or a terminal, and nothing of
them leads outside the folder."""

import csv
import io
import json
import re
from html.parser import HTMLParser

import pytest
import synthetic_report

import theory
from experiments import cli, foreign_json, terminal
from experiments.foreign_json import read_json
from experiments.report import exports
from experiments.report.formulas import mathml
from experiments.report.page import write_report
from experiments.store import ROOT
from theory.claim import Origin

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "&lt;b&gt;",
    "=HYPERLINK(1)",
    "|x|[a](javascript:alert(1))`*_",
    "[red]x[/red]",
    "{{ 7 * 7 }}",
]


class Elements(HTMLParser):
    """The names of a page's elements, and every attribute that could make it do something."""

    def __init__(self):
        super().__init__()
        self.names, self.acting = set(), []

    def handle_starttag(self, tag, attributes):
        self.names.add(tag)
        for name, value in attributes:
            leads = name in ("src", "href", "action", "formaction", "xlink:href", "style", "srcset")
            if name.startswith("on") or (leads and not re.match(r"data:image/png;base64,|#", value or "")):
                self.acting.append((tag, name, value))


@pytest.fixture
def run(tmp_path):
    """A run of one claim, as little as a report can be made of; returns a function that writes it changed."""
    record = synthetic_report.write(tmp_path / "run", [theory.find_claim("C1.stated")])

    def write(change=lambda record: None):
        changed = json.loads(json.dumps(record))
        change(changed)
        (tmp_path / "run" / "audit.json").write_text(json.dumps(changed))
        return tmp_path / "run"

    return write


def every_text(record, text):
    """The record with a text put into every string that its schema leaves free."""
    # The schema says what these are: names, ids, sides and digests of files.
    bound = {"id", "group", "groups", "figure", "expected", "name", "latex", "ratio", "study"}
    bound |= {"tells", "relies_on", "decided_by", "checked", "missing", "claims"}

    def walk(value, key):
        if isinstance(value, dict):
            return {name: walk(entry, name) for name, entry in value.items()}
        if isinstance(value, list):
            return [walk(entry, key) for entry in value]
        # A claim's origin is free, that of a comparison is one of three words.
        is_bound = key in bound or key == "origin" and value in tuple(Origin)
        return text if isinstance(value, str) and not is_bound else value

    return walk(record, "")


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(run, text):
    """In every place at once; and in the file's copy for pull requests and spreadsheets."""

    def change(record):
        changed = every_text(record, text)
        record.clear()
        record.update(changed)

    before, after = Elements(), Elements()
    folder = run()
    write_report(folder)
    before.feed((folder / "report.html").read_text())
    write_report(run(change))
    page = (folder / "report.html").read_text()
    after.feed(page)
    assert after.names <= before.names and after.acting == before.acting == []
    assert "alert(1)</script>" not in page and "49" not in set(re.findall(r">\s*(49)\s*<", page))
    for row in list(csv.reader(io.StringIO((folder / "claims.csv").read_text())))[1:]:
        assert all(not cell or cell[0] not in "=+-@\t\r" or re.fullmatch(r"[-+0-9.e]+", cell) for cell in row), row
    markdown = (folder / "report.md").read_text()
    assert not re.search(r"<\w|(?<!\\)\]\(javascript", markdown)


@pytest.mark.parametrize(
    "latex",
    [
        r"\text{<script>alert(1)</script>}",
        r"\text{</math><img src=x onerror=alert(1)>}",
        r"\href{javascript:alert(1)}{x}",
        r"x\text{&lt;script&gt;}",
        r"\style{background:url(http://a.b)}{x}",
        r"\class{a}{x} \id{b}{y}",
        '"><img src=x>',
        "a<b>c</b>",
        r"\color{red\" onclick=\"alert(1)}{x}",
        r"\operatorname{<svg onload=alert(1)>}",
    ],
)
def test_formula_stays_a_formula(latex):
    try:
        written = str(mathml(latex))
    except ValueError as error:
        assert "formula" in str(error)
        return
    found = Elements()
    found.feed(written)
    assert found.acting == [] and found.names <= {
        "math",
        "mrow",
        "mi",
        "mo",
        "mn",
        "mtext",
        "mstyle",
        "mspace",
        "mpadded",
        "msub",
        "msup",
    }


def test_formulas_that_no_converter_survives():
    for latex in (
        r"\left(",
        r"\frac",
        "{" * 100_000,
        "{" * 60 + "}" * 60,
        "x^" * 500,
        r"\begin{matrix}",
        r"\unknowncommand{x}",
    ):
        with pytest.raises(ValueError, match="the formula"):
            mathml(latex)


def test_own_formulas_are_what_the_converter_made_of_them():
    """Rebuilding drops nothing: the same letters in the same order, for every claim."""
    from html import unescape

    import latex2mathml.converter

    for claim in theory.CLAIMS:
        direct = latex2mathml.converter.convert(claim.latex, display="block")
        # A prime of LaTeX is set as the sign for it, and so are double bars of a given size, which the converter leaves.
        texts = [unescape(re.sub(r"<[^>]*>", "", text)) for text in (direct, str(mathml(claim.latex)))]
        texts = [text.replace("'", "′").replace(r"\|", "‖") for text in texts]
        assert texts[0] == texts[1], claim.id


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/b", "..", "", ".hidden", "a\0b", "a\nb", "x" * 200])
def test_figure_names_are_plain(run, tmp_path, name):
    def change(record):
        record["claims"][0]["figure"] = record["figures"][0]["name"] = name

    with pytest.raises(ValueError, match=r"audit\.json: .*(pattern|figure)"):
        write_report(run(change))


@pytest.mark.parametrize("letter", ["\x1b", "\x07", "\x9b", "\u202e", "\u2066", "\x00", "\u2028", "\x85", "\x7f"])
def test_control_characters_do_not_reach_the_page(run, letter):
    def change(record):
        record["claims"][0]["title"] = f"a{letter}b"
        record["failures"] = [f"a{letter}b"]
        record["claims"][0]["rungs"][0]["worst"]["witness"] = {f"a{letter}b": [1.0]}

    folder = run(change)
    write_report(folder)
    for name in ("report.html", "report.md", "claims.csv"):
        assert letter not in (folder / name).read_bytes().decode()
    assert "a\ufffdb" in (folder / "report.html").read_text()


@pytest.mark.parametrize("text", ["\x1b]0;owned\x07", "a[/red]b", "\x9b2J", "\u202e", ":smile:", "[bold]x"])
def test_control_characters_and_markup_do_not_reach_the_terminal(capsys, text):
    number = {"name": text, "value": text, "kind": text}
    answer = {"question": text, "verdict": "yes", "answer": text, "mend": text, "numbers": [number]}
    terminal.print_answers({"answers": [answer]})
    terminal.say(text)
    terminal.warn(text)
    with terminal.watched() as observer:
        observer.note(text)
        observer.stage("a", text)
    said = "".join(capsys.readouterr())
    said = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", said) if text[0] not in "\x1b\x9b" else said
    assert text not in said or text.isprintable()
    if text.isprintable() and text.isascii():
        assert text in said


class TestForeignJson:
    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"[" * 200_000, "is no JSON"),
            (b"[" * 70 + b"]" * 70, "nested more than 64 deep"),
            (b'{"a": 1e400}', "is no JSON"),
            (b"1" + b"0" * 400, "is no JSON"),
            (b'{"a": NaN}', "is no JSON"),
            (b"\xff\xfe", "is no JSON"),
            (b"", "is no JSON"),
            (b'{"a": "\x1b"}', "is no JSON"),
            (b'{"a": "\\ud800"}', "is no JSON"),
        ],
    )
    def test_what_is_none(self, tmp_path, content, words):
        (tmp_path / "a.json").write_bytes(content)
        with pytest.raises(ValueError, match=words):
            read_json(tmp_path / "a.json", "write it again")

    def test_size_is_looked_at_first(self, tmp_path, monkeypatch):
        with (tmp_path / "a.json").open("wb") as file:
            file.truncate(2**40)
        with pytest.raises(ValueError, match="has 1099511627776 bytes; at most 67108864 are read"):
            read_json(tmp_path / "a.json", "write it again")

    def test_own_results_are_what_json_reads(self):
        path = ROOT / "figures" / "audit.json"
        assert read_json(path, "") == json.loads(path.read_text())

    def test_text_is_left_alone_where_nothing_obeys_it(self):
        text = "λ ≤ 1 – “ö”\n\tx² 日本"
        assert foreign_json.clean_text(text) == text


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("claims", 0, "passed"), "yes"),
        (("claims", 0, "rungs", 0, "worst", "ratio"), "=1"),
        (("claims", 0, "rungs", 0, "worst", "measured"), None),
        (("claims", 0, "rungs", 0, "expected"), "inside"),
        (("claims", 0, "latex"), 3),
        (("claims", 0, "latex"), r"\left("),
        (("claims", 0, "id"), "C1.<b>"),
        (("claims",), {}),
        (("clip", "shape"), [1]),
        (("clip", "shape"), "abcd"),
        (("settings",), []),
        (("settings", "seed"), "=1+1"),
        (("figures", 0, "groups"), []),
        (("versions",), {"numpy": 2}),
        (("failures",), [3]),
        (("weights",), None),
    ],
)
def test_results_of_another_form_are_one_line(run, capsys, path, value):
    """Status 2, the file and the key, and the reports of before untouched."""

    def change(record):
        for key in path[:-1]:
            record = record[key]
        record[path[-1]] = value

    folder = run()
    write_report(folder)
    before = (folder / "report.html").read_bytes()
    assert cli._run(["report", str(run(change))]) == 2
    said = capsys.readouterr().err
    assert said.count("framebound: ") == 1 and ("audit.json" in said or "formula" in said)
    assert (folder / "report.html").read_bytes() == before


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1+2", "@SUM(A1)", "\t=1", "\r=1", " =1", "＝1+1"])
def test_no_cell_starts_a_formula(text):
    assert exports._cell(text) == f"'{text}"
    assert exports._cell("C1.stated") == "C1.stated" and exports._cell(-1.5) == -1.5
