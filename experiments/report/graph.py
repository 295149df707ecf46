"""What rests on what: the claims of a group and the lemmas they use, drawn as inline SVG that needs no script.

Arrows run from what is used to what uses it. A claim stands to the right of everything that it relies on.
"""

import textwrap
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from markupsafe import Markup

from theory.claim import Assurance

WIDTH, GAP_X, GAP_Y, LINE, PADDING = 176, 56, 12, 15, 6
"""Of a box, between boxes, of a line of text and around it, in pixels."""
CHARACTERS = 25
"""That fit a line of a box."""


def _depths(uses: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """The column of each node: 0 for what uses nothing, otherwise one more than the deepest that it uses."""
    depths: dict[str, int] = {}

    def depth(node: str, above: tuple[str, ...] = ()) -> int:
        if node in above:
            raise ValueError(f"{node} relies on itself, through {' -> '.join((*above, node))}")
        if node not in depths:
            depths[node] = 1 + max((depth(other, (*above, node)) for other in uses.get(node, ())), default=-1)
        return depths[node]

    for node in uses:
        depth(node)
    return depths


def _columns(uses: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Nodes by column; within one, in the order of the mean row of what they use, so that few arrows cross."""
    depths = _depths(uses)
    columns: list[list[str]] = [[] for _ in range(max(depths.values(), default=-1) + 1)]
    for node, depth in depths.items():
        columns[depth].append(node)
    rows: dict[str, float] = {}
    for column in columns:
        column.sort(key=lambda node: sum(rows[other] for other in uses.get(node, ())) / max(1, len(uses.get(node, ()))))
        rows |= {node: float(row) for row, node in enumerate(column)}
    return columns


def _lines(name: str, note: str) -> list[str]:
    return [*textwrap.wrap(name, CHARACTERS), *(textwrap.wrap(note, CHARACTERS) if note else [])]


def _box(node: Mapping[str, Any], x: float, y: float, lines: Sequence[str]) -> str:
    height = LINE * len(lines) + 2 * PADDING
    text = "".join(f'<tspan x="{x + PADDING:g}" dy="{LINE}">{escape(line)}</tspan>' for line in lines)
    box = (
        f'<g class="node {node["class"]}"><rect x="{x:g}" y="{y:g}" width="{WIDTH}" height="{height}" rx="5"/>'
        f'<text y="{y + PADDING - 3:g}">{text}</text></g>'
    )
    return f'<a href="#{escape(node["href"])}">{box}</a>' if node["href"] else box


def dependency_graph(claims: Sequence[Mapping[str, Any]], group: str, anchors: Mapping[str, str]) -> Markup:
    """The graph of a group's claims; empty where none relies on anything.

    Args:
        claims: records of all claims that are known, with id, group, verdict, assurance, relies_on and lemmas.
        group: whose claims are drawn, with what they rely on in other groups.
        anchors: claim id -> where a click leads.

    Raises:
        ValueError: a claim relies on itself.
    """
    known = {claim["id"]: claim for claim in claims}
    own = [claim for claim in claims if claim["group"] == group]
    uses: dict[str, list[str]] = {}
    for claim in own:
        uses[claim["id"]] = [*claim["relies_on"], *claim["lemmas"]]
    drawn = {name for names in uses.values() for name in names} | {name for name, names in uses.items() if names}
    if not drawn:
        return Markup("")
    # What stands alone would only fill the picture; the table below it names those too.
    uses = {name: names for name, names in uses.items() if name in drawn}
    for name in sorted(drawn - uses.keys()):
        uses[name] = []
    places, height = {}, 0.0
    for number, column in enumerate(_columns(uses)):
        y = 4.0
        for name in column:
            claim = known.get(name)
            lines = _lines(name, claim["assurance"] if claim else "")
            places[name] = (4 + number * (WIDTH + GAP_X), y, lines)
            y += LINE * len(lines) + 2 * PADDING + GAP_Y
        height = max(height, y)
    width = max(x for x, _, _ in places.values()) + WIDTH + 4
    arrows = "".join(_arrow(places[used], places[name]) for name, names in uses.items() for used in names)
    boxes = "".join(_box(_look(known.get(name), anchors), *place) for name, place in places.items())
    title = f"What the theorems of {group} rest on"
    return Markup(
        f'<svg class="graph" role="img" aria-label="{escape(title)}; the table below says the same" width="{width:g}" '
        f'height="{height:g}" viewBox="0 0 {width:g} {height:g}"><title>{escape(title)}</title>{arrows}{boxes}</svg>'
    )


def _look(claim: Mapping[str, Any] | None, anchors: Mapping[str, str]) -> dict[str, str]:
    if claim is None:
        return {"class": "lemma", "href": ""}
    # A foreign file may hold any text in its place.
    level = claim["assurance"].split()[0] if claim["assurance"] in set(Assurance) else ""
    return {"class": f"claim {level}".strip(), "href": anchors.get(claim["id"], "")}


def _arrow(source: tuple, target: tuple) -> str:
    (x0, y0, lines0), (x1, y1, lines1) = source, target
    start, end = x0 + WIDTH, x1
    y_start = y0 + PADDING + LINE * len(lines0) / 2
    y_end = y1 + PADDING + LINE * len(lines1) / 2
    bend = (end - start) / 2
    return (
        f'<path class="edge" d="M{start:g} {y_start:g}C{start + bend:g} {y_start:g} {end - bend:g} {y_end:g} '
        f'{end - 7:g} {y_end:g}"/>'
        f'<path class="tip" d="M{end:g} {y_end:g}l-8 -4v8z"/>'
    )
