(** * C5.hull, C5.bounded-keys, C5.chebyshev, C5.shared, C5.frame-token: what one query can reach

    n tokens with values v_j; a query with logits of range at most G gives them the weights p = softmax(logits),
      which are
    exactly the p > 0 with sum 1 and p_j <= e^G p_l. With phi = (n-1) e^-G / (1 + (n-1) e^-G):
    a target v_i is missed by at least phi dist(v_i, conv of the others),
      and every target t of the hull of the values is
    reached up to phi max_j |v_j - t|. *)

From Coq Require Import Reals Lra Lia Psatz.
From framebound Require Import Inner.
Open Scope R_scope.

(** ** Weights *)

Definition softmax (n : nat) (logits : nat -> R) (j : nat) : R := exp (logits j) / sum n (fun l => exp (logits l)).

(** Weights that a query with logits of range at most G can give. *)
Definition reachable (n : nat) (G : R) (p : nat -> R) : Prop :=
  (forall j, (j < n)%nat -> 0 < p j) /\ sum n p = 1 /\ (forall j l, (j < n)%nat -> (l < n)%nat -> p j <= exp G * p l).

Lemma exponentials_pos : forall n (logits : nat -> R), (1 <= n)%nat -> 0 < sum n (fun l => exp (logits l)).
Proof.
  intros [| n] logits H; [lia |]. rewrite sum_S. pose proof (sum_nonneg n (fun l => exp (logits l)) (fun i _ => Rlt_le
    _ _ (exp_pos _))).
  pose proof (exp_pos (logits n)). lra.
Qed.

Theorem softmax_reachable : forall n G logits, (1 <= n)%nat ->
  (forall j l, (j < n)%nat -> (l < n)%nat -> logits j - logits l <= G) -> reachable n G (softmax n logits).
Proof.
  intros n G logits Hn H. pose proof (exponentials_pos n logits Hn) as P. split; [| split].
  - intros j _. apply Rmult_lt_0_compat; [apply exp_pos | now apply Rinv_0_lt_compat].
  - unfold softmax. rewrite (sum_ext n _ (fun j => / sum n (fun l => exp (logits l)) * exp (logits j)))
      by (intros; unfold Rdiv; ring). rewrite sum_scale. field. lra.
  - intros j l Hj Hl. unfold softmax, Rdiv. rewrite <- Rmult_assoc.
    apply Rmult_le_compat_r; [apply Rlt_le, Rinv_0_lt_compat, P |].
    rewrite <- exp_plus. destruct (Req_dec (logits j) (G + logits l)) as [-> | E]; [lra |].
    apply Rlt_le, exp_increasing. pose proof (H j l Hj Hl). lra.
Qed.

Theorem reachable_softmax : forall n G p, reachable n G p ->
  exists logits, (forall j, (j < n)%nat -> softmax n logits j = p j)
                 /\ (forall j l, (j < n)%nat -> (l < n)%nat -> logits j - logits l <= G).
Proof.
  intros n G p (P & S & B). exists (fun j => ln (p j)). split.
  - intros j Hj. unfold softmax. rewrite (sum_ext n _ p), S, exp_ln; [field | now apply P |]. intros i Hi.
    apply exp_ln. now apply P.
  - intros j l Hj Hl. pose proof (P j Hj) as Pj. pose proof (P l Hl) as Pl. pose proof (B j l Hj Hl) as H.
    assert (L : ln (p j) <= ln (exp G * p l)).
    { destruct (Req_dec (p j) (exp G * p l)) as [-> | E]; [lra |]. apply Rlt_le, ln_increasing; lra. }
    rewrite ln_mult, ln_exp in L by (easy || apply exp_pos). lra.
Qed.

(** phi = (n-1) e^-G / (1 + (n-1) e^-G) *)
Definition missed_share (n : nat) (G : R) : R := INR (n - 1) * exp (- G) / (1 + INR (n - 1) * exp (- G)).

Lemma share_denominator : forall n G, 0 < 1 + INR (n - 1) * exp (- G).
Proof. intros. pose proof (Rmult_le_pos _ _ (pos_INR (n - 1)) (Rlt_le _ _ (exp_pos (- G)))). lra. Qed.

(** A sum without its term i. *)
Definition others (n : nat) (i : nat) (f : nat -> R) : R := sum n (fun j => if Nat.eqb j i then 0 else f j).

