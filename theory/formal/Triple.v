(** * The key lemma of C1.hessian: the curvature of one triple of frames

    L_3 = (s_2 - s_1)^2 of three unit frames has |x^T H x| <= 4 (p^2 + q^2), p = |x_1| + |x_2| and q = |x_2| + |x_3|:
    [key_lemma]. Each of its two pairs is treated in coordinates along its plane and normal to it, the square of the
    difference is split between them, and both splits are the exact ones of the proof in paper_notes.md. Where two
      frames
    are parallel nothing is taken to a limit: the coordinates exist there as well. *)

From Coq Require Import Reals Lra Lia Psatz.
From framebound Require Import Inner.
Open Scope R_scope.

(** ** One pair: the derivatives of its cosine in the plane of the pair and normal to it *)

Section Pair.
Context {V : space}.

(** The first two derivatives of the cosine of unit vectors u, v moved along x, y. *)
Definition unit_cosine' (u v x y : V) : R := << x, v >> + << u, y >> - << u, v >> * (<< u, x >> + << v, y >>).

Definition unit_cosine'' (u v x y : V) : R :=
  2 * << x, y >> - 2 * (<< x, v >> + << u, y >>) * (<< u, x >> + << v, y >>)
  + << u, v >> * (3 * << u, x >> ^ 2 - << x, x >> + (3 * << v, y >> ^ 2 - << y, y >>) + 2 * << u, x >> * << v, y >>).

(** rho_i: along the frame; sigma_i: in the plane and normal to the frame; n_i = squared length of the rest, w = inner
    product of the two rests; S = sqrt(1 - c^2). *)
Lemma pair_coordinates : forall u v x y : V, << u, u >> = 1 -> << v, v >> = 1 ->
  exists S rho1 sigma1 n1 rho2 sigma2 n2 w,
    0 <= S /\ S ^ 2 = 1 - << u, v >> ^ 2 /\ 0 <= n1 /\ 0 <= n2 /\ w ^ 2 <= n1 * n2
    /\ << x, x >> = rho1 ^ 2 + sigma1 ^ 2 + n1 /\ << y, y >> = rho2 ^ 2 + sigma2 ^ 2 + n2
    /\ unit_cosine' u v x y = S * (sigma1 + sigma2)
    /\ unit_cosine'' u v x y
       = 2 * w - << u, v >> * (n1 + n2) - << u, v >> * (sigma1 + sigma2) ^ 2
         - 2 * S * (rho1 * sigma1 + rho2 * sigma2).
