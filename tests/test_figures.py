"""The figures: the same bytes in another process, vector graphics with text as text, colours that all can tell apart."""

import itertools
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import synthetic_report

import theory
from experiments.store import ROOT, canonical_json
from experiments.studies import NAMES, style

# In one worker, so that they are drawn once.
pytestmark = pytest.mark.xdist_group("figures")

LADDERS = ("C1.hessian", "C1.stated")
"""One of a claim that holds, one of a claim that is refuted."""


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Two folders of the same figures, each drawn by a process that hashes strings in its own way."""
    folders = []
    for seed in ("1", "2"):
        folder = tmp_path_factory.mktemp("drawn")
        for name in NAMES:
            shutil.copy(ROOT / "figures" / f"{name}.json", folder)
        _, drawings = synthetic_report.build([theory.find_claim(name) for name in LADDERS])
        for name, content in drawings:
            (folder / f"{name}.json").write_text(canonical_json(content), encoding="utf-8")
        script = f"import pathlib; from experiments.studies.style import redraw; redraw(pathlib.Path({str(folder)!r}))"
        subprocess.run(
            [sys.executable, "-c", script],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed},
            check=True,
        )
        folders.append(folder)
    return folders


@pytest.mark.parametrize("suffix", [".pdf", ".png", ".json"])
def test_bytes_are_the_same_in_another_process(drawn, suffix):
    first, second = ({path.name: path.read_bytes() for path in folder.glob(f"*{suffix}")} for folder in drawn)
    assert len(first) == len(NAMES) + len(LADDERS)
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


@pytest.mark.parametrize("name", [*NAMES, *(f"claim_{claim}" for claim in LADDERS)])
def test_pdf_is_vector_graphics_with_its_fonts(drawn, name):
    content = (drawn[0] / f"{name}.pdf").read_bytes()
    assert b"/FontFile2" in content, "text is drawn as outlines, which nobody can search or select"
    shows_frames = name in ("film_strip", "reconstruction", "bilateral")
    assert (b"/Subtype /Image" in content) == shows_frames, "only the frames of a video are pixels"


# Machado, Oliveira and Fernandes, IEEE TVCG 15 (2009): how colours look without one of the three kinds of cone, in
# linear RGB.
BLINDNESS = {
    "none": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
SRGB_TO_XYZ = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
NOTICEABLE = 2.3
"""The just noticeable difference in CIELAB (Mahy et al., Color Research and Application 19, 1994)."""


def lab(colour, blindness):
    """CIELAB coordinates of "#rrggbb" as somebody with this blindness sees it."""
    srgb = np.array([int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)])
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.asarray(BLINDNESS[blindness]) @ linear, 0, 1)
    white = np.asarray(SRGB_TO_XYZ).sum(axis=1)
    ratio = np.asarray(SRGB_TO_XYZ) @ seen / white
    x, y, z = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def least_difference(colours, blindness):
    return min(
        np.linalg.norm(lab(first, blindness) - lab(second, blindness))
        for first, second in itertools.combinations(colours, 2)
    )


PALETTE = (style.BLUE, style.ORANGE, style.GREEN, style.VERMILLION, style.PURPLE, style.SKY, style.BLACK)


@pytest.mark.parametrize("blindness", BLINDNESS)
def test_colours_can_be_told_apart(blindness):
    """Five times the difference that is just noticed side by side, since in a figure they lie apart."""
    assert least_difference((*PALETTE, "#ffffff"), blindness) >= 5 * NOTICEABLE


def test_colours_that_cannot_be_told_apart_are_found():
    """A red and a green of equal lightness differ for most people and not without the cones for red or green."""
    pair = ("#c03030", "#5f7a00")
    assert least_difference(pair, "none") >= 20 * NOTICEABLE
    assert least_difference(pair, "deuteranopia") < 5 * NOTICEABLE