Lemma sum_others : forall n i f, (i < n)%nat -> sum n f = f i + others n i f.
Proof.
  intros n i f Hi. unfold others. rewrite (sum_ext n f (fun j => (if Nat.eqb j i then f i else 0) + (if Nat.eqb j i
    then 0 else f j))).
  - rewrite sum_plus, (sum_single n _ i) by (try easy; intros j _ E; now rewrite (proj2 (Nat.eqb_neq j i) E)).
    now rewrite Nat.eqb_refl.
  - intros j _. destruct (Nat.eqb_spec j i) as [-> | _]; ring.
Qed.

Lemma others_const : forall n i a, (i < n)%nat -> others n i (fun _ => a) = INR (n - 1) * a.
Proof.
  intros n i a Hi. pose proof (sum_others n i (fun _ => a) Hi) as S. rewrite sum_const in S.
  rewrite minus_INR by lia. simpl. lra.
Qed.

Lemma others_le : forall n i f g, (forall j, (j < n)%nat -> j <> i -> f j <= g j) -> others n i f <= others n i g.
Proof. intros. apply sum_le. intros j Hj. destruct (Nat.eqb_spec j i); [lra | now apply H]. Qed.

(** No token can have more than the share 1 - phi. *)
Lemma share_left : forall n G p i, (i < n)%nat -> reachable n G p -> missed_share n G <= 1 - p i.
Proof.
  intros n G p i Hi (P & S & B). pose proof (share_denominator n G) as D.
  rewrite (sum_others n i p Hi) in S.
  assert (O : INR (n - 1) * (exp (- G) * p i) <= others n i p).
  { rewrite <- (others_const n i) by easy. apply others_le. intros j Hj _.
    pose proof (B i j Hi Hj) as H. apply (Rmult_le_compat_l (exp (- G))) in H; [| apply Rlt_le, exp_pos].
    rewrite <- Rmult_assoc, <- exp_plus, Rplus_opp_l, exp_0 in H. lra. }
  unfold missed_share. apply (Rmult_le_reg_r (1 + INR (n - 1) * exp (- G))); [exact D |].
  unfold Rdiv. rewrite Rmult_assoc, Rinv_l by lra. lra.
Qed.

(** ** Outputs *)

Section Outputs.
Context {V : space}.

(** sum_(j<n) f_j *)
Fixpoint vector_sum (n : nat) (f : nat -> V) : V := match n with O => origin | S p => vector_sum p f [+] f p end.

(** sum_j p_j v_j *)
Definition output (n : nat) (p : nat -> R) (v : nat -> V) : V := vector_sum n (fun j => p j [*] v j).

Lemma inner_vector_sum : forall n f x, << vector_sum n f, x >> = sum n (fun j => << f j, x >>).
Proof. induction n; intros; simpl; [apply inner_origin | now rewrite inner_add, IHn]. Qed.

Lemma len_vector_sum : forall n f, len (vector_sum n f) <= sum n (fun j => len (f j)).
Proof.
  induction n; intros; simpl; [rewrite len_origin; lra |]. eapply Rle_trans; [apply len_triangle |].
  pose proof (IHn f). lra.
Qed.

Lemma vector_sum_ext : forall n f g, (forall j, (j < n)%nat -> f j = g j) -> vector_sum n f = vector_sum n g.
Proof. induction n; intros f g H; simpl; [easy |]. rewrite (H n) by lia. f_equal. apply IHn. intros. apply H. lia. Qed.

(** An output less a point, for weights of any sum. *)
Lemma output_minus : forall n p v t, output n p v [-] sum n p [*] t = vector_sum n (fun j => p j [*] (v j [-] t)).
Proof.
  induction n; intros; unfold output; simpl; [vectors |]. rewrite <- IHn. unfold output. vectors.
Qed.

Lemma vector_sum_scale : forall n a f, vector_sum n (fun j => a [*] f j) = a [*] vector_sum n f.
Proof. induction n; intros; simpl; [symmetry; apply scale_origin | rewrite IHn; vectors]. Qed.

(** c is a convex combination of the values other than v_i. *)
Definition in_hull_of_others (n i : nat) (v : nat -> V) (c : V) : Prop :=
  exists l, (forall j, (j < n)%nat -> 0 <= l j) /\ l i = 0 /\ sum n l = 1 /\ c = output n l v.

(** C5.hull and C5.bounded-keys, the lower bound: D is at most the distance of v_i from the hull of the others. *)
Theorem vertex_lower : forall n G p v i D, (2 <= n)%nat -> (i < n)%nat -> reachable n G p -> 0 <= D ->
  (forall c, in_hull_of_others n i v c -> D <= len (c [-] v i)) ->
  missed_share n G * D <= len (output n p v [-] v i).
