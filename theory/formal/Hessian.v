(** * C1.hessian: the sharp bound on the curvature of the temporal loss

    On N >= 3 frames of norm at least m > 0 the Hessian of the temporal loss has norm at most C_N / m^2 with
    C_N = 4/(N-2) lambda_max(B^T W B), and no smaller constant will do: [hessian_bound], [hessian_sharp].
    The Hessian is the quadratic form [hessian_form]; that it is the second derivative of the loss along lines is
    [loss_second_derivative] of TemporalLoss.v. Its norm is the largest |x^T H x| on unit x, as for every symmetric H.
    *)

From Coq Require Import Reals Lra Lia Psatz.
From Coquelicot Require Import Coquelicot.
From framebound Require Import Inner TemporalLoss Triple.
Open Scope R_scope.

(** ** The constant *)

(** W = diag(1, 2, .., 2, 1), the identity for N = 3. *)
Definition pair_weight (N t : nat) : R := if (Nat.eqb t 0 || Nat.eqb t (N - 2))%bool then 1 else 2.

(** xi^T B^T W B xi with (B xi)_t = xi_t + xi_(t+1). *)
Definition incidence_form (N : nat) (xi : nat -> R) : R := sum (N
  - 1) (fun t => pair_weight N t * (xi t + xi (S t)) ^ 2).

(** lambda_max(B^T W B), the least upper bound of the form on unit vectors. *)
Definition incidence_eigenvalue (N : nat) : R :=
  real (Lub_Rbar (fun v => exists xi, sum N (fun t => xi t * xi t) = 1 /\ v = incidence_form N xi)).

(** C_N *)
Definition hessian_constant (N : nat) : R := 4 / INR (N - 2) * incidence_eigenvalue N.

(** The weights count in how many triples a pair occurs. *)
Lemma incidence_triples : forall N f, (3 <= N)%nat ->
  sum (N - 2) (fun t => f t + f (S t)) = sum (N - 1) (fun t => pair_weight N t * f t).
Proof.
  intros N f H. destruct N as [| [| [| n]]]; try lia. clear H.
  replace (S (S (S n)) - 2)%nat with (S n) by lia. replace (S (S (S n)) - 1)%nat with (S (S n)) by lia.
  rewrite sum_plus. rewrite (sum_first n f).
  change (sum (S n) (fun i => f (S i))) with (sum n (fun i => f (S i)) + f (S n)).
  rewrite (sum_first (S n)). change (sum (S n) ?g) with (sum n g + g n).
  rewrite (sum_ext n (fun i => pair_weight (S (S (S n))) (S i) * f (S i)) (fun i => 2 * f (S i))).
  2: { intros i Hi. unfold pair_weight. replace (S (S (S n)) - 2)%nat with (S n) by lia. simpl.
       destruct (Nat.eqb_spec i n); [lia | ring]. }
  rewrite sum_scale. unfold pair_weight. replace (S (S (S n)) - 2)%nat with (S n) by lia. simpl.
  rewrite Nat.eqb_refl. simpl. ring.
Qed.

Lemma incidence_form_nonneg : forall N xi, 0 <= incidence_form N xi.
Proof.
  intros. apply sum_nonneg. intros i _. apply Rmult_le_pos; [| apply pow2_ge_0].
  unfold pair_weight. destruct (_ || _)%bool; lra.
Qed.

Lemma incidence_form_scale : forall N a xi, incidence_form N (fun t => a * xi t) = a ^ 2 * incidence_form N xi.
Proof. intros. unfold incidence_form. rewrite <- sum_scale. apply sum_ext. intros. ring. Qed.

Lemma sum_shift_le : forall n (f : nat -> R), (forall i, 0 <= f i) -> sum n (fun t => f (S t)) <= sum (S n) f.
Proof. intros. rewrite sum_first. pose proof (H O). lra. Qed.

