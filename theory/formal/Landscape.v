(** * C2.landscape: the least critical value, and the way down from every other one

    (a) A critical point of nonzero loss has L >= 4/(N-2)^2, for every N,
      and some critical point has exactly that value.
    (b) Where some direction e is normal to all frames the Hessian has a direction of Rayleigh quotient at most
        - 8 L / sum_t |F_t|^2, at EVERY point: so no local minimum there has L > 0. *)

From Coq Require Import Reals Lra Lia Psatz.
From Coquelicot Require Import Coquelicot.
From framebound Require Import Inner TemporalLoss Triple Hessian Steadiness.
Open Scope R_scope.

Section Landscape.
Context {V : space}.
Variable N : nat.
Hypothesis three : (3 <= N)%nat.

(** The gradient vanishes. *)
Definition critical (F : nat -> V) : Prop := forall t, (t < N)%nat -> << gradient N F t, gradient N F t >> = 0.

(** At a critical point y_t^2 (1 - s_t^2) = 0: two pulls on one frame cannot cancel before the first one vanishes. *)
Lemma critical_weights : forall F : nat -> V, no_zero_frame N F -> critical F ->
  forall t, (t < N - 1)%nat -> weight N F t ^ 2 * (1 - cosine F t ^ 2) = 0.
Proof.
  intros F H C.
  assert (Ahead : forall t, (t < N - 1)%nat ->
    << weight N F t [*] pull (F t) (F (S t)), weight N F t [*] pull (F t) (F (S t)) >> = 0 ->
    weight N F t ^ 2 * (1 - cosine F t ^ 2) = 0).
  { intros t Ht E. rewrite inner_scale, inner_scale_r, pull_square in E by (apply H; lia).
    fold (cosine F t) in E. pose proof (H t ltac:(lia)) as P.
    apply (Rmult_eq_compat_r << F t, F t >>) in E.
    replace (weight N F t * (weight N F t * ((1 - cosine F t ^ 2) / << F t, F t >>)) * << F t, F t >>)
      with (weight N F t ^ 2 * (1 - cosine F t ^ 2)) in E by (field; lra). lra. }
  assert (Behind : forall t, (S t < N)%nat -> weight N F t ^ 2 * (1 - cosine F t ^ 2) = 0 ->
    << weight N F t [*] pull (F (S t)) (F t), weight N F t [*] pull (F (S t)) (F t) >> = 0).
  { intros t Ht E. rewrite inner_scale, inner_scale_r, pull_square, similarity_sym by (apply H; lia).
    fold (cosine F t). pose proof (H (S t) ltac:(lia)) as P.
    replace (weight N F t * (weight N F t * ((1 - cosine F t ^ 2) / << F (S t), F (S t) >>)))
      with (weight N F t ^ 2 * (1 - cosine F t ^ 2) / << F (S t), F (S t) >>) by (field; lra). rewrite E. field. lra. }
  induction t; intros Ht.
  - apply Ahead; [easy |]. pose proof (C O ltac:(lia)) as E. unfold gradient in E. rewrite origin_add in E. exact E.
  - apply Ahead; [easy |]. pose proof (Behind t ltac:(lia) (IHt ltac:(lia))) as B.
    pose proof (C (S t) ltac:(lia)) as E. unfold gradient in E.
    set (p := weight N F t [*] pull (F (S t)) (F t)) in *. set (q := weight N F (S t) [*] pull (F (S t)) (F (S (S
      t)))) in *.
    rewrite inner_add, !inner_add_r, B, (inner_null p q B), (inner_sym _ q p), (inner_null p q B) in E. lra.
Qed.

(** sum_t y_t = 0 and sum_t y_t s_t = 2 L. *)
Lemma weights_sum : forall (F : nat -> V) a, sum (N - 1) (fun t => weight N F t * a t)
  = 2 / INR (N - 2) * sum (N - 2) (fun t => (cosine F (S t) - cosine F t) * (a (S t) - a t)).
Proof.
  intros F a. rewrite (sum_ext (N - 2) _ (fun t => difference N F t * (a (S t) - a t))).
  2: { intros t Ht. unfold difference. now rewrite (proj2 (Nat.ltb_lt t (N - 2))) by lia. }
  rewrite sum_by_parts. replace (N - 1)%nat with (S (N - 2)) by lia. rewrite sum_S. unfold weight.
  rewrite (sum_ext (N - 2) (fun t => 2 / INR (N - 2) * (before (difference N F) t - difference N F t) * a t)
                   (fun t => 2 / INR (N - 2) * ((before (difference N F) t - difference N F t) * a t))) by (intros;
                     ring).
  rewrite sum_scale. replace (difference N F (N - 2)) with 0; [ring |]. unfold difference. now rewrite Nat.ltb_irrefl.
