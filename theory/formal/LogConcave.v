(** * C3.log-concave, the linear case: a sampling step is non-expansive when 0 <= h J <= I

    Exact scores of Gaussian data: e_k(y) = A_k y + b_k with A_k symmetric. If (1 - rho) I <= h A <= I the step
    y - h (A y + b) separates two states by at most the factor rho, however long it is, so the round trip is at most
    sum_k ||d_k|| prod_(j<k) rho_j, with no exponential. *)

From Coq Require Import Reals Lra Lia Psatz.
From framebound Require Import Inner RoundTrip.
Open Scope R_scope.

(** A symmetric linear map B with lo I <= B <= hi I. *)
Record symmetric_between {V : space} (lo hi : R) (B : V -> V) : Prop := {
  map_add : forall x y, B (x [+] y) = B x [+] B y;
  map_scale : forall a x, B (a [*] x) = a [*] B x;
  map_symmetric : forall x y, << B x, y >> = << x, B y >>;
  map_lower : forall x, lo * << x, x >> <= << B x, x >>;
  map_upper : forall x, << B x, x >> <= hi * << x, x >> }.

Section Map.
Context {V : space}.

(** Cauchy and Schwarz for the form << B x, y >> of B >= 0. *)
Lemma form_cauchy : forall hi (B : V -> V) x y, symmetric_between 0 hi B ->
  << B x, y >> * << B x, y >> <= << B x, x >> * << B y, y >>.
Proof.
  intros hi B x y H.
  assert (Q : forall s, 0 <= << B x, x >> + 2 * s * << B x, y >> + s * s * << B y, y >>).
  { intros s. pose proof (map_lower _ _ _ H (x [+] s [*] y)) as P.
    rewrite (map_add _ _ _ H), (map_scale _ _ _ H), Rmult_0_l in P. revert P. expand_inner.
    rewrite (map_symmetric _ _ _ H y x), (inner_sym _ y (B x)). lra. }
  pose proof (map_lower _ _ _ H y) as Py. rewrite Rmult_0_l in Py.
  destruct (Req_dec << B y, y >> 0) as [E | E].
  - rewrite E, Rmult_0_r. destruct (Req_dec << B x, y >> 0) as [F | F]; [rewrite F; lra |].
    pose proof (Q (- (<< B x, x >> + 1) / (2 * << B x, y >>))) as G. rewrite E in G.
    replace (2 * (- (<< B x, x >> + 1) / (2 * << B x, y >>)) * << B x, y >>) with (- (<< B x, x >> + 1)) in G
      by (field; easy).
    lra.
  - assert (P : 0 < << B y, y >>) by lra. pose proof (Q (- << B x, y >> / << B y, y >>)) as G.
    apply (Rmult_le_compat_l << B y, y >>) in G; [| lra].
    replace (<< B y, y >> * (<< B x, x >> + 2 * (- << B x, y >> / << B y, y >>) * << B x, y >>
             + - << B x, y >> / << B y, y >> * (- << B x, y >> / << B y, y >>) * << B y, y >>))
      with (<< B x, x >> * << B y, y >> - << B x, y >> * << B x, y >>) in G by (field; lra). lra.
Qed.

