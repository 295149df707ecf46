(** * Inner-product spaces, and equations between vectors

    Everything below is proved for EVERY real vector space with an inner product, so for every dimension at once. That
    the inner product of a vector with itself vanishes at the origin only is never used, and not asked for. *)

From Coq Require Import Reals Lra Lia Psatz List FunctionalExtensionality.
From Coquelicot Require Import Coquelicot.
Import ListNotations.
Open Scope R_scope.

(** ** A real vector space with an inner product *)

Record space := Space {
  vector :> Type;
  origin : vector;
  add : vector -> vector -> vector;
  scale : R -> vector -> vector;
  inner : vector -> vector -> R;
  add_sym : forall x y, add x y = add y x;
  add_assoc : forall x y z, add x (add y z) = add (add x y) z;
  add_origin : forall x, add x origin = x;
  scale_one : forall x, scale 1 x = x;
  scale_zero : forall x, scale 0 x = origin;
  scale_scale : forall a b x, scale a (scale b x) = scale (a * b) x;
  scale_sum : forall a b x, scale (a + b) x = add (scale a x) (scale b x);
  scale_add : forall a x y, scale a (add x y) = add (scale a x) (scale a y);
  inner_sym : forall x y, inner x y = inner y x;
  inner_add : forall x y z, inner (add x y) z = inner x z + inner y z;
  inner_scale : forall a x y, inner (scale a x) y = a * inner x y;
  inner_pos : forall x, 0 <= inner x x }.

Arguments origin {s}.
Arguments add {s}.
Arguments scale {s}.
Arguments inner {s}.

Declare Scope space_scope.
Delimit Scope space_scope with space.
Bind Scope space_scope with vector.
Open Scope space_scope.
Notation "x [+] y" := (add x y) (at level 50, left associativity) : space_scope.
Notation "a [*] x" := (scale a x) (at level 40, left associativity) : space_scope.
Notation "x [-] y" := (add x (scale (-1) y)) (at level 50, left associativity) : space_scope.
Notation "<< x , y >>" := (inner x y) (at level 0, x at level 60, y at level 60) : space_scope.

(** The length of a vector. *)
Definition len {V : space} (x : V) : R := sqrt << x, x >>.

(** ** Linearity on the other side *)

Section Inner.
Context {V : space}.
Implicit Types x y z : V.

Lemma inner_add_r : forall x y z, << x, y [+] z >> = << x, y >> + << x, z >>.
Proof. intros. now rewrite inner_sym, inner_add, (inner_sym _ y), (inner_sym _ z). Qed.

Lemma inner_scale_r : forall a x y, << x, a [*] y >> = a * << x, y >>.
Proof. intros. now rewrite inner_sym, inner_scale, (inner_sym _ y). Qed.

Lemma inner_origin : forall x, << origin, x >> = 0.
Proof. intros. rewrite <- (scale_zero _ x), inner_scale. ring. Qed.

Lemma inner_origin_r : forall x, << x, origin >> = 0.
Proof. intros. now rewrite inner_sym, inner_origin. Qed.

Lemma len_pos : forall x, 0 <= len x.
Proof. intros. apply sqrt_pos. Qed.

Lemma len_sqr : forall x, len x * len x = << x, x >>.
Proof. intros. apply sqrt_sqrt, inner_pos. Qed.

Lemma len_origin : len (@origin V) = 0.
Proof. unfold len. now rewrite inner_origin, sqrt_0. Qed.

Lemma len_of_square : forall x a, 0 <= a -> << x, x >> = a * a -> len x = a.
Proof. intros x a Ha H. unfold len. rewrite H. now apply sqrt_square. Qed.

Lemma len_le : forall x a, 0 <= a -> << x, x >> <= a * a -> len x <= a.
Proof. intros x a Ha H. unfold len. rewrite <- (sqrt_square a) by easy. now apply sqrt_le_1_alt. Qed.

Lemma len_positive : forall x, 0 < << x, x >> -> 0 < len x.
Proof. intros. now apply sqrt_lt_R0. Qed.

