"""The store: reuse, resumption after a kill, corruption, and which source files a result depends on."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from experiments import store as store_module
from experiments.store import ARRAYS, MANIFEST, VALUES, Store, canonical_json, digest_array, reachable_modules

INGREDIENTS = {"stage": "a", "settings": {"seed": 0}}


def fill(draft):
    draft.values = {"x": 1.5}
    draft.arrays = {"a": np.arange(6.0).reshape(2, 3)}


def refuse(draft):
    raise AssertionError("a stored result was computed again")


def test_second_fetch_reuses(tmp_path):
    store = Store(tmp_path)
    first, reused = store.fetch("a", INGREDIENTS, fill)
    assert not reused
    again, reused = store.fetch("a", INGREDIENTS, refuse)
    assert reused
    assert again.key == first.key
    assert again.values == {"x": 1.5}
    np.testing.assert_array_equal(again.arrays["a"], np.arange(6.0).reshape(2, 3))


def test_any_ingredient_changes_the_key():
    keys = {
        Store.key(INGREDIENTS),
        Store.key({**INGREDIENTS, "stage": "b"}),
        Store.key({**INGREDIENTS, "settings": {"seed": 1}}),
        Store.key({**INGREDIENTS, "inputs": {"clip": "0"}}),
    }
    assert len(keys) == 4


def test_order_of_ingredients_does_not_matter():
    assert Store.key({"a": 1, "b": 2}) == Store.key({"b": 2, "a": 1})


def test_failed_stage_leaves_nothing(tmp_path):
    store = Store(tmp_path)

    def fail(draft):
        fill(draft)
        (draft.folder / "half").write_text("half")
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        store.fetch("a", INGREDIENTS, fail)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("file", [MANIFEST, VALUES, ARRAYS, "extra.bin"])
@pytest.mark.parametrize("damage", ["truncate", "flip", "remove"])
def test_damaged_entry_is_made_again(tmp_path, file, damage):
    notes = []
    store = Store(tmp_path, notes.append)

    def fill_more(draft):
        fill(draft)
        (draft.folder / "extra.bin").write_bytes(bytes(range(200)))

    entry, _ = store.fetch("a", INGREDIENTS, fill_more)
    path = entry.folder / file
    content = path.read_bytes()
    if damage == "remove":
        path.unlink()
    elif damage == "truncate":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    again, reused = store.fetch("a", INGREDIENTS, fill_more)
    assert not reused
    assert len(notes) == 1 and "\n" not in notes[0] and "damaged" in notes[0]
    assert again.values == {"x": 1.5}
    assert store.load("a", INGREDIENTS) is not None


def test_manifest_of_another_entry_is_refused(tmp_path):
    """A folder that was copied over another has intact files, and is still not the result asked for."""
    notes = []
    store = Store(tmp_path, notes.append)
    entry, _ = store.fetch("a", INGREDIENTS, fill)
    manifest = json.loads((entry.folder / MANIFEST).read_text())
    (entry.folder / MANIFEST).write_text(canonical_json({**manifest, "key": "0" * 64}))
    assert store.load("a", INGREDIENTS) is None
    assert len(notes) == 1


def test_killed_run_resumes(tmp_path):
    """SIGKILL in the middle of the second of two stages: the first is reused, no half-written entry is seen, leftovers
    are cleared.
    """
    script = textwrap.dedent(
        """
        import sys, time
        from pathlib import Path
        from experiments.store import Store

        def first(draft):
            draft.values = "first"

        def second(draft):
            (draft.folder / "half").write_text("half")
            print("writing", flush=True)
            time.sleep(60)

        store = Store(Path(sys.argv[1]))
        with store.lock():
            store.fetch("first", {"n": 1}, first)
            store.fetch("second", {"n": 2}, second)
        """
    )
    folder = tmp_path / "store"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE, text=True, cwd=store_module.ROOT
    ) as process:
        assert process.stdout.readline() == "writing\n"
        os.kill(process.pid, signal.SIGKILL)
    assert any(path.name.endswith(".part") for path in folder.iterdir())
    store = Store(folder)
    with store.lock():
        assert not any(path.name.endswith(".part") for path in folder.iterdir())
        assert store.load("second", {"n": 2}) is None
        entry, reused = store.fetch("first", {"n": 1}, refuse)
        assert reused and entry.values == "first"


def test_lock_keeps_a_second_run_out_and_says_who_holds_it(tmp_path):
    holder = rf"in use by process {os.getpid()} on {re.escape(socket.gethostname())} since .*; wait for it"
    with Store(tmp_path).lock(), pytest.raises(ValueError, match=holder), Store(tmp_path).lock():
        pass
    with Store(tmp_path).lock():
        pass


def test_nan_is_refused(tmp_path):
    """JSON has no NaN; a result that is not a number must not be stored as if it were one."""
    with pytest.raises(ValueError, match="Out of range float"):
        Store(tmp_path).fetch("a", INGREDIENTS, lambda draft: setattr(draft, "values", float("nan")))
    assert list(tmp_path.iterdir()) == []


def test_array_digest_sees_dtype_and_shape():
    array = np.arange(6.0)
    digests = {
        digest_array(array),
        digest_array(array.reshape(2, 3)),
        digest_array(array.astype(np.float32)),
        digest_array(array.view(np.int64)),
    }
    assert len(digests) == 4
    assert digest_array(np.asfortranarray(array.reshape(2, 3))) == digest_array(array.reshape(2, 3))


@pytest.fixture
def source_tree(tmp_path, monkeypatch):
    """A small project with the layout of this one; returns a function that writes a module."""

    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        clear()

    def clear():
        store_module._tree.cache_clear()
        store_module._code_digest.cache_clear()

    monkeypatch.setattr(store_module, "ROOT", tmp_path)
    write("theory/__init__.py", "import jax\nSTATE = 1\n")
    write(
        "theory/loss/__init__.py",
        """
        '''Names.'''
        from theory.loss.first import one
        from theory.loss.second import two

        __all__ = ["one", "two"]
        """,
    )
    write("theory/loss/first.py", "def one():\n    from theory import helper\n    return helper\n")
    write("theory/loss/second.py", "two = 2\n")
    write("theory/helper.py", "from . import deep\n")
    write("theory/deep.py", "import os\n")
    write("experiments/__init__.py", '"""Nothing."""\n')
    write("experiments/user.py", "from theory.loss import one\n")
    yield write
    clear()


def test_reachable_modules_follow_names_and_function_bodies(source_tree):
    # theory/__init__ acts when imported; theory/loss/__init__ only passes names on, so a neighbour does not count.
    assert reachable_modules(["experiments.user"]) == (
        "experiments.user",
        "theory",
        "theory.deep",
        "theory.helper",
        "theory.loss.first",
    )


def test_source_digest_changes_with_what_is_reached_only(source_tree):
    before = store_module.source_digest(["experiments.user"])
    source_tree("theory/loss/second.py", "two = 3\n")
    assert store_module.source_digest(["experiments.user"]) == before
    source_tree("theory/deep.py", "import sys\n")
    assert store_module.source_digest(["experiments.user"]) != before


def test_wording_and_layout_do_not_change_the_source_digest(source_tree):
    before = store_module.source_digest(["experiments.user"])
    source_tree("theory/deep.py", '"""Words."""\n\n# a comment\nimport   os\n')
    assert store_module.source_digest(["experiments.user"]) == before


def test_package_that_does_more_than_pass_names_on_counts(source_tree):
    source_tree("theory/loss/__init__.py", "from theory.loss.first import one\none.patched = True\n")
    assert "theory.loss" in reachable_modules(["experiments.user"])


def test_every_stage_reaches_the_editor():
    """The real tree: training of the adapter depends on the UNet's loader and on the loss, and not on the drawing of
    figures.
    """
    reached = reachable_modules(["experiments.stages"])
    assert {"experiments.editor.pipeline", "experiments.editor.objective", "theory.temporal_loss.loss"} <= set(reached)
    assert not any(
        name.startswith(("experiments.report", "experiments.studies", "experiments.cli")) for name in reached
    )
