"""Advantages of Groupwise Meta-normalised PPO (GMPO, PolyCode) and of its rivals, as pure functions of tensors.

This GMPO is not Geometric-Mean Policy Optimization (arXiv 2507.20673), which carries the same four letters.

Differs from the paper in: how neighbourhoods are found (lib.gmpo.neighbourhoods). What it leaves open is fixed here:
delta is added to the standard deviation, and phi is relu with an exponent.

B prompts, G completions each. Computed in float64; results come back in the dtype given, float32 at least. None of them
carries a gradient.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from lib.gmpo.neighbourhoods import PromptStatistics, as_given, group_matrix, group_statistics, meta_statistics

# -- CGMN ---------------------------------------------------------------------------------------------------


def meta_advantages(rewards: Tensor, w: Tensor, delta: float = 1e-6, bank: PromptStatistics | None = None) -> Tensor:
    """Return A^meta_ji = (r_ji − mu_j^R,meta) / (sigma_j^R,meta + delta) (PolyCode, CGMN).

    rewards (B, G), w (B, C) -> (B, G); `bank` supplies the columns of w after the first B.
    |A^meta| <= sqrt((1 − p)/p) with p = w_jj/G: a bound on the z-score of an observation with weight p in its own
    mixture. Raises ValueError for delta <= 0 or non-finite rewards.
    """
    return _standardise(rewards, "rewards", w, delta, None if bank is None else (bank.mean_r, bank.var_r))


def likelihood_z(log_probs: Tensor, w: Tensor, delta: float = 1e-6, bank: PromptStatistics | None = None) -> Tensor:
    """Return L̂_ji = (L_ji − mu_j^L,meta) / (sigma_j^L,meta + delta) (PolyCode, SBAM).

    log_probs (B, G), summed over the completion under pi_old, end token included; w (B, C) -> (B, G).
    Raises ValueError for delta <= 0 or non-finite log-probabilities.
    """
    return _standardise(log_probs, "log_probs", w, delta, None if bank is None else (bank.mean_l, bank.var_l))


def _standardise(values: Tensor, name: str, w: Tensor, delta: float, past: tuple[Tensor, Tensor] | None) -> Tensor:
    """Return (v − meta mean) / (meta std + delta), in the values' own dtype."""
    if not delta > 0:
        raise ValueError(f"delta={delta}: it must be above 0, or equal {name} divide by zero")
    exact = group_matrix(values, name)
    mean, var = group_statistics(exact)
    if past is not None:
        mean, var = torch.cat([mean, past[0].to(mean)]), torch.cat([var, past[1].to(var)])
    meta_mean, meta_std = meta_statistics(w, mean, var)
    return as_given((exact - meta_mean[:, None]) / (meta_std[:, None] + delta), values)


def surprise(advantage: Tensor, l_hat: Tensor) -> Tensor:
    """Return S = A^meta · L̂, (B, G): negative where reward contradicts the model's confidence (PolyCode, SBAM)."""
    return advantage * l_hat


def amplification(s: Tensor, lam: float, gamma: float = 1.0) -> Tensor:
    """Return 1 + lam·phi(−S) with phi(u) = max(u, 0)^gamma, (B, G) -> (B, G) (PolyCode, SBAM).

    Proposition 1: the factor is 1 at S >= 0 and never rises with S. Where |A^meta| <= a and |L̂| <= l it lies in
    [1, 1 + lam·(a·l)^gamma], because −S <= a·l. As S -> −inf it has no bound. A batch always has such an a and l, with
    a·l <= G/w_jj − 1 (see `meta_advantages`).
    Raises ValueError for lam < 0 (signs could flip) or gamma <= 0.
    """
    if not (lam >= 0 and gamma > 0):
        raise ValueError(f"lam={lam}, gamma={gamma}: lam must be at least 0 and gamma above 0")
    return 1 + lam * (-s).clamp(min=0) ** gamma


def sbam(advantage: Tensor, l_hat: Tensor, lam: float, gamma: float = 1.0) -> Tensor:
    """Return A = A^meta · (1 + lam·phi(−S)), (B, G), with the sign of A^meta; lam = 0 is A^meta (PolyCode, SBAM)."""
    return advantage * amplification(surprise(advantage, l_hat), lam, gamma)


@dataclass(frozen=True)
class Advantages:
    """Hold what a batch's advantages are made of; every field (B, G)."""

    advantages: Tensor
    a_meta: Tensor
    l_hat: Tensor
    surprise: Tensor
    amplification: Tensor


