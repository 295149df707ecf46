(** * C1.stated: an upper bound on the norms does not make the gradient Lipschitz

    Frames M e_1, .., M e_1 with a last frame r e_2, against the same
      with 2 r e_2: the difference quotient of the gradient
    is exactly 1/((N-2) r^2), so no constant K serves all frames of norm at most M. *)

From Coq Require Import Reals Lra Lia Psatz.
From Coquelicot Require Import Rcomplements.
From framebound Require Import Inner TemporalLoss Hessian.
Open Scope R_scope.

Section BoundedNorms.
Context {V : space}.
Variable N : nat.
Hypothesis three : (3 <= N)%nat.
Variables e1 e2 : V.
Hypothesis plane : orthonormal e1 e2.

Let He1 : << e1, e1 >> = 1 := proj1 plane.
Let He2 : << e2, e2 >> = 1 := proj1 (proj2 plane).
Let He12 : << e1, e2 >> = 0 := proj2 (proj2 plane).

(** M e_1, .., M e_1, r e_2 *)
Definition shrinking (M r : R) (t : nat) : V := if Nat.ltb t (N - 1) then M [*] e1 else r [*] e2.

Lemma shrinking_early : forall M r t, (t < N - 1)%nat -> shrinking M r t = M [*] e1.
Proof. intros. unfold shrinking. now rewrite (proj2 (Nat.ltb_lt t (N - 1))). Qed.

Lemma shrinking_last : forall M r, shrinking M r (N - 1) = r [*] e2.
Proof. intros. unfold shrinking. now rewrite Nat.ltb_irrefl. Qed.

Lemma len_e1 : forall M, 0 < M -> len (M [*] e1) = M.
Proof. intros. apply len_of_square; [lra |]. expand_inner. rewrite He1. ring. Qed.

Lemma len_e2 : forall r, 0 < r -> len (r [*] e2) = r.
Proof. intros. apply len_of_square; [lra |]. expand_inner. rewrite He2. ring. Qed.

Lemma shrinking_norms : forall M r t, 0 < M -> 0 < r -> r <= M -> 0 < len (shrinking M r t) <= M.
Proof.
  intros. unfold shrinking. destruct (Nat.ltb t (N - 1)); [rewrite len_e1 by easy | rewrite len_e2 by easy]; lra.
Qed.

Lemma shrinking_no_zero : forall M r, 0 < M -> 0 < r -> no_zero_frame N (shrinking M r).
Proof.
  intros M r HM Hr t _. unfold shrinking. destruct (Nat.ltb t (N - 1)); expand_inner; [rewrite He1 | rewrite He2]; nra.
Qed.

Lemma shrinking_cosine : forall M r t, 0 < M -> 0 < r -> (t < N - 1)%nat ->
  cosine (shrinking M r) t = if Nat.ltb t (N - 2) then 1 else 0.
Proof.
  intros M r t HM Hr Ht. unfold cosine, similarity. destruct (Nat.ltb_spec t (N - 2)).
  - rewrite !shrinking_early by lia. rewrite len_e1 by easy. expand_inner. rewrite He1. field. lra.
  - replace (S t) with (N - 1)%nat by lia. rewrite shrinking_last, shrinking_early by lia. expand_inner. rewrite He12.
    unfold Rdiv. ring.
Qed.

(** Both sets of frames have the same similarities, hence the same weights. *)
Lemma shrinking_weight : forall M r t, 0 < M -> 0 < r -> (t < N - 1)%nat ->
  weight N (shrinking M r) t = weight N (shrinking M 1) t.
Proof.
  intros M r t HM Hr Ht.
  assert (D : forall i, difference N (shrinking M r) i = difference N (shrinking M 1) i).
  { intros i. unfold difference. destruct (Nat.ltb_spec i (N - 2)); [| easy].
    rewrite !shrinking_cosine by (try lia; lra). easy. }
  unfold weight. rewrite D. destruct t; simpl; [easy | now rewrite D].
Qed.

Lemma shrinking_last_weight : forall M r, 0 < M -> 0 < r -> weight N (shrinking M r) (N - 2) = - (2 / INR (N - 2)).
Proof.
  intros M r HM Hr. unfold weight. replace (difference N (shrinking M r) (N - 2)) with 0.
  2: { unfold difference. now rewrite Nat.ltb_irrefl. }
  replace (N - 2)%nat with (S (N - 3)) at 2 by lia. simpl. unfold difference.
  rewrite (proj2 (Nat.ltb_lt (N - 3) (N - 2))) by lia. replace (S (N - 3)) with (N - 2)%nat by lia.
  rewrite !shrinking_cosine by (try lia; lra). rewrite Nat.ltb_irrefl, (proj2 (Nat.ltb_lt (N - 3) (N - 2))) by lia.
  ring.
