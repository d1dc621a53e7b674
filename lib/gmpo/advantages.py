"""Advantages and objective of Groupwise Meta-normalised PPO (GMPO, PolyCode), as pure functions of tensors.

This GMPO is not Geometric-Mean Policy Optimization (arXiv 2507.20673), which carries the same four letters.

Differs from the paper in: nothing on purpose. What it leaves open is fixed here: variances are population
variances (0 at G = 1); delta is added to the standard deviation; a prompt is always its own neighbour; only
relu has an exponent; ratios saturate at e^80, where the gradient becomes 0, so that no objective is infinite.

B prompts, G completions each, d the embedding's size, N sequences of T tokens, C columns of a pool: the
batch's own B prompts first, then remembered ones or another rank's. Statistics are float64, because a
rounding error divided by delta is an advantage; results come back in the dtype given, float32 at least. Only
`log_ratio`, `clipped_objective` and `kl_k3` carry a gradient.
"""

import math
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

Phi = Literal["relu", "softplus", "tanh"]
Level = Literal["sequence", "sequence_mean", "token"]
BLOCK = 256  # rows of a (B, C) matrix worked on at once, so that no temporary is as large as the matrix
MAX_LOG_RATIO = 80.0  # exp(88.7) overflows float32; the rest is room for the advantage


# -- neighbourhoods (PolyCode, CGMN) ------------------------------------------------------------------------


@dataclass(frozen=True)
class Neighbours:
    """K neighbours of each of B prompts among `columns`: the non-zero entries of a (B, columns) matrix."""

    index: Tensor  # (B, K)
    weight: Tensor  # (B, K), rows sum to 1
    columns: int

    def dense(self) -> Tensor:
        """The same weights as a (B, columns) matrix."""
        return self.weight.new_zeros(len(self.index), self.columns).scatter_(1, self.index, self.weight)


def neighbourhood_weights(
    h: Tensor, tau: float, top_k: int | None = None, mass: float | None = None, memory_h: Tensor | None = None
) -> Tensor:
    """How much prompt j borrows from prompt k (PolyCode, CGMN).

    w_jk = softmax_k(cos(h_j, h_k) / tau) over all k, the `top_k` nearest, or the fewest whose weights reach
    `mass`

    h (B, d), memory_h (M, d) -> (B, B+M) float64, rows sum to 1; column j < B is prompt j itself, always
    kept, so top_k = 1 is the identity. tau = inf gives uniform weights; as tau -> 0 only duplicates share.
    Raises ValueError for tau <= 0, top_k < 1, mass outside (0, 1], both at once, or an h without direction.
    """
    if top_k is not None and mass is not None:
        raise ValueError("give top_k or mass, not both: each of them chooses the neighbours")
    if top_k is not None:
        return nearest_weights(h, tau, top_k, memory_h).dense()
    unit, pool = _directions(h, memory_h)
    weights = torch.empty(len(unit), len(pool), dtype=torch.float64, device=h.device)
    for start in range(0, len(unit), BLOCK):
        cosines = _cosines(unit[start : start + BLOCK], pool, start).clamp_(max=1)
        weights[start : start + BLOCK] = _softmax(cosines, tau)
    return weights if mass is None else _fewest_reaching(weights, mass)


def nearest_weights(
    h: Tensor, tau: float, top_k: int, memory_h: Tensor | None = None, block: int = BLOCK
) -> Neighbours:
    """`neighbourhood_weights` with top_k in memory B·K, by an exact search over `block` rows at a time.

    The search looks at every cosine, so its time still grows as B·C·d; what uses the weights costs B·K.
    Raises ValueError as `neighbourhood_weights` does.
    """
    if top_k < 1:
        raise ValueError(f"top_k={top_k}: a prompt has at least one neighbour, itself")
    unit, pool = _directions(h, memory_h)
    starts = range(0, len(unit), block)
    k = min(top_k, len(pool))
    found = [_cosines(unit[start : start + block], pool, start).topk(k, dim=1) for start in starts]
    cosines = torch.cat([values for values, _ in found]).clamp_(max=1)
    return Neighbours(torch.cat([index for _, index in found]), _softmax(cosines, tau), len(pool))


