(** * C2.threshold: the limit on the step size is exact (three frames: m^2/6)

    For eta >= m^2/6 a step multiplies the loss of three frames of norm at least m by at most (12 eta/m^2 - 1)^2, and no
    smaller factor will do: the frames m u, m v, - m u with a small cosine s of u and v come as close as one likes. *)

From Coq Require Import Reals Lra Lia Psatz.
From Coquelicot Require Import Coquelicot.
From framebound Require Import Inner TemporalLoss Triple Hessian Constants Steadiness FeatureDescent.
Open Scope R_scope.

Section Three.
Context {V : space}.
Variables e1 e2 : V.
Hypothesis plane : orthonormal e1 e2.
Variables m eta : R.
Hypothesis m_positive : 0 < m.

(** The inequality, with the sharp constant C+_3 = C_3 = 12. *)
Theorem long_step_three : forall F : nat -> V, norms_at_least 3 m F -> m ^ 2 / 6 <= eta ->
  loss 3 (step 3 eta F) <= (eta * 12 / m ^ 2 - 1) ^ 2 * loss 3 F.
Proof.
  intros F H He. replace (eta * 12 / m ^ 2) with (eta * (hessian_constant 3 / m ^ 2)) by (rewrite hessian_constant_3;
    field; lra).
  assert (P : 0 < m ^ 2) by now apply pow_lt.
  apply (long_step 3 ltac:(lia) m); try easy.
  - rewrite hessian_constant_3. apply Rdiv_lt_0_compat; lra.
  - now apply hessian_curvature_bound; [lia |].
  - rewrite hessian_constant_3. replace (2 / (12 / m ^ 2)) with (m ^ 2 / 6) by (field; lra). exact He.
Qed.

(** The frames m u, m v, - m u with << u, v >> = s. *)
Definition second (s : R) : V := s [*] e1 [+] sqrt (1 - s ^ 2) [*] e2.
Definition nearly_square (s : R) (t : nat) : V :=
  match t with O => m [*] e1 | 1%nat => m [*] second s | _ => (- m) [*] e1 end.

(** The ratio of the losses after and before a step: (p/q)^2 with .. *)
Definition after_inner (s : R) : R := m ^ 2 - 12 * eta * (1 - s ^ 2) - 32 * eta ^ 2 * s ^ 2 * (1 - s ^ 2) / m ^ 2.
Definition after_first (s : R) : R := m ^ 2 + 16 * eta ^ 2 * s ^ 2 * (1 - s ^ 2) / m ^ 2.
Definition after_second (s : R) : R := m ^ 2 + 64 * eta ^ 2 * s ^ 2 * (1 - s ^ 2) / m ^ 2.

Section Start.
Variable s : R.
Hypothesis small : -1 < s < 1.

Let v := second s.

Lemma second_unit : << v, v >> = 1.
Proof.
  unfold v, second. destruct plane as (A & B & C). pose proof (sqrt_sqrt (1 - s ^ 2) ltac:(nra)) as Q.
  expand_inner. rewrite (inner_sym _ e2 e1), A, B, C. lra.
Qed.

Lemma second_inner : << e1, v >> = s.
Proof. unfold v, second. destruct plane as (A & B & C). expand_inner. rewrite A, C. ring. Qed.

Lemma e1_unit : << e1, e1 >> = 1.
Proof. apply plane. Qed.

Lemma len_multiple : forall a (u : V), << u, u >> = 1 -> len (a [*] u) = Rabs a.
Proof. intros a u Hu. rewrite len_scale. unfold len. rewrite Hu, sqrt_1. ring. Qed.

Lemma norms_start : norms_at_least 3 m (nearly_square s).
Proof.
  intros t _. destruct t as [| [| t]]; simpl; rewrite len_multiple by (apply e1_unit || apply second_unit);
  rewrite ?Rabs_Ropp, Rabs_pos_eq; lra.
Qed.

Lemma start_no_zero : no_zero_frame 3 (nearly_square s).
Proof. apply norms_no_zero_frame with m; [easy | apply norms_start]. Qed.

Lemma start_cosine_0 : cosine (nearly_square s) 0 = s.
Proof.
  unfold cosine, nearly_square, similarity. rewrite !len_multiple by (apply e1_unit || apply second_unit).
  rewrite Rabs_pos_eq by lra. expand_inner. fold v. rewrite second_inner. field. lra.
Qed.

Lemma start_cosine_1 : cosine (nearly_square s) 1 = - s.
Proof.
  unfold cosine, nearly_square, similarity. rewrite !len_multiple by (apply e1_unit || apply second_unit).
  rewrite Rabs_Ropp, Rabs_pos_eq by lra. expand_inner. fold v. rewrite inner_sym, second_inner. field. lra.
