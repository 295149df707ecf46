(** * C1.flicker: the loss does not see flicker

    The loss is 0 for every CONSTANT similarity, so for every v in [-1,
      1] there is a clip of mean adjacent cosine v whose
    loss is 0, and F = (A, B, A, B, ..) flickers as much as A and B differ. The other way round, with
    S = sum_t (1 - s_t) = (N-1)(1 - V), V the mean adjacent cosine: L <= 2 S^2/(N-2) for N >= 4 and L <= S^2 for N
      = 3. *)

From Coq Require Import Reals Lra Lia Psatz.
From framebound Require Import Inner TemporalLoss Hessian.
Open Scope R_scope.

Section Flicker.
Context {V : space}.

(** The mean of the similarities of neighbours. *)
Definition mean_cosine (N : nat) (F : nat -> V) : R := sum (N - 1) (cosine F) / INR (N - 1).

(** The loss vanishes wherever all similarities agree. *)
Theorem constant_similarity : forall N (F : nat -> V) v,
  (forall t, (t < N - 1)%nat -> cosine F t = v) -> loss N F = 0.
Proof.
  intros N F v H. unfold loss. rewrite (sum_zero (N - 2)); [unfold Rdiv; ring |].
  intros t Ht. rewrite !H by lia. ring.
Qed.

(** A, B, A, B, .. *)
Definition flicker (A B : V) (t : nat) : V := if Nat.even t then A else B.

Lemma flicker_cosine : forall A B t, cosine (flicker A B) t = similarity A B.
Proof.
  intros. unfold cosine, flicker. rewrite Nat.even_succ, <- Nat.negb_even.
  destruct (Nat.even t); simpl; [easy | apply similarity_sym].
Qed.

Theorem flicker_loss : forall N (A B : V), loss N (flicker A B) = 0.
Proof. intros. apply constant_similarity with (v := similarity A B). intros. apply flicker_cosine. Qed.

Lemma flicker_mean : forall N (A B : V), (2 <= N)%nat -> mean_cosine N (flicker A B) = similarity A B.
Proof.
  intros N A B H. unfold mean_cosine. rewrite (sum_ext _ _ (fun _ => similarity A B)) by (intros; apply flicker_cosine).
  rewrite sum_const. field. apply not_0_INR. lia.
Qed.

(** A unit vector at the cosine v to e. *)
Lemma unit_at_cosine : forall e f v, @orthonormal V e f -> -1 <= v <= 1 ->
  << v [*] e [+] sqrt (1 - v ^ 2) [*] f, v [*] e [+] sqrt (1 - v ^ 2) [*] f >> = 1
  /\ << e, v [*] e [+] sqrt (1 - v ^ 2) [*] f >> = v.
Proof.
  intros e f v (He & Hf & Hef) Hv. pose proof (sqrt_sqrt (1 - v ^ 2) ltac:(nra)) as Q.
  expand_inner. rewrite (inner_sym _ f e), He, Hf, Hef. split; [nra | ring].
Qed.

(** C1.flicker: every mean cosine goes with loss 0. *)
Theorem every_mean_without_loss : forall N e f v, (2 <= N)%nat -> @orthonormal V e f -> -1 <= v <= 1 ->
  exists F : nat -> V, no_zero_frame N F /\ mean_cosine N F = v /\ loss N F = 0.
Proof.
  intros N e f v HN O Hv. destruct (unit_at_cosine e f v O Hv) as [U C].
  exists (flicker e (v [*] e [+] sqrt (1 - v ^ 2) [*] f)). split; [| split].
  - intros t _. unfold flicker. destruct (Nat.even t); [destruct O as [-> _]; lra | rewrite U; lra].
  - rewrite flicker_mean by easy. rewrite similarity_of_units; [exact C | apply O | exact U].
  - apply flicker_loss.
Qed.

(** S = (N-1)(1 - V) *)
Lemma deficit_mean : forall N (F : nat -> V), (2 <= N)%nat ->
  sum (N - 1) (fun t => 1 - cosine F t) = INR (N - 1) * (1 - mean_cosine N F).
Proof.
  intros N F H. unfold mean_cosine. rewrite sum_minus, sum_const. field. apply not_0_INR. lia.
Qed.

Lemma sum_of_squares_le : forall n f, (forall i, (i < n)%nat -> 0 <= f i) -> sum n (fun i => f i ^ 2) <= sum n f ^ 2.
Proof.
  induction n; intros f H; simpl; [lra |].
  pose proof (IHn f ltac:(intros; apply H; lia)) as I. pose proof (sum_nonneg n f ltac:(intros; apply H; lia)) as P.
  pose proof (Rmult_le_pos _ _ P (H n ltac:(lia))) as Q. simpl in I. lra.
Qed.

(** L <= 2 S^2 / (N-2): a clip whose neighbours are similar on average has a small loss. *)
Theorem consistent_clip : forall N (F : nat -> V), (3 <= N)%nat -> no_zero_frame N F ->
  loss N F <= 2 * sum (N - 1) (fun t => 1 - cosine F t) ^ 2 / INR (N - 2).
