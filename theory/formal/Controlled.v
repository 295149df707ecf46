(** * C3.stated: no constant bounds the round trip by the sum of the defects

    Refuted for every C, under both conventions, by ONE predictor that does not depend on C: linear in the state, with
    unit steps, on which every step of sampling doubles the error while the defects all point one way and stay alike.
    S: the inversion step from z_k uses e(z_k, sigma_k). T (diffusers): the state of the lower level
      with the timestep of the
    upper one, eps(x_k, sigma_(k+1)), x = z/sqrt(1 + sigma^2). *)

From Coq Require Import Reals Lra Lia Psatz.
From Coquelicot Require Import Rcomplements.
From framebound Require Import Inner RoundTrip.
Open Scope R_scope.

(** ** A round trip on the line with e_k(y) = - y + b_k and unit steps *)

Section Doubling.
Variable N : nat.
Variables b z w d : nat -> R.
Hypothesis sampling : forall k, (k < N)%nat -> w k = w (S k) - (- w (S k) + b (S k)).
Hypothesis inversion : forall k, (k < N)%nat -> z k = z (S k) - (- z (S k) + b (S k)) + d k.
Hypothesis same_end : w N = z N.

Lemma doubling : w O - z O = - sum N (fun k => d k * 2 ^ k).
Proof.
  assert (G : forall n, (n <= N)%nat -> w O - z O = 2 ^ n * (w n - z n) - sum n (fun k => d k * 2 ^ k)).
  { induction n; intros Hn; [simpl; ring |]. rewrite sum_S, IHn by lia. rewrite (sampling n), (inversion n) by lia.
    simpl. ring. }
  rewrite (G N) by lia. rewrite same_end. ring.
Qed.

(** Defects between 1 and D: the round trip is at least 2^(N-1), the sum of the defects at most N D. *)
Lemma doubling_ratio : forall C, (1 <= N)%nat -> (forall k, (k < N)%nat -> 0 <= d k <= d (N - 1)%nat) -> 0 < d (N
  - 1)%nat ->
  0 <= C -> C * INR N < 2 ^ (N - 1) -> C * sum N (fun k => Rabs (d k)) < Rabs (w O - z O).
Proof.
  intros C HN Hd Hp HC H. rewrite doubling, Rabs_Ropp, Rabs_pos_eq.
  2: { apply sum_nonneg. intros k Hk. apply Rmult_le_pos; [apply Hd, Hk | apply pow_le; lra]. }
  assert (A : sum N (fun k => Rabs (d k)) <= INR N * d (N - 1)%nat).
  { rewrite <- sum_const. apply sum_le. intros k Hk. rewrite Rabs_pos_eq; apply Hd, Hk. }
  pose proof (sum_term N (fun k => d k * 2 ^ k) (N - 1)
    ltac:(intros k Hk; apply Rmult_le_pos; [apply Hd, Hk | apply pow_le; lra]) ltac:(lia)) as B. simpl in B.
  pose proof (Rmult_le_compat_l C _ _ HC A) as A'.
  pose proof (Rmult_lt_compat_r _ _ _ Hp H) as H'. lra.
Qed.

End Doubling.

(** N < 2^n grows faster than any multiple of N. *)
Lemma exponential_wins : forall C, 0 <= C -> exists N, (2 <= N)%nat /\ C * INR N < 2 ^ (N - 1).
Proof.
  intros C HC. destruct (nfloor_ex (8 * C + 9) ltac:(lra)) as [n [_ Hn]].
  assert (Hn8 : (8 < n)%nat) by (apply INR_lt; simpl; lra).
  exists (S n). split; [lia |]. replace (S n - 1)%nat with n by lia.
  assert (Q : forall k, INR (S k) ^ 2 <= 4 * 2 ^ k).
  { clear. assert (P : forall k, (INR k + 4) ^ 2 <= 2 * 2 ^ (k + 3)).
    { induction k; [simpl; lra |]. replace (2 ^ (S k + 3)) with (2 * 2 ^ (k + 3)) by easy. rewrite S_INR.
      pose proof (pos_INR k). pose proof (pow2_ge_0 (INR k)). lra. }
    intros k. destruct (Nat.le_gt_cases 3 k) as [H | H].
    - replace k with (k - 3 + 3)%nat by lia. generalize (k - 3)%nat as j. intros j. pose proof (P j) as Pj.
      replace (INR (S (j + 3))) with (INR j + 4) by (rewrite S_INR, plus_INR; simpl; ring).
      pose proof (pow_lt 2 (j + 3) ltac:(lra)). lra.
    - destruct k as [| [| [| k]]]; try lia; simpl; lra. }
  pose proof (Q n) as Qn. pose proof (S_INR n) as SI.
  apply Rle_lt_trans with (INR (S n) * INR (S n) / 8).
  - assert (C <= INR (S n) / 8) by lra. pose proof (pos_INR (S n)).
    pose proof (Rmult_le_compat_r (INR (S n)) _ _ H0 H). lra.
  - pose proof (pow_lt 2 n ltac:(lra)). lra.
