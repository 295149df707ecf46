(** * The numbers C_N, and how a computed value of them is certified

    For positive v, Collatz and Wielandt: lambda_max(B^T W B) <= max_t (B^T W B v)_t / v_t;
      and for every v it is at least
    the form at v over |v|^2. Both are decided in integers by [upper_check] and [lower_check], which Coq evaluates. *)

From Coq Require Import Reals ZArith Lra Lia Psatz List.
From Coquelicot Require Import Rcomplements.
From framebound Require Import Inner TemporalLoss Triple Hessian.
Import ListNotations.
Open Scope R_scope.

(** (p + q)^2 <= (v + w) (p^2/v + q^2/w) *)
Lemma weighted_square : forall p q v w, 0 < v -> 0 < w -> (p + q) ^ 2 <= (v + w) * (p * p / v + q * q / w).
Proof.
  intros p q v w Hv Hw. apply Rminus_le_0.
  replace ((v + w) * (p * p / v + q * q / w) - (p + q) ^ 2) with ((p * w - q * v) ^ 2 / (v * w)) by (field; lra).
  apply Rmult_le_pos; [apply pow2_ge_0 |]. apply Rlt_le, Rinv_0_lt_compat, Rmult_lt_0_compat; lra.
Qed.

(** (B^T W B v)_t, of frame t in the pairs t-1 and t. *)
Definition pair_load (N : nat) (v : nat -> R) (t : nat) : R :=
  match t with O => 0 | S p => pair_weight N p * (v p + v (S p)) end
  + (if Nat.ltb t (N - 1) then pair_weight N t * (v t + v (S t)) else 0).

Lemma load_sum : forall N v f, (3 <= N)%nat ->
  sum (N - 1) (fun t => pair_weight N t * ((v t + v (S t)) * (f t + f (S t))))
  = sum N (fun t => pair_load N v t * f t).
Proof.
  intros N v f H.
  assert (G : forall n, (n <= N - 1)%nat ->
    sum n (fun t => pair_weight N t * ((v t + v (S t)) * (f t + f (S t))))
    = sum n (fun t => pair_load N v t * f t) + match n with O => 0 | S p => pair_weight N p * (v p + v (S p)) * f (S
      p) end).
  { induction n; intros Hn; [simpl; ring |]. rewrite !sum_S, IHn by lia. unfold pair_load at 3.
    rewrite (proj2 (Nat.ltb_lt n (N - 1))) by lia. destruct n; ring. }
  rewrite G by lia.
  replace (sum N (fun t => pair_load N v t * f t)) with (sum (S (N - 1)) (fun t => pair_load N v t * f t))
    by (f_equal; lia).
  rewrite sum_S. f_equal. unfold pair_load. rewrite Nat.ltb_irrefl. destruct (N - 1)%nat eqn:E; [lia | ring].
Qed.

(** Collatz and Wielandt. *)
Theorem collatz_upper : forall N v K, (3 <= N)%nat -> (forall t, (t < N)%nat -> 0 < v t) ->
  (forall t, (t < N)%nat -> pair_load N v t <= K * v t) -> incidence_eigenvalue N <= K.
Proof.
  intros N v K H Hv HK. apply eigenvalue_least; [easy |]. intros xi.
  apply Rle_trans with (sum (N - 1) (fun t => pair_weight N t *
    ((v t + v (S t)) * (xi t * xi t / v t + xi (S t) * xi (S t) / v (S t))))).
  - apply sum_le. intros t Ht. apply Rmult_le_compat_l; [unfold pair_weight; destruct (_ || _)%bool; lra |].
    apply weighted_square; apply Hv; lia.
  - rewrite (load_sum N v (fun t => xi t * xi t / v t)) by easy. rewrite <- sum_scale. apply sum_le. intros t Ht.
    pose proof (Hv t Ht) as P. pose proof (HK t Ht) as Q.
    replace (K * (xi t * xi t)) with (K * v t * (xi t * xi t / v t)) by (field; lra).
    apply Rmult_le_compat_r; [| exact Q]. apply Rmult_le_pos; [apply Rle_0_sqr | apply Rlt_le, Rinv_0_lt_compat; lra].
Qed.

Theorem rayleigh_lower : forall N v K, (3 <= N)%nat -> 0 < sum N (fun t => v t * v t) ->
  K * sum N (fun t => v t * v t) <= incidence_form N v -> K <= incidence_eigenvalue N.
Proof.
  intros N v K H P Q. pose proof (eigenvalue_bound N H v) as B.
  apply Rmult_le_reg_r with (sum N (fun t => v t * v t)); lra.
Qed.

