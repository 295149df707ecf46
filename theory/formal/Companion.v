(** * C1.companion: cosines over vectors of length one are flat

    On the line every similarity of numbers other than 0 is 1 or -1, and its derivative vanishes in every direction, so
    whatever is computed from such similarities has gradient 0. *)

From Coq Require Import Reals Lra Lia Psatz.
From framebound Require Import Inner TemporalLoss.
Open Scope R_scope.

Lemma nonzero_square : forall a : line_space, a <> 0 -> 0 < << a, a >>.
Proof. intros a H. simpl. pose proof (Rsqr_pos_lt a H) as P. exact P. Qed.

Theorem similarity_is_sign : forall a b : line_space, a <> 0 -> b <> 0 -> similarity a b ^ 2 = 1.
Proof.
  intros a b Ha Hb. pose proof (len_positive a (nonzero_square a Ha)) as A.
  pose proof (len_positive b (nonzero_square b Hb)) as B.
  assert (E : << a, b >> * << a, b >> = << a, a >> * << b, b >>) by (simpl; ring).
  rewrite <- !len_sqr in E. unfold similarity.
  replace ((<< a, b >> / (len a * len b)) ^ 2) with (<< a, b >> * << a, b >> / (len a * len a * (len b * len b)))
    by (field; lra).
  rewrite E. field. lra.
Qed.

Theorem similarity_is_flat : forall a b x y : line_space, a <> 0 -> b <> 0 -> similarity' a b x y = 0.
Proof.
  intros a b x y Ha Hb. pose proof (nonzero_square a Ha) as A. pose proof (nonzero_square b Hb) as B.
  assert (Flat : forall c d : line_space, c <> 0 -> d <> 0 -> << pull c d, pull c d >> = 0).
  { intros c d Hc Hd. rewrite pull_square by now apply nonzero_square. rewrite similarity_is_sign by easy.
    unfold Rdiv. ring. }
  rewrite similarity'_pull by easy.
  rewrite (inner_null _ x (Flat a b Ha Hb)), (inner_null _ y (Flat b a Hb Ha)). ring.
Qed.