Qed.

(** The states of the sampling, from the last level down: w_N = z_N, .. *)
Fixpoint sampled (b : nat -> R) (zN : R) (N j : nat) : R :=
  match j with O => zN | S i => sampled b zN N i - (- sampled b zN N i + b (N - i)%nat) end.

Lemma sampled_step : forall b zN N k, (k < N)%nat ->
  sampled b zN N (N - k) = sampled b zN N (N - S k) - (- sampled b zN N (N - S k) + b (S k)).
Proof.
  intros b zN N k Hk. replace (N - k)%nat with (S (N - S k)) by lia. simpl.
  now replace (N - (N - S k))%nat with (S k) by lia.
Qed.

(** ** Convention S *)

(** sigma_k = k; e(y, sigma) = - (y - sigma^2/2) + sigma, smooth in both arguments. *)
Definition predictor_S (y sigma : R) : R := - (y - sigma ^ 2 / 2) + sigma.

Fixpoint inverted_S (k : nat) : R := match k with O => 0 | S p => inverted_S p + 1 * predictor_S (inverted_S p) (INR
  p) end.

Lemma inverted_S_closed : forall k, inverted_S (S k) = INR (S k) ^ 2 / 2 - 1 / 2.
Proof.
  induction k; [simpl; unfold predictor_S; simpl; field |].
  change (inverted_S (S (S k))) with (inverted_S (S k) + 1 * predictor_S (inverted_S (S k)) (INR (S k))).
  rewrite IHk. unfold predictor_S. rewrite (S_INR (S k)). field.
Qed.

(** The claim, with its constant: for every predictor, all increasing levels and every round trip under S. *)
Definition controlled_S (C : R) : Prop :=
  forall (e : R -> R -> R) (sigma : nat -> R) (N : nat) (z w : nat -> R),
  (forall k, (k < N)%nat -> sigma k < sigma (S k)) ->
  (forall k, (k < N)%nat -> z (S k) = z k + (sigma (S k) - sigma k) * e (z k) (sigma k)) ->
  (forall k, (k < N)%nat -> w k = w (S k) - (sigma (S k) - sigma k) * e (w (S k)) (sigma (S k))) ->
  w N = z N ->
  Rabs (w O - z O)
  <= C * sum N (fun k => Rabs ((sigma (S k) - sigma k) * (e (z (S k)) (sigma (S k)) - e (z k) (sigma k)))).

