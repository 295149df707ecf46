(** * C2.descent: descent on features is monotone for ever, from a lower bound on the start alone

    F^(k+1) = F^k - eta grad L(F^k) from any start of norms at least m > 0, any eta > 0. Norms never decrease,
      so the whole
    path stays where all norms are at least m, and for every k
    L(F^k) - L(F^(k+1)) >= eta (1 - eta C / (2 m^2)) ||grad L(F^k)||^2 for every bound C / m^2 on the curvature there.
      That
    C_N of C1.hessian is one is proved here for every N. With C1.upper-curvature it is the sharp C+_N: 12 for N = 3,
      10 for
    N = 4, and for other N any number that [upper_curvature] gives. *)

From Coq Require Import Reals Lra Lia Psatz.
From Coquelicot Require Import Coquelicot.
From framebound Require Import Inner TemporalLoss Hessian Constants UpperCurvature Steadiness.
Open Scope R_scope.

Section Descent.
Context {V : space}.
Variable N : nat.
Hypothesis three : (3 <= N)%nat.

(** One step, and all of them. *)
Definition step (eta : R) (F : nat -> V) : nat -> V := along F (gradient N F) (- eta).
Fixpoint descent (eta : R) (F0 : nat -> V) (k : nat) : nat -> V :=
  match k with O => F0 | S p => step eta (descent eta F0 p) end.

(** ||grad L||^2 *)
Definition squared_gradient (F : nat -> V) : R := sum N (fun t => << gradient N F t, gradient N F t >>).

Lemma squared_gradient_nonneg : forall F : nat -> V, 0 <= squared_gradient F.
Proof. intros. apply frames_pos. Qed.

(** A step is tangential: |F_t - s grad_t|^2 = |F_t|^2 + s^2 |grad_t|^2. *)
Theorem tangential_step : forall (F : nat -> V) s t, (t < N)%nat -> no_zero_frame N F ->
  << along F (gradient N F) s t, along F (gradient N F) s t >>
  = << F t, F t >> + s ^ 2 * << gradient N F t, gradient N F t >>.
Proof. intros F s t Ht H. unfold along. rewrite square_along, (gradient_tangential N three F t Ht H). ring. Qed.

(** So norms never decrease. *)
Theorem norms_grow : forall (F : nat -> V) s t, (t < N)%nat -> no_zero_frame N F -> len (F t)
  <= len (along F (gradient N F) s t).
Proof.
  intros F s t Ht H. apply sqrt_le_1_alt. rewrite tangential_step by easy.
  pose proof (Rmult_le_pos _ _ (pow2_ge_0 s) (inner_pos _ (gradient N F t))). lra.
Qed.

Lemma path_stays : forall m (F : nat -> V) s, 0 < m -> norms_at_least N m F
  -> norms_at_least N m (along F (gradient N F) s).
Proof.
  intros m F s Hm H t Ht. apply Rle_trans with (len (F t)); [exact (H t Ht) |]. apply norms_grow; [easy |].
  now apply norms_no_zero_frame with m.
Qed.

(** A number that bounds the curvature x^T H x / |x|^2 on all frames of norm at least m. *)
Definition curvature_bound (m K : R) : Prop :=
  forall F x : nat -> V, norms_at_least N m F -> hessian_form N F x <= K * sum N (fun t => << x t, x t >>).

(** One step. *)
Theorem descent_step : forall m K eta (F : nat -> V), 0 < m -> curvature_bound m K -> norms_at_least N m F ->
  loss N (step eta F) <= loss N F - eta * (1 - eta * K / 2) * squared_gradient F.
Proof.
  intros m K eta F Hm HK H. set (x := fun t => (- eta) [*] gradient N F t).
  assert (A : forall s t, along F x s t = along F (gradient N F) (- eta * s) t).
  { intros. unfold along, x. vectors. }
  assert (Stay : forall s, norms_at_least N m (along F x s)).
  { intros s t Ht. rewrite A. now apply path_stays. }
  assert (X : sum N (fun t => << x t, x t >>) = eta * eta * squared_gradient F).
  { unfold squared_gradient. rewrite <- sum_scale. apply sum_ext. intros. unfold x. expand_inner. ring. }
  pose proof (taylor_upper (fun s => loss N (along F x s)) (fun s => slope N (along F x s) x)
    (fun s => hessian_form N (along F x s) x) (K * (eta * eta * squared_gradient F))) as T.
  assert (T' : loss N (along F x 1) <= loss N (along F x 0) + slope N (along F x 0) x + K * (eta * eta *
    squared_gradient F) / 2).
  { apply T.
    - intros s _. apply loss_line; [easy |]. now apply norms_no_zero_frame with m.
    - intros s _. apply slope_line; [easy |]. now apply norms_no_zero_frame with m.
    - intros s _. rewrite <- X. apply HK, Stay. }
  rewrite along_0 in T'.
  assert (S0 : slope N F x = - eta * squared_gradient F).
  { rewrite gradient_slope by (try easy; now apply norms_no_zero_frame with m).
    unfold squared_gradient. rewrite <- sum_scale. apply sum_ext. intros. unfold x. expand_inner. ring. }
  assert (S1 : along F x 1 = step eta F).
  { apply FunctionalExtensionality.functional_extensionality. intro t. rewrite A. unfold step. f_equal. ring. }
  rewrite S0, S1 in T'. lra.
