"""The report: self-contained, valid, complete, escaped, reached by keyboard, with contrast."""

import copy
import itertools
import re

import pytest
from page_structure import Structure
from synthetic_report import EVIL

import theory
from experiments.report import notes, page, sources
from theory.readings import PAPER

# In one worker with the other tests of the report, so that it is made once.
pytestmark = pytest.mark.xdist_group("report")


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
    ids = set(Structure(text).ids)
    for record in audit["claims"]:
        assert f'id="{page.anchor(record["id"])}"' in text
        assert f'id="figure-{page.anchor(record["figure"])}"' in text
        assert record["verdict"] in text
        # The places that a card names are on the page itself.
        assert {f"proof-{page.anchor(record['id'])}", f"file-{page.anchor(record['file'])}"} <= ids
        assert record["own_test"] is None or f"file-{page.anchor(record['own_test'])}" in ids
    assert "file-theory-test-ladder-py" in ids
    for group in ("C1", "C2", "C3"):
        assert f'id="paper-{group}"' in text


def test_headings_descend_by_one_level(report):
    levels = [int(tag[1]) for tag in Structure(report[0]).tags if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1 and levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    # One for each claim, and one for what the theorems of each group rest on.
    assert levels.count(3) == len(theory.CLAIMS) + len(report[2]["paper_claims"])


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
        assert headers.count("col") >= 2 and headers.count("row") >= 1


def test_whatever_scrolls_is_reached_by_the_keyboard_and_has_a_name(report):
    style = re.search(r"<style>(.*?)</style>", report[0], re.DOTALL).group(1)
    scrolling = {
        name
        for rule in re.findall(r"([^{}]+)\{[^{}]*overflow-x: auto[^{}]*\}", style)
        for name in re.findall(r"\.(\w+)", rule)
    }
    assert scrolling == {"canvas", "formula", "scroll"}
    boxes = [attributes for tag, attributes in Structure(report[0]).attributes if attributes.get("class") in scrolling]
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


def test_text_from_outside_is_escaped(report):
    assert EVIL not in report[0]
    assert "&lt;script&gt;" in report[0]


def test_letters_and_wording_stand_before_the_first_verdict(report):
    """A reader who has not read the code knows L, N and m and where the paper's wording is known from before any
    decision.
    """
    text, _, audit = report
    first = text.index('class="verdict')
    for anchor in ('id="symbols"', 'id="wording"'):
        assert text.index(anchor) < first
    assert "Nobody here has seen the paper's full text" in text[:first]
    assert (
        'alttext="L(F) = ' in text[:first]
        and "number of frames" in text[:first]
        and "A lower and an upper bound" in text[:first]
    )
    for group in audit["paper_claims"]:
        assert str(page.prose(group["known_from"])) in text[:first]


def test_no_claim_of_the_paper_is_called_refuted(report):
    """Its wording has not been seen: what is decided are readings, and the headline names them."""
    for group in report[2]["paper_claims"]:
        assert "refuted" not in group["verdict"] and group["verdict"] == PAPER[group["id"]].headline()
        decisions = {reading["decision"] for reading in group["readings"]}
        assert decisions <= {"true", "true after repair", "false", "open"}


def test_every_proof_is_on_the_page_with_its_formulas(report):
    text = report[0]
    for name in (claim.id for claim in theory.CLAIMS if claim.id in notes.sections()):
        proof = re.search(
            rf'<details class="proof" id="proof-{page.anchor(name)}">(.*?)</details>', text, re.DOTALL
        ).group(1)
        assert "<p>" in proof and "<math" in proof and "$" not in re.sub(r'alttext="[^"]*"', "", proof)


def test_a_recorded_bound_far_above_is_called_vacuous(report):
    """And one that is declared to be broken is not."""
    audit = copy.deepcopy(report[2])
    record = next(record for record in audit["claims"] if record["network"])
    record["network"] |= {"ratio": 9e-4, "measured": 9e-4, "expected": "holds"}
    text = page.render(audit, report[1] / "figures")
    card = re.search(rf'<article class="card" id="{page.anchor(record["id"])}".*?</article>', text, re.DOTALL).group(0)
    assert "holds, vacuous" in card
    record["network"] |= {"expected": "violated"}
    text = page.render(audit, report[1] / "figures")
    card = re.search(rf'<article class="card" id="{page.anchor(record["id"])}".*?</article>', text, re.DOTALL).group(0)
    assert (
        "vacuous"
        not in re.sub("<details.*?</details>", "", card, flags=re.DOTALL).split("<dl class")[1].split("</dl>")[0]
    )


def test_refuted_statements_show_the_family(report):
    text = report[0]
    refuted = [claim for claim in theory.CLAIMS if claim.verdict == "refuted"]
    assert refuted
    for claim in refuted:
        card = re.search(rf'<article class="card" id="{page.anchor(claim.id)}".*?</article>', text, re.DOTALL).group(0)
        assert "the family" in card and "every drawn member of a family breaks it" in card


def test_path_from_a_foreign_audit_is_not_opened(report):
    audit = copy.deepcopy(report[2])
    audit["claims"][0]["file"] = "pyproject.toml"
    assert "requires-python" not in page.render(audit, report[1] / "figures")


def test_machine_checked_proof_is_a_link_to_its_text(report):
    """Where this version's claim names the file; a file that only a foreign audit names is not opened."""
    named = sources.formal_files("theory/formal/Inner.v, theorem a: all of it; ../theory/formal/x.py")
    assert named == ["theory/formal/Inner.v"]
    audit = copy.deepcopy(report[2])
    audit["claims"][0]["formal"] = "theory/formal/NoSuch.v, theorem x: all of it"
    text = page.render(audit, report[1] / "figures")
    assert "<dt>Machine-checked</dt>" in text and 'id="file-theory-formal-NoSuch-v"' not in text
    for claim in theory.CLAIMS:
        for file in sources.formal_files(claim.formal):
            assert f'id="file-{page.anchor(file)}"' in report[0]
