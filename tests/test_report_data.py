"""What the report is made of: outcomes, verdicts by reading, Markdown, CSV, the table of verdicts, figures of the same
bytes twice.
"""

import copy
import csv
import dataclasses
import io
import json
import re
import sys
import types

import numpy as np
import pytest
import synthetic_report
import toy
from synthetic_report import EVIL, outcome

import theory
from experiments.report import audit as auditing
from experiments.report import exports, numbers, outcomes, page, table, terminal, words
from experiments.studies import LADDER, describe, find_study
from experiments.studies.style import redraw, write_figure
from theory import ladder
from theory.claim import Expected, Origin, Outcome, Tells, Tightness, Verdict
from theory.ladder import Rung, RungResult
from theory.readings import PAPER

# In one worker with the other tests of the report, so that it is made once.
pytestmark = pytest.mark.xdist_group("report")


def markdown_rows(text):
    return [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("|")]


def failed(audit):
    """The same audit with a claim that failed."""
    result = copy.deepcopy(audit)
    record = result["claims"][-1]
    record["passed"], record["failures"] = False, ["attack: a | b"]
    result["passed"], result["failures"] = False, [f"{record['id']}: attack: a | b"]
    return result, record["id"]


def sections(text):
    """The rows of each table of a Markdown report, without headings and rules."""
    return {part.split("\n", 1)[0]: markdown_rows(part)[2:] for part in text.split("\n## ")[1:]}


def test_markdown_lists_every_claim_and_failures_first(report):
    audit = report[2]
    text = exports.markdown(audit)
    rows = sections(text)["Every statement"]
    assert len({len(row) for row in rows}) == 1
    assert [row[0].strip() for row in rows] == [record["id"] for record in audit["claims"]]
    assert "FAILED" not in text and EVIL not in text
    readings = sections(text)["The paper's claims, reading by reading"]
    assert len(readings) == sum(1 + len(group["readings"]) for group in audit["paper_claims"])
    broken, name = failed(audit)
    text = exports.markdown(broken)
    assert text.startswith(f"# framebound: {len(audit['claims']) - 1} of {len(audit['claims'])} statements")
    assert rf"- {name}: attack: a \| b" in text and text.index("failed check") < text.index("| Claim |")
    row = sections(text)["Every statement"][0]
    assert row[0].strip() == name and "FAILED" in row[1]


def test_csv_has_a_row_per_claim_in_full_precision(report):
    audit = copy.deepcopy(report[2])
    audit["claims"][0]["file"] = 'a "quoted", name.py'
    audit["claims"][0]["theory"]["measured"] = 1 / 3
    audit["claims"][1]["network"] = None
    audit["claims"][2]["no_network"] = "=HYPERLINK(1)"
    text = exports.claims_csv(audit)
    # RFC 4180: lines end with CR LF, and a quote within a quoted field is doubled.
    assert text.count("\r\n") == text.count("\n") == len(audit["claims"]) + 1
    assert '"a ""quoted"", name.py"' in text
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["id"] for row in rows] == [record["id"] for record in audit["claims"]]
    assert rows[0]["file"] == 'a "quoted", name.py' and float(rows[0]["measured"]) == 1 / 3
    assert rows[1]["network_measured"] == rows[1]["network_ratio"] == rows[1]["network_question"] == ""
    assert rows[2]["no_network"] == "'=HYPERLINK(1)"
    for row, record in zip(rows, audit["claims"], strict=True):
        assert (row["verdict"], row["tightness"], row["seed"]) == (record["verdict"], record["tightness"], "0")
        assert row["group_verdict"] == PAPER[record["group"]].headline()
        for column in ("network", "elsewhere"):
            for name in ("question", "origin", "tells", "expected"):
                assert row[f"{column}_{name}"] == (record[column][name] if record[column] else "")


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
    (tmp_path / "audit.json").write_text(json.dumps({**audit, "format": 1}))
    with pytest.raises(ValueError, match="has format 1; this version reads format 2"):
        page.write_report(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"audit.json", "figures"}


