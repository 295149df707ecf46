(** * C3.any-inversion, C3.round-trip, C3.adapter: the error recursion and what follows from it

    z is ANY sequence of states, whoever produced it, w the sampling from w_N = z_N with the predictor e,
    w_k = w_(k+1) - h_k e_(k+1)(w_(k+1)), and d_k says what z fails by: z_k = z_(k+1) - h_k e_(k+1)(z_(k+1)) + d_k.
    Then E_k = w_k - z_k obeys E_k = E_(k+1) - h_k [e_(k+1)(w_(k+1)) - e_(k+1)(z_(k+1))] - d_k, hence
    ||E_0|| <= sum_k ||d_k|| prod_(j<k) (1 + h_j L_(j+1)) and ||E_0|| <= max(||d_k||/h_k) (e^(L sum h) - 1)/L. *)

From Coq Require Import Reals Lra Lia Psatz.
From framebound Require Import Inner.
Open Scope R_scope.

(** g_0 g_1 .. g_(n-1), which is 1 for n = 0. *)
Fixpoint product (n : nat) (g : nat -> R) : R :=
  match n with
  | O => 1
  | S p => product p g * g p
  end.

(** sum_(k<N) d_k prod_(j<k) g_j *)
Definition round_trip_bound (N : nat) (d g : nat -> R) : R := sum N (fun k => d k * product k g).

Lemma product_nonneg : forall n g, (forall i, (i < n)%nat -> 0 <= g i) -> 0 <= product n g.
Proof.
  induction n; intros g H; simpl; [lra |]. apply Rmult_le_pos; [apply IHn; intros; apply H; lia | apply H; lia].
Qed.

Lemma product_first : forall n g, product (S n) g = g O * product n (fun i => g (S i)).
Proof.
  induction n; intros; [simpl; ring |]. change (product (S n) g * g (S n) = g O * product (S n) (fun i => g (S i))).
  rewrite IHn. simpl. ring.
Qed.

(** Discrete Groenwall: a_k <= g_k a_(k+1) + d_k, read down from a_N. *)
Theorem groenwall : forall N (a d g : nat -> R),
  (forall k, (k < N)%nat -> 0 <= g k) -> (forall k, (k < N)%nat -> a k <= g k * a (S k) + d k) ->
  a O <= product N g * a N + round_trip_bound N d g.
Proof.
  intros N a d g Hg H.
  assert (G : forall k, (k <= N)%nat -> a O <= product k g * a k + sum k (fun j => d j * product j g)).
  { induction k; intros Hk; [simpl; lra |].
    assert (P : 0 <= product k g) by (apply product_nonneg; intros; apply Hg; lia).
    pose proof (Rmult_le_compat_l _ _ _ P (H k ltac:(lia))) as S. simpl. pose proof (IHk ltac:(lia)). lra. }
  now apply G.
Qed.

(** From a_N = 0 the factor of the last step meets 0, so nothing is asked of it. *)
Theorem groenwall_from_zero : forall N (a d g : nat -> R),
  a N <= 0 -> (forall k, (k + 1 < N)%nat -> 0 <= g k) -> (forall k, (k + 1 < N)%nat -> a k <= g k * a (S k) + d k) ->
  (forall k, (k + 1 = N)%nat -> a k <= d k) -> a O <= round_trip_bound N d g.
Proof.
  intros [| n] a d g HN Hg H Hlast; [exact HN |].
  pose proof (groenwall n a d g ltac:(intros; apply Hg; lia) ltac:(intros; apply H; lia)) as G.
  unfold round_trip_bound in *. rewrite sum_S.
  assert (P : 0 <= product n g) by (apply product_nonneg; intros; apply Hg; lia).
  pose proof (Rmult_le_compat_l _ _ _ P (Hlast n ltac:(lia))). lra.
Qed.

Section AnyInversion.
Context {V : space}.
Variable N : nat.
Variable h : nat -> R.
Variable e : nat -> V -> V.
Variables z w d : nat -> V.

