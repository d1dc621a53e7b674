"""Paired comparisons on the same tasks, in which the 95 % interval and the p-value never contradict each other.

Differs from the papers in: they compare percentages without a test.

One procedure gives both. Write the mean difference as Δ = ψ·μ: ψ is the share of tasks on which A and B differ,
μ the mean difference on those tasks.
- The test of μ is the sign-flip test (exact binomial, that is McNemar's, where every difference is ±1). Its
  inversion has a closed form: μ is rejected from below when fewer than α/2 of all subsets of the changed tasks,
  the empty one included, have a mean ≤ μ (Hartigan 1969, "typical values").
- The test of ψ is Wilson's score test.
- Δ is rejected when every pair ψ·μ = Δ has z_μ² + z_ψ² > z²: the squares of two tests that are independent given
  how many tasks changed, minimised over the pairs as in a profile likelihood.
At Δ = 0 the minimum is at μ = 0, ψ = ψ̂, so p is exactly the sign-flip test's, and p < .05 if and only if the 95 %
interval excludes 0. Sign flips alone ignore how many tasks could have changed: where none did their interval is [0, 0].
benchmarks/coverage.csv has the coverage beside BCa's and Newcombe's.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from scipy import stats
from statsmodels.stats.multitest import multipletests

from lib.stats.intervals import ALPHA, RESOLUTION, Floats, Interval, Z, p_text, task_rates, wilson_limits

FLIPS = 50_000  # Monte Carlo subsets where there are more to enumerate
ANGLES = np.linspace(0, np.pi / 2, 33)  # how z² is shared between μ and ψ

Limits = Callable[[Floats], tuple[Floats, Floats]]  # two-sided levels α to lower and upper limits of μ


@dataclasses.dataclass(frozen=True)
class PairedDifference:
    """A mean difference over tasks, its 95 % interval and the two-sided p of the test that the interval inverts."""

    difference: float
    lo: float
    hi: float
    p: float


def paired_difference(differences: npt.ArrayLike) -> PairedDifference:
    """Test and estimate the mean of per-task differences in [−1, 1], (n_tasks,).

    Deterministic: all subsets are enumerated when there are at most FLIPS distinct outcomes, else FLIPS are
    sampled with a fixed seed, the same ones for interval and p, which is then (1 + hits)/(1 + FLIPS) per side
    (Phipson & Smyth 2010). Raises ValueError for no tasks or values outside [−1, 1].
    """
    values = _differences(differences, 1)
    p, limits = _test_of_changed(values)
    lo, hi = _interval(values, limits, ALPHA)
    return PairedDifference(float(values.mean()), lo, hi, p)


def paired_over_runs(differences: npt.ArrayLike) -> PairedDifference:
    """Test and estimate a mean difference when both runs (seeds) and tasks are random; (n_runs, n_tasks).

    Crossed random effects. With the mean squares of the two-way layout, h the half-width over tasks (of the runs'
    mean differences, test inversion) and ρ = min(1, MS_residual / MS_tasks) the part of h² that averages out over
    runs as well,

        half² = max(h², (1 − ρ)·h² + t²_{R−1}·MS_runs / (R·T)),

    on each side of the mean. The last term is Student's interval over the R run means, so three runs pay for their
    two degrees of freedom (t = 4.30) whether or not the seeds turn out to matter; a pre-test that drops it when they
    seem not to covers only 90 %. Where seeds shift the difference by normal amounts this covers 94 to 98 %. p is the
    smallest α whose 1 − α interval excludes 0, found by bisection (the intervals are nested). Raises ValueError for
    fewer than three runs.
    """
    table = _differences(differences, 2)
    runs, tasks = table.shape
    if runs < 3:
        raise ValueError(f"{runs} runs: an interval over runs and tasks needs at least three")
    over_tasks, mean = table.mean(axis=0), float(table.mean())
    squares = mean_squares(table)
    shared = min(1.0, squares.residual / squares.tasks) if squares.tasks > RESOLUTION else 0.0
    error = math.sqrt(squares.runs / (runs * tasks))
    _, limits = _test_of_changed(over_tasks)

    def interval(alpha: float) -> Interval:
        half = error * float(stats.t.isf(alpha / 2, runs - 1))
        down, up = (max(h, math.hypot(math.sqrt(1 - shared) * h, half))
                    for h in np.abs(np.array(_interval(over_tasks, limits, alpha)) - mean))  # fmt: skip
        return mean - down, mean + up

    lo, hi = interval(ALPHA)
    accepted, rejected, alpha = 0.0, 1.0, ALPHA
    for _ in range(40):
        low, high = interval(alpha)
        accepted, rejected = (accepted, alpha) if low > 0 or high < 0 else (alpha, rejected)
        alpha = (accepted + rejected) / 2
    return PairedDifference(mean, lo, hi, rejected)


@dataclasses.dataclass(frozen=True)
class MeanSquares:
    """Mean squares of a two-way layout without repetition; 0 where there are no degrees of freedom."""

    runs: float
    tasks: float
    residual: float


def mean_squares(table: Floats) -> MeanSquares:
    """Return the mean squares of (n_runs, n_tasks) values.

    MS_runs = T·Var(run means), MS_tasks = R·Var(task means), MS_residual = Σ(x_rt − x̄_r − x̄_t + x̄)² / ((R−1)(T−1)).
    """
    (runs, tasks), over_runs, over_tasks = table.shape, table.mean(axis=1), table.mean(axis=0)
    rest = ((table - over_tasks - over_runs[:, None] + table.mean()) ** 2).sum() / max(1, (runs - 1) * (tasks - 1))
    return MeanSquares(
        tasks * float(over_runs.var(ddof=1)) if runs > 1 else 0.0,
        runs * float(over_tasks.var(ddof=1)) if tasks > 1 else 0.0,
        float(rest),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values of one family of comparisons adjusted by Holm (1979); empty for an empty family."""
    return [float(p) for p in multipletests(p_values, method="holm")[1]] if len(p_values) else []


