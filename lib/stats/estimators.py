"""Rates with intervals, paired comparisons, and the papers' protocols by name.

Differs from the papers in:
- both print bare percentages; here a number travels as a `Rate`, whose text always carries n and an interval;
- n is the number of tasks: draws of one task are alike, so pooling them (`pooled=True`) promises too much;
- a program chosen by the visible tests and scored by the hidden ones is called best-of-K, never pass@1.

`passed` is a boolean array (n_tasks, n_draws); one column, or a flat array, is one draw a task.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

Floats = npt.NDArray[np.float64]
Interval = tuple[float, float]
BootstrapMethod = Literal["percentile", "bca"]
Method = Literal["wilson", "clopper-pearson", "bootstrap-percentile", "bca", "delta"]
POLYCODE_DRAWS = 20  # at temperature 0.2
RESOLUTION = 1e-9  # rates closer than this are one rate

# -------------------------------------------------------------------------------------------------- intervals


def wilson_interval(successes: float, trials: int, level: float = 0.95) -> Interval:
    """Score interval for a proportion (Wilson 1927), by statsmodels' `proportion_confint(method="wilson")`.

    centre = (p̂ + z²/2n) / (1 + z²/n),  halfwidth = z·sqrt(p̂(1−p̂)/n + z²/4n²) / (1 + z²/n)

    `successes` may be fractional, a sum of per-task rates x ∈ [0, 1]: Var x ≤ p(1−p), so the interval is then
    wide rather than narrow. Raises ValueError when trials < 1, successes is outside 0..trials, or level
    outside (0, 1).
    """
    _check_counts(successes, trials, level)
    lo, hi = proportion_confint(successes, trials, alpha=1 - level, method="wilson")
    return max(0.0, float(lo)), min(1.0, float(hi))


def clopper_pearson_interval(successes: int, trials: int, level: float = 0.95) -> Interval:
    """Exact binomial interval (Clopper & Pearson 1934), by statsmodels' `proportion_confint(method="beta")`.

    lo = Beta⁻¹(α/2; c, n−c+1),  hi = Beta⁻¹(1−α/2; c+1, n−c)

    Raises ValueError like `wilson_interval`, and for a fractional count, which no binomial has.
    """
    _check_counts(successes, trials, level)
    if successes != int(successes):
        raise ValueError(f"successes={successes!r}: Clopper-Pearson needs a whole number; use wilson")
    lo, hi = proportion_confint(int(successes), trials, alpha=1 - level, method="beta")
    return float(lo), float(hi)


def delta_interval(values: npt.ArrayLike, level: float = 0.95) -> Interval:
    """Delta-method interval for a mean of rates, on the log-odds scale.

    logit(m) ± z·s / (√n·m(1−m)), taken back to (0, 1); s² the variance over tasks, ddof 1.

    `values` is (n_tasks,). Raises ValueError when all values are equal: there is no variance to carry over.
    """
    rates = _task_rates(values)
    mean = float(rates.mean())
    if np.ptp(rates) < RESOLUTION:
        raise ValueError(f"all {len(rates)} values equal {mean:g}: the delta method needs tasks that differ")
    spread = float(rates.std(ddof=1)) / (math.sqrt(len(rates)) * mean * (1 - mean))
    limits = math.log(mean / (1 - mean)) + _z(level) * spread * np.array([-1.0, 1.0])
    lo, hi = 1 / (1 + np.exp(-limits))
    return float(lo), float(hi)


def bootstrap_interval(
    values: npt.ArrayLike,
    method: BootstrapMethod = "bca",
    replicates: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Bootstrap interval for the mean of per-task values (Efron & Tibshirani 1993, chapters 13 and 14).

    `values` is (n_tasks,), any finite numbers. The limits are those of `scipy.stats.bootstrap` on the same
    replicates; resampling here draws how often each distinct value occurs, so its cost follows the distinct
    values, not the tasks. Equal values give an interval of no width. Raises ValueError for no values or fewer
    than 100 replicates.
    """
    sample = np.asarray(values, dtype=float)
    if sample.ndim != 1 or not len(sample) or not np.isfinite(sample).all():
        raise ValueError(f"values of shape {sample.shape}: a bootstrap needs one finite value for each task")
    if method not in ("percentile", "bca") or replicates < 100:
        raise ValueError(f"method={method!r}, replicates={replicates}: percentile or bca, at least 100")
    if np.ptp(sample) < RESOLUTION:
        return float(sample[0]), float(sample[0])
    means = bootstrap_means(sample, replicates, seed)
    z = _z(level)
    levels = stats.norm.cdf([-z, z]) if method == "percentile" else bca_levels(sample, means, level)
    lo, hi = np.quantile(means, levels)
    return float(lo), float(hi)


