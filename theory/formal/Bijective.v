(** * C3.bijective, the inequality: a sampling step of an exact score keeps states apart

    If << e(y) - e(y'), y - y' >> <= |y - y'|^2 / sigma_t, as for the exact score of any data, the step
    F(y) = y - h e(y), h = sigma_t - sigma_s, has ||F(y) - F(y')|| >= (sigma_s/sigma_t) ||y - y'||. *)

From Coq Require Import Reals Lra Lia Psatz.
From framebound Require Import Inner.
Open Scope R_scope.

(** Strong monotonicity keeps points apart. *)
Lemma monotone_apart : forall (V : space) (a d : V) rho, 0 <= rho -> rho * << d, d >> <= << a, d >> -> rho * len d
  <= len a.
Proof.
  intros V a d rho Hr H. pose proof (inner_le a d) as C. rewrite <- len_sqr in H. pose proof (len_pos d) as P.
  pose proof (len_pos a).
  destruct (Req_dec (len d) 0) as [Z | Z]; [rewrite Z; lra |].
  apply (Rmult_le_reg_r (len d)); [lra |]. lra.
Qed.

Theorem step_keeps_apart : forall (V : space) (e : V -> V) sigma_s sigma_t (y y' : V), 0 < sigma_s
  -> sigma_s < sigma_t ->
  << e y [-] e y', y [-] y' >> <= << y [-] y', y [-] y' >> / sigma_t ->
  let step v := v [-] (sigma_t - sigma_s) [*] e v in
  sigma_s / sigma_t * len (y [-] y') <= len (step y [-] step y').
Proof.
  intros V e ss st y y' Hs Ht H step. apply monotone_apart; [apply Rlt_le, Rdiv_lt_0_compat; lra |].
  set (d := y [-] y') in *.
  replace (step y [-] step y') with (d [-] (st - ss) [*] (e y [-] e y')) by (unfold step, d; vectors).
  rewrite inner_add, inner_scale, inner_scale.
  pose proof (Rmult_le_compat_l (st - ss) _ _ ltac:(lra) H) as B.
  replace (ss / st * << d, d >>) with (<< d, d >> - (st - ss) * (<< d, d >> / st)) by (field; lra). lra.
Qed.

(** Sharp: for data that are one point u, e(y) = (y - u)/sigma_t, equality. *)
Theorem step_keeps_apart_sharp : forall (V : space) (u y y' : V) sigma_s sigma_t, 0 < sigma_s -> sigma_s < sigma_t ->
  let e v := / sigma_t [*] (v [-] u) in
  let step v := v [-] (sigma_t - sigma_s) [*] e v in
  << e y [-] e y', y [-] y' >> = << y [-] y', y [-] y' >> / sigma_t
  /\ len (step y [-] step y') = sigma_s / sigma_t * len (y [-] y').
Proof.
  intros V u y y' ss st Hs Ht e step. split.
  - replace (e y [-] e y') with (/ st [*] (y [-] y')) by (unfold e; vectors). rewrite inner_scale. field. lra.
  - replace (step y [-] step y') with ((ss / st) [*] (y [-] y')) by (unfold step, e; vectors; field; lra).
    rewrite len_scale, Rabs_pos_eq; [reflexivity |]. apply Rlt_le, Rdiv_lt_0_compat; lra.
Qed.
