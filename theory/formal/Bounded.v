(** * C3.bounded: a bounded predictor bounds the round trip, whatever the number of steps

    If no prediction has a norm above G, neither of the inversion nor of the sampling, then
    ||w_0 - z_0|| <= 2 G (sigma_N - sigma_0): no Lipschitz constant, no condition on the steps, any convention,
      any adapter. *)

From Coq Require Import Reals Lra Lia Psatz.
From framebound Require Import Inner RoundTrip.
Open Scope R_scope.

Section Bounded.
Context {V : space}.
Variable N : nat.
Variable sigma : nat -> R.
Hypothesis increasing : forall k, (k < N)%nat -> sigma k <= sigma (S k).

(** Steps of size sigma_(k+1) - sigma_k with predictions of norm at most G move a state by at most G times the range. *)
Lemma bounded_path : forall (y p : nat -> V) G,
  (forall k, (k < N)%nat -> y k = y (S k) [-] (sigma (S k) - sigma k) [*] p k) ->
  (forall k, (k < N)%nat -> len (p k) <= G) ->
  len (y O [-] y N) <= G * (sigma N - sigma O).
Proof.
  intros y p G Hy Hp.
  assert (H : forall n, (n <= N)%nat -> len (y O [-] y n) <= G * (sigma n - sigma O)).
  { induction n; intros Hn.
    - replace (y O [-] y O) with (@origin V) by (symmetry; vectors). rewrite len_origin. lra.
    - replace (y O [-] y (S n)) with ((y O [-] y n) [-] (sigma (S n) - sigma n) [*] p n).
      2: { rewrite (Hy n ltac:(lia)). vectors. }
      eapply Rle_trans; [apply len_minus |].
      rewrite len_scale, Rabs_pos_eq by (pose proof (increasing n ltac:(lia)); lra).
      pose proof (IHn ltac:(lia)). pose proof (increasing n ltac:(lia)).
      pose proof (Rmult_le_compat_l (sigma (S n) - sigma n) _ _ ltac:(lra) (Hp n ltac:(lia))). lra. }
  now apply H.
Qed.

(** C3.bounded: p_k are the predictions that the inversion used, from whatever states and timesteps. *)
Theorem bounded : forall (e : nat -> V -> V) (z w p : nat -> V) G,
  (forall k, (k < N)%nat -> w k = sampling_step (fun j => sigma (S j) - sigma j) e k (w (S k))) ->
  (forall k, (k < N)%nat -> z (S k) = z k [+] (sigma (S k) - sigma k) [*] p k) ->
  w N = z N ->
  (forall k, (k < N)%nat -> len (p k) <= G) -> (forall k, (k < N)%nat -> len (e (S k) (w (S k))) <= G) ->
  len (w O [-] z O) <= 2 * G * (sigma N - sigma O).
