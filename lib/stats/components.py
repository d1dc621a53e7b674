"""Where the uncertainty of a difference comes from: runs (seeds), tasks and samples, and which of them would decide it.

Model: the difference of one sample pair is d + run_r + task_t + (run × task)_rt + sample_rtm. With R runs, T tasks
and M samples per task and run,

    Var(d̂) = σ²_run/R + σ²_task/T + σ²_run×task/(R·T) + σ²_sample/(R·T·M).

The components are estimated from the mean squares of the two-way layout of cell means (Searle, Casella & McCulloch
1992, §4.2), negative estimates counting as 0.
"""

import dataclasses
import math

import numpy as np
import numpy.typing as npt
from scipy import stats

from lib.stats.intervals import Z
from lib.stats.paired import mean_squares

POWER = 0.8
MOST = 1_000_000  # a larger number of tasks, samples or runs counts as "never"


@dataclasses.dataclass(frozen=True)
class Components:
    """Variances of a difference and the sizes they were estimated from.

    With one run, `runs` is nan and the run × task part is in `tasks`. With one sample per task, `samples` is nan and
    its part is in `interaction`, or in `tasks` for one run.
    """

    difference: float
    runs: float
    tasks: float
    interaction: float
    samples: float
    n_runs: int
    n_tasks: int
    n_samples: int

    def variance(self, n_runs: int, n_tasks: int, n_samples: int) -> float:
        """Return Var(d̂) for these numbers of runs, tasks and samples; unknown components count as 0."""
        sizes = (n_runs, n_tasks, n_runs * n_tasks, n_runs * n_tasks * n_samples)
        parts = (self.runs, self.tasks, self.interaction, self.samples)
        return float(sum(0.0 if math.isnan(part) else part / size for part, size in zip(parts, sizes, strict=True)))


def variance_components(a: npt.ArrayLike, b: npt.ArrayLike) -> Components:
    """Estimate the components of A − B from results (n_runs, n_tasks, n_samples), or (n_tasks, n_samples) of one run.

    Raises ValueError for unequal shapes or fewer than two tasks.
    """
    first, second = (np.asarray(given, dtype=float) for given in (a, b))
    if first.shape != second.shape or first.ndim not in (2, 3) or not first.size or first.shape[-2] < 2:
        shapes = f"results of shapes {first.shape} and {second.shape}"
        raise ValueError(f"{shapes}: needs two of one shape, ([n_runs,] n_tasks ≥ 2, n_samples)")
    first, second = (given.reshape(-1, *given.shape[-2:]) for given in (first, second))
    runs, tasks, samples = first.shape
    cells = first.mean(axis=2) - second.mean(axis=2)  # (runs, tasks)
    within = float(sum(given.var(axis=2, ddof=1).mean() for given in (first, second))) if samples > 1 else math.nan
    noise = 0.0 if samples == 1 else within / samples
    squares = mean_squares(cells)
    if runs == 1:
        of_tasks, of_runs, both = squares.tasks - noise, math.nan, 0.0
    else:
        of_tasks = (squares.tasks - squares.residual) / runs
        of_runs, both = max(0.0, (squares.runs - squares.residual) / tasks), max(0.0, squares.residual - noise)
    return Components(float(cells.mean()), of_runs, max(0.0, of_tasks), both, within, runs, tasks, samples)


def what_would_decide(found: Components) -> str:
    """Say in one sentence which of more samples, tasks or runs would find a difference of the size observed.

    "Find" means: at .05, two-sided, with 80 % power, d̂ / sd(d̂) ≥ z_.975 + z_.8. Each number is changed alone.
    """
    if found.difference == 0:
        return "No difference was observed, so no number of samples, tasks or runs can be named."
    target = (found.difference / (Z + float(stats.norm.ppf(POWER)))) ** 2
    size = f"A difference of {100 * abs(found.difference):.1f} points"
    sizes = {"samples": found.n_samples, "tasks": found.n_tasks, "runs": found.n_runs}
    if found.variance(found.n_runs, found.n_tasks, found.n_samples) <= target:
        return f"{size} is large enough to be found with {_sizes(sizes)}."
    needed = {name: _fewest(found, name, sizes, target) for name in sizes}
    factors = {name: number / sizes[name] for name, number in needed.items() if number}
    if not factors:
        return f"{size}: no change of samples, tasks or runs alone would decide it; {_sizes(sizes)} were used."
    best = min(factors, key=lambda name: factors[name])
    others = [
        f"more {name} alone would not" if not needed[name] else f"{needed[name]:,} {name} would, too"
        for name in sizes if name != best and not (name == "runs" and math.isnan(found.runs))
    ]  # fmt: skip
    return f"{size} needs more {best}: {needed[best]:,} instead of {sizes[best]:,}; {', '.join(others)}."


def _sizes(sizes: dict[str, int]) -> str:
    return ", ".join(f"{number:,} {name if number > 1 else name[:-1]}" for name, number in sizes.items())


def _fewest(found: Components, name: str, sizes: dict[str, int], target: float) -> int | None:
    """Return the least number of `name`, the others as they are, whose variance is at most `target`; None: never.

    One run says nothing about the next ones, so more runs are then no answer.
    """
    if (name == "runs" and math.isnan(found.runs)) or (name == "samples" and math.isnan(found.samples)):
        return None

    def variance(number: int) -> float:
        changed = sizes | {name: number}
        return found.variance(changed["runs"], changed["tasks"], changed["samples"])

    fixed = variance(10**15)
    if fixed >= target:
        return None
    number = math.ceil((variance(sizes[name]) - fixed) * sizes[name] / (target - fixed) - 1e-9)
    return number if number <= MOST else None
