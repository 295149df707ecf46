"""Faults in the mathematics are made one at a time, planted, and noticed."""

import ast
import textwrap
from pathlib import Path

import pytest

from experiments.selftest import planting, run
from experiments.selftest.mutants import mutants
from theory import ladder

HESSIAN = "theory.temporal_loss.hessian"


def changes(tmp_path: Path, source: str) -> list[str]:
    path = tmp_path / "theorem.py"
    path.write_text(textwrap.dedent(source), encoding="utf-8")
    found = mutants("theorem", path)
    for mutant in found:
        assert ast.unparse(ast.parse(mutant.source)) != ast.unparse(ast.parse(path.read_text(encoding="utf-8")))
    return [mutant.change for mutant in found]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("return 4 / n", {"4 / n -> 4 * n", "4 -> 4 * 0.98", "4 -> 4 * 1.05"}),
        ("return n ** 2", {"2 -> 3", "2 -> 1"}),
        ("return n[1:]", {"1: -> :-1", "1 -> 2"}),
        ("return n[0]", {"0 -> 1"}),
        ("return -n", {"-n -> n"}),
        ("return np.max(n)", {"np.max(n) -> np.sum(n)"}),
        ("return max(n, m)", {"max(n, m) -> min(n, m)"}),
        ("return np.sqrt(n)", {"np.sqrt(n) -> n"}),
        ("return np.nextafter(n, np.inf)", {"np.nextafter(n, np.inf) -> np.nextafter(n, -np.inf)"}),
        ("if n < 3:\n        raise ValueError('3 are needed')\n    return n", {"check removed: n < 3"}),
        ("return n if n < m else m", {"n < m -> n >= m"}),
        ('"""Twice 2."""\n    raise ValueError(f"{n + 1}")', set()),
    ],
)
def test_faults_of_an_expression(tmp_path, body, expected):
    assert set(changes(tmp_path, f"def bound(n, m):\n    {body}\n")) == expected


def test_what_is_no_mathematics_is_left_alone(tmp_path):
    found = changes(
        tmp_path,
        """
        def bound(n):
            return _helper(n) + 1

        def _helper(n):
            return 2 * n

        def _draw(key):
            return 3 * key

        def _reality(evidence):
            return 4 * evidence

        def _operations(n):
            return 5 * n

        def _false_bound(n):
            return 6 * n

        CLAIM = Claim(problem=Problem(draw=_draw, operations=_operations, bound=bound), planted={"a": _false_bound}, reality=(_reality,))
        """,
    )
    text = " ".join(found)
    assert "2 * n" in text and "_helper(n) + 1" in text
    assert not any(number in text for number in ("3 *", "4 *", "5 *", "6 *"))


def test_the_true_module_climbs_its_ladder():
    """Planted without a fault, nothing is noticed: what the other tests see is the fault."""
    source = run.theorem_files()[HESSIAN].read_text(encoding="utf-8")
    claim = planting.faulty_claim(HESSIAN, source)
    assert ladder.run_witness(claim).passed


@pytest.mark.parametrize("change", ["4 -> 4 * 0.98", "4 -> 4 * 1.05", "2 -> 3"])
def test_a_fault_in_a_bound_is_noticed_by_the_ladder(change):
    mutant = next(mutant for mutant in mutants(HESSIAN, run.theorem_files()[HESSIAN]) if mutant.change == change)
    assert run.noticed_by_ladder(mutant)


def test_a_removed_check_is_noticed_by_the_tests():
    found = mutants(HESSIAN, run.theorem_files()[HESSIAN])
    mutant = next(mutant for mutant in found if mutant.change.startswith("check removed: num_frames <"))
    assert "test_hessian" in run.noticed_by_tests(mutant)


def test_an_endless_fault_ends(monkeypatch):
    monkeypatch.setattr(run, "LADDER_SECONDS", 0.2)
    mutant = mutants(HESSIAN, run.theorem_files()[HESSIAN])[0]
    monkeypatch.setattr(planting, "faulty_claim", lambda *_: [None for _ in iter(int, 1)])
    assert run.noticed_by_ladder(mutant) == "no end"


def test_choice_takes_from_every_module_and_repeats_with_its_seed():
    found = [mutant for name, path in list(run.theorem_files().items())[:6] for mutant in mutants(name, path)]
    chosen = run.choose(found, 12, seed=3)
    assert chosen == run.choose(found, 12, seed=3)
    assert chosen != run.choose(found, 12, seed=4)
    assert len({mutant.module for mutant in chosen}) == 6


def test_shares_leave_out_what_is_no_fault():
    def verdict(caught, reason="", sharp=True):
        return run.Verdict("m", "f", 1, "a -> b", caught, reason, sharp)

    verdicts = [verdict("witness"), verdict("", "the same number"), verdict(""), verdict("attack", sharp=False)]
    assert run.share_caught(verdicts) == pytest.approx(2 / 3)
    assert run.share_caught(verdicts, sharp=True) == pytest.approx(1 / 2)


@pytest.mark.parametrize(("count", "only", "message"), [(0, None, "at least 1"), (3, "C9.none", "no claim or module is called 'C9.none'")])
def test_bad_arguments(count, only, message):
    with pytest.raises(ValueError, match=message):
        run.selftest(count, only=only)