Qed.

(** The pull of the last frame on another depends on its direction only. *)
Lemma shrinking_pull : forall M r t, 0 < M -> 0 < r -> (S t < N)%nat ->
  pull (shrinking M r t) (shrinking M r (S t)) = pull (shrinking M 1 t) (shrinking M 1 (S t)).
Proof.
  intros M r t HM Hr Ht. destruct (Nat.eq_dec t (N - 2)) as [-> | E].
  - replace (S (N - 2)) with (N - 1)%nat by lia. rewrite !shrinking_last, !shrinking_early by lia.
    unfold pull, unit, similarity. rewrite !len_e1, !len_e2 by lra. expand_inner. rewrite He12.
    vectors; field; lra.
  - rewrite !shrinking_early by lia. easy.
Qed.

Lemma shrinking_pull_back : forall M r t, 0 < M -> 0 < r -> (S t < N - 1)%nat ->
  pull (shrinking M r (S t)) (shrinking M r t) = pull (shrinking M 1 (S t)) (shrinking M 1 t).
Proof. intros. rewrite !shrinking_early by lia. easy. Qed.

Lemma shrinking_gradient_early : forall M r t, 0 < M -> 0 < r -> (t < N - 1)%nat ->
  gradient N (shrinking M r) t = gradient N (shrinking M 1) t.
Proof.
  intros M r t HM Hr Ht. unfold gradient. rewrite (shrinking_pull M r t), (shrinking_weight M r t) by (try easy; lia).
  f_equal. destruct t; [easy |]. now rewrite (shrinking_weight M r t), (shrinking_pull_back M r t) by (try easy; lia).
Qed.

(** grad_N L = - 2/((N-2) r) e_1 *)
Lemma shrinking_gradient_last : forall M r, 0 < M -> 0 < r ->
  gradient N (shrinking M r) (N - 1) = (- (2 / INR (N - 2)) / r) [*] e1.
Proof.
  intros M r HM Hr. unfold gradient. rewrite last_weight, scale_zero, add_origin by easy.
  replace (N - 1)%nat with (S (N - 2)) at 1 by lia.
  rewrite shrinking_last_weight by easy. replace (S (N - 2)) with (N - 1)%nat by lia.
  rewrite shrinking_last, shrinking_early by lia. unfold pull, unit, similarity. rewrite !len_e1, !len_e2 by lra.
  expand_inner. rewrite (inner_sym _ e2 e1), He12. pose proof (count_pos N three). vectors; field; lra.
Qed.

Let distance := fun F G : nat -> V => @len (frames N V) (@add (frames N V) F (@scale (frames N V) (-1) G)).

Lemma last_only : forall (F G : nat -> V) d, 0 <= d -> (forall t, (t < N - 1)%nat -> F t = G t) ->
  << F (N - 1)%nat [-] G (N - 1)%nat, F (N - 1)%nat [-] G (N - 1)%nat >> = d * d -> distance F G = d.
Proof.
  intros F G d Hd H E. unfold distance. apply len_of_square; [easy |]. simpl.
  rewrite (sum_single N _ (N - 1)); [exact E | lia |]. intros t Ht Hn. rewrite H by lia.
  replace (G t [-] G t) with (@origin V) by (symmetry; vectors). apply inner_origin.
Qed.

(** The difference quotient of the gradient along the pair, exactly: both sides of it. *)
Theorem shrinking_quotient : forall M r, 0 < M -> 0 < r ->
  distance (shrinking M r) (shrinking M (2 * r)) = r /\
  distance (gradient N (shrinking M r)) (gradient N (shrinking M (2 * r))) = 1 / (INR (N - 2) * r ^ 2) * r.
Proof.
  intros M r HM Hr. pose proof (count_pos N three) as P. split.
  - apply last_only; [lra | intros; now rewrite !shrinking_early |].
    rewrite !shrinking_last. expand_inner. rewrite He2. ring.
  - apply last_only.
    + apply Rmult_le_pos; [apply Rlt_le, Rdiv_lt_0_compat; [lra |] | lra].
      apply Rmult_lt_0_compat; [easy | now apply pow_lt].
    + intros t Ht. rewrite (shrinking_gradient_early M r), (shrinking_gradient_early M (2 * r)) by (try easy; lra).
      easy.
    + rewrite !shrinking_gradient_last by lra. expand_inner. rewrite He1. field. lra.