Proof.
  intros u v x y Hu Hv. unfold unit_cosine', unit_cosine''.
  pose proof (cauchy_schwarz_square u v) as C. rewrite Hu, Hv in C.
  rewrite (inner_sym _ x v).
  set (c := << u, v >>) in *. set (a := << u, x >>). set (k := << v, x >>). set (b := << v, y >>).
  set (l := << u, y >>).
  destruct (Req_dec (1 - c ^ 2) 0) as [Z | Z].
  - assert (Hk : k = c * a).
    { assert (N : << v [-] c [*] u, x >> = 0).
      { apply inner_null. expand_inner. rewrite (inner_sym _ v u), Hu, Hv. fold c. lra. }
      revert N. expand_inner. fold k a. lra. }
    assert (Hl : l = c * b).
    { assert (N : << u [-] c [*] v, y >> = 0).
      { apply inner_null. expand_inner. rewrite (inner_sym _ v u), Hu, Hv. fold c. lra. }
      revert N. expand_inner. fold l b. lra. }
    exists 0, a, 0, << x [-] a [*] u, x [-] a [*] u >>, b, 0, << y [-] b [*] v, y [-] b [*] v >>,
      << x [-] a [*] u, y [-] b [*] v >>.
    assert (E1 : << x [-] a [*] u, x [-] a [*] u >> = << x, x >> - a ^ 2).
    { expand_inner. rewrite (inner_sym _ x u), Hu. fold a. ring. }
    assert (E2 : << y [-] b [*] v, y [-] b [*] v >> = << y, y >> - b ^ 2).
    { expand_inner. rewrite (inner_sym _ y v), Hv. fold b. ring. }
    assert (E3 : << x [-] a [*] u, y [-] b [*] v >> = << x, y >> - a * b * c).
    { expand_inner. rewrite (inner_sym _ x v). fold k l c. rewrite Hk, Hl. ring. }
    repeat split; try lra; try apply inner_pos.
    + pose proof (cauchy_schwarz_square (x [-] a [*] u) (y [-] b [*] v)). lra.
    + rewrite E1, E2, E3, Hk, Hl. ring.
  - assert (P : 0 < 1 - c ^ 2) by nra. set (S := sqrt (1 - c ^ 2)).
    assert (HS : S * S = 1 - c ^ 2) by (apply sqrt_sqrt; lra).
    assert (0 < S) by (apply sqrt_lt_R0; lra).
    set (s1 := (k - c * a) / S). set (s2 := (l - c * b) / S).
    assert (Hk : k = S * s1 + c * a) by (unfold s1; field; lra).
    assert (Hl : l = S * s2 + c * b) by (unfold s2; field; lra).
    set (p := / S [*] (v [-] c [*] u)). set (q := / S [*] (u [-] c [*] v)).
    assert (Hpx : << p, x >> = s1) by (unfold p, s1; expand_inner; fold k a; field; lra).
    assert (Hqy : << q, y >> = s2) by (unfold q, s2; expand_inner; fold l b; field; lra).
    assert (Huv : << v, u >> = c) by (now rewrite inner_sym).
    assert (Hpp : << p, p >> = 1).
    { unfold p. expand_inner. rewrite Hu, Hv, Huv. fold c.
      match goal with |- ?e = _ => replace e with ((1 - c ^ 2) / (S * S)) by (field; lra) end.
      rewrite HS. field. lra. }
    assert (Hqq : << q, q >> = 1).
    { unfold q. expand_inner. rewrite Hu, Hv, Huv. fold c.
      match goal with |- ?e = _ => replace e with ((1 - c ^ 2) / (S * S)) by (field; lra) end.
      rewrite HS. field. lra. }
    assert (Hpq : << p, q >> = - c).
    { unfold p, q. expand_inner. rewrite Hu, Hv, Huv. fold c.
      match goal with |- ?e = _ => replace e with (- c * (1 - c ^ 2) / (S * S)) by (field; lra) end.
      rewrite HS. field. lra. }
    assert (Hup : << u, p >> = 0) by (unfold p; expand_inner; rewrite Hu; fold c; field; lra).
    assert (Hvq : << v, q >> = 0) by (unfold q; expand_inner; rewrite Hv, Huv; field; lra).
    assert (Huq : << u, q >> = S).
    { unfold q; expand_inner. rewrite Hu. fold c.
      match goal with |- ?e = _ => replace e with ((1 - c ^ 2) / S) by (field; lra) end. rewrite <- HS. field. lra. }
    assert (Hvp : << v, p >> = S).
    { unfold p; expand_inner. rewrite Hv, Huv.
      match goal with |- ?e = _ => replace e with ((1 - c ^ 2) / S) by (field; lra) end. rewrite <- HS. field. lra. }
    set (n1 := x [-] a [*] u [-] s1 [*] p). set (n2 := y [-] b [*] v [-] s2 [*] q).
    assert (E1 : << n1, n1 >> = << x, x >> - a ^ 2 - s1 ^ 2).
    { unfold n1. expand_inner. rewrite (inner_sym _ x u), (inner_sym _ x p), (inner_sym _ p u), Hu, Hpp, Hup, Hpx.
      fold a. ring. }
    assert (E2 : << n2, n2 >> = << y, y >> - b ^ 2 - s2 ^ 2).
    { unfold n2. expand_inner. rewrite (inner_sym _ y v), (inner_sym _ y q), (inner_sym _ q v), Hv, Hqq, Hvq, Hqy.
      fold b. ring. }
    assert (Hxq : << x, q >> = S * a - c * s1).
    { unfold q. expand_inner. rewrite (inner_sym _ x u), (inner_sym _ x v). fold a k. rewrite Hk.
      match goal with |- ?e = _ => replace e with ((1 - c ^ 2) / S * a - c * s1) by (field; lra) end.
      rewrite <- HS. field. lra. }
    assert (Hpy : << p, y >> = S * b - c * s2).
    { unfold p. expand_inner. fold b l. rewrite Hl.
      match goal with |- ?e = _ => replace e with ((1 - c ^ 2) / S * b - c * s2) by (field; lra) end.
      rewrite <- HS. field. lra. }
    assert (E3 : << n1, n2 >> = << x, y >> - (a * b * c + S * (a * s2 + b * s1) - c * s1 * s2)).
    { unfold n1, n2. expand_inner. rewrite (inner_sym _ x v), (inner_sym _ p v), Hxq, Hpy, Huq, Hvp, Hpq.
      fold k l c. rewrite Hk, Hl. ring. }
    exists S, a, s1, << n1, n1 >>, b, s2, << n2, n2 >>, << n1, n2 >>.
    repeat split; try lra; try apply inner_pos.
    + pose proof (cauchy_schwarz_square n1 n2). lra.
    + rewrite E1, E2, E3, Hk, Hl.
      assert (Q : forall X Y Z : R, 2 * Z - 2 * (S * s1 + c * a + (S * s2 + c * b)) * (a + b)
        + c * (3 * a ^ 2 - X + (3 * b ^ 2 - Y) + 2 * a * b)
        = 2 * (Z - (a * b * c + S * (a * s2 + b * s1) - c * s1 * s2)) - c * (X - a ^ 2 - s1 ^ 2 + (Y - b ^ 2 - s2 ^ 2))
          - c * (s1 + s2) ^ 2 - 2 * S * (a * s1 + b * s2)) by (intros; ring).
      apply Q.