def gmpo_advantages(
    rewards: Tensor,
    log_probs: Tensor,
    w: Tensor,
    *,
    lam: float,
    gamma: float = 1.0,
    delta: float = 1e-6,
    bank: PromptStatistics | None = None,
) -> Advantages:
    """Apply CGMN, then SBAM: rewards and log_probs (B, G), w (B, C) -> Advantages (PolyCode, CGMN and SBAM).

    The identity as w is GMPO without CGMN, lam = 0 GMPO without SBAM. Raises ValueError as the functions it calls do.
    """
    if rewards.shape != log_probs.shape or len(rewards) != len(w):
        shapes = f"{tuple(rewards.shape)}, {tuple(log_probs.shape)} and {tuple(w.shape)}"
        raise ValueError(f"rewards, log_probs and w have shapes {shapes}: expected (B, G), (B, G) and (B, C)")
    a_meta = meta_advantages(rewards.double(), w, delta, bank)
    l_hat = likelihood_z(log_probs.double(), w, delta, bank)
    s = surprise(a_meta, l_hat)
    factor = amplification(s, lam, gamma)
    return Advantages(*(as_given(part, rewards) for part in (a_meta * factor, a_meta, l_hat, s, factor)))


# -- rivals: what the same rewards become elsewhere, (B, G) -> (B, G) ---------------------------------------


def grpo_advantages(rewards: Tensor, delta: float = 1e-6, ddof: int = 0) -> Tensor:
    """Return (r − mu_j) / (sigma_j + delta), each prompt by itself (GRPO; Shao et al. 2024, arXiv 2402.03300).

    TRL's has ddof 1 and delta 1e-4.
    """
    values = group_matrix(rewards, "rewards")
    mean, var = group_statistics(values)
    size = values.shape[1]
    std = (var * size / max(size - ddof, 1)).sqrt()
    return as_given((values - mean[:, None]) / (std[:, None] + delta), rewards)


def dr_grpo_advantages(rewards: Tensor) -> Tensor:
    """Return r − mu_j (Dr. GRPO; Liu et al. 2025, arXiv 2503.20783)."""
    values = group_matrix(rewards, "rewards")
    return as_given(values - group_statistics(values)[0][:, None], rewards)


def batch_advantages(rewards: Tensor, delta: float = 1e-6) -> Tensor:
    """Return (r − mu) / (sigma + delta) over the whole batch (batch-normalised PPO)."""
    return grpo_advantages(rewards.reshape(1, -1), delta).reshape(rewards.shape)


def rloo_advantages(rewards: Tensor) -> Tensor:
    """Return r_i − mean of the others = (r_i − mu_j)·G/(G − 1) (RLOO; Ahmadian et al. 2024, arXiv 2402.14740).

    Raises ValueError at G = 1, where there are no others.
    """
    size = rewards.shape[-1]
    if size < 2:
        raise ValueError("leave-one-out needs at least two completions per prompt")
    return dr_grpo_advantages(rewards) * (size / (size - 1))


def group_batch_advantages(rewards: Tensor, delta: float = 1e-6) -> Tensor:
    """Return (r − mu_j) / (sigma + delta), sigma over the whole batch (LitePPO; Liu et al. 2025, arXiv 2508.08221)."""
    values = group_matrix(rewards, "rewards")
    spread = group_statistics(values.reshape(1, -1))[1].sqrt()
    return as_given((values - group_statistics(values)[0][:, None]) / (spread + delta), rewards)


def james_stein_advantages(rewards: Tensor) -> Tensor:
    """Return r_ji − b_ji, b a mean shrunk towards the other prompts' (after Zeng et al. 2025, arXiv 2511.03710).

    b_ji = (1 − a_j) · mean_{l≠i} r_jl + a_j · mean_{k≠j} mu_k,  a_j = v / (v + t),
    v = s²/(G − 1),  t = max(0, Var_{k≠j} mu_k − s²/G),  s² = mean_{k≠j} of the unbiased variances within groups

    The weight a_j is that of empirical Bayes, and like the two means it never uses r_ji itself: the estimate stays
    unbiased. With fewer than three prompts there is no variance between the others: RLOO.
    Raises ValueError at G = 1.
    """
    values = group_matrix(rewards, "rewards")
    alone, (prompts, size) = rloo_advantages(values), values.shape
    if prompts < 3:
        return as_given(alone, rewards)
    mean, var = group_statistics(values)
    others = ~torch.eye(prompts, dtype=torch.bool, device=values.device)
    means = mean.expand(prompts, -1)[others].view(prompts, -1)  # (B, B − 1)
    within = var.expand(prompts, -1)[others].view(prompts, -1).mean(1) * size / (size - 1)
    between = (means.var(1) - within / size).clamp(min=0)
    v = within / (size - 1)
    share = torch.where(v > 0, v / (v + between), 0.0)[:, None]
    baseline = (1 - share) * (values - alone) + share * means.mean(1)[:, None]
    return as_given(values - baseline, rewards)


def unit_rms(advantages: Tensor) -> Tensor:
    """Return A / sqrt(mean A²), so that two arms are compared at one step length; zeros stay zeros."""
    exact = advantages.double()
    size = exact.square().mean().sqrt()
    return as_given(exact / size if size > 0 else exact, advantages)
