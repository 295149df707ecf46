"""Let Coq prove that the numbers which Python's functions return are those of the theorems.

Each function here writes a lemma that encloses the constant of a theorem, taken for one size, in an interval around the
number that Python returned, as wide as the rounding of Python's computation allows. Coq proves the lemma or refuses it.
Hints such as a computed eigenvector need no trust: Coq checks the inequality that they are a witness for.
"""

import math
from collections.abc import Sequence
from fractions import Fraction

import jax.numpy as jnp
import numpy as np

from theory.descent.landscape import least_critical_value
from theory.inversion.fixed_point import fixed_point_bound
from theory.inversion import round_trip_bound
from theory.rounding import relative_budget
from theory.temporal_loss import instances, temporal_loss
from theory.temporal_loss.bounded_norms import exact_quotient
from theory.temporal_loss.hessian import hessian_constant
from theory.temporal_loss.upper_curvature import upper_curvature_constant

HEADER = """From Coq Require Import Reals ZArith List Lra Lia.
From Interval Require Import Tactic.
From framebound Require Import Inner RoundTrip FixedPoint TemporalLoss Hessian Landscape BoundedNorms.
From framebound Require Import Constants UpperCurvature CurvatureCertificate.
Import ListNotations.
Open Scope R_scope.
"""

SCALE = 2**62
"""Denominator of the numbers that enclose a constant: far finer than their distance."""


def _real(value: Fraction | float) -> str:
    exact = Fraction(value)
    return f"({exact.numerator} / {exact.denominator})"


def _enclosing(value: float, operations: int) -> tuple[Fraction, Fraction]:
    """The interval around a computed positive number that its rounding allows."""
    slack = Fraction(value) * Fraction(relative_budget(operations))
    return Fraction(value) - slack, Fraction(value) + slack


def _integers(vector: np.ndarray) -> list[int]:
    return [max(1, int(entry)) for entry in np.round(np.abs(vector) * 2.0**52)]


def perron_vector(num_frames: int) -> list[int]:
    """Positive integers near the top eigenvector of B^T W B, the witness for both ends of C_N."""
    incidence = np.eye(num_frames - 1, num_frames) + np.eye(num_frames - 1, num_frames, k=1)
    weights = np.full(num_frames - 1, 2.0)
    weights[[0, -1]] = 1.0
    matrix = incidence.T @ (weights[:, None] * incidence)
    return _integers(np.linalg.eigh(matrix)[1][:, -1])


def hessian_constant_lemma(num_frames: int, value: float | None = None) -> str:
    """C_N lies where `hessian_constant` says; `value` puts another number in its place.

    The top eigenvalue of a symmetric matrix of order N comes with an error of at most about N^2 roundings of its norm,
    and so does the certificate, whose entries may be small: 16 N^2 for both.
    """
    low, high = _enclosing(hessian_constant(num_frames) if value is None else value, 16 * num_frames**2)
    vector = "; ".join(map(str, perron_vector(num_frames)))
    # Outwards, so that the integers' interval holds the rational one.
    bottom, top = math.floor(low * SCALE), math.ceil(high * SCALE)
    return f"""
Lemma hessian_constant_{num_frames} :
  IZR {bottom} / IZR {SCALE} <= hessian_constant {num_frames} <= IZR {top} / IZR {SCALE}.
Proof.
  apply (hessian_constant_enclosed [{vector}]%Z {bottom} {top} {SCALE});
  [simpl; lia | lia | vm_compute; reflexivity | vm_compute; reflexivity].
Qed.
"""


def upper_curvature_lemma(num_frames: int, value: float | None = None) -> str:
    """The largest curvature of frames of norm at least 1 lies where `upper_curvature_constant` says.

    No curvature is above the upper end of the interval, and explicit frames reach the lower end. `value` puts another
    number in the constant's place.
    """
    low, high = _enclosing(upper_curvature_constant(num_frames) if value is None else value, 16 * num_frames**2)
    differences = np.abs(np.diff(np.eye(num_frames), n=2, axis=0))
    vector = "; ".join(map(str, _integers(np.linalg.eigh(differences.T @ differences)[1][:, -1])))
    bottom, top = math.floor(low * SCALE), math.ceil(high * SCALE)
    return f"""
Lemma upper_curvature_{num_frames} : forall (V : space) (e1 e2 : V), orthonormal e1 e2 ->
  (forall F x : nat -> V, norms_at_least {num_frames} 1 F ->
     hessian_form {num_frames} F x <= IZR {top} / IZR {SCALE} / 1 ^ 2 * sum {num_frames} (fun t => << x t, x t >>)) /\\
  (exists F x : nat -> V, norms_at_least {num_frames} 1 F /\\ 0 < sum {num_frames} (fun t => << x t, x t >>) /\\
     IZR {bottom} / IZR {SCALE} / 1 ^ 2 * sum {num_frames} (fun t => << x t, x t >>) <= hessian_form {num_frames} F x).
Proof.
  intros V e1 e2 O. apply (upper_curvature_enclosed V e1 e2 [{vector}]%Z {bottom} {top} {SCALE} 1 O);
  [lra | simpl; lia | lia | vm_compute; reflexivity | vm_compute; reflexivity | vm_compute; reflexivity].
Qed.
"""


