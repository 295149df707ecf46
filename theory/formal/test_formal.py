"""The machine-checked proofs: they compile, rest on the axioms of the real numbers, and have the constants of Python.

Where Coq is not installed the tests are skipped with the command that installs it; where the environment variable CI is
set they fail instead.
"""

import os
import re
from pathlib import Path

import numpy as np
import pytest

from theory.formal import FORMAL, certificates, coq
from theory.rounding import relative_budget
from theory.temporal_loss import temporal_loss
from theory.temporal_loss.hessian import hessian_constant
from theory.temporal_loss.upper_curvature import upper_curvature_constant

REASON = coq.unavailable()
SEED = 20260801

needs_coq = pytest.mark.skipif(REASON is not None and not os.environ.get("CI"), reason=f"proofs not checked: {REASON}")


@pytest.fixture(scope="session")
def build(tmp_path_factory) -> Path:
    """A folder with all proofs, compiled."""
    if REASON is not None:
        pytest.fail(f"the proofs have to be checked here, but {REASON}")
    folder = tmp_path_factory.mktemp("formal")
    coq.compile_proofs(folder)
    return folder


@needs_coq
def test_all_proofs_compile(build):
    assert {path.stem for path in build.glob("*.vo")} == set(coq.read_sources())


@needs_coq
@pytest.mark.parametrize("integers", [False, True])
def test_theorems_rest_on_the_reals_alone(build, integers):
    theorems = [theorem for entry in FORMAL.values() if entry.integers == integers for theorem in entry.qualified()]
    names = coq.axioms(build, theorems)
    assert not coq.not_allowed(names, integers=integers)
    # The list is read at all: the real numbers themselves need axioms, and interval arithmetic needs integers.
    assert names & coq.CLASSICAL_REALS and bool(coq.not_allowed(names)) == integers


def test_index_names_what_exists():
    sources = {name: coq.without_comments(source) for name, source in coq.read_sources().items()}
    for claim_id, entry in FORMAL.items():
        assert re.fullmatch(r"C[1-5]\.[a-z-]+", claim_id)
        assert entry.file.removesuffix(".v") in sources
        for file, name in entry.qualified():
            assert re.search(rf"\b(Theorem|Lemma)\s+{name}\b", sources[file]), f"{file}.v states no theorem {name}"
        assert entry.covers.endswith(".") and entry.level.startswith("machine-checked: theory/formal/")


def test_every_file_is_used():
    """A file that no claim's theorems need would be a proof of nothing that is claimed."""
    sources = coq.read_sources()
    needed = {file for entry in FORMAL.values() for file, _ in entry.qualified()}
    while True:
        more = needed | {other for name in needed for other in coq.requirements(sources[name])}
        if more == needed:
            break
        needed = more
    assert set(sources) == needed


@needs_coq
def test_constants_are_those_of_python(build):
    """Coq proves that each Python function returns the theorem's number, at ten drawn sizes."""
    rng = np.random.default_rng(SEED)
    sizes = sorted(rng.choice(np.arange(3, 41), size=10, replace=False).tolist())
    lemmas = [certificates.hessian_constant_lemma(size) for size in sizes]
    lemmas += [certificates.upper_curvature_lemma(size) for size in sizes]
    lemmas += [certificates.critical_value_lemma(size) for size in sizes]
    lemmas += [
        certificates.quotient_lemma(size, radius / 64)
        for size, radius in zip(sizes, rng.integers(1, 640, 10).tolist(), strict=True)
    ]
    for index in range(10):
        steps = int(rng.integers(1, 9))
        defects, growth = rng.integers(0, 256, steps) / 64, rng.integers(32, 128, steps) / 64
        lemmas.append(certificates.round_trip_bound_lemma(index, defects.tolist(), growth.tolist()))
        contraction, increment = float(rng.integers(1, 60) / 64), float(rng.integers(1, 640) / 64)
        lemmas.append(certificates.fixed_point_lemma(index, contraction, increment, int(rng.integers(1, 13))))
    coq.run_query(build, certificates.HEADER + "".join(lemmas))


