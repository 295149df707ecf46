(** * C4: the bilateral filter across frames

    y_i = sum_k w_k x_(i+k) / sum_k w_k with w_k = g_k exp(-(x_(i+k) - x_i)^2 / (2 sigma^2)),
      g_k > 0 the spatial weights.
    Proved for every window, every padding and all positive spatial weights: the maximum principle, the invariances, the
    best bound on how far a value moves (C4.defect), non-expansiveness where the weights do not depend on the values. *)

From Coq Require Import Reals Lra Lia Psatz.
From Coquelicot Require Import Rcomplements.
From framebound Require Import Inner.
Open Scope R_scope.

(** The weight of a difference. *)
Definition range_weight (sigma d : R) : R := exp (- (d / sigma) ^ 2 / 2).

(** Frame i of the filtered clip. The window has K frames besides i itself; [near i k] is the number of the k-th of
    them,
    which a padding has folded back into the clip where it lies outside. The frame itself has the weight 1. *)
Definition total_weight (sigma : R) (K : nat) (g : nat -> R) (near : nat -> nat -> nat) (x : nat -> R) (i : nat) : R :=
  1 + sum K (fun k => g k * range_weight sigma (x (near i k) - x i)).

Definition filtered (sigma : R) (K : nat) (g : nat -> R) (near : nat -> nat -> nat) (x : nat -> R) (i : nat) : R :=
  (x i + sum K (fun k => g k * range_weight sigma (x (near i k) - x i) * x (near i k)))
  / total_weight sigma K g near x i.

Section Filter.
Variable K : nat.
Variable g : nat -> R.
Variable near : nat -> nat -> nat.
Hypothesis positive : forall k, (k < K)%nat -> 0 < g k.

Lemma range_weight_pos : forall sigma d, 0 < range_weight sigma d.
Proof. intros. apply exp_pos. Qed.

Lemma weight_pos : forall sigma d k, (k < K)%nat -> 0 <= g k * range_weight sigma d.
Proof. intros. apply Rmult_le_pos; apply Rlt_le; [now apply positive | apply range_weight_pos]. Qed.

Lemma total_weight_pos : forall sigma x i, 0 < total_weight sigma K g near x i.
Proof.
  intros. unfold total_weight. pose proof (sum_nonneg K (fun k => g k * range_weight sigma (x (near i k) - x i))
    (fun k Hk => weight_pos sigma _ k Hk)). lra.
Qed.

(** y_i - x_i is the weighted mean of the differences. *)
Lemma filtered_shift : forall sigma x i c,
  filtered sigma K g near x i - c
  = ((x i - c) + sum K (fun k => g k * range_weight sigma (x (near i k) - x i) * (x (near i k) - c)))
    / total_weight sigma K g near x i.
Proof.
  intros. pose proof (total_weight_pos sigma x i) as P. unfold filtered.
  rewrite (sum_ext K (fun k => g k * range_weight sigma (x (near i k) - x i) * (x (near i k) - c))
    (fun k => g k * range_weight sigma (x (near i k) - x i) * x (near i k)
              - c * (g k * range_weight sigma (x (near i k) - x i)))) by (intros; ring).
  rewrite sum_minus, sum_scale.
  replace (sum K (fun k => g k * range_weight sigma (x (near i k) - x i))) with (total_weight sigma K g near x i - 1)
    by (unfold total_weight; ring).
  field. lra.
Qed.

(** The maximum principle: a filtered value lies between the least and the largest value of its window. *)
Theorem maximum_principle : forall sigma x i lo hi,
  lo <= x i <= hi -> (forall k, (k < K)%nat -> lo <= x (near i k) <= hi) -> lo <= filtered sigma K g near x i <= hi.