Qed.

(** All steps: the norms stay at least m for ever .. *)
Theorem descent_stays : forall m eta (F0 : nat -> V) k, 0 < m -> norms_at_least N m F0
  -> norms_at_least N m (descent eta F0 k).
Proof. intros m eta F0 k Hm H. induction k; [exact H |]. now apply path_stays. Qed.

(** .. so every step keeps the promise .. *)
Theorem descent_for_ever : forall m K eta (F0 : nat -> V) k, 0 < m -> curvature_bound m K -> norms_at_least N m F0 ->
  loss N (descent eta F0 k) - loss N (descent eta F0 (S k))
  >= eta * (1 - eta * K / 2) * squared_gradient (descent eta F0 k).
Proof.
  intros m K eta F0 k Hm HK H.
  pose proof (descent_step m K eta (descent eta F0 k) Hm HK (descent_stays m eta F0 k Hm H)) as D.
  simpl descent at 2. lra.
Qed.

(** .. the loss is monotone for eta <= 2/K .. *)
Theorem descent_monotone : forall m K eta (F0 : nat -> V) k, 0 < m -> curvature_bound m K -> norms_at_least N m F0 ->
  0 <= eta -> eta * K <= 2 -> loss N (descent eta F0 (S k)) <= loss N (descent eta F0 k).
Proof.
  intros m K eta F0 k Hm HK H He HeK. pose proof (descent_for_ever m K eta F0 k Hm HK H) as D.
  pose proof (squared_gradient_nonneg (descent eta F0 k)) as G.
  assert (0 <= eta * (1 - eta * K / 2)) by (apply Rmult_le_pos; lra).
  pose proof (Rmult_le_pos _ _ H0 G). lra.
Qed.

(** .. and the squared gradients have a bounded sum. *)
Theorem gradients_summable : forall m K eta (F0 : nat -> V) n, 0 < m -> curvature_bound m K -> norms_at_least N m F0 ->
  eta * (1 - eta * K / 2) * sum n (fun k => squared_gradient (descent eta F0 k)) <= loss N F0.
Proof.
  intros m K eta F0 n Hm HK H.
  assert (A : eta * (1 - eta * K / 2) * sum n (fun k => squared_gradient (descent eta F0 k))
              <= loss N F0 - loss N (descent eta F0 n)).
  { induction n; simpl sum; [simpl; lra |]. pose proof (descent_for_ever m K eta F0 n Hm HK H). lra. }
  pose proof (loss_nonneg N (descent eta F0 n) three). lra.
Qed.

(** C1.hessian gives such a number for every N. *)
Theorem hessian_curvature_bound : forall m, 0 < m -> curvature_bound m (hessian_constant N / m ^ 2).
Proof.
  intros m Hm F x H. eapply Rle_trans; [apply Rle_abs |]. now apply hessian_bound.
Qed.

(** C2.descent with C_N. *)
Theorem feature_descent : forall m eta (F0 : nat -> V) k, 0 < m -> norms_at_least N m F0 ->
  loss N (descent eta F0 k) - loss N (descent eta F0 (S k))
  >= eta * (1 - eta * hessian_constant N / (2 * m ^ 2)) * squared_gradient (descent eta F0 k).
Proof.
  intros m eta F0 k Hm H.
  pose proof (descent_for_ever m _ eta F0 k Hm (hessian_curvature_bound m Hm) H) as D.
  replace (eta * hessian_constant N / (2 * m ^ 2)) with (eta * (hessian_constant N / m ^ 2) / 2) by (field; lra).
  exact D.
Qed.

