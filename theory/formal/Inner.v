(** * Finite sums, the space of n frames, and gradients along lines, in every inner-product space *)

From Coq Require Import Reals Lra Lia Psatz FunctionalExtensionality.
From Coquelicot Require Import Coquelicot.
From framebound Require Export Space.
Open Scope R_scope.

(** ** Finite sums: [sum n f] is f 0 + .. + f (n - 1), the library's sum_f_R0, and 0 for n = 0 *)

Fixpoint sum (n : nat) (f : nat -> R) : R :=
  match n with
  | O => 0
  | S p => sum p f + f p
  end.

Lemma sum_is_library : forall n f, sum (S n) f = sum_f_R0 f n.
Proof. induction n; intros; [simpl; ring |]. change (sum (S n) f + f (S n) = sum_f_R0 f n + f (S n)).
now rewrite IHn. Qed.

Lemma sum_S : forall n f, sum (S n) f = sum n f + f n.
Proof. easy. Qed.

Lemma sum_ext : forall n f g, (forall i, (i < n)%nat -> f i = g i) -> sum n f = sum n g.
Proof. induction n; intros f g H; [easy |]. simpl. rewrite H by lia. f_equal. apply IHn. intros. apply H. lia. Qed.

Lemma sum_le : forall n f g, (forall i, (i < n)%nat -> f i <= g i) -> sum n f <= sum n g.
Proof.
  induction n; intros f g H; [simpl; lra |]. simpl. apply Rplus_le_compat; [| apply H; lia]. apply IHn. intros.
  apply H. lia.
Qed.

Lemma sum_plus : forall n f g, sum n (fun i => f i + g i) = sum n f + sum n g.
Proof. induction n; intros; simpl; [ring | rewrite IHn; ring]. Qed.

Lemma sum_scale : forall n a f, sum n (fun i => a * f i) = a * sum n f.
Proof. induction n; intros; simpl; [ring | rewrite IHn; ring]. Qed.

Lemma sum_opp : forall n f, sum n (fun i => - f i) = - sum n f.
Proof. induction n; intros; simpl; [ring | rewrite IHn; ring]. Qed.

Lemma sum_minus : forall n f g, sum n (fun i => f i - g i) = sum n f - sum n g.
Proof. induction n; intros; simpl; [ring | rewrite IHn; ring]. Qed.

Lemma sum_const : forall n a, sum n (fun _ => a) = INR n * a.
Proof. induction n; intros; [simpl; ring | rewrite S_INR; simpl; rewrite IHn; ring]. Qed.

Lemma sum_nonneg : forall n f, (forall i, (i < n)%nat -> 0 <= f i) -> 0 <= sum n f.
Proof.
  intros n f H. replace 0 with (sum n (fun _ => 0)) by (rewrite sum_const; ring). now apply sum_le.
Qed.

Lemma sum_zero : forall n f, (forall i, (i < n)%nat -> f i = 0) -> sum n f = 0.
Proof. intros n f H. rewrite (sum_ext n f (fun _ => 0)) by easy. rewrite sum_const. ring. Qed.

Lemma sum_first : forall n f, sum (S n) f = f O + sum n (fun i => f (S i)).
Proof. induction n; intros; [simpl; ring |]. change (sum (S n) f + f (S n) = f O + sum (S n) (fun i => f (S i))).
rewrite IHn. simpl. ring. Qed.

Lemma sum_telescope : forall n f, sum n (fun i => f (S i) - f i) = f n - f O.
Proof. induction n; intros; simpl; [ring | rewrite IHn; ring]. Qed.

Lemma sum_term : forall n f i, (forall j, (j < n)%nat -> 0 <= f j) -> (i < n)%nat -> f i <= sum n f.
Proof.
  induction n; intros f i H Hi; [lia |]. simpl. destruct (Nat.eq_dec i n) as [-> | E].
  - pose proof (sum_nonneg n f ltac:(intros; apply H; lia)). lra.
  - pose proof (H n ltac:(lia)). pose proof (IHn f i ltac:(intros; apply H; lia) ltac:(lia)). lra.
Qed.

Lemma sum_single : forall n f i, (i < n)%nat -> (forall j, (j < n)%nat -> j <> i -> f j = 0) -> sum n f = f i.
Proof.
  induction n; intros f i Hi H; [lia |]. simpl. destruct (Nat.eq_dec i n) as [-> | E].
  - rewrite sum_zero; [ring |]. intros j Hj. apply H; lia.
  - rewrite (IHn f i), (H n) by (try lia; intros; apply H; lia). ring.
Qed.

Lemma sum_null_term : forall n f, (forall i, (i < n)%nat -> 0 <= f i) -> sum n f = 0 -> forall i, (i < n)%nat -> f i
  = 0.
Proof. intros n f H S i Hi. pose proof (sum_term n f i H Hi). pose proof (H i Hi). lra. Qed.

(** The square of a sum of n terms is at most n times the sum of their squares. *)
Lemma sum_square : forall n f, sum n f * sum n f <= INR n * sum n (fun i => f i * f i).
Proof.
  induction n; intros f; [simpl; lra |]. rewrite S_INR. simpl.
  pose proof (IHn f) as H. pose proof (pos_INR n) as P.
  pose proof (sum_nonneg n (fun i => (f i - f n) * (f i - f n)) (fun i _ => Rle_0_sqr (f i - f n))) as Q.
  rewrite (sum_ext n _ (fun i => f i * f i + ((-2 * f n) * f i + f n * f n))) in Q by (intros; ring).
  rewrite !sum_plus, sum_scale, sum_const in Q. nra.
Qed.

(** ** The space of n frames *)

Lemma frames_pos : forall (V : space) n (x : nat -> V), 0 <= sum n (fun t => << x t, x t >>).
Proof. intros. apply sum_nonneg. intros. apply inner_pos. Qed.

(** Sequences of vectors, of which the inner product sees the first n: the space of n frames. *)
Definition frames (n : nat) (V : space) : space.
Proof.
  refine {|
    vector := nat -> V;
    origin := fun _ => origin;
    add := fun x y t => x t [+] y t;
    scale := fun a x t => a [*] x t;
    inner := fun x y => sum n (fun t => << x t, y t >>);
    inner_pos := frames_pos V n |}; intros.
  - apply functional_extensionality; intro. apply add_sym.
  - apply functional_extensionality; intro. apply add_assoc.
  - apply functional_extensionality; intro. apply add_origin.
  - apply functional_extensionality; intro. apply scale_one.
  - apply functional_extensionality; intro. apply scale_zero.
  - apply functional_extensionality; intro. apply scale_scale.
  - apply functional_extensionality; intro. apply scale_sum.
  - apply functional_extensionality; intro. apply scale_add.
  - apply sum_ext. intros. apply inner_sym.
  - rewrite <- sum_plus. apply sum_ext. intros. apply inner_add.
  - rewrite <- sum_scale. apply sum_ext. intros. apply inner_scale.
Defined.

(** The real line, and R^d as d frames on it. *)
Definition line_space : space.
Proof.
  refine {| vector := R; origin := 0; add := Rplus; scale := Rmult; inner := Rmult |}; intros; simpl; try ring.
  pose proof (Rle_0_sqr x). exact H.
Defined.

Definition euclidean (d : nat) : space := frames d line_space.

(** ** Gradients

    g is the gradient of f at x if f has the slope << g, v >> along every line x + s v at s = 0. *)
Definition is_gradient {V : space} (f : V -> R) (x g : V) : Prop :=
  forall v, is_derive (fun s => f (x [+] s [*] v)) 0 << g, v >>.

(** Two gradients at one point are at distance 0. *)
Lemma gradient_unique :
  forall (V : space) (f : V -> R) (x g k : V), is_gradient f x g -> is_gradient f x k -> len (g [-] k) = 0.
Proof.
  intros V f x g k Hg Hk. apply len_of_square; [lra |]. rewrite Rmult_0_l.
  pose proof (is_derive_unique _ _ _ (Hg (g [-] k))) as A. pose proof (is_derive_unique _ _ _ (Hk (g [-] k))) as B.
  rewrite A in B. rewrite inner_add, inner_scale. lra.
Qed.

Lemma is_derive_sum :
  forall n (f : nat -> R -> R) x (df : nat -> R),
    (forall i, (i < n)%nat -> is_derive (f i) x (df i)) -> is_derive (fun s => sum n (fun i => f i s)) x (sum n df).
Proof.
  induction n; intros f x df H; simpl; [apply (@is_derive_const R_AbsRing R_NormedModule) |].
  apply (@is_derive_plus R_AbsRing R_NormedModule); [apply IHn; intros; apply H; lia | apply H; lia].
Qed.

(** A curve whose slope stays below a + M s lies below the parabola with these coefficients. *)
Lemma parabola_upper : forall (f df : R -> R) a M,
  (forall s, 0 <= s <= 1 -> is_derive f s (df s)) -> (forall s, 0 <= s <= 1 -> df s <= a + M * s) ->
  f 1 <= f 0 + a + M / 2.
Proof.
  intros f df a M Hf Slope.
  set (g := fun s => f s - (f 0 + a * s + M / 2 * (s * s))).
  assert (Hg : forall s, 0 <= s <= 1 -> is_derive g s (df s - (a + M * s))).
  { intros s Hs. unfold g. apply (@is_derive_minus R_AbsRing R_NormedModule); [now apply Hf |].
    auto_derive; [easy | field]. }
  destruct (MVT_gen g 0 1 (fun s => df s - (a + M * s))) as [c [Hc E]].
  - rewrite Rmin_left, Rmax_right by lra. intros. apply Hg. lra.
  - rewrite Rmin_left, Rmax_right by lra. intros s Hs. apply derivable_continuous_pt.
    exists (df s - (a + M * s)). apply is_derive_Reals, Hg. lra.
  - rewrite Rmin_left, Rmax_right in Hc by lra. pose proof (Slope c Hc). unfold g in E. lra.
Qed.

(** Taylor's bound: a curve whose second derivative stays below M lies below its parabola. *)
Lemma taylor_upper : forall (f df ddf : R -> R) M,
  (forall s, 0 <= s <= 1 -> is_derive f s (df s)) -> (forall s, 0 <= s <= 1 -> is_derive df s (ddf s)) ->
  (forall s, 0 <= s <= 1 -> ddf s <= M) -> f 1 <= f 0 + df 0 + M / 2.
Proof.
  intros f df ddf M Hf Hdf HM. apply parabola_upper with df; [exact Hf |].
  intros s Hs. destruct (MVT_gen df 0 s ddf) as [c [Hc E]].
  - rewrite Rmin_left, Rmax_right by lra. intros. apply Hdf. lra.
  - rewrite Rmin_left, Rmax_right by lra. intros. apply derivable_continuous_pt.
    exists (ddf x). apply is_derive_Reals, Hdf. lra.
  - rewrite Rmin_left, Rmax_right in Hc by lra.
    pose proof (Rmult_le_compat_r (s - 0) _ _ ltac:(lra) (HM c ltac:(lra))). lra.
Qed.

(** A derivative at h is one at 0 of the curve that starts there. *)
Lemma is_derive_shift : forall (f : R -> R) h l, is_derive (fun s => f (h + s)) 0 l -> is_derive f h l.
Proof.
  intros f h l H.
  apply is_derive_ext with (f := fun s => f (h + (s - h))); [intros; f_equal; ring |].
  replace l with (1 * l) by ring.
  apply (is_derive_comp (fun u => f (h + u)) (fun s => s - h)).
  - replace (h - h) with 0 by ring. exact H.
  - auto_derive; [easy | ring].
Qed.
