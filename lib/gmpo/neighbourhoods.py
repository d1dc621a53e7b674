"""Neighbourhoods of prompts and the statistics pooled over them (PolyCode, CGMN), as pure functions of tensors.

Differs from the paper in: embeddings are centred before they are compared, because raw mean-pooled states of one model
all point the same way (cosines .988 to .998 measured) and any usual tau then gives uniform weights; tau is solved for a
wanted number of neighbours unless it is given. What the paper leaves open is fixed here: variances are population
variances (0 at G = 1), and a prompt is always its own neighbour.

B prompts, G completions each, d the embedding's size, C columns of a pool: the batch's own B prompts first, then those
of the bank. Statistics are float64, because a rounding error divided by delta is an advantage.
"""

import math
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

COLLAPSED = 0.95  # of all prompts: so many effective neighbours are the whole batch
LOG_TAU = (math.log(1e-6), math.log(1e6))  # where tau is looked for


# -- weights ------------------------------------------------------------------------------------------------


def similarities(h: Tensor, bank_h: Tensor | None = None, centre: bool = True) -> Tensor:
    """Return cos(h_j − m, h_k − m), m the mean of h over batch and bank: h (B, d), bank_h (M, d) -> (B, B+M) float64.

    A prompt's own entry is exactly 1. A prompt that equals the mean has no direction: 0 to all others. `centre=False`
    leaves the mean in, as CGMN is usually read. Raises ValueError for h that is no (B, d) or not finite.
    """
    if h.ndim != 2 or len(h) == 0:
        raise ValueError(f"h has shape {tuple(h.shape)}: expected (prompts, features)")
    pool = (h.detach() if bank_h is None else torch.cat([h.detach(), bank_h.detach().to(h)])).double()
    broken = int((~pool.isfinite().all(1)).sum())
    if broken:
        raise ValueError(f"h: {broken} of {len(pool)} embeddings are not finite")
    size = torch.linalg.vector_norm(pool, dim=1).max()
    pool = pool - pool.mean(0) if centre else pool
    norm = torch.linalg.vector_norm(pool, dim=1, keepdim=True)
    pool = torch.where(norm > 1e-7 * size, pool / norm.clamp(min=torch.finfo(norm.dtype).tiny), 0.0)
    return (pool[: len(h)] @ pool.T).clamp_(-1, 1).fill_diagonal_(1)


def neighbourhood_weights(similarity: Tensor, tau: float) -> Tensor:
    """Return how much prompt j borrows from prompt k, w_jk = softmax_k(cos_jk / tau) (PolyCode, CGMN).

    `similarities` (B, C) -> (B, C) float64, rows sum to 1. tau = inf gives uniform weights; tau = 0 leaves each prompt
    by itself, also among duplicates. Raises ValueError for tau < 0.
    """
    if not tau >= 0:
        raise ValueError(f"tau={tau}: the temperature is 0 or more")
    if tau == 0:
        return torch.zeros_like(similarity).fill_diagonal_(1)
    weights = similarity.double().sub(1).div_(tau).exp_()  # the largest of each row is its own, at 1
    return weights.div_(weights.sum(1, keepdim=True))


def effective_neighbours(w: Tensor) -> Tensor:
    """Return exp(H(w_j)) with H(w_j) = −Σ_k w_jk ln w_jk: 1 for a prompt by itself, C for uniform weights; (B,)."""
    return torch.special.entr(w).sum(1).exp()


def solve_tau(similarity: Tensor, neighbours: float) -> float:
    """Return tau at which the median prompt has so many effective neighbours, itself included; 0 for neighbours <= 1.

    exp(H) rises with tau, from the number of duplicates to C, so that tau is found by bisection; a number out of that
    range gives the nearest end's. Raises ValueError for neighbours < 1.
    """
    if not neighbours >= 1:
        raise ValueError(f"neighbours={neighbours}: a prompt is its own neighbour, so at least 1")
    if neighbours == 1:
        return 0.0
    low, high = LOG_TAU
    for _ in range(50):
        middle = (low + high) / 2
        found = effective_neighbours(neighbourhood_weights(similarity, math.exp(middle))).quantile(0.5)
        low, high = (middle, high) if found < neighbours else (low, middle)
    return math.exp(high)


# -- statistics ---------------------------------------------------------------------------------------------