Proof.
  intros e z w p G Hw Hz HN Hp He.
  pose proof (bounded_path w (fun k => e (S k) (w (S k))) G (fun k Hk => Hw k Hk) He) as A.
  assert (Hz' : forall k, (k < N)%nat -> z k = z (S k) [-] (sigma (S k) - sigma k) [*] p k).
  { intros k Hk. rewrite (Hz k Hk). vectors. }
  pose proof (bounded_path z p G Hz' Hp) as B.
  replace (w O [-] z O) with ((w O [-] w N) [-] (z O [-] z N)) by (rewrite HN; vectors).
  eapply Rle_trans; [apply len_minus |]. lra.
Qed.

(** C3.bounded, changing over at level m: the bound of the range above level m, then the growth of C3.any-inversion. *)
Theorem bounded_then_growth : forall (e : nat -> V -> V) (z w p d : nat -> V) (L : nat -> R) G m,
  (m <= N)%nat ->
  (forall k, (k < N)%nat -> w k = sampling_step (fun j => sigma (S j) - sigma j) e k (w (S k))) ->
  (forall k, (k < N)%nat -> z (S k) = z k [+] (sigma (S k) - sigma k) [*] p k) ->
  (forall k, (k < m)%nat -> z k = sampling_step (fun j => sigma (S j) - sigma j) e k (z (S k)) [+] d k) ->
  w N = z N ->
  (forall k, (k < N)%nat -> len (p k) <= G) -> (forall k, (k < N)%nat -> len (e (S k) (w (S k))) <= G) ->
  (forall k, (0 < k <= m)%nat -> 0 <= L k /\ len (e k (w k) [-] e k (z k)) <= L k * len (w k [-] z k)) ->
  let g := fun k => 1 + (sigma (S k) - sigma k) * L (S k) in
  len (w O [-] z O) <= 2 * G * (sigma N - sigma m) * product m g + round_trip_bound m (fun k => len (d k)) g.
Proof.
  intros e z w p d L G m Hm Hw Hz Hd HN Hp He HL g.
  assert (Gap : len (w m [-] z m) <= 2 * G * (sigma N - sigma m)).
  { assert (Path : forall y q : nat -> V,
      (forall k, (k < N)%nat -> y k = y (S k) [-] (sigma (S k) - sigma k) [*] q k) ->
      (forall k, (k < N)%nat -> len (q k) <= G) -> len (y m [-] y N) <= G * (sigma N - sigma m)).
    { intros y q Hy Hq. assert (A : forall n, (m + n <= N)%nat -> len (y m [-] y (m + n)%nat)
        <= G * (sigma (m + n)%nat - sigma m)).
      { induction n; intros Hn.
        - rewrite Nat.add_0_r. replace (y m [-] y m) with (@origin V) by (symmetry; vectors). rewrite len_origin. lra.
        - rewrite Nat.add_succ_r.
          replace (y m [-] y (S (m + n))) with ((y m [-] y (m + n)%nat) [-] (sigma (S (m + n))
            - sigma (m + n)%nat) [*] q (m + n)%nat).
          2: { rewrite (Hy (m + n)%nat ltac:(lia)). vectors. }
          eapply Rle_trans; [apply len_minus |].
          rewrite len_scale, Rabs_pos_eq by (pose proof (increasing (m + n) ltac:(lia)); lra).
          pose proof (IHn ltac:(lia)). pose proof (increasing (m + n) ltac:(lia)).
          pose proof (Rmult_le_compat_l (sigma (S (m + n)) - sigma (m + n)%nat) _ _ ltac:(lra) (Hq (m + n)%nat
            ltac:(lia))). lra. }
      replace N with (m + (N - m))%nat by lia. apply A. lia. }
    pose proof (Path w (fun k => e (S k) (w (S k))) (fun k Hk => Hw k Hk) He) as A.
    pose proof (Path z p ltac:(intros k Hk; rewrite (Hz k Hk); vectors) Hp) as B.
    replace (w m [-] z m) with ((w m [-] w N) [-] (z m [-] z N)) by (rewrite HN; vectors).
    eapply Rle_trans; [apply len_minus |]. lra. }
  apply (any_inversion_gap m (fun j => sigma (S j) - sigma j) e z w d).
  - intros k Hk. apply Hw. lia.
  - exact Hd.
  - intros k Hk. pose proof (increasing k ltac:(lia)). lra.
  - exact Gap.
  - exact HL.
Qed.

(** Attained: predictions of norm G that point one way in the inversion and the other way in the sampling. *)
Theorem bounded_attained : forall (u z0 : V) G, len u = 1 -> 0 <= G ->
  let z := fun k => z0 [+] (G * (sigma k - sigma O)) [*] u in
  let w := fun k => z N [+] (G * (sigma N - sigma k)) [*] u in
  (forall k, (k < N)%nat -> z (S k) = z k [+] (sigma (S k) - sigma k) [*] (G [*] u)) /\
  (forall k, (k < N)%nat -> w k = sampling_step (fun j => sigma (S j)
    - sigma j) (fun _ _ => (- G) [*] u) k (w (S k))) /\
  w N = z N /\ len ((- G) [*] u) = G /\
  (sigma O <= sigma N -> len (w O [-] z O) = 2 * G * (sigma N - sigma O)).
Proof.
  intros u z0 G Hu HG z w. repeat split.
  - intros k _. unfold z. vectors.
  - intros k _. unfold w, sampling_step. vectors.
  - unfold w, z. vectors.
  - rewrite len_scale, Rabs_Ropp, Hu, Rabs_pos_eq by easy. ring.
  - intros Hs. replace (w O [-] z O) with ((2 * G * (sigma N - sigma O)) [*] u) by (unfold w, z; vectors).
    rewrite len_scale, Hu, Rabs_pos_eq; [ring |]. apply Rmult_le_pos; lra.
Qed.

End Bounded.