(** One step of sampling. *)
Definition sampling_step (k : nat) (y : V) : V := y [-] h k [*] e (S k) y.

Hypothesis sampling : forall k, (k < N)%nat -> w k = sampling_step k (w (S k)).
Hypothesis inversion : forall k, (k < N)%nat -> z k = sampling_step k (z (S k)) [+] d k.

Definition error (k : nat) : V := w k [-] z k.

(** C3.any-inversion, the exact recursion. *)
Theorem error_recursion : forall k, (k < N)%nat ->
  error k = error (S k) [-] h k [*] (e (S k) (w (S k)) [-] e (S k) (z (S k))) [-] d k.
Proof.
  intros k Hk. unfold error at 1. rewrite (sampling k Hk), (inversion k Hk). unfold error, sampling_step. vectors.
Qed.

(** The same in terms of sampling steps. *)
Lemma error_steps : forall k, (k < N)%nat ->
  error k = (sampling_step k (w (S k)) [-] sampling_step k (z (S k))) [-] d k.
Proof. intros k Hk. unfold error. rewrite (sampling k Hk), (inversion k Hk). vectors. Qed.

(** C3.any-inversion: L_k a Lipschitz constant of e_k between z_k and w_k for k = 1, .., N, and ||w_N - z_N|| <= r. *)
Theorem any_inversion_gap : forall (L : nat -> R) r,
  (forall k, (k < N)%nat -> 0 <= h k) -> len (error N) <= r ->
  (forall k, (0 < k <= N)%nat -> 0 <= L k /\ len (e k (w k) [-] e k (z k)) <= L k * len (w k [-] z k)) ->
  len (error O) <= r * product N (fun k => 1 + h k * L (S k))
                   + round_trip_bound N (fun k => len (d k)) (fun k => 1 + h k * L (S k)).
Proof.
  intros L r Hh Hr HL.
  assert (P : forall k, (k < N)%nat -> 0 <= 1 + h k * L (S k)).
  { intros k Hk. pose proof (Hh k Hk) as A. destruct (HL (S k) ltac:(lia)) as [B _].
    pose proof (Rmult_le_pos _ _ A B). lra. }
  pose proof (groenwall N (fun k => len (error k)) (fun k => len (d k)) (fun k => 1 + h k * L (S k)) P) as G.
  assert (Step : forall k, (k < N)%nat -> len (error k) <= (1 + h k * L (S k)) * len (error (S k)) + len (d k)).
  { intros k Hk. rewrite error_recursion by easy. eapply Rle_trans; [apply len_minus |].
    apply Rplus_le_compat_r. eapply Rle_trans; [apply len_minus |].
    pose proof (Hh k Hk) as A. destruct (HL (S k) ltac:(lia)) as [_ B].
    rewrite len_scale, Rabs_pos_eq by easy. pose proof (Rmult_le_compat_l _ _ _ A B). unfold error. lra. }
  specialize (G Step). pose proof (Rmult_le_compat_l _ _ _ (product_nonneg N _ P) Hr). lra.
Qed.

Hypothesis same_end : w N = z N.

Lemma error_end : error N = origin.
Proof. unfold error. rewrite same_end. vectors. Qed.

(** From w_N = z_N, whatever factors g_k bound how far a step of sampling separates w_(k+1) from z_(k+1),
    ||E_0|| <= sum_k ||d_k|| prod_(j<k) g_j. *)
Theorem any_inversion : forall g : nat -> R,
  (forall k, (k + 1 < N)%nat -> 0 <= g k) ->
  (forall k, (k + 1 < N)%nat ->
     len (sampling_step k (w (S k)) [-] sampling_step k (z (S k))) <= g k * len (error (S k))) ->
  len (error O) <= round_trip_bound N (fun k => len (d k)) g.
