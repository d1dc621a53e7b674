"""Where CGMN and SBAM help and where they hurt, on bandits whose policy gradient is known exactly.

No language model: each prompt is a bandit with a few arms, some of them correct. Prompts come in clusters
that share their features and their place in embedding space; four mixes decide how difficulty relates to the
clusters. Arms are drawn, every normaliser turns the same draws into a gradient, and its bias, variance and
alignment with the true gradient are measured.

What this cannot show: long completions, drifting policies, clipping, embeddings that are wrong in other ways
than ignoring difficulty. Dividing by a standard deviation changes the objective on purpose; that counts as
bias here, because the yardstick is the gradient of the plain mean reward.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from lib.gmpo.advantages import (
    batch_advantages,
    dr_grpo_advantages,
    grpo_advantages,
    likelihood_z,
    meta_advantages,
    rloo_advantages,
    sbam,
)
from lib.gmpo.neighbourhoods import neighbourhood_weights

Mix = Literal["even", "by-cluster", "within-cluster", "rare"]
GROUP_SIZES = (1, 2, 4, 8, 16, 32)
REFERENCES = ("grpo", "batch", "cgmn")


@dataclasses.dataclass(frozen=True)
class World:
    """B prompts with A arms each; the policy's logits move by features (B, A, P) times the P parameters."""

    h: Tensor  # (B, d)
    policy: Tensor  # (B, A), rows sum to 1
    correct: Tensor  # (B, A), 0 or 1
    score: Tensor  # (B, A, P), the gradient of ln policy
    gradient: Tensor  # (P,), the gradient of the mean success probability


def make_world(mix: Mix, seed: int, clusters: int = 8, per_cluster: int = 4, arms: int = 8) -> World:
    """One world. Arms 0 and 1 are correct and share the success probability that `mix` gives the prompt.

    even: 0.5 everywhere. by-cluster: 0.05 to 0.95 from cluster to cluster, so neighbours are equally hard.
    within-cluster: 0.05 to 0.95 inside each cluster, so neighbours mislead. rare: 0.03 everywhere.
    Raises ValueError for an unknown mix.
    """
    if mix not in get_args(Mix):
        raise ValueError(f"mix={mix!r}: choose one of {', '.join(get_args(Mix))}")
    stream = torch.Generator().manual_seed(seed)
    success = _success(mix, clusters, per_cluster)  # (B,)
    correct = torch.zeros(len(success), arms, dtype=torch.float64)
    correct[:, :2] = 1
    taste = _normal(stream, len(success), arms).exp()
    right, wrong = taste * correct, taste * (1 - correct)
    chance = success[:, None]
    policy = chance * right / right.sum(1, keepdim=True) + (1 - chance) * wrong / wrong.sum(1, keepdim=True)
    features = _clustered(stream, clusters, per_cluster, 0.5, arms, 24)
    score = features - torch.einsum("ba,bap->bp", policy, features)[:, None]
    gradient = torch.einsum("ba,ba,bap->p", policy, correct, score) / len(success)
    return World(_clustered(stream, clusters, per_cluster, 0.3, 32), policy, correct, score, gradient)


def _success(mix: Mix, clusters: int, per_cluster: int) -> Tensor:
    """Success probability of each prompt, cluster by cluster, (B,)."""
    if mix == "by-cluster":
        return torch.linspace(0.05, 0.95, clusters, dtype=torch.float64).repeat_interleave(per_cluster)
    if mix == "within-cluster":
        return torch.linspace(0.05, 0.95, per_cluster, dtype=torch.float64).repeat(clusters)
    return torch.full((clusters * per_cluster,), 0.5 if mix == "even" else 0.03, dtype=torch.float64)


def _normal(stream: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=stream, dtype=torch.float64)


def _clustered(stream: torch.Generator, clusters: int, per_cluster: int, noise: float, *shape: int) -> Tensor:
    """A standard normal centre for each cluster, repeated, plus `noise` of each prompt's own: (B, *shape)."""
    centres = _normal(stream, clusters, *shape).repeat_interleave(per_cluster, 0)
    return centres + noise * _normal(stream, clusters * per_cluster, *shape)


def draw(world: World, group_size: int, replicates: int, seed: int) -> Tensor:
    """Arms drawn from the policy: (R, B, G)."""
    stream = torch.Generator().manual_seed(seed)
    arms = torch.multinomial(world.policy, replicates * group_size, replacement=True, generator=stream)
    return arms.reshape(len(world.policy), replicates, group_size).transpose(0, 1)


def gradient_estimates(world: World, arms: Tensor, advantages: Tensor) -> Tensor:
    """ĝ = (1/B) Σ_j (1/G) Σ_i A_ji ∇ ln pi(a_ji): arms and advantages (R, B, G) -> (R, P)."""
    per_arm = torch.zeros(*arms.shape[:2], world.policy.shape[1], dtype=advantages.dtype)
    per_arm = per_arm.scatter_add(2, arms, advantages)  # (R, B, A)
    return torch.einsum("rba,bap->rp", per_arm, world.score) / (arms.shape[1] * arms.shape[2])


def normalisers(w: Tensor, group_size: int, lam: float) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """Every method compared, as a function of rewards and log-probs (B, G); rloo only where G > 1."""

    methods: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "reinforce": lambda r, logs: r,
        "dr_grpo": lambda r, logs: dr_grpo_advantages(r),
        "grpo": lambda r, logs: grpo_advantages(r),
        "batch": lambda r, logs: batch_advantages(r),
        "cgmn": lambda r, logs: meta_advantages(r, w),
        "cgmn+sbam": lambda r, logs: sbam(meta_advantages(r, w), likelihood_z(logs, w), lam),
    }
    return methods | ({"rloo": lambda r, logs: rloo_advantages(r)} if group_size > 1 else {})


