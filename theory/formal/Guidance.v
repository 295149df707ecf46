(** * C3.guidance: what the guidance scale does to the round trip

    Inversion and sampling with e^w = w e^c + (1 - w) e^u, w >= 0: the defects are d = w d^c + (1 - w) d^u, and
    ||E_0|| <= sum_k (w ||d^c_k|| + |w-1| ||d^u_k||) prod_(j<k) (1 + h_j (w L^c_(j+1) + |w-1| L^u_(j+1))). *)

From Coq Require Import Reals Lra Lia Psatz.
From framebound Require Import Inner RoundTrip.
Open Scope R_scope.

Section Guidance.
Context {V : space}.
Variable N : nat.
Variable h : nat -> R.
Variables ec eu : nat -> V -> V.
Variable scale_w : R.
Hypothesis scale_nonneg : 0 <= scale_w.

(** The guided predictor. *)
Definition guided (k : nat) (y : V) : V := scale_w [*] ec k y [+] (1 - scale_w) [*] eu k y.

Lemma guided_len : forall a b : V, len (scale_w [*] a [+] (1 - scale_w) [*] b) <= scale_w * len a + Rabs (scale_w
  - 1) * len b.
Proof.
  intros a b. eapply Rle_trans; [apply len_triangle |]. rewrite !len_scale, (Rabs_pos_eq scale_w), Rabs_minus_sym
    by easy. lra.
Qed.

Lemma round_trip_bound_le : forall n d d' g, (forall k, (k < n)%nat -> 0 <= g k /\ d k <= d' k) ->
  round_trip_bound n d g <= round_trip_bound n d' g.
Proof.
  intros n d d' g H. apply sum_le. intros k Hk. apply Rmult_le_compat_r; [| now apply H].
  apply product_nonneg. intros i Hi. apply H. lia.
Qed.

(** pc_k and pu_k are the predictions that the inversion used. *)
Theorem guidance : forall (z w pc pu : nat -> V) (Lc Lu : nat -> R),
  let dc := fun k => h k [*] (ec (S k) (z (S k)) [-] pc k) in
  let du := fun k => h k [*] (eu (S k) (z (S k)) [-] pu k) in
  (forall k, (k < N)%nat -> 0 <= h k) ->
  (forall k, (k < N)%nat -> z (S k) = z k [+] h k [*] (scale_w [*] pc k [+] (1 - scale_w) [*] pu k)) ->
  (forall k, (k < N)%nat -> w k = sampling_step h guided k (w (S k))) -> w N = z N ->
  (forall k, 0 <= Lc k /\ 0 <= Lu k) ->
  (forall k, (0 < k < N)%nat -> len (ec k (w k) [-] ec k (z k)) <= Lc k * len (w k [-] z k)
                             /\ len (eu k (w k) [-] eu k (z k)) <= Lu k * len (w k [-] z k)) ->
  len (w O [-] z O)
  <= round_trip_bound N (fun k => scale_w * len (dc k) + Rabs (scale_w - 1) * len (du k))
       (fun k => 1 + h k * (scale_w * Lc (S k) + Rabs (scale_w - 1) * Lu (S k))).
Proof.
  intros z w pc pu Lc Lu dc du Hh Hz Hw HN HL0 HL.
  set (d := fun k => scale_w [*] dc k [+] (1 - scale_w) [*] du k).
  assert (Hd : forall k, (k < N)%nat -> z k = sampling_step h guided k (z (S k)) [+] d k).
  { intros k Hk. transitivity (z (S k) [-] h k [*] (scale_w [*] pc k [+] (1 - scale_w) [*] pu k)).
    - rewrite (Hz k Hk). vectors.
    - unfold sampling_step, guided, d, dc, du. vectors. }
  assert (HLw : forall k, 0 <= scale_w * Lc k + Rabs (scale_w - 1) * Lu k).
  { intros k. destruct (HL0 k) as [A B]. pose proof (Rmult_le_pos _ _ scale_nonneg A).
    pose proof (Rmult_le_pos _ _ (Rabs_pos (scale_w - 1)) B). lra. }
  eapply Rle_trans; [apply (round_trip N h guided z w d Hw Hd HN (fun k => scale_w * Lc k + Rabs (scale_w
    - 1) * Lu k) Hh) |].
  - intros k Hk. split; [apply HLw |]. unfold guided. destruct (HL k Hk) as [A B].
    replace (scale_w [*] ec k (w k) [+] (1 - scale_w) [*] eu k (w k) [-] (scale_w [*] ec k (z k) [+] (1
      - scale_w) [*] eu k (z k)))
      with (scale_w [*] (ec k (w k) [-] ec k (z k)) [+] (1 - scale_w) [*] (eu k (w k) [-] eu k (z k))) by vectors.
    eapply Rle_trans; [apply guided_len |]. pose proof (Rmult_le_compat_l _ _ _ scale_nonneg A).
    pose proof (Rmult_le_compat_l _ _ _ (Rabs_pos (scale_w - 1)) B). lra.
  - apply round_trip_bound_le. intros k Hk. split; [| apply guided_len].
    pose proof (Rmult_le_pos _ _ (Hh k Hk) (HLw (S k))). lra.
Qed.

End Guidance.