# ------------------------------------------------------------------------------------------- test and inversion


def _differences(values: npt.ArrayLike, dimensions: int) -> Floats:
    array = np.asarray(values, dtype=float)
    if array.ndim != dimensions or not array.size or not (np.abs(array) <= 1 + RESOLUTION).all():
        shape = "(n_tasks,)" if dimensions == 1 else "(n_runs, n_tasks)"
        raise ValueError(f"differences of shape {array.shape}: needs {shape} of values in -1..1")
    return np.round(array, 9)


def _test_of_changed(differences: Floats) -> tuple[float, Limits]:
    """Return the two-sided p of μ = 0 on the tasks that changed, and the limits of μ at any level."""
    changed = differences[differences != 0]
    if not len(changed):
        return 1.0, lambda alphas: (np.full(len(alphas), -1.0), np.full(len(alphas), 1.0))
    if (np.abs(changed) == 1).all():
        wins = int((changed > 0).sum())
        p = 2 * float(stats.binom.cdf(min(wins, len(changed) - wins), len(changed), 0.5))
        return min(1.0, p), functools.partial(_binomial_limits, wins, len(changed))
    means, chances, empty = _subset_means(changed)
    below = empty + float(chances[means <= 0].sum())
    above = empty + float(chances[means >= 0].sum())
    return min(1.0, 2 * below, 2 * above), functools.partial(_subset_limits, means, chances, empty)


def _binomial_limits(wins: int, n: int, alphas: Floats) -> tuple[Floats, Floats]:
    """Return Clopper–Pearson limits of 2π − 1, π the chance that a changed task is won."""
    lo = stats.beta.ppf(alphas / 2, wins, n - wins + 1) if wins else np.zeros(len(alphas))
    hi = stats.beta.isf(alphas / 2, wins + 1, n - wins) if wins < n else np.ones(len(alphas))
    return 2 * lo - 1, 2 * hi - 1


