"""`framebound claims` and `framebound report`: explained claims, claims that lack a field, stored runs that lack a
claim.
"""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import synthetic_report

import theory
from experiments import cli
from experiments.errors import EXIT_MISTAKE
from experiments.store import ROOT


def test_report_from_the_audit_and_the_data_of_the_figures(capsys, tmp_path):
    """Without a picture it is drawn from its data; the report of a folder with all of them is the same."""
    claims = [theory.find_claim(name) for name in ("C1.hessian", "C1.stated")]
    synthetic_report.write(tmp_path, claims)
    drawn = tmp_path / "figures" / "claim_C1.hessian.png"
    drawn.unlink()
    assert cli._run(["report", str(tmp_path), "--json"]) == 0
    written = [tmp_path / name for name in ("report.html", "report.md", "claims.csv")]
    captured = capsys.readouterr()
    assert json.loads(captured.out) == [str(path) for path in written]
    # A stored run says which claims of this version it lacks.
    assert "did not check" in captured.err and "C1.lipschitz" in captured.err and "C1.hessian" not in captured.err
    first = [path.read_bytes() for path in written]
    assert drawn.is_file() and drawn.with_suffix(".pdf").is_file()
    assert cli._run(["report", str(tmp_path), "--out", str(tmp_path / "again")]) == 0
    assert [(tmp_path / "again" / path.name).read_bytes() for path in written] == first


def test_explanation_of_a_claim(capsys):
    assert cli._run(["claims", "--explain", "C1.stated"]) == 0
    text = capsys.readouterr().out
    for heading in ("STATEMENT", "HYPOTHESES", "WHAT IT DECIDES", "PROOF", "WHERE IT IS CHECKED"):
        assert heading in text
    assert "C1 with norms bounded above alone: false" in text and "framebound claims --check C1.stated" in text
    assert cli._run(["claims", "--explain", "C1.stated", "--json"]) == 0
    assert "Counterexample" in json.loads(capsys.readouterr().out)["proof"]
    assert cli._run(["claims", "--explain", "C1.none"]) == EXIT_MISTAKE
    assert "'C1.none'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "replacement", "words"),
    [
        (r"\n *operations=[^\n]*,", "", ["'operations'", "rounding budget is derived"]),
        (r"\n *floor=[^\n]*,", "", ["needs a `floor` > 0", "that the attack must reach"]),
        (r"\n    necessity=\{.*?\n    \},", "", ["`necessity`", "breaks the bound without it"]),
    ],
)
def test_claim_that_lacks_a_field_is_one_line(tmp_path, line, replacement, words):
    """Somebody who adds a theorem reads what is missing and what it means, and no traceback."""
    copied = tmp_path / "theory"
    shutil.copytree(ROOT / "theory", copied, ignore=shutil.ignore_patterns("__pycache__", "test_*", "*.v"))
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    theorem = copied / "temporal_loss" / "hessian.py"
    text = theorem.read_text(encoding="utf-8")
    shorter = re.sub(line, replacement, text, count=1, flags=re.DOTALL)
    assert shorter != text
    theorem.write_text(shorter, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from experiments import cli; sys.exit(cli._run(['claims']))"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == EXIT_MISTAKE, done.stderr
    assert done.stderr.startswith("framebound: ") and done.stderr.count("\n") == 1
    assert all(word in done.stderr for word in words)