Qed.

Lemma start_loss : loss 3 (nearly_square s) = 4 * s ^ 2.
Proof. unfold loss. simpl. rewrite start_cosine_0, start_cosine_1. field. Qed.

Lemma start_weights : weight 3 (nearly_square s) 0 = 4 * s /\ weight 3 (nearly_square s) 1 = - 4 * s
                      /\ weight 3 (nearly_square s) 2 = 0.
Proof.
  unfold weight, difference. simpl. rewrite start_cosine_0, start_cosine_1. repeat split; field.
Qed.

Lemma stepped_0 : step 3 eta (nearly_square s) 0 = (m + 4 * eta * s ^ 2 / m) [*] e1 [-] (4 * eta * s / m) [*] v.
Proof.
  destruct start_weights as (W0 & W1 & W2). unfold step, along, gradient. rewrite W0.
  unfold pull, unit. fold (cosine (nearly_square s) 0). rewrite start_cosine_0. simpl nearly_square. fold v.
  rewrite !len_multiple by (apply e1_unit || apply second_unit). rewrite Rabs_pos_eq by lra. vectors; field; lra.
Qed.

Lemma stepped_1 : step 3 eta (nearly_square s) 1 = (m + 8 * eta * s ^ 2 / m) [*] v [-] (8 * eta * s / m) [*] e1.
Proof.
  destruct start_weights as (W0 & W1 & W2). unfold step, along, gradient. rewrite W0, W1.
  unfold pull, unit. rewrite (similarity_sym (nearly_square s 1) (nearly_square s 0)).
  fold (cosine (nearly_square s) 0). fold (cosine (nearly_square s) 1).
  rewrite start_cosine_0, start_cosine_1. simpl nearly_square. fold v.
  rewrite !len_multiple by (apply e1_unit || apply second_unit). rewrite Rabs_Ropp, Rabs_pos_eq by lra.
  vectors; field; lra.
Qed.

Lemma stepped_2 : step 3 eta (nearly_square s) 2 = (-1) [*] step 3 eta (nearly_square s) 0.
Proof.
  rewrite stepped_0.
  destruct start_weights as (W0 & W1 & W2). unfold step, along, gradient. rewrite W1, W2.
  unfold pull, unit. rewrite (similarity_sym (nearly_square s 2) (nearly_square s 1)).
  fold (cosine (nearly_square s) 1). rewrite start_cosine_1. rewrite scale_zero, add_origin. simpl nearly_square.
  fold v.
  rewrite !len_multiple by (apply e1_unit || apply second_unit). rewrite Rabs_Ropp, Rabs_pos_eq by lra.
  vectors; field; lra.
Qed.

Lemma stepped_inner : << step 3 eta (nearly_square s) 0, step 3 eta (nearly_square s) 1 >> = s * after_inner s.
Proof.
  rewrite stepped_0, stepped_1. unfold after_inner. expand_inner.
  rewrite (inner_sym _ v e1), second_inner, second_unit, e1_unit. field. lra.
Qed.

Lemma stepped_first : << step 3 eta (nearly_square s) 0, step 3 eta (nearly_square s) 0 >> = after_first s.
Proof.
  rewrite stepped_0. unfold after_first. expand_inner.
  rewrite (inner_sym _ v e1), second_inner, second_unit, e1_unit. field. lra.
Qed.

Lemma stepped_second : << step 3 eta (nearly_square s) 1, step 3 eta (nearly_square s) 1 >> = after_second s.
Proof.
  rewrite stepped_1. unfold after_second. expand_inner.
  rewrite (inner_sym _ v e1), second_inner, second_unit, e1_unit. field. lra.
Qed.

Lemma after_first_pos : 0 < after_first s.
Proof.
  unfold after_first. assert (0 < m ^ 2) by now apply pow_lt.
  assert (0 <= 16 * eta ^ 2 * s ^ 2 * (1 - s ^ 2) / m ^ 2); [| lra].
  apply Rmult_le_pos; [| apply Rlt_le, Rinv_0_lt_compat; lra].
  apply Rmult_le_pos; [| nra]. apply Rmult_le_pos; [| apply pow2_ge_0]. pose proof (pow2_ge_0 eta). lra.
Qed.

Lemma after_second_pos : 0 < after_second s.
Proof.
  unfold after_second. assert (0 < m ^ 2) by now apply pow_lt.
  assert (0 <= 64 * eta ^ 2 * s ^ 2 * (1 - s ^ 2) / m ^ 2); [| lra].
  apply Rmult_le_pos; [| apply Rlt_le, Rinv_0_lt_compat; lra].
  apply Rmult_le_pos; [| nra]. apply Rmult_le_pos; [| apply pow2_ge_0]. pose proof (pow2_ge_0 eta). lra.