(** 0 <= B <= rho I symmetric: ||B x|| <= rho ||x||. *)
Theorem symmetric_norm : forall rho (B : V -> V) x, 0 <= rho -> symmetric_between 0 rho B -> len (B x) <= rho * len x.
Proof.
  intros rho B x Hr H. apply len_le; [apply Rmult_le_pos; [easy | apply len_pos] |].
  replace (rho * len x * (rho * len x)) with (rho * (rho * (len x * len x))) by ring. rewrite len_sqr.
  pose proof (form_cauchy rho B x (B x) H) as C. pose proof (map_upper _ _ _ H x) as U.
  pose proof (map_upper _ _ _ H (B x)) as U'. pose proof (inner_pos _ (B x)) as P.
  pose proof (map_lower _ _ _ H x) as L.
  rewrite Rmult_0_l in L.
  destruct (Req_dec << B x, B x >> 0) as [E | E].
  - rewrite E. apply Rmult_le_pos; [easy |]. apply Rmult_le_pos; [easy | apply inner_pos].
  - assert (<< B x, B x >> <= rho * << B x, x >>).
    { apply Rmult_le_reg_r with << B x, B x >>; [lra |].
      eapply Rle_trans; [exact C |]. pose proof (Rmult_le_compat_l _ _ _ L U'). lra. }
    pose proof (Rmult_le_compat_l rho _ _ Hr U). lra.
Qed.

(** The step's linear part I - h A. *)
Lemma step_between : forall h rho (A : V -> V), symmetric_between (1 - rho) 1 (fun x => h [*] A x) ->
  symmetric_between 0 rho (fun x => x [-] h [*] A x).
Proof.
  intros h rho A [Ha Hs Hsym Hl Hu]. split.
  - intros x y. pose proof (Ha x y) as E.
    replace (x [+] y [-] h [*] A (x [+] y)) with (x [+] y [-] (h [*] A x [+] h [*] A y)) by (now rewrite <- E). vectors.
  - intros a x. pose proof (Hs a x) as E.
    replace (a [*] x [-] h [*] A (a [*] x)) with (a [*] x [-] a [*] (h [*] A x)) by (now rewrite <- E). vectors.
  - intros x y. pose proof (Hsym x y) as E. revert E. expand_inner. lra.
  - intros x. pose proof (Hu x) as E. revert E. expand_inner. lra.
  - intros x. pose proof (Hl x) as E. revert E. expand_inner. lra.
Qed.

(** One sampling step contracts by rho, and never expands for rho = 1. *)
Theorem step_contracts : forall h rho (A : V -> V) (b x y : V), 0 <= rho ->
  symmetric_between (1 - rho) 1 (fun v => h [*] A v) ->
  len ((x [-] h [*] (A x [+] b)) [-] (y [-] h [*] (A y [+] b))) <= rho * len (x [-] y).
Proof.
  intros h rho A b x y Hr H.
  pose proof (symmetric_norm rho _ (x [-] y) Hr (step_between h rho A H)) as N. simpl in N.
  destruct H as [Ha Hs _ _ _].
  assert (E : h [*] A (x [-] y) = h [*] A x [-] h [*] A y).
  { rewrite (Ha x ((-1) [*] y)). f_equal. apply Hs. }
  replace (x [-] h [*] (A x [+] b) [-] (y [-] h [*] (A y [+] b))) with (x [-] y [-] (h [*] A x [-] h [*] A y))
    by vectors.
  rewrite <- E. exact N.
Qed.

(** C3.log-concave for affine predictors: ||E_0|| <= sum_k ||d_k|| prod_(j<k) rho_j. *)
Theorem no_exponential : forall N (h rho : nat -> R) (A : nat -> V -> V) (b : nat -> V) (z w d : nat -> V),
  let e := fun k y => A k y [+] b k in
  (forall k, (k < N)%nat -> 0 <= rho k /\ symmetric_between (1 - rho k) 1 (fun v => h k [*] A (S k) v)) ->
  (forall k, (k < N)%nat -> w k = sampling_step h e k (w (S k))) ->
  (forall k, (k < N)%nat -> z k = sampling_step h e k (z (S k)) [+] d k) ->
  w N = z N -> len (w O [-] z O) <= round_trip_bound N (fun k => len (d k)) rho.
Proof.
  intros N h rho A b z w d e H Hw Hz HN. apply (any_inversion N h e z w d Hw Hz HN).
  - intros k Hk. apply H. lia.
  - intros k Hk. unfold sampling_step, e, error. apply step_contracts; apply H; lia.
Qed.

End Map.

(** The factor of m-strongly log-concave data lies in [0, 1]: J >= m sigma/(1 + m sigma^2) and h <= sigma. *)
Theorem log_concave_factor : forall h m sigma, 0 <= m -> 0 <= h <= sigma ->
  0 <= 1 - h * m * sigma / (1 + m * sigma ^ 2) <= 1.
Proof.
  intros h m sigma Hm [Hh Hs]. assert (P : 0 <= m * sigma) by (apply Rmult_le_pos; lra).
  assert (0 <= m * sigma ^ 2) by (apply Rmult_le_pos; [easy | apply pow2_ge_0]).
  assert (0 <= h * m * sigma <= m * sigma ^ 2).
  { split; [repeat apply Rmult_le_pos; lra |]. pose proof (Rmult_le_compat_r _ _ _ P Hs). lra. }
  assert (0 <= h * m * sigma / (1 + m * sigma ^ 2)).
  { apply Rmult_le_pos; [lra | apply Rlt_le, Rinv_0_lt_compat; lra]. }
  assert (h * m * sigma / (1 + m * sigma ^ 2) <= 1).
  { apply Rmult_le_reg_r with (1 + m * sigma ^ 2); [lra |]. unfold Rdiv. rewrite Rmult_assoc, Rinv_l by lra. lra. }
  lra.
Qed.
