"""The study of curvature on made-up features: what it records, and a dead pixel that is named and does not stop it."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from experiments.settings import Settings
from experiments.studies import curvature, describe
from experiments.studies.style import write_figure

LAYER = "up_blocks.1.attentions.0.transformer_blocks.0.attn1"
SHAPE = (4, 3, 2, 2)


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    """Without the searches of C1.hessian, whose compilation takes longer than all tests here."""
    sizes = SimpleNamespace(problem=SimpleNamespace(sizes=(None,)))
    monkeypatch.setattr(curvature, "CLAIM", sizes)
    monkeypatch.setattr(curvature.search, "draw", lambda problem, size, seed, count: count)
    monkeypatch.setattr(
        curvature.search, "evaluate", lambda problem, size, count: (np.linspace(0.1, 1, count), np.ones(count))
    )
    for rung in ("attack", "witness"):
        monkeypatch.setattr(curvature, rung, lambda claim, **options: [SimpleNamespace(ratio=1.0)])
    monkeypatch.setattr(curvature, "KINDS", dict(list(curvature.KINDS.items())[-1:]))


def measured(*, dead: tuple[int, int, int] | None = None):
    rng = np.random.default_rng(0)
    arrays, records = {}, []
    for adapter, step, timestep in (
        (False, None, 1),
        (False, None, 501),
        (True, None, 1),
        (True, 0, 501),
        (True, 4, 501),
    ):
        name = f"record{len(records)}"
        images = rng.standard_normal(SHAPE)
        arrays[name] = images.reshape(4, -1)
        stored = step is not None or not adapter
        if stored:
            if dead is not None and len(records) == 1:
                images[dead[0], :, dead[1], dead[2]] = 0
            arrays[f"{name}_pixels"] = images
        records.append(
            {
                "array": name,
                "pixels": f"{name}_pixels" if stored else None,
                "layer": LAYER,
                "timestep": timestep,
                "adapter": adapter,
                "training_step": step,
            }
        )
    context = SimpleNamespace(
        settings=dataclasses.replace(Settings(), study_instances=8),
        inputs={"features": SimpleNamespace(arrays=arrays, values=records)},
        progress=lambda done, total: None,
    )
    return describe(curvature.STUDY, curvature.measure(context))


def test_measured_curvature_lies_between_nothing_and_its_bounds(tmp_path):
    content = measured()
    records = content["data"]["records"]
    assert [record["training_step"] for record in records] == [None, None, None, 0, 4]
    assert [record["pixel"] is None for record in records] == [False, False, True, False, False]
    for record in (*records, *(record["pixel"] for record in records if record["pixel"] is not None)):
        # Lanczos ends within its tolerance of the eigenvalue, on the inside.
        assert 0 < record["upper_curvature"] <= record["certified_upper"]
        assert record["hessian_norm"] <= record["certified_norm"] <= 1.5 * record["bound"]
        assert record["gauss_newton"] > 0
        assert 0 < record["gradient_norm"] <= record["gradient_bound"]
    assert "dead" not in content["caption"]
    write_figure(tmp_path, "curvature", content)
    assert (tmp_path / "curvature.png").stat().st_size > 0


def test_a_dead_pixel_is_named_and_the_rest_is_measured(tmp_path):
    content = measured(dead=(2, 1, 0))
    assert [record["pixel"]["dead"] for record in content["data"]["records"] if record["pixel"]] == [
        [],
        [[2, 1, 0]],
        [],
        [],
    ]
    assert "1 pixels are dead" not in content["caption"]
    assert "up 1.0, timestep 501: frame 2, pixel (1, 0)" in content["caption"]
    assert any(number["name"] == "dead pixels" for number in content["numbers"])
    write_figure(tmp_path, "curvature", content)


def test_figure_without_any_living_pixel(tmp_path):
    content = measured()
    for record in content["data"]["records"]:
        record["pixel"] = None if record["pixel"] is None else {"dead": [[0, 0, 0]]}
    assert "4 pixels are dead" in curvature.caption(content["data"])
    write_figure(tmp_path, "curvature", content)
