"""`import framebound`: the public names under one import, whatever lies in the working directory."""

import os
import subprocess
import sys
import tomllib

import pytest

from experiments.store import ROOT

PUBLIC = ROOT / "experiments" / "public"


def python(folder, script, *paths):
    """The finished process of a script that lies in a folder and is run there, as a user's script is."""
    (folder / "mine.py").write_text(script)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    return subprocess.run(
        [sys.executable, "mine.py"], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.fixture
def folder(tmp_path):
    """A user's folder with packages of the names that ours have."""
    for name in ("experiments", "theory"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("MINE = True\n")
    return tmp_path


def test_folders_of_a_user_do_not_shadow_it(folder):
    script = (
        "from framebound import bilateral_filter, certify_curvature, load_editor, temporal_loss\n"
        "import experiments, framebound, theory\n"
        "assert not hasattr(experiments, 'MINE') and not hasattr(theory, 'MINE')\n"
        "print(load_editor.__module__, temporal_loss.__module__, len(dir(framebound)))\n"
    )
    done = python(folder, script, PUBLIC)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("experiments.editor.editor theory.temporal_loss.loss ")
    # Without it the names mean the user's own folders, which is why it is there.
    done = python(folder, "import experiments, theory\nprint(experiments.MINE, theory.MINE)\n", ROOT)
    assert done.stdout == "True True\n", done.stderr


def test_a_package_of_the_user_that_is_in_use_is_named(folder):
    done = python(folder, "import theory\nimport framebound\n", PUBLIC)
    assert done.returncode == 1
    assert "another one is imported already" in done.stderr and str(folder / "theory") in done.stderr


def test_every_public_name_is_there(tmp_path):
    script = (
        "import importlib, framebound\n"
        "for part, name in framebound._PARTS.items():\n"
        "    if importlib.util.find_spec(name) is None: continue\n"
        "    module = importlib.import_module(name)\n"
        "    for own in module.__all__:\n"
        "        found = [known for known in (own, f'{part}_{own}') if known in dir(framebound)]\n"
        "        assert found and any(getattr(framebound, known) is getattr(module, own) for known in found), own\n"
        "assert framebound.CLAIMS and framebound.find_claim('C1.hessian').id == 'C1.hessian'\n"
        "try: framebound.nothing\n"
        "except AttributeError as error: print(error)\n"
    )
    done = python(tmp_path, script, PUBLIC)
    assert done.returncode == 0, done.stderr
    assert "has no attribute 'nothing'" in done.stdout


def test_the_import_itself_is_light(tmp_path):
    script = "import sys, framebound\nprint(sorted({'torch', 'diffusers', 'matplotlib'} & sys.modules.keys()))\n"
    done = python(tmp_path, script, PUBLIC)
    assert done.stdout == "[]\n", done.stderr


def test_it_is_part_of_what_is_installed():
    expand = pytest.importorskip(
        "setuptools.config.expand", reason="setuptools, which builds the package, is not installed"
    )
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
    folders: dict[str, str] = {}
    found = expand.find_packages(**settings, root_dir=ROOT, fill_package_dir=folders)
    assert {"framebound", "theory", "experiments", "experiments.editor"} <= set(found)
    assert (ROOT / folders["framebound"]).resolve() == PUBLIC / "framebound"
    assert not any(name.startswith("experiments.public") for name in found)
