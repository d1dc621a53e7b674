"""How many samples are worth it: success against K, from one pool of draws.

Pr(at least one winner in K) = 1 − (1 − p)^K;  K for confidence 1 − δ: ceil(ln δ / ln(1 − p)).

`passed` is a boolean array (tasks, n): which of a task's n draws won. Draws of one task are taken as
independent and equally likely to win; two winners count as two even if they are the same program
(`lib.mining.adaptive` counts distinct ones).
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

import numpy
import numpy.typing

from lib.stats.estimators import clopper_pearson_interval, pass_at_k, wilson_interval

Floats = numpy.typing.NDArray[numpy.float64]
INTERVALS = {"wilson": wilson_interval, "clopper-pearson": clopper_pearson_interval}


def success_in(p: float, k: int) -> float:
    """Pr(≥ 1 winner in k draws) = 1 − (1 − p)^k."""
    return -math.expm1(k * math.log1p(-p)) if p < 1 else 1.0


def draws_for_confidence(p: float, delta: float) -> int:
    """The smallest K with Pr(≥ 1 winner in K) ≥ 1 − δ: ceil(ln δ / ln(1 − p)).

    Raises ValueError unless 0 < p ≤ 1 and 0 < δ < 1.
    """
    if not 0 < p <= 1 or not 0 < delta < 1:
        raise ValueError(f"p={p}, delta={delta}: should be 0 < p ≤ 1 and 0 < delta < 1")
    return 1 if p == 1 else max(1, math.ceil(math.log(delta) / math.log1p(-p)))


def expected_solved(passed: "numpy.ndarray", ks: Sequence[int]) -> list[float]:
    """Expected number of tasks solved with k draws, for each k: Σ_tasks 1 − C(n−c,k)/C(n,k)."""
    draws = passed.shape[1]
    return [float(sum(pass_at_k(draws, int(c), k) for c in passed.sum(axis=1))) for k in ks]


def expected_winners(p: Sequence[float] | Floats, k: int) -> float:
    """Expected number of winners from k draws of every task, repeats included: K·Σ p."""
    return k * math.fsum(p)


# -------------------------------------------------------------------------------------------------- per task


@dataclasses.dataclass(frozen=True)
class TaskRate:
    """What n draws of one task say: p̂ = c/n with its interval, and what follows from p̂.

    `in_k` is Pr(≥ 1 winner in k draws); its limits are those of p put through 1 − (1 − p)^k, which rises
    with p. `needed` is the K for confidence 1 − δ; None when c = 0, where the estimate promises nothing.
    """

    task_id: str
    draws: int
    winners: int
    p: float
    lo: float
    hi: float
    in_k: float
    in_k_lo: float
    in_k_hi: float
    needed: int | None


def task_rates(
    task_ids: Sequence[str], passed: "numpy.ndarray", k: int, delta: float = 0.05,
    method: Literal["wilson", "clopper-pearson"] = "wilson", level: float = 0.95,
) -> list[TaskRate]:  # fmt: skip
    """One row a task, in order. Raises ValueError when ids and tasks differ in number, and for k < 1."""
    results = _draws(passed)
    if len(task_ids) != len(results) or k < 1:
        raise ValueError(f"{len(task_ids)} ids for {len(results)} tasks, k={k}: one id a task, k at least 1")
    n, rows = results.shape[1], []
    for task_id, won in zip(task_ids, results.sum(axis=1), strict=True):
        p, (lo, hi) = float(won) / n, INTERVALS[method](int(won), n, level)
        in_k, in_k_lo, in_k_hi = (success_in(rate, k) for rate in (p, lo, hi))
        needed = draws_for_confidence(p, delta) if p else None
        rows.append(TaskRate(task_id, n, int(won), p, lo, hi, in_k, in_k_lo, in_k_hi, needed))
    return rows


# ------------------------------------------------------------------------------------------------- the curve


@dataclasses.dataclass(frozen=True)
class Curve:
    """Share of tasks solved within k draws, k = 1..n, each field (n,); times the number of tasks: how many.

    `solved` is unbiased; `lo`, `hi` its bootstrap band over tasks, at each k by itself; `theory` is
    1 − (1 − p̂)^k averaged over tasks, which lies below `solved` because (1 − p)^k is convex in p.
    """

    ks: "numpy.ndarray"
    solved: Floats
    lo: Floats
    hi: Floats
    theory: Floats


def solved_table(n: int) -> Floats:
    """1 − C(n−c,k)/C(n,k), (n + 1, n): the chance that k = 1..n of n draws, c = 0..n of them right, hold one.

    C(n−c,k)/C(n,k) = Π_{i<k} (1 − c/(n−i)), a factor below 0 standing for 0.
    """
    losses = 1 - numpy.arange(n + 1)[:, None] / (n - numpy.arange(n))  # (n + 1, n)
    return numpy.asarray(1 - numpy.cumprod(numpy.maximum(losses, 0), axis=1), dtype=numpy.float64)


def solved_curve(passed: "numpy.ndarray", replicates: int = 2000, seed: int = 0, level: float = 0.95) -> Curve:
    """Every k from one pool of n draws a task (Chen et al. 2021, section 2.1), with band and theory.

    A resample of tasks is known by how many of them have c winners, counts ~ Multinomial(tasks, shares): the
    band costs one product (replicates, n + 1) × (n + 1, n). Raises ValueError for an array that is not
    (tasks, n) of booleans.
    """
    results = _draws(passed)
    tasks, n = results.shape
    if replicates < 100 or not 0 < level < 1:
        raise ValueError(f"replicates={replicates}, level={level}: at least 100, and a level between 0 and 1")
    shares = numpy.bincount(results.sum(axis=1), minlength=n + 1) / tasks  # (n + 1,)
    table, ks = solved_table(n), numpy.arange(1, n + 1)
    resampled = numpy.random.default_rng(seed).multinomial(tasks, shares, size=replicates) / tasks
    lo, hi = numpy.quantile(resampled @ table, [(1 - level) / 2, (1 + level) / 2], axis=0)
    theory = 1 - (1 - ks / n)[:, None] ** ks  # (n, n), row c − 1; c = 0 never wins
    return Curve(ks, shares @ table, lo, hi, shares[1:] @ theory)


def _draws(passed: "numpy.ndarray") -> "numpy.ndarray":
    results = numpy.asarray(passed)
    if results.ndim != 2 or not results.size or not numpy.isin(results, (0, 1)).all():
        raise ValueError(f"results of shape {results.shape}: needs booleans, (tasks, draws), none of them 0")
    return results.astype(bool)
