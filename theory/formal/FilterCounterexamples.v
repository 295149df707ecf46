(** * C4.stated, C4.smoothing, C4.energy: clips on which the bilateral filter expands

    The public code's filter: a window of 5 frames, sigma_spatial = 1, reflect padding, values in range widths (sigma
      = 1).
    The numbers are enclosed by interval arithmetic (coq-interval, 60 binary digits), so these theorems alone also trust
    Coq's 63-bit machine integers. *)

From Coq Require Import Reals Lra Lia.
From Interval Require Import Tactic.
From framebound Require Import Inner Bilateral.
Open Scope R_scope.

(** exp(-k^2/2) for k = -2, -1, 1, 2. *)
Definition spatial (k : nat) : R := match k with 1%nat | 2%nat => exp (- (1 / 2)) | _ => exp (-2) end.

(** Frame i + k - 2 of N, mirrored at the first and the last frame without repeating them. *)
Definition mirrored (N p : nat) : nat := if Nat.ltb p 2 then (2 - p)%nat else if Nat.ltb p (N + 2) then (p
  - 2)%nat else (2 * N - p)%nat.
Definition window (N i k : nat) : nat := mirrored N (match k
  with O => i | 1%nat => i + 1 | 2%nat => i + 3 | _ => i + 4 end)%nat.

(** B(x)_i for a clip of N frames. *)
Definition bilateral (N : nat) (x : nat -> R) (i : nat) : R := filtered 1 4 spatial (window N) x i.

Lemma spatial_positive : forall k, (k < 4)%nat -> 0 < spatial k.
Proof. intros [| [| [| k]]] _; apply exp_pos. Qed.

(** A clip given by the list of its values. *)
Definition clip (values : list R) (i : nat) : R := List.nth i values 0.

Ltac evaluate := unfold bilateral, filtered, total_weight, range_weight, window, mirrored, spatial, clip; simpl.

(** C4.stated: x = (- sqrt 3, 0, sqrt 3) and x' = (-3, 0, 3) are driven apart by the same factor in every l_p norm:
    both differences are multiples of (1, 0, -1). *)
Definition symmetric_clip (d : R) : nat -> R := clip (- d :: 0 :: d :: nil).

Theorem symmetric_output : forall d, bilateral 3 (symmetric_clip d) 1 = 0 /\
  bilateral 3 (symmetric_clip d) 2 = - bilateral 3 (symmetric_clip d) 0.
Proof.
  intros d. unfold symmetric_clip. evaluate. split.
  - replace ((- d - 0) / 1 * ((- d - 0) / 1 * 1)) with (d * d) by field.
    replace ((d - 0) / 1 * ((d - 0) / 1 * 1)) with (d * d) by field.
    unfold Rdiv. ring_simplify. ring.
  - replace ((0 - d) / 1 * ((0 - d) / 1 * 1)) with (d * d) by field.
    replace ((0 - - d) / 1 * ((0 - - d) / 1 * 1)) with (d * d) by field.
    replace ((- d - d) / 1 * ((- d - d) / 1 * 1)) with (4 * (d * d)) by field.
    replace ((d - - d) / 1 * ((d - - d) / 1 * 1)) with (4 * (d * d)) by field. unfold Rdiv. ring.
Qed.

Theorem expansion_three : 1.26080 * (3 - sqrt 3)
  <= bilateral 3 (symmetric_clip (sqrt 3)) 0 - bilateral 3 (symmetric_clip 3) 0 <= 1.26082 * (3 - sqrt 3).
Proof. unfold symmetric_clip. evaluate. split; interval with (i_prec 60). Qed.

(** Two frames and a window cut off at the ends: differences d go to d tanh((1 + d^2)/4). *)
Definition two_frame_difference (d : R) : R :=
  filtered 1 1 (fun _ => exp (- (1 / 2))) (fun i _ => 1 - i)%nat (clip (0 :: d :: nil)) 1
  - filtered 1 1 (fun _ => exp (- (1 / 2))) (fun i _ => 1 - i)%nat (clip (0 :: d :: nil)) 0.

Theorem two_frames : forall d, two_frame_difference d = d * tanh ((1 + d ^ 2) / 4).
Proof.
  intros d. unfold two_frame_difference. evaluate. unfold tanh, sinh, cosh.
  replace ((0 - d) / 1 * ((0 - d) / 1 * 1)) with (d * d) by field.
  replace ((d - 0) / 1 * ((d - 0) / 1 * 1)) with (d * d) by field.
  set (t := (1 + d * (d * 1)) / 4).
  assert (E : exp (- (1 / 2)) * exp (- (d * d) / 2) = exp (- t) * exp (- t)).
  { rewrite <- !exp_plus. f_equal. unfold t. field. }
  assert (P : exp t * exp (- t) = 1) by (rewrite <- exp_plus, Rplus_opp_r; apply exp_0).
  pose proof (exp_pos t) as T. pose proof (exp_pos (- t)) as T'.
  rewrite !Rplus_0_l, E. set (a := exp t) in *. set (b := exp (- t)) in *.
  assert (Q : a = / b) by (apply (Rmult_eq_reg_r b); [rewrite P; field; lra | lra]). rewrite Q. field.
  assert (0 < b * b) by (apply Rmult_lt_0_compat; lra). repeat split; lra.
Qed.

Theorem expansion_two : 1.2939 * (3 - sqrt 3) <= two_frame_difference 3 - two_frame_difference (sqrt 3) <= 1.2941 * (3
  - sqrt 3).
Proof. unfold two_frame_difference. evaluate. split; interval with (i_prec 60). Qed.

(** C4.smoothing: the total variation of (0, 0, 4.7, 1) grows 1.01577 times. *)
Definition variation (N : nat) (x : nat -> R) : R := sum (N - 1) (fun i => Rabs (x (S i) - x i)).
Definition peak : nat -> R := clip (0 :: 0 :: 4.7 :: 1 :: nil).

Theorem variation_grows : 1.01576 * variation 4 peak <= variation 4 (bilateral 4 peak) <= 1.01578 * variation 4 peak.
Proof. unfold variation, peak. simpl sum. evaluate. split; interval with (i_prec 60). Qed.

(** C4.energy: the energy of the differences of (0, 0.7, 4, 4.7) grows 1.15828 times. *)
Definition energy (N : nat) (x : nat -> R) : R := sum (N - 1) (fun i => (x (S i) - x i) ^ 2).
Definition two_levels : nat -> R := clip (0 :: 0.7 :: 4 :: 4.7 :: nil).

Theorem energy_grows : 1.15827 * energy 4 two_levels <= energy 4 (bilateral 4 two_levels)
  <= 1.15829 * energy 4 two_levels.
Proof. unfold energy, two_levels. simpl sum. evaluate. split; interval with (i_prec 60). Qed.