Qed.

Lemma weights_null : forall F : nat -> V, sum (N - 1) (fun t => weight N F t) = 0.
Proof.
  intros F. rewrite (sum_ext _ _ (fun t => weight N F t * 1)) by (intros; ring).
  rewrite (weights_sum F (fun _ => 1)), sum_zero; [ring |]. intros. ring.
Qed.

Lemma weights_loss : forall F : nat -> V, sum (N - 1) (fun t => weight N F t * cosine F t) = 2 * loss N F.
Proof.
  intros F. rewrite weights_sum. unfold loss. pose proof (count_pos N three).
  rewrite (sum_ext _ _ (fun t => (cosine F (S t) - cosine F t) ^ 2)) by (intros; ring). field. lra.
Qed.

(** If a sum is positive, one of its terms is. *)
Lemma positive_term : forall n f, 0 < sum n f -> exists i, (i < n)%nat /\ 0 < f i.
Proof.
  induction n; intros f H; [simpl in H; lra |]. destruct (Rlt_dec 0 (f n)) as [P | P]; [exists n; split;
    [lia | easy] |].
  destruct (IHn f) as [i [Hi Pi]]; [rewrite sum_S in H; lra |]. exists i. split; [lia | easy].
Qed.

(** (a) The least nonzero critical value, for every N. *)
Theorem least_critical_value : forall F : nat -> V, no_zero_frame N F -> critical F -> loss N F <> 0 ->
  4 / INR (N - 2) ^ 2 <= loss N F.
Proof.
  intros F H C L0. pose proof (count_pos N three) as P. pose proof (loss_nonneg N F three) as L1.
  assert (Bound : forall t, (t < N - 1)%nat -> -1 <= cosine F t <= 1).
  { intros t Ht. apply similarity_bounds; apply H; lia. }
  assert (Extreme : forall t, (t < N - 1)%nat -> weight N F t <> 0 -> cosine F t = 1 \/ cosine F t = -1).
  { intros t Ht W. pose proof (critical_weights F H C t Ht) as E. apply Rmult_integral in E. destruct E as [E | E].
    - exfalso. apply W. apply Rsqr_0_uniq. unfold Rsqr. lra.
    - assert (F0 : (cosine F t - 1) * (cosine F t + 1) = 0) by lra. apply Rmult_integral in F0.
      destruct F0; [left | right]; lra. }
  (* Some similarity is -1 and some is 1, because sum_t y_t (s_t - 1) = sum_t y_t (s_t + 1) = 2 L > 0. *)
  assert (Down : exists t, (t < N - 1)%nat /\ cosine F t = -1).
  { destruct (positive_term (N - 1) (fun t => weight N F t * (cosine F t - 1))) as [t [Ht W]].
    - rewrite (sum_ext _ _ (fun t => weight N F t * cosine F t - weight N F t)) by (intros; ring).
      rewrite sum_minus, weights_null, weights_loss. lra.
    - exists t. split; [easy |]. destruct (Extreme t Ht); [intros Z; rewrite Z in W; lra | rewrite H0 in W;
        lra | easy]. }
  assert (Up : exists t, (t < N - 1)%nat /\ cosine F t = 1).
  { destruct (positive_term (N - 1) (fun t => weight N F t * (cosine F t + 1))) as [t [Ht W]].
    - rewrite (sum_ext _ _ (fun t => weight N F t * cosine F t + weight N F t)) by (intros; ring).
      rewrite sum_plus, weights_null, weights_loss. lra.
    - exists t. split; [easy |]. destruct (Extreme t Ht); [intros Z; rewrite Z in W; lra | easy | rewrite H0 in W;
        lra]. }
  destruct Down as [t [Ht Dt]]. destruct Up as [u [Hu Du]].
  (* They are at most N - 2 pairs apart. *)
  assert (Q : 4 <= INR (N - 2) * (INR (N - 2) * loss N F)).
  { assert (0 <= INR (N - 2) * loss N F) by (apply Rmult_le_pos; lra).
    destruct (Nat.le_ge_cases t u) as [G | G].
    - pose proof (steadiness_square N F t (u - t) three ltac:(lia)) as S. replace (t + (u - t))%nat with u in S by lia.
      rewrite Dt, Du in S. assert (INR (u - t) <= INR (N - 2)) by (apply le_INR; lia).
      pose proof (Rmult_le_compat_r _ _ _ H0 H1). lra.
    - pose proof (steadiness_square N F u (t - u) three ltac:(lia)) as S. replace (u + (t - u))%nat with t in S by lia.
      rewrite Dt, Du in S. assert (INR (t - u) <= INR (N - 2)) by (apply le_INR; lia).
      pose proof (Rmult_le_compat_r _ _ _ H0 H1). lra. }
  apply Rle_div_l; [now apply pow_lt |]. lra.
