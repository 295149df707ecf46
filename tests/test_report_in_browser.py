"""Both reports, on the claims and on a pipeline, in headless Chromium: on a phone, on a desk, in the dark, in print,
and
by keyboard.
"""

import collections
import json
import re
import shutil

import pytest
import synthetic_report
import torch
from chromium import Browser, Page, find_browser
from tiny_pipelines import clip, pixel_pipeline

import theory
from experiments.audit import AuditSettings, audit_pipeline
from experiments.editor import save_pipeline, write_video
from experiments.report import page as reports
from experiments.store import ROOT
from experiments.studies import NAMES

EXECUTABLE = find_browser()
pytestmark = [
    # In one worker, so that one browser serves all.
    pytest.mark.xdist_group("browser"),
    pytest.mark.skipif(EXECUTABLE is None, reason="no Chromium on the PATH; on Debian: apt-get install chromium"),
]

LAYOUTS = {
    "phone": (360, 800, "light"),
    "phone in the dark": (360, 800, "dark"),
    "desk": (1280, 900, "light"),
    "desk in the dark": (1280, 900, "dark"),
}

# Not against window.innerWidth: a phone's window grows with what overflows it.
CONTENT_WIDTH = "document.scrollingElement.scrollWidth"
BROKEN_IMAGES = "[...document.images].filter(i => !(i.complete && i.naturalWidth > 0)).map(i => i.alt)"
# Operators may be invisible and spaces empty; letters, numbers and words may not.
FLAT_FORMULAS = """[...document.querySelectorAll('math, mi, mn, mtext')]
    .filter(e => e.localName == 'math' || e.textContent.trim())
    .filter(e => { const box = e.getBoundingClientRect(); return !(box.width > 0 && box.height > 0) })
    .map(e => e.outerHTML)"""
RAISED_SUBSCRIPTS = """[...document.querySelectorAll('msub')].filter(e => e.getBoundingClientRect().width > 0)
    .filter(e => { const [base, sub] = [...e.children].map(c => c.getBoundingClientRect());
        return sub.height > 0 && !(sub.bottom > base.bottom - 0.5 || sub.top > base.top + 1) })
    .map(e => e.outerHTML)"""
OPEN_ALL = "document.querySelectorAll('details').forEach(e => { e.open = true })"
# A formula, or a box that it is in, that is wider than its box shows.
WIDE_FORMULAS = """[...document.querySelectorAll('.formula, .notes')].filter(e => e.scrollWidth > e.clientWidth + 1)
    .map(e => e.outerHTML.slice(0, 200))"""
DEAD_LINKS = """[...document.links].filter(a => {
        const target = document.getElementById(decodeURIComponent(a.hash.slice(1)));
        return a.pathname != location.pathname || !target || !target.checkVisibility() })
    .map(a => a.href)"""
REPEATED_IDS = """(ids => ids.filter((id, place) => ids.indexOf(id) < place))
    ([...document.querySelectorAll('[id]')].map(e => e.id))"""
SHOWN_CARDS = "[...document.querySelectorAll('article')].filter(a => a.checkVisibility()).map(a => a.id)"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(EXECUTABLE, tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder with a report on every claim, and the figures of the studies that the repository holds."""
    out = tmp_path_factory.mktemp("report") / "run"
    figures = [
        {"name": name, **json.loads((ROOT / "figures" / f"{name}.json").read_text(encoding="utf-8"))} for name in NAMES
    ]
    result = synthetic_report.write(out, theory.CLAIMS, studies=figures)
    for name in NAMES:
        shutil.copy(ROOT / "figures" / f"{name}.png", out / "figures")
    reports.write_report(out)
    return out, result


@pytest.fixture(scope="module")
def audit(run):
    return run[1]


@pytest.fixture(scope="module")
def report(run):
    return run[0] / "report.html"


@pytest.fixture(scope="module")
def pipeline_report(tmp_path_factory):
    """The report of an audit of a pipeline so small that it takes seconds."""
    folder = tmp_path_factory.mktemp("audit")
    save_pipeline(pixel_pipeline(), folder / "pipeline")
    write_video(folder / "clip", clip(4, 16))
    settings = AuditSettings(
        video=str(folder / "clip"),
        pipeline=str(folder / "pipeline"),
        num_steps=4,
        fixed_point_iterations=1,
        num_frames=4,
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        audit_pipeline(settings, folder / "out")
    finally:
        torch.set_num_threads(threads)
    return folder / "out" / "report.html"


@pytest.fixture(scope="module", params=["report", "pipeline_report"])
def file(request):
    """The file of either report."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module", params=LAYOUTS)