Proof.
  intros N F H3 H. pose proof (count_pos N H3) as P. unfold loss, Rdiv.
  apply Rmult_le_compat_r; [apply Rlt_le, Rinv_0_lt_compat; lra |].
  assert (D : forall t, (t < N - 1)%nat -> 0 <= 1 - cosine F t).
  { intros t Ht. pose proof (similarity_bounds (F t) (F (S t)) ltac:(apply H; lia) ltac:(apply H; lia)) as B.
    unfold cosine. lra. }
  apply Rle_trans with (sum (N - 2) (fun t => (1 - cosine F t) ^ 2 + (1 - cosine F (S t)) ^ 2)).
  - apply sum_le. intros t Ht. pose proof (D t ltac:(lia)) as A. pose proof (D (S t) ltac:(lia)) as B.
    pose proof (Rmult_le_pos _ _ A B). lra.
  - pose proof (sum_of_squares_le (N - 1) (fun t => 1 - cosine F t) D) as Q.
    rewrite sum_plus. replace (N - 1)%nat with (S (N - 2)) in * by lia.
    assert (sum (N - 2) (fun t => (1 - cosine F t) ^ 2) <= sum (S (N - 2)) (fun t => (1 - cosine F t) ^ 2)).
    { rewrite sum_S. pose proof (pow2_ge_0 (1 - cosine F (N - 2))). lra. }
    pose proof (sum_first (N - 2) (fun t => (1 - cosine F t) ^ 2)) as E.
    pose proof (pow2_ge_0 (1 - cosine F 0)). lra.
Qed.

(** Three frames: L <= S^2. *)
Theorem consistent_clip_three : forall F : nat -> V, no_zero_frame 3 F ->
  loss 3 F <= sum 2 (fun t => 1 - cosine F t) ^ 2.
Proof.
  intros F H. unfold loss. simpl.
  pose proof (similarity_bounds (F 0%nat) (F 1%nat) ltac:(apply H; lia) ltac:(apply H; lia)) as A.
  pose proof (similarity_bounds (F 1%nat) (F 2%nat) ltac:(apply H; lia) ltac:(apply H; lia)) as B.
  fold (cosine F 0) in A. fold (cosine F 1) in B.
  set (a := cosine F 0) in *. set (b := cosine F 1) in *.
  pose proof (Rmult_le_pos (1 - a) (1 - b) ltac:(lra) ltac:(lra)). lra.
Qed.

(** One bad pair inside a clip of N >= 4 frames attains it: e up to frame j, another unit vector after it. *)
Theorem consistent_clip_sharp : forall N e f j S, (4 <= N)%nat -> @orthonormal V e f -> (1 <= j)%nat -> (j + 3
  <= N)%nat ->
  0 <= S <= 2 ->
  exists F : nat -> V, no_zero_frame N F /\ sum (N - 1) (fun t => 1 - cosine F t) = S
                       /\ loss N F = 2 * S ^ 2 / INR (N - 2).
Proof.
  intros N e f j s H4 O Hj HjN Hs. destruct (unit_at_cosine e f (1 - s) O ltac:(lra)) as [U C].
  set (b := (1 - s) [*] e [+] sqrt (1 - (1 - s) ^ 2) [*] f) in *.
  set (F := fun t => if Nat.leb t j then e else b).
  assert (He : << e, e >> = 1) by apply O.
  assert (Cos : forall t, cosine F t = if Nat.eqb t j then 1 - s else 1).
  { intros t. unfold cosine, F. destruct (Nat.eqb_spec t j) as [-> | E].
    - rewrite Nat.leb_refl, (proj2 (Nat.leb_gt (S j) j)) by lia. now rewrite similarity_of_units.
    - destruct (Nat.leb_spec t j).
      + rewrite (proj2 (Nat.leb_le (S t) j)) by lia. now rewrite similarity_of_units.
      + rewrite (proj2 (Nat.leb_gt (S t) j)) by lia. now rewrite similarity_of_units. }
  exists F. split; [| split].
  - intros t _. unfold F. destruct (Nat.leb t j); [rewrite He | rewrite U]; lra.
  - rewrite (sum_single (N - 1) _ j) by (try lia; intros t _ Ht; rewrite Cos, (proj2 (Nat.eqb_neq t j) Ht); ring).
    rewrite Cos, Nat.eqb_refl. ring.
  - unfold loss. f_equal. rewrite (sum_ext _ _ (fun t => (if Nat.eqb t j then s ^ 2 else 0) + (if Nat.eqb (S t) j then
      s ^ 2 else 0))).
    + rewrite sum_plus, (sum_single _ _ j), (sum_single _ _ (j - 1)); try lia.
      * rewrite Nat.eqb_refl, (proj2 (Nat.eqb_eq (S (j - 1)) j)) by lia. ring.
      * intros t _ Ht. destruct (Nat.eqb_spec (S t) j); [lia | easy].
      * intros t _ Ht. destruct (Nat.eqb_spec t j); [lia | easy].
    + intros t _. rewrite !Cos. destruct (Nat.eqb_spec t j), (Nat.eqb_spec (S t) j); try lia; ring.
Qed.

End Flicker.
