"""What a sampled batch becomes: every estimator's advantages, and the numbers that say what the batch was like.

Processes exchange statistics of prompts, never completions: pooling treats another process's prompts like past ones.
"""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from lib.gmpo import advantages as estimators
from lib.gmpo.advantages import Advantages
from lib.gmpo.neighbourhoods import PromptBank, PromptStatistics, prompt_statistics

Gather = Callable[[Tensor], Tensor]  # rows of this process -> rows of all processes, in their order


def shared_advantages(
    rewards: Tensor,
    log_probs: Tensor,
    h: Tensor,
    *,
    pooling: dict[str, Any],
    bank: PromptBank | None = None,
    gather: Gather = lambda rows: rows,
    rank: int = 0,
) -> tuple[dict[str, Tensor], Advantages]:
    """Return `all_advantages` of this process's prompts, as many as every other process has, pooled over those of all.

    What `gather` sends is h and four numbers per prompt; they all enter `bank` afterwards.
    """
    own = prompt_statistics(rewards, log_probs, h)
    everyone = PromptStatistics(*(gather(getattr(own, field.name)) for field in fields(own)))
    before, after = rank * len(h), (rank + 1) * len(h)
    parts = (getattr(everyone, field.name) for field in fields(own))
    others = PromptStatistics(*(torch.cat([part[:before], part[after:]]) for part in parts))
    found = all_advantages(rewards, log_probs, h, pooling=pooling, bank=bank, others=others)
    if bank is not None:
        bank.push(everyone)
    return found


def all_advantages(
    rewards: Tensor,
    log_probs: Tensor,
    h: Tensor,
    *,
    pooling: dict[str, Any],
    bank: PromptBank | None = None,
    others: PromptStatistics | None = None,
) -> tuple[dict[str, Tensor], Advantages]:
    """Return the advantages of every estimator by name, and what GMPO's are made of.

    rewards and log_probs (B, G), h (B, d), `others` this batch's prompts in other processes, `pooling` the keyword
    arguments of `gmpo_advantages` (tau, lam, …) -> {name: (B, G)}, Advantages
    """
    known = [part for part in (others, bank.prompts if bank is not None else None) if part is not None]
    pool = PromptStatistics.cat(*known) if known else None
    parts = estimators.gmpo_advantages(rewards, log_probs, h, bank=pool, **pooling)
    prompts = len(rewards) + (0 if others is None else len(others.h))
    uniform = torch.full((len(rewards), prompts), 1 / prompts, dtype=torch.float64, device=rewards.device)
    return {
        "gmpo": parts.advantages,
        "grpo": estimators.grpo_advantages(rewards),
        "dr_grpo": estimators.dr_grpo_advantages(rewards),
        "batch": estimators.meta_advantages(rewards, uniform, bank=others),
        "rloo": estimators.rloo_advantages(rewards),
    }, parts


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