Lemma incidence_form_crude : forall N xi, (3 <= N)%nat -> incidence_form N xi <= 8 * sum N (fun t => xi t * xi t).
Proof.
  intros N xi H. replace N with (S (N - 1)) at 2 by lia. unfold incidence_form.
  apply Rle_trans with (sum (N - 1) (fun t => 4 * (xi t * xi t) + 4 * (xi (S t) * xi (S t)))).
  - apply sum_le. intros t _. unfold pair_weight.
    pose proof (Rle_0_sqr (xi t - xi (S t))) as Q. pose proof (Rle_0_sqr (xi t + xi (S t))) as P. unfold Rsqr in P, Q.
    destruct (_ || _)%bool; nra.
  - rewrite sum_plus, !sum_scale.
    pose proof (sum_shift_le (N - 1) (fun t => xi t * xi t) (fun i => Rle_0_sqr (xi i))). simpl in *.
    pose proof (Rle_0_sqr (xi (N - 1)%nat)) as Q. unfold Rsqr in Q. lra.
Qed.

Section Eigenvalue.
Variable N : nat.
Hypothesis three : (3 <= N)%nat.

Let values (v : R) := exists xi, sum N (fun t => xi t * xi t) = 1 /\ v = incidence_form N xi.

Lemma eigenvalue_is_lub : is_lub_Rbar values (Finite (incidence_eigenvalue N)).
Proof.
  unfold incidence_eigenvalue. fold values. pose proof (Lub_Rbar_correct values) as L.
  destruct (Lub_Rbar values) as [l | |] eqn:E; [exact L | exfalso | exfalso].
  - destruct L as [_ L]. specialize (L (Finite 8)). simpl in L. apply L.
    intros v [xi [H1 ->]]. simpl. pose proof (incidence_form_crude N xi three). lra.
  - destruct L as [L _].
    apply (L (incidence_form N (fun t => if Nat.eqb t 0 then 1 else 0))).
    exists (fun t => if Nat.eqb t 0 then 1 else 0). split; [| easy].
    rewrite (sum_single N _ 0); [simpl; ring | lia |]. intros [| j] _ Hj; [easy | simpl; ring].
Qed.

(** The form is at most lambda_max |xi|^2. *)
Lemma eigenvalue_bound : forall xi, incidence_form N xi <= incidence_eigenvalue N * sum N (fun t => xi t * xi t).
Proof.
  intros xi. set (q := sum N (fun t => xi t * xi t)).
  assert (Q : 0 <= q) by (apply sum_nonneg; intros; nra).
  destruct (Req_dec q 0) as [Z | Z].
  - pose proof (incidence_form_crude N xi three) as C. fold q in C. rewrite Z in *. lra.
  - set (r := sqrt q). assert (Hr : r * r = q) by (apply sqrt_sqrt; lra). assert (0 < r) by (apply sqrt_lt_R0; lra).
    destruct eigenvalue_is_lub as [U _].
    assert (B : incidence_form N (fun t => / r * xi t) <= incidence_eigenvalue N).
    { apply (U (incidence_form N (fun t => / r * xi t))). exists (fun t => / r * xi t). split; [| easy].
      rewrite (sum_ext N _ (fun t => / q * (xi t * xi t))); [rewrite sum_scale; fold q; field; lra |].
      intros. rewrite <- Hr. field. lra. }
    rewrite incidence_form_scale in B. rewrite <- Hr.
    replace ((/ r) ^ 2) with (/ (r * r)) in B by (field; lra).
    apply (Rmult_le_compat_l (r * r)) in B; [| nra].
    replace (r * r * (/ (r * r) * incidence_form N xi)) with (incidence_form N xi) in B by (field; lra). lra.
Qed.

(** It is the least number with this property. *)
Lemma eigenvalue_least : forall K,
  (forall xi, incidence_form N xi <= K * sum N (fun t => xi t * xi t)) -> incidence_eigenvalue N <= K.
Proof.
  intros K H. destruct eigenvalue_is_lub as [_ L]. apply (L (Finite K)).
  intros v [xi [H1 ->]]. simpl. pose proof (H xi). rewrite H1 in *. lra.
Qed.

End Eigenvalue.

