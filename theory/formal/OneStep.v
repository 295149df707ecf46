(** * C2.one-step: one gradient step on a smooth function, with the sharp threshold 2/L

    Let the gradient g of f be Lipschitz with constant L from x_0 along the segment to x_1 = x_0 - eta g(x_0), eta > 0.
    Then f(x_1) - f(x_0) <= - eta (1 - eta L/2) ||g(x_0)||^2, and for every eta > 0 the factor is the least possible. *)

From Coq Require Import Reals Lra Lia Psatz.
From Coquelicot Require Import Coquelicot.
From framebound Require Import Inner.
Open Scope R_scope.

Section OneStep.
Context {V : space}.

Theorem one_step : forall (f : V -> R) (g : V -> V) (x0 : V) eta L, 0 < eta ->
  let path s := x0 [-] (s * eta) [*] g x0 in
  (forall s, 0 <= s <= 1 -> is_gradient f (path s) (g (path s))) ->
  (forall s, 0 <= s <= 1 -> len (g (path s) [-] g x0) <= L * len (path s [-] x0)) ->
  f (path 1) - f x0 <= - eta * (1 - eta * L / 2) * (len (g x0) * len (g x0)).
Proof.
  intros f g x0 eta L Heta path Hg HL.
  assert (P0 : path 0 = x0) by (unfold path; vectors).
  assert (D : forall s, 0 <= s <= 1 -> is_derive (fun s => f (path s)) s << g (path s), (- eta) [*] g x0 >>).
  { intros s Hs. apply is_derive_shift.
    eapply is_derive_ext; [| apply (Hg s Hs ((- eta) [*] g x0))].
    intros t. simpl. f_equal. unfold path. vectors. }
  pose proof (parabola_upper (fun s => f (path s)) (fun s => << g (path s), (- eta) [*] g x0 >>)
    (- eta * (len (g x0) * len (g x0))) (L * eta * eta * (len (g x0) * len (g x0))) D) as T.
  assert (S : forall s, 0 <= s <= 1 ->
    << g (path s), (- eta) [*] g x0 >>
    <= - eta * (len (g x0) * len (g x0)) + L * eta * eta * (len (g x0) * len (g x0)) * s).
  { intros s Hs. pose proof (HL s Hs) as B.
    assert (E : len (path s [-] x0) = s * eta * len (g x0)).
    { replace (path s [-] x0) with ((- (s * eta)) [*] g x0) by (unfold path; vectors).
      rewrite len_scale, Rabs_Ropp, Rabs_pos_eq; [ring |]. apply Rmult_le_pos; lra. }
    rewrite E in B.
    pose proof (inner_ge (g (path s) [-] g x0) (g x0)) as C.
    pose proof (Rmult_le_compat_r _ _ _ (len_pos (g x0)) B) as B'.
    replace << g (path s), (- eta) [*] g x0 >> with (- eta * << g (path s) [-] g x0, g x0 >> - eta * << g x0, g x0 >>)
      by (expand_inner; ring).
    rewrite <- len_sqr.
    assert (- << g (path s) [-] g x0, g x0 >> <= L * (s * eta * len (g x0)) * len (g x0)) by lra.
    pose proof (Rmult_le_compat_l eta _ _ ltac:(lra) H). lra. }
  specialize (T S). cbv beta in T. rewrite P0 in T. lra.
Qed.

(** The parabola L ||x||^2 / 2 attains it, for every eta and every start. *)
Theorem one_step_attained : forall L eta (x0 : V),
  let f := fun x : V => L / 2 * << x, x >> in let g := fun x : V => L [*] x in
  (forall x, is_gradient f x (g x)) /\ (0 <= L -> forall x y, len (g x [-] g y) <= L * len (x [-] y)) /\
  f (x0 [-] eta [*] g x0) - f x0 = - eta * (1 - eta * L / 2) * (len (g x0) * len (g x0)).
Proof.
  intros L eta x0 f g. split; [| split].
  - intros x v. apply is_derive_ext with (f := fun s => L / 2 * (<< x, x >> + 2 * << x, v >> * s + << v, v >> * s ^ 2)).
    + intros s. unfold f. expand_inner. rewrite (inner_sym _ v x).
      match goal with |- @eq _ ?a ?b => change (@eq R a b) end. ring.
    + unfold g. auto_derive; [easy |]. expand_inner. field.
  - intros HL x y. replace (g x [-] g y) with (L [*] (x [-] y)) by (unfold g; vectors).
    rewrite len_scale, Rabs_pos_eq; lra.
  - rewrite len_sqr. unfold f, g. expand_inner. field.
Qed.

(** So no smaller factor serves: a c that bounds the change of every such function is at least - eta (1 - eta L/2). *)
Theorem one_step_sharp : forall L eta c (e : V), 0 < L -> << e, e >> = 1 ->
  (forall (f : V -> R) (g : V -> V), (forall x, is_gradient f x (g x)) ->
     (forall x y, len (g x [-] g y) <= L * len (x [-] y)) ->
     forall x0, f (x0 [-] eta [*] g x0) - f x0 <= c * (len (g x0) * len (g x0))) ->
  - eta * (1 - eta * L / 2) <= c.
Proof.
  intros L eta c e HL He H. destruct (one_step_attained L eta e) as (A & B & C).
  pose proof (H _ _ A (B ltac:(lra)) e) as D. cbv beta in D, C. rewrite C in D.
  assert (Q : len (L [*] e) * len (L [*] e) = L * L) by (rewrite len_sqr; expand_inner; rewrite He; ring).
  rewrite Q in D. apply Rmult_le_reg_r with (L * L); [nra | exact D].
Qed.

(** The threshold: the factor is negative below 2/L, 0 at 2/L and positive above. *)
Theorem threshold : forall L eta, 0 < L -> 0 < eta ->
  (eta < 2 / L -> - eta * (1 - eta * L / 2) < 0) /\ (eta = 2 / L -> - eta * (1 - eta * L / 2) = 0)
  /\ (eta > 2 / L -> - eta * (1 - eta * L / 2) > 0).
Proof.
  intros L eta HL He. assert (Q : eta * L / 2 - 1 = L / 2 * (eta - 2 / L)) by (field; lra).
  replace (- eta * (1 - eta * L / 2)) with (eta * (L / 2 * (eta - 2 / L))) by (rewrite <- Q; ring).
  assert (0 < L / 2) by lra. repeat split; intros Hx.
  - assert (0 < eta * (L / 2)) by (apply Rmult_lt_0_compat; lra). nra.
  - rewrite Hx. ring.
  - apply Rmult_lt_0_compat; [lra |]. apply Rmult_lt_0_compat; lra.
Qed.

End OneStep.
