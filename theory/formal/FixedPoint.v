(** * C3.fixed-point: fixed-point inversion converges at the rate q

    g(y) = y_s + h e(y) contracts by q < 1, y^(j+1) = g(y^(j)), y* = g(y* ). Then ||y^(j) - y*|| <= q^j/(1-q) ||y^(1)
      - y^(0)||,
    sharp for every j; the defect of a step that stops at y^(j) is exactly y^(j+1) - y^(j), at most q^j ||y^(1)
      - y^(0)||. *)

From Coq Require Import Reals Lra Lia Psatz.
From framebound Require Import Inner RoundTrip.
Open Scope R_scope.

Section FixedPoint.
Context {V : space}.
Variable e : V -> V.
Variables ys y0 : V.
Variables h q : R.

Fixpoint iterate (j : nat) : V := match j with O => y0 | S i => ys [+] h [*] e (iterate i) end.

(** h e has the Lipschitz constant q on a set that holds the iterates. *)
Variable D : V -> Prop.
Hypothesis holds_iterates : forall j, D (iterate j).
Hypothesis contraction : forall x y, D x -> D y -> len (h [*] (e x [-] e y)) <= q * len (x [-] y).
Hypothesis rate : 0 <= q < 1.

Lemma increments : forall j, len (iterate (S j) [-] iterate j) <= q ^ j * len (iterate 1 [-] iterate 0).
Proof.
  induction j; [simpl; lra |].
  replace (iterate (S (S j)) [-] iterate (S j)) with (h [*] (e (iterate (S j)) [-] e (iterate j))) by (simpl; vectors).
  eapply Rle_trans; [apply contraction; apply holds_iterates |].
  pose proof (Rmult_le_compat_l q _ _ ltac:(lra) IHj). simpl (q ^ S j). lra.
Qed.

(** The a-priori bound. *)
Theorem fixed_point_bound : forall ystar j, D ystar -> ystar = ys [+] h [*] e ystar ->
  len (iterate j [-] ystar) <= q ^ j / (1 - q) * len (iterate 1 [-] iterate 0).
Proof.
  intros ystar j Dstar Hstar.
  assert (Step : forall i, len (iterate (S i) [-] ystar) <= q * len (iterate i [-] ystar)).
  { intros i. replace (iterate (S i) [-] ystar) with (h [*] (e (iterate i) [-] e ystar)); [now apply contraction |].
    rewrite Hstar at 2. simpl. vectors. }
  assert (Start : len (iterate 0 [-] ystar) <= / (1 - q) * len (iterate 1 [-] iterate 0)).
  { assert (T : len (iterate 0 [-] ystar) <= len (iterate 1 [-] ystar) + len (iterate 1 [-] iterate 0)).
    { replace (iterate 0 [-] ystar) with ((iterate 1 [-] ystar) [-] (iterate 1 [-] iterate 0)) by vectors.
      apply len_minus. }
    pose proof (Step O). apply (Rmult_le_reg_l (1 - q)); [lra |].
    rewrite <- Rmult_assoc, Rinv_r, Rmult_1_l by lra. lra. }
  induction j.
  - simpl pow. unfold Rdiv. rewrite Rmult_1_l. exact Start.
  - eapply Rle_trans; [apply Step |]. pose proof (Rmult_le_compat_l q _ _ ltac:(lra) IHj) as B.
    replace (q ^ S j / (1 - q)) with (q * (q ^ j / (1 - q))) by (simpl; field; lra). lra.
Qed.

(** The step that stops at z_(k+1) = y^(j), j >= 1, has exactly the defect y^(j+1) - y^(j). *)
Theorem stopped_defect : forall j, ys = (iterate (S j) [-] h [*] e (iterate (S j))) [+] (iterate (S (S j)) [-] iterate
  (S j)).
Proof. intros. simpl. vectors. Qed.

Theorem stopped_defect_bound : forall j, len (iterate (S j) [-] iterate j) <= q ^ j * len (iterate 1 [-] iterate 0).
Proof. exact increments. Qed.

End FixedPoint.

(** Sharp: for e(y) = L y from y^(0) = y_s the bound is an equality for every j. *)
Theorem fixed_point_attained : forall (V : space) (ys : V) h L j, 0 <= h * L < 1 ->
  let y := iterate (fun v => L [*] v) ys ys h in
  let ystar := / (1 - h * L) [*] ys in
  ystar = ys [+] h [*] (L [*] ystar) /\
  len (y j [-] ystar) = (h * L) ^ j / (1 - h * L) * len (y 1%nat [-] y 0%nat).
Proof.
  intros V ys h L j Hq y ystar. set (q := h * L) in *.
  assert (Closed : forall i, y i = ((1 - q ^ S i) / (1 - q)) [*] ys).
  { induction i.
    - unfold y. simpl. vectors. field. lra.
    - change (y (S i)) with (ys [+] h [*] (L [*] y i)). rewrite IHi. unfold q in *. simpl. vectors. field. lra. }
  split.
  - unfold ystar, q in *. vectors. field. lra.
  - replace (y j [-] ystar) with ((- (q ^ S j / (1 - q))) [*] ys) by (rewrite Closed; unfold ystar; vectors; field;
      lra).
    replace (y 1%nat [-] y 0%nat) with (q [*] ys) by (rewrite !Closed; simpl; vectors; field; lra).
    assert (P : 0 <= q ^ S j / (1 - q)).
    { apply Rmult_le_pos; [apply pow_le; lra | apply Rlt_le, Rinv_0_lt_compat; lra]. }
    rewrite !len_scale, Rabs_Ropp, !Rabs_pos_eq by (easy || lra). simpl. field. lra.
Qed.