Qed.

(** The loss after the step, exactly. *)
Theorem stepped_loss :
  loss 3 (step 3 eta (nearly_square s))
  = after_inner s ^ 2 / (after_first s * after_second s) * loss 3 (nearly_square s).
Proof.
  rewrite start_loss. pose proof after_first_pos as P. pose proof after_second_pos as Q.
  assert (C0 : cosine (step 3 eta (nearly_square s)) 0
               = s * after_inner s / (sqrt (after_first s) * sqrt (after_second s))).
  { unfold cosine, similarity, len. now rewrite stepped_inner, stepped_first, stepped_second. }
  assert (C1 : cosine (step 3 eta (nearly_square s)) 1 = - cosine (step 3 eta (nearly_square s)) 0).
  { rewrite C0. unfold cosine, similarity. rewrite stepped_2, len_scale, Rabs_left, inner_scale_r,
      (inner_sym _ (step 3 eta _ 1)) by lra.
    unfold len. rewrite stepped_inner, stepped_first, stepped_second.
    pose proof (sqrt_lt_R0 _ P). pose proof (sqrt_lt_R0 _ Q). field. lra. }
  unfold loss at 1. simpl sum. simpl INR. rewrite C1, C0.
  pose proof (sqrt_lt_R0 _ P). pose proof (sqrt_lt_R0 _ Q).
  replace (after_first s * after_second s)
    with (sqrt (after_first s) * sqrt (after_first s) * (sqrt (after_second s) * sqrt (after_second s)))
    by (rewrite !sqrt_sqrt; lra).
  field. lra.
Qed.

End Start.

(** No smaller factor will do: for every rho below (12 eta/m^2 - 1)^2 some start of norms m has its loss multiplied by
    more. *)
Theorem factor_sharp : forall rho, rho < (eta * 12 / m ^ 2 - 1) ^ 2 ->
  exists F : nat -> V, norms_at_least 3 m F /\ 0 < loss 3 F /\ rho * loss 3 F < loss 3 (step 3 eta F).
Proof.
  intros rho Hrho. set (f := fun s => after_inner s ^ 2 / (after_first s * after_second s)).
  assert (M2 : 0 < m ^ 2) by now apply pow_lt.
  assert (F0 : f 0 = (eta * 12 / m ^ 2 - 1) ^ 2).
  { unfold f, after_inner, after_first, after_second. field. lra. }
  assert (C : @continuous R_UniformSpace R_UniformSpace f 0).
  { apply (@ex_derive_continuous R_AbsRing R_NormedModule). unfold f, after_inner, after_first, after_second.
    auto_derive. repeat split; nra. }
  assert (L : locally 0 (fun s => rho < f s)).
  { apply (C (fun y : R => rho < y)). change (@locally R_UniformSpace (f 0) (fun y : R => rho < y)).
    apply open_gt. now rewrite F0. }
  destruct L as [eps He]. set (s := Rmin (eps / 2) (1 / 2)).
  assert (Heps : 0 < eps) by apply cond_pos.
  assert (S0 : 0 < s) by (unfold s; apply Rmin_glb_lt; lra).
  assert (S1 : s <= 1 / 2) by apply Rmin_r. assert (S2 : s <= eps / 2) by apply Rmin_l.
  assert (G : rho < f s).
  { apply He. change (Rabs (minus s 0) < eps). unfold minus, plus, opp; simpl.
    rewrite Ropp_0, Rplus_0_r, Rabs_pos_eq; lra. }
  exists (nearly_square s). split; [apply norms_start; lra | split].
  - rewrite start_loss by lra. assert (0 < s ^ 2) by now apply pow_lt. lra.
  - rewrite stepped_loss by lra. apply Rmult_lt_compat_r; [| exact G].
    rewrite start_loss by lra. assert (0 < s ^ 2) by now apply pow_lt. lra.
Qed.

(** So beyond m^2/6 some start of norms m has a rising loss. *)
Theorem limit_exact : m ^ 2 / 6 < eta ->
  exists F : nat -> V, norms_at_least 3 m F /\ loss 3 F < loss 3 (step 3 eta F).
Proof.
  intros He. assert (M2 : 0 < m ^ 2) by now apply pow_lt.
  destruct (factor_sharp 1) as (F & HF & P & G).
  - assert (1 < eta * 12 / m ^ 2 - 1); [| nra].
    apply (Rmult_lt_reg_r (m ^ 2)); [easy |]. replace ((eta * 12 / m ^ 2 - 1) * m ^ 2) with (eta * 12 - m ^ 2)
      by (field; lra). lra.
  - exists F. split; [exact HF | lra].
Qed.

End Three.
