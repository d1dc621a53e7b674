"""pass@k, best-of-K and the papers' protocols by name.

Differs from the papers in:
- a program that the visible tests choose is called best-of-K, never pass@1, and counts as right only when it
  passes every test, visible and hidden;
- every K is computed from one pool of n samples per task, as the mean over all subsets or orders of the samples.

`passed`, `visible` and `hidden` are boolean arrays (n_tasks, n_samples).
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lib.stats.intervals import Floats, Rate, rate_over_tasks, samples, wilson_interval

POLYCODE_SAMPLES = 20  # per prompt, at temperature 0.2
REPLICATES = 2000


def pass_at_k(n: int, c: int, k: int) -> float:
    """Return the unbiased chance that k of n samples, c of them right, hold a right one (Chen et al. 2021, §2.1).

    1 − C(n−c, k)/C(n, k) = 1 − Π_{i<a} (1 − b/(n−i)) with a = min(c, k), b = max(c, k); summed as log1p, so
    small values keep their digits up to n = 10⁶. Raises ValueError for n < 1, c outside 0..n, k outside 1..n, or one
    that is not whole.
    """
    if any(value != int(value) for value in (n, c, k)):
        raise ValueError(f"n={n}, c={c}, k={k}: numbers of samples are whole")
    if n < 1 or not 0 <= c <= n:
        raise ValueError(f"n={n}, c={c}: needs at least one sample and 0 <= c <= n")
    if not 1 <= k <= n:
        raise ValueError(f"k={k}: pass@k needs 1 <= k <= n = {n} samples")
    few, many = sorted((int(c), int(k)))
    if few <= 1:
        return few * many / n
    if n - c < k:
        return 1.0
    return float(-np.expm1(np.log1p(-many / (n - np.arange(few))).sum()))


def pass_at_k_per_task(passed: npt.ArrayLike, k: int) -> Floats:
    """Return `pass_at_k` of each task, (n_tasks,)."""
    results = samples(passed)
    counts, where = np.unique(results.sum(axis=1), return_inverse=True)
    return np.array([pass_at_k(results.shape[1], int(count), k) for count in counts])[where]


def pass_at_k_rate(passed: npt.ArrayLike, k: int, *, tests: str = "") -> Rate:
    """Return the mean of `pass_at_k` over tasks with Wilson's interval over tasks."""
    values = pass_at_k_per_task(passed, k)
    lo, hi = wilson_interval(round(float(values.sum()), 9), len(values))
    return Rate(float(values.mean()), lo, hi, len(values), samples(passed).shape[1], "wilson", f"pass@{k}", tests)


# --------------------------------------------------------------------------------------------------- best-of-K


def best_of_k(visible: npt.ArrayLike, hidden: npt.ArrayLike, k: int) -> Rate:
    """Submit the first of k samples that passes the visible tests, else the first sample; right: it passes all tests.

    Raises ValueError for unequal shapes or k outside 1..n_samples.
    """
    scored = best_of_k_passed(visible, hidden, k)
    return dataclasses.replace(rate_over_tasks(scored, protocol=f"best-of-{k}", tests="all"), samples=k)


def best_of_k_passed(visible: npt.ArrayLike, hidden: npt.ArrayLike, k: int) -> npt.NDArray[np.bool_]:
    """Return whether each task's submitted sample is right, (n_tasks,). Raises ValueError like `best_of_k`."""
    seen, right = _seen_and_right(visible, hidden, k)
    return right[np.arange(len(right)), seen[:, :k].argmax(axis=1)]


def best_of_k_per_task(visible: npt.ArrayLike, hidden: npt.ArrayLike, k: int) -> Floats:
    """Return the mean of `best_of_k_passed` over every order of a task's n samples, (n_tasks,).

    (x/v)·(1 − C(n−v, k)/C(n, k)): v samples pass the visible tests, x of these pass all; the submitted one is
    any of the v with equal chance, and a task where none of k passes the visible tests cannot be right.
    Raises ValueError like `best_of_k`.
    """
    seen, right = _seen_and_right(visible, hidden, k)
    return pass_at_k_per_task(seen, k) * right.sum(axis=1) / np.maximum(seen.sum(axis=1), 1)


