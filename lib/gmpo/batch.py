"""What a sampled batch becomes: every normaliser's advantages, and the numbers that say what the batch was like.

Processes exchange statistics of prompts, never completions: pooling treats another process's prompts like remembered ones.
"""

from collections.abc import Callable
from dataclasses import fields

import torch
from torch import Tensor

from lib.gmpo import advantages as statistics
from lib.gmpo.advantages import Advantages, Memory, PromptStatistics
from lib.gmpo.settings import GmpoSettings

Gather = Callable[[Tensor], Tensor]  # rows of this process -> rows of all processes, in their order


def shared_advantages(
    rewards: Tensor,
    log_probs: Tensor,
    h: Tensor,
    settings: GmpoSettings,
    memory: Memory | None,
    gather: Gather,
    rank: int,
) -> tuple[dict[str, Tensor], Advantages]:
    """`normalised` for this process's prompts, as many as every other process has, pooled over those of all of them.

    What `gather` sends is h and four numbers a prompt; they all enter `memory` afterwards.
    """
    own = statistics.prompt_statistics(rewards, log_probs, h)
    everyone = PromptStatistics(*(gather(getattr(own, field.name)) for field in fields(own)))
    before, after = rank * len(h), (rank + 1) * len(h)
    parts = (getattr(everyone, field.name) for field in fields(own))
    others = PromptStatistics(*(torch.cat([part[:before], part[after:]]) for part in parts))
    found = normalised(rewards, log_probs, h, settings, memory, others)
    if memory is not None:
        memory.push(everyone)
    return found


def normalised(
    rewards: Tensor,
    log_probs: Tensor,
    h: Tensor,
    settings: GmpoSettings,
    memory: Memory | None = None,
    others: PromptStatistics | None = None,
) -> tuple[dict[str, Tensor], Advantages]:
    """The advantages of every normaliser by name, and what GMPO's are made of.

    rewards and log_probs (B, G), h (B, d), `others` this batch's prompts in other processes -> {name: (B, G)}, Advantages
    """
    remembered = memory.bank if memory is not None else None
    known = [part for part in (others, remembered) if part is not None]
    parts = statistics.gmpo_advantages(
        rewards,
        log_probs,
        h,
        settings.tau,
        settings.lam,
        phi=settings.phi,
        top_k=settings.top_k,
        mass=settings.mass,
        clip=settings.l_hat_clip,
        memory=PromptStatistics.cat(*known) if known else None,
    )
    prompts = len(rewards) + (0 if others is None else len(others.h))
    everyone = torch.full((len(rewards), prompts), 1 / prompts, dtype=torch.float64, device=rewards.device)
    return {
        "gmpo": parts.advantages,
        "grpo": statistics.grpo_advantages(rewards),
        "dr_grpo": statistics.dr_grpo_advantages(rewards),
        "batch": statistics.meta_advantages(rewards, everyone, memory=others),
        "rloo": statistics.rloo_advantages(rewards),
    }, parts


def batch_diagnostics(
    rewards: Tensor,
    log_probs: Tensor,
    lengths: Tensor,
    by_name: dict[str, Tensor],
    parts: Advantages,
) -> dict[str, float]:
    """What one batch looks like before it is learnt from; everything (B, G). A right completion has reward 1.

    `solved`: prompts with a right completion; `decidable`: prompts with right and wrong ones; `amplified`:
    completions whose advantage SBAM raised, `amplification` their mean factor. NaN: nothing to average.
    """
    right = rewards >= 1
    raised = parts.amplification > 1
    row = {
        "reward": rewards.mean(),
        "solved": right.any(1).float().mean(),
        "decidable": (right.any(1) & ~right.all(1)).float().mean(),
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
    """The likely reason why every completion of several batches had this one reward."""
    if reward <= 0:
        return "no program passed; the tasks are too hard for this model, or max_new_tokens cuts answers off"
    if reward >= 1:
        return "every program passed; the tasks are too easy: choose some that were solved now and then"
    return "every program passed the same share of tests; the temperature may be too low"