def bootstrap_means(values: Floats, replicates: int, seed: int) -> Floats:
    """Means of resamples, (replicates,): counts ~ Multinomial(n, shares), mean = counts·distinct / n."""
    distinct, counts = np.unique(values, return_counts=True)
    rng = np.random.default_rng(seed)
    block = max(1, 4_000_000 // len(distinct))
    sizes = [min(block, replicates - start) for start in range(0, replicates, block)]
    n = len(values)
    return np.concatenate([rng.multinomial(n, counts / n, size=size) @ distinct / n for size in sizes])


def bca_levels(values: Floats, means: Floats, level: float = 0.95) -> Floats:
    """The two quantile levels of the bias-corrected, accelerated interval (Efron 1987).

    Φ(z₀ + (z₀ ± z)/(1 − a(z₀ ± z))),  z₀ = Φ⁻¹(share of means below the estimate, ties by half),
    a = Σd³ / (6 (Σd²)^1.5),  d = value − mean
    """
    centre = values.mean()
    slack = 1e-12 * max(1.0, float(np.abs(values).max()))  # sums of equal values may differ in the last bit
    below = ((means < centre - slack).mean() + (means <= centre + slack).mean()) / 2
    away = values - centre
    acceleration = (away**3).sum() / (6 * (away**2).sum() ** 1.5)
    bias = stats.norm.ppf(below)
    shifted = bias + _z(level) * np.array([-1.0, 1.0])
    levels: Floats = stats.norm.cdf(bias + shifted / (1 - acceleration * shifted))
    return levels


# ------------------------------------------------------------------------------------------------------ rates


@dataclasses.dataclass(frozen=True)
class Rate:
    """A share of tasks solved with its interval. Its text always says both; `lo` and `hi` hold at `level`."""

    rate: float
    lo: float
    hi: float
    n_tasks: int
    draws: int
    method: str
    protocol: str
    tests: str = ""  # visible, hidden or all
    level: float = 0.95

    def __post_init__(self) -> None:
        if self.n_tasks < 1 or self.draws < 1 or not all(map(math.isfinite, (self.rate, self.lo, self.hi))):
            limits = f"[{self.lo}, {self.hi}] over {self.n_tasks} tasks"
            raise ValueError(f"rate {self.rate} {limits}: a rate needs its n and an interval")

    def __str__(self) -> str:
        size = f"{self.n_tasks} task{'s' * (self.n_tasks > 1)} × {self.draws} draw{'s' * (self.draws > 1)}"
        what = f"{self.protocol}, {self.tests} tests" if self.tests else self.protocol
        interval = f"[{100 * self.lo:.1f}, {100 * self.hi:.1f}]"
        how = f"n = {size}; {100 * self.level:g} % {self.method}; {what}"
        return f"{100 * self.rate:.1f} % {interval} ({how})"


def rate_over_tasks(
    passed: npt.ArrayLike,
    method: Method = "wilson",
    protocol: str = "draws",
    *,
    pooled: bool = False,
    tests: str = "",
    level: float = 0.95,
    seed: int = 0,
) -> Rate:
    """Mean over tasks of the share of draws that passed, m = (1/n) Σ_t c_t/M, with an interval over the n
    tasks.

    `pooled=True` takes all n·M draws as independent. Where every task has one value, delta and the bootstraps
    know no spread: the interval is then Wilson's, and `method` says so. Raises ValueError for an empty or
    non-boolean array, an unknown method, or Clopper–Pearson over several draws that is not pooled.
    """
    results = _draws(passed)
    n_tasks, draws = results.shape
    values = results.ravel().astype(float) if pooled else results.mean(axis=1)
    (lo, hi), used = _interval(values, method, level, seed)
    used += ", draws pooled" if pooled else ""
    return Rate(float(results.mean()), lo, hi, n_tasks, draws, used, protocol, tests, level)


def _interval(values: Floats, method: str, level: float, seed: int = 0) -> tuple[Interval, str]:
    """The interval of a mean of per-task values in [0, 1], and the name of what made it."""
    if method not in get_args(Method):
        raise ValueError(f"method={method!r}: choose one of {', '.join(get_args(Method))}")
    total, n = round(float(values.sum()), 9), len(values)
    if method == "clopper-pearson" and not _is_binary(values):
        raise ValueError("Clopper-Pearson needs one result for each task; several draws give fractions")
    if method == "clopper-pearson":
        return clopper_pearson_interval(int(total), n, level), method
    if method == "wilson":
        return wilson_interval(total, n, level), method
    if np.ptp(values) < RESOLUTION:
        return wilson_interval(total, n, level), f"wilson ({method} needs tasks that differ)"
    if method == "delta":
        return delta_interval(values, level), method
    kind: BootstrapMethod = "bca" if method == "bca" else "percentile"
    return bootstrap_interval(values, kind, seed=seed, level=level), method


@dataclasses.dataclass(frozen=True)
class Grouped:
    """One Rate a group; in `macro` each group counts alike, in `micro` each task."""

    groups: dict[str, Rate]
    macro: Rate
    micro: Rate


def by_group(passed: npt.ArrayLike, groups: Sequence[str], protocol: str = "draws", tests: str = "") -> Grouped:
    """Rates per language, tier or source; `groups` names the group of each task.

    The macro interval combines the groups' Wilson limits (MOVER, Zou & Donner 2008):
    m ∓ (1/G)·sqrt(Σ_g (p_g − limit_g)²). Raises ValueError when groups and tasks differ in number.
    """
    results, names = _draws(passed), np.asarray(groups, dtype=str)
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


def over_seeds(rates: Sequence[Rate], level: float = 0.95) -> tuple[Rate, float]:
    """Mean over training seeds with Student's t interval, m ± t_{S−1}·s/√S clipped to [0, 1], and the spread
    s.

    Seeds that agree to the last task leave no spread: the interval is then Wilson's over tasks, and `method`
    says so. Raises ValueError for fewer than two seeds or rates that differ in tasks, draws, tests or protocol.
    """
    kinds = {(rate.n_tasks, rate.draws, rate.tests, rate.protocol) for rate in rates}
    if len(rates) < 2 or len(kinds) != 1:
        raise ValueError(f"{len(rates)} rates of {len(kinds)} kinds: a spread needs two of one kind")
    values = np.array([rate.rate for rate in rates])
    centre, spread = float(values.mean()), float(values.std(ddof=1))
    half = float(stats.t.isf((1 - level) / 2, len(values) - 1)) * spread / math.sqrt(len(values))
    lo, hi = max(0.0, centre - half), min(1.0, centre + half)
    method = f"t over {len(values)} seeds"
    if np.ptp(values) < RESOLUTION:
        lo, hi = wilson_interval(round(centre * rates[0].n_tasks, 9), rates[0].n_tasks, level)
        method = f"wilson ({len(values)} seeds agree)"
    return dataclasses.replace(rates[0], rate=centre, lo=lo, hi=hi, method=method, level=level), spread


# ------------------------------------------------------------------------------------------ pass@k, protocols


def pass_at_k(n: int, c: int, k: int) -> float:
    """Unbiased chance that k of n draws, c of them right, hold a right one (Chen et al. 2021, section 2.1).

    1 − C(n−c, k)/C(n, k) = 1 − Π_{i<a} (1 − b/(n−i)) with a = min(c, k), b = max(c, k); summed as log1p, so
    small values keep their digits up to n = 10⁶. Raises ValueError for n < 1, c outside 0..n, k outside 1..n.
    """
    if n < 1 or not 0 <= c <= n:
        raise ValueError(f"n={n}, c={c}: needs at least one draw and 0 <= c <= n")
    if not 1 <= k <= n:
        raise ValueError(f"k={k}: pass@k needs 1 <= k <= n = {n} draws")
    few, many = sorted((int(c), int(k)))
    if few <= 1:
        return few * many / n
    if n - c < k:
        return 1.0
    return float(-np.expm1(np.log1p(-many / (n - np.arange(few))).sum()))


def pass_at_k_macro(passed: npt.ArrayLike, k: int) -> float:
    """Mean of `pass_at_k` over tasks."""
    return float(pass_at_k_per_task(passed, k).mean())


def pass_at_k_per_task(passed: npt.ArrayLike, k: int) -> Floats:
    """`pass_at_k` of each task, (n_tasks,)."""
    results = _draws(passed)
    counts, where = np.unique(results.sum(axis=1), return_inverse=True)
    return np.array([pass_at_k(results.shape[1], int(count), k) for count in counts])[where]


def humaneval(
    passed_greedy: npt.ArrayLike,
    passed_draws: npt.ArrayLike,
    ks: Sequence[int],
    tests: str = "",
    level: float = 0.95,
) -> dict[str, Rate]:
    """Greedy pass@1, and pass@k over draws: {"greedy": Rate, "pass@1": Rate, …}, Wilson over tasks.

    Raises ValueError when the two differ in tasks, for a k above the draws, or for several greedy draws.
    """
    greedy, draws = _draws(passed_greedy), _draws(passed_draws)
    if len(greedy) != len(draws) or greedy.shape[1] != 1:
        shapes = f"greedy {greedy.shape}, draws {draws.shape}"
        raise ValueError(f"{shapes}: needs one greedy result for each of the same tasks")
    n_tasks, n_draws = draws.shape
    rates = {"greedy": rate_over_tasks(greedy, "wilson", "greedy", tests=tests, level=level)}
    for k in ks:
        values = pass_at_k_per_task(draws, k)
        (lo, hi), method = _interval(values, "wilson", level)
        name, mean = f"pass@{k}", float(values.mean())
        rates[name] = Rate(mean, lo, hi, n_tasks, n_draws, method, name, tests, level)
    return rates


def polycode(passed: npt.ArrayLike, tests: str = "", draws: int = POLYCODE_DRAWS, level: float = 0.95) -> Rate:
    """Mean over prompts of the share of M draws that pass: M = 20 at temperature 0.2, no best-of, Wilson.

    Raises ValueError when the array does not hold `draws` draws a prompt.
    """
    results = _draws(passed)
    if results.shape[1] != draws:
        raise ValueError(f"{results.shape[1]} draws a prompt, not {draws}; draws= departs from the protocol")
    return rate_over_tasks(results, "wilson", "draws", tests=tests, level=level)


def best_of_k(visible: npt.ArrayLike, hidden: npt.ArrayLike, k: int, level: float = 0.95) -> Rate:
    """Submit the first of k draws that passes the visible tests, else the first; score it by the hidden ones.

    `visible` and `hidden` are (n_tasks, n_draws). Raises ValueError for unequal shapes or k outside
    1..n_draws.
    """
    scored = best_of_k_passed(visible, hidden, k)
    result = rate_over_tasks(scored, "wilson", f"best-of-{k}", tests="hidden", level=level)
    return dataclasses.replace(result, draws=k)


def best_of_k_passed(visible: npt.ArrayLike, hidden: npt.ArrayLike, k: int) -> npt.NDArray[np.bool_]:
    """Does the draw that `best_of_k` submits pass the hidden tests? (n_tasks,). Raises ValueError like it."""
    seen, truth = _same_draws(visible, hidden, k)
    chosen = seen[:, :k].argmax(axis=1)
    return truth[np.arange(len(truth)), chosen]


def best_of_k_per_task(visible: npt.ArrayLike, hidden: npt.ArrayLike, k: int) -> Floats:
    """What `best_of_k` gives on average over every order of a task's n draws, (n_tasks,).

    m·h_v/v + (1 − m)·h_u/(n − v),  m = 1 − C(n−v, k)/C(n, k); v draws pass the visible tests, h_v of these and
    h_u of the others the hidden ones: whichever draw is chosen, it is any of its kind with equal chance.
    Raises ValueError like `best_of_k`.
    """
    seen, truth = _same_draws(visible, hidden, k)
    found = pass_at_k_per_task(seen, k)
    kinds = [(found, seen), (1 - found, ~seen)]
    return np.sum([m * (truth & kind).sum(1) / np.maximum(kind.sum(1), 1) for m, kind in kinds], axis=0)


# ------------------------------------------------------------------------------------------------ comparisons


def mcnemar_exact(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Two-sided exact McNemar p, by statsmodels' `mcnemar(exact=True)`.

    P(|X − d/2| ≥ |wins − d/2|) with X ~ Bin(d, ½), d the tasks that differ. `a`, `b` are (n_tasks,) of 0 and
    1 on the same tasks. Raises ValueError for anything else.
    """
    first, second = _paired(a, b)
    if not _is_binary(first) or not _is_binary(second):
        raise ValueError("McNemar's test needs one 0 or 1 for each task; use paired_permutation for rates")
    wins, losses = int((first > second).sum()), int((first < second).sum())
    return float(mcnemar([[0, wins], [losses, 0]], exact=True).pvalue)


def paired_permutation(a: npt.ArrayLike, b: npt.ArrayLike, replicates: int = 100_000, seed: int = 0) -> float:
    """Two-sided p of the mean paired difference when each task's sign is a coin flip.

    Tasks of one |difference| v, m of them, add v·(2·Bin(m, ½) − m): all outcomes are enumerated when they
    number at most `replicates` (always so for 0/1 data, where p is McNemar's), else drawn, p = (1 + hits)/(1
    + replicates) (Phipson & Smyth 2010). Raises ValueError for unequal lengths or rates outside 0..1.
    """
    first, second = _paired(a, b)
    difference = np.round(first - second, 9)
    sizes, counts = np.unique(np.abs(difference[difference != 0]), return_counts=True)
    reach = abs(float(difference.sum())) - RESOLUTION * max(1, len(difference))
    if np.prod(counts + 1.0) <= replicates:
        totals, chances = _all_sign_flips(sizes, counts)
        return min(1.0, float(chances[np.abs(totals) >= reach].sum()))
    heads = np.random.default_rng(seed).binomial(counts, 0.5, size=(replicates, len(counts)))
    hits = np.count_nonzero(np.abs((2 * heads - counts) @ sizes) >= reach)
    return (1 + hits) / (1 + replicates)


def _all_sign_flips(sizes: Floats, counts: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
    totals, chances = np.zeros(1), np.ones(1)
    for size, count in zip(sizes, counts, strict=True):
        heads = np.arange(count + 1)
        totals = np.add.outer(totals, size * (2 * heads - count)).ravel()
        chances = np.multiply.outer(chances, stats.binom.pmf(heads, count, 0.5)).ravel()
    return totals, chances


def minimum_detectable_effect(
    n_tasks: int, discordant_rate: float, power: float = 0.8, level: float = 0.05, binary: bool = True
) -> float:
    """Smallest true difference δ that a two-sided paired test at `level` finds with `power`.

    n δ² = (z_{1−α/2} √ψ + z_{power} √(ψ − δ²))² solved for δ (Connor 1987), ψ the discordant rate; for rates
    over several draws (`binary=False`) ψ is the mean squared difference. With 0/1 results a difference δ needs
    ψ ≥ δ. Where the observed ψ is less, all that changes goes one way: P(Bin(n, δ) ≥ m) = power, m the fewest
    wins with 2·2⁻ᵐ ≤ level. inf when n < m: nothing could be found. Raises ValueError for values out of range.
    """
    if n_tasks < 1 or not 0 <= discordant_rate <= 1 or not 0 < level < 1 or not 0.5 <= power < 1:
        given = f"n_tasks={n_tasks}, discordant_rate={discordant_rate}, power={power}, level={level}"
        raise ValueError(f"{given}: needs a task, a rate in 0..1, a power in 0.5..1 and a level in 0..1")
    wins = math.ceil(1 - math.log2(level))
    if n_tasks < wins:
        return math.inf
    z_level, z_power = float(stats.norm.isf(level / 2)), float(stats.norm.ppf(power))
    n, edge = n_tasks + z_power**2, z_level**2 * discordant_rate
    root = math.sqrt(max(0.0, n_tasks * edge - n * (edge - z_power**2 * discordant_rate)))
    effect = (math.sqrt(n_tasks * edge) + root) / n
    if 0 < effect <= (discordant_rate if binary else 1):
        return effect
    return float(stats.beta.ppf(power, wins, n_tasks - wins + 1))


def newcombe_paired(a: npt.ArrayLike, b: npt.ArrayLike, level: float = 0.95) -> Interval:
    """Square-and-add interval for p_a − p_b on the same tasks (Newcombe 1998, paired method 10).

    lo = d − sqrt(x² − 2φxy + y²), x = p_a − l_a, y = u_b − p_b from the Wilson limits; hi with the other two.
    φ = (nΣab − ΣaΣb) / (n² sqrt(p_a(1−p_a)p_b(1−p_b))), the numerator lowered by n/2, not below 0, if
    positive.
    """
    first, second = _paired(a, b)
    n, p_a, p_b = len(first), float(first.mean()), float(second.mean())
    (l_a, u_a), (l_b, u_b) = (wilson_interval(round(p * n, 9), n, level) for p in (p_a, p_b))
    cross = n * float(first @ second) - n * n * p_a * p_b
    scale = n * n * math.sqrt(p_a * (1 - p_a) * p_b * (1 - p_b))
    phi = (max(0.0, cross - n / 2) if cross > 0 else cross) / scale if scale else 0.0

    def reach(x: float, y: float) -> float:
        return math.sqrt(max(0.0, x * x - 2 * phi * x * y + y * y))

    difference = p_a - p_b
    return difference - reach(p_a - l_a, u_b - p_b), difference + reach(u_a - p_a, p_b - l_b)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Is A better than B on the same tasks? Rates and limits are shares; `sentence` says it in percent."""

    name_a: str
    name_b: str
    rate_a: float
    rate_b: float
    difference: float
    lo: float
    hi: float
    p_mcnemar: float | None  # None when a task has several draws
    p_permutation: float
    wins: int
    losses: int
    ties: int
    mde: float  # at power 0.8
    n_tasks: int
    method: str
    level: float = 0.95
    across_tests: bool = False  # one model on two suites, not two models on one

    @property
    def sentence(self) -> str:
        """The answer in words, with its evidence."""
        p = self.p_permutation if self.p_mcnemar is None else self.p_mcnemar
        test = "paired permutation" if self.p_mcnemar is None else "exact McNemar"
        better, worse = (self.name_a, self.name_b) if self.difference > 0 else (self.name_b, self.name_a)
        answer = f"The data do not tell {self.name_a} and {self.name_b} apart"
        if p < 1 - self.level:
            answer = f"{better} is better than {worse}"
            if self.across_tests:
                answer = f"More answers pass the {better} than the {worse}"
        rates = f"{100 * self.rate_a:.1f} % against {100 * self.rate_b:.1f} % of {self.n_tasks} tasks"
        limits = f"{100 * self.difference:+.1f} points [{100 * self.lo:+.1f}, {100 * self.hi:+.1f}]"
        counts = f"{self.wins} won, {self.losses} lost, {self.ties} tied"
        reach = f"A true difference of {100 * self.mde:.1f} points would be found four times in five."
        if math.isinf(self.mde):
            reach = "So few tasks cannot show a difference."
        return f"{answer}: {rates}, a difference of {limits}; {counts}, {test} p {_p_text(p)}. {reach}"

    def __str__(self) -> str:
        return self.sentence


def compare(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    ids_a: Sequence[str] | None = None,
    ids_b: Sequence[str] | None = None,
    name_a: str = "A",
    name_b: str = "B",
    *,
    tests_a: str = "",
    tests_b: str = "",
    across_tests: bool = False,
    level: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Compare A with B, (n_tasks,) or (n_tasks, n_draws), task by task; ids, if given, put B in A's order.

    Interval: Newcombe's for 0/1 results; BCa over tasks for rates of several draws, which promises too much
    where a handful of tasks differ (benchmarks/coverage.csv: 20 tasks at a rate of 1 %). Raises ValueError for
    unequal task sets, ids on one side only, or results on different tests unless that is the question
    (`across_tests=True`).
    """
    if tests_a != tests_b and not across_tests:
        kinds = f"{name_a} on {tests_a or 'unnamed'} tests, {name_b} on {tests_b or 'unnamed'} ones"
        raise ValueError(f"{kinds}: mixed test kinds are compared only with across_tests=True")
    first, second = _task_rates(a), _task_rates(b)
    if ids_a is not None or ids_b is not None:
        second = second[_alignment(ids_a, ids_b, len(first), len(second))]
    first, second = _paired(first, second)
    binary = _is_binary(first) and _is_binary(second)
    difference = first - second
    wins, losses = int((difference > RESOLUTION).sum()), int((difference < -RESOLUTION).sum())
    whole = binary or np.ptp(difference) < RESOLUTION
    if whole:
        lo, hi = newcombe_paired(first, second, level)
    else:
        lo, hi = bootstrap_interval(difference, seed=seed, level=level)
    return Comparison(
        name_a=name_a,
        name_b=name_b,
        rate_a=float(first.mean()),
        rate_b=float(second.mean()),
        difference=float(difference.mean()),
        lo=lo,
        hi=hi,
        method="newcombe" if whole else "bca",
        level=level,
        p_mcnemar=mcnemar_exact(first, second) if binary else None,
        p_permutation=paired_permutation(first, second, seed=seed),
        wins=wins,
        losses=losses,
        ties=len(first) - wins - losses,
        n_tasks=len(first),
        mde=minimum_detectable_effect(len(first), float((difference**2).mean()), level=1 - level, binary=binary),
        across_tests=tests_a != tests_b,
    )


@dataclasses.dataclass(frozen=True)
class TwoSample:
    """Two rates on different tasks: the difference, its interval and the p of Fisher's exact test."""

    difference: float
    lo: float
    hi: float
    p: float
    n_a: int
    n_b: int
    level: float = 0.95

    def __str__(self) -> str:
        interval = f"[{100 * self.lo:+.1f}, {100 * self.hi:+.1f}]"
        size = f"n = {self.n_a} and {self.n_b}; {100 * self.level:g} % Newcombe"
        return f"{100 * self.difference:+.1f} points {interval} ({size}; Fisher's exact p {_p_text(self.p)})"


def two_proportion(successes_a: int, n_a: int, successes_b: int, n_b: int, level: float = 0.95) -> TwoSample:
    """p_a − p_b for two unpaired samples.

    Interval by statsmodels' `confint_proportions_2indep(method="newcomb")` (Newcombe 1998, method 10), p by
    `scipy.stats.fisher_exact`. Raises ValueError for counts outside 0..n.
    """
    _check_counts(successes_a, n_a, level)
    _check_counts(successes_b, n_b, level)
    counts = successes_a, n_a, successes_b, n_b
    lo, hi = confint_proportions_2indep(*counts, method="newcomb", compare="diff", alpha=1 - level)
    table = [[successes_a, n_a - successes_a], [successes_b, n_b - successes_b]]
    p = float(stats.fisher_exact(table).pvalue)
    return TwoSample(successes_a / n_a - successes_b / n_b, float(lo), float(hi), p, n_a, n_b, level)


# ----------------------------------------------------------------------------------------------------- checks


def _z(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"level={level!r}: a confidence level lies between 0 and 1")
    return float(stats.norm.isf((1 - level) / 2))


def _check_counts(successes: float, trials: int, level: float) -> None:
    _z(level)
    if trials < 1 or trials != int(trials):
        raise ValueError(f"trials={trials!r}: needs a whole number of at least 1")
    if not 0 <= successes <= trials:
        raise ValueError(f"successes={successes!r} is outside 0..{trials}")


def _draws(passed: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """(n_tasks, n_draws) of booleans; a flat array is one draw a task."""
    raw = np.asarray(passed)
    results = raw[:, None] if raw.ndim == 1 else raw
    if results.ndim != 2 or not results.size:
        raise ValueError(f"results of shape {raw.shape}: needs (n_tasks, n_draws), at least one of each")
    if not np.isin(results, (0, 1)).all():
        raise ValueError("results must be true or false (1 or 0) for each draw")
    return results.astype(bool)


def _same_draws(
    visible: npt.ArrayLike, hidden: npt.ArrayLike, k: int
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    seen, truth = _draws(visible), _draws(hidden)
    if seen.shape != truth.shape:
        raise ValueError(f"visible {seen.shape} and hidden {truth.shape} results are not of the same draws")
    if not 1 <= k <= seen.shape[1]:
        raise ValueError(f"k={k}: best-of-K needs 1 <= k <= {seen.shape[1]} draws")
    return seen, truth


def _task_rates(values: npt.ArrayLike) -> Floats:
    """(n_tasks,) rates in [0, 1] from rates or from (n_tasks, n_draws) booleans."""
    raw = np.asarray(values)
    rates = _draws(raw).mean(axis=1) if raw.ndim == 2 else raw.astype(float)
    if rates.ndim != 1 or not len(rates) or not ((rates >= 0) & (rates <= 1)).all():
        raise ValueError(f"rates of shape {raw.shape}: needs one rate in 0..1 for each task")
    return rates


def _paired(a: npt.ArrayLike, b: npt.ArrayLike) -> tuple[Floats, Floats]:
    first, second = _task_rates(a), _task_rates(b)
    if len(first) != len(second):
        raise ValueError(f"{len(first)} tasks against {len(second)}: a paired test needs the same tasks")
    return first, second


def _is_binary(rates: Floats) -> bool:
    return bool(np.isin(rates, (0.0, 1.0)).all())


def _alignment(ids_a: Sequence[str] | None, ids_b: Sequence[str] | None, n_a: int, n_b: int) -> npt.NDArray[np.int64]:
    """Where each of A's tasks stands in B. Raises ValueError, naming tasks, when the sets differ."""
    if ids_a is None or ids_b is None:
        raise ValueError("task ids are given for one side only; a paired test needs both or neither")
    if len(ids_a) != n_a or len(ids_b) != n_b:
        raise ValueError(f"{len(ids_a)} and {len(ids_b)} task ids for {n_a} and {n_b} results")
    if len(set(ids_a)) != n_a or len(set(ids_b)) != n_b:
        raise ValueError("a task id occurs twice on one side of a paired test")
    odd = sorted(set(ids_a) ^ set(ids_b))
    if odd:
        raise ValueError(f"unequal task sets: {len(odd)} on one side only, as {', '.join(map(str, odd[:3]))}")
    place = {task: position for position, task in enumerate(ids_b)}
    return np.array([place[task] for task in ids_a], dtype=np.int64)


def _p_text(p: float) -> str:
    return "< 0.0001" if p < 0.0001 else f"= {p:.2g}" if p < 0.01 else f"= {p:.3f}"