def layout(request):
    return LAYOUTS[request.param]


@pytest.fixture(scope="module")
def opened(browser, file, layout):
    """One of the pages in one of the layouts; not to be changed."""
    return Page(browser, file, *layout)


def test_nothing_is_requested_and_nothing_complained_about(opened):
    assert opened.requests() == []
    assert opened.complaints() == []


def test_page_fits_its_window(opened, layout):
    assert opened.evaluate(CONTENT_WIDTH) <= layout[0]


def test_images_are_there(opened):
    assert opened.evaluate("document.images.length") > 0
    assert opened.evaluate(BROKEN_IMAGES) == []


def test_text_of_figures_can_be_read(opened):
    """The labels of a figure, 9 points on a drawing of 200 pixels an inch, are at least 8 pixels high on every
    screen.
    """
    enlargement = opened.evaluate("Math.min(...[...document.images].map(i => i.width / i.naturalWidth))")
    assert 9 / 72 * 200 * enlargement >= 8


def test_formulas_are_laid_out(opened):
    assert opened.evaluate("document.querySelectorAll('math').length") > 0
    assert opened.evaluate(FLAT_FORMULAS) == []


def test_formulas_set_their_subscripts_below_the_line(opened):
    """Without a font for mathematics a browser sets them on the line."""
    assert opened.evaluate(RAISED_SUBSCRIPTS) == []


def test_every_formula_of_every_proof_fits_the_desk_and_the_paper(browser, report):
    """On a phone a formula that has nowhere to break scrolls in its own box."""
    opened = Page(browser, report, *LAYOUTS["desk"])
    opened.evaluate(OPEN_ALL)
    assert opened.evaluate("document.querySelectorAll('.notes math').length") > 1000
    assert opened.evaluate(WIDE_FORMULAS) == []
    on_paper = Page(browser, report, 688, 900)
    on_paper.media(medium="print")
    assert on_paper.evaluate(WIDE_FORMULAS) == []


def test_link_to_a_proof_unfolds_it(browser, report, audit):
    opened = Page(browser, report, *LAYOUTS["desk"])
    name = reports.anchor(audit["claims"][0]["id"])
    hidden = f"!document.querySelector('#proof-{name} > .notes').checkVisibility({{contentVisibilityAuto: true}})"
    height = f"document.querySelector('#proof-{name}').getBoundingClientRect().height"
    folded = opened.evaluate(height)
    opened.evaluate(f"location.hash = 'proof-{name}'")
    assert opened.evaluate(height) > 3 * folded, hidden


def test_links_lead_to_something_visible(opened):
    assert opened.evaluate("document.links.length") > 0
    assert opened.evaluate(DEAD_LINKS) == []
    assert opened.evaluate(REPEATED_IDS) == []


def accessible_names(opened):
    """The names in the accessibility tree, by role."""
    names = collections.defaultdict(list)
    for node in opened.call("Accessibility.getFullAXTree")["nodes"]:
        if not node["ignored"]:
            names[node["role"]["value"]].append(node["name"]["value"])
    return names


def test_screen_reader_finds_landmarks_and_pictures(opened):
    names = accessible_names(opened)
    for landmark in ("navigation", "main", "banner", "contentinfo"):
        assert len(names[landmark]) == 1
    drawings = "document.images.length + document.querySelectorAll('svg.graph').length"
    assert len(names["image"]) == opened.evaluate(drawings) and all(names["image"])


@pytest.mark.parametrize("width", [360, 1280])
def test_screen_reader_finds_the_table(browser, report, audit, width):
    """The accessibility tree keeps rows and headers, on a phone as well, where rows are drawn as blocks."""
    opened = Page(browser, report, width, 800)
    names = accessible_names(opened)
    assert "Verdict and numbers of every claim" in names["table"]
    assert {claim["id"] for claim in audit["claims"]} <= {name.split()[0] for name in names["rowheader"]}
    assert len(names["heading"]) > len(audit["claims"])
    # Every claim has its formula, and every figure of the run is shown once, beside the graphs of what rests on what.
    formulas = "document.querySelectorAll('article > .formula').length"
    assert opened.evaluate(formulas) == len(audit["claims"])
    assert len(names["image"]) == len(audit["figures"]) + opened.evaluate(
        "document.querySelectorAll('svg.graph').length"
    )


