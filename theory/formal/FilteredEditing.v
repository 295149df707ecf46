(** * C4.predictor, C4.latent, C4.inversion-alone: what the filter does to sampling and to the round trip

    In the maximum norm over the frames' values: [apart x y b] says that no value of x differs from that of y
      by more than b.
    The filter moves a value by at most K sigma (C4.defect), K = s/sqrt(1 + s); what follows is how that adds up. *)

From Coq Require Import Reals Lra Lia Psatz.
From framebound Require Import Inner RoundTrip Bilateral.
Open Scope R_scope.

Definition apart (x y : nat -> R) (b : R) : Prop := forall j, Rabs (x j - y j) <= b.

Lemma apart_triangle : forall x y z b c, apart x y b -> apart y z c -> apart x z (b + c).
Proof.
  intros x y z b c H K j. replace (x j - z j) with ((x j - y j) + (y j - z j)) by ring.
  eapply Rle_trans; [apply Rabs_triang |]. pose proof (H j). pose proof (K j). lra.
Qed.

(** A step y - h e. *)
Definition less (y : nat -> R) (h : R) (e : nat -> R) : nat -> R := fun j => y j - h * e j.

Lemma apart_less : forall x y h e f b c, 0 <= h -> apart x y b -> apart e f c
  -> apart (less x h e) (less y h f) (b + h * c).
Proof.
  intros x y h e f b c Hh H K j. unfold less.
  replace (x j - h * e j - (y j - h * f j)) with ((x j - y j) + - (h * (e j - f j))) by ring.
  eapply Rle_trans; [apply Rabs_triang |]. rewrite Rabs_Ropp, Rabs_mult, (Rabs_pos_eq h) by easy.
  pose proof (H j). pose proof (Rmult_le_compat_l _ _ _ Hh (K j)). lra.
Qed.

(** Bounds that grow by the factor g_k and by d_k at every step, read from level N down to 0. *)
Theorem accumulate : forall N (P : nat -> R -> Prop) (d g : nat -> R),
  P N 0 -> (forall k, (k < N)%nat -> 0 <= g k /\ 0 <= d k) ->
  (forall k b, (k < N)%nat -> 0 <= b -> P (S k) b -> P k (g k * b + d k)) ->
  0 <= round_trip_bound N d g /\ P O (round_trip_bound N d g).
Proof.
  induction N; intros P d g HN Hpos H; [unfold round_trip_bound; simpl; split; [lra | exact HN] |].
  destruct (IHN (fun k => P (S k)) (fun k => d (S k)) (fun k => g (S k))) as [B C].
  - exact HN.
  - intros k Hk. apply Hpos. lia.
  - intros k b Hk Hb Q. apply H; [lia | easy | exact Q].
  - assert (E : round_trip_bound (S N) d g = g O * round_trip_bound N (fun k => d (S k)) (fun k => g (S k)) + d O).
    { unfold round_trip_bound. rewrite sum_first. rewrite <- sum_scale. simpl (product 0 g).
      rewrite Rmult_1_r, Rplus_comm. f_equal.
      apply sum_ext. intros k _. rewrite product_first. ring. }
    rewrite E. destruct (Hpos O ltac:(lia)) as [G D]. split.
    + pose proof (Rmult_le_pos _ _ G B). lra.
    + apply H; [lia | exact B | exact C].
Qed.

Section Editing.
Variable N : nat.
Variable h : nat -> R.
Hypothesis increasing : forall k, (k < N)%nat -> 0 <= h k.

(** The filter, and the largest change of a value: K sigma. *)
Variables (window : nat) (g : nat -> R) (near : nat -> nat -> nat) (s : R).
Hypothesis spatial_weights : forall k, (k < window)%nat -> 0 < g k.
Hypothesis root : defect_root window g s.
Definition blur (sigma : R) (x : nat -> R) : nat -> R := filtered sigma window g near x.
Definition change (sigma : R) : R := s / sqrt (1 + s) * sigma.