Proof.
  intros sigma x i lo hi Hi H. pose proof (total_weight_pos sigma x i) as P. split.
  - apply Rminus_le_0. rewrite filtered_shift. apply Rmult_le_pos; [| apply Rlt_le, Rinv_0_lt_compat, P].
    apply Rplus_le_le_0_compat; [lra |]. apply sum_nonneg. intros k Hk.
    apply Rmult_le_pos; [now apply weight_pos |]. pose proof (H k Hk). lra.
  - apply Ropp_le_cancel, Rminus_le_0.
    replace (- filtered sigma K g near x i - - hi) with (- (filtered sigma K g near x i - hi)) by ring.
    rewrite filtered_shift. unfold Rdiv. rewrite Ropp_mult_distr_l.
    apply Rmult_le_pos; [| apply Rlt_le, Rinv_0_lt_compat, P].
    rewrite Ropp_plus_distr, <- sum_opp. apply Rplus_le_le_0_compat; [lra |]. apply sum_nonneg. intros k Hk.
    rewrite Ropp_mult_distr_r. apply Rmult_le_pos; [now apply weight_pos |]. pose proof (H k Hk). lra.
Qed.

(** Constants are kept, .. *)
Theorem keeps_constants : forall sigma c i, filtered sigma K g near (fun _ => c) i = c.
Proof.
  intros. pose proof (maximum_principle sigma (fun _ => c) i c c ltac:(lra) ltac:(intros; lra)). lra.
Qed.

(** .. a constant may be added before or after, .. *)
Theorem translation : forall sigma x c i,
  filtered sigma K g near (fun j => x j + c) i = filtered sigma K g near x i + c.
Proof.
  intros sigma x c i.
  assert (T : total_weight sigma K g near (fun j => x j + c) i = total_weight sigma K g near x i).
  { unfold total_weight. f_equal. apply sum_ext. intros. do 2 f_equal. ring. }
  pose proof (filtered_shift sigma (fun j => x j + c) i c) as A. pose proof (filtered_shift sigma x i 0) as B.
  rewrite T in A. enough (filtered sigma K g near (fun j => x j + c) i - c = filtered sigma K g near x i - 0) by lra.
  rewrite A, B. f_equal. f_equal; [ring |]. apply sum_ext. intros k Hk.
  replace (x (near i k) + c - (x i + c)) with (x (near i k) - x i) by ring. ring.
Qed.

(** .. and values and range width may be scaled together: B_(c sigma)(c x) = c B_sigma(x). So no Lipschitz constant of
    the
    filter depends on sigma. *)
Theorem scaling : forall sigma x c i, c <> 0 -> sigma <> 0 ->
  filtered (c * sigma) K g near (fun j => c * x j) i = c * filtered sigma K g near x i.
Proof.
  intros sigma x c i Hc Hs.
  assert (W : forall d, range_weight (c * sigma) (c * d) = range_weight sigma d).
  { intros. unfold range_weight. do 3 f_equal. field. easy. }
  assert (T : total_weight (c * sigma) K g near (fun j => c * x j) i = total_weight sigma K g near x i).
  { unfold total_weight. f_equal. apply sum_ext. intros. rewrite <- Rmult_minus_distr_l. now rewrite W. }
  unfold filtered. rewrite T. unfold Rdiv. rewrite <- Rmult_assoc. f_equal.
  rewrite Rmult_plus_distr_l. f_equal. rewrite <- sum_scale. apply sum_ext. intros k Hk.
  rewrite <- Rmult_minus_distr_l, W. ring.
Qed.