def test_figures_lie_on_white_in_either_scheme(opened, layout):
    ground = opened.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 28)"}[layout[2]]
    cards = opened.evaluate("[...document.querySelectorAll('.canvas')].map(e => getComputedStyle(e).backgroundColor)")
    assert set(cards) == {"rgb(255, 255, 255)"}


def test_keyboard_reaches_the_skip_link_first_and_then_the_content(browser, report):
    opened = Page(browser, report, *LAYOUTS["desk"])
    opened.press("Tab", 9)
    assert opened.evaluate("document.activeElement.className") == "skip"
    assert opened.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    assert opened.evaluate("parseFloat(getComputedStyle(document.activeElement).outlineWidth)") >= 2
    opened.press("Enter", 13, "\r")
    assert opened.evaluate("document.activeElement.id") == "content"


def test_filter_shows_what_was_chosen_and_what_a_link_leads_to(browser, report, audit):
    opened = Page(browser, report, *LAYOUTS["desk"])

    def ids(wanted):
        return [reports.anchor(claim["id"]) for claim in audit["claims"] if wanted(claim)]

    assert opened.evaluate(SHOWN_CARDS) == ids(lambda claim: True)
    opened.evaluate("document.getElementById('show-all').focus()")
    opened.press("ArrowRight", 39)
    opened.press("Enter", 13, "\r")
    refuted = ids(lambda claim: claim["verdict"] == "refuted")
    assert 0 < len(refuted) < len(audit["claims"]) and opened.evaluate(SHOWN_CARDS) == refuted
    assert opened.requests() == [] and opened.complaints() == []
    hidden = ids(lambda claim: claim["verdict"] != "refuted")[0]
    opened.evaluate(f"location.hash = '{hidden}'")
    assert set(opened.evaluate(SHOWN_CARDS)) == {*refuted, hidden}
    opened.media(medium="print")
    assert opened.evaluate(SHOWN_CARDS) == ids(lambda claim: True)


def test_print_opens_every_detail_and_leaves_out_what_paper_cannot_do(browser, report):
    opened = Page(browser, report, *LAYOUTS["desk in the dark"])
    closed = "[...document.querySelectorAll('details > :not(summary)')].filter(e => !e.checkVisibility()).length"
    assert opened.evaluate(closed) > 0
    opened.media(medium="print", scheme="dark")
    assert opened.evaluate(closed) == 0
    for name in ("nav", ".filter", ".skip"):
        assert opened.evaluate(f"getComputedStyle(document.querySelector('{name}')).display") == "none"
    assert opened.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    content = opened.pdf()
    assert content.startswith(b"%PDF-")
    # A group of claims begins on a page of its own.
    groups = opened.evaluate("document.querySelectorAll('.group').length")
    assert len(re.findall(rb"/Type\s*/Page\b", content)) > groups


BAD = """<!DOCTYPE html><html lang="en"><title>bad</title>
<img alt="absent" src="http://127.0.0.1:9/absent.png"><p style="width: 500px">wide</p>
<a href="#nowhere">nowhere</a><b id="twice">1</b><i id="twice">2</i>
<math><mi style="display: none">x</mi></math><script>console.log("hello"); missing()</script></html>"""


def test_a_bad_page_is_found_bad(browser, tmp_path):
    """Every check above finds what it looks for."""
    (tmp_path / "bad.html").write_text(BAD)
    opened = Page(browser, tmp_path / "bad.html", *LAYOUTS["phone"])
    assert opened.requests() == ["http://127.0.0.1:9/absent.png"]
    complaints = " ".join(opened.complaints())
    assert "hello" in complaints and "missing is not defined" in complaints
    assert opened.evaluate(CONTENT_WIDTH) > LAYOUTS["phone"][0]
    assert opened.evaluate(BROKEN_IMAGES) == ["absent"]
    assert len(opened.evaluate(FLAT_FORMULAS)) == 2
    assert opened.evaluate(DEAD_LINKS) == [f"{opened.address}#nowhere"]
    assert opened.evaluate(REPEATED_IDS) == ["twice"]
