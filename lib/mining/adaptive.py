"""Adaptive K: a fixed number of samples, spread over tasks in rounds by what the next sample should bring.

A *winner* is a program that passes every test; two with one syntax tree are one, and a task counts at most m of them,
since selection keeps no more. A sample of task t brings a new winner with probability q_t:

    q_t ~ Beta(a_t, b_t),   after n samples and d winners   q_t ~ Beta(a_t + d, b_t + n − d)

so the next sample of a task with fewer than m winners brings (a_t + d) / (a_t + b_t + n) new winners on average. A
round goes to the tasks with the largest expectation; before the first sample all are alike and chance decides. The
prior is fitted to the samples made so far, never to those to come.

Modelled: how far tasks differ, and, where `covariate` is given (one number per task known before sampling, such as the
length of its prompt), how that goes with difficulty. Not modelled: q_t falls as a task's programs repeat, which the
posterior sees only through d standing still; a failure that came close; what is learnt about a task beyond the next
winner (the rule is greedy); that long programs cost more.

The price: winners come from fewer tasks than with uniform K while the budget is small, since hard tasks are left alone.
`benchmarks/adaptive.py` replays recorded attempts both ways and says how many; a small m spreads the samples wider.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import optimize
from scipy.special import betaln, expit

Floats = npt.NDArray[np.float64]
Prior = tuple[npt.ArrayLike, npt.ArrayLike]  # a and b of the Beta: numbers, or one per task


def fit_prior(counts: Sequence[tuple[int, int]], covariate: npt.ArrayLike | None = None) -> tuple[Floats, Floats]:
    """Fit the prior by empirical Bayes: a_t = μ_t s and b_t = (1 − μ_t) s, each (tasks,), logit μ_t = w₀ + w₁ x_t.

    Maximises Σ ln BetaBinomial(d_t; n_t, a_t, b_t) plus the log of weak priors, w₀ ~ N(−1, 2²), w₁ ~ N(0, 1),
    ln s ~ N(ln 2, 1), which decide alone while there are no draws. x is `covariate` standardised, 0 without one.
    Raises ValueError when covariate and counts differ in length.
    """
    n, d = np.array(counts, dtype=float).reshape(-1, 2).T
    x = np.zeros(len(n)) if covariate is None else np.asarray(covariate, dtype=float)
    if x.shape != n.shape:
        raise ValueError(f"covariate of shape {x.shape} for {len(n)} tasks: one number per task")
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


def expected_new_winners(counts: Sequence[tuple[int, int]], max_winners: int, prior: Prior) -> Floats:
    """Return the expected number of new winners of each task's next sample, (tasks,): 0 with `max_winners` or more."""
    n, d = np.array(counts, dtype=np.int64).reshape(-1, 2).T
    a, b = (np.asarray(part, dtype=float) for part in prior)
    expected: Floats = np.where(d < max_winners, (a + d) / (a + b + n), 0.0)
    return expected


def plan(
    counts: Sequence[tuple[int, int]],
    max_winners: int,
    total: int,
    *,
    prior: Prior,
    closed: Sequence[bool] | None = None,
    seed: int = 0,
) -> list[int]:
    """Return the places of at most `total` tasks that get one sample each in the next round, in ascending order.

    `counts` are (samples made, distinct winners found). A task is out when it has `max_winners` or is `closed`; an
    empty list means that all are out. Ties are broken by `seed`, so that the order of the tasks decides nothing. Raises
    ValueError unless max_winners and total are at least 1.
    """
    if min(max_winners, total) < 1:
        raise ValueError(f"max_winners={max_winners}, total={total}: each should be at least 1")
    gains = expected_new_winners(counts, max_winners, prior)
    if closed is not None:
        gains = np.where(closed, 0.0, gains)
    best_first = np.lexsort((np.random.default_rng(seed).random(len(counts)), -gains))
    return sorted(int(place) for place in best_first[:total] if gains[place] > 0)
