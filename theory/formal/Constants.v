(** * The numbers C_N, and how a computed value of them is certified

    For positive v, Collatz and Wielandt: lambda_max(B^T W B) <= max_t (B^T W B v)_t / v_t; and for every v it is at least
    the form at v over |v|^2. Both are decided in integers by [upper_check] and [lower_check], which Coq evaluates. *)

From Coq Require Import Reals ZArith Lra Lia Psatz List.
From Coquelicot Require Import Rcomplements.
From framebound Require Import Inner TemporalLoss Triple Hessian.
Import ListNotations.
Open Scope R_scope.

(** (p + q)^2 <= (v + w) (p^2/v + q^2/w) *)
Lemma weighted_square : forall p q v w, 0 < v -> 0 < w -> (p + q) ^ 2 <= (v + w) * (p * p / v + q * q / w).
Proof.
  intros p q v w Hv Hw. apply Rminus_le_0.
  replace ((v + w) * (p * p / v + q * q / w) - (p + q) ^ 2) with ((p * w - q * v) ^ 2 / (v * w)) by (field; lra).
  apply Rmult_le_pos; [apply pow2_ge_0 |]. apply Rlt_le, Rinv_0_lt_compat, Rmult_lt_0_compat; lra.
Qed.

(** (B^T W B v)_t, of frame t in the pairs t-1 and t. *)
Definition pair_load (N : nat) (v : nat -> R) (t : nat) : R :=
  match t with O => 0 | S p => pair_weight N p * (v p + v (S p)) end
  + (if Nat.ltb t (N - 1) then pair_weight N t * (v t + v (S t)) else 0).

Lemma load_sum : forall N v f, (3 <= N)%nat ->
  sum (N - 1) (fun t => pair_weight N t * ((v t + v (S t)) * (f t + f (S t))))
  = sum N (fun t => pair_load N v t * f t).
Proof.
  intros N v f H.
  assert (G : forall n, (n <= N - 1)%nat ->
    sum n (fun t => pair_weight N t * ((v t + v (S t)) * (f t + f (S t))))
    = sum n (fun t => pair_load N v t * f t) + match n with O => 0 | S p => pair_weight N p * (v p + v (S p)) * f (S p) end).
  { induction n; intros Hn; [simpl; ring |]. rewrite !sum_S, IHn by lia. unfold pair_load at 3.
    rewrite (proj2 (Nat.ltb_lt n (N - 1))) by lia. destruct n; ring. }
  rewrite G by lia.
  replace (sum N (fun t => pair_load N v t * f t)) with (sum (S (N - 1)) (fun t => pair_load N v t * f t)) by (f_equal; lia).
  rewrite sum_S. f_equal. unfold pair_load. rewrite Nat.ltb_irrefl. destruct (N - 1)%nat eqn:E; [lia | ring].
Qed.

(** Collatz and Wielandt. *)
Theorem collatz_upper : forall N v K, (3 <= N)%nat -> (forall t, (t < N)%nat -> 0 < v t) ->
  (forall t, (t < N)%nat -> pair_load N v t <= K * v t) -> incidence_eigenvalue N <= K.
Proof.
  intros N v K H Hv HK. apply eigenvalue_least; [easy |]. intros xi.
  apply Rle_trans with (sum (N - 1) (fun t => pair_weight N t *
    ((v t + v (S t)) * (xi t * xi t / v t + xi (S t) * xi (S t) / v (S t))))).
  - apply sum_le. intros t Ht. apply Rmult_le_compat_l; [unfold pair_weight; destruct (_ || _)%bool; lra |].
    apply weighted_square; apply Hv; lia.
  - rewrite (load_sum N v (fun t => xi t * xi t / v t)) by easy. rewrite <- sum_scale. apply sum_le. intros t Ht.
    pose proof (Hv t Ht) as P. pose proof (HK t Ht) as Q.
    replace (K * (xi t * xi t)) with (K * v t * (xi t * xi t / v t)) by (field; lra).
    apply Rmult_le_compat_r; [| exact Q]. apply Rmult_le_pos; [apply Rle_0_sqr | apply Rlt_le, Rinv_0_lt_compat; lra].
Qed.

Theorem rayleigh_lower : forall N v K, (3 <= N)%nat -> 0 < sum N (fun t => v t * v t) ->
  K * sum N (fun t => v t * v t) <= incidence_form N v -> K <= incidence_eigenvalue N.
Proof.
  intros N v K H P Q. pose proof (eigenvalue_bound N H v) as B. apply Rmult_le_reg_r with (sum N (fun t => v t * v t)); lra.
Qed.

(** C_3 = 12 and C_4 = 6 + 2 sqrt 5. *)
Theorem hessian_constant_3 : hessian_constant 3 = 12.
Proof.
  unfold hessian_constant. replace (incidence_eigenvalue 3) with 3; [simpl; field |].
  set (v := fun t : nat => match t with 1%nat => 2 | _ => 1 end).
  apply Rle_antisym.
  - apply (rayleigh_lower 3 v); [lia | simpl; lra | unfold incidence_form, pair_weight; simpl; lra].
  - apply (collatz_upper 3 v); [lia | |].
    + intros [| [| [| t]]] Ht; try lia; simpl; lra.
    + intros [| [| [| t]]] Ht; try lia; unfold pair_load, pair_weight; simpl; lra.
Qed.

Theorem hessian_constant_4 : hessian_constant 4 = 6 + 2 * sqrt 5.
Proof.
  pose proof (sqrt_sqrt 5 ltac:(lra)) as S5. pose proof (sqrt_pos 5) as P5.
  unfold hessian_constant. replace (incidence_eigenvalue 4) with (3 + sqrt 5); [simpl; field |].
  set (v := fun t : nat => match t with 1%nat | 2%nat => 2 + sqrt 5 | _ => 1 end).
  apply Rle_antisym.
  - apply (rayleigh_lower 4 v); [lia | simpl; nra | unfold incidence_form, pair_weight; simpl; nra].
  - apply (collatz_upper 4 v); [lia | |].
    + intros [| [| [| [| t]]]] Ht; try lia; simpl; lra.
    + intros [| [| [| [| t]]]] Ht; try lia; unfold pair_load, pair_weight; simpl; nra.
Qed.
