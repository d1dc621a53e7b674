"""What a sampled batch becomes: every estimator's advantages, and the numbers that say what the batch was like."""

from typing import Any

import torch
from torch import Tensor

from lib.gmpo import advantages as estimators
from lib.gmpo.advantages import Advantages
from lib.gmpo.neighbourhoods import (
    PromptBank,
    effective_neighbours,
    neighbourhood_weights,
    similarities,
    solve_tau,
)


def batch_weights(
    h: Tensor, neighbours: float, tau: float | None = None, bank: PromptBank | None = None
) -> tuple[Tensor, dict[str, float]]:
    """Return w (B, C) of a batch's prompts over batch and bank, and what CGMN pools over: h (B, d).

    tau None: solved for `neighbours`. The numbers are tau, and medians over prompts of effective neighbours and own
    weight.
    """
    past = bank.prompts if bank is not None else None
    similarity = similarities(h, None if past is None else past.h)
    tau = solve_tau(similarity, neighbours) if tau is None else tau
    w = neighbourhood_weights(similarity, tau)
    medians = {"effective_neighbours": effective_neighbours(w), "own_weight": w.diagonal()}
    return w, {"tau": tau} | {name: float(values.quantile(0.5)) for name, values in medians.items()}


def all_advantages(
    rewards: Tensor, log_probs: Tensor, w: Tensor, *, bank: PromptBank | None = None, **sbam: Any
) -> tuple[dict[str, Tensor], Advantages]:
    """Return the advantages of every estimator by name, and what GMPO's are made of.

    rewards and log_probs (B, G), w (B, C) over batch and bank, `sbam`: lam, gamma and delta of `gmpo_advantages` ->
    {name: (B, G)}, Advantages; at G = 1 without those that need a second completion
    """
    past = bank.prompts if bank is not None else None
    parts = estimators.gmpo_advantages(rewards, log_probs, w, bank=past, **sbam)
    found = {
        "gmpo": parts.advantages,
        "grpo": estimators.grpo_advantages(rewards),
        "dr_grpo": estimators.dr_grpo_advantages(rewards),
        "batch": estimators.batch_advantages(rewards),
        "group_batch": estimators.group_batch_advantages(rewards),
    }
    if rewards.shape[1] > 1:
        found["rloo"] = estimators.rloo_advantages(rewards)
        found["james_stein"] = estimators.james_stein_advantages(rewards)
    return found, parts


def batch_diagnostics(
    rewards: Tensor, log_probs: Tensor, lengths: Tensor, by_name: dict[str, Tensor], parts: Advantages
) -> dict[str, float]:
    """Return what one batch looks like before it is learnt from; everything (B, G). A right completion has reward 1.

    `solved`: share of prompts with a right completion; `mixed_outcome`: with right and wrong ones; `amplified`: share
    of completions whose advantage SBAM raised, `amplification` their mean factor. NaN: nothing to average.
    """
    right = rewards >= 1
    raised = parts.amplification > 1
    row = {
        "reward": rewards.mean(),
        "solved": right.any(1).float().mean(),
        "mixed_outcome": (right.any(1) & ~right.all(1)).float().mean(),
        "l_hat_abs_mean": parts.l_hat.abs().mean(),
        "l_hat_abs_max": parts.l_hat.abs().max(),
        "l_hat_right": parts.l_hat[right].mean(),
        "l_hat_wrong": parts.l_hat[~right].mean(),
        "amplified": raised.float().mean(),
        "amplification": parts.amplification[raised].mean(),
        "amplification_max": parts.amplification.max(),
        "length": lengths.float().mean(),
        "length_log_prob_correlation": torch.corrcoef(torch.stack([lengths.float(), log_probs]).flatten(1))[0, 1],
    }
    row |= {f"advantage_var_{name}": values.var(correction=0) for name, values in by_name.items()}
    row |= {f"advantage_mean_{name}": values.mean() for name, values in by_name.items()}
    return {name: float(value) for name, value in row.items()}


def equal_rewards_cause(reward: float) -> str:
    """Return the likely reason why every completion of several batches had this one reward."""
    if reward <= 0:
        return "no program passed; the tasks are too hard for this model, or max_new_tokens cuts answers off"
    if reward >= 1:
        return "every program passed; the tasks are too easy: choose some that are solved now and then"
    return "every program passed the same share of tests; the temperature may be too low"
