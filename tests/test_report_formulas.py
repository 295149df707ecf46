"""Formulas, the notes and the graph: every formula converts, markup from outside stays out, every claim has its
proof.
"""

import re
from xml.etree import ElementTree

import pytest
import toy
from page_structure import Structure

import theory
from experiments.report import formulas, graph, notes, page

pytestmark = pytest.mark.xdist_group("report")


@pytest.mark.parametrize("claim", theory.CLAIMS, ids=lambda claim: claim.id)
def test_formula_converts(claim):
    for text in (formulas.mathml(claim.latex), formulas.breaking_mathml(claim.latex)):
        assert Structure(text).fetched == []


def test_formula_with_an_unknown_command_is_refused():
    for convert in (formulas.mathml, formulas.breaking_mathml):
        with pytest.raises(ValueError, match="nosuchcommand"):
            convert(r"a \nosuchcommand b")


@pytest.mark.parametrize(
    "latex",
    [
        r"\text{<script>alert(1)</script>}",
        r"a<b",
        r"x\href{javascript:alert(1)}{y}",
        r'\text{" onclick="alert(1)}',
        r"\frac{a",
    ],
)
def test_formula_brings_no_markup_of_its_own(latex):
    """It becomes MathML alone, or is refused in one line."""
    try:
        text = formulas.breaking_mathml(latex)
    except ValueError as error:
        assert "\n" not in str(error)
        return
    structure = Structure(text)
    assert set(structure.tags) <= formulas.ELEMENTS | {"wbr"}
    for _, attributes in structure.attributes:
        assert attributes.keys() <= formulas.ATTRIBUTES | {"alttext"}


def plain(markup):
    """The letters of a formula, in order."""
    return "".join(ElementTree.fromstring(f"<r>{markup}</r>".replace("<wbr>", "")).itertext())


def test_pieces_of_a_formula_are_the_whole_formula():
    latex = r"f(x) \le \bigl(a_1 + a_2 + \dots + a_{17}\bigr) - g(x, y = 2),\qquad |a = b| \ge -c"
    text = formulas.breaking_mathml(latex)
    pieces = str(text).split("<wbr>")
    assert len(pieces) >= 3 and plain(text) == plain(formulas.mathml(latex))
    # Neither within parentheses nor within bars.
    assert not any(re.search(r'^<math[^>]*><mrow><mo form="infix">=', piece) for piece in pieces)
    assert formulas.breaking_mathml("x") == formulas.mathml("x")


@pytest.mark.parametrize(
    ("latex", "pattern"),
    [
        ("s_2''", r"<msubsup><mi>s</mi><mn>2</mn><mrow><mi>′</mi><mi>′</mi></mrow></msubsup>"),
        ("s_1'^2", r"<msubsup><mi>s</mi><mn>1</mn><mrow><mi>′</mi><mn>2</mn></mrow></msubsup>"),
        ("(1,-1)", r'<mo>,</mo><mo form="prefix">−</mo><mn>1</mn>'),
        ("a-1", r"<mi>a</mi><mo>−</mo><mn>1</mn>"),
        ("|a|", r'<mo lspace="0" rspace="0"[^>]*>\|</mo><mi>a</mi>'),
        (r"\big\lvert x\big\rvert", r">\|</mo><mi>x</mi><mo[^>]*>\|"),
    ],
)
def test_primes_signs_and_bars_are_set_as_tex_sets_them(latex, pattern):
    assert re.search(pattern, formulas.mathml(latex)), formulas.mathml(latex)


def test_every_claim_has_its_section():
    """A claim that says it is proved or refuted shows the proof under its id."""
    assert notes.complaints(theory.CLAIMS) == []


def test_a_claim_without_its_section_is_found():
    (line,) = notes.complaints([toy.claim()])
    assert line == "C1.toy is proved, and paper_notes.md has no section `### C1.toy` that shows it"
    assert notes.complaints([toy.claim()], {"C1.toy": "a proof"}) == []
    assert notes.complaints([toy.claim()], {"C1.toy": ""}), "an empty section proves nothing"


def test_sections_end_where_the_next_begins():
    text = "# T\n\nwords\n\n## A\n\na\n\n### B.c\n\nb\n#### deeper\nb2\n\n### D\n"
    assert notes.split(text) == {"A": "a", "B.c": "b\n#### deeper\nb2", "D": ""}