def _subset_means(changed: Floats) -> tuple[Floats, Floats, float]:
    """Return the sorted means of random subsets, their chances, and the chance of the empty subset."""
    values, counts = np.unique(changed, return_counts=True)
    if np.prod(counts + 1.0) <= FLIPS:
        totals, sizes, chances = np.zeros(1), np.zeros(1), np.ones(1)
        for value, count in zip(values, counts, strict=True):
            chosen = np.arange(count + 1)
            totals = np.add.outer(totals, value * chosen).ravel()
            sizes = np.add.outer(sizes, chosen).ravel()
            chances = np.multiply.outer(chances, stats.binom.pmf(chosen, count, 0.5)).ravel()
    else:
        rng = np.random.default_rng(0)
        picked = [rng.integers(0, 2, (FLIPS // 10, len(changed)), dtype=np.int8) for _ in range(10)]
        totals = np.append(np.concatenate([part @ changed for part in picked]), 0)
        sizes = np.append(np.concatenate([part.sum(axis=1) for part in picked]), 0)
        chances = np.full(FLIPS + 1, 1 / (FLIPS + 1))
    some = sizes > 0
    means = np.round(totals[some] / sizes[some], 10)  # sums of equal values may differ in the last bit
    order = np.argsort(means)
    return means[order], chances[some][order], float(chances[~some].sum())


def _subset_limits(means: Floats, chances: Floats, empty: float, alphas: Floats) -> tuple[Floats, Floats]:
    """Return the limits of μ in [−1, 1]: the outermost subset means that leave at least α/2 beyond them."""

    def outermost(ordered: Floats, weights: Floats, unbounded: float) -> Floats:
        place = np.searchsorted(empty + np.cumsum(weights), alphas / 2)
        return np.where(empty >= alphas / 2, unbounded, ordered[np.minimum(place, len(ordered) - 1)])

    return outermost(means, chances, -1.0), outermost(means[::-1], chances[::-1], 1.0)


def _interval(differences: Floats, limits: Limits, alpha: float) -> Interval:
    """Return the extremes of ψ·μ over z_μ² + z_ψ² ≤ z²."""
    z = float(stats.norm.isf(alpha / 2))
    alphas = np.minimum(1.0, 2 * stats.norm.sf(z * np.cos(ANGLES)))
    alphas[0] = alpha
    lo, hi = limits(alphas)
    share = float((differences != 0).mean())
    least, most = wilson_limits(share, len(differences), z * np.sin(ANGLES))
    return float(np.where(lo < 0, lo * most, lo * least).min()), float(np.where(hi > 0, hi * most, hi * least).max())


# --------------------------------------------------------------------------------------------------- comparison


def minimum_detectable_effect(
    n_tasks: int, discordant_rate: float, *, power: float = 0.8, binary: bool = True
) -> float:
    """Return the smallest true difference δ that a two-sided paired test at .05 detects with `power`.

    n δ² = (z_{1−α/2} √ψ + z_{power} √(ψ − δ²))² solved for δ (Connor 1987), ψ the discordant rate; for rates
    over several samples (`binary=False`) ψ is the mean squared difference. With 0/1 results a difference δ needs
    ψ ≥ δ. If δ would exceed ψ we assume that all discordant tasks favour one side; δ then solves
    P(Bin(n, δ) ≥ m) = power, m the fewest wins with 2·2⁻ᵐ ≤ .05. inf when n < m: nothing can be detected.
    Raises ValueError for values out of range.
    """
    if n_tasks < 1 or not 0 <= discordant_rate <= 1 or not 0.5 <= power < 1:
        given = f"n_tasks={n_tasks}, discordant_rate={discordant_rate}, power={power}"
        raise ValueError(f"{given}: needs a task, a rate in 0..1 and a power in 0.5..1")
    wins = math.ceil(1 - math.log2(ALPHA))
    if n_tasks < wins:
        return math.inf
    z_power = float(stats.norm.ppf(power))
    n, edge = n_tasks + z_power**2, Z**2 * discordant_rate
    root = math.sqrt(max(0.0, n_tasks * edge - n * (edge - z_power**2 * discordant_rate)))
    effect = (math.sqrt(n_tasks * edge) + root) / n
    if 0 < effect <= (discordant_rate if binary else 1):
        return effect
    return float(stats.beta.ppf(power, wins, n_tasks - wins + 1))


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The answer to "is A better than B on the same tasks?". Rates and limits are shares; `sentence` has percent."""

    name_a: str
    name_b: str
    rate_a: float
    rate_b: float
    difference: float
    lo: float
    hi: float
    p_mcnemar: float | None  # equals p_permutation; None when tasks have several samples
    p_permutation: float
    wins: int
    losses: int
    ties: int
    mde: float  # at power 0.8
    n_tasks: int
    across_tests: bool = False  # one model on two test suites, not two models on one

    @property
    def sentence(self) -> str:
        """The answer in words, with its evidence."""
        test = "sign-flip" if self.p_mcnemar is None else "exact McNemar"
        better, worse = (self.name_a, self.name_b) if self.difference > 0 else (self.name_b, self.name_a)
        answer = f"{self.name_a} and {self.name_b} are not significantly different"
        if self.p_permutation < ALPHA:
            answer = f"{better} is better than {worse}"
            if self.across_tests:
                answer = f"More answers pass the {better} than the {worse}"
        rates = f"{100 * self.rate_a:.1f} % against {100 * self.rate_b:.1f} % of {self.n_tasks} tasks"
        limits = f"{100 * self.difference:+.1f} points [{100 * self.lo:+.1f}, {100 * self.hi:+.1f}]"
        counts = f"{self.wins} won, {self.losses} lost, {self.ties} tied"
        reach = f"At 80 % power this test detects differences of {100 * self.mde:.1f} points or more."
        if math.isinf(self.mde):
            reach = "So few tasks cannot show any difference."
        return f"{answer}: {rates}, a difference of {limits}; {counts}, {test} p {p_text(self.p_permutation)}. {reach}"

    def __str__(self) -> str:
        return self.sentence


def compare(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    *,
    name_a: str = "A",
    name_b: str = "B",
    tests_a: str = "",
    tests_b: str = "",
    across_tests: bool = False,
    ids_a: Sequence[object] = (),
    ids_b: Sequence[object] = (),
) -> Comparison:
    """Compare A with B, (n_tasks,) or (n_tasks, n_samples), on the same tasks in the same order.

    `ids_a`, `ids_b`: the tasks' ids, where they are to be checked. Raises ValueError for ids that differ, unequal
    numbers of tasks, or results on different tests unless that is the question (`across_tests=True`).
    """
    if list(ids_a) != list(ids_b):
        pair = next(((x, y) for x, y in zip(ids_a, ids_b, strict=False) if x != y), (len(ids_a), len(ids_b)))
        raise ValueError(
            f"ids differ, {pair[0]!r} against {pair[1]!r}: a paired test needs the same tasks in one order"
        )
    if tests_a != tests_b and not across_tests:
        kinds = f"{name_a} on {tests_a or 'unnamed'} tests, {name_b} on {tests_b or 'unnamed'} ones"
        raise ValueError(f"{kinds}: mixed test kinds are compared only with across_tests=True")
    first, second = task_rates(a), task_rates(b)
    if len(first) != len(second):
        raise ValueError(f"{len(first)} tasks against {len(second)}: a paired test needs the same tasks")
    binary = bool(np.isin((first, second), (0.0, 1.0)).all())
    difference = first - second
    found = paired_difference(difference)
    wins, losses = int((difference > RESOLUTION).sum()), int((difference < -RESOLUTION).sum())
    return Comparison(
        name_a=name_a,
        name_b=name_b,
        rate_a=float(first.mean()),
        rate_b=float(second.mean()),
        difference=float(difference.mean()),
        lo=found.lo,
        hi=found.hi,
        p_mcnemar=found.p if binary else None,
        p_permutation=found.p,
        wins=wins,
        losses=losses,
        ties=len(first) - wins - losses,
        n_tasks=len(first),
        mde=minimum_detectable_effect(len(first), float((difference**2).mean()), binary=binary),
        across_tests=tests_a != tests_b,
    )
