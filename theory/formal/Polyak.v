(** * C2.pl and C1.gradient: how the gradient compares with the loss, from below and from above

    With w_t = |y_t| sqrt(1 - s_t^2), w_0 = w_N = 0 beyond the ends, (w_(t-1) - w_t)^2 <= r_t^2 |grad_t L|^2
      <= (w_(t-1) + w_t)^2.
    On a path the quadratic forms sum (w_(t-1) -+ w_t)^2 lie between 4 sin^2 and 4 cos^2 of pi/(2N) times |w|^2. *)

From Coq Require Import Reals Lra Lia Psatz.
From Coquelicot Require Import Rcomplements.
From framebound Require Import Inner TemporalLoss Triple Hessian Steadiness.
Open Scope R_scope.

(** ** The path's least and largest Dirichlet eigenvalue *)

Lemma quotient_products : forall p q a b, 0 < a -> 0 < b -> 2 * Rabs (p * q) <= p ^ 2 * (a / b) + q ^ 2 * (b / a).
Proof.
  intros p q a b Ha Hb. apply Rminus_le_0.
  assert (E : forall e, e * e = 1 ->
    p ^ 2 * (a / b) + q ^ 2 * (b / a) - 2 * e * (p * q) = (a * p - e * (b * q)) ^ 2 / (a * b)).
  { intros e He. replace ((a * p - e * (b * q)) ^ 2) with ((a * p) ^ 2
      - 2 * e * (a * p) * (b * q) + e * e * (b * q) ^ 2) by ring.
    rewrite He. field. lra. }
  assert (P : forall e, 0 <= (a * p - e * (b * q)) ^ 2 / (a * b)).
  { intros e. apply Rmult_le_pos; [apply pow2_ge_0 | apply Rlt_le, Rinv_0_lt_compat, Rmult_lt_0_compat; lra]. }
  unfold Rabs. destruct (Rcase_abs (p * q)).
  - replace (2 * - (p * q)) with (2 * -1 * (p * q)) by ring. rewrite E by ring. apply P.
  - replace (2 * (p * q)) with (2 * 1 * (p * q)) by ring. rewrite E by ring. apply P.
Qed.

(** w_t inside, 0 from n on. *)
Definition inside (n : nat) (w : nat -> R) (t : nat) : R := if Nat.ltb t n then w t else 0.

Section Path.
Variable n : nat.
Hypothesis some : (1 <= n)%nat.
Let theta := PI / INR (n + 1).
Let s (t : nat) := sin (theta * INR t).

Lemma theta_range : 0 < theta /\ theta * INR (n + 1) = PI.
Proof.
  assert (P : 0 < INR (n + 1)) by (apply lt_0_INR; lia). pose proof PI_RGT_0. unfold theta. split.
  - now apply Rdiv_lt_0_compat.
  - field. lra.
Qed.

Lemma sine_pos : forall t, (1 <= t <= n)%nat -> 0 < s t.
Proof.
  intros t Ht. destruct theta_range as [A B]. unfold s. apply sin_gt_0.
  - apply Rmult_lt_0_compat; [easy | apply lt_0_INR; lia].
  - rewrite <- B. apply Rmult_lt_compat_l; [easy | apply lt_INR; lia].
Qed.

Lemma sine_ends : s 0 = 0 /\ s (n + 1) = 0.
Proof.
  destruct theta_range as [A B]. unfold s. split; [simpl; rewrite Rmult_0_r; apply sin_0 | rewrite B; apply sin_PI].
Qed.

Lemma sine_recursion : forall t, s t + s (S (S t)) = 2 * cos theta * s (S t).
Proof.
  intros t. unfold s. rewrite !S_INR.
  replace (theta * INR t) with (theta * (INR t + 1) - theta) by ring.
  replace (theta * (INR t + 1 + 1)) with (theta * (INR t + 1) + theta) by ring.
  rewrite sin_minus, sin_plus. ring.
Qed.

(** sum_(t<k) of 2 c w_t w_(t+1) for c = 1 or -1, against the diagonal 2 cos(theta). *)
Lemma mixed_terms : forall (w : nat -> R) k, (k < n)%nat ->
  sum k (fun t => 2 * Rabs (w t * w (S t)))
  <= 2 * cos theta * sum k (fun t => w t ^ 2) + w k ^ 2 * (s k / s (S k)).
Proof.
  intros w. induction k; intros Hk.
  - simpl sum. destruct sine_ends as [-> _]. unfold Rdiv. rewrite Rmult_0_l, !Rmult_0_r. lra.
  - rewrite !sum_S. pose proof (IHk ltac:(lia)) as I.
    pose proof (sine_pos (S k) ltac:(lia)) as P1. pose proof (sine_pos (S (S k)) ltac:(lia)) as P2.
    pose proof (quotient_products (w k) (w (S k)) (s (S (S k))) (s (S k)) P2 P1) as Q.
    assert (E : w k ^ 2 * (s k / s (S k)) + w k ^ 2 * (s (S (S k)) / s (S k)) = 2 * cos theta * w k ^ 2).
    { pose proof (sine_recursion k) as R. apply (Rmult_eq_reg_r (s (S k))); [| lra].
      replace ((w k ^ 2 * (s k / s (S k)) + w k ^ 2 * (s (S (S k)) / s (S k))) * s (S k))
        with (w k ^ 2 * (s k + s (S (S k)))) by (field; lra).
      rewrite R. ring. }
    lra.
Qed.

(** All of them: sum_(t<n-1) 2 |w_t w_(t+1)| <= 2 cos(theta) |w|^2. *)
Lemma mixed_sum : forall w : nat -> R, sum (n - 1) (fun t => 2 * Rabs (w t * w (S t)))
  <= 2 * cos theta * sum n (fun t => w t ^ 2).
Proof.
  intros w. pose proof (mixed_terms w (n - 1) ltac:(lia)) as M. replace (S (n - 1)) with n in M by lia.
  replace (sum n (fun t => w t ^ 2)) with (sum (n - 1) (fun t => w t ^ 2) + w (n - 1)%nat ^ 2).
  2: { destruct n as [| k]; [lia |]. rewrite sum_S. now replace (S k - 1)%nat with k by lia. }
  assert (E : s (n - 1) / s n = 2 * cos theta).
  { pose proof (sine_recursion (n - 1)) as R. replace (S (n - 1)) with n in R by lia.
    replace (S n) with (n + 1)%nat in R by lia.
    destruct sine_ends as [_ Z]. rewrite Z in R. pose proof (sine_pos n ltac:(lia)).
    apply (Rmult_eq_reg_r (s n)); [| lra].
    replace (s (n - 1)%nat / s n * s n) with (s (n - 1)%nat) by (field; lra). lra. }
  rewrite E in M. lra.
Qed.

Lemma square_sum : forall (w : nat -> R) c, c * c = 1 ->
  sum (S n) (fun t => (before w t + c * inside n w t) ^ 2)
  = 2 * sum n (fun t => w t ^ 2) + c * sum (n - 1) (fun t => 2 * (w t * w (S t))).
Proof.
  intros w c Hc.
  assert (G : forall k, (k < n)%nat -> sum (S k) (fun t => (before w t + c * inside n w t) ^ 2)
    = 2 * sum k (fun t => w t ^ 2) + w k ^ 2 + c * sum k (fun t => 2 * (w t * w (S t)))).
  { induction k; intros Hk.
    - simpl. unfold inside. rewrite (proj2 (Nat.ltb_lt 0 n)) by lia.
      replace ((0 + c * w 0%nat) * ((0 + c * w 0%nat) * 1)) with (c * c * (w 0%nat * w 0%nat)) by ring. rewrite Hc.
      ring.
    - rewrite sum_S, IHk, !sum_S by lia. unfold inside. rewrite (proj2 (Nat.ltb_lt (S k) n)) by lia. simpl before.
      replace ((w k + c * w (S k)) ^ 2) with (w k ^ 2 + 2 * c * (w k * w (S k)) + c * c * w (S k) ^ 2) by ring.
      rewrite Hc. ring. }
  pose proof (G (n - 1)%nat ltac:(lia)) as M. replace (S (n - 1)) with n in M by lia.
  assert (B : before w n = w (n - 1)%nat) by (destruct n as [| k]; [lia | simpl; f_equal; lia]).
  assert (E : sum n (fun t => w t ^ 2) = sum (n - 1) (fun t => w t ^ 2) + w (n - 1)%nat ^ 2).
  { destruct n as [| k]; [lia |]. rewrite sum_S. now replace (S k - 1)%nat with k by lia. }
  rewrite sum_S, M, E, B. replace (inside n w n) with 0 by (unfold inside; now rewrite Nat.ltb_irrefl). ring.
Qed.

(** sum (w_(t-1) - w_t)^2 >= 4 sin^2(pi/(2(n+1))) |w|^2. *)
Theorem dirichlet_lower : forall w : nat -> R,
  4 * sin (PI / (2 * INR (n + 1))) ^ 2 * sum n (fun t => w t ^ 2) <= sum (S n) (fun t => (before w t
    - inside n w t) ^ 2).
Proof.
  intros w. rewrite (sum_ext (S n) _ (fun t => (before w t + (-1) * inside n w t) ^ 2)) by (intros; ring).
  rewrite square_sum by ring. pose proof (mixed_sum w) as M.
  assert (A : sum (n - 1) (fun t => 2 * (w t * w (S t))) <= sum (n - 1) (fun t => 2 * Rabs (w t * w (S t)))).
  { apply sum_le. intros t _. pose proof (Rle_abs (w t * w (S t))). lra. }
  assert (C : 4 * sin (PI / (2 * INR (n + 1))) ^ 2 = 2 - 2 * cos theta).
  { assert (P : 0 < INR (n + 1)) by (apply lt_0_INR; lia).
    replace theta with (2 * (PI / (2 * INR (n + 1)))) by (unfold theta; field; lra). rewrite cos_2a_sin. ring. }
  rewrite C. lra.
Qed.

(** sum (w_(t-1) + w_t)^2 <= 4 cos^2(pi/(2(n+1))) |w|^2. *)
Theorem dirichlet_upper : forall w : nat -> R,
  sum (S n) (fun t => (before w t + inside n w t) ^ 2) <= 4 * cos (PI / (2 * INR (n + 1))) ^ 2 * sum n (fun t => w t ^
    2).
Proof.
  intros w. rewrite (sum_ext (S n) _ (fun t => (before w t + 1 * inside n w t) ^ 2)) by (intros; ring).
  rewrite square_sum by ring. pose proof (mixed_sum w) as M.
  assert (A : sum (n - 1) (fun t => 2 * (w t * w (S t))) <= sum (n - 1) (fun t => 2 * Rabs (w t * w (S t)))).
  { apply sum_le. intros t _. pose proof (Rle_abs (w t * w (S t))). lra. }
  assert (C : 4 * cos (PI / (2 * INR (n + 1))) ^ 2 = 2 + 2 * cos theta).
  { assert (P : 0 < INR (n + 1)) by (apply lt_0_INR; lia).
    replace theta with (2 * (PI / (2 * INR (n + 1)))) by (unfold theta; field; lra). rewrite cos_2a_cos. ring. }
  rewrite C. lra.
Qed.

End Path.

(** ** The gradient, frame by frame *)

Section Gradient.
Context {V : space}.
Variable N : nat.
Hypothesis three : (3 <= N)%nat.

(** w_t *)
Definition magnitude (F : nat -> V) (t : nat) : R := Rabs (weight N F t) * sqrt (1 - cosine F t ^ 2).

Lemma pull_len : forall A B : V, 0 < << A, A >> -> 0 < << B, B >> -> len (pull A B) = sqrt (1
  - similarity A B ^ 2) / len A.
Proof.
  intros A B HA HB. pose proof (len_positive A HA) as P. pose proof (similarity_square A B HA HB) as Q.
  apply len_of_square; [apply Rmult_le_pos; [apply sqrt_pos | apply Rlt_le, Rinv_0_lt_compat, P] |].
  rewrite pull_square by easy. rewrite <- len_sqr.
  replace (sqrt (1 - similarity A B ^ 2) / len A * (sqrt (1 - similarity A B ^ 2) / len A))
    with (sqrt (1 - similarity A B ^ 2) * sqrt (1 - similarity A B ^ 2) / (len A * len A)) by (field; lra).
  rewrite sqrt_sqrt by lra. reflexivity.
Qed.

(** r_t |grad_t L| lies between |w_(t-1) - w_t| and w_(t-1) + w_t. *)
Lemma gradient_between : forall (F : nat -> V) t, no_zero_frame N F -> (t < N)%nat ->
  (before (magnitude F) t - inside (N - 1) (magnitude F) t) ^ 2 / << F t, F t >> <= << gradient N F t, gradient N F t >>
  /\ << gradient N F t, gradient N F t >> <= (before (magnitude F) t + inside (N - 1) (magnitude F) t) ^ 2 / << F t,
    F t >>.
Proof.
  intros F t H Ht. set (p := match t with O => origin | S o => weight N F o [*] pull (F t) (F o) end).
  set (q := weight N F t [*] pull (F t) (F (S t))).
  pose proof (len_positive (F t) (H t Ht)) as P.
  assert (Lp : len p = before (magnitude F) t / len (F t)).
  { unfold p. destruct t as [| o]; [rewrite len_origin; simpl; unfold Rdiv; ring |].
    rewrite len_scale, pull_len by (apply H; lia). cbn [before]. unfold magnitude. rewrite similarity_sym.
    fold (cosine F o). field. lra. }
  assert (Lq : len q = inside (N - 1) (magnitude F) t / len (F t)).
  { unfold q, inside. destruct (Nat.ltb_spec t (N - 1)).
    - rewrite len_scale, pull_len by (apply H; lia). unfold magnitude. fold (cosine F t). field. lra.
    - replace t with (N - 1)%nat at 1 by lia. rewrite last_weight, len_scale, Rabs_R0 by easy. unfold Rdiv. ring. }
  assert (G : gradient N F t = p [+] q) by reflexivity.
  pose proof (inner_le p q) as U. pose proof (inner_ge p q) as L.
  rewrite G, inner_add, !inner_add_r, (inner_sym _ q p), <- !len_sqr.
  split.
  - replace ((before (magnitude F) t - inside (N - 1) (magnitude F) t) ^ 2 / (len (F t) * len (F t))) with ((len p
      - len q) ^ 2).
    + lra.
    + rewrite Lp, Lq. field. lra.
  - replace ((before (magnitude F) t + inside (N - 1) (magnitude F) t) ^ 2 / (len (F t) * len (F t)))
      with ((len p + len q) ^ 2).
    + lra.
    + rewrite Lp, Lq. field. lra.
Qed.

Lemma magnitude_square : forall (F : nat -> V) t, no_zero_frame N F -> (t < N - 1)%nat ->
  magnitude F t ^ 2 = weight N F t ^ 2 * (1 - cosine F t ^ 2).
Proof.
  intros F t H Ht. unfold magnitude.
  pose proof (similarity_square (F t) (F (S t)) (H t ltac:(lia)) (H (S t) ltac:(lia))) as Q. fold (cosine F t) in Q.
  replace ((Rabs (weight N F t) * sqrt (1 - cosine F t ^ 2)) ^ 2)
    with (Rabs (weight N F t) ^ 2 * (sqrt (1 - cosine F t ^ 2) * sqrt (1 - cosine F t ^ 2))) by ring.
  rewrite pow2_abs, sqrt_sqrt by lra. reflexivity.
Qed.

Lemma weight_difference : forall (F : nat -> V) t, (t < N - 1)%nat ->
  weight N F t = 2 / INR (N - 2) * (before (fun i => cosine F (S i) - cosine F i) t
                                    - inside (N - 2) (fun i => cosine F (S i) - cosine F i) t).
Proof.
  intros F t Ht. unfold weight, difference, inside. destruct t as [| p]; [reflexivity |]. simpl before.
  now rewrite (proj2 (Nat.ltb_lt p (N - 2))) by lia.
Qed.

(** C2.pl *)
Theorem polyak_lojasiewicz : forall (F : nat -> V) R sigma, no_zero_frame N F -> 0 < R -> 0 <= sigma ->
  (forall t, (t < N)%nat -> len (F t) <= R) -> (forall t, (t < N - 1)%nat -> cosine F t ^ 2 <= 1 - sigma) ->
  64 / INR (N - 2) * sin (PI / (2 * INR (N - 1))) ^ 2 * sin (PI / (2 * INR N)) ^ 2 * (sigma / R ^ 2) * loss N F
  <= sum N (fun t => << gradient N F t, gradient N F t >>).
Proof.
  intros F R sigma H HR Hs Hn Hc. pose proof (count_pos N three) as P.
  set (A := sin (PI / (2 * INR N)) ^ 2). set (B := sin (PI / (2 * INR (N - 1))) ^ 2).
  assert (A0 : 0 <= A) by apply pow2_ge_0. assert (B0 : 0 <= B) by apply pow2_ge_0.
  assert (R2 : 0 < R ^ 2) by now apply pow_lt.
  (* |grad|^2 >= sum (w_(t-1) - w_t)^2 / R^2 >= 4 A |w|^2 / R^2. *)
  assert (S1 : / R ^ 2 * (4 * A * sum (N - 1) (fun t => magnitude F t ^ 2)) <= sum N (fun t => << gradient N F t,
    gradient N F t >>)).
  { pose proof (dirichlet_lower (N - 1) ltac:(lia) (magnitude F)) as D.
    replace (N - 1 + 1)%nat with N in D by lia. replace (S (N - 1)) with N in D by lia. fold A in D.
    apply Rle_trans with (/ R ^ 2 * sum N (fun t => (before (magnitude F) t - inside (N - 1) (magnitude F) t) ^ 2)).
    - apply Rmult_le_compat_l; [apply Rlt_le, Rinv_0_lt_compat, R2 | exact D].
    - rewrite <- sum_scale. apply sum_le. intros t Ht. eapply Rle_trans; [| apply (gradient_between F t H Ht)].
      rewrite Rmult_comm. apply Rmult_le_compat_l; [apply pow2_ge_0 |].
      pose proof (len_positive (F t) (H t Ht)) as L. rewrite <- len_sqr.
      apply Rinv_le_contravar; [now apply Rmult_lt_0_compat |]. pose proof (Hn t Ht). nra. }
  (* |w|^2 >= sigma |y|^2 *)
  assert (S2 : sigma * sum (N - 1) (fun t => weight N F t ^ 2) <= sum (N - 1) (fun t => magnitude F t ^ 2)).
  { rewrite <- sum_scale. apply sum_le. intros t Ht. rewrite magnitude_square by easy. rewrite Rmult_comm.
    apply Rmult_le_compat_l; [apply pow2_ge_0 |]. pose proof (Hc t Ht). lra. }
  (* |y|^2 >= 4 B (2/(N-2))^2 |Ds|^2 *)
  assert (S3 : 16 * B / INR (N - 2) * loss N F <= sum (N - 1) (fun t => weight N F t ^ 2)).
  { pose proof (dirichlet_lower (N - 2) ltac:(lia) (fun i => cosine F (S i) - cosine F i)) as D.
    replace (N - 2 + 1)%nat with (N - 1)%nat in D by lia. replace (S (N - 2)) with (N - 1)%nat in D by lia. fold B in D.
    rewrite <- (loss_sum N F three) in D.
    rewrite (sum_ext (N - 1) (fun t => weight N F t ^ 2) (fun t => (2 / INR (N - 2)) ^ 2 *
      (before (fun i => cosine F (S i) - cosine F i) t - inside (N - 2) (fun i => cosine F (S i) - cosine F i) t) ^ 2)).
    2: { intros t Ht. rewrite weight_difference by easy. ring. }
    rewrite sum_scale.
    replace (16 * B / INR (N - 2) * loss N F) with ((2 / INR (N - 2)) ^ 2 * (4 * B * (INR (N - 2) * loss N F)))
      by (field; lra).
    apply Rmult_le_compat_l; [apply pow2_ge_0 | exact D]. }
  eapply Rle_trans; [| exact S1].
  pose proof (Rmult_le_compat_l sigma _ _ Hs S3) as S4.
  assert (S5 : sigma * (16 * B / INR (N - 2) * loss N F) <= sum (N - 1) (fun t => magnitude F t ^ 2)) by lra.
  pose proof (Rmult_le_compat_l (4 * A) _ _ ltac:(lra) S5) as S6.
  pose proof (Rmult_le_compat_l (/ R ^ 2) _ _ ltac:(apply Rlt_le, Rinv_0_lt_compat, R2) S6) as S7.
  replace (64 / INR (N - 2) * B * A * (sigma / R ^ 2) * loss N F)
    with (/ R ^ 2 * (4 * A * (sigma * (16 * B / INR (N - 2) * loss N F)))) by (field; lra). exact S7.
Qed.

(** ** C1.gradient *)

(** An inner and an end pair of neighbouring similarities. *)
Lemma inner_pair : forall a b, a ^ 2 <= 1 -> b ^ 2 <= 1 -> (b - a) ^ 2 * (2 * (1 - a ^ 2) + 2 * (1 - b ^ 2)) <= 4.
Proof.
  intros a b Ha Hb. pose proof (pow2_ge_0 (a + b)) as Q. pose proof (pow2_ge_0 (a ^ 2 + b ^ 2 - 1)) as S.
  pose proof (Rmult_le_pos _ (2 * (1 - a ^ 2) + 2 * (1 - b ^ 2)) Q ltac:(lra)). lra.
Qed.

Lemma end_pair : forall a b, a ^ 2 <= 1 -> b ^ 2 <= 1 -> (b - a) ^ 2 * ((1 - a ^ 2) + 2 * (1 - b ^ 2)) <= 27 / 8.
Proof.
  intros a b Ha Hb. pose proof (pow2_ge_0 (a + 2 * b)) as Q. pose proof (pow2_ge_0 (a ^ 2 + 2 * b ^ 2 - 3 / 2)) as S.
  pose proof (Rmult_le_pos _ ((1 - a ^ 2) + 2 * (1 - b ^ 2)) Q ltac:(lra)). lra.
Qed.

Lemma pair_shift : forall n (d a : nat -> R), d n = 0 ->
  sum (S n) (fun t => (before d t + d t) * a t) = sum n (fun t => d t * (a t + a (S t))).
Proof.
  intros n d a Hn. assert (G : forall k, sum k (fun t => (before d t + d t) * a t) + before d k * a k
    = sum k (fun t => d t * (a t + a (S t)))).
  { induction k; [simpl; ring |]. rewrite !sum_S, <- IHk. simpl. ring. }
  rewrite <- G, sum_S, Hn. ring.
Qed.

(** |grad L|^2 <= 4 cos^2(pi/(2N)) |w|^2 / m^2. *)
Lemma gradient_reduced : forall m (F : nat -> V), 0 < m -> norms_at_least N m F ->
  sum N (fun t => << gradient N F t, gradient N F t >>)
  <= 4 * cos (PI / (2 * INR N)) ^ 2 / m ^ 2 * sum (N - 1) (fun t => magnitude F t ^ 2).
Proof.
  intros m F Hm H. pose proof (norms_no_zero_frame N m F Hm H) as Z.
  pose proof (dirichlet_upper (N - 1) ltac:(lia) (magnitude F)) as D.
  replace (N - 1 + 1)%nat with N in D by lia. replace (S (N - 1)) with N in D by lia.
  apply Rle_trans with (/ m ^ 2 * sum N (fun t => (before (magnitude F) t + inside (N - 1) (magnitude F) t) ^ 2)).
  - rewrite <- sum_scale. apply sum_le. intros t Ht. eapply Rle_trans; [apply (gradient_between F t Z Ht) |].
    unfold Rdiv. rewrite Rmult_comm. apply Rmult_le_compat_r; [apply pow2_ge_0 |]. rewrite <- len_sqr.
    pose proof (H t Ht). apply Rinv_le_contravar; nra.
  - assert (0 < m ^ 2) by now apply pow_lt. apply (Rmult_le_compat_l (/ m ^ 2)) in D;
      [| apply Rlt_le, Rinv_0_lt_compat; lra].
    eapply Rle_trans; [exact D |]. right. field. lra.
Qed.

(** For N >= 4: |grad L| <= G_N / m, G_N = 4 cos(pi/(2N)) sqrt(4N - 37/4) / (N-2). *)
Theorem gradient_bound : forall m (F : nat -> V), (4 <= N)%nat -> 0 < m -> norms_at_least N m F ->
  sum N (fun t => << gradient N F t, gradient N F t >>)
  <= (4 * cos (PI / (2 * INR N)) * sqrt (4 * INR N - 37 / 4) / INR (N - 2) / m) ^ 2.
Proof.
  intros m F H4 Hm H. pose proof (norms_no_zero_frame N m F Hm H) as Z. pose proof (count_pos N three) as P.
  assert (N4 : 4 <= INR N) by (change 4 with (INR 4) || replace 4 with (INR 4) by (simpl; ring); apply le_INR; lia).
  set (a := fun t => 1 - cosine F t ^ 2). set (d := fun t => cosine F (S t) - cosine F t).
  assert (A0 : forall t, (t < N - 1)%nat -> 0 <= a t).
  { intros t Ht. pose proof (similarity_square (F t) (F (S t)) (Z t ltac:(lia)) (Z (S t) ltac:(lia))) as Q.
    fold (cosine F t) in Q.
    unfold a. lra. }
  (* |w|^2 = (2/(N-2))^2 sum (Ds_(t-1) - Ds_t)^2 (1 - s_t^2), pair by pair *)
  assert (W : sum (N - 1) (fun t => magnitude F t ^ 2) <= (2 / INR (N - 2)) ^ 2 * (4 * INR N - 37 / 4)).
  { set (sq := fun t => inside (N - 2) d t ^ 2).
    apply Rle_trans with ((2 / INR (N - 2)) ^ 2 * sum (N - 1) (fun t => (before sq t + sq t) * (pair_weight N t * a
      t))).
    - rewrite <- sum_scale. apply sum_le. intros t Ht. rewrite magnitude_square, weight_difference by easy. fold d.
      fold (a t).
      replace ((2 / INR (N - 2) * (before d t - inside (N - 2) d t)) ^ 2 * a t)
        with ((2 / INR (N - 2)) ^ 2 * ((before d t - inside (N - 2) d t) ^ 2 * a t)) by ring.
      apply Rmult_le_compat_l; [apply pow2_ge_0 |]. rewrite <- Rmult_assoc. apply Rmult_le_compat_r; [now apply A0 |].
      unfold pair_weight. destruct (Nat.eqb_spec t 0) as [-> | T0]; [simpl; unfold sq; lra |].
      destruct t as [| p]; [lia |]. simpl before. unfold sq at 1. replace (inside (N - 2) d p) with (d p)
        by (unfold inside; now rewrite (proj2 (Nat.ltb_lt p (N - 2))) by lia).
      destruct (Nat.eqb_spec (S p) (N - 2)) as [E | E]; simpl orb; cbv iota.
      + unfold sq. replace (inside (N - 2) d (S p)) with 0 by (unfold inside; rewrite E, Nat.ltb_irrefl; reflexivity).
        lra.
      + unfold sq. pose proof (pow2_ge_0 (d p + inside (N - 2) d (S p))). lra.
    - apply Rmult_le_compat_l; [apply pow2_ge_0 |]. replace (N - 1)%nat with (S (N - 2)) by lia.
      rewrite pair_shift by (unfold sq, inside; rewrite Nat.ltb_irrefl; ring).
      apply Rle_trans with (sum (N - 2) (fun t => 4 - (if Nat.eqb t 0 then 5 / 8 else 0) - (if Nat.eqb t (N
        - 3) then 5 / 8 else 0))).
      + apply sum_le. intros t Ht. unfold sq, inside. rewrite (proj2 (Nat.ltb_lt t (N - 2)) Ht).
        assert (Sq : forall i, (i < N - 1)%nat -> cosine F i ^ 2 <= 1) by (intros i Hi; pose proof (A0 i Hi);
          unfold a in *; lra).
        pose proof (Sq t ltac:(lia)) as B1. pose proof (Sq (S t) ltac:(lia)) as B2.
        unfold pair_weight, a, d. destruct (Nat.eqb_spec t 0) as [T0 | T0], (Nat.eqb_spec t (N - 3)) as [T1 | T1];
          try lia.
        * rewrite (proj2 (Nat.eqb_neq (S t) 0)), (proj2 (Nat.eqb_neq (S t) (N - 2))) by lia. simpl orb. cbv iota.
          pose proof (end_pair (cosine F t) (cosine F (S t)) B1 B2). lra.
        * rewrite (proj2 (Nat.eqb_neq t (N - 2))), (proj2 (Nat.eqb_eq (S t) (N - 2))), Bool.orb_true_r by lia.
          simpl orb. cbv iota.
          pose proof (end_pair (cosine F (S t)) (cosine F t) B2 B1). lra.
        * rewrite (proj2 (Nat.eqb_neq (S t) 0)), (proj2 (Nat.eqb_neq t (N - 2))), (proj2 (Nat.eqb_neq (S t) (N - 2)))
            by lia.
          simpl orb. cbv iota. pose proof (inner_pair (cosine F t) (cosine F (S t)) B1 B2). lra.
      + rewrite !sum_minus, sum_const, (sum_single _ _ 0), (sum_single _ _ (N - 3)); try lia.
        * rewrite !Nat.eqb_refl. rewrite minus_INR by lia. simpl INR. lra.
        * intros t _ E. now rewrite (proj2 (Nat.eqb_neq t (N - 3)) E).
        * intros t _ E. now rewrite (proj2 (Nat.eqb_neq t 0) E). }
  eapply Rle_trans; [exact (gradient_reduced m F Hm H) |].
  assert (C0 : 0 <= 4 * cos (PI / (2 * INR N)) ^ 2 / m ^ 2).
  { apply Rmult_le_pos; [pose proof (pow2_ge_0 (cos (PI / (2 * INR N))));
      lra | apply Rlt_le, Rinv_0_lt_compat, pow_lt, Hm]. }
  apply (Rmult_le_compat_l _ _ _ C0) in W. eapply Rle_trans; [exact W |]. right.
  pose proof (sqrt_sqrt (4 * INR N - 37 / 4) ltac:(lra)) as S.
  replace ((4 * cos (PI / (2 * INR N)) * sqrt (4 * INR N - 37 / 4) / INR (N - 2) / m) ^ 2)
    with (16 * cos (PI / (2 * INR N)) ^ 2 * (sqrt (4 * INR N - 37 / 4) * sqrt (4 * INR N - 37 / 4)) / INR (N
      - 2) ^ 2 / m ^ 2) by (field; lra).
  rewrite S. field. lra.
Qed.

End Gradient.

(** Three frames: |grad L|^2 <= 24 / m^2, the sharp G_3 = 2 sqrt 6. *)
Theorem gradient_bound_three : forall (V : space) m (F : nat -> V), 0 < m -> norms_at_least 3 m F ->
  sum 3 (fun t => << gradient 3 F t, gradient 3 F t >>) <= 24 / m ^ 2.
Proof.
  intros V m F Hm H. pose proof (norms_no_zero_frame 3 m F Hm H) as Z.
  pose proof (gradient_reduced 3 ltac:(lia) m F Hm H) as G.
  assert (M2 : 0 < m ^ 2) by now apply pow_lt.
  assert (C : cos (PI / (2 * INR 3)) ^ 2 = 3 / 4).
  { replace (PI / (2 * INR 3)) with (PI / 6) by (simpl; field). rewrite cos_PI6. unfold Rdiv.
    replace ((sqrt 3 * / 2) ^ 2) with (sqrt 3 * sqrt 3 * / 4) by field. rewrite sqrt_sqrt by lra. lra. }
  rewrite C in G. eapply Rle_trans; [exact G |].
  replace (24 / m ^ 2) with (4 * (3 / 4) / m ^ 2 * 8) by (field; lra).
  apply Rmult_le_compat_l.
  { apply Rmult_le_pos; [lra | apply Rlt_le, Rinv_0_lt_compat, M2]. }
  change (3 - 1)%nat with 2%nat. rewrite !sum_S. simpl (sum 0 _).
  rewrite !magnitude_square by (exact Z || lia). unfold weight, difference. simpl.
  pose proof (similarity_square (F 0%nat) (F 1%nat) (Z 0%nat ltac:(lia)) (Z 1%nat ltac:(lia))) as A.
  pose proof (similarity_square (F 1%nat) (F 2%nat) (Z 1%nat ltac:(lia)) (Z 2%nat ltac:(lia))) as B.
  fold (cosine F 0) in A. fold (cosine F 1) in B. set (a := cosine F 0) in *. set (b := cosine F 1) in *.
  pose proof (inner_pair a b ltac:(lra) ltac:(lra)) as Q. lra.
Qed.