Proof.
  intros g Hg H. apply (groenwall_from_zero N (fun k => len (error k)) (fun k => len (d k)) g).
  - rewrite error_end, len_origin. lra.
  - exact Hg.
  - intros k Hk. rewrite error_steps by lia. eapply Rle_trans; [apply len_minus |]. pose proof (H k Hk). lra.
  - intros k Hk. rewrite error_steps by lia. replace (S k) with N by lia. rewrite same_end.
    match goal with |- len ?x <= _ => replace x with ((-1) [*] d k) by vectors end.
    rewrite len_scale, Rabs_left by lra. lra.
Qed.

(** C3.round-trip, bound A: L_k a Lipschitz constant of e_k between z_k and w_k, k = 1, .., N-1. *)
Theorem round_trip : forall L : nat -> R,
  (forall k, (k < N)%nat -> 0 <= h k) ->
  (forall k, (0 < k < N)%nat -> 0 <= L k /\ len (e k (w k) [-] e k (z k)) <= L k * len (w k [-] z k)) ->
  len (error O) <= round_trip_bound N (fun k => len (d k)) (fun k => 1 + h k * L (S k)).
Proof.
  intros L Hh HL. apply any_inversion.
  - intros k Hk. pose proof (Hh k ltac:(lia)) as A. destruct (HL (S k) ltac:(lia)) as [B _].
    pose proof (Rmult_le_pos _ _ A B). lra.
  - intros k Hk. unfold sampling_step, error.
    match goal with |- len ?x <= _ => replace x with
      ((w (S k) [-] z (S k)) [-] h k [*] (e (S k) (w (S k)) [-] e (S k) (z (S k)))) by vectors end.
    eapply Rle_trans; [apply len_minus |]. pose proof (Hh k ltac:(lia)) as A. destruct (HL (S k) ltac:(lia)) as [_ B].
    rewrite len_scale, Rabs_pos_eq by easy. pose proof (Rmult_le_compat_l _ _ _ A B). lra.
Qed.

(** sum_k h_k prod_(j<k) (1 + h_j L) = (prod_(j<n) (1 + h_j L) - 1) / L telescopes. *)
Lemma growth_telescope : forall n L (s : nat -> R), L <> 0 ->
  sum n (fun k => s k * product k (fun j => 1 + s j * L)) = (product n (fun j => 1 + s j * L) - 1) / L.
Proof. induction n; intros L s HL; simpl; [field; easy |]. rewrite IHn by easy. field. easy. Qed.

Lemma product_exp : forall n L (s : nat -> R), (forall k, (k < n)%nat -> 0 <= s k) -> 0 <= L ->
  product n (fun j => 1 + s j * L) <= exp (L * sum n s).
Proof.
  induction n; intros L s Hs HL; simpl; [rewrite Rmult_0_r, exp_0; lra |].
  rewrite (Rmult_plus_distr_l L), exp_plus.
  pose proof (Rmult_le_pos _ _ (Hs n ltac:(lia)) HL) as P. apply Rmult_le_compat; [| lra | |].
  - apply product_nonneg. intros i Hi. pose proof (Rmult_le_pos _ _ (Hs i ltac:(lia)) HL). lra.
  - apply IHn; [intros; apply Hs; lia | easy].
  - rewrite (Rmult_comm L). destruct (Req_dec (s n * L) 0) as [-> | Z]; [rewrite exp_0; lra |].
    apply Rlt_le, exp_ineq1. lra.
Qed.

(** C3.round-trip, the second inequality: one constant L > 0 for all steps, defects at most rate times the step. *)
Theorem round_trip_uniform : forall L rate,
  (forall k, (k < N)%nat -> 0 <= h k) -> 0 < L -> 0 <= rate ->
  (forall k, (0 < k < N)%nat -> len (e k (w k) [-] e k (z k)) <= L * len (w k [-] z k)) ->
  (forall k, (k < N)%nat -> len (d k) <= rate * h k) ->
  len (error O) <= rate * (exp (L * sum N h) - 1) / L.