def group_statistics(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return mu_k = (1/G) Σ_i v_ki and sigma_k² = (1/G) Σ_i (v_ki − mu_k)²: values (B, G) -> two (B,), float64.

    Sums run over differences from the first value, so a constant group has exactly its constant and exactly 0.
    Raises ValueError when values is not (B, G) or holds a NaN or an infinity.
    """
    values = group_matrix(values, "values")
    mean = values[:, 0] + (values - values[:, :1]).mean(1)
    return mean, (values - mean[:, None]).square().mean(1)


def meta_statistics(w: Tensor, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of the mixture that each prompt's neighbours make (PolyCode, CGMN).

    mu_j = Σ_k w_jk mu_k,  sigma_j² = Σ_k w_jk sigma_k² + Σ_k w_jk (mu_k − mu_j)²

    w (B, C), mean and var (C,) -> two (B,), float64; the second is sigma_j, not its square.
    Raises ValueError when w and the statistics disagree on C.
    """
    if not mean.shape == var.shape == w.shape[1:]:
        raise ValueError(f"w has {w.shape[1]} columns, the statistics {tuple(mean.shape)} and {tuple(var.shape)}")
    w, origin = w.double(), mean[0].double()
    shift = mean.double() - origin  # equal means give exactly 0
    meta_shift = w @ shift
    between = (w * (shift - meta_shift[:, None]).square()).sum(1)
    return meta_shift + origin, (w @ var.double() + between).sqrt()


def group_matrix(values: Tensor, name: str) -> Tensor:
    """Return values as a float64 (B, G) matrix without gradient; refuses other shapes and non-finite entries."""
    if values.ndim != 2 or values.numel() == 0:
        raise ValueError(f"{name} has shape {tuple(values.shape)}: expected (prompts, completions)")
    broken = int((~values.isfinite()).sum())
    if broken:
        raise ValueError(f"{name}: {broken} of {values.numel()} values are NaN or infinite")
    return values.detach().double()


def as_given(result: Tensor, values: Tensor) -> Tensor:
    """Return result in the dtype of values, float32 at least."""
    return result.to(torch.promote_types(values.dtype, torch.float32))


# -- past prompts -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PromptStatistics:
    """Hold all that pooling needs of B prompts."""

    h: Tensor  # (B, d)
    mean_r: Tensor  # (B,), as are the rest
    var_r: Tensor
    mean_l: Tensor
    var_l: Tensor

    @classmethod
    def cat(cls, *parts: "PromptStatistics") -> "PromptStatistics":
        """Return the prompts of all parts in order, on the last one's device."""
        like = parts[-1]
        columns = ([getattr(part, f.name).to(getattr(like, f.name)) for part in parts] for f in fields(cls))
        return cls(*(torch.cat(column) for column in columns))

    def last(self, count: int) -> "PromptStatistics":
        """Return a copy of the `count` prompts that came last."""
        return PromptStatistics(*(getattr(self, f.name)[-count:].clone() for f in fields(self)))


def prompt_statistics(rewards: Tensor, log_probs: Tensor, h: Tensor) -> PromptStatistics:
    """Return `group_statistics` of rewards and log_probs (B, G), beside h (B, d)."""
    if not len(rewards) == len(log_probs) == len(h):
        raise ValueError(f"rewards, log_probs and h have {len(rewards)}, {len(log_probs)} and {len(h)} rows")
    return PromptStatistics(h.detach(), *group_statistics(rewards), *group_statistics(log_probs))


class PromptBank:
    """Hold past prompts' (h, mean R, var R, mean L, var L), first in, first out (PolyCode's memory bank, CGMN).

    Compute a batch's advantages first and push it afterwards, or its prompts count twice.
    Raises ValueError for capacity < 1, a push with h of another size, a checkpoint of another capacity.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"capacity={capacity}: a bank holds at least one prompt")
        self.capacity = capacity
        self.prompts: PromptStatistics | None = None

    def __len__(self) -> int:
        return 0 if self.prompts is None else len(self.prompts.h)

    def push(self, batch: PromptStatistics) -> None:
        """Add a batch's prompts; the oldest leave once more than `capacity` are held."""
        if self.prompts is not None:
            ours, theirs = self.prompts.h.shape[1], batch.h.shape[1]
            if ours != theirs:
                raise ValueError(f"the bank holds embeddings of size {ours}, the batch brings size {theirs}")
            batch = PromptStatistics.cat(self.prompts, batch)
        self.prompts = batch.last(self.capacity)

    def state_dict(self) -> dict[str, Any]:
        """Return capacity and, once something was pushed, the five tensors."""
        held = {} if self.prompts is None else {f.name: getattr(self.prompts, f.name) for f in fields(self.prompts)}
        return {"capacity": self.capacity, **held}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Replace the contents by those of `state_dict()`."""
        if state["capacity"] != self.capacity:
            raise ValueError(f"checkpoint's bank has capacity {state['capacity']}, these settings {self.capacity}")
        tensors = {name: value for name, value in state.items() if name != "capacity"}
        self.prompts = PromptStatistics(**tensors) if tensors else None