def alignment(estimates: Tensor, gradient: Tensor) -> Tensor:
    """cos(ĝ, g), the share of the best first-order gain that a step of fixed length makes: (R, P) -> (R,).

    An estimate of exactly 0 makes no step and counts 0.
    """
    length = torch.linalg.vector_norm(estimates, dim=1) * torch.linalg.vector_norm(gradient)
    return torch.where(length > 0, estimates @ gradient / length.clamp(min=1e-300), 0.0)


def bias_and_variance(estimates: Tensor, gradient: Tensor) -> tuple[float, float]:
    """Squared bias and variance relative to the signal c·g, c = <E ĝ, g>/<g, g>: estimates (R, P), R >= 2.

    bias² = ‖E ĝ − c g‖² / ‖c g‖²,  variance = E‖ĝ − E ĝ‖² / ‖c g‖²

    A common scale is no bias: the optimiser's step size absorbs it. The chance part of the measured bias,
    which is variance·(P−1)/(P·R), is taken off, so an unbiased estimator scatters around 0 and may fall below
    it. Both are NaN where there is no signal, as with GRPO at G = 1.
    """
    replicates, size = estimates.shape
    mean = estimates.mean(0)
    scale = float(mean @ gradient / (gradient @ gradient))
    if scale <= 0:
        return math.nan, math.nan
    signal = scale**2 * float(gradient @ gradient)
    variance = float(estimates.var(0).sum()) / signal
    bias = float((mean - scale * gradient).square().sum()) / signal
    return bias - variance * (size - 1) / (size * replicates), variance


def measure(
    world: World, group_size: int, replicates: int, seed: int, tau: float, lam: float
) -> dict[str, dict[str, float]]:
    """Every normaliser on the same draws of one world: method -> bias², variance, alignment, size of A."""
    arms = draw(world, group_size, replicates, seed)
    rows = torch.arange(len(world.policy))[None, :, None]
    rewards, log_probs = world.correct[rows, arms], world.policy.log()[rows, arms]
    w = neighbourhood_weights(world.h, tau)
    results = {}
    for name, advantage in normalisers(w, group_size, lam).items():
        advantages = torch.stack([advantage(r, logs) for r, logs in zip(rewards, log_probs, strict=True)])
        estimates = gradient_estimates(world, arms, advantages)
        bias, variance = bias_and_variance(estimates, world.gradient)
        aligned = float(alignment(estimates, world.gradient).mean())
        size = float(advantages.abs().mean())
        results[name] = {"bias2": bias, "variance": variance, "alignment": aligned, "advantage_size": size}
    return results


def simulate(
    mixes: Sequence[Mix] = get_args(Mix),
    group_sizes: Sequence[int] = GROUP_SIZES,
    worlds: int = 8,
    replicates: int = 50,
    tau: float = 0.1,
    lam: float = 1.0,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """The whole comparison: one row for each mix, group size and method; under a minute on one core as it
    stands.

    bias2, variance, alignment and advantage_size are means over worlds. over_X and over_X_se: the mean
    difference in alignment to reference X on the same draws, and its standard error between worlds.
    Raises ValueError for fewer than two worlds or replicates, which leave no error to report.
    """
    if worlds < 2 or replicates < 2:
        raise ValueError(f"worlds={worlds}, replicates={replicates}: an error needs at least two of each")
    rows = []
    for mix in mixes:
        places = [make_world(mix, seed + index) for index in range(worlds)]
        for size in group_sizes:
            found = [
                measure(place, size, replicates, seed + 7919 * (index + 1), tau, lam)
                for index, place in enumerate(places)
            ]
            rows += [_row(mix, size, name, found) for name in found[0]]
    return rows


def _row(mix: Mix, group_size: int, name: str, found: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """One method in one cell, averaged over worlds and set against the references world by world."""
    own = {key: _mean([one[name][key] for one in found]) for key in found[0][name]}
    row: dict[str, Any] = {"mix": mix, "group_size": group_size, "method": name, **own}
    for reference in REFERENCES:
        gains = [one[name]["alignment"] - one[reference]["alignment"] for one in found]
        row[f"over_{reference}"] = _mean(gains)
        row[f"over_{reference}_se"] = float(torch.tensor(gains).std()) / math.sqrt(len(gains))
    return row


def _mean(values: list[float]) -> float:
    """The mean; NaN as soon as one value is: a signal missing in one world is missing."""
    return sum(values) / len(values)


def verdicts(
    rows: Sequence[dict[str, Any]], method: str = "cgmn", reference: str = "grpo", errors: float = 3.0
) -> list[dict[str, Any]]:
    """For each mix and group size: does `method` align better than `reference`, by more than `errors` s.e.?

    verdict is helps, hurts or unclear. Raises ValueError for a reference outside REFERENCES or an unknown
    method.
    """
    if reference not in REFERENCES:
        raise ValueError(f"reference={reference!r}: choose one of {', '.join(REFERENCES)}")
    chosen = [row for row in rows if row["method"] == method]
    if not chosen:
        raise ValueError(f"method={method!r}: not among {', '.join(sorted({row['method'] for row in rows}))}")
    return [_verdict(row, reference, errors) for row in chosen]


def _verdict(row: dict[str, Any], reference: str, errors: float) -> dict[str, Any]:
    gain, error = row[f"over_{reference}"], row[f"over_{reference}_se"]
    clear = abs(gain) > errors * error
    verdict = "unclear" if not clear else "helps" if gain > 0 else "hurts"
    cell = {key: row[key] for key in ("mix", "group_size", "method")}
    return {**cell, "reference": reference, "gain": gain, "se": error, "verdict": verdict}
