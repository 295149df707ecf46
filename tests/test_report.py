"""The report: self-contained, valid, complete, escaped; figures of the same bytes twice; formulas that convert."""

import copy
import csv
import html.parser
import io
import itertools
import json
import re
import sys
import types

import numpy as np
import pytest
import toy

import theory
from experiments.report import audit as auditing
from experiments.report import exports, numbers, outcomes, page, table
from experiments.studies import LADDER, describe, find_study
from experiments.studies.style import redraw, write_figure
from theory import ladder
from theory.claim import Outcome, Verdict
from theory.ladder import Rung, RungResult

VOID = {"meta", "img", "br", "link", "input", "hr", "wbr"}
EVIL = '<script>alert("x")</script>'


def outcome(label, ratio):
    return Outcome(label, ratio, 1.0, 1e-15, seed=3, witness={"frames": np.eye(2), "large": np.zeros(100)})


def synthetic_rungs(claim):
    """A ladder as it would come out for a claim that passes, without climbing it."""
    ratios = {outcomes.BELOW: 0.5, outcomes.ABOVE: 2.0, outcomes.RECORDED: 0.1}
    return [
        outcomes.json_rung(
            claim, RungResult(rung, True, (outcome(f"{rung} {EVIL}", ratios[outcomes.expected_side(claim, rung)]),))
        )
        for rung in Rung
    ]