def _drawn_frames(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Integer vectors between -9 and 9, none of them zero."""
    frames = rng.integers(-9, 10, shape)
    frames[..., 0] = np.where(frames[..., 0] == 0, 1, frames[..., 0])
    return frames


@needs_coq
def test_the_loss_and_its_hessian_are_those_of_python(build):
    """What the theorems call the loss, and its Hessian as a form, are what Python computes."""
    rng = np.random.default_rng(SEED)
    lemmas = []
    for index, (num_frames, dimension) in enumerate([(3, 2), (4, 2), (3, 3), (5, 3)]):
        frames, direction = _drawn_frames(rng, num_frames, dimension), rng.integers(-9, 10, (num_frames, dimension))
        lemmas.append(certificates.temporal_loss_lemma(index, frames))
        lemmas.append(certificates.hessian_form_lemma(index, frames, direction))
    coq.run_query(build, certificates.HEADER + "".join(lemmas))
    frames, direction = _drawn_frames(rng, 3, 2), rng.integers(1, 10, (3, 2))
    for wrong in (
        certificates.temporal_loss_lemma(0, frames, float(temporal_loss(frames.astype(float))) + 1e-12),
        certificates.hessian_form_lemma(0, frames, direction, 0.125),
    ):
        with pytest.raises(coq.ProofError, match="Numerical evaluation failed"):
            coq.run_query(build, certificates.HEADER + wrong)


@needs_coq
@pytest.mark.parametrize(
    ("lemma", "constant"),
    [
        (certificates.hessian_constant_lemma, hessian_constant),
        (certificates.upper_curvature_lemma, upper_curvature_constant),
    ],
)
@pytest.mark.parametrize("num_frames", [3, 21])
def test_a_wrong_constant_is_refused(build, lemma, constant, num_frames):
    """Ten times the rounding that is allowed is too much: the certificate is as fine as the numbers it certifies."""
    for sign in (1, -1):
        wrong = constant(num_frames) * (1 + sign * 10 * relative_budget(16 * num_frames**2))
        with pytest.raises(coq.ProofError, match='Unable to unify "true" with "false"'):
            coq.run_query(build, certificates.HEADER + lemma(num_frames, wrong))


@needs_coq
def test_a_wrong_bound_is_refused(build):
    right = 1.0 + 2.0 * 1.5
    for wrong in (right * (1 + 1e-12), right * (1 - 1e-12)):
        with pytest.raises(coq.ProofError, match="Cannot find witness"):
            coq.run_query(
                build, certificates.HEADER + certificates.round_trip_bound_lemma(0, [1.0, 2.0], [1.5, 7.0], wrong)
            )


PLANTED = {
    # A false statement with the proof of a true one.
    "the bound without its square": (
        "From Coq Require Import Reals.\nFrom framebound Require Import Inner TemporalLoss Hessian.\n"
        "Open Scope R_scope.\n"
        "Theorem planted : forall (V : space) N (F x : nat -> V) m, (3 <= N)%nat -> 0 < m -> norms_at_least N m F ->\n"
        "  Rabs (hessian_form N F x) <= hessian_constant N / m * sum N (fun t => inner (x t) (x t)).\n"
        "Proof. intros. now apply hessian_bound. Qed.\n"
    ),
    "0.98 C_N": (
        "From Coq Require Import Reals.\nFrom framebound Require Import Inner TemporalLoss Hessian.\n"
        "Open Scope R_scope.\n"
        "Theorem planted : forall (V : space) N (F x : nat -> V) m, (3 <= N)%nat -> 0 < m -> norms_at_least N m F ->\n"
        "  Rabs (hessian_form N F x) <= 0.98 * hessian_constant N / m ^ 2 * sum N (fun t => inner (x t) (x t)).\n"
        "Proof. intros. now apply hessian_bound. Qed.\n"
    ),
}


@needs_coq
@pytest.mark.parametrize("planted", PLANTED)
def test_a_false_statement_is_refused(build, planted):
    true_form = (
        PLANTED[planted].replace("hessian_constant N / m *", "hessian_constant N / m ^ 2 *").replace("0.98 * ", "")
    )
    coq.run_query(build, true_form)
    with pytest.raises(coq.ProofError, match="Coq refuses"):
        coq.run_query(build, PLANTED[planted])


@pytest.mark.parametrize(
    "text",
    [
        "Lemma planted : False. Proof. Admitted.",
        "Axiom planted : False.",
        "Lemma planted : False. Proof. admit. Abort.",
        "Parameter planted : nat -> nat.",
        "Unset Guard Checking.",
        "#[bypass_check(guard)] Fixpoint planted (n : nat) : False := planted n.",
    ],
)
def test_a_gap_is_noticed_in_the_source(text, tmp_path):
    with pytest.raises(coq.ProofError, match="nothing may be assumed"):
        coq.compile_proofs(tmp_path, {"Planted": text}, tmp_path / "cache")
    assert not coq.forbidden_words(f"(* {text} (* nested *) *) Lemma fine : True. Proof. exact I. Qed.")


@needs_coq
@pytest.mark.parametrize(
    "text",
    [
        "Axiom gap : 0 = 1. Theorem planted : 0 = 2. Proof. pose proof gap as H. discriminate. Qed.",
        "Theorem planted : 1 = 1. Proof. Admitted.",
        "Section S. Hypothesis gap : 0 = 1. Theorem inner : 0 = 1. Proof. exact gap. Qed. End S.\n"
        "Variable hole : 0 = 1. Theorem planted : 0 = 1. Proof. exact (inner hole). Qed.",
    ],
)
def test_a_gap_is_noticed_among_the_axioms(build, text):
    """Behind the words, Coq's own list of what a theorem rests on."""
    query = f"Module Planted.\n{text}\nEnd Planted.\nPrint Assumptions Planted.planted.\n"
    names = coq.axiom_names(coq.run_query(build, query).split("Axioms:\n")[1])
    assert coq.not_allowed(names, integers=True)


def test_order_and_circles():
    sources = {
        "A": "",
        "B": "From framebound Require Import A.",
        "C": "(* From framebound Require Import D. *) From framebound Require Import B\n A.",
    }
    assert coq.in_order(sources) == [["A"], ["B"], ["C"]]
    with pytest.raises(coq.ProofError, match="circle"):
        coq.in_order({"A": "From framebound Require Import B.", "B": "From framebound Require Import A."})
    with pytest.raises(coq.ProofError, match="not among"):
        coq.in_order({"A": "From framebound Require Import Elsewhere."})


@needs_coq
def test_compiled_files_are_kept_by_content(tmp_path):
    sources = {
        "A": "Definition one := 1.",
        "B": "From framebound Require Import A. Lemma same : one = 1. Proof. reflexivity. Qed.",
    }
    cache = tmp_path / "cache"
    folders = [tmp_path / name for name in ("first", "second", "third")]
    for folder in folders:
        folder.mkdir()
    coq.compile_proofs(folders[0], sources, cache)
    kept = {path.name: path.stat().st_mtime_ns for path in cache.glob("*.vo")}
    coq.compile_proofs(folders[1], sources, cache)
    assert kept == {path.name: path.stat().st_mtime_ns for path in cache.glob("*.vo")} and len(kept) == 2
    # What A says changes, so B is compiled again, and is refused now.
    with pytest.raises(coq.ProofError, match="Coq refuses B.v"):
        coq.compile_proofs(folders[2], sources | {"A": "Definition one := 2."}, cache)