def test_notes_are_markdown_with_formulas_and_nothing_else():
    html = notes.render(
        "**Bold** $a_1$ <script>x</script> [words](https://example.org) ![p](q.png)\n\n$$ a = b $$\n\n| a | b |\n| - | "
        "- |\n| c | d |\n",
        "a test",
    )
    structure = Structure(html)
    assert structure.targets == structure.images == structure.fetched == []
    assert "<strong>Bold</strong>" in html and html.count("<math") == 3 and "&lt;script&gt;" in html and "words" in html
    assert [attributes["scope"] for tag, attributes in structure.attributes if tag == "th"] == ["col", "col", "row"]


def test_formula_in_the_notes_that_has_no_mathml_is_named():
    with pytest.raises(ValueError, match="nosuchcommand"):
        notes.render(r"words $\nosuchcommand$", "a test")


def node(name, *uses, lemmas=(), group="C1"):
    words = {"verdict": "proved", "assurance": "proved and attacked"}
    return {"id": name, "group": group, "relies_on": list(uses), "lemmas": list(lemmas), **words}


def test_graph_puts_what_is_used_to_the_left():
    claims = [
        node("C1.c", "C1.b", "C2.z"),
        node("C1.b", "C1.a", lemmas=["Young <inequality>"]),
        node("C1.a"),
        node("C1.alone"),
    ]
    claims.append(node("C2.z", group="C2"))
    svg = graph.dependency_graph(claims, "C1", {"C1.a": "C1-a"})
    boxes = {}
    for x, words in re.findall(r'<rect x="([\d.]+)".*?<text[^>]*>(.*?)</text>', svg):
        boxes[re.sub("<[^>]*>", " ", words).split()[0]] = float(x)
    assert (
        boxes["C1.a"] < boxes["C1.b"] < boxes["C1.c"]
        and boxes["C2.z"] < boxes["C1.c"]
        and boxes["Young"] < boxes["C1.b"]
    )
    assert "C1.alone" not in boxes and svg.count('class="edge"') == 4
    assert '<a href="#C1-a">' in svg and "<inequality>" not in svg and Structure(svg).fetched == []


def test_graph_of_claims_that_stand_alone_is_empty():
    assert graph.dependency_graph([node("C1.a")], "C1", {}) == ""


def test_graph_refuses_a_circle():
    with pytest.raises(ValueError, match=r"C1\.a -> C1\.b -> C1\.a"):
        graph.dependency_graph([node("C1.a", "C1.b"), node("C1.b", "C1.a")], "C1", {})


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("C_N / m^2", "C<sub>N</sub> / m<sup>2</sup>"),
        ("||F_t|| >= m > 0", "‖F<sub>t</sub>‖ ≥ m &gt; 0"),
        ("up_blocks.1 and <b>", "up_blocks.1 and &lt;b&gt;"),
        ("0 < eta <= sigma_max in theta", "0 &lt; η ≤ σ<sub>max</sub> in θ"),
        ("alphas_cumprod, beta.eta, betas", "alphas_cumprod, β.eta, betas"),
    ],
)
def test_sentences_are_set_as_they_are_read(text, shown):
    assert page.prose(text) == shown


@pytest.mark.parametrize(
    ("latex", "pattern"),
    [
        (
            r"\Bigl(a-1\Bigr)^2",
            r"<msup><mrow><mo[^>]*>\(</mo><mi>a</mi><mo>−</mo><mn>1</mn><mo[^>]*>\)</mo></mrow><mn>2</mn></msup>",
        ),
        (r"\bigl\|x\bigr\|", r">‖</mo><mi>x</mi><mo[^>]*>‖"),
        (
            r"x\sin^2\theta\cos(y)",
            r'<mspace width="0.167em"></mspace><msup><mi>sin</mi><mn>2</mn></msup>'
            r'<mspace width="0.167em"></mspace><mi>θ',
        ),
        (r"A\succeq B", r"<mo [^>]*>⪰</mo>"),
        (r"\sum|y|-2", r"\|</mo><mo>−</mo><mn>2</mn>"),
    ],
)
def test_scripted_parentheses_names_and_orders_are_set_as_tex_sets_them(latex, pattern):
    assert re.search(pattern, formulas.mathml(latex)), formulas.mathml(latex)