def _frames(frames: np.ndarray) -> str:
    """Integer vectors as a sequence in R^d; beyond the last one there is nothing that a lemma looks at."""
    rows = "; ".join("[" + "; ".join(f"({int(entry)})" for entry in row) + "]" for row in frames)
    return f"(fun t i => nth i (nth t [{rows}] []) 0)"


def temporal_loss_lemma(index: int, frames: np.ndarray, value: float | None = None) -> str:
    """L(F) of integer frames lies where `temporal_loss` says; `value` puts another number in its place."""
    num_frames, dimension = frames.shape
    computed = float(temporal_loss(frames.astype(float))) if value is None else value
    # At the size of the operands: no loss is above 4.
    slack = Fraction(4 * relative_budget(16 * (num_frames + dimension)))
    return f"""
Lemma temporal_loss_{index} : {_real(Fraction(computed) - slack)}
  <= loss {num_frames} ({_frames(frames)} : nat -> euclidean {dimension}) <= {_real(Fraction(computed) + slack)}.
Proof. unfold loss, cosine, similarity, len; simpl; split; interval with (i_prec 90). Qed.
"""


def hessian_form_lemma(index: int, frames: np.ndarray, direction: np.ndarray, value: float | None = None) -> str:
    """x^T H x of integer frames and an integer direction lies where the Hessian of the Python loss says."""
    num_frames, dimension = frames.shape
    flat = direction.astype(float).ravel()
    hessian = np.asarray(instances.dense_hessian(jnp.asarray(frames.astype(float))))
    computed = float(flat @ hessian @ flat) if value is None else value
    least = float(np.min(np.linalg.norm(frames, axis=1)))
    size = hessian_constant(num_frames) / least**2 * float(flat @ flat)
    slack = Fraction(size * relative_budget(instances.operations(num_frames=num_frames, dimension=dimension)))
    vectors = f"({_frames(frames)} : nat -> euclidean {dimension}) {_frames(direction)}"
    return f"""
Lemma hessian_form_{index} : {_real(Fraction(computed) - slack)}
  <= hessian_form {num_frames} {vectors} <= {_real(Fraction(computed) + slack)}.
Proof.
  unfold hessian_form, cosine, cosine', cosine'', similarity'', similarity', similarity, len; simpl; split;
  interval with (i_prec 90).
Qed.
"""


def round_trip_bound_lemma(
    index: int, defects: Sequence[float], growth: Sequence[float], value: float | None = None
) -> str:
    """sum_k d_k prod_(j<k) g_j lies where `round_trip_bound` says, for these numbers."""
    low, high = _enclosing(
        float(round_trip_bound(np.asarray(defects), np.asarray(growth))) if value is None else value, 2 * len(defects)
    )

    def sequence(numbers: Sequence[float]) -> str:
        return "fun k => nth k [" + "; ".join(_real(number) for number in numbers) + "] 0"

    return f"""
Lemma round_trip_bound_{index} :
  {_real(low)} <= round_trip_bound {len(defects)} ({sequence(defects)}) ({sequence(growth)}) <= {_real(high)}.
Proof. unfold round_trip_bound; simpl; split; lra. Qed.
"""


def fixed_point_lemma(index: int, contraction: float, increment: float, iterations: int) -> str:
    """q^j/(1-q) ||y^(1) - y^(0)||, of FixedPoint.fixed_point_bound, lies where `fixed_point_bound` says."""
    low, high = _enclosing(float(fixed_point_bound(contraction, increment, iterations)), 2 * iterations + 8)
    ratio = f"{_real(contraction)} ^ {iterations} / (1 - {_real(contraction)}) * {_real(increment)}"
    return f"\nLemma fixed_point_{index} : {_real(low)} <= {ratio} <= {_real(high)}.\nProof. simpl; split; lra. Qed.\n"


def critical_value_lemma(num_frames: int) -> str:
    """4/(N-2)^2, the least critical value of Landscape.least_critical_value, lies where `least_critical_value` says."""
    low, high = _enclosing(least_critical_value(num_frames), 4)
    return f"""
Lemma critical_value_{num_frames} : {_real(low)} <= 4 / INR ({num_frames} - 2) ^ 2 <= {_real(high)}.
Proof. rewrite INR_IZR_INZ; simpl; split; lra. Qed.
"""


def quotient_lemma(num_frames: int, radius: float) -> str:
    """1/((N-2) r^2), the quotient of BoundedNorms.shrinking_quotient, lies where `exact_quotient` says."""
    low, high = _enclosing(exact_quotient(num_frames, radius), 8)
    return f"""
Lemma quotient_{num_frames} : {_real(low)} <= 1 / (INR ({num_frames} - 2) * {_real(radius)} ^ 2) <= {_real(high)}.
Proof. rewrite INR_IZR_INZ; simpl; split; lra. Qed.
"""