Qed.

(** Conversely frames with y_t^2 (1 - s_t^2) = 0 everywhere are critical. *)
Lemma weights_critical : forall F : nat -> V, no_zero_frame N F ->
  (forall t, (t < N - 1)%nat -> weight N F t = 0 \/ cosine F t ^ 2 = 1) -> critical F.
Proof.
  intros F H W t Ht. unfold gradient.
  assert (A : << weight N F t [*] pull (F t) (F (S t)), weight N F t [*] pull (F t) (F (S t)) >> = 0).
  { rewrite inner_scale, inner_scale_r. destruct (Nat.eq_dec t (N - 1)) as [-> | E]; [rewrite last_weight by easy;
      ring |].
    destruct (W t ltac:(lia)) as [Z | Z]; [rewrite Z; ring |].
    rewrite pull_square by (apply H; lia). fold (cosine F t). rewrite Z. unfold Rdiv. ring. }
  destruct t as [| p].
  - rewrite origin_add. exact A.
  - assert (B : << weight N F p [*] pull (F (S p)) (F p), weight N F p [*] pull (F (S p)) (F p) >> = 0).
    { rewrite inner_scale, inner_scale_r. destruct (W p ltac:(lia)) as [Z | Z]; [rewrite Z; ring |].
      rewrite pull_square, similarity_sym by (apply H; lia). fold (cosine F p). rewrite Z. unfold Rdiv. ring. }
    rewrite inner_add, !inner_add_r, A, B, (inner_null _ _ B), (inner_null _ _ A). ring.
Qed.

(** A chain of unit vectors in the plane of e and f with given similarities: frame t at the angle a_t. *)
Definition at_angle (e f : V) (a : R) : V := cos a [*] e [+] sin a [*] f.
Definition chain (e f : V) (c : nat -> R) (t : nat) : V := at_angle e f (sum t (fun i => acos (c i))).

Lemma at_angle_inner : forall e f a b, orthonormal e f -> << at_angle e f a, at_angle e f b >> = cos (b - a).
Proof.
  intros e f a b (He & Hf & Hef). unfold at_angle. expand_inner. rewrite (inner_sym _ f e), He, Hf, Hef, cos_minus.
  ring.
Qed.

Lemma chain_cosine : forall e f c t, orthonormal e f -> -1 <= c t <= 1 -> cosine (chain e f c) t = c t.
Proof.
  intros e f c t O Hc. unfold cosine, chain. rewrite similarity_of_units; rewrite at_angle_inner by easy.
  - replace (sum (S t) (fun i => acos (c i)) - sum t (fun i => acos (c i))) with (acos (c t)) by (simpl; ring).
    now apply cos_acos.
  - rewrite Rminus_diag_eq by easy. apply cos_0.
  - rewrite Rminus_diag_eq by easy. apply cos_0.
Qed.

Lemma chain_no_zero : forall e f c, orthonormal e f -> no_zero_frame N (chain e f c).
Proof. intros e f c O t _. unfold chain. rewrite at_angle_inner, Rminus_diag_eq, cos_0 by easy. lra. Qed.

(** The least value is attained: similarities that go from 1 to -1 in N - 2 equal steps. *)
Theorem least_critical_value_attained : forall e f : V, orthonormal e f ->
  exists F : nat -> V, no_zero_frame N F /\ critical F /\ loss N F = 4 / INR (N - 2) ^ 2.
