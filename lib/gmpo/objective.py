"""The clipped objective of GMPO (PolyCode, Objective) and its KL term, as pure functions of tensors.

Differs from the paper in: nothing on purpose. What it leaves open is fixed here: ratios saturate at e^80, where the
gradient becomes 0, so that no objective is infinite.

N sequences of T tokens. Only `log_ratio`, `clipped_objective` and `kl_k3` carry a gradient.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from lib.sampling.scoring import effective_sample_size, token_differences

Level = Literal["sequence", "sequence_mean", "token"]
Correction = Literal["none", "token", "sequence"]
MAX_LOG_RATIO = 80.0  # exp(88.7) overflows float32; the rest is room for the advantage


def log_ratio(new_logps: Tensor, old_logps: Tensor, mask: Tensor, level: Level = "sequence") -> Tensor:
    """Return ln s of each sequence or token, fp32 (PolyCode, Objective).

    sequence: Σ_t (ln pi_theta − ln pi_old);  sequence_mean: that over the length (GSPO; Zheng et al. 2025,
    arXiv 2507.18071);  token: each difference

    All (N, T), mask 1 on completion tokens -> (N,), or (N, T) with 0 at padding for token. What stands at
    padding does not matter, not even a NaN.
    Raises ValueError for an unknown level or a non-finite log-probability under the mask.
    """
    if level not in get_args(Level):
        raise ValueError(f"level={level!r}: choose one of {', '.join(get_args(Level))}")
    tokens = token_differences(new_logps, old_logps, mask)
    if level == "token":
        return tokens
    total = tokens.sum(1)
    return total if level == "sequence" else total / mask.sum(1).clamp(min=1)


@dataclass(frozen=True)
class Clipped:
    """Hold `objective` (N,) or (N, T), to be maximised; the other two are 0-d, without gradient."""

    objective: Tensor
    clip_fraction: Tensor
    effective_sample_size: Tensor


def clipped_objective(log_ratios: Tensor, advantages: Tensor, epsilon: float, mask: Tensor | None = None) -> Clipped:
    """Return min(s·A, clip(s, 1−ε, 1+ε)·A), decided before the exponential is taken (PolyCode, Objective).

    A >= 0: exp(min(ln s, ln(1+ε)))·A;  A < 0: exp(max(ln s, ln(1−ε)))·A, where ln s stops at MAX_LOG_RATIO

    log_ratios (N,), or (N, T) with its mask; advantages (N,). clip_fraction: share of entries whose gradient
    the clip removes; effective_sample_size: (Σ s)² / Σ s², from 1 to the number of entries.
    Raises ValueError for ε outside (0, 1).
    """
    if not 0 < epsilon < 1:
        raise ValueError(f"epsilon={epsilon}: the clip range lies in (0, 1)")
    low, high = math.log1p(-epsilon), math.log1p(epsilon)
    keep = torch.ones_like(log_ratios, dtype=torch.bool) if mask is None else mask.bool()
    a = advantages.detach().to(log_ratios).reshape(-1, *[1] * (log_ratios.ndim - 1)).expand_as(log_ratios)
    decided = torch.where(a >= 0, log_ratios.clamp(max=high), log_ratios.clamp(low, MAX_LOG_RATIO))
    objective = torch.where(keep, decided.exp() * a, 0.0)
    logs = log_ratios.detach()
    removed = ((a > 0) & (logs > high) | (a < 0) & (logs < low)) & keep
    return Clipped(objective, removed.sum() / keep.sum().clamp(min=1), effective_sample_size(logs[keep]))


def kl_k3(new_logps: Tensor, ref_logps: Tensor, mask: Tensor) -> Tensor:
    """Return exp(x) − 1 − x at x = ln pi_ref − ln pi_theta, token by token, an estimate of KL(pi_theta‖pi_ref).

    It is the estimator k3 of Schulman (2020), "Approximating KL divergence", joschu.net/blog/kl-approx.html.

    exp(x) − 1 is expm1, so that small x keep their digits; x stops at MAX_LOG_RATIO. All (N, T) -> (N, T)
    fp32, 0 at padding. Unbiased for tokens of pi_theta; on tokens of pi_old it is an approximation.
    Raises ValueError for a non-finite log-probability under the mask.
    """
    x = token_differences(ref_logps, new_logps, mask).clamp(max=MAX_LOG_RATIO)
    return torch.expm1(x) - x


def correction_weights(
    old_logps: Tensor, sampler_logps: Tensor, mask: Tensor, level: Correction, cap: float
) -> Tensor | None:
    """Return min(pi_old / q, cap) per token, (N, T), or of whole sequences, (N,): truncated importance sampling.

    q is what the engine drew from, pi_old the trainer's model at the same weights: rounding and kernels part them
    (Ionides 2008; for language models Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL
    training"). Multiplied into the objective, the weights make samples of q stand for pi_old; the cap bounds their
    variance at the price of a bias. None for level "none". Raises ValueError as `log_ratio` does.
    """
    if level == "none":
        return None
    return log_ratio(old_logps, sampler_logps, mask, level).clamp(max=math.log(cap)).exp()