Qed.

(** C1.stated: whatever M > 0, no K is a Lipschitz constant of the gradient on the frames of norm at most M. *)
Theorem no_lipschitz_constant : forall M, 0 < M ->
  ~ exists K, forall F G : nat -> V,
      (forall t, (t < N)%nat -> 0 < len (F t) <= M) -> (forall t, (t < N)%nat -> 0 < len (G t) <= M) ->
      distance (gradient N F) (gradient N G) <= K * distance F G.
Proof.
  intros M HM [K HK]. pose proof (count_pos N three) as P.
  set (k := 1 + Rmax K 0). assert (k1 : 1 <= k) by (unfold k; pose proof (Rmax_r K 0); lra).
  set (q := 1 + INR (N - 2) * k * M ^ 2).
  assert (Hq : 1 < q).
  { unfold q. assert (0 < INR (N - 2) * k * M ^ 2) by (repeat apply Rmult_lt_0_compat; try apply pow_lt; lra). lra. }
  set (r := M / (2 * sqrt q)).
  assert (Sq : sqrt q * sqrt q = q) by (apply sqrt_sqrt; lra).
  assert (S1 : 1 < sqrt q) by (rewrite <- sqrt_1; apply sqrt_lt_1; lra).
  assert (Hr : 0 < r) by (apply Rdiv_lt_0_compat; lra).
  assert (Hr2 : 2 * r <= M).
  { unfold r. replace (2 * (M / (2 * sqrt q))) with (M / sqrt q) by (field; lra). apply Rle_div_l; [lra |].
    pose proof (Rmult_le_compat_l M 1 (sqrt q) ltac:(lra) ltac:(lra)). lra. }
  pose proof (HK (shrinking M r) (shrinking M (2 * r))
                 (fun t _ => shrinking_norms M r t HM Hr ltac:(lra))
                 (fun t _ => shrinking_norms M (2 * r) t HM ltac:(lra) Hr2)) as B.
  destruct (shrinking_quotient M r HM Hr) as [E0 E]. rewrite E, E0 in B.
  apply Rmult_le_reg_r in B; [| easy].
  assert (Q : 1 / (INR (N - 2) * r ^ 2) = 4 * q / (INR (N - 2) * M ^ 2)).
  { unfold r. replace (4 * q) with (4 * (sqrt q * sqrt q)) by (rewrite Sq; ring). field. lra. }
  rewrite Q in B. assert (D : 0 < INR (N - 2) * M ^ 2) by (apply Rmult_lt_0_compat; [easy | now apply pow_lt]).
  apply (Rmult_le_compat_r (INR (N - 2) * M ^ 2)) in B; [| lra].
  replace (4 * q / (INR (N - 2) * M ^ 2) * (INR (N - 2) * M ^ 2)) with (4 * q) in B by (field; lra).
  unfold q in B. pose proof (Rmax_l K 0). assert (K * (INR (N - 2) * M ^ 2) <= k * (INR (N - 2) * M ^ 2)).
  { apply Rmult_le_compat_r; [lra |]. unfold k. lra. }
  assert (0 < k * (INR (N - 2) * M ^ 2)) by (apply Rmult_lt_0_compat; lra). lra.
Qed.

(** The loss has no limit at a zero frame: with F = (e_1, e_1, r (cos a, sin a)) it is (1 - cos a)^2 for every r > 0. *)
Theorem no_limit_at_zero : forall r a, 0 < r ->
  let F t := match t with O | 1%nat => e1 | _ => r [*] (cos a [*] e1 [+] sin a [*] e2) end in
  loss 3 F = (1 - cos a) ^ 2.
Proof.
  intros r a Hr F. unfold loss, cosine. simpl.
  assert (U : << cos a [*] e1 [+] sin a [*] e2, cos a [*] e1 [+] sin a [*] e2 >> = 1).
  { expand_inner. rewrite (inner_sym _ e2 e1), He1, He2, He12. pose proof (sin2_cos2 a). unfold Rsqr in *. lra. }
  assert (C : similarity e1 (r [*] (cos a [*] e1 [+] sin a [*] e2)) = cos a).
  { replace e1 with (1 [*] e1) at 1 by apply scale_one. rewrite similarity_scale by (rewrite ?He1, ?U; lra).
    rewrite similarity_of_units by easy. expand_inner. rewrite He1, He12. ring. }
  rewrite C, similarity_of_units, He1 by easy. field.
Qed.

End BoundedNorms.