(** ** From three unit frames to N frames of norm at least m *)

Section Bound.
Context {V : space}.
Variable N : nat.
Hypothesis three : (3 <= N)%nat.

Lemma eigenvalue_nonneg : 0 <= incidence_eigenvalue N.
Proof.
  pose proof (eigenvalue_bound N three (fun t => if Nat.eqb t 0 then 1 else 0)) as H.
  rewrite (sum_single N _ 0) in H; [| lia |].
  - pose proof (incidence_form_nonneg N (fun t => if Nat.eqb t 0 then 1 else 0)). simpl in H. lra.
  - intros [| j] _ Hj; [easy | simpl; ring].
Qed.

Lemma hessian_constant_nonneg : 0 <= hessian_constant N.
Proof.
  apply Rmult_le_pos; [| apply eigenvalue_nonneg]. pose proof (count_pos N three).
  apply Rlt_le, Rdiv_lt_0_compat; lra.
Qed.

(** The loss depends on directions only: at F the derivatives are those at unit frames, with x_t divided by |F_t|. *)
Lemma similarity'_unit : forall A B x y : V, 0 < << A, A >> -> 0 < << B, B >> ->
  similarity' A B x y = unit_cosine' (unit A) (unit B) (/ len A [*] x) (/ len B [*] y).
Proof.
  intros A B x y HA HB. unfold similarity', unit_cosine'. rewrite unit_inner by easy. unfold unit. expand_inner.
  rewrite <- !len_sqr. pose proof (len_positive A HA). pose proof (len_positive B HB). field. lra.
Qed.

Lemma similarity''_unit : forall A B x y : V, 0 < << A, A >> -> 0 < << B, B >> ->
  similarity'' A B x y = unit_cosine'' (unit A) (unit B) (/ len A [*] x) (/ len B [*] y).
Proof.
  intros A B x y HA HB. unfold similarity'', unit_cosine''. rewrite unit_inner by easy. unfold unit. expand_inner.
  rewrite <- (len_sqr A), <- (len_sqr B). pose proof (len_positive A HA). pose proof (len_positive B HB). field. lra.
Qed.

(** L_N = 1/(N-2) sum_t L_3(F_t, F_(t+1), F_(t+2)). *)
Lemma hessian_triples : forall F x : nat -> V, no_zero_frame N F ->
  hessian_form N F x
  = 2 / INR (N - 2) * sum (N - 2) (fun t =>
      triple_form (unit (F t)) (unit (F (S t))) (unit (F (S (S t))))
        (/ len (F t) [*] x t) (/ len (F (S t)) [*] x (S t)) (/ len (F (S (S t))) [*] x (S (S t)))).
Proof.
  intros F x H. unfold hessian_form. f_equal. apply sum_ext. intros t Ht. unfold triple_form, cosine', cosine'', cosine.
  rewrite !similarity'_unit, !similarity''_unit, !unit_inner by (apply H; lia). reflexivity.
Qed.

Lemma Rabs_sum : forall n f, Rabs (sum n f) <= sum n (fun t => Rabs (f t)).
Proof. induction n; intros; simpl; [rewrite Rabs_R0; lra |]. eapply Rle_trans; [apply Rabs_triang |].
pose proof (IHn f). lra. Qed.

(** |x^T H x| <= 4/(N-2) xi^T B^T W B xi with xi_t = |x_t| / |F_t|. *)
Lemma hessian_incidence : forall F x : nat -> V, no_zero_frame N F ->
  Rabs (hessian_form N F x) <= 4 / INR (N - 2) * incidence_form N (fun t => len (/ len (F t) [*] x t)).