Proof.
  intros n G p v i D Hn Hi R HD H. pose proof (share_left n G p i Hi R) as S. pose proof R as (P & One & B).
  assert (Q : 0 < 1 - p i).
  { rewrite (sum_others n i p Hi) in One.
    set (k := if Nat.eqb i 0 then 1%nat else 0%nat).
    assert (Hk : (k < n)%nat /\ k <> i) by (unfold k; destruct (Nat.eqb_spec i 0); lia).
    pose proof (sum_term n (fun j => if Nat.eqb j i then 0 else p j) k
      ltac:(intros j Hj; cbv beta; destruct (Nat.eqb j i); [lra | apply Rlt_le, P, Hj]) (proj1 Hk)) as T. cbv beta in T.
    rewrite (proj2 (Nat.eqb_neq k i) (proj2 Hk)) in T. pose proof (P k (proj1 Hk)). unfold others in One. lra. }
  set (l := fun j => if Nat.eqb j i then 0 else / (1 - p i) * p j).
  assert (Hc : in_hull_of_others n i v (output n l v)).
  { exists l. split; [| split; [| split; [| easy]]].
    - intros j Hj. unfold l. destruct (Nat.eqb j i); [lra |].
      apply Rmult_le_pos; [apply Rlt_le, Rinv_0_lt_compat, Q | apply Rlt_le, P, Hj].
    - unfold l. now rewrite Nat.eqb_refl.
    - unfold l. rewrite (sum_ext n _ (fun j => / (1 - p i) * (if Nat.eqb j i then 0 else p j)))
        by (intros; destruct (Nat.eqb _ _); ring).
      rewrite sum_scale. fold (others n i p). rewrite (sum_others n i p Hi) in One.
      replace (others n i p) with (1 - p i) by lra. field. lra. }
  assert (Hl : sum n l = 1) by (destruct Hc as (l' & _); unfold l;
    rewrite (sum_ext n _ (fun j => / (1 - p i) * (if Nat.eqb j i then 0 else p j)))
        by (intros; destruct (Nat.eqb _ _); ring); rewrite sum_scale; fold (others n i p);
      rewrite (sum_others n i p Hi) in One; replace (others n i p) with (1 - p i) by lra; field; lra).
  assert (E : output n p v [-] v i = (1 - p i) [*] (output n l v [-] v i)).
  { pose proof (output_minus n p v (v i)) as A. rewrite One, scale_one in A.
    replace (output n p v [-] v i) with (output n p v [+] (-1) [*] v i) by easy. rewrite A.
    pose proof (output_minus n l v (v i)) as A'. rewrite Hl, scale_one in A'. rewrite A', <- vector_sum_scale.
    apply vector_sum_ext. intros j Hj. unfold l. destruct (Nat.eqb_spec j i) as [-> | E]; vectors; field; lra. }
  rewrite E, len_scale, Rabs_pos_eq by lra. pose proof (H _ Hc) as Hd.
  apply Rle_trans with ((1 - p i) * D); [now apply Rmult_le_compat_r | apply Rmult_le_compat_l; lra].
Qed.

(** An index of a largest term. *)
Lemma largest_term : forall n (p : nat -> R), (1 <= n)%nat -> exists m, (m < n)%nat /\ forall j, (j < n)%nat -> p j
  <= p m.
Proof.
  induction n; intros p H; [lia |]. destruct (Nat.eq_dec n 0) as [-> | E].
  - exists 0%nat. split; [lia |]. intros j Hj. replace j with 0%nat by lia. lra.
  - destruct (IHn p ltac:(lia)) as [m [Hm L]]. destruct (Rle_lt_dec (p n) (p m)) as [C | C].
    + exists m. split; [lia |]. intros j Hj. destruct (Nat.eq_dec j n) as [-> |]; [easy | apply L; lia].
    + exists n. split; [lia |]. intros j Hj. destruct (Nat.eq_dec j n) as [-> |]; [lra |].
      pose proof (L j ltac:(lia)). lra.
Qed.

(** C5.hull, the upper bound: every target of the hull. *)
Theorem hull_upper : forall n G v l t R, (1 <= n)%nat -> 0 <= G ->
  (forall j, (j < n)%nat -> 0 <= l j) -> sum n l = 1 -> t = output n l v ->
  (forall j, (j < n)%nat -> len (v j [-] t) <= R) ->
  exists p, reachable n G p /\ len (output n p v [-] t) <= missed_share n G * R.
Proof.
  intros n G v l t R Hn HG Hl One Ht HR.
  destruct (largest_term n l Hn) as [m [Hm L]].
  assert (Lm : 0 < l m).
  { destruct (Rle_lt_dec (l m) 0) as [C | C]; [| easy]. exfalso.
    assert (sum n l <= sum n (fun _ => 0)) by (apply sum_le; intros j Hj; pose proof (L j Hj); lra).
    rewrite sum_const in H. lra. }
  assert (Lm1 : l m <= 1) by (rewrite <- One; now apply sum_term).
  assert (eG : 0 < exp (- G) <= 1).
  { split; [apply exp_pos |]. rewrite <- exp_0. destruct (Req_dec G 0) as [-> | Z]; [rewrite Ropp_0; lra |].
    apply Rlt_le, exp_increasing. lra. }
  set (x := fun j => Rmax (l j) (exp (- G) * l m)).
  assert (eGm : 0 < exp (- G) * l m) by (apply Rmult_lt_0_compat; lra).
  assert (Xpos : forall j, 0 < x j) by (intros j; pose proof (Rmax_r (l j) (exp (- G) * l m)); unfold x; lra).
  assert (Xm : x m = l m).
  { unfold x. apply Rmax_left. pose proof (Rmult_le_compat_r (l m) _ _ (Rlt_le _ _ Lm) (proj2 eG)). lra. }
  assert (Xl : forall j, (j < n)%nat -> 0 <= x j - l j) by (intros j _; pose proof (Rmax_l (l j) (exp (- G) * l m));
    unfold x; lra).
  set (X := sum n x).
  assert (X1 : 1 <= X) by (unfold X; rewrite <- One; apply sum_le; intros j Hj; pose proof (Xl j Hj); lra).
  assert (XX : X - 1 <= INR (n - 1) * exp (- G)).
  { unfold X. rewrite <- One, <- sum_minus, (sum_others n m) by easy. rewrite Xm, Rminus_diag_eq, Rplus_0_l by easy.
    rewrite <- (others_const n m) by easy. apply others_le. intros j Hj _. unfold x.
    pose proof (Hl j Hj). pose proof (Rmult_le_compat_l (exp (- G)) _ _ (Rlt_le _ _ (proj1 eG)) Lm1).
    unfold Rmax. destruct (Rle_dec (l j) (exp (- G) * l m)); lra. }
  exists (fun j => / X * x j). split; [split; [| split] |].
  - intros j _. apply Rmult_lt_0_compat; [apply Rinv_0_lt_compat; lra | apply Xpos].
  - rewrite sum_scale. fold X. field. lra.
  - intros j k Hj Hk. replace (exp G * (/ X * x k)) with (/ X * (exp G * x k)) by ring.
    apply Rmult_le_compat_l; [apply Rlt_le, Rinv_0_lt_compat; lra |].
    apply Rle_trans with (l m).
    + unfold x. apply Rmax_lub; [now apply L |].
      pose proof (Rmult_le_compat_r (l m) _ _ (Rlt_le _ _ Lm) (proj2 eG)). lra.
    + pose proof (Rmax_r (l k) (exp (- G) * l m)) as M. fold (x k) in M.
      apply (Rmult_le_compat_l (exp G)) in M; [| apply Rlt_le, exp_pos].
      rewrite <- Rmult_assoc, <- exp_plus, Rplus_opp_r, exp_0, Rmult_1_l in M. exact M.
  - assert (Null : vector_sum n (fun j => l j [*] (v j [-] t)) = origin).
    { rewrite <- output_minus, One, <- Ht. vectors. }
    assert (E : output n (fun j => / X * x j) v [-] t = / X [*] vector_sum n (fun j => (x j - l j) [*] (v j [-] t))).
    { pose proof (output_minus n (fun j => / X * x j) v t) as A. rewrite sum_scale in A. fold X in A.
      rewrite Rinv_l, scale_one in A by lra. rewrite A.
      assert (Split : vector_sum n (fun j => (x j - l j) [*] (v j [-] t))
                      = vector_sum n (fun j => x j [*] (v j [-] t)) [-] vector_sum n (fun j => l j [*] (v j [-] t))).
      { generalize (fun j => v j [-] t) as f. clear. intros f. induction n; simpl; [vectors |]. rewrite IHn. vectors. }
      rewrite Split, Null.
      replace (vector_sum n (fun j => x j [*] (v j [-] t)) [-] origin)
        with (vector_sum n (fun j => x j [*] (v j [-] t))) by vectors.
      rewrite <- vector_sum_scale. apply vector_sum_ext. intros. vectors. }
    rewrite E, len_scale, Rabs_pos_eq by (apply Rlt_le, Rinv_0_lt_compat; lra).
    assert (R0 : 0 <= R) by (pose proof (HR m Hm); pose proof (len_pos (v m [-] t)); lra).
    assert (S : len (vector_sum n (fun j => (x j - l j) [*] (v j [-] t))) <= (X - 1) * R).
    { eapply Rle_trans; [apply len_vector_sum |]. unfold X. rewrite <- One, <- sum_minus, Rmult_comm, <- sum_scale.
      apply sum_le. intros j Hj. rewrite len_scale, Rabs_pos_eq by now apply Xl. rewrite Rmult_comm.
      apply Rmult_le_compat_r; [now apply Xl | now apply HR]. }
    apply Rle_trans with (/ X * ((X - 1) * R)).
    { apply Rmult_le_compat_l; [apply Rlt_le, Rinv_0_lt_compat; lra | exact S]. }
    rewrite <- Rmult_assoc. apply Rmult_le_compat_r; [exact R0 |]. pose proof (share_denominator n G) as D.
    unfold missed_share. apply (Rmult_le_reg_l X); [lra |]. rewrite <- Rmult_assoc, Rinv_r, Rmult_1_l by lra.
    apply (Rmult_le_reg_r (1 + INR (n - 1) * exp (- G))); [exact D |].
    unfold Rdiv. rewrite !Rmult_assoc, Rinv_l by lra. lra.
Qed.

(** C5.bounded-keys: with a bounded range more tokens make it worse. If the other values coincide at a distance R, every
    tolerance tau < 1 is missed as soon as (n-1) e^-G > tau/(1-tau). *)
Theorem bounded_keys : forall n G p v i w tau, (2 <= n)%nat -> (i < n)%nat -> reachable n G p ->
  (forall j, (j < n)%nat -> j <> i -> v j = w) -> 0 < len (w [-] v i) -> 0 <= tau < 1 ->
  tau / (1 - tau) < INR (n - 1) * exp (- G) -> tau * len (w [-] v i) < len (output n p v [-] v i).
Proof.
  intros n G p v i w tau Hn Hi R Hw HR Ht H.
  assert (L : missed_share n G * len (w [-] v i) <= len (output n p v [-] v i)).
  { apply vertex_lower; try easy; [lra |]. intros c (l & Hl & Hli & One & ->).
    assert (E : output n l v [-] w = origin).
    { pose proof (output_minus n l v w) as A. rewrite One, scale_one in A. rewrite A.
      rewrite (vector_sum_ext n _ (fun j => 0 [*] w)).
      - rewrite vector_sum_scale. apply scale_zero.
      - intros j Hj. destruct (Nat.eq_dec j i) as [-> | E]; [rewrite Hli, !scale_zero; easy |]. rewrite Hw by easy.
        vectors. }
    replace (output n l v [-] v i) with ((output n l v [-] w) [+] (w [-] v i)) by vectors. rewrite E, origin_add. lra. }
  assert (P : tau < missed_share n G).
  { unfold missed_share. pose proof (share_denominator n G) as D. set (y := INR (n - 1) * exp (- G)) in *.
    apply (Rmult_lt_reg_r (1 + y)); [exact D |]. unfold Rdiv. rewrite Rmult_assoc, Rinv_l by lra.
    apply (Rmult_lt_compat_r (1 - tau)) in H; [| lra]. unfold Rdiv in H. rewrite Rmult_assoc, Rinv_l in H by lra. lra. }
  pose proof (Rmult_lt_compat_r _ _ _ HR P). lra.
Qed.

(** C5.shared: equal queries and shared tokens give every frame one output, so of two targets one is missed by half
    their
    distance. *)
Theorem shared_output : forall o t1 t2 : V, len (t1 [-] t2) / 2 <= Rmax (len (o [-] t1)) (len (o [-] t2)).
Proof.
  intros o t1 t2. assert (T : len (t1 [-] t2) <= len (o [-] t2) + len (o [-] t1)).
  { replace (t1 [-] t2) with ((o [-] t2) [-] (o [-] t1)) by vectors. apply len_minus. }
  pose proof (Rmax_l (len (o [-] t1)) (len (o [-] t2))). pose proof (Rmax_r (len (o [-] t1)) (len (o [-] t2))). lra.
Qed.

(** C5.chebyshev: if no frame is missed by more than r, then r^2 >= sum_f l_f |t_f|^2 - |sum_f l_f t_f|^2 for all
    weights l of
    the simplex. *)
Theorem chebyshev : forall N (o : V) t l r, (forall f, (f < N)%nat -> 0 <= l f) -> sum N l = 1 -> 0 <= r ->
  (forall f, (f < N)%nat -> len (o [-] t f) <= r) ->
  sum N (fun f => l f * << t f, t f >>) - << output N l t, output N l t >> <= r ^ 2.
Proof.
  intros N o t l r Hl One Hr H. set (T := output N l t).
  assert (I : forall x, << T, x >> = sum N (fun f => l f * << t f, x >>)).
  { intros x. unfold T, output. rewrite inner_vector_sum. apply sum_ext. intros. now rewrite inner_scale. }
  assert (M : sum N (fun f => l f * << o [-] t f, o [-] t f >>) <= r ^ 2).
  { replace (r ^ 2) with (sum N (fun f => r ^ 2 * l f)) by (rewrite sum_scale, One; ring).
    apply sum_le. intros f Hf. rewrite Rmult_comm. apply Rmult_le_compat_r; [now apply Hl |].
    rewrite <- len_sqr. pose proof (H f Hf). pose proof (len_pos (o [-] t f)). nra. }
  rewrite (sum_ext N (fun f => l f * << o [-] t f, o [-] t f >>)
    (fun f => << o, o >> * l f + (-2) * (l f * << t f, o >>) + l f * << t f, t f >>)) in M.
  2: { intros. expand_inner. rewrite (inner_sym _ o (t i)). ring. }
  rewrite !sum_plus, !sum_scale, One, <- I in M.
  pose proof (inner_pos _ (o [-] T)) as P. revert P. expand_inner. rewrite (inner_sym _ o T). intros P. lra.
Qed.

(** C5.frame-token: token 0 is the frame's own, with a value within b of the target; the values of the n others lie
    beyond
    a plane at distance s. *)
Theorem frame_token : forall n G p v t u s b, (1 <= n)%nat -> reachable (S n) G p -> << u, u >> = 1 -> 0 < s -> 0
  <= b ->
  (forall j, (0 < j <= n)%nat -> s <= << u, v j [-] t >>) -> len (v 0%nat [-] t) <= b ->
  let phi := INR n * exp (- G) / (1 + INR n * exp (- G)) in
  Rmax 0 (phi * s - (1 - phi) * b) <= len (output (S n) p v [-] t).
Proof.
  intros n G p v t u s b Hn R Hu Hs Hb Hv H0 phi. apply Rmax_lub; [apply len_pos |].
  pose proof (share_left (S n) G p 0 ltac:(lia) R) as Left. unfold missed_share in Left.
  replace (S n - 1)%nat with n in Left by lia. fold phi in Left. destruct R as (P & One & B).
  assert (E : << u, output (S n) p v [-] t >> = sum (S n) (fun j => p j * << u, v j [-] t >>)).
  { pose proof (output_minus (S n) p v t) as A. rewrite One, scale_one in A. rewrite A, inner_sym, inner_vector_sum.
    apply sum_ext. intros. now rewrite inner_scale, (inner_sym _ _ u). }
  assert (L : (1 - p 0%nat) * s - p 0%nat * b <= << u, output (S n) p v [-] t >>).
  { rewrite E, sum_first. rewrite sum_first in One.
    assert (A : - b <= << u, v 0%nat [-] t >>).
    { pose proof (inner_ge u (v 0%nat [-] t)) as C. unfold len at 1 in C. rewrite Hu, sqrt_1 in C. lra. }
    assert (Tail : sum n (fun i => s * p (S i)) <= sum n (fun i => p (S i) * << u, v (S i) [-] t >>)).
    { apply sum_le. intros j Hj. rewrite Rmult_comm. apply Rmult_le_compat_l; [apply Rlt_le, P; lia | apply Hv; lia]. }
    rewrite sum_scale in Tail. pose proof (Rmult_le_compat_l (p 0%nat) _ _ (Rlt_le _ _ (P 0%nat ltac:(lia))) A).
    replace (1 - p 0%nat) with (sum n (fun i => p (S i))) by lra. lra. }
  pose proof (inner_le u (output (S n) p v [-] t)) as C. unfold len at 1 in C. rewrite Hu, sqrt_1 in C.
  pose proof (Rmult_le_compat_r (s + b) _ _ ltac:(lra) Left). lra.
Qed.

End Outputs.
