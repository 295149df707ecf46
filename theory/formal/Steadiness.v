(** * C1.steadiness: what a small loss does control

    |s_t - s_u| <= sqrt(|t - u| (N-2) L): the loss together with one similarity bounds all of them. Sharp: a ramp. *)

From Coq Require Import Reals Lra Lia Psatz.
From framebound Require Import Inner TemporalLoss.
Open Scope R_scope.

Section Steadiness.
Context {V : space}.

(** (N-2) L = sum_t (s_(t+1) - s_t)^2 *)
Lemma loss_sum : forall N (F : nat -> V), (3 <= N)%nat ->
  INR (N - 2) * loss N F = sum (N - 2) (fun t => (cosine F (S t) - cosine F t) ^ 2).
Proof. intros N F H. unfold loss. pose proof (count_pos N H). field. lra. Qed.

Lemma loss_nonneg : forall N (F : nat -> V), (3 <= N)%nat -> 0 <= loss N F.
Proof.
  intros N F H. apply Rmult_le_pos; [apply sum_nonneg; intros; apply pow2_ge_0 |].
  apply Rlt_le, Rinv_0_lt_compat, count_pos. exact H.
Qed.

Lemma sum_from : forall n k (f : nat -> R), (forall i, 0 <= f i) -> sum k (fun i => f (n + i)%nat) <= sum (n + k) f.
Proof.
  intros n k f H. induction k; simpl.
  - apply sum_nonneg. intros. apply H.
  - rewrite Nat.add_succ_r. simpl. lra.
Qed.

(** The squared difference of two similarities that are k pairs apart. *)
Lemma steadiness_square : forall N (F : nat -> V) t k, (3 <= N)%nat -> (t + k <= N - 2)%nat ->
  (cosine F (t + k) - cosine F t) ^ 2 <= INR k * (INR (N - 2) * loss N F).
Proof.
  intros N F t k H Hk. rewrite loss_sum by easy.
  assert (E : cosine F (t + k) - cosine F t = sum k (fun i => cosine F (S (t + i)) - cosine F (t + i))).
  { rewrite (sum_ext k _ (fun i => (fun j => cosine F (t + j)) (S i) - (fun j => cosine F (t + j)) i)).
    - rewrite (sum_telescope k (fun j => cosine F (t + j))). now rewrite Nat.add_0_r.
    - intros. now rewrite Nat.add_succ_r. }
  rewrite E. pose proof (sum_square k (fun i => cosine F (S (t + i)) - cosine F (t + i))) as C.
  replace (sum k _ ^ 2) with (sum k (fun i => cosine F (S (t + i)) - cosine F (t + i))
                              * sum k (fun i => cosine F (S (t + i)) - cosine F (t + i))) by ring.
  eapply Rle_trans; [exact C |]. apply Rmult_le_compat_l; [apply pos_INR |].
  rewrite (sum_ext k _ (fun i => (fun j => (cosine F (S j) - cosine F j) ^ 2) (t + i)%nat)) by (intros; ring).
  eapply Rle_trans; [apply (sum_from t k (fun j => (cosine F (S j) - cosine F j) ^ 2)); intros; apply pow2_ge_0 |].
  replace (N - 2)%nat with (t + k + (N - 2 - (t + k)))%nat by lia.
  generalize (N - 2 - (t + k))%nat as r. induction r; [rewrite Nat.add_0_r; lra |].
  rewrite Nat.add_succ_r, sum_S. pose proof (pow2_ge_0 (cosine F (S (t + k + r)) - cosine F (t + k + r))). lra.
Qed.

(** C1.steadiness *)
Theorem steadiness : forall N (F : nat -> V) t u, (3 <= N)%nat -> (t <= N - 2)%nat -> (u <= N - 2)%nat ->
  Rabs (cosine F t - cosine F u) <= sqrt (Rabs (INR t - INR u) * (INR (N - 2) * loss N F)).
Proof.
  assert (Ordered : forall N (F : nat -> V) t u, (3 <= N)%nat -> (t <= u)%nat -> (u <= N - 2)%nat ->
    Rabs (cosine F t - cosine F u) <= sqrt (Rabs (INR t - INR u) * (INR (N - 2) * loss N F))).
  { intros N F t u H3 Htu Hu. rewrite <- sqrt_Rsqr_abs. apply sqrt_le_1_alt.
    pose proof (steadiness_square N F t (u - t) H3 ltac:(lia)) as S.
    replace (t + (u - t))%nat with u in S by lia. rewrite (minus_INR u t Htu) in S.
    rewrite Rabs_minus_sym, (Rabs_pos_eq (INR u - INR t)) by (pose proof (le_INR _ _ Htu); lra). unfold Rsqr. lra. }
  intros N F t u H3 Ht Hu. destruct (Nat.le_ge_cases t u) as [H | H].
  - now apply Ordered.
  - rewrite Rabs_minus_sym, (Rabs_minus_sym (INR t)). now apply Ordered.
Qed.

(** Sharp: where the similarities are a ramp, s_t = s_0 + t d, the two sides are equal for all t and u. *)
Theorem steadiness_sharp : forall N (F : nat -> V) s d t u, (3 <= N)%nat ->
  (forall i, (i <= N - 2)%nat -> cosine F i = s + INR i * d) -> (t <= u)%nat -> (u <= N - 2)%nat ->
  (cosine F t - cosine F u) ^ 2 = (INR u - INR t) ^ 2 * d ^ 2 /\ INR (N - 2) * loss N F = INR (N - 2) * d ^ 2
  /\ (t = 0%nat -> u = (N - 2)%nat ->
      Rabs (cosine F t - cosine F u) = sqrt (Rabs (INR t - INR u) * (INR (N - 2) * loss N F))).
Proof.
  intros N F s d t u H3 H Htu Hu.
  assert (L : INR (N - 2) * loss N F = INR (N - 2) * d ^ 2).
  { rewrite loss_sum by easy. rewrite (sum_ext _ _ (fun _ => d ^ 2)), sum_const; [easy |].
    intros i Hi. rewrite !H by lia. rewrite S_INR. ring. }
  split; [rewrite !H by lia; ring | split; [exact L |]].
  intros -> ->. rewrite L, !H by lia. simpl (INR 0). rewrite <- sqrt_Rsqr_abs. f_equal. unfold Rsqr.
  rewrite Rabs_minus_sym, Rminus_0_r, (Rabs_pos_eq (INR (N - 2))) by apply pos_INR. ring.
Qed.

End Steadiness.