Qed.

End Pair.

Lemma square_le : forall p q, 0 <= q -> p ^ 2 <= q ^ 2 -> p <= q.
Proof. intros p q Hq H. destruct (Rle_lt_dec p q); [easy | nra]. Qed.

(** Cauchy's inequality for two terms, with room on the right. *)
Lemma two_squares : forall p q r s e f, 0 <= e -> 0 <= f ->
  (p * q + r * s) ^ 2 <= (e + p ^ 2 + r ^ 2) * (f + q ^ 2 + s ^ 2).
Proof.
  intros p q r s e f He Hf. pose proof (pow2_ge_0 (p * s - q * r)). pose proof (pow2_ge_0 p). pose proof (pow2_ge_0 q).
  pose proof (pow2_ge_0 r). pose proof (pow2_ge_0 s).
  assert (0 <= e * (f + q ^ 2 + s ^ 2)) by (apply Rmult_le_pos; lra).
  assert (0 <= f * (p ^ 2 + r ^ 2)) by (apply Rmult_le_pos; lra).
  nra.
Qed.

(** The star inequality of the proof: when tau^2 S^2 + 2E <= 4, |E| <= 2 and |tau| <= 2, then
    E (sigma_1 + sigma_2)^2 - 2 tau S (rho_1 sigma_1 + rho_2 sigma_2) + tau (2w - c(n_1 + n_2)) <= 2 (xi_1 + xi_2)^2. *)
Lemma pair_bound :
  forall c S rho1 sigma1 n1 rho2 sigma2 n2 w xi1 xi2 E tau,
    c ^ 2 <= 1 -> 0 <= n1 -> 0 <= n2 -> w ^ 2 <= n1 * n2 -> 0 <= xi1 -> 0 <= xi2 ->
    xi1 ^ 2 = rho1 ^ 2 + sigma1 ^ 2 + n1 -> xi2 ^ 2 = rho2 ^ 2 + sigma2 ^ 2 + n2 ->
    tau ^ 2 * S ^ 2 + 2 * E <= 4 -> -2 <= E <= 2 -> -2 <= tau <= 2 ->
    E * (sigma1 + sigma2) ^ 2 - 2 * tau * S * (rho1 * sigma1 + rho2 * sigma2) + tau * (2 * w - c * (n1 + n2))
    <= 2 * (xi1 + xi2) ^ 2.
Proof.
  intros c S rho1 sigma1 n1 rho2 sigma2 n2 w xi1 xi2 E tau Hc Hn1 Hn2 Hw Hx1 Hx2 X1 X2 H1 H2 H3.
  (* The mixed terms of both kinds together are at most xi_1 xi_2. *)
  assert (Mixed : Rabs (sigma1 * sigma2) + Rabs w <= xi1 * xi2).
  { pose proof (Rabs_pos sigma1) as A1. pose proof (Rabs_pos sigma2) as A2.
    pose proof (sqrt_pos n1) as P1. pose proof (sqrt_pos n2) as P2.
    assert (W : Rabs w <= sqrt n1 * sqrt n2).
    { rewrite <- sqrt_mult by easy. rewrite <- sqrt_Rsqr_abs. apply sqrt_le_1_alt. unfold Rsqr. lra. }
    rewrite Rabs_mult. apply Rle_trans with (Rabs sigma1 * Rabs sigma2 + sqrt n1 * sqrt n2); [lra |].
    apply square_le; [now apply Rmult_le_pos |].
    replace ((xi1 * xi2) ^ 2) with (xi1 ^ 2 * xi2 ^ 2) by ring. rewrite X1, X2.
    pose proof (two_squares (Rabs sigma1) (Rabs sigma2) (sqrt n1) (sqrt n2) (rho1 ^ 2) (rho2 ^ 2)
      (pow2_ge_0 _) (pow2_ge_0 _)) as T.
    rewrite !pow2_abs, !pow2_sqrt in T by easy. exact T. }
  assert (Block : forall rho sigma, E * sigma ^ 2 - 2 * tau * S * (rho * sigma) <= 2 * rho ^ 2 + 2 * sigma ^ 2).
  { intros. pose proof (Rle_0_sqr (2 * rho + tau * S * sigma)) as Q. unfold Rsqr in Q.
    pose proof (Rmult_le_pos (4 - 2 * E - tau ^ 2 * S ^ 2) (sigma * sigma) ltac:(lra) ltac:(nra)). nra. }
  assert (Normal : forall n, 0 <= n -> - tau * c * n <= 2 * n).
  { intros n Hn. apply Rmult_le_compat_r; [easy |]. assert (-1 <= c <= 1) by nra. nra. }
  assert (CrossE : 2 * E * (sigma1 * sigma2) <= 4 * Rabs (sigma1 * sigma2)).
  { unfold Rabs. destruct (Rcase_abs (sigma1 * sigma2)); nra. }
  assert (CrossW : 2 * tau * w <= 4 * Rabs w).
  { unfold Rabs. destruct (Rcase_abs w); nra. }
  pose proof (Block rho1 sigma1) as B1. pose proof (Block rho2 sigma2) as B2.
  pose proof (Normal n1 Hn1) as N1. pose proof (Normal n2 Hn2) as N2.
  replace (2 * (xi1 + xi2) ^ 2) with (2 * xi1 ^ 2 + 2 * xi2 ^ 2 + 4 * (xi1 * xi2)) by ring.
  rewrite X1, X2.
  replace (E * (sigma1 + sigma2) ^ 2 - 2 * tau * S * (rho1 * sigma1 + rho2 * sigma2) + tau * (2 * w - c * (n1 + n2)))
    with ((E * sigma1 ^ 2 - 2 * tau * S * (rho1 * sigma1)) + (E * sigma2 ^ 2 - 2 * tau * S * (rho2 * sigma2))
          + 2 * E * (sigma1 * sigma2) + 2 * tau * w + - tau * c * n1 + - tau * c * n2) by ring.
  lra.
Qed.

(** ** One triple: the key lemma *)

(** A binary quadratic form with non-negative diagonal and determinant is non-negative. *)
Lemma binary_form : forall p q r t1 t2, 0 <= p -> 0 <= r -> q ^ 2 <= p * r -> 0
  <= p * t1 ^ 2 + 2 * q * (t1 * t2) + r * t2 ^ 2.
Proof.
  intros p q r t1 t2 Hp Hr H. destruct (Req_dec p 0) as [-> | Z].
  - assert (q = 0) by nra. subst. nra.
  - assert (0 < p) by lra. pose proof (Rle_0_sqr (p * t1 + q * t2)) as Q. unfold Rsqr in Q.
    pose proof (Rmult_le_pos (p * r - q ^ 2) (t2 * t2) ltac:(lra) ltac:(nra)). nra.
Qed.

(** The inequality of the upper split, with P = a^2 and R = b^2. *)
Lemma upper_split : forall a b, a ^ 2 <= 1 -> b ^ 2 <= 1 ->
  0 <= 2 + 3 * a ^ 2 - b ^ 2 + a ^ 2 * (b - a) ^ 2 /\
  4 * (1 - a ^ 2) * (1 - b ^ 2)
  <= (2 + 3 * a ^ 2 - b ^ 2 + a ^ 2 * (b - a) ^ 2) * (2 + 3 * b ^ 2 - a ^ 2 + b ^ 2 * (b - a) ^ 2).
Proof.
  intros a b Ha Hb.
  assert (0 <= a ^ 2 * (b - a) ^ 2) by (apply Rmult_le_pos; apply pow2_ge_0).
  assert (0 <= b ^ 2 * (b - a) ^ 2) by (apply Rmult_le_pos; apply pow2_ge_0).
  pose proof (pow2_ge_0 a). pose proof (pow2_ge_0 b).
  split; [lra |].
  apply Rle_trans with ((2 + 3 * a ^ 2 - b ^ 2) * (2 + 3 * b ^ 2 - a ^ 2)).
  - set (P := a ^ 2) in *. set (R := b ^ 2) in *.
    assert (0 <= P * (1 - P)) by (apply Rmult_le_pos; lra). assert (0 <= R * (1 - R)) by (apply Rmult_le_pos; lra).
    assert (0 <= P * R) by (apply Rmult_le_pos; lra). lra.
  - apply Rmult_le_compat; lra.
Qed.

(** The inequality of the lower split. *)
Lemma lower_split : forall a b, a ^ 2 <= 1 -> b ^ 2 <= 1 ->
  0 <= 2 - a ^ 2 - b ^ 2 + (2 - a * (a - b)) ^ 2 /\
  4 * (1 - a ^ 2) * (1 - b ^ 2)
  <= (2 - a ^ 2 - b ^ 2 + (2 - a * (a - b)) ^ 2) * (2 - a ^ 2 - b ^ 2 + (2 - b * (b - a)) ^ 2).
Proof.
  intros a b Ha Hb.
  assert (0 <= (2 - a * (a - b)) ^ 2) by apply pow2_ge_0. assert (0 <= (2 - b * (b - a)) ^ 2) by apply pow2_ge_0.
  split; [lra |].
  apply Rle_trans with ((2 - a ^ 2 - b ^ 2) * (2 - a ^ 2 - b ^ 2)).
  - pose proof (Rle_0_sqr (a ^ 2 - b ^ 2)) as Q. unfold Rsqr in Q. lra.
  - apply Rmult_le_compat; lra.
Qed.

Section Triple.
Context {V : space}.

(** Half the second derivative of (s_2 - s_1)^2 at unit frames u, v, w in the direction x, y, z. *)
Definition triple_form (u v w x y z : V) : R :=
  (unit_cosine' v w y z - unit_cosine' u v x y) ^ 2
  + (<< v, w >> - << u, v >>) * (unit_cosine'' v w y z - unit_cosine'' u v x y).

(** Key lemma: |x^T H x| <= 4 (p^2 + q^2), p = |x_1| + |x_2|, q = |x_2| + |x_3|, at three unit frames. *)
Theorem key_lemma : forall u v w x y z : V, << u, u >> = 1 -> << v, v >> = 1 -> << w, w >> = 1 ->
  Rabs (2 * triple_form u v w x y z) <= 4 * ((len x + len y) ^ 2 + (len y + len z) ^ 2).
Proof.
  intros u v w x y z Hu Hv Hw.
  destruct (pair_coordinates u v x y Hu Hv)
    as (S1 & r1 & s1 & n1 & r2 & s2 & n2 & w1 & P1 & Q1 & N1 & N2 & W1 & X1 & X2 & D1 & D1').
  destruct (pair_coordinates v w y z Hv Hw)
    as (S2 & r3 & s3 & n3 & r4 & s4 & n4 & w2 & P2 & Q2 & N3 & N4 & W2 & X3 & X4 & D2 & D2').
  unfold triple_form. rewrite D1, D2, D1', D2'.
  pose proof (cauchy_schwarz_square u v) as C1. pose proof (cauchy_schwarz_square v w) as C2.
  rewrite Hu, Hv in C1. rewrite Hv, Hw in C2.
  set (a := << u, v >>) in *. set (b := << v, w >>) in *.
  rewrite <- len_sqr in X1, X2, X3, X4.
  pose proof (len_pos x) as Lx. pose proof (len_pos y) as Ly. pose proof (len_pos z) as Lz.
  assert (Ha : a ^ 2 <= 1) by lra. assert (Hb : b ^ 2 <= 1) by lra.
  assert (Ba : -1 <= a <= 1) by nra. assert (Bb : -1 <= b <= 1) by nra.
  assert (Hd : (b - a) ^ 2 <= 4) by (pose proof (pow2_ge_0 (a + b)); lra).
  assert (Hd0 : 0 <= (b - a) ^ 2) by apply pow2_ge_0.
  set (t1 := s1 + s2) in *. set (t2 := s3 + s4) in *.
  assert (E1 : -2 <= 2 - (b - a) ^ 2 * S1 ^ 2 / 2 <= 2).
  { assert (0 <= (b - a) ^ 2 * S1 ^ 2) by (apply Rmult_le_pos; [easy | apply pow2_ge_0]).
    assert (0 <= (b - a) ^ 2 * a ^ 2) by (apply Rmult_le_pos; [easy | apply pow2_ge_0]). rewrite Q1 in *. lra. }
  assert (E2 : -2 <= 2 - (b - a) ^ 2 * S2 ^ 2 / 2 <= 2).
  { assert (0 <= (b - a) ^ 2 * S2 ^ 2) by (apply Rmult_le_pos; [easy | apply pow2_ge_0]).
    assert (0 <= (b - a) ^ 2 * b ^ 2) by (apply Rmult_le_pos; [easy | apply pow2_ge_0]). rewrite Q2 in *. lra. }
  assert (Bound1 : forall tau, tau ^ 2 = (b - a) ^ 2 -> -2 <= tau <= 2 ->
    (2 - (b - a) ^ 2 * S1 ^ 2 / 2) * t1 ^ 2 - 2 * tau * S1 * (r1 * s1 + r2 * s2) + tau * (2 * w1 - a * (n1 + n2))
    <= 2 * (len x + len y) ^ 2).
  { intros tau T1 T2. apply pair_bound; try easy; try lra; rewrite T1; lra. }
  assert (Bound2 : forall tau, tau ^ 2 = (b - a) ^ 2 -> -2 <= tau <= 2 ->
    (2 - (b - a) ^ 2 * S2 ^ 2 / 2) * t2 ^ 2 - 2 * tau * S2 * (r3 * s3 + r4 * s4) + tau * (2 * w2 - b * (n3 + n4))
    <= 2 * (len y + len z) ^ 2).
  { intros tau T1 T2. apply pair_bound; try easy; try lra; rewrite T1; lra. }
  assert (Up : 0 <= (2 + a * (a - b) - (b - a) ^ 2 * S1 ^ 2 / 2 - S1 ^ 2) * t1 ^ 2 + 2 * (S1 * S2) * (t1 * t2)
                   + (2 + b * (b - a) - (b - a) ^ 2 * S2 ^ 2 / 2 - S2 ^ 2) * t2 ^ 2).
  { destruct (upper_split a b Ha Hb) as [U1 U2]. destruct (upper_split b a Hb Ha) as [U3 _].
    replace (a - b) with (- (b - a)) in U3 by ring.
    apply binary_form.
    - rewrite Q1. lra.
    - rewrite Q2. lra.
    - replace ((S1 * S2) ^ 2) with (S1 ^ 2 * S2 ^ 2) by ring. rewrite Q1, Q2. lra. }
  assert (Low : 0 <= (2 - a * (a - b) - (b - a) ^ 2 * S1 ^ 2 / 2 + S1 ^ 2) * t1 ^ 2 + 2 * (- (S1 * S2)) * (t1 * t2)
                    + (2 - b * (b - a) - (b - a) ^ 2 * S2 ^ 2 / 2 + S2 ^ 2) * t2 ^ 2).
  { destruct (lower_split a b Ha Hb) as [U1 U2]. destruct (lower_split b a Hb Ha) as [U3 _].
    apply binary_form.
    - rewrite Q1. lra.
    - rewrite Q2. lra.
    - replace ((- (S1 * S2)) ^ 2) with (S1 ^ 2 * S2 ^ 2) by ring. rewrite Q1, Q2. lra. }
  apply Rabs_le. split.
  - pose proof (Bound1 (b - a) eq_refl ltac:(lra)) as G1.
    pose proof (Bound2 (- (b - a)) ltac:(ring) ltac:(lra)) as G2. lra.
  - pose proof (Bound1 (- (b - a)) ltac:(ring) ltac:(lra)) as G1.
    pose proof (Bound2 (b - a) eq_refl ltac:(lra)) as G2. lra.
Qed.

End Triple.