(** Cauchy and Schwarz. *)
Lemma cauchy_schwarz_square : forall x y, << x, y >> * << x, y >> <= << x, x >> * << y, y >>.
Proof.
  intros x y.
  destruct (Req_dec << y, y >> 0) as [Hy | Hy].
  - assert (H : forall s, 0 <= << x, x >> + 2 * s * << x, y >>).
    { intro s. pose proof (inner_pos _ (x [+] s [*] y)) as H.
      rewrite inner_add, !inner_add_r, !inner_scale, !inner_scale_r, (inner_sym _ y x), Hy in H. lra. }
    rewrite Hy, Rmult_0_r.
    destruct (Req_dec << x, y >> 0) as [E | E]; [rewrite E; lra |].
    pose proof (H (- (<< x, x >> + 1) / (2 * << x, y >>))) as G.
    replace (2 * (- (<< x, x >> + 1) / (2 * << x, y >>)) * << x, y >>) with (- (<< x, x >> + 1)) in G by (field; easy).
    lra.
  - pose proof (inner_pos _ y) as Py.
    pose proof (inner_pos _ (<< y, y >> [*] x [-] << x, y >> [*] y)) as H.
    repeat rewrite ?inner_add, ?inner_add_r, ?inner_scale, ?inner_scale_r in H. rewrite (inner_sym _ y x) in H.
    assert (0 < << y, y >>) by lra. nra.
Qed.

Lemma cauchy_schwarz : forall x y, Rabs << x, y >> <= len x * len y.
Proof.
  intros x y.
  rewrite <- (Rabs_pos_eq (len x * len y)) by (apply Rmult_le_pos; apply len_pos).
  apply Rsqr_le_abs_0. unfold Rsqr.
  replace (len x * len y * (len x * len y)) with (len x * len x * (len y * len y)) by ring.
  rewrite !len_sqr. apply cauchy_schwarz_square.
Qed.

Lemma inner_le : forall x y, << x, y >> <= len x * len y.
Proof. intros. eapply Rle_trans; [apply Rle_abs | apply cauchy_schwarz]. Qed.

Lemma inner_ge : forall x y, - (len x * len y) <= << x, y >>.
Proof. intros. pose proof (cauchy_schwarz x y). pose proof (Rabs_maj2 << x, y >>). lra. Qed.

Lemma inner_null : forall x y, << x, x >> = 0 -> << x, y >> = 0.
Proof.
  intros x y H. pose proof (cauchy_schwarz_square x y) as C. rewrite H, Rmult_0_l in C.
  pose proof (Rle_0_sqr << x, y >>) as S. unfold Rsqr in S.
  apply Rsqr_0_uniq. unfold Rsqr. lra.
Qed.

Lemma len_scale : forall a x, len (a [*] x) = Rabs a * len x.
Proof.
  intros. apply len_of_square; [apply Rmult_le_pos; [apply Rabs_pos | apply len_pos] |].
  rewrite inner_scale, inner_scale_r, <- len_sqr.
  replace (Rabs a * len x * (Rabs a * len x)) with (Rabs a * Rabs a * (len x * len x)) by ring.
  rewrite <- Rabs_mult, (Rabs_pos_eq (a * a)) by nra. ring.
Qed.

Lemma len_triangle : forall x y, len (x [+] y) <= len x + len y.
Proof.
  intros. pose proof (len_pos x). pose proof (len_pos y). apply len_le; [lra |].
  rewrite inner_add, !inner_add_r, (inner_sym _ y x), <- !len_sqr. pose proof (inner_le x y). nra.
Qed.

Lemma len_minus : forall x y, len (x [-] y) <= len x + len y.
Proof.
  intros. eapply Rle_trans; [apply len_triangle |]. rewrite len_scale, Rabs_left by lra. lra.
Qed.

End Inner.

Global Hint Rewrite @inner_add @inner_add_r @inner_scale @inner_scale_r @inner_origin @inner_origin_r : inner.
Ltac expand_inner := autorewrite with inner.

(** ** Equations between vectors

    [vectors] proves an equation between vectors by comparing the coefficients of both sides. *)

Inductive expression :=
  | Atom (i : nat)
  | Origin
  | Sum (e f : expression)
  | Multiple (a : R) (e : expression).

Fixpoint coefficient (e : expression) (i : nat) : R :=
  match e with
  | Atom j => if Nat.eqb j i then 1 else 0
  | Origin => 0
  | Sum e f => coefficient e i + coefficient f i
  | Multiple a e => a * coefficient e i
  end.

Fixpoint agree (n : nat) (e f : expression) : Prop :=
  match n with
  | O => True
  | S p => coefficient e p = coefficient f p /\ agree p e f
  end.

Section Reflection.
Context {V : space}.

Fixpoint value (atoms : list V) (e : expression) : V :=
  match e with
  | Atom i => nth i atoms origin
  | Origin => origin
  | Sum e f => value atoms e [+] value atoms f
  | Multiple a e => a [*] value atoms e
  end.