def _directions(h: Tensor, memory_h: Tensor | None) -> tuple[Tensor, Tensor]:
    """Unit rows of h (B, d), and of h with the memory below it (C, d)."""
    if h.ndim != 2 or len(h) == 0:
        raise ValueError(f"h has shape {tuple(h.shape)}: expected (prompts, features)")
    pool = h.detach() if memory_h is None else torch.cat([h.detach(), memory_h.detach().to(h)])
    pool = pool.to(torch.promote_types(pool.dtype, torch.float32))
    norm = torch.linalg.vector_norm(pool, dim=1, keepdim=True)
    unusable = int((~(norm.isfinite() & (norm > 0))).sum())
    if unusable:
        raise ValueError(f"h: {unusable} of {len(pool)} embeddings are zero or not finite")
    pool = pool / norm
    return pool[: len(h)], pool


def _cosines(rows: Tensor, pool: Tensor, start: int) -> Tensor:
    """cos(h_j, h_k) for rows start..start+n, (n, C); a prompt's own entry is 2, so that it wins every tie."""
    cosines = rows @ pool.T
    own = torch.arange(len(rows), device=rows.device)
    cosines[own, own + start] = 2
    return cosines


def _softmax(cosines: Tensor, tau: float) -> Tensor:
    """softmax(cosines / tau), float64. Each row holds its own prompt at 1, which is thus the maximum."""
    if not tau > 0:
        raise ValueError(f"tau={tau}: the temperature must be above 0")
    weights = cosines.double().sub_(1).div_(tau).exp_()
    return weights.div_(weights.sum(1, keepdim=True))


def _fewest_reaching(weights: Tensor, mass: float) -> Tensor:
    """Keep each row's largest weights, its own first, until they sum to `mass`; renormalise."""
    if not 0 < mass <= 1:
        raise ValueError(f"mass={mass}: a share of the weight lies in (0, 1]")
    order = weights.clone().fill_diagonal_(2).argsort(dim=1, descending=True)
    ranked = weights.gather(1, order)
    before = ranked.cumsum(1) - ranked
    kept = torch.zeros_like(weights).scatter_(1, order, ranked.where(before < mass - 1e-12, 0))
    return kept / kept.sum(1, keepdim=True)


# -- statistics (PolyCode, CGMN) ----------------------------------------------------------------------------


def group_statistics(values: Tensor) -> tuple[Tensor, Tensor]:
    """mu_k = (1/G) Σ_i v_ki and sigma_k² = (1/G) Σ_i (v_ki − mu_k)²: values (B, G) -> two (B,), float64.

    Sums run over differences from the first value, so a constant group has exactly its constant and exactly
    0.
    Raises ValueError when values is not (B, G) or holds a NaN or an infinity.
    """
    values = _group_matrix(values, "values")
    mean = values[:, 0] + (values - values[:, :1]).mean(1)
    return mean, (values - mean[:, None]).square().mean(1)