Proof.
  intros L rate Hh HL Hr HLip Hd.
  eapply Rle_trans; [apply (round_trip (fun _ => L)); [easy |] |].
  - intros k Hk. split; [lra | now apply HLip].
  - unfold round_trip_bound. apply Rle_trans with (sum N (fun k => rate * (h k * product k (fun j => 1 + h j * L)))).
    + apply sum_le. intros k Hk. rewrite <- Rmult_assoc. apply Rmult_le_compat_r; [| now apply Hd].
      apply product_nonneg. intros i Hi. pose proof (Rmult_le_pos _ _ (Hh i ltac:(lia)) (Rlt_le _ _ HL)). lra.
    + rewrite sum_scale, growth_telescope by lra. unfold Rdiv. rewrite !Rmult_assoc.
      apply Rmult_le_compat_l; [easy |]. apply Rmult_le_compat_r; [apply Rlt_le, Rinv_0_lt_compat; easy |].
      pose proof (product_exp N L h Hh (Rlt_le _ _ HL)). lra.
Qed.

End AnyInversion.

(** C3.adapter: an inversion without the adapter's contribution a_k, sampling with it. The defects with respect to the
    sampler are those of the inversion's own predictor plus h_k a_(k+1) at the inversion's states. *)
Theorem adapter_defects : forall (V : space) (h : nat -> R) (e a : nat -> V -> V) (z d : nat -> V) k,
  z k = sampling_step h e k (z (S k)) [+] d k ->
  z k = sampling_step h (fun j y => e j y [+] a j y) k (z (S k)) [+] (d k [+] h k [*] a (S k) (z (S k))).
Proof. intros V h e a z d k H. rewrite H at 1. unfold sampling_step. vectors. Qed.

(** Groenwall's inequality is an equality for e_k(y) = - L_k y + b_k with defects along one direction: the bound is
    attained, for any steps. *)
Theorem round_trip_attained : forall (V : space) N (h L : nat -> R) (b : nat -> V) (z w d : nat -> V) (u : V) (q : nat
  -> R),
  let e := fun k y => (- L k) [*] y [+] b k in
  (forall k, (k < N)%nat -> w k = sampling_step h e k (w (S k))) ->
  (forall k, (k < N)%nat -> z k = sampling_step h e k (z (S k)) [+] d k) ->
  w N = z N -> len u = 1 ->
  (forall k, (k < N)%nat -> 0 <= q k /\ d k = q k [*] u) ->
  (forall k, (k < N)%nat -> 0 <= h k * L (S k)) ->
  len (w O [-] z O) = round_trip_bound N (fun k => len (d k)) (fun k => 1 + h k * L (S k)).
Proof.
  intros V N h L b z w d u q e Hw Hz HN Hu Hq HL.
  set (g := fun k => 1 + h k * L (S k)).
  assert (G : forall k, (k <= N)%nat ->
    w O [-] z O = product k g [*] (w k [-] z k) [-] sum k (fun j => q j * product j g) [*] u).
  { induction k; intros Hk; [simpl; vectors |]. rewrite IHk by lia.
    rewrite (error_steps N h e z w d Hw Hz k ltac:(lia) : w k [-] z k = _). rewrite (proj2 (Hq k ltac:(lia))).
    unfold sampling_step, e. simpl. fold (g k). unfold g. vectors. }
  rewrite (G N ltac:(lia)), HN.
  match goal with |- len ?x = _ => replace x with ((- sum N (fun j => q j * product j g)) [*] u) by vectors end.
  assert (P : 0 <= sum N (fun j => q j * product j g)).
  { apply sum_nonneg. intros k Hk. apply Rmult_le_pos; [apply Hq; lia |]. apply product_nonneg. intros i Hi.
    pose proof (HL i ltac:(lia)). unfold g. lra. }
  rewrite len_scale, Rabs_Ropp, Rabs_pos_eq, Hu, Rmult_1_r by easy. unfold round_trip_bound. apply sum_ext.
  intros k Hk. destruct (Hq k Hk) as [A ->]. rewrite len_scale, Rabs_pos_eq, Hu by easy. fold g. ring.
Qed.