(** C_3 = 12 and C_4 = 6 + 2 sqrt 5. *)
Theorem hessian_constant_3 : hessian_constant 3 = 12.
Proof.
  unfold hessian_constant. replace (incidence_eigenvalue 3) with 3; [simpl; field |].
  set (v := fun t : nat => match t with 1%nat => 2 | _ => 1 end).
  apply Rle_antisym.
  - apply (rayleigh_lower 3 v); [lia | simpl; lra | unfold incidence_form, pair_weight; simpl; lra].
  - apply (collatz_upper 3 v); [lia | |].
    + intros [| [| [| t]]] Ht; try lia; simpl; lra.
    + intros [| [| [| t]]] Ht; try lia; unfold pair_load, pair_weight; simpl; lra.
Qed.

Theorem hessian_constant_4 : hessian_constant 4 = 6 + 2 * sqrt 5.
Proof.
  pose proof (sqrt_sqrt 5 ltac:(lra)) as S5. pose proof (sqrt_pos 5) as P5.
  unfold hessian_constant. replace (incidence_eigenvalue 4) with (3 + sqrt 5); [simpl; field |].
  set (v := fun t : nat => match t with 1%nat | 2%nat => 2 + sqrt 5 | _ => 1 end).
  apply Rle_antisym.
  - apply (rayleigh_lower 4 v); [lia | simpl; nra | unfold incidence_form, pair_weight; simpl; nra].
  - apply (collatz_upper 4 v); [lia | |].
    + intros [| [| [| [| t]]]] Ht; try lia; simpl; lra.
    + intros [| [| [| [| t]]]] Ht; try lia; unfold pair_load, pair_weight; simpl; nra.
Qed.

(** ** Certificates in integers

    v is a list of positive integers, any: a good one is near the eigenvector, and how it was found does not matter. *)

Definition entry (v : list Z) (t : nat) : Z := nth t v 0%Z.
Definition weight_Z (N t : nat) : Z := if (Nat.eqb t 0 || Nat.eqb t (N - 2))%bool then 1%Z else 2%Z.
Definition load_Z (N : nat) (v : list Z) (t : nat) : Z :=
  (match t with O => 0 | S p => weight_Z N p * (entry v p + entry v (S p)) end
   + (if Nat.ltb t (N - 1) then weight_Z N t * (entry v t + entry v (S t)) else 0))%Z.
Fixpoint sum_Z (n : nat) (f : nat -> Z) : Z := match n with O => 0%Z | S p => (sum_Z p f + f p)%Z end.

(** lambda_max <= num/den for the matrix of length v frames; lambda_max >= num/den. *)
Definition upper_check (v : list Z) (num den : Z) : bool :=
  forallb (fun t => andb (0 <? entry v t)%Z (den * load_Z (length v) v t <=? num * entry v t)%Z) (seq 0 (length v)).
Definition lower_check (v : list Z) (num den : Z) : bool :=
  (num * sum_Z (length v) (fun t => entry v t * entry v t)
   <=? den * sum_Z (length v - 1) (fun t => weight_Z (length v) t * ((entry v t + entry v (S t)) * (entry v t + entry
     v (S t)))))%Z.

Lemma weight_Z_correct : forall N t, IZR (weight_Z N t) = pair_weight N t.
Proof. intros. unfold weight_Z, pair_weight. destruct (_ || _)%bool; reflexivity. Qed.

Lemma load_Z_correct : forall N v t, IZR (load_Z N v t) = pair_load N (fun i => IZR (entry v i)) t.
Proof.
  intros N v t. unfold load_Z, pair_load. rewrite plus_IZR. f_equal.
  - destruct t; [reflexivity |]. now rewrite mult_IZR, plus_IZR, weight_Z_correct.
  - destruct (Nat.ltb t (N - 1)); [| reflexivity]. now rewrite mult_IZR, plus_IZR, weight_Z_correct.
Qed.

Lemma sum_Z_correct : forall n f, IZR (sum_Z n f) = sum n (fun t => IZR (f t)).
Proof. induction n; intros; simpl; [reflexivity | now rewrite plus_IZR, IHn]. Qed.

Theorem upper_check_correct : forall v num den, (3 <= length v)%nat -> (0 < den)%Z -> upper_check v num den = true ->
  incidence_eigenvalue (length v) <= IZR num / IZR den.
