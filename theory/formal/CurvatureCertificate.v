(** * How a computed value of C+_N is certified, for any N whose eigenvector is given

    As in Constants.v: any list v of positive integers whose triples are balanced gives an upper bound,
      and a lower bound that
    explicit frames reach; Coq decides both in integers. *)

From Coq Require Import Reals ZArith Lra Lia Psatz List.
From framebound Require Import Inner TemporalLoss Hessian Constants UpperCurvature.
Import ListNotations.
Open Scope R_scope.

Definition second_Z (v : list Z) (t : nat) : Z := (entry v t + 2 * entry v (S t) + entry v (S (S t)))%Z.
Definition adjoint_Z (v : list Z) (t : nat) : Z :=
  let inside i := if Nat.ltb i (length v - 2) then second_Z v i else 0%Z in
  (inside t + match t with O => 0 | S p => 2 * inside p + match p with O => 0 | S o => inside o end end)%Z.

Definition balanced_check (v : list Z) : bool :=
  andb (forallb (fun t => 0 <? entry v t)%Z (seq 0 (length v)))
    (forallb (fun t => andb (andb (2 * entry v t <=? second_Z v t)%Z (2 * entry v (S (S t)) <=? second_Z v t)%Z)
                        (andb (29 * second_Z v t <=? 100 * (entry v t + entry v (S t)))%Z
                              (100 * (entry v t + entry v (S t)) <=? 71 * second_Z v t)%Z)) (seq 0 (length v - 2))).
Definition second_upper_check (v : list Z) (num den : Z) : bool :=
  forallb (fun t => (den * adjoint_Z v t <=? num * entry v t)%Z) (seq 0 (length v)).
Definition second_lower_check (v : list Z) (num den : Z) : bool :=
  (num * sum_Z (length v) (fun t => entry v t * entry v t)
   <=? den * sum_Z (length v - 2) (fun t => second_Z v t * second_Z v t))%Z.

Lemma second_Z_correct : forall v t, IZR (second_Z v t) = second_sum (fun i => IZR (entry v i)) t.
Proof. intros. unfold second_Z, second_sum. now rewrite !plus_IZR, mult_IZR. Qed.

Lemma adjoint_Z_correct : forall v t,
  IZR (adjoint_Z v t) = adjoint (length v) (second_sum (fun i => IZR (entry v i))) t.
Proof.
  intros v t.
  assert (I : forall i, IZR (if Nat.ltb i (length v - 2) then second_Z v i else 0%Z)
    = if Nat.ltb i (length v - 2) then second_sum (fun j => IZR (entry v j)) i else 0).
  { intros i. destruct (Nat.ltb i (length v - 2)); [apply second_Z_correct | reflexivity]. }
  unfold adjoint_Z, adjoint. cbv zeta. rewrite plus_IZR, I. f_equal. destruct t as [| p]; [reflexivity |].
  rewrite plus_IZR, mult_IZR, I. f_equal. destruct p as [| o]; [reflexivity | apply I].
Qed.

Lemma balanced_check_correct : forall v, balanced_check v = true -> balanced (length v) (fun i => IZR (entry v i)).
Proof.
  intros v H. unfold balanced_check in H. apply andb_prop in H. destruct H as [A B]. rewrite forallb_forall in A, B.
  split.
  - intros t Ht. specialize (A t). rewrite in_seq in A. specialize (A ltac:(lia)). now apply Z.ltb_lt, IZR_lt in A.
  - intros t Ht. specialize (B t). rewrite in_seq in B. specialize (B ltac:(lia)).
    repeat (apply andb_prop in B; destruct B as [B ?B]). apply andb_prop in B0. destruct B0 as [B0 B2].
    apply Z.leb_le, IZR_le in B. apply Z.leb_le, IZR_le in B1. apply Z.leb_le, IZR_le in B0.
    apply Z.leb_le, IZR_le in B2.
    rewrite ?mult_IZR, ?plus_IZR, ?second_Z_correct in *. repeat split; lra.
Qed.

(** The largest curvature of N frames of norm at least m lies in [low/den, high/den] / m^2: nothing exceeds the upper
    end,
    and some frames of norm m reach the lower one. *)