def test_damaged_audit_and_missing_figure(report, tmp_path):
    with pytest.raises(ValueError, match=r"audit\.json is missing"):
        page.write_report(tmp_path)
    (tmp_path / "audit.json").write_text("{")
    with pytest.raises(ValueError, match="is no JSON"):
        page.write_report(tmp_path)
    (tmp_path / "audit.json").write_text(json.dumps(report[2]))
    with pytest.raises(ValueError, match=r"film_strip\.png is missing"):
        page.write_report(tmp_path)


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
    ("first", "second", "shown"),
    [
        (1.0, 2.0, ("1.000000", "2")),
        (4.0, 4.0, ("4", "4")),
        (4.0 + 1e-9, 4.0, ("4.000000001", "4")),
        (1 + 2**-52, 1.0, ("1.0000000000000002", "1")),
    ],
)
def test_numbers_that_differ_read_differently(first, second, shown):
    assert numbers.apart(first, second) == shown


def test_ratio_near_1_is_its_distance_from_1():
    assert (
        numbers.ratio_words(1.0) == "1.000000"
        and numbers.ratio_words("infinity") == "∞"
        and numbers.ratio_words(2.5) == "2.5"
    )
    assert numbers.ratio_words(1 + 2e-10) == "1 + 2.00\u2009×\u200910⁻¹⁰" and numbers.ratio_words(1 - 3e-9).startswith(
        "1 − 3.00"
    )


def evidence(*comparisons):
    """The record of a toy claim that asks these, with what the synthetic evidence answers."""
    claim = toy.claim(reality=comparisons)
    result = RungResult(Rung.REALITY, True, tuple(map(synthetic_report.evidence_of, comparisons)))
    return claim, outcomes.json_rung(claim, result)


@pytest.fixture
def described(monkeypatch):
    """The toy claim is no theorem of a file."""
    monkeypatch.setattr(auditing, "claim_module", lambda chosen: exports)


def asked(origin, tells, expected=Expected.HOLDS, question="a question"):
    return dataclasses.replace(
        toy.TEST, origin=origin, tells=tells, expected=expected, because="a reason", question=question
    )


def test_only_the_network_stands_in_its_column(described):
    """Exact scores and constructed evidence have a column of their own, which says what they are."""
    claim, rung = evidence(
        asked(Origin.CLIP, Tells.TEST), asked(Origin.CONSTRUCTED, Tells.IMPLIED), asked(Origin.NETWORK, Tells.IMPLIED)
    )
    record = auditing.claim_record(claim, [rung])
    assert record["network"]["origin"] == "network" and record["elsewhere"]["origin"] == "clip"
    assert "exact score on the clip" in words.evidence_words(record, "elsewhere")
    assert "implied" in words.evidence_words(record, "network")
    assert [entry["origin"] for entry in record["comparisons"]] == ["clip", "constructed", "network"]


def test_identities_are_listed_and_never_quoted(described):
    claim, rung = evidence(asked(Origin.NETWORK, Tells.IDENTITY))
    record = auditing.claim_record(claim, [rung])
    assert record["network"] is None and record["comparisons"][0]["tells"] == "identity"
    assert "no evidence" in words.evidence_words(record, "network")
    group = auditing.group_record("C1", {claim.id: record})
    assert group["network"] == {"test": {"asked": 0, "passed": 0}, "implied": {"asked": 0, "passed": 0}}
    assert words.group_evidence(group) == "nothing that could tell"


def test_tests_are_quoted_before_what_is_implied(described):
    claim, rung = evidence(asked(Origin.NETWORK, Tells.IMPLIED, Expected.VIOLATED), asked(Origin.NETWORK, Tells.TEST))
    record = auditing.claim_record(claim, [rung])
    assert record["network"]["tells"] == "test" and record["network"]["ratio"] == 0.1


