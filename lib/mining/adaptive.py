"""Adaptive K: so many draws in all, spread over tasks in rounds by what the next draw promises.

A *winner* is a program that passes every test; two with one syntax tree are one, and a task counts at most m,
since selection keeps no more. A draw of task t is taken to bring a new winner with chance q_t:

    q_t ~ Beta(a_t, b_t),   after n draws and d winners   q_t ~ Beta(a_t + d, b_t + n − d)

so a batch of B draws promises E[min(m − d, X)], X ~ BetaBinomial(B, a_t + d, b_t + n − d) (`expected_new_winners`). A
round goes to the tasks that expected_new_winners most; before the first draw all are alike and chance decides. The prior
is fitted to the draws made so far, never to those to come.

Modelled: how far tasks differ, and, where `covariate` is given (one number a task known before sampling, such as
the length of its prompt), how that goes with difficulty. Not modelled: q_t falls as a task's programs repeat,
which the posterior sees only through d standing still; a failure that came close; the min_gain of learning about
a task beyond the winners of the batch itself (the rule is greedy); that long programs cost more.

The price: winners come from fewer tasks than with uniform K while the budget is small, since hard tasks are
left alone. `ReplayResult.solved` says how many; a small m spreads the draws wider.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import optimize
from scipy.special import betaln, expit
from scipy.stats import betabinom

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Prior = tuple[npt.ArrayLike, npt.ArrayLike]  # a and b of the Beta, numbers or one of each a task
Pool = Sequence[tuple[bool, str]]  # a task's draws: solved?, syntax digest


def fit_prior(counts: Sequence[tuple[int, int]], covariate: npt.ArrayLike | None = None) -> tuple[Floats, Floats]:
    """Empirical Bayes: a_t = μ_t s and b_t = (1 − μ_t) s, each (tasks,), logit μ_t = w₀ + w₁ x_t.

    Maximises Σ ln BetaBinomial(d_t; n_t, a_t, b_t) plus the log of weak priors, w₀ ~ N(−1, 2²), w₁ ~ N(0, 1),
    ln s ~ N(ln 2, 1), which decide alone while there are no draws. x is `covariate` standardised, 0 without one.
    Raises ValueError when covariate and counts differ in length.
    """
    n, d = np.array(counts, dtype=float).reshape(-1, 2).T
    x = np.zeros(len(n)) if covariate is None else np.asarray(covariate, dtype=float)
    if x.shape != n.shape:
        raise ValueError(f"covariate of shape {x.shape} for {len(n)} tasks: one number a task")
    x = (x - x.mean()) / (x.std() or 1.0)
    drawn = n > 0

    def shape(w: Floats) -> tuple[Floats, Floats]:
        mean = np.clip(expit(w[0] + w[1] * x), 1e-4, 1 - 1e-4)
        return mean * np.exp(w[2]), (1 - mean) * np.exp(w[2])

    def loss(w: Floats) -> float:
        a, b = (part[drawn] for part in shape(w))
        evidence = (betaln(a + d[drawn], b + (n - d)[drawn]) - betaln(a, b)).sum()
        return float(((w[0] + 1) ** 2 / 4 + w[1] ** 2 + (w[2] - np.log(2)) ** 2) / 2 - evidence)

    start = np.array([-1.0, 0.0, np.log(2)])
    return shape(optimize.minimize(loss, start, method="L-BFGS-B", bounds=[(-8, 8), (-8, 8), (-4, 6)]).x)


def expected_new_winners(counts: Sequence[tuple[int, int]], m: int, batch: npt.ArrayLike, prior: Prior) -> Floats:
    """Expected new winners from `batch` more draws of each task, up to m in all, (tasks,).

    E[min(r, X)] = Σ_{j=1..r} Pr(X ≥ j),  r = m − d,  X ~ BetaBinomial(batch, a + d, b + n − d)
    """
    n, d = np.array(counts, dtype=np.int64).reshape(-1, 2).T
    a, b = (np.broadcast_to(np.asarray(part, dtype=float), n.shape) for part in prior)
    size = np.broadcast_to(np.asarray(batch, dtype=np.int64), n.shape)
    levels = np.arange(1, max(1, int(size.max(initial=0))) + 1)  # (B,)
    reached = betabinom.sf(levels - 1, size[:, None], (a + d)[:, None], (b + n - d)[:, None])  # (tasks, B)
    expected: Floats = np.where(levels <= (m - d)[:, None], reached, 0.0).sum(axis=1)
    return np.where(size > 0, expected, 0.0)


def plan(
    counts: Sequence[tuple[int, int]], m: int, total: int, prior: Prior, batch: int = 1,
    left: npt.ArrayLike | None = None, min_gain: float = 0.0, seed: int = 0,
) -> Ints:  # fmt: skip
    """Draws for each task in the next round, (tasks,): at most `total` together, `batch` for each one chosen.

    `counts` are (draws made, distinct winners found). A task is out when it has m winners, when `left` allows
    no more draws, or when a draw of it promises no more than `min_gain` winners; all zeros means that all are
    out. Ties are broken by `seed`, so that the order of the tasks decides nothing.
    Raises ValueError unless m, total and batch are at least 1.
    """
    if min(m, total, batch) < 1:
        raise ValueError(f"m={m}, total={total}, batch={batch}: each should be at least 1")
    sizes = np.full(len(counts), batch)
    if left is not None:
        sizes = np.minimum(sizes, np.asarray(left, dtype=np.int64))
    each = expected_new_winners(counts, m, sizes, prior) / np.maximum(sizes, 1)
    order = np.lexsort((np.random.default_rng(seed).random(len(counts)), -each))
    order = order[each[order] > min_gain]
    before = np.cumsum(sizes[order]) - sizes[order]
    chosen = np.zeros(len(counts), dtype=np.int64)
    chosen[order] = np.clip(total - before, 0, sizes[order])
    return chosen


# --------------------------------------------------------------------------------------------------- replay


@dataclasses.dataclass(frozen=True)
class ReplayResult:
    """What a way of spending draws brought: `winners` at most m a task, `distinct` without that limit."""

    draws: int
    winners: int
    distinct: int
    solved: int  # tasks with a winner

    @property
    def per_draw(self) -> float:
        """Winners for one draw."""
        return self.winners / self.draws if self.draws else 0.0


def simulate(
    pools: Sequence[Pool], budget: int, m: int, covariate: npt.ArrayLike | None = None, batch: int = 1,
    min_gain: float = 0.0, seed: int = 0, round_draws: int | None = None,
) -> tuple[ReplayResult, ReplayResult]:  # fmt: skip
    """(adaptive, uniform): recorded attempts replayed in an order shuffled by `seed`, at one budget.

    Uniform gives every task budget // tasks draws, and one more to as many as the remainder says. Adaptive
    makes rounds of `round_draws`, by default a tenth of the tasks times `batch`. Neither draws more of a task than was recorded, which
    costs adaptive the more, the nearer budget / tasks comes to the length of the pools.
    Raises ValueError for a budget below 1 or one that uniform cannot spend.
    """
    tasks, shortest = len(pools), min(map(len, pools), default=0)
    if not 1 <= budget <= tasks * shortest:
        raise ValueError(f"budget={budget}: 1 to {tasks * shortest} draws, {tasks} tasks of {shortest} draws")
    rng = np.random.default_rng(seed)
    found = [_distinct([pool[i] for i in rng.permutation(len(pool))]) for pool in pools]
    uniform = np.full(tasks, budget // tasks)
    uniform[rng.permutation(tasks)[: budget % tasks]] += 1
    made, most = np.zeros(tasks, dtype=np.int64), round_draws or batch * max(1, tasks // 10)
    while made.sum() < budget:
        counts = [(int(n), winners[n]) for n, winners in zip(made, found, strict=True)]
        left = [len(pool) - n for pool, n in zip(pools, made, strict=True)]
        total = min(most, budget - int(made.sum()))
        chosen = plan(counts, m, total, fit_prior(counts, covariate), batch, left, min_gain, seed)
        if not chosen.any():
            break
        made += chosen
    return _yield(found, made, m), _yield(found, uniform, m)


def _distinct(pool: Pool) -> list[int]:
    """Distinct winners after 0, 1, … draws."""
    seen: set[str] = set()
    found = [0]
    for solved, digest in pool:
        if solved:
            seen.add(digest)
        found.append(len(seen))
    return found


def _yield(found: Sequence[Sequence[int]], made: Ints, m: int) -> ReplayResult:
    distinct = np.array([winners[n] for winners, n in zip(found, made, strict=True)])
    capped = int(np.minimum(distinct, m).sum())
    return ReplayResult(int(made.sum()), capped, int(distinct.sum()), int((distinct > 0).sum()))