Theorem lipschitz_width : forall sigma L,
  0 < sigma ->
  (forall x x' i b, (forall j, Rabs (x j - x' j) <= b) -> Rabs (filtered 1 K g near x i - filtered 1 K g near x' i)
    <= L * b) ->
  forall x x' i b, (forall j, Rabs (x j - x' j) <= b) ->
    Rabs (filtered sigma K g near x i - filtered sigma K g near x' i) <= L * b.
Proof.
  intros sigma L Hs H x x' i b Hb.
  assert (S : forall y, filtered sigma K g near y i = sigma * filtered 1 K g near (fun j => / sigma * y j) i).
  { intros y. rewrite <- scaling by lra. rewrite Rmult_1_r. f_equal.
    apply FunctionalExtensionality.functional_extensionality. intros j. field. lra. }
  rewrite !S, <- Rmult_minus_distr_l, Rabs_mult, Rabs_pos_eq by lra.
  apply (Rmult_le_reg_l (/ sigma)); [now apply Rinv_0_lt_compat |].
  rewrite <- Rmult_assoc, Rinv_l, Rmult_1_l by lra.
  replace (/ sigma * (L * b)) with (L * (/ sigma * b)) by ring. apply H. intros j.
  rewrite <- Rmult_minus_distr_l, Rabs_mult, Rabs_pos_eq by (apply Rlt_le, Rinv_0_lt_compat; lra).
  apply Rmult_le_compat_l; [apply Rlt_le, Rinv_0_lt_compat; lra | apply Hb].
Qed.

(** ** C4.defect: how far a value moves *)

(** The largest value of exp(-u^2/2)(u - (v - 1/v)) is exp(-v^2/2)/v, at u = v. *)
Lemma pull_maximum : forall u v, 0 < v -> exp (- u ^ 2 / 2) * (u - (v - / v)) <= exp (- v ^ 2 / 2) / v.
Proof.
  intros u v Hv.
  pose proof (exp_ineq1_le ((u ^ 2 - v ^ 2) / 2)) as E.
  assert (A : (u - (v - / v)) * v <= exp ((u ^ 2 - v ^ 2) / 2)).
  { replace ((u - (v - / v)) * v) with (1 + (u ^ 2 - v ^ 2) / 2 - (u - v) ^ 2 / 2) by (field; lra).
    pose proof (pow2_ge_0 (u - v)). lra. }
  apply (Rmult_le_compat_l (exp (- u ^ 2 / 2))) in A; [| apply Rlt_le, exp_pos].
  rewrite <- exp_plus in A. replace (- u ^ 2 / 2 + (u ^ 2 - v ^ 2) / 2) with (- v ^ 2 / 2) in A by field.
  apply (Rmult_le_reg_r v); [easy |].
  replace (exp (- v ^ 2 / 2) / v * v) with (exp (- v ^ 2 / 2)) by (field; lra). lra.
Qed.

(** The sum G of the neighbours' spatial weights; s > 0 with s exp(s/2) = G exp(-1/2), that is s = 2 W(G/(2 sqrt e)). *)
Definition defect_root (s : R) : Prop := 0 < s /\ s * exp (s / 2) = sum K g * exp (- (1 / 2)).

Lemma defect_balance : forall s, defect_root s -> sum K g * (exp (- sqrt (1 + s) ^ 2 / 2) / sqrt (1 + s))
  = s / sqrt (1 + s).
Proof.
  intros s [Hs E]. rewrite <- Rsqr_pow2, Rsqr_sqrt by lra.
  replace (- (1 + s) / 2) with (- (1 / 2) + - (s / 2)) by field. rewrite exp_plus.
  assert (P : exp (s / 2) * exp (- (s / 2)) = 1) by (rewrite <- exp_plus, Rplus_opp_r; apply exp_0).
  assert (Q : sqrt (1 + s) <> 0) by (apply Rgt_not_eq, sqrt_lt_R0; lra).
  replace (sum K g * (exp (- (1 / 2)) * exp (- (s / 2)) / sqrt (1 + s)))
    with (sum K g * exp (- (1 / 2)) * exp (- (s / 2)) / sqrt (1 + s)) by (field; exact Q).
  rewrite <- E. replace (s * exp (s / 2) * exp (- (s / 2))) with (s * (exp (s / 2) * exp (- (s / 2)))) by ring.
  rewrite P. field. exact Q.
Qed.

Theorem defect_one_side : forall sigma x i s, 0 < sigma -> defect_root s ->
  filtered sigma K g near x i - x i <= s / sqrt (1 + s) * sigma.
Proof.
  intros sigma x i s Hs Hr. pose proof (total_weight_pos sigma x i) as P. rewrite filtered_shift.
  rewrite Rminus_diag_eq, Rplus_0_l by easy. pose proof Hr as [Hs0 _].
  set (v := sqrt (1 + s)). assert (Hv : 0 < v) by (apply sqrt_lt_R0; lra).
  assert (Hvv : v * v = 1 + s) by (apply sqrt_sqrt; lra).
  assert (HK : s / v = v - / v).
  { replace s with (v * v - 1) by lra. field. lra. }
  apply (Rmult_le_reg_r (total_weight sigma K g near x i)); [exact P |].
  unfold Rdiv at 1. rewrite Rmult_assoc, Rinv_l, Rmult_1_r by lra.
  unfold total_weight. rewrite Rmult_plus_distr_l, Rmult_1_r, <- sum_scale.
  apply Rplus_le_reg_r with (- sum K (fun k => s / v * sigma * (g k * range_weight sigma (x (near i k) - x i)))).
  match goal with |- ?a + - ?b <= ?c + ?b + - ?b => replace (c + b + - b) with c by ring; fold (a - b) end.
  rewrite <- sum_minus.
  apply Rle_trans with (sum K (fun k => sigma * g k * (exp (- v ^ 2 / 2) / v))).
  - apply sum_le. intros k Hk. set (d := x (near i k) - x i).
    pose proof (pull_maximum (d / sigma) v Hv) as M. rewrite <- HK in M. fold (range_weight sigma d) in M.
    pose proof (Rmult_le_compat_l (sigma * g k) _ _ ltac:(apply Rmult_le_pos;
      [lra | apply Rlt_le, positive, Hk]) M) as M'.
    replace (g k * range_weight sigma d * d - s / v * sigma * (g k * range_weight sigma d))
      with (sigma * g k * (range_weight sigma d * (d / sigma - s / v))) by (field; lra). exact M'.
  - rewrite (sum_ext K _ (fun k => sigma * (exp (- v ^ 2 / 2) / v) * g k)) by (intros; ring).
    rewrite sum_scale. pose proof (defect_balance s Hr) as B. fold v in B.
    replace (sigma * (exp (- v ^ 2 / 2) / v) * sum K g) with (sigma * (sum K g * (exp (- v ^ 2 / 2) / v))) by ring.
    rewrite B. lra.
Qed.

(** C4.defect: |B(x)_i - x_i| <= K sigma with K = s/sqrt(1 + s). *)
Theorem defect : forall sigma x i s, 0 < sigma -> defect_root s ->
  Rabs (filtered sigma K g near x i - x i) <= s / sqrt (1 + s) * sigma.
Proof.
  intros sigma x i s Hs Hr. apply Rabs_le. split; [| now apply defect_one_side].
  assert (M : filtered sigma K g near (fun j => - x j) i = - filtered sigma K g near x i).
  { assert (W : forall d, range_weight sigma (- d) = range_weight sigma d).
    { intros. unfold range_weight. do 3 f_equal. unfold Rdiv. ring. }
    unfold filtered, total_weight.
    rewrite (sum_ext K (fun k => g k * range_weight sigma (- x (near i k) - - x i) * - x (near i k))
      (fun k => - (g k * range_weight sigma (x (near i k) - x i) * x (near i k)))).
    2: { intros. replace (- x (near i i0) - - x i) with (- (x (near i i0) - x i)) by ring. rewrite W. ring. }
    rewrite (sum_ext K (fun k => g k * range_weight sigma (- x (near i k) - - x i))
      (fun k => g k * range_weight sigma (x (near i k) - x i))).
    2: { intros. replace (- x (near i i0) - - x i) with (- (x (near i i0) - x i)) by ring. now rewrite W. }
    rewrite sum_opp. unfold Rdiv. rewrite <- Ropp_plus_distr. ring. }
  pose proof (defect_one_side sigma (fun j => - x j) i s Hs Hr) as U. rewrite M in U. lra.
Qed.

(** Attained: all neighbours at x_i + sqrt(1 + s) sigma. *)
Theorem defect_attained : forall sigma x i s, 0 < sigma -> defect_root s ->
  (forall k, (k < K)%nat -> x (near i k) = x i + sqrt (1 + s) * sigma) ->
  filtered sigma K g near x i - x i = s / sqrt (1 + s) * sigma.
Proof.
  intros sigma x i s Hs Hr H. pose proof Hr as [Hs0 _]. rewrite filtered_shift, Rminus_diag_eq, Rplus_0_l by easy.
  set (v := sqrt (1 + s)) in *. assert (Hv : 0 < v) by (apply sqrt_lt_R0; lra).
  assert (W : forall k, (k < K)%nat -> range_weight sigma (x (near i k) - x i) = exp (- v ^ 2 / 2)).
  { intros k Hk. unfold range_weight. do 2 f_equal. rewrite H by easy. do 2 f_equal. field. lra. }
  assert (T : total_weight sigma K g near x i = 1 + exp (- v ^ 2 / 2) * sum K g).
  { unfold total_weight. f_equal. rewrite <- sum_scale. apply sum_ext. intros k Hk. rewrite W by easy. ring. }
  pose proof (total_weight_pos sigma x i) as P. rewrite T in *.
  rewrite (sum_ext K _ (fun k => exp (- v ^ 2 / 2) * (v * sigma) * g k)).
  2: { intros k Hk. rewrite W, H by easy. ring. }
  rewrite sum_scale. pose proof (defect_balance s Hr) as B. fold v in B.
  assert (E : exp (- v ^ 2 / 2) * sum K g = s).
  { apply (Rmult_eq_compat_r v) in B. replace (sum K g * (exp (- v ^ 2 / 2) / v) * v)
      with (exp (- v ^ 2 / 2) * sum K g) in B by (field; lra).
    replace (s / v * v) with s in B by (field; lra). exact B. }
  assert (Hvv : v * v = 1 + s) by (apply sqrt_sqrt; lra).
  replace (exp (- v ^ 2 / 2) * (v * sigma) * sum K g) with (exp (- v ^ 2 / 2) * sum K g * (v * sigma)) by ring.
  rewrite E. rewrite <- Hvv. field. lra.
Qed.

End Filter.

(** ** Weights that do not depend on the values (an infinite sigma): the filter is linear and non-expansive *)

Definition averaged (K : nat) (g : nat -> R) (near : nat -> nat -> nat) (x : nat -> R) (i : nat) : R :=
  (x i + sum K (fun k => g k * x (near i k))) / (1 + sum K g).

Theorem averaged_non_expansive : forall K g near x x' i b, (forall k, (k < K)%nat -> 0 < g k) ->
  (forall j, Rabs (x j - x' j) <= b) -> Rabs (averaged K g near x i - averaged K g near x' i) <= b.
Proof.
  intros K g near x x' i b Hg Hb.
  assert (P : 0 < 1 + sum K g) by (pose proof (sum_nonneg K g (fun k Hk => Rlt_le _ _ (Hg k Hk))); lra).
  unfold averaged.
  replace ((x i + sum K (fun k => g k * x (near i k))) / (1 + sum K g)
    - (x' i + sum K (fun k => g k * x' (near i k))) / (1 + sum K g))
    with (((x i - x' i) + sum K (fun k => g k * (x (near i k) - x' (near i k)))) / (1 + sum K g)).
  2: { rewrite (sum_ext K (fun k => g k * (x (near i k) - x' (near i k))) (fun k => g k * x (near i k)
      - g k * x' (near i k)))
         by (intros; ring). rewrite sum_minus. field. lra. }
  assert (B : forall j, - b <= x j - x' j <= b).
  { intros j. pose proof (Hb j) as Q. pose proof (Rle_abs (x j - x' j)). pose proof (Rabs_maj2 (x j - x' j)). lra. }
  assert (U : sum K (fun k => g k * (x (near i k) - x' (near i k))) <= b * sum K g).
  { rewrite <- sum_scale. apply sum_le. intros k Hk. rewrite (Rmult_comm b).
    apply Rmult_le_compat_l; [apply Rlt_le, Hg, Hk | apply B]. }
  assert (L : - (b * sum K g) <= sum K (fun k => g k * (x (near i k) - x' (near i k)))).
  { rewrite <- sum_scale, <- sum_opp. apply sum_le. intros k Hk.
    pose proof (Rmult_le_compat_l (g k) _ _ (Rlt_le _ _ (Hg k Hk)) (proj1 (B (near i k)))). lra. }
  pose proof (B i). apply Rabs_le. split.
  - apply (Rmult_le_reg_r (1 + sum K g)); [exact P |]. unfold Rdiv. rewrite Rmult_assoc, Rinv_l by lra. lra.
  - apply (Rmult_le_reg_r (1 + sum K g)); [exact P |]. unfold Rdiv. rewrite Rmult_assoc, Rinv_l by lra. lra.
Qed.
