"""Rates with 95 % intervals.

Differs from the papers in:
- both print bare percentages; here a number travels as a `Rate`, whose text always carries n and an interval;
- n is the number of tasks: samples of one task are correlated, and treating them as independent gives
  intervals that are too narrow.

`passed` is a boolean array (n_tasks, n_samples); a flat array is one sample per task.
"""

import dataclasses
import math
import warnings
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import stats
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

Floats = npt.NDArray[np.float64]
Interval = tuple[float, float]
Method = Literal["wilson", "clopper-pearson"]
ALPHA = 0.05
Z = float(stats.norm.isf(ALPHA / 2))
RESOLUTION = 1e-9  # rates closer than this are equal


def wilson_interval(successes: float, trials: int) -> Interval:
    """Return the score interval for a proportion (Wilson 1927).

    centre = (p̂ + z²/2n) / (1 + z²/n),  half-width = z·sqrt(p̂(1−p̂)/n + z²/4n²) / (1 + z²/n)

    The interval always contains p̂. `successes` may be fractional, a sum of per-task rates x ∈ [0, 1]:
    Var x ≤ p(1−p), so the interval is then wide rather than narrow. Raises ValueError when trials < 1 or
    successes is outside 0..trials.
    """
    _check_counts(successes, trials)
    lo, hi = wilson_limits(successes / trials, trials, np.array([Z]))
    return float(lo[0]), float(hi[0])


def wilson_limits(rate: float, trials: int, z: Floats) -> tuple[Floats, Floats]:
    """Return Wilson's lower and upper limits, each shaped like the critical values `z` ≥ 0."""
    centre = (rate + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * np.sqrt(rate * (1 - rate) / trials + z**2 / (4 * trials**2))
    return np.clip(centre - half, 0, rate), np.clip(centre + half, rate, 1)


def clopper_pearson_interval(successes: int, trials: int) -> Interval:
    """Return the exact binomial interval (Clopper & Pearson 1934).

    lo = Beta⁻¹(α/2; c, n−c+1),  hi = Beta⁻¹(1−α/2; c+1, n−c)

    Raises ValueError like `wilson_interval`, and for a fractional count, which no binomial has.
    """
    _check_counts(successes, trials)
    if successes != int(successes):
        raise ValueError(f"successes={successes!r}: Clopper-Pearson needs a whole number; use wilson")
    lo, hi = proportion_confint(int(successes), trials, alpha=ALPHA, method="beta")
    return float(lo), float(hi)


def delta_interval(values: npt.ArrayLike) -> Interval:
    """Return the delta-method interval for a mean of rates, on the log-odds scale.

    logit(m) ± z·s / (√n·m(1−m)), mapped back to (0, 1); s² the variance over tasks, ddof 1.

    `values` is (n_tasks,). Raises ValueError when all values are equal: their variance is 0.
    """
    rates = task_rates(values)
    mean = float(rates.mean())
    if np.ptp(rates) < RESOLUTION:
        raise ValueError(f"all {len(rates)} values equal {mean:g}: the delta method needs tasks that differ")
    spread = float(rates.std(ddof=1)) / (math.sqrt(len(rates)) * mean * (1 - mean))
    lo, hi = 1 / (1 + np.exp(-math.log(mean / (1 - mean)) - Z * spread * np.array([-1.0, 1.0])))
    return float(lo), float(hi)


def bca_interval(values: npt.ArrayLike) -> Interval:
    """Return the BCa bootstrap interval for a mean over tasks (Efron 1987), from 5,000 resamples of fixed seed.

    `values` is (n_tasks,), any finite numbers. Equal values give an interval of no width. Raises ValueError
    for no values.
    """
    sample = np.asarray(values, dtype=float)
    if sample.ndim != 1 or not len(sample) or not np.isfinite(sample).all():
        raise ValueError(f"values of shape {sample.shape}: a bootstrap needs one finite value per task")
    if np.ptp(sample) < RESOLUTION:
        return float(sample[0]), float(sample[0])
    found = stats.bootstrap((sample,), np.mean, n_resamples=5000, method="BCa", batch=500, rng=0)
    lo, hi = found.confidence_interval
    return float(lo), float(hi)


def ratio_interval(parts: Floats, totals: Floats) -> Interval:
    """Return the percentile bootstrap interval for Σ parts / Σ totals, from 2,000 resamples of the tasks.

    Both are (n_tasks,). One task alone gives (nan, nan).
    """
    if len(totals) < 2:
        return math.nan, math.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)  # a share of 0 or 1 in every resample
        found = stats.bootstrap(
            (parts, totals), lambda part, total, axis: part.sum(axis) / total.sum(axis),
            paired=True, vectorized=True, method="percentile", n_resamples=2000, rng=0,
        )  # fmt: skip
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


@dataclasses.dataclass(frozen=True)
class Rate:
    """A share of tasks solved with its 95 % interval; its text always states both."""

    rate: float
    lo: float
    hi: float
    n_tasks: int
    samples: int  # per task
    method: str
    protocol: str
    tests: str = ""  # visible, hidden or all

    def __post_init__(self) -> None:
        if self.n_tasks < 1 or self.samples < 1 or not all(map(math.isfinite, (self.rate, self.lo, self.hi))):
            limits = f"[{self.lo}, {self.hi}] over {self.n_tasks} tasks"
            raise ValueError(f"rate {self.rate} {limits}: a rate needs its n and an interval")

    def __str__(self) -> str:
        size = f"{self.n_tasks} task{'s' * (self.n_tasks > 1)} × {self.samples} sample{'s' * (self.samples > 1)}"
        what = f"{self.protocol}, {self.tests} tests" if self.tests else self.protocol
        interval = f"[{100 * self.lo:.1f}, {100 * self.hi:.1f}]"
        return f"{100 * self.rate:.1f} % {interval} (n = {size}; 95 % {self.method}; {what})"