(** C2.threshold, the inequality: a step of eta >= 2/K multiplies the loss by at most (eta K - 1)^2. *)
Theorem long_step : forall m K eta (F : nat -> V), 0 < m -> 0 < K -> curvature_bound m K -> norms_at_least N m F ->
  2 / K <= eta -> loss N (step eta F) <= (eta * K - 1) ^ 2 * loss N F.
Proof.
  intros m K eta F Hm HK HC H He.
  pose proof (descent_step m K (/ K) F Hm HC H) as A. pose proof (descent_step m K eta F Hm HC H) as B.
  pose proof (loss_nonneg N (step (/ K) F) three) as P.
  replace (/ K * (1 - / K * K / 2)) with (/ (2 * K)) in A by (field; lra).
  assert (G : squared_gradient F <= 2 * K * loss N F).
  { apply (Rmult_le_reg_l (/ (2 * K))); [apply Rinv_0_lt_compat; lra |].
    rewrite <- Rmult_assoc, Rinv_l, Rmult_1_l by lra. lra. }
  assert (E : 2 <= eta * K) by (apply (Rmult_le_compat_r K) in He; [| lra]; unfold Rdiv in He;
    rewrite Rmult_assoc, Rinv_l in He by lra; lra).
  assert (He0 : 0 <= eta) by (assert (0 < 2 / K) by (apply Rdiv_lt_0_compat; lra); lra).
  assert (0 <= eta * (eta * K / 2 - 1)) by (apply Rmult_le_pos; lra).
  pose proof (Rmult_le_compat_l _ _ _ H0 G) as C.
  replace (eta * (eta * K / 2 - 1) * (2 * K * loss N F)) with (((eta * K) ^ 2 - 2 * (eta * K)) * loss N F) in C
    by field. lra.
Qed.

End Descent.

(** C1.upper-curvature gives smaller ones: C = 2/(N-2) K for any balanced v with |D_2|^T |D_2| v <= K v. *)
Theorem feature_descent_balanced : forall (V : space) N v K m eta (F0 : nat -> V) k, (3 <= N)%nat -> balanced N v ->
  (forall t, (t < N)%nat -> adjoint N (second_sum v) t <= K * v t) -> 0 < m -> norms_at_least N m F0 ->
  loss N (descent N eta F0 k) - loss N (descent N eta F0 (S k))
  >= eta * (1 - eta * (2 / INR (N - 2) * K) / (2 * m ^ 2)) * squared_gradient N (descent N eta F0 k).
Proof.
  intros V N v K m eta F0 k H3 Hv HK Hm H.
  assert (C : @curvature_bound V N m (2 / INR (N - 2) * K / m ^ 2)).
  { intros F x HF. now apply (upper_curvature N H3 v). }
  pose proof (descent_for_ever N H3 m _ eta F0 k Hm C H) as D. pose proof (count_pos N H3).
  replace (eta * (2 / INR (N - 2) * K) / (2 * m ^ 2)) with (eta * (2 / INR (N - 2) * K / m ^ 2) / 2) by (field; lra).
  exact D.
Qed.

(** For three frames the sharp constant is 12, so eta <= m^2/6 is safe; for four it is 10. *)
Theorem feature_descent_three : forall (V : space) m eta (F0 : nat -> V) k, 0 < m -> norms_at_least 3 m F0 ->
  loss 3 (descent 3 eta F0 k) - loss 3 (descent 3 eta F0 (S k))
  >= eta * (1 - eta * 12 / (2 * m ^ 2)) * squared_gradient 3 (descent 3 eta F0 k).
Proof.
  intros V m eta F0 k Hm H.
  pose proof (descent_for_ever 3 ltac:(lia) m _ eta F0 k Hm (fun F x HF => upper_curvature_three V m F x Hm HF) H) as D.
  replace (eta * 12 / (2 * m ^ 2)) with (eta * (12 / m ^ 2) / 2) by (field; lra). exact D.
Qed.

Theorem feature_descent_four : forall (V : space) m eta (F0 : nat -> V) k, 0 < m -> norms_at_least 4 m F0 ->
  loss 4 (descent 4 eta F0 k) - loss 4 (descent 4 eta F0 (S k))
  >= eta * (1 - eta * 10 / (2 * m ^ 2)) * squared_gradient 4 (descent 4 eta F0 k).
Proof.
  intros V m eta F0 k Hm H.
  pose proof (descent_for_ever 4 ltac:(lia) m _ eta F0 k Hm (fun F x HF => upper_curvature_four V m F x Hm HF) H) as D.
  replace (eta * 10 / (2 * m ^ 2)) with (eta * (10 / m ^ 2) / 2) by (field; lra). exact D.
Qed.