Theorem refuted_S : ~ exists C, controlled_S C.
Proof.
  intros [C0 H0]. set (C := Rabs C0). destruct (exponential_wins (2 * C)) as [N [HN HC]].
  { pose proof (Rabs_pos C0). unfold C. lra. }
  set (b := fun k => INR k ^ 2 / 2 + INR k).
  set (w := fun k => sampled b (inverted_S N) N (N - k)).
  set (d := fun k => predictor_S (inverted_S (S k)) (INR (S k)) - predictor_S (inverted_S k) (INR k)).
  assert (Step : forall k, INR (S k) - INR k = 1) by (intros; rewrite S_INR; ring).
  assert (Hw : forall k, (k < N)%nat -> w k = w (S k) - (- w (S k) + b (S k))) by (intros; apply sampled_step; easy).
  assert (Hz : forall k, (k < N)%nat -> inverted_S k = inverted_S (S k) - (- inverted_S (S k) + b (S k)) + d k).
  { intros k _. unfold d, b, predictor_S. simpl (inverted_S (S k)). unfold predictor_S. ring. }
  assert (End : w N = inverted_S N) by (unfold w; now rewrite Nat.sub_diag).
  assert (D : forall k, d (S k) = 1).
  { intros k. unfold d. rewrite !inverted_S_closed. unfold predictor_S. rewrite (S_INR (S k)). field. }
  assert (D0 : d O = 3 / 2) by (unfold d; rewrite inverted_S_closed; unfold predictor_S; simpl; field).
  pose proof (H0 predictor_S INR N inverted_S w) as B.
  assert (B' : Rabs (w 0%nat - inverted_S 0) <= C * sum N (fun k => Rabs (d k))).
  { eapply Rle_trans; [apply B |].
    - intros k _. rewrite S_INR. lra.
    - intros k _. rewrite Step. reflexivity.
    - intros k Hk. rewrite (Hw k Hk), Step. unfold predictor_S, b. ring.
    - exact End.
    - rewrite (sum_ext N _ (fun k => Rabs (d k))) by (intros; rewrite Step, Rmult_1_l; reflexivity).
      apply Rmult_le_compat_r; [apply sum_nonneg; intros; apply Rabs_pos | apply Rle_abs]. }
  (* |E_0| >= 2^(N-1), and the sum of the defects is N + 1/2. *)
  rewrite (doubling N b inverted_S w d Hw Hz End), Rabs_Ropp in B'.
  assert (P : forall k, 1 <= d k <= 3 / 2) by (intros [| k]; [rewrite D0 | rewrite D]; lra).
  assert (Low : 2 ^ (N - 1) <= sum N (fun k => d k * 2 ^ k)).
  { pose proof (sum_term N (fun k => d k * 2 ^ k) (N - 1)
      ltac:(intros k _; apply Rmult_le_pos; [pose proof (P k); lra | apply pow_le; lra]) ltac:(lia)) as T. simpl in T.
    pose proof (pow_lt 2 (N - 1) ltac:(lra)). pose proof (P (N - 1)%nat). nra. }
  rewrite Rabs_pos_eq in B' by (pose proof (pow_lt 2 (N - 1) ltac:(lra)); lra).
  assert (Up : sum N (fun k => Rabs (d k)) <= INR N * 2).
  { rewrite <- sum_const. apply sum_le. intros k _. pose proof (P k). rewrite Rabs_pos_eq; lra. }
  pose proof (Rmult_le_compat_l C _ _ (Rabs_pos C0) Up). lra.
Qed.

(** ** Convention T *)

(** eps(x, sigma) = - sqrt(1 + sigma^2) x + b(sigma), smooth in both arguments. *)
Definition root (sigma : R) : R := sqrt (1 + sigma ^ 2).
Definition shift_T (sigma : R) : R := root (sigma - 1) * (sigma - 1) - root sigma * sigma - root sigma * (sigma - 1).
Definition predictor_T (x sigma : R) : R := - root sigma * x + shift_T sigma.

Lemma root_pos : forall s, 1 <= root s.
Proof. intros. rewrite <- sqrt_1. apply sqrt_le_1_alt. pose proof (pow2_ge_0 s). lra. Qed.

(** The claim under T, with its constant. *)
Definition controlled_T (C : R) : Prop :=
  forall (eps : R -> R -> R) (sigma : nat -> R) (N : nat) (z w : nat -> R),
  (forall k, (k < N)%nat -> sigma k < sigma (S k)) ->
  (forall k, (k < N)%nat -> z (S k) = z k + (sigma (S k) - sigma k) * eps (z k / root (sigma k)) (sigma (S k))) ->
  (forall k, (k < N)%nat ->
     w k = w (S k) - (sigma (S k) - sigma k) * eps (w (S k) / root (sigma (S k))) (sigma (S k))) ->
  w N = z N ->
  Rabs (w O - z O)
  <= C * sum N (fun k => Rabs ((sigma (S k) - sigma k)
       * (eps (z (S k) / root (sigma (S k))) (sigma (S k)) - eps (z k / root (sigma k)) (sigma (S k))))).

(** The inversion that starts at z_0 = 0: x_k = - sigma_k. *)
Definition inverted_T (k : nat) : R := - (root (INR k) * INR k).

Theorem refuted_T : ~ exists C, controlled_T C.
Proof.
  intros [C0 H0]. set (C := Rabs C0). destruct (exponential_wins C (Rabs_pos C0)) as [N [HN HC]].
  set (b := fun k => shift_T (INR k)).
  set (w := fun k => sampled b (inverted_T N) N (N - k)).
  set (d := fun k => root (INR (S k))).
  assert (Step : forall k, INR (S k) - INR k = 1) by (intros; rewrite S_INR; ring).
  assert (Hw : forall k, (k < N)%nat -> w k = w (S k) - (- w (S k) + b (S k))) by (intros; apply sampled_step; easy).
  assert (X : forall k, inverted_T k / root (INR k) = - INR k).
  { intros k. unfold inverted_T. pose proof (root_pos (INR k)). field. lra. }
  assert (Back : forall k, INR (S k) - 1 = INR k) by (intros; rewrite S_INR; ring).
  assert (Hz : forall k, (k < N)%nat -> inverted_T k = inverted_T (S k) - (- inverted_T (S k) + b (S k)) + d k).
  { intros k _. unfold d, b, shift_T. rewrite Back. unfold inverted_T.
    generalize (root (INR (S k))) (root (INR k)). intros. rewrite S_INR. ring. }
  assert (End : w N = inverted_T N) by (unfold w; now rewrite Nat.sub_diag).
  pose proof (H0 predictor_T INR N inverted_T w) as B.
  assert (Def : forall k, (INR (S k) - INR k) * (predictor_T (inverted_T (S k) / root (INR (S k))) (INR (S k))
                          - predictor_T (inverted_T k / root (INR k)) (INR (S k))) = d k).
  { intros k. rewrite !X, Step. unfold predictor_T, d. generalize (root (INR (S k))). intros. rewrite S_INR. ring. }
  assert (B' : Rabs (w 0%nat - inverted_T 0) <= C * sum N (fun k => Rabs (d k))).
  { eapply Rle_trans; [apply B |].
    - intros k _. rewrite S_INR. lra.
    - intros k _. rewrite Step, X. unfold predictor_T, shift_T. rewrite Back. unfold inverted_T.
      generalize (root (INR (S k))) (root (INR k)). intros. rewrite S_INR. ring.
    - intros k Hk. rewrite (Hw k Hk), Step. unfold predictor_T, b. pose proof (root_pos (INR (S k))). field. lra.
    - exact End.
    - rewrite (sum_ext N _ (fun k => Rabs (d k))) by (intros; now rewrite Def).
      apply Rmult_le_compat_r; [apply sum_nonneg; intros; apply Rabs_pos | apply Rle_abs]. }
  assert (Dpos : forall k, 1 <= d k) by (intros; apply root_pos).
  pose proof (doubling_ratio N b inverted_T w d Hw Hz End C ltac:(lia)) as R.
  assert (Mono : forall k, (k < N)%nat -> 0 <= d k <= d (N - 1)%nat).
  { intros k Hk. split; [pose proof (Dpos k); lra |]. unfold d, root. apply sqrt_le_1_alt.
    assert (INR (S k) <= INR (S (N - 1))) by (apply le_INR; lia). pose proof (pos_INR (S k)). nra. }
  specialize (R Mono ltac:(pose proof (Dpos (N - 1)%nat); lra) (Rabs_pos C0) HC). lra.
Qed.

(** ** How fast the error grows for given h, L and rate c (convention S) *)

(** Every defect at least c h^2 along one direction: |E_0| >= (h c / L) ((1 + hL)^N - 1). *)
Theorem exponential_growth : forall N h L c (d : nat -> R), 0 < h -> 0 < L ->
  (forall k, (k < N)%nat -> c * h ^ 2 <= d k) ->
  h * c / L * ((1 + h * L) ^ N - 1) <= round_trip_bound N d (fun _ => 1 + h * L).
Proof.
  intros N h L c d Hh HL Hd.
  assert (P : forall n, product n (fun _ => 1 + h * L) = (1 + h * L) ^ n) by (induction n; simpl; [easy | rewrite IHn;
    ring]).
  assert (HP : 0 < h * L) by (apply Rmult_lt_0_compat; lra).
  assert (G : sum N (fun k => h * product k (fun _ => 1 + h * L)) = ((1 + h * L) ^ N - 1) / L).
  { rewrite <- P. rewrite <- (growth_telescope N L (fun _ => h)) by lra. apply sum_ext. intros. f_equal. }
  replace (h * c / L * ((1 + h * L) ^ N - 1)) with (c * h * (((1 + h * L) ^ N - 1) / L)) by (field; lra).
  rewrite <- G, <- sum_scale. apply sum_le. intros k Hk. rewrite P.
  replace (c * h * (h * (1 + h * L) ^ k)) with (c * h ^ 2 * (1 + h * L) ^ k) by ring.
  apply Rmult_le_compat_r; [apply pow_le; lra | now apply Hd].
Qed.