Proof.
  intros e f O. pose proof (count_pos N three) as P. set (c := fun t => 1 - 2 / INR (N - 2) * INR t).
  assert (Hc : forall t, (t <= N - 2)%nat -> -1 <= c t <= 1).
  { intros t Ht. apply le_INR in Ht. pose proof (pos_INR t) as Q. unfold c.
    replace (2 / INR (N - 2) * INR t) with (2 * (INR t / INR (N - 2))) by (field; lra).
    assert (0 <= INR t / INR (N - 2)) by (apply Rmult_le_pos; [easy | apply Rlt_le, Rinv_0_lt_compat; easy]).
    assert (INR t / INR (N - 2) <= 1) by (apply Rle_div_l; lra). lra. }
  assert (D : forall t, (t < N - 2)%nat -> cosine (chain e f c) (S t) - cosine (chain e f c) t = - (2 / INR (N - 2))).
  { intros t Ht. rewrite !chain_cosine by (try easy; apply Hc; lia). unfold c. rewrite S_INR. ring. }
  exists (chain e f c). split; [now apply chain_no_zero | split].
  - apply weights_critical; [now apply chain_no_zero |]. intros t Ht.
    destruct (Nat.eq_dec t 0) as [-> | T0].
    { right. rewrite chain_cosine by (try easy; apply Hc; lia). unfold c. simpl. ring. }
    destruct (Nat.eq_dec t (N - 2)) as [-> | T1].
    { right. rewrite chain_cosine by (try easy; apply Hc; lia). unfold c. field. lra. }
    left. unfold weight, difference. destruct t as [| p]; [lia |]. simpl before.
    rewrite !(proj2 (Nat.ltb_lt _ (N - 2))) by lia. rewrite !D by lia. ring.
  - unfold loss. rewrite (sum_ext _ _ (fun _ => (- (2 / INR (N - 2))) ^ 2)) by (intros; now rewrite D).
    rewrite sum_const. field. lra.
Qed.

(** (b) A direction normal to all frames. *)
Section Normal.
Variable F : nat -> V.
Variable e : V.
Hypothesis not_zero : no_zero_frame N F.
Hypothesis unit_e : << e, e >> = 1.
Hypothesis normal : forall t, << F t, e >> = 0.

(** Neighbours move against each other where y_t > 0, together elsewhere. *)
Fixpoint normal_sign (t : nat) : R :=
  match t with O => 1 | S p => (if Rlt_dec 0 (weight N F p) then -1 else 1) * normal_sign p end.
Definition normal_direction (t : nat) : V := (normal_sign t * len (F t)) [*] e.

Lemma normal_sign_square : forall t, normal_sign t * normal_sign t = 1.
Proof. induction t; simpl; [ring |]. destruct (Rlt_dec 0 (weight N F t)); lra. Qed.

Lemma normal_cosine' : forall t, (S t < N)%nat -> cosine' F normal_direction t = 0.
Proof.
  intros t Ht. unfold cosine', similarity', normal_direction.
  rewrite !inner_scale, !inner_scale_r, (inner_sym _ e), !normal.
  pose proof (not_zero t ltac:(lia)) as P. pose proof (not_zero (S t) Ht) as Q.
  pose proof (len_positive (F t) P). pose proof (len_positive (F (S t)) Q). field. lra.
Qed.

Lemma normal_cosine'' : forall t, (S t < N)%nat ->
  cosine'' F normal_direction t = 2 * (normal_sign t * normal_sign (S t)) - 2 * cosine F t.
Proof.
  intros t Ht. unfold cosine'', similarity'', normal_direction. fold (cosine F t).
  rewrite !inner_scale, !inner_scale_r, unit_e, (inner_sym _ e), !normal.
  pose proof (len_positive (F t) (not_zero t ltac:(lia))) as P.
  pose proof (len_positive (F (S t)) (not_zero (S t) Ht)) as Q.
  rewrite <- !len_sqr.
  match goal with |- ?a = _ => replace a with
    (2 * (normal_sign t * normal_sign (S t)) - cosine F t * (normal_sign t * normal_sign t)
     - cosine F t * (normal_sign (S t) * normal_sign (S t))) by (field; lra) end.
  rewrite !normal_sign_square. ring.
Qed.

(** x^T H x <= - 8 L with |x|^2 = sum_t |F_t|^2. *)
Theorem descent_direction :
  hessian_form N F normal_direction <= - 8 * loss N F
  /\ sum N (fun t => << normal_direction t, normal_direction t >>) = sum N (fun t => << F t, F t >>).
