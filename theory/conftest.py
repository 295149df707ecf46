"""Strict numerics and hypothesis profiles for the theorems, and the real network's evidence.

This is the only place in theory/ that knows of the editor.
"""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers share the cores between them; torch reads this once, when it is first imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import jax
import pytest

import theory  # noqa: F401  switches JAX to 64 bits
from theory.compilation import compile_for_one_use, keep_compiled_programs, release_compiled_programs

jax.config.update("jax_numpy_rank_promotion", "raise")
keep_compiled_programs()
compile_for_one_use()

hypothesis.settings.register_profile("small", max_examples=25, deadline=None, derandomize=True, database=None)
hypothesis.settings.register_profile("full", max_examples=500, deadline=None, derandomize=False, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("FRAMEBOUND_PROFILE", "small"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    full = os.environ.get("FRAMEBOUND_PROFILE", "small") == "full"
    for item in items:
        if item.get_closest_marker("slow") and not full:
            item.add_marker(pytest.mark.skip(reason="takes more than a minute; set FRAMEBOUND_PROFILE=full to run it"))
        if item.get_closest_marker("xdist_group") is None:
            # A file's tests share compiled programs and fixtures, so one worker takes them all.
            item.add_marker(pytest.mark.xdist_group(item.nodeid.split("::")[0]))


@pytest.fixture(autouse=True)
def _bounded_number_of_programs():
    yield
    release_compiled_programs()


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


@pytest.fixture(scope="session")
def untrained_editor():
    """The shipped architecture in float64 with random weights: a network that has learned nothing."""
    from experiments.editor import load_editor

    import torch

    editor = load_editor(dtype=torch.float64)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for module in editor.pipeline.unet.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
    return editor


@pytest.fixture(scope="session")
def scrambled_evidence(evidence, untrained_editor):
    """Evidence that is wrong on purpose, by name; see theory/scramble.py."""
    from experiments.editor.evidence import default_evidence
    from theory.scramble import scrambled

    return scrambled(evidence, default_evidence(untrained_editor))