def rate_over_tasks(
    passed: npt.ArrayLike, method: Method = "wilson", protocol: str = "draws", *, tests: str = ""
) -> Rate:
    """Return the mean over tasks of the share of samples that passed, m = (1/n) Σ_t c_t/M.

    The interval is over the n tasks. Raises ValueError for an empty or non-boolean array, an unknown method,
    or Clopper–Pearson over several samples per task.
    """
    results = samples(passed)
    n_tasks, n_samples = results.shape
    total = round(float(results.mean(axis=1).sum()), 9)
    if method == "wilson":
        lo, hi = wilson_interval(total, n_tasks)
    elif method != "clopper-pearson":
        raise ValueError(f"method={method!r}: choose wilson or clopper-pearson")
    elif n_samples > 1:
        raise ValueError("Clopper-Pearson needs one result per task; several samples give fractions")
    else:
        lo, hi = clopper_pearson_interval(int(total), n_tasks)
    return Rate(float(results.mean()), lo, hi, n_tasks, n_samples, method, protocol, tests)


@dataclasses.dataclass(frozen=True)
class Grouped:
    """One Rate per group; `macro` weights groups equally, `micro` weights tasks equally."""

    groups: dict[str, Rate]
    macro: Rate
    micro: Rate


def by_group(passed: npt.ArrayLike, groups: Sequence[str], protocol: str = "draws", *, tests: str = "") -> Grouped:
    """Return rates per language, tier or source; `groups` names the group of each task.

    The macro interval combines the groups' Wilson limits (MOVER, Zou & Donner 2008):
    m ∓ (1/G)·sqrt(Σ_g (p_g − limit_g)²). Raises ValueError when groups and tasks differ in number.
    """
    results, names = samples(passed), np.asarray(groups, dtype=str)
    if names.shape != results.shape[:1]:
        raise ValueError(f"{len(names)} group names for {len(results)} tasks")
    rates = {
        str(name): rate_over_tasks(results[names == name], protocol=protocol, tests=tests) for name in np.unique(names)
    }
    centre = float(np.mean([rate.rate for rate in rates.values()]))
    down = math.hypot(*(rate.rate - rate.lo for rate in rates.values())) / len(rates)
    up = math.hypot(*(rate.hi - rate.rate for rate in rates.values())) / len(rates)
    method = f"wilson, combined over {len(rates)} groups"
    micro = rate_over_tasks(results, protocol=protocol, tests=tests)
    macro = dataclasses.replace(micro, rate=centre, lo=centre - down, hi=centre + up, method=method)
    return Grouped(rates, macro, micro)


@dataclasses.dataclass(frozen=True)
class TwoSample:
    """Two rates on different tasks: the difference, its interval and the p-value of Fisher's exact test."""

    difference: float
    lo: float
    hi: float
    p: float
    n_a: int
    n_b: int

    def __str__(self) -> str:
        interval = f"[{100 * self.lo:+.1f}, {100 * self.hi:+.1f}]"
        size = f"n = {self.n_a} and {self.n_b}; 95 % Newcombe"
        return f"{100 * self.difference:+.1f} points {interval} ({size}; Fisher's exact p {p_text(self.p)})"


def two_proportion(successes_a: int, n_a: int, successes_b: int, n_b: int) -> TwoSample:
    """Compare two unpaired samples: p_a − p_b.

    Interval: Newcombe 1998, method 10, by statsmodels; p: Fisher's exact test, by scipy. Raises ValueError
    for counts outside 0..n.
    """
    _check_counts(successes_a, n_a)
    _check_counts(successes_b, n_b)
    counts = successes_a, n_a, successes_b, n_b
    lo, hi = confint_proportions_2indep(*counts, method="newcomb", compare="diff", alpha=ALPHA)
    p = float(stats.fisher_exact([[successes_a, n_a - successes_a], [successes_b, n_b - successes_b]]).pvalue)
    return TwoSample(successes_a / n_a - successes_b / n_b, float(lo), float(hi), p, n_a, n_b)


def p_text(p: float) -> str:
    """Return "= 0.034", "= 0.0012" or "< 0.0001"."""
    return "< 0.0001" if p < 0.0001 else f"= {p:.2g}" if p < 0.01 else f"= {p:.3f}"


def samples(passed: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Return results as booleans (n_tasks, n_samples). Raises ValueError for any other shape or value."""
    raw = np.asarray(passed)
    results = raw[:, None] if raw.ndim == 1 else raw
    if results.ndim != 2 or not results.size:
        raise ValueError(f"results of shape {raw.shape}: needs (n_tasks, n_samples), at least one of each")
    if not np.isin(results, (0, 1)).all():
        raise ValueError("results must be true or false (1 or 0) for each sample")
    return results.astype(bool)


def task_rates(values: npt.ArrayLike) -> Floats:
    """Return rates in [0, 1], (n_tasks,), from rates or from booleans (n_tasks, n_samples)."""
    raw = np.asarray(values)
    rates = samples(raw).mean(axis=1) if raw.ndim == 2 else raw.astype(float)
    if rates.ndim != 1 or not len(rates) or not ((rates >= 0) & (rates <= 1)).all():
        raise ValueError(f"rates of shape {raw.shape}: needs one rate in 0..1 per task")
    return rates


def _check_counts(successes: float, trials: int) -> None:
    if trials < 1 or trials != int(trials):
        raise ValueError(f"trials={trials!r}: needs a whole number of at least 1")
    if not 0 <= successes <= trials:
        raise ValueError(f"successes={successes!r} is outside 0..{trials}")