Proof.
  split.
  - unfold hessian_form.
    rewrite (sum_ext _ _ (fun t => (cosine F (S t) - cosine F t)
               * (cosine'' F normal_direction (S t) - cosine'' F normal_direction t))).
    2: { intros t Ht. rewrite !normal_cosine' by lia. ring. }
    rewrite <- weights_sum.
    apply Rle_trans with (sum (N - 1) (fun t => -4 * (weight N F t * cosine F t))).
    + apply sum_le. intros t Ht. rewrite normal_cosine'' by lia. simpl normal_sign.
      pose proof (normal_sign_square t) as Q.
      pose proof (similarity_bounds (F t) (F (S t)) (not_zero t ltac:(lia)) (not_zero (S t) ltac:(lia))) as B.
      fold (cosine F t) in B. destruct (Rlt_dec 0 (weight N F t)) as [W | W].
      * replace (normal_sign t * (-1 * normal_sign t)) with (- (normal_sign t * normal_sign t)) by ring. rewrite Q.
        pose proof (Rmult_le_pos (weight N F t) (1 - cosine F t) ltac:(lra) ltac:(lra)). lra.
      * replace (normal_sign t * (1 * normal_sign t)) with (normal_sign t * normal_sign t) by ring. rewrite Q.
        pose proof (Rmult_le_pos (- weight N F t) (1 + cosine F t) ltac:(lra) ltac:(lra)). lra.
    + rewrite sum_scale, weights_loss. lra.
  - apply sum_ext. intros t _. unfold normal_direction. rewrite inner_scale, inner_scale_r, unit_e, <- len_sqr.
    pose proof (normal_sign_square t) as Q.
    replace (normal_sign t * len (F t) * (normal_sign t * len (F t) * 1))
      with (normal_sign t * normal_sign t * (len (F t) * len (F t))) by ring. rewrite Q. ring.
Qed.

(** So where L > 0 the second derivative of the loss along this direction is negative: no local minimum. *)
Theorem no_other_minimum : 0 < loss N F ->
  exists x : nat -> V, exists c, c < 0 /\ is_derive_n (fun h => loss N (along F x h)) 2 0 c.
Proof.
  intros L. exists normal_direction, (hessian_form N F normal_direction). split.
  - destruct descent_direction as [D _]. lra.
  - now apply loss_second_derivative.
Qed.

End Normal.
End Landscape.

(** C2.stated: (e, e, -e) is critical, and its loss 4 is the largest possible: descent stays there. *)
Theorem stays_at_maximum : forall (V : space) (e : V), << e, e >> = 1 ->
  let F t := match t with 2%nat => (-1) [*] e | _ => e end in
  critical 3 F /\ loss 3 F = 4 /\ forall G : nat -> V, no_zero_frame 3 G -> loss 3 G <= 4.
Proof.
  intros V e He F.
  assert (Hm : << (-1) [*] e, (-1) [*] e >> = 1) by (expand_inner; lra).
  assert (C0 : cosine F 0 = 1) by (unfold cosine; simpl; now rewrite similarity_of_units).
  assert (C1 : cosine F 1 = -1).
  { unfold cosine; simpl. rewrite similarity_of_units by easy. expand_inner. lra. }
  assert (Z : no_zero_frame 3 F) by (intros [| [| [| t]]] Ht; simpl; lra || lia).
  split; [| split].
  - apply weights_critical; [lia | exact Z |]. intros [| [| t]] Ht; [right; rewrite C0; ring | right; rewrite C1;
      ring | lia].
  - unfold loss. simpl. rewrite C0, C1. field.
  - intros G HG. unfold loss. simpl.
    pose proof (similarity_bounds (G 0%nat) (G 1%nat) (HG 0%nat ltac:(lia)) (HG 1%nat ltac:(lia))) as A.
    pose proof (similarity_bounds (G 1%nat) (G 2%nat) (HG 1%nat ltac:(lia)) (HG 2%nat ltac:(lia))) as B.
    fold (cosine G 0) in A. fold (cosine G 1) in B. set (a := cosine G 0) in *. set (b := cosine G 1) in *.
    assert (-2 <= b - a <= 2) by lra. assert (0 <= (2 - (b - a)) * (2 + (b - a))) by (apply Rmult_le_pos; lra). lra.
Qed.