Theorem upper_curvature_enclosed : forall (V : space) (e1 e2 : V) v low high den m, orthonormal e1 e2 -> 0 < m ->
  (3 <= length v)%nat -> (0 < den)%Z -> balanced_check v = true ->
  second_upper_check v (high * (Z.of_nat (length v) - 2)) (2 * den) = true ->
  second_lower_check v (low * (Z.of_nat (length v) - 2)) (2 * den) = true ->
  (forall F x : nat -> V, norms_at_least (length v) m F ->
     hessian_form (length v) F x <= IZR high / IZR den / m ^ 2 * sum (length v) (fun t => << x t, x t >>)) /\
  (exists F x : nat -> V, norms_at_least (length v) m F /\ 0 < sum (length v) (fun t => << x t, x t >>) /\
     IZR low / IZR den / m ^ 2 * sum (length v) (fun t => << x t, x t >>) <= hessian_form (length v) F x).
Proof.
  intros V e1 e2 v low high den m O Hm H3 Hd B U L. set (N := length v) in *. pose proof (count_pos N H3) as P.
  assert (E : IZR (Z.of_nat N - 2) = INR (N - 2)) by (rewrite INR_IZR_INZ; f_equal; lia).
  apply IZR_lt in Hd. pose proof (balanced_check_correct v B) as Bal. fold N in Bal.
  set (r := fun i => IZR (entry v i)) in *. assert (Pos : forall t, (t < N)%nat -> 0 < r t) by apply Bal. split.
  - intros F x H.
    replace (IZR high / IZR den / m ^ 2) with (2 / INR (N - 2) * (IZR high * INR (N - 2) / (2 * IZR den)) / m ^ 2)
      by (field; lra).
    apply (upper_curvature N H3 r); try easy. intros t Ht.
    unfold second_upper_check in U. rewrite forallb_forall in U. specialize (U t). rewrite in_seq in U.
    specialize (U ltac:(fold N; lia)).
    apply Z.leb_le, IZR_le in U. rewrite !mult_IZR, adjoint_Z_correct, E in U. fold N r in U.
    apply (Rmult_le_reg_l (2 * IZR den)); [lra |].
    replace (2 * IZR den * (IZR high * INR (N - 2) / (2 * IZR den) * r t)) with (IZR high * INR (N - 2) * r t)
      by (field; lra). exact U.
  - exists (steepest e1 e2 m), (steepest_direction e1 e2 (fun t => alternating t * r t)).
    destruct (steepest_hessian N H3 e1 e2 O m Hm (fun t => alternating t * r t)) as [HH HX].
    assert (X : sum N (fun t => alternating t * r t * (alternating t * r t)) = sum N (fun t => r t * r t)).
    { apply sum_ext. intros t _. pose proof (alternating_square t) as A.
      replace (alternating t * r t * (alternating t * r t)) with (alternating t * alternating t * (r t * r t)) by ring.
      rewrite A. ring. }
    split; [| split].
    + intros t _. rewrite steepest_norm by easy. lra.
    + rewrite HX, X. destruct N as [| [| n]]; try lia. rewrite sum_S.
      pose proof (sum_nonneg (S n) (fun t => r t * r t) (fun i _ => Rle_0_sqr (r i))) as S0.
      pose proof (Pos (S n) ltac:(lia)) as S1. pose proof (Rmult_lt_0_compat _ _ S1 S1). lra.
    + rewrite HX, HH, X.
      rewrite (sum_ext (N - 2) _ (fun t => second_sum r t * second_sum r t)).
      2: { intros t _. simpl alternating. pose proof (alternating_square t) as A. unfold second_sum.
           match goal with |- ?a = _ => replace a with (alternating t * alternating t * (r t + 2 * r (S t) + r (S (S
             t))) ^ 2) by ring end.
           rewrite A. ring. }
      unfold second_lower_check in L. apply Z.leb_le, IZR_le in L. rewrite !mult_IZR, !sum_Z_correct, E in L.
      fold N in L.
      rewrite (sum_ext N _ (fun t => r t * r t)) in L by (intros; apply mult_IZR).
      rewrite (sum_ext (N - 2) _ (fun t => second_sum r t * second_sum r t)) in L.
      2: { intros t _. rewrite mult_IZR, second_Z_correct. reflexivity. }
      assert (M2 : 0 < m ^ 2) by now apply pow_lt.
      apply (Rmult_le_reg_l (2 * IZR den * INR (N - 2) * m ^ 2)).
      { repeat apply Rmult_lt_0_compat; lra. }
      match goal with |- ?a <= ?b =>
        replace a with (2 * (IZR low * INR (N - 2) * sum N (fun t => r t * r t))) by (field; lra);
        replace b with (2 * (2 * IZR den * sum (N - 2) (fun t => second_sum r t * second_sum r t))) by (field; lra) end.
      lra.
Qed.