Proof.
  intros F x H. rewrite hessian_triples by easy. unfold incidence_form. pose proof (count_pos N three) as P.
  rewrite Rabs_mult, Rabs_pos_eq by (apply Rlt_le, Rdiv_lt_0_compat; lra).
  rewrite <- (incidence_triples N (fun t => (len (/ len (F t) [*] x t) + len (/ len (F (S t)) [*] x (S t))) ^ 2))
    by easy.
  replace (4 / INR (N - 2)) with (2 / INR (N - 2) * 2) by (field; lra).
  rewrite Rmult_assoc. apply Rmult_le_compat_l; [apply Rlt_le, Rdiv_lt_0_compat; lra |].
  eapply Rle_trans; [apply Rabs_sum |]. rewrite <- sum_scale. apply sum_le. intros t Ht.
  pose proof (key_lemma (unit (F t)) (unit (F (S t))) (unit (F (S (S t))))
    (/ len (F t) [*] x t) (/ len (F (S t)) [*] x (S t)) (/ len (F (S (S t))) [*] x (S (S t)))
    ltac:(apply unit_unit, H; lia) ltac:(apply unit_unit, H; lia) ltac:(apply unit_unit, H; lia)) as K.
  rewrite Rabs_mult, (Rabs_pos_eq 2) in K by lra. lra.
Qed.

(** The bound of C1.hessian. *)
Theorem hessian_bound : forall m (F x : nat -> V), 0 < m -> norms_at_least N m F ->
  Rabs (hessian_form N F x) <= hessian_constant N / m ^ 2 * sum N (fun t => << x t, x t >>).
Proof.
  intros m F x Hm H. pose proof (norms_no_zero_frame N m F Hm H) as Z. pose proof (count_pos N three) as P.
  eapply Rle_trans; [now apply hessian_incidence |].
  unfold hessian_constant, Rdiv. rewrite !Rmult_assoc. apply Rmult_le_compat_l; [lra |].
  apply Rmult_le_compat_l; [apply Rlt_le, Rinv_0_lt_compat; lra |].
  eapply Rle_trans; [now apply eigenvalue_bound |]. apply Rmult_le_compat_l; [apply eigenvalue_nonneg |].
  rewrite <- sum_scale. apply sum_le. intros t Ht. rewrite len_sqr. expand_inner.
  pose proof (H t Ht) as G. pose proof (inner_pos _ (x t)) as I.
  replace (/ len (F t) * (/ len (F t) * << x t, x t >>)) with (/ (len (F t) * len (F t)) * << x t, x t >>) by (field;
    lra).
  apply Rmult_le_compat_r; [easy |]. apply Rinv_le_contravar; nra.
Qed.

End Bound.

(** ** The bound is attained: collinear frames whose similarities are 1, -1, 1, .. *)

Definition orthonormal {V : space} (e f : V) : Prop := << e, e >> = 1 /\ << f, f >> = 1 /\ << e, f >> = 0.

(** Every R^d of dimension at least 2 holds such a pair, so the theorems about pairs are about all of them. *)
Theorem orthonormal_exists : forall d, (2 <= d)%nat -> exists e f : euclidean d, orthonormal e f.
Proof.
  intros d Hd.
  assert (Single : forall i j, (i < d)%nat ->
    sum d (fun t => (if Nat.eqb t i then 1 else 0) * (if Nat.eqb t j then 1 else 0)) = if Nat.eqb i j then 1 else 0).
  { intros i j Hi. rewrite (sum_single d _ i); [rewrite Nat.eqb_refl; ring | easy |].
    intros t _ Ht. rewrite (proj2 (Nat.eqb_neq t i) Ht). ring. }
  exists (fun t => if Nat.eqb t 0 then 1 else 0), (fun t => if Nat.eqb t 1 then 1 else 0).
  unfold orthonormal. simpl. rewrite !Single by lia. simpl. repeat split; reflexivity.
Qed.

(** (-1)^t, the signs of the frames and the signs of the direction. *)
Fixpoint alternating (t : nat) : R := match t with O => 1 | S p => - alternating p end.
Fixpoint frame_sign (t : nat) : R := match t with O => 1 | S p => alternating p * frame_sign p end.
Fixpoint direction_sign (t : nat) : R := match t with O => 1 | S p => - alternating p * direction_sign p end.

Lemma alternating_square : forall t, alternating t * alternating t = 1.
Proof. induction t; simpl; [ring |]. lra. Qed.