def _seen_and_right(
    visible: npt.ArrayLike, hidden: npt.ArrayLike, k: int
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    seen, truth = samples(visible), samples(hidden)
    if seen.shape != truth.shape:
        raise ValueError(f"visible {seen.shape} and hidden {truth.shape} results are not of the same samples")
    if not 1 <= k <= seen.shape[1]:
        raise ValueError(f"k={k}: best-of-K needs 1 <= k <= {seen.shape[1]} samples")
    return seen, seen & truth


# --------------------------------------------------------------------------------------------------- protocols


def humaneval(
    passed_greedy: npt.ArrayLike, passed_samples: npt.ArrayLike, ks: Sequence[int], *, tests: str = ""
) -> dict[str, Rate]:
    """Return greedy pass@1, and pass@k over samples: {"greedy": Rate, "pass@1": Rate, …}, Wilson over tasks.

    Raises ValueError when the two differ in tasks, for a k above the samples, or for several greedy answers.
    """
    greedy, drawn = samples(passed_greedy), samples(passed_samples)
    if len(greedy) != len(drawn) or greedy.shape[1] != 1:
        raise ValueError(f"greedy {greedy.shape}, samples {drawn.shape}: needs one greedy result for the same tasks")
    rates = {"greedy": rate_over_tasks(greedy, protocol="greedy", tests=tests)}
    return rates | {f"pass@{k}": pass_at_k_rate(drawn, k, tests=tests) for k in ks}


def polycode(passed: npt.ArrayLike, *, tests: str = "", n: int = POLYCODE_SAMPLES) -> Rate:
    """Return the mean over prompts of the share of n samples that pass: n = 20 at temperature 0.2, nothing chosen.

    Raises ValueError when the array does not hold n samples per prompt.
    """
    results = samples(passed)
    if results.shape[1] != n:
        raise ValueError(f"{results.shape[1]} samples per prompt, not {n}; n= departs from the protocol")
    return rate_over_tasks(results, tests=tests)


# --------------------------------------------------------------------------------------------- solved against k


@dataclasses.dataclass(frozen=True)
class Curve:
    """Share of tasks solved within k samples, k = 1..n; each field is (n,).

    `solved` is unbiased; `lo`, `hi` are its 95 % bootstrap band over tasks, at each k separately; `theory` is
    1 − (1 − p̂)^k averaged over tasks, which lies below `solved` because (1 − p)^k is convex in p.
    """

    ks: npt.NDArray[np.int64]
    solved: Floats
    lo: Floats
    hi: Floats
    theory: Floats


def solved_table(n: int) -> Floats:
    """Return 1 − C(n−c, k)/C(n, k) for c = 0..n (rows) and k = 1..n (columns), shape (n + 1, n).

    C(n−c, k)/C(n, k) = Π_{i<k} (1 − c/(n−i)), a factor below 0 standing for 0.
    """
    failures = 1 - np.arange(n + 1)[:, None] / (n - np.arange(n))  # (n + 1, n)
    return np.asarray(1 - np.cumprod(np.maximum(failures, 0), axis=1), dtype=np.float64)


def solved_curve(passed: npt.ArrayLike) -> Curve:
    """Return the solved share for every k from one pool of n samples per task, with band and theory.

    A resample of tasks is described by how many of them have c passing samples,
    counts ~ Multinomial(tasks, shares): the band is one product (replicates, n + 1) × (n + 1, n).
    """
    results = samples(passed)
    tasks, n = results.shape
    shares = np.bincount(results.sum(axis=1), minlength=n + 1) / tasks  # (n + 1,)
    table, ks = solved_table(n), np.arange(1, n + 1)
    resampled = np.random.default_rng(0).multinomial(tasks, shares, size=REPLICATES) / tasks
    lo, hi = np.quantile(resampled @ table, [0.025, 0.975], axis=0)
    theory = 1 - (1 - ks / n)[:, None] ** ks  # (n, n), row c − 1; c = 0 never passes
    return Curve(ks, shares @ table, lo, hi, shares[1:] @ theory)