Fixpoint combination (atoms : list V) (n : nat) (c : nat -> R) : V :=
  match n with
  | O => origin
  | S p => combination atoms p c [+] c p [*] nth p atoms origin
  end.

Lemma scale_origin : forall a, a [*] (@origin V) = origin.
Proof. intros. rewrite <- (scale_zero _ origin), scale_scale. now rewrite Rmult_0_r. Qed.

Lemma origin_add : forall x : V, origin [+] x = x.
Proof. intros. now rewrite add_sym, add_origin. Qed.

Lemma add_swap : forall a b c d : V, a [+] b [+] (c [+] d) = a [+] c [+] (b [+] d).
Proof. intros. rewrite <- !add_assoc. f_equal. rewrite !add_assoc. f_equal. apply add_sym. Qed.

Lemma combination_null : forall atoms n c, (forall i, (i < n)%nat -> c i = 0) -> combination atoms n c = origin.
Proof.
  induction n; intros c H; [easy |]. simpl. rewrite H by lia. rewrite scale_zero, add_origin. apply IHn. intros.
  apply H. lia.
Qed.

Lemma combination_ext :
  forall atoms n c d, (forall i, (i < n)%nat -> c i = d i) -> combination atoms n c = combination atoms n d.
Proof. induction n; intros c d H; [easy |]. simpl. rewrite H by lia. f_equal. apply IHn. intros. apply H. lia. Qed.

Lemma combination_atom :
  forall atoms n j, (j < n)%nat -> combination atoms n (coefficient (Atom j)) = nth j atoms origin.
Proof.
  induction n; intros j H; [lia |]. simpl. destruct (Nat.eqb_spec j n) as [E | E].
  - subst. rewrite combination_null, origin_add; [apply scale_one |].
    intros i Hi. simpl. destruct (Nat.eqb_spec n i); [lia | easy].
  - rewrite scale_zero, add_origin. apply IHn. lia.
Qed.

Lemma value_combination : forall atoms e, value atoms e = combination atoms (length atoms) (coefficient e).
Proof.
  intros atoms. induction e.
  - destruct (Nat.lt_ge_cases i (length atoms)) as [H | H].
    + symmetry. now apply combination_atom.
    + simpl. rewrite nth_overflow by easy. symmetry. apply combination_null.
      intros j Hj. simpl. destruct (Nat.eqb_spec i j); [lia | easy].
  - simpl. symmetry. now apply combination_null.
  - simpl. rewrite IHe1, IHe2. generalize (length atoms) as n. clear.
    induction n; simpl; [apply add_origin |]. rewrite add_swap, IHn, scale_sum. reflexivity.
  - simpl. rewrite IHe. generalize (length atoms) as n. clear.
    induction n; simpl; [apply scale_origin |]. now rewrite scale_add, IHn, scale_scale.
Qed.

Lemma compare_coefficients :
  forall (atoms : list V) e f, agree (length atoms) e f -> value atoms e = value atoms f.
Proof.
  intros atoms e f H. rewrite !value_combination. apply combination_ext.
  generalize dependent (length atoms). induction n; simpl; [lia |].
  intros [H1 H2] i Hi. destruct (Nat.eq_dec i n); [now subst | apply IHn; [easy | lia]].
Qed.

End Reflection.

Ltac position x atoms :=
  match atoms with
  | cons x _ => constr:(O)
  | cons _ ?rest => let n := position x rest in constr:(S n)
  end.

Ltac collect e atoms :=
  match e with
  | add ?a ?b => let atoms := collect a atoms in collect b atoms
  | scale _ ?a => collect a atoms
  | origin => atoms
  | _ => match atoms with
         | _ => let n := position e atoms in atoms
         | _ => constr:(cons e atoms)
         end
  end.

Ltac reify e atoms :=
  match e with
  | add ?a ?b => let a := reify a atoms in let b := reify b atoms in constr:(Sum a b)
  | scale ?r ?a => let a := reify a atoms in constr:(Multiple r a)
  | origin => constr:(Origin)
  | _ => let n := position e atoms in constr:(Atom n)
  end.

Ltac vectors_to_reals :=
  match goal with
  | |- @eq _ ?a ?b =>
      match type of a with
      | ?type =>
          let atoms := collect a (@nil type) in
          let atoms := collect b atoms in
          let e := reify a atoms in
          let f := reify b atoms in
          change (value atoms e = value atoms f); apply compare_coefficients; simpl; repeat split
      end
  end.

Ltac vectors := vectors_to_reals; try ring.