def test_a_declared_violation_says_so(described):
    claim, rung = evidence(asked(Origin.NETWORK, Tells.TEST, Expected.VIOLATED))
    record = auditing.claim_record(claim, [rung])
    assert "violated, as declared" in words.evidence_words(record, "network") and not words.is_vacuous(
        record["network"]
    )
    held = {**record["network"], "passed": False}
    assert "came out otherwise: declared violated, and holds" in words.remark(held)
    assert "FAILED: declared violated, and holds" in words.remark({**held, "tells": "implied"})


def test_claim_that_cannot_speak_of_a_network_says_why():
    record = {"no_network": "It is about numbers.", "network": None, "comparisons": []}
    assert words.evidence_words(record, "network") == "It is about numbers."
    assert words.evidence_words({**record, "elsewhere": None}, "elsewhere") == "nothing was asked"
    assert words.evidence_words({"no_network": "", "network": None, "comparisons": None}, "network") == words.NOT_RUN


def test_a_test_that_no_scrambled_evidence_fails_fails_the_claim(described):
    claim, rung = evidence(asked(Origin.NETWORK, Tells.TEST))
    seen = {"question": "a question", "origin": "network"}
    noticed = auditing.claim_record(
        claim, [rung], [{**seen, "noticed": {"white noise": False, "frames permuted": True}}]
    )
    assert noticed["passed"] and noticed["comparisons"][0]["noticed"] == {"white noise": False, "frames permuted": True}
    unnoticed = auditing.claim_record(claim, [rung], [{**seen, "noticed": {"white noise": False}}])
    assert not unnoticed["passed"] and "calls itself a test" in unnoticed["failures"][0]
    assert auditing.claim_record(claim, [rung])["comparisons"][0]["noticed"] is None


def subset(*ids):
    return synthetic_report.build([theory.find_claim(name) for name in ids])[0]


def test_a_part_of_the_theorems_has_no_verdict_anywhere(tmp_path):
    """`--claim` checks one theorem; the paper's claim is decided by all of them."""
    result = synthetic_report.write(tmp_path / "run", [theory.find_claim("C1.hessian")])
    (group,) = result["paper_claims"]
    needed = len(auditing.deciding_claims(PAPER["C1"].readings))
    assert (group["verdict"], group["checked"], group["needed"]) == (None, 1, needed)
    said = f"no verdict: 1 of {needed} deciding theorems checked"
    page.write_report(tmp_path / "run")
    texts = {name: (tmp_path / "run" / name).read_text(encoding="utf-8") for name in ("report.html", "report.md")}
    for text in texts.values():
        assert said in text and PAPER["C1"].headline() not in text
    assert "It lacks" in texts["report.html"] and "Not checked in this run" in texts["report.md"]
    (row,) = csv.DictReader(io.StringIO(exports.claims_csv(result), newline=""))
    assert (row["group_verdict"], row["group_checked"], row["group_needed"]) == ("", "1", str(needed))
    console = table_text(terminal.summary(result, table.lacking_claims(result)))
    assert said in " ".join(console.split()) and "true after repair with" not in console
    # A reading that one theorem decides alone is decided; one that needs three is not.
    by_name = {reading["name"]: words.reading_decision(reading) for reading in group["readings"]}
    assert by_name["with norms bounded below"].startswith("no decision: 1 of ")
    assert not any(words.reading_constant(reading) for reading in group["readings"] if not reading["complete"])
    assert all(reading["constant"] not in text for text in texts.values() for reading in group["readings"])


def table_text(value):
    from rich.console import Console

    console = Console(width=200, file=io.StringIO(), highlight=False)
    console.print(value)
    return console.file.getvalue()


def test_a_verdict_needs_every_deciding_theorem():
    needed = auditing.deciding_claims(PAPER["C3"].readings)
    whole = subset(*needed)["paper_claims"][0]
    assert whole["verdict"] == PAPER["C3"].headline() and all(reading["complete"] for reading in whole["readings"])
    for left_out in needed:
        (group,) = subset(*(name for name in needed if name != left_out))["paper_claims"]
        assert group["verdict"] is None and group["missing"] == [left_out]


