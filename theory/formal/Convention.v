(** * C3.convention: what the inverse scheduler of diffusers computes

    x^_0 = (x - sqrt(1 - a) eps)/sqrt a, x' = sqrt b x^_0 + sqrt(1 - b) eps is one explicit Euler step in y
      = x/sqrt abar:
    y' = y + (sigma' - sigma) eps, sigma = sqrt((1 - a)/a), and the state at which the network is evaluated is
    x = y/sqrt(1 + sigma^2): convention T. *)

From Coq Require Import Reals Lra Lia Psatz.
From framebound Require Import Inner.
Open Scope R_scope.

(** The noise level of a value of alphas_cumprod. *)
Definition noise_level (abar : R) : R := sqrt ((1 - abar) / abar).

Lemma noise_level_ratio : forall a, 0 < a <= 1 -> noise_level a = sqrt (1 - a) / sqrt a.
Proof. intros a Ha. unfold noise_level. rewrite sqrt_div; [reflexivity | lra | lra]. Qed.

Lemma noise_level_scale : forall a, 0 < a <= 1 -> 1 / sqrt (1 + noise_level a ^ 2) = sqrt a.
Proof.
  intros a Ha. assert (0 < sqrt a) by (apply sqrt_lt_R0; lra).
  unfold noise_level. rewrite <- Rsqr_pow2, Rsqr_sqrt.
  - replace (1 + (1 - a) / a) with (/ a) by (field; lra).
    replace (/ a) with (1 / a) by (field; lra). rewrite sqrt_div by lra. rewrite sqrt_1. field. lra.
  - apply Rmult_le_pos; [lra | apply Rlt_le, Rinv_0_lt_compat; lra].
Qed.

Theorem inverse_step : forall (V : space) (x eps : V) a b, 0 < b -> b < a -> a <= 1 ->
  let x0 := / sqrt a [*] (x [-] sqrt (1 - a) [*] eps) in
  let x' := sqrt b [*] x0 [+] sqrt (1 - b) [*] eps in
  / sqrt b [*] x' = / sqrt a [*] x [+] (noise_level b - noise_level a) [*] eps.
Proof.
  intros V x eps a b Hb Hab Ha x0 x'. rewrite !noise_level_ratio by lra. unfold x', x0.
  assert (0 < sqrt a) by (apply sqrt_lt_R0; lra). assert (0 < sqrt b) by (apply sqrt_lt_R0; lra).
  vectors; field; lra.
Qed.

(** The network sees x = y/sqrt(1 + sigma^2), so e'(y sqrt((1 + sigma'^2)/(1 + sigma^2))) = eps(x) for
    e'(y) = eps(y/sqrt(1 + sigma'^2)). *)
Theorem evaluation_point : forall (V : space) (y : V) a b, 0 < b -> b < a -> a <= 1 ->
  1 / sqrt (1 + noise_level b ^ 2) [*] (sqrt (1 + noise_level b ^ 2) / sqrt (1 + noise_level a ^ 2) [*] y)
    = sqrt a [*] y.
Proof.
  intros V y a b Hb Hab Ha.
  assert (P : forall s, 0 < sqrt (1 + s ^ 2)) by (intros s; apply sqrt_lt_R0; pose proof (pow2_ge_0 s); lra).
  rewrite <- (noise_level_scale a) by lra. pose proof (P (noise_level a)). pose proof (P (noise_level b)).
  set (p := sqrt (1 + noise_level a ^ 2)) in *. set (q := sqrt (1 + noise_level b ^ 2)) in *. vectors; field; lra.
Qed.
