(** * The temporal consistency loss, its gradient and its second derivative along lines

    N frames F_0, .., F_(N-1) of any inner-product space, none of them zero; s_t is the cosine of F_t and F_(t+1), and
    L(F) = 1/(N-2) sum_t (s_(t+1) - s_t)^2. Everything about derivatives is proved with Coquelicot's [is_derive]. *)

From Coq Require Import Reals Lra Lia Psatz.
From Coquelicot Require Import Coquelicot.
From framebound Require Import Inner.
Open Scope R_scope.

(** ** Definitions *)

Section Definitions.
Context {V : space}.
Implicit Types A B x y : V.

(** The cosine of two vectors. *)
Definition similarity A B : R := << A, B >> / (len A * len B).

(** s_t *)
Definition cosine (F : nat -> V) (t : nat) : R := similarity (F t) (F (S t)).

(** L(F) = 1/(N-2) sum_t (s_(t+1) - s_t)^2 *)
Definition loss (N : nat) (F : nat -> V) : R :=
  sum (N - 2) (fun t => (cosine F (S t) - cosine F t) ^ 2) / INR (N - 2).

(** First and second derivative of the cosine of A + h x and B + h y at h = 0. *)
Definition similarity' A B x y : R :=
  (<< x, B >> + << A, y >>) / (len A * len B)
  - similarity A B * (<< A, x >> / << A, A >> + << B, y >> / << B, B >>).

Definition similarity'' A B x y : R :=
  2 * << x, y >> / (len A * len B)
  - 2 * ((<< x, B >> + << A, y >>) / (len A * len B)) * (<< A, x >> / << A, A >> + << B, y >> / << B, B >>)
  + similarity A B
    * (3 * (<< A, x >> / << A, A >>) ^ 2 - << x, x >> / << A, A >>
       + (3 * (<< B, y >> / << B, B >>) ^ 2 - << y, y >> / << B, B >>)
       + 2 * (<< A, x >> / << A, A >>) * (<< B, y >> / << B, B >>)).

Definition cosine' (F x : nat -> V) (t : nat) : R := similarity' (F t) (F (S t)) (x t) (x (S t)).
Definition cosine'' (F x : nat -> V) (t : nat) : R := similarity'' (F t) (F (S t)) (x t) (x (S t)).

(** The slope of the loss at F in the direction x. *)
Definition slope (N : nat) (F x : nat -> V) : R :=
  2 / INR (N - 2) * sum (N - 2) (fun t => (cosine F (S t) - cosine F t) * (cosine' F x (S t) - cosine' F x t)).

(** The Hessian of the loss at F as a quadratic form in x. *)
Definition hessian_form (N : nat) (F x : nat -> V) : R :=
  2 / INR (N - 2)
  * sum (N - 2) (fun t => (cosine' F x (S t) - cosine' F x t) ^ 2
                          + (cosine F (S t) - cosine F t) * (cosine'' F x (S t) - cosine'' F x t)).

(** y_t = dL/ds_t = 2/(N-2) (s_t - s_(t-1) + s_t - s_(t+1)), differences beyond the ends left out. *)
Definition difference (N : nat) (F : nat -> V) (t : nat) : R :=
  if Nat.ltb t (N - 2) then cosine F (S t) - cosine F t else 0.

Definition before (f : nat -> R) (t : nat) : R := match t with O => 0 | S p => f p end.

Definition weight (N : nat) (F : nat -> V) (t : nat) : R :=
  2 / INR (N - 2) * (before (difference N F) t - difference N F t).

(** The direction of A, and what of the direction of B is normal to A, over the length of A. *)
Definition unit A : V := / len A [*] A.
Definition pull A B : V := / len A [*] (unit B [-] similarity A B [*] unit A).

(** grad_t L = (y_(t-1) (u_(t-1) - s_(t-1) u_t) + y_t (u_(t+1) - s_t u_t)) / r_t *)
Definition gradient (N : nat) (F : nat -> V) (t : nat) : V :=
  match t with O => origin | S p => weight N F p [*] pull (F t) (F p) end
  [+] weight N F t [*] pull (F t) (F (S t)).

(** No frame is zero; all frames have norm at least m. *)
Definition no_zero_frame (N : nat) (F : nat -> V) : Prop := forall t, (t < N)%nat -> 0 < << F t, F t >>.
Definition norms_at_least (N : nat) (m : R) (F : nat -> V) : Prop := forall t, (t < N)%nat -> m <= len (F t).

End Definitions.

(** The line F + h x through frames F. *)
Definition along {V : space} (F x : nat -> V) (h : R) : nat -> V := fun t => F t [+] h [*] x t.

(** ** One cosine along a line *)

Lemma sqrt_self : forall a, 0 < a -> exists r, 0 < r /\ sqrt a = r /\ a = r * r.
Proof. intros a H. exists (sqrt a). split; [now apply sqrt_lt_R0 | split; [easy |]]. symmetry. apply sqrt_sqrt.
lra. Qed.

(** Coquelicot's derivatives leave equations in R under another name of R. *)
Ltac real_equation := match goal with |- @eq _ ?a ?b => change (@eq R a b) end.

Lemma is_derive_quotient :
  forall p0 p1 p2 a0 a1 a2 b0 b1 b2, 0 < a0 -> 0 < b0 ->
  is_derive (fun h => (p0 + p1 * h + p2 * h ^ 2) / (sqrt (a0 + 2 * a1 * h + a2 * h ^ 2) * sqrt (b0 + 2 * b1 * h + b2 *
    h ^ 2)))
    0 (p1 / (sqrt a0 * sqrt b0) - p0 / (sqrt a0 * sqrt b0) * (a1 / a0 + b1 / b0)).
Proof.
  intros p0 p1 p2 a0 a1 a2 b0 b1 b2 Ha Hb.
  destruct (sqrt_self a0 Ha) as [r [Hr [Er Ea]]]. destruct (sqrt_self b0 Hb) as [q [Hq [Eq Eb]]].
  assert (Ra : a0 + 2 * a1 * 0 + a2 * (0 * (0 * 1)) = a0) by ring.
  assert (Rb : b0 + 2 * b1 * 0 + b2 * (0 * (0 * 1)) = b0) by ring.
  auto_derive.
  - simpl. rewrite Ra, Rb, Er, Eq. repeat split; try lra. apply Rgt_not_eq. now apply Rmult_lt_0_compat.
  - simpl. rewrite Ra, Rb, Er, Eq, Ea, Eb. field. split; lra.
Qed.

Lemma is_derive_quotient' :
  forall p0 p1 p2 a0 a1 a2 b0 b1 b2, 0 < a0 -> 0 < b0 ->
  is_derive (fun h =>
      (p1 + 2 * p2 * h) / (sqrt (a0 + 2 * a1 * h + a2 * h ^ 2) * sqrt (b0 + 2 * b1 * h + b2 * h ^ 2))
      - (p0 + p1 * h + p2 * h ^ 2) / (sqrt (a0 + 2 * a1 * h + a2 * h ^ 2) * sqrt (b0 + 2 * b1 * h + b2 * h ^ 2))
        * ((a1 + a2 * h) / (a0 + 2 * a1 * h + a2 * h ^ 2) + (b1 + b2 * h) / (b0 + 2 * b1 * h + b2 * h ^ 2)))
    0 (2 * p2 / (sqrt a0 * sqrt b0) - 2 * (p1 / (sqrt a0 * sqrt b0)) * (a1 / a0 + b1 / b0)
       + p0 / (sqrt a0 * sqrt b0)
         * (3 * (a1 / a0) ^ 2 - a2 / a0 + (3 * (b1 / b0) ^ 2 - b2 / b0) + 2 * (a1 / a0) * (b1 / b0))).
Proof.
  intros p0 p1 p2 a0 a1 a2 b0 b1 b2 Ha Hb.
  destruct (sqrt_self a0 Ha) as [r [Hr [Er Ea]]]. destruct (sqrt_self b0 Hb) as [q [Hq [Eq Eb]]].
  assert (Ra : a0 + 2 * a1 * 0 + a2 * (0 * (0 * 1)) = a0) by ring.
  assert (Rb : b0 + 2 * b1 * 0 + b2 * (0 * (0 * 1)) = b0) by ring.
  assert (r * q <> 0) by (apply Rgt_not_eq; now apply Rmult_lt_0_compat).
  auto_derive.
  - simpl. rewrite Ra, Rb, Er, Eq. repeat split; try lra.
  - simpl. rewrite Ra, Rb, Er, Eq, Ea, Eb. field. split; lra.
Qed.

Section Cosine.
Context {V : space}.
Implicit Types A B x y : V.

Lemma inner_along : forall A B x y h,
  << A [+] h [*] x, B [+] h [*] y >> = << A, B >> + (<< x, B >> + << A, y >>) * h + << x, y >> * h ^ 2.
Proof. intros. expand_inner. ring. Qed.

Lemma square_along : forall A x h,
  << A [+] h [*] x, A [+] h [*] x >> = << A, A >> + 2 * << A, x >> * h + << x, x >> * h ^ 2.
Proof. intros. rewrite inner_along, (inner_sym _ x A). ring. Qed.

Lemma similarity_line : forall A B x y, 0 < << A, A >> -> 0 < << B, B >> ->
  is_derive (fun h => similarity (A [+] h [*] x) (B [+] h [*] y)) 0 (similarity' A B x y).
Proof.
  intros A B x y HA HB. eapply is_derive_ext; [| apply is_derive_quotient; [exact HA | exact HB]].
  intros h. unfold similarity, len. rewrite !square_along, inner_along. reflexivity.
Qed.

Lemma similarity_line' : forall A B x y, 0 < << A, A >> -> 0 < << B, B >> ->
  is_derive (fun h => similarity' (A [+] h [*] x) (B [+] h [*] y) x y) 0 (similarity'' A B x y).
Proof.
  intros A B x y HA HB. unfold similarity''.
  eapply is_derive_ext; [| apply is_derive_quotient'; [exact HA | exact HB]].
  intros h. unfold similarity', similarity, len. rewrite !square_along, inner_along.
  replace << x, B [+] h [*] y >> with (<< x, B >> + << x, y >> * h) by (expand_inner; ring).
  replace << A [+] h [*] x, y >> with (<< A, y >> + << x, y >> * h) by (expand_inner; ring).
  replace << A [+] h [*] x, x >> with (<< A, x >> + << x, x >> * h) by (expand_inner; ring).
  replace << B [+] h [*] y, y >> with (<< B, y >> + << y, y >> * h) by (expand_inner; ring).
  real_equation. unfold Rdiv. ring.
Qed.

Lemma along_again : forall A x h s, A [+] (h + s) [*] x = A [+] h [*] x [+] s [*] x.
Proof. intros. vectors. Qed.

Lemma similarity_line_at : forall A B x y h,
  0 < << A [+] h [*] x, A [+] h [*] x >> -> 0 < << B [+] h [*] y, B [+] h [*] y >> ->
  is_derive (fun h => similarity (A [+] h [*] x) (B [+] h [*] y)) h (similarity' (A [+] h [*] x) (B [+] h [*] y) x y).
Proof.
  intros. apply is_derive_shift. eapply is_derive_ext; [| apply similarity_line; eassumption].
  intros s. simpl. now rewrite !along_again.
Qed.

Lemma similarity_line_at' : forall A B x y h,
  0 < << A [+] h [*] x, A [+] h [*] x >> -> 0 < << B [+] h [*] y, B [+] h [*] y >> ->
  is_derive (fun h => similarity' (A [+] h [*] x) (B [+] h [*] y) x y) h
    (similarity'' (A [+] h [*] x) (B [+] h [*] y) x y).
Proof.
  intros. apply is_derive_shift. eapply is_derive_ext; [| apply similarity_line'; eassumption].
  intros s. simpl. now rewrite !along_again.
Qed.

Lemma similarity_square : forall A B, 0 < << A, A >> -> 0 < << B, B >> -> similarity A B * similarity A B <= 1.
Proof.
  intros A B HA HB. unfold similarity.
  pose proof (cauchy_schwarz_square A B) as C. rewrite <- !len_sqr in C.
  pose proof (len_positive A HA). pose proof (len_positive B HB).
  replace (<< A, B >> / (len A * len B) * (<< A, B >> / (len A * len B)))
    with (<< A, B >> * << A, B >> / (len A * len A * (len B * len B))) by (field; lra).
  apply Rle_div_l; [| lra]. repeat apply Rmult_lt_0_compat; lra.
Qed.

Lemma similarity_bounds : forall A B, 0 < << A, A >> -> 0 < << B, B >> -> -1 <= similarity A B <= 1.
Proof. intros. pose proof (similarity_square A B H H0). split; nra. Qed.

Lemma similarity_sym : forall A B, similarity A B = similarity B A.
Proof. intros. unfold similarity. now rewrite inner_sym, Rmult_comm. Qed.

Lemma unit_inner : forall A B, 0 < << A, A >> -> 0 < << B, B >> -> << unit A, unit B >> = similarity A B.
Proof.
  intros A B HA HB. unfold unit, similarity. expand_inner.
  pose proof (len_positive A HA). pose proof (len_positive B HB). field. lra.
Qed.

Lemma unit_unit : forall A, 0 < << A, A >> -> << unit A, unit A >> = 1.
Proof.
  intros A HA. unfold unit. expand_inner. rewrite <- len_sqr. pose proof (len_positive A HA). field. lra.
Qed.

Lemma similarity_of_units : forall A B, << A, A >> = 1 -> << B, B >> = 1 -> similarity A B = << A, B >>.
Proof. intros A B HA HB. unfold similarity, len. rewrite HA, HB, sqrt_1. field. Qed.

(** The derivative of a cosine, in terms of the two pulls. *)
Lemma similarity'_pull : forall A B x y, 0 < << A, A >> -> 0 < << B, B >> ->
  similarity' A B x y = << pull A B, x >> + << pull B A, y >>.
Proof.
  intros A B x y HA HB. unfold similarity', pull, unit. rewrite (similarity_sym B A). expand_inner.
  rewrite (inner_sym _ x B), <- !len_sqr.
  pose proof (len_positive A HA). pose proof (len_positive B HB). field. lra.
Qed.

(** A pull is tangential: normal to its frame. *)
Lemma pull_tangential : forall A B, 0 < << A, A >> -> 0 < << B, B >> -> << A, pull A B >> = 0.
Proof.
  intros A B HA HB. unfold pull, unit, similarity. expand_inner. rewrite <- (len_sqr A).
  pose proof (len_positive A HA). pose proof (len_positive B HB). field. lra.
Qed.

(** |u' - s u|^2 = 1 - s^2 over the squared norm of the frame. *)
Lemma pull_square : forall A B, 0 < << A, A >> -> 0 < << B, B >> ->
  << pull A B, pull A B >> = (1 - similarity A B ^ 2) / << A, A >>.
Proof.
  intros A B HA HB. unfold pull. expand_inner. rewrite (inner_sym _ (unit B) (unit A)).
  rewrite !unit_unit, unit_inner by easy.
  rewrite <- len_sqr. pose proof (len_positive A HA). field. lra.
Qed.

Lemma len_scale_pos : forall a A, 0 < a -> len (a [*] A) = a * len A.
Proof. intros. rewrite len_scale, Rabs_pos_eq; lra. Qed.

(** The cosine does not change when a vector is multiplied by a positive number. *)
Lemma similarity_scale : forall a b A B, 0 < a -> 0 < b -> 0 < << A, A >> -> 0 < << B, B >> ->
  similarity (a [*] A) (b [*] B) = similarity A B.
Proof.
  intros a b A B Ha Hb HA HB. unfold similarity. rewrite !len_scale_pos by easy. expand_inner.
  pose proof (len_positive A HA). pose proof (len_positive B HB). field. lra.
Qed.

End Cosine.

(** ** The loss along a line *)

Section Loss.
Context {V : space}.
Variable N : nat.
Hypothesis three : (3 <= N)%nat.

Lemma count_pos : 0 < INR (N - 2).
Proof. apply lt_0_INR. lia. Qed.

Lemma cosine_along : forall (F x : nat -> V) t h,
  0 < << along F x h t, along F x h t >> -> 0 < << along F x h (S t), along F x h (S t) >> ->
  is_derive (fun h => cosine (along F x h) t) h (cosine' (along F x h) x t).
Proof. intros. apply similarity_line_at; assumption. Qed.

Lemma cosine_along' : forall (F x : nat -> V) t h,
  0 < << along F x h t, along F x h t >> -> 0 < << along F x h (S t), along F x h (S t) >> ->
  is_derive (fun h => cosine' (along F x h) x t) h (cosine'' (along F x h) x t).
Proof. intros. apply similarity_line_at'; assumption. Qed.

Lemma is_derive_times : forall (f g : R -> R) h df dg,
  is_derive f h df -> is_derive g h dg -> is_derive (fun s => f s * g s) h (df * g h + f h * dg).
Proof. intros f g h df dg Hf Hg. apply (is_derive_mult f g h df dg Hf Hg). intros. apply Rmult_comm. Qed.

Lemma is_derive_sub : forall (f g : R -> R) h df dg,
  is_derive f h df -> is_derive g h dg -> is_derive (fun s => f s - g s) h (df - dg).
Proof. intros. now apply (@is_derive_minus R_AbsRing R_NormedModule). Qed.

Lemma is_derive_factor : forall (f : R -> R) h df a, is_derive f h df -> is_derive (fun s => a * f s) h (a * df).
Proof. intros. now apply is_derive_scal. Qed.

(** The loss along a line has the slope [slope], .. *)
Theorem loss_line : forall (F x : nat -> V) h, no_zero_frame N (along F x h) ->
  is_derive (fun h => loss N (along F x h)) h (slope N (along F x h) x).
Proof.
  intros F x h H. unfold loss, slope.
  apply is_derive_ext with
    (f := fun h => / INR (N - 2) * sum (N - 2) (fun t => (cosine (along F x h) (S t) - cosine (along F x h) t) ^ 2)).
  { intros. unfold Rdiv. apply Rmult_comm. }
  replace (2 / INR (N - 2) * _) with (/ INR (N - 2) * (2 * sum (N - 2) (fun t =>
    (cosine (along F x h) (S t) - cosine (along F x h) t) * (cosine' (along F x h) x (S t)
      - cosine' (along F x h) x t))))
    by (unfold Rdiv; ring).
  apply is_derive_factor. rewrite <- sum_scale. apply is_derive_sum. intros t Ht.
  assert (D : is_derive (fun h => cosine (along F x h) (S t) - cosine (along F x h) t) h
                        (cosine' (along F x h) x (S t) - cosine' (along F x h) x t)).
  { apply is_derive_sub; apply cosine_along; apply H; lia. }
  pose proof (is_derive_times _ _ _ _ _ D D) as G.
  match type of G with is_derive ?f _ ?l =>
    apply is_derive_ext with f; [intros; real_equation; ring |];
    match goal with |- is_derive _ _ ?k => replace k with l by ring end; exact G
  end.
Qed.

(** .. and that slope has the slope [hessian_form]. *)
Theorem slope_line : forall (F x : nat -> V) h, no_zero_frame N (along F x h) ->
  is_derive (fun h => slope N (along F x h) x) h (hessian_form N (along F x h) x).
Proof.
  intros F x h H. unfold slope, hessian_form. apply is_derive_factor. apply is_derive_sum. intros t Ht.
  assert (D : is_derive (fun h => cosine (along F x h) (S t) - cosine (along F x h) t) h
                        (cosine' (along F x h) x (S t) - cosine' (along F x h) x t)).
  { apply is_derive_sub; apply cosine_along; apply H; lia. }
  assert (D' : is_derive (fun h => cosine' (along F x h) x (S t) - cosine' (along F x h) x t) h
                         (cosine'' (along F x h) x (S t) - cosine'' (along F x h) x t)).
  { apply is_derive_sub; apply cosine_along'; apply H; lia. }
  replace (_ ^ 2 + _) with
    ((cosine' (along F x h) x (S t) - cosine' (along F x h) x t) * (cosine' (along F x h) x (S t)
      - cosine' (along F x h) x t)
     + (cosine (along F x h) (S t) - cosine (along F x h) t) * (cosine'' (along F x h) x (S t)
         - cosine'' (along F x h) x t))
    by ring.
  apply (is_derive_times _ _ _ _ _ D D').
Qed.

Lemma along_0 : forall (F x : nat -> V), along F x 0 = F.
Proof. intros. apply FunctionalExtensionality.functional_extensionality. intro t. unfold along. rewrite scale_zero.
apply add_origin. Qed.

(** Frames that are not zero stay so near the start of a line. *)
Lemma no_zero_frame_locally : forall (F x : nat -> V) n, (forall t, (t < n)%nat -> 0 < << F t, F t >>) ->
  locally 0 (fun h => forall t, (t < n)%nat -> 0 < << along F x h t, along F x h t >>).
Proof.
  intros F x. induction n; intros H; [apply filter_forall; intros; lia |].
  assert (G : locally 0 (fun h => 0 < << along F x h n, along F x h n >>)).
  { assert (C : @continuous R_UniformSpace R_UniformSpace (fun h => << F n, F n >> + 2 * << F n, x n >> * h + << x n,
      x n >> * h ^ 2) 0).
    { apply (@ex_derive_continuous R_AbsRing R_NormedModule). auto_derive. easy. }
    assert (P : @locally R_UniformSpace (<< F n, F n >> + 2 * << F n, x n >> * 0 + << x n,
      x n >> * 0 ^ 2) (fun v => 0 < v)).
    { apply open_gt. replace (_ + _ + _) with << F n, F n >> by ring. apply H. lia. }
    unfold continuous, filterlim, filter_le, filtermap in C. generalize (C (fun v : R => 0 < v) P). apply filter_imp.
    intros h Hh. unfold along. now rewrite square_along. }
  specialize (IHn (fun t Ht => H t (Nat.lt_lt_succ_r _ _ Ht))).
  generalize (filter_and _ _ IHn G). apply filter_imp.
  intros h [A B] t Ht. destruct (Nat.eq_dec t n) as [-> | E]; [easy | apply A; lia].
Qed.

(** The second derivative of the loss along a line, at its start, is the form [hessian_form]. *)
Theorem loss_second_derivative : forall (F x : nat -> V), no_zero_frame N F ->
  is_derive_n (fun h => loss N (along F x h)) 2 0 (hessian_form N F x).
Proof.
  intros F x H. simpl.
  apply is_derive_ext_loc with (f := fun h => slope N (along F x h) x).
  - generalize (no_zero_frame_locally F x N H). apply filter_imp. intros h Hh. symmetry.
    apply is_derive_unique. now apply loss_line.
  - pose proof (slope_line F x 0) as D. rewrite along_0 in D. now apply D.
Qed.

(** ** The gradient *)

Lemma sum_by_parts : forall n (d a : nat -> R),
  sum n (fun t => d t * (a (S t) - a t)) = sum n (fun t => (before d t - d t) * a t) + before d n * a n.
Proof. induction n; intros; simpl; [ring |]. rewrite IHn. destruct n; simpl; ring. Qed.

Lemma slope_weights : forall (F x : nat -> V), slope N F x = sum (N - 1) (fun t => weight N F t * cosine' F x t).
Proof.
  intros F x. unfold slope, weight.
  rewrite (sum_ext (N - 2) _ (fun t => difference N F t * (cosine' F x (S t) - cosine' F x t))).
  2: { intros t Ht. unfold difference. now rewrite (proj2 (Nat.ltb_lt t (N - 2))) by lia. }
  rewrite sum_by_parts. replace (N - 1)%nat with (S (N - 2)) by lia. simpl.
  rewrite (sum_ext (N - 2) (fun t => 2 / INR (N - 2) * (before (difference N F) t - difference N F t) * cosine' F x t)
                   (fun t => 2 / INR (N - 2) * ((before (difference N F) t - difference N F t) * cosine' F x t)))
    by (intros; ring).
  rewrite sum_scale.
  replace (difference N F (N - 2)) with 0; [ring |]. unfold difference. now rewrite Nat.ltb_irrefl.
Qed.

Lemma last_weight : forall F : nat -> V, weight N F (N - 1) = 0.
Proof.
  intros F. unfold weight. replace (N - 1)%nat with (S (N - 2)) by lia. simpl. unfold difference.
  rewrite Nat.ltb_irrefl. rewrite (proj2 (Nat.ltb_ge (S (N - 2)) (N - 2))) by lia. ring.
Qed.

Lemma gradient_slope : forall F x : nat -> V, no_zero_frame N F ->
  slope N F x = sum N (fun t => << gradient N F t, x t >>).
Proof.
  intros F x H. rewrite slope_weights. unfold cosine'.
  assert (G : forall n, (n <= N - 1)%nat ->
    sum n (fun t => weight N F t * similarity' (F t) (F (S t)) (x t) (x (S t)))
    = sum n (fun t => << gradient N F t, x t >>)
      + match n with O => 0 | S p => weight N F p * << pull (F n) (F p), x n >> end).
  { induction n; intros Hn; [simpl; ring |].
    change (sum (S n) ?f) with (sum n f + f n). rewrite IHn by lia.
    rewrite similarity'_pull by (apply H; lia). unfold gradient at 3. destruct n; expand_inner; ring. }
  rewrite G by lia. pose proof (last_weight F) as W.
  replace (sum N (fun t => << gradient N F t, x t >>)) with (sum (S (N - 1)) (fun t => << gradient N F t, x t >>))
    by (f_equal; lia).
  change (sum (S (N - 1)) ?f) with (sum (N - 1) f + f (N - 1)%nat). f_equal.
  destruct (N - 1)%nat as [| p] eqn:E; [lia |].
  unfold gradient. rewrite W, scale_zero, add_origin. expand_inner. ring.
Qed.

(** [gradient] is the gradient of the loss, in the space of N frames. *)
Theorem gradient_is_gradient : forall F : nat -> V, no_zero_frame N F ->
  @is_gradient (frames N V) (loss N) F (gradient N F).
Proof.
  intros F H v. simpl. rewrite <- gradient_slope by easy.
  pose proof (loss_line F v 0) as D. rewrite along_0 in D. now apply D.
Qed.

(** The gradient is tangential, frame by frame. *)
Theorem gradient_tangential : forall (F : nat -> V) t, (t < N)%nat -> no_zero_frame N F -> << F t, gradient N F t >>
  = 0.
Proof.
  intros F t Ht H. unfold gradient.
  assert (L : << F t, weight N F t [*] pull (F t) (F (S t)) >> = 0).
  { destruct (Nat.eq_dec t (N - 1)) as [-> | E].
    - rewrite last_weight. expand_inner. ring.
    - expand_inner. rewrite pull_tangential by (apply H; lia). ring. }
  expand_inner. expand_inner. rewrite inner_scale_r in L. rewrite L. destruct t; expand_inner.
  - ring.
  - rewrite pull_tangential by (apply H; lia). ring.
Qed.

Lemma norms_no_zero_frame : forall m (F : nat -> V), 0 < m -> norms_at_least N m F -> no_zero_frame N F.
Proof. intros m F Hm H t Ht. rewrite <- len_sqr. pose proof (H t Ht). nra. Qed.

End Loss.