Lemma frame_sign_square : forall t, frame_sign t * frame_sign t = 1.
Proof.
  induction t; simpl; [ring |]. pose proof (alternating_square t).
  replace (_ * _) with (alternating t * alternating t * (frame_sign t * frame_sign t)) by ring. rewrite H, IHt. ring.
Qed.

Lemma direction_sign_square : forall t, direction_sign t * direction_sign t = 1.
Proof.
  induction t; simpl; [ring |]. pose proof (alternating_square t).
  replace (_ * _) with (alternating t * alternating t * (direction_sign t * direction_sign t)) by ring.
  rewrite H, IHt. ring.
Qed.

Section Attained.
Context {V : space}.
Variable N : nat.
Hypothesis three : (3 <= N)%nat.
Variables e1 e2 : V.
Hypothesis plane : orthonormal e1 e2.
Variable m : R.
Hypothesis m_positive : 0 < m.

Definition extremal_frames (t : nat) : V := (m * frame_sign t) [*] e1.
Definition extremal_direction (xi : nat -> R) (t : nat) : V := (xi t * direction_sign t) [*] e2.

Lemma extremal_norm : forall t, len (extremal_frames t) = m.
Proof.
  intros. apply len_of_square; [lra |]. unfold extremal_frames. expand_inner. destruct plane as [-> _].
  pose proof (frame_sign_square t). replace (_ * (_ * 1)) with (m * m * (frame_sign t * frame_sign t)) by ring.
  rewrite H. ring.
Qed.

Lemma extremal_square : forall t, << extremal_frames t, extremal_frames t >> = m * m.
Proof. intros. now rewrite <- len_sqr, extremal_norm. Qed.

Lemma extremal_cosine : forall t, cosine extremal_frames t = alternating t.
Proof.
  intros. unfold cosine, similarity. rewrite !extremal_norm. unfold extremal_frames. expand_inner.
  destruct plane as [-> _].
  simpl. pose proof (frame_sign_square t).
  replace (_ / _) with (alternating t * (frame_sign t * frame_sign t)) by (field; lra). rewrite H. ring.
Qed.

Lemma extremal_normal : forall xi s t, << extremal_frames s, extremal_direction xi t >> = 0.
Proof. intros. unfold extremal_frames, extremal_direction. expand_inner. destruct plane as [_ [_ ->]]. ring. Qed.

Lemma extremal_normal' : forall xi s t, << extremal_direction xi t, extremal_frames s >> = 0.
Proof. intros. rewrite inner_sym. apply extremal_normal. Qed.

Lemma extremal_cosine' : forall xi t, cosine' extremal_frames (extremal_direction xi) t = 0.
Proof.
  intros. unfold cosine', similarity'. rewrite !extremal_normal, !extremal_normal', !extremal_norm, !extremal_square.
  field. lra.
Qed.

Lemma extremal_cosine'' : forall xi t,
  cosine'' extremal_frames (extremal_direction xi) t = - alternating t * (xi t + xi (S t)) ^ 2 / m ^ 2.
Proof.
  intros. unfold cosine'', similarity''. rewrite !extremal_normal, !extremal_normal', !extremal_norm, !extremal_square.
  change (similarity (extremal_frames t) (extremal_frames (S t))) with (cosine extremal_frames t).
  rewrite extremal_cosine.
  unfold extremal_direction. expand_inner. destruct plane as [_ [-> _]].
  simpl. pose proof (direction_sign_square t) as D. pose proof (alternating_square t) as A.
  match goal with |- ?e = _ => replace e with
    ((- 2 * alternating t * xi t * xi (S t) * (direction_sign t * direction_sign t)
      - alternating t * (xi t * xi t * (direction_sign t * direction_sign t)
      + xi (S t) * xi (S t) * (alternating t * alternating t) * (direction_sign t * direction_sign t))) / (m * m))
          by (field; lra)
  end.
  rewrite D, A. field. lra.
Qed.

