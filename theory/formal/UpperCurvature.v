(** * C1.upper-curvature: the largest eigenvalue of the Hessian

    On frames of norm at least m, x^T H x <= 2/(N-2) Lambda |x|^2 / m^2 where Lambda bounds (|D_2|^T |D_2| v)_t / v_t
      for some
    positive v whose triples are balanced: each of the weights w = (v_t, v_(t+1), v_(t+2))/V_t, V_t
      = v_t + 2 v_(t+1) + v_(t+2),
    is at most 1/2, and w_1 + w_2 lies in [0.29, 0.71]. The eigenvector of ||D_2||^2 is such a v (on paper for every
      N; for
    three frames it is (1, 2, 1), for four (1, 3, 3, 1), so C+_3 = 12 and C+_4 = 10 are proved here).
    Conversely x^T H x = 2/(N-2) |D_2 z|^2 / m^2 is attained for every z. *)

From Coq Require Import Reals Lra Lia Psatz.
From Coquelicot Require Import Rcomplements.
From framebound Require Import Inner TemporalLoss Triple Hessian Constants.
Open Scope R_scope.

(** ** The inequality of the split *)

(** X' and Y' = X' with the frames exchanged; d2 = (a - b)^2. *)
Definition slack (s a b : R) : R := 1 - s + 2 * s * a ^ 2 - s * (a * b) - (a - b) ^ 2 / 4.

Lemma slack_edge : forall s a, 0.29 <= s <= 0.71 -> 0 <= (2 * s - 1 / 4) * a ^ 2 - (s - 1 / 2) * a + (3 / 4 - s).
Proof.
  intros s a Hs. apply Rmult_le_reg_l with (4 * (2 * s - 1 / 4)); [lra |].
  replace (4 * (2 * s - 1 / 4) * ((2 * s - 1 / 4) * a ^ 2 - (s - 1 / 2) * a + (3 / 4 - s)))
    with ((2 * (2 * s - 1 / 4) * a - (s - 1 / 2)) ^ 2 + (4 * (2 * s - 1 / 4) * (3 / 4 - s) - (s - 1 / 2) ^ 2)) by field.
  pose proof (pow2_ge_0 (2 * (2 * s - 1 / 4) * a - (s - 1 / 2))).
  pose proof (Rmult_le_pos (s - 0.29) (0.71 - s) ltac:(lra) ltac:(lra)). lra.
Qed.

Lemma slack_nonneg : forall s a b, 0.29 <= s <= 0.71 -> -1 <= a <= 1 -> -1 <= b <= 1 -> 0 <= slack s a b.
Proof.
  intros s a b Hs Ha Hb.
  replace (slack s a b) with
    ((1 + b) / 2 * ((2 * s - 1 / 4) * a ^ 2 - (s - 1 / 2) * a + (3 / 4 - s))
     + (1 - b) / 2 * ((2 * s - 1 / 4) * (- a) ^ 2 - (s - 1 / 2) * (- a) + (3 / 4 - s)) + (1 - b) * (1 + b) / 4)
    by (unfold slack; field).
  pose proof (slack_edge s a Hs) as A. pose proof (slack_edge s (- a) Hs) as B.
  pose proof (Rmult_le_pos ((1 + b) / 2) _ ltac:(lra) A).
  pose proof (Rmult_le_pos ((1 - b) / 2) _ ltac:(lra) B).
  pose proof (Rmult_le_pos (1 - b) (1 + b) ltac:(lra) ltac:(lra)). lra.
Qed.

(** The parts of degree 2 and 4 of slack(s, a, b) slack(1-s, b, a) - s(1-s)(1-a^2)(1-b^2). *)
Definition degree_2 (s a b : R) : R :=
  (s ^ 2 + s - 1 / 4) * a ^ 2 + ((1 - s) ^ 2 + (1 - s) - 1 / 4) * b ^ 2 + (1 / 2 - s ^ 2 - (1 - s) ^ 2) * (a * b).
Definition degree_4 (s a b : R) : R :=
  (2 * s * a ^ 2 - s * (a * b) - (a - b) ^ 2 / 4) * (2 * (1 - s) * b ^ 2 - (1 - s) * (a * b) - (a - b) ^ 2 / 4)
  - s * (1 - s) * (a ^ 2 * b ^ 2).

Lemma degrees : forall s a b,
  slack s a b * slack (1 - s) b a - s * (1 - s) * ((1 - a ^ 2) * (1 - b ^ 2)) = degree_2 s a b + degree_4 s a b.
Proof. intros. unfold slack, degree_2, degree_4. field. Qed.

Lemma degree_2_nonneg : forall s a b, 0.29 <= s <= 0.71 -> 0 <= degree_2 s a b.
Proof.
  intros s a b Hs. set (d := s - 1 / 2). assert (D : d ^ 2 <= 0.0441).
  { pose proof (Rmult_le_pos (0.21 - d) (0.21 + d) ltac:(unfold d; lra) ltac:(unfold d; lra)). lra. }
  replace (degree_2 s a b) with ((1 / 2 + 2 * d + d ^ 2) * a ^ 2 + 2 * (- d ^ 2) * (a * b) + (1 / 2
    - 2 * d + d ^ 2) * b ^ 2)
    by (unfold degree_2, d; field).
  apply binary_form.
  - assert (-0.21 <= d) by (unfold d; lra). pose proof (pow2_ge_0 d). lra.
  - assert (d <= 0.21) by (unfold d; lra). pose proof (pow2_ge_0 d). lra.
  - pose proof (pow2_ge_0 d). lra.
Qed.

(** Along a ray to the edge of the square the difference is h^2 (degree 2 + h^2 degree 4). *)
Lemma split_edge : forall s t, 0.29 <= s <= 0.71 -> -1 <= t <= 1 -> 0 <= degree_2 s 1 t + degree_4 s 1 t.
Proof.
  intros s t Hs Ht. rewrite <- degrees.
  pose proof (slack_nonneg s 1 t Hs ltac:(lra) Ht) as A. pose proof (slack_nonneg (1
    - s) t 1 ltac:(lra) Ht ltac:(lra)) as B.
  pose proof (Rmult_le_pos _ _ A B). lra.
Qed.

Lemma split_ordered : forall s a b, 0.29 <= s <= 0.71 -> -1 <= a <= 1 -> b ^ 2 <= a ^ 2 -> 0
  <= degree_2 s a b + degree_4 s a b.
Proof.
  intros s a b Hs Ha Hb. destruct (Req_dec a 0) as [-> | Z].
  - assert (b = 0) by nra. subst. unfold degree_2, degree_4. lra.
  - set (t := b / a). assert (E : b = a * t) by (unfold t; field; easy).
    assert (A2 : 0 < a ^ 2) by (apply Rsqr_pos_lt in Z; unfold Rsqr in Z; lra).
    assert (Ht : -1 <= t <= 1).
    { assert (T : t ^ 2 <= 1).
      { apply (Rmult_le_reg_l (a ^ 2)); [easy |]. rewrite E in Hb. lra. }
      split; nra. }
    replace (degree_2 s a b + degree_4 s a b)
      with (a ^ 2 * ((1 - a ^ 2) * degree_2 s 1 t + a ^ 2 * (degree_2 s 1 t + degree_4 s 1 t)))
      by (rewrite E; unfold degree_2, degree_4; field).
    apply Rmult_le_pos; [lra |]. apply Rplus_le_le_0_compat.
    + apply Rmult_le_pos; [nra | now apply degree_2_nonneg].
    + apply Rmult_le_pos; [lra | now apply split_edge].
Qed.

Lemma split_nonneg : forall s a b, 0.29 <= s <= 0.71 -> -1 <= a <= 1 -> -1 <= b <= 1 ->
  s * (1 - s) * ((1 - a ^ 2) * (1 - b ^ 2)) <= slack s a b * slack (1 - s) b a.
Proof.
  intros s a b Hs Ha Hb. apply Rminus_le_0. destruct (Rle_dec (b ^ 2) (a ^ 2)) as [C | C].
  - rewrite degrees. now apply split_ordered.
  - replace (slack s a b * slack (1 - s) b a - s * (1 - s) * ((1 - a ^ 2) * (1 - b ^ 2)))
      with (slack (1 - s) b a * slack (1 - (1 - s)) a b - (1 - s) * (1 - (1 - s)) * ((1 - b ^ 2) * (1 - a ^ 2)))
      by (unfold slack; field).
    rewrite degrees. apply split_ordered; [lra | easy | lra].
Qed.

(** ** One pair with weights *)

Lemma weighted_pair : forall c S rho1 sigma1 n1 rho2 sigma2 n2 w p q tau,
  0 <= n1 -> 0 <= n2 -> w ^ 2 <= n1 * n2 -> 0 < p <= 1 / 2 -> 0 < q <= 1 / 2 ->
  0 <= 1 - tau ^ 2 * S ^ 2 / 4 -> Rabs tau - tau * c <= 1 ->
  (1 - tau ^ 2 * S ^ 2 / 4) / (p + q) * (sigma1 + sigma2) ^ 2 - 2 * tau * S * (rho1 * sigma1 + rho2 * sigma2)
  + tau * (2 * w - c * (n1 + n2))
  <= (rho1 ^ 2 + sigma1 ^ 2 + n1) / p + (rho2 ^ 2 + sigma2 ^ 2 + n2) / q.
Proof.
  intros c S rho1 sigma1 n1 rho2 sigma2 n2 w p q tau Hn1 Hn2 Hw Hp Hq Ht Hc.
  assert (Cauchy : (1 - tau ^ 2 * S ^ 2 / 4) / (p + q) * (sigma1 + sigma2) ^ 2
                   <= (1 - tau ^ 2 * S ^ 2 / 4) * (sigma1 * sigma1 / p + sigma2 * sigma2 / q)).
  { unfold Rdiv at 1. rewrite Rmult_assoc. apply Rmult_le_compat_l; [easy |].
    pose proof (weighted_square sigma1 sigma2 p q ltac:(lra) ltac:(lra)) as C.
    apply (Rmult_le_reg_l (p + q)); [lra |]. rewrite <- Rmult_assoc, Rinv_r, Rmult_1_l by lra. exact C. }
  assert (Block : forall rho sigma r, 0 < r <= 1 / 2 ->
    - 2 * tau * S * (rho * sigma) <= rho ^ 2 / r + tau ^ 2 * S ^ 2 / 4 * (sigma * sigma / r)).
  { intros rho sigma r Hr. apply Rminus_le_0.
    replace (rho ^ 2 / r + tau ^ 2 * S ^ 2 / 4 * (sigma * sigma / r) - - 2 * tau * S * (rho * sigma))
      with (((rho + r * (tau * S * sigma)) ^ 2 + (1 / 4 - r ^ 2) * (tau * S * sigma) ^ 2) / r) by (field; lra).
    apply Rmult_le_pos; [| apply Rlt_le, Rinv_0_lt_compat; lra].
    apply Rplus_le_le_0_compat; [apply pow2_ge_0 |]. apply Rmult_le_pos; [nra | apply pow2_ge_0]. }
  assert (Normal : tau * (2 * w - c * (n1 + n2)) <= n1 / p + n2 / q).
  { assert (W : 2 * Rabs w <= n1 + n2).
    { apply square_le; [lra |]. replace ((2 * Rabs w) ^ 2) with (4 * Rabs w ^ 2) by ring. rewrite pow2_abs.
      pose proof (pow2_ge_0 (n1 - n2)). lra. }
    assert (T : tau * w <= Rabs tau * Rabs w) by (rewrite <- Rabs_mult; apply Rle_abs).
    pose proof (Rmult_le_compat_l _ _ _ (Rabs_pos tau) W) as T'.
    pose proof (Rmult_le_compat_r (n1 + n2) _ _ ltac:(lra) Hc) as N.
    assert (P : forall n r, 0 <= n -> 0 < r <= 1 / 2 -> n <= n / r).
    { intros n r Hn Hr. apply (Rmult_le_reg_r r); [lra |]. unfold Rdiv. rewrite Rmult_assoc, Rinv_l by lra. nra. }
    pose proof (P n1 p Hn1 Hp). pose proof (P n2 q Hn2 Hq). lra. }
  pose proof (Block rho1 sigma1 p Hp). pose proof (Block rho2 sigma2 q Hq).
  replace ((rho1 ^ 2 + sigma1 ^ 2 + n1) / p) with (rho1 ^ 2 / p + sigma1 * sigma1 / p + n1 / p) by (field; lra).
  replace ((rho2 ^ 2 + sigma2 ^ 2 + n2) / q) with (rho2 ^ 2 / q + sigma2 * sigma2 / q + n2 / q) by (field; lra). lra.
Qed.

(** ** One triple *)

Section Triple.
Context {V : space}.

(** x^T H_3 x / 2 <= |x_1|^2/w_1 + 2 |x_2|^2/w_2 + |x_3|^2/w_3 for balanced weights. *)
Theorem weighted_triple : forall (u v w x y z : V) p q r,
  << u, u >> = 1 -> << v, v >> = 1 -> << w, w >> = 1 ->
  0 < p <= 1 / 2 -> 0 < q <= 1 / 2 -> 0 < r <= 1 / 2 -> p + 2 * q + r = 1 -> 0.29 <= p + q <= 0.71 ->
  triple_form u v w x y z <= << x, x >> / p + 2 * (<< y, y >> / q) + << z, z >> / r.
Proof.
  intros u v w x y z p q r Hu Hv Hw Hp Hq Hr One Hs.
  destruct (pair_coordinates u v x y Hu Hv)
    as (S1 & r1 & s1 & n1 & r2 & s2 & n2 & w1 & P1 & Q1 & N1 & N2 & W1 & X1 & X2 & D1 & D1').
  destruct (pair_coordinates v w y z Hv Hw)
    as (S2 & r3 & s3 & n3 & r4 & s4 & n4 & w2 & P2 & Q2 & N3 & N4 & W2 & X3 & X4 & D2 & D2').
  unfold triple_form. rewrite D1, D2, D1', D2'.
  pose proof (cauchy_schwarz_square u v) as C1. pose proof (cauchy_schwarz_square v w) as C2.
  rewrite Hu, Hv in C1. rewrite Hv, Hw in C2.
  set (a := << u, v >>) in *. set (b := << v, w >>) in *.
  assert (Ba : -1 <= a <= 1) by nra. assert (Bb : -1 <= b <= 1) by nra.
  assert (Hd0 : 0 <= (b - a) ^ 2) by apply pow2_ge_0.
  assert (Hd : (b - a) ^ 2 <= 4) by (pose proof (pow2_ge_0 (a + b));
    pose proof (Rmult_le_pos (1 - a) (1 + a) ltac:(lra) ltac:(lra));
    pose proof (Rmult_le_pos (1 - b) (1 + b) ltac:(lra) ltac:(lra)); lra).
  assert (F1 : 0 <= 1 - (b - a) ^ 2 * S1 ^ 2 / 4).
  { assert (0 <= (b - a) ^ 2 * a ^ 2) by (apply Rmult_le_pos; [easy | apply pow2_ge_0]). rewrite Q1. lra. }
  assert (F2 : 0 <= 1 - (b - a) ^ 2 * S2 ^ 2 / 4).
  { assert (0 <= (b - a) ^ 2 * b ^ 2) by (apply Rmult_le_pos; [easy | apply pow2_ge_0]). rewrite Q2. lra. }
  set (t1 := s1 + s2) in *. set (t2 := s3 + s4) in *.
  set (E1 := (1 - (b - a) ^ 2 * S1 ^ 2 / 4) / (p + q)) in *. set (E2 := (1 - (b - a) ^ 2 * S2 ^ 2 / 4) / (q + r)) in *.
  assert (Bound1 : E1 * t1 ^ 2 - 2 * (- (b - a)) * S1 * (r1 * s1 + r2 * s2) + - (b - a) * (2 * w1 - a * (n1 + n2))
                   <= << x, x >> / p + << y, y >> / q).
  { pose proof (weighted_pair a S1 r1 s1 n1 r2 s2 n2 w1 p q (- (b - a)) N1 N2 W1 Hp Hq) as G.
    replace ((- (b - a)) ^ 2) with ((b - a) ^ 2) in G by ring. rewrite X1, X2. apply G; [exact F1 |].
    rewrite Rabs_Ropp. unfold Rabs. destruct (Rcase_abs (b - a)).
    - pose proof (Rmult_le_pos (1 - a) (1 + b) ltac:(lra) ltac:(lra)). pose proof (pow2_ge_0 a). lra.
    - pose proof (Rmult_le_pos (1 + a) (1 - b) ltac:(lra) ltac:(lra)). pose proof (pow2_ge_0 a). lra. }
  assert (Bound2 : E2 * t2 ^ 2 - 2 * (b - a) * S2 * (r3 * s3 + r4 * s4) + (b - a) * (2 * w2 - b * (n3 + n4))
                   <= << y, y >> / q + << z, z >> / r).
  { pose proof (weighted_pair b S2 r3 s3 n3 r4 s4 n4 w2 q r (b - a) N3 N4 W2 Hq Hr F2) as G. rewrite X3, X4. apply G.
    unfold Rabs. destruct (Rcase_abs (b - a)).
    - pose proof (Rmult_le_pos (1 - a) (1 + b) ltac:(lra) ltac:(lra)). pose proof (pow2_ge_0 b). lra.
    - pose proof (Rmult_le_pos (1 + a) (1 - b) ltac:(lra) ltac:(lra)). pose proof (pow2_ge_0 b). lra. }
  (* The split of (s_2' - s_1')^2 between the pairs. *)
  assert (Split : 0 <= (E1 + a * (a - b) - S1 ^ 2) * t1 ^ 2 + 2 * (S1 * S2) * (t1 * t2) + (E2 + b * (b - a)
    - S2 ^ 2) * t2 ^ 2).
  { pose proof (slack_nonneg (p + q) a b Hs Ba Bb) as A.
    pose proof (slack_nonneg (1 - (p + q)) b a ltac:(lra) Bb Ba) as B.
    pose proof (split_nonneg (p + q) a b Hs Ba Bb) as AB.
    assert (L1 : slack (p + q) a b / (p + q) <= E1 + a * (a - b) - S1 ^ 2).
    { unfold E1. apply (Rmult_le_reg_r (p + q)); [lra |]. unfold Rdiv at 1. rewrite Rmult_assoc, Rinv_l by lra.
      replace (((1 - (b - a) ^ 2 * S1 ^ 2 / 4) / (p + q) + a * (a - b) - S1 ^ 2) * (p + q))
        with (1 - (b - a) ^ 2 * S1 ^ 2 / 4 + (a * (a - b) - S1 ^ 2) * (p + q)) by (field; lra).
      rewrite Q1. unfold slack. pose proof (Rmult_le_pos _ _ Hd0 (pow2_ge_0 a)). lra. }
    assert (L2 : slack (1 - (p + q)) b a / (q + r) <= E2 + b * (b - a) - S2 ^ 2).
    { replace (1 - (p + q)) with (q + r) by lra. unfold E2. apply (Rmult_le_reg_r (q + r)); [lra |].
      unfold Rdiv at 1. rewrite Rmult_assoc, Rinv_l by lra.
      replace (((1 - (b - a) ^ 2 * S2 ^ 2 / 4) / (q + r) + b * (b - a) - S2 ^ 2) * (q + r))
        with (1 - (b - a) ^ 2 * S2 ^ 2 / 4 + (b * (b - a) - S2 ^ 2) * (q + r)) by (field; lra).
      rewrite Q2. unfold slack. pose proof (Rmult_le_pos _ _ Hd0 (pow2_ge_0 b)). lra. }
    assert (A' : 0 <= slack (p + q) a b / (p + q)) by (apply Rmult_le_pos; [easy | apply Rlt_le, Rinv_0_lt_compat;
      lra]).
    assert (B' : 0 <= slack (1 - (p + q)) b a / (q + r)) by (apply Rmult_le_pos;
      [easy | apply Rlt_le, Rinv_0_lt_compat; lra]).
    apply binary_form; [lra | lra |].
    apply Rle_trans with (slack (p + q) a b / (p + q) * (slack (1 - (p + q)) b a / (q + r))).
    - replace ((S1 * S2) ^ 2) with (S1 ^ 2 * S2 ^ 2) by ring. rewrite Q1, Q2.
      replace (q + r) with (1 - (p + q)) by lra. apply (Rmult_le_reg_l ((p + q) * (1 - (p + q))));
        [apply Rmult_lt_0_compat; lra |].
      replace ((p + q) * (1 - (p + q)) * (slack (p + q) a b / (p + q) * (slack (1 - (p + q)) b a / (1 - (p + q)))))
        with (slack (p + q) a b * slack (1 - (p + q)) b a) by (field; lra). exact AB.
    - apply Rmult_le_compat; assumption. }
  lra.
Qed.

End Triple.

(** ** N frames *)

(** |D_2 v|: v_t + 2 v_(t+1) + v_(t+2), and |D_2|^T of a sequence on the triples. *)
Definition second_sum (v : nat -> R) (t : nat) : R := v t + 2 * v (S t) + v (S (S t)).
Definition adjoint (N : nat) (z : nat -> R) (t : nat) : R :=
  (if Nat.ltb t (N - 2) then z t else 0)
  + match t with
    | O => 0
    | S p => 2 * (if Nat.ltb p (N - 2) then z p else 0)
             + match p with O => 0 | S o => if Nat.ltb o (N - 2) then z o else 0 end
    end.

(** Positive, and every triple balanced. *)
Definition balanced (N : nat) (v : nat -> R) : Prop :=
  (forall t, (t < N)%nat -> 0 < v t) /\
  (forall t, (t < N - 2)%nat ->
     v t <= second_sum v t / 2 /\ v (S (S t)) <= second_sum v t / 2 /\
     0.29 * second_sum v t <= v t + v (S t) <= 0.71 * second_sum v t).

Lemma adjoint_sum : forall N z f, (3 <= N)%nat ->
  sum (N - 2) (fun t => z t * (f t + 2 * f (S t) + f (S (S t)))) = sum N (fun t => adjoint N z t * f t).
Proof.
  intros N z f H. set (y := fun t => if Nat.ltb t (N - 2) then z t else 0).
  rewrite (sum_ext (N - 2) _ (fun t => y t * (f t + 2 * f (S t) + f (S (S t))))).
  2: { intros t Ht. unfold y. now rewrite (proj2 (Nat.ltb_lt t (N - 2)) Ht). }
  assert (G : forall n, sum n (fun t => y t * (f t + 2 * f (S t) + f (S (S t))))
    = sum n (fun t => adjoint N z t * f t)
      + match n with O => 0 | S p => (2 * y p + match p with O => 0 | S o => y o end) * f (S p) + y p * f (S (S p))
          end).
  { induction n; [simpl; ring |]. rewrite !sum_S, IHn.
    change (adjoint N z n) with
      (y n + match n with O => 0 | S p => 2 * y p + match p with O => 0 | S o => y o end end).
    destruct n as [| [| n]]; ring. }
  assert (Y : forall i, (N - 2 <= i)%nat -> y i = 0) by (intros i Hi; unfold y;
    now rewrite (proj2 (Nat.ltb_ge i (N - 2)) Hi)).
  assert (Tail : sum N (fun t => y t * (f t + 2 * f (S t) + f (S (S t)))) = sum (N
    - 2) (fun t => y t * (f t + 2 * f (S t) + f (S (S t))))).
  { replace N with (S (S (N - 2))) at 1 by lia. rewrite !sum_S, !Y by lia. ring. }
  rewrite <- Tail, G. destruct N as [| [| M]]; try lia. rewrite !Y by lia. ring.
Qed.

Section Upper.
Context {V : space}.
Variable N : nat.
Hypothesis three : (3 <= N)%nat.

(** C1.upper-curvature, the bound. *)
Theorem upper_curvature : forall (v : nat -> R) K m (F x : nat -> V), balanced N v ->
  (forall t, (t < N)%nat -> adjoint N (second_sum v) t <= K * v t) -> 0 < m -> norms_at_least N m F ->
  hessian_form N F x <= 2 / INR (N - 2) * K / m ^ 2 * sum N (fun t => << x t, x t >>).
Proof.
  intros v K m F x [Hv Hb] HK Hm H. pose proof (norms_no_zero_frame N m F Hm H) as Z.
  pose proof (count_pos N three) as P.
  rewrite hessian_triples by easy. unfold Rdiv. rewrite !Rmult_assoc.
  apply Rmult_le_compat_l; [lra |]. apply Rmult_le_compat_l; [apply Rlt_le, Rinv_0_lt_compat; lra |].
  set (xi := fun t => / len (F t) [*] x t).
  apply Rle_trans with (sum (N - 2) (fun t => second_sum v t *
    (<< xi t, xi t >> / v t + 2 * (<< xi (S t), xi (S t) >> / v (S t)) + << xi (S (S t)),
      xi (S (S t)) >> / v (S (S t))))).
  - apply sum_le. intros t Ht. destruct (Hb t Ht) as (B1 & B2 & B3 & B4).
    pose proof (Hv t ltac:(lia)) as V1. pose proof (Hv (S t) ltac:(lia)) as V2.
    pose proof (Hv (S (S t)) ltac:(lia)) as V3.
    assert (W : 0 < second_sum v t) by (unfold second_sum; lra).
    assert (Half : forall a, 0 < a -> a <= second_sum v t / 2 -> 0 < a / second_sum v t <= 1 / 2).
    { intros c Hc1 Hc2. split; [now apply Rdiv_lt_0_compat |]. apply Rle_div_l; lra. }
    pose proof (weighted_triple (unit (F t)) (unit (F (S t))) (unit (F (S (S t)))) (xi t) (xi (S t)) (xi (S (S t)))
      (v t / second_sum v t) (v (S t) / second_sum v t) (v (S (S t)) / second_sum v t)
      ltac:(apply unit_unit, Z; lia) ltac:(apply unit_unit, Z; lia) ltac:(apply unit_unit, Z; lia)
      (Half _ V1 B1) (Half _ V2 ltac:(unfold second_sum; lra)) (Half _ V3 B2)) as T.
    eapply Rle_trans; [apply T |].
    + unfold second_sum in *. field. lra.
    + replace (v t / second_sum v t + v (S t) / second_sum v t) with ((v t + v (S t)) / second_sum v t) by (field; lra).
      split; apply (Rmult_le_reg_r (second_sum v t)); try easy;
      replace ((v t + v (S t)) / second_sum v t * second_sum v t) with (v t + v (S t)) by (field; lra); lra.
    + right. field. lra.
  - rewrite (adjoint_sum N (second_sum v) (fun t => << xi t, xi t >> / v t)) by easy.
    rewrite <- Rmult_assoc, <- sum_scale. apply sum_le. intros t Ht. pose proof (Hv t Ht) as V1.
    pose proof (H t Ht) as G.
    pose proof (inner_pos _ (x t)) as I.
    apply Rle_trans with (K * << xi t, xi t >>).
    + replace (K * << xi t, xi t >>) with (K * v t * (<< xi t, xi t >> / v t)) by (field; lra).
      apply Rmult_le_compat_r; [| now apply HK]. apply Rmult_le_pos;
        [apply inner_pos | apply Rlt_le, Rinv_0_lt_compat; lra].
    + assert (K0 : 0 <= K).
      { apply (Rmult_le_reg_r (v t)); [easy |]. rewrite Rmult_0_l. eapply Rle_trans; [| apply (HK t Ht)].
        assert (S0 : forall i, (i < N - 2)%nat -> 0 <= second_sum v i).
        { intros i Hi. unfold second_sum. pose proof (Hv i ltac:(lia)). pose proof (Hv (S i) ltac:(lia)).
          pose proof (Hv (S (S i)) ltac:(lia)). lra. }
        assert (Y0 : forall i, 0 <= (if Nat.ltb i (N - 2) then second_sum v i else 0)).
        { intros i. destruct (Nat.ltb_spec i (N - 2)); [now apply S0 | lra]. }
        unfold adjoint. destruct t as [| [| t]].
        - pose proof (Y0 0%nat). lra.
        - pose proof (Y0 0%nat). pose proof (Y0 1%nat). lra.
        - pose proof (Y0 t). pose proof (Y0 (S t)). pose proof (Y0 (S (S t))). lra. }
      rewrite Rmult_assoc. apply Rmult_le_compat_l; [exact K0 |]. unfold xi. expand_inner.
      replace (/ len (F t) * (/ len (F t) * << x t, x t >>)) with (/ (len (F t) * len (F t)) * << x t, x t >>)
        by (field; lra).
      apply Rmult_le_compat_r; [easy |]. apply Rinv_le_contravar; nra.
Qed.

End Upper.

(** Three and four frames, with their eigenvectors: C+_3 = 12 and C+_4 = 10. *)
Theorem upper_curvature_three : forall (V : space) m (F x : nat -> V), 0 < m -> norms_at_least 3 m F ->
  hessian_form 3 F x <= 12 / m ^ 2 * sum 3 (fun t => << x t, x t >>).
Proof.
  intros V m F x Hm H. replace (12 / m ^ 2) with (2 / INR (3 - 2) * 6 / m ^ 2) by (simpl; field; lra).
  apply (upper_curvature 3 ltac:(lia) (fun t => match t with 1%nat => 2 | _ => 1 end)); try easy.
  - split.
    + intros [| [| t]] _; lra.
    + intros [| t] Ht; [unfold second_sum; lra | lia].
  - intros [| [| [| t]]] Ht; try lia; unfold adjoint, second_sum; simpl; lra.
Qed.

Theorem upper_curvature_four : forall (V : space) m (F x : nat -> V), 0 < m -> norms_at_least 4 m F ->
  hessian_form 4 F x <= 10 / m ^ 2 * sum 4 (fun t => << x t, x t >>).
Proof.
  intros V m F x Hm H. replace (10 / m ^ 2) with (2 / INR (4 - 2) * 10 / m ^ 2) by (simpl; field; lra).
  apply (upper_curvature 4 ltac:(lia) (fun t => match t with 1%nat | 2%nat => 3 | _ => 1 end)); try easy.
  - split.
    + intros [| [| [| t]]] _; lra.
    + intros [| [| t]] Ht; try lia; unfold second_sum; lra.
  - intros [| [| [| [| t]]]] Ht; try lia; unfold adjoint, second_sum; simpl; lra.
Qed.

(** ** Attained: neighbours orthogonal, second neighbours opposite *)

Section Steepest.
Context {V : space}.
Variable N : nat.
Hypothesis three : (3 <= N)%nat.
Variables e1 e2 : V.
Hypothesis plane : orthonormal e1 e2.
Variable m : R.
Hypothesis m_positive : 0 < m.

(** e_1, e_2, - e_1, - e_2, e_1, .. *)
Fixpoint quarter (t : nat) : V := match t with O => e1 | 1%nat => e2 | S (S p) => (-1) [*] quarter p end.
Definition steepest (t : nat) : V := m [*] quarter t.
Definition steepest_direction (z : nat -> R) (t : nat) : V := z t [*] quarter (S t).

Lemma quarter_step : forall t, quarter (S (S t)) = (-1) [*] quarter t.
Proof. easy. Qed.

Lemma quarter_products : forall t,
  << quarter t, quarter t >> = 1 /\ << quarter (S t), quarter (S t) >> = 1 /\ << quarter t, quarter (S t) >> = 0.
Proof.
  induction t; [exact plane |]. destruct IHt as (A & B & C). rewrite quarter_step. expand_inner.
  rewrite (inner_sym _ (quarter (S t)) (quarter t)). repeat split; [exact B | lra | lra].
Qed.

Lemma steepest_square : forall t, << steepest t, steepest t >> = m * m.
Proof. intros. unfold steepest. expand_inner. destruct (quarter_products t) as [-> _]. ring. Qed.

Lemma steepest_norm : forall t, len (steepest t) = m.
Proof. intros. apply len_of_square; [lra | apply steepest_square]. Qed.

Lemma steepest_cosine : forall t, cosine steepest t = 0.
Proof.
  intros. unfold cosine, similarity, steepest. expand_inner. destruct (quarter_products t) as [_ [_ ->]]. unfold Rdiv.
  ring.
Qed.

Lemma steepest_cosine' : forall z t, cosine' steepest (steepest_direction z) t = (z t - z (S t)) / m.
Proof.
  intros. unfold cosine', similarity'. change (similarity (steepest t) (steepest (S t))) with (cosine steepest t).
  rewrite steepest_cosine, Rmult_0_l, !steepest_norm. unfold steepest, steepest_direction. rewrite quarter_step.
  expand_inner.
  destruct (quarter_products t) as (A & B & C). rewrite A, B. field. lra.
Qed.

(** x^T H x = 2/(N-2) |D_2 z|^2 / m^2 and |x| = |z|, for every z. *)
Theorem steepest_hessian : forall z,
  hessian_form N steepest (steepest_direction z)
  = 2 / INR (N - 2) * sum (N - 2) (fun t => (z t - 2 * z (S t) + z (S (S t))) ^ 2) / m ^ 2
  /\ sum N (fun t => << steepest_direction z t, steepest_direction z t >>) = sum N (fun t => z t * z t).
Proof.
  intros z. pose proof (count_pos N three). split.
  - unfold hessian_form.
    rewrite (sum_ext _ _ (fun t => / m ^ 2 * (z t - 2 * z (S t) + z (S (S t))) ^ 2)).
    + rewrite sum_scale. field. lra.
    + intros t _. rewrite !steepest_cosine, !steepest_cosine'. field. lra.
  - apply sum_ext. intros t _. unfold steepest_direction. expand_inner. destruct (quarter_products t) as (_ & B & _).
    rewrite B. ring.
Qed.

End Steepest.