Lemma blur_apart : forall sigma x, 0 < sigma -> apart (blur sigma x) x (change sigma).
Proof. intros sigma x Hs j. unfold blur, change. apply defect; assumption. Qed.

Lemma change_nonneg : forall sigma, 0 < sigma -> 0 <= change sigma.
Proof.
  intros sigma Hs. destruct root as [S _]. unfold change. apply Rmult_le_pos; [| lra].
  apply Rmult_le_pos; [lra |]. apply Rlt_le, Rinv_0_lt_compat, sqrt_lt_R0. lra.
Qed.

(** Predictor k reads features phi_k of a state and goes on with them: e_k(y) = post_k(y, phi_k(y)); with the filter
    inside,
    e^B_k(y) = post_k(y, B(phi_k(y))). Lambda_k: how far e_k separates the two states that occur;
      P_k: the rest's constant. *)
Variables (phi : nat -> (nat -> R) -> nat -> R) (post : nat -> (nat -> R) -> (nat -> R) -> nat -> R).
Variables (Lambda P : nat -> R) (sigma : R).
Hypothesis sigma_positive : 0 < sigma.
Hypothesis constants : forall k, (0 < k <= N)%nat -> 0 <= Lambda k /\ 0 <= P k.
Definition plain (k : nat) (y : nat -> R) : nat -> R := post k y (phi k y).
Definition inside (k : nat) (y : nat -> R) : nat -> R := post k y (blur sigma (phi k y)).
Hypothesis lipschitz : forall k x y b, (0 < k <= N)%nat -> apart x y b -> apart (plain k x) (plain k y) (Lambda k * b).
Hypothesis lipschitz_post : forall k y f f' b, (0 < k <= N)%nat -> apart f f' b
  -> apart (post k y f) (post k y f') (P k * b).

Let growth := fun k => 1 + h k * Lambda (S k).

Lemma growth_nonneg : forall k, (k < N)%nat -> 0 <= growth k.
Proof.
  intros k Hk. unfold growth. pose proof (Rmult_le_pos _ _ (increasing k Hk) (proj1 (constants (S k) ltac:(lia)))). lra.
Qed.

Lemma inside_apart : forall k y, (0 < k <= N)%nat -> apart (plain k y) (inside k y) (P k * change sigma).
Proof.
  intros k y Hk. apply lipschitz_post; [easy |]. intros j. rewrite Rabs_minus_sym. now apply blur_apart.
Qed.

(** C4.predictor *)
Theorem filter_inside : forall w v : nat -> nat -> R,
  (forall k, (k < N)%nat -> w k = less (w (S k)) (h k) (plain (S k) (w (S k)))) ->
  (forall k, (k < N)%nat -> v k = less (v (S k)) (h k) (inside (S k) (v (S k)))) -> w N = v N ->
  apart (w O) (v O) (round_trip_bound N (fun k => h k * P (S k) * change sigma) growth).
Proof.
  intros w v Hw Hv HN.
  apply (accumulate N (fun k => apart (w k) (v k)) (fun k => h k * P (S k) * change sigma) growth).
  - intros j. rewrite HN, Rminus_diag_eq, Rabs_R0 by easy. lra.
  - intros k Hk. split; [now apply growth_nonneg |].
    apply Rmult_le_pos; [| now apply change_nonneg]. apply Rmult_le_pos; [now apply increasing | apply constants; lia].
  - intros k b Hk Hb H. rewrite (Hw k Hk), (Hv k Hk).
    replace (growth k * b + h k * P (S k) * change sigma) with (b + h k * (Lambda (S k) * b + P (S k) * change sigma))
      by (unfold growth; ring).
    apply apart_less; [now apply increasing | exact H |].
    apply apart_triangle with (plain (S k) (v (S k))); [apply lipschitz; [lia | exact H] | apply inside_apart; lia].
Qed.

(** C4.latent: the state is filtered after every step, with the range width sigma r_k in y = r_k x, r_k = sqrt(1 +
    sigma_k^2);
    by [scaling] this is the filter of width sigma on the latent x. *)
Theorem filter_on_latent : forall (r : nat -> R) (w v : nat -> nat -> R), (forall k, (k < N)%nat -> 0 < r k) ->
  (forall k, (k < N)%nat -> w k = less (w (S k)) (h k) (plain (S k) (w (S k)))) ->
  (forall k, (k < N)%nat -> v k = blur (sigma * r k) (less (v (S k)) (h k) (plain (S k) (v (S k))))) -> w N = v N ->
  apart (w O) (v O) (round_trip_bound N (fun k => change sigma * r k) growth).
Proof.
  intros r w v Hr Hw Hv HN.
  apply (accumulate N (fun k => apart (w k) (v k)) (fun k => change sigma * r k) growth).
  - intros j. rewrite HN, Rminus_diag_eq, Rabs_R0 by easy. lra.
  - intros k Hk. split; [now apply growth_nonneg |]. apply Rmult_le_pos;
      [now apply change_nonneg | apply Rlt_le, Hr, Hk].
  - intros k b Hk Hb H. rewrite (Hw k Hk), (Hv k Hk).
    apply apart_triangle with (less (v (S k)) (h k) (plain (S k) (v (S k)))).
    + replace (growth k * b) with (b + h k * (Lambda (S k) * b)) by (unfold growth; ring).
      apply apart_less; [now apply increasing | exact H | apply lipschitz; [lia | exact H]].
    + intros j. rewrite Rabs_minus_sym. replace (change sigma * r k) with (change (sigma * r k)) by (unfold change;
        ring).
      apply blur_apart. apply Rmult_lt_0_compat; [easy | now apply Hr].
Qed.

(** C4.inversion-alone: the inversion z runs with the filtered predictor, the sampling w without; D_k bounds the
    inversion's
    own defect d^B_k = h_k (e^B(z_(k+1)) - e^B(z_k)). *)
Theorem filter_in_inversion : forall (z w : nat -> nat -> R) (D : nat -> R),
  (forall k j, (k < N)%nat -> z (S k) j = z k j + h k * inside (S k) (z k) j) ->
  (forall k, (k < N)%nat -> w k = less (w (S k)) (h k) (plain (S k) (w (S k)))) -> w N = z N ->
  (forall k, (k < N)%nat -> 0 <= D k /\
     forall j, Rabs (h k * (inside (S k) (z (S k)) j - inside (S k) (z k) j)) <= D k) ->
  apart (w O) (z O) (round_trip_bound N (fun k => D k + h k * P (S k) * change sigma) growth).
Proof.
  intros z w D Hz Hw HN HD.
  apply (accumulate N (fun k => apart (w k) (z k)) (fun k => D k + h k * P (S k) * change sigma) growth).
  - intros j. rewrite HN, Rminus_diag_eq, Rabs_R0 by easy. lra.
  - intros k Hk. split; [now apply growth_nonneg |]. destruct (HD k Hk) as [D0 _].
    assert (0 <= h k * P (S k) * change sigma).
    { apply Rmult_le_pos; [| now apply change_nonneg]. apply Rmult_le_pos; [now apply increasing | apply constants;
        lia]. }
    lra.
  - intros k b Hk Hb H. rewrite (Hw k Hk).
    replace (growth k * b + (D k + h k * P (S k) * change sigma))
      with (b + h k * (Lambda (S k) * b + P (S k) * change sigma) + D k) by (unfold growth; ring).
    apply apart_triangle with (less (z (S k)) (h k) (inside (S k) (z (S k)))).
    + apply apart_less; [now apply increasing | exact H |].
      apply apart_triangle with (plain (S k) (z (S k))); [apply lipschitz; [lia | exact H] | apply inside_apart; lia].
    + intros j. unfold less. pose proof (Hz k j Hk) as E.
      replace (z (S k) j - h k * inside (S k) (z (S k)) j - z k j)
        with (- (h k * (inside (S k) (z (S k)) j - inside (S k) (z k) j))) by (rewrite E at 1; ring).
      rewrite Rabs_Ropp. apply HD, Hk.
Qed.

End Editing.