(** At these frames x^T H x = - 4/(N-2) xi^T B^T W B xi / m^2, so the curvature is negative there. *)
Theorem extremal_hessian : forall xi,
  hessian_form N extremal_frames (extremal_direction xi) = - (4 / INR (N - 2) * incidence_form N xi / m ^ 2).
Proof.
  intros xi. pose proof (count_pos N three). unfold hessian_form, incidence_form.
  rewrite <- (incidence_triples N (fun t => (xi t + xi (S t)) ^ 2)) by easy.
  rewrite (sum_ext _ _ (fun t => - 2 / m ^ 2 * ((xi t + xi (S t)) ^ 2 + (xi (S t) + xi (S (S t))) ^ 2))).
  - rewrite sum_scale. field. lra.
  - intros t _. rewrite !extremal_cosine, !extremal_cosine', !extremal_cosine''. simpl (alternating (S t)).
    pose proof (alternating_square t) as A.
    match goal with |- ?e = _ => replace e with
      (- 2 * (alternating t * alternating t) / m ^ 2 * ((xi t + xi (S t)) ^ 2 + (xi (S t) + xi (S (S t))) ^ 2))
        by (field; lra)
    end. rewrite A. field. lra.
Qed.

Lemma extremal_direction_norm : forall xi,
  sum N (fun t => << extremal_direction xi t, extremal_direction xi t >>) = sum N (fun t => xi t * xi t).
Proof.
  intros. apply sum_ext. intros t _. unfold extremal_direction. expand_inner. destruct plane as [_ [-> _]].
  pose proof (direction_sign_square t) as D.
  replace (_ * (_ * 1)) with (xi t * xi t * (direction_sign t * direction_sign t)) by ring. rewrite D. ring.
Qed.

(** C1.hessian: the supremum of |x^T H x| over unit x and frames of norm at least m is C_N / m^2. *)
Theorem hessian_sharp :
  is_lub (fun v => exists F x : nat -> V,
            norms_at_least N m F /\ sum N (fun t => << x t, x t >>) = 1 /\ v = Rabs (hessian_form N F x))
         (hessian_constant N / m ^ 2).
Proof.
  pose proof (count_pos N three) as P. split.
  - intros v (F & x & HF & Hx & ->). pose proof (hessian_bound N three m F x m_positive HF) as B. rewrite Hx in B. lra.
  - intros K HK. apply Rle_div_l; [nra |]. unfold hessian_constant.
    assert (L : incidence_eigenvalue N <= K * m ^ 2 * INR (N - 2) / 4).
    { destruct (eigenvalue_is_lub N three) as [_ L]. apply (L (Finite (K * m ^ 2 * INR (N - 2) / 4))).
      intros v (xi & Hxi & ->). simpl.
      assert (B : Rabs (hessian_form N extremal_frames (extremal_direction xi)) <= K).
      { apply HK. exists extremal_frames, (extremal_direction xi).
        repeat split; [| now rewrite extremal_direction_norm].
        intros t _. rewrite extremal_norm. lra. }
      rewrite extremal_hessian, Rabs_Ropp, Rabs_pos_eq in B.
      - apply Rle_div_l in B; [| nra].
        apply (Rmult_le_compat_l (INR (N - 2) / 4)) in B; [| lra].
        replace (INR (N - 2) / 4 * (4 / INR (N - 2) * incidence_form N xi)) with (incidence_form N xi) in B by (field;
          lra). lra.
      - pose proof (incidence_form_nonneg N xi). apply Rmult_le_pos; [apply Rmult_le_pos; [| easy] |].
        + apply Rlt_le, Rdiv_lt_0_compat; lra.
        + apply Rlt_le, Rinv_0_lt_compat. nra. }
    apply (Rmult_le_compat_l (4 / INR (N - 2))) in L; [| apply Rlt_le, Rdiv_lt_0_compat; lra].
    replace (4 / INR (N - 2) * (K * m ^ 2 * INR (N - 2) / 4)) with (K * m ^ 2) in L by (field; lra). exact L.
Qed.

End Attained.