def test_a_stored_run_says_which_claims_it_lacks():
    result = subset("C1.hessian", "C1.stated")
    lacking = table.lacking_claims(result)
    assert len(lacking) == len(theory.CLAIMS) - 2 and not {"C1.hessian", "C1.stated"} & set(lacking)
    assert lacking[0] in exports.markdown(result, lacking).split("##")[0]


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


def test_a_rejection_shows_the_digits_that_differ():
    """A bound that is missed by a rounding and a half reads the same to four digits."""
    claim = toy.claim(bound=1 - 1e-9)
    result = ladder.run_witness(claim)
    assert not result.passed
    rung = outcomes.json_rung(claim, result)
    record = {
        "id": claim.id,
        "title": "t",
        "verdict": "proved",
        "tightness": "attained",
        "rungs": [rung],
        "failures": [],
        "lacks": [],
    }
    text = table_text(terminal.ladder(record))
    assert "0.999999999" in text and "1 + 1.00" in text
    assert page.told_apart(rung["worst"], False)[:2] == ("1", "0.999999999")


def test_what_a_rung_asks_is_said():
    claim = toy.claim()
    assert outcomes.requirement(claim, Rung.WITNESS) == "ratio 1 within the budget"
    assert outcomes.requirement(claim, Rung.ATTACK) == "at most 1 + budget, and at least 0.99"
    assert outcomes.requirement(claim, Rung.NECESSITY) == "every ratio above 1 + budget"
    upper = dataclasses.replace(claim, tightness=Tightness.UPPER, floor=0.0)
    assert (
        outcomes.requirement(upper, Rung.ATTACK)
        == outcomes.requirement(upper, Rung.WITNESS)
        == "every ratio at most 1 + budget"
    )


def every_look():
    """Data for every kind of ladder figure: all verdicts and kinds of evidence, ratios far off the axis, infinite
    ones, and points.
    """
    refuted = next(claim for claim in theory.CLAIMS if claim.verdict is Verdict.REFUTED)
    kinds = [asked(origin, tells, expected) for origin in Origin for tells in Tells for expected in Expected]
    for claim in (toy.claim(reality=tuple(kinds)), refuted):
        record = {name: getattr(claim, name) for name in ("id", "group", "title", "statement")}
        record |= {"verdict": str(claim.verdict), "tightness": str(claim.tightness)}
        rungs = synthetic_report.rungs(claim)
        rungs[0]["ratios"], rungs[1]["worst"]["ratio"] = [1e-300, 1e300], "infinity"
        record["comparisons"] = rungs[-1]["comparisons"]
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
    assert text.count("\n| ") >= len(theory.CLAIMS) + sum(len(paper.readings) for paper in PAPER.values())
    for claim in theory.CLAIMS:
        (row,) = (line for line in text.splitlines() if line.startswith(f"| {claim.id} |"))
        cells = [cell.strip() for cell in row.split(" | ")]
        assert cells[3] == words.NOT_RUN and cells[4] in (words.NOT_RUN, claim.no_network)
    assert "–" not in text.replace(" – ", "")


def test_explanation_holds_statement_hypotheses_proof_and_check():
    for claim in theory.CLAIMS:
        text = terminal.explanation(table.explain_claim(claim.id))
        assert claim.statement in text and claim.latex in text and f"framebound claims --check {claim.id}" in text
        assert all(hypothesis.text in text for hypothesis in claim.hypotheses)
        assert "has no section" not in text and text.count("**") >= 2


def test_file_of_a_claim_is_the_theorem_and_not_a_test_that_imports_it(monkeypatch):
    claim = theory.find_claim("C3.tube")
    stand_in = types.ModuleType("theory.inversion.test_tube")
    stand_in.CLAIM = claim
    monkeypatch.setitem(sys.modules, stand_in.__name__, stand_in)
    assert auditing.describe_claim(claim)["file"] == "theory/inversion/tube.py"