def meta_statistics(w: Tensor | Neighbours, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the mixture each prompt draws from its neighbours (PolyCode, CGMN).

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
    """Σ_k weight_jk values_k for values (C,), Σ_k weight_jk values_jk for values (B, K): -> (B,)."""
    return weight @ values if values.ndim == 1 else (weight * values).sum(1)


def _group_matrix(values: Tensor, name: str) -> Tensor:
    """values as a float64 (B, G) matrix without gradient; refuses other shapes and non-finite entries."""
    if values.ndim != 2 or values.numel() == 0:
        raise ValueError(f"{name} has shape {tuple(values.shape)}: expected (prompts, completions)")
    broken = int((~values.isfinite()).sum())
    if broken:
        raise ValueError(f"{name}: {broken} of {values.numel()} values are NaN or infinite")
    return values.detach().double()


def _as_given(result: Tensor, values: Tensor) -> Tensor:
    """result in the dtype of values, float32 at least."""
    return result.to(torch.promote_types(values.dtype, torch.float32))


# -- past prompts and other ranks' prompts (PolyCode, CGMN) -------------------------------------------------


@dataclass(frozen=True)
class PromptStatistics:
    """All that pooling needs of B prompts: what a rank sends for completions, what the memory keeps."""

    h: Tensor  # (B, d)
    mean_r: Tensor  # (B,), as are the rest
    var_r: Tensor
    mean_l: Tensor
    var_l: Tensor

    @classmethod
    def cat(cls, *parts: "PromptStatistics") -> "PromptStatistics":
        """The prompts of all parts in order, on the last one's device."""
        like = parts[-1]
        columns = ([getattr(part, f.name).to(getattr(like, f.name)) for part in parts] for f in fields(cls))
        return cls(*(torch.cat(column) for column in columns))

    def last(self, count: int) -> "PromptStatistics":
        """A copy of the `count` prompts that came last."""
        return PromptStatistics(*(getattr(self, f.name)[-count:].clone() for f in fields(self)))


def prompt_statistics(rewards: Tensor, log_probs: Tensor, h: Tensor) -> PromptStatistics:
    """`group_statistics` of rewards and log_probs (B, G), beside h (B, d)."""
    if not len(rewards) == len(log_probs) == len(h):
        raise ValueError(f"rewards, log_probs and h have {len(rewards)}, {len(log_probs)} and {len(h)} rows")
    return PromptStatistics(h.detach(), *group_statistics(rewards), *group_statistics(log_probs))


class Memory:
    """First-in, first-out bank of past prompts' (h, mean R, var R, mean L, var L) (PolyCode, CGMN).

    Compute a batch's advantages first and push it afterwards, or its prompts count twice.
    Raises ValueError for capacity < 1, a push with h of another size, a checkpoint of another capacity.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"capacity={capacity}: a memory holds at least one prompt")
        self.capacity = capacity
        self.bank: PromptStatistics | None = None

    def __len__(self) -> int:
        return 0 if self.bank is None else len(self.bank.h)

    def push(self, batch: PromptStatistics) -> None:
        """Add a batch's prompts; the oldest leave once more than `capacity` are held."""
        if self.bank is not None:
            held, size = self.bank.h.shape[1], batch.h.shape[1]
            if held != size:
                raise ValueError(f"the memory holds embeddings of size {held}, the batch brings size {size}")
            batch = PromptStatistics.cat(self.bank, batch)
        self.bank = batch.last(self.capacity)

    def state_dict(self) -> dict[str, Any]:
        """Capacity and, once something was pushed, the five tensors."""
        held = {} if self.bank is None else {f.name: getattr(self.bank, f.name) for f in fields(self.bank)}
        return {"capacity": self.capacity, **held}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Replace the contents by those of `state_dict()`."""
        if state["capacity"] != self.capacity:
            raise ValueError(f"checkpoint's memory has capacity {state['capacity']}, these settings {self.capacity}")
        tensors = {name: value for name, value in state.items() if name != "capacity"}
        self.bank = PromptStatistics(**tensors) if tensors else None


Past = PromptStatistics | Memory | None


def _bank(memory: Past) -> PromptStatistics | None:
    return memory.bank if isinstance(memory, Memory) else memory


# -- advantages (PolyCode, CGMN) ----------------------------------------------------------------------------


def meta_advantages(rewards: Tensor, w: Tensor | Neighbours, delta: float = 1e-6, memory: Past = None) -> Tensor:
    """A^meta_ji = (r_ji − mu_j^R,meta) / (sigma_j^R,meta + delta) (PolyCode, CGMN).

    rewards (B, G), w (B, C) -> (B, G); `memory` supplies the columns of w after the first B.
    |A^meta| <= sqrt((1 − p)/p) with p = w_jj/G: no value stands further out of a distribution that holds it.
    Raises ValueError for delta <= 0 or non-finite rewards.
    """
    past = _bank(memory)
    return _standardise(rewards, "rewards", w, delta, None if past is None else (past.mean_r, past.var_r))


def likelihood_z(
    log_probs: Tensor,
    w: Tensor | Neighbours,
    delta: float = 1e-6,
    clip: float | None = None,
    memory: Past = None,
) -> Tensor:
    """L̂_ji = (L_ji − mu_j^L,meta) / (sigma_j^L,meta + delta), optionally held within ±clip (PolyCode, SBAM).

    log_probs (B, G), summed over the completion under pi_old, end token included; w (B, C) -> (B, G).
    Raises ValueError for delta <= 0, clip <= 0 or non-finite log-probabilities.
    """
    if clip is not None and not clip > 0:
        raise ValueError(f"clip={clip}: the bound on |L̂| must be above 0")
    past = _bank(memory)
    z = _standardise(log_probs, "log_probs", w, delta, None if past is None else (past.mean_l, past.var_l))
    return z if clip is None else z.clamp(-clip, clip)


def _standardise(
    values: Tensor, name: str, w: Tensor | Neighbours, delta: float, past: tuple[Tensor, Tensor] | None
) -> Tensor:
    """(v − meta mean) / (meta std + delta), in the values' own dtype."""
    if not delta > 0:
        raise ValueError(f"delta={delta}: it must be above 0, or equal {name} divide by zero")
    exact = _group_matrix(values, name)
    mean, var = group_statistics(exact)
    if past is not None:
        mean, var = torch.cat([mean, past[0].to(mean)]), torch.cat([var, past[1].to(var)])
    meta_mean, meta_std = meta_statistics(w, mean, var)
    return _as_given((exact - meta_mean[:, None]) / (meta_std[:, None] + delta), values)


# -- surprise (PolyCode, SBAM) ------------------------------------------------------------------------------


def surprise(advantage: Tensor, l_hat: Tensor) -> Tensor:
    """S = A^meta · L̂, (B, G): negative where reward contradicts the model's confidence (PolyCode, SBAM)."""
    return advantage * l_hat


def amplification(s: Tensor, lam: float, phi: Phi = "relu", gamma: float = 1.0) -> Tensor:
    """1 + lam·phi(−S), (B, G) -> (B, G) (PolyCode, SBAM).

    phi(u) = max(u, 0)^gamma (relu), ln(1 + e^u) (softplus) or tanh(max(u, 0)) (tanh)

    Proposition 1, as shown here for relu: the factor is 1 at S >= 0 and never rises with S. Where |A^meta| <=
    a and |L̂| <= l it lies in [1, 1 + lam·(a·l)^gamma], because −S <= a·l. As S -> −inf it has no bound. A
    batch always has such an a and l, with a·l <= G/w_jj − 1 (see `meta_advantages`). tanh stays within 1 +
    lam; softplus exceeds 1 even at S >= 0.
    Raises ValueError for lam < 0 (signs could flip), gamma <= 0, or a gamma given to another phi than relu.
    """
    if phi not in get_args(Phi):
        raise ValueError(f"phi={phi!r}: choose one of {', '.join(get_args(Phi))}")
    if not (lam >= 0 and gamma > 0):
        raise ValueError(f"lam={lam}, gamma={gamma}: lam must be at least 0 and gamma above 0")
    if gamma != 1 and phi != "relu":
        raise ValueError(f"gamma={gamma}: only phi='relu' has an exponent, not {phi!r}")
    if phi == "softplus":
        return 1 + lam * functional.softplus(-s)
    contradiction = (-s).clamp(min=0)
    return 1 + lam * (contradiction.tanh() if phi == "tanh" else contradiction**gamma)


def sbam(advantage: Tensor, l_hat: Tensor, lam: float, phi: Phi = "relu", gamma: float = 1.0) -> Tensor:
    """A = A^meta · (1 + lam·phi(−S)), (B, G), with the sign of A^meta; lam = 0 is A^meta (PolyCode, SBAM)."""
    return advantage * amplification(surprise(advantage, l_hat), lam, phi, gamma)


@dataclass(frozen=True)
class Advantages:
    """What a batch's advantages are made of; every field (B, G)."""

    advantages: Tensor
    a_meta: Tensor
    l_hat: Tensor
    surprise: Tensor
    amplification: Tensor


def gmpo_advantages(
    rewards: Tensor,
    log_probs: Tensor,
    h: Tensor,
    tau: float,
    lam: float,
    *,
    phi: Phi = "relu",
    gamma: float = 1.0,
    delta: float = 1e-6,
    top_k: int | None = None,
    mass: float | None = None,
    clip: float | None = None,
    memory: Past = None,
) -> Advantages:
    """CGMN, then SBAM: rewards and log_probs (B, G), h (B, d) -> Advantages (PolyCode, CGMN and SBAM).

    `memory` is past prompts or the other ranks' prompts of this batch: pooling treats them alike. top_k = 1
    without memory is GMPO without CGMN, lam = 0 GMPO without SBAM. Raises ValueError as the functions it
    calls do.
    """
    if rewards.shape != log_probs.shape or len(rewards) != len(h):
        shapes = f"{tuple(rewards.shape)}, {tuple(log_probs.shape)} and {tuple(h.shape)}"
        raise ValueError(f"rewards, log_probs and h have shapes {shapes}: expected (B, G), (B, G) and (B, d)")
    past = _bank(memory)
    memory_h = None if past is None else past.h
    w: Tensor | Neighbours
    if top_k is not None and mass is None:
        w = nearest_weights(h, tau, top_k, memory_h)
    else:
        w = neighbourhood_weights(h, tau, top_k, mass, memory_h)
    a_meta = meta_advantages(rewards.double(), w, delta, past)
    l_hat = likelihood_z(log_probs.double(), w, delta, clip, past)
    s = surprise(a_meta, l_hat)
    factor = amplification(s, lam, phi, gamma)
    return Advantages(*(_as_given(part, rewards) for part in (a_meta * factor, a_meta, l_hat, s, factor)))


# -- baselines: what the same rewards become elsewhere, (B, G) -> (B, G) ------------------------------------


def grpo_advantages(rewards: Tensor, delta: float = 1e-6, ddof: int = 0) -> Tensor:
    """(r − mu_j) / (sigma_j + delta), each prompt by itself (GRPO). TRL's has ddof 1 and delta 1e-4."""
    values = _group_matrix(rewards, "rewards")
    mean, var = group_statistics(values)
    size = values.shape[1]
    std = (var * size / max(size - ddof, 1)).sqrt()
    return _as_given((values - mean[:, None]) / (std[:, None] + delta), rewards)


def dr_grpo_advantages(rewards: Tensor) -> Tensor:
    """r − mu_j (Dr. GRPO)."""
    values = _group_matrix(rewards, "rewards")
    return _as_given(values - group_statistics(values)[0][:, None], rewards)


def batch_advantages(rewards: Tensor, delta: float = 1e-6) -> Tensor:
    """(r − mu) / (sigma + delta) over the whole batch (batch-normalised PPO)."""
    return grpo_advantages(rewards.reshape(1, -1), delta).reshape(rewards.shape)


def rloo_advantages(rewards: Tensor) -> Tensor:
    """r_i − mean of the others = (r_i − mu_j)·G/(G − 1) (RLOO). Raises ValueError at G = 1: no others."""
    size = rewards.shape[-1]
    if size < 2:
        raise ValueError("leave-one-out needs at least two completions a prompt")
    return dr_grpo_advantages(rewards) * (size / (size - 1))


# -- objective (PolyCode, Objective) ------------------------------------------------------------------------


def log_ratio(new_logps: Tensor, old_logps: Tensor, mask: Tensor, level: Level = "sequence") -> Tensor:
    """ln s of each sequence or token, fp32 (PolyCode, Objective).

    sequence: Σ_t (ln pi_theta − ln pi_old);  sequence_mean: that over the length;  token: each difference

    All (N, T), mask 1 on completion tokens -> (N,), or (N, T) with 0 at padding for token. What stands at
    padding does not matter, not even a NaN.
    Raises ValueError for an unknown level or a non-finite log-probability under the mask.
    """
    if level not in get_args(Level):
        raise ValueError(f"level={level!r}: choose one of {', '.join(get_args(Level))}")
    tokens = _token_differences(new_logps, old_logps, mask)
    if level == "token":
        return tokens
    total = tokens.sum(1)
    return total if level == "sequence" else total / mask.sum(1).clamp(min=1)


def _token_differences(left: Tensor, right: Tensor, mask: Tensor) -> Tensor:
    """left − right where mask, 0 elsewhere, (N, T) fp32; the gradient at padding is 0."""
    if not left.shape == right.shape == mask.shape:
        shapes = f"{tuple(left.shape)}, {tuple(right.shape)} and {tuple(mask.shape)}"
        raise ValueError(f"log-probabilities and mask have shapes {shapes}: expected (N, T) three times")
    difference = torch.where(mask.bool(), left.float() - right.float(), 0.0)
    broken = int((~difference.isfinite()).sum())
    if broken:
        raise ValueError(f"log-probabilities of {broken} of {int(mask.sum())} tokens are NaN or infinite")
    return difference


@dataclass(frozen=True)
class Clipped:
    """`objective` (N,) or (N, T), to be maximised; the other two are 0-d, without gradient."""

    objective: Tensor
    clip_fraction: Tensor
    effective_sample_size: Tensor


def clipped_objective(log_ratios: Tensor, advantages: Tensor, epsilon: float, mask: Tensor | None = None) -> Clipped:
    """min(s·A, clip(s, 1−ε, 1+ε)·A), decided before the exponential is taken (PolyCode, Objective).

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


def effective_sample_size(log_weights: Tensor) -> Tensor:
    """(Σ s)² / Σ s² from ln s (n,): 0-d, 1 to n, 0 for none; the largest s is divided out: no overflow."""
    if log_weights.numel() == 0:
        return log_weights.new_zeros(())
    s = (log_weights - log_weights.max()).exp()
    return s.sum().square() / s.square().sum()


def kl_k3(new_logps: Tensor, ref_logps: Tensor, mask: Tensor) -> Tensor:
    """exp(x) − 1 − x at x = ln pi_ref − ln pi_theta, token by token: Schulman's k3 for KL(pi_theta‖pi_ref).

    exp(x) − 1 is expm1, so that small x keep their digits; x stops at MAX_LOG_RATIO. All (N, T) -> (N, T)
    fp32, 0 at padding. Unbiased for tokens of pi_theta; on tokens of pi_old it is an approximation.
    Raises ValueError for a non-finite log-probability under the mask.
    """
    x = _token_differences(ref_logps, new_logps, mask).clamp(max=MAX_LOG_RATIO)
    return torch.expm1(x) - x