# In one worker, so that the report is made once.
pytestmark = pytest.mark.xdist_group("report")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A report on every claim, its folder, and the audit."""
    out = tmp_path_factory.mktemp("report")
    records, drawings = [], []
    for claim in theory.CLAIMS:
        rungs = synthetic_rungs(claim)
        records.append({**auditing.claim_record(claim, rungs), "figure": f"claim_{claim.id}"})
        drawings.append((f"claim_{claim.id}", describe(find_study(LADDER), auditing.figure_data(records[-1], rungs))))
    strip = {
        "groups": ["C1", "C2", "C3"],
        "caption": "strip",
        "alt": "strip",
        "numbers": [{"name": "norm", "value": 0.25, "kind": "measured", "group": "C1"}],
    }
    run = {
        "settings": {"profile": "small", "seed": 0},
        "versions": {"python": "3"},
        "device": "cpu",
        "weights": "0" * 64,
        "clip": {"name": EVIL, "shape": [3, 16, 16, 3], "sha256": "0" * 64, "source_prompt": "a", "target_prompt": "b"},
    }
    figures = [{"name": "film_strip", **strip}, *({"name": name, **content} for name, content in drawings)]
    result = auditing.build_audit(records, figures, run)
    (out / "figures").mkdir()
    # One drawing stands for all: what is tested here is the page.
    write_figure(out / "figures", drawings[0][0], drawings[0][1])
    picture = (out / "figures" / f"{drawings[0][0]}.png").read_bytes()
    for figure in figures:
        (out / "figures" / f"{figure['name']}.png").write_bytes(picture)
    (out / "audit.json").write_text(json.dumps(result))
    written = page.write_report(out)
    assert [path.name for path in written] == ["report.html", "report.md", "claims.csv"]
    return written[0].read_text(encoding="utf-8"), out, result


class Structure(html.parser.HTMLParser):
    """Checks that every element that opens closes in order, and collects what a browser would fetch and jump to."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.fetched, self.ids, self.targets, self.images = [], [], [], [], []
        self.tags, self.attributes = [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append(tag)
        self.attributes.append((tag, attributes))
        if tag not in VOID:
            self.open.append(tag)
        self.fetched += [attributes[name] for name in ("src", "srcset", "data", "poster") if name in attributes]
        if tag in ("link", "script", "iframe", "object"):
            self.fetched.append(f"<{tag}>")
        if "id" in attributes:
            self.ids.append(attributes["id"])
        if tag == "a":
            self.targets.append(attributes["href"])
        if tag == "img":
            self.images.append(attributes)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()


def test_structure_is_balanced_and_nothing_is_fetched(report):
    structure = Structure(report[0])
    assert structure.fetched and all(address.startswith("data:image/png;base64,") for address in structure.fetched)
    style = re.search(r"<style>(.*?)</style>", report[0], re.DOTALL).group(1)
    assert "url(" not in style and "@import" not in style


def test_links_lead_somewhere(report):
    structure = Structure(report[0])
    assert len(set(structure.ids)) == len(structure.ids)
    assert {target[1:] for target in structure.targets if target.startswith("#")} <= set(structure.ids)
    assert all(target.startswith("#") for target in structure.targets)


def test_every_picture_has_an_alternative_text(report):
    assert all(image["alt"].strip() for image in Structure(report[0]).images)


def test_every_claim_is_there_with_file_test_and_figure(report):
    text, _, audit = report
    assert {record["id"] for record in audit["claims"]} == {claim.id for claim in theory.CLAIMS}
    for record in audit["claims"]:
        assert f'id="{page.anchor(record["id"])}"' in text
        assert f'id="figure-{page.anchor(record["figure"])}"' in text
        assert record["file"] in text and record["verdict"] in text
    for group in ("C1", "C2", "C3"):
        assert f'id="paper-{group}"' in text


def test_headings_descend_by_one_level(report):
    levels = [int(tag[1]) for tag in Structure(report[0]).tags if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1 and levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert levels.count(3) == len(theory.CLAIMS)


def test_landmarks_skip_link_and_language(report):
    structure = Structure(report[0])
    for tag in ("header", "nav", "main", "footer", "h1"):
        assert structure.tags.count(tag) == 1
    assert ("html", {"lang": "en"}) in structure.attributes
    # The first thing that the keyboard reaches.
    assert structure.targets[0] == "#content"
    assert next(attributes for tag, attributes in structure.attributes if tag == "main")["id"] == "content"
    regions = [attributes for tag, attributes in structure.attributes if tag in ("section", "article")]
    labels = [attributes.get("aria-labelledby") for attributes in regions]
    assert labels and set(labels) <= set(structure.ids)


def test_tables_have_captions_and_headers(report):
    tables = re.findall(r"<table.*?</table>", report[0], re.DOTALL)
    assert tables
    for text in tables:
        structure = Structure(text)
        assert structure.tags[1] == "caption"
        headers = [attributes["scope"] for tag, attributes in structure.attributes if tag == "th"]
        assert headers.count("col") >= 3 and headers.count("row") >= 1


def test_whatever_scrolls_is_reached_by_the_keyboard_and_has_a_name(report):
    style = re.search(r"<style>(.*?)</style>", report[0], re.DOTALL).group(1)
    scrolling = {
        name
        for rule in re.findall(r"([^{}]+)\{[^{}]*overflow-x: auto[^{}]*\}", style)
        for name in re.findall(r"\.(\w+)", rule)
    }
    assert scrolling == {"canvas", "formula", "scroll"}
    boxes = [
        attributes for tag, attributes in Structure(report[0]).attributes if attributes.get("class") in scrolling
    ]
    assert boxes
    assert all(box["tabindex"] == "0" and box["role"] == "group" and box["aria-label"] for box in boxes)


def schemes():
    """The colours of each scheme, by name."""
    style = (page.Path(page.__file__).parent / page.STYLE).read_text(encoding="utf-8")
    light, dark, printed = (
        dict(re.findall(r"--(\w+): (#\w+)", block)) for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    )
    return {"light": light, "dark": {**light, **dark}, "print": {**light, **printed}}


def luminance(colour):
    """Relative luminance as WCAG 2.2 defines it."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    channels = [int(digits[start : start + 2], 16) / 255 for start in (0, 2, 4)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first, second):
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_contrast_formula():
    assert contrast("#000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#fff") == pytest.approx(4.478, abs=1e-3)


@pytest.mark.parametrize("scheme", ["light", "dark", "print"])
def test_text_has_contrast(scheme):
    """At least 4.5 (WCAG 2.2, level AA) for every colour of text on either ground."""
    colours = schemes()[scheme]
    grounds = ("ground", "raised")
    texts = sorted(colours.keys() - {*grounds, "line"})
    assert {"text", "muted", "link", "proved", "repaired", "refuted", "mixed", "open", "failed"} == set(texts)
    found = {(text, ground): contrast(colours[text], colours[ground]) for text in texts for ground in grounds}
    assert min(found.values()) >= 4.5, min(found.items(), key=lambda item: item[1])


def test_every_colour_is_one_of_the_scheme(report):
    """No text has a colour that the contrast test does not see."""
    style = re.search(r"<style>(.*?)</style>", report[0], re.DOTALL).group(1)
    colours = re.findall(r"(?<![-\w])color: ([^;}]+)", re.sub(r":root \{.*?\}", "", style, flags=re.DOTALL))
    assert colours and all(re.fullmatch(r"var\(--\w+\)", colour) for colour in colours)
    assert not any("style" in attributes for _, attributes in Structure(report[0]).attributes)


def test_witness_is_shown_in_full_precision():
    witness = {
        "frames": [[0.1, 1 / 3], [2.0, -1e-300]],
        "epsilon": 0.1,
        "batch": [[[1.0], [2.0]]],
        "large": {"shape": [8, 100], "dtype": "float64", "sha256": "a" * 64},
    }
    assert page.witness_text(witness) == (
        "frames = [\n  [0.1, 0.3333333333333333],\n  [2.0, -1e-300]\n]\n"
        "epsilon = 0.1\n"
        "batch = [\n  [\n    [1.0],\n    [2.0]\n  ]\n]\n"
        "large = array of 8 × 100 float64, SHA-256 aaaaaaaaaaaaaaaa.."
    )


def test_filter_counts_what_it_shows(report):
    text, _, audit = report
    for word, name in (("proved", "proved"), ("proved after repair", "repaired"), ("refuted", "refuted")):
        number = sum(record["verdict"] == word for record in audit["claims"])
        cards = [
            attributes
            for tag, attributes in Structure(text).attributes
            if tag == "article" and attributes["data-verdict"] == name
        ]
        assert len(cards) == number
        assert re.search(rf'id="show-{name}"[^<]*<span class="muted">\({number}\)', text)
    assert 'id="show-failed"' not in text, "there is nothing to show"


def failed(audit):
    """The same audit with a claim that failed."""
    result = copy.deepcopy(audit)
    record = result["claims"][-1]
    record["passed"], record["failures"] = False, ["attack: a | b"]
    result["passed"], result["failures"] = False, [f"{record['id']}: attack: a | b"]
    return result, record["id"]


def test_failed_claim_can_be_filtered_out(report):
    audit, name = failed(report[2])
    text = page.render(audit, report[1] / "figures")
    assert re.search(r'id="show-failed"[^<]*<span class="muted">\(1\)', text)
    assert re.search(rf'<article class="card" id="{page.anchor(name)}"[^>]*data-passed="no"', text)
    assert 'role="alert"' in text and "checks failed" not in text and "1 check failed" in text


def markdown_rows(text):
    return [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("|")]


def test_markdown_lists_every_claim_and_failures_first(report):
    audit = report[2]
    rows = markdown_rows(exports.markdown(audit))
    assert len({len(row) for row in rows}) == 1
    names = [row[0].strip() for row in rows[2 + len(audit["paper_claims"]) :]]
    assert names == [record["id"] for record in audit["claims"]]
    assert "FAILED" not in exports.markdown(audit) and EVIL not in exports.markdown(audit)
    broken, name = failed(audit)
    text = exports.markdown(broken)
    assert text.startswith(f"# framebound: {len(audit['claims']) - 1} of {len(audit['claims'])} verdicts")
    assert rf"- {name}: attack: a \| b" in text and text.index("failed check") < text.index("| Claim |")
    row = markdown_rows(text)[2 + len(audit["paper_claims"])]
    assert row[0].strip() == name and "FAILED" in row[1]


def test_csv_has_a_row_per_claim_in_full_precision(report):
    audit = copy.deepcopy(report[2])
    audit["claims"][0]["file"] = 'a "quoted", name.py'
    audit["claims"][0]["theory"]["measured"] = 1 / 3
    audit["claims"][1]["network"] = None
    text = exports.claims_csv(audit)
    # RFC 4180: lines end with CR LF, and a quote within a quoted field is doubled.
    assert text.count("\r\n") == text.count("\n") == len(audit["claims"]) + 1
    assert '"a ""quoted"", name.py"' in text
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["id"] for row in rows] == [record["id"] for record in audit["claims"]]
    assert rows[0]["file"] == 'a "quoted", name.py' and float(rows[0]["measured"]) == 1 / 3
    assert rows[1]["network_measured"] == rows[1]["network_ratio"] == ""
    for row, record in zip(rows, audit["claims"], strict=True):
        assert (row["verdict"], row["tightness"], row["seed"]) == (record["verdict"], record["tightness"], "0")


def test_all_three_files_are_written_or_none(report, tmp_path):
    _, out, audit = report
    assert {"report.html", "report.md", "claims.csv"} <= {path.name for path in out.iterdir()}
    assert (out / "claims.csv").read_bytes() == exports.claims_csv(audit).encode()
    damaged = copy.deepcopy(audit)
    del damaged["claims"][0]["tightness"]
    (tmp_path / "figures").symlink_to(out / "figures")
    (tmp_path / "audit.json").write_text(json.dumps(damaged))
    with pytest.raises(ValueError, match="tightness"):
        page.write_report(tmp_path)
    (tmp_path / "audit.json").write_text(json.dumps([1]))
    with pytest.raises(ValueError, match=r"no audit\.json that this version reads"):
        page.write_report(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"audit.json", "figures"}


def test_text_from_outside_is_escaped(report):
    assert EVIL not in report[0]
    assert "&lt;script&gt;" in report[0]


def test_damaged_audit_and_missing_figure(report, tmp_path):
    with pytest.raises(ValueError, match=r"audit\.json is missing"):
        page.write_report(tmp_path)
    (tmp_path / "audit.json").write_text("{")
    with pytest.raises(ValueError, match="is no JSON"):
        page.write_report(tmp_path)
    (tmp_path / "audit.json").write_text(json.dumps(report[2]))
    with pytest.raises(ValueError, match=r"film_strip\.png is missing"):
        page.write_report(tmp_path)


@pytest.mark.parametrize("claim", theory.CLAIMS, ids=lambda claim: claim.id)
def test_formula_converts(claim):
    structure = Structure(page.mathml(claim.latex))
    assert structure.fetched == []


def test_formula_with_an_unknown_command_is_refused():
    with pytest.raises(ValueError, match="nosuchcommand"):
        page.mathml(r"a \nosuchcommand b")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (None, "–"),
        ("infinity", "∞"),
        (12, "12"),
        (0.123456, "0.1235"),
        (1.0000004, "1.000000"),
        (0.9991, "0.999100"),
        (9999.7, "10000"),
        (-44791.2, "-44791"),
        (123456.0, "1.23\u2009×\u200910⁵"),
        (-2.5e-7, "-2.50\u2009×\u200910⁻⁷"),
    ],
)
def test_short_numbers(value, text):
    assert numbers.short_number(value) == text


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([], "open"),
        (["proved"], "proved"),
        (["refuted"], "refuted"),
        (["proved", "proved after repair"], "proved after repair"),
        (["refuted", "proved"], "refuted as stated, proved after repair"),
    ],
)
def test_group_verdicts(verdicts, expected):
    assert auditing.group_verdict(verdicts) == expected


def test_deciding_outcome_is_the_one_nearest_to_contradiction():
    claim = toy.claim()
    below = outcomes.json_rung(claim, RungResult(Rung.ATTACK, True, (outcome("a", 0.3), outcome("b", 0.9))))
    above = outcomes.json_rung(claim, RungResult(Rung.NECESSITY, True, (outcome("a", 5.0), outcome("b", 1.1))))
    assert (below["worst"]["label"], above["worst"]["label"]) == ("b", "b")


def test_witness_is_listed_when_small_and_digested_when_large():
    witness = outcomes.json_witness({"frames": np.eye(2), "large": np.zeros(100)})
    assert witness["frames"] == [[1.0, 0.0], [0.0, 1.0]]
    assert witness["large"]["shape"] == [100] and len(witness["large"]["sha256"]) == 64


def test_ratio_that_is_infinite_is_written_as_a_word():
    assert outcomes.json_outcome(Outcome("x", 1.0, 0.0, 1e-15))["ratio"] == "infinity"


def test_ladder_of_a_toy_claim_is_described_truly():
    """The rungs in the audit are those that the ladder climbed, for a true claim and for one with a false bound."""
    for bound, passed in ((1.0, True), (0.9, False)):
        claim = toy.claim(bound=bound)
        rungs = [outcomes.json_rung(claim, result) for result in ladder.verify(claim)]
        assert all(rung["passed"] for rung in rungs) == passed


def every_look():
    """Data for every kind of ladder figure: all verdicts, ratios far off the axis, infinite ones, and single points."""
    refuted = next(claim for claim in theory.CLAIMS if claim.verdict is Verdict.REFUTED)
    for claim in (toy.claim(), refuted):
        record = {name: getattr(claim, name) for name in ("id", "group", "title", "statement")}
        record |= {"verdict": str(claim.verdict), "tightness": str(claim.tightness)}
        rungs = synthetic_rungs(claim)
        rungs[0]["ratios"], rungs[1]["worst"]["ratio"] = [1e-300, 1e300], "infinity"
        rungs[2]["ratios"] = list(np.geomspace(1e-6, 1, 256))
        yield describe(find_study(LADDER), auditing.figure_data(record, rungs))


def test_figures_are_the_same_bytes_twice_and_redrawn(tmp_path):
    for number, content in enumerate(every_look()):
        for folder in ("a", "b"):
            (tmp_path / folder).mkdir(exist_ok=True)
            write_figure(tmp_path / folder, f"figure{number}", content)
    files = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()} == files
    for path in (tmp_path / "a").glob("*.p*"):
        path.unlink()
    assert redraw(tmp_path / "a") == sorted(name.removesuffix(".json") for name in files if name.endswith(".json"))
    assert {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()} == files
    assert all(b"/CreationDate" not in content for name, content in files.items() if name.endswith(".pdf"))


def test_table_marks_what_has_not_been_measured():
    text = table.verdict_table(None)
    assert text.count("\n| ") >= len(theory.CLAIMS)
    assert "| – | – |" in text


def test_file_of_a_claim_is_the_theorem_and_not_a_test_that_imports_it(monkeypatch):
    claim = theory.find_claim("C3.tube")
    stand_in = types.ModuleType("theory.inversion.test_tube")
    stand_in.CLAIM = claim
    monkeypatch.setitem(sys.modules, stand_in.__name__, stand_in)
    assert auditing.describe_claim(claim)["file"] == "theory/inversion/tube.py"
