"""Every claim climbs every rung. A new theorem is picked up from theory.CLAIMS; nothing is added here."""

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import numpy as np
import pytest

import theory
from theory import ladder, search
from theory.claim import Tightness, Verdict, unfinished

# The rungs of a claim share compiled programs and one search, so one worker climbs them all.
every_claim = pytest.mark.parametrize(
    "claim", [pytest.param(claim, id=claim.id, marks=pytest.mark.xdist_group(claim.id)) for claim in theory.CLAIMS]
)


def assert_passed(result: ladder.RungResult) -> None:
    assert result.passed, "\n".join(result.failures)


@every_claim
def test_witness(claim):
    assert_passed(ladder.run_witness(claim))


@st.composite
def parameters_of(draw, problem):
    """A size and its parameters: every entry drawn, so that a failure shrinks to the simplest instance."""
    size = draw(st.sampled_from(problem.sizes))
    shapes = jax.eval_shape(lambda key: problem.draw(key, **dict(size)), jax.random.key(0))
    entries = st.floats(-4, 4, allow_subnormal=False) | st.sampled_from([0.0, 1.0, -1.0])
    return size, jax.tree.map(lambda leaf: draw(hnp.arrays(np.float64, leaf.shape, elements=entries)), shapes)


@every_claim
def test_property_on_drawn_instances(claim):
    problem = claim.counterexamples or claim.problem

    @hypothesis.given(parameters_of(problem))
    def check(drawn):
        size, parameters = drawn
        outcome = problem.outcome_of(parameters, size, "drawn")
        hypothesis.target(min(outcome.ratio, 1e300))
        if claim.verdict is Verdict.REFUTED:
            assert not outcome.holds, outcome
        elif claim.tightness is Tightness.IDENTITY:
            assert outcome.attains, outcome
        else:
            assert outcome.holds, outcome

    check()


@every_claim
def test_property_on_drawn_seeds(claim):
    @hypothesis.settings(max_examples=max(3, hypothesis.settings().max_examples // 5))
    @hypothesis.given(st.integers(0, 2**31 - 1))
    def check(seed):
        assert_passed(ladder.run_property(claim, seed))

    check()


@every_claim
def test_attack(claim):
    assert_passed(ladder.run_attack(claim))


@every_claim
def test_necessity(claim):
    assert_passed(ladder.run_necessity(claim))


@every_claim
def test_power(claim):
    assert_passed(ladder.run_power(claim))


@every_claim
def test_reality(claim, evidence):
    assert_passed(ladder.run_reality(claim, evidence))


@every_claim
def test_scrambled_evidence_is_noticed(claim, scrambled_evidence):
    unnoticed = ladder.unnoticed_tests(claim, scrambled_evidence)
    assert not unnoticed, f"{claim.id} calls these a test, and scrambled evidence passes them: {unnoticed}"


@every_claim
def test_nothing_is_missing(claim):
    assert not unfinished(claim), "\n".join(unfinished(claim))


def test_same_seed_same_attack():
    """A verdict that depends on the hour is no verdict: the search is a function of its seed."""
    problem = theory.find_claim("C1.hessian").problem
    size = problem.sizes[0]
    first, first_ratios = search.maximise(problem, size, seed=5, starts=4, steps=10)
    second, second_ratios = search.maximise(problem, size, seed=5, starts=4, steps=10)
    assert first.measured == second.measured
    np.testing.assert_array_equal(first_ratios, second_ratios)