Proof.
  intros v num den H3 Hd H. apply IZR_lt in Hd. unfold upper_check in H. rewrite forallb_forall in H.
  assert (G : forall t, (t < length v)%nat ->
    0 < IZR (entry v t) /\ IZR den * pair_load (length v) (fun i => IZR (entry v i)) t <= IZR num * IZR (entry v t)).
  { intros t Ht. specialize (H t). rewrite in_seq in H. specialize (H ltac:(lia)). apply andb_prop in H.
    destruct H as [A B].
    apply Z.ltb_lt, IZR_lt in A. apply Z.leb_le, IZR_le in B. rewrite !mult_IZR, load_Z_correct in B.
    split; assumption. }
  apply (collatz_upper (length v) (fun i => IZR (entry v i))); [easy | intros t Ht; now apply G |].
  intros t Ht. destruct (G t Ht) as [_ B]. apply (Rmult_le_reg_l (IZR den)); [easy |].
  replace (IZR den * (IZR num / IZR den * IZR (entry v t))) with (IZR num * IZR (entry v t)) by (field; lra). exact B.
Qed.

Theorem lower_check_correct : forall v num den, (3 <= length v)%nat -> (0 < den)%Z ->
  (0 < sum_Z (length v) (fun t => entry v t * entry v t))%Z -> lower_check v num den = true ->
  IZR num / IZR den <= incidence_eigenvalue (length v).
Proof.
  intros v num den H3 Hd Hp H. apply IZR_lt in Hd. apply IZR_lt in Hp. unfold lower_check in H.
  apply Z.leb_le, IZR_le in H. rewrite !mult_IZR, !sum_Z_correct in H. rewrite sum_Z_correct in Hp.
  rewrite (sum_ext _ _ (fun t => IZR (entry v t) * IZR (entry v t))) in H, Hp by (intros; apply mult_IZR).
  apply (rayleigh_lower (length v) (fun i => IZR (entry v i))); [easy | exact Hp |].
  unfold incidence_form.
  rewrite (sum_ext (length v - 1) _ (fun t => pair_weight (length v) t * (IZR (entry v t) + IZR (entry v (S t))) ^ 2))
    in H.
  2: { intros t _. rewrite !mult_IZR, plus_IZR, weight_Z_correct. ring. }
  apply (Rmult_le_reg_l (IZR den)); [easy |].
  match goal with |- ?a <= _ => replace a with (IZR num * sum (length v) (fun t => IZR (entry v t) * IZR (entry v t)))
    by (field; lra) end.
  exact H.
Qed.

(** C_N lies in [low/den, high/den] when the certificate passes both checks for (N-2)/4 times these numbers. *)
Theorem hessian_constant_enclosed : forall v low high den, (3 <= length v)%nat -> (0 < den)%Z ->
  upper_check v (high * (Z.of_nat (length v) - 2)) (4 * den) = true ->
  lower_check v (low * (Z.of_nat (length v) - 2)) (4 * den) = true ->
  IZR low / IZR den <= hessian_constant (length v) <= IZR high / IZR den.
Proof.
  intros v low high den H3 Hd U L. pose proof (count_pos (length v) H3) as P.
  assert (E : IZR (Z.of_nat (length v) - 2) = INR (length v - 2)).
  { rewrite INR_IZR_INZ. f_equal. lia. }
  assert (Pos : (0 < sum_Z (length v) (fun t => entry v t * entry v t))%Z).
  { unfold upper_check in U. rewrite forallb_forall in U.
    assert (A : forall n, (1 <= n <= length v)%nat -> (0 < sum_Z n (fun t => entry v t * entry v t))%Z).
    { induction n; intros Hn; [lia |]. simpl. specialize (U n). rewrite in_seq in U. specialize (U ltac:(lia)).
      apply andb_prop in U. destruct U as [U _]. apply Z.ltb_lt in U.
      destruct (Nat.eq_dec n 0) as [-> |]; [simpl; nia |].
      specialize (IHn ltac:(lia)). nia. }
    apply A. lia. }
  pose proof (upper_check_correct v _ (4 * den) H3 ltac:(lia) U) as B.
  pose proof (lower_check_correct v _ (4 * den) H3 ltac:(lia) Pos L) as C.
  rewrite !mult_IZR, E in B, C. apply IZR_lt in Hd. unfold hessian_constant. split.
  - apply (Rmult_le_compat_l (4 / INR (length v - 2))) in C; [| apply Rlt_le, Rdiv_lt_0_compat; lra].
    replace (4 / INR (length v - 2) * (IZR low * INR (length v - 2) / (4 * IZR den))) with (IZR low / IZR den) in C
      by (field; lra).
    exact C.
  - apply (Rmult_le_compat_l (4 / INR (length v - 2))) in B; [| apply Rlt_le, Rdiv_lt_0_compat; lra].
    replace (4 / INR (length v - 2) * (IZR high * INR (length v - 2) / (4 * IZR den))) with (IZR high / IZR den) in B
      by (field; lra).
    exact B.
Qed.
