"""Strict numerics and hypothesis profiles for the theorems, and the real network's evidence.

This is the only place in theory/ that knows of the editor.
"""

import os

import hypothesis
import jax
import pytest

import theory  # noqa: F401  switches JAX to 64 bits
from theory.compilation import keep_compiled_programs

jax.config.update("jax_numpy_rank_promotion", "raise")
keep_compiled_programs()

hypothesis.settings.register_profile("small", max_examples=25, deadline=None, derandomize=True, database=None)
hypothesis.settings.register_profile("full", max_examples=500, deadline=None, derandomize=False, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("FRAMEBOUND_PROFILE", "small"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.environ.get("FRAMEBOUND_PROFILE", "small") == "full":
        return
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason="takes more than a minute; set FRAMEBOUND_PROFILE=full to run it"))


@pytest.fixture(scope="session")
def editor():
    """The shipped editor in float64, with a freshly initialised adapter."""
    from experiments.editor import load_editor

    import torch

    return load_editor(dtype=torch.float64)


@pytest.fixture(scope="session")
def evidence(editor):
    """What the editor records on held-out frames of a real clip, once for all claims."""
    from experiments.editor.evidence import default_evidence

    return default_evidence(editor)
