"""Neighbourhoods of prompts and the statistics pooled over them (PolyCode, CGMN), as pure functions of tensors.

Differs from the paper in: nothing on purpose. What it leaves open is fixed here: variances are population variances
(0 at G = 1), and a prompt is always its own neighbour.

B prompts, G completions each, d the embedding's size, C columns of a pool: the batch's own B prompts first, then those
of the bank or of another process. Statistics are float64, because a rounding error divided by delta is an advantage.
"""

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

BLOCK = 256  # rows of a (B, C) matrix worked on at once, so that no temporary is as large as the matrix


# -- weights ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Neighbours:
    """K neighbours of each of B prompts among `columns`: the non-zero entries of a (B, columns) matrix."""

    index: Tensor  # (B, K)
    weight: Tensor  # (B, K), rows sum to 1
    columns: int

    def dense(self) -> Tensor:
        """Return the same weights as a (B, columns) matrix."""
        return self.weight.new_zeros(len(self.index), self.columns).scatter_(1, self.index, self.weight)


def neighbourhood_weights(h: Tensor, tau: float, top_k: int | None = None, bank_h: Tensor | None = None) -> Tensor:
    """Return how much prompt j borrows from prompt k (PolyCode, CGMN).

    w_jk = softmax_k(cos(h_j, h_k) / tau) over all k, or over the `top_k` nearest

    h (B, d), bank_h (M, d) -> (B, B+M) float64, rows sum to 1; column j < B is prompt j itself, always
    kept, so top_k = 1 is the identity. tau = inf gives uniform weights; as tau -> 0 only duplicates share.
    Raises ValueError for tau <= 0, top_k < 1 or an h without direction.
    """
    if top_k is not None:
        return nearest_weights(h, tau, top_k, bank_h).dense()
    unit, pool = _directions(h, bank_h)
    weights = torch.empty(len(unit), len(pool), dtype=torch.float64, device=h.device)
    for start in range(0, len(unit), BLOCK):
        cosines = _cosines(unit[start : start + BLOCK], pool, start).clamp_(max=1)
        weights[start : start + BLOCK] = _softmax(cosines, tau)
    return weights


def nearest_weights(h: Tensor, tau: float, top_k: int, bank_h: Tensor | None = None, block: int = BLOCK) -> Neighbours:
    """Return `neighbourhood_weights` with top_k in memory B·K, by an exact search over `block` rows at a time.

    The search looks at every cosine, so its time still grows as B·C·d; what uses the weights costs B·K.
    Raises ValueError as `neighbourhood_weights` does.
    """
    if top_k < 1:
        raise ValueError(f"top_k={top_k}: a prompt has at least one neighbour, itself")
    unit, pool = _directions(h, bank_h)
    starts = range(0, len(unit), block)
    k = min(top_k, len(pool))
    found = [_cosines(unit[start : start + block], pool, start).topk(k, dim=1) for start in starts]
    cosines = torch.cat([values for values, _ in found]).clamp_(max=1)
    return Neighbours(torch.cat([index for _, index in found]), _softmax(cosines, tau), len(pool))


def _directions(h: Tensor, bank_h: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return unit rows of h (B, d), and of h with the bank below it (C, d)."""
    if h.ndim != 2 or len(h) == 0:
        raise ValueError(f"h has shape {tuple(h.shape)}: expected (prompts, features)")
    pool = h.detach() if bank_h is None else torch.cat([h.detach(), bank_h.detach().to(h)])
    pool = pool.to(torch.promote_types(pool.dtype, torch.float32))
    norm = torch.linalg.vector_norm(pool, dim=1, keepdim=True)
    unusable = int((~(norm.isfinite() & (norm > 0))).sum())
    if unusable:
        raise ValueError(f"h: {unusable} of {len(pool)} embeddings are zero or not finite")
    pool = pool / norm
    return pool[: len(h)], pool


def _cosines(rows: Tensor, pool: Tensor, start: int) -> Tensor:
    """Return cos(h_j, h_k) for rows start..start+n, (n, C); a prompt's own entry is 2, so that it wins every tie."""
    cosines = rows @ pool.T
    own = torch.arange(len(rows), device=rows.device)
    cosines[own, own + start] = 2
    return cosines


def _softmax(cosines: Tensor, tau: float) -> Tensor:
    """Return softmax(cosines / tau), float64. Each row holds its own prompt at 1, which is thus the maximum."""
    if not tau > 0:
        raise ValueError(f"tau={tau}: the temperature must be above 0")
    weights = cosines.double().sub_(1).div_(tau).exp_()
    return weights.div_(weights.sum(1, keepdim=True))


# -- statistics ---------------------------------------------------------------------------------------------


def group_statistics(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return mu_k = (1/G) Σ_i v_ki and sigma_k² = (1/G) Σ_i (v_ki − mu_k)²: values (B, G) -> two (B,), float64.

    Sums run over differences from the first value, so a constant group has exactly its constant and exactly 0.
    Raises ValueError when values is not (B, G) or holds a NaN or an infinity.
    """
    values = group_matrix(values, "values")
    mean = values[:, 0] + (values - values[:, :1]).mean(1)
    return mean, (values - mean[:, None]).square().mean(1)


def meta_statistics(w: Tensor | Neighbours, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of the mixture that each prompt's neighbours make (PolyCode, CGMN).

    mu_j = Σ_k w_jk mu_k,  sigma_j² = Σ_k w_jk sigma_k² + Σ_k w_jk (mu_k − mu_j)²

    w (B, C) or Neighbours, mean and var (C,) -> two (B,), float64; the second is sigma_j, not its square.
    Raises ValueError when w and the statistics disagree on C.
    """
    columns = w.columns if isinstance(w, Neighbours) else w.shape[1]
    if mean.shape != (columns,) or var.shape != (columns,):
        raise ValueError(f"w has {columns} columns, the statistics {tuple(mean.shape)} and {tuple(var.shape)}")
    weight = w.weight.double() if isinstance(w, Neighbours) else w.double()
    origin, spread = mean[0].double(), var.double()
    shift = mean.double() - origin  # equal means give exactly 0
    if isinstance(w, Neighbours):
        shift, spread = shift[w.index], spread[w.index]  # (B, K), where dense weights broadcast (C,)
    meta_shift = _row_sums(weight, shift)
    terms = (weight, shift.expand_as(weight), meta_shift)
    parts = zip(*(torch.split(t, BLOCK) for t in terms), strict=True)
    between = torch.cat([(x - m[:, None]).square_().mul_(part).sum(1) for part, x, m in parts])
    return meta_shift + origin, (_row_sums(weight, spread) + between).sqrt()


def _row_sums(weight: Tensor, values: Tensor) -> Tensor:
    """Return Σ_k weight_jk values_k for values (C,), Σ_k weight_jk values_jk for values (B, K): -> (B,)."""
    return weight @ values if values.ndim == 1 else (weight * values).sum(1)


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


# -- past prompts and other processes' prompts --------------------------------------------------------------


@dataclass(frozen=True)
class PromptStatistics:
    """Hold all that pooling needs of B prompts: what processes exchange, and what the bank keeps."""

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
